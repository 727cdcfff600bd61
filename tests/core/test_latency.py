"""Durations are counted within a quarter of their size, however they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderwire.core.latency import STAGES, Histogram, HistogramSnapshot, Stamps, bucket_of, lower_bound

DURATIONS = st.lists(st.integers(min_value=0, max_value=2**38), max_size=200)
"""Nanoseconds up to four minutes."""


def counted(durations):
    histogram = Histogram()
    for ns in durations:
        histogram.add(ns)
    return histogram.snapshot()


def seconds(durations):
    return [ns / 1e9 for ns in durations]


@given(st.floats(min_value=0, max_value=1000))
def test_a_bucket_holds_what_lies_between_its_bounds(duration):
    bucket = bucket_of(duration)

    assert lower_bound(bucket) <= duration < lower_bound(bucket + 1)


@given(st.integers(min_value=1, max_value=158))
def test_a_bucket_is_at_most_a_quarter_wide(bucket):
    assert lower_bound(bucket) < lower_bound(bucket + 1) <= lower_bound(bucket) * 1.25


@pytest.mark.parametrize(
    ("duration", "bucket"), [(1e9, 159), (1024.0, 159), (0.0, 0), (-1.0, 0), (1e-12, 0), (1.0, 120)]
)
def test_what_lies_outside_is_counted_at_the_end_it_passed(duration, bucket):
    assert bucket_of(duration) == bucket


@given(st.lists(st.floats(min_value=-1, max_value=1e9), max_size=50))
def test_the_bucket_of_many_is_the_bucket_of_each(durations):
    histogram = Histogram()
    histogram.extend(durations)
    expected = [0] * 160
    for duration in durations:
        expected[bucket_of(duration)] += 1

    assert histogram.snapshot().buckets == tuple(expected)


@given(DURATIONS)
def test_many_at_once_are_counted_as_one_by_one(durations):
    histogram = Histogram()
    histogram.extend(seconds(durations))
    many, single = histogram.snapshot(), counted(durations)

    assert (many.count, many.max, many.buckets) == (single.count, single.max, single.buckets)
    assert many.total == pytest.approx(single.total)


def test_a_clock_that_went_back_counts_as_nothing():
    assert counted([-5]).max == counted([-5]).total == 0


@given(DURATIONS.filter(bool), st.floats(min_value=0, max_value=100))
def test_a_percentile_is_right_within_its_bucket(durations, percent):
    exact = sorted(durations)
    rank = max(-(-len(exact) * percent // 100), 1)
    truth = exact[int(rank) - 1]

    found = counted(durations).percentile(percent)

    assert truth * 0.75 - 2 <= found <= truth * 1.25 + 2


@pytest.mark.parametrize("size", [513, 700, 2048, 8191])
def test_thousands_at_once_are_sampled_and_yet_counted_in_full(size):
    durations = [(n * 7919 % size + 1) * 1e-6 for n in range(size)]
    histogram = Histogram()
    histogram.extend(durations)
    snapshot = histogram.snapshot()

    assert sum(snapshot.buckets) == snapshot.count == size
    assert snapshot.total == pytest.approx(sum(durations) * 1e9, abs=1)
    assert snapshot.max == round(max(durations) * 1e9)
    assert snapshot.p50 == pytest.approx(size * 500, rel=0.3)
    assert snapshot.p99 == pytest.approx(size * 990, rel=0.3)


def test_a_sample_does_not_look_at_the_same_places_twice_running():
    histogram = Histogram()
    slow_every_seventh = [1e-3 if n % 7 == 0 else 1e-6 for n in range(700)]
    for _ in range(7):
        histogram.extend(slow_every_seventh)

    assert histogram.snapshot().buckets[bucket_of(1e-3)] == 700


@given(DURATIONS.filter(bool), st.integers(0, 1000))
def test_a_sample_counts_for_as_many_as_it_stands_for(durations, more):
    histogram = Histogram()
    histogram.extend(seconds(durations), standing_for=len(durations) + more)
    snapshot = histogram.snapshot()

    assert snapshot.count == sum(snapshot.buckets) == len(durations) + more
    assert snapshot.mean == pytest.approx(sum(durations) / len(durations), abs=2)
    assert snapshot.max == max(durations)


def test_a_sample_keeps_its_proportions():
    histogram = Histogram()
    histogram.extend([1e-6] * 90 + [1e-3] * 10, standing_for=800)

    assert histogram.snapshot().buckets[bucket_of(1e-6)] == 720
    assert histogram.snapshot().buckets[bucket_of(1e-3)] == 80


def test_the_highest_percentile_is_the_maximum():
    assert counted([5, 7, 1_000_003]).percentile(100) == 1_000_003


def test_nothing_counted_has_no_latency():
    empty = Histogram().snapshot()

    assert (empty.count, empty.mean, empty.p50, empty.p99, empty.max) == (0, 0, 0, 0, 0)
    assert HistogramSnapshot().percentile(99) == 0


@pytest.mark.parametrize("percent", [-1, 100.5, float("nan")])
def test_a_percentile_outside_0_to_100_is_refused(percent):
    with pytest.raises(ValueError, match="between 0 and 100"):
        Histogram().percentile(percent)


@given(DURATIONS, DURATIONS)
def test_merged_histograms_count_both(one, other):
    histogram, second = Histogram(), Histogram()
    histogram.extend(seconds(one))
    second.extend(seconds(other))
    histogram.merge(second)
    merged, expected = histogram.snapshot(), counted(one + other)

    assert (merged.count, merged.max, merged.buckets) == (expected.count, expected.max, expected.buckets)


def test_a_snapshot_stays_as_it_was():
    histogram = Histogram()
    histogram.add(10)
    before = histogram.snapshot()
    histogram.add(30)

    assert (before.count, before.total, before.max, before.mean) == (1, 10, 10, 10)
    assert (histogram.count, histogram.percentile(100), histogram.snapshot().mean) == (2, 30, 20)


@given(DURATIONS)
def test_cumulative_buckets_have_the_same_bounds_always_and_count_what_lies_below(durations):
    shown = counted(durations).cumulative()

    assert [bound for bound, _ in shown] == [2.0**power for power in range(-20, 6)]
    assert [below for _, below in shown] == [sum(ns / 1e9 < bound for ns in durations) for bound, _ in shown]


def test_an_empty_snapshot_shows_the_same_bounds():
    assert HistogramSnapshot().cumulative() == Histogram().snapshot().cumulative()


def test_an_update_shows_how_long_each_stage_took():
    stamps = Stamps(broker=1_000, received=3_000, queued=3_500, joined=4_000, committed=9_000, emitted=9_100)

    assert stamps.stages() == {
        "received": 2000,
        "queued": 500,
        "joined": 500,
        "committed": 5000,
        "emitted": 100,
    }


def test_a_stage_not_passed_is_left_out_and_the_next_counts_from_the_last_one_passed():
    assert Stamps(received=10, committed=30, painted=100).stages() == {"committed": 20, "painted": 70}


def test_clocks_that_differ_are_shown_as_they_are():
    assert Stamps(broker=100, received=40).stages() == {"received": -60}


def test_stamps_are_set_on_a_copy():
    stamps = Stamps(received=10)

    assert stamps.at(queued=12, joined=13) == Stamps(received=10, queued=12, joined=13)
    assert stamps == Stamps(received=10)


def test_the_stages_are_the_stamps_in_order():
    assert Stamps.__struct_fields__ == STAGES
