"""How sure a figure is: exact intervals for rates, bootstrap intervals for percentiles and means."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final

CONFIDENCE: Final = 0.95
REPEATS: Final = 400
"""Resamples of a bootstrap: the ends of a 95 % interval rest on ten of them each."""

_STEPS: Final = 60
_TERMS: Final = 400
_TINY: Final = 1e-300


def rate_interval(hits: int, count: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) interval of a rate; (0, 1) without observations.

    Raises ValueError unless 0 <= hits <= count.
    """
    if not 0 <= hits <= count:
        raise ValueError(f"{hits} of {count} is no rate")
    tail = (1 - confidence) / 2
    low = _beta_quantile(tail, hits, count - hits + 1) if hits else 0.0
    high = _beta_quantile(1 - tail, hits + 1, count - hits) if hits < count else 1.0
    return low, high


def _beta_quantile(probability: float, a: float, b: float) -> float:
    """Return where the beta distribution's share below is `probability`, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if beta_below(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def beta_below(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), by its continued fraction (Lentz)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - beta_below(1 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) * _continued_fraction(x, a, b) / a


def _continued_fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1.0 / _not_zero(1.0 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _TERMS):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _not_zero(1.0 + step * d)
            c = _not_zero(1.0 + step / c)
            value *= c * d
        if abs(c * d - 1.0) < 1e-14:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def percentile_of_days(
    days: Sequence[Counter[int]], percent: float, *, chance: Callable[[], float], repeats: int = REPEATS
) -> tuple[float, float, float]:
    """Return a percentile of everything, and its interval by resampling whole days; zeros without a value.

    `days` count values (whole milliseconds, say) of each day: orders of one day resemble each other, so days are what
    is drawn anew, not orders. `chance` is uniform in [0, 1).
    """
    values = sorted({value for day in days for value in day})
    if not values:
        return 0.0, 0.0, 0.0
    below = [list(accumulate(day.get(value, 0) for value in values)) for day in days]
    whole = _weighted_percentile(values, below, [1] * len(days), percent)
    drawn = sorted(
        _weighted_percentile(values, below, _draw(len(days), chance), percent) for _ in range(repeats)
    )
    return (whole, *_ends(drawn))


def _weighted_percentile(
    values: Sequence[int], below: Sequence[Sequence[int]], weights: Sequence[int], percent: float
) -> float:
    used = [(weight, counts) for weight, counts in zip(weights, below, strict=True) if weight]
    total = sum(weight * counts[-1] for weight, counts in used)
    if not total:
        return 0.0

    def seen(at: int) -> int:
        return sum(weight * counts[at] for weight, counts in used)

    return float(values[bisect_left(range(len(values)), max(total * percent / 100, 1e-9), key=seen)])


def _draw(count: int, chance: Callable[[], float]) -> list[int]:
    drawn = Counter(int(chance() * count) for _ in range(count))
    return [drawn[at] for at in range(count)]


def change_of_means(
    before: Sequence[float], after: Sequence[float], *, chance: Callable[[], float], repeats: int = REPEATS
) -> tuple[float, float, float]:
    """Return how much the mean of `after` differs from that of `before`, relative, and its bootstrap interval.

    Zeros where either has no answer.
    """
    if not before or not after:
        return 0.0, 0.0, 0.0
    drawn = sorted(_relative(_resampled(before, chance), _resampled(after, chance)) for _ in range(repeats))
    return (_relative(before, after), *_ends(drawn))


def _resampled(values: Sequence[float], chance: Callable[[], float]) -> list[float]:
    return [values[int(chance() * len(values))] for _ in values]


def _relative(before: Sequence[float], after: Sequence[float]) -> float:
    base = sum(before) / len(before)
    return (sum(after) / len(after) - base) / base if base else 0.0


def _ends(drawn: Sequence[float]) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    last = len(drawn) - 1
    return drawn[int(last * tail)], drawn[math.ceil(last * (1 - tail))]
