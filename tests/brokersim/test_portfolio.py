"""Positions from trades."""

from decimal import Decimal

from brokersim.instruments import INSTRUMENTS
from brokersim.orders import Side
from brokersim.portfolio import positions
from sim_orders import trade

USDINR = next(each for each in INSTRUMENTS if each.exchange == "CDS")


def row(*trades, last="825"):
    (only,) = positions(trades, lambda _: Decimal(last))
    return only


def test_an_open_position_is_worth_the_last_price():
    found = row(trade("820", 10), trade("822", 30))

    assert (found.quantity, found.average) == (40, Decimal("821.5"))
    assert (found.realised, found.unrealised) == (0, Decimal(140))


def test_a_closed_one_has_realised_its_profit():
    found = row(trade("820", 10), trade("823", 10, Side.SELL))

    assert (found.quantity, found.average, found.unrealised) == (0, 0, 0)
    assert found.realised == 30


def test_a_short_one_gains_when_the_price_falls():
    found = row(trade("830", 10, Side.SELL), last="825")

    assert (found.quantity, found.average, found.unrealised) == (-10, 830, 50)


def test_the_multiplier_counts_in_rupees():
    found = row(trade("87.5", 2, instrument=USDINR), last="87.6")

    assert found.unrealised == Decimal("200.0")


def test_products_and_contracts_are_kept_apart():
    trades = [trade(product="CNC"), trade(product="MIS"), trade(instrument=INSTRUMENTS[1])]

    assert len(positions(trades, lambda _: Decimal(1))) == 3
