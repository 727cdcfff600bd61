"""A broker in the service's own process that trades as fast as the service takes it: every order's life, and the truth."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from msgspec.structs import replace

from orderwire.brokers.adapter import AccountProfile, AdapterTools, BrokerAdapter, BrokerSession
from orderwire.core.events import Event, EventType
from orderwire.core.instruments import Instrument
from orderwire.core.orders import (
    AccountId,
    Channel,
    Funds,
    Holding,
    ModifyRequest,
    OrderId,
    OrderRequest,
    OrderStatus,
    OrderUpdate,
    Position,
    Trade,
    session_date,
)
from orderwire.errors import BrokerUnreachableError, SessionExpiredError

BROKER = "soak"
OPENING = datetime(2026, 8, 17, 3, 45, tzinfo=UTC)
"""09:15 in India, a Monday: when the first virtual day begins."""

RAW = b'{"like":"a broker\'s own bytes",' + b'"padding":"' + b"x" * 700 + b'"}'
_SYMBOLS = ("INFY", "TCS", "RELIANCE", "HDFCBANK", "SBIN")
"""Traded as contracts of the day, so that what is kept by contract is new each day."""
_LIVE = 8
AHEAD = 2048
"""Messages of the stream that may wait in the engine."""

_PUT = ("PUT ORDER REQ RECEIVED", OrderStatus.PENDING_NEW, 0)
_OPEN_PENDING = ("OPEN PENDING", OrderStatus.PENDING_NEW, 2)
_OPEN = ("OPEN", OrderStatus.OPEN, 8)
_UPDATE = ("UPDATE", OrderStatus.OPEN, 8)
_COMPLETE = ("COMPLETE", OrderStatus.FILLED, 9)
_CANCELLED = ("CANCELLED", OrderStatus.CANCELLED, 9)
_REJECTED = ("REJECTED", OrderStatus.REJECTED, 9)


class DayClock:
    """The machine's time, set forward to virtual days: each begins at 09:15 in India."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self._begun = monotonic()
        self.opened = OPENING
        """When the present day began."""

    def now(self) -> datetime:
        return self.opened + timedelta(seconds=self.monotonic() - self._begun)

    def time_ns(self) -> int:
        return round(self.now().timestamp() * 1e9)

    def turn(self) -> None:
        """Go to the next morning."""
        self.opened, self._begun = self.opened + timedelta(days=1), self.monotonic()


class Weather:
    """What goes wrong on the stream, in shares of its messages."""

    lost, doubled, late = 0.005, 0.05, 0.02
    cut = 1 / 30_000
    """A stream breaks."""
    expired = 1 / 400_000
    """A session ends before its time."""


class Market:
    """Every account's orders at the broker, and what the broker says of them. On the feed loop, but for `settled`."""

    def __init__(self, accounts: Sequence[AccountId], *, clock: DayClock, seed: int) -> None:
        self.clock = clock
        self.books: dict[AccountId, dict[OrderId, OrderUpdate]] = {account: {} for account in accounts}
        self.adapters: dict[AccountId, MarketAdapter] = {}
        self.said = 0
        """Messages that happened; most of them went out on a stream, some twice."""
        self.cuts = 0
        self._live: dict[AccountId, list[OrderId]] = {account: [] for account in accounts}
        self._trades: dict[AccountId, list[Trade]] = {account: [] for account in accounts}
        self._late: dict[AccountId, OrderUpdate] = {}
        self._sent = self._taken = 0
        self._ahead = AHEAD
        self._number = 0
        self._chance = random.Random(seed)
        self._accounts = tuple(accounts)
        self._begin_the_day()

    def _begin_the_day(self) -> None:
        self._today = session_date(self.clock.now())
        self._contracts = tuple(f"{name}{self._today:%d%b%y}FUT".upper() for name in _SYMBOLS)

    # --- the day ---------------------------------------------------------------------------------------

    async def trade(
        self, share: Callable[[], float], *, tick: Callable[[], None], ticks: int, ahead: int = AHEAD
    ) -> None:
        """Let things happen until `share` of the day is 1, with `ticks` timer ticks.

        No faster than the engine takes it: at most `ahead` messages wait there.
        """
        self._ahead = ahead
        ticked = 0
        while (done := min(share(), 1.0)) < 1 or ticked < ticks:
            while ticked < round(done * ticks):
                ticked += 1
                tick()
            for _ in range(32):
                self._happen(self._chance.choice(self._accounts))
            await self._keep_pace()

    async def close(self) -> None:
        """End the day: what is late arrives, what is live is cancelled."""
        for account in self._accounts:
            for order_id in tuple(self._live[account]):
                self._say(account, self._stepped(self.books[account][order_id], _CANCELLED))
                await self._keep_pace()
            self._arrive_late(account)

    def turn(self) -> None:
        """Begin the next day with empty books."""
        self.clock.turn()
        self._begin_the_day()
        for account in self._accounts:
            self.books[account] = {}
            self._trades[account] = []
            self._live[account] = []

    def taken(self, event: Event) -> None:
        """Take note that the engine has delivered a message; the dispatcher's thread."""
        self._taken += event.data.channel is Channel.STREAM

    async def _keep_pace(self) -> None:
        await asyncio.sleep(0)
        while self._sent - self._taken > self._ahead:  # noqa: ASYNC110 - another thread counts
            await asyncio.sleep(0.002)  # the pace of asking

    # --- orders ----------------------------------------------------------------------------------------

    def place(self, account: AccountId, request: OrderRequest) -> OrderId:
        """Take an order in."""
        self._number += 1
        made = OrderUpdate(
            account=account, broker=BROKER, order_id=OrderId(f"2608{self._number:012}"), channel=Channel.STREAM,
            trading_date=self._today, raw_status=_PUT[0], status=_PUT[1], phase=_PUT[2], symbol=request.symbol,
            exchange=request.exchange, side=request.side, order_type=request.order_type, product=request.product,
            validity="DAY", quantity=request.quantity, price=request.price, tag=request.tag,
            broker_time=self._second(), raw=RAW,
        )  # fmt: skip
        self._live[account].append(made.order_id)
        self._say(account, made)
        return made.order_id

    def _happen(self, account: AccountId) -> None:
        live, chance = self._live[account], self._chance
        if len(live) < 2 or (len(live) < _LIVE and chance.random() < 0.15):
            request = OrderRequest(
                symbol=chance.choice(self._contracts), exchange="NSE", side=chance.choice(("BUY", "SELL")),
                quantity=chance.choice((4, 10, 40)), order_type="LIMIT", price=Decimal("1500.05"),
            )  # fmt: skip
            self.place(account, request)
        else:
            self._say(account, self._next(self.books[account][chance.choice(live)]))

    def _next(self, order: OrderUpdate) -> OrderUpdate:
        chance = self._chance.random()
        if order.raw_status == _PUT[0]:
            return self._stepped(order, _REJECTED if chance < 0.01 else _OPEN_PENDING)
        if order.raw_status == _OPEN_PENDING[0]:
            return self._stepped(order, _OPEN)
        if chance < 0.15:
            return self._stepped(order, _CANCELLED)
        rest = order.quantity - order.filled_quantity
        if chance < 0.6 or rest == 1:
            return self._stepped(order, _COMPLETE, fill=rest)
        return self._stepped(order, _UPDATE, fill=self._chance.randrange(1, rest))

    def _stepped(
        self, order: OrderUpdate, step: tuple[str, OrderStatus, int], *, fill: int = 0
    ) -> OrderUpdate:
        word, status, phase = step
        filled = order.filled_quantity + fill
        made = replace(
            order, raw_status=word, status=status, phase=phase, filled_quantity=filled,
            average_price=order.price if filled else Decimal(0), broker_time=self._second(),
            reason="margin" if status is OrderStatus.REJECTED else "",
        )  # fmt: skip
        if fill:
            self._trades[order.account].append(_trade(made, fill, number=len(self._trades[order.account])))
        if status.terminal:
            self._live[order.account].remove(order.order_id)
        return made

    def _second(self) -> datetime:
        return self.clock.now().replace(microsecond=0)

    # --- what is said ----------------------------------------------------------------------------------

    def _say(self, account: AccountId, update: OrderUpdate) -> None:
        """Write it into the book, and say it on the stream, as the weather lets it."""
        self.said += 1
        self.books[account][update.order_id] = update
        chance = self._chance.random()
        if chance < Weather.lost:
            return
        if chance < Weather.lost + Weather.late and account not in self._late:
            self._late[account] = update
            return
        self._send(account, update)
        if chance > 1 - Weather.doubled:
            self._send(account, update)
        self._arrive_late(account)
        self._storm(account)

    def _arrive_late(self, account: AccountId) -> None:
        late = self._late.pop(account, None)
        if late is not None:
            self._send(account, late)

    def _send(self, account: AccountId, update: OrderUpdate) -> None:
        adapter = self.adapters[account]
        if adapter.listening:
            self._sent += 1
            adapter.heard_at = self.clock.monotonic()
            adapter.on_order(replace(update, received_ns=self.clock.time_ns()))

    def _storm(self, account: AccountId) -> None:
        if self._chance.random() < Weather.cut:
            self.cuts += 1
            self.adapters[account].end(BrokerUnreachableError("the line is cut"))
        elif self._chance.random() < Weather.expired:
            self.cuts += 1
            self.adapters[account].end(SessionExpiredError("the session was taken"))

    # --- what is read ----------------------------------------------------------------------------------

    def book(self, account: AccountId) -> list[OrderUpdate]:
        """Answer a read of the order book."""
        at = self.clock.time_ns()
        return [replace(row, channel=Channel.REST, received_ns=at) for row in self.books[account].values()]

    def trades(self, account: AccountId) -> list[Trade]:
        """Answer a read of the trade book."""
        return list(self._trades[account])

    def positions(self, account: AccountId) -> Iterator[Position]:
        """Answer a read of the net positions."""
        bought, sold = Counter[str](), Counter[str]()
        for trade in self._trades[account]:
            (bought if trade.side == "BUY" else sold)[trade.symbol] += trade.quantity
        for symbol in sorted(bought.keys() | sold.keys()):
            yield Position(
                account=account, broker=BROKER, channel=Channel.REST, trading_date=self._today, symbol=symbol,
                exchange="NSE", product="MIS", quantity=bought[symbol] - sold[symbol],
                buy_quantity=bought[symbol], sell_quantity=sold[symbol], received_ns=self.clock.time_ns(),
            )  # fmt: skip

    def truth(self) -> dict[tuple[AccountId, OrderId], tuple[str, int]]:
        """Return the status and the filled quantity of each order of today."""
        return {
            (account, key): (str(row.status), row.filled_quantity)
            for account, book in self.books.items()
            for key, row in book.items()
        }


def _trade(order: OrderUpdate, quantity: int, *, number: int) -> Trade:
    return Trade(
        account=order.account, broker=BROKER, order_id=order.order_id, trade_id=f"T{number}", channel=Channel.REST,
        trading_date=order.trading_date, symbol=order.symbol, exchange=order.exchange, side=order.side,
        product=order.product, quantity=quantity, price=order.price, traded_at=order.broker_time,
    )  # fmt: skip


class MarketAdapter(BrokerAdapter):
    """Speaks with the market in this process: what it says goes the way every adapter's events go."""

    name = BROKER
    title = "Soak"
    has_stream = True
    market: Market

    def __init__(self, profile: AccountProfile, tools: AdapterTools) -> None:
        super().__init__(profile, tools)
        self.account = profile.account
        self._ended: asyncio.Future[None] | None = None
        self.market.adapters[self.account] = self

    async def listen(self) -> None:
        self._ended = asyncio.get_running_loop().create_future()
        self.heard_at = self.tools.clock.monotonic()
        self.listening = True
        await self._ended

    def end(self, error: Exception) -> None:
        """End the stream, if it runs."""
        self.listening = False
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)

    def broker_now(self) -> datetime:
        return self.tools.clock.now()

    async def login(self, grant: Mapping[str, str]) -> BrokerSession:
        return BrokerSession(user_id=self.account, secrets={"token": "t"})

    async def place_order(self, request: OrderRequest) -> OrderId:
        return self.market.place(self.account, request)

    async def modify_order(self, request: ModifyRequest, *, current: OrderUpdate | None = None) -> OrderId:
        return request.order_id

    async def cancel_order(self, order_id: OrderId, *, current: OrderUpdate | None = None) -> OrderId:
        return order_id

    async def order_book(self) -> Sequence[OrderUpdate]:
        return self.market.book(self.account)

    async def order_history(self, order_id: OrderId) -> Sequence[OrderUpdate]:
        row = self.market.books[self.account].get(order_id)
        return [replace(row, channel=Channel.HISTORY, history_index=0)] if row else []

    async def trade_book(self) -> Sequence[Trade]:
        return self.market.trades(self.account)

    async def positions(self) -> Sequence[Position]:
        return list(self.market.positions(self.account))

    async def holdings(self) -> Sequence[Holding]:
        return []

    async def funds(self) -> Funds:
        return Funds(account=self.account)

    async def instruments_of_the_day(self) -> Sequence[Instrument]:
        return [
            Instrument(
                broker=BROKER, exchange="NSE", symbol=symbol, broker_exchange="NSE", broker_symbol=symbol, token=token
            )
            for token, symbol in enumerate(_SYMBOLS, start=1)
        ]  # fmt: skip


def tick() -> Event:
    """Make a timer event, as the engine's timer does."""
    return Event(EventType.TIMER)
