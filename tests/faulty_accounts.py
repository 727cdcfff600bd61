"""Accounts under weather: each trades through the running service while one thing goes wrong at its broker.

The oracle is the broker's own book: what its orders are once nothing more happens there. The page must come to equal it
whatever goes wrong.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar, Self

from house import House, eventually
from orderwire.client import OrderStream
from orderwire.errors import OrderwireError

SOON, LATER = 5.0, 10.0
"""Seconds: a loss on a stream that lives; a stream, a login or a broker that has to come back."""
WAIT = 120.0
"""Seconds after which a page that still differs is wrong, however busy the machine is."""
RESTS = {"OPEN", "PARTIALLY_FILLED", "TRIGGER_PENDING", "FILLED", "CANCELLED", "REJECTED", "EXPIRED"}
"""The stages in which the broker's own order stays until somebody acts."""


@dataclass(frozen=True, kw_only=True)
class Weather:
    """What goes wrong at one account, and the seconds within which its page is right again."""

    name: str
    faults: tuple[tuple[str, dict[str, Any]], ...]
    within: float = SOON
    addresses: dict[str, str] = field(default_factory=dict)
    login_needed: bool = False
    """The account's login ends: its user logs in again once the page asks for it."""
    postbacks: bool = True
    """The broker sends this account's postbacks, where it has any."""
    held: tuple[str, ...] = ()
    """Stages in which the exchange holds its orders, until all are placed."""
    frames: tuple[str, ...] = ()
    """What the broker's stream says besides."""


def weather(name: str, *faults: tuple[str, dict[str, Any]], **more: Any) -> Weather:
    return Weather(name=name, faults=faults, **more)


class Page:
    """What one user's page shows, followed as a program would."""

    def __init__(self, house: House, user: str) -> None:
        self._stream = OrderStream(house.url, apikey=house.keys[user])
        self._orders: dict[tuple[str, str], dict[str, Any]] = {}
        self.moved = threading.Condition()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._stream.connect()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._thread.join(10)

    def _follow(self) -> None:
        while (event := self._stream.next()) is not None:
            orders = event.fields["orders"] if event.kind == "snapshot" else [event.fields]
            if event.kind not in {"snapshot", "order"}:
                continue
            with self.moved:
                for order in orders:
                    self._orders[order["account"], order["row"]] = order
                self.moved.notify_all()

    def shown(self, account: str) -> dict[str, tuple[Any, ...]]:
        """Every order of an account that the broker has, by its number: all that must equal the broker's book."""
        return {
            order["orderid"]: (
                order["status"],
                order["filled_quantity"],
                Decimal(str(order["average_price"])).quantize(Decimal("0.01")),
                order["quantity"],
                Decimal(str(order["price"])).quantize(Decimal("0.01")),
                order["pending_modify"] or order["pending_cancel"],
            )
            for (owner, _), order in list(self._orders.items())
            if owner == account and order["orderid"]
        }


class Trader(ABC):
    """An account under its own weather: its orders go through the service, their fate lies with the exchange."""

    broker: ClassVar[str]
    """As the simulators call it."""

    def __init__(self, house: House, number: int, conditions: Weather) -> None:
        self.house, self.weather = house, conditions
        self.account = f"fault-{self.broker}-{number}"
        self.client = ""
        """The client's id at the broker."""
        self.logins = 0
        """How often the user had to log in again."""

    @abstractmethod
    def join(self) -> None:
        """Open the account at the broker and in the service, and log in."""

    def log_in(self) -> None:
        """Log in, as the user does when the page asks for it."""
        raise NotImplementedError

    def await_login(self) -> None:
        """Wait for the page to ask for a login, and log in."""
        self.house.await_freshness(self.account, "AUTH_REQUIRED", within=WAIT)
        self._log_in_again()

    def _log_in_again(self) -> None:
        self.logins += 1
        self.log_in()

    def go_wrong(self) -> None:
        for kind, fields in self.weather.faults:
            whose = {} if kind == "boolean_type" else {"user": self.client}
            self.house.sims.ask("POST", "/faults", {"kind": kind, "broker": self.broker, **whose, **fields})
        if self.weather.held:
            self._hold(self.weather.held)

    def _hold(self, stages: Sequence[str]) -> None:
        self.house.sims.ask("POST", "/market/freeze", {"stages": list(stages), "user": self.client})

    def trade(self) -> float:
        """Buy at the market; have one order filled in part, change one and cancel it. Returns when all was done."""
        self._place(quantity=10, order_type="MARKET")
        partly, other = self._place(quantity=9, price="815"), self._place(quantity=7, price="814")
        if self.weather.held:
            eventually(
                lambda: {order["stage"] for order in self.truths()} <= {*self.weather.held},
                what="held orders",
            )
            self._hold(())
        if partly is not None and self._rests(partly):
            self._fill(partly, 4)
            self._fill(partly, 1)
        if other is not None and self._rests(other):
            self._modify(other, quantity=8, price="813.5")
            self._cancel(other)
        eventually(
            lambda: not any(map(self._moving, self.truths())),
            within=WAIT,
            what=f"{self.weather.name}: all orders rest",
        )
        return time.monotonic()

    def truths(self) -> list[dict[str, Any]]:
        return self.house.sims.ask("GET", f"/orders?broker={self.broker}&user={self.client}")

    def book(self) -> dict[str, tuple[Any, ...]]:
        return {
            order["order_id"]: (
                order["stage"],
                order["filled"],
                Decimal(order["average"]).quantize(Decimal("0.01")),
                order["quantity"],
                Decimal(order["price"]).quantize(Decimal("0.01")),
                False,
            )
            for order in self.truths()
        }

    def _place(self, **terms: Any) -> str | None:
        known = {order["order_id"] for order in self.truths()}
        order = {"symbol": "SBIN", "exchange": "NSE", "side": "BUY", "product": "MIS", "order_type": "LIMIT"}
        with suppress(OrderwireError):  # the weather; what became of it is in the broker's book
            self._command("orders.place", order=order | terms)
        new = [order["order_id"] for order in self.truths() if order["order_id"] not in known]
        return new[0] if new else None

    def _command(self, name: str, **arguments: Any) -> None:
        """Order something, logging in first where the page asks for it."""
        if self.weather.login_needed and self.house.freshness(self.account) == "AUTH_REQUIRED":
            self._log_in_again()
        self.house.command(name, account=self.account, **arguments)

    def _truth(self, order_id: str) -> dict[str, Any]:
        return next(order for order in self.truths() if order["order_id"] == order_id)

    def _moving(self, order: dict[str, Any]) -> bool:
        return order["stage"] not in RESTS

    def _rests(self, order_id: str) -> bool:
        eventually(lambda: not self._moving(self._truth(order_id)), within=WAIT)
        return self._truth(order_id)["stage"] in {"OPEN", "PARTIALLY_FILLED"}

    def _fill(self, order_id: str, quantity: int) -> None:
        uid = f"{self.broker}:{order_id}"
        self.house.sims.ask("POST", "/market/fill", {"uid": uid, "quantity": quantity})

    def _modify(self, order_id: str, **terms: Any) -> None:
        self._act(
            order_id,
            "orders.modify",
            order={"order_id": order_id, "order_type": "LIMIT", "product": "MIS", **terms},
        )

    def _cancel(self, order_id: str) -> None:
        self._act(order_id, "orders.cancel", order_id=order_id)

    def _act(self, order: str, command: str, /, **arguments: Any) -> None:
        """Act on an order once the service knows it: under some weathers it learns of it from the book alone."""

        def acted() -> bool:
            try:
                self._command(command, **arguments)
            except OrderwireError as error:
                if "There is no order" in str(error):
                    return False
            return True

        eventually(acted, within=WAIT)
        eventually(lambda: not self._moving(self._truth(order)), within=WAIT)


@contextmanager
def faulty_house(
    folder: Any, *, settings: dict[str, Any] | None = None, xts_settings: dict[str, Any] | None = None
) -> Iterator[House]:
    house = House(folder, reply_ms=5, push_ms=5)
    try:
        house.sims.ask("PATCH", "/settings", settings or {})
        house.sims.ask("PATCH", "/xts/settings", xts_settings or {})
        house.sims.ask("POST", "/market/price", {"key": "NSE:SBIN", "price": "820"})
        house.start()
        yield house
    finally:
        house.close()


def seconds_until_equal(page: Page, trader: Trader, done: float) -> float:
    """Wait until the page shows the broker's book; returns how long after the last event there that was."""
    if trader.weather.login_needed and not trader.logins:
        trader.await_login()
        done = time.monotonic()
    truth = trader.book()
    with page.moved:
        equal = page.moved.wait_for(lambda: page.shown(trader.account) == truth, timeout=WAIT)
    assert equal, f"{trader.weather.name}: shown {page.shown(trader.account)}, the broker has {truth}"
    return time.monotonic() - done


def unstruck_faults(house: House) -> list[dict[str, Any]]:
    """The switches that should have struck and did not: their weather was fair."""
    return [
        fault
        for fault in house.sims.ask("GET", "/faults")
        if not fault["struck"] and fault["probability"] == 1
    ]


def weathered(house: House, user: str, traders: Sequence[Trader]) -> dict[str, float]:
    """Let everybody trade in their weather; the seconds after which each page equalled the broker's book, by weather."""
    for trader in traders:
        trader.join()
    for trader in traders:
        house.await_freshness(trader.account, "LIVE", within=WAIT)
    for trader in traders:
        trader.go_wrong()
    with Page(house, user) as page, ThreadPoolExecutor(4) as pool:
        took = list(pool.map(lambda trader: seconds_until_equal(page, trader, trader.trade()), traders))
    return {trader.weather.name: round(each, 1) for trader, each in zip(traders, took, strict=True)}


def told(title: str, seconds: dict[str, float]) -> str:
    """The figure of such a run, in words."""
    worst = sorted(((each, name) for name, each in seconds.items()), reverse=True)[:4]
    slowest = ", ".join(f"{name} {each} s" for each, name in worst)
    return f"{title}: the page equals the broker's book under all {len(seconds)}; slowest: {slowest}"
