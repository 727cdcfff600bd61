"""After a day an account holds what it bought for delivery, and the money says so."""

from decimal import Decimal
from random import Random

import pytest

from brokersim.exchange import Exchange
from brokersim.instruments import INSTRUMENTS
from brokersim.orders import OrderRequest, OrderType, Side, Terms
from brokersim.settlement import settle
from brokersim.timeline import Timeline
from brokersim.users import Account

SBIN = INSTRUMENTS[0]
CRUDE = next(each for each in INSTRUMENTS if each.multiplier > 1)
CASH = Decimal(1_000_000)


class Day:
    """One account trading at prices of the test's choice."""

    def __init__(self, holdings):
        self.exchange = Exchange(Timeline(1_787_000_000.0), Random(1), liquidity=False, walking=False)
        self.account = Account(broker="kite", user="U", cash=CASH, holdings=holdings)
        self.exchange.subscribe(self.follow)
        self.count = 0

    def follow(self, event):
        if event.trade:
            self.account.book(event.order, quantity=event.trade.quantity, price=event.trade.price)
        self.account.follow(event.order, Decimal(0))

    def trade(self, side, quantity, price, *, product="CNC", instrument=SBIN, filled=None):
        self.count += 1
        request = OrderRequest(
            broker="kite",
            order_id=str(self.count),
            user="U",
            placed_by="U",
            app="a",
            instrument=instrument,
            side=side,
            product=product,
            terms=Terms(type=OrderType.LIMIT, quantity=quantity, price=instrument.price),
        )
        uid = self.exchange.submit(request).uid
        self.exchange.timeline.advance_by(1)
        self.exchange.fill(uid, filled or quantity, Decimal(price))

    def settled(self, closing):
        settle(self.account, list(self.exchange.books().records.values()), lambda _: Decimal(closing))
        assert (self.account.used, self.account.blocked) == (0, {})
        return self.account


@pytest.mark.parametrize(
    ("trades", "held", "paid"),
    [
        ([(Side.BUY, 10, 810)], (110, "800.9091"), 8_100),
        ([(Side.SELL, 40, 810)], (60, "800"), -32_400),
        ([(Side.SELL, 100, 810)], None, -81_000),
        ([(Side.SELL, 100, 810), (Side.BUY, 100, 790)], (100, "795"), -2_000),
    ],
)
def test_delivery_moves_shares_and_money(trades, held, paid):
    day = Day({SBIN.key: (100, Decimal(800))})
    for trade in trades:
        day.trade(*trade)

    account = day.settled(closing=900)

    expected = {SBIN.key: (held[0], Decimal(held[1]))} if held else {}
    assert (account.holdings, account.cash) == (expected, CASH - paid)


def test_other_products_are_closed_at_the_closing_price():
    day = Day({})
    day.trade(Side.BUY, 10, 810, product="MIS")
    day.trade(Side.SELL, 4, 815, product="MIS")
    day.trade(Side.SELL, 2, CRUDE.price, product="NRML", instrument=CRUDE)

    account = day.settled(closing=820)

    crude = (CRUDE.price - 820) * 2 * CRUDE.multiplier
    assert (account.holdings, account.cash) == ({}, CASH + 4 * 5 + 6 * 10 + crude)


def test_what_an_unfinished_order_blocked_is_free():
    day = Day({})
    day.trade(Side.BUY, 10, 800, filled=3)
    assert day.account.blocked

    assert day.settled(closing=800).available == CASH - 3 * 800
