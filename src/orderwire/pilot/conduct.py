"""Runs the pilot inside the service: what the gate decides reaches the feeds, what happens becomes evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Final, Protocol

import structlog

from orderwire.brokers.registry import BrokerRegistry
from orderwire.clock import Clock
from orderwire.config import Settings
from orderwire.core.health import FleetHealth
from orderwire.core.orders import AccountId
from orderwire.core.rollout import GuardAction, GuardLimits
from orderwire.engine import EventEngine
from orderwire.errors import OrderwireError
from orderwire.pilot.evidence import Evidence
from orderwire.pilot.flags import DatabaseProvider, Flag, open_provider
from orderwire.pilot.gate import RolloutGate
from orderwire.pilot.guard import Guard
from orderwire.store.accounts import Account
from orderwire.store.database import Database
from orderwire.store.pilot import PilotRecords

_log = structlog.get_logger(__name__)

LOOK_EVERY: Final = 0.2
"""Seconds between looks for what another process decided: well under the second a stop may take."""


class Feeds(Protocol):
    """What the pilot does with the feeds; any thread."""

    def set_push(self, wanted: Mapping[AccountId, bool]) -> None:
        """Turn each account's push path on or off, all of them before this returns.

        Raises FeedsBusyError when they get to it only later.
        """
        ...

    def health(self) -> FleetHealth:
        """Say how every feed is doing."""
        ...


def offline_gate(database: Database, settings: Settings, brokers: BrokerRegistry) -> RolloutGate:
    """Return the gate as commands use it while no service runs: our own records, no provider's server."""
    return RolloutGate(
        PilotRecords(database),
        Flag(DatabaseProvider()),
        master=settings.use_event_driven_orders,
        brokers=brokers.classes,
    )


class Pilot:
    """The gate, the evidence and the guard of a running service."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        brokers: BrokerRegistry,
        accounts: Callable[[], Iterable[Account]],
        feeds: Callable[[], Feeds],
        depth: Callable[[], int],
        clock: Clock,
        leads: Callable[[], bool] | None = None,
    ) -> None:
        """`depth` is how many events wait. `leads`, where several processes share the pilot, says which one guards it.

        Raises ConfigurationError when the flag's provider cannot be made.
        """
        self.records = PilotRecords(database, shared=leads is not None)
        self.gate = RolloutGate(
            self.records,
            Flag(open_provider(settings)),
            master=settings.use_event_driven_orders,
            brokers=brokers.classes,
        )
        self.evidence = Evidence(
            self.records,
            clock=clock,
            place_of=self.gate.place_of,
            health=lambda: feeds().health(),
            depth=depth,
            alone=leads is None,
        )
        self.guard = Guard(
            self.gate,
            action=GuardAction(settings.guard),
            limits=_limits(settings),
            clock=clock,
            leads=leads or (lambda: True),
        )
        self._accounts = accounts
        self._feeds = feeds
        self._applying = Lock()  # guards the order of decisions: an older one must not overtake a newer
        self.gate.on_change = self.apply

    def attach(self, engine: EventEngine) -> None:
        """Register with the engine, before it starts."""
        self.evidence.attach(engine)
        self.guard.attach(engine)

    def admits(self, account: Account) -> bool:
        """Decide for an account whose feed is about to start."""
        return self.gate.admit(account.id, owner=account.owner, broker=account.broker).enabled

    def apply(self) -> None:
        """Bring every feed to what the gate says now. Any thread."""
        with self._applying:
            accounts = list(self._accounts())
            self.gate.keep_only(account.id for account in accounts)
            self._feeds().set_push({account.id: self.admits(account) for account in accounts})

    async def watch(self) -> None:
        """Notice what other processes, or the flag's provider, changed; runs on the feed loop until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await asyncio.to_thread(self.gate.reload)
            except OrderwireError as error:  # the next look does it again
                _log.warning("rollout not followed yet", error=str(error))

    def close(self) -> None:
        """Write the running minute down and let the provider go; after the engine stopped."""
        self.evidence.flush(everything=True)
        self.gate.close()


def _limits(settings: Settings) -> GuardLimits:
    return GuardLimits(
        latency_p95=settings.guard_latency_p95,
        error_rate=settings.guard_error_rate,
        disconnects_per_hour=settings.guard_disconnects,
        minutes=settings.guard_minutes,
    )
