"""Measures the order book's commits: a batch in one transaction, beside one commit per event, and beside the ORM.

    python bench/journal.py [--rounds 9] [--updates 1024]

SQLite with WAL and synchronous=FULL in a temporary folder. Each way takes the same updates through the same join and
writes the same rows; the ways take turns, and a figure is the median of the rounds' ratios. Then eight threads write
beside each other, sharing commits and not. docs/decisions/0005-one-writer.md quotes it.
"""

from __future__ import annotations

import argparse
import platform
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import median

from _updates import LIFE, update
from sqlalchemy import Connection, Insert, insert
from sqlalchemy.orm import Session, registry

from orderwire.clock import SystemClock
from orderwire.core.events import Event, EventType
from orderwire.core.orders import IST, OrderUpdate
from orderwire.store import schema
from orderwire.store.book import OrderBook
from orderwire.store.database import Database

BATCH = 256
ACCOUNTS = 20
THREADS = 8
WRITES = 100


def updates(count: int) -> list[OrderUpdate]:
    """Return the lives of count / 4 orders, interleaved."""
    began = datetime.now(IST).replace(microsecond=0)
    return [
        update(f"A{order % ACCOUNTS}", f"26010500{order:07}", step=step, began=began)
        for step in range(len(LIFE))
        for order in range(count // len(LIFE))
    ]


class Orm:
    """Writes what a batch writes, through SQLAlchemy's ORM: a merge for each upsert, an object for each row."""

    def __init__(self) -> None:
        mapper = registry()
        self._classes = {}
        for table in (schema.orders, schema.inbox, schema.outbox):
            self._classes[table.name] = type(table.name.title(), (), {})
            mapper.map_imperatively(self._classes[table.name], table)

    def attach(self, database: Database) -> None:
        """Have every write of this database go through a session."""
        real = database.write

        def write(work: Callable[[Connection], object]) -> object:
            def through(connection: Connection) -> object:
                with Session(bind=connection, join_transaction_mode="rollback_only") as session:
                    result = work(_Through(session, self._classes))
                    session.flush()
                    return result

            return real(through)

        database.write = write


class _Through:
    """Looks like a connection to the batch; rows of mapped tables become objects of the session."""

    def __init__(self, session: Session, classes: dict[str, type]) -> None:
        self._session, self._classes = session, classes

    def execute(self, statement, rows=None):
        mapped = self._classes.get(statement.table.name) if isinstance(statement, Insert) else None
        if mapped is None:
            return self._session.connection().execute(statement, rows)
        for row in rows:
            made = mapped()
            for name, value in row.items():
                setattr(made, name, value)
            if mapped is self._classes["orders"]:
                self._session.merge(made)
            else:
                self._session.add(made)
        return None


def take(
    folder: Path, said: list[OrderUpdate], *, at_once: int, orm: Orm | None = None
) -> tuple[float, list[float]]:
    """Take the updates into a new database and return the seconds it took, and those of each commit."""
    database = Database(f"sqlite:///{folder / 'bench.db'}", clock=SystemClock())
    database.migrate()
    if orm is not None:
        orm.attach(database)
    book = OrderBook(database, clock=SystemClock())
    commits = []
    began = time.perf_counter()
    for start in range(0, len(said), at_once):
        for each in said[start : start + at_once]:
            book.on_observation(Event(EventType.ORDER_UPDATE, each))
        staged = time.perf_counter()
        told = book.commit() or []
        commits.append(time.perf_counter() - staged)
        assert len(told) == min(at_once, len(said) - start)
    seconds = time.perf_counter() - began
    database.close()
    return seconds, commits


def beside_each_other(folder: Path, *, shared: bool) -> tuple[float, int]:
    """Have eight threads write a hundred times each; return the seconds and the commits it took."""
    database = Database(f"sqlite:///{folder / 'threads.db'}", clock=SystemClock())
    database.migrate()
    alone = threading.Lock()
    row = {"at_ns": 1, "who": "bench", "what": "write", "detail": "{}"}

    def write() -> None:
        database.write(lambda connection: connection.execute(insert(schema.audit), row))

    def run() -> None:
        for _ in range(WRITES):
            if shared:
                write()
            else:
                with alone:
                    write()

    before = database.counts().commits
    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, commits = time.perf_counter() - began, database.counts().commits - before
    database.close()
    return seconds, commits


def in_new_folder(work: Callable[[Path], object]):
    with tempfile.TemporaryDirectory() as folder:
        return work(Path(folder))


def batches(rounds: int, count: int) -> None:
    said, orm = updates(count), Orm()
    ways = {
        "one commit per batch": lambda folder: take(folder, said, at_once=BATCH),
        "one commit per event": lambda folder: take(folder, said, at_once=1),
        "the ORM, per batch": lambda folder: take(folder, said, at_once=BATCH, orm=orm),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    waits: list[float] = []
    for _ in range(rounds):
        for name, way in ways.items():
            seconds, commits = in_new_folder(way)
            rates[name].append(len(said) / seconds)
            waits += commits if name == "one commit per batch" else []
    ours = rates["one commit per batch"]
    print(f"{count} updates of {count // len(LIFE)} orders, {ACCOUNTS} accounts, {rounds} rounds")
    for name, each in rates.items():
        ratio = median(own / other for own, other in zip(ours, each, strict=True))
        print(f"  {name:<22}{median(each):10,.0f} updates/s   ours {ratio:.1f} times")
    ordered = sorted(waits)
    p50, p99 = (ordered[int(len(ordered) * share)] * 1e3 for share in (0.5, 0.99))
    print(f"  commit of {BATCH} updates: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def threads(rounds: int) -> None:
    ratios, commits = [], []
    for _ in range(rounds):
        together, shared = in_new_folder(lambda folder: beside_each_other(folder, shared=True))
        apart, _ = in_new_folder(lambda folder: beside_each_other(folder, shared=False))
        ratios.append(apart / together)
        commits.append(shared)
    works = THREADS * WRITES
    print(
        f"{THREADS} threads, {works} writes: {median(commits):.0f} shared commits instead of {works}, {median(ratios):.1f} times as fast"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--updates", type=int, default=1024)
    asked = parser.parse_args()
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, synchronous=FULL")
    batches(asked.rounds, asked.updates)
    threads(asked.rounds)


if __name__ == "__main__":
    main()
