"""The bus as the roles know it: woken by commits and commands here, waking those who follow elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from orderwire.bus.follower import Follower
from orderwire.bus.link import open_redis
from orderwire.bus.relay import Relay
from orderwire.bus.streams import Streams
from orderwire.bus.switchboard import Switchboard
from orderwire.bus.wire import Wire
from orderwire.clock import Clock
from orderwire.core.lifecycle import OrderChange
from orderwire.core.orders import AccountId
from orderwire.store.database import Database
from orderwire.store.wake import WakeListener

_COMMANDED: Final = "commanded"


LEAVE_WITHIN: Final = 2.0
"""Seconds that `close` waits for a loop to end."""


class Loop(Protocol):
    """A thread, or a greenlet where the process has those."""

    def join(self, timeout: float) -> None:
        """Wait until it has ended."""
        ...


class Spawn(Protocol):
    """Starts a loop that ends when its function does."""

    def __call__(self, name: str, function: Callable[[], None]) -> Loop:
        """Start it."""
        ...


class RedisWake:
    """Wakes over Redis. Any thread; its loops start when they are first needed, so make it before a fork or after.

    What it does not deliver is found by whoever looks into the database; nothing here raises or waits for Redis.
    """

    def __init__(self, url: str, database: Database, *, clock: Clock, spawn: Spawn) -> None:
        """Raises ConfigurationError when `url` cannot be used; whether Redis is there does not matter yet."""
        redis = open_redis(url)
        self._database = database
        self._clock = clock
        self._spawn = spawn
        self._guard = threading.Lock()  # guards the making of the loops, and `_waiting`
        self._streams = Streams(redis)
        self.wire = Wire(redis, clock=clock)
        self.relay: Relay | None = None
        self.followers: tuple[Follower, ...] = ()
        self._loops: tuple[Loop, ...] = ()
        self._waiting: set[AccountId] = set()
        """Accounts whose owners are to be told that a command waits."""
        self._bell = threading.Event()
        self._listening = self._crying = False
        self._closed = False

    @property
    def hears(self) -> bool:
        """Whether notices come in, as far as is known: a subscription that is deaf is found out in seconds."""
        return self.wire.subscribed.is_set()

    def publish(self) -> None:
        """Publish from now on, also what others committed and did not live to publish."""
        self._started_relay()

    def changed(self, changes: Sequence[OrderChange]) -> None:
        """Say that these changes were committed: they are read from the outbox and published."""
        if changes:
            self._started_relay().wake({change.account for change in changes})

    def commanded(self, accounts: Collection[AccountId]) -> None:
        """Say that a command waits for the owners of these accounts; it was committed."""
        if not accounts:
            return
        with self._guard:
            self._waiting.update(accounts)
            begins, self._crying = not (self._crying or self._closed), True
        self._bell.set()
        if begins:
            self._begin("bus-crier", self._cry)

    def _cry(self) -> None:
        """Say what waits, all of it together; a loop of its own, because Redis may let it wait."""
        while not self._closed:
            self._bell.wait()
            self._bell.clear()
            with self._guard:
                waiting, self._waiting = self._waiting, set()
            if waiting:
                self.wire.tell(_COMMANDED, accounts=sorted(waiting))

    def on_commanded(self, owner: Callable[[Collection[AccountId]], None]) -> None:
        """Tell an owner of accounts that commands wait; it only notes that, in the listening thread."""

        def commanded(facts: Mapping[str, Any]) -> None:
            owner([AccountId(account) for account in facts.get("accounts", ()) if isinstance(account, str)])

        self.wire.on(_COMMANDED, commanded)
        self._listen()

    def subscribe(self, listener: WakeListener) -> None:
        """Tell `listener` of changes from now on, each once and in order."""
        follower = Follower(self._database, self._streams, listener, clock=self._clock)
        with self._guard:
            self.followers = (*self.followers, follower)
        self._begin("bus-follower", follower.run)

    def switchboard(self) -> Switchboard:
        """Return Socket.IO's queue on our wire; the Socket.IO server then does the listening."""
        with self._guard:
            self._listening = True
        return Switchboard(self.wire)

    def close(self) -> None:
        """End the loops; what was committed and not yet published is published by whoever is left."""
        with self._guard:
            self._closed = True
        self._bell.set()
        self.wire.stop()
        for loop in (self.relay, *self.followers):
            if loop is not None:
                loop.stop()
        for each in self._loops:
            each.join(LEAVE_WITHIN)

    def _listen(self) -> None:
        with self._guard:
            if self._listening or self._closed:
                return
            self._listening = True
        self._spawn(
            "bus-wire", self.wire.run
        )  # it may hear nothing for a second, so nobody waits for its end

    def _begin(self, name: str, function: Callable[[], None]) -> None:
        loop = self._spawn(name, function)
        with self._guard:
            self._loops = (*self._loops, loop)

    def _started_relay(self) -> Relay:
        with self._guard:
            if self.relay is not None:
                return self.relay
            self.relay = Relay(self._database, self._streams, clock=self._clock)
        self._begin("bus-relay", self.relay.run)
        return self.relay
