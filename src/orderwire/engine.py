"""The event engine: one queue, one dispatcher thread, and handlers that cannot bring it down.

The surface is that of vn.py's `EventEngine` (MIT, credited in docs/decisions/0002-event-engine.md) and keeps its
meaning; the promises behind it are in docs/decisions/0002-event-engine.md and in the docstrings here.

Threads: `event-dispatcher` delivers, `event-timer` ticks, `event-lane-<name>` serves one lane each. All are
daemons, started by `start` and stopped in that order.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Protocol

import structlog

from orderwire.core.events import Event, EventType
from orderwire.errors import OrderwireError
from orderwire.meters import (
    BATCH_END,
    OTHER,
    UNTOLD,
    LaneStatistics,
    Meter,
    Meters,
    Statistics,
    Tally,
    WhenFull,
    merged,
)

__all__ = [
    "EVENT_TIMER",
    "DeadLetter",
    "Event",
    "EventEngine",
    "EventType",
    "UndeliverableError",
    "next_tick",
]

EVENT_TIMER: Final = EventType.TIMER.value
"""vn.py's name for it, so that a script of its users changes one line: `from orderwire.engine import …`."""

Handler = Callable[[Event], Any]
Hook = Callable[[], Any]

_ENGINE = "orderwire.engine.EventEngine"
_BATCH_EVENTS = 256
_BATCH_SECONDS = 0.020
_FOLD_EVERY = 8192
_CROWD = 512
_UNTIMED = 16  # with the timed one a prime, so that no pattern of types hides one from the clock
_VIGILANT_BATCHES = 8
_FOLLOW_UPS_PER_BATCH = 65_536
_HOOK_ROUNDS = 16
_DEAD_LETTERS = 1000
_RATE_TICKS = 10
_EXIT_SECONDS = 2.0
_GRACE_SECONDS = 0.1


class UndeliverableError(OrderwireError):
    """An event needs a type, a string that is not empty. Dead-lettered, never raised to whoever put it."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A delivery that failed: `handler` is the failing handler's name, `at` the wall time (UTC).

    `event` is None when a batch-end hook failed. `error` keeps its traceback from the handler inwards.
    """

    event: Event | None
    handler: str
    error: BaseException
    at: datetime


def next_tick(*, since: float, now: float, interval: float) -> float:
    """Return the first time after `now` on the grid that begins at `since`: ticks are skipped, never bunched."""
    return since + (math.floor((now - since) / interval) + 1) * interval


class _Bell(Protocol):
    """What a sleeping dispatcher waits on. Rings are kept, not counted, until the next wait."""

    def wait(self) -> object: ...
    def ring(self) -> object: ...


class _EventfdBell:
    """Linux: about a third of the latency of a lock. `ring` is one C call, so no signal can come before it."""

    __slots__ = ("__weakref__", "ring", "wait")

    def __init__(self) -> None:
        fd = os.eventfd(0)
        self.wait: Callable[[], object] = partial(os.eventfd_read, fd)
        self.ring: Callable[[], object] = partial(os.eventfd_write, fd, 1)
        weakref.finalize(self, os.close, fd).atexit = False


class _LockBell:
    """Elsewhere: a lock that the ringer releases."""

    __slots__ = ("ring", "wait")

    def __init__(self) -> None:
        lock = threading.Lock()
        lock.acquire()
        self.wait: Callable[[], object] = lock.acquire
        self.ring: Callable[[], object] = lock.release


def _make_bell() -> _Bell:
    return _EventfdBell() if hasattr(os, "eventfd") else _LockBell()


_Target = tuple[Handler, Callable[[float], None], Meter]
_HookTarget = tuple[Hook, Callable[[float], None], Meter]
_LaneRoute = tuple[Callable[[float], None], tuple[_Target, ...]]
_Route = tuple[Callable[[float], None], tuple[_Target, ...], Tally]


def _name_of(handler: Any) -> str:
    while isinstance(handler, partial):
        handler = handler.func
    named = handler if hasattr(handler, "__qualname__") else type(handler)
    module = getattr(named, "__module__", None)
    return f"{module}.{named.__qualname__}" if module else str(named.__qualname__)


def _target(handler: Handler, meter: Meter) -> _Target:
    return handler, meter.add, meter


def _events_in(result: object) -> list[Event]:
    """Return the follow-up events a handler returned; vn.py's handlers return anything, that is not for us."""
    if isinstance(result, Event):
        return [result]
    return [item for item in result if isinstance(item, Event)] if isinstance(result, list) else []


class _Run:
    """One life of the engine, from a start to the end of its stop."""

    __slots__ = ("abandoned", "closed", "done", "idents", "previous", "stopping", "timer", "timer_stop")

    def __init__(self, previous: _Run | None) -> None:
        self.previous: threading.Event | None = previous.done if previous is not None else None
        self.stopping = False  # no more from outside; deliver what is queued
        self.closed = False  # everything is delivered: lane threads end
        self.abandoned = False  # the time is up: deliver no more
        self.done: threading.Event = threading.Event()
        self.timer_stop = threading.Event()
        self.timer: threading.Thread | None = None
        self.idents: set[int] = set(previous.idents) if previous is not None else set()


class _Lane:
    """A bounded queue with a thread of its own, for handlers that are slow."""

    def __init__(
        self, name: str, *, capacity: int, key: Callable[[Event], Hashable] | None, meters: Meters
    ) -> None:
        self.name = name
        self.capacity = capacity
        self.key = key
        self.begin(meters)

    def begin(self, meters: Meters) -> None:
        """Begin empty, with locks of this process."""
        self.hand_over = meters.own(f"hand over to {self.name}")
        self.routes: dict[str, _LaneRoute] = {}
        self.other_route: _LaneRoute = (meters.wait(OTHER, self.name).add, ())
        self.count = self.high_water = self.conflated = self.overflowed = self.blocked = 0
        self.thread: threading.Thread | None = None
        lock = threading.Lock()  # guards everything below, and the counters
        self._work = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._idle = threading.Condition(lock)
        self._entries: deque[list[Any]] = deque()
        self._newest: dict[Hashable, list[Any]] = {}
        self._busy = False
        self.run: _Run | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def offer(self, event: Event, *, now: float, key: Hashable) -> None:
        """Take an event from the dispatcher; when full, merge it or make the dispatcher wait."""
        with self._work:
            if len(self._entries) < self.capacity or self._make_room(event, key):
                entry = [event, now, key]
                self._entries.append(entry)
                if key is not None:
                    self._newest[key] = entry
                self.high_water = max(self.high_water, len(self._entries))
                self._work.notify()

    def _make_room(self, event: Event, key: Hashable) -> bool:
        """Return whether the event still needs a place of its own."""
        if self.key is None:
            self.blocked += 1
            self._room.wait_for(
                lambda: len(self._entries) < self.capacity or self.run is None or self.run.abandoned
            )
        elif (waiting := self._newest.get(key)) is not None:
            waiting[0] = event
            self.conflated += 1
            return False
        self.overflowed += len(self._entries) >= self.capacity
        return True

    def take(self, run: _Run) -> tuple[Event, float] | None:
        """Return the next event and since when it waits; None when the lane's thread shall end."""
        with self._work:
            self._busy = False
            if not self._entries:
                self._idle.notify_all()
            self._work.wait_for(lambda: self._entries or run.closed or run.abandoned)
            if run.abandoned or not self._entries:
                return None
            event, since, key = entry = self._entries.popleft()
            if self._newest.get(key) is entry:
                del self._newest[key]
            self._busy = True
            self.count += 1
            self._room.notify()
            return event, since

    def settle(self, run: _Run) -> None:
        """Wait until nothing is queued or being handled, or the run is abandoned."""
        with self._work:
            self._idle.wait_for(lambda: run.abandoned or not (self._entries or self._busy))

    def wake(self) -> None:
        with self._work:
            self._work.notify_all()
            self._room.notify_all()
            self._idle.notify_all()

    def statistics(self) -> LaneStatistics:
        with self._work:
            return LaneStatistics(
                name=self.name,
                when_full="conflate" if self.key else "block",
                capacity=self.capacity,
                depth=len(self._entries),
                high_water=self.high_water,
                count=self.count,
                conflated=self.conflated,
                overflowed=self.overflowed,
                blocked=self.blocked,
                hand_over=merged([self.hand_over]),
            )


class EventEngine:
    """Delivers events by type, in the order they were put, in one thread; and a timer event every `interval` seconds.

    Every method may be called from any thread, handlers included.

    * A handler's exception is caught, counted, named and dead-lettered (`dead_letters`); the others go on.
    * Handlers of the event's type run first, then the general ones, each in the order registered.
    * A handler may return an `Event` or a list of them: delivered in the same thread after the event at hand
      and before the next queued one (on a lane they are `put`). Anything else it returns is ignored, and so
      is the very event it was given.
    * A running engine survives `fork` in the parent; in the child it is stopped, empty, keeps its handlers and can
      be started. One still running when the interpreter exits is stopped with two seconds to drain.

    `interval` is in seconds, more than 0 (ValueError); `now` is a monotonic clock in seconds.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_append",
        "_bell",
        "_callback_errors",
        "_callbacks",
        "_dead_lettered",
        "_delivered",
        "_fold_at",
        "_follow",
        "_follow_ups",
        "_follow_ups_in_batch",
        "_general",
        "_handlers",
        "_held",
        "_high_water",
        "_hooked",
        "_hooks",
        "_interval",
        "_lanes",
        "_letters",
        "_log",
        "_meters",
        "_no_route",
        "_now",
        "_other_route",
        "_other_tally",
        "_parked",
        "_postponed",
        "_queue",
        "_rates",
        "_registry",
        "_routes",
        "_routes_replaced",
        "_run",
        "_tick_waits",
        "_ticks",
        "_ticks_skipped",
        "_vigilant",
    )

    def __init__(self, interval: float = 1, *, now: Callable[[], float] = time.monotonic) -> None:
        if not (interval > 0 and math.isfinite(interval)):
            raise ValueError(f"the timer's interval is a positive number of seconds, not {interval}")
        self._interval = interval
        self._now = now
        self._log = structlog.get_logger(__name__)
        self._queue: deque[Event] = deque()
        self._held: deque[Event] = deque()  # put from outside while a stop drains
        self._append: Callable[[Event], None] = self._queue.append
        self._bell = _make_bell()
        self._parked = False
        self._run: _Run | None = None
        self._registry = threading.RLock()  # guards registrations, routes, lanes, runs, letters and _held
        self._handlers: dict[str, tuple[tuple[Handler, str], ...]] = {}
        self._general: tuple[Handler, ...] = ()
        self._hooks: tuple[_HookTarget, ...] = ()
        self._lanes: dict[str, _Lane] = {}
        self._letters: deque[DeadLetter] = deque(maxlen=_DEAD_LETTERS)
        self._callbacks: tuple[Callable[[DeadLetter], Any], ...] = ()
        self._follow: deque[Event] = deque()
        self._tick_waits = False
        self._hooked = False
        self._reset_statistics()

    def _reset_statistics(self) -> None:
        self._meters = Meters()
        self._delivered = self._high_water = self._dead_lettered = self._callback_errors = 0
        self._follow_ups = self._follow_ups_in_batch = self._postponed = 0
        self._ticks = self._ticks_skipped = 0
        self._fold_at = _FOLD_EVERY
        self._rates: deque[tuple[float, int]] = deque(maxlen=_RATE_TICKS + 1)
        for lane in self._lanes.values():
            lane.begin(self._meters)
        self._hooks = tuple(self._hook_target(hook) for hook, _, _ in self._hooks)
        self._vigilant = 0
        self._routes_replaced = False
        self._other_tally = Tally()
        self._no_route = self._tallied(self._meters.own("undeliverable"), ())
        self._routes: dict[str, _Route] = {}
        self._reroute()

    # Putting

    def put(self, event: Event) -> None:
        """Queue an event; never blocks, never raises, never loses.

        While the engine does not run the event waits for the next start. Events of one thread are delivered in
        the order put. An event without a type is dead-lettered when its turn comes.
        """
        try:  # noqa: SIM105 - the engine's fastest path
            event.queued = self._now()
        except Exception:  # noqa: BLE001, S110 - a stranger without room for a stamp, or no event: delivery judges
            pass
        self._append(event)
        if self._parked:
            self._parked = False
            try:  # noqa: SIM105 - nothing may come between the flag and the bell, not even a signal's handler
                self._bell.ring()
            except RuntimeError:  # another producer released the lock first
                pass

    def _put_while_stopping(self, event: Event) -> None:
        with self._registry:
            run = self._run
            outside = run is not None and run.stopping and threading.get_ident() not in run.idents
            (self._held if outside else self._queue).append(event)

    # Registering

    def register(self, type: str, handler: Handler, *, lane: str = "") -> None:  # noqa: A002 - vn.py's name
        """Call `handler(event)` for events of `type`, once per type, from the next event on.

        It runs in the dispatcher's thread, or in that of `lane` (made with `add_lane`). Registering a handler
        again, on whatever lane, has no effect. TypeError when it cannot be called or the type is not a string,
        ValueError for an empty type or an unknown lane.
        """
        _check(type, handler)
        with self._registry:
            if lane and lane not in self._lanes:
                raise ValueError(f"there is no lane {lane!r}; add_lane makes one")
            present = self._handlers.get(type, ())
            if all(handler != other for other, _ in present):
                self._handlers[type] = (*present, (handler, lane))
                self._route(type)
                self._retire_at_rest()

    def unregister(self, type: str, handler: Handler) -> None:  # noqa: A002 - vn.py's name
        """Stop calling `handler` for `type`, from the next event on; no effect when it is not registered."""
        with self._registry:
            present = self._handlers.get(type, ())
            kept = tuple(pair for pair in present if pair[0] != handler)
            if len(kept) == len(present):
                return
            if kept:
                self._handlers[type] = kept
            else:
                del self._handlers[type]
            self._route(type)
            if not kept and type != EventType.TIMER:
                self._replace(type, None)
            self._retire_at_rest()

    def register_general(self, handler: Handler) -> None:
        """Call `handler(event)` for every event, after the type's own handlers. TypeError when not callable."""
        _check(OTHER, handler)
        with self._registry:
            if handler not in self._general:
                self._general = (*self._general, handler)
                self._reroute()

    def unregister_general(self, handler: Handler) -> None:
        """Stop calling `handler` for every event; no effect when it is not registered."""
        with self._registry:
            self._general = tuple(other for other in self._general if other != handler)
            self._reroute()

    def register_batch_end(self, hook: Hook) -> None:
        """Call `hook()` in the dispatcher's thread after each drained batch (256 events or 20 ms at most).

        Events it returns are delivered before the next batch and end with another call of the hooks, so that
        nothing they cause waits; a hook with nothing to say returns None. After 16 such rounds the rest is
        delivered without another call. Its exceptions are dead-lettered with `event` None.
        """
        _check(BATCH_END, hook)
        with self._registry:
            if all(hook != other for other, _, _ in self._hooks):
                self._hooks = (*self._hooks, self._hook_target(hook))

    def _hook_target(self, hook: Hook) -> _HookTarget:
        meter = self._meters.time(BATCH_END, _name_of(hook), "")
        return hook, meter.add, meter

    def unregister_batch_end(self, hook: Hook) -> None:
        """Stop calling `hook`; no effect when it is not registered."""
        with self._registry:
            self._hooks = tuple(target for target in self._hooks if target[0] != hook)

    def on_dead_letter(self, callback: Callable[[DeadLetter], Any]) -> None:
        """Call `callback(letter)` for every dead letter, in the thread whose handler failed.

        It must not block. Its own exceptions are counted and logged, nothing else.
        """
        _check(OTHER, callback)
        with self._registry:
            if callback not in self._callbacks:
                self._callbacks = (*self._callbacks, callback)

    def add_lane(
        self,
        name: str,
        *,
        capacity: int,
        when_full: WhenFull = "block",
        key: Callable[[Event], Hashable] | None = None,
    ) -> None:
        """Make a lane: a thread and a queue of `capacity` events for handlers too slow for the core path.

        Events keep their order. When full, `block` makes the dispatcher wait (so no core path may use it);
        `conflate` puts the newer event in the place of the last one waiting with the same `key(event)`, and exceeds
        the capacity, counted, for a key that is not waiting yet (or None, which is never merged): the queue is
        bounded by the capacity plus the number of keys. ValueError for a name taken, a capacity below 1, or a
        key where none belongs or is missing.
        """
        if (
            not name
            or capacity < 1
            or when_full not in {"block", "conflate"}
            or (key is None) is (when_full != "block")
        ):
            raise ValueError("a lane has a name, room for an event, and a key exactly when it conflates")
        with self._registry:
            if name in self._lanes:
                raise ValueError(f"there is a lane {name!r} already")
            lane = self._lanes[name] = _Lane(name, capacity=capacity, key=key, meters=self._meters)
            if self._run is not None and not self._run.stopping:
                self._start_lane(lane, self._run)

    # Routes: what `_deliver` looks up. Tuples are replaced, never changed.

    def _reroute(self) -> None:
        with self._registry:
            self._other_tally.retired = True
            self._other_route = self._make_route(OTHER, OTHER)
            self._other_tally = self._other_route[2]
            for kind in dict.fromkeys((EventType.TIMER.value, *self._handlers, *self._routes)):
                self._route(kind)
            self._retire_at_rest()

    def _route(self, kind: str) -> None:
        label = self._meters.label(kind, registered=True)
        for name, lane in self._lanes.items():
            targets = self._targets(kind, label, name)
            if targets:
                lane.routes[kind] = (self._meters.wait(label, name).add, targets)
            else:
                lane.routes.pop(kind, None)
        self._replace(kind, self._make_route(kind, label))

    def _replace(self, kind: str, route: _Route | None) -> None:
        replaced = self._routes.pop(kind, None) if route is None else self._routes.get(kind)
        if route is not None:
            self._routes[kind] = route
        if replaced is not None:
            replaced[2].retired = True
            self._routes_replaced = True

    def _retire_at_rest(self) -> None:
        if self._routes_replaced and self._run is None:
            self._retire()

    def _make_route(self, kind: str, label: str) -> _Route:
        first = (
            (_target(self._tick_taken, self._meters.own("tick taken")),) if kind == EventType.TIMER else ()
        )
        general = tuple(
            _target(handler, self._meters.time(label, _name_of(handler), "")) for handler in self._general
        )
        lanes = dict.fromkeys(self._lanes[name] for _, name in self._handlers.get(kind, ()) if name)
        offers = tuple(_target(partial(self._offer, lane), lane.hand_over) for lane in lanes)
        targets = (*first, *self._targets(kind, label, ""), *general, *offers)
        return self._tallied(self._meters.wait(label, ""), targets)

    def _tallied(self, wait: Meter, targets: tuple[_Target, ...]) -> _Route:
        tally = Tally()
        for meter in (wait, *(meter for _, _, meter in targets)):
            meter.tallies.append(tally)
        return wait.add, targets, tally

    def _targets(self, kind: str, label: str, lane: str) -> tuple[_Target, ...]:
        return tuple(
            _target(handler, self._meters.time(label, _name_of(handler), lane))
            for handler, where in self._handlers.get(kind, ())
            if where == lane
        )

    def _find_route(self, kind: object) -> _Route:
        """Return the route of a type nobody registered for: its own while names last, then the common one."""
        if not (isinstance(kind, str) and kind):
            raise UndeliverableError
        with self._registry:
            if kind in self._routes:
                return self._routes[kind]
            label = self._meters.label(kind, registered=False)
            if label == OTHER:
                return self._other_route
            route = self._routes[kind] = self._make_route(kind, label)
            return route

    # Delivering, in the dispatcher's thread

    def _deliver(self, room: int) -> int:
        """Deliver up to `room` queued events, and the follow-ups of all; return how many came from the queue.

        This loop is what the engine's speed is made of. One clock reading per handler call serves as the end of one
        measurement and the beginning of the next, and measurements are only appended here. When a crowd waits,
        most events go through `_hurry` instead.
        """
        queue, follow, now, routes = self._queue, self._follow, self._now, self._routes
        wanted, hurrying = room, self._crowded(room)
        clock = now()
        deadline = clock + _BATCH_SECONDS
        while True:
            if follow:
                event = follow.popleft()
            elif room and queue and clock < deadline:
                if hurrying and room > _UNTIMED:
                    room -= self._hurry()
                    hurrying, clock = self._look_round(clock)
                    if follow or not queue:
                        continue
                event = queue.popleft()
                room -= 1
            else:
                return wanted - room
            try:
                wait, targets, _ = routes[event.type]
                wait(clock - event.queued)
            except Exception as error:  # noqa: BLE001 - airlock: whatever was put, dispatch goes on
                wait, targets, _ = self._look(event, error)
                wait(_waited(event, clock))
            for handler, took, meter in targets:
                try:
                    result = handler(event)
                except BaseException as error:  # noqa: BLE001 - airlock: SystemExit too, the thread is not the handler's
                    took(now() - clock)
                    self._fail(event, _name_of(handler), error, meter)
                    clock = now()
                    continue
                clock, begun = now(), clock
                took(clock - begun)
                if result is not None:
                    self._adopt(result, event, clock)

    def _hurry(self) -> int:
        """Deliver a few queued events untimed, up to the first with a follow-up; return how many.

        The same as `_deliver` without its clock: reading it for each call of each handler is half the work when
        handlers are quick, and nobody needs a hundred thousand durations a second.
        """
        queue, follow, routes = self._queue, self._follow, self._routes
        for hurried in range(1, _UNTIMED + 1):
            try:
                event = queue.popleft()
            except IndexError:  # emptied by a fork inside a handler, in the child
                return hurried - 1
            try:
                _, targets, tally = routes[event.type]
            except Exception as error:  # noqa: BLE001 - airlock: as in _deliver
                _, targets, tally = self._look(event, error)
            tally.count += 1
            for handler, _, meter in targets:
                try:
                    result = handler(event)
                except BaseException as error:  # noqa: BLE001 - airlock: as in _deliver
                    self._fail(event, _name_of(handler), error, meter)
                else:
                    if result is not None:
                        self._adopt(result, event, self._now())
            if follow:
                break
        return hurried

    def _crowded(self, room: int) -> bool:
        """Return whether a crowd waits; for some batches after a slow event it does not count."""
        if self._vigilant:
            self._vigilant -= 1
            return False
        return room > 0 and len(self._queue) >= _CROWD

    def _look_round(self, clock: float) -> tuple[bool, float]:
        """Read the clock after untimed events; when they took long, this batch and the next are timed throughout."""
        reading = self._now()
        if reading - clock < _BATCH_SECONDS:
            return True, reading
        self._meters.time(OTHER, UNTOLD, "").add(reading - clock)
        self._vigilant = _VIGILANT_BATCHES
        return False, reading

    def _look(self, event: Event, error: Exception) -> _Route:
        """Look closer at an event that is not in the routes, takes no stamp, or has no type at all."""
        try:
            return self._find_route(getattr(event, "type", None))
        except Exception as reason:  # noqa: BLE001 - airlock: a hostile object may raise anything
            reason.__cause__ = error
            self._fail(event, _ENGINE, reason, None)
            return self._no_route

    def _adopt(self, result: object, event: Event | None, clock: float) -> None:
        for follow_up in _events_in(result):
            if follow_up is event:
                continue
            self._follow_ups += 1
            self._follow_ups_in_batch += 1
            if self._follow_ups_in_batch > _FOLLOW_UPS_PER_BATCH:
                self._postponed += 1
                self.put(follow_up)
            else:
                with suppress(Exception):  # a stamp is not worth an event
                    follow_up.queued = clock
                self._follow.append(follow_up)

    def _batch_safely(self) -> None:
        try:
            self._batch()
        except BaseException as error:  # noqa: BLE001 - airlock: out of memory, say; the dispatcher itself never ends
            self._fail(None, _ENGINE, error, None)

    def _batch(self) -> None:
        self._high_water = max(self._high_water, len(self._queue))
        self._follow_ups_in_batch = 0
        if self._routes_replaced:
            self._retire()
        self._delivered += self._deliver(_BATCH_EVENTS)
        if self._hooks:
            self._end_batch()
        if self._delivered >= self._fold_at:
            self._fold_at = self._delivered + _FOLD_EVERY
            self._meters.fold()

    def _retire(self) -> None:
        with self._registry:
            self._routes_replaced = False
            self._meters.retire()

    def _end_batch(self) -> None:
        for _ in range(_HOOK_ROUNDS):
            self._call_hooks()
            if not self._follow:
                return
            self._deliver(0)

    def _call_hooks(self) -> None:
        for hook, took, meter in self._hooks:
            begun = self._now()
            try:
                result = hook()
            except BaseException as error:  # noqa: BLE001 - airlock
                took(self._now() - begun)
                self._fail(None, _name_of(hook), error, meter)
                continue
            clock = self._now()
            took(clock - begun)
            if result is not None:
                self._adopt(result, None, clock)

    def _fail(self, event: Event | None, handler: str, error: BaseException, meter: Meter | None) -> None:
        inner = error.__traceback__.tb_next if error.__traceback__ else None
        letter = DeadLetter(event, handler, error.with_traceback(inner), datetime.now(UTC))
        with self._registry:
            if meter is not None:
                meter.errors += 1
            self._dead_lettered += 1
            self._letters.append(letter)
            nth = meter.errors if meter is not None else self._dead_lettered
        for callback in self._callbacks:
            self._tell(callback, letter)
        if nth & (nth - 1) == 0:  # the 1st, 2nd, 4th, 8th …: a failing handler cannot flood the log
            self._report("handler failed", handler=handler, times=nth, exc_info=error)

    def _tell(self, callback: Callable[[DeadLetter], Any], letter: DeadLetter) -> None:
        try:
            callback(letter)
        except BaseException as error:  # noqa: BLE001 - airlock: the last one, so it only counts and logs
            with self._registry:
                self._callback_errors += 1
            self._report("dead letter callback failed", callback=_name_of(callback), exc_info=error)

    def _report(self, message: str, **facts: object) -> None:
        with suppress(Exception):  # a log that cannot be written stops no order
            self._log.error(message, **facts)

    # Lanes

    def _offer(self, lane: _Lane, event: Event) -> None:
        key: Hashable = None
        if lane.key is not None:
            try:
                key = lane.key(event)
                hash(key)
            except Exception as error:  # noqa: BLE001 - airlock: the event is still delivered, only not merged
                key = None
                self._fail(event, _name_of(lane.key), error, lane.hand_over)
        lane.offer(event, now=self._now(), key=key)

    def _serve(self, lane: _Lane, run: _Run, previous: threading.Thread | None) -> None:
        run.idents.add(threading.get_ident())
        if previous is not None:
            previous.join()
        while (taken := lane.take(run)) is not None:
            self._deliver_on(lane, *taken)

    def _deliver_on(self, lane: _Lane, event: Event, since: float) -> None:
        wait, targets = lane.routes.get(event.type, lane.other_route)
        clock = self._now()
        wait(clock - since)
        for handler, took, meter in targets:
            try:
                result = handler(event)
            except BaseException as error:  # noqa: BLE001 - airlock
                took(self._now() - clock)
                self._fail(event, _name_of(handler), error, meter)
                clock = self._now()
                continue
            clock, begun = self._now(), clock
            took(clock - begun)
            for follow_up in _events_in(result):
                if follow_up is not event:
                    self.put(follow_up)

    # The timer

    def _tick(self, run: _Run) -> None:
        run.idents.add(threading.get_ident())
        since = self._now()
        deadline = since + self._interval
        while not run.timer_stop.wait(min(max(deadline - self._now(), 0.0), threading.TIMEOUT_MAX)):
            now = self._now()
            if now < deadline:
                continue
            deadline = next_tick(since=since, now=now, interval=self._interval)
            self._ticks += 1
            self._rates.append((now, self._delivered))
            if self._tick_waits:
                self._ticks_skipped += 1
            else:
                self._tick_waits = True
                self.put(Event(EventType.TIMER.value))
            self._ring()  # should a producer have been interrupted between queueing and waking

    def _tick_taken(self, _event: Event) -> None:
        self._tick_waits = False
        self._meters.fold()

    def _ring(self) -> None:
        with suppress(RuntimeError):  # a lock that rings already
            self._bell.ring()

    # Starting and stopping

    def start(self) -> None:
        """Begin to deliver, what was put before first; no effect while running.

        After a stop whose time ran out it returns at once, and delivery begins when the handler that held up the
        stop has returned.
        """
        with self._registry:
            previous = self._run
            if previous is not None and not previous.stopping:
                return
            self._hook_process()
            run = _Run(previous)
            try:
                self._run = run
                self._take_held()  # before anything put from now on
                self._launch(run)
            except (
                BaseException
            ):  # no more threads to be had: what has begun ends, and the engine is as before
                self._run = previous
                self._abandon(run)
                raise

    def _launch(self, run: _Run) -> None:
        self._rates.clear()
        self._rates.append((self._now(), self._delivered))
        run.timer = _thread("event-timer", self._tick, run)
        run.timer.start()
        for lane in self._lanes.values():
            self._start_lane(lane, run)
        _thread("event-dispatcher", self._dispatch, run).start()

    def _start_lane(self, lane: _Lane, run: _Run) -> None:
        lane.run = run
        previous, lane.thread = lane.thread, None
        lane.thread = _thread(f"event-lane-{lane.name}", self._serve, lane, run, previous)
        lane.thread.start()

    def _dispatch(self, run: _Run) -> None:
        run.idents.add(threading.get_ident())
        if run.previous is not None:
            run.previous.wait()
        while not run.abandoned:
            if self._queue:
                self._batch_safely()
            elif not run.stopping:
                self._sleep(run)
            elif self._settled(run):
                break
        self._finish(run)

    def _sleep(self, run: _Run) -> None:
        self._parked = True
        if not (self._queue or run.stopping):
            self._bell.wait()
        self._parked = False

    def _settled(self, run: _Run) -> bool:
        """Wait for the timer and the lanes; return whether they left nothing more to deliver."""
        if run.timer is not None:
            run.timer.join()
        for lane in tuple(self._lanes.values()):
            lane.settle(run)
        return not self._queue

    def _finish(self, run: _Run) -> None:
        run.closed = True
        for lane in tuple(self._lanes.values()):
            lane.wake()
            if lane.thread is not None and not run.abandoned:
                lane.thread.join()
        with self._registry:
            if self._run is run:
                self._run = None
                self._take_held()
        run.done.set()

    def stop(self, timeout: float | None = None) -> int:
        """Deliver what is queued, end the threads, and return how many events are left undelivered.

        Waits up to `timeout` seconds (None: as long as it takes); then the handler at work may end, and what is
        left waits for the next start. What other threads put after the call waits for it too; what handlers put
        or return while the queue drains is delivered. Called inside a handler it does not wait for itself: it
        returns the number still queued, and they are delivered after the handler returns.
        """
        with self._registry:
            run = self._run
            if run is None:
                return self._waiting()
            if not run.stopping:
                run.stopping = True
                self._append = self._put_while_stopping
        run.timer_stop.set()
        self._ring()
        if threading.get_ident() not in run.idents and not run.done.wait(timeout):
            self._abandon(run)
            run.done.wait(_GRACE_SECONDS)
        return self._waiting()

    def _take_held(self) -> None:
        self._queue.extend(self._held)
        self._held.clear()
        self._append = self._queue.append

    def _abandon(self, run: _Run) -> None:
        run.abandoned = True
        run.timer_stop.set()
        self._ring()
        for lane in tuple(self._lanes.values()):
            lane.wake()

    def _waiting(self) -> int:
        return len(self._queue) + len(self._held) + sum(len(lane) for lane in self._lanes.values())

    # The process

    def _hook_process(self) -> None:
        """Follow forks and the interpreter's exit, from the first start on, without keeping the engine alive."""
        if self._hooked:
            return
        self._hooked = True
        exiting = partial(_call, weakref.WeakMethod(self._exit))
        atexit.register(exiting)
        weakref.finalize(self, atexit.unregister, exiting).atexit = False
        os.register_at_fork(after_in_child=partial(_call, weakref.WeakMethod(self._forked)))

    def _exit(self) -> None:
        self.stop(_EXIT_SECONDS)

    def _forked(self) -> None:
        """Begin anew in a child process: no thread of ours lives here, and the parent delivers what it had queued."""
        run, self._run = self._run, None
        self._registry = threading.RLock()
        self._bell = _make_bell()
        self._parked = self._tick_waits = False
        self._append = self._queue.append
        if run is not None:
            run.abandoned = True
            run.done.set()
            self._queue.clear()
            self._held.clear()
            self._follow.clear()
        self._reset_statistics()

    # Measurements

    @property
    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """The last thousand failed deliveries, oldest first."""
        with self._registry:
            return tuple(self._letters)

    def statistics(self) -> Statistics:
        """Return the counts and histograms of this moment; cheap enough for a scrape, not for every event."""
        with self._registry:
            lanes = tuple(self._lanes.values())
        return Statistics(
            running=self._run is not None,
            depth=len(self._queue) + len(self._held),
            high_water=max(self._high_water, len(self._queue)),
            delivered=self._delivered,
            rate=self._rate(),
            follow_ups=self._follow_ups,
            postponed=self._postponed,
            dead_lettered=self._dead_lettered,
            callback_errors=self._callback_errors,
            ticks=self._ticks,
            ticks_skipped=self._ticks_skipped,
            types=self._meters.types(),
            handlers=self._meters.handlers(),
            lanes=tuple(lane.statistics() for lane in lanes),
        )

    def queued_ns(self, event: Event) -> int:
        """Return when `event` was queued as wall-clock nanoseconds since the epoch, for `Stamps`; 0 if it never was."""
        return time.time_ns() - round((self._now() - event.queued) * 1e9) if event.queued else 0

    def _rate(self) -> float:
        if not self._rates or self._run is None:
            return 0.0
        since, delivered = self._rates[0]
        return (self._delivered - delivered) / max(self._now() - since, 1e-9)


def _check(kind: object, handler: object) -> None:
    if not callable(handler):
        raise TypeError(f"a handler is called with the event; {handler!r} cannot be called")
    if not isinstance(kind, str):
        raise TypeError(f"an event type is a string, not {kind!r}")
    if not kind:
        raise ValueError("an event type is not empty")


def _waited(event: Any, clock: float) -> float:
    try:
        return clock - float(event.queued)
    except Exception:  # noqa: BLE001 - airlock: a stranger's event; its wait is not known
        return 0.0


def _thread(name: str, target: Callable[..., None], *arguments: object) -> threading.Thread:
    return threading.Thread(target=target, args=arguments, name=name, daemon=True)


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    if (alive := method()) is not None:
        alive()
