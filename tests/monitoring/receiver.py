"""A program that takes webhooks on a real port, and says what it took."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """Answers each POST with the next of `answers`, then with 200; `taken` are (headers, body)."""

    def __init__(self, *answers: int, port: int = 0) -> None:
        self.taken: list[tuple[dict[str, str], bytes]] = []
        script = list(answers)
        taken = self.taken

        class Take(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                taken.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(script.pop(0) if script else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Take)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in list(self.taken)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
