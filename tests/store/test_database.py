from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, func, insert, select, text
from sqlalchemy.exc import IntegrityError

from orderwire.errors import ConfigurationError, StoreBusyError, StoreError
from orderwire.store import schema
from orderwire.store.database import Database

AUDIT = schema.audit


def note(what: str) -> Callable[[Connection], None]:
    row = {"at_ns": 1, "who": "test", "what": what, "detail": "{}"}
    return lambda connection: connection.execute(insert(AUDIT), row) and None


def noted(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(select(AUDIT.c.what).order_by(AUDIT.c.id)).scalars())


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    while not condition():
        pause.wait(0.001)


def write_together(database: Database, works: list[Callable[[Connection], object]]) -> list[object]:
    """Run the works in one group, behind a write that waits until all of them queue."""
    outcomes: list[object] = [None] * len(works)

    def run(index: int) -> None:
        try:
            outcomes[index] = database.write(works[index])
        except Exception as error:  # noqa: BLE001 - handed to the test
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(works))]

    def first(_connection: Connection) -> None:
        for thread in threads:
            queued = len(database._queue)
            thread.start()
            wait_until(lambda queued=queued: len(database._queue) > queued)

    database.write(first)
    for thread in threads:
        thread.join()
    return outcomes


@contextmanager
def locked_by_another(url: str, table: str = "audit") -> Iterator[None]:
    """Hold what every write needs, from a connection that is not ours."""
    engine = create_engine(_sqlalchemy_url(url))
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN EXCLUSIVE")
        else:
            connection.exec_driver_sql(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
            connection.exec_driver_sql(f"LOCK TABLE {table} IN SHARE MODE")
        yield
        connection.rollback()
    engine.dispose()


def _sqlalchemy_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


# --- writing ------------------------------------------------------------------------------------------


def test_a_write_returns_what_its_work_returns_and_is_there_for_the_next_reader(database):
    result = database.write(lambda connection: note("one")(connection) or 42)

    assert result == 42
    assert noted(database) == ["one"]


def test_writes_that_wait_together_share_one_commit(database):
    before = database.counts()

    outcomes = write_together(database, [note(str(number)) for number in range(8)])

    after = database.counts()
    assert outcomes == [None] * 8
    assert (after.commits - before.commits, after.works - before.works) == (2, 9)
    assert noted(database) == [str(number) for number in range(8)]


def test_in_a_group_only_the_work_that_raised_is_undone_and_only_its_caller_hears(database):
    def fails(connection: Connection) -> None:
        note("half")(connection)
        raise ValueError("mine alone")

    def refused(connection: Connection) -> None:
        note("half too")(connection)
        connection.execute(insert(schema.users), [{"name": "twice", **USER}] * 2)

    outcomes = write_together(database, [note("before"), fails, refused, note("after")])

    assert [type(outcome) for outcome in outcomes] == [type(None), ValueError, StoreError, type(None)]
    assert str(outcomes[1]) == "mine alone"
    assert isinstance(outcomes[2].__cause__, IntegrityError)
    assert noted(database) == ["before", "after"]


USER = {"password": "x", "role": "trader", "disabled": 0, "created_ns": 1}


def test_a_lone_work_that_raises_leaves_nothing(database):
    def fails(connection: Connection) -> None:
        note("half")(connection)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        database.write(fails)

    assert noted(database) == []
    assert database.counts().failures == 1


def test_foreign_keys_are_kept(database):
    key = {"id": "k", "owner": "nobody", "digest": "d", "scope": "read", "label": "", "created_ns": 1}

    with pytest.raises(StoreError):
        database.write(lambda connection: connection.execute(insert(schema.api_keys), key))


def test_writing_from_inside_a_work_is_refused_instead_of_waiting_for_itself(database):
    with pytest.raises(RuntimeError, match="inside"):
        database.write(lambda _connection: database.write(note("inner")))

    database.write(note("still works"))
    assert noted(database) == ["still works"]


def test_an_interrupted_leader_frees_those_who_wait(database):
    class Interrupt(BaseException):
        pass

    def interrupt(_connection: Connection) -> None:
        raise Interrupt

    follower: list[object] = []

    def follow() -> None:
        try:
            follower.append(database.write(note("follower")))
        except StoreError as error:
            follower.append(error)

    thread = threading.Thread(target=follow)

    def lead(connection: Connection) -> None:
        thread.start()
        wait_until(lambda: bool(database._queue))
        interrupt(connection)

    with pytest.raises(Interrupt):
        database.write(lead)
    thread.join()

    assert follower == [None]
    assert noted(database) == ["follower"]


def test_many_threads_lose_nothing(database):
    def run(name: int) -> None:
        for number in range(25):
            database.write(note(f"{name}-{number}"))

    threads = [threading.Thread(target=run, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(noted(database)) == sorted(f"{name}-{number}" for name in range(8) for number in range(25))
    for name in range(8):
        own = [what for what in noted(database) if what.startswith(f"{name}-")]
        assert own == [f"{name}-{number}" for number in range(25)]


# --- a database that takes nothing now ----------------------------------------------------------------


def test_a_lock_from_outside_makes_it_busy_and_nothing_is_kept(url, clock):
    database = Database(url, clock=clock, busy_wait=0.05)

    with locked_by_another(url), pytest.raises(StoreBusyError):
        database.write(note("not now"))
    database.write(note("later"))

    assert noted(database) == ["later"]
    database.close()


def test_a_full_disk_makes_it_busy_for_the_whole_group_and_passes(tmp_path, clock):
    database = Database(f"sqlite:///{tmp_path / 'small.db'}", clock=clock)
    database.migrate()
    limit_pages(database, extra=4)

    outcomes = write_together(database, [note("small"), note("x" * 100_000), note("small too")])
    limit_pages(database, extra=1000)
    database.write(note("room again"))

    assert [type(outcome) for outcome in outcomes] == [StoreBusyError] * 3
    assert noted(database) == ["room again"]
    database.close()


def limit_pages(database: Database, *, extra: int) -> None:
    pages = database._connection.connection.execute("PRAGMA page_count").fetchone()[0]
    database._connection.connection.execute(f"PRAGMA max_page_count = {pages + extra}")


def test_a_lost_connection_makes_it_busy_once_and_is_replaced(database, postgres):
    if database.dialect != "postgresql":
        return
    pid = database.write(lambda connection: connection.scalar(text("SELECT pg_backend_pid()")))
    postgres.end_connection(pid)

    with pytest.raises(StoreBusyError):
        database.write(note("lost"))
    database.write(note("again"))

    assert noted(database) == ["again"]


def test_a_work_that_finds_something_else_busy_fails_alone(database):
    def finds_it_busy(_connection: Connection) -> None:
        raise StoreBusyError("a reader could not be opened")

    outcomes = write_together(database, [note("before"), finds_it_busy, note("after")])

    assert [type(outcome) for outcome in outcomes] == [type(None), StoreBusyError, type(None)]
    assert noted(database) == ["before", "after"]


def test_a_missing_table_is_no_passing_failure(database):
    with pytest.raises(StoreError) as refusal:
        database.write(lambda connection: connection.execute(text("INSERT INTO nowhere VALUES (1)")))

    assert not isinstance(refusal.value, StoreBusyError)


# --- reading ------------------------------------------------------------------------------------------


def test_a_reader_sees_one_moment(database):
    database.write(note("before"))

    with database.read() as connection:
        count = select(func.count()).select_from(AUDIT)
        first = connection.scalar(count)
        database.write(note("meanwhile"))
        second = connection.scalar(count)

    assert (first, second) == (1, 1)
    assert noted(database) == ["before", "meanwhile"]


def test_a_reader_cannot_write(database):
    with pytest.raises(StoreError), database.read() as connection:
        note("smuggled")(connection)

    assert noted(database) == []


def test_a_database_in_memory_reads_what_it_wrote(clock):
    database = Database("sqlite://", clock=clock)
    database.migrate()

    database.write(note("here"))

    with database.read(), database.read():
        assert noted(database) == ["here"]
    database.close()


# --- opening ------------------------------------------------------------------------------------------


def test_sqlite_is_opened_for_safety(tmp_path, clock):
    database = Database(f"sqlite:///{tmp_path / 'a.db'}", clock=clock)

    def settings(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert database.write(settings) == ["wal", 2, 1]
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 0
    database.close()


def test_a_second_service_is_told_whose_file_it_is(tmp_path, clock):
    address = f"sqlite:///{tmp_path / 'a.db'}"
    first = Database(address, clock=clock)

    with pytest.raises(ConfigurationError, match=f"process {os.getpid()}"):
        Database(address, clock=clock)
    first.close()

    Database(address, clock=clock).close()


def test_reading_beside_the_owner_is_allowed_and_writing_is_not(tmp_path, clock):
    address = f"sqlite:///{tmp_path / 'a.db'}"
    owner = Database(address, clock=clock)
    owner.migrate()
    owner.write(note("mine"))

    guest = Database(address, clock=clock, read_only=True)

    assert noted(guest) == ["mine"]
    with pytest.raises(StoreError, match="reading only"):
        guest.write(note("yours"))
    guest.close()
    owner.close()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("sqlite:////nowhere/at/all.db", "beside the database"),
        ("mysql://localhost/x", "SQLite or PostgreSQL"),
        ("postgresql://nobody@127.0.0.1:1/x", "Cannot open the database"),
    ],
)
def test_what_cannot_be_opened_is_explained(address, words, clock):
    with pytest.raises(ConfigurationError, match=words):
        Database(address, clock=clock)


def test_a_file_that_is_no_database_is_explained_and_left_alone(tmp_path, clock):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but somebody's notes, " * 30)

    with pytest.raises(ConfigurationError, match="not a database"):
        Database(f"sqlite:///{path}", clock=clock)

    assert path.read_text().startswith("not a database, but somebody's notes")
    Database(f"sqlite:///{tmp_path / 'real.db'}", clock=clock).close()


def test_a_password_in_the_address_is_not_shown(clock):
    with pytest.raises(ConfigurationError) as refusal:
        Database("postgresql://who:hunter22@127.0.0.1:1/x", clock=clock)

    assert "hunter22" not in str(refusal.value)


def test_closing_leaves_everything_in_the_one_file(tmp_path: Path, clock):
    path = tmp_path / "a.db"
    database = Database(f"sqlite:///{path}", clock=clock)
    database.migrate()
    database.write(note("kept"))
    assert noted(database) == ["kept"]

    database.close()

    assert not Path(f"{path}-wal").exists()
    with sqlite3.connect(path) as plain:
        assert plain.execute("SELECT what FROM audit").fetchall() == [("kept",)]
    plain.close()
