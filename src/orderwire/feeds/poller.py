"""Reads an account's books and publishes what differs from what we hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from orderwire.brokers.adapter import BrokerAdapter
from orderwire.core.books import odd_rows
from orderwire.core.lifecycle import OrderView
from orderwire.core.orders import AccountId, OrderId, OrderUpdate, Position, Trade
from orderwire.errors import ProtocolViolationError

ORDERS: Final = "order book"
"""The book without which an account's page is not complete."""

_PATIENT: Final = 5
"""Readings in vain of a trade book that has less than its order book; it may never have more."""

_IN_A_TURN: Final = 500
"""Executions gone through before the other feeds have a turn: a busy account has tens of thousands on a day."""


class HeldOrders(Protocol):
    """What we hold of an account's orders; in memory, any thread."""

    def current(self, account: AccountId, order_id: OrderId) -> OrderView | None:
        """Return what the page shows of the order, or None when it is not known."""
        ...

    def open_orders(self, account: AccountId) -> int:
        """Count the account's orders to which something can still happen, submissions in doubt included."""
        ...


class BookPoller:
    """Reads one account's books through its adapter, on the feed loop; errors of the adapter pass through."""

    def __init__(self, adapter: BrokerAdapter, *, held: HeldOrders) -> None:
        self._adapter = adapter
        self._held = held
        self._orders: dict[OrderId, OrderUpdate] = {}
        self._executed: dict[OrderId, dict[str, int]] = {}
        """By order, the quantity of each execution that was published, by its number.

        Not by exchange too: an order has one, which is spelt otherwise before the day's instruments are known.
        """
        self._positions: dict[tuple[str, str, str], Position] = {}
        self.rows: Sequence[OrderUpdate] = ()
        """The book as it was last read."""
        self.odd: dict[str, tuple[ProtocolViolationError, ...]] = {}
        """What could not be read of each book when it was last read, row by row."""
        self.lacks_trades = True
        """Whether the order book told of executions that neither the stream nor the trade book did, so far."""
        self.trades_lag = False
        """Whether the trade book, when it was last read, had less than the order book; not for ever."""
        self._in_vain = 0
        """Readings of the trade book in a row that brought nothing new."""

    async def read_orders(self) -> bool:
        """Read the order book, publish what differs; True when an execution is new, so positions are due."""
        self.rows = rows = await self._adapter.order_book()
        self.odd[ORDERS] = odd_rows(rows)
        fills = False
        for row in rows:
            before = self._orders.get(row.order_id)
            if row.filled_quantity > (before.filled_quantity if before else 0):
                fills, self._in_vain = True, 0
                self.lacks_trades |= self._lacks(row)
            self._orders[row.order_id] = row
            if before is None or not _same_row(before, row) or not self._settled(row):
                self._adapter.on_order(row)
        self._forget_all_but({row.order_id for row in rows})
        return fills

    async def read_history(self, order_id: OrderId) -> None:
        """Read one order's history and publish all of it: the position in it breaks a tie."""
        rows = await self._adapter.order_history(order_id)
        self.odd["order history"] = odd_rows(rows)
        for row in rows:
            self._adapter.on_order(row)

    def heard(self, trade: Trade) -> None:
        """Take note of an execution that the stream told: the trade book need not be read for it."""
        self._take(trade)

    async def read_trades(self) -> None:
        """Read the trade book and publish the executions not published before.

        It may lag behind the order book: it is due again as long as something is missing, a few times.
        """
        self.trades_lag = False
        trades = await self._adapter.trade_book()
        self.odd["trade book"] = odd_rows(trades)
        self._in_vain += 1
        for number, trade in enumerate(trades, 1):
            if self._take(trade):
                self._in_vain = 0
                self._adapter.on_trade(trade)
            if number % _IN_A_TURN == 0:
                await asyncio.sleep(0)
        self._forget_executions(trades)
        self.lacks_trades = self.trades_lag = self._in_vain < _PATIENT and any(map(self._lacks, self.rows))

    def _lacks(self, row: OrderUpdate) -> bool:
        return row.filled_quantity > sum(self._executed.get(row.order_id, {}).values())

    def _take(self, trade: Trade) -> bool:
        """Note an execution; False for one that was noted before."""
        known = self._executed.setdefault(trade.order_id, {})
        fresh = trade.trade_id not in known
        known[trade.trade_id] = trade.quantity
        return fresh

    async def read_positions(self) -> None:
        """Read the net positions and publish those that moved."""
        rows = await self._adapter.positions()
        self.odd["positions"] = odd_rows(rows)
        positions = {_position_key(position): position for position in rows}
        for key, position in positions.items():
            if _moved(self._positions.get(key), position):
                self._adapter.on_position(position)
        self._positions = positions

    def _settled(self, row: OrderUpdate) -> bool:
        """Whether what we hold agrees with the row, so that publishing it again would tell nothing."""
        held = self._held.current(row.account, row.order_id)
        if held is None:
            return False
        agrees = (held.status, held.filled_quantity, held.quantity, held.price, held.trigger_price) == (
            row.status,
            row.filled_quantity,
            row.quantity,
            row.price,
            row.trigger_price,
        )
        overlaid = held.pending_modify or held.pending_cancel or held.conflict or held.checking
        return agrees and not overlaid

    def _forget_executions(self, trades: Sequence[Trade]) -> None:
        """Of an order that is not in the order book (an earlier day's), keep what the trade book still has."""
        today = {order_id: known for order_id, known in self._executed.items() if order_id in self._orders}
        self._executed = today
        for trade in trades:
            if trade.order_id not in self._orders:
                self._take(trade)

    def _forget_all_but(self, present: set[OrderId]) -> None:
        for gone in self._orders.keys() - present:
            del self._orders[gone]
            self._executed.pop(gone, None)


def _same_row(before: OrderUpdate, row: OrderUpdate) -> bool:
    return _content(before) == _content(row)


def _content(row: OrderUpdate) -> tuple[object, ...]:
    return (
        row.raw_status,
        row.filled_quantity,
        row.quantity,
        row.price,
        row.trigger_price,
        row.order_type,
        row.average_price,
        row.broker_time,
        row.reason,
        row.exchange_order_id,
    )


def _position_key(position: Position) -> tuple[str, str, str]:
    return (position.exchange, position.symbol, position.product)


def _moved(before: Position | None, now: Position) -> bool:
    return before is None or _standing(before) != _standing(now)


def _standing(position: Position) -> tuple[object, ...]:
    """What makes a position worth telling again; the session day is part of it, a page shows only today's."""
    return (position.trading_date, position.quantity, position.buy_quantity, position.sell_quantity)
