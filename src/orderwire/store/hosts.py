"""What is remembered of the host applications this service is at home in: how far each was told, which apps it uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from orderwire.core.hosts import Place
from orderwire.store import schema
from orderwire.store.database import Database
from orderwire.store.encoding import dump_mapping, dumps, loads


def places(database: Database, owner: str) -> dict[str, Place]:
    """Return how far the host of this user was told of each account; empty when it never was."""
    table = schema.hosts
    with database.read() as connection:
        row = connection.execute(select(table.c.places).where(table.c.owner == owner)).scalar()
    return loads(row, dict[str, Place]) if row else {}


def apps(database: Database) -> dict[str, str]:
    """Return the marks of the broker apps that hosts log in with, each with the host's user."""
    table = schema.hosts
    with database.read() as connection:
        rows = connection.execute(select(table.c.owner, table.c.apps)).all()
    return {mark: row.owner for row in rows for mark in loads(row.apps, dict[str, str]).values() if mark}


def keep_places(database: Database, owner: str, reached: Mapping[str, Place]) -> None:
    """Remember how far a host was told."""
    _keep(database, owner, places=dumps(dict(reached)))


def keep_apps(database: Database, owner: str, marks: Mapping[str, str]) -> None:
    """Remember the marks of a host's apps, by broker."""
    _keep(database, owner, apps=dump_mapping(marks))


def _keep(database: Database, owner: str, **values: Any) -> None:
    table = schema.hosts
    values["seen_ns"] = database.clock.time_ns()

    def work(connection: Connection) -> None:
        if connection.execute(update(table).where(table.c.owner == owner).values(**values)).rowcount == 0:
            connection.execute(insert(table), {"owner": owner, "places": "{}", "apps": "{}"} | values)

    database.write(work)
