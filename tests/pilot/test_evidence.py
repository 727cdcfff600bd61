from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from orderwire.core.alerts import Notice
from orderwire.core.events import Event, EventType
from orderwire.core.evidence import PLACED, RECEIVED
from orderwire.core.health import FeedHealth, FleetHealth
from orderwire.core.orders import AccountId
from orderwire.core.recovery import Freshness
from orderwire.engine import DeadLetter
from orderwire.errors import StoreBusyError
from orderwire.pilot.evidence import Evidence, cohort_minutes

TIMER = Event(EventType.TIMER)
NOW = datetime(2026, 8, 17, tzinfo=UTC)


class House:
    """An evidence whose feeds a test sets."""

    def __init__(self, records, clock):
        self.clock, self.records = clock, records
        self.places = {"a": ("paisa", "realtime"), "b": ("paisa", "manual")}
        self.feeds: dict[str, FeedHealth] = {}
        self.depth = 0
        self.evidence = Evidence(
            records,
            clock=clock,
            place_of=self.places.get,
            health=lambda: FleetHealth(feeds=tuple(self.feeds.values())),
            depth=lambda: self.depth,
        )
        self.feed("a")
        self.feed("b", freshness=Freshness.MANUAL)

    def feed(self, account, **facts):
        known = {"freshness": Freshness.LIVE, "counts": {}}
        self.feeds[account] = FeedHealth(
            account=AccountId(account), broker="paisa", since=NOW, **(known | facts)
        )

    def seconds(self, count=1):
        for _ in range(count):
            self.evidence.on_timer(TIMER)
            self.clock.advance(1)

    def minute(self):
        """Let the running minute end; return what it told, by cohort."""
        start = self.clock.time_ns() // 60_000_000_000
        self.clock.advance(60)
        self.seconds()
        return {tally.cohort: tally for tally in self.records.minutes(start, start + 1)}


@pytest.fixture
def house(records, clock):
    return House(records, clock)


def update(account):
    return Event(EventType.ORDER_UPDATE, SimpleNamespace(account=account))


def test_seconds_are_counted_by_freshness_in_market_hours_only(house):
    house.seconds(10)
    house.feed("a", freshness=Freshness.DEGRADED)
    house.seconds(5)
    house.feed("a", freshness=Freshness.STALE, open_orders=2)
    house.seconds(4)
    house.feed("a", market_open=False)
    house.seconds(7)

    told = house.minute()["realtime"]

    assert (told.live_seconds, told.polling_seconds, told.stale_seconds) == (9, 5, 4)
    assert told.market_seconds == 18
    assert told.open_seconds == 4
    assert told.accounts == 1


def test_a_pause_of_the_process_is_a_gap_not_uptime(house):
    house.seconds(2)
    house.clock.advance(30)
    house.seconds(1)

    assert house.minute()["realtime"].live_seconds == 1 + 5


def test_disconnections_and_reads_are_the_difference_since_the_last_look(house):
    house.feed("a", counts={"reconnects": 7, "reads": 100, "histories": 3})
    house.seconds()
    house.feed("a", counts={"reconnects": 9, "reads": 104, "histories": 4})
    house.seconds()
    house.feed("a", counts={"reconnects": 0, "reads": 1})  # the feed was made anew
    house.seconds()

    told = house.minute()["realtime"]

    assert (told.disconnects, told.errors, told.calls) == (2, 2, 5)


def test_updates_count_for_the_cohort_their_account_is_in(house):
    for account in ("a", "a", "b", "unknown"):
        house.evidence.on_update(update(account))
    house.seconds()

    told = house.minute()

    assert (told["realtime"].events, told["manual"].events) == (2, 1)


def test_an_account_that_changes_over_counts_in_its_new_cohort(house):
    house.evidence.on_update(update("a"))
    house.seconds()
    house.places["a"] = ("paisa", "manual")
    house.evidence.on_update(update("a"))
    house.seconds()

    told = house.minute()

    assert (told["realtime"].events, told["manual"].events) == (1, 1)


def test_paints_keep_the_waits_raw_and_the_rest_in_buckets(house):
    house.evidence.paint(AccountId("a"), {PLACED: 91_000_000, RECEIVED: 3_000_000, "joined": 2_000_000})
    house.evidence.paint(AccountId("a"), {RECEIVED: 3_000_000, "joined": 4_000_000, "painted": -5})
    house.evidence.paint(AccountId("unknown"), {PLACED: 1})

    told = house.minute()["realtime"]

    assert told.placed == (91_000,)
    assert list(told.changes.values()) == [1]
    assert told.stages == {"joined": (2, 6_000), "painted": (1, 0)}


def test_dead_letters_are_errors_of_their_account(house):
    letter = DeadLetter(update("b"), "handler", ValueError(), NOW)
    house.evidence.on_dead_letter(letter)
    house.evidence.on_alert(
        Event(EventType.ALERT, Notice(kind="dead letter", text="x", account=AccountId("a")))
    )
    house.evidence.on_alert(Event(EventType.ALERT, Notice(kind="held", text="x", account=AccountId("a"))))

    told = house.minute()

    assert (told["realtime"].errors, told["manual"].errors) == (1, 1)


def test_the_longest_queue_of_the_minute_counts(house):
    for house.depth in (3, 1200, 4):
        house.seconds()
    house.depth = 0

    assert house.minute()["realtime"].queue_high == 1200


def test_a_minute_the_database_does_not_take_is_written_later(house, monkeypatch):
    house.evidence.on_update(update("a"))
    keep = house.records.keep

    def busy(_tallies):
        raise StoreBusyError("disk full")

    monkeypatch.setattr(house.records, "keep", busy)
    assert house.minute() == {}
    monkeypatch.setattr(house.records, "keep", keep)
    house.seconds()

    assert sum(tally.events for tally in house.records.minutes(0, 10**9)) == 1


def test_the_running_minute_is_written_at_the_end(house):
    house.evidence.on_update(update("a"))
    house.evidence.flush(everything=True)

    (told,) = house.records.minutes(0, 10**9)
    assert told.events == 1


def test_cohort_minutes_put_brokers_together(house):
    house.places["b"] = ("wired", "realtime")
    house.evidence.paint(AccountId("a"), {PLACED: 10_000_000})
    house.evidence.paint(AccountId("b"), {PLACED: 30_000_000})
    house.seconds()
    house.minute()

    first = cohort_minutes(house.records.minutes(0, 10**9))[0]

    assert (first.accounts, first.paints, first.latency_p95) == (2, 2, 0.03)


def test_a_service_that_is_started_anew_goes_on_with_the_minute_it_stopped_in(house, records, clock):
    house.seconds(20)
    house.evidence.paint(AccountId("a"), {PLACED: 5_000_000})
    house.evidence.flush(everything=True)

    again = House(records, clock)
    again.evidence.paint(AccountId("a"), {PLACED: 7_000_000})
    again.seconds(11)
    told = again.minute()["realtime"]

    assert sorted(told.placed) == [5_000, 7_000]
    assert told.live_seconds == 19 + 10
    assert told.accounts == 1
