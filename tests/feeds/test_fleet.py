"""The fleet over real loops and threads: who is harmed by whom, and how accounts are switched and handed over."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from types import MappingProxyType

import pytest

from feed_desk import SESSION, Held, ScriptedBroker, order
from house import eventually
from orderwire.brokers.adapter import AccountProfile, BrokerSession
from orderwire.brokers.registry import BrokerRegistry
from orderwire.clock import SystemClock
from orderwire.core.events import EventType
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import AccountId, Channel, session_date
from orderwire.core.recovery import Freshness
from orderwire.engine import EventEngine
from orderwire.errors import ConfigurationError, FeedsBusyError, SessionExpiredError
from orderwire.feeds import fleet
from orderwire.feeds.fleet import FeedAccount, Fleet, FleetTools
from orderwire.feeds.loop import FeedLoop

GOOD, BAD = AccountId("good"), AccountId("bad")


class GoodBroker(ScriptedBroker):
    name, title = "good", "Good"

    async def order_book(self):
        self.read_times.append(asyncio.get_running_loop().time())
        return []


class RaisesWhenMade(GoodBroker):
    name, title = "bad", "Bad"

    def __init__(self, profile, tools):
        raise KeyError("credentials")


class RaisesEverywhere(GoodBroker):
    name, title = "bad", "Bad"

    async def listen(self):
        raise ZeroDivisionError("listen")

    async def order_book(self):
        raise ZeroDivisionError("book")

    async def instruments_of_the_day(self):
        raise ZeroDivisionError("instruments")

    def book_share(self):
        raise ZeroDivisionError("share")


class NeverComesBack(GoodBroker):
    name, title = "bad", "Bad"

    async def order_book(self):
        await asyncio.Event().wait()

    async def instruments_of_the_day(self):
        await asyncio.Event().wait()


class Deaf(GoodBroker):
    name, title = "bad", "Bad"

    async def listen(self):
        self.listening = True
        while self.tools.publisher.open:  # until the fleet has given it up
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue


class Blocks(GoodBroker):
    name, title = "bad", "Bad"

    async def order_book(self):
        time.sleep(1.5)  # noqa: ASYNC251 - what is tested
        return []


class LogsInSlowly(GoodBroker):
    name, title = "bad", "Bad"
    refuses = False

    def __init__(self, profile, tools):
        super().__init__(profile, tools)
        self.go = asyncio.Event()
        self.logins = self.at_once = self.most_at_once = 0

    async def login(self, grant):
        self.logins += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.go.wait()
        self.at_once -= 1
        return BrokerSession(user_id="U", secrets={"token": str(self.logins)})

    async def order_book(self):
        if self.refuses and self.session.secrets == SESSION.secrets:
            raise SessionExpiredError("the broker ended it")
        return await super().order_book()


class LogsInRaising(GoodBroker):
    name, title = "bad", "Bad"

    async def login(self, grant):
        raise KeyError("request_token")


class LogsInToNothing(GoodBroker):
    name, title = "bad", "Bad"

    async def login(self, grant):
        return {"token": "t"}


class Shelf:
    def load(self, broker):
        return InstrumentTable()

    def day(self, broker):
        return None if broker == "bad" else session_date(SystemClock().now())

    def replace(self, broker, day: date, instruments): ...


class Logins:
    def accounts(self):
        return [self.account(BAD), self.account(GOOD)]

    def account(self, account):
        return FeedAccount(
            broker=str(account), profile=AccountProfile(account=account, credentials={}), session=SESSION
        )

    def keep_session(self, account, session): ...


class House:
    """A fleet with one good account and one of the bad broker."""

    def __init__(self, bad):
        self.held = Held()
        self.held.open = 1
        self.engine = EventEngine(1)
        self.loop = FeedLoop()
        classes = {"good": GoodBroker, "bad": bad}
        self.gone = []
        self.fleet = Fleet(
            FleetTools(
                engine=self.engine,
                held=self.held,
                logins=Logins(),
                shelf=Shelf(),
                clock=SystemClock(),
                chance=lambda: 0.5,
                market_open=lambda segments: True,
                brokers=BrokerRegistry(classes=MappingProxyType(classes)),
                on_gone=self.gone.append,
            ),
            self.loop,
        )
        self.changed = threading.Condition()
        self.events = []
        for kind in (EventType.FEED_STATUS, EventType.ALERT, EventType.ORDER_UPDATE):
            self.engine.register(kind, self._note)

    def _note(self, event):
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def until(self, wanted, seconds=30):
        with self.changed:
            met = self.changed.wait_for(wanted, seconds)
        assert met, [event.data for event in self.events][-10:]

    def is_(self, account, freshness):
        return lambda: self.fleet.status(account).freshness is freshness

    def of(self, kind):
        return [event.data for event in self.events if event.type == kind]

    def __enter__(self):
        self.engine.start()
        self.loop.start()
        self.fleet.start()
        return self

    def __exit__(self, *_):
        self.fleet.stop()
        self.loop.stop()
        self.engine.stop(2)


@pytest.mark.parametrize("bad", [RaisesWhenMade, RaisesEverywhere, NeverComesBack])
def test_an_adapter_that_raises_or_hangs_harms_only_its_own_account(bad):
    with House(bad) as house:
        house.until(house.is_(GOOD, Freshness.LIVE))
        house.until(lambda: house.fleet.status(BAD).freshness is not Freshness.LIVE)
        words = house.fleet.status(BAD).detail

    assert bad is NeverComesBack or "Bad" in words


@pytest.mark.parametrize(
    ("bad", "said"), [(LogsInRaising, "KeyError: 'request_token'"), (LogsInToNothing, "returned dict")]
)
def test_a_login_that_the_adapter_cannot_do_is_an_error_that_says_whose(bad, said):
    with House(bad) as house:
        house.until(house.is_(BAD, Freshness.LIVE))
        with pytest.raises(ConfigurationError, match="Bad adapter") as caught:
            house.fleet.login(BAD, {})
        after = house.fleet.status(BAD).freshness

    assert said in str(caught.value)
    assert after is Freshness.LIVE


def test_an_adapter_that_blocks_the_loop_is_named_and_cut_off_and_the_others_go_on():
    with House(Blocks) as house:
        house.until(lambda: "cut off" in house.fleet.status(BAD).detail)
        alerts = house.of(EventType.ALERT)
        reads = house.fleet.adapter(GOOD).read_times
        before = len(reads)
        house.fleet.refresh(GOOD)
        eventually(lambda: len(reads) > before, what="another read")

    assert house.fleet.status(GOOD) is None  # the house is closed
    assert {(alert.kind, alert.account) for alert in alerts} == {("adapter blocked", BAD)}


def test_a_stream_that_ignores_its_cancellation_holds_nobody_up(gate):
    with House(Deaf) as house:
        house.until(house.is_(BAD, Freshness.LIVE))
        began = time.monotonic()
        house.fleet.set_push({BAD: False})
        switched = time.monotonic() - began
        house.until(lambda: house.fleet.find(BAD) and not house.fleet.pushes(BAD))
        house.fleet.remove(BAD)
        removed = house.fleet.status(BAD)

    gate("real-time off while the stream does not end", switched, most=1)
    assert removed is None


def test_all_accounts_are_switched_in_one_turn_of_the_loop(monkeypatch):
    with House(GoodBroker) as house:
        house.until(house.is_(GOOD, Freshness.LIVE))
        house.until(house.is_(BAD, Freshness.LIVE))
        works = []
        submit = house.loop.submit
        monkeypatch.setattr(house.loop, "submit", lambda work: works.append(work) or submit(work))
        house.fleet.set_push({GOOD: False, BAD: False, AccountId("nobody"): False})
        off = [house.fleet.pushes(account) for account in (GOOD, BAD)]
        turns = len(works)
        monkeypatch.undo()

    assert (off, turns) == ([False, False], 1)


def test_a_switch_that_the_loop_gets_to_only_later_says_so_and_is_done_then(monkeypatch):
    monkeypatch.setattr(fleet, "_SWITCH_WAIT", 0.05)
    let_go = threading.Event()
    with House(GoodBroker) as house:
        house.until(house.is_(GOOD, Freshness.LIVE))
        house.loop.loop.call_soon_threadsafe(let_go.wait)
        with pytest.raises(FeedsBusyError):
            house.fleet.set_push({GOOD: False})
        before = house.fleet.pushes(GOOD)
        let_go.set()
        house.until(lambda: house.fleet.pushes(GOOD) is False)

    assert before


def test_a_switch_overtakes_no_earlier_one_that_still_waits_for_the_loop(monkeypatch):
    """Stop, which waits; resume, and stop once more: what was decided last is what holds."""
    monkeypatch.setattr(fleet, "_SWITCH_WAIT", 0.05)
    let_go = threading.Event()
    with House(GoodBroker) as house:
        house.until(house.is_(GOOD, Freshness.LIVE))
        house.loop.loop.call_soon_threadsafe(let_go.wait)
        for on in (False, True):
            with pytest.raises(FeedsBusyError):
                house.fleet.set_push({GOOD: on})
        let_go.set()
        house.loop.submit(asyncio.sleep(0)).result(10)
        pushes = house.fleet.pushes(GOOD)

    assert pushes


def test_the_switch_is_felt_before_it_returns():
    with House(GoodBroker) as house:
        house.until(house.is_(GOOD, Freshness.LIVE))
        adapter = house.fleet.adapter(GOOD)
        house.fleet.set_push({GOOD: False})
        said = order(account=GOOD, channel=Channel.STREAM)
        house.loop.submit(_say(adapter, said)).result(1)
        pushes, status = house.fleet.pushes(GOOD), house.fleet.status(GOOD)
        house.fleet.set_push({GOOD: True})
        house.until(house.is_(GOOD, Freshness.LIVE))
        house.loop.submit(_say(adapter, said)).result(1)
        house.until(lambda: said in house.of(EventType.ORDER_UPDATE))

    assert (pushes, status.freshness) == (False, Freshness.MANUAL)
    assert house.of(EventType.ORDER_UPDATE).count(said) == 1


def test_an_account_that_was_handed_over_says_nothing_more_here():
    with House(GoodBroker) as house:
        house.until(house.is_(GOOD, Freshness.LIVE))
        adapter = house.fleet.adapter(GOOD)
        house.fleet.remove(GOOD)
        house.loop.submit(_say(adapter, order(account=GOOD))).result(1)
        house.engine.stop(1)

    assert house.of(EventType.ORDER_UPDATE) == []
    assert house.fleet.pushes(GOOD) is None


def test_who_has_no_feed_here_any_more_is_told_and_who_is_started_anew_is_not():
    with House(GoodBroker) as house:
        house.until(house.is_(GOOD, Freshness.LIVE))
        house.fleet.add(GOOD)
        started = list(house.gone)
        house.fleet.remove(BAD)
        house.fleet.drop([GOOD])
        ended = list(house.gone)

    assert (started, ended) == ([], [BAD, GOOD])


@pytest.mark.parametrize(("ask_again", "logins"), [("user", 2), ("feed", 1)])
def test_an_account_logs_in_once_at_a_time_and_a_renewal_takes_the_login_it_waited_for(ask_again, logins):
    with House(LogsInSlowly) as house, ThreadPoolExecutor(2) as users:
        house.until(house.is_(BAD, Freshness.LIVE))
        broker, submitted = house.fleet.adapter(BAD), threading.Semaphore(0)
        _tell(house.loop, submitted.release)
        first = users.submit(house.fleet.login, BAD, {})
        assert submitted.acquire(timeout=30)
        eventually(lambda: broker.logins == 1, what="the first login under way")
        if ask_again == "user":
            second = users.submit(house.fleet.login, BAD, {})
            assert submitted.acquire(timeout=30)
        else:
            broker.refuses = True
            house.fleet.refresh(BAD)
            house.until(house.is_(BAD, Freshness.AUTH_REQUIRED))
        house.loop.submit(_turns(50)).result(30)
        at_once = broker.at_once
        house.loop.loop.call_soon_threadsafe(broker.go.set)
        granted = [first.result(30), *([second.result(30)] if ask_again == "user" else [])]
        house.until(house.is_(BAD, Freshness.LIVE))

    assert (at_once, broker.most_at_once, broker.logins) == (1, 1, logins)
    assert broker.session == granted[-1]


def _tell(loop, told):
    """Have `told` called after each coroutine that other threads submit."""
    submit = loop.submit

    def telling(work):
        future = submit(work)
        told()
        return future

    loop.submit = telling


async def _turns(count):
    """Give whatever is ready on the loop its turn, that often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def _say(adapter, update):
    adapter.on_order(update)
