from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from monitoring.watched import a_scene, feed
from orderwire.bus.counts import HEARS
from orderwire.bus.follower import FollowerCounts
from orderwire.bus.relay import RelayCounts
from orderwire.bus.wire import WireCounts
from orderwire.core.alerts import RULES, metrics_of
from orderwire.core.events import Event, EventType
from orderwire.core.latency import HistogramSnapshot, Stamps
from orderwire.core.lifecycle import OrderChange
from orderwire.core.recovery import Freshness
from orderwire.core.rollout import Reason
from orderwire.monitoring.metrics import CATALOGUE, Disk, bounds
from store.making import update


@pytest.fixture
def scene(tmp_path):
    with a_scene(tmp_path) as made:
        yield made


def change(number=1, **stamps):
    return OrderChange(
        account="acc", epoch="e", sequence=number, event_id=f"{number}", kind="order", stamps=Stamps(**stamps)
    )


def exposed(scene):
    text = scene.station.exposition().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_every_metric_of_the_catalogue_is_exposed_with_its_labels_and_no_other(scene):
    scene.feeds = [feed()]
    scene.web = scene.web.__class__(postbacks={"stored": 1})
    scene.bus = counts_of_a_bus()
    scene.engine.put(Event(EventType.ALERT, None))
    scene.station.metrics.told["notices_total", "held"] += 1
    scene.engine.start()
    scene.engine.stop(2)

    found = {name: family for name, family in exposed(scene).items() if name.startswith("orderwire_")}

    assert set(found) == {metric.name.removesuffix("_total") for metric in CATALOGUE}
    for metric in CATALOGUE:
        family = found[metric.name.removesuffix("_total")]
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert (family.type, labels) == (metric.kind, set(metric.labels)), metric.name


def counts_of_a_bus() -> dict[tuple[str, str], int]:
    """Every count that the loops of a bus keep."""
    loops = {"relay": RelayCounts, "follower": FollowerCounts, "wire": WireCounts}
    found = {(loop, each.name): 0 for loop, kind in loops.items() for each in fields(kind)}
    return found | {HEARS: 1}


def test_what_a_bus_counts_is_told(scene):
    scene.bus = counts_of_a_bus() | {("follower", "from_database"): 4, ("wire", "deaf"): 2}

    assert scene.metric("orderwire_bus_followed_total", source="database") == 4
    assert scene.metric("orderwire_bus_deaf_total") == 2
    assert scene.metric("orderwire_bus_hears") == 1


def test_rules_look_only_at_metrics_that_exist(scene):
    exposed_names = {metric.name for metric in CATALOGUE}

    assert metrics_of(rule for rule in RULES if not rule.outside) <= exposed_names


def test_no_account_and_no_order_is_a_label(scene):
    scene.feeds = [feed("acc-of-asha", open_orders=3)]

    text = scene.station.exposition().decode()

    assert "acc-of-asha" not in text
    assert not {"account", "order", "order_id", "user"} & {
        name for metric in CATALOGUE for name in metric.labels
    }


def test_event_types_of_others_share_a_label(scene):
    for number in range(300):
        scene.engine.put(Event(f"eOrder.{number}"))
    scene.engine.start()
    scene.engine.stop(5)

    assert scene.metric("orderwire_events_by_type_total", type="(other)") == 300
    assert "eOrder.1" not in scene.station.exposition().decode()


def test_feeds_are_told_by_broker(scene):
    scene.feeds = [
        feed("a", connected=True, connected_seconds=100.0, heartbeat_age=2.0),
        feed("b", freshness=Freshness.STALE, open_orders=2, down_seconds=40.0, clock_offset=-7.0),
        feed("c", freshness=Freshness.AUTH_REQUIRED),
        feed("d", freshness=Freshness.STALE, running=False),
        feed("e", down_seconds=99.0, market_open=False),
    ]

    def told(name, **labels):
        return scene.metric(f"orderwire_{name}", broker="wired", **labels)

    assert told("feeds", freshness="STALE") == 2
    assert told("streams_connected") == 1
    assert told("stream_connected_seconds_total") == 100
    assert told("stream_down_seconds") == 40
    assert told("heartbeat_age_seconds") == 2
    assert told("clock_offset_seconds") == 7
    assert told("stale_accounts") == 1
    assert told("login_required_accounts") == 1
    assert told("feeds_without_owner") == 1
    assert told("open_orders") == 2
    assert told("rest_calls_total", purpose="order_book") == 3


def test_the_reasons_of_the_rollout_are_told_zeros_included(scene):
    asked = []

    def reasons(accounts):
        asked.extend(accounts)
        return {Reason.IN_STAGE: 1}

    scene.feeds = [feed("a")]
    metrics = scene.station.metrics
    metrics.sources = replace(metrics.sources, reasons=reasons, decisions=lambda: {Reason.KILLED: 7})

    def told(name, reason):
        return scene.metric(f"orderwire_rollout_{name}", reason=reason.value)

    assert [told("accounts", reason) for reason in (Reason.IN_STAGE, Reason.KILLED)] == [1, 0]
    assert [told("decisions_total", reason) for reason in (Reason.IN_STAGE, Reason.KILLED)] == [0, 7]
    assert set(asked) == {"a"}


def test_what_the_book_counts_is_told_by_broker_zeros_included(scene):
    assert scene.metric("orderwire_duplicates_total", broker="wired") == 0

    for word in ("open", "open"):
        scene.book.on_observation(Event(EventType.ORDER_UPDATE, update(word)))
    scene.book.commit()
    broker = update("open").broker

    assert scene.book.counts()[broker, "observations"] == 2
    assert scene.book.counts()[broker, "duplicates"] == 1


def test_the_way_of_a_change_is_told_by_stage(scene):
    ms = 1_000_000
    begun = scene.clock.time_ns() - 100 * ms
    stamps = {
        "received": begun,
        "queued": begun + 10 * ms,
        "joined": begun + 30 * ms,
        "committed": begun + 60 * ms,
    }
    for number in range(600):
        scene.station.metrics.latencies.on_change(Event(EventType.ORDER_CHANGED, change(number, **stamps)))

    stages, whole = scene.station.metrics.latencies.snapshot()

    means = {
        stage: stages[stage, "order"].mean // ms for stage in ("queued", "joined", "committed", "emitted")
    }
    assert means == {"queued": 10, "joined": 20, "committed": 30, "emitted": 40}
    assert (whole.count, whole.mean // ms) == (600, 100)
    assert scene.station.metrics.latencies.snapshot()[1].count == 600


def test_what_we_did_ourselves_has_no_time_of_receipt(scene):
    scene.station.metrics.latencies.on_change(Event(EventType.ORDER_CHANGED, change(joined=5, committed=6)))

    stages, whole = scene.station.metrics.latencies.snapshot()

    assert whole.count == 0
    assert stages["committed", "order"].count == 1


def test_the_buckets_rise_and_end_with_all(scene):
    found = bounds(HistogramSnapshot())
    assert found[-1] == (float("inf"), 0.0)

    scene.station.metrics.latencies.on_change(Event(EventType.ORDER_CHANGED, change(received=1, queued=2)))
    counts = [count for _, count in bounds(scene.station.metrics.latencies.snapshot()[1])]
    assert counts == sorted(counts)
    assert counts[-1] == 1


def test_a_disk_of_unknown_size_is_not_full(scene):
    scene.disk = Disk(total=0, free=0)

    assert scene.metric("orderwire_disk_free_ratio") == 1


def test_it_is_ready_once_every_account_that_can_be_is_reconciled(scene):
    scene.feeds = [feed("a", freshness=Freshness.RECONCILING), feed("b", freshness=Freshness.AUTH_REQUIRED)]
    assert scene.station.waiting() == ("1 accounts are being reconciled",)
    assert scene.metric("orderwire_ready") == 0

    scene.feeds[0] = feed("a", freshness=Freshness.RECONCILING, read_at=datetime(2026, 8, 17, tzinfo=UTC))
    assert scene.station.waiting() == ()
    assert scene.metric("orderwire_ready") == 1
