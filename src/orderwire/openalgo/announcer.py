"""Tells the host what the service told: its bus, and the pages of those who are logged in. Each change once, in order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from orderwire.core.hosts import Place, ToHost, Told, later

ROOM: Final = "orderwire"
"""Who was authenticated at connect; nobody else hears of an order."""

NAMESPACE: Final = "/orderwire"
ANCHOR: Final = "orderwire-anchor"
"""A member that is nobody: the library forgets a room when its last member leaves, and with it one who comes in at that
moment on another thread, as a page does that takes another's place."""

TOPIC: Final = "order.update"

AWAY: Final = "MANUAL"
"""The freshness of a host whose service is away: it shows what it is asked for, as it did before orderwire."""


@dataclass
class OrderUpdated:
    """What the host's bus is told: OpenAlgo's fields (openalgo.md §3, §4), with the account and its place added."""

    topic: str = TOPIC
    mode: str = "live"
    api_type: str = "order_update"
    request_data: dict[str, Any] = field(default_factory=dict)
    response_data: dict[str, Any] = field(default_factory=dict)
    api_key: str = ""
    user_id: str = ""
    broker: str = ""
    orderid: str = ""
    symbol: str = ""
    exchange: str = ""
    action: str = ""
    quantity: int = 0
    price: float = 0.0
    trigger_price: float = 0.0
    pricetype: str = ""
    product: str = ""
    order_status: str = ""
    filled_quantity: int = 0
    pending_quantity: int = 0
    average_price: float = 0.0
    rejection_reason: str = ""
    account: str = ""
    epoch: str = ""
    sequence: int = 0
    event_id: str = ""
    status: str = ""


_OF_THE_ORDER: Final = frozenset(OrderUpdated.__dataclass_fields__) - {
    "topic",
    "api_type",
    "request_data",
    "response_data",
    "api_key",
    "user_id",
}


class Announcer:
    """Told by one task at a time; `feeds` and `place` may be read by any."""

    def __init__(self, socketio: Any, bus: Any, *, user: str = "") -> None:
        self._socketio = socketio
        self._bus = bus
        self.user = user
        self.places: dict[str, Place] = {}
        self.feeds: dict[str, dict[str, Any]] = {}
        """What was last told of each account's freshness."""
        self.told = 0

    def take(self, told: ToHost, *, silent: Collection[str], repeated: bool) -> None:
        """Tell everything once. `silent`: brokers that the host tells of itself; `repeated`: by a subscriber."""
        for event in told.events:
            if self._is_new(event) and event.data.get("broker") not in silent:
                self._tell(event, repeated=repeated)
        self.places = {account: self._reached(account, place) for account, place in told.places.items()}
        for account in told.accounts:
            if account.get("broker") not in silent:
                self._tell_freshness(account)

    def hold_rooms(self) -> None:
        """Keep the rooms from ever being empty; once, before pages come."""
        manager = self._socketio.server.manager
        for namespace, room in (("/", ROOM), (NAMESPACE, ROOM), (NAMESPACE, None)):
            manager.basic_enter_room(ANCHOR, namespace, room, eio_sid=ANCHOR)

    def _emit(self, name: str, data: Mapping[str, Any], namespace: str) -> None:
        self._socketio.emit(name, data, to=ROOM, namespace=namespace, skip_sid=ANCHOR)

    def away(self, why: str, *, since: int) -> None:
        """Tell every page that it is as it was before orderwire, and why."""
        for known in list(self.feeds.values()):
            self._tell_freshness(
                {**known, "freshness": AWAY, "detail": why, "since": since, "connected": False}
            )

    def greet(self, sid: str, namespace: str) -> None:
        """Tell a page that has just come how fresh each account is."""
        for feed in list(self.feeds.values()):
            self._socketio.emit("feed_status", feed, to=sid, namespace=namespace)

    def _reached(self, account: str, place: Place) -> Place:
        known = self.places.get(account)
        return place if known is None or later(known, place) else known

    def _is_new(self, event: Told) -> bool:
        """Move the account's place; what comes a second time (another attempt at one message) is left out."""
        data = event.data
        place = Place(data["epoch"], data["sequence"])
        if not later(self.places.get(data["account"]), place):
            return False
        self.places[data["account"]] = place
        return True

    def _tell(self, event: Told, *, repeated: bool) -> None:
        self.told += 1
        if event.name == "order_update":
            self._bus.publish(self._of_the_bus(event.data))
            if not repeated:
                self._emit(event.name, event.data, "/")
        self._emit(event.name, event.data, NAMESPACE)

    def _of_the_bus(self, data: Mapping[str, Any]) -> OrderUpdated:
        fields = {name: value for name, value in data.items() if name in _OF_THE_ORDER}
        return OrderUpdated(
            **fields, user_id=self.user, request_data={"user_id": self.user}, response_data=dict(data)
        )

    def _tell_freshness(self, account: Mapping[str, Any]) -> None:
        feed = {name: value for name, value in account.items() if name != "postback_path"}
        if self.feeds.get(account["account"]) == feed:
            return
        self.feeds[account["account"]] = feed
        for namespace in ("/", NAMESPACE):
            self._emit("feed_status", feed, namespace)
