from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import insert, make_url, text

from house import eventually, free_port
from orderwire.clock import SystemClock
from orderwire.core.events import Event
from orderwire.core.lifecycle import SubmissionState
from orderwire.core.orders import AccountId
from orderwire.errors import ConfigurationError
from orderwire.store import outbox, schema
from orderwire.store.accounts import Accounts
from orderwire.store.batch import Input
from orderwire.store.book import TAKEN, OrderBook
from orderwire.store.database import Database
from orderwire.store.leases import Leases, NotOwnerError, workers
from orderwire.store.submissions import submission_of
from store.making import FakeClock, observed, read, submission, update

A1 = AccountId("A1")
IN_ORDER = [f"A{n}" for n in range(1, 9)]
"""How the accounts are taken where none is liked better."""

Open = Callable[..., Leases]


def add_accounts(database: Database, *names: str) -> None:
    rows = [
        {
            "id": name,
            "broker": "zerodha",
            "title": name,
            "owner": "asha",
            "addresses": "{}",
            "allow_plaintext": 0,
            "app": "",
            "postback_segment": name,
            "created_ns": 0,
        }
        for name in names
    ]
    user = {"name": "asha", "password": "", "role": "trader", "disabled": 0, "created_ns": 0}

    def work(connection):
        connection.execute(insert(schema.users), user)
        connection.execute(insert(schema.accounts), rows)

    database.write(work)


@pytest.fixture
def open_worker(shared: str, clock: FakeClock) -> Iterator[Open]:
    """Opens a process of its own as far as the database can tell: connections and leases."""
    opened: list[Database] = []

    def open_it(name: str, **options: float) -> Leases:
        database = Database(shared, clock=clock)
        opened.append(database)
        leases = Leases(database, name, **options)
        leases.enter(role="feeds", place="here:1", version="1")
        leases.database = database
        return leases

    yield open_it
    for database in opened:
        database.close()


@pytest.fixture
def first(open_worker: Open) -> Leases:
    worker = open_worker("w1")
    add_accounts(worker.database, *(f"A{number}" for number in range(1, 9)))
    return worker


def book_of(leases: Leases, clock: FakeClock) -> OrderBook:
    return OrderBook(leases.database, clock=clock, tenure=leases)


def run_out(leases: Leases) -> None:
    """Let all that a worker owns run out, as the database's clock has it."""
    over = text("UPDATE workers SET expires_ns = 1 WHERE id = :me")
    leases._database.write(lambda connection: connection.execute(over, {"me": leases.worker}))


# --- who owns what ------------------------------------------------------------------------------------


def test_workers_that_take_at_once_share_without_overlap(first, open_worker):
    others = [first, *(open_worker(f"w{number}") for number in (2, 3, 4))]
    for _ in range(20):
        with ThreadPoolExecutor(4) as pool:
            taken = list(pool.map(lambda worker: worker.take(2), others))
        taken += [worker.take(8) for worker in others]  # who came too soon finds what nobody else took

        names = [name for one in taken for name in one]
        assert sorted(names) == [f"A{number}" for number in range(1, 9)]
        for worker, had in zip(others * 2, taken, strict=True):
            worker.release(had)


def test_those_of_the_lowest_rank_are_taken_first(first):
    taken = first.take(2, rank_of=lambda account: {"A2": 0, "A4": 1}.get(account, 2))

    assert set(taken) == {"A2", "A4"}


def test_a_renewal_that_came_too_late_is_counted(first, clock):
    first.take(8)

    first.renew()
    clock.advance(3)
    first.renew()
    in_time = first.lapses
    clock.advance(8.5)
    refused = first.token(A1)
    first.renew()

    assert (in_time, refused, first.lapses) == (0, None, 1)
    assert first.token(A1) is not None


def test_what_is_owned_is_not_taken_by_another(first, open_worker):
    first.take(8)

    assert open_worker("w2").take(8) == {}


def test_a_token_grows_with_every_change_of_hands(first, open_worker):
    second = open_worker("w2")
    before = first.take(1)[A1]
    first.release([A1])

    after = second.take(1)[A1]

    assert after > before
    assert second.token(A1) == after
    assert first.token(A1) is None


def test_a_lease_that_ran_out_is_taken_over_and_not_renewed_by_the_old_owner(first, open_worker):
    second = open_worker("w2")
    first.take(8)
    run_out(first)

    second.take(3)

    assert sorted(first.renew()) == sorted(set(first.held)) == sorted(IN_ORDER[3:])
    assert sorted(second.renew()) == sorted(IN_ORDER[:3])


def test_a_lease_that_ran_out_and_that_nobody_took_stays_with_its_token(first):
    token = first.take(1)[A1]
    run_out(first)

    assert first.renew() == {A1: token}


def test_the_database_ends_a_lease_by_its_own_clock(first, open_worker):
    short = open_worker("w2", ttl=0.05)
    short.take(8)

    taken = eventually(lambda: first.take(8), what="the leases ran out")

    assert len(taken) == 8


def test_an_owner_that_cannot_renew_stops_by_itself_before_the_lease_ends(first, clock):
    first.take(2)
    clock.advance(7.9)
    assert first.token(A1) is not None

    clock.advance(0.2)

    assert first.token(A1) is None
    assert first.held == {}


def test_renewing_makes_an_owner_that_stopped_go_on(first, clock):
    token = first.take(1)[A1]
    clock.advance(60)

    first.renew()

    assert first.token(A1) == token


def test_leaving_frees_everything_at_once(first, open_worker):
    second = open_worker("w2")
    first.take(8)

    first.leave()

    assert len(second.take(8)) == 8
    assert [worker.id for worker in workers(second.database)] == ["w2"]


def test_an_account_that_was_removed_is_nobodys_and_its_token_is_never_used_again(first, open_worker):
    second = open_worker("w2")
    old = first.take(1)[A1]
    Accounts(first.database, None).remove("A1")

    assert A1 not in first.renew()
    first.database.write(
        lambda connection: connection.execute(
            text(
                "INSERT INTO accounts SELECT 'A1', broker, title, owner, addresses, allow_plaintext, app, 'A1x',"
                " NULL, NULL, NULL, created_ns FROM accounts WHERE id = 'A2'"
            )
        )
    )
    assert second.take(1)[A1] > old


def test_the_situation_counts_accounts_workers_and_what_is_free(first, open_worker):
    second = open_worker("w2")
    second.draining = True
    second.renew()
    first.take(5)

    seen = first.situation()

    assert (seen.accounts, seen.free, seen.workers) == (8, 3, ("w1",))
    shown = {worker.id: (worker.live, worker.draining, worker.owns) for worker in workers(first.database)}
    assert shown == {"w1": (True, False, 5), "w2": (True, True, 0)}


def test_sqlite_cannot_be_shared_and_the_reason_is_said(clock, tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'a.db'}", clock=clock)
    try:
        with pytest.raises(ConfigurationError, match="belongs to one process"):
            Leases(database, "w1")
    finally:
        database.close()


# --- no stale write -----------------------------------------------------------------------------------


def test_an_owner_writes(first, clock):
    first.take(8)
    book = book_of(first, clock)

    book.on_observation(observed(update("open")))
    book.commit()

    assert [view.status for view in outbox.snapshot(first.database, A1).orders] == ["OPEN"]


def test_what_an_owner_staged_is_refused_once_another_took_over(first, open_worker, clock):
    second = open_worker("w2")
    first.take(8)
    stale, fresh = book_of(first, clock), book_of(second, clock)
    stale.on_observation(observed(update("filled")))  # staged by the old owner, which then sleeps
    run_out(first)
    second.take(8)
    fresh.on_observation(observed(read("open")))
    fresh.commit()

    assert stale.commit() is None  # it wakes up

    page = outbox.snapshot(second.database, A1)
    assert [view.status for view in page.orders] == ["OPEN"]
    assert page.sequence == 1
    assert stale.stale_writes == 1


def test_what_is_still_owned_is_written_though_its_neighbour_was_taken_over(first, open_worker, clock):
    second = open_worker("w2")
    first.take(2)
    stale = book_of(first, clock)
    stale.on_observation(observed(update("open", account="A1")))
    stale.on_observation(observed(update("open", account="A2")))
    run_out(first)
    second.take(1)

    changes = stale.commit()

    assert [event.data.account for event in changes] == ["A2"]
    assert outbox.snapshot(second.database, A1).orders == []
    assert stale.stale_writes == 1


def test_a_stranger_stages_nothing(first, clock):
    book = book_of(first, clock)

    book.on_observation(observed(update("open")))

    assert book.commit() is None
    assert book.stale_writes == 1


def test_a_submission_of_an_overtaken_owner_is_told_so_and_not_sent(first, open_worker, clock):
    first.take(8)
    book = book_of(first, clock)
    written = given_to(book, submission("OWTAG1"))
    run_out(first)
    open_worker("w2").take(8)

    book.commit()

    with pytest.raises(NotOwnerError):
        written.result(0)


def test_an_account_that_came_back_is_read_anew(first, open_worker, clock):
    """The old owner's memory is out of date: it must not be written over what the owner in between told."""
    second = open_worker("w2")
    first.take(1)
    mine, other = book_of(first, clock), book_of(second, clock)
    mine.on_observation(observed(update("open")))
    mine.commit()
    first.release([A1])
    second.take(1)
    other.on_observation(observed(update("part")))
    other.commit()
    second.release([A1])
    first.take(1)

    mine.on_observation(observed(update("open")))  # an old word, again
    mine.commit()

    view = outbox.snapshot(first.database, A1).orders[0]
    assert (view.status, view.filled_quantity) == ("PARTIALLY_FILLED", 4)


def test_what_the_last_owner_was_sending_is_in_doubt_with_the_next(first, open_worker, clock):
    second = open_worker("w2")
    first.take(1)
    sender = book_of(first, clock)
    given_to(sender, submission("OWTAG1"))
    sender.commit()
    run_out(first)
    second.take(1)
    book = book_of(second, clock)

    book.on_taken(Event(TAKEN, A1))
    book.commit()

    assert submission_of(second.database, "OWTAG1").state is SubmissionState.UNKNOWN


def test_nobody_takes_over_while_a_write_of_the_owner_is_under_way(first, open_worker):
    second = open_worker("w2")
    tokens = first.take(1)
    run_out(first)
    shown, go_on = threading.Event(), threading.Event()

    def slow_write(connection):
        assert first.stale(connection, tokens) == set()
        shown.set()
        assert go_on.wait(30)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(first.database.write, slow_write)
        assert shown.wait(30)
        during = second.take(8)
        go_on.set()
        writing.result(30)
    after = second.take(8)

    assert A1 not in during
    assert A1 in after


def test_taking_over_tells_those_who_asked_the_last_owner(first, open_worker):
    first.take(1)
    row = {
        "account": "A1",
        "kind": "place",
        "body": "secret",
        "reply": "",
        "asked_ns": 1,
        "deadline_ns": 2,
    }
    rows = [
        {**row, "id": "begun", "state": "TAKEN", "worker": "w1"},
        {**row, "id": "waits", "state": "WAITING", "worker": ""},
        {**row, "id": "done", "state": "DONE", "worker": "w1"},
    ]
    first.database.write(lambda connection: connection.execute(insert(schema.commands), rows))
    run_out(first)

    open_worker("w2").take(1)

    with first.database.read() as connection:
        states = dict(connection.execute(text("SELECT id, state FROM commands")).all())
    assert states == {"begun": "LOST", "waits": "WAITING", "done": "DONE"}


def given_to(book: OrderBook, said):
    future = Future()
    book.on_submission(Event("", Input(value=said, future=future)))
    return future


def test_a_process_that_comes_back_under_its_name_fences_the_one_before(first, open_worker, clock):
    first.take(8)
    before = book_of(first, clock)
    before.on_observation(observed(update("filled")))  # and then it sleeps
    again = open_worker("w1")

    held = again.renew()
    book = book_of(again, clock)
    book.on_observation(observed(read("open")))
    book.commit()

    assert sorted(held) == IN_ORDER
    assert before.commit() is None
    assert [view.status for view in outbox.snapshot(again.database, A1).orders] == ["OPEN"]


def test_a_worker_that_was_forgotten_signs_in_again(first):
    first.database.write(lambda connection: connection.execute(text("DELETE FROM workers")))

    first.renew()

    assert first.situation().workers == ("w1",)


# --- behind a pooler ----------------------------------------------------------------------------------


@pytest.fixture
def pooled(shared: str) -> Iterator[str]:
    """The same database behind PgBouncer in transaction mode, with fewer sessions than connections."""
    url, port = make_url(shared), free_port()
    folder = Path(tempfile.mkdtemp())  # pytest's own is closed to the user PgBouncer insists on
    folder.chmod(0o777)
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={url.query['host']} user={url.username}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 2\nmin_pool_size = 2\n"
        f"logfile = {folder / 'pgbouncer.log'}\n"
    )
    command = [shutil.which("pgbouncer") or "", str(settings)]
    if os.geteuid() == 0:
        command[1:1] = ["-u", Path(url.query["host"]).owner()]  # the server's socket is its own user's
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"postgresql+psycopg://{url.username}@127.0.0.1:{port}/{url.database}"
    try:
        eventually(
            lambda: answers(address),
            within=20,
            what=f"the pooler answers: {[path.read_text() for path in folder.glob('*.log')]}",
        )
        yield address
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


def answers(address: str) -> bool:
    try:
        with psycopg.connect(
            address.replace("+psycopg", ""), prepare_threshold=None, connect_timeout=3
        ) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.needs("pgbouncer")
def test_leases_and_the_book_work_behind_a_transaction_pooler(pooled, clock):
    databases = [Database(pooled, clock=clock) for _ in range(3)]
    try:
        add_accounts(databases[0], "A1", "A2", "A3")
        owners = [Leases(database, f"w{n}") for n, database in enumerate(databases)]
        for owner in owners:
            owner.enter(role="feeds", place="here:1", version="1")
            owner.take(1)
        books = [OrderBook(owner._database, clock=clock, tenure=owner) for owner in owners]
        for number in range(12):  # more often than after which a driver would prepare its statements
            for owner, book in zip(owners, books, strict=True):
                account = next(iter(owner.held))
                book.on_observation(
                    observed(update("open", account=account, order=f"26081700000{number:04}"))
                )
                assert len(book.commit()) == 1
                owner.renew()

        for owner, database in zip(owners, databases, strict=True):
            page = outbox.snapshot(database, next(iter(owner.held)))
            assert (page.sequence, len(page.orders)) == (12, 12)
    finally:
        for database in databases:
            database.close()


def test_two_owners_renew_and_write_at_once_and_nothing_deadlocks(shared):
    """Each renews all its leases while its book writes to some of them, in no particular order."""
    clock = SystemClock()
    databases = [Database(shared, clock=clock) for _ in range(2)]
    add_accounts(databases[0], *(f"A{n}" for n in range(1, 9)))
    owners = [Leases(database, f"w{n}") for n, database in enumerate(databases)]
    fake = FakeClock()
    try:
        for owner in owners:
            owner.enter(role="feeds", place="here:1", version="1")
            owner.take(4)

        def work(owner: Leases) -> int:
            book = OrderBook(owner._database, clock=fake, tenure=owner)
            for number in range(15):
                for account in sorted(owner.held, reverse=bool(number % 2)):
                    book.on_observation(
                        observed(update("open", account=account, order=f"26081700000{number:04}"))
                    )
                book.commit()
            return book.held_back

        def renew(owner: Leases) -> int:
            return min(len(owner.renew()) for _ in range(30))

        with ThreadPoolExecutor(4) as pool:
            written = [pool.submit(work, owner) for owner in owners]
            renewed = [pool.submit(renew, owner) for owner in owners]
            assert [one.result(60) for one in written] == [0, 0]
            assert [one.result(60) for one in renewed] == [4, 4]
        for owner in owners:
            assert {outbox.head(owner._database, account)[1] for account in owner.held} == {15}
    finally:
        for database in databases:
            database.close()
