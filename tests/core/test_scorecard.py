from collections import Counter
from datetime import UTC, date, datetime
from random import Random

import pytest

from orderwire.core.evidence import Tally
from orderwire.core.scorecard import Voices, day_of, good_days, latency, roll_up, score
from orderwire.core.verdict import CRITERIA, Answer

TEN = int(datetime(2026, 8, 17, 4, 30, tzinfo=UTC).timestamp()) // 60
"""10:00 IST."""
UNTIL = datetime(2026, 9, 20, tzinfo=UTC)


def tally(minute=TEN, **facts):
    known = {
        "broker": "paisa",
        "cohort": "realtime",
        "accounts": 2,
        "market_seconds": 120.0,
        "live_seconds": 120.0,
    }
    return Tally(minute=minute, **(known | facts))


def scored(tallies, voices=None):
    return score(roll_up(tallies), voices or Voices(), until=UNTIL, chance=Random(1).random)


def test_a_day_ends_at_midnight_in_india():
    last = int(datetime(2026, 8, 17, 18, 29, tzinfo=UTC).timestamp()) // 60

    assert (day_of(last), day_of(last + 1)) == (date(2026, 8, 17), date(2026, 8, 18))


def test_minutes_add_up_by_day_broker_and_cohort_whatever_their_order():
    minutes = [tally(TEN + at, events=1) for at in range(3)]
    minutes += [tally(cohort="manual"), tally(broker="other"), tally(TEN + 1440)]
    shuffled = Random(2).sample(minutes, len(minutes))

    days = roll_up(shuffled)

    assert days == roll_up(minutes)
    assert [(d.day.day, d.broker, d.cohort, d.rows) for d in days] == [
        (17, "other", "realtime", 1),
        (17, "paisa", "manual", 1),
        (17, "paisa", "realtime", 3),
        (18, "paisa", "realtime", 1),
    ]
    assert days[2].events == 3
    assert days[2].market_minutes == 6


def test_gaps_are_counted():
    assert roll_up([tally(TEN), tally(TEN + 5)])[0].gaps == 4


def test_minutes_in_which_everybody_was_in_the_other_cohort_are_no_gap():
    """Everybody was taken off for a while: those minutes were collected, of the others."""
    minutes = [tally(TEN), tally(TEN + 9)]
    minutes += [tally(TEN + at, cohort="manual") for at in range(1, 7)]

    days = {day.cohort: day for day in roll_up(minutes)}

    assert (days["realtime"].gaps, days["manual"].gaps) == (2, 0)


def test_adoption_is_who_is_on_at_the_end():
    """On the last day half of the accounts were let in: each was in both cohorts that day."""
    minutes = [
        tally(TEN, accounts=2),
        tally(TEN, cohort="manual", accounts=8),
        tally(TEN + 9, accounts=7),
        tally(TEN + 9, cohort="manual", accounts=3),
        tally(TEN + 9, broker="other", accounts=2),
    ]

    assert scored(minutes).adoption.value == 9 / 12
    everybody = [*minutes, tally(TEN + 20, accounts=10), tally(TEN + 21, broker="other", accounts=2)]
    assert scored(everybody).adoption.value == 1
    stopped = [*minutes, tally(TEN + 20, cohort="manual", accounts=12)]
    assert scored(stopped).adoption.value == 0


def test_a_crowded_minute_counts_against_uptime():
    (day,) = roll_up([tally(queue_high=1001), tally(TEN + 1)])

    assert (day.market_minutes, day.live_minutes, day.crowded) == (4, 2, 1)


def test_the_scorecard_of_a_small_world_is_what_one_computes_by_hand():
    on = [
        tally(
            TEN + day * 1440,
            placed=(100_000, 200_000),
            events=50,
            errors=1,
            calls=12,
            open_seconds=60.0,
            live_seconds=90.0,
        )
        for day in range(2)
    ]
    off = [tally(TEN + 1440, cohort="manual", accounts=6, live_seconds=0.0, stale_seconds=60.0)]
    voices = Voices(
        baseline=(2, 2),
        follow_up=(3, 3),
        critical=(UNTIL.replace(day=1), UNTIL.replace(month=1)),
        recorded={"maintenance": Answer(value="low", author="ops")},
    )

    card = scored(on + off, voices)

    assert card.days == 2
    assert (card.latency.value, card.latency.count) == (0.2, 4)
    assert (card.full_days, card.good_days) == (0, 0)
    assert (card.uptime.value, card.uptime.count) == (0.75, 4)
    assert card.baseline_uptime.value == 0.5
    assert card.errors.value == 0.02
    assert card.calls.value == pytest.approx(24 / 120 - 1)
    assert card.satisfaction.value == 0.5
    assert card.adoption.value == 2 / 8
    assert (card.critical_bugs, card.major_bugs) == (1, 0)
    assert (card.maintenance.author, card.team_comfortable) == ("ops", None)


def test_nothing_collected_is_nothing_known():
    card = scored([])

    assert (card.days, card.latency, card.uptime, card.errors, card.calls, card.adoption) == (0,) + (
        None,
    ) * 5


def test_days_without_a_paint_are_no_days_with_data():
    card = scored([tally(), tally(TEN + 1440, placed=(1000,))])

    assert card.days == 1


def test_a_day_with_few_orders_is_neither_good_nor_bad():
    """Three days of twenty quick orders, and one on which the only order was slow."""
    days = [tally(TEN + day * 1440, placed=(100_000,) * CRITERIA.full_day) for day in range(3)]
    quiet = tally(TEN + 3 * 1440, placed=(9_000_000,))

    card = scored([*days, quiet])

    assert (card.days, card.full_days, card.good_days) == (4, 3, 1)
    almost = tally(TEN + 4 * 1440, placed=(9_000_000,) * (CRITERIA.full_day - 1))
    assert scored([*days, almost]).full_days == 3
    assert scored([*days, quiet, almost]).good_days == 1


def test_a_full_day_of_several_brokers_is_one_day():
    halves = [
        tally(TEN, broker=broker, placed=(900_000,) * (CRITERIA.full_day // 2)) for broker in ("a", "b")
    ]

    assert (scored(halves).full_days, scored(halves).good_days) == (1, 0)


def test_good_days_look_at_each_days_own_p95():
    """Nineteen quick orders and one slow one: the slow one is not the p95 of the day, two of twenty are."""
    quick = Counter({100: 19, 900: 1})
    slow = Counter({100: 18, 900: 2})

    assert good_days([quick, slow, Counter()], 0.5) == 0.5
    assert latency([Counter()], chance=Random(1).random) is None
