"""Many accounts of one process at the simulated brokers: the service's own feeds, book and database, no web."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import httpx2

from orderwire.brokers.adapter import AccountProfile, BrokerSession
from orderwire.brokers.registry import load_brokers
from orderwire.clock import SystemClock
from orderwire.core.events import EventType
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import AccountId, OrderId
from orderwire.core.recovery import Freshness
from orderwire.engine import EventEngine
from orderwire.feeds.desk import Desk
from orderwire.feeds.fleet import FeedAccount, Fleet, FleetTools
from orderwire.feeds.loop import FeedLoop
from orderwire.store.book import OrderBook
from orderwire.store.database import Database

APP = "floor"
"""The first of the apps: an api_key for every account, so that each has a budget of its own."""


class Simulator:
    """`brokersim serve` on free ports, and its control API."""

    def __init__(self, *, reply_ms: float = 30, push_ms: float = 20) -> None:
        command = [sys.executable, "-m", "brokersim", "serve"]
        command += ["--reply-ms", str(reply_ms), "--push-ms", str(push_ms)]
        command += ["--kite-port", "0", "--xts-port", "0", "--control-port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        ready = json.loads(self.process.stdout.readline())
        self.kite, self.xts = ready["kite"], ready["xts"]
        self._control = httpx2.Client(base_url=ready["control"], trust_env=False, timeout=60)

    def ask(self, method: str, path: str, **body: Any) -> Any:
        reply = self._control.request(method, path, json=body or None)
        assert reply.is_success, reply.text
        return reply.json()["data"]

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._control.close()


@dataclass
class Floor:
    """Accounts at Zerodha (`k…`) and Jainam (`x…`), their fleet, and every event it made."""

    folder: Path
    kite: int = 0
    xts: int = 0
    through_proxies: bool = False
    one_key: bool = False
    """All Zerodha accounts are users of one app, and share its limits."""
    pushes: bool = True
    sim: Simulator = field(default_factory=Simulator)

    def __post_init__(self) -> None:
        self.clock = SystemClock()
        self.changed = threading.Condition()
        self.statuses: list[tuple[float, Any]] = []
        self.told: dict[tuple[str, str], list[tuple[float, Any]]] = {}
        self.alerts: list[Any] = []
        self.database = Database(f"sqlite:///{self.folder}/floor.db", clock=self.clock)
        self.database.migrate()
        self.engine = EventEngine(1)
        self.book = OrderBook(self.database, clock=self.clock)
        self.loop = FeedLoop()
        self._accounts = {account.profile.account: account for account in self._make_accounts()}
        self._tables: dict[str, tuple[date, InstrumentTable]] = {}
        self.fleet = Fleet(
            FleetTools(
                engine=self.engine,
                held=self.book,
                logins=self,
                shelf=self,
                clock=self.clock,
                chance=Random(1).random,
                market_open=lambda _segments: True,
                brokers=load_brokers(),
            ),
            self.loop,
        )
        self.desk = Desk(fleet=self.fleet, book=self.book, database=self.database, now=self.clock.now)
        self.book.on_verify = self.fleet.hint
        self.book.attach(self.engine)
        self.engine.register(EventType.FEED_STATUS, self._on_status)
        self.engine.register(EventType.ORDER_CHANGED, self._on_change)
        self.engine.register(EventType.ALERT, lambda event: self.alerts.append(event.data))

    # --- accounts: what the store does for the service ---------------------------------------------------

    def _make_accounts(self) -> Iterator[FeedAccount]:
        self.sim.ask("PATCH", "/settings", check_margin=False)
        kite, xts = self.sim.kite, self.sim.xts
        if self.through_proxies:
            kite = self.sim.ask("POST", "/proxies", target="kite", name="kite-line")["url"]
            xts = self.sim.ask("POST", "/proxies", target="xts", name="xts-line")["url"]
        yield from self._kite_accounts(kite)
        yield from self._xts_accounts(xts)

    def _kite_accounts(self, url: str) -> Iterator[FeedAccount]:
        users = [f"FL{number:05d}" for number in range(self.kite)]
        if users:
            self.sim.ask("POST", "/users/kite", users=[{"user_id": user} for user in users])
        if self.one_key:
            self.sim.ask("POST", "/kite/apps", api_key=APP, api_secret="s")
            self.sim.ask("PATCH", "/settings", kite_limits_per_key=True)
        for number, user in enumerate(users):
            key = APP if self.one_key else f"{APP}{number}"
            if not self.one_key:
                self.sim.ask("POST", "/kite/apps", api_key=key, api_secret="s")
            session = self.sim.ask("POST", "/kite/sessions", api_key=key, user_id=user)
            yield FeedAccount(
                broker="zerodha",
                profile=AccountProfile(
                    account=AccountId(f"k{number}"),
                    credentials={"api_key": key, "api_secret": "s", "user_id": user},
                    addresses={"api": url, "stream": url.replace("http", "ws", 1), "login": url},
                ),
                session=BrokerSession(user_id=user, secrets={"access_token": session["access_token"]}),
                push=self.pushes,
            )

    def _xts_accounts(self, url: str) -> Iterator[FeedAccount]:
        logins = [{"app_key": f"fx{n}", "login_id": f"FX{n:05d}"} for n in range(self.xts)]
        if logins:
            self.sim.ask("POST", "/users/xts", logins=logins)
        for number, login in enumerate(logins):
            yield FeedAccount(
                broker="jainam",
                profile=AccountProfile(
                    account=AccountId(f"x{number}"),
                    credentials={"app_key": login["app_key"], "secret_key": f"{login['app_key']}-secret"},
                    addresses={"base": url},
                ),
                push=self.pushes,
            )

    def user(self, account: str) -> str:
        """Return the account's name at its broker."""
        return f"{'FL' if account[0] == 'k' else 'FX'}{int(account[1:]):05d}"

    def broker(self, account: str) -> str:
        return "kite" if account[0] == "k" else "xts"

    def accounts(self) -> list[FeedAccount]:
        return list(self._accounts.values())

    def account(self, account: AccountId) -> FeedAccount:
        return self._accounts[account]

    def keep_session(self, account: AccountId, session: BrokerSession) -> None:
        self._accounts[account] = replace(self._accounts[account], session=session)

    def load(self, broker: str) -> InstrumentTable:
        return self._tables[broker][1] if broker in self._tables else InstrumentTable()

    def day(self, broker: str) -> date | None:
        return self._tables[broker][0] if broker in self._tables else None

    def replace(self, broker: str, day: date, instruments: Any) -> None:
        self._tables[broker] = (day, InstrumentTable(instruments))

    # --- what happens ------------------------------------------------------------------------------------

    def _on_status(self, event: Any) -> None:
        with self.changed:
            self.statuses.append((self.clock.monotonic(), event.data))
            self.changed.notify_all()

    def _on_change(self, event: Any) -> None:
        view = event.data.order
        if view is None:
            return
        with self.changed:
            key = (str(view.account), str(view.order_id))
            self.told.setdefault(key, []).append((self.clock.monotonic(), view))
            self.changed.notify_all()

    def start(self) -> None:
        self.engine.start()
        self.loop.start()
        self.fleet.start()

    def stop(self) -> None:
        self.fleet.stop()
        self.loop.stop(10)
        self.engine.stop(10)
        self.database.close()
        self.sim.stop()

    def until(self, wanted: Callable[[], Any], seconds: float = 60) -> Any:
        """Return the first true answer; asked again with each event and every 0.2 s."""
        deadline = self.clock.monotonic() + seconds
        with self.changed:
            while not (answer := wanted()):
                assert self.clock.monotonic() < deadline, self.portrait()
                self.changed.wait(0.2)
        return answer

    def portrait(self) -> str:
        """Return how every feed is doing, the last alerts, and what the simulator has switched on."""
        feeds = [
            f"{feed.account}: {feed.freshness}, heard {feed.heartbeat_age} s ago, running {feed.running}"
            for feed in self.fleet.health().feeds
        ]
        switched = [self.sim.ask("GET", path) for path in ("/faults", "/proxies")]
        return "\n".join(map(str, [*feeds, *self.alerts[-3:], *switched]))

    def freshness(self) -> dict[str, int]:
        counted: dict[str, int] = {}
        for status in self.fleet.statuses():
            counted[status.freshness] = counted.get(status.freshness, 0) + 1
        return counted

    def all_live(self) -> bool:
        return all(status.freshness is Freshness.LIVE for status in self.fleet.statuses())

    def place(self, account: str, *, quantity: int = 40) -> OrderId:
        """Have the account's user place an order at the broker's own terminal that rests; return its number."""
        order_id = self._placed(account, price="800", quantity=quantity)
        uid = f"{self.broker(account)}:{order_id}"
        self.until(lambda: self.sim.ask("GET", f"/orders/{uid}")["history"][-1]["stage"] == "OPEN")
        return order_id

    def _placed(self, account: str, *, price: str, quantity: int) -> OrderId:
        user = self.user(account)
        if account[0] == "k":
            form = {
                "exchange": "NSE",
                "tradingsymbol": "SBIN",
                "transaction_type": "BUY",
                "quantity": quantity,
                "order_type": "LIMIT",
                "price": price,
                "product": "MIS",
                "validity": "DAY",
            }
            return OrderId(str(_first(self.sim.ask("POST", "/kite/orders/regular", user=user, **form))))
        body = {
            "exchangeSegment": "NSECM",
            "exchangeInstrumentID": 3045,
            "productType": "MIS",
            "orderType": "LIMIT",
            "orderSide": "BUY",
            "timeInForce": "DAY",
            "disclosedQuantity": 0,
            "orderQuantity": quantity,
            "limitPrice": float(price),
            "stopPrice": 0,
        }
        return OrderId(str(self.sim.ask("POST", "/xts/orders", user=user, **body)["order_id"]))

    def fill(self, account: str, order_id: OrderId, quantity: int, *, times: int = 1) -> None:
        uid = f"{self.broker(account)}:{order_id}"
        self.sim.ask("POST", "/market/fill", uid=uid, quantity=quantity, times=times)

    def truth(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return every order of these accounts as the brokers have it, by account and number."""
        names = {(self.broker(account), self.user(account)): str(account) for account in self._accounts}
        return {
            (names[order["broker"], order["user"]], str(order["order_id"])): order
            for order in self.sim.ask("GET", "/orders")
            if (order["broker"], order["user"]) in names
        }

    def differences(self) -> list[str]:
        """Say where our book is not the brokers'."""
        wrong = []
        for (account, order_id), row in self.truth().items():
            held = self.book.current(AccountId(account), OrderId(order_id))
            ours = (held.status.value, held.filled_quantity) if held else None
            theirs = (STAGES.get(row["stage"], row["stage"]), row["filled"])
            if ours != theirs:
                wrong.append(f"{account} {order_id}: {ours}, at the broker {theirs}")
        return wrong


STAGES = {"EXPIRED": "EXPIRED"}


def _first(answer: Any) -> Any:
    if isinstance(answer, dict):
        return answer.get("order_id") or answer["data"]["order_id"]
    return answer


@contextmanager
def floor(folder: Path, **given: Any) -> Iterator[Floor]:
    """Run a floor; its simulator too."""
    running = Floor(folder, **given)
    try:
        running.start()
        yield running
    finally:
        running.stop()
