"""A process that works with a store until it is killed at the boundary it was told."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event

from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import SubmissionState
from orderwire.core.orders import AccountId, OrderId
from orderwire.store import inbox
from orderwire.store.batch import Input
from orderwire.store.book import TAKEN, OrderBook
from orderwire.store.database import Database
from orderwire.store.leases import FEEDS, Leases
from orderwire.store.migrations import run as migrations
from store.making import LIFE, OPENED, FakeClock, ns, observed, read, submission, trade, update

BOUNDARIES = ("begin", "received", "inside", "commit", "committed", "told", "checkpoint", "any time")
ORDERS = 12
ACCOUNT = AccountId("A1")


class Fuse:
    """Ends the process the `at`-th time that `boundary` is reached."""

    def __init__(self, boundary: str, at: int) -> None:
        self.boundary, self.left = boundary, at

    def burn(self, boundary: str) -> None:
        if boundary == self.boundary:
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Journal:
    """What was promised to others, on disk before the process can die."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())


def story() -> list[Any]:
    """Everything that happens, in order: observations, our submissions, postbacks."""
    happened: list[Any] = []
    for number in range(ORDERS):
        order, tag = f"26081700000{number:04}", f"OWTAG{number}"
        happened.append(submission(tag))
        happened.append(submission(tag, state=SubmissionState.ACCEPTED, order_id=OrderId(order)))
        happened += [update(word, order=order, tag=tag) for word in LIFE]
        happened.append((order, f"postback {number}".encode()))
        happened += [trade("T1", order=order), read("filled", order=order, tag=tag)]
    return happened


def work(url: str, journal: str, boundary: str, at: int, owner: str = "") -> None:
    """Live the story in batches of three, telling the journal what was acknowledged and what was told.

    As `owner`, one of several workers, it takes the account first and shows its token inside every write.
    """
    fuse, told = Fuse(boundary, at), Journal(Path(journal))
    database = Database(url, clock=FakeClock())
    book = book_of(database, owner)
    _wire(database, fuse)
    if boundary == "any time":
        killer = threading.Timer(at / 1000, os.kill, (os.getpid(), signal.SIGKILL))
        killer.start()
    for number, happening in enumerate(story()):
        if isinstance(happening, tuple):
            _postback(database, happening, fuse, told)
        elif hasattr(happening, "request"):
            book.on_submission(Event(EventType.SUBMISSION, Input(value=happening)))
        else:
            book.on_observation(observed(happening))
        if number % 3 == 2:
            for event_ in book.commit() or []:
                if event_.type == EventType.ORDER_CHANGED:
                    told.write(f"told {event_.data.sequence} {event_.data.event_id}")
                    fuse.burn("told")
    book.commit()
    if boundary == "any time":
        killer.cancel()
    database.close()
    told.write("done")


def book_of(database: Database, owner: str = "") -> OrderBook:
    """The book of a process that has just started, or of a worker that has just taken the account."""
    if not owner:
        book = OrderBook(database, clock=database.clock)
        book.recover()
        return book
    leases = Leases(database, owner)
    leases.enter(role=FEEDS, place="here", version="1")
    assert leases.take(1).keys() == {ACCOUNT}
    book = OrderBook(database, clock=database.clock, tenure=leases)
    book.on_taken(Event(TAKEN, ACCOUNT))
    book.commit()
    return book


def _postback(database: Database, said: tuple[str, bytes], fuse: Fuse, told: Journal) -> None:
    order, body = said
    database.write(
        lambda connection: inbox.record(
            connection,
            account=ACCOUNT,
            order_id=OrderId(order),
            claimed_time="t",
            received_ns=ns(OPENED),
            raw=body,
        )
    )
    told.write(f"acknowledged {body.decode()}")
    fuse.burn("received")


def _wire(database: Database, fuse: Fuse) -> None:
    event.listen(database._writing, "begin", lambda _connection: fuse.burn("begin"))
    event.listen(database._writing, "commit", lambda _connection: fuse.burn("commit"))
    real: Callable[..., Any] = database.write

    def write(work_: Callable[[Connection], Any]) -> Any:
        def inside(connection: Connection) -> Any:
            result = work_(connection)
            fuse.burn("inside")
            return result

        result = real(inside)
        fuse.burn("committed")
        if fuse.boundary == "checkpoint":
            _checkpoint(database, fuse)
        return result

    database.write = write  # type: ignore[method-assign]


def _checkpoint(database: Database, fuse: Fuse) -> None:
    """Copy the log into the database while another thread ends the process a moment later."""
    if fuse.left == 0:
        threading.Timer(0.0002, os.kill, (os.getpid(), signal.SIGKILL)).start()
    connection = database._connection
    assert connection is not None
    for _ in range(50 if fuse.left == 0 else 1):
        connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    fuse.burn("checkpoint")


def migrate(url: str, statements: int) -> None:
    """Migrate an empty database and die after so many statements."""
    database = Database(url, clock=FakeClock())
    left = [statements]

    def after(*_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def upgrade(connection: Connection) -> None:
        event.listen(connection, "after_cursor_execute", after)
        migrations.upgrade(connection)

    database.write(upgrade)
    database.close()
