"""How badly a world treats what travels through it: rates, delays, outages and restarts, drawn from its seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

MOST_DROPPED = 0.4
MOST_TWICE = 0.4
LONGEST_DELAY = 10.0
"""Seconds by which a message may come late, and so overtake nothing and be overtaken by everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """One world's faults. Rates are shares of messages, times are seconds into the world."""

    drop: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    delay: float = 0.0
    """The longest delay of a late message or a second copy."""
    lag: float = 0.0
    """The most by which a read of the book shows the past."""
    failing: float = 0.0
    """Share of reads that fail."""
    read_every: float = 0.0
    """Seconds between routine reads; 0: none."""
    outages: tuple[tuple[float, float], ...] = ()
    """When the stream is down."""
    restarts: tuple[tuple[float, float, bool], ...] = ()
    """When the service goes, when it is back, and whether it crashed."""
    busy: tuple[tuple[float, float], ...] = ()
    """When the database takes no writes."""
    hints: float = 0.0
    """Share of pushes that come as a postback too."""
    altered: float = 0.0
    """Share of postbacks followed by an altered or repeated one."""
    reads: bool = True
    """Whether the book is read at all."""
    patient: float = 0.4
    """Share of arrivals after which the dispatcher does not run at once, so that batches grow."""

    def is_down(self, at: float) -> bool:
        """Whether the stream is down."""
        return any(begin <= at < end for begin, end in self.outages)

    def is_busy(self, at: float) -> bool:
        """Whether the database takes no writes."""
        return any(begin <= at < end for begin, end in self.busy)


FIELD = Weather(twice=0.2, late=1.0, delay=1.0, reads=False)
"""What figures.md measured the field with: a fifth of the updates twice, up to a second late, nothing lost."""


def draw(rng: Random, *, end: float) -> Weather:
    """Draw the weather of a world that lasts until `end`."""
    return Weather(
        drop=rng.choice((0.0, rng.random(), 1.0)) * MOST_DROPPED,
        twice=rng.choice((0.0, rng.random(), 1.0)) * MOST_TWICE,
        late=rng.choice((0.0, 0.2, 0.6, 1.0)),
        delay=rng.choice((0.3, 1.0, 3.0, LONGEST_DELAY)),
        lag=rng.choice((0.0, 0.0, 0.5, 2.0, 6.0)),
        failing=rng.choice((0.0, 0.0, 0.3)),
        read_every=rng.choice((0.0, 3.0, 4.0, 4.0)),
        outages=_windows(rng, end, chance=0.3, longest=12.0),
        restarts=_restarts(rng, end),
        busy=_windows(rng, end, chance=0.08, longest=3.0),
        hints=rng.choice((0.0, 0.7, 1.0)),
        altered=rng.choice((0.0, 0.4)),
        patient=rng.choice((0.0, 0.3, 0.8)),
    )


def _windows(rng: Random, end: float, *, chance: float, longest: float) -> tuple[tuple[float, float], ...]:
    windows: list[tuple[float, float]] = []
    while rng.random() < chance and len(windows) < 3:
        begin = rng.random() * end
        windows.append((begin, begin + rng.random() * longest))
    return tuple(windows)


def _restarts(rng: Random, end: float) -> tuple[tuple[float, float, bool], ...]:
    found: list[tuple[float, float, bool]] = []
    goes = 0.0
    while rng.random() < 0.25 and len(found) < 2:
        goes += 0.1 + rng.random() * end / 2
        back = goes + rng.random() * 3
        found.append((goes, back, rng.random() < 0.6))
        goes = back
    return tuple(found)
