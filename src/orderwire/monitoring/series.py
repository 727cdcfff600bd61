"""The recent past of a few metrics, for the operator's charts: a point a second, then a point for ten."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from orderwire.core.alerts import Buckets, quantile
from orderwire.core.latency import HistogramSnapshot
from orderwire.monitoring.metrics import STEPS, Sample, bounds

_FINE, _COARSE, _STEP = 900, 2160, 10
"""A quarter of an hour by the second, six hours by ten seconds."""

_WINDOW = 10
"""Seconds over which percentiles and rates of a point are taken."""

STAGES = (*STEPS, "painted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What the charts show of one moment; durations in milliseconds, rates per second, None without any."""

    at: float
    """Seconds since the epoch."""
    depth: float
    events: float
    changes: float
    errors: float
    connected: float
    clients: float
    waiting: float
    whole_p50: float | None
    whole_p95: float | None
    stages_p95: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    at: float
    totals: dict[str, float]
    buckets: dict[str, Buckets]


class Series:
    """Points of the recent past. `add` is called by one thread at a time, the rest by any."""

    def __init__(self) -> None:
        self._fine: deque[Point] = deque(maxlen=_FINE)
        self._coarse: deque[Point] = deque(maxlen=_COARSE)
        self._seen: deque[_Seen] = deque(maxlen=_WINDOW + 1)
        self._added = 0

    def add(self, samples: Iterable[Sample], *, at: float) -> None:
        """Take in all samples of one moment."""
        now = _seen(samples, at)
        then = self._seen[0] if self._seen else now
        self._seen.append(now)
        point = _point(then, now)
        self._fine.append(point)
        self._added += 1
        if self._added % _STEP == 1:
            self._coarse.append(point)

    def points(self, *, long: bool = False) -> tuple[Point, ...]:
        """Return the last quarter of an hour, or the last six hours, oldest first."""
        return tuple(self._coarse.copy() if long else self._fine.copy())


def _seen(samples: Iterable[Sample], at: float) -> _Seen:
    totals: dict[str, float] = {}
    buckets: dict[str, dict[float, float]] = {}
    for each in samples:
        if not isinstance(each.value, HistogramSnapshot):
            totals[each.name] = totals.get(each.name, 0.0) + each.value
            continue
        key = dict(each.labels).get("stage", each.name)
        total = buckets.setdefault(key, {})
        for bound, count in bounds(each.value) if key in _PLOTTED else ():
            total[bound] = total.get(bound, 0.0) + count
    return _Seen(at, totals, {key: tuple(sorted(total.items())) for key, total in buckets.items()})


_WHOLE, _PAINT = "orderwire_processing_seconds", "orderwire_paint_seconds"
_PLOTTED = frozenset({*STEPS, _WHOLE, _PAINT})


def _point(then: _Seen, now: _Seen) -> Point:
    seconds = max(now.at - then.at, 1e-9)

    def rate(name: str) -> float:
        return round((now.totals.get(name, 0.0) - then.totals.get(name, 0.0)) / seconds, 2)

    def level(name: str) -> float:
        return now.totals.get(f"orderwire_{name}", 0.0)

    changes = _count(now, _WHOLE) - _count(then, _WHOLE)
    return Point(
        at=round(now.at, 3),
        depth=level("queue_depth"),
        events=rate("orderwire_events_total"),
        changes=round(changes / seconds, 2),
        errors=rate("orderwire_errors_total"),
        connected=level("streams_connected"),
        clients=level("clients"),
        waiting=level("outbox_waiting"),
        whole_p50=_milliseconds(0.5, then, now, _WHOLE),
        whole_p95=_milliseconds(0.95, then, now, _WHOLE),
        stages_p95=tuple(_milliseconds(0.95, then, now, key) for key in (*STEPS, _PAINT)),
    )


def _count(seen: _Seen, key: str) -> float:
    counted = seen.buckets.get(key)
    return counted[-1][1] if counted else 0.0


def _milliseconds(share: float, then: _Seen, now: _Seen, key: str) -> float | None:
    before = dict(then.buckets.get(key, ()))
    grown = tuple((bound, count - before.get(bound, 0.0)) for bound, count in now.buckets.get(key, ()))
    found = quantile(share, grown)
    return None if isnan(found) else float(f"{found * 1000:.3g}")


# --- as plots ---------------------------------------------------------------------------------------------

PLOTS = ("depth", "latency", "stages", "rates", "connections")


def plot(points: Sequence[Point], name: str) -> dict[str, Any]:
    """Return one of PLOTS as the page draws it."""
    lines: dict[str, list[tuple[str, list[float | None], str]]] = {
        "depth": [
            ("queue", [p.depth for p in points], "wait"),
            ("slowest client", [p.waiting for p in points], "calm"),
        ],
        "latency": [
            ("p50", [p.whole_p50 for p in points], "good"),
            ("p95", [p.whole_p95 for p in points], "wait"),
        ],
        "stages": [
            (stage, [p.stages_p95[number] for p in points], "") for number, stage in enumerate(STAGES)
        ],
        "rates": [
            ("events", [p.events for p in points], "work"),
            ("changes", [p.changes for p in points], "good"),
            ("errors", [p.errors for p in points], "bad"),
        ],
        "connections": [
            ("streams", [p.connected for p in points], "good"),
            ("clients", [p.clients for p in points], "work"),
        ],
    }
    units = {"latency": "ms", "stages": "ms", "rates": "/s"}
    return {
        "time": [p.at for p in points],
        "series": [
            {"label": label, "values": values, **({"tone": tone} if tone else {})}
            for label, values, tone in lines[name]
        ],
        "unit": units.get(name, ""),
    }
