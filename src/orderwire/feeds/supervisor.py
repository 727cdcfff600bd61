"""Keeps one account's observations coming: listen, reconnect, reconcile, fall back, come back."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from orderwire.brokers.adapter import BrokerAdapter, BrokerSession
from orderwire.clock import Clock
from orderwire.core import recovery
from orderwire.core.events import Event, EventType
from orderwire.core.health import FeedHealth
from orderwire.core.orders import AccountId, OrderId, Unreadable
from orderwire.core.recovery import BookRead, FeedFacts, FeedStatus, Freshness
from orderwire.errors import (
    BrokerError,
    BrokerUnreachableError,
    PermissionRefusedError,
    ProtocolViolationError,
    SessionExpiredError,
)
from orderwire.feeds.poller import BookPoller, HeldOrders

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
    "read": Freshness.STALE,
    "stream": Freshness.DEGRADED,
    "trades": Freshness.STALE,
    "positions": Freshness.STALE,
}
"""Which freshness a failure of what explains to the trader."""

_SESSION_LASTS = 60.0
_LOGIN_PAUSE, _LOGIN_PAUSE_CAP = 2.5, 900.0
"""Seconds: a session ended sooner than the first was taken from us; logins then wait from 5 s up to 15 min."""


_RENEWAL_PACE = 20.0
"""Seconds between the looks at a login's end."""


class ConnectLimiter:
    """Lets at most 10 connects through in 100 ms and 50 in a second, process-wide; on the feed loop."""

    def __init__(self, limits: tuple[tuple[int, float], ...] = ((10, 0.1), (50, 1.0))) -> None:
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
    failed_reads: int = 0
    violations: int = 0
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
    market_open: Callable[[], bool]
    renew: Callable[[AccountId], Awaitable[BrokerSession | None]]
    """Obtain a new session without the user, or None when the user must log in."""


class FeedSupervisor:
    """Runs one account's feed on the feed loop; every method is called there."""

    def __init__(self, adapter: BrokerAdapter, around: FeedSurroundings, *, push: bool = True) -> None:
        self.account = adapter.profile.account
        self.adapter = adapter
        self.counters = FeedCounters()
        self.poller = BookPoller(adapter, held=around.held)
        self._around = around
        self._push = push
        self._wake = asyncio.Event()
        self._logged_in = asyncio.Event()
        self._allowed = asyncio.Event()
        """Set by each login: an account that was refused the stream may have it now."""
        self._logged_out = asyncio.Event()
        self._logged_out.set()
        self._side_books_due = asyncio.Event()
        self._requests: list[float] = []
        self._answer_due: float | None = 0.0
        """Reads answer hints up to the first that begins then; the first of all answers those of an earlier process."""
        self._hint_read_at: float | None = None
        self._histories: set[OrderId] = set()
        self._delivering_since: float | None = None
        self._delivered_for = 0.0
        """Seconds the streams that have ended delivered."""
        self._down_since: float | None = None
        self._reconciled = False
        self._streams = adapter.has_stream
        self._read_at: float | None = None
        self._read_wall: datetime | None = None
        self._failing_since: float | None = None
        self._last_try: float | None = None
        self._not_before = 0.0
        self._stream_not_before = 0.0
        self._side_books_read = False
        self._details: dict[Freshness, str] = {}
        """In words what went wrong, by the freshness it explains."""
        self._next_try: datetime | None = None
        self._status = FeedStatus(
            account=self.account, freshness=Freshness.RECONCILING, since=around.clock.now()
        )
        adapter.on_listening = self._on_listening
        adapter.on_violation = self._on_violation

    # --- what others ask -------------------------------------------------------------------------------

    @property
    def status(self) -> FeedStatus:
        """What the page may say now."""
        return self._status

    def health(self) -> FeedHealth:
        """Say how the feed is doing; any thread, from values that are each replaced whole."""
        now, since, down = self._around.clock.monotonic(), self._delivering_since, self._down_since
        adapter, status, counters = self.adapter, self._status, self.counters
        broker_now = adapter.broker_now()
        return FeedHealth(
            account=self.account,
            broker=adapter.name,
            freshness=status.freshness,
            since=status.since,
            detail=status.detail,
            read_at=status.read_at,
            streams=self._streams and self._push and self._logged_in.is_set(),
            connected=since is not None,
            connected_seconds=self._delivered_for + (now - since if since is not None else 0.0),
            down_seconds=now - down if down is not None else 0.0,
            heartbeat_age=max(now - adapter.heard_at, 0.0)
            if since is not None and adapter.heard_at
            else None,
            clock_offset=(self._around.clock.now() - broker_now).total_seconds() if broker_now else None,
            open_orders=self._around.held.open_orders(self.account),
            market_open=self._around.market_open(),
            counts={
                "reconnects": counters.reconnects,
                "reads": counters.reads,
                "failed_reads": counters.failed_reads,
                "violations": counters.violations,
                "faults": sum(counters.faults.copy().values()),
                "missed_by_push": self.poller.missed_by_push,
            },
        )

    def log_in(self, session: BrokerSession) -> None:
        """Use this session from now on; a running stream with another token is left to end by itself."""
        self.adapter.session = session
        self._streams = self.adapter.has_stream
        self._allowed.set()
        self._not_before = 0.0
        self._details.clear()
        self._mark_logged_in()
        self.request_read()
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
        """
        if reason.startswith("tie"):
            self._histories.add(order_id)
        now = _now()
        due = recovery.hint_due(reason, now=now, last_hint_read=self._hint_read_at)
        self._answer_due = max(due, self._answer_due or 0.0)
        shared = bool(self._requests) and self._requests[0] <= due and not reason.startswith("conflict")
        if not shared:
            self.request_read(after=due - now)

    def tick(self) -> None:
        """Recompute the freshness; called on every event here and once a second by the fleet."""
        facts = self._facts()
        self._watch_stream(facts)
        state = recovery.freshness(facts)
        detail = self._details.get(state) or _DETAILS[state]
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
        if told != (state, detail, facts.delivering):
            self._around.publish(Event(EventType.FEED_STATUS, self._status))

    def _watch_stream(self, facts: FeedFacts) -> None:
        """Note since when a stream that is wanted does not deliver."""
        wanted = facts.push and facts.logged_in and facts.streams
        if not wanted or facts.delivering:
            self._down_since = None
        elif self._down_since is None:
            self._down_since = self._around.clock.monotonic()

    # --- the feed --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the feed up until cancelled."""
        if self.adapter.session is not None:
            self._mark_logged_in()
        self._around.publish(Event(EventType.FEED_STATUS, self._status))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._log_in_again())
            tasks.create_task(self._renew_in_time())
            tasks.create_task(self._reading())
            tasks.create_task(self._reading_side_books())
            if self._push:
                tasks.create_task(self._listening())

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
        return due and self.adapter.login_url() is None

    async def _renew_once(self) -> None:
        session = await self._around.renew(self.account)
        if session is not None:
            self.log_in(session)

    def _mark_logged_in(self) -> None:
        self._logged_in.set()
        self._logged_out.clear()

    async def _reading(self) -> None:
        while True:
            await self._logged_in.wait()
            await self._until_due()
            if self._logged_in.is_set():
                await self._airlock("read", self._read())
                self.tick()

    async def _until_due(self) -> None:
        while True:
            self._wake.clear()
            due = self._next_read()
            if due is not None and due <= _now():
                break
            try:
                async with asyncio.timeout_at(due):
                    await self._wake.wait()
            except TimeoutError:
                continue
        while self._requests and self._requests[0] <= _now():
            heapq.heappop(self._requests)

    def _next_read(self) -> float | None:
        interval = recovery.read_interval(
            self._status.freshness,
            open_orders=self._around.held.open_orders(self.account),
            market_open=self._around.market_open(),
        )
        due = []
        if self._requests:
            due.append(self._requests[0])
        if self._last_try is None:
            due.append(_now())
        elif interval is not None:
            due.append((self._last_try or 0.0) + interval)
        return max(min(due), self._not_before) if due else None

    async def _read(self) -> None:
        started = self._last_try = _now()
        self.counters.reads += 1
        asked_ns = self._around.clock.time_ns()
        answers = self._answer_due
        if answers is not None:
            self._hint_read_at = started
        fills = await self.poller.read_orders()
        if answers is not None:
            if self._answer_due == answers <= started:
                self._answer_due = None
            read = BookRead(account=self.account, asked_ns=asked_ns)
            self._around.publish(Event(EventType.BOOK_READ, read))
        for order_id in sorted(self._histories):
            await self.poller.read_history(order_id)
            self._histories.discard(order_id)
        self._read_done(started)
        if fills or not self._side_books_read:
            self._side_books_due.set()

    def _read_done(self, started: float) -> None:
        self._read_at, self._read_wall = _now(), self._around.clock.now()
        self._failing_since = None
        self._details.pop(Freshness.STALE, None)
        if self._delivering_since is not None and started >= self._delivering_since:
            self._reconciled = True

    async def _reading_side_books(self) -> None:
        """Trades and positions follow the orders; they never hold the order book up."""
        while True:
            await self._side_books_due.wait()
            self._side_books_due.clear()
            await self._logged_in.wait()
            await self._airlock("trades", self.poller.read_trades())
            await self._airlock("positions", self.poller.read_positions())
            self._side_books_read = True

    async def _listening(self) -> None:
        attempt = 0
        while True:
            await self._logged_in.wait()
            if not self._streams:
                self._allowed.clear()
                await self._allowed.wait()
                continue
            await self._around.connects.take()
            self._next_try = None
            began = _now()
            await self._airlock("stream", self.adapter.listen())
            healthy = self._reconciled and _now() - began >= recovery.HEALTHY_AFTER
            self.adapter.listening = False
            attempt = 1 if healthy else attempt + 1
            await self._back_off(attempt)

    async def _back_off(self, attempt: int) -> None:
        if not self._logged_in.is_set() or not self._streams:
            return
        delay = recovery.reconnect_delay(
            attempt, chance=self._around.chance(), market_open=self._around.market_open()
        )
        delay = max(delay, self._stream_not_before - _now())
        self.counters.reconnects += 1
        self.tick()
        await asyncio.sleep(delay)

    def _on_listening(self, delivers: bool) -> None:
        if self._delivering_since is not None:
            self._delivered_for += _now() - self._delivering_since
        self._delivering_since = _now() if delivers else None
        if delivers:
            self._details.pop(Freshness.DEGRADED, None)
        self._reconciled = False
        self.request_read()
        self.tick()

    def _on_violation(self, error: ProtocolViolationError) -> None:
        """The stream left a message out: what it would have told is in the book."""
        self.counters.violations += 1
        _log.warning("stream message left out", account=self.account, error=str(error))
        self._keep(error)
        self.request_read()

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

    async def _airlock(self, what: str, work: Awaitable[None]) -> None:
        """Run a piece of the adapter's work; what it raises is classified, counted and named, never lost."""
        try:
            await work
        except SessionExpiredError as error:
            self._expire(str(error))
        except PermissionRefusedError as error:
            self._failed(what, error)
            if what == "stream":
                self._streams = False
        except ProtocolViolationError as error:
            self.counters.violations += 1
            self._keep(error)
            self._failed(what, error)
        except BrokerUnreachableError as error:
            self._failed(what, error)
            wait = _now() + (error.retry_after or 0.0)
            if what == "stream":
                self._stream_not_before = wait
            else:
                self._not_before = max(self._not_before, wait)
        except BrokerError as error:
            self._failed(what, error)
        except Exception as error:  # noqa: BLE001 - the airlock: one account's adapter must not harm another's
            name = type(error).__name__
            self.counters.faults[name] = self.counters.faults.get(name, 0) + 1
            _log.exception("adapter fault", account=self.account, broker=self.adapter.name, what=what)
            self._failed(what, error)
        self.tick()

    def _failed(self, what: str, error: Exception) -> None:
        self._details[_EXPLAINS[what]] = str(error)
        if what == "read":
            self.counters.failed_reads += 1
            self._failing_since = self._failing_since or _now()
        _log.warning("feed trouble", account=self.account, what=what, error=str(error))

    def _expire(self, detail: str) -> None:
        self.adapter.session = None
        self._logged_in.clear()
        self._logged_out.set()
        self._details[Freshness.AUTH_REQUIRED] = detail
        _log.warning("broker session ended", account=self.account, detail=detail)

    def _facts(self) -> FeedFacts:
        now = _now()
        return FeedFacts(
            push=self._push,
            logged_in=self._logged_in.is_set(),
            streams=self._streams,
            delivering=self._delivering_since is not None,
            reconciled=self._reconciled,
            ever_read=self._read_at is not None,
            read_age=now - self._read_at if self._read_at is not None else 0.0,
            failing_for=now - self._failing_since if self._failing_since is not None else 0.0,
            open_orders=self._around.held.open_orders(self.account),
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
