"""Latency: the stamps an update collects on its way, and the histograms durations are counted in."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import frexp, ldexp
from operator import add

from msgspec import Struct
from msgspec.structs import replace

STAGES = ("broker", "received", "queued", "joined", "committed", "emitted", "painted")
"""The stamps of an update in the order they are made."""


class Stamps(Struct, frozen=True, kw_only=True, gc=False):
    """When an update passed each stage: wall-clock nanoseconds since the epoch, 0 where it has not (yet) passed.

    `broker` is the broker's own time (whole seconds at both brokers), `painted` the browser's, corrected for the
    difference of the clocks; the others are this machine's.
    """

    broker: int = 0
    received: int = 0
    queued: int = 0
    joined: int = 0
    committed: int = 0
    emitted: int = 0
    painted: int = 0

    def at(self, **stamps: int) -> Stamps:
        """Return a copy with the named stamps set."""
        return replace(self, **stamps)

    def stages(self) -> dict[str, int]:
        """Return for each stage reached the nanoseconds since the last one reached before it, in order.

        The first stamp present begins the count and has no entry. A difference between two clocks can be
        negative; it is returned as it is.
        """
        reached = [(name, stamp) for name in STAGES if (stamp := getattr(self, name))]
        return {name: stamp - before for (_, before), (name, stamp) in pairwise(reached)}


def trace(account: str, received_ns: int) -> str:
    """Return the name under which the logs follow an update from the broker's bytes to the screen.

    It is made of what every stage knows anyway, so nothing has to be carried along: the account and the moment its
    bytes were read. What one read brought has one name; the order id tells it apart.
    """
    return f"{account}-{received_ns:x}" if received_ns else ""


_LOWEST = -30
_HIGHEST = 10
_BUCKETS = (_HIGHEST - _LOWEST) * 4
"""Four for each power of two of a second, from 2**-30 (about 1 ns) to 2**10 (17 minutes)."""

_SIGN = 0x8000
_BASE = (1023 + _LOWEST) << 2
_HIGH_WORD = 3 if sys.byteorder == "little" else 0
_SHOWN = range(-20, 6)
"""Powers of two of a second shown as cumulative buckets: 1 µs to 32 s."""

_EXACT = 512
_STRIDE = 7


def bucket_of(seconds: float) -> int:
    """Return the bucket that counts `seconds`; what is below the first or above the last is counted there."""
    fraction, power = frexp(seconds)
    return min(max((power - 1 - _LOWEST) * 4 + int(fraction * 8) - 4, 0), _BUCKETS - 1) if seconds > 0 else 0


def lower_bound(bucket: int) -> float:
    """Return the least number of seconds counted in `bucket`; the upper bound is that of the next."""
    return ldexp(4 + (bucket & 3), (bucket >> 2) + _LOWEST - 2) if bucket else 0.0


def _bucket_of_word(word: int) -> int:
    """Return the bucket of a float whose highest 16 bits are `word`: exponent and leading fraction are the bucket."""
    return 0 if word & _SIGN else min(max((word >> 2) - _BASE, 0), _BUCKETS - 1)


def _words(durations: Sequence[float]) -> Counter[int]:
    return Counter(memoryview(array("d", durations).tobytes()).cast("H")[_HIGH_WORD::4].tolist())


class HistogramSnapshot(Struct, frozen=True, gc=False):
    """What a histogram held at one moment; nanoseconds throughout."""

    count: int = 0
    total: int = 0
    max: int = 0
    buckets: tuple[int, ...] = ()

    @property
    def mean(self) -> int:
        """The mean duration, 0 without any."""
        return self.total // self.count if self.count else 0

    @property
    def p50(self) -> int:
        return self.percentile(50)

    @property
    def p99(self) -> int:
        return self.percentile(99)

    def percentile(self, percent: float) -> int:
        """Return the duration that `percent` of all do not exceed, within a quarter; 0 without any.

        Raises ValueError outside 0 to 100.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"a percentile lies between 0 and 100, not at {percent}")
        rank = self.count * percent / 100
        below = 0
        for bucket, count in enumerate(self.buckets):
            if count and below + count >= rank:
                low, high = lower_bound(bucket), lower_bound(bucket + 1)
                return min(int((low + (high - low) * (rank - below) / count) * 1e9), self.max)
            below += count
        return self.max

    def cumulative(self) -> tuple[tuple[float, int], ...]:
        """Return (seconds, durations below) at each power of two from 1 µs to 32 s: always the same bounds."""
        counts = self.buckets or (0,) * _BUCKETS
        return tuple((ldexp(1, power), sum(counts[: (power - _LOWEST) * 4])) for power in _SHOWN)


class Histogram:
    """Counts durations in four buckets per power of two. Not locked: one thread at a time."""

    __slots__ = ("_buckets", "_offset", "count", "max", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.max = 0.0
        self._buckets = [0] * _BUCKETS
        self._offset = 0

    def add(self, ns: int) -> None:
        """Count one duration of `ns` nanoseconds; a negative one (clocks) counts as 0."""
        self.extend([max(ns, 0) / 1e9])

    def extend(self, durations: Sequence[float], *, standing_for: int | None = None) -> None:
        """Count many durations, in seconds, as all there were or as a sample that stands for so many.

        The maximum is that of `durations`; the total is theirs, in proportion. Of more than 512 at once the
        distribution looks at every seventh, beginning at another place each time. One below 0 by a clock's
        grain goes to the lowest bucket.
        """
        if not durations:
            return
        count = len(durations) if standing_for is None else standing_for
        self.count += count
        self.total += sum(durations) * count / len(durations)
        self.max = max(self.max, max(durations))  # noqa: PLW3301 - nested, as one may be thousands
        if len(durations) > _EXACT:
            durations = durations[self._offset :: _STRIDE]
            self._offset = (self._offset + 3) % _STRIDE
        self._distribute(durations, count)

    def _distribute(self, sample: Sequence[float], count: int) -> None:
        """Share `count` among the buckets of the sample, as evenly as whole numbers can be."""
        weight, rest = divmod(count, len(sample))
        for some, weighing in ((sample[:rest], weight + 1), (sample[rest:], weight)):
            for word, times in _words(some).items():
                self._buckets[_bucket_of_word(word)] += times * weighing

    def merge(self, other: Histogram) -> None:
        """Count everything `other` has counted as well."""
        self.count += other.count
        self.total += other.total
        self.max = max(self.max, other.max)
        self._buckets = list(map(add, self._buckets, other._buckets))

    def percentile(self, percent: float) -> int:
        """Return the nanoseconds that `percent` (0 to 100) of all durations do not exceed."""
        return self.snapshot().percentile(percent)

    def snapshot(self) -> HistogramSnapshot:
        """Return the present counts as a value."""
        return HistogramSnapshot(
            self.count, round(self.total * 1e9), round(self.max * 1e9), tuple(self._buckets)
        )
