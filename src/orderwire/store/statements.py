"""The statements of the hot path, built once per database kind; both kinds speak `ON CONFLICT`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Insert, Table, Update, bindparam, update
from sqlalchemy.dialects import postgresql, sqlite

from orderwire.errors import ConfigurationError
from orderwire.store import schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """Each takes a list of rows."""

    orders: Insert
    submissions: Insert
    trades: Insert
    positions: Insert
    inbox: Insert
    outbox: Insert
    open_ledger: Insert
    advance_ledger: Update
    open_shard: Insert
    advance_shard: Update
    settle: Update
    enrol: Insert


@cache
def build(dialect: str) -> Statements:
    """Return the statements for `sqlite` or `postgresql`."""
    inserts: dict[str, Callable[[Table], Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    if dialect not in inserts:
        raise ConfigurationError(f"The database must be SQLite or PostgreSQL, not {dialect}.")
    insert = inserts[dialect]
    ledgers, inbox = schema.ledgers, schema.inbox
    return Statements(
        orders=_upsert(insert(schema.orders), schema.orders),
        submissions=_upsert(insert(schema.submissions), schema.submissions),
        trades=_upsert(insert(schema.trades), schema.trades),
        positions=_upsert(insert(schema.positions), schema.positions),
        inbox=insert(inbox).on_conflict_do_nothing(),
        outbox=insert(schema.outbox),
        open_ledger=insert(ledgers).on_conflict_do_nothing(),
        advance_ledger=update(ledgers)
        .where(ledgers.c.account == bindparam("of"))
        .values(sequence=bindparam("reached")),
        open_shard=insert(schema.shards).on_conflict_do_nothing(),
        advance_shard=update(schema.shards)
        .where(schema.shards.c.shard == bindparam("of"))
        .values(position=bindparam("reached")),
        settle=update(inbox)
        .where(
            inbox.c.account == bindparam("of"),
            inbox.c.order_id == bindparam("about"),
            inbox.c.settled_ns.is_(None),
            inbox.c.received_ns <= bindparam("until"),
        )
        .values(settled_ns=bindparam("at")),
        enrol=insert(schema.enrolments).on_conflict_do_nothing().returning(schema.enrolments.c.account),
    )


def _upsert(insert: Any, table: Table) -> Insert:
    keys = [column.name for column in table.primary_key.columns]
    rest = {column.name: insert.excluded[column.name] for column in table.columns if column.name not in keys}
    statement: Insert = insert.on_conflict_do_update(index_elements=keys, set_=rest)
    return statement
