"""Socket.IO's queue between web processes, on the wire: one subscription a process, found deaf when it is deaf.

The library's own Redis manager waits up to a minute before it subscribes again, and does not notice a connection that
is half-open. What clients are sent does not pass through here (`ignore_queue`): each process follows the bus itself,
and a client's pace is its own outbox's matter. What passes are rooms and disconnections of clients elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from socketio.pubsub_manager import PubSubManager

from orderwire.bus.members import Guarded
from orderwire.bus.wire import CHANNEL, Wire


class Switchboard(Guarded, PubSubManager):  # type: ignore[misc]  # the library ships no types
    """Give it to `SocketIO(client_manager=…)`; its listening starts with the server."""

    name = "switchboard"

    def __init__(self, wire: Wire) -> None:
        super().__init__(channel=CHANNEL)
        self._wire = wire

    def _publish(self, data: Any) -> None:
        self._wire.publish(data)

    def _listen(self) -> Iterator[bytes]:
        return self._wire.listen()
