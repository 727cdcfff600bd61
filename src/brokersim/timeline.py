"""The simulators' time: a queue of actions, each run at its moment when somebody advances the time.

Tests advance it by hand and never sleep; a serving process advances it to the wall clock.
"""

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from typing import Final

IST: Final = timezone(timedelta(hours=5, minutes=30), "IST")
Action = Callable[[], None]


class Timeline:
    """Time in seconds since the epoch, and what is to happen then. One thread only."""

    def __init__(self, start: float) -> None:
        self._now = start
        self._queue: list[tuple[float, int, Action]] = []
        self._numbers = count()
        self.on_earlier: Action = lambda: None

    @property
    def now(self) -> float:
        """The present, seconds since the epoch. Inside an action: the moment the action was due."""
        return self._now

    @property
    def date(self) -> datetime:
        """The present as an aware datetime in Indian time."""
        return datetime.fromtimestamp(self._now, UTC).astimezone(IST)

    @property
    def next_due(self) -> float | None:
        """When the next action is due; None when there is none."""
        return self._queue[0][0] if self._queue else None

    def after(self, delay: float, action: Action) -> None:
        """Run `action` once, `delay` seconds from now; actions due together run in the order given.

        Calls `on_earlier` when it became the next one due, so that a sleeping pump can wake.
        """
        due = self._now + max(delay, 0.0)
        number = next(self._numbers)
        heapq.heappush(self._queue, (due, number, action))
        if self._queue[0][1] == number:
            self.on_earlier()

    def advance(self, to: float) -> int:
        """Run everything due until `to`, in order, then make `to` the present; return how many ran.

        Time never goes back: an earlier `to` runs nothing. An action may add actions that are due as well.
        """
        ran = 0
        while self._queue and self._queue[0][0] <= to:
            due, _, action = heapq.heappop(self._queue)
            self._now = max(self._now, due)
            action()
            ran += 1
        self._now = max(self._now, to)
        return ran

    def advance_by(self, seconds: float) -> int:
        """Advance by so many seconds."""
        return self.advance(self._now + seconds)
