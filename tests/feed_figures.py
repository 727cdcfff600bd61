"""What is measured of feeds against the running simulators: small sizes in the tests, large ones in bench/feeds.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from statistics import quantiles
from typing import Any

from feed_floor import Floor
from orderwire.core.events import EventType
from orderwire.core.orders import AccountId, Channel, OrderId
from orderwire.core.recovery import Freshness


def percentile(values: Iterable[float], per_cent: int) -> float:
    """The smallest value that so many per cent of the values do not exceed."""
    found = sorted(values)
    return found[0] if len(found) == 1 else quantiles(found, n=100, method="inclusive")[per_cent - 1]


def half_open(floor: Floor, account: AccountId) -> float:
    """Let the account's line go dead while it stays open; seconds from its last byte until the page knows."""
    line = f"{floor.broker(account)}-line"
    floor.sim.ask("POST", "/faults", kind="black_hole", broker=line, channel="wire", operation="frame")
    floor.until(lambda: floor.fleet.status(account).freshness is Freshness.DEGRADED)
    noticed = next(at for at, status in reversed(floor.statuses) if not status.connected)
    heard = floor.fleet.adapter(account).heard_at
    floor.sim.ask("DELETE", "/faults")
    floor.until(lambda: floor.fleet.status(account).freshness is Freshness.LIVE)
    return noticed - heard


def silent_loss(floor: Floor, accounts: Iterable[AccountId]) -> list[float]:
    """Lose the push of a fill on each account's healthy stream; seconds from the fill until our book has it."""
    orders = {account: floor.place(account) for account in accounts}
    for account, order_id in orders.items():
        floor.until(lambda a=account, o=order_id: floor.book.current(a, o))
    for channel in ("ws", "sio"):
        floor.sim.ask("POST", "/faults", kind="drop", channel=channel)
    filled_at = {}
    for account, order_id in orders.items():
        floor.fill(account, order_id, 10)
        filled_at[account] = floor.clock.monotonic()
    floor.until(
        lambda: all(floor.book.current(a, o).filled_quantity == 10 for a, o in orders.items()), seconds=30
    )
    floor.sim.ask("DELETE", "/faults")
    found = []
    for account, order_id in orders.items():
        told = floor.told[str(account), str(order_id)]
        found.append(next(at for at, view in told if view.filled_quantity == 10) - filled_at[account])
    return found


@dataclass
class Drop:
    """Every stream of a broker cut at one moment."""

    back: list[float]
    """Seconds until each account was LIVE again."""
    peak_100ms: int
    peak_second: int


def dropped_together(floor: Floor, broker: str, *, seconds: float = 120) -> Drop:
    """Cut all streams of a broker at once; the connects are counted on the wire, not by us."""
    cut, began = time.time(), floor.clock.monotonic()
    seen = len(floor.statuses)
    floor.sim.ask("POST", "/sockets/disconnect", broker=broker, user="", mode="abort")
    mine = {status.account for _, status in floor.statuses if floor.broker(status.account) == broker}

    def back() -> dict[str, float]:
        dropped, live = set(), {}
        for at, status in floor.statuses[seen:]:
            if not status.connected:
                dropped.add(status.account)
            elif status.account in dropped and status.freshness is Freshness.LIVE:
                live.setdefault(status.account, at - began)
        return live

    floor.until(lambda: len(back()) == len(mine), seconds)
    (line,) = [each for each in floor.sim.ask("GET", "/proxies") if each["name"] == f"{broker}-line"]
    dialled = [at for at in line["streams_at"] if at >= cut]
    return Drop(back=sorted(back().values()), peak_100ms=_peak(dialled, 0.1), peak_second=_peak(dialled, 1.0))


def _peak(moments: list[float], seconds: float) -> int:
    return max(sum(1 for at in moments if start <= at < start + seconds) for start in moments)


@dataclass
class Switching:
    """Real-time switched off and on under load."""

    switches: int = 0
    updates: int = 0
    """What the brokers' exchange did meanwhile."""
    returned: list[float] = field(default_factory=list)
    """Seconds the switch took to return."""
    socket_gone: list[float] = field(default_factory=list)
    """Seconds until the broker saw the connection end."""
    known: list[float] = field(default_factory=list)
    """Seconds until what the broker had at the moment of the switch was in our book."""
    passed_after: int = 0
    """Observations of a stream received after the switch was off and handed on all the same."""
    lost: list[str] = field(default_factory=list)
    """Where the book differs from the brokers' truth in the end."""


def switching(floor: Floor, *, switches: int, seed: int = 1) -> Switching:
    """Fill orders of every account without a pause and switch accounts off and on among it."""
    found, chance = Switching(), Random(seed)
    accounts = [account.profile.account for account in floor.accounts()]
    orders = {account: floor.place(account, quantity=50_000) for account in accounts}
    floor.until(lambda: all(floor.book.current(a, o) for a, o in orders.items()))
    streamed: list[Any] = []
    filled = dict.fromkeys(accounts, 0)
    trading = _Trading(orders=orders, filled=filled, streamed=streamed)
    floor.engine.register(
        EventType.ORDER_UPDATE,
        lambda event: streamed.append(event.data) if event.data.channel is Channel.STREAM else None,
    )
    over = threading.Event()

    def load() -> None:
        turn = Random(seed)
        while not over.is_set():
            account = turn.choice(accounts)
            floor.fill(account, orders[account], 1)
            filled[account] += 1
            found.updates += 1

    loader = threading.Thread(target=load)
    loader.start()
    try:
        for _ in range(switches):
            _switch_off_and_on(floor, chance.choice(accounts), trading, found)
    finally:
        over.set()
        loader.join()
    floor.until(floor.all_live)
    floor.until(lambda: not floor.differences(), seconds=15)
    found.lost = floor.differences()
    return found


@dataclass
class _Trading:
    """The load beside the switches: each account's order, what was filled of it, what streams said."""

    orders: dict[AccountId, OrderId]
    filled: dict[AccountId, int]
    streamed: list[Any]


def _switch_off_and_on(floor: Floor, account: AccountId, trading: _Trading, found: Switching) -> None:
    orders, filled, streamed = trading.orders, trading.filled, trading.streamed
    clock = floor.clock
    seen, had, began = len(streamed), filled[account], clock.monotonic()
    floor.fleet.set_push({account: False})
    found.returned.append(clock.monotonic() - began)
    off_at = clock.time_ns()
    floor.until(lambda: floor.book.current(account, orders[account]).filled_quantity >= had)
    found.known.append(clock.monotonic() - began)
    user, broker = floor.user(account), floor.broker(account)
    floor.until(lambda: not _sockets_of(floor, broker, user))
    found.socket_gone.append(clock.monotonic() - began)
    passed = [each for each in streamed[seen:] if each.account == account and each.received_ns > off_at]
    found.passed_after += len(passed)
    had = filled[account]
    floor.fleet.set_push({account: True})
    floor.until(lambda: floor.fleet.status(account).freshness is Freshness.LIVE)
    floor.until(lambda: floor.book.current(account, orders[account]).filled_quantity >= had)
    found.switches += 1


def _sockets_of(floor: Floor, broker: str, user: str) -> list[Any]:
    return [socket for socket in floor.sim.ask("GET", "/sockets")[broker] if user in socket.values()]


@dataclass
class Pace:
    """What reading the books cost in a while."""

    seconds: float
    accounts: int
    reads: int

    @property
    def per_account_hour(self) -> float:
        return self.reads / self.accounts / self.seconds * 3600


def pace(floor: Floor, seconds: float) -> Pace:
    """Count the reads of order books, by what was sent, over a while in which nothing happens."""
    before, began = _book_reads(floor), time.monotonic()
    threading.Event().wait(seconds)
    took = time.monotonic() - began
    return Pace(seconds=took, accounts=len(floor.accounts()), reads=_book_reads(floor) - before)


def _book_reads(floor: Floor) -> int:
    return floor.fleet.http.counts().get("order_book", 0)
