from itertools import pairwise, product

import pytest

from orderwire.core import rollout as rules
from orderwire.core.rollout import (
    Choice,
    CohortMinute,
    Decision,
    Draw,
    GuardAction,
    GuardLimits,
    Reason,
    Rollout,
)
from orderwire.errors import InvalidRequestError


def decide(**given):
    usual = {
        "master": True,
        "rollout": Rollout(stage=25),
        "broker": "paisa",
        "choice": Choice.NONE,
        "draw": Draw.OUT,
    }
    return rules.decide(**(usual | given))


@pytest.mark.parametrize(
    ("given", "enabled", "reason"),
    [
        ({"draw": Draw.IN}, True, Reason.IN_STAGE),
        ({"draw": Draw.OUT}, False, Reason.NOT_IN_STAGE),
        ({"choice": Choice.IN}, True, Reason.OPTED_IN),
        ({"choice": Choice.IN, "draw": Draw.FAILED}, False, Reason.NO_ANSWER),
        ({"choice": Choice.OUT, "draw": Draw.IN}, False, Reason.OPTED_OUT),
        ({"rollout": Rollout(brokers_off=("paisa",)), "choice": Choice.OUT}, False, Reason.BROKER_OFF),
        ({"rollout": Rollout(brokers_off=("other",)), "draw": Draw.IN}, True, Reason.IN_STAGE),
        ({"rollout": Rollout(killed=True, brokers_off=("paisa",))}, False, Reason.KILLED),
        ({"master": False, "rollout": Rollout(killed=True)}, False, Reason.MASTER_OFF),
    ],
)
def test_the_first_reason_that_applies_wins(given, enabled, reason):
    assert decide(**given) == Decision(enabled, reason)


def test_nothing_turns_on_what_the_master_switch_turned_off():
    for choice, draw, killed in product(Choice, Draw, (False, True)):
        decision = decide(master=False, choice=choice, draw=draw, rollout=Rollout(killed=killed))
        assert decision == Decision(enabled=False, reason=Reason.MASTER_OFF)


def test_the_flag_lets_the_stage_in_and_begins_with_those_who_are_on():
    flag = rules.flags(Rollout(stage=25))["flags"][rules.FLAG]

    assert flag["targeting"] == {"fractional": [["on", 25], ["off", 75]]}
    assert flag["defaultVariant"] == "off"


def test_stages_are_those_of_the_pilot():
    assert [rules.at_stage(Rollout(), stage).stage for stage in rules.STAGES] == [0, 10, 25, 50, 100]
    with pytest.raises(InvalidRequestError, match="0, 10, 25, 50, 100 percent, not 33"):
        rules.at_stage(Rollout(), 33)


def test_a_stop_keeps_the_stage_for_later():
    before = Rollout(stage=50, brokers_off=("jay",))

    assert rules.resumed(rules.killed(before)) == before


def test_a_broker_is_switched_off_and_on_again():
    off = rules.with_broker(Rollout(), "b", on=False, known=["a", "b"])

    assert off.brokers_off == ("b",)
    assert rules.with_broker(off, "b", on=True, known=["a", "b"]) == Rollout()
    with pytest.raises(InvalidRequestError, match="installed are a, b"):
        rules.with_broker(off, "c", on=False, known=["b", "a"])


def test_a_rollout_is_described_in_one_line():
    assert Rollout(stage=25, killed=True, brokers_off=("b",)).described() == "25 %, stopped, b off"


# --- the guard ----------------------------------------------------------------------------------------

LIMITS = GuardLimits(
    latency_p95=1.0, error_rate=0.01, disconnects_per_hour=6, minutes=3, disconnect_minutes=10
)


def minutes(*numbers, **facts):
    usual = {"accounts": 4, "paints": 10, "latency_p95": 0.2, "events": 100}
    return [CohortMinute(minute=number, **(usual | facts)) for number in numbers]


def test_calm_minutes_break_nothing():
    assert rules.breaches(minutes(*range(90, 100)), LIMITS, now=100) == []


def test_a_sustained_latency_breaks_its_limit():
    slow = minutes(97, 98, 99, latency_p95=1.2)

    assert rules.breaches(slow, LIMITS, now=100) == ["placed to painted p95 above 1 s"]


@pytest.mark.parametrize("spared", [97, 98, 99])
def test_one_good_minute_ends_the_breach(spared):
    slow = minutes(97, 98, 99, latency_p95=1.2)

    calm = [m if m.minute != spared else minutes(spared)[0] for m in slow]

    assert rules.breaches(calm, LIMITS, now=100) == []


def test_the_running_minute_and_a_missing_one_say_nothing():
    assert rules.breaches(minutes(98, 99, 100, latency_p95=9), LIMITS, now=100) == []
    assert rules.breaches(minutes(96, 97, 99, latency_p95=9), LIMITS, now=100) == []
    assert rules.breaches([], LIMITS, now=100) == []


def test_too_few_paints_or_events_say_nothing():
    assert rules.breaches(minutes(97, 98, 99, latency_p95=9, paints=4), LIMITS, now=100) == []
    assert rules.breaches(minutes(97, 98, 99, events=19, errors=19), LIMITS, now=100) == []


def test_the_error_rate_counts_events():
    assert rules.breaches(minutes(97, 98, 99, errors=1), LIMITS, now=100) == []
    assert rules.breaches(minutes(97, 98, 99, errors=2), LIMITS, now=100) == ["error rate above 1.0%"]


def test_disconnections_are_judged_over_their_own_window():
    """Six an hour and account are four in ten minutes with four accounts."""
    calm = minutes(*range(90, 99)) + minutes(99, disconnects=4)
    broken = minutes(*range(90, 99)) + minutes(99, disconnects=5)

    assert rules.breaches(calm, LIMITS, now=100) == []
    assert rules.breaches(broken, LIMITS, now=100) == ["more than 6 disconnections an hour and account"]
    assert rules.breaches(minutes(89, disconnects=99), LIMITS, now=100) == []


def test_the_guard_never_steps_up():
    for stage, action, stopped in product(rules.STAGES, GuardAction, (False, True)):
        before = Rollout(stage=stage, killed=stopped)
        after = rules.guard(before, action, ["slow"])
        assert after.stage <= before.stage
        assert after.killed >= before.killed


def test_the_guard_steps_down_one_stage_at_a_time():
    for lower, stage in pairwise(rules.STAGES):
        assert rules.guard(Rollout(stage=stage), GuardAction.STEP_DOWN, ["slow"]).stage == lower


def test_the_guard_stops_everything_when_told_to():
    assert rules.guard(Rollout(stage=25), GuardAction.KILL, ["slow"]) == Rollout(stage=25, killed=True)


def test_the_guard_does_nothing_when_nothing_is_broken_or_it_is_off():
    assert rules.guard(Rollout(), GuardAction.KILL, []) == Rollout()
    assert rules.guard(Rollout(), GuardAction.OFF, ["slow"]) == Rollout()
