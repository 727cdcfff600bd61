"""The library other programs use to follow orders and to place them: resumes after a break, misses nothing.

    for event in OrderStream("http://127.0.0.1:5080", apikey="…"):
        if event.order:
            print(event.order.orderid, event.order.order_status)

The same stream works as an async iterator (`async for event in OrderStream(…)`) and with callbacks (`on_order`,
then `run`). It needs the values and the errors of this package, `python-socketio` and `httpx2`, nothing of the
service.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, Self

import engineio
import httpx2
import socketio
from msgspec import Struct

from orderwire.decoding import convert
from orderwire.errors import OrderwireError

Kind = Literal["snapshot", "order", "trade", "position", "feed"]

_KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "snapshot": "snapshot",
        "order_update": "order",
        "trade_update": "trade",
        "position_update": "position",
        "feed_status": "feed",
    }
)


_EVENT: Final = "2"
"""Type of a Socket.IO packet that carries an event."""


class StreamRefusedError(OrderwireError):
    """The service does not let this API key follow orders."""


class RequestRefusedError(OrderwireError):
    """The service or the broker refused; the message is theirs."""

    def __init__(self, message: str, *, code: int, problems: Mapping[str, str], submission: str = "") -> None:
        """`problems`: what is wrong with each field. `submission`: id of the order that was to be placed."""
        self.code = code
        self.problems = problems
        self.submission = submission
        super().__init__(message)


class InDoubtError(RequestRefusedError):
    """Nobody knows whether the broker has the order: look at its line before placing it again."""


class Order(Struct, frozen=True, kw_only=True):
    """One order, in OpenAlgo's words; what else is known of it is in the event's `fields`."""

    account: str
    broker: str
    row: str
    """Stable key of the order: also before it has an order id."""
    orderid: str
    submission: str
    symbol: str
    exchange: str
    action: str
    quantity: int
    price: float
    trigger_price: float
    pricetype: str
    product: str
    order_status: str
    """`open`, `trigger pending`, `complete`, `rejected` or `cancelled`."""
    status: str
    """The finer state: PENDING_NEW, PARTIALLY_FILLED …"""
    filled_quantity: int
    pending_quantity: int
    average_price: float
    rejection_reason: str
    pending_modify: bool = False
    pending_cancel: bool = False
    first_seen: int = 0
    """Milliseconds since the epoch."""

    @property
    def live(self) -> bool:
        """Whether something can still happen to it."""
        return self.order_status in {"open", "trigger pending"}


class Trade(Struct, frozen=True, kw_only=True):
    """One execution."""

    account: str
    orderid: str
    tradeid: str
    symbol: str
    exchange: str
    action: str
    product: str
    quantity: int
    price: float
    traded_at: int


class Position(Struct, frozen=True, kw_only=True):
    """One net position."""

    account: str
    symbol: str
    exchange: str
    product: str
    quantity: int
    average_price: float
    last_price: float
    pnl: float


class Feed(Struct, frozen=True, kw_only=True):
    """How fresh an account is."""

    account: str
    freshness: str
    since: int
    detail: str
    read_at: int
    connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent:
    """One thing the service said; `fields` is the payload of docs/decisions/0006-pages.md."""

    kind: Kind
    account: str
    fields: Mapping[str, Any]

    @property
    def order(self) -> Order | None:
        """The order it is about, None when it is about something else."""
        return convert(self.fields, Order) if self.kind == "order" else None

    @property
    def trade(self) -> Trade | None:
        """The execution it is about."""
        return convert(self.fields, Trade) if self.kind == "trade" else None

    @property
    def position(self) -> Position | None:
        """The position it is about."""
        return convert(self.fields, Position) if self.kind == "position" else None

    @property
    def feed(self) -> Feed | None:
        """How fresh the account is now."""
        return convert(self.fields, Feed) if self.kind == "feed" else None

    @property
    def orders(self) -> list[Order]:
        """Every order it brings: all of the account with a snapshot, the one that changed with an order."""
        if self.kind == "snapshot":
            return convert(self.fields["orders"], list[Order])
        return [self.order] if self.order is not None else []


Cursors = Mapping[str, tuple[str, int]]
"""How far an account's log is known: its epoch and sequence."""

Callback = Callable[[StreamEvent], Any]


class _InOrder(engineio.Client):  # type: ignore[misc]  # the library ships no types
    """Handles events in the order they came: the library starts a thread for each message, and those overtake.

    Only events are handled where they are read: what ends a connection has to join that thread. A connection that broke
    is closed: the library forgets it, and leaves its socket to the garbage collector.
    """

    def _trigger_event(self, event: str, *args: Any, run_async: bool = False, **more: Any) -> Any:
        in_order = event == "message" and str(args[0]).startswith(_EVENT)
        return super()._trigger_event(event, *args, run_async=run_async and not in_order, **more)

    def _reset(self) -> None:
        super()._reset()
        if self.ws is not None:
            self.ws.shutdown()


_GREETED_WITHIN = 20.0
"""Seconds a service may take to let a stream in; a browser's client waits as long."""


class _Client(socketio.Client):  # type: ignore[misc]  # the library ships no types
    def _engineio_client_class(self) -> type[engineio.Client]:
        return _InOrder

    def connect(self, url: str, **given: Any) -> None:
        """Connect, or connect again, with patience for a busy service.

        The library gives up after a second and comes back, and so do all others: a service that is slow because many
        come at once would never get rid of them.
        """
        super().connect(url, wait_timeout=_GREETED_WITHIN, **given)


class OrderStream:
    """Follows the orders of an API key's accounts. Iterate it, `async for` it, or `run` it; one consumer.

    Begins with one `snapshot` per account, or with what came after the `cursors` it is given. After a break it
    resumes from what it has seen: either every change that was missed comes, in order, or a new snapshot. The same
    change never comes twice. An order that moved several times while this program was slow may come once, as it is
    now.
    """

    def __init__(self, url: str, *, apikey: str, cursors: Cursors = MappingProxyType({})) -> None:
        """`cursors`: `cursors` of an earlier stream, to go on from there."""
        self._url = url
        self._apikey = apikey
        self._events: queue.Queue[StreamEvent | OrderwireError | None] = queue.Queue()
        self._put: Callable[[StreamEvent | OrderwireError | None], Any] = self._events.put
        self._cursors = dict(cursors)
        self._refusal: StreamRefusedError | None = None
        self._asking = False
        self._callbacks: list[tuple[Kind | None, Callback]] = []
        self._client = _Client(reconnection_delay=0.2, reconnection_delay_max=5)
        self._client.on("connect", self._connected)
        self._client.on("connect_error", self._refused)
        for name in _KINDS:
            self._client.on(name, self._taker(name))

    # --- consuming ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[StreamEvent]:
        with self:
            while (event := self.next()) is not None:
                yield event

    async def __aiter__(self) -> AsyncIterator[StreamEvent]:
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[StreamEvent | OrderwireError | None] = asyncio.Queue()
        self._put = lambda event: loop.call_soon_threadsafe(events.put_nowait, event)
        await asyncio.to_thread(self.connect)
        try:
            while (event := await events.get()) is not None:
                yield _or_raise(event)
        finally:
            self._put = self._events.put
            await asyncio.to_thread(self.close)

    def on(self, callback: Callback, kind: Kind | None = None) -> None:
        """Have `run` call this for every event, or those of one kind; in the order of registering."""
        self._callbacks.append((kind, callback))

    def on_order(self, callback: Callable[[Order], Any]) -> None:
        """Have `run` call this with every order: those of a snapshot, then each that changes."""

        def tell(event: StreamEvent) -> None:
            for order in event.orders:
                callback(order)

        self.on(tell)

    def run(self) -> None:
        """Connect and call the callbacks in this thread until `close`; what one raises ends it."""
        for event in self:
            for kind, callback in self._callbacks:
                if kind in {None, event.kind}:
                    callback(event)

    def connect(self) -> None:
        """Connect, and keep reconnecting from then on. Raises StreamRefusedError, OrderwireError."""
        try:
            self._client.connect(
                self._url, auth={"apikey": self._apikey}, transports=["websocket"], retry=False
            )
        except socketio.exceptions.ConnectionError as error:
            if self._refusal is not None:
                raise self._refusal from error
            raise OrderwireError(f"{self._url} does not answer: {error}") from error

    def next(self, timeout: float | None = None) -> StreamEvent | None:
        """Return the next event, or None after `timeout` seconds without one, or once closed."""
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        return None if event is None else _or_raise(event)

    @property
    def cursors(self) -> dict[str, tuple[str, int]]:
        """How far each account's log was taken from the wire; keep it with what you made of it, to resume."""
        return dict(self._cursors)

    def close(self) -> None:
        """Disconnect; a waiting `next` returns None, an iteration ends."""
        self._client.disconnect()
        self._put(None)

    # --- from the service, on the library's threads ---------------------------------------------------

    def _connected(self) -> None:
        self._asking = False
        self._follow()

    def _follow(self) -> None:
        """Say how far this is; what was missed comes, or a snapshot."""
        if self._asking or "/" not in self._client.namespaces:  # `connected` is not yet true when we are told
            return
        self._asking = True
        cursors = {
            account: {"epoch": epoch, "sequence": sequence}
            for account, (epoch, sequence) in self._cursors.items()
        }
        self._client.emit("follow", {"cursors": cursors}, callback=self._followed)

    def _followed(self, *_: Any) -> None:
        self._asking = False

    def _refused(self, said: Any = None) -> None:
        if "login" in str(said):
            self._refusal = StreamRefusedError()
            self._put(self._refusal)

    def _taker(self, name: str) -> Any:
        def take(fields: Mapping[str, Any]) -> dict[str, Any]:
            if self._is_new(name, fields):
                self._put(StreamEvent(kind=_KINDS[name], account=fields["account"], fields=fields))
            return {}

        return take

    def _is_new(self, name: str, fields: Mapping[str, Any]) -> bool:
        """Move the account's cursor; a change that came before is not told again, a gap is asked about."""
        if name == "feed_status":
            return True
        account, epoch, sequence = fields["account"], fields["epoch"], fields["sequence"]
        known = self._cursors.get(account)
        if name != "snapshot":
            if known is None or known[0] != epoch or fields["previous"] > known[1]:
                self._follow()
                return False
            if sequence <= known[1]:
                return False
        self._cursors[account] = (epoch, sequence)
        return True


def _or_raise(event: StreamEvent | OrderwireError) -> StreamEvent:
    if isinstance(event, OrderwireError):
        raise event
    return event


class Orders:
    """Places, changes and asks, over REST. Any thread; blocks until the service answered."""

    def __init__(self, url: str, *, apikey: str, account: str = "", timeout: float = 30.0) -> None:
        """`account`: which of the key's accounts; not needed when there is one."""
        self._apikey = apikey
        self._account = account
        self._client = httpx2.Client(base_url=f"{url.rstrip('/')}/api/v1/", timeout=timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def place(self, *, idempotency_key: str = "", **order: Any) -> tuple[str, str]:
        """Place one order; returns its order id and its submission, which is its `row` in the stream.

        Fields are OpenAlgo's: symbol, exchange, action, quantity, pricetype, product, price, trigger_price … With
        an idempotency key a second call returns the first one's order. Raises InDoubtError, RequestRefusedError.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        placed = self.call("placeorder", headers=headers, **order)
        return placed["orderid"], placed["submission"]

    def modify(self, orderid: str, **terms: Any) -> None:
        """Ask for new terms, all of them: quantity, pricetype, product, price, trigger_price."""
        self.call("modifyorder", orderid=orderid, **terms)

    def cancel(self, orderid: str) -> None:
        """Ask for the order's cancellation."""
        self.call("cancelorder", orderid=orderid)

    def book(self) -> list[Order]:
        """Return the orders of the session day."""
        return convert(self.call("orderbook")["data"]["orders"], list[Order])

    def call(self, name: str, *, headers: Mapping[str, str] = MappingProxyType({}), **fields: Any) -> Any:
        """Make one call of the REST interface and return its answer. Raises OrderwireError, RequestRefusedError."""
        body = {"apikey": self._apikey, "strategy": "orderwire", "account": self._account, **fields}
        try:
            reply = self._client.post(name, json=body, headers=dict(headers))
            answer = reply.json()
        except httpx2.HTTPError as error:
            raise OrderwireError(f"{self._client.base_url} does not answer: {error}") from error
        except ValueError as error:
            raise OrderwireError(
                f"{self._client.base_url} is no orderwire: it answers {reply.status_code}."
            ) from error
        if reply.is_success:
            return answer
        kind = InDoubtError if answer.get("state") == "UNKNOWN" else RequestRefusedError
        raise kind(
            answer["message"],
            code=reply.status_code,
            problems=answer.get("problems") or {},
            submission=answer.get("submission") or "",
        )
