"""What is measured: every metric with its name and meaning, read from where it is counted when somebody asks.

Nothing here is on the hot path but one append for each change: the histograms are the engine's own and those of
`Latencies`; Prometheus' library only writes them down. Accounts are never labels: the page and the database have them.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal, Protocol

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from orderwire.clock import Clock
from orderwire.core.alerts import Buckets, Labels, Readings
from orderwire.core.events import Event, EventType
from orderwire.core.health import FEED_COUNTS, FeedHealth, FleetHealth, WebHealth
from orderwire.core.latency import Histogram, HistogramSnapshot, Stamps, trace
from orderwire.core.orders import AccountId
from orderwire.core.recovery import Freshness
from orderwire.core.rollout import Reason
from orderwire.engine import EventEngine
from orderwire.logs import follows_updates
from orderwire.meters import OTHER, Statistics
from orderwire.store.database import Database

_log = structlog.get_logger(__name__)

Kind = Literal["gauge", "counter", "histogram"]

TYPES = frozenset(EventType) | {"eOrderChecking"}
"""Event types that have a label; every other is `(other)`: vn.py's gateways put one type for each order."""

CHANGES = ("order", "trade", "position")
STEPS = ("queued", "joined", "committed", "emitted")
"""The stages we pass ourselves; `painted` is told by the browsers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One metric as it is documented."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


def _counter(name: str, text: str, *labels: str) -> Described:
    return Described(name=f"orderwire_{name}_total", kind="counter", help=text, labels=labels)


def _gauge(name: str, text: str, *labels: str) -> Described:
    return Described(name=f"orderwire_{name}", kind="gauge", help=text, labels=labels)


def _histogram(name: str, text: str, *labels: str) -> Described:
    return Described(name=f"orderwire_{name}_seconds", kind="histogram", help=text, labels=labels)


CATALOGUE: tuple[Described, ...] = (
    _gauge("build_info", "1; the release is its label.", "version"),
    _gauge("uptime_seconds", "Since the service started."),
    _gauge("ready", "1 when every account that can be is reconciled, and the database takes writes."),
    _gauge("market_open", "1 while a market of ours trades."),
    _gauge("market_near", "1 from half an hour before a market opens until it closes."),
    # the engine
    _gauge("queue_depth", "Events that wait in the engine's queue."),
    _gauge("queue_high_water", "The most that ever waited, since the start."),
    _gauge("lane_depth", "Events that wait in a lane of its own thread.", "lane"),
    _counter("lane_conflated", "Events of a lane that gave way to a newer one of the same order.", "lane"),
    _gauge("engine_tick_age_seconds", "Since the dispatcher last delivered its timer event."),
    _counter("events", "Events the engine delivered."),
    _gauge("events_per_second", "How many it delivers, lately."),
    _counter("events_by_type", "Events delivered, by type.", "type"),
    _histogram("event_wait", "How long events waited in the queue.", "type"),
    _histogram("event_handling", "How long a handler took for an event.", "type"),
    _counter("handler_calls", "Calls of a handler of ours; those of others together.", "handler", "lane"),
    _counter("handler_seconds", "Time spent in a handler of ours; in others together.", "handler", "lane"),
    _counter("errors", "What went wrong: in a handler, in the web, in a stream's message, in an adapter.", "where"),
    _counter("dead_letters", "Put aside: an observation that cannot be taken in, an event whose handler failed.", "what"),
    # an update's way
    _histogram("stage", "From the stage before to this one, for each change told.", "stage", "change"),
    _histogram("processing", "From the broker's bytes to the clients' queues, for each change told."),
    _histogram("paint", "From the clients' queue to the screen, as the browsers tell."),
    _histogram("received_to_painted", "From the broker's bytes to the screen."),
    _histogram("placed_to_painted", "From our own place call to the first confirmed state on the screen."),
    # the database
    _counter("commits", "Transactions of the writer."),
    _counter("commit_seconds", "Time spent in them."),
    _gauge("commit_blocked_seconds", "How long the database has taken no writes; 0 while it does."),
    _gauge("commit_held_back", "Events that wait for the database."),
    _counter("stale_writes_refused", "What was not written because its account is another worker's now."),
    _gauge("disk_free_ratio", "Free part of the disk that holds the data folder."),
    # each broker
    _gauge("feeds", "Accounts by how fresh they are.", "broker", "freshness"),
    _gauge("streams_connected", "Streams that deliver.", "broker"),
    _counter("stream_connected_seconds", "How long streams have been delivering, all accounts together.", "broker"),
    _gauge("stream_down_seconds", "How long the stream that has been down longest is down, while its market is open.", "broker"),
    _gauge("heartbeat_age_seconds", "Since the last byte of the stream that has been silent longest.", "broker"),
    _gauge("clock_offset_seconds", "How far our clock and the broker's are apart, by its HTTP Date.", "broker"),
    _gauge("stale_accounts", "Accounts with open orders whose broker does not answer.", "broker"),
    _gauge("login_required_accounts", "Accounts that must log in again.", "broker"),
    _gauge("feeds_without_owner", "Accounts whose feed nothing runs.", "broker"),
    _gauge("open_orders", "Orders to which something can still happen.", "broker"),
    _counter("stream_reconnects", "Connects of streams after the first.", "broker"),
    _counter("book_reads", "Order books read.", "broker"),
    _counter("history_reads", "Histories of single orders read.", "broker"),
    _counter("book_reads_failed", "Order books that could not be read.", "broker"),
    _counter("stream_violations", "Messages of a stream that could not be read.", "broker"),
    _counter("adapter_faults", "Errors that no adapter should raise.", "broker"),
    _counter("missed_by_push", "Rows of a book that told what the stream had not.", "broker"),
    _counter("rest_calls", "REST calls sent.", "broker", "purpose"),
    _counter("rest_limited", "REST calls the broker refused with 429.", "broker"),
    _counter("rest_unanswered", "REST calls that brought no answer.", "broker"),
    # the rollout
    _gauge("rollout_accounts", "Accounts whose feed runs here, by why they are, or are not, on real-time updates.", "reason"),
    _counter("rollout_decisions", "Times an account was told another reason than before, or its first.", "reason"),
    # what was observed
    _counter("observations", "Observations of orders taken in.", "broker"),
    _counter("duplicates", "Observations that had been told before.", "broker"),
    _counter("refused_observations", "Observations refused as impossible.", "broker"),
    _counter("held_observations", "Observations that wait for REST to confirm them.", "broker"),
    _counter("surprising_transitions", "Changes that are not in the table of expected ones.", "broker"),
    _counter("unknown_statuses", "Observations with a status word nobody knows.", "broker"),
    _counter("unreadable_observations", "Observations whose bytes could not be read; they are kept.", "broker"),
    _counter("ties", "Observations of the same moment with different content.", "broker"),
    _counter("conflicts", "Reads of the book that contradicted what was held.", "broker"),
    _counter("corrections", "Orders corrected by two agreeing reads of the book.", "broker"),
    _counter("hints", "Postbacks and other claims that had the book read.", "broker"),
    # postbacks
    _counter("postbacks", "Postbacks by what they were answered.", "result"),
    _counter("postbacks_mismatched", "Postbacks that the broker's book denied.", "broker"),
    # the bus between processes
    _gauge("bus_hears", "1 while notices of other processes come in."),
    _counter("bus_published", "Changes that the relay here put on their streams."),
    _counter("bus_refused", "Changes that another relay had put there before."),
    _counter("bus_trimmed", "Changes that every follower had, taken off their streams."),
    _counter("bus_followed", "Changes of other processes, by where they were read.", "source"),
    _counter("bus_repeated", "Changes that had been read before."),
    _counter("bus_gaps", "Changes that were not the next: the database was asked."),
    _counter("bus_missed", "Looks that found the database ahead of the streams."),
    _counter("bus_parked", "Changes that could not be read or handed on; they are dead letters."),
    _counter("bus_renewed", "Shards whose numbering began anew.", "loop"),
    _counter("bus_failures", "Times that Redis or the database could not be reached.", "loop"),
    _counter("bus_deaf", "Times that a subscription heard nothing any more and was made anew."),
    _counter("bus_notices", "Notices by what became of them.", "result"),
    # clients and people
    _gauge("clients", "Pages and programs connected to the live stream."),
    _gauge("outbox_waiting", "Changes that wait for the slowest client's acknowledgement."),
    _counter("alerts", "Alerts raised.", "alert"),
    _counter("notices", "What somebody should look at, by kind.", "kind"),
    _counter("notifications_failed", "Alert messages that could not be delivered, tries included.", "channel"),
)  # fmt: skip
"""Every metric there is; docs/reference/metrics.md is made from it."""

_FEED_METRICS = {
    "reconnects": "stream_reconnects",
    "reads": "book_reads",
    "histories": "history_reads",
    "failed_reads": "book_reads_failed",
    "violations": "stream_violations",
    "faults": "adapter_faults",
    "missed_by_push": "missed_by_push",
}
_TALLY_METRICS = {
    "observations": "observations",
    "duplicates": "duplicates",
    "refused": "refused_observations",
    "held": "held_observations",
    "surprising": "surprising_transitions",
    "unknown status": "unknown_statuses",
    "unreadable": "unreadable_observations",
    "tie": "ties",
    "conflict": "conflicts",
    "corrections": "corrections",
    "hints": "hints",
}
_BUS_METRICS: Mapping[tuple[str, str], tuple[str, Mapping[str, str]]] = {
    ("wire", "hears"): ("bus_hears", {}),
    ("relay", "published"): ("bus_published_total", {}),
    ("relay", "refused"): ("bus_refused_total", {}),
    ("relay", "trimmed"): ("bus_trimmed_total", {}),
    ("relay", "renewed"): ("bus_renewed_total", {"loop": "relay"}),
    ("relay", "failures"): ("bus_failures_total", {"loop": "relay"}),
    ("follower", "from_streams"): ("bus_followed_total", {"source": "streams"}),
    ("follower", "from_database"): ("bus_followed_total", {"source": "database"}),
    ("follower", "repeated"): ("bus_repeated_total", {}),
    ("follower", "gaps"): ("bus_gaps_total", {}),
    ("follower", "missed"): ("bus_missed_total", {}),
    ("follower", "parked"): ("bus_parked_total", {}),
    ("follower", "renewed"): ("bus_renewed_total", {"loop": "follower"}),
    ("follower", "failures"): ("bus_failures_total", {"loop": "follower"}),
    ("wire", "heard"): ("bus_notices_total", {"result": "heard"}),
    ("wire", "unsaid"): ("bus_notices_total", {"result": "unsaid"}),
    ("wire", "canaries"): ("bus_notices_total", {"result": "canary"}),
    ("wire", "deaf"): ("bus_deaf_total", {}),
    ("wire", "failures"): ("bus_failures_total", {"loop": "wire"}),
}
_TOLD = {
    "alerts_total": "alert",
    "notices_total": "kind",
    "notifications_failed_total": "channel",
    "postbacks_mismatched_total": "broker",
}
"""What the book, the feeds and the watchdog count, and the metric or the label it is."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one metric."""

    name: str
    labels: Labels
    value: float | HistogramSnapshot


def sample(name: str, value: float | HistogramSnapshot, **labels: str) -> Sample:
    """Return a sample of the metric `orderwire_<name>`."""
    return Sample(f"orderwire_{name}", tuple(sorted(labels.items())), value)


class Latencies:
    """Durations of the stages that each change passed here; `on_change` runs on the dispatcher, the rest anywhere."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._explains = follows_updates()
        self._raw: list[tuple[str, Stamps, int]] = []
        self._lock = Lock()  # guards the histograms
        self._stages = {(stage, kind): Histogram() for stage in STEPS for kind in CHANGES}
        self._whole = Histogram()
        self._recent: tuple[float, ...] = ()

    def on_change(self, event: Event) -> None:
        """Note a change that was told; registered after those who tell it."""
        change = event.data
        self._raw.append((change.kind, change.stamps, self._clock.time_ns()))
        if self._explains:
            _log.debug(
                "change told",
                trace=trace(change.account, change.stamps.received),
                event_id=change.event_id,
                account=change.account,
                order=change.order.order_id if change.order else "",
                status=change.order.status if change.order else change.kind,
            )

    def snapshot(self) -> tuple[dict[tuple[str, str], HistogramSnapshot], HistogramSnapshot]:
        """Return the durations by stage and kind of change, and from the broker's bytes to the clients."""
        with self._lock:
            self._fold()
            return {key: counted.snapshot() for key, counted in self._stages.items()}, self._whole.snapshot()

    def _fold(self) -> None:
        count = len(self._raw)
        noted, self._raw[:count] = self._raw[:count], []
        for kind in CHANGES:
            mine = [(stamps, emitted) for name, stamps, emitted in noted if name == kind]
            if mine:
                self._count(kind, mine)

    def _count(self, kind: str, noted: list[tuple[Stamps, int]]) -> None:
        queued = [(s.queued - s.received) / 1e9 for s, _ in noted if s.received and s.queued]
        joined = [(s.joined - s.queued) / 1e9 for s, _ in noted if s.queued and s.joined]
        committed = [(s.committed - s.joined) / 1e9 for s, _ in noted if s.joined and s.committed]
        emitted = [(told - s.committed) / 1e9 for s, told in noted if s.committed]
        for stage, durations in zip(STEPS, (queued, joined, committed, emitted), strict=True):
            self._stages[stage, kind].extend([max(seconds, 0.0) for seconds in durations])
        self._whole.extend([max(told - s.received, 0) / 1e9 for s, told in noted if s.received])


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """How full a disk is, in bytes."""

    total: int
    free: int


def disk_of(folder: Path) -> Disk:
    """Return how full the disk of `folder` is."""
    usage = shutil.disk_usage(folder)
    return Disk(total=usage.total, free=usage.free)


class Commits(Protocol):
    """What is asked of the book."""

    @property
    def blocked_seconds(self) -> float:
        """How long the database has taken no writes."""
        ...

    @property
    def held_back(self) -> int:
        """How many events wait for it."""
        ...

    @property
    def stale_writes(self) -> int:
        """How much was refused because its account is another worker's."""
        ...

    def counts(self) -> dict[tuple[str, str], int]:
        """Return what came, by broker and name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where everything is counted; each may be asked from any thread."""

    engine: EventEngine
    database: Database
    book: Commits
    fleet: Callable[[], FleetHealth]
    web: Callable[[], WebHealth]
    market_open: Callable[[], bool]
    market_near: Callable[[], bool]
    disk: Callable[[], Disk]
    clock: Clock
    brokers: tuple[str, ...]
    version: str = ""
    bus: Callable[[], Mapping[tuple[str, str], int]] = dict
    """What the bus between processes counted here, by loop and name; nothing where there is none."""
    reasons: Callable[[Iterable[AccountId]], Mapping[Reason, int]] = lambda _accounts: {}
    """How many of these accounts were told each reason of the rollout."""
    decisions: Callable[[], Mapping[Reason, int]] = dict
    """How often each reason was told, since the start."""


class Metrics:
    """Reads every metric on demand. Any thread."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.latencies = Latencies(sources.clock)
        self.started = sources.clock.monotonic()
        self.ticked = self.started
        """When the dispatcher last delivered the timer; written by `on_timer`."""
        self.told: Counter[tuple[str, str]] = Counter()
        """What the watchdog counts: (a name of `_TOLD`, the label's value)."""

    def attach(self, engine: EventEngine) -> None:
        """Take part in the engine; after those who tell clients."""
        engine.register(EventType.ORDER_CHANGED, self.latencies.on_change)
        engine.register(EventType.TIMER, self.on_timer)

    def on_timer(self, event: Event) -> None:  # noqa: ARG002 - the engine's signature
        """Note that the dispatcher lives."""
        self.ticked = self.sources.clock.monotonic()

    def samples(self) -> Iterator[Sample]:
        """Give every value there is now, metric by metric in no order."""
        sources = self.sources
        fleet, web = sources.fleet(), sources.web()
        statistics = sources.engine.statistics()
        yield from self._of_service(fleet)
        yield from self._of_engine(statistics)
        yield from self._of_errors(statistics, fleet, web)
        yield from self._of_latency(web)
        yield from self._of_store()
        for broker in _brokers(fleet, sources.brokers):
            yield from _of_broker(broker, [feed for feed in fleet.feeds if feed.broker == broker])
        yield from self._of_counts(fleet)
        yield from self._of_rollout(fleet)
        yield from self._of_web(web)
        yield from self._of_bus()
        yield from self._of_alerts()

    def _of_service(self, fleet: FleetHealth) -> Iterator[Sample]:
        sources = self.sources
        yield sample("build_info", 1, version=sources.version)
        yield sample("uptime_seconds", sources.clock.monotonic() - self.started)
        yield sample("ready", not waiting(fleet, self.sources.book))
        yield sample("market_open", sources.market_open())
        yield sample("market_near", sources.market_near())

    def _of_engine(self, statistics: Statistics) -> Iterator[Sample]:
        yield sample("queue_depth", statistics.depth)
        yield sample("queue_high_water", statistics.high_water)
        yield sample("engine_tick_age_seconds", self.sources.clock.monotonic() - self.ticked)
        yield sample("events_total", statistics.delivered)
        yield sample("events_per_second", statistics.rate)
        for lane in statistics.lanes:
            yield sample("lane_depth", lane.depth, lane=lane.name)
            yield sample("lane_conflated_total", lane.conflated, lane=lane.name)
        yield from _of_types(statistics)
        yield from _of_handlers(statistics)

    def _of_errors(self, statistics: Statistics, fleet: FleetHealth, web: WebHealth) -> Iterator[Sample]:
        streams = sum(count for (_, what), count in fleet.counts.items() if what == "violations")
        adapters = sum(count for (_, what), count in fleet.counts.items() if what == "faults")
        handlers = statistics.dead_lettered + statistics.callback_errors
        found = {"handler": handlers, "web": web.faults, "stream": streams, "adapter": adapters}
        for where, count in found.items():
            yield sample("errors_total", count, where=where)
        letters = sum(
            count for (_, what), count in self.sources.book.counts().items() if what == "dead letters"
        )
        yield sample("dead_letters_total", letters, what="observation")
        yield sample("dead_letters_total", statistics.dead_lettered, what="event")

    def _of_latency(self, web: WebHealth) -> Iterator[Sample]:
        stages, whole = self.latencies.snapshot()
        for (stage, change), counted in stages.items():
            yield sample("stage_seconds", counted, stage=stage, change=change)
        yield sample("processing_seconds", whole)
        yield sample("paint_seconds", web.paints.get("painted", HistogramSnapshot()))
        for name in ("received to painted", "placed to painted"):
            counted = web.paints.get(name, HistogramSnapshot())
            yield sample(f"{name.replace(' ', '_')}_seconds", counted)

    def _of_store(self) -> Iterator[Sample]:
        counts, book, disk = self.sources.database.counts(), self.sources.book, self.sources.disk()
        yield sample("commits_total", counts.commits)
        yield sample("commit_seconds_total", counts.seconds)
        yield sample("commit_blocked_seconds", book.blocked_seconds)
        yield sample("commit_held_back", book.held_back)
        yield sample("stale_writes_refused_total", book.stale_writes)
        yield sample("disk_free_ratio", disk.free / disk.total if disk.total else 1.0)

    def _of_counts(self, fleet: FleetHealth) -> Iterator[Sample]:
        """What is counted by broker, zeros included: a counter that begins at 1 would hide its first increase."""
        brokers = _brokers(fleet, self.sources.brokers)
        tallies = self.sources.book.counts()
        for broker in brokers:
            for what in FEED_COUNTS:
                yield sample(
                    f"{_FEED_METRICS[what]}_total", fleet.counts.get((broker, what), 0), broker=broker
                )
            for what, name in _TALLY_METRICS.items():
                yield sample(f"{name}_total", tallies.get((broker, what), 0), broker=broker)
            yield sample("rest_limited_total", fleet.limited.get(broker, 0), broker=broker)
            yield sample("rest_unanswered_total", fleet.unanswered.get(broker, 0), broker=broker)
        for (broker, purpose), count in fleet.calls.items():
            if broker in brokers:
                yield sample("rest_calls_total", count, broker=broker, purpose=purpose)

    def _of_rollout(self, fleet: FleetHealth) -> Iterator[Sample]:
        now = self.sources.reasons(feed.account for feed in fleet.feeds)
        told = self.sources.decisions()
        for reason in Reason:
            yield sample("rollout_accounts", now.get(reason, 0), reason=reason.value)
            yield sample("rollout_decisions_total", told.get(reason, 0), reason=reason.value)

    def _of_web(self, web: WebHealth) -> Iterator[Sample]:
        yield sample("clients", web.clients)
        yield sample("outbox_waiting", web.waiting)
        for result, count in web.postbacks.items():
            yield sample("postbacks_total", count, result=result)

    def _of_bus(self) -> Iterator[Sample]:
        for what, count in self.sources.bus().items():
            name, labels = _BUS_METRICS[what]
            yield sample(name, count, **labels)

    def _of_alerts(self) -> Iterator[Sample]:
        """What the watchdog counted, the zeros of what rules look at included."""
        told = Counter({("postbacks_mismatched_total", broker): 0 for broker in self.sources.brokers})
        told.update(self.told.copy())
        for (name, value), count in told.items():
            yield sample(name, count, **{_TOLD[name]: value})

    # --- for others ------------------------------------------------------------------------------------

    def collect(self) -> Iterable[Metric]:
        """Return the samples as Prometheus' library wants them."""
        return families(self.samples())


def readings(samples: Iterable[Sample], *, names: frozenset[str], at: float) -> Readings:
    """Return those of the samples that rules look at."""
    values: dict[str, dict[Labels, float]] = {}
    buckets: dict[str, dict[Labels, Buckets]] = {}
    for found in samples:
        if found.name not in names:
            continue
        if isinstance(found.value, HistogramSnapshot):
            buckets.setdefault(found.name, {})[found.labels] = bounds(found.value)
        else:
            values.setdefault(found.name, {})[found.labels] = float(found.value)
    return Readings(at=at, values=values, buckets=buckets)


def waiting(fleet: FleetHealth, book: Commits) -> tuple[str, ...]:
    """Say what keeps the service from being ready; empty when it is.

    An account that cannot be reconciled for want of a login or of its broker does not keep the others out.
    """
    accounts = [
        f.account
        for f in fleet.feeds
        if f.running and f.freshness is Freshness.RECONCILING and f.read_at is None
    ]
    reasons = [f"{len(accounts)} accounts are being reconciled"] if accounts else []
    if book.blocked_seconds:
        reasons.append("the database takes no writes")
    return tuple(reasons)


def bounds(counted: HistogramSnapshot) -> Buckets:
    """Return cumulative buckets as Prometheus has them, the infinite one last."""
    return (
        *((bound, float(below)) for bound, below in counted.cumulative()),
        (float("inf"), float(counted.count)),
    )


def _brokers(fleet: FleetHealth, known: Sequence[str]) -> list[str]:
    return sorted({*known, *(feed.broker for feed in fleet.feeds)})


def _of_types(statistics: Statistics) -> Iterator[Sample]:
    others = 0
    for row in statistics.types:
        if row.type in TYPES:
            yield sample("events_by_type_total", row.count, type=row.type)
            yield sample("event_wait_seconds", row.queue_wait, type=row.type)
            yield sample("event_handling_seconds", row.handler_time, type=row.type)
        else:
            others += row.count
    yield sample("events_by_type_total", others, type=OTHER)


def _of_handlers(statistics: Statistics) -> Iterator[Sample]:
    calls: Counter[tuple[str, str]] = Counter()
    seconds: dict[tuple[str, str], float] = {}
    for row in statistics.handlers:
        ours = row.handler.startswith("orderwire.")
        key = (row.handler.removeprefix("orderwire.") if ours else OTHER, row.lane or "core")
        calls[key] += row.count
        seconds[key] = seconds.get(key, 0.0) + row.handler_time.total / 1e9
    for (handler, lane), count in calls.items():
        yield sample("handler_calls_total", count, handler=handler, lane=lane)
        yield sample("handler_seconds_total", seconds[handler, lane], handler=handler, lane=lane)


def _of_broker(broker: str, feeds: list[FeedHealth]) -> Iterator[Sample]:
    def gauge(name: str, value: float) -> Sample:
        return sample(name, value, broker=broker)

    for freshness in Freshness:
        count = sum(feed.freshness is freshness for feed in feeds)
        yield sample("feeds", count, broker=broker, freshness=freshness.value)
    down = [feed.down_seconds for feed in feeds if feed.market_open]
    silent = [feed.heartbeat_age for feed in feeds if feed.heartbeat_age is not None]
    offsets = [abs(feed.clock_offset) for feed in feeds if feed.clock_offset is not None]
    stale = [feed for feed in feeds if feed.freshness is Freshness.STALE and feed.open_orders]
    login = [feed for feed in feeds if feed.freshness is Freshness.AUTH_REQUIRED]
    yield gauge("streams_connected", sum(feed.connected for feed in feeds))
    yield gauge("stream_connected_seconds_total", sum(feed.connected_seconds for feed in feeds))
    yield gauge("stream_down_seconds", max(down, default=0.0))
    yield gauge("heartbeat_age_seconds", max(silent, default=0.0))
    yield gauge("clock_offset_seconds", max(offsets, default=0.0))
    yield gauge("stale_accounts", len(stale))
    yield gauge("login_required_accounts", len(login))
    yield gauge("feeds_without_owner", sum(not feed.running for feed in feeds))
    yield gauge("open_orders", sum(feed.open_orders for feed in feeds))


# --- for Prometheus ---------------------------------------------------------------------------------------


def families(samples: Iterable[Sample]) -> list[Metric]:
    """Gather samples into Prometheus' families, in the catalogue's order; one without samples is left out."""
    gathered: dict[str, list[Sample]] = {}
    for each in samples:
        gathered.setdefault(each.name, []).append(each)
    return [_family(metric, gathered[metric.name]) for metric in CATALOGUE if metric.name in gathered]


def _family(metric: Described, samples: list[Sample]) -> Metric:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for each in samples:
            if isinstance(each.value, HistogramSnapshot):
                below = [(_bound(bound), count) for bound, count in bounds(each.value)]
                histogram.add_metric(_label_values(metric, each), below, each.value.total / 1e9)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for each in samples:
        if not isinstance(each.value, HistogramSnapshot):
            family.add_metric(_label_values(metric, each), float(each.value))
    return family


def _label_values(metric: Described, found: Sample) -> list[str]:
    given = dict(found.labels)
    return [given[name] for name in metric.labels]


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == float("inf") else repr(seconds)
