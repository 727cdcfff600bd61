from __future__ import annotations

from orderwire.core.latency import Histogram, HistogramSnapshot
from orderwire.monitoring.metrics import Sample, sample
from orderwire.monitoring.muster import Process, described, merged, packed, unpacked, whole
from orderwire.store.leases import Worker


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


# --- for the operator's page --------------------------------------------------------------------------


def process(name: str, role: str, *told: Sample, live: bool = True) -> Process:
    worker = Worker(
        id=name,
        role=role,
        place="here:1",
        version="1",
        started_ns=0,
        draining=False,
        live=live,
        report=packed(told),
        owns=0,
    )
    return described(worker)


def test_all_processes_add_up_and_the_worst_is_named():
    found = whole(
        [
            process("f1", "feeds", sample("queue_depth", 7), sample("events_total", 100), sample("ready", 0)),
            process("w1", "web", sample("clients", 3), sample("processing_seconds", histogram(0.001, 0.001))),
            process("w2", "web", sample("clients", 5), sample("processing_seconds", histogram(0.5))),
            process("w3", "web", sample("clients", 900), sample("ready", 0), live=False),
        ]
    )

    assert (found.processes, found.waiting) == (3, ("f1",))
    assert (found.depth, found.deepest, found.events) == (7, "f1", 100)
    assert (found.clients, found.busiest, found.busiest_clients) == (8, "w2", 5)
    assert found.latency == histogram(0.001, 0.001, 0.5)
    assert (found.slowest, found.slowest_p95) == ("w2", histogram(0.5).percentile(95))


def test_rates_add_up():
    one, other = (process(name, "feeds", sample("events_per_second", 2.5)) for name in ("f1", "f2"))

    assert whole([one, other]).rate == 5


def test_only_what_reaches_clients_counts_as_the_way_to_them():
    found = whole(
        [
            process("f1", "feeds", sample("processing_seconds", histogram(9.0))),
            process("w1", "web", sample("processing_seconds", histogram(0.001))),
        ]
    )

    assert found.latency == histogram(0.001)


def test_one_process_alone_is_no_whole():
    assert whole([process("s", "serve"), process("gone", "serve", live=False)]) is None


def test_what_a_bus_does_is_said_in_words_and_what_is_odd_with_it():
    feeds = process("f1", "feeds", sample("bus_hears", 1), sample("bus_published_total", 12))
    web = process(
        "w1",
        "web",
        sample("bus_hears", 0),
        sample("bus_followed_total", 9, source="streams"),
        sample("bus_followed_total", 2, source="database"),
        sample("bus_failures_total", 1, loop="wire"),
        sample("bus_failures_total", 2, loop="follower"),
        sample("bus_deaf_total", 1),
    )

    assert feeds.bus == "12 published"
    assert web.bus == "hears nothing, 11 followed, 2 from the database, 1 times deaf, 3 failures"
    assert process("f2", "feeds").bus == ""
