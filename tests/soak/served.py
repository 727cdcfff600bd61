"""The service as a soak runs it: under its own web server, watched from inside, fed by a market or by real brokers.

python tests/soak/served.py '{"folder": …}'    (see `Orders`)
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from orderwire import logs
from orderwire.brokers.registry import BrokerRegistry
from orderwire.config import Settings, load
from orderwire.core.events import Event, EventType
from orderwire.core.orders import AccountId, OrderId, OrderRequest, session_date
from orderwire.service import Service
from orderwire.serving import serve
from orderwire.store import outbox, retention
from soak.market import AHEAD, DayClock, Market, MarketAdapter, tick
from soak.vitals import Vitals, held, pages, tidy

PATIENCE = 180.0
WATCH_EVERY = 1.0
PLACED_A_DAY = 10
TIDY_EVERY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the process is told to do."""

    folder: str
    every: float = WATCH_EVERY
    """Seconds between two looks at what is used."""
    leak: int = 0
    """Bytes to lose for each order event delivered: a check that cannot see them is none."""
    days: int = 0
    """Virtual days to trade; 0: watch only, brokers are real."""
    events: int = 0
    """Observations of orders that the engine delivers on each day, at least."""
    ticks: int = 0
    """Timer ticks on each day, besides the timer's own."""
    accounts: tuple[str, ...] = ()
    seed: int = 0

    @property
    def vitals(self) -> Path:
        return Path(self.folder) / "vitals.jsonl"

    @property
    def night(self) -> Path:
        """Is there while the market sleeps, and says where every order ended."""
        return Path(self.folder) / "night.json"


@dataclass
class Tally:
    """Order observations delivered by the engine; counted on its dispatcher."""

    leak: int
    events: int = 0
    ticks: int = 0
    lost: bytearray = field(default_factory=bytearray)

    def order(self, _event: Event) -> None:
        self.events += 1
        if self.leak:
            self.lost += bytes(self.leak)

    def tick(self, _event: Event) -> None:
        self.ticks += 1


class Watched(Service):
    """The service, and a thread that writes down what it uses."""

    def __init__(self, settings: Settings, orders: Orders, **given: Any) -> None:
        super().__init__(settings, **given)
        self.orders = orders
        self.tally = Tally(orders.leak)
        self.vitals = Vitals(self, orders.vitals)
        self._over = threading.Event()
        self._writing = threading.Lock()  # guards the vitals' file

    def start(self) -> None:
        self.engine.register(EventType.ORDER_UPDATE, self.tally.order)
        self.engine.register(EventType.TIMER, self.tally.tick)
        super().start()
        threading.Thread(target=self._watch, name="soak-watch", daemon=True).start()

    def stop(self) -> None:
        self._over.set()
        super().stop()

    def note(self, kind: str, **facts: Any) -> None:
        with self._writing:
            self.vitals.write(kind, events=self.tally.events, ticks=self.tally.ticks, **facts)

    def _watch(self) -> None:
        """Look at what is used; every fourth time without the garbage that waits for its collector.

        A client that leaves is some 90 KB of it, and Python comes for the oldest when it is a quarter of all there is:
        that is no trend.
        """
        for number in count(1):
            if self._over.wait(self.orders.every):
                return
            self.note("watch")
            if number % TIDY_EVERY == 0 and not self.orders.days:
                tidy()
                self.note("tidy", held=held(), pages=pages())


class Traded(Watched):
    """The service on a market of its own: virtual days one after the other, each with a night."""

    def __init__(self, settings: Settings, orders: Orders) -> None:
        clock = DayClock(time.monotonic)
        self.floor = Market([AccountId(name) for name in orders.accounts], clock=clock, seed=orders.seed)
        adapter = type("Adapter", (MarketAdapter,), {"market": self.floor})
        super().__init__(
            settings,
            orders,
            clock=clock,
            chance=random.Random(orders.seed).random,
            brokers=BrokerRegistry(classes={adapter.name: adapter}),
        )
        self._chance = random.Random(orders.seed + 1)

    def start(self) -> None:
        self.engine.register(EventType.ORDER_UPDATE, self.floor.taken)
        super().start()
        threading.Thread(target=self._conduct, name="soak-conductor", daemon=True).start()

    def _conduct(self) -> None:
        try:
            _until(lambda: all(status.connected for status in self.fleet.statuses()))
            for day in range(1, self.orders.days + 1):
                self._trade_a_day(day)
            self.note("end")
        except Exception as error:  # the run is over, and says why
            self.note("failed", error=f"{type(error).__name__}: {error}")
            raise

    def _trade_a_day(self, day: int) -> None:
        for _ in range(PLACED_A_DAY):
            account = AccountId(self._chance.choice(self.orders.accounts))
            self.desk.place(account, OrderRequest(symbol="INFY", exchange="NSE", side="BUY", quantity=10))
        before = self.tally.events
        trading = self.floor.trade(
            lambda: (self.tally.events - before) / self.orders.events,
            tick=lambda: self.engine.put(tick()),
            ticks=self.orders.ticks,
            ahead=min(AHEAD, self.orders.events // 4),
        )
        self.loop.submit(trading).result()
        self.loop.submit(self.floor.close()).result()
        wrong = self._settle()
        stayed = self._send_home()
        self._turn_the_day()
        gone = retention.forget(self.records.database, before=session_date(self.clock.now()))
        tidy()
        self.note(
            "night", day=day, held=held(), pages=pages(), wrong=wrong[:5], stayed=stayed, forgotten=sum(gone.values()),
            said=self.floor.said, cuts=self.floor.cuts,
            reconnects=sum(status.reconnects for status in self.fleet.statuses()),
        )  # fmt: skip
        self.orders.night.unlink()

    def _settle(self) -> list[str]:
        """Have every book read once more; return what is then not as the broker has it."""
        for account in self.floor.books:
            self.fleet.refresh(account)
        differing = self.floor.truth()

        def agree() -> bool:
            nonlocal differing
            differing = {key: truth for key, truth in differing.items() if self._held(*key) != truth}
            return not differing

        with suppress(TimeoutError):
            _until(agree)
        return [f"{key}: {truth}, held as {self._held(*key)}" for key, truth in differing.items()]

    def _held(self, account: AccountId, order_id: OrderId) -> tuple[str, int] | None:
        held = self.book.current(account, order_id)
        return (held.status, held.filled_quantity) if held else None

    def _send_home(self) -> int:
        """Have the clients compare and leave; return how many would not."""
        self._announce()
        try:
            _until(lambda: not len(self.realtime.audience))
        except TimeoutError:
            stayed = len(self.realtime.audience)
            self.realtime.close()
            return stayed
        return 0

    def _turn_the_day(self) -> None:
        """Begin the next day, and wait until nothing of the last one is held: what is left is the service's own."""
        yesterday = list(self.floor.truth())
        self.loop.submit(_call(self.floor.turn)).result()
        for account in self.floor.books:
            self.fleet.refresh(account)
        self.engine.put(tick())
        _until(lambda: not any(self._held(*key) for key in yesterday))
        _until(lambda: self._rested() and not self.engine.statistics().depth)

    def _rested(self) -> bool:
        """Whether every feed has read its empty book since the day turned."""
        opened = self.clock.opened
        return all(
            status.read_at is not None and status.read_at >= opened for status in self.fleet.statuses()
        )

    def _announce(self) -> None:
        """Tell the clients that it is night, how far each account's log got, and where its orders ended on disk."""
        told = {}
        for account in self.floor.books:
            held = outbox.snapshot(self.records.database, account)
            rows = {row.order_id: (row.status, row.filled_quantity) for row in held.orders if row.order_id}
            told[account] = {"epoch": held.epoch, "sequence": held.sequence, "orders": rows}
        new = self.orders.night.with_suffix(".new")
        new.write_text(json.dumps(told))
        new.rename(self.orders.night)


async def _call(work: Callable[[], None]) -> None:
    work()


def _until(done: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)  # the pace of asking


def main() -> None:
    given = json.loads(sys.argv[1])
    orders = Orders(**given | {"accounts": tuple(given.get("accounts", ()))})
    settings = load()
    logs.set_up(level=settings.log_level, as_json=settings.log_json)
    kind = Traded if orders.days else Watched
    serve(settings, build=lambda settings: kind(settings, orders))


if __name__ == "__main__":
    main()
