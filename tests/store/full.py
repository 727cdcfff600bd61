"""A process whose database lies on a file system of two megabytes, filled up by others and freed again."""

from __future__ import annotations

import errno
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from orderwire.core.events import EventType
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from store.making import FakeClock, observed, update

ORDERS = 40


def main(folder: Path) -> None:
    """Say what became of the observations that came while there was no room."""
    clock = FakeClock()
    database = Database(f"sqlite:///{folder / 'a.db'}", clock=clock)
    database.migrate()
    book = OrderBook(database, clock=clock)
    filler = folder / "filler"
    fill_up(filler)
    kinds = []
    for number in range(ORDERS):
        book.on_observation(observed(update("open", order=str(number))))
        kinds += [event.type for event in book.commit() or []]
    assert kinds == [EventType.ALERT], kinds  # held; nothing is told
    assert book.held_back == ORDERS
    filler.unlink()
    clock.advance(5)
    told = [event for event in book.commit() or [] if event.type == EventType.ORDER_CHANGED]
    assert [event.data.sequence for event in told] == list(range(1, ORDERS + 1))
    database.close()
    with closing(sqlite3.connect(folder / "a.db")) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        print("kept", plain.execute("SELECT count(*) FROM orders").fetchone()[0])


def fill_up(path: Path) -> None:
    """Write until there is no room for a single byte more."""
    with path.open("wb", buffering=0) as file:
        for size in (65536, 512, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC, error  # noqa: PT017 - the only error there may be


if __name__ == "__main__":
    main(Path(sys.argv[1]))
