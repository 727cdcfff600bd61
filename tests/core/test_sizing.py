import pytest
from hypothesis import given
from hypothesis import strategies as some

from orderwire.core.sizing import order_to_close, order_to_reach, split


@pytest.mark.parametrize(
    ("wanted", "held", "order"),
    [
        (100, 0, ("BUY", 100)),
        (-100, 0, ("SELL", 100)),
        (100, 50, ("BUY", 50)),
        (50, 100, ("SELL", 50)),
        (0, 100, ("SELL", 100)),
        (0, -100, ("BUY", 100)),
        (-50, 100, ("SELL", 150)),
        (100, 100, None),
        (-100, -100, None),
    ],
)
def test_the_order_that_reaches_a_position(wanted, held, order):
    assert order_to_reach(wanted, held=held, action="BUY", quantity=7) == order


def test_wanting_nothing_while_holding_nothing_places_the_order_as_it_is():
    assert order_to_reach(0, held=0, action="SELL", quantity=7) == ("SELL", 7)
    assert order_to_reach(0, held=0, action="SELL", quantity=0) is None


@given(wanted=some.integers(-1000, 1000), held=some.integers(-1000, 1000))
def test_after_the_order_the_position_is_the_wanted_one(wanted, held):
    order = order_to_reach(wanted, held=held, action="BUY", quantity=0)
    moved = 0 if order is None else order[1] if order[0] == "BUY" else -order[1]

    assert held + moved == wanted


@given(held=some.integers(-1000, 1000).filter(bool))
def test_closing_leaves_nothing(held):
    side, quantity = order_to_close(held)

    assert quantity > 0
    assert held + (quantity if side == "BUY" else -quantity) == 0


@given(quantity=some.integers(1, 10_000), size=some.integers(1, 500))
def test_the_parts_add_up_and_none_is_too_big(quantity, size):
    parts = split(quantity, size)

    assert sum(parts) == quantity
    assert all(0 < part <= size for part in parts)
