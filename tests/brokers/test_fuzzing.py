"""The parsers of what brokers send, under a coverage-guided fuzzer; longer by `make fuzz`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fuzzing.targets import TARGETS

FUZZ = Path(__file__).resolve().parents[2] / "bench" / "fuzz.py"


def fuzz(corpus, *words):
    command = [sys.executable, str(FUZZ), "--corpus", str(corpus), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.parametrize("name", TARGETS)
def test_what_a_fuzzer_begins_with_is_read(name):
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@pytest.mark.needs("atheris")
@pytest.mark.timeout(240)
def test_no_parser_breaks_its_word(tmp_path, record_property):
    done = fuzz(tmp_path, "--target", "all", "--seconds", "5")

    found = re.search(r"all: ([\d,]+) inputs", done.stdout)
    assert (done.returncode, bool(found)) == (0, True), done.stdout[-4000:] + done.stderr[-1000:]
    assert int(found[1].replace(",", "")) > sum(len(target.seeds) for target in TARGETS.values())
    record_property("figure", f"{len(TARGETS)} parsers fuzzed with {found[1]} inputs: nothing found")


@pytest.mark.needs("atheris")
def test_a_parser_that_breaks_its_word_would_be_found(tmp_path):
    done = fuzz(tmp_path, "--target", "planted", "--seconds", "120")

    assert done.returncode == 1
    assert "FOUND" in done.stdout
    assert list((tmp_path / "finds").glob("planted-crash-*"))
