"""Two services that feed one broker account, each with its own fleet: the second waits, says why, and takes over."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import pytest

from feed_desk import Held, ScriptedBroker
from house import eventually
from orderwire.brokers.adapter import AccountProfile, BrokerSession, Field
from orderwire.brokers.registry import BrokerRegistry
from orderwire.clock import SystemClock
from orderwire.core.events import EventType
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import AccountId, session_date
from orderwire.core.recovery import Freshness
from orderwire.core.seats import names
from orderwire.engine import EventEngine
from orderwire.errors import FedElsewhereError, NotFoundError, SessionExpiredError
from orderwire.feeds.fleet import FeedAccount, Fleet, FleetTools
from orderwire.feeds.loop import FeedLoop
from orderwire.feeds.seats import Seats, of_this_machine


@dataclass
class Floor:
    """A broker at which a login with an app's key ends the one before."""

    address: str = field(default_factory=lambda: f"https://{secrets.token_hex(8)}.example")
    granted: list[str] = field(default_factory=list)


class KeyedBroker(ScriptedBroker):
    """Logs in with its keys, and says only then whose login it is."""

    name, title = "keyed", "Keyed"
    app_fields = ("app_key", "secret_key")
    one_login_per_app = True
    address_fields = (Field(name="base", label="Host"),)
    floors: MappingProxyType[str, Floor] = MappingProxyType({})

    async def login(self, grant):
        floor = self.floors[self.profile.addresses["base"]]
        floor.granted.append(self.profile.account)
        return BrokerSession(user_id="U1", secrets={"token": str(len(floor.granted))})

    async def adopt(self, token):
        return BrokerSession(user_id="U1", secrets={"token": token})

    async def order_book(self):
        if self.session is None:
            raise SessionExpiredError
        return []


class Shelf:
    def load(self, broker):
        return InstrumentTable()

    def day(self, broker):
        return session_date(SystemClock().now())

    def replace(self, broker, day, instruments): ...


class Service:
    """One account in a fleet of its own; `home` is what it says of itself."""

    def __init__(self, home, floor, *, app_key="K", push=True, seats=True, **credentials):
        self.kept = FeedAccount(
            broker="keyed",
            profile=AccountProfile(
                account=AccountId(home), credentials={"app_key": app_key} | credentials,
                addresses={"base": floor.address},
            ),
            push=push,
        )  # fmt: skip
        kind = type("Keyed", (KeyedBroker,), {"floors": {floor.address: floor}})
        self.id = AccountId(home)
        self.engine, self.loop = EventEngine(1), FeedLoop()
        self.seats = Seats(f"orderwire at /data/{home}", process=11, now=SystemClock().now)
        self.told = []
        self.fleet = Fleet(
            FleetTools(
                engine=self.engine,
                held=Held(),
                logins=self,
                shelf=Shelf(),
                clock=SystemClock(),
                chance=lambda: 0.5,
                market_open=lambda _segments: True,
                brokers=BrokerRegistry(classes=MappingProxyType({"keyed": kind})),
                seats=self.seats if seats else None,
            ),
            self.loop,
        )
        self.engine.register(EventType.FEED_STATUS, lambda event: self.told.append(event.data))

    def accounts(self):
        return [self.kept]

    def account(self, account):
        if self.kept is None:
            raise NotFoundError
        return self.kept

    def keep_session(self, account, session):
        self.kept = replace(self.kept, session=session)

    def start(self):
        self.engine.start()
        self.loop.start()
        self.fleet.start()
        return self

    def stop(self):
        if self.loop.running:
            self.fleet.stop()
            self.loop.stop()
            self.engine.stop(2)

    def until(self, freshness, words=""):
        def reached():
            status = self.fleet.status(self.id)
            return status is not None and status.freshness is freshness and words in status.detail and status

        return eventually(reached, what=f"{freshness} {words!r}", last=self.told)


@pytest.fixture
def floor():
    return Floor()


@pytest.fixture
def services():
    made = []

    def make(home, floor, **how):
        made.append(Service(home, floor, **how))
        return made[-1].start()

    yield make
    for service in made:
        service.stop()


def seats_at(floor, **whose):
    return [of_this_machine().holder(name) for name in names("keyed", floor.address, **whose)]


def test_the_second_service_does_not_log_in_says_whose_the_account_is_and_goes_on_when_the_first_ends(
    services, floor
):
    first = services("one", floor)
    first.until(Freshness.LIVE)
    second = services("two", floor)
    told = second.until(Freshness.STALE, "Fed by orderwire at /data/one, process 11, since ")

    assert "(as one)" in told.detail
    assert floor.granted == ["one"]  # a login would have ended the first one's
    eventually(lambda: told in second.told, what="the pages told")
    with pytest.raises(NotFoundError, match="Fed by orderwire at /data/one"):
        second.fleet.adapter("two")
    first.stop()
    second.until(Freshness.LIVE)
    assert floor.granted == ["one", "two"]


def test_an_account_that_is_removed_lets_the_other_go_on(services, floor):
    first = services("one", floor)
    first.until(Freshness.LIVE)
    second = services("two", floor)
    second.until(Freshness.STALE, "/data/one")

    first.fleet.remove("one")

    second.until(Freshness.LIVE)
    assert first.seats.held == {}


def test_one_that_waits_and_is_removed_waits_no_more(services, floor):
    first = services("one", floor)
    first.until(Freshness.LIVE)
    second = services("two", floor)
    second.until(Freshness.STALE, "/data/one")

    second.kept = None
    second.fleet.remove("two")
    assert second.fleet.status("two") is None
    first.stop()
    third = services("three", floor)
    third.until(Freshness.LIVE)

    assert second.fleet.status("two") is None
    assert second.seats.held == {}


def test_two_apps_of_one_login_are_one_account_which_is_known_after_the_login(services, floor):
    first = services("one", floor)
    first.until(Freshness.LIVE)
    second = services("two", floor, app_key="SECOND")
    second.until(Freshness.STALE, "Fed by orderwire at /data/one")

    assert second.seats.held == {}  # its own app's is given up as well: all or none
    assert second.kept.session.user_id == "U1"
    first.stop()
    second.until(Freshness.LIVE)
    assert floor.granted == ["one", "two"]  # with the login it had: no second one


def test_a_hosts_login_is_not_used_while_another_feeds_it_and_the_host_is_told_why(services, floor):
    first = services("one", floor)
    first.until(Freshness.LIVE)
    second = services("two", floor, app_key="SECOND", session="host")
    second.until(Freshness.AUTH_REQUIRED)
    outcome, came = [], threading.Event()

    def done(error):
        outcome.append(error)
        came.set()

    second.fleet.hand_over("two", "t", check=lambda _session: None, done=done)

    assert came.wait(60)
    assert isinstance(outcome[0], FedElsewhereError)
    assert "/data/one" in str(outcome[0])
    second.until(Freshness.STALE, "/data/one")
    first.stop()
    second.until(Freshness.LIVE)


def test_a_user_who_logs_in_is_told_that_the_account_is_fed_elsewhere(services, floor):
    services("one", floor).until(Freshness.LIVE)
    second = services("two", floor, app_key="SECOND")
    second.until(Freshness.STALE, "/data/one")
    second.fleet.remove("two")
    second.kept = replace(second.kept, session=None)
    second.fleet.add("two")

    with pytest.raises((FedElsewhereError, NotFoundError), match="/data/one"):
        second.fleet.login("two", {})


def test_an_account_on_refresh_has_its_seat_like_any_other_and_stays_on_refresh(services, floor):
    first = services("one", floor, push=False)
    first.until(Freshness.MANUAL)
    second = services("two", floor)
    second.until(Freshness.STALE, "/data/one")

    assert first.fleet.status("one").freshness is Freshness.MANUAL


def test_without_seats_two_workers_may_have_one_account_for_leases_decide(services, floor):
    first = services("one", floor)
    first.until(Freshness.LIVE)
    worker = Service("two", floor, seats=False).start()
    try:
        worker.until(Freshness.LIVE)
    finally:
        worker.stop()


def test_a_seat_is_taken_before_the_login_and_whose_it_is_after(services, floor):
    first = services("one", floor)
    first.until(Freshness.LIVE)

    assert [holder.account for holder in seats_at(floor, app_key="k", user_ids=["u1"])] == ["one", "one"]
    first.stop()
    assert seats_at(floor, app_key="k", user_ids=["u1"]) == [None, None]
