"""Latency: the stamps an update collects on its way, and the histograms durations are counted in."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

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


_BUCKETS = 256
"""Four for each power of two of a 64-bit number of nanoseconds."""

_SIGN = 0x8000
_BIAS = 1023 << 2
_HIGH_WORD = 3 if sys.byteorder == "little" else 0
_SHOWN = range(10, 36)
"""Powers of two shown as cumulative buckets: 1 µs to 34 s."""


def bucket_of(ns: int) -> int:
    """Return the bucket that counts `ns` nanoseconds; what is not above 1 is counted in bucket 0."""
    if ns <= 1:
        return 0
    power = ns.bit_length() - 1
    return min((power << 2) | ((ns << 2 >> power) & 3), _BUCKETS - 1)


def lower_bound(bucket: int) -> float:
    """Return the smallest number of nanoseconds counted in `bucket`; the upper bound is that of the next."""
    return float((4 + (bucket & 3)) * (1 << (bucket >> 2)) / 4) if bucket else 0.0


def _bucket_of_word(word: int) -> int:
    """Return the bucket of a float whose highest 16 bits are `word`: exponent and leading fraction are the bucket."""
    return 0 if word & _SIGN else min(max((word >> 2) - _BIAS, 0), _BUCKETS - 1)


def _words(durations: array[float]) -> Counter[int]:
    return Counter(memoryview(durations.tobytes()).cast("H")[_HIGH_WORD::4].tolist())


class HistogramSnapshot(Struct, frozen=True, gc=False):
    """What a histogram held at one moment; nanoseconds throughout."""

    count: int = 0
    total: int = 0
    max: int = 0
    buckets: tuple[int, ...] = ()

    @property
    def mean(self) -> int:
        """Return the mean duration, 0 without any."""
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
                return min(int(low + (high - low) * (rank - below) / count), self.max)
            below += count
        return self.max

    def cumulative(self) -> tuple[tuple[int, int], ...]:
        """Return (upper bound, durations below it) at each power of two from 1 µs to 34 s: always the same bounds."""
        counts = self.buckets or (0,) * _BUCKETS
        return tuple((1 << power, sum(counts[: power << 2])) for power in _SHOWN)


class Histogram:
    """Counts durations in four buckets per power of two. Not locked: one thread at a time."""

    __slots__ = ("_buckets", "count", "max", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.max = 0
        self._buckets = [0] * _BUCKETS

    def add(self, ns: int) -> None:
        """Count one duration of `ns` nanoseconds; a negative one (clocks) counts as 0."""
        ns = max(ns, 0)
        self.count += 1
        self.total += ns
        self.max = max(self.max, ns)
        self._buckets[bucket_of(ns)] += 1

    def extend(self, durations: Iterable[float]) -> None:
        """Count many durations at once, a third cheaper each than `add`; the results are the same."""
        many = durations if isinstance(durations, array) else array("d", durations)
        if not many:
            return
        words = _words(many)
        if max(words) & _SIGN:
            many = array("d", [max(ns, 0.0) for ns in many])
        self.count += len(many)
        self.total += int(sum(many))
        self.max = max(self.max, int(max(many)))
        for word, times in words.items():
            self._buckets[_bucket_of_word(word)] += times

    def merge(self, other: Histogram | HistogramSnapshot) -> None:
        """Count everything `other` has counted as well."""
        snapshot = other.snapshot() if isinstance(other, Histogram) else other
        self.count += snapshot.count
        self.total += snapshot.total
        self.max = max(self.max, snapshot.max)
        for bucket, times in enumerate(snapshot.buckets):
            self._buckets[bucket] += times

    def percentile(self, percent: float) -> int:
        """Return the duration that `percent` (0 to 100) of all do not exceed."""
        return self.snapshot().percentile(percent)

    def snapshot(self) -> HistogramSnapshot:
        """Return the present counts as a value."""
        return HistogramSnapshot(self.count, self.total, self.max, tuple(self._buckets))
