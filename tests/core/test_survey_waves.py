from datetime import UTC, datetime, timedelta

from orderwire.core.survey import FOLLOW_UP_AFTER, open_wave, opened_waves

MONDAY = datetime(2026, 10, 5, tzinfo=UTC)


def test_outside_a_pilot_nobody_is_asked():
    assert open_wave([], now=MONDAY) is None


def test_the_baseline_is_asked_until_somebody_is_let_in():
    decided = [(MONDAY, 0)]

    assert open_wave(decided, now=MONDAY + timedelta(days=6)) == "baseline"
    assert open_wave([*decided, (MONDAY + timedelta(days=7), 10)], now=MONDAY + timedelta(days=8)) is None


def test_the_follow_up_is_asked_near_the_end():
    decided = [(MONDAY, 0), (MONDAY + timedelta(days=7), 10), (MONDAY + timedelta(days=14), 25)]
    opens = MONDAY + timedelta(days=7) + FOLLOW_UP_AFTER

    assert open_wave(decided, now=opens - timedelta(seconds=1)) is None
    assert open_wave(decided, now=opens) == "follow-up"


def test_what_was_asked_stays_opened():
    decided = [(MONDAY, 0), (MONDAY + timedelta(days=7), 10), (MONDAY + timedelta(days=14), 25)]
    opens = MONDAY + timedelta(days=7) + FOLLOW_UP_AFTER

    assert opened_waves([], now=opens) == set()
    assert opened_waves(decided[:1], now=MONDAY) == {"baseline"}
    assert opened_waves(decided, now=opens - timedelta(seconds=1)) == {"baseline"}
    assert opened_waves(decided, now=opens) == {"baseline", "follow-up"}


def test_who_was_let_in_at_once_was_never_asked_for_a_baseline():
    assert opened_waves([(MONDAY, 100)], now=MONDAY + FOLLOW_UP_AFTER) == {"follow-up"}
