"""The calculation of docs/explanation/scale.md, against what is played on paper."""

from __future__ import annotations

import runpy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

PATH = Path(__file__).resolve().parent.parent / "bench" / "capacity.py"


@pytest.fixture(scope="module")
def capacity():
    return SimpleNamespace(**runpy.run_path(str(PATH), run_name="capacity"))


def test_what_is_played_on_paper_agrees_with_the_calculation(capacity):
    for seed in (1, 2, 3):
        text, agree = capacity.compare(20_000, seed=seed)
        assert agree, text


def test_a_calculation_that_is_wrong_by_half_does_not_agree(capacity, monkeypatch):
    wrong = replace(capacity.COSTS, worker_commit_us=2 * capacity.COSTS.worker_commit_us, idle_account_us=700)
    planned = capacity.plan(20_000, costs=wrong)
    played = capacity.play(20_000, workers=planned.feeds)

    assert abs(played.worker_busy / planned.worker_busy - 1) > 0.25


def test_more_accounts_need_more_of_everything_and_nobody_is_too_busy(capacity):
    plans = [capacity.plan(accounts) for accounts in (1_000, 20_000, 100_000, 1_000_000)]

    for smaller, larger in pairwise(plans):
        for what in ("peak", "feeds", "webs", "postgres_cores", "redis_cores", "rows", "dollars"):
            assert getattr(larger, what) >= getattr(smaller, what), what
    assert all(one.worker_busy <= capacity.LIMITS.busy for one in plans)


def test_played_alone_by_itself_an_opening_is_the_same_each_time(capacity):
    assert capacity.play(2_000, workers=2, seed=5) == capacity.play(2_000, workers=2, seed=5)


def test_every_account_of_a_worker_that_died_is_live_again_after_its_lease(capacity):
    played = capacity.play(20_000, workers=9)

    assert played.moved > 0
    assert 7 <= played.stale_p50 <= played.stale_worst


def test_the_page_shows_what_is_calculated(capacity):
    page = capacity.PAGE.read_text()

    assert capacity.written(page) == page, "run: python bench/capacity.py --write"
    assert all(text in page for text in capacity.blocks().values())
