from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from orderwire.core import notifications
from orderwire.core.lifecycle import OrderChange, OrderView
from orderwire.core.notifications import DEFAULTS, Occasion
from orderwire.core.orders import AccountId, OrderId, OrderStatus
from orderwire.core.recovery import FeedStatus, Freshness

NOW = datetime(2026, 11, 24, 5, 0, tzinfo=UTC)


def change(status, *, was=OrderStatus.OPEN, age=timedelta(0), **facts):
    view = OrderView(
        account=AccountId("acc"),
        broker="wired",
        row="r1",
        order_id=OrderId("261124000001"),
        trading_date=date(2026, 11, 24),
        status=status,
        symbol="INFY",
        exchange="NSE",
        side="SELL",
        order_type="LIMIT",
        product="MIS",
        quantity=10,
        broker_time=NOW - age,
        **facts,
    )
    return OrderChange(
        account=view.account, epoch="e", sequence=1, event_id="x", kind="order", order=view, was=was
    )


def told(*arguments, **facts):
    return notifications.of_change(change(*arguments, **facts), now=NOW)


@pytest.mark.parametrize(
    ("status", "occasion"),
    [
        (OrderStatus.REJECTED, Occasion.REJECTED),
        (OrderStatus.FILLED, Occasion.FILLED),
        (OrderStatus.PARTIALLY_FILLED, Occasion.PARTIALLY_FILLED),
        (OrderStatus.CANCELLED, Occasion.CANCELLED),
        (OrderStatus.EXPIRED, Occasion.CANCELLED),
    ],
)
def test_what_matters_is_told(status, occasion):
    assert told(status).occasion is occasion


@pytest.mark.parametrize(
    "status",
    [OrderStatus.OPEN, OrderStatus.PENDING_NEW, OrderStatus.TRIGGER_PENDING, OrderStatus.UNKNOWN],
)
def test_what_is_on_its_way_is_not(status):
    assert told(status) is None


def test_a_rejection_is_told_in_the_brokers_own_words():
    said = told(OrderStatus.REJECTED, reason="Insufficient funds. Required margin is 15000.00")

    assert said.title == "Rejected: SELL 10 INFY NSE"
    assert said.text.startswith("Insufficient funds. Required margin is 15000.00")
    assert said.order["rejection_reason"] == "Insufficient funds. Required margin is 15000.00"


def test_a_fill_says_how_much_at_which_price():
    said = told(OrderStatus.FILLED, filled_quantity=10, average_price=Decimal("1500.05"))

    assert said.text == "10 of 10 at 1500.05 · acc 261124000001"


def test_each_partial_fill_is_its_own_occasion_and_the_same_one_is_the_same_again():
    keys = [told(OrderStatus.PARTIALLY_FILLED, filled_quantity=filled).key for filled in (1, 2, 2)]

    assert keys[0] != keys[1] == keys[2]


def test_an_order_that_ended_long_before_it_was_first_seen_is_history():
    age = timedelta(minutes=11)

    assert told(OrderStatus.FILLED, was=None, age=age) is None
    assert told(OrderStatus.FILLED, was=OrderStatus.OPEN, age=age) is not None
    assert told(OrderStatus.FILLED, was=None, age=timedelta(minutes=9)) is not None


def test_a_feed_that_is_away_is_named_with_why_and_since_when():
    status = FeedStatus(
        account=AccountId("acc"), freshness=Freshness.STALE, since=NOW, detail="The broker does not answer."
    )

    said = notifications.of_outage(status, down_since=NOW)

    assert said.title == "Order updates of acc are out of date"
    assert said.text == "The broker does not answer. Since 10:30:00 IST."


def test_a_digest_of_one_is_that_one_and_of_more_lists_them_in_order():
    assert notifications.digest([("a", "x")]) == ("a", "x")
    assert notifications.digest([("a", "x"), ("b", "y")]) == ("2 order updates", "a - x\nb - y")


def test_every_occasion_has_a_default():
    assert set(DEFAULTS) == set(Occasion)
