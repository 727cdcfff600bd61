"""What somebody who has seen genuine postbacks can send: replayed, altered, shifted, re-signed and broken ones."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any
from urllib.parse import urlsplit

from house import House

STATUSES = ("COMPLETE", "CANCELLED", "REJECTED", "UPDATE", "OPEN", "CANCEL", "SUSPENDED", "TRIGGER PENDING")


@contextlib.contextmanager
def catching() -> Iterator[tuple[str, queue.Queue[bytes]]]:
    """A receiver of one's own: its address, and the bodies that were posted to it."""
    caught: queue.Queue[bytes] = queue.Queue()

    class Catcher(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            caught.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Catcher)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", caught
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def genuine(house: House, order_ids: Sequence[str]) -> list[dict[str, Any]]:
    """What an eavesdropper holds: one true postback of each order, as the broker would send it now."""
    with catching() as (url, caught):
        for order_id in order_ids:
            forge = {"order_id": order_id, "kind": "replay", "url": url}
            house.sims.ask("POST", "/kite/postbacks/forge", forge)
        return [json.loads(caught.get(timeout=10)) for _ in order_ids]


def forged(bodies: Sequence[dict[str, Any]], *, count: int, seed: int = 0) -> list[tuple[str, bytes]]:
    """That many forgeries of all kinds, made from true ones; the same for the same seed."""
    chance = Random(seed)
    kinds = list(_KINDS)
    made = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        made.append((kind, _KINDS[kind](dict(chance.choice(bodies)), chance)))
    return made


def bombard(url: str, bodies: Sequence[bytes], *, connections: int = 8) -> Counter[int]:
    """Send them all as fast as they are answered, over that many connections; how often which code came."""
    parts = [bodies[first::connections] for first in range(connections)]
    with ThreadPoolExecutor(connections) as pool:
        return sum(pool.map(lambda part: _send(url, part), parts), Counter())


def _send(url: str, bodies: Sequence[bytes]) -> Counter[int]:
    address = urlsplit(url)
    codes: Counter[int] = Counter()
    line = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    for body in bodies:
        try:
            line.request("POST", address.path, body=body)
            answer = line.getresponse()
            answer.read()
            codes[answer.status] += 1
        except (OSError, http.client.HTTPException):  # a body that is not read ends the connection
            codes[0] += 1
            line.close()
    line.close()
    return codes


# --- kinds --------------------------------------------------------------------------------------------

Body = dict[str, Any]


def _json(body: Body) -> bytes:
    return json.dumps(body).encode()


def _altered(body: Body, chance: Random) -> bytes:
    changes = {
        "status": chance.choice(STATUSES),
        "filled_quantity": chance.randrange(20_000),
        "quantity": chance.randrange(1, 20_000),
        "price": chance.randrange(1, 9_999) / 100,
        "average_price": chance.randrange(1, 9_999) / 100,
        "user_id": f"ZZ{chance.randrange(10_000):04d}",
        "transaction_type": chance.choice(("BUY", "SELL")),
        "exchange_update_timestamp": "2099-01-01 00:00:00",
        "cancelled_quantity": chance.randrange(20_000),
        "tag": "x" * chance.randrange(200),
    }
    names = chance.sample(sorted(changes), chance.randrange(1, 4))
    return _json(body | {name: changes[name] for name in names})


def _shifted(body: Body, chance: Random) -> bytes:
    by = chance.randrange(1, 4)
    order_id, moment = body["order_id"], body["order_timestamp"]
    return _json(body | {"order_id": order_id[:-by], "order_timestamp": order_id[-by:] + moment})


def _other_order(body: Body, chance: Random) -> bytes:
    return _json(body | {"order_id": str(int(body["order_id"]) + chance.randrange(1, 99))})


def _other_time(body: Body, chance: Random) -> bytes:
    return _json(body | {"order_timestamp": f"2026-11-28 10:{chance.randrange(60):02d}:00"})


def _guessed(body: Body, chance: Random) -> bytes:
    secret = f"guess{chance.randrange(10**9)}"
    text = body["order_id"] + body["order_timestamp"] + secret
    return _json(body | {"checksum": sha256(text.encode()).hexdigest()})


def _mutated(body: Body, chance: Random) -> bytes:
    raw = bytearray(_json(body))
    for _ in range(chance.randrange(1, 6)):
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    return bytes(raw)


def _deep(body: Body, chance: Random) -> bytes:
    depth = chance.randrange(10, 5_000)
    return _json(body)[:-1] + b', "meta": ' + b"[" * depth + b"]" * depth + b"}"


_KINDS = {
    "replayed": lambda body, _: _json(body),
    "altered": _altered,
    "altered again": _altered,
    "shifted": _shifted,
    "other order": _other_order,
    "other time": _other_time,
    "guessed secret": _guessed,
    "mutated": _mutated,
    "truncated": lambda body, chance: _json(body)[: chance.randrange(1, 500)],
    "number for an id": lambda body, _: _json(body | {"order_id": int(body["order_id"])}),
    "no time": lambda body, _: _json(body | {"order_timestamp": None}),
    "nan": lambda body, _: _json(body | {"average_price": float("nan")}),
    "duplicate key": lambda body, _: _json(body)[:-1] + b', "status": "COMPLETE"}',
    "deep": _deep,
    "oversize": lambda body, chance: _json(body | {"padding": "x" * chance.randrange(66_000, 90_000)}),
    "list": lambda body, _: b"[" + _json(body) + b"]",
    "not utf-8": lambda body, _: _json(body) + b"\xff\xfe",
    "huge number": lambda body, _: _json(body)[:-1] + b', "price": 1' + b"0" * 5_000 + b"}",
}
