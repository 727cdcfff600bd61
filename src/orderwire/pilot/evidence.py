"""Collects what each minute tells of the pilot, by broker and cohort, and writes it down."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

import structlog

from orderwire.clock import Clock
from orderwire.core.alerts import Notice
from orderwire.core.events import Event, EventType
from orderwire.core.evidence import (
    PLACED,
    RECEIVED,
    Cohort,
    Tally,
    bucket_of_change,
    merged,
    minute_of,
    percentile,
)
from orderwire.core.health import FeedHealth, FleetHealth
from orderwire.core.orders import AccountId
from orderwire.core.recovery import Freshness
from orderwire.core.rollout import CohortMinute
from orderwire.engine import DeadLetter, EventEngine
from orderwire.errors import StoreError
from orderwire.store.pilot import PilotRecords

_log = structlog.get_logger(__name__)

LANE: Final = "pilot"
"""Its own thread: a minute is written there, never on the way of an update."""

_LIVE: Final = frozenset({Freshness.LIVE})
_POLLING: Final = frozenset({Freshness.DEGRADED, Freshness.RECONCILING})
_STALE: Final = frozenset({Freshness.STALE, Freshness.AUTH_REQUIRED})
LONGEST_TICK: Final = 5.0
"""Seconds of one tick that are counted: when the process was stopped for longer, that is a gap, not uptime."""

_Place = tuple[str, Cohort]


@dataclass(slots=True)
class _Running:
    """What a running minute has of one broker and cohort."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: Counter[str] = field(default_factory=Counter)
    changes: Counter[int] = field(default_factory=Counter)
    placed: list[int] = field(default_factory=list)
    stages: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    accounts: set[AccountId] = field(default_factory=set)


class Evidence:
    """Counts on the engine's threads, writes once a minute on a lane of its own.

    Updates are counted on the core path (one dictionary look-up each); paints come on the clients' threads.
    """

    def __init__(
        self,
        records: PilotRecords,
        *,
        clock: Clock,
        place_of: Callable[[AccountId], _Place | None],
        health: Callable[[], FleetHealth],
        depth: Callable[[], int],
        longest_tick: float = LONGEST_TICK,
        alone: bool = True,
    ) -> None:
        """`place_of` says which broker and cohort an account belongs to now, None when it is unknown.

        `longest_tick` is more where time is compressed (`pilot/simulation.py`). `alone`: no other process tells of
        the same minutes; where several do, the records add up what each tells.
        """
        self._records = records
        self._clock = clock
        self._place_of = place_of
        self._health = health
        self._depth = depth
        self._longest_tick = longest_tick
        self._alone = alone
        self._lock = Lock()  # guards what follows
        self._minute = self._began = self._now()
        self._running: defaultdict[_Place, _Running] = defaultdict(_Running)
        self._updates: dict[AccountId, int] = {}
        self._queue_high = 0
        self._unkept: list[Tally] = []
        # Of the lane's thread alone:
        self._before: dict[AccountId, tuple[int, int]] = {}
        self._ticked: float | None = None
        self._counted: dict[AccountId, int] = {}

    def attach(self, engine: EventEngine) -> None:
        """Register with the engine, before it starts."""
        engine.add_lane(LANE, capacity=8, when_full="conflate", key=lambda event: event.type)
        engine.register(EventType.ORDER_UPDATE, self.on_update)
        engine.register(EventType.ALERT, self.on_alert)
        engine.register(EventType.TIMER, self.on_timer, lane=LANE)
        engine.on_dead_letter(self.on_dead_letter)

    # --- what is counted ------------------------------------------------------------------------------

    def paint(self, account: AccountId, durations: Mapping[str, int]) -> None:
        """Count one paint: nanoseconds by stage, with the whole waits among them. Any thread."""
        place = self._place_of(account)
        if place is None:
            return
        with self._lock:
            running = self._running[place]
            if PLACED in durations:
                running.placed.append(durations[PLACED] // 1000)
            elif RECEIVED in durations:
                running.changes[bucket_of_change(durations[RECEIVED])] += 1
            for stage, duration in durations.items():
                if stage not in {PLACED, RECEIVED}:
                    running.stages[stage][0] += 1
                    running.stages[stage][1] += max(duration, 0) // 1000

    def on_update(self, event: Event) -> None:
        """Count an observation, on the dispatcher's thread."""
        account = event.data.account
        self._updates[account] = (
            self._updates.get(account, 0) + 1
        )  # the dispatcher alone writes, it only grows

    def on_alert(self, event: Event) -> None:
        """Count a dead letter of the store's."""
        notice = event.data
        if isinstance(notice, Notice) and notice.kind == "dead letter":
            self._error(notice.account)

    def on_dead_letter(self, letter: DeadLetter) -> None:
        """Count a handler's failure."""
        account = getattr(letter.event.data, "account", "") if letter.event else ""
        self._error(AccountId(account))

    def _error(self, account: AccountId) -> None:
        """An error that names no account is everybody's."""
        place = self._place_of(account) if account else None
        with self._lock:
            for running in [self._running[place]] if place else self._running.values():
                running.counts["errors"] += 1

    # --- every second ---------------------------------------------------------------------------------

    def on_timer(self, _event: Event) -> None:
        """Count the feeds, and write the minutes that are over; on the lane's thread."""
        elapsed = self._elapsed()
        health = self._health()
        with self._lock:
            self._count_updates()
            if (minute := self._now()) != self._minute:
                self._unkept += self._close(minute)
            self._queue_high = max(self._queue_high, self._depth())
            for feed in health.feeds:
                self._count_feed(feed, elapsed)
        self.flush()

    def _elapsed(self) -> float:
        now, before = self._clock.monotonic(), self._ticked
        self._ticked = now
        return min(now - before, self._longest_tick) if before is not None else 0.0

    def _count_feed(self, feed: FeedHealth, elapsed: float) -> None:
        place = self._place_of(feed.account)
        if place is None:
            return
        running = self._running[place]
        running.accounts.add(feed.account)
        breaks = feed.counts.get("reconnects", 0)
        reads = feed.counts.get("reads", 0) + feed.counts.get("histories", 0)
        were = self._before.get(feed.account, (breaks, reads))
        self._before[feed.account] = (breaks, reads)
        running.counts["disconnects"] += max(breaks - were[0], 0)
        running.counts["errors"] += max(breaks - were[0], 0)
        running.counts["calls"] += max(reads - were[1], 0)
        if feed.open_orders:
            running.seconds["open"] += elapsed
        if feed.market_open:
            running.seconds["market"] += elapsed
            for name, states in (("live", _LIVE), ("polling", _POLLING), ("stale", _STALE)):
                if feed.freshness in states:
                    running.seconds[name] += elapsed

    def _count_updates(self) -> None:
        updates = dict(self._updates)
        for account, count in updates.items():
            new = count - self._counted.get(account, 0)
            if new and (place := self._place_of(account)):
                self._running[place].counts["events"] += new
        self._counted = updates

    # --- every minute ---------------------------------------------------------------------------------

    def flush(self, *, everything: bool = False) -> None:
        """Write the whole minutes down; `everything`: the running one too, at the end. What fails is kept."""
        if everything:
            with self._lock:
                self._count_updates()
                self._unkept += self._close(self._minute)
        if not self._unkept:
            return
        with self._lock:
            given, self._unkept = self._unkept, []
        try:
            self._records.keep([self._continued(tally) for tally in given])
        except StoreError as error:
            _log.warning("minutes not written yet", minutes=len(given), error=str(error))
            with self._lock:
                self._unkept = given + self._unkept

    def _continued(self, tally: Tally) -> Tally:
        """Go on with what a process before this one told of the minute in which this one began."""
        if tally.minute != self._began or not self._alone:
            return tally
        for kept in self._records.minutes(tally.minute, tally.minute + 1):
            if (kept.broker, kept.cohort) == (tally.broker, tally.cohort):
                return merged([kept, tally], minute=tally.minute, broker=tally.broker, cohort=tally.cohort)
        return tally

    def _close(self, minute: int) -> list[Tally]:
        tallies = [
            Tally(
                minute=self._minute,
                broker=broker,
                cohort=cohort,
                accounts=len(running.accounts),
                market_seconds=running.seconds["market"],
                live_seconds=running.seconds["live"],
                polling_seconds=running.seconds["polling"],
                stale_seconds=running.seconds["stale"],
                open_seconds=running.seconds["open"],
                events=running.counts["events"],
                errors=running.counts["errors"],
                disconnects=running.counts["disconnects"],
                calls=running.counts["calls"],
                queue_high=self._queue_high,
                placed=tuple(running.placed),
                changes=dict(running.changes),
                stages={stage: (count, total) for stage, (count, total) in running.stages.items()},
            )
            for (broker, cohort), running in self._running.items()
        ]
        self._running = defaultdict(_Running)
        self._minute, self._queue_high = minute, 0
        return tallies

    def _now(self) -> int:
        return minute_of(self._clock.now())


def cohort_minutes(tallies: Iterable[Tally], cohort: Cohort = "realtime") -> list[CohortMinute]:
    """Put the minutes of all brokers of one cohort together, for the guard."""
    by_minute: defaultdict[int, list[Tally]] = defaultdict(list)
    for tally in tallies:
        if tally.cohort == cohort:
            by_minute[tally.minute].append(tally)
    return [_cohort_minute(minute, given) for minute, given in sorted(by_minute.items())]


def _cohort_minute(minute: int, given: list[Tally]) -> CohortMinute:
    whole = merged(given, minute=minute, broker="", cohort="realtime")
    return CohortMinute(
        minute=minute,
        accounts=sum(tally.accounts for tally in given),
        paints=len(whole.placed),
        latency_p95=percentile(whole.placed, 95) / 1e6,
        events=whole.events,
        errors=whole.errors,
        disconnects=whole.disconnects,
    )
