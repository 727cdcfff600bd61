import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderwire.core.offset import STALE_AFTER, observe


def exchange(offset, *, true_offset, local, way, back, at):
    """One call: the other side stamps a full second, `way` after we sent and `back` before we hear it."""
    told = int(local + way + true_offset)
    return observe(offset, told=float(told), sent=local, received=local + way + back, at=at)


def test_a_full_second_alone_says_it_to_half_a_second():
    found = observe(None, told=100.0, sent=100.0, received=100.0, at=0.0)

    assert (found.seconds, found.error) == (0.5, 0.5)


@given(st.floats(-7200, 7200), st.integers(0, 2**32))
def test_the_true_offset_is_always_within_the_error(true_offset, seed):
    chance = random.Random(seed)
    found = None
    for call in range(30):
        found = exchange(
            found,
            true_offset=true_offset,
            local=1_790_000_000 + 4 * call + chance.random(),
            way=chance.random() / 5,
            back=chance.random() / 5,
            at=float(call),
        )

        assert abs(found.seconds - true_offset) <= found.error + 1e-5


def test_many_exchanges_make_it_finer_than_a_second():
    found, chance = None, random.Random(7)
    for call in range(100):
        found = exchange(
            found,
            true_offset=1.9,
            local=1000 + 4 * call + chance.random(),
            way=0.02,
            back=0.02,
            at=float(call),
        )

    assert found.seconds == pytest.approx(1.9, abs=0.05)
    assert found.error < 0.06


def test_a_clock_that_was_set_begins_the_estimate_anew():
    before = observe(None, told=100.0, sent=100.0, received=100.1, at=0.0)

    after = observe(before, told=160.0, sent=101.0, received=101.1, at=1.0)

    assert after.seconds == pytest.approx(59.45)
    assert after.since == 1.0


def test_an_estimate_does_not_live_for_ever():
    before = observe(None, told=100.0, sent=100.9, received=100.9, at=0.0)

    after = observe(before, told=1100.0, sent=1100.5, received=1100.5, at=STALE_AFTER + 1)

    assert after.since == STALE_AFTER + 1
    assert after.error == 0.5
