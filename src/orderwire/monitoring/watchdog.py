"""Looks at the metrics once a second, raises and clears alerts, tells people, and writes it down.

It runs on a lane of the engine's timer, and from outside when the timer is late: a dispatcher that hangs is
an alert, too. Whoever calls `look` first does the work; the other goes away. Nothing here waits for people: a
delivery blocks for seconds at most and is tried again later.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

import msgspec
import structlog
from sqlalchemy import Connection

from orderwire.clock import Clock
from orderwire.core.alerts import (
    Alert,
    Evaluation,
    Message,
    Notice,
    Rule,
    Severity,
    Silence,
    Told,
    Watch,
    evaluate,
    metrics_of,
    tell,
)
from orderwire.core.events import Event, EventType
from orderwire.engine import EventEngine
from orderwire.errors import StoreError
from orderwire.monitoring import senders
from orderwire.monitoring.metrics import Metrics, readings
from orderwire.monitoring.muster import Muster
from orderwire.monitoring.senders import DeliveryError
from orderwire.monitoring.series import Series
from orderwire.store import alerts as kept
from orderwire.store.database import Database

_log = structlog.get_logger(__name__)

LANE = "watchdog"
LATE = 3.0
"""Seconds without a look after which one is taken from outside the engine."""
_PACE = 0.5
"""Seconds from one look to the next, however fast the engine's timer runs: each is kept for ten minutes."""

_MOST_UNSAVED = 1000
_MOST_TRIES = 8
_MISMATCH = "postback mismatch"


def retry_after(tries: int) -> float:
    """Return the seconds to wait after so many tries to deliver."""
    return min(60.0, 2.0**tries)


class Channel(Protocol):
    """A way to tell people."""

    @property
    def name(self) -> str:
        """What it is called in metrics and in the history."""
        ...

    def send(self, message: Message, *, message_id: str, at_ns: int) -> None:
        """Deliver, once. Raises DeliveryError."""
        ...


class LogChannel:
    """Writes alerts into the log."""

    name = "log"

    def send(self, message: Message, *, message_id: str, at_ns: int) -> None:  # noqa: ARG002 - the protocol's
        """Write one line for each alert."""
        for alert in (*message.raised, *message.reminded):
            facts = {"alert": alert.rule, "broker": alert.broker, "value": alert.value, "limit": alert.limit}
            (_log.error if alert.severity is Severity.CRITICAL else _log.warning)("alert raised", **facts)
        for alert in message.cleared:
            _log.info("alert cleared", alert=alert.rule, broker=alert.broker)


@dataclass(frozen=True, slots=True)
class WebhookChannel:
    """POSTs alerts, signed, to a program."""

    url: str
    secret: str = field(repr=False)
    name: str = "webhook"

    def send(self, message: Message, *, message_id: str, at_ns: int) -> None:
        """Send one JSON object; docs/runbook.md describes it."""
        body = msgspec.json.encode(described(message))
        senders.post(self.url, body, secret=self.secret, message_id=message_id, at=at_ns // 10**9)


@dataclass(frozen=True, slots=True)
class AppriseChannel:
    """Sends alerts to people by Apprise's services."""

    addresses: tuple[str, ...] = field(repr=False)
    name: str = "apprise"

    def send(self, message: Message, *, message_id: str, at_ns: int) -> None:  # noqa: ARG002 - the protocol's
        """Send title and text."""
        urgent = message.severity is Severity.CRITICAL
        senders.notify(self.addresses, title=message.title, body=message.body, urgent=urgent)


def described(message: Message) -> dict[str, object]:
    """Return a message as programs get it."""

    def rows(alerts: Iterable[Alert], state: str) -> list[dict[str, object]]:
        return [
            {
                "alert": alert.rule,
                "state": state,
                "severity": alert.severity,
                "labels": dict(alert.labels),
                "value": alert.value,
                "limit": alert.limit,
                "text": alert.text,
            }
            for alert in alerts
        ]

    return {
        "type": "orderwire.alerts",
        "title": message.title,
        "severity": message.severity,
        "alerts": [
            *rows(message.raised, "raised"),
            *rows(message.reminded, "still raised"),
            *rows(message.cleared, "cleared"),
        ],
    }


@dataclass(slots=True, kw_only=True)
class _Parcel:
    """A message on its way through one channel."""

    channel: Channel
    message: Message
    message_id: str
    due: float
    tries: int = 0


class Watchdog:
    """Raises, clears, tells and remembers. `look` and `note` may be called from any thread."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        rules: Sequence[Rule],
        database: Database,
        clock: Clock,
        channels: Sequence[Channel] = (),
        pace: float = 1.0,
        muster: Muster | None = None,
    ) -> None:
        """`pace` stretches or shortens the gathering of a message and its reminders, as the rules' durations.

        `muster`: one of several processes; all judge what all measured, the one that leads tells people.
        """
        self._muster = muster
        self.rules = tuple(rules)
        self.series = Series()
        self._metrics = metrics
        self._names = metrics_of(rules)
        self._database = database
        self._clock = clock
        self._channels = (LogChannel(), *channels)
        self._pace = pace
        self._lock = Lock()  # held by whoever looks
        self._looked = clock.monotonic()
        self._watch = Watch()
        self._told = Told()
        self._silences: list[Silence] = []
        self._unsaved: deque[Callable[[Connection], object]] = deque(maxlen=_MOST_UNSAVED)
        self._parcels: list[_Parcel] = []
        for rule in rules:
            metrics.told["alerts_total", rule.name] = 0
        for channel in self._channels:
            metrics.told["notifications_failed_total", channel.name] = 0

    def attach(self, engine: EventEngine) -> None:
        """Take part in the engine, on a thread of its own."""
        if self._muster is None:  # nobody else can have raised what is open
            left = self._clock.time_ns()
            self._unsaved.append(lambda connection: kept.close_open(connection, left))
        engine.add_lane(LANE, capacity=4, when_full="conflate", key=_ticks_are_one)
        engine.register(EventType.TIMER, self.on_timer, lane=LANE)
        engine.register(EventType.ALERT, self.on_alert, lane=LANE)

    async def guard(self) -> None:
        """Look from outside whenever the engine's timer is late; until cancelled, on the feed loop."""
        while True:
            await asyncio.sleep(1)
            if self._clock.monotonic() - self._looked > LATE:
                await asyncio.to_thread(self.look)

    @property
    def raised(self) -> tuple[Alert, ...]:
        """The alerts raised now. Any thread."""
        return self._watch.raised

    @property
    def silences(self) -> tuple[Silence, ...]:
        """The silences known at the last look. Any thread."""
        return tuple(self._silences)

    def on_timer(self, event: Event) -> None:  # noqa: ARG002 - the engine's signature
        """Look, unless somebody just did."""
        if self._clock.monotonic() - self._looked >= _PACE:
            self.look()

    def on_alert(self, event: Event) -> None:
        """Count and write down a notice."""
        notice: Notice = event.data
        at_ns = self._clock.time_ns()
        told = self._metrics.told
        told["notices_total", notice.kind] += 1
        if notice.kind == _MISMATCH:
            told["postbacks_mismatched_total", notice.broker] += 1
        _log.warning(
            "notice", kind=notice.kind, account=notice.account, order=notice.order_id, text=notice.text
        )
        self._unsaved.append(lambda connection: kept.keep_notice(connection, notice, at_ns))

    def look(self) -> None:
        """Read the metrics, decide, tell, write down; nothing when somebody else is at it. Blocks for seconds at most."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._look()
        finally:
            self._looked = self._clock.monotonic()
            self._lock.release()

    def _look(self) -> None:
        now, now_ns = self._clock.monotonic(), self._clock.time_ns()
        samples = list(self._metrics.samples())
        speaks = True
        if self._muster is not None:
            samples, speaks = self._muster.together(samples), self._muster.leads()
        self.series.add(samples, at=now_ns / 1e9)
        found = evaluate(self.rules, self._watch, readings(samples, names=self._names, at=now))
        self._watch = found.watch
        self._read_silences()
        if not speaks:
            self._save()
            return
        self._note(found, now_ns)
        self._told, message = tell(
            self._told,
            found,
            at=now,
            now_ns=now_ns,
            silences=self._silences,
            gather=2.0 * self._pace,
            remind=14_400.0 * self._pace,
        )
        if message is not None:
            self._parcels += [
                _Parcel(channel=channel, message=message, message_id=secrets.token_hex(12), due=now)
                for channel in self._channels
            ]
        self._deliver(now, now_ns)
        self._save()

    def _note(self, found: Evaluation, now_ns: int) -> None:
        for alert in found.raised:
            self._metrics.told["alerts_total", alert.rule] += 1
            self._unsaved.append(_raising(alert, now_ns))
        for alert in found.cleared:
            self._unsaved.append(_clearing(alert, now_ns))

    def _read_silences(self) -> None:
        try:
            self._silences = kept.silences(self._database)
        except StoreError as error:
            _log.warning("silences not read", error=str(error))

    def _deliver(self, now: float, now_ns: int) -> None:
        waiting, self._parcels = self._parcels, []
        for parcel in waiting:
            if parcel.due > now or not self._send(parcel, now, now_ns):
                self._parcels.append(parcel)

    def _send(self, parcel: _Parcel, now: float, now_ns: int) -> bool:
        """Try once; False when it is to be tried again."""
        name, message = parcel.channel.name, parcel.message
        try:
            parcel.channel.send(message, message_id=parcel.message_id, at_ns=now_ns)
        except DeliveryError as error:
            parcel.tries += 1
            self._metrics.told["notifications_failed_total", name] += 1
            if parcel.tries < _MOST_TRIES and not error.permanent:
                parcel.due = now + retry_after(parcel.tries)
                _log.warning("alert not delivered yet", channel=name, tries=parcel.tries, error=str(error))
                return False
            _log.error("alert not delivered", channel=name, tries=parcel.tries, error=str(error))
            self._unsaved.append(_telling(message, f"{name}: {error}"))
            return True
        if name != "log":
            self._unsaved.append(_telling(message, name))
        return True

    def _save(self) -> None:
        """Write down what was noted; what the database does not take now is written at a later look."""
        works = tuple(self._unsaved)
        if not works:
            return

        def save(connection: Connection) -> None:
            for work in works:
                work(connection)

        try:
            self._database.write(save)
        except StoreError as error:
            _log.warning("alerts not written down yet", waiting=len(works), error=str(error))
            return
        for _ in works:
            self._unsaved.popleft()


def _ticks_are_one(event: Event) -> str | None:
    return event.type if event.type == EventType.TIMER else None


def _raising(alert: Alert, at_ns: int) -> Callable[[Connection], object]:
    return lambda connection: kept.keep_raised(connection, alert, at_ns)


def _clearing(alert: Alert, at_ns: int) -> Callable[[Connection], object]:
    return lambda connection: kept.keep_cleared(connection, alert, at_ns)


def _telling(message: Message, what: str) -> Callable[[Connection], object]:
    return lambda connection: kept.keep_told(connection, message.raised, what)


def counted(told: Counter[tuple[str, str]], name: str) -> dict[str, int]:
    """Return one of the watchdog's counters by its label's value."""
    return {value: count for (metric, value), count in told.copy().items() if metric == name}
