"""Durations are counted within a quarter of their size, however they come in."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderwire.core.latency import STAGES, Histogram, HistogramSnapshot, Stamps, bucket_of, lower_bound

DURATIONS = st.lists(st.integers(min_value=-1000, max_value=2**50), max_size=200)


def counted(durations):
    histogram = Histogram()
    for ns in durations:
        histogram.add(ns)
    return histogram.snapshot()


@given(st.integers(min_value=0, max_value=2**63))
def test_a_bucket_holds_what_lies_between_its_bounds(ns):
    bucket = bucket_of(ns)

    assert lower_bound(bucket) <= ns < lower_bound(bucket + 1)


@given(st.integers(min_value=2, max_value=254))
def test_a_bucket_is_at_most_a_quarter_wide(bucket):
    if lower_bound(bucket) >= 4:
        assert lower_bound(bucket + 1) <= lower_bound(bucket) * 1.25


def test_a_number_beyond_64_bits_is_counted_in_the_last_bucket():
    assert bucket_of(2**80) == 255


@given(DURATIONS)
def test_many_at_once_are_counted_as_one_by_one(durations):
    histogram = Histogram()
    histogram.extend(durations)

    assert histogram.snapshot() == counted(durations)


def test_an_array_is_counted_as_it_is():
    histogram = Histogram()
    histogram.extend(array("d", [1e3, 2e3]))

    assert (histogram.count, histogram.total, histogram.max) == (2, 3000, 2000)


@given(DURATIONS.filter(bool), st.floats(min_value=0, max_value=100))
def test_a_percentile_is_right_within_its_bucket(durations, percent):
    exact = sorted(max(ns, 0) for ns in durations)
    rank = max(-(-len(exact) * percent // 100), 1)
    truth = exact[int(rank) - 1]

    found = counted(durations).percentile(percent)

    assert truth * 0.75 - 2 <= found <= truth * 1.25 + 2


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
    histogram = Histogram()
    histogram.extend(one)
    second = Histogram()
    second.extend(other)
    histogram.merge(second)

    assert histogram.snapshot() == counted(one + other)


def test_a_snapshot_merges_too_and_stays_as_it_was():
    histogram = Histogram()
    histogram.add(10)
    before = histogram.snapshot()
    histogram.merge(before)

    assert (before.count, histogram.count, histogram.total) == (1, 2, 20)


@given(DURATIONS)
def test_cumulative_buckets_have_the_same_bounds_always_and_count_what_lies_below(durations):
    shown = counted(durations).cumulative()

    assert [bound for bound, _ in shown] == [1 << power for power in range(10, 36)]
    assert [below for _, below in shown] == [sum(ns < bound for ns in durations) for bound, _ in shown]


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
