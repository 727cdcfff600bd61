"""Rolling-window rate limits, for either broker."""

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """At most `calls` in any `seconds`."""

    calls: int
    seconds: float


class Windows:
    """Counts calls by key, each key against its own limits."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], deque[float]] = {}

    def allows(self, key: str, limits: dict[str, Limit], now: float) -> bool:
        """Say whether one more call fits all the named limits of a key, and count it only if it does."""
        windows = {name: self._window(key, name, limit, now) for name, limit in limits.items()}
        if any(len(window) >= limits[name].calls for name, window in windows.items()):
            return False
        for window in windows.values():
            window.append(now)
        return True

    def _window(self, key: str, name: str, limit: Limit, now: float) -> deque[float]:
        window = self._calls.setdefault((key, name), deque())
        while window and window[0] <= now - limit.seconds:
            window.popleft()
        return window
