"""A commit whose answer was lost: PostgreSQL says afterwards whether it went through, and nothing is written twice."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import text

from chaos import Postgres
from orderwire.errors import StoreBusyError
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from store.making import LIFE, observed, update


@pytest.fixture
def database(postgres, clock):
    database = Database(postgres.url, clock=clock)
    yield database
    database.close()
    postgres.empty()


def lose_the_answer(database, monkeypatch, *, committed: bool) -> None:
    """Have the next commit end in a lost connection, after or before it went through."""
    dialect = database._writing.dialect
    commit = dialect.do_commit

    def lost(connection):
        monkeypatch.setattr(dialect, "do_commit", commit)
        if committed:
            commit(connection)
        connection.dbapi_connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(dialect, "do_commit", lost)


def letters(database) -> int:
    with database.read() as connection:
        return connection.execute(text("SELECT count(*) FROM audit")).scalar()


def write(connection) -> str:
    connection.execute(text("INSERT INTO audit (at_ns, who, what, detail) VALUES (1, 'a', 'b', '{}')"))
    return "done"


def test_a_commit_that_went_through_counts_though_its_answer_was_lost(database, monkeypatch):
    lose_the_answer(database, monkeypatch, committed=True)

    assert database.write(write) == "done"

    assert letters(database) == 1
    assert database.write(write) == "done"


def test_a_commit_that_did_not_go_through_is_to_be_tried_again(database, monkeypatch):
    lose_the_answer(database, monkeypatch, committed=False)

    with pytest.raises(StoreBusyError):
        database.write(write)

    assert letters(database) == 0
    assert database.write(write) == "done"


def next_number(connection) -> int:
    """The number of the transaction, which a connection without one is given now."""
    return connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()[0]


@pytest.mark.parametrize("given", ["again", "not yet"])
def test_a_transaction_number_that_a_crashed_server_gives_again_does_not_speak_for_ours(
    clock, monkeypatch, given
):
    """What was not on disk when the server crashed had no number: the next transaction, anybody's, gets it."""
    server = Postgres()
    database = Database(server.uri, clock=clock)
    try:
        database.migrate()
        database.write(write)
        dialect = database._writing.dialect
        commit = dialect.do_commit

        def crash(connection):
            monkeypatch.setattr(dialect, "do_commit", commit)
            ours = connection.dbapi_connection.execute(
                "SELECT pg_current_xact_id()::text::bigint"
            ).fetchone()[0]
            server.crash()
            server.start()
            with psycopg.connect(server.uri, autocommit=True) as other:
                while given == "again" and next_number(other) < ours:
                    pass
            commit(connection)

        monkeypatch.setattr(dialect, "do_commit", crash)
        with pytest.raises(StoreBusyError):
            database.write(write)

        assert letters(database) == 1
        assert database.write(write) == "done"
        assert letters(database) == 2
    finally:
        database.close()
        server.close()


def test_marks_of_processes_that_are_gone_are_cleared_away(database, clock):
    database.write(write)
    clock.advance(2 * 86_400)
    another = Database(database.url, clock=clock)
    another.write(write)
    another.write(write)
    another.close()

    with database.read() as connection:
        assert connection.execute(text("SELECT number FROM commits")).scalars().all() == [2]


@pytest.mark.parametrize("committed", [True, False])
def test_a_book_tells_each_change_once_whatever_became_of_the_answer(database, clock, monkeypatch, committed):
    book = OrderBook(database, clock=clock)
    lose_the_answer(database, monkeypatch, committed=committed)
    for word in LIFE:
        book.on_observation(observed(update(word)))

    told = list(book.commit() or [])
    clock.advance(10)
    told += book.commit() or []

    changes = [event.data for event in told if event.type == "eOrderChanged"]
    assert [change.sequence for change in changes] == [1, 2, 3, 4]
    with database.read() as connection:
        assert connection.execute(text("SELECT sequence FROM outbox ORDER BY sequence")).scalars().all() == [
            1,
            2,
            3,
            4,
        ]
