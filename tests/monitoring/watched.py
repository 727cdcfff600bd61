"""A station over a real engine, book and database, with feeds and web that a test says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orderwire.config import Settings
from orderwire.core.health import FEED_COUNTS, FeedHealth, FleetHealth, WebHealth
from orderwire.core.orders import AccountId
from orderwire.core.recovery import Freshness
from orderwire.engine import EventEngine
from orderwire.monitoring.metrics import Disk, Sources
from orderwire.monitoring.station import Station
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from store.making import FakeClock


class Scene:
    """What the station sees, for a test to change."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.clock = FakeClock()
        self.database = Database(f"sqlite:///{folder / 'watched.db'}", clock=self.clock)
        self.database.migrate()
        self.engine = EventEngine(3600)
        self.book = OrderBook(self.database, clock=self.clock)
        self.feeds: list[FeedHealth] = []
        self.counts: dict[tuple[str, str], int] = {}
        self.web = WebHealth()
        self.market = True
        self.disk = Disk(total=100, free=50)
        self.bus: dict[tuple[str, str], int] = {}
        self.read_disk = lambda: self.disk
        self.station = Station(
            Sources(
                engine=self.engine,
                database=self.database,
                book=self.book,
                fleet=self.fleet,
                web=lambda: self.web,
                market_open=lambda: self.market,
                market_near=lambda: self.market,
                disk=lambda: self.read_disk(),  # noqa: PLW0108 - a test replaces it
                clock=self.clock,
                brokers=("wired",),
                version="9.9",
                bus=lambda: self.bus,
            ),
            settings=Settings(data_dir=folder, **settings),
        )
        self.book.attach(self.engine)
        self.station.attach(self.engine)

    def fleet(self) -> FleetHealth:
        counts = {("wired", what): 0 for what in FEED_COUNTS} | self.counts
        return FleetHealth(feeds=tuple(self.feeds), counts=counts, calls={("wired", "order_book"): 3})

    def look(self, seconds: int = 1) -> None:
        """Let so many seconds pass, with a look at the end of each and the dispatcher alive."""
        for _ in range(seconds):
            self.clock.advance(1)
            self.station.metrics.on_timer(None)
            self.station.watchdog.look()

    def raised(self) -> list[str]:
        return [alert.rule for alert in self.station.watchdog.raised]

    def metric(self, name: str, **labels: str) -> float:
        """One value as Prometheus would read it."""
        found = [
            sample.value
            for family in self.station.metrics.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert len(found) == 1, (name, labels, found)
        return found[0]


@contextmanager
def a_scene(folder: Path, **settings: Any) -> Iterator[Scene]:
    scene = Scene(folder, **settings)
    try:
        yield scene
    finally:
        scene.engine.stop(2)
        scene.database.close()


def feed(account: str = "acc", **facts: Any) -> FeedHealth:
    given = {"broker": "wired", "freshness": Freshness.LIVE, "since": datetime(2026, 8, 17, tzinfo=UTC)}
    return FeedHealth(account=AccountId(account), **given | facts)
