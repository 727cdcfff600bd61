"""`kill -9` at every boundary of a commit: nothing acknowledged is lost, nothing told is untrue.

`make kills N=1000` says how many times (`ORDERWIRE_KILLS`, default 104), on SQLite and as many on PostgreSQL, where
another worker takes over; each is a process of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from orderwire.core.lifecycle import OrderChange
from orderwire.core.orders import AccountId, OrderUpdate, Trade
from orderwire.store import inbox, outbox
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from orderwire.store.leases import Leases
from store import child
from store.child import BOUNDARIES, ORDERS, story
from store.making import FakeClock, observed, update
from store.test_leases import add_accounts, run_out

KILLS = int(os.environ.get("ORDERWIRE_KILLS", "104"))
SHARED_KILLS = int(os.environ.get("ORDERWIRE_KILLS", "16"))
"""Of workers that own accounts on one PostgreSQL database."""

A1 = AccountId("A1")


def moments(boundary: str, kills: int = KILLS) -> list[int]:
    """Spread a boundary's share of the kills over the story."""
    place, reached = BOUNDARIES.index(boundary), ORDERS - 1 if boundary == "received" else 33
    return [1 + (7 * number + 5 * place) % reached for number in range(max(1, kills // len(BOUNDARIES)))]


@pytest.fixture(scope="module")
def nursery() -> Iterator[multiprocessing.context.BaseContext]:
    """Starts processes from one that has everything imported and no thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["store.child"])
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
        yield context


def live(nursery, target, *arguments: object) -> int | None:
    process = nursery.Process(target=target, args=arguments)
    process.start()
    process.join()  # a child that hangs is ended by the timeout of its test
    return process.exitcode


def states(database: Database) -> list[tuple[object, ...]]:
    query = text("SELECT order_id, trading_date, status, live, state FROM orders ORDER BY order_id")
    with database.read() as connection:
        return [tuple(row) for row in connection.execute(query)]


@pytest.fixture(scope="module")
def undisturbed(clock_of_module) -> list[tuple[object, ...]]:
    database = Database("sqlite://", clock=clock_of_module)
    database.migrate()
    book = OrderBook(database, clock=clock_of_module)
    tell(book)
    kept = states(database)
    database.close()
    return kept


@pytest.fixture(scope="module")
def clock_of_module():
    return FakeClock()


def tell(book: OrderBook) -> None:
    """Have the broker say everything again, as a reading of its books does."""
    for happening in story():
        if isinstance(happening, OrderUpdate | Trade):
            book.on_observation(observed(happening))
    book.commit()


@pytest.mark.timeout(max(600, 10 * KILLS))
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_kill_loses_nothing_that_was_acknowledged_and_tells_nothing_untrue(  # noqa: PLR0917 - fixtures
    nursery, tmp_path, clock, undisturbed, sqlite_file, boundary, record_property
):
    killed = 0

    for number, at in enumerate(moments(boundary)):
        path, journal = tmp_path / f"{number}.db", tmp_path / f"{number}.journal"
        path.write_bytes(sqlite_file)
        exit_code = live(nursery, child.work, f"sqlite:///{path}", str(journal), boundary, at)
        assert exit_code in {-signal.SIGKILL, 0}, (boundary, at)
        killed += exit_code == -signal.SIGKILL
        check(path, journal.read_text().splitlines() if journal.exists() else [], clock, undisturbed)

    record_property("figure", f"kill -9, {boundary}: {killed} processes killed, nothing lost, nothing untrue")
    assert killed >= len(moments(boundary)) * 3 // 4


def check(path: Path, journal: list[str], clock, undisturbed: list[tuple[object, ...]]) -> None:
    database = Database(f"sqlite:///{path}", clock=clock)
    check_what_is_left(database, journal, clock, undisturbed)
    database.close()
    plain = sqlite3.connect(path)
    assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    plain.close()


def check_what_is_left(
    database: Database, journal: list[str], clock, undisturbed: list[tuple[object, ...]], *, owner: str = ""
) -> None:
    """What is on disk is what was told and acknowledged; who comes next (`owner`: takes over) goes on from there."""
    held = outbox.snapshot(database, A1)
    stored = changes_after(database, held.epoch, 0)
    assert [change.sequence for change in stored] == list(range(1, held.sequence + 1))
    told = {line for line in journal if line.startswith("told ")}
    assert told <= {f"told {change.sequence} {change.event_id}" for change in stored}
    with database.read() as connection:
        kept = set(connection.execute(text("SELECT raw FROM inbox WHERE channel = 'postback'")).scalars())
    assert {line.removeprefix("acknowledged ").encode() for line in journal if "acknowledged" in line} <= kept
    assert page_of(stored) == sorted(held.orders, key=str)

    check_replay(database, clock)

    tell(child.book_of(database, owner))
    assert states(database) == undisturbed
    after = outbox.snapshot(database, A1)
    replayed = changes_after(database, after.epoch, held.sequence)
    assert held.epoch in {"", after.epoch}
    assert [change.sequence for change in replayed] == list(range(held.sequence + 1, after.sequence + 1))
    assert page_of(stored + replayed) == sorted(after.orders, key=str)


def changes_after(database: Database, epoch: str, sequence: int) -> list[OrderChange]:
    return outbox.changes_since(database, A1, epoch=epoch, sequence=sequence, most=10_000) or []


def page_of(changes) -> list[object]:
    """What a client shows that saw every change: a line that got our submission's name replaces the order's."""
    page = {}
    for change in changes:
        if change.order is not None:
            page.pop(change.order.order_id, None)
            page[change.order.row] = change.order
    return sorted(page.values(), key=str)


def check_replay(database: Database, clock) -> None:
    """Dedupe marks and states were committed together: what the inbox holds makes exactly the states that are there."""
    again = Database("sqlite://", clock=clock)
    again.migrate()
    book = OrderBook(again, clock=clock)
    for one in inbox.observations(database):
        book.on_observation(observed(one))
    book.commit()
    assert states(again) == states(database)
    again.close()


@pytest.mark.parametrize("statements", [0, 3, 11, 25])
def test_a_kill_during_the_migration_leaves_an_empty_database(nursery, tmp_path, clock, statements):
    url = f"sqlite:///{tmp_path / 'a.db'}"

    assert live(nursery, child.migrate, url, statements) == -signal.SIGKILL

    database = Database(url, clock=clock)
    with database.read() as connection:
        assert inspect(connection).get_table_names() == []
    assert database.migrate() is True
    database.close()


@pytest.mark.timeout(max(600, 10 * SHARED_KILLS))
@pytest.mark.parametrize("boundary", [boundary for boundary in BOUNDARIES if boundary != "checkpoint"])
def test_an_owner_of_several_that_is_killed_leaves_its_successor_everything_and_writes_nothing_more(  # noqa: PLR0917 - fixtures
    nursery, tmp_path, clock, undisturbed, postgres, boundary, record_property
):
    killed = 0

    for number, at in enumerate(moments(boundary, SHARED_KILLS)):
        journal = tmp_path / f"{number}.journal"
        database = Database(postgres.url, clock=clock)
        add_accounts(database, A1)
        exit_code = live(nursery, child.work, postgres.url, str(journal), boundary, at, "w1")
        assert exit_code in {-signal.SIGKILL, 0}, (boundary, at)
        killed += exit_code == -signal.SIGKILL
        former = as_it_was(database, "w1")
        run_out(former)
        lines = journal.read_text().splitlines() if journal.exists() else []
        check_what_is_left(database, lines, clock, undisturbed, owner="w2")
        check_that_nothing_stale_is_written(database, former, clock)
        database.close()
        postgres.empty()

    record_property(
        "figure",
        f"kill -9 of an owner on PostgreSQL, {boundary}: {killed} killed, nothing lost, nothing untrue, "
        "nothing written by a former owner",
    )
    assert killed >= len(moments(boundary, SHARED_KILLS)) * 3 // 4


def as_it_was(database: Database, worker: str) -> Leases:
    """A worker as it would go on if it had only slept: it believes in the token it had."""
    with database.read() as connection:
        token = connection.execute(text("SELECT token FROM leases WHERE account = 'A1'")).scalar_one()
    former = Leases(database, worker)
    former._held, former._safe_until = {A1: token}, float("inf")
    return former


def check_that_nothing_stale_is_written(database: Database, former: Leases, clock) -> None:
    before = (states(database), outbox.snapshot(database, A1).sequence)
    late = OrderBook(database, clock=clock, tenure=former)
    late.on_observation(observed(update("open", order="late")))
    assert not late.commit()
    assert late.stale_writes == 1
    assert (states(database), outbox.snapshot(database, A1).sequence) == before
