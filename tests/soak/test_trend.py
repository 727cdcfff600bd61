from __future__ import annotations

import random

import pytest

from soak.trend import _student, fit

NIGHTS = [n * 44_800 for n in range(72)]


def memory(chance: random.Random, *, leak: float, noise: float = 1.5e6, alike: float = 0.0) -> list[float]:
    """Make a process's memory by night: it wavers by megabytes, what is up may stay up for a while."""
    levels, off = [], 0.0
    for events in NIGHTS:
        off = alike * off + chance.gauss(0, noise)
        levels.append(190e6 + off + leak * events)
    return levels


def test_a_straight_line_is_found_exactly():
    line = fit(range(10), [3 + 2 * x for x in range(10)])

    assert (line.slope, line.start, line.growth) == pytest.approx((2, 3, 18))
    assert (line.low, line.high) == pytest.approx((2, 2))


@pytest.mark.parametrize(
    ("freedom", "by_the_book"), [(1, 12.706), (3, 3.182), (5, 2.571), (10, 2.228), (70, 1.994)]
)
def test_student_s_points_are_those_of_the_tables(freedom, by_the_book):
    assert _student(freedom) == pytest.approx(by_the_book, rel=0.003)


@pytest.mark.parametrize("alike", [0.0, 0.4])
def test_the_interval_holds_the_truth_as_often_as_it_says(alike):
    chance = random.Random(1)
    lines = [fit(NIGHTS, memory(chance, leak=0.3, alike=alike)) for _ in range(1000)]

    assert sum(line.low <= 0.3 <= line.high for line in lines) > 900


def test_one_byte_an_event_is_told_from_none():
    """The day's worth: 72 nights are judged, memory wavers by 1.5 MB from one to the next."""
    chance = random.Random(2)
    clean = [fit(NIGHTS, memory(chance, leak=0)) for _ in range(200)]
    leaking = [fit(NIGHTS, memory(chance, leak=1)) for _ in range(200)]

    assert sum(line.high <= 1 for line in clean) > 190
    assert sum(line.high > 1 for line in leaking) > 190
    assert sum(line.low > 0 for line in leaking) > 190


def test_a_rise_counts_when_it_is_certain_and_large_enough():
    steep = fit(range(20), [x + x % 2 for x in range(20)])
    noisy = fit(range(20), [50 * (x % 2) + 0.1 * x for x in range(20)])

    assert steep.rises(by=10)
    assert not steep.rises(by=30)
    assert not noisy.rises(by=0)


@pytest.mark.parametrize(("xs", "ys"), [([1] * 7, range(7)), ([1] * 9, range(9))])
def test_what_cannot_be_told_is_not_guessed(xs, ys):
    with pytest.raises(ValueError, match="samples"):
        fit(xs, list(ys))
