"""Measures the event engine beside vn.py's and a bare queue, and fails when a gate of its promises does.

    python bench/engine.py            nine alternated rounds on every Python of 3.11, 3.12, 3.13 that is here
    python bench/engine.py --quick    three short rounds, nothing written
    python bench/engine.py --python 3.12    this one alone; what was written of the others stays

Every figure is the median of per-round ratios, all in one process. Within a round the engines take turns, three for
speeds (the median counts) and twenty for latencies, so that what else the machine does falls on all of them. A turn
during which other programs had a tenth of the processors is repeated while patience lasts (Linux only, elsewhere it
is not known); how many could not be is printed. At 1,000/s and 10,000/s the processors are kept from halting where
the system allows that (/dev/cpu_dma_latency, for root), because a wait for one that has halted is not the engines';
idle, they may halt, and 1,000/s is told for that too. Writes docs/reference/engine.json and engine.png. What is
measured how is in _engine_rounds.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import _vnpy_env

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13")
TIMES = "\N{MULTIPLICATION SIGN}"
OURS, VNPY, RAW = "orderwire", "vn.py", "SimpleQueue"

Rounds = list[dict[str, dict[str, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row: what it says, how it comes from a round, and where the gate and the aim lie."""

    key: str
    says: str
    of: Callable[[dict[str, dict[str, float]]], float]
    gate: float
    aim: float
    unit: str = ""
    higher: bool = False
    later_gate: float | None = None  # from Python 3.12 on
    later_aim: float | None = None
    worst: bool = False  # the worst round decides instead of the median


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A figure as measured: the value, the spread of the rounds, and whether gate and aim were met."""

    key: str
    says: str
    unit: str
    value: float
    lowest: float
    highest: float
    rounds: int
    gate: float
    aim: float
    higher: bool
    gate_met: bool
    aim_met: bool


def ratio(key: str, over: str = VNPY) -> Callable[[dict[str, dict[str, float]]], float]:
    return lambda one: one[key][OURS] / one[key][over]


FIGURES = (
    Figure(key="throughput", says="throughput, 1 producer 1 handler, of vn.py's", of=ratio("throughput"), unit=TIMES,
           gate=4, aim=8, later_gate=3, later_aim=4, higher=True),
    Figure(key="share", says="… of a SimpleQueue handing over the same stamped events", of=ratio("throughput", RAW),
           unit=TIMES, gate=0.35, aim=0.6, higher=True),
    Figure(key="fan", says="throughput, 4 producers 5 handlers, of vn.py's", of=ratio("fan"), unit=TIMES, gate=3, aim=6,
           higher=True),
    Figure(key="p50_1k", says="put → handler p50 at 1,000/s, of vn.py's", of=ratio("p50_1k"), unit=TIMES, gate=0.6,
           aim=0.3),
    Figure(key="p50_10k", says="put → handler p50 at 10,000/s, of vn.py's", of=ratio("p50_10k"), unit=TIMES, gate=0.6,
           aim=0.3),
    Figure(key="p99_idle", says="put → handler p99, idle, of vn.py's", of=ratio("p99_idle"), unit=TIMES, gate=1.0,
           aim=0.7),
    Figure(key="p99_busy", says="p99 beside a busy thread (ours switching at 0.5 ms), of vn.py's",
           of=ratio("p99_busy"), unit=TIMES, gate=0.35, aim=0.15),
    Figure(key="bytes", says="bytes per queued event, of vn.py's", of=ratio("bytes"), unit=TIMES, gate=1.0, aim=0.85),
    Figure(key="drift", says="timer: 100 ticks of 50 ms beside a busy thread (switching at 0.5 ms), late by",
           of=lambda one: one["drift"][OURS], unit="ms", gate=10, aim=5),
    Figure(key="raise", says="a handler raises on event 10 of 1,000: handled",
           of=lambda one: one["raise"]["orderwire called"], gate=1000, aim=1000, higher=True, worst=True),
    Figure(key="dead", says="… dead-lettered more or fewer than 1",
           of=lambda one: abs(one["raise"]["orderwire dead"] - 1), gate=0, aim=0, worst=True),
    Figure(key="stop", says="stop() with 3,000 queued: handled", of=lambda one: one["stop"][OURS], gate=3000, aim=3000,
           higher=True, worst=True),
)  # fmt: skip


def judge(figure: Figure, rounds: Rounds, *, later: bool) -> Result:
    """Return the figure over all rounds that measured it."""
    values = [figure.of(one) for one in rounds if _measured(figure, one)]
    gate = figure.later_gate if later and figure.later_gate is not None else figure.gate
    aim = figure.later_aim if later and figure.later_aim is not None else figure.aim
    worst = min(values) if figure.higher else max(values)
    value = worst if figure.worst else median(values)

    def met(bound: float) -> bool:
        return value >= bound if figure.higher else value <= bound

    return Result(
        key=figure.key, says=figure.says, unit=figure.unit, value=value, lowest=min(values), highest=max(values),
        rounds=len(values), gate=gate, aim=aim, higher=figure.higher, gate_met=met(gate), aim_met=met(aim),
    )  # fmt: skip


def _measured(figure: Figure, one: dict[str, dict[str, float]]) -> bool:
    try:
        figure.of(one)
    except KeyError:
        return False
    return True


def measure(python: Path, *, rounds: int, scale: float, patience: float) -> Rounds:
    """Run the rounds in `python`, showing how far they are."""
    command = [python, ROOT / "bench" / "_engine_rounds.py", "--rounds", rounds, "--scale", scale]
    command += ["--patience", patience]
    process = subprocess.Popen(
        [str(part) for part in command],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        text=True,
    )
    done: Rounds = []
    for line in process.stdout or ():
        done.append(json.loads(line))
        print(f"\r  round {min(len(done), rounds)} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if process.wait():
        raise SystemExit(f"measuring with {python} failed")
    return done


def plain(rounds: Rounds) -> dict[str, dict[str, float]]:
    """Return the medians of what was measured, in its own units, for who wants more than ratios."""
    keys = [key for key in rounds[0] if not key.startswith("cdf_")]
    shown = {key: [one[key] for one in rounds if key in one] for key in keys}
    return {key: {name: median(one[name] for one in some) for name in some[0]} for key, some in shown.items()}


def spread(rounds: Rounds, name: str) -> list[float]:
    """Return the median over the rounds of each percentile (1 to 99) of the latency at 1,000/s, in µs."""
    return [median(one[f"cdf_{name}"][str(percent)] for one in rounds) * 1e6 for percent in range(1, 100)]


def amount(value: float, unit: str) -> str:
    return (
        f"{TIMES}{value:.2f}" if unit == TIMES else f"{value:,.{1 if unit else 0}f}{' ' * bool(unit)}{unit}"
    )


def table(version: str, results: list[Result]) -> str:
    """Return the rows as text."""
    lines = [f"Python {version}", f"  {'':<80}{'measured':>10}{'rounds':>20}{'gate':>11}{'aim':>11}"]
    for row in results:
        sign = "≥" if row.higher else "≤"
        seen = f"{amount(row.lowest, row.unit)} … {amount(row.highest, row.unit)}"
        verdict = "FAILS" if not row.gate_met else "aim met" if row.aim_met else "gate met"
        lines.append(
            f"  {row.says:<80}{amount(row.value, row.unit):>10}{seen:>20}"
            f"{sign + ' ' + amount(row.gate, row.unit):>11}{sign + ' ' + amount(row.aim, row.unit):>11}  {verdict}"
        )
    return "\n".join(lines)


def aside(medians: dict[str, dict[str, float]]) -> str:
    """Return what is not gated but worth knowing."""
    fast, info, halting = medians["throughput"], medians["info"], medians["p50_halting"]
    lines = (
        f"events/s: orderwire {fast[OURS]:,.0f}, vn.py {fast[VNPY]:,.0f}, SimpleQueue {fast[RAW]:,.0f} stamped",
        f"SimpleQueue {info['unstamped']:,.0f} not stamped, {info['bare']:,.0f} with objects made before, nobody called",
        f"orderwire at a 0.5 ms switch interval {info['fast_switch']:,.0f}, without eventfd {info['lock_bell']:,.0f}",
        f"p50 at 1,000/s {medians['p50_1k'][OURS] * 1e6:.1f} µs, without eventfd {info['lock_bell_p50'] * 1e6:.1f} µs",
        f"p50 at 1,000/s where processors may halt: {halting[OURS] * 1e6:.1f} µs, vn.py {halting[VNPY] * 1e6:.1f} µs",
        f"vn.py: timer late by {medians['drift'][VNPY]:.0f} ms, {medians['stop'][VNPY]:.0f} of 3,000 handled at stop",
        f"vn.py: {medians['raise']['vn.py called']:.0f} of 1,000 handled when the handler raises on the tenth",
    )
    return "\n".join(f"  {line}" for line in lines)


def draw(report: dict[str, dict[str, object]], path: Path) -> None:
    """Draw the latencies of each Python and how far each ratio is from its gate and aim."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(report), 2, figsize=(13, 4.8 * len(report)), squeeze=False)
    for (version, one), (left, right) in zip(report.items(), axes, strict=True):
        _draw_ratios(left, one["results"])
        left.set_title(f"Python {version}: distance from the gate (1), aim as a bar")
        for name, color in ((OURS, "#0b7285"), (VNPY, "#adb5bd")):
            right.plot(one["latency_us"][name], range(1, 100), label=name, color=color, linewidth=2)
        right.set(xscale="log", xlabel="put → handler at 1,000 events/s, µs", ylabel="percent of events")
        right.grid(visible=True, which="both", alpha=0.25)
        right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _draw_ratios(axes, results) -> None:
    rows = [row for row in results if row["unit"]][::-1]
    for place, row in enumerate(rows):
        turn = (
            (lambda value, row=row: value / row["gate"])
            if row["higher"]
            else (lambda value, row=row: row["gate"] / max(value, 1e-9))
        )
        axes.barh(place, turn(row["value"]), color="#0b7285" if row["gate_met"] else "#c92a2a", height=0.6)
        axes.plot([turn(row["aim"])] * 2, [place - 0.38, place + 0.38], color="#212529", linewidth=2)
    axes.set_yticks(range(len(rows)), [row["says"].replace(", of vn.py's", "") for row in rows], fontsize=7)
    axes.axvline(1, color="#c92a2a", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("times better than the gate")


def run(version: str, *, rounds: int, scale: float, patience: float) -> dict[str, object] | None:
    """Measure one Python; None where it is not here."""
    python = _vnpy_env.make(version, *_vnpy_env.ENGINE)
    if python is None:
        print(f"Python {version}\n  not here, not measured\n")
        return None
    *measured, calm = measure(python, rounds=rounds, scale=scale, patience=patience)
    turns = calm["calm"]
    later = tuple(map(int, version.split("."))) >= (3, 12)
    results = [judge(figure, measured, later=later) for figure in FIGURES]
    medians = plain(measured)
    print(table(version, results), aside(medians), sep="\n")
    print(
        f"  other programs disturbed {turns['disturbed']:.0f} of {turns['turns']:.0f} turns that count, "
        f"and {turns['repeated']:.0f} that were repeated",
        end="\n\n",
        flush=True,
    )
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": rounds,
        "results": [asdict(result) for result in results],
        "medians": medians,
        "latency_us": {name: spread(measured, name) for name in (OURS, VNPY)},
        "turns": turns,
    }


def write(path: Path, report: dict[str, dict[str, object]], *, others: bool) -> None:
    """Write figures and plot; with `others`, what was measured of other Pythons before stays beside it."""
    before = json.loads(path.read_text())["pythons"] if others and path.exists() else {}
    both = {version: one for version in VERSIONS if (one := report.get(version) or before.get(version))}
    told = {
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "method": "medians of per-round ratios, engines in turns in one process; bench/_engine_rounds.py",
        "pythons": both,
    }
    path.write_text(json.dumps(told, indent=1) + "\n")
    draw(both, path.with_suffix(".png"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--patience", type=float, default=300, help="seconds for repeating what others disturb"
    )
    parser.add_argument("--quick", action="store_true", help="three short rounds, nothing written")
    parser.add_argument("--python", choices=VERSIONS, action="append", help="only this one (again for more)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "reference")
    options = parser.parse_args()
    rounds, scale = (3, 0.3) if options.quick else (options.rounds, 1.0)

    runs = {
        version: run(version, rounds=rounds, scale=scale, patience=options.patience)
        for version in options.python or VERSIONS
    }
    report = {version: one for version, one in runs.items() if one is not None}
    failed = [f"{row['says']} (Python {version})" for version, one in report.items() for row in one["results"]
              if not row["gate_met"]]  # fmt: skip
    if not options.quick and report:
        options.out.mkdir(parents=True, exist_ok=True)
        write(options.out / "engine.json", report, others=bool(options.python))
    print("every gate is met" if report and not failed else f"gates that fail: {failed}")
    return 0 if report and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
