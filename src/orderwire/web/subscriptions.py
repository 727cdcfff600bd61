"""Order updates over a plain WebSocket, as OpenAlgo's SDK subscribes to them (openalgo.md §4).

No snapshot, no replay, no acknowledgement: that is the protocol. Who needs those follows the Socket.IO stream.
Updates that a slow program has not taken are conflated by order, so it gets the newest state of each.
"""

from __future__ import annotations

import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import simple_websocket
import structlog

from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import OrderChange, openalgo_order
from orderwire.core.orders import AccountId
from orderwire.decoding import decode
from orderwire.errors import UNDECODABLE
from orderwire.store.users import ApiKey
from orderwire.web.lines import prepared, socket_of
from orderwire.web.payloads import Json
from orderwire.web.ports import Events

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = structlog.get_logger(__name__)

PATHS: Final = frozenset({"", "/", "/ws"})
"""Where programs dial: OpenAlgo's listener has no path."""

LOG_IN_WITHIN: Final = 10.0
"""Seconds a stranger may hold a connection."""

LOOK_AGAIN: Final = 5.0
"""Seconds after which a key is looked up again, so that a revoked one is let go."""

MOST_WAITING: Final = 2_048
"""Orders whose newest state waits for one program; beyond that it is let go, which it notices."""

MOST_PER_USER: Final = 20
MOST_MESSAGE: Final = 4_096
PING_EVERY: Final = 20

_POLICY, _TOO_SLOW, _AWAY = 1008, 1013, 1001


@dataclass(frozen=True, slots=True, kw_only=True)
class Guests:
    """Who may come in, and what is theirs. Any thread, blocking."""

    key: Callable[[str], ApiKey | None]
    accounts: Callable[[str], Mapping[AccountId, str]]
    """Returns a user's accounts, each with its broker."""


@dataclass(slots=True, eq=False)
class _Program:
    """One connection. The dispatcher puts updates in; the connection's own thread takes them out and sends."""

    bell: threading.Event = field(default_factory=threading.Event)
    owner: str = ""
    accounts: frozenset[AccountId] = frozenset()
    subscribed: bool = False
    doomed: int = 0
    """Close code, once it is to be let go."""
    waiting: OrderedDict[tuple[str, str], OrderChange] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)  # guards `waiting` and `doomed`

    def offer(self, change: OrderChange, row: str) -> None:
        with self.lock:
            self.waiting.pop((change.account, row), None)
            self.waiting[change.account, row] = change
            if len(self.waiting) > MOST_WAITING:
                self.waiting.clear()
                self.doomed = _TOO_SLOW
        self.bell.set()

    def take(self) -> list[OrderChange]:
        with self.lock:
            changes = list(self.waiting.values())
            self.waiting.clear()
        return changes

    def let_go(self, code: int) -> None:
        with self.lock:
            self.doomed = self.doomed or code
        self.bell.set()


class Subscriptions:
    """Serves the connections, and tells each the changes of its accounts' orders.

    `on_change` runs on the dispatcher and never waits for a program; everything else on the web server's threads.
    """

    def __init__(self, guests: Guests) -> None:
        self._guests = guests
        self._lock = threading.Lock()  # guards the replacement of the tuple
        self._programs: tuple[_Program, ...] = ()

    def __len__(self) -> int:
        return len(self._programs)

    def attach(self, engine: Events) -> None:
        """Register with the engine; before programs come."""
        engine.register(EventType.ORDER_CHANGED, self.on_change)

    def on_change(self, event: Event) -> None:
        """Put a committed change of an order in front of the programs of its account."""
        change: OrderChange = event.data
        view = change.order
        if view is None:
            return
        for program in self._programs:
            if program.subscribed and change.account in program.accounts:
                program.offer(change, view.row)

    def close(self) -> None:
        """Let every program go: the service stops."""
        for program in self._programs:
            program.let_go(_AWAY)

    # --- one connection, on its own thread --------------------------------------------------------------

    def serve(self, environ: WSGIEnvironment) -> str:
        """Serve one connection until it ends; returns which server's socket it was."""
        program = _Program()
        wire = simple_websocket.Server(
            prepared(environ),
            ping_interval=PING_EVERY,
            max_message_size=MOST_MESSAGE,
            event_class=lambda: program.bell,
        )
        self._replace(joined=program)
        try:
            self._converse(wire, program)
        except (simple_websocket.ConnectionClosed, OSError):
            pass
        finally:
            self._replace(left=program)
        return str(wire.mode)

    def _replace(self, *, joined: _Program | None = None, left: _Program | None = None) -> None:
        with self._lock:
            rest = tuple(one for one in self._programs if one is not left)
            self._programs = (*rest, joined) if joined else rest

    def _converse(self, wire: Any, program: _Program) -> None:
        plain = self._let_in(wire, program)
        while wire.connected and not program.doomed and plain:
            while wire.input_buffer:
                _send(wire, self._answer(program, _read(wire.receive(timeout=0))))
            for change in program.take():
                _send(wire, _update(program.owner, change))
            if program.bell.wait(LOOK_AGAIN):
                program.bell.clear()
            elif self._guests.key(plain) is None:
                program.let_go(_POLICY)
        if wire.connected:
            wire.close(program.doomed or _POLICY)

    def _let_in(self, wire: Any, program: _Program) -> str:
        """Wait for the key; returns it, or nothing for a stranger."""
        said = _read(wire.receive(timeout=LOG_IN_WITHIN))
        plain = said.get("api_key") if said.get("action") in {"authenticate", "auth"} else None
        key = self._guests.key(plain) if isinstance(plain, str) else None
        if key is None or not isinstance(plain, str):
            _send(wire, {"type": "auth", "status": "error", "message": "Invalid openalgo apikey"})
            return ""
        if sum(one.owner == key.owner for one in self._programs) >= MOST_PER_USER:
            _send(wire, {"type": "auth", "status": "error", "message": "Too many connections of this user."})
            return ""
        mine = self._guests.accounts(key.owner)
        program.owner, program.accounts = key.owner, frozenset(mine)
        _send(wire, _welcome(key.owner, sorted(set(mine.values()))))
        return plain

    def _answer(self, program: _Program, said: Mapping[str, Any]) -> dict[str, Any]:
        action = said.get("action")
        if action not in {"subscribe_orders", "unsubscribe_orders"}:
            message = "Only order updates are served here: subscribe_orders, unsubscribe_orders."
            return {"type": str(action or "error")[:40], "status": "error", "message": message}
        program.subscribed = action == "subscribe_orders"
        if not program.subscribed:
            program.take()
        done = "Subscribed to" if program.subscribed else "Unsubscribed from"
        return {"type": action, "status": "success", "message": f"{done} order updates"}


@dataclass(frozen=True, slots=True)
class SubscriptionsFirst:
    """Takes plain WebSocket connections, and hands everything else on to the application.

    `port`: a listener of its own, where nothing but these connections is served; 0 for none.
    """

    subscriptions: Subscriptions
    app: WSGIApplication
    port: int = 0

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        wanted = environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        if wanted and environ.get("PATH_INFO", "") in PATHS:
            if self.subscriptions.serve(environ) == "gunicorn":
                raise StopIteration  # how gunicorn is told that the connection was taken over
            raise ConnectionError  # and Werkzeug's server
        if self.port and _came_by(environ) == self.port:
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"Only order subscriptions are served on this port.\n"]
        return self.app(environ, start_response)


def _came_by(environ: WSGIEnvironment) -> int:
    connection = socket_of(environ)
    if connection is None or connection.family == socket.AF_UNIX:
        return 0
    return int(connection.getsockname()[1])


def _read(text: Any) -> Mapping[str, Any]:
    try:
        return decode(text or "", dict[str, Any])
    except UNDECODABLE:
        return {}


def _send(wire: Any, message: Mapping[str, Any]) -> None:
    wire.send(Json.dumps(message))


def _welcome(owner: str, brokers: list[str]) -> dict[str, Any]:
    return {
        "type": "auth",
        "status": "success",
        "message": "Authentication successful",
        "broker": brokers[0] if len(brokers) == 1 else ",".join(brokers),
        "user_id": owner,
        "supported_features": {"ltp": False, "quote": False, "depth": False, "orders": True},
    }


def _update(owner: str, change: OrderChange) -> dict[str, Any]:
    """Return OpenAlgo's message with the account and the place in its log added."""
    if change.order is None:
        return {}
    return {
        "type": "order_update",
        "user_id": owner,
        **openalgo_order(change.order),
        "account": change.account,
        "epoch": change.epoch,
        "sequence": change.sequence,
    }
