"""WebSocket connections as the web server hands them over: frames go out whole, and nobody waits for the silent for ever."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import simple_websocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SILENT_FOR: Final = 20
"""Seconds for which the other end may take nothing of what it was sent; then the system ends the connection."""

_SOCKETS: Final = ("gunicorn.socket", "werkzeug.socket")


def socket_of(environ: WSGIEnvironment) -> Any:
    """Return a request's connection, None where the web server does not tell it."""
    return next((environ[name] for name in _SOCKETS if name in environ), None)


def prepared(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Return a request whose connection sends frames whole and ends by itself when its other end takes none."""
    connection = socket_of(environ)
    if connection is None:
        return environ
    if hasattr(socket, "TCP_USER_TIMEOUT") and connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_FOR * 1000)
    whole = _Whole(connection)
    return environ | {name: whole for name in _SOCKETS if name in environ}


def browsers_line(driver: type[Any], *, most_bytes: int) -> type[Any]:
    """Return Engine.IO's driver of a WebSocket, which takes messages of at most `most_bytes`, on a prepared connection."""

    class Line(driver):  # type: ignore[misc]  # the library ships no types
        def __init__(self, handler: Callable[[Any], Any], server: Any) -> None:
            super().__init__(handler, server)
            self.server_args["max_message_size"] = most_bytes

        def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            answer: Iterable[bytes] = super().__call__(prepared(environ), start_response)
            return answer

        def close(self) -> None:
            """Say good-bye, to an end that may have left this very moment."""
            with suppress(OSError, simple_websocket.ConnectionClosed):
                super().close()

    return Line


class _Whole:
    """A connection whose `send` sends all it is given, and nothing else meanwhile.

    simple-websocket takes that for granted, and sends from two threads: greenlets cut a frame short that was larger than
    the system's buffer, and an answer to a ping got inside of another frame.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, data: bytes) -> int:
        with self._sending:
            self._connection.sendall(data)
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)
