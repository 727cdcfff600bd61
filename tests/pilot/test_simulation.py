"""Simulated worlds are given the verdict that is right in them; `make verdicts` plays more, of every world."""

from math import ceil, exp, log

import pytest

from orderwire.core.verdict import Verdict
from orderwire.errors import InvalidRequestError
from orderwire.pilot.simulation import (
    EVENTS_AN_ORDER,
    GOOD,
    WORLDS,
    Pilot,
    Wait,
    World,
    judge_worlds,
    outcomes,
    play,
    play_market,
    true_error_rate,
    true_p95,
    true_satisfaction,
    truth,
    world_of,
)


@pytest.mark.parametrize(
    "name", ["good", "slow", "flaky", "too little data", "misleading average", "latency just missed"]
)
def test_a_world_is_given_its_verdict(name):
    """One seed, always the same: drawn anew, a right program would fail by chance. `make verdicts` draws anew."""
    played = play(world_of(name), users=160, minutes=24, seed=20261128)

    assert played.report.verdict is played.expected, played.report.judgement.reasons


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


def test_an_exchange_played_once_serves_every_world():
    size = {"weeks": 2, "users": 20, "minutes": 5}
    market = play_market(GOOD, Pilot(**size), seed=5)

    assert play(GOOD, seed=5, market=market, **size) == play(GOOD, seed=5, **size)


def test_the_verdicts_of_many_worlds_are_counted_by_world():
    worlds = [world_of(name) for name in ("critical incident", "nobody asked the team")]
    told = list(judge_worlds(worlds, [1, 2], Pilot(users=12, minutes=4)))

    first, second = outcomes(worlds, told)

    assert [seed for seed, _ in told] == [1, 2]
    assert (first.expected, first.right, first.wrong_seeds) == (Verdict.ROLLBACK, 2, ())
    assert (second.expected, sum(second.given.values())) == (Verdict.NOT_ENOUGH_DATA, 2)


def test_processes_that_share_the_seeds_say_the_same_in_the_same_order():
    worlds, seeds, size = [world_of("critical incident")], [7, 8, 9], Pilot(weeks=1, users=4, minutes=2)

    assert list(judge_worlds(worlds, seeds, size, jobs=2)) == list(judge_worlds(worlds, seeds, size))


def test_worlds_that_trade_differently_share_no_exchange():
    with pytest.raises(InvalidRequestError, match="share no exchange"):
        list(judge_worlds([GOOD, World(name="busy", orders=90)], [1], Pilot()))


def test_a_world_whose_verdict_hangs_on_the_number_of_updates_has_no_truth():
    few, many = (true_error_rate(GOOD, events_an_order=each) for each in EVENTS_AN_ORDER)
    between = World(name="between", error_rate=0.001 - (few + many) / 2 + GOOD.error_rate)

    with pytest.raises(ValueError, match="between: REFINE or EXPAND"):
        truth(between)


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
