"""What the event engine counts and times: appended raw where events are delivered, told as values when asked.

One thread appends to a meter, no lock on its way; whoever asks counts in bulk under the meters' lock.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from orderwire.core.latency import Histogram, HistogramSnapshot

WhenFull = Literal["block", "conflate"]

OTHER = "(other)"
"""The name under which statistics gather what came after the table of names was full."""

BATCH_END = "(batch end)"
"""The event type under which statistics show batch-end hooks."""

UNTOLD = "(not told apart)"
"""The handler under which statistics show events of a crowd that took long without being timed one by one."""

_MAX_REGISTERED_TYPES = 512
_MAX_SEEN_TYPES = 128
_MAX_METERS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeStatistics:
    """One event type: events delivered, their wait in the queue, and the time of each handler call (ns)."""

    type: str
    count: int
    errors: int
    queue_wait: HistogramSnapshot
    handler_time: HistogramSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerStatistics:
    """One handler, on the core path (`lane` empty) or on a lane; `queue_wait` is that of the types it serves (ns)."""

    handler: str
    lane: str
    count: int
    errors: int
    queue_wait: HistogramSnapshot
    handler_time: HistogramSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatistics:
    """One lane. `conflated` events gave way to a newer one of their key; `overflowed` ones exceeded the capacity.

    `hand_over` is the time the dispatcher spent giving events to the lane: long when a full lane blocks it.
    """

    name: str
    when_full: WhenFull
    capacity: int
    depth: int
    high_water: int
    count: int
    conflated: int
    overflowed: int
    blocked: int
    hand_over: HistogramSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What the engine has done since it was made. Counts only grow and are exact; durations are nanoseconds.

    Every event and call is timed while fewer than 512 events wait. In a greater crowd one event in seventeen is,
    and stands for the others; a group that took 20 ms or more untimed is shown under UNTOLD, and the batches after
    it are timed throughout, so that a slow handler is named when it is slow again.

    `depth` counts the events that wait in the queue now (lanes have their own); `high_water` the most that ever did, seen once per batch (at most a
    batch too low). `rate` is events per second over the last ten ticks. `postponed` follow-ups went to the end
    of the queue because their batch had grown too long. `ticks_skipped` found the last tick still waiting.
    """

    running: bool
    depth: int
    high_water: int
    delivered: int
    rate: float
    follow_ups: int
    postponed: int
    dead_lettered: int
    callback_errors: int
    ticks: int
    ticks_skipped: int
    types: tuple[TypeStatistics, ...]
    handlers: tuple[HandlerStatistics, ...]
    lanes: tuple[LaneStatistics, ...]

    def slowest(self, count: int = 5) -> tuple[HandlerStatistics, ...]:
        """Return the handlers with the longest single call first."""
        return tuple(sorted(self.handlers, key=lambda row: row.handler_time.max, reverse=True)[:count])


class Tally:
    """Events of one route that were delivered without being timed; counted by the dispatcher alone."""

    __slots__ = ("count", "retired")

    def __init__(self) -> None:
        self.count = 0
        self.retired = False  # the route was replaced; the event at hand may still count


class Meter:
    """Durations of one kind: appended raw by one thread, counted in bulk by whoever holds the meters' lock."""

    __slots__ = ("_raw", "_retired", "_untimed", "add", "errors", "histogram", "tallies")

    def __init__(self) -> None:
        self._raw: list[float] = []
        self.add = self._raw.append
        self.errors = 0
        self.histogram = Histogram()
        self.tallies: list[Tally] = []  # what else this meter would have measured
        self._retired = 0  # the sum of tallies that are no more
        self._untimed = 0  # how many of those untimed the histogram has been told of

    @property
    def count(self) -> int:
        return self.histogram.count + len(self._raw) + self._all_untimed() - self._untimed

    def _all_untimed(self) -> int:
        return self._retired + sum(tally.count for tally in self.tallies)

    def fold(self) -> None:
        """Let the durations collected stand for the untimed ones as well."""
        if count := len(self._raw):
            chunk = self._raw[:count]
            del self._raw[:count]
            untimed = self._all_untimed()
            self.histogram.extend(chunk, standing_for=count + untimed - self._untimed)
            self._untimed = untimed

    def retire(self) -> None:
        """Sum up the tallies of routes replaced. In the dispatcher's thread, when no event is at hand."""
        self._retired += sum(tally.count for tally in self.tallies if tally.retired)
        self.tallies = [tally for tally in self.tallies if not tally.retired]


_K = TypeVar("_K")
_WaitKey = tuple[str, str]  # type, lane
_TimeKey = tuple[str, str, str]  # type, handler, lane


class Meters:
    """Every meter by name. The tables are bounded: what comes after they are full is counted under OTHER."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards the tables and the folding, not the appending
        self.waits: dict[_WaitKey, Meter] = {}
        self.times: dict[_TimeKey, Meter] = {}
        self._own: dict[str, Meter] = {}
        self._known: dict[str, bool] = {}

    def label(self, kind: str, *, registered: bool) -> str:
        with self.lock:
            if kind not in self._known:
                taken = sum(was_registered is registered for was_registered in self._known.values())
                if taken >= (_MAX_REGISTERED_TYPES if registered else _MAX_SEEN_TYPES):
                    return OTHER
                self._known[str(kind)] = registered
            return str(kind)

    def wait(self, label: str, lane: str) -> Meter:
        with self.lock:
            return self.waits.setdefault((label, lane), Meter())

    def time(self, label: str, handler: str, lane: str) -> Meter:
        with self.lock:
            key = (label, handler, lane)
            if key not in self.times and len(self.times) >= _MAX_METERS:
                key = (OTHER, OTHER, lane)
            return self.times.setdefault(key, Meter())

    def own(self, name: str) -> Meter:
        """Return a meter of the engine's own steps, not shown as a handler."""
        with self.lock:
            return self._own.setdefault(name, Meter())

    def retire(self) -> None:
        """Sum up the tallies of routes that are no more; only when no event is at hand."""
        with self.lock:
            for meter in self._all():
                meter.retire()

    def _all(self) -> tuple[Meter, ...]:
        return (*self.waits.values(), *self.times.values(), *self._own.values())

    def fold(self) -> None:
        """Count what was collected, unless someone else is at it."""
        if self.lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self.lock.release()

    def _fold(self) -> None:
        for meter in self._all():
            meter.fold()

    def types(self) -> tuple[TypeStatistics, ...]:
        with self.lock:
            self._fold()
            waits = _grouped((kind, meter) for (kind, lane), meter in self.waits.items() if not lane)
            calls = _grouped((kind, meter) for (kind, _, _), meter in self.times.items())
            return tuple(_type_statistics(kind, waits[kind], calls[kind]) for kind in waits)

    def handlers(self) -> tuple[HandlerStatistics, ...]:
        with self.lock:
            self._fold()
            calls = _grouped(((name, lane), meter) for (_, name, lane), meter in self.times.items())
            waits = _grouped(
                ((name, lane), self.waits[kind, lane])
                for kind, name, lane in self.times
                if (kind, lane) in self.waits
            )
            return tuple(_handler_statistics(key, waits[key], calls[key]) for key in calls)


def _grouped(pairs: Iterable[tuple[_K, Meter]]) -> defaultdict[_K, list[Meter]]:
    groups: defaultdict[_K, list[Meter]] = defaultdict(list)
    for key, meter in pairs:
        groups[key].append(meter)
    return groups


def _type_statistics(kind: str, waits: list[Meter], calls: list[Meter]) -> TypeStatistics:
    errors = sum(meter.errors for meter in calls)
    return TypeStatistics(
        type=kind,
        count=_counted(waits),
        errors=errors,
        queue_wait=merged(waits),
        handler_time=merged(calls),
    )


def _handler_statistics(key: tuple[str, str], waits: list[Meter], calls: list[Meter]) -> HandlerStatistics:
    errors = sum(meter.errors for meter in calls)
    return HandlerStatistics(
        handler=key[0],
        lane=key[1],
        count=_counted(calls),
        errors=errors,
        queue_wait=merged(waits),
        handler_time=merged(calls),
    )


def _counted(meters: Iterable[Meter]) -> int:
    return sum(meter.count for meter in meters)


def merged(meters: Iterable[Meter]) -> HistogramSnapshot:
    total = Histogram()
    for meter in meters:
        total.merge(meter.histogram)
    return total.snapshot()
