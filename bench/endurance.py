"""Runs the service for long and fails when anything it uses grows.

    python bench/endurance.py                  24 hours' worth: 4.3 million order events and 86,400 timer ticks
    python bench/endurance.py --leak 1         the same with one byte lost per event: has to fail
    python bench/endurance.py --minutes 1440   24 hours of real time, with both simulated brokers

A day's worth goes through the whole service in a process of its own (feeds, engine, book, store, live stream, web
server) on 96 virtual days. Each day the market of tests/soak/market.py says what happens as fast as the engine takes
it, loses, doubles and delays some of it, cuts streams and ends sessions; clients come and go, stop reading, come back.
Each night every order is compared with the broker's truth, clients with the database, old days are forgotten, and
memory is looked at when nobody is there: what the system has given the process, and, far more exactly, what Python and C have allocated. The slopes
over the nights after the warm-up, with their 95 % intervals, decide: above 1 B per order event it fails. The warm-up is
the first quarter, and the ten minutes for which the service keeps what it read of itself.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from soak import course  # noqa: E402 - the soak lives with its tests
from soak.course import Course, Finding, Plan  # noqa: E402 - same
from soak.vitals import UNITS  # noqa: E402 - same


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=0.0, help="run in real time, for so long")
    parser.add_argument("--days", type=int, default=96, help="virtual days that share the day's worth (96)")
    parser.add_argument("--share", type=float, default=1.0, help="of a day's worth (1)")
    parser.add_argument("--clients", type=int, default=6, help="at once (6)")
    parser.add_argument("--leak", type=int, default=0, help="bytes to lose with each order event (0)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "reference", help="where plot and samples go"
    )
    parser.add_argument("--write", action="store_true", help="write the plot and the samples")
    return parser.parse_args()


def progress(plan: Plan):
    begun = time.monotonic()
    shown = 0.0

    def show(look: dict) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown < 5 and look["kind"] == "watch":
            return
        shown = now
        done = look["events"] / plan.events if plan.days else look["seconds"] / 60 / plan.minutes
        rate = look["events"] / max(now - begun, 1)
        print(
            f"{look['kind']:>6} {min(done, 1):6.1%}  {look['events']:>9,} events ({rate:,.0f}/s)"
            f"  {look['memory']:6.1f} MiB  {look['files']:>3} files  {look['threads']:>3} threads"
            f"  {look['tasks']:>3} tasks  {look['depth']:>5} queued  {look['clients']:>2} clients"
            f"  {look['disk'] / 2**20:5.0f} MiB on disk",
            flush=True,
        )

    return show


def draw(run: Course, findings: list[Finding], path: Path) -> None:
    """Draw what was used over time, the judged looks and their trend."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(UNITS), 1, figsize=(11, 2.3 * len(UNITS)), sharex=True)
    all_looks = [look for look in run.looks if look["kind"] == "watch"]
    judged = run.judged()
    lines = {finding.name: finding for finding in findings}
    for axis, (name, unit) in zip(axes, UNITS.items(), strict=True):
        axis.plot(
            [look["seconds"] / 60 for look in all_looks],
            [look[name] for look in all_looks],
            color="#ced4da",
            linewidth=1,
        )
        good = lines[name].holds
        axis.plot(
            [look["seconds"] / 60 for look in judged], [look[name] for look in judged], ".",
            color="#0b7285" if good else "#c92a2a", markersize=4,
        )  # fmt: skip
        axis.set_ylabel(unit, fontsize=8)
        axis.set_ylim(bottom=0)
        axis.set_title(f"{name}: {lines[name].says}", fontsize=8, loc="left")
        axis.grid(visible=True, alpha=0.25)
    axes[-1].set_xlabel(
        "minutes; dots: what is judged" + (" (each night)" if run.plan.days else " (garbage collected)")
    )
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def write(run: Course, findings: list[Finding], options: argparse.Namespace) -> None:
    name = "soak-real" if options.minutes else "soak-leak" if options.leak else "soak"
    options.out.mkdir(parents=True, exist_ok=True)
    draw(run, findings, options.out / f"{name}.png")
    told = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "plan": asdict(run.plan),
        "findings": {finding.name: finding.says for finding in findings},
        "clients": run.clients,
        "nights": [
            {
                key: look.get(key)
                for key in (
                    "seconds",
                    "events",
                    "bytes",
                    "held",
                    "pages",
                    "files",
                    "threads",
                    "tasks",
                    "depth",
                    "disk",
                )
            }
            for look in run.judged()
        ],
    }
    (options.out / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")


def main() -> int:
    options = asked()
    share = options.share
    plan = Plan(
        days=0 if options.minutes else options.days, events=int(course.DAY_EVENTS * share),
        ticks=int(course.DAY_TICKS * share), minutes=options.minutes, clients=options.clients, leak=options.leak,
        seed=options.seed,
    )  # fmt: skip
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the processes it started end too
    with tempfile.TemporaryDirectory(prefix="orderwire-soak-") as folder:
        run = course.run(plan, Path(folder), show=progress(plan))
    findings = course.judge(run)
    print(f"\n{run.last['events']:,} order events in {(time.monotonic() - begun) / 60:.1f} minutes")
    for finding in findings:
        print(f"  {'holds' if finding.holds else 'FAILS'}  {finding.name}: {finding.says}")
    if options.write:
        write(run, findings, options)
    return int(not all(finding.holds for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
