from itertools import product

import pytest
from msgspec.structs import replace

from orderwire.core.verdict import CRITERIA, Answer, Measured, Scorecard, Verdict, judge

EXPAND, REFINE, UNKNOWN, ROLLBACK = (
    Verdict.EXPAND,
    Verdict.REFINE,
    Verdict.NOT_ENOUGH_DATA,
    Verdict.ROLLBACK,
)


def measured(value, spread=0.0, count=100_000):
    return Measured(value=value, low=value - spread, high=value + spread, count=count)


GOOD = Scorecard(
    days=25,
    latency=measured(0.14),
    full_days=25,
    good_days=1.0,
    uptime=measured(0.9996),
    errors=measured(0.0002),
    satisfaction=measured(0.25, 0.1, count=80),
    calls=measured(-0.8),
    adoption=measured(0.7),
    team_comfortable=Answer(value="yes", author="lead"),
    maintenance=Answer(value="low", author="ops"),
)


def verdict(**facts):
    return judge(replace(GOOD, **facts)).verdict


def finding(criterion, **facts):
    return next(f for f in judge(replace(GOOD, **facts)).findings if f.criterion == criterion)


def test_a_pilot_that_meets_everything_is_expanded():
    judgement = judge(GOOD)

    assert judgement.verdict is EXPAND
    assert {f.verdict for f in judgement.findings} == {EXPAND}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.4999, EXPAND), (0.5, REFINE), (0.75, REFINE), (1.0, REFINE), (1.0001, ROLLBACK)],
)
def test_latency_at_its_boundaries(value, expected):
    assert verdict(latency=measured(value)) is expected


def test_latency_that_may_be_above_its_target_is_not_proven():
    assert verdict(latency=measured(0.48, 0.01)) is EXPAND
    assert verdict(latency=measured(0.48, 0.02)) is REFINE
    assert "not certain" in finding("latency", latency=measured(0.48, 0.02)).reason


def test_consistently_is_a_share_of_days():
    assert verdict(good_days=0.95) is EXPAND
    assert verdict(good_days=0.949) is REFINE
    assert "only 94% of the days below 500 ms" in finding("latency", good_days=0.94).reason


def test_consistently_rests_on_full_days():
    assert verdict(full_days=CRITERIA.least_full_days) is EXPAND
    known = finding("latency", full_days=CRITERIA.least_full_days - 1)
    assert known.verdict is UNKNOWN
    assert "9 trading days with 20 orders painted or more; a verdict needs 10" in known.reason


def test_a_latency_that_misses_its_target_needs_no_full_days():
    assert verdict(full_days=0, latency=measured(0.7)) is REFINE
    assert verdict(full_days=0, latency=measured(1.1)) is ROLLBACK


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.99901, EXPAND), (0.999, REFINE), (0.995, REFINE), (0.99, REFINE), (0.98999, ROLLBACK)],
)
def test_stability_at_its_boundaries(value, expected):
    assert verdict(uptime=measured(value)) is expected


def test_stability_worse_than_on_refresh_is_degraded():
    known = {"readable": measured(0.9994, 0.0001), "baseline_uptime": measured(0.9999, 0.0001)}

    assert verdict(**known) is REFINE
    assert "books readable 99.940%, on refresh 99.990%" in finding("stability", **known).reason
    assert verdict(**known | {"readable": measured(0.9998, 0.0001)}) is EXPAND


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.00099, EXPAND), (0.001, REFINE), (0.005, REFINE), (0.01, REFINE), (0.01001, ROLLBACK)],
)
def test_errors_at_their_boundaries(value, expected):
    assert verdict(errors=measured(value)) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.2, EXPAND),
        (0.15, EXPAND),
        (0.1499, REFINE),
        (0.1, REFINE),
        (0.05, REFINE),
        (0.0499, ROLLBACK),
        (-0.1, ROLLBACK),
    ],
)
def test_satisfaction_at_its_boundaries(value, expected):
    assert verdict(satisfaction=measured(value, 0.01, count=80)) is expected


def test_an_improvement_that_may_be_none_is_not_proven():
    assert verdict(satisfaction=measured(0.2, 0.19, count=80)) is EXPAND
    assert verdict(satisfaction=measured(0.2, 0.2, count=80)) is REFINE


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"critical_bugs": 1}, ROLLBACK),
        ({"major_bugs": 1}, REFINE),
        ({"team_comfortable": Answer(value="no", author="lead")}, REFINE),
        ({"team_comfortable": None}, UNKNOWN),
        ({"maintenance": Answer(value="high", author="ops")}, ROLLBACK),
        ({"maintenance": Answer(value="medium", author="ops")}, REFINE),
        ({"maintenance": None}, UNKNOWN),
    ],
)
def test_bugs_and_recorded_answers(facts, expected):
    assert verdict(**facts) is expected


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("latency", CRITERIA.least_paints),
        ("uptime", CRITERIA.least_minutes),
        ("errors", CRITERIA.least_events),
        ("satisfaction", CRITERIA.least_answers),
    ],
)
def test_too_little_data_is_said(name, least):
    told = getattr(GOOD, name)

    assert verdict(**{name: replace(told, count=least)}) is EXPAND
    assert verdict(**{name: replace(told, count=least - 1)}) is UNKNOWN
    assert verdict(**{name: None}) is UNKNOWN


def test_a_month_is_needed():
    assert verdict(days=CRITERIA.least_days) is EXPAND
    assert verdict(days=CRITERIA.least_days - 1) is UNKNOWN


def test_what_is_not_known_outweighs_a_refinement_and_never_hides_a_rollback():
    assert verdict(days=1, major_bugs=1) is UNKNOWN
    assert verdict(days=1, critical_bugs=1) is ROLLBACK


def test_secondary_measures_are_shown_and_decide_nothing():
    assert verdict(calls=measured(0.1), adoption=measured(0.1)) is EXPAND
    assert finding("API calls", calls=measured(-0.5)).verdict is EXPAND
    assert finding("API calls", calls=measured(-0.49)).verdict is REFINE
    assert finding("adoption", adoption=measured(0.5)).verdict is REFINE
    assert verdict(calls=None, adoption=None) is EXPAND


def test_the_worst_verdict_wins_whatever_the_others_say():
    latencies = {0.1: EXPAND, 0.7: REFINE, 2.0: ROLLBACK}
    uptimes = {0.9999: EXPAND, 0.995: REFINE, 0.9: ROLLBACK}
    order = [EXPAND, REFINE, UNKNOWN, ROLLBACK]
    for (latency, first), (uptime, second) in product(latencies.items(), uptimes.items()):
        expected = max(first, second, key=order.index)
        assert verdict(latency=measured(latency), uptime=measured(uptime)) is expected


def test_the_reasons_are_those_of_the_worst():
    judgement = judge(replace(GOOD, critical_bugs=2, latency=measured(0.7)))

    assert judgement.reasons == ("2 critical and 0 major incidents in the last month",)
