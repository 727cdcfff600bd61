"""Kite's irregularities as decisions."""

import pytest

from brokersim.faults import Fault, FaultKind
from brokersim.kite.stories import Push, first_push, told, with_variants
from brokersim.orders import Cause, Stage
from brokersim.world import Settings
from sim_orders import order

OPEN = order(stage=Stage.OPEN, changes={"number": 3})
PARTIAL = order(stage=Stage.PARTIALLY_FILLED, changes={"number": 4, "filled": 4, "cause": Cause.FILL})
DONE = order(stage=Stage.FILLED, changes={"number": 5, "filled": 10, "cause": Cause.FILL})
HISTORY = [OPEN, PARTIAL, DONE]


def story(kind, push, **params):
    told_ = told(push, HISTORY, [Fault(id=1, kind=kind, params=params)])
    return [(each.status, each.order.filled, each.delay) for each in told_]


def test_placing_is_pushed_on_the_socket_alone():
    assert first_push([OPEN], Settings(), "ws") == Push(order=OPEN, status="OPEN")
    assert first_push([OPEN], Settings(), "postback") is None
    assert first_push([OPEN], Settings(kite_postback_sends_open=True), "postback") is not None


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        (FaultKind.UPDATE_AFTER_COMPLETE, "COMPLETE", [("COMPLETE", 10, 0), ("UPDATE", 4, 0.05)]),
        (FaultKind.STALE_OPEN, "COMPLETE", [("COMPLETE", 10, 0), ("OPEN", 0, 0.05)]),
        (FaultKind.DOUBLE_CANCELLED, "CANCELLED", [("CANCELLED", 10, 0), ("CANCELLED", 10, 0.05)]),
        (FaultKind.DOUBLE_CANCELLED, "COMPLETE", [("COMPLETE", 10, 0)]),
        (FaultKind.COMPLETE_BEFORE_OPEN, "OPEN", [("OPEN", 10, 2.0)]),
        (FaultKind.UNKNOWN_STATUS, "COMPLETE", [("SUSPENDED", 10, 0)]),
    ],
)
def test_a_story_changes_or_follows_a_push(kind, status, expected):
    assert story(kind, Push(order=DONE, status=status)) == expected


def test_an_update_after_complete_needs_a_partial_fill():
    push = Push(order=DONE, status="COMPLETE")
    fault = Fault(id=1, kind=FaultKind.UPDATE_AFTER_COMPLETE)

    assert told(push, [OPEN, DONE], [fault]) == [push]


def test_variants_spell_null_as_empty_and_leave_out_tags():
    row = {
        "status": "CANCELLED",
        "tag": None,
        "parent_order_id": None,
        "tags": ["x"],
        "cancelled_quantity": 6,
    }

    assert with_variants(row) == {
        "status": "CANCELLED",
        "tag": "",
        "parent_order_id": "",
        "cancelled_quantity": 0,
    }
