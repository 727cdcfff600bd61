from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from orderwire.core.orders import AccountId
from orderwire.errors import ConfigurationError
from orderwire.store import audit, outbox
from orderwire.store.backup import backup, restore
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from store.making import observed, update

A1 = AccountId("A1")


@pytest.fixture
def home(tmp_path, sqlite_file) -> Path:
    path = tmp_path / "orderwire.db"
    path.write_bytes(sqlite_file)
    return path


def tell(database: Database, *values: object) -> None:
    book = OrderBook(database, clock=database.clock)
    for value in values:
        book.on_observation(observed(value))
    book.commit()


def opened(path: Path, clock) -> Database:
    return Database(f"sqlite:///{path}", clock=clock)


def test_a_backup_is_the_moment_it_was_begun_whatever_is_written_meanwhile(home, tmp_path, clock):
    database = opened(home, clock)
    tell(database, *(update("open", order=str(number)) for number in range(3000)))
    told: list[tuple[int, int]] = []

    def meanwhile(done: int, pages: int) -> None:
        if not told:
            tell(database, update("open", order="late"))
        told.append((done, pages))

    size = backup(database, tmp_path / "copy.db", progress=meanwhile)

    assert len(outbox.snapshot(database, A1).orders) == 3001
    database.close()
    assert size == (tmp_path / "copy.db").stat().st_size
    assert told[-1][0] == told[-1][1]
    copy = opened(tmp_path / "copy.db", clock)
    assert len(outbox.snapshot(copy, A1).orders) == 3000
    copy.close()


def test_a_restored_database_has_a_new_epoch_and_nothing_of_what_came_later(home, tmp_path, clock):
    database = opened(home, clock)
    tell(database, update("open"))
    before = outbox.snapshot(database, A1)
    backup(database, tmp_path / "copy.db")
    tell(database, update("filled"))
    database.close()

    restore(tmp_path / "copy.db", home, clock=clock, by="asha")

    database = opened(home, clock)
    held = outbox.snapshot(database, A1)
    assert held.orders == before.orders
    assert held.epoch != before.epoch
    assert outbox.changes_since(database, A1, epoch=before.epoch, sequence=before.sequence, most=9) is None
    assert audit.entries(database, most=1)[0].what == "database restored"
    tell(database, update("filled"))
    assert outbox.snapshot(database, A1).sequence == 1
    database.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "copy.db",
        "orderwire.db",
        "orderwire.db.lock",
    ]


def test_nothing_is_restored_under_a_running_service(home, tmp_path, clock):
    database = opened(home, clock)
    backup(database, tmp_path / "copy.db")

    with pytest.raises(ConfigurationError, match="in use by process"):
        restore(tmp_path / "copy.db", home, clock=clock)

    database.close()


@pytest.mark.parametrize(
    "content", [b"", b"not a database at all, but long enough to be looked at" * 40, None]
)
def test_what_is_no_backup_leaves_the_database_alone(home, tmp_path, clock, content):
    database = opened(home, clock)
    tell(database, update("open"))
    database.close()
    source = tmp_path / "copy.db"
    if content is not None:
        source.write_bytes(content)

    with pytest.raises(ConfigurationError, match="no backup"):
        restore(source, home, clock=clock)

    database = opened(home, clock)
    assert len(outbox.snapshot(database, A1).orders) == 1
    database.close()


def test_a_damaged_backup_is_refused(home, tmp_path, clock):
    database = opened(home, clock)
    tell(database, *(update("open", order=str(number)) for number in range(200)))
    backup(database, tmp_path / "copy.db")
    database.close()
    content = bytearray((tmp_path / "copy.db").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 9000] = b"\xff" * 9000
    (tmp_path / "copy.db").write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"damaged|no backup"):
        restore(tmp_path / "copy.db", home, clock=clock)


def test_a_backup_overwrites_nothing(home, tmp_path, clock):
    database = opened(home, clock)
    (tmp_path / "copy.db").write_text("mine")

    with pytest.raises(ConfigurationError, match="overwrites nothing"):
        backup(database, tmp_path / "copy.db")
    with pytest.raises(ConfigurationError, match="could not be written"):
        backup(database, tmp_path / "no" / "such" / "folder.db")

    assert (tmp_path / "copy.db").read_text() == "mine"
    database.close()


def test_a_backup_needs_no_log_beside_it(home, tmp_path, clock):
    database = opened(home, clock)
    tell(database, update("open"))
    backup(database, tmp_path / "copy.db")
    database.close()

    plain = sqlite3.connect(f"file:{tmp_path / 'copy.db'}?mode=ro", uri=True)
    assert plain.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert plain.execute("SELECT count(*) FROM orders").fetchone() == (1,)
    plain.close()


def test_postgresql_has_its_own_tools(database, tmp_path):
    if database.dialect == "postgresql":
        with pytest.raises(ConfigurationError, match="pg_dump"):
            backup(database, tmp_path / "copy.db")
