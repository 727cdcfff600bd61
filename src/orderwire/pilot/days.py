"""What each day brought, by broker and cohort: one flat row each, made from the minutes whenever somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, Final

from orderwire.core.evidence import COHORTS, minute_of, percentile_of_counts, share_below
from orderwire.core.latency import STAGES
from orderwire.core.orders import IST
from orderwire.core.scorecard import Day, roll_up
from orderwire.pilot.report import FAST
from orderwire.store.pilot import PilotRecords
from orderwire.store.survey import Incident, Voices

COLUMNS: Final = (
    "day", "broker", "cohort", "minutes", "minutes_missing", "accounts", "adoption", "orders", "placed_p50_ms",
    "placed_p95_ms", "updates", "within_100_ms", *(f"{stage}_ms" for stage in STAGES), "uptime", "readable", "events",
    "errors", "disconnects", "calls", "minutes_crowded", "incidents",
)  # fmt: skip
"""The columns, in their order. `minutes` 0 on a working day: nothing was collected, and nothing else is told of it."""


def daily(records: PilotRecords, voices: Voices, *, since: date, until: date) -> list[dict[str, Any]]:
    """Make the rows of the days from `since` to `until`, both included; the same minutes give the same rows.

    A broker's cohort has a row on each day on which it had accounts. A working day without any data is a gap: there
    each of them has a row that says so. Waits in milliseconds, shares from 0 to 1. Reads only.
    """
    begin, end = (datetime.combine(day, time(), IST) for day in (since, until + timedelta(days=1)))
    days = roll_up(records.minutes(minute_of(begin), minute_of(end)))
    found = {(day.day, day.broker, day.cohort): day for day in days}
    places = sorted(
        {(day.broker, day.cohort) for day in days}, key=lambda place: (place[0], COHORTS.index(place[1]))
    )
    collected = {given.day for given in days}
    incidents = Counter(_indian_day(incident) for incident in voices.incidents())
    rows = []
    for number in range((until - since).days + 1):
        day = since + timedelta(days=number)
        for broker, cohort in places:
            given = found.get((day, broker, cohort))
            if given is not None:
                rows.append(_row(given, _adoption(found, given), incidents[day]))
            elif day.weekday() < 5 and day not in collected:
                rows.append(
                    {
                        "day": day,
                        "broker": broker,
                        "cohort": cohort,
                        "minutes": 0,
                        "incidents": incidents[day],
                    }
                )
    return rows


def _indian_day(incident: Incident) -> date:
    return incident.opened.astimezone(IST).date()


def _adoption(found: Mapping[Any, Day], day: Day) -> float | None:
    """Of the accounts of the day's broker, what share was in the day's cohort."""
    there = [found.get((day.day, day.broker, cohort)) for cohort in COHORTS]
    return _share(day.accounts, sum(each.accounts for each in there if each is not None))


def _row(day: Day, adoption: float | None, incidents: int) -> dict[str, Any]:
    return {
        "day": day.day,
        "broker": day.broker,
        "cohort": day.cohort,
        "minutes": day.rows,
        "minutes_missing": day.gaps,
        "accounts": day.accounts,
        "adoption": adoption,
        "orders": sum(day.placed.values()),
        "placed_p50_ms": percentile_of_counts(day.placed, 50) if day.placed else None,
        "placed_p95_ms": percentile_of_counts(day.placed, 95) if day.placed else None,
        "updates": sum(day.changes.values()),
        "within_100_ms": round(share_below(day.changes, FAST), 6) if day.changes else None,
        **_stages(day),
        "uptime": _share(day.live_minutes, day.market_minutes),
        "readable": _share(day.readable_minutes, day.market_minutes),
        "events": day.events,
        "errors": day.errors,
        "disconnects": day.disconnects,
        "calls": day.calls,
        "minutes_crowded": day.crowded,
        "incidents": incidents,
    }


def _stages(day: Day) -> dict[str, float | None]:
    """Return each stage's mean."""
    means: dict[str, float | None] = {}
    for stage in STAGES:
        count, total = day.stages.get(stage, (0, 0))
        means[f"{stage}_ms"] = round(total / count / 1000, 3) if count else None
    return means


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 6) if whole else None


def in_columns(rows: Iterable[Mapping[str, Any]]) -> Sequence[dict[str, Any]]:
    """Give every row every column; empty where nothing is known."""
    return [{name: "" if row.get(name) is None else row[name] for name in COLUMNS} for row in rows]
