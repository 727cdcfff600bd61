from __future__ import annotations

import msgspec
import pytest

from core.lifecycles import said
from orderwire.core.lifecycle import OrderState, join, lift, observe, view
from orderwire.core.orders import Channel, OrderId, OrderStatus


def test_a_fill_moves_an_open_order():
    first = observe(None, said())

    then = observe(first.state, said(OrderStatus.FILLED, at=1, filled_quantity=10))

    assert (then.changed, then.surprising, then.verify) == (True, False, "")
    assert view(then.state).status is OrderStatus.FILLED


def test_a_late_open_does_not_revive_a_filled_order():
    filled = lift(said(OrderStatus.FILLED, at=1, filled_quantity=10))

    assert join(filled, lift(said())) == join(lift(said()), filled)
    assert view(join(filled, lift(said()))).status is OrderStatus.FILLED


def test_a_postback_changes_nothing():
    outcome = observe(None, said(channel=Channel.POSTBACK))

    assert (outcome.state, outcome.changed) == (None, False)
    assert outcome.verify


def test_a_state_survives_being_written_down():
    state = observe(lift(said()), said(OrderStatus.FILLED, at=1, filled_quantity=10)).state

    assert msgspec.json.decode(msgspec.json.encode(state), type=OrderState) == state


def test_states_of_two_orders_are_not_joined():
    with pytest.raises(ValueError, match="cannot be joined"):
        join(lift(said()), lift(said(order_id=OrderId("2"))))
