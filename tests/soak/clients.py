"""Clients that come and go, read slowly, stop reading for a while, come back; each checks what it is told.

python tests/soak/clients.py '{"url": …, "keys": […], "folder": …, "count": …, "seed": …}'
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

PATIENCE = 90.0
LIVES = (3.0, 20.0)
"""Seconds a client stays."""
DEAF = 3.0
"""Seconds for which one stops reading; the server's patience is 10."""


class Night:
    """What the market says when it sleeps; None by day."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[float, dict[str, Any]] | None = None

    def told(self) -> dict[str, Any] | None:
        try:
            changed = self._path.stat().st_mtime
        except FileNotFoundError:
            return None
        if self._read is None or self._read[0] != changed:
            try:
                self._read = changed, json.loads(self._path.read_text())
            except FileNotFoundError:
                return None
        return self._read[1]


class Client:
    """One client after the other, of one user each; keeps its cursors when it comes back."""

    def __init__(self, url: str, keys: list[str], night: Night, counts: Counter[str], seed: int) -> None:
        self._url = url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
        self._keys = keys
        self._night = night
        self._counts = counts
        self._chance = random.Random(seed)
        self._key = ""
        self._accounts: list[str] = []
        self.cursors: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, dict[str, tuple[str, int]]] = {}
        self._read = 0

    async def run(self) -> None:
        while True:
            await self._until_morning()
            if not self._key or self._chance.random() < 0.4:
                self._begin_anew()
            try:
                async with connect(self._url, max_size=None, ping_interval=None, compression=None) as line:
                    await self._live(line)
            except (ConnectionClosed, OSError, TimeoutError):
                self._counts["cut off"] += 1
            await asyncio.sleep(self._chance.uniform(0.05, 0.5))

    async def _until_morning(self) -> None:
        while self._night.told() is not None:  # noqa: ASYNC110 - another process decides
            await asyncio.sleep(0.05)

    def _begin_anew(self) -> None:
        self._key = self._chance.choice(self._keys)
        self.cursors.clear()
        self._rows.clear()

    async def _live(self, line: ClientConnection) -> None:
        self._counts["connected"] += 1
        await self._say_hello(line)
        ending = time.monotonic() + self._chance.uniform(*LIVES)
        deaf = self._chance.random() < 0.2
        while time.monotonic() < ending and self._night.told() is None:
            await self._take(line, wait=0.2)
            if deaf and self._read > 300:
                deaf = False
                self._counts["deaf"] += 1
                await asyncio.sleep(DEAF)
        told = self._night.told()
        if told is not None and self._accounts:  # who was not yet in when night fell just goes
            await self._compare(line, told)

    async def _say_hello(self, line: ClientConnection) -> None:
        self._read = 0
        await asyncio.wait_for(line.recv(), PATIENCE)
        await line.send("40" + json.dumps({"apikey": self._key}))
        while not str(await asyncio.wait_for(line.recv(), PATIENCE)).startswith("40"):
            pass
        await line.send("421" + json.dumps(["follow", {"cursors": self.cursors}]))
        self._accounts = []

    async def _take(self, line: ClientConnection, *, wait: float) -> None:
        """Read one frame, if it comes soon enough."""
        try:
            frame = str(await asyncio.wait_for(line.recv(), wait))
        except TimeoutError:
            return
        if frame == "2":
            await line.send("3")
        elif frame.startswith("431["):
            self._accounts = json.loads(frame[3:])[0]["accounts"]
        elif frame.startswith("42"):
            number, _, rest = frame[2:].partition("[")
            name, fields = json.loads("[" + rest)
            self._learn(name, fields)
            self._read += 1
            if number:
                await line.send(f"43{number}[]")

    def _learn(self, name: str, fields: dict[str, Any]) -> None:
        if name == "feed_status":
            return
        self._counts[name] += 1
        account, cursor = fields["account"], self.cursors.get(fields["account"])
        if name == "snapshot":
            self._rows[account] = {
                row["orderid"]: (row["status"], row["filled_quantity"])
                for row in fields["orders"]
                if row["orderid"]
            }
        elif cursor is None or (cursor["epoch"], cursor["sequence"]) != (fields["epoch"], fields["previous"]):
            self._counts["gaps"] += 1
        elif name == "order_update":
            self._rows[account][fields["orderid"]] = (fields["status"], fields["filled_quantity"])
        self.cursors[account] = {"epoch": fields["epoch"], "sequence": fields["sequence"]}

    async def _compare(self, line: ClientConnection, told: dict[str, Any]) -> None:
        """Read on until the log's end as the night says it; then hold what the database holds."""
        deadline = time.monotonic() + PATIENCE
        while not self._accounts or any(
            self.cursors.get(account, {"sequence": -1})["sequence"] < told[account]["sequence"]
            for account in self._accounts
        ):
            if time.monotonic() > deadline:
                self._counts["late"] += 1
                return
            await self._take(line, wait=0.2)
        for account in self._accounts:
            held, there = self._rows.get(account, {}), told[account]["orders"]
            self._counts["compared"] += len(there)
            self._counts["wrong"] += sum(held.get(key) != tuple(ended) for key, ended in there.items())
            self._rows[account] = {key: held[key] for key in there if key in held}


async def main() -> None:
    given = json.loads(sys.argv[1])
    folder, counts = Path(given["folder"]), Counter[str]()
    night = Night(folder / "night.json")
    async with asyncio.TaskGroup() as tasks:
        for number in range(given["count"]):
            client = Client(given["url"], given["keys"], night, counts, given["seed"] * 1000 + number)
            tasks.create_task(client.run())
        while True:
            await asyncio.sleep(0.25)
            new = folder / "clients.new"
            new.write_text(json.dumps(counts))
            new.rename(folder / "clients.json")


if __name__ == "__main__":
    asyncio.run(main())
