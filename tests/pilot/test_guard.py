from __future__ import annotations

import pytest

from orderwire.core.events import Event, EventType
from orderwire.core.evidence import Tally
from orderwire.core.rollout import GuardAction, GuardLimits
from orderwire.errors import FeedsBusyError
from orderwire.pilot.guard import Guard

TIMER = Event(EventType.TIMER)
SLOW = (2_000_000,) * 10
LIMITS = GuardLimits(minutes=3)


@pytest.fixture
def minutes(clock, records):
    """Let a minute pass in which the cohort saw this."""

    def pass_minute(**told):
        minute = clock.time_ns() // 60_000_000_000
        records.keep([Tally(minute=minute, broker="paisa", cohort="realtime", accounts=2, **told)])
        clock.advance(60)

    return pass_minute


def a_guard(gate, clock, action=GuardAction.STEP_DOWN):
    return Guard(gate, action=action, limits=LIMITS, clock=clock)


def test_a_sustained_breach_steps_down_and_is_told(gate, clock, minutes):
    guard = a_guard(gate, clock)
    told = []
    for _ in range(3):
        minutes(placed=SLOW)
        told += guard.on_timer(TIMER)

    assert gate.rollout.stage == 50
    (event,) = told
    assert (event.type, event.data.kind) == (EventType.ALERT, "rollout guard")
    assert "placed to painted p95 above 1 s" in event.data.text


def test_what_it_did_is_told_though_the_feeds_are_too_busy_to_follow(gate, clock, minutes):
    guard = a_guard(gate, clock)
    gate.on_change = busy
    for _ in range(3):
        minutes(placed=SLOW)

    (event,) = guard.on_timer(TIMER)
    assert gate.rollout.stage == 50
    assert "stepped down by the guard (50 %)" in event.data.text


def busy():
    raise FeedsBusyError


def test_it_looks_once_a_minute(gate, clock, minutes):
    guard = a_guard(gate, clock)
    for _ in range(3):
        minutes(placed=SLOW)

    assert len(guard.on_timer(TIMER)) == 1
    assert guard.on_timer(TIMER) == []


def test_minutes_before_a_step_are_not_held_against_the_next_stage(gate, clock, minutes):
    guard = a_guard(gate, clock)
    for _ in range(5):
        minutes(placed=SLOW)
        guard.on_timer(TIMER)

    assert gate.rollout.stage == 50
    minutes(placed=SLOW)
    guard.on_timer(TIMER)
    assert gate.rollout.stage == 25


def test_what_was_before_the_operators_step_is_not_held_against_it(gate, clock, minutes):
    """They stopped it because streams broke, had it mended, and let everybody in again within the half hour."""
    guard = a_guard(gate, clock)
    for _ in range(4):
        minutes(disconnects=1)
        guard.on_timer(TIMER)
    minutes(disconnects=200)
    gate.kill(who="ops", why="streams break")
    minutes()
    gate.resume(who="ops", why="mended")
    minutes()

    assert guard.on_timer(TIMER) == []
    assert gate.rollout.stage == 100

    minutes(disconnects=200)
    guard.on_timer(TIMER)
    assert gate.rollout.stage == 50


def test_minutes_before_the_start_are_not_judged(gate, clock, minutes):
    for _ in range(3):
        minutes(placed=SLOW)

    assert a_guard(gate, clock).on_timer(TIMER) == []
    assert gate.rollout.stage == 100


def test_a_calm_pilot_is_left_alone(gate, clock, minutes):
    guard = a_guard(gate, clock, GuardAction.KILL)
    for _ in range(10):
        minutes(placed=(90_000,) * 10, events=100)
        assert guard.on_timer(TIMER) == []

    assert not gate.rollout.killed


def test_it_stops_everything_when_told_to(gate, clock, minutes):
    guard = a_guard(gate, clock, GuardAction.KILL)
    for _ in range(3):
        minutes(events=100, errors=5)
        guard.on_timer(TIMER)

    assert gate.rollout.killed
    assert gate.records.history()[0].who == "guard"
