"""All feeds of this process: one supervisor per account, their logins and the day's instruments."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Protocol

import httpx2
import structlog
from msgspec import structs

from orderwire.brokers.adapter import AccountProfile, AdapterTools, BrokerAdapter, BrokerSession
from orderwire.brokers.checklist import Finding, first_day
from orderwire.brokers.http import BrokerHttp, open_client
from orderwire.brokers.registry import BrokerRegistry
from orderwire.clock import Clock
from orderwire.core.events import Event, EventType
from orderwire.core.health import FEED_COUNTS, FeedHealth, FleetHealth
from orderwire.core.instruments import Instrument, InstrumentTable
from orderwire.core.orders import AccountId, OrderId, session_date
from orderwire.core.recovery import FeedStatus, Freshness
from orderwire.engine import EventEngine
from orderwire.errors import (
    BrokerUnreachableError,
    ConfigurationError,
    FedElsewhereError,
    FeedsBusyError,
    NotFoundError,
    OrderwireError,
)
from orderwire.feeds.loop import FeedLoop, keep
from orderwire.feeds.poller import HeldOrders
from orderwire.feeds.seats import Seats, names_of
from orderwire.feeds.supervisor import (
    ConnectLimiter,
    FeedSupervisor,
    FeedSurroundings,
    log_in,
    make_adapter,
)

_log = structlog.get_logger(__name__)

_START_WAIT = 10.0
_LOGIN_WAIT = 30.0
_QUESTIONS_WAIT = 180.0
"""Seconds that a broker's checklist may take besides the time for which the stream is watched."""
_SWITCH_WAIT = 2.0
_END_WAIT = 3.0
"""Seconds a feed may take to end; then it is left behind, and nothing of it passes any more."""
_SEAT_PACE = 1.0
"""Seconds between the looks whether another orderwire has let go of an account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedAccount:
    """An account as the fleet needs it."""

    broker: str
    profile: AccountProfile
    session: BrokerSession | None = None
    push: bool = True


SessionCheck = Callable[[BrokerSession], None]
"""Raises when a session may not be used."""
Outcome = Callable[[BaseException | None], None]


class Logins(Protocol):
    """Where accounts and their sessions are kept; any thread."""

    def accounts(self) -> Iterable[FeedAccount]:
        """Return every account with its secrets opened."""
        ...

    def account(self, account: AccountId) -> FeedAccount:
        """Return one account. Raises NotFoundError."""
        ...

    def keep_session(self, account: AccountId, session: BrokerSession) -> None:
        """Seal and keep a session."""
        ...


class InstrumentShelf(Protocol):
    """Where the brokers' lists of instruments are kept; any thread."""

    def load(self, broker: str) -> InstrumentTable:
        """Return the newest list."""
        ...

    def day(self, broker: str) -> date | None:
        """Return the session day of the newest list."""
        ...

    def replace(self, broker: str, day: date, instruments: Sequence[Instrument]) -> None:
        """Keep a new list. Raises OrderwireError when it is implausible; the old one stays."""
        ...


class DailyInstruments:
    """The lookup one broker's adapters share; the day's table is swapped in whole, so any thread may ask."""

    def __init__(self, table: InstrumentTable) -> None:
        self.table = table

    def by_token(self, broker_exchange: str, token: int) -> Instrument | None:
        return self.table.by_token(broker_exchange, token)

    def by_broker_symbol(self, broker_exchange: str, broker_symbol: str) -> Instrument | None:
        return self.table.by_broker_symbol(broker_exchange, broker_symbol)

    def by_symbol(self, exchange: str, symbol: str) -> Instrument | None:
        return self.table.by_symbol(exchange, symbol)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetTools:
    """What the fleet is given by the service."""

    engine: EventEngine
    held: HeldOrders
    logins: Logins
    shelf: InstrumentShelf
    clock: Clock
    chance: Callable[[], float]
    market_open: Callable[[Collection[str]], bool]
    """Whether one of the named segments (none: any) may trade now."""
    brokers: BrokerRegistry
    refusal: Callable[[FeedAccount], str] = lambda _account: ""
    """Why an account may not run, empty when it may."""
    on_gone: Callable[[AccountId], None] = lambda _account: None
    """Told of each account that has no feed here any more."""
    seats: Seats | None = None
    """What keeps other services of this machine from feeding the same broker account; None: something else does."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """An account that another orderwire feeds, and the seats it waits for; each wait is an object of its own."""

    broker: str
    names: tuple[str, ...]
    words: str = ""
    """Whose it is, while its feed is being ended."""


class Fleet:
    """Starts, stops and reaches the feeds. Public methods are for other threads and block briefly."""

    def __init__(self, tools: FleetTools, loop: FeedLoop) -> None:
        self.loop = loop
        self._tools = tools
        self._client: httpx2.AsyncClient | None = None
        self._http: BrokerHttp | None = None
        self._feeds: dict[AccountId, FeedSupervisor] = {}
        self._running: dict[AccountId, asyncio.Task[None]] = {}
        self._refused: dict[AccountId, tuple[str, FeedStatus]] = {}
        """Accounts that may not run: their broker, and why."""
        self._waiting: dict[AccountId, _Waiting] = {}
        """Those of them that begin by themselves when another orderwire lets go."""
        self._giving_way: set[asyncio.Task[None]] = set()
        self._left: Counter[tuple[str, str]] = Counter()
        """What feeds that have ended had counted, by broker and name."""
        self._ticker: asyncio.Task[None] | None = None
        self._sitter: asyncio.Task[None] | None = None
        self._instruments: dict[str, DailyInstruments] = {}
        self._loading: dict[str, asyncio.Lock] = {}
        self._logging_in: dict[AccountId, asyncio.Lock] = {}
        """One login of an account at a time: at some brokers each ends the one before."""
        self._loaded: dict[str, date] = {}
        """The session day whose list each broker's adapters have."""
        self._at_start: dict[str, date | None] = {}
        """The session day of the lists there were when we started."""
        self._around: FeedSurroundings | None = None
        self.on_add: Callable[[AccountId], None] = self.begin
        """What `add` does; where accounts have to be owned first, that too."""

    # --- starting and stopping -------------------------------------------------------------------------

    def start(self, *, everybody: bool = True) -> None:
        """Start a feed for every account; returns once they run, before they are reconciled.

        Without `everybody` only what `add` is told of runs.
        """
        for broker in self._tools.brokers.classes:
            self._at_start[broker] = self._tools.shelf.day(broker)
            self._instruments[broker] = DailyInstruments(self._tools.shelf.load(broker))
        self.loop.submit(self._open()).result(_START_WAIT)
        for account in self._tools.logins.accounts() if everybody else ():
            self._add(account)

    def stop(self) -> None:
        """Close every stream and end every feed."""
        if self.loop.running:
            self.loop.submit(self._close()).result(_START_WAIT)

    def add(self, account: AccountId) -> None:
        """Start the feed of an account that was added, or restart it with new settings."""
        self.on_add(account)

    def begin(self, account: AccountId) -> None:
        """Start or restart a feed here, whoever owns the account."""
        self.loop.submit(self._end(account)).result(_START_WAIT)
        self._add(self._tools.logins.account(account))

    def remove(self, account: AccountId) -> None:
        """End an account's feed. No effect when there is none."""
        self.drop([account])

    def drop(self, accounts: Iterable[AccountId]) -> None:
        """End these feeds, all at the same time."""
        gone = list(accounts)

        async def end() -> None:
            await asyncio.gather(*(self._end(account) for account in gone))

        self.loop.submit(end()).result(_START_WAIT)
        for account in gone:
            self._tools.on_gone(account)

    # --- asking ----------------------------------------------------------------------------------------

    def statuses(self) -> list[FeedStatus]:
        """Say how fresh each account is."""
        refused = [status for _, status in list(self._refused.values())]
        return [*(feed.status for feed in list(self._feeds.values())), *refused]

    def status(self, account: AccountId) -> FeedStatus | None:
        """Say how fresh one account is; None when it has no feed."""
        feed = self._feeds.get(account)
        return feed.status if feed else self._refused.get(account, (None, None))[1]

    def health(self) -> FleetHealth:
        """Say how every feed is doing. Any thread."""
        feeds = [self._health(feed) for feed in list(self._feeds.values())]
        refused = [_refused_health(broker, status) for broker, status in list(self._refused.values())]
        counts = Counter({(name, what): 0 for name in self._tools.brokers.classes for what in FEED_COUNTS})
        counts.update(self._left)
        for feed in feeds:
            counts.update({(feed.broker, what): count for what, count in feed.counts.items()})
        http = self._http
        return FleetHealth(
            feeds=(*feeds, *refused),
            counts=dict(counts),
            calls=http.calls() if http else {},
            limited=http.limited() if http else {},
            unanswered=http.unanswered() if http else {},
        )

    def _health(self, feed: FeedSupervisor) -> FeedHealth:
        task = self._running.get(feed.account)
        return structs.replace(feed.health(), running=task is not None and not task.done())

    def adapter(self, account: AccountId) -> BrokerAdapter:
        """Return the account's adapter. Raises NotFoundError."""
        feed = self._feeds.get(account)
        if feed is None:
            raise NotFoundError(self._why_none(account))
        return feed.adapter

    def _why_none(self, account: AccountId) -> str:
        refused, waiting = self._refused.get(account), self._waiting.get(account)
        if refused is not None:
            return refused[1].detail
        return (waiting.words if waiting is not None else "") or f"There is no account {account}."

    def find(self, account: AccountId) -> BrokerAdapter | None:
        """Return the account's adapter, or None."""
        feed = self._feeds.get(account)
        return feed.adapter if feed else None

    def symbols(self, broker: str, exchange: str) -> list[str]:
        """List the tradable symbols of an exchange at a broker."""
        shelf = self._instruments.get(broker)
        return shelf.table.symbols(exchange) if shelf else []

    def refresh(self, account: AccountId) -> None:
        """Read the account's book now."""
        self._tell(account, lambda feed: feed.request_read())

    def after_action(self, account: AccountId) -> None:
        """An order action was sent: read the book at the moments the design names."""
        self._tell(account, lambda feed: feed.after_action())

    def hint(self, account: AccountId, order_id: OrderId, reason: str) -> None:
        """Something about an order wants confirming by REST. Never blocks."""
        self._tell(account, lambda feed: feed.hint(order_id, reason))

    def check_up(self, account: AccountId, *, seconds: float) -> list[Finding]:
        """Ask the account's broker its first-day questions beside the running feed, whose stream is watched.

        Raises NotFoundError when the account has no feed.
        """
        adapter = self.adapter(account)

        async def ask() -> list[Finding]:
            return [finding async for finding in first_day(adapter, seconds=seconds)]

        return self.loop.submit(ask()).result(seconds + _QUESTIONS_WAIT)

    # --- real-time on and off --------------------------------------------------------------------------

    def set_push(self, wanted: Mapping[AccountId, bool]) -> None:
        """Switch accounts' real-time updates on or off, all of them at once.

        After this returns no observation of the stream of one that is off passes, and its book is being read, so
        that nothing is lost in the change-over.

        No effect on an account without a feed, or one that is as wanted. It is not written down: what the
        account starts with the next time is `FeedAccount.push`.

        Raises FeedsBusyError where something holds the feed loop for seconds: they are switched once it lets go.
        """
        fed = {account: on for account, on in wanted.items() if self.pushes(account) is not None}
        if fed:  # what is as wanted too: an earlier switch may still wait for the loop
            try:
                self.loop.submit(self._switch(fed)).result(_SWITCH_WAIT)
            except TimeoutError as error:
                raise FeedsBusyError from error

    def pushes(self, account: AccountId) -> bool | None:
        """Say whether an account is on real-time updates; None when it has no feed."""
        feed = self._feeds.get(account)
        return feed.push if feed else None

    async def _switch(self, wanted: Mapping[AccountId, bool]) -> None:
        for account, on in wanted.items():
            feed = self._feeds.get(account)
            if feed is not None:
                feed.set_push(on)

    # --- figures ---------------------------------------------------------------------------------------

    def feeds(self) -> list[FeedSupervisor]:
        """Return every feed, for its counters; to be read only."""
        return list(self._feeds.values())

    @property
    def http(self) -> BrokerHttp | None:
        """Every broker's HTTP client, for its call counts and clock offsets; None before the start."""
        return self._http

    # --- logging in ------------------------------------------------------------------------------------

    def login_url(self, account: AccountId, *, state: str) -> str | None:
        """Return where the user logs in to the broker, or None when the keys suffice."""
        return self.adapter(account).login_url(state=state)

    def login(self, account: AccountId, grant: Mapping[str, str]) -> BrokerSession:
        """Log the account in with what the broker's redirect brought (empty: with its keys).

        Raises SessionExpiredError when the broker refuses, BrokerUnreachableError when it is away.
        """
        if self.adapter(account).profile.follows_host:
            raise ConfigurationError(f"{account} follows its host's login: log in to the broker there.")
        return self.loop.submit(self._login(account, grant)).result(_LOGIN_WAIT)

    def hand_over(self, account: AccountId, token: str, *, check: SessionCheck, done: Outcome) -> None:
        """Use the login of the account's host from now on, once the broker took it; an empty token ends it.

        Returns at once. `check` may raise to refuse the session, `done` is told of None or the error, both on the
        feed loop. Raises NotFoundError when the account has no feed.
        """
        self.adapter(account)

        def ended(work: Future[None]) -> None:
            done(work.exception())

        self.loop.submit(self._adopt(account, token, check=check)).add_done_callback(ended)

    async def _login(self, account: AccountId, grant: Mapping[str, str]) -> BrokerSession:
        self.adapter(account)  # it may have ended since it was asked for
        feed = self._feeds[account]
        async with self._logging_in.setdefault(account, asyncio.Lock()):
            session = await self._log_in(feed.adapter, grant)
        feed.log_in(session)
        return session

    async def _adopt(self, account: AccountId, token: str, *, check: SessionCheck) -> None:
        feed = self._feeds.get(account)
        if feed is None:
            raise NotFoundError(f"{account} has no feed just now.")
        async with self._logging_in.setdefault(account, asyncio.Lock()):
            if not token:
                feed.log_out("The host is logged out at the broker.")
                return
            async with asyncio.timeout(_LOGIN_WAIT):
                session = await feed.adapter.adopt(token)
            check(session)
            await self._use(feed.adapter, session)
        feed.log_in(session)

    async def _renew(self, account: AccountId) -> BrokerSession | None:
        """Log in anew, unless somebody else did while we waited for our turn: a second login would end the first."""
        adapter = self.find(account)
        if adapter is None:
            raise BrokerUnreachableError(f"{account} has no feed just now.")
        if adapter.login_url() is not None or adapter.profile.follows_host:
            return None
        before = adapter.session
        async with self._logging_in.setdefault(account, asyncio.Lock()):
            if adapter.session is not None and adapter.session is not before:
                return adapter.session
            return await self._log_in(adapter, {})

    async def _log_in(self, adapter: BrokerAdapter, grant: Mapping[str, str]) -> BrokerSession:
        session = await log_in(adapter, grant)
        await self._use(adapter, session)
        return session

    async def _use(self, adapter: BrokerAdapter, session: BrokerSession) -> None:
        account, seats = adapter.profile.account, self._tools.seats
        self._tools.logins.keep_session(account, session)
        if seats is not None and (self.find(account) is adapter or account in self._waiting):
            names = names_of(type(adapter), adapter.profile, user_id=session.user_id)
            holder = await seats.take(account, names)
            if (
                holder is not None
            ):  # only now it is known whose login it is; it is used when the other lets go
                if self.find(account) is adapter:
                    self._give_way(account, _Waiting(adapter.name, names, holder.words))
                raise FedElsewhereError(holder.words)
        adapter.session = session
        await self._load_instruments(adapter)

    async def _load_instruments_for(self, account: AccountId) -> None:
        adapter = self.find(account)
        if adapter is not None:  # else its feed is about to end
            await self._load_instruments(adapter)

    async def _load_instruments(self, adapter: BrokerAdapter) -> None:
        """Load the day's list once per broker; an order with an unknown instrument is shown flagged anyway."""
        day = session_date(self._tools.clock.now())
        if self._loaded.get(adapter.name) == day:
            return
        async with self._loading.setdefault(adapter.name, asyncio.Lock()):
            if self._loaded.get(adapter.name) == day:
                return
            if self._tools.shelf.day(adapter.name) == day:
                if self._at_start.get(adapter.name) != day:  # another process has loaded it
                    table = await asyncio.to_thread(self._tools.shelf.load, adapter.name)
                    self._instruments[adapter.name].table = table
                self._loaded[adapter.name] = day
                return
            try:
                listed = await adapter.instruments_of_the_day()
                table = await asyncio.to_thread(self._shelve, adapter.name, day, listed)
            except OrderwireError as error:
                _log.warning("instruments not loaded", broker=adapter.name, error=str(error))
                return
            self._instruments[adapter.name].table = table
            self._loaded[adapter.name] = day

    def _shelve(self, broker: str, day: date, listed: Sequence[Instrument]) -> InstrumentTable:
        """A hundred thousand rows take a second: in a worker thread, so that no feed waits for them."""
        self._tools.shelf.replace(broker, day, listed)
        return self._tools.shelf.load(broker)

    # --- on the loop -----------------------------------------------------------------------------------

    async def _open(self) -> None:
        tools = self._tools
        self._client = open_client()
        self._http = BrokerHttp(self._client, clock=tools.clock, budgets=tools.brokers.budgets())
        self._around = FeedSurroundings(
            held=tools.held,
            publish=tools.engine.put,
            clock=tools.clock,
            chance=tools.chance,
            connects=ConnectLimiter(),
            market_open=tools.market_open,
            renew=self._renew,
            instruments=self._load_instruments_for,
        )
        self._ticker = asyncio.create_task(keep("ticks", self._tick))
        if tools.seats is not None:
            self._sitter = asyncio.create_task(keep("seats", partial(self._await_seats, tools.seats)))

    async def _close(self) -> None:
        for task in (self._ticker, self._sitter, *self._giving_way):
            if task is not None:
                task.cancel()
        for task in self._running.values():
            task.cancel()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=_END_WAIT)
        for feed in self._feeds.values():
            feed.close()
        self._running.clear()
        self._feeds.clear()
        if self._tools.seats is not None:
            self._tools.seats.close()
        if self._client is not None:
            await self._client.aclose()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1)
            for feed in list(self._feeds.values()):
                feed.look()

    def _add(self, account: FeedAccount) -> None:
        self.loop.submit(self._begin(account)).result(_START_WAIT)

    async def _begin(self, account: FeedAccount) -> None:
        if self._http is None or self._around is None:
            raise ConfigurationError("the fleet is not started")
        try:
            if refusal := self._tools.refusal(account):
                raise ConfigurationError(refusal)
            adapter = self._adapter(account, self._http)
        except OrderwireError as error:
            self._refuse(account.profile.account, account.broker, str(error))
            return
        if await self._is_fed_elsewhere(adapter, account):
            return
        adapter.session = self._still_valid(account.session)
        feed = FeedSupervisor(adapter, self._around, push=account.push)
        self._feeds[feed.account] = feed
        self._running[feed.account] = asyncio.create_task(feed.run(), name=f"feed {feed.account}")

    def _adapter(self, account: FeedAccount, http: BrokerHttp) -> BrokerAdapter:
        kind = self._tools.brokers.get(account.broker)
        tools = AdapterTools(
            http=http,
            instruments=self._instruments[account.broker],
            clock=self._tools.clock,
            publisher=self._tools.engine,
        )
        return make_adapter(kind, account.profile, tools)

    def _refuse(self, account: AccountId, broker: str, why: str) -> None:
        known = self._refused.get(account)
        if known is not None and known[1].detail == why:
            return
        _log.error("account without a feed", account=account, reason=why)
        status = FeedStatus(
            account=account, freshness=Freshness.STALE, since=self._tools.clock.now(), detail=why
        )
        self._refused[account] = (broker, status)
        self._tools.engine.put(Event(EventType.FEED_STATUS, status))

    async def _end(self, account: AccountId) -> None:
        self._refused.pop(account, None)
        self._waiting.pop(account, None)
        await self._end_feed(account)
        if self._tools.seats is not None and account not in self._feeds:
            self._tools.seats.release(account)

    async def _end_feed(self, account: AccountId) -> None:
        task, feed = self._running.pop(account, None), self._feeds.pop(account, None)
        if feed is not None:
            left = feed.health()
            self._left.update({(left.broker, what): count for what, count in left.counts.items()})
        if task is not None:
            task.cancel()
            await asyncio.wait({task}, timeout=_END_WAIT)
        if feed is not None:
            feed.close()

    # --- one orderwire for an account ------------------------------------------------------------------

    async def _is_fed_elsewhere(self, adapter: BrokerAdapter, account: FeedAccount) -> bool:
        """Take the account's seats, as far as it is known whose it is; where another has one, wait for it."""
        name, seats = adapter.profile.account, self._tools.seats
        if seats is None:
            return False
        user_id = account.session.user_id if account.session is not None else ""
        names = names_of(type(adapter), adapter.profile, user_id=user_id)
        waiting = self._waiting[name] = _Waiting(account.broker, names)
        holder = await seats.take(name, names)
        if self._waiting.get(name) is not waiting:  # it was removed, or begun anew, while somebody was asked
            return True
        if holder is None:
            del self._waiting[name]
            self._refused.pop(name, None)
        else:
            self._refuse(name, account.broker, holder.words)
        return holder is not None

    def _give_way(self, account: AccountId, waiting: _Waiting) -> None:
        """End a feed that turned out to be another orderwire's, from inside it, and wait."""
        self._waiting[account] = waiting

        async def end() -> None:
            await self._end_feed(account)
            if self._waiting.get(account) is waiting:
                if self._tools.seats is not None:
                    self._tools.seats.release(account)
                self._refuse(account, waiting.broker, waiting.words)

        ending = asyncio.create_task(end())
        self._giving_way.add(ending)
        ending.add_done_callback(self._giving_way.discard)

    async def _await_seats(self, seats: Seats) -> None:
        """Begin the feeds of accounts whose other orderwire has let go; say so when it is another one now."""
        while True:
            await asyncio.sleep(_SEAT_PACE)
            for account, waiting in list(self._waiting.items()):
                if account in self._refused:
                    await self._look_at_seat(seats, account, waiting)

    async def _look_at_seat(self, seats: Seats, account: AccountId, waiting: _Waiting) -> None:
        holder = await seats.take(account, waiting.names)
        if self._waiting.get(account) is not waiting:
            return
        if holder is not None:
            self._refuse(account, waiting.broker, holder.words)
            return
        try:
            kept = await asyncio.to_thread(self._tools.logins.account, account)
        except OrderwireError as error:  # the database is busy: the next look tells
            _log.warning("a feed that may begin does not", account=account, error=str(error))
            return
        if self._waiting.get(account) is waiting:
            _log.info("the other orderwire has let go", account=account)
            await self._begin(kept)

    def _still_valid(self, session: BrokerSession | None) -> BrokerSession | None:
        if session is None or (session.expires_at and session.expires_at <= self._tools.clock.now()):
            return None
        return session

    def _tell(self, account: AccountId, what: Callable[[FeedSupervisor], None]) -> None:
        feed = self._feeds.get(account)
        if feed is not None and self.loop.running:
            self.loop.loop.call_soon_threadsafe(what, feed)


def _refused_health(broker: str, status: FeedStatus) -> FeedHealth:
    return FeedHealth(
        account=status.account,
        broker=broker,
        freshness=status.freshness,
        since=status.since,
        detail=status.detail,
        running=False,
    )
