"""Every line of the threat table names a test, and the test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "security.md"


def rows() -> list[tuple[str, list[str]]]:
    part = DOCUMENT.read_text().split("## Threats")[1].split("\n## ")[0]
    cells = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("| ")][1:]
    return [(cell[0].strip(), re.findall(r"`([^`]+)`", cell[2])) for cell in cells]


@pytest.mark.parametrize(("threat", "tests"), rows(), ids=[threat for threat, _ in rows()])
def test_each_threat_is_met_by_a_test_that_exists(threat, tests):
    assert tests, threat
    for name in tests:
        path, _, function = name.partition("::")
        assert (ROOT / path).is_file(), name
        if function:
            tree = ast.parse((ROOT / path).read_text())
            assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def test_the_table_is_not_empty():
    assert len(rows()) > 25
