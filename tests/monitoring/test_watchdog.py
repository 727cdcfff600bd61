import sqlite3
import threading

import pytest

from house import eventually
from monitoring.receiver import Receiver
from monitoring.watched import a_scene, feed
from orderwire.config import Settings
from orderwire.core.alerts import Notice, Silence
from orderwire.core.events import Event, EventType
from orderwire.core.recovery import Freshness
from orderwire.errors import ConfigurationError
from orderwire.monitoring.metrics import Disk
from orderwire.monitoring.series import PLOTS, plot
from orderwire.monitoring.station import rules_of
from orderwire.monitoring.watchdog import retry_after
from orderwire.store import alerts as kept
from store.making import update

FULL = Disk(total=100, free=1)
ROOM = Disk(total=100, free=50)


@pytest.fixture
def receiver(request):
    made = Receiver(*getattr(request, "param", ()))
    yield made
    made.close()


@pytest.fixture
def scene(tmp_path, receiver):
    settings = {"alert_webhook": receiver.url, "alert_webhook_secret": "s3cret-of-the-receiver"}
    with a_scene(tmp_path, **settings) as made:
        yield made


def told(receiver):
    return [(row["alert"], row["state"]) for body in receiver.bodies for row in body["alerts"]]


def test_an_alert_is_raised_told_written_down_and_cleared(scene, receiver):
    scene.disk = FULL
    scene.look(4)

    assert scene.raised() == ["DiskNearlyFull"]
    assert told(receiver) == [("DiskNearlyFull", "raised")]
    (entry,) = kept.history(scene.database)
    assert (entry.rule, entry.severity, entry.cleared_at, entry.told) == (
        "DiskNearlyFull",
        "critical",
        None,
        "webhook",
    )

    scene.disk = ROOM
    scene.look(70)

    assert scene.raised() == []
    assert told(receiver) == [("DiskNearlyFull", "raised"), ("DiskNearlyFull", "cleared")]
    assert kept.history(scene.database)[0].cleared_at is not None
    assert scene.metric("orderwire_alerts_total", alert="DiskNearlyFull") == 1


@pytest.mark.parametrize("receiver", [(500, 503)], indirect=True)
def test_a_message_that_could_not_be_delivered_is_tried_again_under_the_same_id(scene, receiver):
    scene.disk = FULL
    scene.look(12)

    assert told(receiver) == [("DiskNearlyFull", "raised")] * 3
    assert len({headers["webhook-id"] for headers, _ in receiver.taken}) == 1
    assert scene.metric("orderwire_notifications_failed_total", channel="webhook") == 2
    assert kept.history(scene.database)[0].told == "webhook"


@pytest.mark.parametrize("receiver", [(404,)], indirect=True)
def test_what_is_refused_for_good_is_given_up_and_written_down(scene, receiver):
    scene.disk = FULL
    scene.look(10)

    assert len(receiver.taken) == 1
    assert kept.history(scene.database)[0].told == "webhook: the webhook answered 404"


def test_pauses_between_tries_grow_to_a_minute():
    assert [retry_after(tries) for tries in (1, 2, 5, 6, 20)] == [2, 4, 32, 60, 60]


def test_a_silenced_alert_is_raised_and_shown_but_nobody_is_told(scene, receiver):
    until = scene.clock.time_ns() + 30 * 10**9
    kept.silence(scene.database, Silence(rule="DiskNearlyFull", until_ns=until, by="ops"))
    scene.disk = FULL
    scene.look(20)

    assert scene.raised() == ["DiskNearlyFull"]
    assert scene.station.status()["alerts"][0]["silenced"]
    assert told(receiver) == []

    scene.look(20)
    assert told(receiver) == [("DiskNearlyFull", "raised")]


def test_nobody_is_woken_for_the_market_at_night(scene, receiver):
    scene.market = False
    scene.feeds = [feed(freshness=Freshness.STALE, open_orders=2, down_seconds=600.0)]
    scene.look(60)
    assert scene.raised() == []

    scene.market = True
    scene.look(60)
    assert sorted(scene.raised()) == ["StaleAccount", "StreamDisconnected"]


def test_a_dispatcher_that_hangs_is_noticed_from_outside_the_engine(scene):
    for _ in range(7):
        scene.clock.advance(1)  # no timer event comes
    scene.station.watchdog.look()

    assert scene.raised() == ["DispatcherStalled"]


def test_a_database_that_takes_no_writes_is_told_and_written_down_later(scene, receiver, tmp_path):
    locker = sqlite3.connect(tmp_path / "watched.db", isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    scene.book.on_observation(Event(EventType.ORDER_UPDATE, update("open")))
    scene.book.commit()
    scene.look(8)

    assert scene.raised() == ["CommitFailing"]
    assert told(receiver) == [("CommitFailing", "raised")]
    assert kept.history(scene.database) == []

    locker.execute("COMMIT")
    locker.close()
    scene.book.commit()
    scene.look(20)
    assert scene.raised() == []
    assert [entry.rule for entry in kept.history(scene.database)] == ["CommitFailing"]


def test_an_altered_postback_is_a_notice_and_raises_an_alert(scene, receiver):
    scene.look(2)
    notice = Notice(
        kind="postback mismatch", text="It contradicts.", account="acc", order_id="7", broker="wired"
    )
    scene.station.watchdog.on_alert(Event(EventType.ALERT, notice))
    scene.look(5)

    assert scene.raised() == ["PostbackMismatch"]
    assert scene.station.watchdog.raised[0].broker == "wired"
    assert {entry.rule for entry in kept.history(scene.database)} == {"PostbackMismatch", "postback mismatch"}


def test_two_looks_at_once_are_one(scene):
    inside, go_on = threading.Event(), threading.Event()
    looks = []

    def slow():
        looks.append(1)
        inside.set()
        go_on.wait(10)
        return ROOM

    scene.read_disk = slow
    first = threading.Thread(target=scene.station.watchdog.look)
    first.start()
    assert inside.wait(10)
    scene.station.watchdog.look()
    go_on.set()
    first.join(10)

    assert len(looks) == 1


def test_on_the_engine_it_looks_on_a_thread_of_its_own(tmp_path):
    with a_scene(tmp_path) as scene:
        scene.clock.advance(1)
        scene.engine.start()
        scene.engine.put(Event(EventType.TIMER))
        eventually(scene.station.watchdog.series.points, what="a look")
        lanes = {row.handler: row.lane for row in scene.engine.statistics().handlers}

    assert lanes["orderwire.monitoring.watchdog.Watchdog.on_timer"] == "watchdog"


def test_a_timer_that_runs_fast_makes_no_more_looks(scene):
    """What a look read is kept for ten minutes: many looks a second would fill the memory."""
    for _ in range(100):
        scene.clock.advance(0.125)
        scene.station.watchdog.on_timer(Event(EventType.TIMER))

    assert len(scene.station.watchdog.series.points()) == 25


def test_what_the_last_process_left_raised_is_cleared(tmp_path):
    with a_scene(tmp_path) as first:
        first.disk = FULL
        first.look(3)
        assert kept.history(first.database)[0].cleared_at is None

    with a_scene(tmp_path) as second:
        second.look(1)
        assert kept.history(second.database)[0].cleared_at is not None


def test_the_recent_past_is_drawn(scene):
    scene.look(25)

    points = scene.station.watchdog.series.points()
    assert len(points) == 25
    assert len(scene.station.watchdog.series.points(long=True)) == 3
    for name in PLOTS:
        drawn = plot(points, name)
        assert len(drawn["time"]) == 25
        assert all(len(line["values"]) == 25 for line in drawn["series"])


def test_the_status_says_what_is_wrong_first(scene):
    scene.feeds = [feed("fine"), feed("late", freshness=Freshness.STALE, detail="No answer.")]
    scene.disk = FULL
    scene.look(2)

    status = scene.station.status()

    assert status["status"] == "critical"
    assert [row["account"] for row in status["accounts"]] == ["late", "fine"]
    assert status["feeds"] == {"STALE": 1, "LIVE": 1}


def test_a_limit_of_an_alert_that_does_not_exist_is_one_clear_line():
    with pytest.raises(ConfigurationError, match="there is no alert Nonsense"):
        rules_of(Settings(alert_limits="Nonsense=1"))
