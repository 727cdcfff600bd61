"""Decides which accounts' feeds run in this process, where several share the work: takes, keeps, gives up.

Two lanes of the engine's timer, so that neither waits for the other: one renews the leases and stops what they no
longer cover, the other brings the feeds to what is held and the held to a fair share. A dispatcher that hangs lets
its leases run out, which is right: nothing it took in would be told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from threading import Lock
from typing import Final

import structlog

from orderwire.clock import Clock
from orderwire.core.events import Event, EventType
from orderwire.core.orders import AccountId
from orderwire.core.placement import rank, share, surplus
from orderwire.engine import EventEngine
from orderwire.errors import NotFoundError, StoreBusyError, StoreError
from orderwire.feeds.clerk import Clerk, Teller
from orderwire.feeds.fleet import Fleet
from orderwire.feeds.requests import Counter
from orderwire.store.book import TAKEN, OrderBook
from orderwire.store.database import Database
from orderwire.store.leases import FEEDS, RENEW_EVERY, SERVE, CrowdedError, Leases, Situation
from orderwire.store.shards import shard_of

_log = structlog.get_logger(__name__)

LEASES: Final = "leases"
PLACEMENT: Final = "placement"

MOST_AT_ONCE: Final = 200
"""Accounts taken in one go; the rest a second later, so that two workers that start together share."""

SETTLE_WAIT: Final = 5.0
"""Seconds for which a feed that is given up waits for its last observations to be committed."""


class Ownership:
    """This process' share of the accounts. Its handlers run on their two lanes; the rest from any thread."""

    def __init__(
        self,
        leases: Leases,
        *,
        database: Database,
        fleet: Fleet,
        book: OrderBook,
        clock: Clock,
        version: str,
        place: str,
        alone: bool = False,
    ) -> None:
        """`place` says where this process is, for people: machine and process id.

        `alone`: all accounts are to be here, and no other process.
        """
        self.leases = leases
        self._alone = alone
        self._fleet = fleet
        self._book = book
        self._clock = clock
        self._version = version
        self._place = place
        self._engine: EventEngine | None = None
        self._placing = (
            Lock()
        )  # one thread at a time starts and stops feeds: the placement's lane, at the end `drain`
        self._running: dict[AccountId, int] = {}
        """Accounts whose feeds run here, and under which token."""
        self._lapses = 0
        """The lapses of the leases after which the feeds here were begun."""
        self._renewed = 0.0
        self._away = self._wanted = self._entered = False
        self._workers: tuple[str, ...] = ()
        self._database = database
        self._clerk: Clerk | None = None
        self._teller: Teller | None = None

    def serve(self, counter: Counter) -> None:
        """Carry out with `counter` what others ask, from `enter` on; once, before `attach`."""
        self._clerk = Clerk(self._database, self.leases, counter, clock=self._clock)
        self._teller = Teller(self._database, self.leases, counter, clock=self._clock)

    def attach(self, engine: EventEngine) -> None:
        """Take part in the engine; once, before it starts."""
        self._engine = engine
        for lane, handler in ((LEASES, self.on_renewal), (PLACEMENT, self.on_placement)):
            engine.add_lane(lane, capacity=1, when_full="conflate", key=lambda event: event.type)
            engine.register(EventType.TIMER, handler, lane=lane)
        if self._teller is not None:
            self._teller.attach(engine)

    def enter(self) -> None:
        """Live, and take accounts: the feeds can run now. With a database that is away, once it is back.

        Raises CrowdedError when others live on the database that this process cannot live beside.
        """
        try:
            self._renew()
        except CrowdedError:
            raise
        except StoreError as error:
            self._not_renewed(error)
        self._wanted = True
        with self._placing:
            self._arrange()

    def add(self, account: AccountId) -> None:
        """Own an account that was added and start its feed, or start it anew with its new settings.

        No effect where it is another's, who takes it by itself. Raises StoreError. Any thread.
        """
        if not self._entered:
            raise StoreBusyError("The database is away just now; the account's feed begins when it is back.")
        with self._placing:
            held = self.leases.renew()
            if account not in held:
                self.leases.take(1, rank_of=lambda one: int(one != account))
            token = self.leases.token(account)
            if token is not None and self._running.get(account) == token:
                self._fleet.begin(account)
            else:
                self._follow(self.leases.held)

    def listen(
        self, tell: Callable[[Callable[[Collection[AccountId]], None]], None], hears: Callable[[], bool]
    ) -> None:
        """Have `tell` wake who carries out commands; `hears` says whether it can. Once, after `serve`."""
        if self._clerk is not None:
            self._clerk.is_told = hears
            tell(self._clerk.wake)

    @property
    def leads(self) -> bool:
        """Whether this process does what only one should (notifications, clearing up, the guard)."""
        return self.leases.safe and self.speaks

    @property
    def speaks(self) -> bool:
        """Whether this process tells people what is wrong: the leader, also when it is the database that is."""
        return self._workers[:1] == (self.leases.worker,)

    # --- the leases' lane ------------------------------------------------------------------------------

    def on_renewal(self, _event: Event) -> None:
        """Renew what is held."""
        now = self._clock.monotonic()
        if not self._wanted or (self._entered and now - self._renewed < RENEW_EVERY - 0.5):
            return
        try:
            self._renew()
        except StoreError as error:
            self._not_renewed(error)

    def _renew(self) -> None:
        now = self._clock.monotonic()
        if not self._entered:
            role = SERVE if self._alone else FEEDS
            self.leases.enter(role=role, place=self._place, version=self._version)
            self._entered = True
            if self._clerk is not None:
                self._clerk.start()
        self.leases.renew()
        if self._away:
            _log.info("leases are renewed again")
        self._renewed, self._away = now, False

    def _not_renewed(self, error: StoreError) -> None:
        if not self._away:
            _log.error("leases cannot be renewed; feeds stop if this lasts", error=str(error))
        self._away = True
        if isinstance(error, CrowdedError):
            self._workers = ()

    # --- the placement's lane --------------------------------------------------------------------------

    def on_placement(self, _event: Event) -> None:
        """Bring the feeds to what is held, and what is held to the fair share."""
        with self._placing:
            self._arrange()

    def _arrange(self) -> None:
        self._follow(self.leases.held)
        if self.leases.draining or not self.leases.safe:
            return
        try:
            self._balance(self.leases.situation())
        except StoreError as error:
            _log.warning("placement postponed", error=str(error))

    def _balance(self, seen: Situation) -> None:
        self._workers = seen.workers
        if self.leads:
            self.leases.sweep()
        held = self.leases.held
        fair = share(seen.accounts, seen.workers, self.leases.worker)
        if len(held) > fair and self.leases.worker in seen.workers:
            held = self.leases.renew()  # without those that were removed: they are not too many
            self.give_up(surplus(list(held), fair, rank_of=self._rank))
        elif len(held) < fair and seen.free:
            wanted = fair - len(held)
            self.leases.take(wanted if self._alone else min(wanted, MOST_AT_ONCE), rank_of=self._rank)
            self._follow(self.leases.held)

    def _rank(self, account: AccountId) -> int:
        """Whole shards to one worker: two that write one shard wait for each other's commits."""
        return rank(shard_of(account), self._workers, self.leases.worker)

    def _follow(self, held: Mapping[AccountId, int]) -> None:
        # what came in a lapse was refused, and a feed that goes on takes it for told
        whole, self._lapses = self.leases.lapses == self._lapses, self.leases.lapses
        lost = [name for name, token in self._running.items() if held.get(name) != token or not whole]
        if lost:
            _log.warning("feeds stopped: no longer ours", accounts=len(lost))
            self._stop(lost)
        for account, token in held.items() if not self.leases.draining else ():
            if account not in self._running:
                self._start(account, token)

    def _start(self, account: AccountId, token: int) -> None:
        if self._engine is not None:
            self._engine.put(Event(TAKEN, account))
        try:
            self._fleet.begin(account)
        except NotFoundError:  # removed meanwhile, and its lease with it
            _log.info("an account went before its feed began", account=account)
            return
        except StoreBusyError as error:  # the next look tries again
            _log.warning("feed not begun yet", account=account, error=str(error))
            return
        self._running[account] = token
        _log.info("feed taken", account=account, token=token)

    def _stop(self, accounts: Iterable[AccountId]) -> None:
        gone = list(accounts)
        self._fleet.drop(gone)
        for account in gone:
            self._running.pop(account, None)

    def give_up(self, accounts: list[AccountId]) -> None:
        """End feeds, commit what they told, and let others have the accounts at once."""
        if not accounts:
            return
        self._stop(accounts)
        try:
            self._book.settled().result(SETTLE_WAIT)
        except (
            FutureTimeoutError
        ):  # the database takes nothing: what is staged is refused once others took over
            _log.warning("given up before everything was committed", accounts=len(accounts))
        self.leases.release(accounts)
        _log.info("feeds given up", accounts=len(accounts))

    def drain(self) -> None:
        """Give everything up for good: this process is about to end. Any one thread."""
        self.leases.draining = True
        if self._clerk is not None:
            self._clerk.stop()
        try:
            self.leases.renew()
            with self._placing:
                self.give_up(list(self.leases.held))
            self.leases.leave()
        except StoreError as error:
            _log.warning("not everything could be given up; others wait until it runs out", error=str(error))
