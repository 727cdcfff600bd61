"""Feeds the parsers of what brokers send with what a coverage-guided fuzzer makes up: `make fuzz SECONDS=60 TARGET=xts-rows`.

Each target runs in a process of its own, from the seeds in tests/fuzzing/targets.py and from what earlier runs found worth
keeping (.cache/fuzz). A find ends the run with the bytes that made it, kept in .cache/fuzz/finds. Needs atheris, which
has wheels for Linux on x86-64.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

CACHE = ROOT / ".cache" / "fuzz"
LONGEST = 4096
"""Bytes of an input; a broker's own messages have half of it."""


def main() -> int:
    asked = _asked()
    if asked.inside:
        _fuzz(asked.inside, Path(asked.corpus), seconds=asked.seconds)
        return 0
    names = [asked.target] if asked.target else sorted(importlib.import_module("fuzzing.targets").TARGETS)
    return max(_run(name, asked) for name in names)


def _asked() -> argparse.Namespace:
    asking = argparse.ArgumentParser(description=__doc__)
    asking.add_argument("--target", default="", help="one of tests/fuzzing/targets.py; all when left out")
    asking.add_argument("--seconds", type=int, default=30, help="for each target")
    asking.add_argument("--seed", type=int, default=0, help="0: another one each time")
    asking.add_argument("--corpus", default=str(CACHE), help="folder in which what is worth keeping stays")
    asking.add_argument("--inside", default="", help=argparse.SUPPRESS)
    return asking.parse_known_args()[0]


def _run(name: str, asked: argparse.Namespace) -> int:
    """Fuzz one target in a process of its own; libFuzzer leaves no other way to go on after a find."""
    corpus = Path(asked.corpus)
    command = [
        sys.executable,
        __file__,
        "--inside",
        name,
        "--corpus",
        str(corpus / name),
        "--seconds",
        str(asked.seconds),
    ]
    finds = corpus / "finds"
    finds.mkdir(parents=True, exist_ok=True)
    options = [f"-artifact_prefix={finds}/{name}-", f"-seed={asked.seed}"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    said = done.stderr + done.stdout
    print(f"{name}: {_summary(said)}{'' if done.returncode == 0 else ', FOUND:'}", flush=True)
    if done.returncode:
        print(said[-4000:], flush=True)
    return int(done.returncode != 0)


def _summary(said: str) -> str:
    runs = re.findall(r"stat::number_of_executed_units: +(\d+)", said)
    covered = re.findall(r"cov: (\d+)", said)
    return f"{int(runs[-1]):,} inputs, {covered[-1]} branches" if runs and covered else "no input was run"


def _fuzz(name: str, corpus: Path, *, seconds: int) -> None:
    import atheris  # has wheels for some machines alone

    with atheris.instrument_imports(include=["orderwire", "fuzzing"]):
        target = importlib.import_module("fuzzing.targets").target(name)
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    given = [option for option in sys.argv[1:] if option.startswith(("-artifact_prefix=", "-seed="))]
    atheris.Setup([sys.argv[0], *options, *given, str(corpus)], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
