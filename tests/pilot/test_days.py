"""The pilot's days, by broker and cohort."""

from datetime import UTC, date, datetime, timedelta

import pytest

from orderwire.core.evidence import Tally, minute_of
from orderwire.core.orders import IST
from orderwire.pilot.days import COLUMNS, daily, in_columns
from orderwire.store.survey import Severity, Voices

FIRST = date(2026, 11, 2)
"""A Monday."""


@pytest.fixture
def voices(database):
    return Voices(database)


def at(day, minute=0):
    moment = datetime(day.year, day.month, day.day, 10, minute, tzinfo=IST)
    return minute_of(moment.astimezone(UTC))


def a_minute(day, minute=0, **more):
    return Tally(**{"minute": at(day, minute), "broker": "paisa", "cohort": "realtime"} | more)


def rows(records, voices, *, days=7):
    return daily(records, voices, since=FIRST, until=FIRST + timedelta(days=days - 1))


def test_a_day_adds_its_minutes_up(records, voices):
    records.keep(
        [
            a_minute(
                FIRST,
                n,
                accounts=3,
                placed=(100_000 * (n + 1),),
                changes={0: 1},
                stages={"joined": (2, 3000)},
                market_seconds=180,
                live_seconds=90,
                stale_seconds=18,
                events=10,
                errors=1,
                disconnects=1,
                calls=7,
            )
            for n in (0, 1, 3)
        ]
    )
    records.keep([a_minute(FIRST, cohort="manual", accounts=1)])
    voices.open_incident(Severity.MAJOR, "x", who="ops", at=datetime(2026, 11, 2, 6, tzinfo=UTC))

    row, other = rows(records, voices, days=1)

    assert (row["cohort"], other["cohort"]) == ("realtime", "manual")
    assert (row["minutes"], row["minutes_missing"], row["accounts"], row["adoption"]) == (3, 1, 3, 0.75)
    assert (row["orders"], row["placed_p50_ms"], row["placed_p95_ms"]) == (3, 200, 400)
    assert (row["updates"], row["within_100_ms"], row["joined_ms"], row["queued_ms"]) == (3, 1.0, 1.5, None)
    assert (row["uptime"], row["readable"]) == (0.5, 0.9)
    assert (row["events"], row["errors"], row["disconnects"], row["calls"]) == (30, 3, 3, 21)
    assert (row["incidents"], other["placed_p95_ms"]) == (1, None)


def test_a_working_day_without_data_is_a_gap_and_a_weekend_is_none(records, voices):
    records.keep([a_minute(FIRST), a_minute(FIRST + timedelta(days=3), broker="wired")])

    told = [(row["day"].day, row["broker"], row["minutes"]) for row in rows(records, voices)]

    gaps = [(day, broker, 0) for day in (3, 4, 6) for broker in ("paisa", "wired")]
    assert told == sorted([(2, "paisa", 1), (5, "wired", 1), *gaps])
    assert rows(records, voices)[1].keys() == {"day", "broker", "cohort", "minutes", "incidents"}


def test_minutes_that_come_twice_or_late_make_the_day_as_if_they_had_come_once_and_in_time(records, voices):
    records.keep([a_minute(FIRST, n, events=1) for n in (5, 6)])
    records.keep([a_minute(FIRST, n, events=1) for n in (4, 5)])

    (row,) = rows(records, voices, days=1)

    assert (row["minutes"], row["events"]) == (3, 3)
    assert rows(records, voices, days=1) == [row]


def test_every_row_has_every_column(records, voices):
    records.keep([a_minute(FIRST)])

    assert all(tuple(row) == COLUMNS for row in in_columns(rows(records, voices)))
