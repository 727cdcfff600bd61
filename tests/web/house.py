"""A small web to test against: real database, users, accounts and engine; memory for log, fleet and desk."""

from __future__ import annotations

import socket
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

from flask import Flask
from msgspec.structs import replace
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from werkzeug.serving import make_server

from orderwire.brokers.adapter import BrokerSession, Field
from orderwire.brokers.registry import BrokerRegistry
from orderwire.clock import SystemClock
from orderwire.config import Settings
from orderwire.core.events import Event, EventType
from orderwire.core.health import FleetHealth
from orderwire.core.instruments import Instrument
from orderwire.core.latency import Stamps
from orderwire.core.lifecycle import OrderChange, OrderView, Submission, SubmissionState, submission_view
from orderwire.core.orders import (
    AccountId,
    Channel,
    Funds,
    Holding,
    ModifyRequest,
    OrderId,
    OrderRequest,
    OrderStatus,
    Position,
    Trade,
    check_request,
    session_date,
)
from orderwire.core.recovery import FeedStatus, Freshness
from orderwire.engine import EventEngine
from orderwire.errors import InvalidRequestError, NotFoundError
from orderwire.pilot.conduct import Pilot
from orderwire.store.accounts import Accounts
from orderwire.store.database import Database
from orderwire.store.instruments import replace_day
from orderwire.store.notifications import Notifications
from orderwire.store.sealing import Keyring, create, load
from orderwire.store.users import Role, Users
from orderwire.web.app import Services, Web, create_app
from orderwire.web.assets import Assets
from orderwire.web.outbox import Cursor
from orderwire.web.payloads import change_key

PASSWORD = "correct horse"
BUILT = Assets(
    version="test", files={name: name for name in ("app.js", "app.css", "theme.js", "orders.js", "charts.js")}
)

INSTRUMENTS = [
    Instrument(
        broker="wired",
        exchange=exchange,
        symbol=symbol,
        broker_exchange=exchange,
        broker_symbol=symbol,
        token=number,
        name=name,
        kind=kind,
        lot_size=lot,
    )
    for number, (symbol, exchange, name, kind, lot) in enumerate(
        (
            ("INFY", "NSE", "INFOSYS", "EQ", 1),
            ("TCS", "NSE", "TATA CONSULTANCY SERV LT", "EQ", 1),
            ("RELIANCE", "NSE", "RELIANCE INDUSTRIES", "EQ", 1),
            ("HDFCBANK", "NSE", "HDFC BANK", "EQ", 1),
            ("SBIN", "NSE", "STATE BANK OF INDIA", "EQ", 1),
            ("NIFTY29DEC2624400CE", "NFO", "NIFTY", "CE", 75),
            ("NIFTY29DEC26FUT", "NFO", "NIFTY", "FUT", 75),
        ),
        start=1,
    )
]


class WiredAdapter:
    """What the web asks of an adapter's class."""

    name = "wired"
    title = "Wired Broking"
    credential_fields = (
        Field(name="api_key", label="API key"),
        Field(name="api_secret", label="API secret", secret=True),
    )
    address_fields = (Field(name="api", label="REST root", default="https://api.wired.example"),)
    has_postback = False


BROKERS = BrokerRegistry(classes={"wired": WiredAdapter})


@dataclass
class Held:
    """What `snapshot` returns."""

    account: AccountId
    epoch: str
    sequence: int
    orders: list[OrderView]
    trades: list[Trade]
    positions: list[Position]


class MemoryLog:
    """The log of changes in memory. `change` commits a change as the book would, without telling anyone."""

    def __init__(self, epoch: str = "e1") -> None:
        self.epoch = epoch
        self.lock = threading.Lock()
        self.heads: Counter[AccountId] = Counter()
        self.changes: dict[AccountId, deque[OrderChange]] = defaultdict(lambda: deque(maxlen=2000))
        self.rows: dict[AccountId, dict[tuple[str, str], OrderChange]] = defaultdict(dict)
        self.snapshots = 0
        self.before_read: Callable[[], None] = lambda: None

    def change(self, thing: OrderView | Trade | Position, *, received: int = 0) -> OrderChange:
        with self.lock:
            self.heads[thing.account] += 1
            number = self.heads[thing.account]
            kind = {OrderView: "order", Trade: "trade", Position: "position"}[type(thing)]
            now = SystemClock().time_ns()
            made = OrderChange(
                account=thing.account,
                epoch=self.epoch,
                sequence=number,
                event_id=f"{thing.account}-{number}",
                kind=kind,
                stamps=Stamps(received=received or now, queued=now, joined=now, committed=now),
                source=Channel.STREAM,
                **{kind: thing},
            )
            self.changes[thing.account].append(made)
            self.rows[thing.account][change_key(made)] = made
            return made

    def snapshot(self, account: AccountId) -> Held:
        self.before_read()
        with self.lock:
            self.snapshots += 1
            rows = list(self.rows[account].values())
            return Held(
                account,
                self.epoch,
                self.heads[account],
                [row.order for row in rows if row.order],
                [row.trade for row in rows if row.trade],
                [row.position for row in rows if row.position],
            )

    def head(self, account: AccountId) -> Cursor:
        with self.lock:
            return Cursor(epoch=self.epoch, sequence=self.heads[account])

    def changes_since(self, account: AccountId, cursor: Cursor, *, most: int) -> list[OrderChange] | None:
        self.before_read()
        with self.lock:
            head, held = self.heads[account], self.changes[account]
            missed = head - cursor.sequence
            if cursor.epoch != self.epoch or not 0 <= missed <= min(most, len(held)):
                return None
            return list(held)[len(held) - missed :]


@dataclass
class MemoryFleet:
    """What the web asks of the fleet."""

    redirects: bool = True
    feeds: dict[AccountId, FeedStatus] = field(default_factory=dict)
    refreshed: list[AccountId] = field(default_factory=list)
    hints: list[tuple[AccountId, OrderId, str]] = field(default_factory=list)
    grants: list[tuple[AccountId, dict[str, str]]] = field(default_factory=list)
    adapters: dict[AccountId, Any] = field(default_factory=dict)
    login_error: Exception | None = None
    pushing: dict[AccountId, bool] = field(default_factory=dict)

    def statuses(self) -> list[FeedStatus]:
        return list(self.feeds.values())

    def show(self, account: AccountId, freshness: Freshness = Freshness.LIVE, **facts: Any) -> FeedStatus:
        now = datetime.now(UTC)
        facts = {"connected": freshness is Freshness.LIVE, "read_at": now} | facts
        self.feeds[account] = FeedStatus(account=account, freshness=freshness, since=now, **facts)
        return self.feeds[account]

    def refresh(self, account: AccountId) -> None:
        self.refreshed.append(account)

    def hint(self, account: AccountId, order_id: OrderId, reason: str) -> None:
        self.hints.append((account, order_id, reason))

    def login_url(self, account: AccountId, *, state: str) -> str | None:
        if account not in self.feeds:
            raise NotFoundError
        return f"https://broker.example/login?state={state}" if self.redirects else None

    def login(self, account: AccountId, grant: dict[str, str]) -> BrokerSession:
        self.grants.append((account, dict(grant)))
        if self.login_error is not None:
            raise self.login_error
        return BrokerSession(user_id="AB1234", secrets={})

    def find(self, account: AccountId) -> Any:
        return self.adapters.get(account)

    def add(self, account: AccountId) -> None:
        self.show(account, Freshness.AUTH_REQUIRED, detail="Log in to the broker.")

    def remove(self, account: AccountId) -> None:
        self.feeds.pop(account, None)

    def set_push(self, wanted: Mapping[AccountId, bool]) -> None:
        self.pushing.update(wanted)

    def health(self) -> FleetHealth:
        return FleetHealth()


class MemoryDesk:
    """Takes orders into the log; `fail` is raised instead, `state` is what placing ends in."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.fail: Exception | None = None
        self.state = SubmissionState.ACCEPTED
        self.reason = ""
        self.placed: list[tuple[AccountId, OrderRequest, str]] = []
        self.modified: list[tuple[AccountId, ModifyRequest]] = []
        self.cancelled: list[tuple[AccountId, OrderId]] = []
        self.then: Callable[[OrderView], None] = lambda view: None
        self._numbers = count(1)
        self.held: list[Position] = []
        self.owned: list[Holding] = []
        self.money = Funds(account=AccountId("acc"))

    def positions(self, account: AccountId) -> list[Position]:
        self._may_fail()
        return [one for one in self.held if one.account == account]

    def holdings(self, account: AccountId) -> list[Holding]:
        self._may_fail()
        return [one for one in self.owned if one.account == account]

    def funds(self, account: AccountId) -> Funds:
        self._may_fail()
        return self.money

    def freeze_quantity(self, account: AccountId, exchange: str, symbol: str) -> int:
        known = {(one.exchange, one.symbol): one.freeze_quantity for one in INSTRUMENTS}
        return known.get((exchange, symbol), 0)

    def place(self, account: AccountId, request: OrderRequest, *, idempotency_key: str = "") -> Submission:
        self._may_fail()
        known = {(one.exchange, one.symbol): one for one in INSTRUMENTS}
        problems = check_request(request, known.get((request.exchange, request.symbol)))
        if problems:
            raise InvalidRequestError(problems)
        self.placed.append((account, request, idempotency_key))
        number = next(self._numbers)
        now = datetime.now(UTC)
        made = Submission(
            id=f"OW{number:014d}",
            account=account,
            broker="wired",
            state=SubmissionState.SENDING,
            request=request,
            created=now,
        )
        self.house.publish(submission_view(made, session_date(now)))
        order_id = OrderId(f"2611240{number:08d}") if self.state is SubmissionState.ACCEPTED else OrderId("")
        made = replace(made, state=self.state, order_id=order_id, reason=self.reason)
        view = submission_view(made, session_date(now))
        self.house.publish(view)
        self.then(view)
        return made

    def modify(self, account: AccountId, request: ModifyRequest) -> OrderId:
        self._may_fail()
        self.modified.append((account, request))
        return request.order_id

    def cancel(self, account: AccountId, order_id: OrderId) -> OrderId:
        self._may_fail()
        self.cancelled.append((account, order_id))
        return order_id

    def _may_fail(self) -> None:
        if self.fail is not None:
            raise self.fail


class MemoryBook:
    """The orders the log holds."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.checked: list[OrderView] = []
        self.open: dict[AccountId, int] = {}

    def checking(self, account: AccountId) -> list[OrderView]:
        return [page for page in self.checked if page.account == account]

    def open_orders(self, account: AccountId) -> int:
        return self.open.get(account, 0)

    def current(self, account: AccountId, order_id: OrderId) -> OrderView | None:
        rows = self._log.rows[account].values()
        return next((row.order for row in rows if row.order and row.order.order_id == order_id), None)


@dataclass
class House:
    """Everything a test of the web reaches for."""

    app: Flask
    services: Services
    log: MemoryLog
    fleet: MemoryFleet
    desk: MemoryDesk
    url: str

    @property
    def web(self) -> Web:
        return self.app.extensions["orderwire"]

    def user(self, name: str, role: Role = Role.TRADER) -> str:
        return self.services.users.add(name, PASSWORD, role=role).name

    def account(self, name: str, owner: str, *, title: str = "") -> AccountId:
        made = self.services.accounts.add(
            name,
            broker="wired",
            owner=owner,
            title=title,
            credentials={"api_key": f"key-{name}", "api_secret": "s3cret"},
        )
        self.fleet.show(made.id)
        return made.id

    def publish(self, *things: OrderView | Trade | Position) -> list[OrderChange]:
        """Commit changes and tell the engine."""
        changes = [self.log.change(thing) for thing in things]
        for change in changes:
            self.services.engine.put(Event(EventType.ORDER_CHANGED, change))
        return changes

    def client(self, user: str = "") -> Any:
        """Return a test client of the app, logged in when a user is named."""
        client = self.app.test_client()
        if user:
            answer = client.post(
                "/login", data={"name": user, "password": PASSWORD, "csrf_token": csrf(client)}
            )
            assert answer.status_code == 302, answer.text
        return client


def csrf(client: Any, path: str = "/login") -> str:
    """Read the CSRF token from a page's head."""
    page = client.get(path, follow_redirects=True).text
    return page.split('name="csrf-token" content="')[1].split('"')[0]


def order(account: str = "acc", number: int = 1, **facts: Any) -> OrderView:
    """Make one order's line."""
    known = {
        "account": AccountId(account),
        "broker": "wired",
        "row": f"r{number}",
        "order_id": OrderId(f"26112400{number:07d}"),
        "trading_date": datetime(2026, 11, 24, tzinfo=UTC).date(),
        "status": OrderStatus.OPEN,
        "raw_status": "OPEN",
        "symbol": "INFY",
        "exchange": "NSE",
        "side": "BUY",
        "order_type": "LIMIT",
        "product": "MIS",
        "validity": "DAY",
        "quantity": 10,
        "pending_quantity": 10,
        "price": Decimal("1500.50"),
        "first_seen": datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
        "broker_time": datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
    }
    return OrderView(**(known | facts))


@contextmanager
def a_house(
    folder: Path,
    *,
    assets: Assets | None = BUILT,
    port: int = 5080,
    brokers: BrokerRegistry = BROKERS,
    **more: Any,
) -> Iterator[House]:
    """Build the web over a database in `folder`."""
    clock = SystemClock()
    database = Database(f"sqlite:///{folder / 'orderwire.db'}", clock=clock)
    database.migrate()
    engine = EventEngine(interval=3600)
    log, fleet = MemoryLog(), MemoryFleet()
    database_of_symbols(database)
    house = House(None, None, log, fleet, None, f"http://127.0.0.1:{port}")
    house.desk = MemoryDesk(house)
    settings = Settings(data_dir=folder, port=port, _env_file=None)
    accounts = Accounts(database, a_keyring(folder / "sealing.key"))
    pilot = Pilot(
        settings,
        database=database,
        brokers=brokers,
        accounts=accounts.all,
        feeds=lambda: fleet,
        depth=lambda: 0,
        clock=clock,
    )
    house.services = Services(
        settings=settings,
        clock=clock,
        engine=engine,
        database=database,
        book=MemoryBook(log),
        fleet=fleet,
        desk=house.desk,
        users=Users(
            database, hasher=PasswordHash((Argon2Hasher(time_cost=1, memory_cost=64, parallelism=1),))
        ),
        accounts=accounts,
        brokers=brokers,
        pilot=pilot,
        notifications=Notifications(database, a_keyring(folder / "sealing.key")),
        verifies=fleet,
        **more,
    )
    house.app = create_app(house.services, assets=assets, log=log)
    engine.start()
    try:
        yield house
    finally:
        engine.stop()
        database.close()


def a_keyring(path: Path) -> Keyring:
    return load(path) if path.exists() else create(path)


def database_of_symbols(database: Database) -> None:
    replace_day(database, "wired", datetime.now(UTC).date(), INSTRUMENTS)


@contextmanager
def a_server(folder: Path, *, assets: Assets | None = BUILT) -> Iterator[House]:
    """The same, served on a free port with real sockets."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with a_house(folder, assets=assets, port=port) as house:
        server = make_server("127.0.0.1", port, house.app, threaded=True, fd=listener.fileno())
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield house
        finally:
            server.shutdown()
            thread.join(5)
            server.server_close()
            listener.close()


def cookie_of(house: House, user: str) -> str:
    """Log a user in and return the session's cookie, as a header."""
    cookie = house.client(user).get_cookie("orderwire")
    return f"orderwire={cookie.value}"


def settle(house: House) -> None:
    """Wait until the engine has delivered everything put so far."""
    settled = threading.Event()
    name = f"settled {id(settled)}"
    house.services.engine.register(name, lambda _: settled.set())
    house.services.engine.put(Event(name))
    assert settled.wait(60)
