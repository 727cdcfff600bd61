"""The log of what was told: each account's changes under gap-free numbers, to be replayed or taken as a snapshot."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, delete, func, select, update

from orderwire.core.lifecycle import OrderChange, OrderView, Submission, submission_view
from orderwire.core.orders import AccountId, Position, Trade, session_date
from orderwire.store import schema
from orderwire.store.database import Database
from orderwire.store.encoding import loads
from orderwire.store.statements import Statements, build


def new_epoch() -> str:
    """Return a name for a change log that no other log has."""
    return secrets.token_hex(6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything of one account's page as of `sequence`: live orders, and what the session day brought."""

    account: AccountId
    epoch: str
    sequence: int
    orders: list[OrderView]
    """First seen first; our submissions without an order among them."""
    trades: list[Trade]
    positions: list[Position]


@dataclass(slots=True)
class Ledger:
    """Where an account's log stands inside a transaction."""

    epoch: str
    sequence: int

    def next(self) -> int:
        """Spend one number."""
        self.sequence += 1
        return self.sequence


# --- writing, inside the caller's transaction ---------------------------------------------------------


def open_ledgers(
    connection: Connection,
    accounts: Iterable[str],
    *,
    statements: Statements | None = None,
    epoch: Callable[[], str] = new_epoch,
) -> dict[str, Ledger]:
    """Return the ledgers of `accounts`, made where missing and locked until the transaction ends."""
    wanted = sorted(set(accounts))
    found = _ledgers(connection, wanted)
    missing = [account for account in wanted if account not in found]
    if missing:
        insert = (statements or build(connection.dialect.name)).open_ledger
        rows = [{"account": name, "epoch": epoch(), "sequence": 0, "floor": 0} for name in missing]
        connection.execute(insert, rows)
        found |= _ledgers(connection, missing)
    return found


def advance(connection: Connection, ledgers: dict[str, Ledger], *, statements: Statements) -> None:
    """Write down how far the ledgers got."""
    rows = [{"of": account, "reached": ledger.sequence} for account, ledger in ledgers.items()]
    connection.execute(statements.advance_ledger, rows)


def _ledgers(connection: Connection, accounts: list[str]) -> dict[str, Ledger]:
    table = schema.ledgers
    wanted = select(table.c.account, table.c.epoch, table.c.sequence).where(table.c.account.in_(accounts))
    rows = connection.execute(wanted.order_by(table.c.account).with_for_update())
    return {row.account: Ledger(row.epoch, row.sequence) for row in rows}


def renew(connection: Connection, *, epoch: Callable[[], str] = new_epoch) -> int:
    """Begin every account's log anew (after a restore): no client's cursor is good any more. Return how many."""
    table = schema.ledgers
    accounts = connection.execute(select(table.c.account)).scalars().all()
    for account in accounts:
        begun = {"epoch": epoch(), "sequence": 0, "floor": 0}
        connection.execute(update(table).where(table.c.account == account).values(**begun))
    connection.execute(delete(schema.outbox))
    return len(accounts)


def compact(connection: Connection, account: str, *, before: date) -> int:
    """Forget the account's changes of session days before `before`; older cursors then get a snapshot.

    Returns how many went.
    """
    log, table = schema.outbox, schema.ledgers
    old = (log.c.account == account, log.c.trading_date < before.isoformat())
    last = connection.execute(select(func.max(log.c.sequence)).where(*old)).scalar()
    if last is None:
        return 0
    gone = connection.execute(delete(log).where(log.c.account == account, log.c.sequence <= last)).rowcount
    connection.execute(update(table).where(table.c.account == account).values(floor=last))
    return gone


# --- reading ------------------------------------------------------------------------------------------


def snapshot(database: Database, account: AccountId) -> Snapshot:
    """Return the account's page, all of it as of one moment. Any thread.

    An account that never changed has no epoch yet: its snapshot is empty, at sequence 0.
    """
    today = session_date(database.clock.now()).isoformat()
    with database.read() as connection:
        ledger = _ledger(connection, account)
        return Snapshot(
            account=account,
            epoch=ledger.epoch if ledger else "",
            sequence=ledger.sequence if ledger else 0,
            orders=_orders(connection, account, today),
            trades=_trades(connection, account, today),
            positions=_positions(connection, account, today),
        )


def head(database: Database, account: AccountId) -> tuple[str, int]:
    """Return the epoch and the newest sequence of the account's log; of none, "" and 0. Any thread."""
    with database.read() as connection:
        ledger = _ledger(connection, account)
    return (ledger.epoch, ledger.sequence) if ledger else ("", 0)


def changes_since(
    database: Database, account: AccountId, *, epoch: str, sequence: int, most: int
) -> list[OrderChange] | None:
    """Return the changes after a cursor, oldest first and without a gap; empty when there are none. Any thread.

    None means that the cursor cannot be continued (another epoch, compacted away, ahead of us, or more than
    `most` changes): take a snapshot.
    """
    log = schema.outbox
    with database.read() as connection:
        table = schema.ledgers
        ledger = connection.execute(select(table).where(table.c.account == account)).first()
        if ledger is None or ledger.epoch != epoch:
            return None
        if not ledger.floor <= sequence <= ledger.sequence or ledger.sequence - sequence > most:
            return None
        mine = (log.c.account == account, log.c.epoch == epoch, log.c.sequence > sequence)
        rows = connection.execute(select(log.c.change).where(*mine).order_by(log.c.sequence)).scalars()
        return [loads(text, OrderChange) for text in rows]


def _ledger(connection: Connection, account: AccountId) -> Ledger | None:
    table = schema.ledgers
    row = connection.execute(
        select(table.c.epoch, table.c.sequence).where(table.c.account == account)
    ).first()
    return Ledger(row.epoch, row.sequence) if row else None


def _orders(connection: Connection, account: AccountId, today: str) -> list[OrderView]:
    """Two queries instead of one OR, so that each has its index."""
    table = schema.orders
    of_today = select(table.c.view).where(table.c.account == account, table.c.last_day >= today)
    from_before = select(table.c.view).where(
        table.c.account == account, table.c.live == 1, table.c.last_day < today
    )
    rows = [*connection.execute(of_today).scalars(), *connection.execute(from_before).scalars()]
    views = [loads(text, OrderView) for text in rows]
    return sorted(views + _lines(connection, account, today), key=_first_seen)


def _first_seen(view: OrderView) -> tuple[float, str]:
    return (view.first_seen.timestamp() if view.first_seen else 0.0, view.row)


def _lines(connection: Connection, account: AccountId, today: str) -> list[OrderView]:
    """Return the lines of submissions for which the broker has no order."""
    table = schema.submissions
    mine = (table.c.account == account, table.c.order_id == "")
    in_doubt = table.c.state.in_(("SENDING", "UNKNOWN"))
    found = select(table.c.body, table.c.trading_date).where(
        *mine, (table.c.trading_date >= today) | in_doubt
    )
    return [
        submission_view(loads(body, Submission), date.fromisoformat(day))
        for body, day in connection.execute(found)
    ]


def _trades(connection: Connection, account: AccountId, today: str) -> list[Trade]:
    table = schema.trades
    mine = (table.c.account == account, table.c.trading_date >= today)
    rows = connection.execute(select(table.c.trade).where(*mine).order_by(table.c.sequence)).scalars()
    return [loads(text, Trade) for text in rows]


def _positions(connection: Connection, account: AccountId, today: str) -> list[Position]:
    table = schema.positions
    mine = (table.c.account == account, table.c.trading_date >= today)
    ordered = (
        select(table.c.position).where(*mine).order_by(table.c.exchange, table.c.symbol, table.c.product)
    )
    return [loads(text, Position) for text in connection.execute(ordered).scalars()]
