"""Carries out what other processes ask of the accounts owned here, and tells them how their feeds do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Final

import structlog

from orderwire.clock import Clock
from orderwire.core.events import Event, EventType
from orderwire.core.orders import AccountId
from orderwire.core.recovery import FeedStatus
from orderwire.engine import EventEngine
from orderwire.errors import BrokerUnreachableError, OrderwireError, StoreBusyError, StoreError
from orderwire.feeds import requests
from orderwire.feeds.loop import spawn, spawn_loop
from orderwire.feeds.requests import Counter
from orderwire.store import feedstates
from orderwire.store.commands import Command, Commands
from orderwire.store.database import Database
from orderwire.store.feedstates import FeedState
from orderwire.store.leases import Leases

_log = structlog.get_logger(__name__)

LOOK_EVERY: Final = 0.03
"""Seconds between two looks for commands."""

LOOK_RARELY: Final = 0.25
"""The same while who asks also tells: what is told may be lost."""

MOST_AT_ONCE: Final = 64
"""Commands carried out at the same time; the others wait where they are written down."""

_ANSWER_TRIES: Final = 20
_ANSWER_PAUSE: Final = 0.5

STATES: Final = "states"
TOLD_AGAIN: Final = 10.0
"""Seconds after which a feed's state is told again though its freshness is the same."""

TOO_LATE: Final = "It was not begun in time, so nothing was sent. Try again."


class Clerk:
    """Looks for commands in a thread of its own, and carries each out in one."""

    def __init__(self, database: Database, leases: Leases, counter: Counter, *, clock: Clock) -> None:
        self._commands = Commands(database)
        self._leases = leases
        self._counter = counter
        self._clock = clock
        self._stopping = threading.Event()
        self._room = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._working: set[threading.Thread] = set()
        self._looker: threading.Thread | None = None
        self._bell = threading.Event()
        self.is_told: Callable[[], bool] = lambda: False
        """Whether those who ask tell of it, through `wake`."""
        self.carried_out = 0
        self.looks = 0

    def start(self) -> None:
        """Begin to look."""
        self._looker = spawn_loop("clerk", self.run)

    def stop(self, timeout: float = 20.0) -> None:
        """Take no more, and wait for what was begun; from any other thread."""
        self._stopping.set()
        self._bell.set()
        ends = self._clock.monotonic() + timeout
        for thread in (*([self._looker] if self._looker else []), *self._working.copy()):
            thread.join(max(ends - self._clock.monotonic(), 0.0))

    def wake(self, accounts: Collection[AccountId]) -> None:
        """Look now, if one of these accounts is ours. Any thread; returns at once."""
        if not self._leases.held.keys().isdisjoint(accounts):
            self._bell.set()

    def run(self) -> None:
        """Look until `stop`."""
        away, more = False, False
        while not self._stopping.is_set():
            self._bell.wait(LOOK_RARELY if self.is_told() and not more else LOOK_EVERY)
            self._bell.clear()
            try:
                more = not self._stopping.is_set() and self._look()
            except StoreError as error:
                if not away:
                    _log.warning("commands cannot be read", error=str(error))
                away = True
                self._stopping.wait(_ANSWER_PAUSE)
            else:
                away = False

    def _look(self) -> bool:
        """Take what waits; True when there may be more."""
        self.looks += 1
        if not self._leases.held or not self._commands.waits(self._leases.worker):
            return False
        # an account that was only just taken has no feed yet: its commands wait
        held = list(self._leases.held)
        here = [account for account in held if self._counter.fleet.find(account) is not None]
        taken = self._commands.take(self._leases.worker, here, most=MOST_AT_ONCE)
        for command in taken:
            self._begin(command)
        return len(taken) in {0, MOST_AT_ONCE} or len(here) < len(held)

    def _begin(self, command: Command) -> None:
        until = self._clock.monotonic() + command.left_seconds
        self._room.acquire()
        thread = spawn(f"command {command.id}", lambda: self._work(command, until))
        self._working = {one for one in self._working if one.is_alive()} | {thread}

    def _work(self, command: Command, until: float) -> None:
        reply = requests.failed(OrderwireError("Something went wrong at this account's worker."))
        try:
            reply = requests.answered(self._carry_out(command, until))
        except OrderwireError as error:
            reply = requests.failed(error)
        except TimeoutError:
            reply = requests.failed(BrokerUnreachableError("The broker did not answer in time.", sent=True))
        finally:  # whatever else it ended in is in the log, and who asked is told
            self._room.release()
            self._answer(command, reply)

    def _carry_out(self, command: Command, until: float) -> object:
        request = requests.unpacked(command.body)
        if self._clock.monotonic() > until or self._leases.token(command.account) is None:
            raise BrokerUnreachableError(TOO_LATE)
        return request.perform(self._counter, command.account, command.id)

    def _answer(self, command: Command, reply: str) -> None:
        for _ in range(_ANSWER_TRIES):
            try:
                self._commands.answer(command.id, self._leases.worker, reply)
            except StoreBusyError as error:
                _log.warning("answer not written down yet", command=command.id, error=str(error))
                self._stopping.wait(_ANSWER_PAUSE)
            else:
                self.carried_out += 1
                return


class Teller:
    """Writes down how the feeds here do; on a lane of its own."""

    def __init__(self, database: Database, leases: Leases, counter: Counter, *, clock: Clock) -> None:
        self._database = database
        self._leases = leases
        self._fleet = counter.fleet
        self._clock = clock
        self._told: dict[AccountId, tuple[FeedStatus, int, float]] = {}

    def attach(self, engine: EventEngine) -> None:
        """Take part in the engine; once, before it starts."""
        engine.add_lane(STATES, capacity=4, when_full="conflate", key=lambda event: event.type)
        engine.register(EventType.TIMER, self.on_timer, lane=STATES)
        engine.register(EventType.FEED_STATUS, self.on_timer, lane=STATES)

    def on_timer(self, _event: Event) -> None:
        """Tell what is new."""
        held, now = self._leases.held, self._clock.monotonic()
        health = {feed.account: feed for feed in self._fleet.health().feeds}
        news: dict[AccountId, FeedState] = {}
        for status in self._fleet.statuses():
            account, token = status.account, held.get(status.account)
            before = self._told.get(account)
            fresh = before is not None and before[:2] == (status, token) and now - before[2] < TOLD_AGAIN
            if token is None or fresh or account not in health:
                continue
            news[account] = FeedState(
                worker=self._leases.worker,
                status=status,
                health=health[account],
                redirects=self._redirects(account),
            )
        try:
            feedstates.tell(self._database, self._leases.worker, news)
        except StoreError as error:
            _log.warning("feeds' states not written down yet", error=str(error))
            return
        for account, state in news.items():
            self._told[account] = (state.status, held[account], now)

    def _redirects(self, account: AccountId) -> bool:
        adapter = self._fleet.find(account)
        return adapter is not None and adapter.login_url() is not None
