"""How long things are kept: whole session days go, piece by piece, so that nobody waits for the writer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, date, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Connection, Table, delete, select, tuple_

from orderwire.core.events import Event, EventType
from orderwire.core.orders import AccountId, session_date
from orderwire.engine import EventEngine
from orderwire.errors import InvalidRequestError, NotFoundError, StoreBusyError
from orderwire.store import audit, outbox, schema
from orderwire.store.database import Database
from orderwire.store.encoding import to_ns

_log = structlog.get_logger(__name__)

Progress = Callable[[str, int], None]
"""Told a table's name and how many of its rows went, after each piece."""

PIECE = 2000
"""Rows deleted in one transaction: some 20 ms of the writer's time."""

_OF_AN_ACCOUNT = (
    schema.orders,
    schema.submissions,
    schema.trades,
    schema.positions,
    schema.inbox,
    schema.outbox,
    schema.dead_letters,
    schema.enrolments,
    schema.alerts,
    schema.commands,
    schema.feed_states,
    schema.leases,
)


def _quietly(_table: str, _rows: int) -> None:
    pass


def forget(
    database: Database, *, before: date, progress: Progress = _quietly, piece: int = PIECE
) -> dict[str, int]:
    """Delete what belongs to session days before `before` and return the rows gone by table. Any one thread.

    Live orders, submissions in doubt, and what is not yet verified stay however old they are; so does the
    audit. Sequences go on; cursors from before get a snapshot.
    """
    gone: dict[str, int] = {}

    def note(table: str, rows: int) -> None:
        gone[table] = gone.get(table, 0) + rows
        progress(table, rows)

    for table, old in _old_rows(before):
        while rows := _piece(database, table, old, most=piece):
            note(table.name, rows)
    for account in _accounts(database):
        rows = _compact(database, account, before)
        if rows:
            note("outbox", rows)
    return gone


class Housekeeper:
    """Lets session days go once they are old enough: at the start, then once a day, on a lane of its own."""

    LANE = "housekeeping"

    def __init__(
        self, database: Database, *, keep_days: int, leads: Callable[[], bool] = lambda: True
    ) -> None:
        """`keep_days`: session days kept besides today's; 0 keeps everything for ever.

        `leads` says whether this is the one process of several that does it.
        """
        self._leads = leads
        self._database = database
        self._keep = timedelta(days=keep_days)
        self._done: date | None = None

    def attach(self, engine: EventEngine) -> None:
        """Take part in the engine; once, before it starts."""
        if self._keep:
            engine.add_lane(self.LANE, capacity=1, when_full="conflate", key=lambda event: event.type)
            engine.register(EventType.TIMER, self.on_timer, lane=self.LANE)

    def on_timer(self, _event: Event) -> None:
        """Forget what is too old unless it was done today. The lane's thread; a busy database is asked again."""
        today = session_date(self._database.clock.now())
        if today == self._done or not self._leads():
            return
        try:
            gone = forget(self._database, before=today - self._keep)
        except StoreBusyError:
            return
        self._done = today
        if gone:
            _log.info("old session days forgotten", before=(today - self._keep).isoformat(), **gone)


def erase(database: Database, account: AccountId, *, by: str, progress: Progress = _quietly) -> int:
    """Delete everything brokers told us about an account, and what we asked of them; return the rows gone.

    What people were told of its orders goes as well; aggregates that name no account, and the audit, stay. Audited,
    and overwritten on SQLite. The account's change log begins anew, so no client replays what is gone; until the
    last row is gone nobody may take the id, and an erasure that was cut short is simply done again. Raises
    InvalidRequestError while the account exists: remove it first, so that no feed brings it back. Raises
    NotFoundError when nothing is kept of it.
    """
    accounts, ledgers = schema.accounts, schema.ledgers

    def begin(connection: Connection) -> None:
        if connection.execute(select(accounts.c.id).where(accounts.c.id == account)).first():
            raise InvalidRequestError(
                {"account": f"Remove the account {account} first; then erase its data."}
            )
        log = connection.execute(select(ledgers.c.account).where(ledgers.c.account == account)).first()
        if log is None and not keeps(connection, account):
            raise NotFoundError(f"Nothing is kept of an account {account}.")
        outbox.disown(connection, account)
        at_ns = database.clock.time_ns()
        audit.record(connection, at_ns=at_ns, who=by, what="account erased", account=account)

    database.write(begin)
    gone = 0
    for table, mine in of_account(account):
        while rows := _piece(database, table, mine, most=PIECE, beyond_recovery=True):
            gone += rows
            progress(table.name, rows)
    database.write(lambda connection: connection.execute(delete(ledgers).where(ledgers.c.account == account)))
    return gone


def keeps(connection: Connection, account: str) -> bool:
    """Say inside the caller's transaction whether anything is kept of an account besides its change log's place."""
    return any(
        connection.execute(select(*table.primary_key.columns).where(mine).limit(1)).first()
        for table, mine in of_account(account)
    )


def of_account(account: str) -> list[tuple[Table, ColumnElement[bool]]]:
    """Return the tables that keep something of an account, each with which rows; its change log's place is not one."""
    told = schema.notifications
    return [
        *((table, table.c.account == account) for table in _OF_AN_ACCOUNT),
        (told, told.c.key.startswith(f"{account}/", autoescape=True)),
    ]


def _old_rows(before: date) -> list[tuple[Table, ColumnElement[bool]]]:
    day = before.isoformat()
    at_ns = to_ns(datetime.combine(before, datetime.min.time(), UTC) + timedelta(hours=0.5))  # 06:00 IST
    orders, lines, inbox, told = schema.orders, schema.submissions, schema.inbox, schema.notifications
    return [
        (orders, (orders.c.last_day < day) & (orders.c.live == 0)),
        (lines, (lines.c.trading_date < day) & lines.c.state.in_(("ACCEPTED", "REFUSED"))),
        (schema.trades, schema.trades.c.trading_date < day),
        (schema.positions, schema.positions.c.trading_date < day),
        (inbox, (inbox.c.trading_date < day) & inbox.c.settled_ns.is_not(None)),
        (schema.dead_letters, schema.dead_letters.c.at_ns < at_ns),
        (schema.alerts, schema.alerts.c.cleared_ns < at_ns),
        (schema.commands, schema.commands.c.asked_ns < at_ns),
        (told, (told.c.queued_ns < at_ns) & (told.c.state != "WAITING")),
    ]


def _piece(
    database: Database, table: Table, which: ColumnElement[bool], *, most: int, beyond_recovery: bool = False
) -> int:
    key: Any = tuple_(*table.primary_key.columns)
    some = select(*table.primary_key.columns).where(which).limit(most)

    def work(connection: Connection) -> int:
        with _overwriting(connection) if beyond_recovery else nullcontext():
            return connection.execute(delete(table).where(key.in_(some))).rowcount

    return database.write(work)


@contextmanager
def _overwriting(connection: Connection) -> Iterator[None]:
    """Have SQLite write zeros over what is deleted; otherwise it stays in the file until its page is used again."""
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.exec_driver_sql("PRAGMA secure_delete = ON")
    try:
        yield
    finally:
        connection.exec_driver_sql("PRAGMA secure_delete = OFF")


def _compact(database: Database, account: str, before: date) -> int:
    return database.write(lambda connection: outbox.compact(connection, account, before=before))


def _accounts(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(select(schema.ledgers.c.account)).scalars())
