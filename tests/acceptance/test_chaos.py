"""`make chaos` in its small size: Redis is away at the start, everything dies once under load, and nothing is lost, told
twice or written by a former owner.
"""

from __future__ import annotations

import os

import pytest

from chaos import Chaos

KINDS = ["feeds", "redis flushed", "postgres killed", "web", "redis killed"]


@pytest.mark.timeout(900)
def test_whatever_dies_nothing_is_lost_told_twice_or_written_by_a_former_owner(tmp_path, record_property):
    with Chaos(tmp_path, accounts=4, rate=25) as chaos:
        chaos.start(redis=False)
        chaos.run(float(os.environ.get("ORDERWIRE_CHAOS_SECONDS", "10")), every=2, kinds=KINDS)
        report = chaos.settle()

    record_property("figure", "chaos: " + "; ".join(report.lines()))
    assert report.problems == []
    assert set(report.kills) == set(KINDS)
    assert chaos.staleness.waiting() == 0
