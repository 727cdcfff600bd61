"""What one minute tells of the pilot: counts and durations of one broker's accounts in one cohort, that add up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, Literal

from msgspec import Struct, field

from orderwire.core.latency import bucket_of, lower_bound

Cohort = Literal["realtime", "manual"]
"""`realtime`: the push path is on; `manual`: today's behaviour, the baseline."""

COHORTS: Final[tuple[Cohort, ...]] = ("realtime", "manual")

PLACED: Final = "placed to painted"
"""From our own place call to the paint of the first state that the broker confirmed."""

RECEIVED: Final = "received to painted"
"""Of every painted change: from the moment the broker's word reached us."""

QUEUE_LIMIT: Final = 1000
"""Events queued above which a minute counts against stability (epic: queue > 1,000)."""


class Tally(Struct, frozen=True, kw_only=True):
    """One minute of one broker's accounts in one cohort. Seconds are account-seconds."""

    minute: int
    """Minutes since the epoch (UTC)."""
    broker: str
    cohort: Cohort
    accounts: int = 0
    market_seconds: float = 0.0
    """In the market hours of the accounts; the other seconds are counted within them only."""
    live_seconds: float = 0.0
    """The stream delivered and the book was reconciled."""
    polling_seconds: float = 0.0
    stale_seconds: float = 0.0
    """Nothing could be read, or nobody was logged in."""
    open_seconds: float = 0.0
    """With an order open: what polling once a second would have cost a call each."""
    events: int = 0
    """Observations taken in."""
    errors: int = 0
    """Observations that became dead letters, and streams that broke."""
    disconnects: int = 0
    calls: int = 0
    """REST reads of order books and histories."""
    queue_high: int = 0
    """Most events queued at once, in the whole process."""
    placed: tuple[int, ...] = ()
    """Each wait from placing to paint, in microseconds, raw."""
    changes: Mapping[int, int] = field(default_factory=dict)
    """Waits of later changes, received to painted: how many in each bucket of `core.latency`."""
    stages: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Of every paint, by stage: how many, and microseconds together."""

    @property
    def crowded(self) -> bool:
        """Whether the queue was longer than it may be."""
        return self.queue_high > QUEUE_LIMIT


def merged(tallies: Iterable[Tally], *, minute: int, broker: str, cohort: Cohort) -> Tally:
    """Add tallies up; the result carries the given minute and names. `accounts` is the most of any of them."""
    given = list(tallies)
    changes: dict[int, int] = {}
    stages: dict[str, tuple[int, int]] = {}
    for tally in given:
        add_counts(changes, tally.changes)
        for name, (count, total) in tally.stages.items():
            before = stages.get(name, (0, 0))
            stages[name] = (before[0] + count, before[1] + total)
    return Tally(
        minute=minute,
        broker=broker,
        cohort=cohort,
        accounts=max((t.accounts for t in given), default=0),
        market_seconds=sum(t.market_seconds for t in given),
        live_seconds=sum(t.live_seconds for t in given),
        polling_seconds=sum(t.polling_seconds for t in given),
        stale_seconds=sum(t.stale_seconds for t in given),
        open_seconds=sum(t.open_seconds for t in given),
        events=sum(t.events for t in given),
        errors=sum(t.errors for t in given),
        disconnects=sum(t.disconnects for t in given),
        calls=sum(t.calls for t in given),
        queue_high=max((t.queue_high for t in given), default=0),
        placed=tuple(wait for t in given for wait in t.placed),
        changes=changes,
        stages=stages,
    )


def minute_of(moment: datetime) -> int:
    """Return the minute since the epoch of an aware moment."""
    return int(moment.timestamp()) // 60


def add_counts(into: dict[int, int], counts: Mapping[int, int]) -> None:
    """Add counts by bucket to `into`."""
    for bucket, count in counts.items():
        into[bucket] = into.get(bucket, 0) + count


def bucket_of_change(ns: int) -> int:
    """Return the bucket in which a wait of `ns` nanoseconds is counted."""
    return bucket_of(ns / 1e9)


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the value that `percent` of all do not exceed (nearest rank); 0 without any."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(int(rank), 1) - 1]


def percentile_of_counts(counts: Mapping[int, int], percent: float) -> int:
    """Return the value that `percent` of the counted ones do not exceed (nearest rank); 0 without any."""
    rank, seen = sum(counts.values()) * percent / 100, 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= rank:
            return value
    return 0


def share_below(changes: Mapping[int, int], seconds: float) -> float:
    """Return the share of the counted waits in buckets that end at or below `seconds`: never too good. 0 of none."""
    total = sum(changes.values())
    below = sum(count for bucket, count in changes.items() if lower_bound(bucket + 1) <= seconds)
    return below / total if total else 0.0


# --- told in a line ---------------------------------------------------------------------------------------


class Summary(Struct, frozen=True, kw_only=True):
    """What some minutes of one cohort told together: the numbers that stand beside a decision."""

    minutes: int
    """Different minutes with a row."""
    accounts: int
    """Most at once."""
    paints: int
    latency_p50: float
    """Seconds, placed to painted."""
    latency_p95: float
    events: int
    errors: int
    disconnects_per_hour: float
    """Per account, in market hours."""
    live_share: float
    """Of the account-seconds in market hours, those with a stream that delivered."""
    calls_per_hour: float
    """Order-status reads per account, in market hours."""

    @property
    def error_rate(self) -> float:
        """Errors per event; 0 without events."""
        return self.errors / self.events if self.events else 0.0


def summary(tallies: Iterable[Tally]) -> Summary:
    """Put minutes of one cohort together, whatever their brokers."""
    given = list(tallies)
    whole = merged(given, minute=0, broker="", cohort="manual")
    at_once: dict[int, int] = {}
    for tally in given:
        at_once[tally.minute] = at_once.get(tally.minute, 0) + tally.accounts
    hours = whole.market_seconds / 3600
    return Summary(
        minutes=len(at_once),
        accounts=max(at_once.values(), default=0),
        paints=len(whole.placed),
        latency_p50=percentile(whole.placed, 50) / 1e6,
        latency_p95=percentile(whole.placed, 95) / 1e6,
        events=whole.events,
        errors=whole.errors,
        disconnects_per_hour=whole.disconnects / hours if hours else 0.0,
        live_share=whole.live_seconds / whole.market_seconds if whole.market_seconds else 0.0,
        calls_per_hour=whole.calls / hours if hours else 0.0,
    )
