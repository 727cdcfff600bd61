"""Tells users what they want to be told outside the pages, on lanes of its own: nothing slow touches an update.

One lane decides and writes down; a few couriers send, each its own share of the targets, so that a target that
hangs delays its neighbours at most. Everything is on disk before it is sent, and each attempt before it is made: a
crash, or a message that cannot be sent at all, is an attempt that failed.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import httpx2
import structlog

from orderwire.clock import Clock
from orderwire.core import notifications as words
from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import OrderChange
from orderwire.core.notifications import DOWN_AFTER, URGENT, Notification
from orderwire.core.orders import AccountId
from orderwire.core.recovery import FeedStatus, Freshness
from orderwire.engine import EventEngine
from orderwire.errors import ConfigurationError, NotFoundError, SealError
from orderwire.monitoring.targets import PATIENCE, UndeliveredError, tell_person, tell_program
from orderwire.store.notifications import Delivery, Notifications, Preferences, Target, TargetKind

_log = structlog.get_logger(__name__)

LANE: Final = "notify"
COURIERS: Final = 4
QUEUED: Final = "eNotificationQueued"
"""Something waits to be sent; its data says nothing."""

BACK_OFF: Final = tuple(timedelta(seconds=s) for s in (5, 30, 120, 600, 1800))
"""Pauses between the attempts; after the last one a notification is a dead letter."""

MOST_IN_ONE: Final = 20
"""Notifications in one message: a messenger cuts longer ones off."""

NOBODY_FOR: Final = timedelta(seconds=1)
"""For so long it is remembered that an account's changes are nobody's to tell: most are, and fills come by the hundred.
A user's first target counts that much later."""

_DOWN: Final = frozenset({Freshness.DEGRADED, Freshness.STALE})


@dataclass(slots=True)
class Outages:
    """Which accounts' feeds are away, and since when. One thread."""

    _seen_live: set[AccountId] = field(default_factory=set)
    _since: dict[AccountId, datetime] = field(default_factory=dict)

    def look(self, statuses: Iterable[FeedStatus], *, now: datetime, watched: bool) -> list[Notification]:
        """Return what is to be told of the feeds now; the same outage always gives the same key.

        An account without a stream polls all the time: only what was live is missed, or what cannot be read at all.
        `watched`: the market may be open; feeds are taken down at night.
        """
        told = []
        for status in statuses:
            down = status.freshness in _DOWN
            if status.freshness is Freshness.LIVE:
                self._seen_live.add(status.account)
            if not down or not watched:
                self._since.pop(status.account, None)
            if status.freshness is Freshness.AUTH_REQUIRED:
                told.append(words.of_dead_login(status))
            elif down and watched and self._matters(status):
                since = self._since.setdefault(status.account, status.since)
                if now - since >= DOWN_AFTER:
                    told.append(words.of_outage(status, down_since=since))
        return told

    def _matters(self, status: FeedStatus) -> bool:
        return status.freshness is Freshness.STALE or status.account in self._seen_live


def messages(
    waiting: Sequence[Delivery],
    *,
    now: datetime,
    preferences: Preferences,
    sent_lately: int,
    market_open: bool,
) -> list[list[Delivery]]:
    """Return what goes to one person's target now, message by message, oldest first. Pure.

    What is left out waits. What is urgent does not wait for the digest; nothing is ever dropped for its number:
    where there is no room for a message of its own, it comes in company.
    """
    room = preferences.per_minute - sent_lately
    ready = [delivery for delivery in waiting if delivery.due <= now]
    if room <= 0 or not ready or (preferences.market_hours and not market_open):
        return []
    digest = timedelta(seconds=preferences.digest_seconds)
    calm = [delivery for delivery in ready if delivery.notification.occasion not in URGENT]
    if digest and calm and now - calm[0].queued < digest:
        calm = []
    going = sorted([d for d in ready if d.notification.occasion in URGENT] + calm, key=lambda d: d.id)
    alone = len(going) if not digest else len(going) - len(calm)
    if alone + bool(digest and calm) <= room:
        single = [[d] for d in going if not digest or d.notification.occasion in URGENT]
        return single + (_in_company(calm) if digest else [])
    return _in_company(going)[:room]


def _in_company(deliveries: Sequence[Delivery]) -> list[list[Delivery]]:
    groups = []
    for silent in (False, True):
        alike = [delivery for delivery in deliveries if delivery.silent is silent]
        groups += [alike[first : first + MOST_IN_ONE] for first in range(0, len(alike), MOST_IN_ONE)]
    return groups


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifierTools:
    """What the notifier works with."""

    kept: Notifications
    owner: Callable[[AccountId], str]
    """Returns whose account it is. Raises NotFoundError."""
    feeds: Callable[[], Iterable[FeedStatus]]
    clock: Clock
    market_open: Callable[[], bool]
    leads: Callable[[], bool] = lambda: True
    """Whether this is the one process of several that sends; all write down."""
    shared: bool = False
    """Other processes write down as well: look often."""
    private: bool = False
    """Targets on this machine or its network are allowed."""


class Notifier:
    """Decides and writes down, on the lane `notify`; its couriers send."""

    def __init__(self, tools: NotifierTools) -> None:
        self._tools = tools
        self._outages = Outages()
        self._told: dict[AccountId, str] = {}
        self._nobody: dict[AccountId, datetime] = {}
        """Accounts whose owners have no target, and until when that is believed."""
        self._couriers = [Courier(tools, share=share) for share in range(COURIERS)]

    def attach(self, engine: EventEngine) -> None:
        """Make the lanes and register; once, before the engine starts."""
        engine.add_lane(LANE, capacity=4096, when_full="conflate", key=_row)
        engine.register(EventType.ORDER_CHANGED, self.on_change, lane=LANE)
        engine.register(EventType.TIMER, self.on_timer, lane=LANE)
        for courier in self._couriers:
            engine.add_lane(courier.lane, capacity=4, when_full="conflate", key=lambda event: event.type)
            engine.register(QUEUED, courier.on_call, lane=courier.lane)
            engine.register(EventType.TIMER, courier.on_timer, lane=courier.lane)

    def close(self) -> None:
        """Close the couriers' connections; after the engine has stopped."""
        for courier in self._couriers:
            courier.close()

    def on_change(self, event: Event) -> Event | None:
        """Write down what a change of an order is worth telling."""
        change: OrderChange = event.data
        told = words.of_change(change, now=self._tools.clock.now())
        return self._queue([told] if told is not None else [])

    def on_timer(self, event: Event) -> Event | None:  # noqa: ARG002 - the engine's signature
        """Look at the feeds."""
        now, tools = self._tools.clock.now(), self._tools
        told = self._outages.look(tools.feeds(), now=now, watched=tools.market_open())
        fresh = [one for one in told if self._told.get(one.account) != one.key]
        self._told |= {one.account: one.key for one in fresh}
        return self._queue(fresh)

    def _queue(self, told: Iterable[Notification]) -> Event | None:
        written = 0
        for one in told:
            owner = self._to_tell(one.account)
            if owner:
                written += self._tools.kept.queue(owner, one)
        return Event(QUEUED) if written else None

    def _to_tell(self, account: AccountId) -> str:
        """Return the account's owner where there is somewhere to tell it; else nothing."""
        now = self._tools.clock.now()
        if account in self._nobody and now < self._nobody[account]:
            return ""
        self._nobody.pop(account, None)
        try:
            owner = self._tools.owner(account)
        except NotFoundError:
            return ""  # the account was removed meanwhile
        if self._tools.kept.targets(owner):
            return owner
        self._nobody[account] = now + NOBODY_FOR
        return ""


class Courier:
    """Sends one share of the targets what waits for them; one lane, one thread."""

    def __init__(self, tools: NotifierTools, *, share: int) -> None:
        self.lane = f"courier-{share}"
        self._share = share
        self._tools = tools
        self._kept = tools.kept
        self._client = httpx2.Client(timeout=PATIENCE, follow_redirects=False, trust_env=False)
        self._sent: defaultdict[str, deque[datetime]] = defaultdict(deque)
        self._next_look: datetime | None = None
        """Nothing is due before; None: look."""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def on_call(self, event: Event) -> None:  # noqa: ARG002 - the engine's signature
        """Something was written down: send what may go."""
        self.send_due()

    def on_timer(self, event: Event) -> None:  # noqa: ARG002 - the engine's signature
        """Send what has become due; at once after a start, for what the last process left."""
        if self._next_look is None or self._next_look <= self._tools.clock.now():
            self.send_due()

    def send_due(self) -> None:
        """Send what may go to this courier's targets now."""
        if not self._tools.leads():
            self._next_look = None
            return
        waiting: defaultdict[str, list[Delivery]] = defaultdict(list)
        for delivery in self._kept.waiting():
            if int(delivery.target, 16) % COURIERS == self._share:
                waiting[delivery.target].append(delivery)
        idle = 2 if self._tools.shared else 60
        self._next_look = self._tools.clock.now() + timedelta(seconds=1 if waiting else idle)
        for target_id, deliveries in waiting.items():
            owner = deliveries[0].owner
            target = next((t for t in self._kept.targets(owner) if t.id == target_id), None)
            if target is not None:
                self._serve(target, deliveries)

    def _serve(self, target: Target, waiting: Sequence[Delivery]) -> None:
        for group in self._groups(target, waiting):
            if not self._attempt(target, group):
                return  # the rest stays in order behind it

    def _groups(self, target: Target, waiting: Sequence[Delivery]) -> list[list[Delivery]]:
        now = self._tools.clock.now()
        if any(delivery.attempts and delivery.due > now for delivery in waiting):
            return []  # it did not take one: nothing else is tried before that one is
        if target.kind is TargetKind.WEBHOOK:
            return [[delivery] for delivery in waiting]
        sent = self._sent[target.id]
        while sent and now - sent[0] >= timedelta(minutes=1):
            sent.popleft()
        return messages(
            waiting,
            now=now,
            preferences=self._kept.preferences(target.owner),
            sent_lately=len(sent),
            market_open=self._tools.market_open(),
        )

    def _attempt(self, target: Target, group: Sequence[Delivery]) -> bool:
        now = self._tools.clock.now()
        made = group[0].attempts
        last = made >= len(BACK_OFF)
        self._kept.attempt(group, again=now + BACK_OFF[min(made, len(BACK_OFF) - 1)])
        try:
            self._send(target, group)
        except UndeliveredError as error:
            self._failed(target, group, str(error), dead=last or error.gone)
            return False
        except (ConfigurationError, SealError, NotFoundError) as error:
            self._failed(target, group, str(error), dead=True)
            return False
        self._sent[target.id].append(now)
        self._kept.sent(group)
        return True

    def _failed(self, target: Target, group: Sequence[Delivery], why: str, *, dead: bool) -> None:
        self._kept.failed(group, error=why, dead=dead)
        _log.warning("notification not delivered", target=target.id, service=target.service, dead=dead)

    def _send(self, target: Target, group: Sequence[Delivery]) -> None:
        address, secret = self._kept.address(target.id, owner=target.owner)
        if target.kind is TargetKind.WEBHOOK:
            seconds = int(self._tools.clock.now().timestamp())
            tell_program(
                self._client, address, secret, group[0], seconds=seconds, private=self._tools.private
            )
            return
        title, text = words.digest([(d.notification.title, d.notification.text) for d in group])
        tell_person(
            address,
            title,
            text,
            silent=all(delivery.silent for delivery in group),
            urgent=any(delivery.notification.occasion in URGENT for delivery in group),
            private=self._tools.private,
        )


def _row(event: Event) -> Hashable:
    """What may be put in the place of what: the newest state of an order says it all."""
    change = event.data
    if isinstance(change, OrderChange):
        return (change.account, change.order.row) if change.order is not None else "not an order"
    return event.type
