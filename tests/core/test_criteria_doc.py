"""docs/evaluation/criteria.md and the code say the same."""

import re
from pathlib import Path

import msgspec

from orderwire.core.evidence import QUEUE_LIMIT
from orderwire.core.scorecard import MONTH
from orderwire.core.verdict import CRITERIA, Scorecard, judge

PAGE = (Path(__file__).parents[2] / "docs/evaluation/criteria.md").read_text()


def rows(heading):
    """Return the cells of the table below a heading, without its head."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_numbers_are_the_codes():
    said = {name: float(value) for name, value, _meaning in rows("The numbers")}
    held = {name: value for name, value in msgspec.to_builtins(CRITERIA).items() if name != "version"}

    assert said == held
    assert f"Version **{CRITERIA.version}**" in PAGE


def test_every_criterion_has_its_row():
    assert [row[0] for row in rows("The criteria")] == [
        f.criterion for f in judge(Scorecard(days=0)).findings
    ]


def test_a_criterion_that_decides_has_its_verdicts():
    deciding = {f.criterion for f in judge(Scorecard(days=0)).findings if f.decides} - {"duration"}

    assert {row[0] for row in rows("The verdicts")} == deciding


def test_the_words_carry_the_codes_limits():
    words = {row[0]: " ".join(row[1:]) for row in rows("The verdicts")}

    def numbers(criterion):
        found = re.findall(r"\d[\d,]*(?:\.\d+)?", words[criterion])
        return {float(number.replace(",", "")) for number in found}

    assert numbers("latency") == {CRITERIA.latency_good * 1000, CRITERIA.latency_bad * 1000}
    assert numbers("stability") == {CRITERIA.uptime_good * 100, CRITERIA.uptime_bad * 100}
    assert numbers("errors") == {CRITERIA.errors_good * 100, CRITERIA.errors_bad * 100}
    assert numbers("satisfaction") == {CRITERIA.satisfaction_good * 100, CRITERIA.satisfaction_bad * 100}
    assert numbers("bugs") == {MONTH.days}
    assert f"{QUEUE_LIMIT:,} events queued" in PAGE
