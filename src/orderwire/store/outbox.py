"""The log of what was told: each account's changes under gap-free numbers, to be replayed or taken as a snapshot."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    Text,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    union_all,
    update,
)

from orderwire.core.lifecycle import OrderChange, OrderView, Submission, submission_view
from orderwire.core.orders import AccountId, Position, Trade, session_date
from orderwire.store import schema, shards
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


_LOCKED = (
    select(schema.ledgers.c.account, schema.ledgers.c.epoch, schema.ledgers.c.sequence)
    .where(schema.ledgers.c.account.in_(bindparam("accounts", expanding=True)))
    .order_by(schema.ledgers.c.account)
    .with_for_update()
)


def _ledgers(connection: Connection, accounts: list[str]) -> dict[str, Ledger]:
    rows = connection.execute(_LOCKED, {"accounts": accounts})
    return {row.account: Ledger(row.epoch, row.sequence) for row in rows}


def own(connection: Connection, account: str, owner: str) -> None:
    """Open the account's ledger where it is missing, and note whose it is."""
    open_ledgers(connection, [account])
    table = schema.ledgers
    connection.execute(update(table).where(table.c.account == account).values(owner=owner))


def owner_of(connection: Connection, account: str) -> str | None:
    """Return whose the account's ledger is; None when nobody's (it is being erased), or when there is none."""
    table = schema.ledgers
    return connection.execute(select(table.c.owner).where(table.c.account == account)).scalar()


def disown(connection: Connection, account: str) -> None:
    """Make the account's ledger nobody's, under a new epoch: no cursor is good for what is left of the log."""
    open_ledgers(connection, [account])
    table = schema.ledgers
    begun = {"epoch": new_epoch(), "sequence": 0, "floor": 0, "owner": None}
    connection.execute(update(table).where(table.c.account == account).values(**begun))


def renew(connection: Connection, *, epoch: Callable[[], str] = new_epoch) -> int:
    """Begin every account's log anew (after a restore): no client's cursor is good any more. Return how many."""
    table = schema.ledgers
    accounts = connection.execute(select(table.c.account)).scalars().all()
    for account in accounts:
        begun = {"epoch": epoch(), "sequence": 0, "floor": 0}
        connection.execute(update(table).where(table.c.account == account).values(**begun))
    connection.execute(delete(schema.outbox))
    shards.renew(connection)
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

_ACCOUNT: BindParameter[str] = bindparam("account")
_TODAY: BindParameter[str] = bindparam("today")
_SINCE: BindParameter[int] = bindparam("since")
_ORDERS, _LINES, _TRADES = schema.orders.c, schema.submissions.c, schema.trades.c
_POSITIONS, _LOG = schema.positions.c, schema.outbox.c

_NOWHERE: ColumnElement[int] = literal_column("0", BigInteger)
_NO_WORDS: ColumnElement[str] = literal_column("''", Text)


def _part(
    what: str,
    body: ColumnElement[str],
    *where: ColumnElement[bool],
    at: ColumnElement[int] = _NOWHERE,
    words: ColumnElement[str] = _NO_WORDS,
) -> Select[str, int, str, str]:
    """Select some of a page's rows in the form that all parts of it share."""
    return select(
        literal_column(f"'{what}'", Text).label("part"),
        at.label("at"),
        words.label("words"),
        body.label("body"),
    ).where(*where)


_PAGE = union_all(
    _part(
        "ledger", schema.ledgers.c.epoch, schema.ledgers.c.account == _ACCOUNT, at=schema.ledgers.c.sequence
    ),
    _part("order", _ORDERS.view, _ORDERS.account == _ACCOUNT, _ORDERS.last_day >= _TODAY),
    _part("order", _ORDERS.view, _ORDERS.account == _ACCOUNT, _ORDERS.live == 1, _ORDERS.last_day < _TODAY),
    _part(
        "line",
        _LINES.body,
        _LINES.account == _ACCOUNT,
        _LINES.order_id == "",
        (_LINES.trading_date >= _TODAY) | (_LINES.state == "SENDING") | (_LINES.state == "UNKNOWN"),
        words=_LINES.trading_date,
    ),
    _part(
        "trade",
        _TRADES.trade,
        _TRADES.account == _ACCOUNT,
        _TRADES.trading_date >= _TODAY,
        at=_TRADES.sequence,
    ),
    _part("position", _POSITIONS.position, _POSITIONS.account == _ACCOUNT, _POSITIONS.trading_date >= _TODAY),
)
"""Everything on an account's page, of one moment, in one statement: six took four times as long. Orders are two parts
instead of one with OR, so that each has its index."""

_LEDGER = select(schema.ledgers).where(schema.ledgers.c.account == _ACCOUNT)
_CHANGES = (
    select(_LOG.change)
    .where(_LOG.account == _ACCOUNT, _LOG.epoch == bindparam("epoch"), _LOG.sequence > _SINCE)
    .order_by(_LOG.sequence)
)
"""Built once: to build them took longer than to run them."""


def snapshot(database: Database, account: AccountId) -> Snapshot:
    """Return the account's page, all of it as of one moment. Any thread.

    An account that never changed has no epoch yet: its snapshot is empty, at sequence 0.
    """
    asked = {"account": account, "today": session_date(database.clock.now()).isoformat()}
    with database.read() as connection:
        rows = connection.execute(_PAGE, asked).all()
    parts: dict[str, list[Any]] = {"ledger": [], "order": [], "line": [], "trade": [], "position": []}
    for row in rows:
        parts[row.part].append(row)
    epoch, sequence = next(((row.body, row.at) for row in parts["ledger"]), ("", 0))
    return Snapshot(
        account=account,
        epoch=epoch,
        sequence=sequence,
        orders=_orders(parts["order"], parts["line"]),
        trades=[loads(row.body, Trade) for row in sorted(parts["trade"], key=lambda row: row.at)],
        positions=sorted((loads(row.body, Position) for row in parts["position"]), key=_place),
    )


def head(database: Database, account: AccountId) -> tuple[str, int]:
    """Return the epoch and the newest sequence of the account's log; of none, "" and 0. Any thread."""
    with database.read() as connection:
        ledger = connection.execute(_LEDGER, {"account": account}).first()
    return (ledger.epoch, ledger.sequence) if ledger else ("", 0)


def changes_since(
    database: Database, account: AccountId, *, epoch: str, sequence: int, most: int
) -> list[OrderChange] | None:
    """Return the changes after a cursor, oldest first and without a gap; empty when there are none. Any thread.

    None means that the cursor cannot be continued (another epoch, compacted away, ahead of us, or more than
    `most` changes): take a snapshot.
    """
    with database.read() as connection:
        ledger = connection.execute(_LEDGER, {"account": account}).first()
        if ledger is None or ledger.epoch != epoch:
            return None
        if not ledger.floor <= sequence <= ledger.sequence or ledger.sequence - sequence > most:
            return None
        asked = {"account": account, "epoch": epoch, "since": sequence}
        return [loads(text, OrderChange) for text in connection.execute(_CHANGES, asked).scalars()]


def _orders(orders: Iterable[Any], lines: Iterable[Any]) -> list[OrderView]:
    views = [loads(row.body, OrderView) for row in orders]
    views += [submission_view(loads(row.body, Submission), date.fromisoformat(row.words)) for row in lines]
    return sorted(views, key=_first_seen)


def _place(position: Position) -> tuple[str, str, str]:
    return (position.exchange, position.symbol, position.product)


def _first_seen(view: OrderView) -> tuple[float, str]:
    return (view.first_seen.timestamp() if view.first_seen else 0.0, view.row)
