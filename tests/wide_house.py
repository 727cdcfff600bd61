"""The house of `house.py` as several processes: two feeds workers, two web workers, a real PostgreSQL and a real Redis."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

from cluster import PATIENCE, Cluster, new_database, postgres_server
from house import House, eventually, free_port
from orderwire.config import Settings
from orderwire.service import open_records
from orderwire.web import operations
from redis_server import RedisServer

FEEDS, WEBS = ("f1", "f2"), ("w1", "w2")


class Workers(Cluster):
    """The processes of a cluster alone: people and brokers are the house's."""

    def __init__(self, folder: Path, settings: Settings) -> None:  # no cluster of its own is made
        self.folder, self.settings = folder, settings
        self.database = str(settings.database_url)
        self.processes, self.ports, self.accounts = {}, {}, []

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)


class WideHouse(House):
    """Used as a house is; its pages are at `urls`, and what an operator orders reaches the workers by the database."""

    def __init__(self, folder: Path, *, server: str, redis: RedisServer, **options: Any) -> None:
        self.redis = redis
        self._database = new_database(server, "wide")
        self._ports = {name: free_port() for name in (*FEEDS, *WEBS)}
        self._starter = ThreadPoolExecutor(1)
        """Starts every worker: one ends when the thread that started it does."""
        super().__init__(folder, **options)
        self.workers = Workers(folder, self.settings)
        self._records = open_records(self.settings)
        self._office = self._records.office()

    def _shared(self) -> dict[str, Any]:
        return {"database_url": self._database, "redis_url": self.redis.url}

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{self._ports[name]}" for name in WEBS]

    def start(self) -> None:
        for name in (*FEEDS, *WEBS):
            self.start_one(name)
        for name in (*FEEDS, *WEBS):
            self.workers.await_health(name)

    def start_one(self, name: str) -> None:
        """Start a worker at the port it had before; returns at once."""
        role = "feeds" if name in FEEDS else "web"
        self._starter.submit(self.workers.start, role, name, port=self._ports[name]).result()

    def command(self, name: str, **arguments: Any) -> Any:
        return operations.perform(self._office, name, arguments)

    def freshness(self, account: str) -> str:
        return {row["id"]: row["freshness"] for row in self.command("accounts.list")}.get(account) or ""

    def await_freshness(self, account: str, wanted: str, *, within: float = PATIENCE) -> None:
        super().await_freshness(account, wanted, within=max(within, PATIENCE))

    def whole_again(self, *accounts: str) -> None:
        """Start whoever is missing, and wait until these accounts are LIVE by the word of an owner that lives."""
        for name in (*FEEDS, *WEBS):
            if name not in self.workers.processes:
                self.start_one(name)
                self.workers.await_health(name)
        eventually(
            lambda: {self.workers.freshness().get(account) for account in accounts} == {"LIVE"},
            within=PATIENCE,
            what="LIVE accounts",
        )

    def log(self) -> str:
        return "".join(self.workers.log(name) for name in self.workers.ports)

    def close(self) -> None:
        self._records.database.close()
        self.workers.close()
        self._starter.shutdown()
        self.sims.stop()

    @contextlib.contextmanager
    def dying(self, *, every: float, seed: int = 1) -> Iterator[list[str]]:
        """Kill one worker after the other until the block ends, each up again before the next; gives who died."""
        died: list[str] = []
        over, chance = threading.Event(), Random(seed)

        def run() -> None:
            turn = 0
            while not over.wait(every * (0.5 + chance.random()) if turn else 0):
                name = chance.choice(FEEDS if turn % 2 == 0 else WEBS)
                self.workers.kill(name)
                died.append(name)
                self.start_one(name)
                self.workers.await_health(name)
                turn += 1

        with ThreadPoolExecutor(1) as pool:
            killing = pool.submit(run)
            try:
                yield died
            finally:
                over.set()
                killing.result()


@contextlib.contextmanager
def running_wide_house(folder: Path, **options: Any) -> Iterator[WideHouse]:
    """A house of several processes that is up and logged in; closed at the end."""
    with postgres_server() as server:
        redis = RedisServer().start()
        try:
            house = WideHouse(folder, server=server, redis=redis, **options)
            try:
                house.start()
                house.log_in()
                yield house
            finally:
                house.close()
        finally:
            redis.close()
