"""From minutes to days, and from days to the scorecard that the verdict is given on. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Final

from msgspec import Struct, field

from orderwire.core.evidence import COHORTS, Cohort, Tally, add_counts, percentile_of_counts
from orderwire.core.intervals import change_of_means, percentile_of_days, rate_interval
from orderwire.core.orders import IST
from orderwire.core.verdict import CRITERIA, Answer, Criteria, Measured, Scorecard

MONTH: Final = timedelta(days=30)

AT_END: Final = 5
"""Minutes that are the end of a day: several processes do not write down the same minute at the same moment."""


class Day(Struct, frozen=True, kw_only=True):
    """One broker's accounts of one cohort on one day (IST). Minutes are account-minutes in market hours."""

    day: date
    broker: str
    cohort: Cohort
    accounts: int = 0
    """Most at once."""
    rows: int = 0
    """Minutes that were collected at all."""
    gaps: int = 0
    """Minutes between the first and the last one that were not, of any broker or cohort."""
    last: int = 0
    """The last minute."""
    at_end: int = 0
    """Accounts in the `AT_END` minutes up to it, most at once."""
    market_minutes: float = 0.0
    live_minutes: float = 0.0
    """With a live stream and no crowded queue."""
    readable_minutes: float = 0.0
    """In which the book could be read, by whatever way."""
    open_minutes: float = 0.0
    crowded: int = 0
    """Minutes in which more than 1,000 events were queued."""
    events: int = 0
    errors: int = 0
    disconnects: int = 0
    calls: int = 0
    placed: Mapping[int, int] = field(default_factory=dict)
    """Waits from placing to paint: how many of each whole number of milliseconds, rounded."""
    changes: Mapping[int, int] = field(default_factory=dict)
    stages: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def day_of(minute: int) -> date:
    """Return the day (IST) of a minute since the epoch."""
    return datetime.fromtimestamp(minute * 60, UTC).astimezone(IST).date()


def roll_up(tallies: Iterable[Tally]) -> list[Day]:
    """Put minutes together by day, broker and cohort, in that order; the same minutes always give the same days."""

    def place(tally: Tally) -> tuple[date, str, Cohort]:
        return day_of(tally.minute), tally.broker, tally.cohort

    ordered = sorted(tallies, key=lambda tally: (place(tally), tally.minute))
    collected = sorted({tally.minute for tally in ordered})
    return [_day(*key, list(given), collected) for key, given in groupby(ordered, key=place)]


def _day(day: date, broker: str, cohort: Cohort, given: Sequence[Tally], collected: Sequence[int]) -> Day:
    placed: Counter[int] = Counter()
    changes: dict[int, int] = {}
    stages: dict[str, tuple[int, int]] = {}
    for tally in given:
        placed.update(round(wait / 1000) for wait in tally.placed)
        add_counts(changes, tally.changes)
        for name, (count, total) in tally.stages.items():
            before = stages.get(name, (0, 0))
            stages[name] = (before[0] + count, before[1] + total)
    first, last = given[0].minute, given[-1].minute
    told = bisect_right(collected, last) - bisect_left(collected, first)
    return Day(
        day=day,
        broker=broker,
        cohort=cohort,
        accounts=max(t.accounts for t in given),
        rows=len(given),
        gaps=last - first + 1 - told,
        last=last,
        at_end=max(t.accounts for t in given if t.minute > last - AT_END),
        market_minutes=sum(t.market_seconds for t in given) / 60,
        live_minutes=sum(t.live_seconds for t in given if not t.crowded) / 60,
        readable_minutes=sum(t.market_seconds - t.stale_seconds for t in given) / 60,
        open_minutes=sum(t.open_seconds for t in given) / 60,
        crowded=sum(t.crowded for t in given),
        events=sum(t.events for t in given),
        errors=sum(t.errors for t in given),
        disconnects=sum(t.disconnects for t in given),
        calls=sum(t.calls for t in given),
        placed=dict(placed),
        changes=changes,
        stages=stages,
    )


class Voices(Struct, frozen=True, kw_only=True):
    """What people said, as the scorecard needs it."""

    baseline: tuple[int, ...] = ()
    """Satisfaction, 1 to 5, of the baseline wave."""
    follow_up: tuple[int, ...] = ()
    """The same of those on real-time updates, in the follow-up wave."""
    critical: tuple[datetime, ...] = ()
    """When critical incidents were opened."""
    major: tuple[datetime, ...] = ()
    recorded: Mapping[str, Answer] = field(default_factory=dict)


def score(
    days: Iterable[Day],
    voices: Voices,
    *,
    until: datetime,
    chance: Callable[[], float],
    criteria: Criteria = CRITERIA,
) -> Scorecard:
    """Make the scorecard of a pilot; `until` (aware) is the end of the time that is judged."""
    given = list(days)
    on = [d for d in given if d.cohort == "realtime"]
    off = [d for d in given if d.cohort == "manual"]
    painted = _by_day(on)
    full = [waits for waits in painted.values() if waits.total() >= criteria.full_day]
    month = until - MONTH
    return Scorecard(
        days=sum(1 for waits in painted.values() if waits),
        latency=latency(painted.values(), chance=chance),
        full_days=len(full),
        good_days=good_days(full, criteria.latency_good),
        uptime=share(sum(d.live_minutes for d in on), sum(d.market_minutes for d in on)),
        baseline_uptime=share(sum(d.readable_minutes for d in off), sum(d.market_minutes for d in off)),
        readable=share(sum(d.readable_minutes for d in on), sum(d.market_minutes for d in on)),
        errors=rate(sum(d.errors for d in on), sum(d.events for d in on)),
        satisfaction=_satisfaction(voices, chance=chance),
        calls=calls(on),
        adoption=adoption(given),
        critical_bugs=sum(month <= opened < until for opened in voices.critical),
        major_bugs=sum(month <= opened < until for opened in voices.major),
        team_comfortable=voices.recorded.get("team_comfortable"),
        maintenance=voices.recorded.get("maintenance"),
    )


def _by_day(days: Iterable[Day]) -> dict[date, Counter[int]]:
    by_day: dict[date, Counter[int]] = {}
    for day in days:
        by_day.setdefault(day.day, Counter()).update(day.placed)
    return by_day


def latency(days: Iterable[Counter[int]], *, chance: Callable[[], float]) -> Measured | None:
    """Return placed to painted p95 in seconds, with its interval by resampling days; None without a paint."""
    given = [day for day in days if day]
    if not given:
        return None
    value, low, high = percentile_of_days(given, 95, chance=chance)
    count = sum(day.total() for day in given)
    return Measured(value=value / 1000, low=low / 1000, high=high / 1000, count=count)


def good_days(days: Iterable[Counter[int]], target: float) -> float:
    """Return the share of the days with paints whose own p95 is below `target` seconds; 0 without one."""
    given = [day for day in days if day]
    good = sum(percentile_of_counts(day, 95) < target * 1000 for day in given)
    return good / len(given) if given else 0.0


def share(part: float, whole: float) -> Measured | None:
    """Return `part` of `whole` account-minutes with its exact interval; None without a minute."""
    return rate(round(min(part, whole)), round(whole))


def rate(hits: int, count: int) -> Measured | None:
    """Return `hits` of `count` with its exact interval; None without a count."""
    if not count:
        return None
    low, high = rate_interval(min(hits, count), count)
    return Measured(value=hits / count, low=low, high=high, count=count)


def _satisfaction(voices: Voices, *, chance: Callable[[], float]) -> Measured | None:
    if not voices.baseline or not voices.follow_up:
        return None
    value, low, high = change_of_means(voices.baseline, voices.follow_up, chance=chance)
    return Measured(value=value, low=low, high=high, count=min(len(voices.baseline), len(voices.follow_up)))


def calls(on: Iterable[Day]) -> Measured | None:
    """Return order-status reads of the pilot, relative to polling once a second while orders are open.

    The REST cohort reads on refresh only, which is fewer calls and later news; what it replaces is the poll.
    """
    made = list(on)
    polls = sum(d.open_minutes for d in made) * 60
    if not polls:
        return None
    reads = sum(d.calls for d in made)
    value = reads / polls - 1
    return Measured(value=value, low=value, high=value, count=reads)


def adoption(days: Iterable[Day]) -> Measured | None:
    """Return the share of the accounts on real-time updates in the last minutes with data; None without one.

    The day's most would count an account twice that changed its cohort on that day.
    """
    given = list(days)
    if not given:
        return None
    last = max(d.last for d in given)
    on, off = (
        sum(d.at_end for d in given if d.cohort == cohort and d.last > last - AT_END) for cohort in COHORTS
    )
    return rate(on, on + off)
