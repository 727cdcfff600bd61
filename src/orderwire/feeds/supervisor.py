"""Keeps one account's observations coming: listen, reconnect, reconcile, fall back, come back."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

import structlog

from orderwire.brokers.adapter import AccountProfile, AdapterTools, BrokerAdapter, BrokerSession
from orderwire.clock import Clock
from orderwire.core import recovery
from orderwire.core.alerts import Notice
from orderwire.core.events import Event, EventType
from orderwire.core.health import FeedHealth
from orderwire.core.orders import IST, AccountId, OrderId, Unreadable, session_date
from orderwire.core.recovery import BookRead, FeedFacts, FeedStatus, Freshness
from orderwire.errors import (
    BrokerError,
    BrokerUnreachableError,
    ConfigurationError,
    OrderwireError,
    PermissionRefusedError,
    ProtocolViolationError,
    SessionExpiredError,
)
from orderwire.feeds.poller import ORDERS, BookPoller, HeldOrders
from orderwire.feeds.pushwatch import PushWatch
from orderwire.feeds.valve import Valve
from orderwire.feeds.watched import watched

_log = structlog.get_logger(__name__)

_DETAILS = {
    Freshness.LIVE: "",
    Freshness.RECONCILING: "Reading the order book before showing it as live.",
    Freshness.DEGRADED: "The live stream is down; the order book is read every few seconds.",
    Freshness.STALE: "The broker does not answer; what you see may be out of date.",
    Freshness.AUTH_REQUIRED: "Log in to the broker again.",
    Freshness.MANUAL: "Real-time updates are off for you; refresh to see changes.",
}


_EXPLAINS = {
    "login": Freshness.AUTH_REQUIRED,
    "instruments": Freshness.RECONCILING,
    "read": Freshness.STALE,
    "stream": Freshness.DEGRADED,
    "trades": Freshness.STALE,
    "positions": Freshness.STALE,
}
"""Which freshness a failure of what explains to the trader."""

_WITHIN = {"login": 150.0, "instruments": 150.0, "read": 30.0, "trades": 30.0, "positions": 30.0}
"""Seconds an adapter's work may take, waiting for its budget included; a stream may take for ever."""

_SESSION_LASTS = 60.0
_LOGIN_PAUSE, _LOGIN_PAUSE_CAP = 2.5, 900.0
"""Seconds: a session ended sooner than the first was taken from us; logins then wait from 5 s up to 15 min."""

_OPENING = 20.0
"""Seconds a stream may take from the connect until it delivers."""
_SILENT = 30.0
"""Seconds without a byte after which a stream is ended here, whatever its adapter's own deadline: the last net."""
_INSTRUMENTS_WAIT = 15.0
"""Seconds for which the first read and the stream wait for the day's list of instruments."""
_LET_GO = 1.0
"""Seconds a cancelled piece of an adapter's work may take to end."""
_UNREADABLE_STREAMS = 3
"""Streams in a row that ended because they could not be read; then the account polls until the next login."""
_REFUSED_PAUSE, _REFUSED_PAUSE_CAP = 60.0, 900.0
"""Seconds after which a stream that the broker would not give this login is asked for again; twice as long each time.

A plan without a stream refuses it for good, but a broker's passing trouble looks the same.
"""
_BLOCKED_MOST, _BLOCKED_MEMORY = 5.0, 600.0
"""Seconds for which an adapter may hold up everybody's feeds within so many seconds; then it is cut off."""
_MOST_ODD = 1000
"""Odd rows remembered of an account and session day; beyond, each is told at every read."""
_SIDE_BOOKS_PACE = 1.0
"""Seconds from one reading of trades and positions to the next: a broker counts them with the order book's reads, and
an order that fills five times a second must not have its own book wait behind them, or be refused with 429."""
_SIDE_BOOKS_REST, _SIDE_BOOKS_PACE_CAP = 4.0, 5.0
"""So many times what a reading took, up to so many seconds, is the pause after it: with ten thousand executions in each of
many accounts nothing else had its turn."""
_AFTER_CRASH = 5.0
_ALERT_PAUSE = 600.0
"""Seconds in which one account raises the same alert once."""
_OPENING_SPREAD = 3.0
"""Seconds over which the accounts' first reads after the opening of the market are spread."""


def make_adapter(kind: type[BrokerAdapter], profile: AccountProfile, tools: AdapterTools) -> BrokerAdapter:
    """Make an account's adapter. Raises OrderwireError, whatever its class raises."""
    try:
        return kind(profile, tools)
    except OrderwireError:
        raise
    except Exception as error:
        _log.exception("adapter fault", account=profile.account, broker=kind.name, what="making it")
        raise ConfigurationError(
            f"The {kind.title} adapter cannot be made: {type(error).__name__}: {error}"
        ) from error


async def log_in(adapter: BrokerAdapter, grant: Mapping[str, str]) -> BrokerSession:
    """Log an adapter in. Raises OrderwireError, whatever the adapter raises or returns."""
    try:
        session = await adapter.login(grant)
    except OrderwireError:
        raise
    except Exception as error:
        _log.exception(
            "adapter fault", account=adapter.profile.account, broker=adapter.name, what="logging in"
        )
        raise ConfigurationError(
            f"The {adapter.title} adapter failed at the login: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(session, BrokerSession):
        raise ConfigurationError(
            f"The {adapter.title} adapter's login returned {type(session).__name__}, not a BrokerSession."
        )
    return session


_RENEWAL_PACE = 20.0
"""Seconds between the looks at a login's end."""


class ConnectLimiter:
    """Lets at most 10 connects through in 100 ms and 50 in a second, process-wide; on the feed loop.

    They leave one by one, 22 ms apart: what leaves in bunches arrives in larger ones when the machine is busy.
    """

    def __init__(self, limits: tuple[tuple[int, float], ...] = ((1, 0.022), (10, 0.1), (50, 1.0))) -> None:
        self._limits = limits
        self._taken: deque[float] = deque(maxlen=max(count for count, _ in limits))
        self._turn = asyncio.Lock()

    async def take(self) -> None:
        """Wait for a turn to connect; first come, first served."""
        async with self._turn:
            now = asyncio.get_running_loop().time()
            wait = max((self._wait(count, period, now) for count, period in self._limits), default=0.0)
            if wait > 0:
                await asyncio.sleep(wait)
            self._taken.append(asyncio.get_running_loop().time())

    def _wait(self, count: int, period: float, now: float) -> float:
        if len(self._taken) < count:
            return 0.0
        return self._taken[-count] + period - now


@dataclass(slots=True, kw_only=True)
class FeedCounters:
    """What happened on one feed since it started."""

    reconnects: int = 0
    reads: int = 0
    histories: int = 0
    failed_reads: int = 0
    violations: int = 0
    blocked: float = 0.0
    """Seconds for which this account's adapter held up the feed loop."""
    faults: dict[str, int] = field(default_factory=dict)
    """Errors that no adapter should raise, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSurroundings:
    """What a feed is given by the fleet."""

    held: HeldOrders
    publish: Callable[[Event], None]
    clock: Clock
    chance: Callable[[], float]
    """Uniform in [0, 1)."""
    connects: ConnectLimiter
    market_open: Callable[[Collection[str]], bool]
    """Whether one of the named segments (none: any) may trade now."""
    renew: Callable[[AccountId], Awaitable[BrokerSession | None]]
    """Obtain a new session without the user, or None when the user must log in."""
    instruments: Callable[[AccountId], Coroutine[Any, Any, None]] | None = None
    """Load the day's instruments for this account's broker, where they are not loaded yet."""


@dataclass(slots=True)
class _StreamState:
    """How an account's stream is doing."""

    task: asyncio.Task[bool] | None = None
    session: BrokerSession | None = None
    """With which it was dialled."""
    began: float = 0.0
    delivering_since: float | None = None
    delivered_for: float = 0.0
    """Seconds the streams that have ended delivered."""
    heard_from: float = 0.0
    """When it began to deliver, on the adapter's clock."""
    was_healthy: bool = False
    """The last one lasted, and the book was read meanwhile."""
    not_before: float = 0.0
    unreadable: int = 0
    """Streams in a row that ended because they could not be read."""
    refusals: int = 0
    """Times in a row that this login was not given one."""
    ask_again: float | None = None
    """When it is asked for again after a refusal; None: not refused."""
    kept: bool = False
    """One could not be ended."""


@dataclass(slots=True)
class _OddRows:
    """Which unreadable rows were told on this session day."""

    day: date | None = None
    told: set[bytes] = field(default_factory=set)

    def is_news(self, raw: bytes, today: date) -> bool:
        if self.day != today:
            self.day, self.told = today, set()
        if raw in self.told:
            return False
        if len(self.told) < _MOST_ODD:
            self.told.add(raw)
        return True


class FeedSupervisor:
    """Runs one account's feed on the feed loop; every method is called there."""

    def __init__(self, adapter: BrokerAdapter, around: FeedSurroundings, *, push: bool = True) -> None:
        self.account = adapter.profile.account
        self.adapter = adapter
        self.counters = FeedCounters()
        self.poller = BookPoller(adapter, held=around.held)
        self.valve = Valve(self.account, adapter.tools.publisher, push=push)
        self.watch = PushWatch()
        self._around = around
        self._push = push
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        """A pause before the next connect is over before its time."""
        self._changed = asyncio.Event()
        """Something on which it depends whether a stream may run."""
        self._cut_off = asyncio.Event()
        self._known = asyncio.Event()
        self._ended = False
        self._logged_in = asyncio.Event()
        self._logged_out = asyncio.Event()
        self._logged_out.set()
        self._side_books_due = asyncio.Event()
        self._requests: list[float] = []
        self._answer_due: float | None = 0.0
        """Reads answer hints up to the first that begins then; the first of all answers those of an earlier process."""
        self._hint_read_at: float | None = None
        self._histories: set[OrderId] = set()
        self._down_since: float | None = None
        self._stream = _StreamState()
        self._reconciled = self._side_books_read = False
        self._streams = adapter.has_stream
        self._read_at: float | None = None
        self._read_wall: datetime | None = None
        self._reading_since: float | None = None
        self._failing_since: float | None = None
        self._last_try: float | None = None
        self._last_end = self._not_before = 0.0
        self._jitter = 0.5
        self._odd = _OddRows()
        self._open_orders, self._market_open = 0, True
        self._blocks: deque[tuple[float, float]] = deque()
        self._alerted: dict[str, float] = {}
        self._details: dict[Freshness, str] = {}
        """In words what went wrong, by the freshness it explains."""
        self._next_try: datetime | None = None
        self._status = FeedStatus(
            account=self.account, freshness=Freshness.RECONCILING, since=around.clock.now()
        )
        self.valve.on_pushed, self.valve.on_executed = self._on_pushed, self.poller.heard
        self.valve.on_foreign = self._on_foreign
        adapter.tools = replace(adapter.tools, publisher=self.valve)
        adapter.on_listening = self._on_listening
        adapter.on_violation = self._on_violation
        adapter.on_positions_moved = self._side_books_due.set

    # --- what others ask -------------------------------------------------------------------------------

    @property
    def status(self) -> FeedStatus:
        """What the page may say now."""
        return self._status

    def health(self) -> FeedHealth:
        """Say how the feed is doing; any thread, from values that are each replaced whole."""
        now, since, down = self._around.clock.monotonic(), self._stream.delivering_since, self._down_since
        adapter, status, counters = self.adapter, self._status, self.counters
        broker_now = adapter.broker_now()
        return FeedHealth(
            account=self.account,
            broker=adapter.name,
            freshness=status.freshness,
            since=status.since,
            detail=status.detail,
            read_at=status.read_at,
            streams=self._may_listen(),
            connected=since is not None,
            connected_seconds=self._stream.delivered_for + (now - since if since is not None else 0.0),
            down_seconds=now - down if down is not None else 0.0,
            heartbeat_age=max(now - adapter.heard_at, 0.0)
            if since is not None and adapter.heard_at
            else None,
            clock_offset=(self._around.clock.now() - broker_now).total_seconds() if broker_now else None,
            open_orders=self._around.held.open_orders(self.account),
            market_open=self._around.market_open(self.adapter.segments),
            counts={
                "reconnects": counters.reconnects,
                "reads": counters.reads,
                "histories": counters.histories,
                "failed_reads": counters.failed_reads,
                "violations": counters.violations,
                "faults": sum(counters.faults.copy().values()),
                "missed_by_push": self.watch.missed,
            },
        )

    @property
    def push(self) -> bool:
        """Whether the account is on real-time updates; False: MANUAL."""
        return self._push

    def set_push(self, on: bool) -> None:
        """Switch the account's real-time updates on or off; from now on nothing of a stream passes when off.

        Either way the book is read at once, so that what the change-over left out is found there.
        """
        if on is self._push:
            return
        self._push, self.valve.push = on, on and not self._stream.kept
        if not on:
            self._end_stream()
        self._turn()
        self.request_read()
        self.tick()

    def log_in(self, session: BrokerSession) -> None:
        """Use this session from now on; a stream with another login's token is ended and dialled anew."""
        self.adapter.session = session
        if self._stream.session is not None and self._stream.session.secrets != session.secrets:
            self._end_stream()
        self._streams = self.adapter.has_stream
        self._stream.unreadable = self._stream.refusals = 0
        self._stream.ask_again = None
        self._not_before = 0.0
        self._details.clear()
        self._mark_logged_in()
        self._turn()
        self.request_read()
        self.tick()

    def log_out(self, detail: str) -> None:
        """Use no session any more: nothing is sent until the next `log_in`."""
        self._expire(detail)
        self.tick()

    def request_read(self, *, after: float = 0.0) -> None:
        """Have the book read `after` seconds from now; requests that fall together share one read."""
        heapq.heappush(self._requests, _now() + after)
        self._wake.set()

    def after_action(self) -> None:
        """A place, modify or cancel of ours was sent: read the book at the moments the design names."""
        for after in recovery.reads_after_action(push=self._push):
            self.request_read(after=after)

    def hint(self, order_id: OrderId, reason: str) -> None:
        """Something about this order wants confirming by REST; `tie` asks for its history as well.

        Hints that wait at the same time share one read, and a flood of them causes at most one per `HINT_SPACING`.
        With push off a broker's callback (`hint`) is no reason to read: that would be a push path.
        """
        if reason.startswith("hint") and not self._push:
            return
        if reason.startswith("tie"):
            self._histories.add(order_id)
        now = _now()
        due, planned = recovery.hint_due(
            reason, now=now, last_hint_read=self._hint_read_at, planned=self._requests
        )
        self._answer_due = max(due, self._answer_due or 0.0)
        if not planned:
            self.request_read(after=due - now)

    def tick(self) -> None:
        """Recompute the freshness; called on every event here and by `look`."""
        if self._ended:
            return
        self._enforce()
        facts = self._facts()
        self._watch_stream(facts)
        state = recovery.freshness(facts)
        detail = self._explain(state)
        told = (self._status.freshness, self._status.detail, self._status.connected)
        now_wall = self._around.clock.now()
        self._status = FeedStatus(
            account=self.account,
            freshness=state,
            since=self._status.since if state is self._status.freshness else now_wall,
            detail=detail,
            read_at=self._read_wall,
            connected=facts.delivering,
            reconnects=self.counters.reconnects,
            next_try=self._next_try,
        )
        self._follow(facts)
        if told != (state, detail, facts.delivering):
            self._around.publish(Event(EventType.FEED_STATUS, self._status))

    def look(self) -> None:
        """Tick, once a second; what fails is this account's fault alone, for all share the loop that calls this."""
        try:
            self.tick()
        except Exception as error:  # noqa: BLE001 - the airlock: every account's deadlines hang on that loop
            self._fault("look", error)

    def _explain(self, state: Freshness) -> str:
        said, odd = self._details.get(state) or self._remark(state), self._odd_words()
        if state in {Freshness.AUTH_REQUIRED, Freshness.STALE} or not odd:
            return said or _DETAILS[state]
        return f"{said} {odd}".strip()

    def _odd_words(self) -> str:
        left_out = [f"{len(odd)} of the {book}" for book, odd in self.poller.odd.items() if odd]
        if not left_out:
            return ""
        return f"Rows that cannot be read are not shown: {', '.join(left_out)}. The operator has them."

    def _watch_stream(self, facts: FeedFacts) -> None:
        """Note since when a stream that is wanted does not deliver."""
        wanted = facts.push and facts.logged_in and facts.streams
        if not wanted or facts.delivering:
            self._down_since = None
        elif self._down_since is None:
            self._down_since = self._around.clock.monotonic()

    def _follow(self, facts: FeedFacts) -> None:
        """Let what changed around the feed change its pace at once."""
        if facts.open_orders != self._open_orders:
            self._open_orders = facts.open_orders
            self._wake.set()
        if facts.market_open != self._market_open:
            self._market_open = facts.market_open
            if facts.market_open:  # everybody's at the same moment: spread
                self._last_try = _now()
                self.request_read(after=_OPENING_SPREAD * self._around.chance())
                self._turn()

    def _remark(self, state: Freshness) -> str:
        """Say what is worth knowing although nothing is down."""
        share = self._share()
        usual = recovery.read_interval(
            state, open_orders=self._open_orders, market_open=self._market_open, doubted=False
        )
        if usual is not None and share > usual:
            return (
                f"Many accounts share the broker's limit: the order book is read every {share:.0f} s, "
                f"not every {usual:.0f} s."
            )
        if state is Freshness.LIVE and self.watch.doubted(_now()):
            return "The live stream missed a change; the order book is read every second until it keeps up again."
        return ""

    # --- the feed --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the feed up until cancelled, or until its adapter is cut off for harming others."""
        if self.adapter.session is not None:
            self._mark_logged_in()
        self._around.publish(Event(EventType.FEED_STATUS, self._status))
        try:
            while not self._cut_off.is_set():
                await self._work_until_cut_off()
            self.valve.open = False
            self.tick()
        finally:
            self._ended = True

    def close(self) -> None:
        """Let nothing of this account through any more: another owner of the feed may speak now."""
        self._ended = True
        self.valve.open = False

    async def _work_until_cut_off(self) -> None:
        work = asyncio.create_task(self._work())
        cut_off = asyncio.create_task(self._cut_off.wait())
        try:
            await asyncio.wait({work, cut_off}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._ended = True
            raise
        finally:
            cut_off.cancel()
            work.cancel()
            await asyncio.wait({work}, timeout=2 * _LET_GO)
            if not work.done():
                self._count_fault("work kept")
        if work.done() and not work.cancelled() and (error := work.exception()) is not None:
            self._fault("feed", error)
            await asyncio.sleep(_AFTER_CRASH)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._log_in_again())
            tasks.create_task(self._renew_in_time())
            tasks.create_task(self._knowing_instruments())
            tasks.create_task(self._reading())
            tasks.create_task(self._reading_side_books())
            tasks.create_task(self._listening())

    async def _knowing_instruments(self) -> None:
        load = self._around.instruments
        while load is not None:
            await self._logged_in.wait()
            await self._airlock("instruments", load(self.account))
            self._known.set()
            await self._logged_out.wait()
        self._known.set()

    async def _until_known(self) -> None:
        """Give the day's instruments some time: rows read without them show the broker's own symbols."""
        await self._logged_in.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(_INSTRUMENTS_WAIT):
                await self._known.wait()

    async def _log_in_again(self) -> None:
        """Obtain a session whenever there is none and the broker needs no user for it.

        A session that ends soon after we obtained it was taken by another login: taking it back at once would
        make two processes evict each other for ever, so the pause grows instead.
        """
        quick = 0
        while True:
            await self._logged_out.wait()
            await self._airlock("login", self._renew_once())
            began = _now()
            if self._logged_in.is_set():
                await self._logged_out.wait()
            quick = quick + 1 if _now() - began < _SESSION_LASTS else 0
            await asyncio.sleep(min(_LOGIN_PAUSE * 2**quick, _LOGIN_PAUSE_CAP) if quick else 0)

    async def _renew_in_time(self) -> None:
        """Renew a login before it ends, where that needs no user: a stream of a dead login may stay open, and silent."""
        while True:
            await self._logged_in.wait()
            session = self.adapter.session
            if session is not None and self._is_to_be_renewed(session):
                await self._airlock("login", self._renew_once())
            await asyncio.sleep(_RENEWAL_PACE)

    def _is_to_be_renewed(self, session: BrokerSession) -> bool:
        due = recovery.renewal_due(self._around.clock.now(), ends=session.expires_at)
        return due and self.adapter.login_url() is None and not self.adapter.profile.follows_host

    async def _renew_once(self) -> None:
        if self.adapter.profile.follows_host:
            self._details.setdefault(Freshness.AUTH_REQUIRED, "Log in to the broker in the host.")
            self.tick()
            return
        session = await self._around.renew(self.account)
        if session is not None:
            self.log_in(session)
        else:
            title = self.adapter.title
            self._alert(
                "login needed", f"{title} needs a login by the user; nothing is read or told until then."
            )

    def _mark_logged_in(self) -> None:
        self._logged_in.set()
        self._logged_out.clear()

    # --- reading ---------------------------------------------------------------------------------------

    async def _reading(self) -> None:
        await self._until_known()
        while True:
            await self._logged_in.wait()
            await self._until_due()
            if self._logged_in.is_set():
                await self._airlock("read", self._read())
                self._reading_since, self._last_end = None, _now()
                self.tick()
                await asyncio.sleep(0)  # an adapter that never waits must not keep the loop to itself

    async def _until_due(self) -> None:
        while True:
            self._wake.clear()
            due = self._next_read()
            if due is not None and due <= _now():
                break
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._wake.wait()
        while self._requests and self._requests[0] <= _now():
            heapq.heappop(self._requests)

    def _next_read(self) -> float | None:
        interval = recovery.read_interval(
            self._status.freshness,
            open_orders=self._around.held.open_orders(self.account),
            market_open=self._around.market_open(self.adapter.segments),
            doubted=self.watch.doubted(_now()),
            share=self._share(),
        )
        due = []
        if self._requests:
            due.append(self._requests[0])
        if self._last_try is None:
            due.append(_now())
        elif interval is not None:
            interval = recovery.spread(interval, chance=self._jitter)
            due.append(max(self._last_try + interval, self._last_end + interval / 2))
        return max(min(due), self._not_before) if due else None

    def _share(self) -> float:
        try:
            return float(self.adapter.book_share())
        except Exception as error:  # noqa: BLE001 - the airlock: asked at every tick, where nothing may fail
            self._count_fault(type(error).__name__)
            return 0.0

    async def _read(self) -> None:
        started = self._last_try = self._reading_since = _now()
        self._jitter = self._around.chance()
        self.counters.reads += 1
        asked_ns, judge = self._around.clock.time_ns(), self._reconciled
        answers = self._answer_due
        if answers is not None:
            self._hint_read_at = started
        fills = await self.poller.read_orders()
        self._tell_odd(ORDERS)
        whole = not self.poller.odd[ORDERS]
        self.watch.shown(self.poller.rows, now=_now(), judge=judge and self._reconciled)
        if answers is not None and whole:  # the order in question may be the one that cannot be read
            if self._answer_due == answers <= started:
                self._answer_due = None
            read = BookRead(account=self.account, asked_ns=asked_ns)
            self._around.publish(Event(EventType.BOOK_READ, read))
        for order_id in sorted(self._histories):
            self.counters.histories += 1
            await self.poller.read_history(order_id)
            self._tell_odd("order history")
            self._histories.discard(order_id)
        self._read_done(started)
        if fills or not self._side_books_read:
            self._side_books_due.set()

    def _read_done(self, started: float) -> None:
        self._read_at, self._read_wall = _now(), self._around.clock.now()
        self._failing_since = None
        self._details.pop(Freshness.STALE, None)
        if self._stream.delivering_since is not None and started >= self._stream.delivering_since:
            self._reconciled = True

    async def _reading_side_books(self) -> None:
        """Trades and positions follow the orders; they never hold the order book up.

        The trade book is left alone where the stream told every execution: a broker gives it whole or not at all.
        """
        while True:
            await self._side_books_due.wait()
            self._side_books_due.clear()
            await self._logged_in.wait()
            traded, began = True, _now()
            if self.poller.lacks_trades:
                traded = await self._airlock("trades", self.poller.read_trades())
                self._tell_odd("trade book")
            moved = await self._airlock("positions", self.poller.read_positions())
            self._tell_odd("positions")
            self._side_books_read = (
                traded and moved and not self.poller.trades_lag
            )  # else with the next order book, though nothing fills any more
            rest = min(_SIDE_BOOKS_REST * (_now() - began), _SIDE_BOOKS_PACE_CAP)
            await asyncio.sleep(max(rest, _SIDE_BOOKS_PACE))

    # --- listening -------------------------------------------------------------------------------------

    async def _listening(self) -> None:
        await self._until_known()
        attempt = 0
        while True:
            await self._until_may_listen()
            await self._around.connects.take()
            if not self._may_listen():
                continue
            self._next_try = None
            await self._one_stream()
            attempt = 1 if self._stream.was_healthy else attempt + 1
            await self._back_off(attempt)

    async def _until_may_listen(self) -> None:
        while not self._may_listen():
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._stream.ask_again):
                    await self._changed.wait()
            self._forget_refusal()

    def _refused(self) -> None:
        """Poll, and ask for the stream again later: a refusal may pass."""
        pause = min(_REFUSED_PAUSE * 2**self._stream.refusals, _REFUSED_PAUSE_CAP)
        self._stream.refusals += 1
        self._stream.ask_again = _now() + pause
        self._streams = False

    def _forget_refusal(self) -> None:
        if self._stream.ask_again is not None and self._stream.ask_again <= _now():
            self._stream.ask_again = None
            self._streams = self.adapter.has_stream

    def _may_listen(self) -> bool:
        return self._push and self._streams and not self._stream.kept and self._logged_in.is_set()

    async def _one_stream(self) -> None:
        """Run the stream to its end, its adapter's or ours; it is gone, or the valve shut to it, afterwards."""
        self._stream.was_healthy = False
        self._stream.session, self._stream.began = self.adapter.session, _now()
        self._stream.task = stream = asyncio.create_task(self._airlock("stream", self.adapter.listen()))
        ending = asyncio.create_task(self._ending(stream))
        try:
            await asyncio.wait({stream, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            stream.cancel()
            await asyncio.wait({stream}, timeout=_LET_GO)
            self._stream.task = self._stream.session = None
            self.adapter.listening = False
            if not stream.done():
                self._keeps_its_stream(stream)

    async def _ending(self, stream: asyncio.Task[bool]) -> None:
        """Wait until the stream was told to end, by whomever, and has had its time."""
        while not stream.cancelling():
            self._changed.clear()
            await self._changed.wait()
        await asyncio.sleep(_LET_GO)

    def _end_stream(self) -> None:
        if self._stream.task is not None:
            self._stream.task.cancel()
        self._changed.set()

    def _keeps_its_stream(self, stream: asyncio.Task[bool]) -> None:
        """A stream that does not end may speak at any time: it is not heard, and no other is dialled until it is gone."""
        self._stream.kept, self.valve.push = True, False
        stream.add_done_callback(self._let_go)
        self._say(Freshness.DEGRADED, f"The {self.adapter.title} adapter did not let go of its stream.")
        self._count_fault("stream kept")

    def _let_go(self, _stream: asyncio.Task[bool]) -> None:
        self._stream.kept, self.valve.push = False, self._push
        self._changed.set()

    async def _back_off(self, attempt: int) -> None:
        if not self._may_listen():
            return
        delay = recovery.reconnect_delay(
            attempt, chance=self._around.chance(), market_open=self._around.market_open(self.adapter.segments)
        )
        delay = max(delay, self._stream.not_before - _now())
        self.counters.reconnects += 1
        self._next_try = self._around.clock.now() + timedelta(seconds=delay)
        self.tick()
        self._hurry.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._hurry.wait()

    def _turn(self) -> None:
        """Whether a stream may run, or must wait, has changed."""
        self._changed.set()
        if self._stream.not_before <= _now():
            self._hurry.set()

    def _on_listening(self, delivers: bool) -> None:
        if self._stream.delivering_since is not None:
            lasted = _now() - self._stream.delivering_since
            self._stream.delivered_for += lasted
            self._stream.was_healthy = self._reconciled and lasted >= recovery.HEALTHY_AFTER
        self._stream.delivering_since = _now() if delivers else None
        if delivers:
            self._stream.heard_from = self._around.clock.monotonic()
            self._stream.refusals = 0
            self._details.pop(Freshness.DEGRADED, None)
            if self._stream.delivered_for:
                self._side_books_read = False  # positions may have moved without a fill meanwhile (xts.md §0)
        self._reconciled = False
        self.request_read()
        self.tick()

    def _on_pushed(self, update: Any) -> None:
        self._stream.unreadable = 0
        self.watch.pushed(update)

    def _on_foreign(self) -> None:
        self._count_fault("another account's")
        self._say(Freshness.STALE, f"The {self.adapter.title} adapter published another account's data.")

    def _on_violation(self, error: ProtocolViolationError) -> None:
        """The stream left a message out: what it would have told is in the book."""
        self.counters.violations += 1
        _log.warning("stream message left out", account=self.account, error=str(error))
        self._keep(error)
        self.request_read()

    def _tell_odd(self, book: str) -> None:
        """Count and keep the rows of a book that could not be read: each once a session day, for every read has them."""
        today = session_date(self._around.clock.now())
        for error in self.poller.odd.get(book, ()):
            if not self._odd.is_news(error.raw, today):
                continue
            self.counters.violations += 1
            _log.warning("row left out", account=self.account, book=book, error=str(error))
            self._keep(error)

    def _keep(self, error: ProtocolViolationError) -> None:
        """Have the bytes that could not be read kept for the operator."""
        if error.raw:
            unreadable = Unreadable(
                account=self.account,
                broker=self.adapter.name,
                reason=str(error),
                received_ns=self._around.clock.time_ns(),
                raw=error.raw,
            )
            self._around.publish(Event(EventType.UNREADABLE, unreadable))

    # --- what went wrong -------------------------------------------------------------------------------

    async def _airlock(self, what: str, work: Coroutine[Any, Any, None]) -> bool:
        """Run a piece of the adapter's work; what it raises is classified, counted and named, never lost.

        False when it was not done for a reason that may pass.
        """
        passes = False
        limit = asyncio.timeout(_WITHIN.get(what))
        try:
            async with limit:
                await watched(work, time=self._around.clock.monotonic, told=self._blocked)
        except SessionExpiredError as error:
            passes = True
            self._end_session(what, error)
        except PermissionRefusedError as error:
            self._failed(what, error)
            if what == "stream":
                self._refused()
        except ProtocolViolationError as error:
            self._violated(what, error)
        except BrokerUnreachableError as error:
            passes = True
            self._failed(what, error)
            wait = _now() + (error.retry_after or 0.0)
            if what == "stream":
                self._stream.not_before = wait
            else:
                self._not_before = max(self._not_before, wait)
        except BrokerError as error:
            self._failed(what, error)
        except TimeoutError as error:
            passes = True
            late = TimeoutError(f"not done within {_WITHIN.get(what, 0):.0f} s")
            self._fault(what, late if limit.expired() else error)
        except Exception as error:  # noqa: BLE001 - the airlock: one account's adapter must not harm another's
            self._fault(what, error)
        self.tick()
        return not passes

    def _violated(self, what: str, error: ProtocolViolationError) -> None:
        self.counters.violations += 1
        self._keep(error)
        self._failed(what, error)
        title = self.adapter.title
        if what != "stream":
            self._alert("unreadable answer", f"What {title} answers cannot be read any more: {error}")
            return
        self._stream.unreadable += 1
        if self._stream.unreadable < _UNREADABLE_STREAMS:
            self._alert("unreadable stream", f"{title}'s stream cannot be read: {error}")
            return
        self._streams = False
        self._say(
            Freshness.DEGRADED,
            f"{title}'s stream has become incompatible; the order book is read every few seconds instead.",
        )
        self._alert(
            "incompatible stream",
            f"{title}'s stream has become incompatible and is left alone until the next login; "
            f"the order book is read instead: {error}",
        )

    def _fault(self, what: str, error: BaseException) -> None:
        name = type(error).__name__
        _log.error("adapter fault", account=self.account, broker=self.adapter.name, what=what, exc_info=error)
        words = f"The {self.adapter.title} adapter failed at the {what}: {name}: {error}"[:300]
        self._count_fault(name)
        self._failed(what, RuntimeError(words))
        self._alert(f"adapter fault: {name}", words)

    def _count_fault(self, name: str) -> None:
        self.counters.faults[name] = self.counters.faults.get(name, 0) + 1

    def _failed(self, what: str, error: Exception) -> None:
        if what in _EXPLAINS:
            self._details[_EXPLAINS[what]] = str(error)
        if what == "read":
            self.counters.failed_reads += 1
            self._failing_since = self._failing_since or _now()
        _log.warning("feed trouble", account=self.account, what=what, error=str(error))

    def _blocked(self, seconds: float) -> None:
        """The adapter held up everybody's feeds: name it, and cut it off when it goes on."""
        self.counters.blocked += seconds
        self._blocks.append((_now(), seconds))
        while self._blocks[0][0] < _now() - _BLOCKED_MEMORY:
            self._blocks.popleft()
        words = f"The {self.adapter.title} adapter blocked all feeds for {seconds:.1f} s"
        self._alert("adapter blocked", f"{words}.")
        if sum(held for _, held in self._blocks) >= _BLOCKED_MOST:
            self._say(
                Freshness.STALE, f"{words} and was cut off. Restart the account when it has been repaired."
            )
            self._cut_off.set()

    def _say(self, state: Freshness, words: str) -> None:
        self._details[state] = words
        _log.warning("feed trouble", account=self.account, error=words)

    def _alert(self, kind: str, text: str) -> None:
        if _now() - self._alerted.get(kind, -_ALERT_PAUSE) < _ALERT_PAUSE:
            return
        self._alerted[kind] = _now()
        notice = Notice(kind=kind, text=text, account=self.account, broker=self.adapter.name)
        self._around.publish(Event(EventType.ALERT, notice))

    def _end_session(self, what: str, error: SessionExpiredError) -> None:
        """A call that was under way when the session ended says nothing new: what ended it has been told."""
        if self._logged_in.is_set() or what == "login":
            self._expire(str(error))

    def _expire(self, detail: str) -> None:
        self.adapter.session = None
        self._logged_in.clear()
        self._logged_out.set()
        self._details[Freshness.AUTH_REQUIRED] = detail
        self._end_stream()
        _log.warning("broker session ended", account=self.account, detail=detail)

    def _enforce(self) -> None:
        """Hold what nobody else holds against a deadline: sessions, streams that never deliver or fell silent."""
        session, now = self.adapter.session, _now()
        expires = session.expires_at if session is not None else None
        if expires is not None and expires <= self._around.clock.now() and self._logged_in.is_set():
            ended = expires.astimezone(IST)
            self._expire(f"The {self.adapter.title} login ended at {ended:%H:%M}, as it does; log in again.")
        if self._reading_since is not None and now - self._reading_since > _WITHIN["read"] + _LET_GO:
            self._failing_since = self._failing_since or self._reading_since
            self._details[Freshness.STALE] = f"The {self.adapter.title} adapter does not let go of a read."
        stream = self._stream.task
        if stream is not None and not stream.cancelling() and (why := self._overdue(now)):
            self._details[Freshness.DEGRADED] = f"{self.adapter.title}'s stream {why}."
            self._count_fault("silent stream")
            self._end_stream()

    def _overdue(self, now: float) -> str:
        if self._stream.delivering_since is None:
            return "did not begin to deliver" if now - self._stream.began > _OPENING else ""
        heard = self.adapter.heard_at
        since = max(heard, self._stream.heard_from)
        silent = heard > 0 and self._around.clock.monotonic() - since > _SILENT
        return f"was silent for {_SILENT:.0f} s" if silent else ""

    def _facts(self) -> FeedFacts:
        now = _now()
        return FeedFacts(
            push=self._push,
            logged_in=self._logged_in.is_set(),
            streams=self._streams and not self._stream.kept,
            delivering=self._stream.delivering_since is not None,
            reconciled=self._reconciled,
            ever_read=self._read_at is not None,
            read_age=now - self._read_at if self._read_at is not None else 0.0,
            failing_for=now - self._failing_since if self._failing_since is not None else 0.0,
            open_orders=self._around.held.open_orders(self.account),
            market_open=self._around.market_open(self.adapter.segments),
            odd_rows=len(self.poller.odd.get(ORDERS, ())),
            broken=self._cut_off.is_set(),
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
