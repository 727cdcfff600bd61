"""Measures what monitoring costs on the hot path: the same updates with and without everything that watches.

    python bench/monitoring.py [--rounds 9] [--updates 8192]

Both ways run the real engine and order book on SQLite (WAL, synchronous=FULL): an update put is joined, committed and
told to one handler. The watched way adds all of monitoring: the latencies of each change, the watchdog once a second on
its lane, writing and reading the database, and a scrape of `/metrics` every second (Prometheus asks every 5 to 15). The
ways take turns; the figure is the median of the rounds' ratios of processor time, so that a busy machine does not judge.
A second measure leaves the database out: what one change costs in the engine alone. Gate: 5 % of the whole path.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from journal import updates

from orderwire import logs
from orderwire.clock import SystemClock
from orderwire.config import Settings
from orderwire.core.events import Event, EventType
from orderwire.core.health import FleetHealth, WebHealth
from orderwire.core.latency import Stamps
from orderwire.core.lifecycle import OrderChange
from orderwire.engine import EventEngine
from orderwire.monitoring.metrics import Disk, Sources
from orderwire.monitoring.station import Station
from orderwire.store.book import OrderBook
from orderwire.store.database import Database

GATE = 0.95


def station(engine: EventEngine, database: Database, book: OrderBook, folder: Path) -> Station:
    return Station(
        Sources(
            engine=engine,
            database=database,
            book=book,
            fleet=FleetHealth,
            web=WebHealth,
            market_open=lambda: True,
            market_near=lambda: True,
            disk=lambda: Disk(total=2, free=1),
            clock=SystemClock(),
            brokers=("zerodha", "jainam"),
        ),
        settings=Settings(data_dir=folder),
    )


@contextmanager
def scraped(watching: Station | None):
    """Scrape once a second, as long as the block lasts."""
    done = threading.Event()

    def scrape() -> None:
        while not done.wait(1.0):
            watching.exposition()

    thread = threading.Thread(target=scrape)
    if watching is not None:
        thread.start()
    yield
    done.set()
    if watching is not None:
        thread.join()


def run(events: Callable[[], list[Event]], wanted: int, *, watched: bool, stored: bool) -> float:
    """Return the processor's seconds from the first put until all is told."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = Database(f"sqlite:///{folder / 'b.db'}", clock=SystemClock())
        database.migrate()
        engine = EventEngine(1)
        book = OrderBook(database, clock=SystemClock())
        told, done = [0], threading.Event()

        def count(_event: Event) -> None:
            told[0] += 1
            if told[0] == wanted:
                done.set()

        engine.register(EventType.ORDER_CHANGED, count)
        watching = station(engine, database, book, folder) if watched else None
        if watching is not None:
            watching.attach(engine)
        if stored:
            book.attach(engine)
        given = events()
        engine.start()
        with scraped(watching):
            began = time.process_time()
            for event in given:
                engine.put(event)
            if not done.wait(300):
                raise SystemExit(f"only {told[0]} of {wanted} were told")
            seconds = time.process_time() - began
        engine.stop(5)
        database.close()
        return seconds


def compare(name: str, events: Callable[[], list[Event]], wanted: int, *, rounds: int, stored: bool) -> float:
    ratios, rates = [], []
    for number in range(rounds):
        ways = (False, True) if number % 2 else (True, False)
        took = {way: run(events, wanted, watched=way, stored=stored) for way in ways}
        ratios.append(took[False] / took[True])
        rates.append((took[True] - took[False]) / wanted * 1e6)
    ratio = median(ratios)
    print(
        f"{name}: x{ratio:.3f} of unwatched per second of the processor "
        f"(rounds {min(ratios):.3f} to {max(ratios):.3f}), adds {median(rates):.1f} us to each"
    )
    return ratio


def changed(count: int) -> list[Event]:
    now = time.time_ns()
    stamps = Stamps(received=now, queued=now, joined=now, committed=now)
    change = OrderChange(account="a", epoch="e", sequence=1, event_id="1", kind="order", stamps=stamps)
    return [Event(EventType.ORDER_CHANGED, change) for _ in range(count)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--updates", type=int, default=8192)
    asked = parser.parse_args()
    logs.set_up(level="WARNING")
    print(f"Python {platform.python_version()}, {asked.rounds} rounds, {asked.updates} updates")
    many = asked.updates * 64

    def observed() -> list[Event]:
        return [Event(EventType.ORDER_UPDATE, update) for update in updates(asked.updates)]

    path = compare(
        "update put, joined, committed, told", observed, asked.updates, rounds=asked.rounds, stored=True
    )
    bare = compare(
        "change told, engine alone", lambda: changed(many), many, rounds=asked.rounds, stored=False
    )
    print(
        f"gate: at least x{GATE} on the whole path: {'kept' if path >= GATE else 'BROKEN'} (the engine alone: x{bare:.3f})"
    )
    return 0 if path >= GATE else 1


if __name__ == "__main__":
    sys.exit(main())
