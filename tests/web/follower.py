"""A client on bare sockets that is cut off at any moment and comes back, to whichever web process, with the cursor it has."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

from web.test_realtime import Mute, raw_socket

PATIENCE = 60.0
"""Seconds: who has ten thousand executions is given all of them, on a machine that does more than that."""

_NUMBERED = {"snapshot", "order_update", "trade_update", "position_update"}


class Follower:
    """Follows one account; every change it is told must follow the one before."""

    def __init__(self, urls: list[str], key: str, account: str, chance: Random) -> None:
        self.urls, self.key, self.account, self.chance = urls, key, account, chance
        self.rows: dict[str, dict[str, Any]] = {}
        self.cursor: dict[str, Any] = {}
        self.taken = self.snapshots = 0

    def live_a_while(self, *, events: int) -> None:
        """Connect, follow, take so many events, acknowledge some of them, and go without a word."""
        with self._connected() as socket:
            mute = Mute(socket, self.key, patience=PATIENCE)
            mute.ask(self.cursor)
            for _ in range(events):
                self._take(mute)

    def catch_up(self, sequence: int) -> None:
        """Follow until a change of this number, or a later one, is known."""
        with self._connected() as socket:
            mute = Mute(socket, self.key, patience=PATIENCE)
            mute.ask(self.cursor)
            while self.cursor.get(self.account, {}).get("sequence", -1) < sequence:
                self._take(mute)

    def _connected(self) -> Any:
        return raw_socket(SimpleNamespace(url=self.chance.choice(self.urls)))

    def _take(self, mute: Mute) -> None:
        number, name, payload = mute.event()
        if name in _NUMBERED and payload["account"] == self.account:
            self._apply(name, payload)
        if self.chance.random() < 0.8 and number >= 0:
            mute.acknowledge(number)

    def _apply(self, name: str, payload: dict[str, Any]) -> None:
        if name == "snapshot":
            self.snapshots += 1
            self.rows = {row["row"]: row for row in payload["orders"]}
        else:
            assert payload["previous"] == self.cursor[self.account]["sequence"]
            assert payload["sequence"] > payload["previous"]
            if name == "order_update":
                self.rows[payload["row"]] = payload
        self.taken += 1
        self.cursor = {self.account: {"epoch": payload["epoch"], "sequence": payload["sequence"]}}
