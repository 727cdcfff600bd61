"""The rollout rehearsed on a floor of accounts at the simulated brokers: stops, toggling under load, the guard."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from types import SimpleNamespace
from typing import Any

from feed_floor import Floor
from orderwire.brokers.registry import load_brokers
from orderwire.config import load
from orderwire.core.orders import Channel
from orderwire.core.rollout import STAGES, Draw, Rollout
from orderwire.pilot.conduct import Pilot
from orderwire.pilot.flags import DatabaseProvider, Flag
from orderwire.store.database import Database

WHY = {"who": "drill", "why": "rehearsal"}


def a_pilot(floor: Floor, database: Database | None = None, **settings: Any) -> Pilot:
    """Run the pilot's own machinery over the floor's feeds, as the service does."""
    accounts = [
        SimpleNamespace(
            id=account.profile.account, owner=f"owner-{account.profile.account}", broker=account.broker
        )
        for account in floor.accounts()
    ]
    pilot = Pilot(
        load(**settings),
        database=database or floor.database,
        brokers=load_brokers(),
        accounts=lambda: accounts,
        feeds=lambda: floor.fleet,
        depth=lambda: floor.engine.statistics().depth,
        clock=floor.clock,
    )
    pilot.attach(floor.engine)
    pilot.apply()
    return pilot


# --- shares ---------------------------------------------------------------------------------------------


@dataclass
class Shares:
    """How many of the users each stage let in, and whether the stages are nested."""

    users: int
    shares: dict[int, float]
    nested: bool

    @property
    def worst(self) -> float:
        """The largest distance of a share from its stage."""
        return max(abs(share - stage / 100) for stage, share in self.shares.items())


def shares(users: int) -> Shares:
    """Ask the flag for so many users at each stage, as the code does."""
    flag = Flag(DatabaseProvider())
    names = [f"trader-{number}" for number in range(users)]
    inside: list[set[str]] = []
    for stage in STAGES:
        flag.keep(Rollout(stage=stage))
        inside.append({name for name in names if flag.draw(name, "paisa") is Draw.IN})
    flag.close()
    nested = all(lower <= higher for lower, higher in pairwise(inside))
    return Shares(users, {stage: len(who) / users for stage, who in zip(STAGES, inside, strict=True)}, nested)


# --- toggling under load ----------------------------------------------------------------------------------


@dataclass
class Toggled:
    """What toggling found; the simulators' ledger is the oracle of what was lost."""

    toggles: int = 0
    fills: int = 0
    changes: int = 0
    """What the fills changed, as programs were told it: an order, its execution, the position."""
    seconds: float = 0.0
    passed_after: int = 0
    """Events of a stream that reached the engine though they were received after the stop had returned."""
    stopped_within: list[float] = field(default_factory=list)
    """Seconds from the command until no broker had a socket of ours left."""
    lost: list[Any] = field(default_factory=list)
    doubled: int = 0
    """Changes of an account that a handler saw twice, out of order, or not at all, by their numbers."""


def toggle(floor: Floor, pilot: Pilot, *, seconds: float, rate: float, every: float = 1.0) -> Toggled:
    """Kill and resume once in `every` seconds while orders fill `rate` times a second, in bursts of a thirtieth."""
    burst = max(round(rate / 30), 1)
    found, chance = Toggled(), Random(7)
    accounts = [account.profile.account for account in floor.accounts()]
    orders = {account: floor.place(account, quantity=50_000) for account in accounts}
    floor.until(lambda: all(floor.book.current(a, o) for a, o in orders.items()))
    streamed: list[Any] = []
    floor.engine.register(
        "eOrderUpdate",
        lambda event: streamed.append(event.data) if event.data.channel is Channel.STREAM else None,
    )
    numbers: dict[str, list[int]] = {}
    floor.engine.register(
        "eOrderChanged", lambda event: numbers.setdefault(event.data.account, []).append(event.data.sequence)
    )
    over = threading.Event()

    def load_it() -> None:
        due = time.monotonic()
        while not over.wait(max(due - time.monotonic(), 0)):
            account = chance.choice(accounts)
            floor.fill(account, orders[account], 1, times=burst)
            found.fills += burst
            due += burst / rate

    loader = threading.Thread(target=load_it)
    began = time.monotonic()
    loader.start()
    try:
        while time.monotonic() - began < seconds:
            _stop_and_go(floor, pilot, streamed, found, every=every)
    finally:
        over.set()
        loader.join()
    found.seconds = time.monotonic() - began
    floor.until(floor.all_live)
    floor.until(lambda: not floor.differences(), seconds=20)
    found.lost = floor.differences()
    found.doubled, found.changes = _doubled(numbers), sum(map(len, numbers.values()))
    return found


def over_by(moment: float) -> None:
    """Let the load go on until `moment` of the monotonic clock: it is the time itself that is wanted here."""
    threading.Event().wait(max(moment - time.monotonic(), 0))


def _stop_and_go(floor: Floor, pilot: Pilot, streamed: list[Any], found: Toggled, *, every: float) -> None:
    seen, began = len(streamed), time.monotonic()
    pilot.gate.kill(**WHY)
    off_at = floor.clock.time_ns()
    floor.until(lambda: not any(floor.sim.ask("GET", "/sockets").values()))
    found.stopped_within.append(time.monotonic() - began)
    over_by(began + every)
    found.passed_after += sum(update.received_ns > off_at for update in streamed[seen:])
    pilot.gate.resume(**WHY)
    over_by(time.monotonic() + every)
    found.toggles += 2


def _doubled(numbers: dict[str, list[int]]) -> int:
    """Count the changes whose number is not the one after the account's last."""
    return sum(later != earlier + 1 for told in numbers.values() for earlier, later in pairwise(told))
