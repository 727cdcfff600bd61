"""An asyncio loop whose time jumps to the next deadline instead of waiting: hours in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

START = datetime(2026, 8, 17, 4, 30, tzinfo=UTC)  # a Monday, 10:00 IST


class VirtualClock:
    """A `Clock` that the virtual loop moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def time_ns(self) -> int:
        return int(self.now().timestamp() * 1_000_000_000)

    def monotonic(self) -> float:
        return self.seconds


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("the virtual loop waits for something that can never come")
        self._clock.seconds += max(timeout, 0.0)
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_JumpingSelector(clock))
        self._clock = clock
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._clock.seconds


def run_virtually(work: Coroutine[Any, Any, T], clock: VirtualClock) -> T:
    """Run a coroutine to its end; nothing in it waits in real time."""
    with asyncio.Runner(loop_factory=lambda: _VirtualLoop(clock)) as runner:
        return runner.run(work)
