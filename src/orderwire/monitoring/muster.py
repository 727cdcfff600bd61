"""Puts together what every process measured: for the rules, which judge the whole, and for the operator's page.

Each process writes its own values down every two seconds; whoever judges adds those of all that live. Counters and
histograms add up; of gauges the worst counts where adding would mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from orderwire.clock import Clock
from orderwire.core.alerts import Labels
from orderwire.core.latency import HistogramSnapshot
from orderwire.decoding import decode
from orderwire.errors import UNDECODABLE, StoreError
from orderwire.monitoring.metrics import CATALOGUE, Sample
from orderwire.store.database import Database
from orderwire.store.leases import FEEDS, Leases, Worker, workers

_log = structlog.get_logger(__name__)

TELL_EVERY: Final = 2.0
LOOK_EVERY: Final = 1.0

_GREATEST: Final = frozenset(
    f"orderwire_{name}"
    for name in (
        "build_info",
        "uptime_seconds",
        "market_open",
        "market_near",
        "queue_high_water",
        "engine_tick_age_seconds",
        "commit_blocked_seconds",
        "stream_down_seconds",
        "heartbeat_age_seconds",
        "clock_offset_seconds",
        "outbox_waiting",
    )
)
_LEAST: Final = frozenset({"orderwire_ready", "orderwire_disk_free_ratio", "orderwire_bus_hears"})
_KNOWN: Final = frozenset(metric.name for metric in CATALOGUE)

_NOTHING: Final = HistogramSnapshot()

FROM_DATABASE: Final = "bus_followed_total of the database"
"""Among a process' values: what it followed there, of all it followed."""

_Row = tuple[str, Labels, float | None, HistogramSnapshot | None]


def packed(samples: Iterable[Sample]) -> str:
    """Return samples as a report."""
    rows: list[_Row] = [
        (each.name, each.labels, None, each.value)
        if isinstance(each.value, HistogramSnapshot)
        else (each.name, each.labels, float(each.value), None)
        for each in samples
    ]
    return msgspec.json.encode(rows).decode()


def unpacked(report: str) -> list[Sample]:
    """Return the samples of a report; of one that another release wrote what is known here."""
    try:
        rows = decode(report or "[]", list[_Row])
    except UNDECODABLE:
        return []
    return [
        Sample(name, labels, value if value is not None else histogram or HistogramSnapshot())
        for name, labels, value, histogram in rows
        if name in _KNOWN
    ]


def merged(reports: Iterable[Iterable[Sample]]) -> list[Sample]:
    """Return what all processes measured together. Pure."""
    together: dict[tuple[str, Labels], float | HistogramSnapshot] = {}
    for each in (sample for report in reports for sample in report):
        key = (each.name, each.labels)
        before = together.get(key)
        together[key] = each.value if before is None else _joined(each.name, before, each.value)
    return [Sample(name, labels, value) for (name, labels), value in together.items()]


def _joined(
    name: str, one: float | HistogramSnapshot, other: float | HistogramSnapshot
) -> float | HistogramSnapshot:
    if isinstance(one, HistogramSnapshot) or isinstance(other, HistogramSnapshot):
        return _added(one, other) if isinstance(one, HistogramSnapshot) else other
    if name in _GREATEST:
        return max(one, other)
    return min(one, other) if name in _LEAST else one + other


def _added(one: HistogramSnapshot, other: float | HistogramSnapshot) -> HistogramSnapshot:
    if not isinstance(other, HistogramSnapshot):
        return one
    if not (one.buckets and other.buckets):
        return one if one.buckets else other
    return HistogramSnapshot(
        one.count + other.count,
        one.total + other.total,
        max(one.max, other.max),
        tuple(a + b for a, b in zip(one.buckets, other.buckets, strict=True)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process, as the operator's page shows it."""

    worker: Worker
    values: Mapping[str, float]
    """Its values by name, those of all labels added up."""
    latency: HistogramSnapshot = _NOTHING
    """From the broker's bytes to its clients' queues."""

    @property
    def bus(self) -> str:
        """What its bus does, in words; empty where it has none."""
        told = {
            "published": self.values.get("bus_published_total", 0),
            "followed": self.values.get("bus_followed_total", 0),
        }
        words = [f"{count:.0f} {word}" for word, count in told.items() if count]
        odd = {
            "from the database": self.values.get(FROM_DATABASE, 0),
            "gaps": self.values.get("bus_gaps_total", 0),
            "parked": self.values.get("bus_parked_total", 0),
            "times deaf": self.values.get("bus_deaf_total", 0),
            "failures": self.values.get("bus_failures_total", 0),
        }
        words += [f"{count:.0f} {word}" for word, count in odd.items() if count]
        if self.values.get("bus_hears") == 0:
            words.insert(0, "hears nothing")
        return ", ".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """All living processes together, and who of them is worst; a name is empty where none stands out."""

    processes: int
    waiting: tuple[str, ...]
    """Those that are not ready."""
    latency: HistogramSnapshot
    """Of those that have clients."""
    slowest: str
    slowest_p95: float
    """In nanoseconds."""
    depth: float
    high_water: float
    deepest: str
    """Where most waits now, or waited ever."""
    events: float
    rate: float
    clients: float
    busiest: str
    busiest_clients: float


def whole(found: Iterable[Process]) -> Whole | None:
    """Put the living processes together; None where fewer than two live: then there is nothing to put together. Pure."""
    alive = [process for process in found if process.worker.live]
    if not alive[1:]:
        return None
    shown = [process for process in alive if process.worker.role != FEEDS and process.latency.count]
    slowest = max(shown, key=lambda process: process.latency.percentile(95), default=None)
    deepest = max(
        alive, key=lambda one: (one.values.get("queue_depth", 0), one.values.get("queue_high_water", 0))
    )
    busiest = max(alive, key=lambda one: one.values.get("clients", 0))
    latency = _NOTHING
    for process in shown:
        latency = _added(latency, process.latency)
    return Whole(
        processes=len(alive),
        waiting=tuple(one.worker.id for one in alive if one.values.get("ready") == 0),
        latency=latency,
        slowest=slowest.worker.id if slowest is not None else "",
        slowest_p95=slowest.latency.percentile(95) if slowest is not None else 0.0,
        depth=_sum(alive, "queue_depth"),
        high_water=max(one.values.get("queue_high_water", 0) for one in alive),
        deepest=deepest.worker.id,
        events=_sum(alive, "events_total"),
        rate=_sum(alive, "events_per_second"),
        clients=_sum(alive, "clients"),
        busiest=busiest.worker.id if busiest.values.get("clients") else "",
        busiest_clients=busiest.values.get("clients", 0),
    )


def _sum(found: Iterable[Process], name: str) -> float:
    return sum(process.values.get(name, 0) for process in found)


class Muster:
    """Writes down what this process measured, and reads what the others did. One thread at a time."""

    def __init__(
        self, database: Database, leases: Leases, *, clock: Clock, leads: Callable[[], bool]
    ) -> None:
        """`leads` says whether it is this process of all that tells people of alerts."""
        self.leads = leads
        self._database = database
        self._leases = leases
        self._clock = clock
        self._told = self._looked = -TELL_EVERY
        self._others: list[list[Sample]] = []

    def together(self, own: Sequence[Sample]) -> list[Sample]:
        """Return what all processes measured, this one's as it is now; the others' as far as they can be read."""
        now = self._clock.monotonic()
        try:
            if now - self._told >= TELL_EVERY:
                self._leases.report(packed(own))
                self._told = now
            if now - self._looked >= LOOK_EVERY:
                self._others = [
                    unpacked(other.report)
                    for other in workers(self._database)
                    if other.live and other.id != self._leases.worker
                ]
                self._looked = now
        except StoreError as error:
            _log.warning("other processes cannot be read", error=str(error))
        return merged([own, *self._others])


def processes(database: Database) -> list[Process]:
    """Return every process with what it said last; none where there is one alone."""
    return [described(worker) for worker in workers(database)]


def described(worker: Worker) -> Process:
    """Return a process with what it said last. Pure."""
    values: dict[str, float] = {}
    latency = _NOTHING
    for each in unpacked(worker.report):
        name = each.name.removeprefix("orderwire_")
        if isinstance(each.value, HistogramSnapshot):
            latency = each.value if name == "processing_seconds" else latency
            continue
        values[name] = values.get(name, 0) + float(each.value)
        if name == "bus_followed_total" and ("source", "database") in each.labels:
            values[FROM_DATABASE] = float(each.value)
    return Process(worker=worker, values=values, latency=latency)
