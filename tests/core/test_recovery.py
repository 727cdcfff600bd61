from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderwire.core.recovery import (
    CONTRADICTED_AFTER,
    HINT_SPACING,
    FeedFacts,
    Freshness,
    freshness,
    hint_due,
    read_interval,
    reads_after_action,
    reconnect_delay,
    renewal_due,
)

HINT, CONFLICT = "hint: a postback came", "conflict: the order book says otherwise"


@pytest.mark.parametrize(
    ("reason", "last", "due"),
    [
        (HINT, None, 50.0),
        (HINT, 10.0, 50.0),
        (HINT, 49.9, 49.9 + HINT_SPACING),
        (CONFLICT, None, 50.0 + CONTRADICTED_AFTER),
        (CONFLICT, 49.9, 50.0 + CONTRADICTED_AFTER),
    ],
)
def test_a_hint_is_answered_at_once_unless_one_just_was_and_a_contradiction_a_second_later(reason, last, due):
    assert hint_due(reason, now=50.0, last_hint_read=last) == (due, False)
    assert CONTRADICTED_AFTER > 1


@pytest.mark.parametrize(
    ("reason", "planned", "due"),
    [
        (HINT, [49.0, 60.0], (50.0, True)),
        (HINT, [60.0], (50.0, False)),
        (HINT, [50.1], (50.0, False)),
        (CONFLICT, [49.0, 50.0, 50.99], (51.1, False)),
        (CONFLICT, [51.0], (51.0, True)),
        (CONFLICT, [50.5, 51.05, 51.02, 51.2], (51.02, True)),
        (CONFLICT, [51.11], (51.1, False)),
    ],
)
def test_a_hint_shares_a_planned_read_and_a_contradiction_one_that_is_a_second_away(reason, planned, due):
    assert hint_due(reason, now=50.0, last_hint_read=None, planned=planned) == (pytest.approx(due[0]), due[1])


LIVE = {"delivering": True, "reconciled": True, "ever_read": True}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({**LIVE}, Freshness.LIVE),
        ({**LIVE, "reconciled": False}, Freshness.RECONCILING),
        ({**LIVE, "delivering": False, "reconciled": False}, Freshness.DEGRADED),
        ({"ever_read": True, "streams": False}, Freshness.DEGRADED),
        ({**LIVE, "odd_rows": 1}, Freshness.DEGRADED),
        ({}, Freshness.RECONCILING),
        ({"failing_for": 15.0}, Freshness.RECONCILING),
        ({"failing_for": 15.1}, Freshness.STALE),
        ({**LIVE, "open_orders": 1, "read_age": 15.0}, Freshness.LIVE),
        ({**LIVE, "open_orders": 1, "read_age": 15.1}, Freshness.STALE),
        ({**LIVE, "open_orders": 0, "read_age": 99.0}, Freshness.LIVE),
        ({"open_orders": 2, "failing_for": 16.0}, Freshness.STALE),
        ({**LIVE, "logged_in": False}, Freshness.AUTH_REQUIRED),
        ({**LIVE, "push": False}, Freshness.MANUAL),
        ({**LIVE, "push": False, "logged_in": False}, Freshness.MANUAL),
    ],
)
def test_freshness_says_the_worst_that_holds(facts, expected):
    assert freshness(FeedFacts(**facts)) is expected


@pytest.mark.parametrize(
    ("state", "open_orders", "market_open", "expected"),
    [
        (Freshness.LIVE, 1, True, 4.0),
        (Freshness.LIVE, 0, True, 30.0),
        (Freshness.DEGRADED, 0, True, 3.0),
        (Freshness.DEGRADED, 3, True, 3.0),
        (Freshness.STALE, 1, True, 3.0),
        (Freshness.DEGRADED, 1, False, 30.0),
        (Freshness.MANUAL, 1, True, None),
        (Freshness.AUTH_REQUIRED, 1, True, None),
    ],
)
def test_the_book_is_read_as_often_as_the_state_asks(state, open_orders, market_open, expected):
    assert read_interval(state, open_orders=open_orders, market_open=market_open) == expected


@given(attempt=st.integers(1, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_a_reconnect_never_waits_longer_than_its_cap(attempt, chance):
    assert 0 <= reconnect_delay(attempt, chance=chance) < 8
    assert 0 <= reconnect_delay(attempt, chance=chance, market_open=False) < 60


@pytest.mark.parametrize(("attempt", "ceiling"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0)])
def test_the_back_off_doubles_up_to_the_cap(attempt, ceiling):
    assert reconnect_delay(attempt, chance=0.5) == ceiling / 2


def test_without_push_the_book_is_read_once_after_an_action():
    assert reads_after_action(push=True) == (0.0, 0.25, 1.0)
    assert reads_after_action(push=False) == (0.5,)


def ist(day, clock):
    return datetime.fromisoformat(f"2026-08-{day}T{clock}:00+05:30")


@pytest.mark.parametrize(
    ("now", "ends", "due"),
    [
        (ist(17, "08:00"), ist(17, "11:00"), True),  # it would end while the market is open
        (ist(17, "08:00"), ist(17, "09:00"), True),
        (ist(17, "08:00"), ist(18, "07:55"), False),
        (ist(17, "07:00"), ist(17, "11:00"), False),  # too early: a login of this morning lasts the day
        (ist(17, "10:00"), ist(17, "11:00"), False),  # a session in use is not interrupted before it must be
        (ist(17, "10:59"), ist(17, "11:00"), True),
        (ist(17, "12:00"), ist(17, "11:00"), True),
        (ist(16, "08:00"), ist(16, "11:00"), False),  # a Sunday
        (ist(17, "08:00"), None, False),
    ],
)
def test_a_login_is_renewed_before_the_market_opens_or_at_the_last_minute(now, ends, due):
    assert renewal_due(now, ends=ends) is due
