"""The live stream to browsers and programs: each change to the clients of its one account, in order, with resume."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final, Protocol

import structlog
from flask_socketio import SocketIO
from socketio.packet import Packet

from orderwire.clock import Clock
from orderwire.core.events import Event, EventType
from orderwire.core.latency import Stamps
from orderwire.core.lifecycle import OrderChange, OrderView
from orderwire.core.orders import AccountId
from orderwire.core.recovery import FeedStatus
from orderwire.store.batch import CHECKING
from orderwire.web import payloads
from orderwire.web.outbox import (
    MOST_WAITING,
    WINDOW,
    ChangeDelivery,
    CheckDelivery,
    ClientOutbox,
    Cursor,
    Delivery,
    SnapshotDelivery,
)
from orderwire.web.ports import Events

_log = structlog.get_logger(__name__)

MOST_REPLAYED: Final = 500
"""Changes replayed to a client that comes back; who missed more is given a snapshot."""

MOST_PER_USER: Final = 40
"""Pages and programs of one user that may be connected at once."""

_MOST_SKEW: Final = 3_600_000.0
"""Milliseconds a client's clock may be wrong, after its own correction, for its paint to count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Who reads the stream: a user, and the accounts that are theirs. Decided by the server alone."""

    user: str
    accounts: tuple[AccountId, ...]
    session: str = ""
    """Id of the web session or mark of the key it came with, so that ending that ends the stream too."""
    program: bool = False
    """It came with a key."""

    @property
    def is_page(self) -> bool:
        """Whether it is a page: those are told what is being checked, programs only what is known."""
        return bool(self.session) and not self.program


@dataclass(frozen=True, slots=True, kw_only=True)
class Painted:
    """A client said that a change is on its screen (`hidden`: taken by a tab nobody looks at)."""

    change: OrderChange
    stamps: Stamps
    hidden: bool


def _nothing_checked(_account: AccountId) -> Collection[OrderView]:
    return ()


class TextPacket(Packet):  # type: ignore[misc]  # the library ships no types
    """A packet without attachments: nothing of ours is binary, and looking for it cost a third of a push."""

    uses_binary_events = False


class Log(Protocol):
    """Where snapshots and missed changes are read; any thread, blocking."""

    def snapshot(self, account: AccountId) -> Any:
        """Return everything of the account: epoch, sequence, orders, trades, positions."""
        ...

    def head(self, account: AccountId) -> Cursor:
        """Return where the account's log stands."""
        ...

    def changes_since(self, account: AccountId, cursor: Cursor, *, most: int) -> list[OrderChange] | None:
        """Return what came after the cursor, oldest first, or None when only a snapshot can tell."""
        ...


@dataclass(slots=True, eq=False)
class _Client:
    sid: str
    reader: Reader
    outbox: ClientOutbox
    lock: Lock = field(default_factory=Lock)
    """Guards `outbox`, and the order in which what it hands out enters the socket's queue."""


class Audience:
    """Who listens to which account. Any thread; readers take no lock."""

    def __init__(self) -> None:
        self._lock = Lock()  # guards the replacement of the two mappings
        self._clients: dict[str, _Client] = {}
        self._by_account: dict[AccountId, tuple[_Client, ...]] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Any:
        return iter(tuple(self._clients.values()))

    def get(self, sid: str) -> _Client | None:
        return self._clients.get(sid)

    def of(self, account: AccountId) -> tuple[_Client, ...]:
        return self._by_account.get(account, ())

    @property
    def accounts(self) -> tuple[AccountId, ...]:
        return tuple(self._by_account)

    def join(self, client: _Client) -> None:
        with self._lock:
            self._clients[client.sid] = client
            for account in client.reader.accounts:
                self._by_account[account] = (*self.of(account), client)

    def leave(self, sid: str) -> None:
        with self._lock:
            client = self._clients.pop(sid, None)
            for account in client.reader.accounts if client else ():
                rest = tuple(other for other in self.of(account) if other is not client)
                if rest:
                    self._by_account[account] = rest
                else:
                    self._by_account.pop(account, None)


class Realtime:
    """Sends committed changes to the clients of their account, at the pace each client acknowledges.

    `on_change`, `on_feed` and `on_timer` run on the dispatcher; `connect`, `follow`, `disconnect` and the
    acknowledgements on the web server's threads. Nothing here waits for a client: what it does not take waits in
    its outbox, which is bounded.
    """

    def __init__(
        self,
        socketio: SocketIO,
        *,
        log: Log,
        feeds: Callable[[], Iterable[FeedStatus]],
        clock: Clock,
        checks: Callable[[AccountId], Collection[OrderView]] = _nothing_checked,
        version: str = "",
        window: int = WINDOW,
        most: int = MOST_WAITING,
    ) -> None:
        self.audience = Audience()
        self.on_painted: Callable[[Painted], None] = _ignore
        """Told of every paint, on the client's thread; to be replaced before clients come."""
        self._socketio = socketio
        self._log = log
        self._feeds = feeds
        self._clock = clock
        self._checks = checks
        self._version = version
        self._window = window
        self._most = most
        self._shown: dict[AccountId, FeedStatus] = {}

    def attach(self, engine: Events) -> None:
        """Register with the engine; before clients come."""
        engine.register(EventType.ORDER_CHANGED, self.on_change)
        engine.register(CHECKING, self.on_check)
        engine.register(EventType.FEED_STATUS, self.on_feed)
        engine.register(EventType.TIMER, self.on_timer)

    # --- from the engine -------------------------------------------------------------------------------

    def on_change(self, event: Event) -> None:
        """Send a committed change to the clients of its account."""
        change: OrderChange = event.data
        for client in self.audience.of(change.account):
            with client.lock:
                client.outbox.offer(change)
                self._flush(client)
                behind = client.outbox.behind()
            self._catch_up_all(client, behind)

    def on_check(self, event: Event) -> None:
        """Tell the pages of an account that an order is being checked with the broker, or is not any more."""
        view: OrderView = event.data
        check = _check(view)
        for client in self.audience.of(view.account):
            if client.reader.is_page:
                with client.lock:
                    client.outbox.offer_check(check)
                    self._flush(client)

    def on_feed(self, event: Event) -> None:
        """Send an account's new freshness to its clients."""
        self._show(event.data)

    def on_timer(self, event: Event) -> None:  # noqa: ARG002 - the engine's signature
        """Tell clients when their order book was read again, once a second at most."""
        watched = set(self.audience.accounts)
        for status in self._feeds():
            if status.account in watched and self._shown.get(status.account) != status:
                self._show(status)

    def _show(self, status: FeedStatus) -> None:
        self._shown[status.account] = status
        for client in self.audience.of(status.account):
            with client.lock:
                client.outbox.offer_feed(status)
                self._flush(client)

    # --- from clients ----------------------------------------------------------------------------------

    def connect(self, sid: str, reader: Reader) -> bool:
        """Take in an authenticated client; it is sent nothing of an account before it follows.

        False when its user has too many already: one user must not use up the threads of all.
        """
        if sum(client.reader.user == reader.user for client in self.audience) >= MOST_PER_USER:
            return False
        outbox = ClientOutbox(window=self._window, most=self._most)
        self.audience.join(_Client(sid, reader, outbox))
        return True

    def disconnect(self, sid: str) -> None:
        """Forget a client that has gone."""
        self.audience.leave(sid)

    def cut(self, *, user: str, session: str = "") -> int:
        """Close the sockets of a user, or of one of their web sessions; returns how many."""
        doomed = [
            client
            for client in self.audience
            if client.reader.user == user and session in {"", client.reader.session}
        ]
        for client in doomed:
            self.audience.leave(client.sid)
            self._socketio.server.disconnect(client.sid)
        return len(doomed)

    def behind(self) -> int:
        """Return how many deliveries wait for the client that is farthest behind. Any thread."""
        return max((len(client.outbox) for client in self.audience), default=0)

    def close(self) -> None:
        """Close every client's socket: the service stops."""
        for client in self.audience:
            self.audience.leave(client.sid)
            self._socketio.server.disconnect(client.sid)

    def follow(self, sid: str, request: Any) -> dict[str, Any]:
        """Bring a client up to date in all its accounts: replay from its cursors, or snapshots.

        The answer names the accounts, and the build of the pages so that an outdated tab can say so.
        """
        client = self.audience.get(sid)
        if client is None:
            return {}
        cursors = read_cursors(request)
        for account in client.reader.accounts:
            self._catch_up(client, account, cursors.get(account))
        self._catch_up_all(client, self._behind(client))
        return {"version": self._version, "accounts": client.reader.accounts}

    def resync(self, account: AccountId) -> None:
        """Bring every client of an account that is not where the log is to where it is: something was missed. Any thread."""
        head = self._log.head(account)
        for client in self.audience.of(account):
            with client.lock:
                cursor = client.outbox.place(account)
            if cursor is not None and cursor != head:
                self._catch_up(client, account, cursor)
                self._catch_up_all(client, self._behind(client))

    def _catch_up_all(self, client: _Client, behind: Iterable[AccountId]) -> None:
        """Give snapshots where the log has moved on without this client: it fell behind, or a new epoch began.

        Again where it fell behind meanwhile: a client with nothing to acknowledge would wait for the next change.
        """
        while behind:
            for account in behind:
                self._catch_up(client, account, None)
            behind = self._behind(client)

    def _behind(self, client: _Client) -> list[AccountId]:
        with client.lock:
            return client.outbox.behind()

    def _catch_up(self, client: _Client, account: AccountId, cursor: Cursor | None) -> None:
        with client.lock:
            if not client.outbox.begin(account):
                return
        missed = self._log.changes_since(account, cursor, most=MOST_REPLAYED) if cursor else None
        if cursor is not None and missed is not None:
            with client.lock:
                client.outbox.replay(account, cursor, missed)
                self._offer_checks_of(client, account)
                self._offer_feed_of(client, account)
                self._flush(client)
        else:
            self._give_snapshot(client, account)

    def _give_snapshot(self, client: _Client, account: AccountId) -> None:
        payload = self.snapshot(account)
        cursor = Cursor(epoch=payload["epoch"], sequence=payload["sequence"])
        with client.lock:
            client.outbox.snapshot(account, cursor, payload)
            self._offer_checks_of(client, account)
            self._flush(client)

    def snapshot(self, account: AccountId) -> Mapping[str, Any]:
        """Return everything a page shows of an account, as the event `snapshot` carries it. Any thread."""
        held = self._log.snapshot(account)
        return payloads.snapshot_fields(
            account,
            epoch=held.epoch,
            sequence=held.sequence,
            orders=held.orders,
            trades=held.trades,
            positions=held.positions,
            feed=self._feed_of(account),
        )

    def _feed_of(self, account: AccountId) -> FeedStatus | None:
        return next((status for status in self._feeds() if status.account == account), None)

    def _offer_checks_of(self, client: _Client, account: AccountId) -> None:
        """Say what is being checked right now; a page forgets what it knew of that when it connects."""
        for view in self._checks(account) if client.reader.is_page else ():
            client.outbox.offer_check(_check(view))

    def _offer_feed_of(self, client: _Client, account: AccountId) -> None:
        status = self._feed_of(account)
        if status is not None:
            client.outbox.offer_feed(status)

    # --- to clients ------------------------------------------------------------------------------------

    def _flush(self, client: _Client) -> None:
        """Send what may leave; the client's lock is held."""
        for delivery in client.outbox.take():
            self._send(client, delivery)

    def _send(self, client: _Client, delivery: Delivery) -> None:
        emitted = self._clock.time_ns()
        name, payload = _packed(delivery, emitted)

        def acknowledge(said: Any = None, *_: Any) -> None:
            self._acknowledged(client, delivery, emitted=emitted, said=said)

        self._socketio.server.emit(
            name, payload, to=client.sid, callback=acknowledge, ignore_queue=True
        )  # a client of ours: other processes need not hear of it

    def _acknowledged(self, client: _Client, delivery: Delivery, *, emitted: int, said: Any) -> None:
        with client.lock:
            client.outbox.acknowledged(delivery)
            self._flush(client)
            behind = client.outbox.behind()
        self._catch_up_all(client, behind)
        if isinstance(delivery, ChangeDelivery):
            self._paint(delivery.change, emitted=emitted, said=said)

    def _paint(self, change: OrderChange, *, emitted: int, said: Any) -> None:
        painted = paint_time(said, now_ms=self._clock.time_ns() / 1e6)
        if painted is not None:
            stamps = change.stamps.at(emitted=emitted, painted=int(painted * 1e6))
            self.on_painted(Painted(change=change, stamps=stamps, hidden=bool(said.get("hidden"))))


def read_cursors(request: Any) -> dict[AccountId, Cursor]:
    """Read a client's `follow`; what is not a cursor is taken as none, which costs the client a snapshot."""
    given = request.get("cursors") if isinstance(request, Mapping) else None
    found = {}
    for account, cursor in given.items() if isinstance(given, Mapping) else ():
        epoch, sequence = (
            (cursor.get("epoch"), cursor.get("sequence")) if isinstance(cursor, Mapping) else (None, None)
        )
        if isinstance(epoch, str) and type(sequence) is int and 0 <= sequence < 2**63:
            found[AccountId(account)] = Cursor(epoch=epoch, sequence=sequence)
    return found


def paint_time(said: Any, *, now_ms: float) -> float | None:
    """Read when a client says it painted (ms, server's clock); None when it says nothing believable."""
    painted = said.get("painted") if isinstance(said, Mapping) else None
    if isinstance(painted, bool) or not isinstance(painted, int | float) or not math.isfinite(painted):
        return None
    return float(painted) if abs(painted - now_ms) < _MOST_SKEW else None


def _packed(delivery: Delivery, emitted: int) -> tuple[str, Mapping[str, Any]]:
    if isinstance(delivery, ChangeDelivery):
        change = delivery.change
        stamps = payloads.stamp_fields(change.stamps.at(emitted=emitted))
        payload = payloads.change_fields(change) | {"previous": delivery.previous, "stamps": stamps}
        return payloads.change_event(change), payload
    if isinstance(delivery, SnapshotDelivery):
        return "snapshot", delivery.payload
    if isinstance(delivery, CheckDelivery):
        return "order_checking", payloads.check_fields(
            delivery.account, row=delivery.row, order_id=delivery.order_id, checking=delivery.checking
        )
    return "feed_status", payloads.feed_fields(delivery.status)


def _check(view: OrderView) -> CheckDelivery:
    return CheckDelivery(account=view.account, row=view.row, order_id=view.order_id, checking=view.checking)


def _ignore(painted: Painted) -> None:
    """Take no notice: the sink until somebody asks for paints."""
