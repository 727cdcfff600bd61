"""A line to a host over a real database; the fleet is a stub that notes what it is handed."""

from __future__ import annotations

from dataclasses import dataclass, field

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from orderwire.brokers.adapter import BrokerSession
from orderwire.brokers.registry import load_brokers
from orderwire.core.hosts import PROTOCOL, FromHost, HostLogin, HostState, mark
from orderwire.errors import InvalidRequestError, NotFoundError
from orderwire.store import sealing
from orderwire.store.accounts import Accounts
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from orderwire.store.users import Users
from orderwire.web.hosts import HostLine, HostTools
from store.making import FakeClock, observed, update

ZERODHA = HostLogin(broker="zerodha", token="kitekey:one", app_key="kitekey", app_secret="kite-secret")
JAINAM = HostLogin(broker="jainam", token="a.b.c", app_key="XtsKey", app_secret="xts-secret")
KEY = "f" * 64


@dataclass
class StubFleet:
    """Takes what it is handed; `fail` is what `done` is told."""

    accounts: set[str] = field(default_factory=set)
    handed: list[tuple[str, str]] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    fail: BaseException | None = None
    user: str = "AB1234"

    def statuses(self):
        return []

    def add(self, account):
        self.added.append(account)
        self.accounts.add(account)

    def adapter(self, account):
        if account not in self.accounts:
            raise NotFoundError
        return object()

    def hand_over(self, account, token, *, check, done):
        self.adapter(account)
        self.handed.append((account, token))
        try:
            check(BrokerSession(user_id=self.user, secrets={}))
        except InvalidRequestError as error:
            done(error)
        else:
            done(self.fail)


class World:
    def __init__(self, folder):
        self.clock = FakeClock()
        self.database = Database(f"sqlite:///{folder / 'orderwire.db'}", clock=self.clock)
        self.database.migrate()
        hasher = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))
        self.users = Users(self.database, hasher=hasher)
        self.accounts = Accounts(self.database, sealing.create(folder / "key.json"))
        self.brokers = load_brokers()
        self.book = OrderBook(self.database, clock=self.clock)
        self.fleet = StubFleet()
        self.line = self.make_line()

    def make_line(self):
        tools = HostTools(
            database=self.database,
            users=self.users,
            accounts=self.accounts,
            brokers=self.brokers,
            fleet=lambda: self.fleet,
            clock=self.clock,
            version="1.0",
            url="http://127.0.0.1:5080",
        )
        return HostLine(tools)

    def take(self, *logins, places=None, instance="process 1", with_state=True, api_key="", **more):
        state = HostState(user="Trader", logins=list(logins), api_key=api_key)
        asked = {
            "protocol": PROTOCOL,
            "version": "1.0",
            "host": "openalgo",
            "instance": instance,
            "user": "Trader",
            "state_mark": mark(state),
            "state": state if with_state else None,
            "places": places or {},
            "wait": 0.0,
        }
        return self.line.take(FromHost(**(asked | more)))

    def move(self, *words, account="zerodha-trader", order="1"):
        for word in words:
            self.book.on_observation(observed(update(word, account=account, order=order)))
            self.book.commit()
