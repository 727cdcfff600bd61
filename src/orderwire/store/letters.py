"""Dead letters: what was not believed, could not be read, or could not be kept, with the broker's bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from orderwire.core.orders import AccountId
from orderwire.errors import NotFoundError
from orderwire.store import schema
from orderwire.store.database import Database
from orderwire.store.encoding import from_ns

_TABLE = schema.dead_letters


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One of them."""

    id: int
    at: datetime
    account: str
    order_id: str
    """Empty where the bytes could not be read far enough."""
    kind: str
    """What it would have been: OrderUpdate, Trade, Position, Submission, Unreadable."""
    reason: str
    observation: str
    """As it was understood."""
    raw: bytes = field(repr=False)


def newest(database: Database, *, account: AccountId | None = None, most: int = 100) -> list[Letter]:
    """Return the latest letters, of one account or all, newest first. Any thread."""
    wanted = select(_TABLE).order_by(_TABLE.c.id.desc()).limit(most)
    if account is not None:
        wanted = wanted.where(_TABLE.c.account == account)
    with database.read() as connection:
        return [_letter(row) for row in connection.execute(wanted)]


def one(database: Database, number: int) -> Letter:
    """Return the letter with this number. Raises NotFoundError. Any thread."""
    with database.read() as connection:
        row = connection.execute(select(_TABLE).where(_TABLE.c.id == number)).first()
    if row is None:
        raise NotFoundError(f"There is no letter {number}.")
    return _letter(row)


def _letter(row: Row[Any]) -> Letter:
    return Letter(
        id=row.id,
        at=from_ns(row.at_ns),
        account=row.account,
        order_id=row.order_id,
        kind=row.kind,
        reason=row.reason,
        observation=row.observation,
        raw=row.raw,
    )
