"""The library other programs use to follow orders: connects, resumes after a break, misses nothing.

    for change in OrderStream("http://127.0.0.1:5080", apikey="…"):
        print(change.order["orderid"], change.order["status"])

It needs the values and the errors of this package and `python-socketio`, nothing of the service.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import engineio
import socketio

from orderwire.errors import OrderwireError

Kind = Literal["snapshot", "order", "trade", "position", "feed"]

_KINDS: Mapping[str, Kind] = {
    "snapshot": "snapshot",
    "order_update": "order",
    "trade_update": "trade",
    "position_update": "position",
    "feed_status": "feed",
}


_EVENT = "2"
"""Type of a Socket.IO packet that carries an event."""


class StreamRefusedError(OrderwireError):
    """The service does not let this API key follow orders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent:
    """One thing the service said; `fields` is the payload of docs/decisions/0006-pages.md."""

    kind: Kind
    account: str
    fields: Mapping[str, Any]


class _InOrder(engineio.Client):  # type: ignore[misc]  # the library ships no types
    """Handles events in the order they came: the library starts a thread for each message, and those overtake.

    Only events are handled where they are read: what ends a connection has to join that thread.
    """

    def _trigger_event(self, event: str, *args: Any, run_async: bool = False, **more: Any) -> Any:
        in_order = event == "message" and str(args[0]).startswith(_EVENT)
        return super()._trigger_event(event, *args, run_async=run_async and not in_order, **more)


class _Client(socketio.Client):  # type: ignore[misc]  # the library ships no types
    def _engineio_client_class(self) -> type[engineio.Client]:
        return _InOrder


class OrderStream:
    """Follows the orders of an API key's accounts. Iterate it, or call `next`; one consuming thread.

    Begins with one `snapshot` per account. After a break it resumes from what it has seen: either every change
    that was missed comes, in order, or a new snapshot. The same change never comes twice.
    """

    def __init__(self, url: str, *, apikey: str) -> None:
        self._url = url
        self._apikey = apikey
        self._events: queue.Queue[StreamEvent | OrderwireError | None] = queue.Queue()
        self._cursors: dict[str, tuple[str, int]] = {}
        self._refusal: StreamRefusedError | None = None
        self._client = _Client(reconnection_delay=0.2, reconnection_delay_max=5)
        self._client.on("connect", self._follow)
        self._client.on("connect_error", self._refused)
        for name in _KINDS:
            self._client.on(name, self._taker(name))

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[StreamEvent]:
        with self:
            while (event := self.next()) is not None:
                yield event

    def connect(self) -> None:
        """Connect, and keep reconnecting from then on. Raises StreamRefusedError, OrderwireError."""
        try:
            self._client.connect(
                self._url, auth={"apikey": self._apikey}, transports=["websocket"], retry=False
            )
        except socketio.exceptions.ConnectionError as error:
            if self._refusal is not None:
                raise self._refusal from error
            raise OrderwireError(f"{self._url} does not answer: {error}") from error

    def next(self, timeout: float | None = None) -> StreamEvent | None:
        """Return the next event, or None after `timeout` seconds without one, or once closed."""
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(event, OrderwireError):
            raise event
        return event

    def close(self) -> None:
        """Disconnect; a waiting `next` returns None."""
        self._client.disconnect()
        self._events.put(None)

    def _follow(self) -> None:
        cursors = {
            account: {"epoch": epoch, "sequence": sequence}
            for account, (epoch, sequence) in self._cursors.items()
        }
        self._client.emit("follow", {"cursors": cursors})

    def _refused(self, said: Any = None) -> None:
        if "login" in str(said):
            self._refusal = StreamRefusedError()
            self._events.put(self._refusal)

    def _taker(self, name: str) -> Any:
        def take(fields: Mapping[str, Any]) -> dict[str, Any]:
            if self._is_new(name, fields):
                event = StreamEvent(kind=_KINDS[name], account=fields["account"], fields=fields)
                self._events.put(event)
            return {}

        return take

    def _is_new(self, name: str, fields: Mapping[str, Any]) -> bool:
        """Move the account's cursor; a change that came before is not told again."""
        if name == "feed_status":
            return True
        account, epoch, sequence = fields["account"], fields["epoch"], fields["sequence"]
        known = self._cursors.get(account)
        if name != "snapshot" and known is not None and known[0] == epoch and sequence <= known[1]:
            return False
        self._cursors[account] = (epoch, sequence)
        return True
