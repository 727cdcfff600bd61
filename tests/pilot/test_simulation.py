"""Simulated worlds are given the verdict that is right in them; `make verdicts` plays more, of every world."""

from math import ceil, exp, log
from random import SystemRandom

import pytest

from orderwire.core.verdict import Verdict
from orderwire.errors import InvalidRequestError
from orderwire.pilot.simulation import (
    GOOD,
    WORLDS,
    Wait,
    World,
    play,
    true_p95,
    true_satisfaction,
    truth,
    world_of,
)


@pytest.mark.parametrize(
    "name", ["good", "slow", "flaky", "too little data", "misleading average", "latency just missed"]
)
def test_a_world_is_given_its_verdict(name):
    seed = SystemRandom().randrange(1_000_000)
    print(f"{name}, seed {seed}")

    played = play(world_of(name), users=160, minutes=24, seed=seed)

    assert played.report.verdict is played.expected, (seed, played.report.judgement.reasons)


def test_the_reports_percentile_is_that_of_what_was_drawn():
    played = play(GOOD, users=60, minutes=10, seed=3)
    ordered = sorted(played.raw)

    assert played.report.card.latency.count == len(ordered)
    drawn = ordered[ceil(len(ordered) * 0.95) - 1]
    assert played.report.card.latency.value == pytest.approx(drawn, abs=0.0006)


def test_the_same_seed_plays_the_same_pilot():
    assert play(GOOD, weeks=2, users=20, minutes=5, seed=5) == play(
        GOOD, weeks=2, users=20, minutes=5, seed=5
    )


def test_the_truth_of_one_lognormal_is_its_quantile():
    world = World(name="x", waits=(Wait(median=0.2, sigma=0.4),), day_sigma=0.3)

    assert true_p95(world) == pytest.approx(exp(log(0.2) + 1.644854 * 0.5), rel=1e-4)


def test_the_truth_of_an_answer_is_the_mean_of_a_rounded_normal():
    assert true_satisfaction(3.0, sigma=0.8) == pytest.approx(3.0)
    assert true_satisfaction(-9, sigma=0.8) == pytest.approx(1.0)


def test_every_verdict_is_right_somewhere():
    assert {truth(world) for world in WORLDS.values()} == set(Verdict)


def test_the_mean_of_the_misleading_world_would_have_passed():
    played = play(world_of("misleading average"), users=80, minutes=12, seed=4)

    assert sum(played.raw) / len(played.raw) < 0.5
    assert played.report.verdict is Verdict.ROLLBACK
    assert any("the average hides the slow ones" in caveat for caveat in played.report.caveats)


def test_an_unknown_world_is_refused_with_those_there_are():
    with pytest.raises(InvalidRequestError, match="misleading average"):
        world_of("perfect")


def test_a_pilot_of_nobody_is_refused():
    with pytest.raises(InvalidRequestError):
        play(GOOD, users=1, seed=1)
