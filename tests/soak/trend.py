"""Whether something grows: a straight line through samples, with what is not known about it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

FEWEST = 8
"""Samples below which nothing is said about a trend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A fitted line: its slope, and the two ends of the slope's 95 % interval."""

    slope: float
    low: float
    high: float
    start: float
    """Its height at the first sample."""
    span: float
    """How far the samples reach."""

    @property
    def growth(self) -> float:
        """How much it rises from the first sample to the last."""
        return self.slope * self.span

    def rises(self, *, by: float) -> bool:
        """Whether it certainly rises, and by more than `by` from the first sample to the last."""
        return self.low > 0 and self.growth > by


def fit(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """Fit a line by least squares. Raises ValueError below eight samples, or when all are at one place.

    Neighbouring samples resemble each other (memory that is up stays up for a while): as if there were fewer of
    them the more they do, by the correlation of each deviation with the next.
    """
    count = len(xs)
    if count < FEWEST:
        raise ValueError(f"{count} samples say nothing about a trend")
    middle, level = sum(xs) / count, sum(ys) / count
    spread = sum((x - middle) ** 2 for x in xs)
    if not spread:
        raise ValueError("all samples are at one place")
    slope = sum((x - middle) * (y - level) for x, y in zip(xs, ys, strict=True)) / spread
    rest = [y - level - slope * (x - middle) for x, y in zip(xs, ys, strict=True)]
    alike = _alike(rest)
    independent = max(count * (1 - alike) / (1 + alike), 3.0)
    scatter = sum(r * r for r in rest) / (count - 2)
    half = _student(independent - 2) * math.sqrt(scatter / spread * count / independent)
    start = level + slope * (min(xs) - middle)
    return Line(slope=slope, low=slope - half, high=slope + half, start=start, span=max(xs) - min(xs))


def _alike(rest: Sequence[float]) -> float:
    """Return the correlation of each deviation with the next one, at least 0."""
    square = sum(r * r for r in rest)
    return max(sum(a * b for a, b in pairwise(rest)) / square, 0.0) if square else 0.0


def _student(freedom: float) -> float:
    """Return the 97.5 % point of Student's distribution: Cornish and Fisher's expansion, by tables below 4."""
    if freedom < 4:
        return {1: 12.706, 2: 4.303, 3: 3.182}[max(math.floor(freedom), 1)]
    z = 1.959964
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
