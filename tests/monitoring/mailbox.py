"""A program that receives messages on a free port, as a webhook's or an ntfy server; answers what it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    port: int = 0
    codes: list[int] = field(default_factory=list)
    """What to answer, in turn; then 200."""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    location: str = ""
    answer: Callable[[bytes], bytes] = lambda _body: b"{}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ntfy(self) -> str:
        return f"ntfy://127.0.0.1:{self.port}/orders?mode=private"

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, body in self.got]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            receiver.got.append((dict(self.headers), body))
            self.send_response(receiver.codes.pop(0) if receiver.codes else 200)
            if receiver.location:
                self.send_header("Location", receiver.location)
            said = receiver.answer(body)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
