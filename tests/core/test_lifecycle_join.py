from __future__ import annotations

import itertools
from decimal import Decimal
from functools import reduce

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from core.lifecycles import CANCEL, LIVES, MODIFY, S, rest, said
from orderwire.core.lifecycle import OrderState, join, lift, observe, status_of, view
from orderwire.core.orders import Channel, OrderStatus, Overlay, Tier

WORDS = [
    (S.PENDING_NEW, 0, 0, Overlay.NONE),
    (None, 5, 0, CANCEL),
    (None, 4, 1, MODIFY),
    (None, 6, 0, Overlay.NONE),
    (S.UNKNOWN, -1, 0, Overlay.NONE),
    (S.TRIGGER_PENDING, 7, 0, Overlay.NONE),
    (S.OPEN, 8, 0, Overlay.NONE),
    (S.PARTIALLY_FILLED, 8, 1, Overlay.NONE),
    (S.REJECTED, 9, 0, Overlay.NONE),
    (S.CANCELLED, 9, 1, Overlay.NONE),
    (S.EXPIRED, 9, 0, Overlay.NONE),
    (S.FILLED, 9, 2, Overlay.NONE),
]
"""A small world: every kind of statement there is, one or two of each."""


def small_world():
    for status, phase, filled, overlay in WORDS:
        for at, price in ((0, 1), (1, 2), (1, 3)):
            update = said(
                status,
                at=at,
                phase=phase,
                overlay=overlay,
                filled_quantity=filled,
                average_price=Decimal(price * bool(filled)),
                quantity=2,
                price=Decimal(price),
                reason="why" * (price == 2),
                exchange_order_id="9" * price,
                known_symbol=price > 1,
                channel=Channel.REST if price == 3 else Channel.STREAM,
            )
            yield lift(update, revision=1 if (status, price) == (S.OPEN, 2) else 0)


WORLD = list(small_world())


def test_the_small_world_is_not_trivial():
    assert len(WORLD) == 36
    assert len({msgspec.json.encode(state) for state in WORLD}) == 36


def test_joining_is_idempotent_everywhere_in_the_small_world():
    for a, b in itertools.product(WORLD, repeat=2):
        both = join(a, b)

        assert join(a, a) is a
        assert join(both, a) is both
        assert join(both, b) is both
        assert join(both, both) is both


def test_joining_is_commutative_everywhere_in_the_small_world():
    for a, b in itertools.combinations(WORLD, 2):
        assert join(a, b) == join(b, a)


def test_joining_is_associative_everywhere_in_the_small_world():
    joined = {(m, n): join(WORLD[m], WORLD[n]) for m, n in itertools.product(range(len(WORLD)), repeat=2)}
    for m, n, k in itertools.product(range(len(WORLD)), repeat=3):
        assert join(joined[m, n], WORLD[k]) == join(WORLD[m], joined[n, k])


def test_whatever_is_joined_in_the_small_world_only_rises():
    for a, b in itertools.product(WORLD, repeat=2):
        both = join(a, b)
        if a.revision == b.revision:
            assert both.fill.filled == max(a.fill.filled, b.fill.filled)
            assert status_of(both).terminal == (status_of(a).terminal or status_of(b).terminal)


# --- any observations -------------------------------------------------------------------------------------

prices = st.sampled_from([Decimal(0), Decimal("1500.05"), Decimal("1500.050"), Decimal(1490)])
texts = st.sampled_from(["", "a", "b"])
words = st.sampled_from(WORDS)


@st.composite
def observations(draw, channels=(Channel.REST, Channel.HISTORY, Channel.STREAM)):
    status, phase, _, overlay = draw(words)
    filled = draw(st.integers(0, 3))
    return said(
        status,
        at=draw(st.sampled_from([None, 0, 1, 2])),
        phase=phase,
        overlay=overlay,
        channel=draw(st.sampled_from(channels)),
        filled_quantity=filled,
        average_price=draw(prices),
        quantity=draw(st.integers(3, 5)),
        price=draw(prices),
        trigger_price=draw(prices),
        order_type=draw(st.sampled_from(["LIMIT", "SL", "MARKET"])),
        history_index=draw(st.sampled_from([-1, 0, 1])),
        reason=draw(texts),
        tag=draw(texts),
        exchange_order_id=draw(texts),
        parent_order_id=draw(texts),
        known_symbol=draw(st.booleans()),
        symbol=draw(st.sampled_from(["INFY", "INFY-EQ"])),
    )


states = st.builds(lift, observations(), revision=st.integers(0, 1))


@given(st.lists(states, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_any_permutation_and_duplication_ends_in_the_same_state(some, random):
    again = [*some, *random.choices(some, k=3)]
    random.shuffle(again)

    assert reduce(join, again) == reduce(join, some)


@given(st.lists(states, min_size=3, max_size=9))
def test_joining_in_groups_is_joining_one_by_one(some):
    third = len(some) // 3
    groups = [some[:third], some[third : 2 * third], some[2 * third :]]

    assert reduce(join, [reduce(join, group) for group in groups]) == reduce(join, some)


@given(states, states)
def test_a_join_looks_the_same_from_both_sides(a, b):
    assert view(join(a, b)) == view(join(b, a))


@given(states, states)
def test_a_state_survives_being_written_down(a, b):
    state = join(a, b)

    assert msgspec.json.decode(msgspec.json.encode(state), type=OrderState) == state
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=OrderState) == state


@given(st.lists(observations(), min_size=1, max_size=12))
def test_what_is_seen_never_goes_back(updates):
    state = None
    for update in updates:
        before, state = state, observe(state, update).state
        if before is not None and state is not None:
            assert state.fill.filled >= before.fill.filled
            assert view(state).filled_quantity >= view(before).filled_quantity
            assert view(state).status.terminal >= view(before).status.terminal


@given(st.lists(observations(), min_size=1, max_size=8))
def test_only_an_explicit_word_ends_an_order(updates):
    state = reduce(join, map(lift, updates))
    words = {update.status for update in updates}

    assert not status_of(state).terminal or status_of(state) in words


@given(st.lists(observations(), min_size=1, max_size=8))
def test_the_strongest_ending_wins(updates):
    strength = [S.REJECTED, S.EXPIRED, S.CANCELLED, S.FILLED]
    ends = [update.status for update in updates if update.status in strength]
    state = reduce(join, map(lift, updates))

    assert status_of(state) is max(ends, key=strength.index) if ends else not status_of(state).terminal


@given(st.lists(observations(), max_size=4), observations((Channel.POSTBACK,)))
def test_a_postback_never_changes_a_state(updates, postback):
    state = reduce(join, map(lift, updates)) if updates else None

    outcome = observe(state, postback)

    assert postback.tier is Tier.C
    assert outcome.state is state
    assert (outcome.changed, outcome.surprising, outcome.tie) == (False, False, False)
    assert outcome.verify == "hint: a postback came"


@given(observations(), observations())
def test_changed_says_exactly_whether_what_is_seen_differs(first, then):
    before = lift(first)

    outcome = observe(before, then)

    assert outcome.changed == (view(outcome.state) != view(before))


@given(observations(), observations())
def test_observing_is_joining_unless_it_is_held_or_refused(first, then):
    before = lift(first)

    outcome = observe(before, then)

    if outcome.held or outcome.refused:
        assert outcome.state is before
    else:
        assert outcome.state == join(before, lift(then))


# --- real lives -------------------------------------------------------------------------------------------

SOURCES = (Channel.STREAM, Channel.REST)


def through(life, channel):
    return [replace(update, channel=channel) for update in life]


@pytest.mark.parametrize("name", LIVES)
def test_a_life_ends_the_same_in_every_order(name):
    life = LIVES[name]
    expected = reduce(join, map(lift, life))

    for order in itertools.permutations(map(lift, life)):
        assert reduce(join, order) == expected


@pytest.mark.parametrize("name", LIVES)
@given(data=st.data())
def test_a_life_told_twice_by_two_channels_ends_as_it_should(name, data):
    life = LIVES[name]
    told = [*through(life, Channel.STREAM), *through(life, Channel.REST)]
    kept = data.draw(st.lists(st.sampled_from(told), max_size=20))
    order = data.draw(st.permutations([*kept, through(life, Channel.REST)[-1]]))

    seen = view(reduce(join, map(lift, order)))

    assert (seen.status, seen.filled_quantity, seen.price, seen.reason) == (
        life[-1].status,
        life[-1].filled_quantity,
        life[-1].price,
        life[-1].reason,
    )
    assert (seen.pending_quantity, seen.pending_modify, seen.pending_cancel) == (0, False, False)


@pytest.mark.parametrize("name", LIVES)
@given(data=st.data())
def test_one_read_of_the_book_repairs_any_loss(name, data):
    life = LIVES[name]
    now = data.draw(st.integers(1, len(life)))
    told = data.draw(st.lists(st.sampled_from(life[:now]), max_size=10))
    row = replace(life[now - 1], channel=Channel.REST)
    state = None
    for update in [*told, row]:
        state = observe(state, update).state
    lived = reduce(join, map(lift, life[:now]))

    assert state is not None
    assert view(state).filled_quantity == row.filled_quantity
    if row.status is not None:
        assert view(state).status is row.status
        assert view(state).price == row.price
    assert status_of(lived).terminal == status_of(state).terminal


@pytest.mark.parametrize("name", LIVES)
def test_a_life_as_it_happens_surprises_nobody(name):
    state = None
    for update in LIVES[name]:
        outcome = observe(state, replace(update, channel=Channel.REST))
        state = outcome.state
        assert not outcome.surprising, update.raw_status
        assert not outcome.refused
        assert not outcome.held


def test_every_terminal_word_occurs_in_the_lives():
    ends = {life[-1].status for life in LIVES.values()}

    assert ends == {S.FILLED, S.CANCELLED, S.REJECTED, S.EXPIRED}
    assert {status for status in OrderStatus if status.terminal} == ends


def test_rest_and_stream_agree_on_what_a_statement_is():
    assert lift(said()).terms == lift(rest()).terms
