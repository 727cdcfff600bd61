"""Tells the time, as an argument that tests replace."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the time is. Any thread may ask."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC. For records, never for durations."""
        ...

    def time_ns(self) -> int:
        """Return the wall time in nanoseconds since the epoch. For stamps."""
        ...

    def monotonic(self) -> float:
        """Return seconds of a clock that never goes back. For durations and deadlines."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()
