"""What is known of orders, read from the database each time: for processes that do not hold the book."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

from msgspec.structs import replace
from sqlalchemy import Connection, func, select

from orderwire.core.lifecycle import OrderView
from orderwire.core.orders import AccountId, OrderId, session_date
from orderwire.store import inbox, schema
from orderwire.store.database import Database
from orderwire.store.encoding import loads

_ORDERS, _LINES = schema.orders.c, schema.submissions.c


class BookLook:
    """Answers what `OrderBook` answers, from what is committed. Any thread; raises StoreError."""

    held_back = stale_writes = 0
    blocked_seconds = 0.0

    def __init__(self, database: Database) -> None:
        self._database = database

    def current(self, account: AccountId, order_id: OrderId) -> OrderView | None:
        """Return what the page shows of an order; None for one that ended on an earlier session day."""
        with self._database.read() as connection:
            view = self._view(connection, account, order_id)
            hinted = view is not None and order_id in inbox.open_hints(connection, account)
        return replace(view, checking=True) if view is not None and hinted else view

    def checking(self, account: AccountId) -> list[OrderView]:
        """Return the orders that are being checked with the broker right now."""
        with self._database.read() as connection:
            hinted = inbox.open_hints(connection, account)
            views = [self._view(connection, account, order_id) for order_id in hinted]
        return [replace(view, checking=True) for view in views if view is not None]

    def hinted(self, accounts: Collection[AccountId]) -> set[tuple[AccountId, OrderId]]:
        """Return which orders of these accounts are being checked right now, all in one look."""
        table = schema.inbox.c
        asked = select(table.account, table.order_id).distinct()
        wanted = asked.where(table.account.in_(accounts), table.settled_ns.is_(None))
        with self._database.read() as connection:
            return {(AccountId(row.account), OrderId(row.order_id)) for row in connection.execute(wanted)}

    def open_orders(self, account: AccountId) -> int:
        """Count the orders to which something can still happen, submissions in doubt included."""
        today = self._today().isoformat()
        orders = select(func.count()).select_from(schema.orders)
        lines = select(func.count()).select_from(schema.submissions)
        live = orders.where(_ORDERS.account == account, _ORDERS.live == 1, _ORDERS.last_day >= today)
        undecided = lines.where(
            _LINES.account == account,
            _LINES.state.in_(("SENDING", "UNKNOWN")),
            _LINES.trading_date >= today,
        )
        with self._database.read() as connection:
            return sum(connection.execute(query).scalar() or 0 for query in (live, undecided))

    def forget(self, account: AccountId) -> None:
        """Do nothing: nothing is held."""

    def counts(self) -> dict[tuple[str, str], int]:
        """Return nothing: observations are counted where they are taken in."""
        return {}

    def _view(self, connection: Connection, account: AccountId, order_id: OrderId) -> OrderView | None:
        mine = (_ORDERS.account == account, _ORDERS.order_id == order_id)
        kept = (_ORDERS.live == 1) | (_ORDERS.last_day >= self._today().isoformat())
        newest = select(_ORDERS.view).where(*mine, kept).order_by(_ORDERS.trading_date.desc()).limit(1)
        text = connection.execute(newest).scalar()
        return loads(text, OrderView) if text is not None else None

    def _today(self) -> date:
        return session_date(self._database.clock.now())
