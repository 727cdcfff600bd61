"""The whole service on one screen: what there is, what knows what, in which order it starts and stops."""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog

from orderwire import arrival
from orderwire.brokers.adapter import AccountProfile, AdapterTools, BrokerSession
from orderwire.brokers.checklist import Finding, first_day
from orderwire.brokers.http import BrokerHttp, open_client
from orderwire.brokers.registry import BrokerRegistry, load_brokers
from orderwire.bus.counts import counted
from orderwire.bus.wake import RedisWake
from orderwire.clock import Clock, SystemClock
from orderwire.config import Settings
from orderwire.core.events import EventType
from orderwire.core.instruments import Instrument, InstrumentTable
from orderwire.core.orders import AccountId
from orderwire.engine import EventEngine
from orderwire.errors import ConfigurationError
from orderwire.feeds.desk import Desk
from orderwire.feeds.fleet import FeedAccount, Fleet, FleetTools
from orderwire.feeds.loop import FeedLoop, leave_with_parent, spawn
from orderwire.feeds.market import Market, load_calendar
from orderwire.feeds.ownership import Ownership
from orderwire.feeds.remote import Errands, RemoteDesk, RemoteFleet
from orderwire.feeds.requests import Counter
from orderwire.feeds.seats import Seats, names_of
from orderwire.monitoring.metrics import Sources, disk_of
from orderwire.monitoring.muster import Muster
from orderwire.monitoring.notifier import Notifier, NotifierTools
from orderwire.monitoring.station import Station
from orderwire.pilot.conduct import Pilot, offline_gate
from orderwire.pilot.draft import WeeklyDraft
from orderwire.pilot.gate import RolloutGate
from orderwire.store import instruments as stored
from orderwire.store import sealing
from orderwire.store.accounts import Account, Accounts, Login
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from orderwire.store.feedstates import FeedStates
from orderwire.store.invitations import Invitations
from orderwire.store.leases import FEEDS, SERVE, CrowdedError, Leases
from orderwire.store.notifications import Notifications
from orderwire.store.retention import Housekeeper
from orderwire.store.survey import Voices
from orderwire.store.users import Users
from orderwire.store.vault import Vault
from orderwire.web import operations
from orderwire.web.app import Services, Web, create_app
from orderwire.web.hostposts import HostPosts
from orderwire.web.hosts import HostLine, HostTools
from orderwire.web.monitor import Monitor
from orderwire.web.operations.office import Office

_log = structlog.get_logger(__name__)

KEY_FILE = "sealing-key.json"
CONTROL_SOCKET = "control.sock"

DRAIN_WITHIN = 30
"""Seconds one of several workers may take to hand its accounts over before it is ended."""

GIVE_UP_WITHIN = 8
"""The same for the one process that has pages and all accounts of a shared database."""

END_WITHIN = 2
"""The same where there is nobody to hand anything over to."""

MARKET_NEAR = timedelta(minutes=30)
"""How long before a market opens the operator is told what would matter then."""

SWITCH_INTERVAL = 0.0005
"""Seconds a thread may hold the interpreter while another waits: an update must not wait 5 ms for a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What is on disk, opened: enough for commands that need no running service."""

    settings: Settings
    database: Database
    users: Users
    accounts: Accounts
    brokers: BrokerRegistry
    notifications: Notifications
    invitations: Invitations
    vault: Vault
    url: str

    def office(self, gate: RolloutGate | None = None) -> Office:
        """Return what commands work with while no service runs here; `gate` is the running service's.

        On a shared database what only an account's owner can do is asked of it.
        """
        errands = Errands(self.database, clock=self.database.clock)
        shared = self.database.dialect == "postgresql"
        return Office(
            fleet=RemoteFleet(errands, FeedStates(self.database)) if shared else None,
            desk=RemoteDesk(errands, self.database) if shared else None,
            users=self.users,
            accounts=self.accounts,
            brokers=self.brokers,
            invitations=self.invitations,
            vault=self.vault,
            url=self.url,
            gate=gate or offline_gate(self.database, self.settings, self.brokers),
            voices=Voices(self.database),
            database=self.database,
        )

    async def check_up(self, account: str, *, seconds: float) -> AsyncIterator[Finding]:
        """Ask an account's broker its first-day questions while no service runs; a new login is kept."""
        clock, logins = self.database.clock, _Logins(self.accounts)
        known = logins.account(AccountId(account))
        async with open_client() as client:
            tools = AdapterTools(
                http=BrokerHttp(client, clock=clock, budgets=self.brokers.budgets()),
                instruments=_Shelf(self.database).load(known.broker),
                clock=clock,
            )
            adapter = self.brokers.get(known.broker)(known.profile, tools)
            adapter.session = known.session

            async def log_in() -> BrokerSession:
                session = await adapter.login({})
                logins.keep_session(AccountId(account), session)
                return session

            with closing(self.seats()) as seats:
                user_id = known.session.user_id if known.session is not None else ""
                names = names_of(type(adapter), known.profile, user_id=user_id)
                holder = await seats.take(AccountId(account), names)
                if holder is not None:  # each login could end the other's
                    yield Finding(name="one orderwire", ok=False, detail=holder.words)
                    return
                async for finding in first_day(adapter, seconds=seconds, log_in=log_in):
                    yield finding

    def seats(self) -> Seats:
        """Make what keeps other orderwires of this machine from our accounts; used on a running loop."""
        home = f"orderwire at {self.settings.data_dir.absolute()}"
        return Seats(home, process=os.getpid(), now=self.database.clock.now)


def open_records(
    settings: Settings, *, clock: Clock | None = None, brokers: BrokerRegistry | None = None
) -> Records:
    """Open the data folder, with the installed brokers unless others are given.

    Raises ConfigurationError when it was not made, or belongs to a running service.
    """
    if not settings.data_dir.is_dir():
        raise ConfigurationError(f"There is no data folder {settings.data_dir}; run `orderwire init` first.")
    keyring = sealing.load(settings.data_dir / KEY_FILE)
    database = Database(settings.database, clock=clock or SystemClock())
    database.migrate()
    users, accounts = Users(database), Accounts(database, keyring)
    notifications = Notifications(database, keyring)
    return Records(
        settings=settings,
        database=database,
        users=users,
        accounts=accounts,
        brokers=brokers or load_brokers(),
        notifications=notifications,
        invitations=Invitations(database, users),
        vault=Vault(settings.data_dir / KEY_FILE, accounts=accounts, notifications=notifications),
        url=settings.url,
    )


def make_data_folder(settings: Settings) -> bool:
    """Make the data folder and its key; False when they are there already. Raises ConfigurationError."""
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(f"Cannot make the data folder {folder}: {error.strerror}.") from error
    if (folder / KEY_FILE).exists():
        return False
    sealing.create(folder / KEY_FILE)
    return True


class _Logins:
    """The fleet's accounts, kept by the store."""

    def __init__(self, accounts: Accounts, admits: Callable[[Account], bool] = lambda _account: True) -> None:
        self._accounts = accounts
        self._admits = admits

    def accounts(self) -> Iterable[FeedAccount]:
        return [self._feed_account(account) for account in self._accounts.all()]

    def account(self, account: AccountId) -> FeedAccount:
        return self._feed_account(self._accounts.get(account))

    def keep_session(self, account: AccountId, session: BrokerSession) -> None:
        login = Login(
            user_id=session.user_id,
            secrets=session.secrets,
            expires_at=session.expires_at,
            facts=session.facts,
        )
        self._accounts.set_login(account, login)

    def _feed_account(self, account: Account) -> FeedAccount:
        login = self._accounts.login(account.id)
        return FeedAccount(
            broker=account.broker,
            profile=AccountProfile(
                account=account.id,
                credentials=self._accounts.credentials(account.id),
                addresses=account.addresses,
                allow_plaintext=account.allow_plaintext,
            ),
            session=BrokerSession(
                user_id=login.user_id,
                secrets=login.secrets,
                expires_at=login.expires_at,
                facts=login.facts,
            )
            if login
            else None,
            push=self._admits(account),
        )


class _Shelf:
    """The fleet's instruments, kept by the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, broker: str) -> InstrumentTable:
        return stored.load(self._database, broker)

    def day(self, broker: str) -> date | None:
        return stored.loaded_day(self._database, broker)

    def replace(self, broker: str, day: date, instruments: Sequence[Instrument]) -> None:
        stored.replace_day(self._database, broker, day, instruments)


class Service:
    """Everything one process runs. Build it after a fork, start it once, stop it once; any one thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
        brokers: BrokerRegistry | None = None,
        worker: str = "",
        alone: bool = True,
    ) -> None:
        """`worker`: own accounts by lease, under this name; `alone`: all of them, else a share beside others'."""
        self.settings = settings
        self._alone = alone or not worker
        self.clock = clock or SystemClock()
        self.records = open_records(settings, clock=self.clock, brokers=brokers)
        self.leases = Leases(self.records.database, worker) if worker else None
        self.engine = EventEngine(1)
        self.market = Market(
            load_calendar(settings.market_calendar), clock=self.clock, always_open=settings.market_always_open
        )
        self.engine.register(EventType.TIMER, self.market.on_timer)
        self.book = OrderBook(
            self.records.database, clock=self.clock, broker_now=self._broker_now, tenure=self.leases
        )
        self.loop = FeedLoop()
        self.pilot = Pilot(
            settings,
            database=self.records.database,
            brokers=self.records.brokers,
            accounts=self.records.accounts.all,
            feeds=lambda: self.fleet,
            depth=lambda: self.engine.statistics().depth,
            clock=self.clock,
            leads=None if self._alone else self._leads,
        )
        self.hosts = HostLine(self._host_tools())
        self.seats = None if worker else self.records.seats()  # where there are leases, they decide
        self.fleet = Fleet(
            FleetTools(
                engine=self.engine,
                held=self.book,
                logins=_Logins(self.records.accounts, self.pilot.admits),
                shelf=_Shelf(self.records.database),
                clock=self.clock,
                chance=chance,
                market_open=self.market.is_open,
                brokers=self.records.brokers,
                refusal=self.hosts.refusal,
                on_gone=self.pilot.gate.forget,
                seats=self.seats,
            ),
            self.loop,
        )
        self.crew = self._crew(self.leases) if self.leases else None
        if self.crew is not None:
            self.fleet.on_add = self.crew.add
        self.bus = self._bus() if settings.redis_url and not self._alone else None
        self.desk = Desk(fleet=self.fleet, book=self.book, database=self.records.database, now=self.clock.now)
        self.book.on_verify = self.fleet.hint
        self.book.on_broken = self._broken
        self.notifier = Notifier(self._notifier_tools())
        self.hostposts = HostPosts(self.hosts, settings=settings, clock=self.clock, alone=self._alone)
        self.app = create_app(self._services())
        web: Web = self.app.extensions["orderwire"]
        self.realtime = web.realtime
        self.station = Station(self._sources(web), settings=settings, muster=self._muster())
        self.station.attach(self.engine)
        Monitor(
            station=self.station,
            database=self.records.database,
            accounts=self.records.accounts,
            users=self.records.users,
            metrics_port=settings.metrics_port,
        ).attach(self.app)
        self.subscriptions = web.subscriptions
        if self.crew is not None:
            self.crew.serve(Counter(desk=self.desk, fleet=self.fleet, take_postback=web.verifier.verify))
        routes = operations.blueprint(self._office)
        self.app.extensions["csrf"].exempt(routes)
        self.app.register_blueprint(routes)

    def answer_for(self, process: int) -> None:
        """Tell others that this process is the one to stop: to end a server's worker would only begin another."""
        self.hosts.process = process
        if self.seats is not None:
            self.seats.process = process

    def _office(self) -> Office:
        return replace(
            self.records.office(self.pilot.gate),
            fleet=self.fleet,
            desk=self.desk,
            book=self.book,
            station=self.station,
            hosts=self.hosts,
        )

    def _host_tools(self) -> HostTools:
        return HostTools(
            database=self.records.database,
            users=self.records.users,
            accounts=self.records.accounts,
            brokers=self.records.brokers,
            fleet=lambda: self.fleet,
            clock=self.clock,
            version=version("orderwire"),
            url=self.settings.url,
            home=f"orderwire at {self.settings.data_dir.absolute()} on {socket.gethostname()}",
        )

    def _sources(self, web: Web) -> Sources:
        folder = self.settings.data_dir
        return Sources(
            engine=self.engine,
            database=self.records.database,
            book=self.book,
            fleet=self.fleet.health,
            web=web.health,
            market_open=self.market.is_open,
            market_near=lambda: self.market.is_near(MARKET_NEAR),
            disk=lambda: disk_of(folder),
            clock=self.clock,
            brokers=tuple(self.records.brokers.classes),
            version=version("orderwire"),
            bus=lambda: counted(self.bus),
            reasons=self.pilot.gate.reasons,
            decisions=self.pilot.gate.counts,
        )

    def _notifier_tools(self) -> NotifierTools:
        return NotifierTools(
            kept=self.records.notifications,
            owner=lambda account: self.records.accounts.get(account).owner,
            feeds=self.fleet.statuses,
            clock=self.clock,
            market_open=self.market.is_open,
            private=self.settings.private_targets,
            leads=self._leads,
            shared=not self._alone,
        )

    def _muster(self) -> Muster | None:
        if self.leases is None or self.crew is None:
            return None
        crew = self.crew
        return Muster(self.records.database, self.leases, clock=self.clock, leads=lambda: crew.speaks)

    def _leads(self) -> bool:
        """Whether this process does what only one of several should."""
        return self.crew is None or self.crew.leads

    def _services(self) -> Services:
        return Services(
            settings=self.settings,
            clock=self.clock,
            engine=self.engine,
            database=self.records.database,
            book=self.book,
            fleet=self.fleet,
            desk=self.desk,
            users=self.records.users,
            accounts=self.records.accounts,
            brokers=self.records.brokers,
            notifications=self.records.notifications,
            pilot=self.pilot,
            verifies=self.fleet,
        )

    def _bus(self) -> RedisWake:
        """Make the way on which other processes hear of changes before they look for them."""
        bus = RedisWake(self.settings.redis_url, self.records.database, clock=self.clock, spawn=spawn)
        self.engine.register(EventType.ORDER_CHANGED, lambda event: bus.changed([event.data]))
        return bus

    def _crew(self, leases: Leases) -> Ownership:
        return Ownership(
            leases,
            database=self.records.database,
            fleet=self.fleet,
            book=self.book,
            clock=self.clock,
            version=version("orderwire"),
            place=arrival.place(),
            alone=self._alone,
        )

    def start(self) -> None:
        """Bring it up: what is written down, the dispatcher, then the feeds; the page is usable after that."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        self.book.attach(self.engine)
        Housekeeper(self.records.database, keep_days=self.settings.keep_days, leads=self._leads).attach(
            self.engine
        )
        self.notifier.attach(self.engine)
        self.pilot.attach(self.engine)
        self.hosts.attach(self.engine)
        self.hostposts.attach(self.engine)
        self._weekly_draft().attach(self.engine)
        if self.crew is not None:
            self.crew.attach(self.engine)
        self.engine.start()
        if self.bus is not None and self.crew is not None:
            bus = self.bus
            bus.publish()
            self.crew.listen(bus.on_commanded, lambda: bus.hears)
        self.loop.start()
        self.loop.submit(self.station.watchdog.guard())
        self.fleet.start(everybody=self.crew is None)
        if self.crew is not None:
            self.crew.enter()
        if self.settings.leave_with_parent:
            self.loop.submit(leave_with_parent())
        self.loop.submit(self.pilot.watch())
        _log.info("started", accounts=len(self.fleet.statuses()), url=self.settings.url)
        token = self.records.invitations.first()
        if token is not None:
            _log.warning("nobody can log in yet", open=f"{self.settings.url}/setup/{token}")

    def _weekly_draft(self) -> WeeklyDraft:
        accounts = self.records.accounts
        return WeeklyDraft(
            self.pilot.records,
            Voices(self.records.database),
            folder=self.settings.data_dir,
            owners=lambda: len({account.owner for account in accounts.all()}),
            clock=self.clock,
            leads=self._leads,
        )

    def close_clients(self) -> None:
        """End every open page's stream, so that no thread waits for a browser."""
        self.realtime.close()
        self.subscriptions.close()
        self.hosts.close()

    def stop(self) -> None:
        """Take it down in the opposite order; what was queued is delivered and committed first."""
        self.close_clients()
        if self.crew is not None:
            self.crew.drain()
        self.fleet.stop()
        self.loop.stop()
        left = self.engine.stop(timeout=2.0)
        self.notifier.close()
        self.hostposts.close()
        self.pilot.close()
        if self.bus is not None:
            self.bus.close()
        self.records.database.close()
        _log.info("stopped", undelivered=left)

    def _broker_now(self, account: AccountId) -> datetime | None:
        adapter = self.fleet.find(account)
        return adapter.broker_now() if adapter is not None else None

    def _broken(self, account: AccountId, reason: str) -> None:
        """Something of an account could not be kept (it is a dead letter now): its book tells again."""
        _log.error("not kept", account=account, reason=reason)
        self.fleet.refresh(account)


def control_socket(settings: Settings, worker: str = "") -> Path:
    """Return where the running service (or one of several workers) listens for commands: in the data folder."""
    return settings.data_dir / (f"{worker}.sock" if worker else CONTROL_SOCKET)


def open_listener(settings: Settings, *, port: int | None = None, option: str = "--port") -> socket.socket:
    """Bind the web port (or another) now, so that a taken one is one clear line. Raises ConfigurationError."""
    port = settings.port if port is None else port
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"Cannot listen on {settings.host}:{port}: {error.strerror}. "
            f"Stop what uses it, or choose another with {option}."
        ) from error
    listener.listen(1024)
    listener.set_inheritable(True)
    return listener


def open_control_listener(settings: Settings, worker: str = "") -> socket.socket:
    """Bind the control socket, readable by its owner alone. Raises ConfigurationError."""
    path = control_socket(settings, worker)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)  # left over by a service that was killed: the database's lock is ours
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"Cannot make the control socket {path}: {error.strerror or error}. "
            "A Unix socket's path has at most about 100 characters; choose a shorter data folder."
        ) from error
    finally:
        os.umask(before)
    listener.listen(16)
    listener.set_inheritable(True)
    return listener


def serve(settings: Settings, *, build: Callable[..., Service] = Service, worker: str = "") -> None:
    """Run the service that `build` makes under one gunicorn worker until it is told to stop (docs/decisions/0001).

    A `worker` of several has no pages: it listens on its control socket, and for probes where that is asked for.
    Raises ConfigurationError when others live on the database that it cannot live beside.
    """
    from gunicorn.app.base import BaseApplication  # noqa: PLC0415 - 0.2 s that no other command needs
    from gunicorn.workers.gthread import ThreadWorker  # noqa: PLC0415 - see above

    make, listeners, grace = _arrived(settings, build, worker)
    held: list[Service] = []
    main = os.getpid()

    def stop(_server: object, _worker: object) -> None:
        for service in held:
            service.stop()

    class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
        """A thread worker that lets the browsers go before it waits for them."""

        def handle_exit(self, sig: int, frame: Any) -> None:
            for service in held:
                service.close_clients()
            super().handle_exit(sig, frame)

    class Application(BaseApplication):  # type: ignore[misc]  # gunicorn ships no types
        """The service as gunicorn runs it: built in the worker, because threads do not survive a fork."""

        def load_config(self) -> None:
            for name, value in _gunicorn_settings(settings, listeners, grace).items():
                self.cfg.set(name, value)
            self.cfg.set("worker_class", Worker)
            self.cfg.set("worker_exit", stop)

        def load(self) -> Any:
            service = make(settings)
            service.answer_for(main)
            held.append(service)
            _start(service)
            return service.app

    Application().run()


def _arrived(
    settings: Settings, build: Callable[..., Service], worker: str
) -> tuple[Callable[..., Service], list[socket.socket], int]:
    """Enter a shared database, bind what is listened on; return how the service is made, that, and how long it may end."""
    records = open_records(settings)
    try:
        if records.database.dialect != "postgresql":
            return build, _listeners(settings, worker), END_WITHIN
        leases = Leases(records.database, worker or arrival.only_name())
        arrival.arrive(leases, role=FEEDS if worker else SERVE, version=version("orderwire"))
        try:
            listeners = _listeners(settings, worker)
        except ConfigurationError:
            leases.leave()
            raise
        made = partial(build, worker=leases.worker, alone=not worker)
        return made, listeners, DRAIN_WITHIN if worker else GIVE_UP_WITHIN
    finally:
        records.database.close()


def _start(service: Service) -> None:
    from gunicorn.arbiter import Arbiter  # noqa: PLC0415 - 0.2 s that no other command needs

    try:
        service.start()
    except CrowdedError as error:  # we took so long to come up that others came
        _log.error("not started", error=str(error))
        raise SystemExit(Arbiter.WORKER_BOOT_ERROR) from error


def _listeners(settings: Settings, worker: str) -> list[socket.socket]:
    listeners = [open_control_listener(settings, worker)]
    if settings.metrics_port:
        listeners.append(open_listener(settings, port=settings.metrics_port, option="ORDERWIRE_METRICS_PORT"))
    if worker:
        return listeners
    listeners.insert(0, open_listener(settings))
    if settings.subscriptions_port:
        listeners.append(
            open_listener(settings, port=settings.subscriptions_port, option="ORDERWIRE_SUBSCRIPTIONS_PORT")
        )
    return listeners


def _gunicorn_settings(settings: Settings, listeners: list[socket.socket], grace: int) -> dict[str, Any]:
    return {
        "bind": [f"fd://{listener.fileno()}" for listener in listeners],
        "workers": 1,
        "threads": 4 * settings.clients + 32,
        "worker_connections": 4 * settings.clients + 64,
        "graceful_timeout": grace,
        "timeout": 60,
        "keepalive": 75,
        "control_socket_disable": True,  # gunicorn's own
        "accesslog": None,
        "loglevel": "warning",
        "proc_name": "orderwire",
    }
