"""The pilot's orders on brokersim's exchange."""

import sys
from datetime import UTC, datetime
from random import Random

import pytest

from orderwire.errors import OrderwireError
from orderwire.pilot import exchange
from orderwire.pilot.simulation import EVENTS_AN_ORDER

OPENING = datetime(2026, 10, 5, 3, 45, tzinfo=UTC)


def a_day(count, *, seed=1, seconds=7200):
    draw = Random(seed)
    orders = [exchange.draw_order(draw, at=draw.random() * seconds, user=f"u{n % 40}") for n in range(count)]
    return exchange.plan_day(OPENING, seconds=seconds, orders=orders)


def test_every_order_lives_on_the_exchange_to_its_end():
    days = [a_day(300, seed=n) for n in range(2)]

    with exchange.played(days, seed=7) as steps:
        told = [list(day) for day in steps]

    assert len(told) == 2
    for day, plan in zip(told, days, strict=True):
        ends = [step.order for step in day if step.stage in exchange.ENDS]
        assert sorted(ends) == list(range(len(plan.orders)))
        assert {"FILLED", "CANCELLED", "PARTIALLY_FILLED"} <= {step.stage for step in day}


def test_an_order_has_as_many_updates_as_the_truth_of_a_world_supposes():
    with exchange.played([a_day(2000)], seed=7) as steps:
        updates = sum(step.stage in exchange.TOLD for step in next(steps))

    assert EVENTS_AN_ORDER[0] < updates / 2000 < EVENTS_AN_ORDER[1]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("#!/bin/sh\necho 'no brokersim' >&2\nexit 1\n", "no brokersim"),
        ("#!/bin/sh\necho '{}'\n", "nonsense"),
    ],
)
def test_an_exchange_that_does_not_play_is_told_in_a_sentence(tmp_path, monkeypatch, program, words):
    stub = tmp_path / "python"
    stub.write_text(program)
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))

    with pytest.raises(OrderwireError, match=words), exchange.played([a_day(3)], seed=1) as steps:
        list(steps)


def test_who_stops_looking_leaves_no_process_behind():
    with exchange.played([a_day(50, seed=n) for n in range(5)], seed=1) as steps:
        next(steps)

    with pytest.raises(ValueError, match="closed file"):
        next(steps)
