"""Who did what, and when; written in the same transaction as the deed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, or_, select

from orderwire.store import schema
from orderwire.store.database import Database
from orderwire.store.encoding import dump_mapping, from_ns, loads


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One deed."""

    at: datetime
    who: str
    """A user's name, `system`, or `cli`."""
    what: str
    detail: Mapping[str, str]


def record(connection: Connection, *, at_ns: int, who: str, what: str, **detail: str) -> None:
    """Write one deed down inside the caller's transaction; never put a secret into `detail`."""
    row = {"at_ns": at_ns, "who": who, "what": what, "detail": dump_mapping(detail)}
    connection.execute(insert(schema.audit), row)


def entries(
    database: Database, *, most: int = 100, first: int = 0, who: str = "", words: str = ""
) -> list[AuditEntry]:
    """Return the latest deeds, newest first, after the first `first`; of one doer, or with these words in them."""
    table = schema.audit
    newest = select(table.c.at_ns, table.c.who, table.c.what, table.c.detail).order_by(table.c.id.desc())
    if who:
        newest = newest.where(table.c.who == who)
    for word in words.split():
        told = (
            table.c.what.icontains(word, autoescape=True),
            table.c.detail.icontains(word, autoescape=True),
        )
        newest = newest.where(or_(*told))
    with database.read() as connection:
        rows = connection.execute(newest.offset(first).limit(most)).all()
    return [
        AuditEntry(at=from_ns(at_ns), who=who, what=what, detail=loads(detail, dict[str, str]))
        for at_ns, who, what, detail in rows
    ]
