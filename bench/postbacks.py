"""Attacks the postback endpoint of a running service: `python bench/postbacks.py [--forged 10000] [--seconds 60]`.

Two figures. *Forged*: so many forgeries of 18 kinds, made from true postbacks, must change nothing, and the broker is
asked no more than hints may cost. *Flood*: 5,000 postbacks a second are offered from another process (half to a guessed
address, a quarter with a guessed checksum, a quarter true ones repeated) while one order is filled five times a second;
each fill must reach a program's stream, by the WebSocket and by postback alone. The oracle is the simulator: it counts
the reads (a switch that strikes at each, and makes REST answer after 100 ms) and holds the order. Gates: nothing
changed, reads within budget, every fill told, p99 within a second; exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from forgery import bombard, forged, genuine
from house import ZERODHA, House, eventually, running_house
from orderwire.client import OrderStream
from orderwire.core.recovery import HINT_SPACING
from orderwire.web.claims import MISMATCH

OFFERED = 5_000
CONNECTIONS = 200
LATEST = 1.0
ROUTINE = 0.75
"""Reads a second that happen anyway: while orders are open every 3 s (polling) or 4 s (live), trades not counted."""


class Reads:
    """Counts the order book's reads at the broker."""

    def __init__(self, house: House, *, seconds: float) -> None:
        self._house = house
        house.sims.ask("DELETE", "/faults")
        fault = {"kind": "slow", "operation": "orders", "params": {"seconds": seconds}}
        self._id = house.sims.ask("POST", "/faults", fault)["id"]
        self._began = time.monotonic()

    def within_budget(self) -> tuple[int, float, bool]:
        """How many there were, how many a second may be, whether it is kept."""
        seconds = time.monotonic() - self._began
        board = self._house.sims.ask("GET", "/faults")
        count = next(fault["struck"] for fault in board if fault["id"] == self._id)
        most = 1 / HINT_SPACING + ROUTINE
        return count, most, count <= most * seconds + 3


def rest(house: House, quantity: int) -> str:
    """Leave an order at the broker that no market price fills; its id once the page has it."""
    order_id = house.place(ZERODHA, order_type="LIMIT", price="1440", quantity=quantity)["order_id"]
    eventually(
        lambda: any(o["orderid"] == order_id and o["status"] == "OPEN" for o in house.book("asha").values())
    )
    return order_id


def attack(house: House, count: int) -> bool:
    """Send the forgeries; whether nothing changed and the budget was kept."""
    bodies = genuine(house, [rest(house, 100), rest(house, 50)])
    before = house.book("asha")
    reads = Reads(house, seconds=0.1)
    began = time.monotonic()
    codes = bombard(house.postback_url, [body for _, body in forged(bodies, count=count)])
    seconds = time.monotonic() - began
    eventually(lambda: MISMATCH in house.log(), what="the alarm")
    changed = house.book("asha") != before
    found, most, kept = reads.within_budget()
    alarms = house.log().count(MISMATCH)
    print(f"forged: {count} in {seconds:.1f} s, answered {dict(sorted(codes.items()))} (0: cut off unread)")
    print(f"  orders changed: {'YES' if changed else 'none'}; alarms: {alarms}")
    print(f"  order book reads: {found}, budget {most:.2f} a second: {'kept' if kept else 'EXCEEDED'}")
    return kept and not changed and not any(code >= 500 for code in codes)


class Filled:
    """When a program's stream told of each fill, by the filled quantity."""

    def __init__(self, house: House, order_id: str) -> None:
        self._house = house
        self._id = order_id
        self.late: list[float] = []
        self.missing = 0

    def one(self, stream: OrderStream, filled: int) -> None:
        """Fill one share at the exchange and wait for the stream; seconds from before the exchange was told."""
        began = time.monotonic()
        self._house.sims.ask(
            "POST", "/market/fill", {"uid": f"kite:{self._id}", "quantity": 1, "price": "1440"}
        )
        while time.monotonic() - began < 30:
            event = stream.next(timeout=0.5)
            mine = event is not None and event.fields.get("orderid") == self._id
            if mine and event.kind == "order" and event.fields["filled_quantity"] >= filled:
                self.late.append(time.monotonic() - began)
                return
        self.missing += 1


def flood(house: House, *, name: str, seconds: float) -> bool:
    """Offer the flood while an order is filled; whether all fills were told in time and the budget was kept."""
    order_id = rest(house, 2_000)
    (body,) = genuine(house, [order_id])
    filled = Filled(house, order_id)
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(OrderStream(house.url, apikey=house.keys["asha"]))
        for count in range(1, 11):
            filled.one(stream, count)
        calm, filled.late = filled.late, []
        reads = Reads(house, seconds=0.1)
        sender = subprocess.Popen(
            [sys.executable, __file__, "--send", house.postback_url, "--seconds", str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        sender.stdin.write(json.dumps(body) + "\n")
        sender.stdin.flush()
        count = 10
        while sender.poll() is None:
            count += 1
            due = time.monotonic() + 0.2
            filled.one(stream, count)
            time.sleep(max(0.0, due - time.monotonic()))
        said = json.loads(sender.stdout.read())
    found, most, kept = reads.within_budget()
    late = sorted(filled.late)
    p99 = late[min(len(late) - 1, int(len(late) * 0.99))]
    print(f"flood, {name}: {said['offered']} offered in {said['seconds']:.0f} s ({OFFERED}/s)")
    print(f"  answered {said['codes']}, {said['refused']} found no free line (of {CONNECTIONS})")
    print(f"  order book reads {found}, budget {most:.2f} a second: {'kept' if kept else 'EXCEEDED'}")
    print(
        f"  {len(late)} fills told, {filled.missing} missing; exchange to program p50 {ms(statistics.median(late))}, "
        f"p99 {ms(p99)}, worst {ms(late[-1])}; without the flood p50 {ms(statistics.median(calm))}"
    )
    return kept and not filled.missing and p99 <= LATEST


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


# --- the sender ---------------------------------------------------------------------------------------


class Line(asyncio.Protocol):
    """One kept-alive connection: one request at a time."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.transport: asyncio.Transport | None = None
        self._busy = False

    def connection_made(self, transport) -> None:
        self.transport = transport
        self._sender.free.append(self)

    def send(self, request: bytes) -> None:
        self._busy = True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._sender.codes[data[9:12].decode("ascii", "replace")] += 1
        self._busy = False
        self._sender.free.append(self)

    def connection_lost(self, _error) -> None:
        self._sender.codes["cut"] += self._busy
        with contextlib.suppress(ValueError):
            self._sender.free.remove(self)
        self._sender.lost()


class Sender:
    """Offers postbacks at a fixed rate, whatever becomes of them."""

    def __init__(self, url: str, body: dict) -> None:
        self._address = urlsplit(url)
        self.free: list[Line] = []
        self.codes: Counter[str] = Counter()
        self.offered = self.refused = 0
        self._ended = False
        self._connecting: set[asyncio.Task[None]] = set()
        guess = body | {"checksum": "0" * 64}
        path = self._address.path
        self._requests = [
            self._request(path[:-6] + "guess0", body),
            self._request(path, guess),
            self._request(path[:-6] + "guess1", guess),
            self._request(path, body),
        ]

    def _request(self, path: str, body: dict) -> bytes:
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._address.netloc}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    def lost(self) -> None:
        if not self._ended:
            again = asyncio.ensure_future(self._connect())
            self._connecting.add(again)
            again.add_done_callback(self._connecting.discard)

    async def _end(self) -> None:
        self._ended = True
        under_way = list(self._connecting)
        for again in under_way:
            again.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _connect(self) -> None:
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().create_connection(
                lambda: Line(self), self._address.hostname, self._address.port
            )

    async def run(self, seconds: float) -> None:
        await asyncio.gather(*(self._connect() for _ in range(CONNECTIONS)))
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (gone := loop.time() - began) < seconds:
            for _ in range(int(gone * OFFERED) - self.offered):
                self.offered += 1
                if self.free:
                    self.free.pop(0).send(self._requests[self.offered % len(self._requests)])
                else:
                    self.refused += 1
            await asyncio.sleep(0.002)
        await self._end()
        print(
            json.dumps(
                {
                    "offered": self.offered,
                    "refused": self.refused,
                    "codes": dict(self.codes),
                    "seconds": seconds,
                }
            )
        )


def main() -> int:
    """Run both and print the figures; 1 when a gate fails."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--forged", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--send", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.send:
        asyncio.run(Sender(given.send, json.loads(sys.stdin.readline())).run(given.seconds))
        return 0
    with tempfile.TemporaryDirectory() as folder, running_house(Path(folder)) as house:
        good = attack(house, given.forged)
        good &= flood(house, name="by the WebSocket", seconds=given.seconds)
        house.sims.ask("PATCH", "/kite/apps/demokite", {"plan": "personal"})
        house.sims.ask("POST", "/sockets/disconnect", {"broker": "kite", "user": "ZD0001", "mode": "close"})
        house.await_freshness(ZERODHA, "DEGRADED")
        good &= flood(house, name="by postback alone", seconds=given.seconds)
    print("gates kept" if good else "A GATE FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
