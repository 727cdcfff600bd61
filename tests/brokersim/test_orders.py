"""What an order says about itself."""

from decimal import Decimal

import pytest

from brokersim.orders import RESTING, TERMINAL, UNCONFIRMED, OrderType, Side, Stage, Terms
from sim_orders import order, trade


def test_the_average_is_the_value_over_the_fills_to_four_decimals():
    filled = order(changes={"filled": 3, "value": Decimal("2461.0")})

    assert filled.average == Decimal("820.3333")
    assert filled.remaining == 7
    assert order().average == 0


@pytest.mark.parametrize(
    ("kind", "triggered", "filled", "stage"),
    [
        (OrderType.LIMIT, False, 0, Stage.OPEN),
        (OrderType.LIMIT, False, 1, Stage.PARTIALLY_FILLED),
        (OrderType.SL, False, 0, Stage.TRIGGER_PENDING),
        (OrderType.SLM, True, 0, Stage.OPEN),
        (OrderType.SL, True, 2, Stage.PARTIALLY_FILLED),
    ],
)
def test_an_order_rests_in_the_stage_its_terms_demand(kind, triggered, filled, stage):
    terms = Terms(type=kind, quantity=10)
    from dataclasses import replace

    resting = replace(order(changes={"triggered": triggered, "filled": filled}), terms=terms)

    assert resting.resting_stage is stage


def test_the_groups_of_stages_do_not_overlap():
    assert not TERMINAL & RESTING
    assert not TERMINAL & UNCONFIRMED
    assert not RESTING & UNCONFIRMED


def test_ids_name_the_broker():
    assert order().uid == trade().uid == "kite:2125253389729136641"


def test_each_side_has_the_other():
    assert Side.BUY.other is Side.SELL
    assert Side.SELL.other is Side.BUY
