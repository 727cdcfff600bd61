from __future__ import annotations

import asyncio
from datetime import date
from decimal import Decimal

from msgspec.structs import replace

from orderwire.core.orders import AccountId, Channel, OrderId, Position, Trade
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


def test_what_the_books_hold_no_more_is_not_kept():
    """A service runs for months; each day brings new executions, and contracts that were not there before."""
    books = Books()
    poller = BookPoller(books, held=None)

    for day in range(50):
        books.trades = [replace(TRADE, trade_id=f"{day}-{number}") for number in range(20)]
        books.held = [replace(POSITION, symbol=f"INFY{day}FUT")]
        assert len(books.read(poller)) == 21

    assert (len(poller._trades), len(poller._positions)) == (20, 1)
