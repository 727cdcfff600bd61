"""One database: who may write it, how writes share a commit, and how readers see one moment.

Any thread may write; the writes that wait together become one transaction on the one writing connection. The
first waiting thread commits for all (there is no thread of ours here), the next one takes over after it.
docs/decisions/0005-one-writer.md says why.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any, Generic, TypeVar, cast
from uuid import uuid4

from sqlalchemy import URL, Connection, Engine, NestedTransaction, create_engine, event, inspect, make_url
from sqlalchemy import exc as failures
from sqlalchemy.pool import NullPool

from orderwire.clock import Clock
from orderwire.errors import ConfigurationError, StoreBusyError, StoreError
from orderwire.store import schema

T = TypeVar("T")

BUSY_WAIT = 0.5
"""Seconds a write waits for a lock that somebody outside holds; then StoreBusyError."""

CHECKPOINT_PAGES = 4000
"""Pages in the write-ahead log (16 MB) after which the writing connection copies them into the database."""

IN_DOUBT_WAIT = 60.0
"""Seconds a write waits to learn whether a commit whose answer was lost had gone through."""

_READERS = 16
"""Read connections kept open; three times as many more are opened when all are busy."""

_POOLED: Mapping[str, Any] = MappingProxyType({"prepare_threshold": None})
"""A pooler may give every transaction another session: nothing is prepared, and nothing set for longer than one."""

_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteCounts:
    """What the writer did since it was opened."""

    commits: int = 0
    works: int = 0
    failures: int = 0
    seconds: float = 0.0
    """Spent in transactions."""


_MARK = """
    INSERT INTO commits (writer, number, at_ns) VALUES (%(writer)s, %(number)s, %(now)s)
    ON CONFLICT (writer) DO UPDATE SET number = excluded.number, at_ns = excluded.at_ns
    RETURNING pg_current_xact_id()::text
"""
_STATUS = "SELECT pg_xact_status(%s::xid8)"
_NOT_GIVEN_YET = "22023"
"""What PostgreSQL answers when asked for a number that it gives later: it crashed, and forgot that it had been given."""
_MARKED = "SELECT number FROM commits WHERE writer = %(writer)s"
_MARKS_THERE = "SELECT to_regclass('commits') IS NOT NULL"
_OLD_MARKS = "DELETE FROM commits WHERE at_ns < %(before)s"
_MARKS_KEPT = 86_400 * 1_000_000_000
"""Nanoseconds after which the mark of a process that commits nothing any more is cleared away."""

_ASK_AGAIN = 0.1


class _Entry(Generic[T]):
    """One work that waits for its transaction; `wake` is released when it is done or may lead.

    As a context it keeps what the work raises for the thread the work belongs to, whoever runs it.
    """

    __slots__ = ("done", "error", "result", "thread", "wake", "work")

    def __init__(self, work: Callable[[Connection], T]) -> None:
        self.work = work
        self.result: T | None = None
        self.error: Exception | None = None
        self.done = False
        self.thread = threading.get_ident()
        self.wake = threading.Lock()
        self.wake.acquire()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        """Keep an error; let pass what says that the database takes nothing now: then nobody's work was kept."""
        if isinstance(error, failures.SQLAlchemyError):
            self.error = _translated(error)
            return not isinstance(self.error, StoreBusyError)
        if isinstance(error, Exception):
            self.error = error
            return True
        return False

    def outcome(self) -> T:
        if self.error is not None:
            raise self.error
        return cast("T", self.result)


@dataclass(frozen=True, slots=True)
class _Mark:
    """What one transaction leaves behind when it is committed, and the server's number for it."""

    writer: str
    number: int
    xact: str


class _Marks:
    """Counts a process's transactions inside them, on PostgreSQL. Used by whoever holds the writing connection."""

    def __init__(self) -> None:
        self._writer = uuid4().hex
        self._number = 0
        self._there = False

    def leave(self, connection: Connection, *, now: int) -> list[_Mark]:
        """Mark the transaction as its last step; nothing where the tables are not made yet."""
        if not self._there:
            if not connection.exec_driver_sql(_MARKS_THERE).scalar():
                return []
            connection.exec_driver_sql(_OLD_MARKS, {"before": now - _MARKS_KEPT})
            self._there = True
        self._number += 1
        given = {"writer": self._writer, "number": self._number, "now": now}
        return [_Mark(self._writer, self._number, connection.exec_driver_sql(_MARK, given).scalar_one())]


class Database:
    """The project's memory: SQLite beside the service, or PostgreSQL; one writer, any number of readers.

    A SQLite file belongs to one process at a time: a lock file beside it says to which. All methods may be
    called from any thread; `close` once, when nothing else is going on.
    """

    def __init__(
        self, url: str | URL, *, clock: Clock, busy_wait: float = BUSY_WAIT, read_only: bool = False
    ) -> None:
        """Open `url`, a SQLAlchemy address; `busy_wait` is in seconds.

        `read_only` leaves the file to its owner: reads work, writes are refused. Raises ConfigurationError
        when another process owns the file (naming its pid), or the database cannot be opened.
        """
        self.url = _completed(url)
        self.clock = clock
        self.read_only = read_only
        self._owned = _own(_file(self.url)) if _file(self.url) and not read_only else None
        self._writing = _writing_engine(self.url, busy_wait)
        self._reading = self._writing if _in_memory(self.url) else _reading_engine(self.url)
        self._turn = threading.RLock()  # guards _connection: whoever uses the writing connection holds it
        self._connection: Connection | None = None
        self._guard = threading.Lock()  # guards _queue, _leader
        self._queue: list[_Entry[Any]] = []
        self._leader: int | None = None
        self._counts = WriteCounts()
        self._marks = _Marks() if self.dialect == "postgresql" else None
        if not read_only:
            self._open_or_explain()

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.url.get_backend_name()

    def counts(self) -> WriteCounts:
        """Return what the writer did so far."""
        return self._counts

    def migrate(self) -> bool:
        """Bring the tables to the newest form, all of it or nothing; True when something was done.

        A database that a newer release has migrated is left as it is where that release says that this one works
        with it: workers are upgraded one by one. Raises ConfigurationError where it does not.
        """
        found = self.revision()
        if found == schema.REVISION or (found is not None and found > schema.REVISION and self._suits_us()):
            return False
        from orderwire.store.migrations import run  # noqa: PLC0415 - 0.4 s of Alembic only when there is work

        self.write(run.upgrade)
        return True

    def _suits_us(self) -> bool:
        """Whether the newer release that made the tables says that we may use them."""
        with self.read() as connection:
            oldest = connection.execute(schema.compatibility.select()).scalar()
        return oldest is not None and oldest <= schema.REVISION

    def revision(self) -> str | None:
        """Return the migration the database is at, None when it is empty."""
        with self.read() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on the writing connection and return its result once it is committed.

        Works that wait at the same time share one transaction; each is undone alone when it raises, and its
        exception is raised here. A work must not write again from inside. Raises StoreBusyError when the
        database takes no writes for now (locked, disk full, connection lost) and StoreError when it refuses
        this one; either way nothing of it was kept.
        """
        if self.read_only:
            raise StoreError("The database was opened for reading only.")
        entry = _Entry(work)
        if not self._first_in_line(entry):
            entry.wake.acquire()
        if not entry.done:
            self._lead()
        return entry.outcome()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees the database as it was at its first query, until the block ends.

        Raises StoreBusyError or StoreError as `write` does.
        """
        try:
            with self._turn if self._shared else nullcontext(), self._reader() as connection:
                yield connection
        except failures.SQLAlchemyError as error:
            raise _translated(error) from error

    def close(self) -> None:
        """Close every connection, the writing one last, and give the file up."""
        if not self._shared:
            self._reading.dispose()
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            self._writing.dispose()
        if self._owned is not None:
            self._owned.close()
            self._owned = None

    # --- the shared commit ----------------------------------------------------------------------------

    def _first_in_line(self, entry: _Entry[Any]) -> bool:
        with self._guard:
            if self._leader == entry.thread:
                raise RuntimeError("a work must not write again from inside")
            self._queue.append(entry)
            if self._leader is not None:
                return False
            self._leader = entry.thread
            return True

    def _lead(self) -> None:
        """Commit everything that waits, then let the next thread lead and wake those served."""
        with self._guard:
            group, self._queue = self._queue, []
        try:
            with self._turn:
                self._commit(group)
        except BaseException as error:  # an interrupt of this thread must not leave the others waiting
            for entry in group:
                entry.error = entry.error or StoreError(f"The write was interrupted: {error!r}.")
            raise
        finally:
            self._hand_over()
            for entry in group:
                entry.done = True
                entry.wake.release()

    def _hand_over(self) -> None:
        with self._guard:
            successor = self._queue[0] if self._queue else None
            self._leader = successor.thread if successor else None
            if successor:
                successor.wake.release()

    def _commit(self, group: list[_Entry[Any]]) -> None:
        began = time.perf_counter()
        asked: list[_Mark] = []
        try:
            self._transact(group, asked)
        except failures.SQLAlchemyError as error:
            self._drop_if_broken()
            if not (asked and self._went_through(asked[0])):
                for entry in group:
                    entry.error = entry.error or _translated(error)
        self._count(group, seconds=time.perf_counter() - began)

    def _count(self, group: list[_Entry[Any]], *, seconds: float) -> None:
        before = self._counts
        self._counts = WriteCounts(
            commits=before.commits + 1,
            works=before.works + len(group),
            failures=before.failures + sum(entry.error is not None for entry in group),
            seconds=before.seconds + seconds,
        )

    def _transact(self, group: list[_Entry[Any]], asked: list[_Mark]) -> None:
        """Run the works and commit; `asked` gets the transaction's mark once it is asked to be committed."""
        connection = self._open()
        with connection.begin() as transaction:
            if len(group) > 1:
                for entry in group:
                    _attempt(entry, connection, connection.begin_nested())
            elif not _attempt(group[0], connection, None):
                transaction.rollback()
                return
            if self._marks is not None:
                asked += self._marks.leave(connection, now=self.clock.time_ns())

    def _went_through(self, mark: _Mark) -> bool:
        """Find out whether a transaction was committed whose answer was lost: to do it again would be twice.

        A server that crashed may have had it on disk. Nobody of this process writes meanwhile. The number alone does
        not say it: a server that crashed before the number was on disk gives it to somebody else's transaction.
        """
        deadline = time.monotonic() + IN_DOUBT_WAIT
        while time.monotonic() < deadline:
            with suppress(failures.SQLAlchemyError):
                if not self._is_under_way(mark):
                    with self._reading.connect() as connection:  # sees what ended before
                        left = connection.exec_driver_sql(_MARKED, {"writer": mark.writer}).scalar()
                    return bool(left == mark.number)
            time.sleep(_ASK_AGAIN)
        return False

    def _is_under_way(self, mark: _Mark) -> bool:
        try:
            with self._reading.connect() as connection:
                status = connection.exec_driver_sql(_STATUS, (mark.xact,)).scalar()
        except failures.DBAPIError as error:
            if getattr(error.orig, "sqlstate", "") != _NOT_GIVEN_YET:
                raise
            return False
        return bool(status == "in progress")

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._writing.connect()
        return self._connection

    def _open_or_explain(self) -> None:
        try:
            self._open()
        except failures.DBAPIError as error:
            self.close()
            where = self.url.render_as_string(hide_password=True)
            raise ConfigurationError(f"Cannot open the database {where}: {error.orig}.") from error

    def _drop_if_broken(self) -> None:
        connection = self._connection
        if connection is None or not (connection.invalidated or connection.in_transaction()):
            return
        self._connection = None
        with suppress(failures.SQLAlchemyError):
            connection.invalidate()
            connection.close()

    # --- reading --------------------------------------------------------------------------------------

    @property
    def _shared(self) -> bool:
        """Whether readers use the writing connection: a database in memory has no other."""
        return self._reading is self._writing

    @contextmanager
    def _reader(self) -> Iterator[Connection]:
        if not self._shared:
            with self._reading.connect() as connection:
                yield connection
        elif (connection := self._open()).in_transaction():
            yield connection
        else:
            with connection.begin() as transaction:
                yield connection
                transaction.rollback()


def _attempt(entry: _Entry[Any], connection: Connection, savepoint: NestedTransaction | None) -> bool:
    with entry:
        entry.result = entry.work(connection)
    if savepoint is not None:
        (savepoint.rollback if entry.error else savepoint.commit)()
    return entry.error is None


# --- opening ------------------------------------------------------------------------------------------


def _completed(url: str | URL) -> URL:
    given = make_url(url)
    if given.drivername in {"postgresql", "postgres"}:
        return given.set(drivername="postgresql+psycopg")
    if given.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ConfigurationError(f"The database must be SQLite or PostgreSQL, not {given.drivername}.")
    return given


def _in_memory(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}


def _file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or _in_memory(url):
        return None
    return Path(url.database or "")


def _own(path: Path | None) -> IO[str] | None:
    """Take the lock file beside the database for as long as this process lives."""
    if path is None:
        return None
    beside = path.with_name(path.name + ".lock")
    try:
        lock = beside.open("a+", encoding="ascii")
    except OSError as error:
        raise ConfigurationError(f"Cannot write beside the database {path}: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise ConfigurationError(
            f"The database {path} is in use by process {owner}: one service writes it at a time."
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _writing_engine(url: URL, busy_wait: float) -> Engine:
    if url.get_backend_name() == "postgresql":
        writing = create_engine(url, poolclass=NullPool, connect_args=dict(_POOLED))
        _on_begin(writing, f"SET LOCAL lock_timeout = {int(busy_wait * 1000)}")
        return writing
    engine = create_engine(
        url, poolclass=NullPool, connect_args={"timeout": busy_wait, "check_same_thread": False}
    )
    _on_connect(
        engine,
        "journal_mode = WAL",
        "synchronous = FULL",
        "fullfsync = ON",  # macOS: FULL alone does not reach the disk there
        "foreign_keys = ON",
        f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
        "journal_size_limit = 67108864",
        "cache_size = -32768",
    )
    _on_begin(engine, "BEGIN IMMEDIATE")
    return engine


def _reading_engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        return create_engine(
            url,
            pool_size=_READERS,
            max_overflow=_READERS * 3,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
            connect_args=dict(_POOLED),
        )
    engine = create_engine(
        url,
        pool_size=_READERS,
        max_overflow=_READERS * 3,
        connect_args={"timeout": BUSY_WAIT, "check_same_thread": False},
    )
    _on_connect(engine, "query_only = ON", "wal_autocheckpoint = 0")
    _on_begin(engine, "BEGIN")
    return engine


def _on_connect(engine: Engine, *pragmas: str) -> None:
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver must not open transactions of its own
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    event.listen(engine, "connect", prepare)


def _on_begin(engine: Engine, statement: str) -> None:
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    event.listen(engine, "begin", begin)


def _translated(error: failures.SQLAlchemyError) -> StoreError:
    """Say in our own words whether trying again can help; the driver's error stays the cause."""
    text = str(getattr(error, "orig", None) or error)
    ours = StoreBusyError(text) if _passes(error) else StoreError(text)
    ours.__cause__ = error
    return ours


def _passes(error: failures.SQLAlchemyError) -> bool:
    if isinstance(error, failures.TimeoutError):
        return True
    if not isinstance(error, failures.DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _PASSING
    return error.connection_invalidated or isinstance(error, failures.OperationalError)
