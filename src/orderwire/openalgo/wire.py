"""How the mounted part reaches the service: HTTP over its control socket, with nothing but the standard library.

A monkey-patched host patches that too, so waiting here lets the rest of the host go on.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from orderwire.core.hosts import FromHost, ToHost
from orderwire.decoding import convert
from orderwire.errors import UNDECODABLE, OrderwireError

SOCKET_NAME: Final = "control.sock"
PATIENCE: Final = 10.0
"""Seconds the service gets to answer, besides what it was asked to wait."""


class AwayError(OrderwireError):
    """The service does not answer."""


class RefusedError(OrderwireError):
    """The service answered that it will not."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, *, patience: float) -> None:
        super().__init__("localhost", timeout=patience)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class ServiceWire:
    """Asks the service. One task at a time may `take`; `pass_on` opens a connection of its own."""

    def __init__(self, folder: Path) -> None:
        self._path = folder.absolute() / SOCKET_NAME
        self._open: _UnixConnection | None = None

    def take(self, asked: FromHost) -> ToHost:
        """Hand over and be told. Raises AwayError, RefusedError."""
        answer = self._command(
            "host.take", {"asked": msgspec.to_builtins(asked)}, patience=asked.wait + PATIENCE
        )
        try:
            return convert(answer, ToHost)
        except msgspec.ValidationError as error:
            raise RefusedError(f"the service speaks another protocol: {error}") from error

    def leave(self, user: str, instance: str) -> None:
        """Say good-bye. Raises AwayError, RefusedError."""
        self._command("host.leave", {"user": user, "instance": instance}, patience=2.0)

    def pass_on(self, path: str, body: bytes, headers: Mapping[str, str], *, url: str = "") -> int:
        """Hand a broker's callback on as it came; returns the service's status. Raises AwayError."""
        parts = urlsplit(url)
        connection = (
            http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
            if url and not self._path.exists()
            else _UnixConnection(self._path, patience=PATIENCE)
        )
        try:
            connection.request("POST", path, body=body, headers=dict(headers))
            return connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise AwayError(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def close(self) -> None:
        """Close the kept connection."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _command(self, name: str, arguments: Mapping[str, Any], *, patience: float) -> Any:
        try:
            status, body = self._ask(f"/control/{name}", msgspec.json.encode(arguments), patience)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise AwayError(f"nobody answers at {self._path} ({type(error).__name__})") from error
        try:
            answer = msgspec.json.decode(body)
        except UNDECODABLE as error:
            raise RefusedError(f"the service answered {status}") from error
        if answer.get("status") != "success":
            raise RefusedError(str(answer.get("message") or f"the service answered {status}"))
        return answer["result"]

    def _ask(self, path: str, body: bytes, patience: float) -> tuple[int, bytes]:
        if self._open is None:
            self._open = _UnixConnection(self._path, patience=patience)
        self._open.timeout = patience
        self._open.request("POST", path, body=body, headers={"Content-Type": "application/json"})
        reply = self._open.getresponse()
        content = reply.read()
        if reply.will_close:
            self.close()
        return reply.status, content
