"""Measures what a browser costs a web process (gevent) of the set of several processes, idle and for each change pushed.

    python bench/browsers.py [--clients 36] [--rate 20] [--seconds 10]

Real simulators, PostgreSQL, Redis, one feed worker and one web process. Orders fill at the rate, first with nobody
looking, then with so many clients following the same accounts (one user may have 40); a push is what one of them was
sent and acknowledged. The difference in the web process' processor time over the pushes is the cost of one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))


def main() -> int:
    from chaos import Chaos
    from orderwire.client import OrderStream
    from orderwire.errors import OrderwireError

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=36)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=10)
    asked = parser.parse_args()
    with Chaos(
        Path(tempfile.mkdtemp(prefix="ow-browsers-")), feeds=1, webs=1, accounts=4, rate=asked.rate
    ) as chaos:
        chaos.start()
        process = psutil.Process(chaos.cluster.processes["w1"].pid)
        alone = measured(process, chaos, asked.seconds)
        memory = rss(process)
        streams = [
            OrderStream(chaos.cluster.url("w1"), apikey=chaos.cluster.key) for _ in range(asked.clients)
        ]
        counted = [0] * asked.clients
        over = threading.Event()

        def follow(number: int) -> None:
            while not over.is_set():
                with suppress(OrderwireError), streams[number] as stream:  # a busy machine: once more
                    while not over.is_set():
                        event = stream.next(timeout=0.5)
                        counted[number] += event is not None and event.kind != "feed"

        threads = [threading.Thread(target=follow, args=(number,)) for number in range(asked.clients)]
        for number, thread in enumerate(threads):
            thread.start()
            while counted[number] < len(chaos.cluster.accounts):  # one after the other
                time.sleep(0.02)
        each = (rss(process) - memory) / asked.clients / 1024
        before = sum(counted)
        watched = measured(process, chaos, asked.seconds)
        pushes = sum(counted) - before
        over.set()
        for thread in threads:
            thread.join()
    print(f"web process with nobody looking: {1e3 * alone / asked.seconds:.0f} ms of a core a second")
    print(f"… with {asked.clients} clients and {pushes:,} pushes: {1e3 * watched / asked.seconds:.0f} ms")
    print(f"a push: {1e6 * (watched - alone) / max(pushes, 1):.0f} µs; a client: {each:.0f} KiB")
    return 0


def measured(process: psutil.Process, chaos: object, seconds: float) -> float:
    """Seconds of the processor that the process and its children took while orders filled."""
    before = cpu(process)
    chaos.run(seconds, every=seconds, kinds=[])  # type: ignore[attr-defined]
    return cpu(process) - before


def cpu(process: psutil.Process) -> float:
    every = [process, *process.children(recursive=True)]
    return sum(sum(each.cpu_times()[:2]) for each in every)


def rss(process: psutil.Process) -> int:
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


if __name__ == "__main__":
    sys.exit(main())
