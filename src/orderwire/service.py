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
from importlib.metadata import version

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
from orderwire.feeds.loop import FeedLoop, leave_with_parent, spawn_loop
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
from orderwire.store.leases import Leases
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
        bus = RedisWake(self.settings.redis_url, self.records.database, clock=self.clock, spawn=spawn_loop)
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
        self.loop.keep("watchdog", self.station.watchdog.guard)
        self.fleet.start(everybody=self.crew is None)
        if self.crew is not None:
            self.crew.enter()
        if self.settings.leave_with_parent:
            self.loop.submit(leave_with_parent())
        self.loop.keep("rollout", self.pilot.watch)
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
