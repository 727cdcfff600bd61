"""Copies of the database while the service runs, and back again while it does not."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import Connection

from orderwire.clock import Clock
from orderwire.errors import ConfigurationError
from orderwire.store import audit, outbox
from orderwire.store.database import Database

Progress = Callable[[int, int], None]
"""Told the pages copied and the pages there are."""

_PAGES = 2000


def _quietly(_done: int, _all: int) -> None:
    pass


def backup(database: Database, target: Path, *, progress: Progress = _quietly) -> int:
    """Copy the database as it is at one moment into a new file, and return its size in bytes. Any thread.

    The service goes on meanwhile. The key file is not in it: keep that apart. Raises ConfigurationError when
    the target exists or cannot be written, and for PostgreSQL, which has `pg_dump`.
    """
    if database.dialect != "sqlite":
        raise ConfigurationError(
            "Back a PostgreSQL database up with pg_dump, and run `orderwire restore` after pg_restore."
        )
    beside = target.with_name(target.name + ".part")
    if target.exists():
        raise ConfigurationError(f"{target} exists already; a backup overwrites nothing.")
    try:
        with database.read() as connection, closing(sqlite3.connect(beside)) as copy:
            connection.exec_driver_sql(
                "SELECT count(*) FROM sqlite_master"
            ).scalar()  # the moment that is copied
            source = connection.connection.driver_connection
            assert isinstance(source, sqlite3.Connection)  # noqa: S101 - the dialect says so
            source.backup(
                copy, pages=_PAGES, progress=lambda _status, left, pages: progress(pages - left, pages)
            )
            copy.execute("PRAGMA journal_mode = DELETE")
        _sync(beside)
        beside.replace(target)
    except (OSError, sqlite3.Error) as error:
        beside.unlink(missing_ok=True)
        raise ConfigurationError(f"The backup {target} could not be written: {error}.") from error
    return target.stat().st_size


def restore(source: Path, target: Path, *, clock: Clock, by: str = "cli") -> None:
    """Put a backup in the database's place, all of it or nothing; while no service runs.

    It is migrated if it is older, and every account's change log begins a new epoch: no client takes what it
    has seen for the present. Raises ConfigurationError when `source` is no sound backup, or a service owns
    the target.
    """
    with closing(Database(f"sqlite:///{target}", clock=clock)):  # nobody else owns it
        pass
    fresh = target.with_name(target.name + ".restored")
    try:
        _copy_sound(source, fresh)
        with closing(Database(f"sqlite:///{fresh}", clock=clock)) as database:
            begin_anew(database, source=source.name, by=by)
        _sync(fresh)
        for suffix in ("-wal", "-shm"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)
        fresh.replace(target)
    finally:
        for leftover in (fresh, fresh.with_name(fresh.name + ".lock")):
            with suppress(OSError):
                leftover.unlink(missing_ok=True)


def begin_anew(database: Database, *, source: str, by: str) -> None:
    """Make a database that came from elsewhere ours: migrate it, begin every change log anew, say so in the audit."""
    database.migrate()

    def work(connection: Connection) -> None:
        outbox.renew(connection)
        at_ns = database.clock.time_ns()
        audit.record(connection, at_ns=at_ns, who=by, what="database restored", source=source)

    database.write(work)


def _copy_sound(source: Path, fresh: Path) -> None:
    """Copy a backup, refusing what is no database, is damaged, or is not ours."""
    fresh.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(fresh)) as new,
        ):
            old.execute("SELECT version_num FROM alembic_version").fetchone()
            old.backup(new)
            found = new.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        raise ConfigurationError(f"{source} is no backup of orderwire: {error}.") from error
    if found != ("ok",):
        raise ConfigurationError(f"{source} is damaged: {found[0]}.")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
