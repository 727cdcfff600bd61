"""One of several processes that serve pages: no engine, no feed, no adapter; what is to be done, owners do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib.metadata import version
from typing import cast

import structlog
from sqlalchemy import Connection

from orderwire.arrival import place
from orderwire.brokers.adapter import PostbackHint, PostbackRequest
from orderwire.bus.counts import counted
from orderwire.bus.follower import Follower
from orderwire.bus.wake import RedisWake
from orderwire.clock import SystemClock
from orderwire.config import Settings
from orderwire.core.health import FleetHealth
from orderwire.core.orders import AccountId
from orderwire.engine import EventEngine
from orderwire.errors import OrderwireError, StoreError
from orderwire.feeds.loop import spawn_loop
from orderwire.feeds.market import Market, load_calendar
from orderwire.feeds.remote import Errands, RemoteDesk, RemoteFleet
from orderwire.feeds.requests import TakePostbackRequest, packed
from orderwire.monitoring.metrics import Sources, disk_of
from orderwire.monitoring.muster import Muster
from orderwire.monitoring.station import Station
from orderwire.pilot.conduct import LOOK_EVERY, Pilot
from orderwire.service import MARKET_NEAR, Records, open_records
from orderwire.store import commands
from orderwire.store.feedstates import FeedStates
from orderwire.store.leases import RENEW_EVERY, WEB, Leases
from orderwire.store.look import BookLook
from orderwire.web.app import Services, Web, create_app
from orderwire.web.follow import Follow
from orderwire.web.monitor import Monitor

_log = structlog.get_logger(__name__)

POSTBACK_WAITS = 3600.0
"""Seconds a postback waits for its account's owner. It is in the inbox all the same, which a new owner reads."""


class _NoFeeds:
    """What the pilot of this role sees of the feeds: none; their owners apply what is decided."""

    def set_push(self, wanted: Mapping[AccountId, bool]) -> None:
        """Do nothing."""

    def health(self) -> FleetHealth:
        """Say nothing: what feeds do is counted where they run."""
        return FleetHealth()


class WebService:
    """Everything a web process runs. Build it after a fork and after gevent's patch; start it once, stop it once."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self.records: Records = open_records(settings, clock=self.clock)
        database = self.records.database
        self._leases = Leases(database, name)
        self._stopped = False
        self.market = Market(
            load_calendar(settings.market_calendar), clock=self.clock, always_open=settings.market_always_open
        )
        self.book = BookLook(database)
        self.follow = Follow(hinted=self.book.hinted, view=self.book.current)
        self.bus = (
            RedisWake(settings.redis_url, database, clock=self.clock, spawn=spawn_loop)
            if settings.redis_url
            else None
        )
        errands = Errands(database, clock=self.clock, wake=self._wake_owners)
        self.fleet = RemoteFleet(errands, FeedStates(database))
        self.follower: Follower | None = None
        self.pilot = Pilot(
            settings,
            database=database,
            brokers=self.records.brokers,
            accounts=self.records.accounts.all,
            feeds=_NoFeeds,
            depth=lambda: 0,
            clock=self.clock,
            leads=lambda: False,
        )
        self.app = create_app(
            Services(
                settings=settings,
                clock=self.clock,
                engine=self.follow,
                database=database,
                book=self.book,
                fleet=self.fleet,
                desk=RemoteDesk(errands, database),
                users=self.records.users,
                accounts=self.records.accounts,
                brokers=self.records.brokers,
                notifications=self.records.notifications,
                pilot=self.pilot,
                hand_over=_hand_over,
                handed_over=self._wake_owners,
                greenlets=True,
                limits_at=settings.redis_url,
                switchboard=self.bus.switchboard() if self.bus is not None else None,
            )
        )
        web: Web = self.app.extensions["orderwire"]
        self.realtime, self.subscriptions = web.realtime, web.subscriptions
        self.follow.fault = web.faults.count
        self.follow.resync = self.realtime.resync
        self.follow.watched = lambda: self.realtime.audience.accounts
        self.station = Station(
            self._sources(web),
            settings=settings,
            muster=Muster(database, self._leases, clock=self.clock, leads=lambda: False),
        )
        self.station.attach(self._as_engine())
        self.pilot.evidence.attach(self._as_engine())
        Monitor(
            station=self.station,
            database=database,
            accounts=self.records.accounts,
            users=self.records.users,
            metrics_port=settings.metrics_port,
            fleet=self.fleet.health,
        ).attach(self.app)

    def _wake_owners(self, accounts: Collection[AccountId]) -> None:
        """Let the accounts' owners look for what was asked of them now, and not a moment later."""
        if self.bus is not None:
            self.bus.commanded(accounts)

    def _as_engine(self) -> EventEngine:
        """What those use that only register, and ask for statistics."""
        return cast("EventEngine", self.follow)

    def _sources(self, web: Web) -> Sources:
        folder = self.settings.data_dir
        return Sources(
            engine=self._as_engine(),
            database=self.records.database,
            book=self.book,
            fleet=FleetHealth,
            web=web.health,
            market_open=self.market.is_open,
            market_near=lambda: self.market.is_near(MARKET_NEAR),
            disk=lambda: disk_of(folder),
            clock=self.clock,
            brokers=tuple(self.records.brokers.classes),
            version=version("orderwire"),
            bus=lambda: counted(self.bus, [self.follower] if self.follower is not None else []),
        )

    def start(self) -> None:
        """Begin to follow; pages are usable after that."""
        self.pilot.apply()
        database = self.records.database
        if self.bus is not None:
            self.bus.subscribe(self.follow)
        else:
            self.follower = Follower(database, None, self.follow, clock=self.clock)
            spawn_loop("follower", self.follower.run)
        loops: tuple[tuple[str, Callable[[], None]], ...] = (
            ("follow", self.follow.run),
            ("ticks", self.follow.tick),
            ("rollout", self._watch_rollout),
            ("presence", self._be_present),
        )
        for name, loop in loops:
            spawn_loop(name, loop)
        _log.info("web started", worker=self._leases.worker, url=self.settings.url)

    def _watch_rollout(self) -> None:
        while not self.follow.stopping.wait(LOOK_EVERY):
            try:
                self.pilot.gate.reload()
            except OrderwireError as error:  # the next look does it again
                _log.warning("rollout not followed yet", error=str(error))

    def _be_present(self) -> None:
        """Say again and again that this process lives."""
        entered = False
        while not self._stopped:
            try:
                if not entered:
                    self._leases.enter(role=WEB, place=place(), version=version("orderwire"))
                entered = True
                self._leases.stay()
            except StoreError as error:
                _log.warning("cannot say that we are here", error=str(error))
            self.follow.stopping.wait(RENEW_EVERY)

    def close_clients(self) -> None:
        """End every open page's stream."""
        self.realtime.close()
        self.subscriptions.close()

    def stop(self) -> None:
        """Let clients and database go; clients come back elsewhere and go on from their cursors."""
        self._stopped = True
        self.close_clients()
        self.follow.stop()
        if self.follower is not None:
            self.follower.stop()
        if self.bus is not None:
            self.bus.close()
        try:
            self.pilot.close()
            self._leases.leave()
        except StoreError as error:
            _log.warning("gone without a word", error=str(error))
        self.records.database.close()
        _log.info("web stopped")


def _hand_over(
    connection: Connection,
    account: AccountId,
    hint: PostbackHint,
    asked: PostbackRequest,
    received_ns: int,
) -> None:
    request = TakePostbackRequest(
        order_id=hint.order_id,
        broker_time=hint.broker_time,
        claims=dict(hint.claims),
        body=asked.body,
        headers=dict(asked.headers),
        received_ns=received_ns,
    )
    commands.record(
        connection,
        account,
        command_id=f"postback-{account}-{hint.order_id}-{received_ns}",
        kind=type(request).__name__,
        body=packed(request),
        seconds=POSTBACK_WAITS,
    )
