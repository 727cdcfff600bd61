"""A database of every earlier form, with rows in every table it had, brought to the newest: nothing is lost, and it goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from sqlalchemy import BigInteger, Column, Connection, Integer, LargeBinary, Table, inspect, select, text

from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import SubmissionState
from orderwire.core.orders import AccountId
from orderwire.store import outbox, schema, sealing
from orderwire.store.accounts import Accounts, Login
from orderwire.store.batch import Input
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from orderwire.store.migrations import run
from orderwire.store.users import Users
from store.making import LIFE, FakeClock, hint, observed, position, submission, trade, update

Rows = Mapping[str, list[dict[str, Any]]]

ACCOUNT = AccountId("A1")
KEY = "a plain API key of a script that goes on"
EARLIER = sorted(script.revision for script in run.scripts().walk_revisions())[:-1]
FILLED_BY_A_MIGRATION = {("ledgers", "owner"), ("outbox", "shard"), ("outbox", "position")}


# --- what a service leaves in it ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> sealing.Keyring:
    return sealing.create(tmp_path_factory.mktemp("key") / "sealing-key.json")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, keyring: sealing.Keyring) -> Rows:
    """What is in each table after a service worked: its own rows, and one made up where it left none."""
    path = tmp_path_factory.mktemp("full") / "orderwire.db"
    database = Database(f"sqlite:///{path}", clock=FakeClock())
    database.migrate()
    work(database, keyring)
    with database.read() as connection:
        found = {t.name: [dict(row) for row in connection.execute(select(t)).mappings()] for t in _tables()}
    database.close()
    for table in _tables():
        found[table.name] = found[table.name] or [_made_up(table, found)]
    return found


def work(database: Database, keyring: sealing.Keyring) -> None:
    users = Users(database)
    users.add("asha", "asha-password")
    users.adopt_key("asha", KEY, label="a script", by="test")
    accounts = Accounts(database, keyring)
    accounts.add(ACCOUNT, broker="zerodha", owner="asha", credentials={"api_key": "k", "api_secret": "s"})
    accounts.set_login(ACCOUNT, Login(user_id="AB1234", secrets={"access_token": "t"}))
    book = OrderBook(database, clock=database.clock)
    for word in LIFE:
        tell(book, update(word))
    tell(book, update("open", order="2"), trade(), position(), hint(order="2"))
    placed = submission(state=SubmissionState.ACCEPTED, order_id="2", idempotency_key="once")
    book.on_submission(Event(EventType.SUBMISSION, Input(value=placed)))
    book.commit()


def tell(book: OrderBook, *values: Any) -> list[Any]:
    for value in values:
        book.on_observation(observed(value))
    return list(book.commit() or [])


def _made_up(table: Table, found: Rows) -> dict[str, Any]:
    return {column.name: _value(column, found) for column in table.columns}


def _value(column: Column[Any], found: Rows) -> Any:
    for key in column.foreign_keys:
        return found[key.column.table.name][0][key.column.name]
    if isinstance(column.type, Integer | BigInteger):
        return 1
    return b"x" if isinstance(column.type, LargeBinary) else "{}"


def _tables() -> list[Table]:
    return [table for table in schema.metadata.sorted_tables if table.name != "compatibility"]


# --- a database as an earlier release left it ---------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Callable[[], Database]]:
    """Opens a database without a single table."""
    address = f"sqlite:///{tmp_path / 'orderwire.db'}"
    server = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        name = f"upgrade_{os.getpid()}"
        address = server.new_database(name)
    opened: list[Database] = []

    def open_it() -> Database:
        opened.append(Database(address, clock=FakeClock()))
        return opened[-1]

    yield open_it
    for database in opened:
        database.close()
    if server is not None:
        server.drop_database(name)


def upgrade_to(connection: Connection, wanted: str) -> None:
    directory = run.scripts()

    def steps(revision: object, _context: object) -> object:
        return directory._upgrade_revs(wanted, revision)

    with EnvironmentContext(Config(), directory, fn=steps) as environment:
        environment.configure(connection=connection, target_metadata=schema.metadata, fn=steps)
        environment.run_migrations()


def fill(connection: Connection, rows: Rows) -> None:
    """Put the rows into the tables and columns that there are."""
    there = inspect(connection)
    for table in _tables():
        if not there.has_table(table.name):
            continue
        columns = {column["name"] for column in there.get_columns(table.name)}
        kept = [{name: row[name] for name in row if name in columns} for row in rows[table.name]]
        connection.execute(table.insert(), kept)
        if connection.dialect.name == "postgresql" and "id" in columns:
            _move_counter(connection, table.name)


def _move_counter(connection: Connection, table: str) -> None:
    name = connection.execute(text(f"SELECT pg_get_serial_sequence('{table}', 'id')")).scalar()
    if name is not None:
        connection.execute(text(f"SELECT setval('{name}', (SELECT max(id) FROM {table}))"))


def as_left(database: Database, revision: str, rows: Rows) -> None:
    def work(connection: Connection) -> None:
        upgrade_to(connection, revision)
        fill(connection, rows)

    database.write(work)


def content(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table that there is, with the columns that there are."""
    with database.read() as connection:
        there = inspect(connection)
        return {
            name: sorted(
                (dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()), key=repr
            )
            for name in there.get_table_names()
            if name not in {"alembic_version", "compatibility"}
        }


# --- the upgrade --------------------------------------------------------------------------------------------


def test_every_earlier_form_is_tried():
    assert EARLIER[0] == "0001"
    assert len(EARLIER) == int(schema.REVISION) - 1


@pytest.mark.parametrize("revision", EARLIER)
def test_nothing_is_lost_on_the_way_to_the_newest_form_and_the_log_goes_on(empty, rows, keyring, revision):
    old = empty()
    as_left(old, revision, rows)
    before = content(old)
    assert all(before.values())
    old.close()

    database = empty()
    assert database.migrate() is True

    assert database.revision() == schema.REVISION
    after = content(database)
    for table, kept in before.items():
        assert [_without(table, row) for row in after[table]] == [_without(table, row) for row in kept], table
    assert {row["owner"] for row in after["ledgers"] if row["account"] == ACCOUNT} == {"asha"}
    goes_on(database, keyring)


def _without(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if (table, name) not in FILLED_BY_A_MIGRATION}


def goes_on(database: Database, keyring: sealing.Keyring) -> None:
    """Users, secrets and cursors are as they were, and the next change gets the next number of the same log."""
    accounts = Accounts(database, keyring)
    assert accounts.credentials(ACCOUNT) == {"api_key": "k", "api_secret": "s"}
    assert accounts.login(ACCOUNT).secrets == {"access_token": "t"}
    assert Users(database).key(KEY).owner == "asha"
    held = outbox.snapshot(database, ACCOUNT)
    assert {order.order_id for order in held.orders} == {"260817000000001", "2"}
    told = outbox.changes_since(database, ACCOUNT, epoch=held.epoch, sequence=0, most=99)
    assert [change.sequence for change in told] == list(range(1, held.sequence + 1))

    book = OrderBook(database, clock=database.clock)
    events = tell(book, update("filled", order="2"), update("open", order="3"))
    assert [event.data.sequence for event in events] == [held.sequence + 1, held.sequence + 2]
    again = outbox.snapshot(database, ACCOUNT)
    assert (again.epoch, again.sequence) == (held.epoch, held.sequence + 2)
    cursor = outbox.changes_since(database, ACCOUNT, epoch=held.epoch, sequence=held.sequence, most=99)
    assert [change.sequence for change in cursor] == [held.sequence + 1, held.sequence + 2]
