"""What the rooms of the web hear of in a process without an engine: changes from the bus, the time, what is checked.

Two loops, each a greenlet under gevent: one hands on what the bus tells, in its order; the other ticks. Neither waits
for a client. This is where such a process delivers events, so it is an airlock as the engine's dispatcher is one: a
handler that fails is counted and named, and the rest goes on.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any, Final

import structlog
from msgspec.structs import replace

from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import OrderChange, OrderView
from orderwire.core.orders import AccountId, OrderId
from orderwire.errors import StoreError
from orderwire.meters import Statistics
from orderwire.store.batch import CHECKING

_log = structlog.get_logger(__name__)

CHECKS_EVERY: Final = 0.25
"""Seconds between two looks for orders that are being checked."""

TICKS_EVERY: Final = 1.0

MOST_WAITING: Final = 50_000
"""Changes that may wait here; beyond it their accounts are read anew instead."""

Handler = Callable[[Event], Any]


def _nobody(_account: AccountId) -> None:
    pass


def _nothing_hinted(_accounts: Collection[AccountId]) -> Collection[tuple[AccountId, OrderId]]:
    return ()


class Follow:
    """Hands events on to those who registered. `offer`, `wake` and `put` are for any thread and never wait."""

    def __init__(
        self,
        *,
        fault: Callable[[BaseException], Any] = lambda _error: None,
        hinted: Callable[[Collection[AccountId]], Collection[tuple[AccountId, OrderId]]] = _nothing_hinted,
        view: Callable[[AccountId, OrderId], OrderView | None] = lambda _account, _order_id: None,
        watched: Callable[[], Iterable[AccountId]] = lambda: (),
    ) -> None:
        """`fault` is told what a handler raised; `watched` says which accounts somebody looks at.

        `hinted` says which of their orders are being checked, `view` what the page shows of one.
        """
        self.fault = fault
        self.hinted = hinted
        self.view = view
        self.watched = watched
        self.resync: Callable[[AccountId], None] = _nobody
        """Told of an account of which something may have been missed."""
        self.delivered = 0
        self._lately: deque[int] = deque([0], maxlen=11)
        """What was delivered by the last ticks."""
        self._handlers: dict[str, tuple[Handler, ...]] = defaultdict(tuple)
        self._waiting: deque[OrderChange | AccountId] = deque()
        self._bell = threading.Event()
        self.stopping = threading.Event()
        self._checked: dict[tuple[AccountId, OrderId], OrderView | None] = {}

    # --- those who listen ------------------------------------------------------------------------------

    def register(self, type: str, handler: Handler, *, lane: str = "") -> None:  # noqa: A002, ARG002 - as the engine's
        """Call `handler` with every event of this type; there are no lanes here."""
        self._handlers[type] = (*self._handlers[type], handler)

    def add_lane(
        self,
        name: str,
        *,
        capacity: int,
        when_full: Any = "block",
        key: Callable[[Event], Hashable] | None = None,
    ) -> None:
        """Do nothing: there are no lanes here."""

    def on_dead_letter(self, callback: Callable[[Any], Any]) -> None:
        """Do nothing: faults are counted where the web's are."""

    def put(self, event: Event) -> None:
        """Deliver an event, here and now."""
        self._deliver(event)

    def statistics(self) -> Statistics:
        """Return what an engine would count."""
        return Statistics(
            running=not self.stopping.is_set(),
            depth=len(self._waiting),
            high_water=0,
            delivered=self.delivered,
            rate=(self._lately[-1] - self._lately[0]) / (max(len(self._lately) - 1, 1) * TICKS_EVERY),
            follow_ups=0,
            postponed=0,
            dead_lettered=0,
            callback_errors=0,
            ticks=0,
            ticks_skipped=0,
            types=(),
            handlers=(),
            lanes=(),
        )

    # --- the bus' listener -----------------------------------------------------------------------------

    def offer(self, changes: Sequence[OrderChange]) -> None:
        """Take committed changes, in order."""
        if len(self._waiting) > MOST_WAITING:
            self.wake({change.account for change in changes})
            return
        self._waiting.extend(changes)
        self._bell.set()

    def wake(self, accounts: Collection[AccountId]) -> None:
        """Have these accounts' clients brought to where the log is."""
        self._waiting.extend(accounts)
        self._bell.set()

    # --- the loops -------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the loops."""
        self.stopping.set()
        self._bell.set()

    def run(self) -> None:
        """Hand on what the bus tells, until `stop`."""
        while not self.stopping.is_set():
            self._bell.wait()
            self._bell.clear()
            while self._waiting:
                said = self._waiting.popleft()
                if isinstance(said, OrderChange):
                    self._deliver(Event(EventType.ORDER_CHANGED, said))
                else:
                    self._guarded(self.resync, said)

    def tick(self) -> None:
        """Tell the time, and what is being checked, until `stop`."""
        ticks = 0.0
        while not self.stopping.wait(CHECKS_EVERY):
            self._guarded(self._look_at_checks, None)
            ticks += CHECKS_EVERY
            if ticks >= TICKS_EVERY:
                ticks = 0.0
                self._deliver(Event(EventType.TIMER))
                self._lately.append(self.delivered)

    def _look_at_checks(self, _nothing: None) -> None:
        """Tell of every order that is being checked since the last look, or is not any more."""
        watched = set(self.watched())
        now = set(self.hinted(watched)) if watched else set()
        for key in now - self._checked.keys():
            view = self._checked[key] = self.view(*key)
            if view is not None:
                self._deliver(Event(CHECKING, replace(view, checking=True)))
        for key in self._checked.keys() - now:
            view = self._checked.pop(key)
            if view is not None:
                self._deliver(Event(CHECKING, replace(view, checking=False)))

    def _deliver(self, event: Event) -> None:
        self.delivered += 1
        for handler in self._handlers.get(event.type, ()):
            self._guarded(handler, event)

    def _guarded(self, handler: Callable[[Any], Any], value: Any) -> None:
        try:
            told = handler(value)
            for event in told if isinstance(told, list) else [told]:
                if isinstance(event, Event):
                    self._deliver(event)
        except StoreError as error:  # the next look tries again
            _log.warning("cannot follow", error=str(error))
        except Exception as error:  # noqa: BLE001 - the airlock of this role
            self.fault(error)
