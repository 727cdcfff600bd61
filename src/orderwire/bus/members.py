"""Who is connected to a Socket.IO server, as the library keeps it, under a lock.

The library takes none: a client that comes while the last other one leaves is put into a room that is just being
deleted, and hears nothing; one that is told something while it leaves raises in the teller's thread. Both were seen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from socketio.manager import Manager


def _locked(name: str) -> Any:
    def method(self: Any, *given: Any, **named: Any) -> Any:
        with self.guard:
            return getattr(super(Guarded, self), name)(*given, **named)

    method.__name__ = name
    return method


class Guarded:
    """Put it before one of the library's managers: whoever comes, goes, or is looked up does so one after the other.

    Nothing is called and nothing is sent while the lock is held.
    """

    guard: Any
    """Guards the rooms, who is coming and going, and the acknowledgements awaited."""
    rooms: dict[str, Any]
    callbacks: dict[str, dict[int, Any]]

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.guard = threading.RLock()

    pre_connect = _locked("pre_connect")
    connect = _locked("connect")
    is_pre_connected = _locked("is_pre_connected")
    is_connected = _locked("is_connected")
    sid_from_eio_sid = _locked("sid_from_eio_sid")
    eio_sid_from_sid = _locked("eio_sid_from_sid")
    is_sid_room = _locked("is_sid_room")
    basic_disconnect = _locked("basic_disconnect")
    basic_enter_room = _locked("basic_enter_room")
    basic_leave_room = _locked("basic_leave_room")
    basic_close_room = _locked("basic_close_room")
    get_rooms = _locked("get_rooms")

    def get_namespaces(self) -> list[str]:
        """Return the namespaces that have clients, as of now."""
        with self.guard:
            return list(self.rooms)

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        """Return who is in a room, as of now."""
        with self.guard:
            return iter(list(super().get_participants(namespace, room)))  # type: ignore[misc]  # the manager's

    def pre_disconnect(self, sid: str, namespace: str) -> str | None:
        """Note that a client is going; no effect when it is gone."""
        with self.guard:
            if sid not in self._present(namespace):
                return None
            return super().pre_disconnect(sid, namespace)  # type: ignore[misc,no-any-return]  # see above

    def _generate_ack_id(self, sid: str, callback: Callable[..., Any]) -> int:
        with self.guard:
            if not any(sid in self._present(namespace) for namespace in self.rooms):
                return 0  # gone meanwhile: nobody acknowledges, and nothing would ever forget the callback
            return super()._generate_ack_id(sid, callback)  # type: ignore[misc,no-any-return]  # see above

    def trigger_callback(self, sid: str, id: int, data: Any) -> None:  # noqa: A002 - the library's name
        """Call what awaits this acknowledgement; none that was not asked for is believed."""
        with self.guard:
            awaited = self.callbacks.get(sid, {})
            callback = awaited.pop(id, None) if id else None  # under 0 the library keeps its counter
        if callback is not None:
            callback(*(data if isinstance(data, list) else ()))

    def _present(self, namespace: str) -> Any:
        return self.rooms.get(namespace, {}).get(None, {})


class Members(Guarded, Manager):  # type: ignore[misc]  # the library ships no types
    """The clients of a process that has its Socket.IO to itself."""
