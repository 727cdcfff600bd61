"""Measures how long the demo takes to be ready and to stop with open pages: `python bench/stop.py [--rounds 5]`.

Gates (docs/reference/figures.md): start to ready ≤ 5 s, stop ≤ 3 s with 20 clients connected.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from house import eventually, free_port, running_house
from orderwire.client import OrderStream

CLIENTS = 20
READY_GATE, STOP_GATE = 5.0, 3.0


def service_round(folder: Path) -> tuple[float, float]:
    """Start the service on a database with two accounts, let clients follow, stop it; seconds of both."""
    with running_house(folder) as house:
        house.stop()
        started = time.monotonic()
        house.start()
        ready = time.monotonic() - started
        with contextlib.ExitStack() as open_pages:
            for _ in range(CLIENTS):
                stream = open_pages.enter_context(OrderStream(house.url, apikey=house.keys["asha"]))
                eventually(lambda s=stream: s.next(timeout=0.05))
            stopped = house.stop()
    return ready, stopped


def demo_round(folder: Path) -> float:
    """Run the whole demo, stop it as Ctrl-C does; seconds."""
    port = free_port()
    command = [sys.executable, "-m", "orderwire", "demo", "--port", str(port), "--sim-port", str(free_port())]
    command += ["--data-dir", str(folder / "demo"), "--orders-per-minute", "60"]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    eventually(lambda: "ok" if (folder / "demo" / "orderwire.log").exists() else None)
    time.sleep(5)  # the demo's own life between start and stop
    started = time.monotonic()
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=20)
    return time.monotonic() - started


def main() -> int:
    """Print the medians and worst cases; 1 when a gate fails."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    ready, stopped, demos = [], [], []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            up, down = service_round(Path(folder))
        with tempfile.TemporaryDirectory() as folder:
            demos.append(demo_round(Path(folder)))
        ready.append(up)
        stopped.append(down)
        print(
            f"round {number + 1}/{rounds}: ready {up:.2f} s, stopped {down:.2f} s, demo {demos[-1]:.2f} s",
            flush=True,
        )
    for name, values, gate in (
        ("start to ready", ready, READY_GATE),
        (f"service stopped with {CLIENTS} clients", stopped, STOP_GATE),
        ("demo stopped", demos, STOP_GATE),
    ):
        verdict = "ok" if max(values) <= gate else "GATE FAILED"
        print(
            f"{name}: median {statistics.median(values):.2f} s, worst {max(values):.2f} s, gate {gate} s: {verdict}"
        )
    return int(max(ready) > READY_GATE or max(stopped + demos) > STOP_GATE)


if __name__ == "__main__":
    sys.exit(main())
