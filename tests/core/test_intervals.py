from collections import Counter
from math import comb
from random import Random

import pytest

from orderwire.core.intervals import beta_below, change_of_means, percentile_of_days, rate_interval


def at_most(hits, count, rate):
    return sum(comb(count, k) * rate**k * (1 - rate) ** (count - k) for k in range(hits + 1))


@pytest.mark.parametrize(("hits", "count"), [(1, 10), (3, 20), (10, 50), (0, 30), (30, 30), (49, 50)])
def test_an_exact_interval_leaves_a_fortieth_on_each_side(hits, count):
    low, high = rate_interval(hits, count)

    if hits:
        assert 1 - at_most(hits - 1, count, low) == pytest.approx(0.025, rel=1e-6)
    if hits < count:
        assert at_most(hits, count, high) == pytest.approx(0.025, rel=1e-6)
    assert low <= hits / count <= high


def test_without_observations_a_rate_may_be_anything():
    assert rate_interval(0, 0) == (0, 1)


def test_what_is_no_rate_is_refused():
    with pytest.raises(ValueError, match="3 of 2"):
        rate_interval(3, 2)


def test_large_counts_stay_exact():
    """Against the normal approximation, which is good here."""
    low, high = rate_interval(1_000, 1_000_000)

    assert low == pytest.approx(0.001 - 1.96 * 3.16e-5, rel=0.01)
    assert high == pytest.approx(0.001 + 1.96 * 3.16e-5, rel=0.01)


@pytest.mark.parametrize(("x", "a", "b"), [(0.3, 2, 5), (0.5, 1, 1), (0.99, 4, 2), (0.01, 3, 3)])
def test_the_beta_function_against_the_binomial_sum(x, a, b):
    n = a + b - 1
    expected = sum(comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(a, n + 1))

    assert beta_below(x, a, b) == pytest.approx(expected, rel=1e-9)
    assert (beta_below(0, a, b), beta_below(1, a, b)) == (0, 1)


def test_a_percentile_is_that_of_all_days_together():
    days = [Counter(dict.fromkeys(range(1, 51), 1)), Counter(dict.fromkeys(range(51, 101), 1))]

    assert percentile_of_days(days, 95, chance=Random(1).random)[0] == 95
    assert percentile_of_days(days, 50, chance=Random(1).random)[0] == 50
    assert percentile_of_days([], 50, chance=Random(1).random) == (0, 0, 0)


def test_equal_days_leave_no_doubt_and_different_ones_do():
    same = [Counter({100: 50, 200: 50})] * 10
    mixed = [Counter({100: 100})] * 5 + [Counter({900: 100})] * 5

    assert percentile_of_days(same, 95, chance=Random(1).random)[1:] == (200, 200)
    low, high = percentile_of_days(mixed, 50, chance=Random(1).random)[1:]
    assert (low, high) == (100, 900)


def test_the_interval_of_a_percentile_holds_the_truth_as_often_as_it_says():
    held = 0
    for seed in range(60):
        random = Random(seed)
        days = [Counter(int(random.lognormvariate(5, 0.4)) for _ in range(80)) for _ in range(25)]
        _, low, high = percentile_of_days(days, 95, chance=random.random, repeats=100)
        held += low <= 286 <= high  # exp(5 + 0.4 * 1.645)
    assert held >= 48


def test_a_change_of_means_is_relative_with_its_interval():
    before, after = [3.0] * 50, [3.0] * 25 + [4.5] * 25

    change, low, high = change_of_means(before, after, chance=Random(3).random)

    assert change == pytest.approx(0.25)
    assert 0.15 < low < 0.25 < high < 0.35
    assert change_of_means([], after, chance=Random(3).random) == (0, 0, 0)
    assert change_of_means([0.0], after, chance=Random(3).random)[0] == 0
