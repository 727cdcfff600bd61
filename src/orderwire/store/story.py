"""One order from its first word to its last: what was asked, what was said about it, and what that changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, select

from orderwire.core.lifecycle import OrderChange, OrderView, Submission, submission_view
from orderwire.core.orders import AccountId, OrderId
from orderwire.errors import NotFoundError
from orderwire.store import inbox, schema
from orderwire.store.database import Database
from orderwire.store.encoding import loads

MOST_CHANGES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Everything kept about one order."""

    view: OrderView
    submission: Submission | None
    """Our own request, when the order was ours."""
    said: list[inbox.Entry]
    """Every observation, in the order it was written down."""
    changes: list[OrderChange]
    """What was told to pages and programs, oldest first; of days that are not compacted away."""


def read(database: Database, account: AccountId, row: str) -> Story:
    """Return the story of an order by its line's key or its order id, the newest of that id. Any thread.

    Raises NotFoundError when the account has no such order.
    """
    with database.read() as connection:
        submission, day = _submission(connection, account, row)
        order_id = submission.order_id if submission else OrderId(row)
        view = _view(connection, account, order_id)
        if view is None and submission is not None and day is not None:
            view = submission_view(submission, day)
        if view is None:
            raise NotFoundError("There is no such order.")
        if submission is None and view.submission:
            submission, _ = _submission(connection, account, view.submission)
        changes = _changes(connection, view)
    said = inbox.timeline(database, account, order_id) if order_id else []
    return Story(view=view, submission=submission, said=said, changes=changes)


def kept(database: Database, account: AccountId, order_id: OrderId) -> OrderView | None:
    """Return an order as it was committed last, of whatever session day is kept; the newest of that id. Any thread."""
    with database.read() as connection:
        return _view(connection, account, order_id)


def _submission(
    connection: Connection, account: AccountId, key: str
) -> tuple[Submission, date] | tuple[None, None]:
    table = schema.submissions
    mine = select(table.c.body, table.c.trading_date).where(table.c.account == account, table.c.id == key)
    row = connection.execute(mine).first()
    return (loads(row.body, Submission), date.fromisoformat(row.trading_date)) if row else (None, None)


def _view(connection: Connection, account: AccountId, order_id: OrderId) -> OrderView | None:
    table = schema.orders
    mine = select(table.c.view).where(table.c.account == account, table.c.order_id == order_id)
    text = connection.execute(mine.order_by(table.c.trading_date.desc()).limit(1)).scalar()
    return loads(text, OrderView) if text and order_id else None


def _changes(connection: Connection, view: OrderView) -> list[OrderChange]:
    """Search the account's log as text, then look at what was found: an index for one page would tax each commit."""
    log = schema.outbox
    keys = {view.row, view.order_id, view.submission} - {""}
    found: dict[int, OrderChange] = {}
    for key in keys:
        named = log.c.change.contains(f'"{key}"', autoescape=True)
        mine = select(log.c.id, log.c.change).where(
            log.c.account == view.account, log.c.trading_date >= view.trading_date.isoformat(), named
        )
        for number, text in connection.execute(mine.order_by(log.c.id.desc()).limit(MOST_CHANGES)):
            found[number] = loads(text, OrderChange)
    return [change for _, change in sorted(found.items()) if _is_about(change, keys)]


def _is_about(change: OrderChange, keys: set[str]) -> bool:
    if change.order is not None:
        return bool(keys & {change.order.row, change.order.order_id, change.order.submission})
    return change.trade is not None and change.trade.order_id in keys
