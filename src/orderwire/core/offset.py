"""How far another clock is from ours, estimated from times that it tells only to the second."""

from __future__ import annotations

from msgspec import Struct

STALE_AFTER = 900.0
"""Seconds after which an estimate is begun anew: clocks drift, and are set."""


class ClockOffset(Struct, frozen=True, kw_only=True):
    """The other clock is ahead of ours by something between `low` and `high` seconds."""

    low: float
    high: float
    since: float
    """When the estimate was begun, in seconds of our monotonic clock."""

    @property
    def seconds(self) -> float:
        """The best guess of how far the other clock is ahead."""
        return (self.low + self.high) / 2

    @property
    def error(self) -> float:
        """How wrong the guess can be, in seconds."""
        return (self.high - self.low) / 2


def observe(
    before: ClockOffset | None,
    *,
    told: float,
    sent: float,
    received: float,
    resolution: float = 1.0,
    at: float,
) -> ClockOffset:
    """Narrow an estimate by one exchange: sent and received by our wall clock, `told` in between by theirs.

    A clock that tells full seconds was at `told` or up to `resolution` later when it spoke, and it spoke between
    `sent` and `received`. What every exchange allows is the answer, so the estimate gets finer than a second. An
    exchange that contradicts the earlier ones means that a clock was set: it begins anew. `at` is our monotonic
    time; all in seconds.
    """
    low, high = told - received, told + resolution - sent
    fresh = ClockOffset(low=low, high=high, since=at)
    if before is None or at - before.since > STALE_AFTER:
        return fresh
    low, high = max(low, before.low), min(high, before.high)
    return ClockOffset(low=low, high=high, since=before.since) if low <= high else fresh
