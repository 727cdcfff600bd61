"""An exchange that remembers goes on as if it had never stopped."""

from decimal import Decimal
from random import Random

import pytest

from brokersim.exchange import Exchange
from brokersim.instruments import INSTRUMENTS
from brokersim.orders import OrderRecord, OrderRequest, OrderType, Side, Stage, Terms, Validity
from brokersim.resuming import under_way
from brokersim.timeline import Timeline

START = 1_787_000_000.0
SBIN = INSTRUMENTS[0]


def exchange_at(moment, **options):
    defaults = {"liquidity": False, "walking": False}
    return Exchange(Timeline(moment), Random(1), **(defaults | options))


def restarted(exchange, *, after=0.0):
    again = exchange_at(exchange.timeline.now + after)
    again.restore(exchange.books())
    return again


def place(exchange, order_id, side=Side.BUY, price="820", quantity=10, **more):
    terms = Terms(
        type=more.pop("kind", OrderType.LIMIT),
        quantity=quantity,
        price=Decimal(price),
        trigger_price=Decimal(more.pop("trigger", "0")),
        validity=more.pop("validity", Validity.DAY),
    )
    request = OrderRequest(
        broker="kite",
        order_id=order_id,
        user=more.pop("user", f"U{order_id}"),
        placed_by="x",
        app="a",
        instrument=SBIN,
        side=side,
        product="CNC",
        terms=terms,
        **more,
    )
    return exchange.submit(request).uid


def stages(exchange, uid):
    return [each.stage for each in exchange.history(uid)]


def pass_time(exchange, seconds=1.0):
    exchange.timeline.advance_by(seconds)


@pytest.mark.parametrize("pause", [0.0, 0.005, 0.01, 0.02, 0.03, 1.0])
@pytest.mark.parametrize("amo", [False, True])
def test_a_new_order_reaches_the_book_wherever_the_restart_met_it(pause, amo):
    exchange = exchange_at(START)
    uid = place(exchange, "1", amo=amo)
    pass_time(exchange, pause)

    exchange = restarted(exchange)
    pass_time(exchange, 4)

    expected = [Stage.RECEIVED, Stage.VALIDATING, Stage.SENT, Stage.OPEN]
    assert stages(exchange, uid) == [Stage.AMO_RECEIVED] * amo + expected
    assert [each.number for each in exchange.history(uid)] == list(range(len(expected) + amo))


@pytest.mark.parametrize("pause", [0.0, 0.005, 0.011, 0.015, 1.0])
def test_a_modification_under_way_is_finished(pause):
    exchange = exchange_at(START)
    uid = place(exchange, "1")
    pass_time(exchange)
    exchange.modify(uid, Terms(type=OrderType.LIMIT, quantity=7, price=Decimal(810)))
    pass_time(exchange, pause)

    exchange = restarted(exchange)
    pass_time(exchange)

    order = exchange.order(uid)
    assert (order.stage, order.terms.price, order.modifications) == (Stage.OPEN, 810, 1)
    assert stages(exchange, uid).count(Stage.MODIFIED) == 1


def test_a_cancellation_that_a_fill_overtook_is_finished():
    exchange = exchange_at(START)
    uid = place(exchange, "1")
    pass_time(exchange)
    exchange.cancel(uid)
    exchange.fill(uid, 4)
    assert exchange.order(uid).stage is Stage.PARTIALLY_FILLED

    exchange = restarted(exchange)
    pass_time(exchange)

    assert (exchange.order(uid).stage, exchange.order(uid).filled) == (Stage.CANCELLED, 4)


def test_a_refused_request_is_not_asked_again():
    exchange = exchange_at(START)
    uid = place(exchange, "1")
    pass_time(exchange)
    exchange.fill(uid, 4)
    exchange.modify(uid, Terms(type=OrderType.LIMIT, quantity=3, price=Decimal(810)))
    pass_time(exchange)
    before = stages(exchange, uid)

    exchange = restarted(exchange)
    pass_time(exchange)

    assert Stage.MODIFY_REFUSED in before
    assert stages(exchange, uid) == before


def test_the_earlier_of_two_orders_at_one_price_is_still_first():
    exchange = exchange_at(START)
    first, second = place(exchange, "1"), place(exchange, "2")
    pass_time(exchange)

    exchange = restarted(exchange)
    pass_time(exchange)
    place(exchange, "3", Side.SELL, quantity=12)
    pass_time(exchange)

    assert (exchange.order(first).filled, exchange.order(second).filled) == (10, 2)


def test_a_stop_order_still_waits_for_its_trigger():
    exchange = exchange_at(START)
    exchange.set_price(SBIN.key, Decimal(820))
    uid = place(exchange, "1", kind=OrderType.SL, price="832", trigger="830")
    pass_time(exchange)

    exchange = restarted(exchange)
    pass_time(exchange)
    assert exchange.order(uid).stage is Stage.TRIGGER_PENDING
    exchange.set_price(SBIN.key, Decimal(830))

    assert (exchange.order(uid).stage, exchange.order(uid).triggered) == (Stage.OPEN, True)


def test_synthetic_counterparties_come_to_remembered_orders():
    exchange = exchange_at(START)
    uid = place(exchange, "1", price=str(SBIN.price))
    pass_time(exchange)
    again = exchange_at(exchange.timeline.now, liquidity=True)

    again.restore(exchange.books())
    pass_time(again, 10)

    assert again.order(uid).stage is Stage.FILLED


def test_an_order_for_some_minutes_ends_at_its_own_time():
    exchange = exchange_at(START)
    uid = place(exchange, "1", validity=Validity.TTL, ttl_minutes=2)
    pass_time(exchange, 60)

    exchange = restarted(exchange, after=30)
    pass_time(exchange, 29)
    assert exchange.order(uid).stage is Stage.OPEN
    pass_time(exchange, 2)

    assert exchange.order(uid).stage is Stage.CANCELLED


def test_prices_trades_and_numbers_go_on():
    exchange = exchange_at(START)
    uid = place(exchange, "1")
    place(exchange, "2", Side.SELL)
    pass_time(exchange)
    exchange.set_price(SBIN.key, Decimal(815))
    exchange.pause(SBIN.key)

    again = restarted(exchange)
    later = place(again, "3")
    pass_time(again)

    assert again.quote(SBIN.key) == exchange.quote(SBIN.key)
    assert again.trades == exchange.trades
    assert again.trades_by(broker="kite", user="U1") == list(exchange.trades_of(uid))
    numbers = [each.exchange_order_id for each in again.orders()]
    assert len(set(numbers)) == 3
    again.fill(later, 1)
    assert again.trades_of(later)[0].trade_id not in {each.trade_id for each in exchange.trades}


def test_books_that_contradict_themselves_are_refused():
    exchange = exchange_at(START)
    place(exchange, "1")
    pass_time(exchange)
    for record in list(exchange.books().records.values()):
        exchange.cancel(record.last.uid)
        pass_time(exchange)
        record.history.pop()
        record.history.pop()

    with pytest.raises(ValueError, match="in no book"):
        restarted(exchange)


def test_an_impossible_history_is_refused():
    exchange = exchange_at(START)
    uid = place(exchange, "1")
    pass_time(exchange)
    exchange.modify(uid, Terms(type=OrderType.LIMIT, quantity=7, price=Decimal(810)))
    pass_time(exchange)
    record = OrderRecord(
        [each for each in exchange.history(uid) if each.stage is not Stage.MODIFY_VALIDATING]
    )

    with pytest.raises(ValueError, match="out of nowhere"):
        under_way(record.history)
