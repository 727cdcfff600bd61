"""Runs the whole set as several processes, with real PostgreSQL and Redis, under load, and kills any of it at random.

    make chaos MINUTES=10                       # 500 changes a second asked for, all may die
    python bench/chaos.py --seconds 60 --rate 200 --kinds feeds,web --seed 7

Two feed workers, two web processes, PostgreSQL, Redis, the simulated brokers, one following client for each web process.
Every few seconds one of them is killed with SIGKILL (PostgreSQL crashes, Redis is flushed, or killed and comes back
empty) and started again as whoever looks after it would. Afterwards the database and every client must hold what the
simulators' ledger holds; the log of changes must have each execution once, no gap and no falling quantity. Fails
otherwise. The worst staleness is that of the oldest fill a client had not been told of yet.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

KINDS = ("feeds", "web", "redis flushed", "redis killed", "postgres killed")


def main() -> int:
    from chaos import TRADES_FOR, Chaos

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=170, help="fills a second, each three changes (170)")
    parser.add_argument("--every", type=float, default=15, help="seconds from one death to the next, about")
    parser.add_argument("--feeds", type=int, default=2)
    parser.add_argument("--webs", type=int, default=2)
    parser.add_argument("--accounts", type=int, default=0, help="0: as many as take turns in the time")
    parser.add_argument("--busy", type=int, default=20, help="accounts that trade at any time")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="leave the logs of the processes")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ow-chaos-"))
    seconds = asked.minutes * 60 or asked.seconds
    with Chaos(
        folder,
        feeds=asked.feeds,
        webs=asked.webs,
        accounts=asked.accounts or round(asked.busy * (1 + seconds / TRADES_FOR)),
        busy=asked.busy,
        rate=asked.rate,
        seed=asked.seed,
    ) as chaos:
        chaos.start()
        print("everything is live", flush=True)
        kinds = [kind for kind in asked.kinds.split(",") if kind]
        chaos.run(seconds, every=asked.every, kinds=kinds)
        report = chaos.settle()
    for line in report.lines():
        print(line)
    if report.problems or asked.keep:
        print(f"logs: {folder}")
    return int(bool(report.problems))


if __name__ == "__main__":
    sys.exit(main())
