from __future__ import annotations

from orderwire.core.latency import Histogram, HistogramSnapshot
from orderwire.monitoring.metrics import Sample, sample
from orderwire.monitoring.muster import merged, packed, unpacked


def histogram(*durations: float) -> HistogramSnapshot:
    counted = Histogram()
    counted.extend(list(durations))
    return counted.snapshot()


def values(samples: list[Sample]) -> dict[tuple[str, tuple[tuple[str, str], ...]], object]:
    return {(each.name.removeprefix("orderwire_"), each.labels): each.value for each in samples}


def test_a_report_is_read_as_it_was_written():
    told = [
        sample("clients", 3),
        sample("rest_calls_total", 7, broker="b", purpose="orders"),
        sample("processing_seconds", histogram(0.001, 0.5)),
    ]

    assert unpacked(packed(told)) == told


def test_counters_and_histograms_add_up():
    one = [sample("events_total", 2), sample("processing_seconds", histogram(0.001))]
    other = [sample("events_total", 5), sample("processing_seconds", histogram(0.5))]

    together = values(merged([one, other]))

    assert together["events_total", ()] == 7
    assert together["processing_seconds", ()] == histogram(0.001, 0.5)


def test_of_what_cannot_be_added_the_worst_counts():
    one = [sample("ready", 1), sample("heartbeat_age_seconds", 2, broker="b"), sample("disk_free_ratio", 0.5)]
    other = [
        sample("ready", 0),
        sample("heartbeat_age_seconds", 9, broker="b"),
        sample("disk_free_ratio", 0.1),
    ]

    together = values(merged([one, other]))

    assert together["ready", ()] == 0
    assert together["heartbeat_age_seconds", (("broker", "b"),)] == 9
    assert together["disk_free_ratio", ()] == 0.1


def test_each_label_is_a_value_of_its_own():
    together = values(
        merged(
            [
                [sample("feeds", 2, broker="a", freshness="LIVE")],
                [sample("feeds", 1, broker="b", freshness="LIVE")],
            ]
        )
    )

    assert sorted(together.values()) == [1, 2]


def test_a_process_that_counted_nothing_changes_nothing():
    assert merged(
        [[sample("processing_seconds", HistogramSnapshot())], [sample("processing_seconds", histogram(0.5))]]
    ) == [sample("processing_seconds", histogram(0.5))]


def test_what_another_release_measures_is_left_out_and_nonsense_is_nothing():
    assert unpacked('[["orderwire_of_tomorrow", [], 1.0, null]]') == []
    assert unpacked("nonsense") == []
    assert unpacked("") == []
