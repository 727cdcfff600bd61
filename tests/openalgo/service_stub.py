"""A service's control socket that answers what it is told to: for what no real service would say."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from orderwire.core.hosts import PROTOCOL


def to_host(**given: Any) -> dict[str, Any]:
    """Return an answer of the service in its own words."""
    return {
        "protocol": PROTOCOL,
        "version": "1.0",
        "service": "s1",
        "number": 1,
        "state_mark": "",
        "events": [],
        "places": {},
        "accounts": [],
        "problems": [],
        "url": "",
    } | given


@dataclass
class StubService:
    answers: list[Any]
    """What to say, in turn; the last one from then on. A text is a refusal, bytes are sent as they are."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    postbacks: list[tuple[str, bytes]] = field(default_factory=list)
    postback_status: int = 200

    def next(self) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def a_stub_service(folder: Path, *answers: Any) -> Iterator[StubService]:
    stub = StubService(answers=list(answers) or [to_host()])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path.startswith("/postback/"):
                stub.postbacks.append((self.path, body))
                self._send(stub.postback_status, b"")
                return
            stub.asked.append(json.loads(body).get("asked", {}))
            said = stub.next()
            if isinstance(said, bytes):
                self._send(200, said)
            elif isinstance(said, str):
                self._send(200, json.dumps({"status": "error", "message": said}).encode())
            else:
                self._send(200, json.dumps({"status": "success", "result": said}).encode())

        def _send(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(str(folder / "control.sock"), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
