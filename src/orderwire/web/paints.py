"""How long a change takes from the broker to the screen, stage by stage, as the screens themselves report it."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Final

import structlog

from orderwire.core.events import Event
from orderwire.core.evidence import PLACED, RECEIVED
from orderwire.core.latency import Histogram, HistogramSnapshot, Stamps, trace
from orderwire.core.lifecycle import OrderChange
from orderwire.core.orders import AccountId, OrderStatus
from orderwire.logs import follows_updates
from orderwire.web.realtime import Painted

_log = structlog.get_logger(__name__)

MOST_REMEMBERED: Final = 10_000
"""Changes whose stamps are held, the latest; the log keeps those up to the join for good."""

_BEFORE_CONFIRMED: Final = frozenset({None, OrderStatus.PENDING_NEW})


class PaintTimes:
    """Counts the paints of visible pages; what a hidden tab takes is no paint. Any thread."""

    def __init__(self, told: Callable[[AccountId, Mapping[str, int]], None]) -> None:
        """`told` hears of every paint: whose it was, and its durations in nanoseconds by stage."""
        self._told = told
        self._explains = follows_updates()
        self._lock = Lock()  # guards both below
        self._stages: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._stamps: OrderedDict[str, Stamps] = OrderedDict()

    def __call__(self, painted: Painted) -> None:
        """Count one paint."""
        if painted.hidden:
            return
        durations = times_of(painted)
        self._told(painted.change.account, durations)
        change = painted.change
        if self._explains:
            _log.debug(
                "painted",
                trace=trace(change.account, change.stamps.received),
                event_id=change.event_id,
                account=change.account,
                milliseconds=round(durations.get(RECEIVED, 0) / 1e6, 1),
            )
        with self._lock:
            for stage, nanoseconds in durations.items():
                self._stages[stage].add(nanoseconds)
            known = self._stamps.get(painted.change.event_id)
            if known is None or not known.painted:  # the first screen counts
                self._remember(painted.change.event_id, painted.stamps)

    def on_changed(self, event: Event) -> None:
        """Remember a change's stamps up to its commit; on the dispatcher's thread."""
        change: OrderChange = event.data
        with self._lock:
            self._remember(change.event_id, change.stamps)

    def stamps(self, change: OrderChange) -> Stamps:
        """Return how far a change got, and when; of an old one what its log says."""
        with self._lock:
            return self._stamps.get(change.event_id, change.stamps)

    def _remember(self, event_id: str, stamps: Stamps) -> None:
        self._stamps[event_id] = stamps
        if len(self._stamps) > MOST_REMEMBERED:
            self._stamps.popitem(last=False)

    def snapshot(self) -> dict[str, HistogramSnapshot]:
        """Return the durations by stage, in nanoseconds."""
        with self._lock:
            return {stage: histogram.snapshot() for stage, histogram in self._stages.items()}


def times_of(painted: Painted) -> dict[str, int]:
    """Return what one paint tells: each stage's duration, the whole, and for a new order of ours its wait."""
    stamps, view, was = painted.stamps, painted.change.order, painted.change.was
    durations = stamps.stages()
    if stamps.received:
        durations[RECEIVED] = stamps.painted - stamps.received
    confirmed = view is not None and view.status is not OrderStatus.PENDING_NEW and was in _BEFORE_CONFIRMED
    if confirmed and view is not None and view.submission and view.first_seen is not None:
        durations[PLACED] = stamps.painted - round(view.first_seen.timestamp() * 1e9)
    return durations
