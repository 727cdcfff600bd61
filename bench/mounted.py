"""Measures how long a change takes into a host with orderwire mounted in it: `python bench/mounted.py [--orders 100]`.

The example host, its service and both simulated brokers run as processes on this machine. One resting order at Zerodha
is filled share by share; each fill's way is timed from the bytes read at the broker's socket (the service's own stamp) to
the host's page (WebSocket and polling) and, where it posts, the webhook. And: `kill -9` of the child to live again.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from house import Simulators, eventually
from openalgo_host import ExampleHost, Listener, zerodha_token


class TimedListener(Listener):
    """Notes when each fill reached the page."""

    def _taker(self, name):
        def take(data):
            if name == "order_update":
                data["arrived"] = time.time() * 1000
            self.got.put((name, data))

        return take


def await_fill(page: Listener, quantity: int) -> None:
    eventually(lambda: any(d["filled_quantity"] >= quantity for d in page.heard("order_update")))


def measured(host: ExampleHost, *, polling: bool, fills: int) -> list[float]:
    with TimedListener(host, "/orderwire", polling=polling) as page:
        order_id = host.place("zerodha-trader", order_type="LIMIT", price="1400", quantity=fills + 1)
        page.await_order(order_id, "open")
        for filled in range(1, fills + 1):
            host.sims.ask("POST", "/market/fill", {"uid": f"kite:{order_id}", "quantity": 1, "price": "1400"})
            await_fill(page, filled)
        by_stream = {
            d["filled_quantity"]: d["arrived"] - d["stamps"]["received"]
            for d in reversed(page.heard("order_update"))
            if d["filled_quantity"] and d["source"] == "stream"
        }
    host.command("orders.cancel", account="zerodha-trader", order_id=order_id)
    return list(by_stream.values())


def told(name: str, milliseconds: list[float]) -> None:
    ranked = sorted(milliseconds)
    p95 = ranked[int(0.95 * (len(ranked) - 1))]
    print(f"{name}: p50 {statistics.median(ranked):.1f} ms, p95 {p95:.1f} ms ({len(ranked)} fills)")


def comes_back(host: ExampleHost) -> float:
    before = host.status()["pid"]
    began = time.monotonic()
    host.kill_service()
    eventually(lambda: (s := host.status())["state"] == "live" and s["pid"] not in {0, before})
    host.await_freshness("zerodha", "LIVE")
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fills", type=int, default=100)
    parser.add_argument("--servers", default="threads,gevent,eventlet")
    arguments = parser.parse_args()
    for server in arguments.servers.split(","):
        with tempfile.TemporaryDirectory() as folder:
            sims = Simulators(Path(folder))
            host = ExampleHost(Path(folder), sims, server=server)
            host.start()
            try:
                host.log_in_to_broker("zerodha", zerodha_token(sims))
                host.await_freshness("zerodha", "LIVE")
                for way, polling in (("WebSocket", False), ("polling", True)):
                    told(f"{server}, {way}", measured(host, polling=polling, fills=arguments.fills))
                print(f"{server}: killed -> live again {comes_back(host):.1f} s")
            finally:
                host.stop(signal.SIGTERM)
                sims.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
