"""Many schedules one after another, over several processes, and the table that compares what became of them."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import structlog

from simulation import world
from simulation.house import open_database
from simulation.rivals import RULES
from simulation.weather import Weather
from simulation.world import FIELDS, Outcome

CHUNK = 250
"""Schedules a process runs before it reports."""

OURS = "orderwire"
NAMES = (OURS, *RULES)


@dataclass(slots=True)
class Report:
    """What became of many schedules."""

    schedules: int = 0
    lives: int = 0
    arrivals: int = 0
    changes: int = 0
    wrong: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in NAMES})
    regressions: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    """Seeds that must not fail and did, each with what was wrong."""
    digest: str = ""
    """Of all traces, in the order of their seeds."""

    def add(self, outcome: Outcome) -> None:
        """Count one schedule."""
        self.schedules += 1
        self.lives += outcome.lives
        self.arrivals += outcome.arrivals
        self.changes += outcome.changes
        for name, tally in outcome.wrong.items():
            self.wrong[name].update(tally)
        self.regressions.update(outcome.regressions)
        self.counts.update(outcome.counts)
        self.failures += [(outcome.seed, fault) for fault in outcome.faults]
        self._chain(outcome.digest)

    def merge(self, other: Report) -> None:
        """Count another report's schedules."""
        self.schedules += other.schedules
        self.lives += other.lives
        self.arrivals += other.arrivals
        self.changes += other.changes
        for name, tally in other.wrong.items():
            self.wrong[name].update(tally)
        self.regressions.update(other.regressions)
        self.counts.update(other.counts)
        self.failures += other.failures
        self._chain(other.digest)

    def _chain(self, digest: str) -> None:
        self.digest = hashlib.blake2b(f"{self.digest}{digest}".encode(), digest_size=16).hexdigest()

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "schedules": self.schedules,
            "lives": self.lives,
            "arrivals": self.arrivals,
            "changes": self.changes,
            "wrong": {name: {key: self.wrong[name][key] for key in FIELDS} for name in NAMES},
            "regressions": {name: self.regressions[name] for name in NAMES},
            "counts": dict(sorted(self.counts.items())),
            "failures": len(self.failures),
            "digest": self.digest,
        }


def run(seeds: Iterable[int], *, given: Weather | None = None) -> Report:
    """Run these schedules in this process."""
    report, database = Report(), open_database()
    for seed in seeds:
        try:
            report.add(world.run(seed, database, given=given))
        except Exception as error:  # noqa: BLE001 - one schedule that breaks must not hide what became of the rest
            report.add(Outcome(seed=seed, faults=[f"it broke: {error!r}"]))
            database = open_database()
    database.close()
    return report


def _quietly(seeds: range, given: Weather | None) -> Report:
    quieten()
    return run(seeds, given=given)


def quieten() -> None:
    """Keep the service's warnings, of which there are many here, off the terminal."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def run_on(seeds: range, *, jobs: int, given: Weather | None = None, chunk: int = CHUNK) -> Iterator[Report]:
    """Run these schedules over `jobs` processes; yields the sum so far, which does not depend on `jobs`."""
    parts = [seeds[at : at + chunk] for at in range(0, len(seeds), chunk)]
    total = Report()
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        for part in pool.map(_quietly, parts, [given] * len(parts)):
            total.merge(part)
            yield total
    finally:
        pool.shutdown(cancel_futures=True)


def table(report: Report) -> str:
    """Return the comparison as a Markdown table: shares of lifecycles that ended wrong, and regressions seen."""
    head = "| rule | wrong status | wrong filled | wrong average price | wrong quantity | wrong prices | seen going back |"
    rows = [head, "|---|--:|--:|--:|--:|--:|--:|"]
    for name in NAMES:
        cells = [_share(report.wrong[name][key], report.lives) for key in FIELDS]
        rows.append(f"| {name} | {' | '.join(cells)} | {report.regressions[name]:,} |")
    return "\n".join(rows)


def _share(wrong: int, of: int) -> str:
    return f"{wrong:,} ({100 * wrong / of:.1f} %)" if wrong else "0"
