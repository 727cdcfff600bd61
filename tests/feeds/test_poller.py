from __future__ import annotations

import asyncio
from datetime import date
from decimal import Decimal

import pytest
from msgspec.structs import replace

from orderwire.core.orders import AccountId, Channel, OrderId, OrderStatus, OrderUpdate, Position, Trade
from orderwire.errors import BrokerUnreachableError
from orderwire.feeds.poller import BookPoller

TODAY = date(2026, 8, 17)
TRADE = Trade(
    account=AccountId("acc"),
    broker="fake",
    order_id=OrderId("1"),
    trade_id="T1",
    channel=Channel.REST,
    trading_date=TODAY,
    symbol="INFY",
    exchange="NSE",
    side="BUY",
    product="CNC",
    quantity=10,
    price=Decimal(1500),
)
POSITION = Position(
    account=AccountId("acc"),
    broker="fake",
    channel=Channel.REST,
    trading_date=TODAY,
    symbol="INFY",
    exchange="NSE",
    product="CNC",
    quantity=10,
)


class Books:
    """The side books of a broker as the test writes them, and what was published of them."""

    def __init__(self):
        self.trades, self.held, self.told = [], [], []
        self.on_trade = self.on_position = self.told.append

    async def trade_book(self):
        return self.trades

    async def positions(self):
        return self.held

    def read(self, poller):
        asyncio.run(poller.read_trades())
        asyncio.run(poller.read_positions())
        told, self.told[:] = list(self.told), []
        return told


def test_an_execution_and_a_position_are_published_once():
    books = Books()
    poller = BookPoller(books, held=None)
    books.trades, books.held = [TRADE], [POSITION]

    assert books.read(poller) == [TRADE, POSITION]
    assert books.read(poller) == []
    moved = replace(POSITION, quantity=4, sell_quantity=6)
    books.trades, books.held = [TRADE, replace(TRADE, trade_id="T2")], [moved]
    assert books.read(poller) == [replace(TRADE, trade_id="T2"), moved]


def test_other_feeds_have_their_turn_while_a_long_trade_book_is_gone_through():
    books, told_before = Books(), []
    books.trades = [replace(TRADE, trade_id=f"T{number}") for number in range(5_000)]
    poller = BookPoller(books, held=None)

    async def another_feed():
        while len(books.told) < 5_000:
            told_before.append(len(books.told))
            await asyncio.sleep(0)

    async def both():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(poller.read_trades())
            tasks.create_task(another_feed())

    asyncio.run(both())

    assert len(told_before) >= 9


def test_what_the_books_hold_no_more_is_not_kept():
    """A service runs for months; each day brings new executions, and contracts that were not there before."""
    books = Books()
    poller = BookPoller(books, held=None)

    for day in range(50):
        books.trades = [replace(TRADE, trade_id=f"{day}-{number}") for number in range(20)]
        books.held = [replace(POSITION, symbol=f"INFY{day}FUT")]
        assert len(books.read(poller)) == 21

    assert (len(poller._executed), len(poller._positions)) == (1, 1)
    assert len(poller._executed[TRADE.order_id]) == 20


class OrderBookToo(Books):
    """An order book of one order besides."""

    def __init__(self):
        super().__init__()
        self.filled = 0
        self.asked = 0
        self.on_order = lambda _row: None

    async def order_book(self):
        return [
            OrderUpdate(
                account=AccountId("acc"), broker="fake", order_id=OrderId("1"), channel=Channel.REST,
                trading_date=TODAY, raw_status="OPEN", status=OrderStatus.OPEN, phase=8, filled_quantity=self.filled,
                symbol="INFY", exchange="NSE", side="BUY", order_type="MARKET", product="CNC", quantity=100,
            )
        ]  # fmt: skip

    async def trade_book(self):
        self.asked += 1
        return await super().trade_book()


class Unheld:
    """We hold nothing of any order."""

    def current(self, _account, _order_id):
        return None


def test_the_trade_book_is_due_only_for_executions_that_the_stream_did_not_tell():
    books = OrderBookToo()
    poller = BookPoller(books, held=Unheld())
    asyncio.run(poller.read_orders())
    assert poller.lacks_trades  # nothing was read yet
    asyncio.run(poller.read_trades())
    assert not poller.lacks_trades

    books.filled = 10
    poller.heard(TRADE)
    assert asyncio.run(poller.read_orders())
    assert not poller.lacks_trades

    books.filled = 25
    poller.heard(replace(TRADE, trade_id="T2"))  # of ten; five more the stream did not tell
    assert asyncio.run(poller.read_orders())
    assert poller.lacks_trades


def test_a_trade_book_that_lags_behind_the_order_book_is_read_again_a_few_times():
    books = OrderBookToo()
    poller = BookPoller(books, held=Unheld())
    asyncio.run(poller.read_trades())
    assert not poller.trades_lag

    books.filled = 10
    asyncio.run(poller.read_orders())
    told = []
    for _ in range(6):
        asyncio.run(poller.read_trades())
        told.append((poller.trades_lag, poller.lacks_trades))
    assert told == [(True, True)] * 4 + [(False, False)] * 2

    books.filled, books.trades = 20, [TRADE]
    asyncio.run(poller.read_orders())
    asyncio.run(poller.read_trades())
    assert poller.trades_lag
    books.trades = [TRADE, replace(TRADE, trade_id="T2")]
    asyncio.run(poller.read_trades())
    assert not poller.trades_lag
    assert books.told == books.trades


def test_what_the_stream_told_is_not_published_again_from_the_trade_book():
    books = OrderBookToo()
    poller = BookPoller(books, held=Unheld())
    poller.heard(TRADE)
    books.trades = [TRADE, replace(TRADE, trade_id="T2")]
    asyncio.run(poller.read_trades())

    assert books.told == [replace(TRADE, trade_id="T2")]


def test_an_execution_is_one_however_its_exchange_is_spelt():
    """Told before the day's instruments were known, it would count twice, and hide one that is missing."""
    books = OrderBookToo()
    poller = BookPoller(books, held=Unheld())
    asyncio.run(poller.read_orders())
    poller.heard(replace(TRADE, exchange="NSECM", known_symbol=False))
    books.trades, books.filled = [TRADE], 20
    asyncio.run(poller.read_trades())
    asyncio.run(poller.read_orders())

    assert books.told == []
    assert poller.lacks_trades


def test_a_trade_book_that_could_not_be_read_is_still_due():
    books = OrderBookToo()
    poller = BookPoller(books, held=Unheld())
    books.trade_book = fails
    with pytest.raises(BrokerUnreachableError):
        asyncio.run(poller.read_trades())

    assert poller.lacks_trades


async def fails():
    raise BrokerUnreachableError("gone")


def test_executions_of_an_order_that_left_the_order_book_are_not_kept():
    books = OrderBookToo()
    poller = BookPoller(books, held=Unheld())
    asyncio.run(poller.read_orders())
    poller.heard(TRADE)

    async def empty():
        return []

    books.order_book = empty
    asyncio.run(poller.read_orders())

    assert not poller._executed
