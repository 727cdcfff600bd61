"""Runs seeded fault schedules through the real path and counts what ended wrong: `make faults SCHEDULES=100000`.

Orders live at a simulated broker whose generator knows the truth; what is said of them is dropped, doubled, delayed,
reordered and cut off, the service is killed and restarted, clients come and go. The same seeds always tell the same
story. The rules of the field run on the very same messages beside the join.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from simulation import campaign, world  # noqa: E402 - the simulation lives with the tests
from simulation.house import open_database  # noqa: E402 - same
from simulation.weather import FIELD  # noqa: E402 - same

PAGE = ROOT / "docs" / "reference" / "figures-faults.md"


def main() -> int:
    asked = _asked()
    campaign.quieten()
    if asked.replay is not None:
        return _replay(asked.replay, field=asked.field)
    began = time.monotonic()
    seeds = range(asked.seed, asked.seed + asked.schedules)
    faults = _campaign("fault schedules", seeds, asked.jobs, minutes=asked.minutes)
    seconds = time.monotonic() - began
    calm = range(asked.seed, asked.seed + max(faults.schedules // 10, 1))
    field = _campaign("the field's schedules", calm, asked.jobs, given=FIELD)
    page = _page(faults, field, seed=asked.seed, jobs=asked.jobs, seconds=seconds)
    print(page)
    if asked.write:
        _write(page, faults, field, seed=asked.seed)
    failures = [*faults.failures, *field.failures]
    for seed, fault in failures[:20]:
        print(f"FAILED seed {seed}: {fault}\n  python bench/faults.py --replay {seed}", file=sys.stderr)
    return 1 if failures else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schedules", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--minutes", type=float, default=0, help="stop after so many, however many are left")
    parser.add_argument("--replay", type=int, metavar="SEED", help="print the story of one schedule")
    parser.add_argument("--field", action="store_true", help="with --replay: in the field's weather")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)} and its JSON")
    return parser.parse_args()


def _replay(seed: int, *, field: bool) -> int:
    outcome = world.run(seed, open_database(), given=FIELD if field else None, story=True)
    print("\n".join(outcome.story))
    print(f"trace {outcome.digest}; " + ("; ".join(outcome.faults) or "all is well"))
    return 1 if outcome.faults else 0


def _campaign(name, seeds, jobs, *, given=None, minutes=0.0) -> campaign.Report:
    total, began = campaign.Report(), time.monotonic()
    running = campaign.run_on(seeds, jobs=jobs, given=given)
    for total in running:
        rate = total.schedules / (time.monotonic() - began)
        left = (len(seeds) - total.schedules) / rate
        print(
            f"\r{name}: {total.schedules:,} of {len(seeds):,}, {len(total.failures)} failed, {left:.0f} s left ",
            end="",
            file=sys.stderr,
            flush=True,
        )
        if minutes and time.monotonic() - began > minutes * 60:
            running.close()
    print(file=sys.stderr)
    return total


def _page(faults, field, *, seed, jobs, seconds) -> str:
    counts = faults.counts
    return f"""\
# Figures: never wrong, never lost

Written by `python bench/faults.py --schedules {faults.schedules} --seed {seed} --write` (`make faults`), Python
{platform.python_version()}, {jobs} processes, {seconds:.0f} s. Counts depend on the seeds alone, not on the machine; trace
`{faults.digest}`.

A schedule is one to three orders at Zerodha or Jainam (in the brokers' own bytes), what is said of them over stream,
postbacks, order book and history, and a weather: up to 40 % dropped, up to 40 % doubled, up to 10 s late, reads that
lag up to 6 s or fail, stream outages, kills and restarts, a database that takes no writes, clients that are cut off.
The truth comes from the generator. Parser, engine, book, SQLite store (in memory), poller and live stream are the
service's own, driven by one thread under an injected clock; sockets, HTTP and the feed's timetable are the
simulation's. Judged after one last read of the order book and what that read made the service ask for.

Not in these schedules: executions that the exchange takes back, orders changed from LIMIT to a stop order within the
second they were taken in (the broker's times cannot tell the two apart: the page shows *conflict* until the order's
next event), and the end of the trading day.

## With faults and one last read

{campaign.table(faults)}

| figure | measured |
|---|--:|
| schedules, lifecycles | {faults.schedules:,}, {faults.lives:,} |
| messages of the stream that arrived; reads of the book; of histories | {faults.arrivals:,}; {counts["reads"]:,}; {counts["history reads"]:,} |
| orders wrong at the end (status, filled, average price, quantity, prices) | {sum(faults.wrong["orderwire"][key] for key in campaign.FIELDS):,} |
| shown before it was so, or going back | {sum("before it was so" in text for _, text in faults.failures) + faults.regressions["orderwire"]:,} |
| client views compared with the server's snapshot; different | {counts["comparisons"]:,}; {counts["differences"]:,} |
| disconnections of clients; restarts of the service; of them kills | {counts["disconnections"]:,}; {counts["starts"] - faults.schedules:,}; {counts["crashes"]:,} |
| postbacks taken; altered or repeated ones sent; orders they changed | {counts["postbacks"]:,}; {counts["altered or repeated postbacks"]:,}; {counts["changes by a postback"]:,} |
| executions made; missing or doubled in the trade book | {counts["executions"]:,}; {sum("trade book" in text for _, text in faults.failures):,} |
| corrections by two agreeing reads, all to the truth | {counts["alert: corrected"]:,} |
| orders one read had not settled, and the history it asked for had | {counts["settled by the read it asked for"]:,} |
| failed schedules | {len({number for number, _ in faults.failures}):,} |

The rivals get every parsed value of stream, book and history, the last read included, and lose nothing at a restart.

## The stream alone: a fifth twice, up to a second late, nothing lost, nothing ever read

{field.schedules:,} schedules, {field.lives:,} lifecycles. Here nobody may ask the broker, so what the stream cannot
decide (two statements of one second, a stop order that may have triggered) stays open; our share of that is shown.

{campaign.table(field)}
"""


def _write(page, faults, field, *, seed) -> None:
    PAGE.write_text(page)
    facts = {"seed": seed, "faults": faults.facts(), "field": field.facts()}
    PAGE.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
