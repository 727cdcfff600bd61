from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from house import eventually
from monitoring.mailbox import receiving
from monitoring.test_targets import delivery
from orderwire.clock import SystemClock
from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import OrderChange
from orderwire.core.notifications import Loudness, Notification, Occasion
from orderwire.core.orders import AccountId, OrderStatus
from orderwire.core.recovery import FeedStatus, Freshness
from orderwire.engine import EventEngine
from orderwire.errors import NotFoundError
from orderwire.monitoring import notifier
from orderwire.monitoring.notifier import BACK_OFF, Courier, Notifier, NotifierTools, Outages, messages
from orderwire.store import sealing
from orderwire.store.database import Database
from orderwire.store.notifications import Notifications, Preferences, State, TargetKind
from orderwire.store.users import Users
from web.house import order

NOW = datetime(2026, 11, 24, 5, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class MovedClock(SystemClock):
    """The system's, moved ahead."""

    ahead = timedelta(0)

    def now(self):
        return super().now() + self.ahead

    def time_ns(self):
        return super().time_ns() + int(self.ahead.total_seconds() * 1e9)


def waits(number, occasion=Occasion.FILLED, *, age=timedelta(0), silent=False, **facts):
    told = Notification(
        key=str(number), occasion=occasion, account="acc", at=NOW, title=str(number), text="x"
    )
    queued = NOW - age
    return delivery(id=number, notification=told, queued=queued, due=queued, silent=silent, **facts)


def planned(waiting, *, sent_lately=0, market_open=True, **preferences):
    made = messages(
        waiting,
        now=NOW,
        preferences=Preferences(**preferences),
        sent_lately=sent_lately,
        market_open=market_open,
    )
    return [[one.id for one in message] for message in made]


class TestPlanning:
    def test_each_is_sent_alone_at_once(self):
        assert planned([waits(1), waits(2)]) == [[1], [2]]

    def test_what_is_not_due_waits(self):
        assert planned([waits(1, age=-MINUTE), waits(2)]) == [[2]]

    def test_a_digest_collects_what_is_calm_and_lets_the_urgent_through(self):
        waiting = [waits(1, age=MINUTE / 2), waits(2, Occasion.REJECTED), waits(3)]

        assert planned(waiting, digest_seconds=60) == [[2]]

    def test_a_digest_goes_when_its_oldest_has_waited_long_enough(self):
        assert planned([waits(1, age=MINUTE), waits(2)], digest_seconds=60) == [[1, 2]]

    def test_above_the_limit_they_come_in_company_and_none_is_left_out(self):
        waiting = [waits(number) for number in range(1, 31)]

        made = planned(waiting, per_minute=5)

        assert made == [list(range(1, 21)), list(range(21, 31))]

    def test_nothing_goes_while_the_minute_is_used_up(self):
        assert planned([waits(1, Occasion.REJECTED)], per_minute=5, sent_lately=5) == []

    def test_silent_ones_are_never_in_a_loud_message(self):
        waiting = [waits(1, age=MINUTE), waits(2, silent=True), waits(3)]

        assert planned(waiting, digest_seconds=60) == [[1, 3], [2]]

    def test_outside_market_hours_everything_waits_for_who_wants_that(self):
        waiting = [waits(1, Occasion.REJECTED)]

        assert planned(waiting, market_hours=True, market_open=False) == []
        assert planned(waiting, market_hours=True, market_open=True) == [[1]]
        assert planned(waiting, market_open=False) == [[1]]


class TestOutages:
    def status(self, freshness, *, since=NOW, account="acc"):
        return FeedStatus(account=AccountId(account), freshness=freshness, since=since)

    def seen(self, outages, freshness, at, *, since=NOW, watched=True):
        return outages.look([self.status(freshness, since=since)], now=at, watched=watched)

    def test_a_feed_that_stays_away_is_told_with_one_key(self):
        outages = Outages()
        self.seen(outages, Freshness.LIVE, NOW)

        soon = self.seen(outages, Freshness.DEGRADED, NOW + MINUTE / 6)
        later = self.seen(outages, Freshness.DEGRADED, NOW + MINUTE)
        worse = self.seen(outages, Freshness.STALE, NOW + 2 * MINUTE, since=NOW + MINUTE)

        assert soon == []
        assert [one.occasion for one in later] == [Occasion.FEED_DOWN]
        assert worse[0].key == later[0].key

    def test_a_second_outage_is_another(self):
        outages = Outages()
        self.seen(outages, Freshness.LIVE, NOW)
        (first,) = self.seen(outages, Freshness.DEGRADED, NOW + MINUTE)
        self.seen(outages, Freshness.LIVE, NOW + 2 * MINUTE)

        (second,) = self.seen(outages, Freshness.DEGRADED, NOW + 5 * MINUTE, since=NOW + 3 * MINUTE)

        assert first.key != second.key

    def test_an_account_without_a_stream_polls_and_that_is_no_outage(self):
        assert self.seen(Outages(), Freshness.DEGRADED, NOW + MINUTE) == []
        assert self.seen(Outages(), Freshness.STALE, NOW + MINUTE) != []

    def test_at_night_feeds_may_be_away(self):
        outages = Outages()
        self.seen(outages, Freshness.LIVE, NOW)

        assert self.seen(outages, Freshness.STALE, NOW + MINUTE, watched=False) == []

    def test_a_dead_login_is_told_at_once_whatever_the_hour(self):
        (told,) = self.seen(Outages(), Freshness.AUTH_REQUIRED, NOW, watched=False)

        assert told.occasion is Occasion.LOG_IN_AGAIN


@pytest.fixture
def receiver():
    with receiving() as receiver:
        yield receiver


class Post:
    """A notifier over a real database, with one user whose account is `acc`."""

    def __init__(self, folder):
        self.clock = MovedClock()
        self.database = Database(f"sqlite:///{folder / 'orderwire.db'}", clock=self.clock)
        self.database.migrate()
        hasher = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))
        Users(self.database, hasher=hasher).add("asha", "correct horse")
        self.kept = Notifications(self.database, sealing.create(folder / "key.json"))
        self.feeds = []
        self.engine = EventEngine(3600)
        self.notifier = Notifier(self.tools())
        self.couriers = [Courier(self.tools(), share=share) for share in range(notifier.COURIERS)]

    def tools(self):
        return NotifierTools(
            kept=self.kept,
            owner=self.owner,
            feeds=lambda: self.feeds,
            clock=self.clock,
            market_open=lambda: True,
            private=True,
        )

    def owner(self, account):
        if account != "acc":
            raise NotFoundError
        return "asha"

    def changed(self, status=OrderStatus.REJECTED, **facts):
        view = order(status=status, broker_time=self.clock.now(), **facts)
        change = OrderChange(
            account=view.account,
            epoch="e",
            sequence=1,
            event_id="x",
            kind="order",
            order=view,
            was=OrderStatus.OPEN,
        )
        return Event(EventType.ORDER_CHANGED, change)

    def send_due(self):
        for courier in self.couriers:
            courier.send_due()

    def close(self):
        for one in (*self.couriers, self.notifier):
            one.close()
        self.database.close()


@pytest.fixture
def post(tmp_path):
    post = Post(tmp_path)
    yield post
    post.close()


def webhook(post, receiver):
    return post.kept.add_target("asha", kind=TargetKind.WEBHOOK, address=receiver.url)[0]


def person(post, receiver):
    return post.kept.add_target("asha", kind=TargetKind.APPRISE, address=receiver.ntfy)[0]


def test_a_rejection_reaches_the_phone_and_the_program_through_the_running_engine(post, receiver):
    webhook(post, receiver)
    person(post, receiver)
    post.notifier.attach(post.engine)
    post.engine.start()

    post.engine.put(post.changed(reason="Insufficient funds. Required margin is 15000.00"))
    eventually(lambda: len(receiver.got) == 2)
    eventually(lambda: [d.state for d in post.kept.recent("asha")] == [State.SENT] * 2)
    post.engine.stop()

    texts = [body.get("text") or body["message"] for body in receiver.bodies]
    assert all(text.startswith("Insufficient funds. Required margin is 15000.00") for text in texts)


def test_the_same_change_again_is_not_told_again(post, receiver):
    webhook(post, receiver)

    first = post.notifier.on_change(post.changed())
    again = post.notifier.on_change(post.changed())

    assert first == Event(notifier.QUEUED)
    assert again is None


def test_what_nobody_wants_or_owns_is_not_written_down(post, receiver):
    webhook(post, receiver)
    post.kept.set_rules("asha", {Occasion.REJECTED: Loudness.OFF})

    assert post.notifier.on_change(post.changed()) is None
    assert post.notifier.on_change(post.changed(account="gone")) is None


def test_that_nobody_is_to_be_told_is_believed_for_a_moment(post, receiver):
    moment = post.clock.now()
    post.clock.now = lambda: moment

    before = post.notifier.on_change(post.changed())
    webhook(post, receiver)
    believed = post.notifier.on_change(post.changed())
    post.clock.now = lambda: moment + notifier.NOBODY_FOR
    after = post.notifier.on_change(post.changed())

    assert (before, believed, after) == (None, None, Event(notifier.QUEUED))


def test_a_feed_that_is_away_is_told_once(post, receiver):
    webhook(post, receiver)
    since = post.clock.now() - MINUTE
    post.feeds = [FeedStatus(account=AccountId("acc"), freshness=Freshness.STALE, since=since)]

    assert post.notifier.on_timer(Event(EventType.TIMER)) == Event(notifier.QUEUED)
    assert post.notifier.on_timer(Event(EventType.TIMER)) is None
    assert [d.notification.occasion for d in post.kept.waiting()] == [Occasion.FEED_DOWN]


def test_a_program_that_fails_is_tried_again_later_and_later_then_it_is_a_dead_letter(post, receiver):
    webhook(post, receiver)
    receiver.codes = [503] * (len(BACK_OFF) + 1)
    post.notifier.on_change(post.changed())

    pauses = []
    for _ in BACK_OFF:
        post.send_due()
        (waiting,) = post.kept.waiting()
        pauses.append(round((waiting.due - post.clock.now()).total_seconds()))
        post.send_due()  # too early: nothing is sent
        post.clock.ahead += waiting.due - post.clock.now()
    post.send_due()

    assert pauses == [round(pause.total_seconds()) for pause in BACK_OFF]
    assert len(receiver.got) == len(BACK_OFF) + 1
    assert [letter.error for letter in post.kept.dead("asha")] == ["It answered 503."]
    assert post.kept.waiting() == []


def test_what_comes_behind_a_failure_keeps_its_order_and_arrives(post, receiver):
    webhook(post, receiver)
    receiver.codes = [503]
    for number in (1, 2):
        post.notifier.on_change(post.changed(number=number))

    post.send_due()
    assert len(receiver.got) == 1
    post.clock.ahead += BACK_OFF[0]
    post.send_due()

    assert [body["order"]["orderid"][-1] for body in receiver.bodies] == ["1", "1", "2"]


def test_a_program_that_is_gone_for_good_is_not_tried_again(post, receiver):
    webhook(post, receiver)
    receiver.codes = [410]
    post.notifier.on_change(post.changed())

    post.send_due()

    assert len(post.kept.dead("asha")) == 1


def test_a_dead_letter_that_is_retried_is_delivered(post, receiver):
    webhook(post, receiver)
    receiver.codes = [410]
    post.notifier.on_change(post.changed())
    post.send_due()
    (letter,) = post.kept.dead("asha")

    post.kept.retry(letter.id, owner="asha")
    post.send_due()

    assert [d.state for d in post.kept.recent("asha")] == [State.SENT]


def test_a_target_that_hangs_does_not_keep_another_waiting_for_its_turn(post, receiver):
    with receiving() as other:
        dead = webhook(post, receiver)
        webhook(post, other)
        receiver.codes = [503]
        post.notifier.on_change(post.changed())

        post.send_due()

    assert len(other.got) == 1
    assert [d.target for d in post.kept.waiting()] == [dead.id]


def test_an_attempt_is_on_disk_before_it_is_made(post, receiver, monkeypatch):
    webhook(post, receiver)
    post.notifier.on_change(post.changed())

    def dies(*_, **__):
        raise MemoryError

    monkeypatch.setattr(notifier, "tell_program", dies)
    with pytest.raises(MemoryError):
        post.send_due()

    (waiting,) = post.kept.waiting()
    assert waiting.attempts == 1
    assert waiting.due > post.clock.now()


def test_many_updates_of_a_burst_come_in_one_message(post, receiver):
    person(post, receiver)
    post.kept.set_preferences("asha", Preferences(per_minute=3))
    for number in range(10):
        post.notifier.on_change(post.changed(OrderStatus.FILLED, number=number, filled_quantity=10))

    post.send_due()

    (body,) = receiver.bodies
    assert body["title"] == "10 order updates"
    assert body["message"].count("Filled: BUY 10 INFY NSE") == 10
