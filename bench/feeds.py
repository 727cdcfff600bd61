"""Measures what feeds promise, against the simulated brokers as a process of their own: `make bench-feeds`.

    python bench/feeds.py                     every figure; fails when a gate is missed
    python bench/feeds.py --only footprint    one of them; --accounts 2000 sets its size
    python bench/feeds.py --write             also writes docs/reference/figures-feeds.md

The feeds, the book, the database and the engine are the service's own in one process; the brokers' ledger and the wire
before them are the oracle. Brokers answer after 30 ms and push 20 ms after the event.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import structlog

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from feed_desk import Desk  # noqa: E402 - the floor lives with the tests
from feed_figures import dropped_together, half_open, pace, percentile, silent_loss, switching  # noqa: E402 - same
from feed_floor import Floor, floor  # noqa: E402 - same
from orderwire.core.orders import IST, AccountId  # noqa: E402 - same
from orderwire.feeds.market import load_calendar  # noqa: E402 - same

PAGE = ROOT / "docs" / "reference" / "figures-feeds.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    says: str
    measured: str
    gate: str = ""
    met: bool = True


def main() -> int:
    asked = _asked()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if asked.child:
        print(json.dumps(_footprint(asked.child, open_orders=asked.open_orders)))
        return 0
    rows: list[Row] = []
    for name, figure in FIGURES.items():
        if asked.only in {None, name}:
            for row in figure(asked):
                rows.append(row)
                print(f"{'  ' if row.met else '! '}{row.says}: {row.measured}  {row.gate}", flush=True)
    if asked.write:
        PAGE.write_text(_page(rows))
    return 0 if all(row.met for row in rows) else 1


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=FIGURES, help="one figure")
    parser.add_argument("--accounts", type=int, nargs="+", default=[500, 2000], help="sizes of the footprint")
    parser.add_argument("--switches", type=int, default=100, help="how often real-time is switched")
    parser.add_argument("--rounds", type=int, default=5, help="how often a line is left dead")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--child", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--open-orders", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- half-open, silent loss -------------------------------------------------------------------------------


def half_open_rows(asked: argparse.Namespace) -> Iterator[Row]:
    with _on(kite=1, xts=1, through_proxies=True) as few:
        few.until(few.all_live)
        for account, broker, most in (("k0", "Zerodha", 5.0), ("x0", "Jainam", 8.0)):
            found = [half_open(few, AccountId(account)) for _ in range(asked.rounds)]
            yield Row(
                says=f"half-open stream noticed after the last byte, {broker}, worst of {asked.rounds}",
                measured=f"{max(found):.2f} s",
                gate=f"≤ {most:g} s",
                met=max(found) <= most + 0.05,
            )


def silent_loss_rows(_asked: argparse.Namespace) -> Iterator[Row]:
    with _on(kite=30, xts=30) as many:
        many.until(many.all_live)
        found = silent_loss(many, [account.profile.account for account in many.accounts()])
        wrong = many.differences()
    yield Row(
        says="fill lost on a healthy stream: in our book after, 60 accounts, p50 / worst",
        measured=f"{percentile(found, 50):.2f} / {max(found):.2f} s, {len(wrong)} wrong",
        gate="≤ 5 s, 0 wrong",
        met=max(found) <= 5 and not wrong,
    )


# --- reconnecting -----------------------------------------------------------------------------------------


def reconnect_rows(_asked: argparse.Namespace) -> Iterator[Row]:
    with _on(kite=200, through_proxies=True) as many:
        many.until(many.all_live, seconds=120)
        drop = dropped_together(many, "kite")
        wrong = many.differences()
    yield Row(
        says="200 accounts dropped together → LIVE again, p50 / p99",
        measured=f"{percentile(drop.back, 50):.1f} / {percentile(drop.back, 99):.1f} s",
        gate="p99 ≤ 10 s",
        met=percentile(drop.back, 99) <= 10 and not wrong,
    )
    yield Row(
        says="… connects seen on the wire, most in 100 ms / in a second",
        measured=f"{drop.peak_100ms} / {drop.peak_second}",
        gate="≤ 10 / ≤ 50",
        met=drop.peak_100ms <= 10 and drop.peak_second <= 50,
    )


# --- switching --------------------------------------------------------------------------------------------


def switching_rows(asked: argparse.Namespace) -> Iterator[Row]:
    with _on(kite=15, xts=15) as many:
        many.until(many.all_live)
        found = switching(many, switches=asked.switches)
    yield Row(
        says=f"real-time switched off and on {found.switches} times among {found.updates} fills: lost",
        measured=f"{len(found.lost)}",
        gate="0",
        met=not found.lost,
    )
    yield Row(
        says="… observations of a stream handed on after its switch was off",
        measured=f"{found.passed_after}",
        gate="0",
        met=found.passed_after == 0,
    )
    yield Row(
        says="… the switch returned after / the broker saw the connection end after, worst",
        measured=f"{max(found.returned) * 1000:.0f} ms / {max(found.socket_gone):.2f} s",
        gate="≤ 1 s",
        met=max(found.socket_gone) <= 1 and max(found.returned) <= 1,
    )
    yield Row(
        says="… all that the broker had at the switch was in our book after, p99",
        measured=f"{percentile(found.known, 99):.2f} s",
    )


# --- many accounts ----------------------------------------------------------------------------------------


def footprint_rows(asked: argparse.Namespace) -> Iterator[Row]:
    for count in asked.accounts:
        for open_orders in (False, True) if count <= 500 else (False,):
            found = _in_a_child(count, open_orders=open_orders)
            what = "one order open each" if open_orders else "idle"
            yield Row(
                says=f"{count} accounts fed by one process, {what}: memory / processor time for each",
                measured=f"{found['kib']:.0f} KiB / {found['cpu'] * 1000:.2f} ms a second, all LIVE in "
                f"{found['ready']:.1f} s ({found['live']} LIVE at the end, {found['reads']:.0f} reads a second)",
                gate="≤ 100 KiB, all LIVE" if not open_orders else "all LIVE",
                met=(open_orders or found["kib"] <= 100) and found["live"] == count,
            )


def _in_a_child(count: int, *, open_orders: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", str(count)] + (["--open-orders"] if open_orders else [])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{count} accounts: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _footprint(count: int, *, open_orders: bool) -> dict[str, float]:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with _on(kite=count // 2, xts=count - count // 2, started=False) as many:
        many.engine.start()
        many.loop.start()
        gc.collect()
        before, began = _rss(), time.monotonic()
        many.fleet.start()
        many.until(many.all_live, seconds=300)
        ready = time.monotonic() - began
        if open_orders:
            orders = [(each.profile.account, many.place(each.profile.account)) for each in many.accounts()]
            many.until(lambda: all(many.book.current(account, order) for account, order in orders), 120)
        gc.collect()
        many.until(many.all_live, seconds=120)
        busy, reads = time.process_time(), pace(many, 30)
        cpu = time.process_time() - busy
        live = many.freshness().get("LIVE", 0)
        return {
            "kib": (_rss() - before) / 1024 / count,
            "cpu": cpu / reads.seconds / count,
            "ready": ready,
            "live": live,
            "reads": reads.reads / reads.seconds,
        }


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- what polling costs -----------------------------------------------------------------------------------


def polling_rows(_asked: argparse.Namespace) -> Iterator[Row]:
    with _on(kite=10, xts=10) as many:
        many.until(many.all_live)
        idle = pace(many, 65)
        orders = [(each.profile.account, many.place(each.profile.account)) for each in many.accounts()]
        many.until(lambda: all(many.book.current(account, order) for account, order in orders))
        busy = pace(many, 40)
    for what, found, gate in (("while orders are open", busy, 50), ("while none is", idle, 50)):
        hour = found.per_account_hour
        yield Row(
            says=f"reads of the order book, an account an hour, {what} (1-s polling: 3,600)",
            measured=f"{hour:.0f} (-{100 - hour / 36:.0f} %)",
            gate=f"-{gate} %",
            met=hour <= 3600 * (1 - gate / 100),
        )
    yield from _day_rows()


def _day_rows() -> Iterator[Row]:
    """A trading day in virtual time: 30 orders, each open for 2 minutes, and the reads after our own actions."""
    desk = Desk(chance=0.5)
    calendar, chance = load_calendar(), Random(7)
    opening = datetime(2026, 8, 17, 9, 15, tzinfo=IST)
    starts = sorted(chance.uniform(0, 6 * 3600) for _ in range(30))

    async def day(desk: Desk) -> None:
        for second in range(24 * 3600):
            await asyncio.sleep(1)
            now = (desk.clock.now() - opening).total_seconds()
            desk.held.open = sum(1 for start in starts if start <= now < start + 120)
            if any(now - 1 < start <= now for start in starts):
                desk.feed.after_action()
            desk.market_is_open = calendar.is_open(desk.clock.now())
            if second % 60 == 0:
                await asyncio.sleep(0)
            desk.feed.tick()

    desk.run(day)
    reads = len(desk.broker.read_times)
    session = timedelta(hours=6.25).total_seconds()
    yield Row(
        says="… a whole day of 24 h, 30 orders of 2 minutes, virtual time (1-s polling of the 6¼ h session: 22,500)",
        measured=f"{reads:,} (-{100 - 100 * reads / session:.0f} %)",
        gate="-50 %, aim -95 %",
        met=reads <= session / 2,
    )


FIGURES: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "half-open": half_open_rows,
    "silent-loss": silent_loss_rows,
    "reconnect": reconnect_rows,
    "switching": switching_rows,
    "polling": polling_rows,
    "footprint": footprint_rows,
}


class _on:  # noqa: N801 - reads as a word
    """A floor in a folder of its own."""

    def __init__(self, *, started: bool = True, **given: object) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._given = given
        self._started = started

    def __enter__(self) -> Floor:
        path = Path(self._folder.name)
        if self._started:
            self._running = floor(path, **self._given)
            return self._running.__enter__()
        self._floor = Floor(path, **self._given)
        return self._floor

    def __exit__(self, *why: object) -> None:
        if self._started:
            self._running.__exit__(*why)
        else:
            self._floor.stop()
        self._folder.cleanup()


def _page(rows: list[Row]) -> str:
    lines = [
        "# What feeds keep, measured",
        "",
        (
            f"Measured on {datetime.now(UTC):%Y-%m-%d} with `make bench-feeds`: {os.cpu_count()} cores, "
            f"Python {platform.python_version()}; the simulated brokers are a process of their own on the same machine, "
            "answering after 30 ms and pushing 20 ms after the event. What is lost, late or wrong is judged by the brokers' "
            "own orders, connects by the line before them."
        ),
        "",
        "| figure | measured | gate |",
        "|---|---|---|",
        *(f"| {row.says} | {row.measured} | {row.gate} |" for row in rows),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
