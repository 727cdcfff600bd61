from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from msgspec.structs import replace

from orderwire.core.claims import contradiction
from orderwire.core.lifecycle import OrderView
from orderwire.core.orders import AccountId, Channel, OrderId, OrderStatus, OrderUpdate

DAY = date(2026, 11, 24)
TERMS = {
    "account": AccountId("acc"),
    "broker": "zerodha",
    "order_id": OrderId("261124000000001"),
    "trading_date": DAY,
    "symbol": "SBIN",
    "exchange": "NSE",
    "known_symbol": True,
    "side": "BUY",
    "order_type": "LIMIT",
    "product": "CNC",
    "quantity": 10,
    "price": Decimal(820),
}
FILLED = {"status": OrderStatus.FILLED, "filled_quantity": 10, "average_price": Decimal("819.5")}
PARTLY = {"status": OrderStatus.PARTIALLY_FILLED, "filled_quantity": 4, "average_price": Decimal(820)}
OPEN = {"status": OrderStatus.OPEN}
CANCELLED = {"status": OrderStatus.CANCELLED, "filled_quantity": 4}


def claim(facts, **changes):
    return OrderUpdate(channel=Channel.POSTBACK, raw_status="", phase=0, **(TERMS | facts | changes))


def page(facts, **changes):
    return OrderView(row="r", **(TERMS | facts | changes))


@pytest.mark.parametrize(
    ("said", "held"),
    [
        (claim(FILLED), page(FILLED)),
        (claim(OPEN), page(FILLED)),
        (claim(PARTLY), page(FILLED)),
        (claim(PARTLY), page(CANCELLED)),
        (claim(CANCELLED), page(CANCELLED, filled_quantity=6)),
        (claim(OPEN, price=Decimal(815), quantity=12), page(PARTLY)),
        (claim(FILLED, average_price=Decimal("819.50")), page(FILLED)),
        (claim(FILLED, average_price=Decimal("819.505")), page(FILLED)),
        (claim(FILLED, order_type="MARKET", price=Decimal(0)), page(FILLED)),
        (claim(FILLED, known_symbol=False, symbol="what Kite calls it"), page(FILLED)),
        (replace(claim(OPEN), status=None), page(OPEN)),
    ],
)
def test_what_was_true_when_it_was_said_contradicts_nothing(said, held):
    assert contradiction(said, held) == ""


@pytest.mark.parametrize(
    ("said", "held", "differs"),
    [
        (claim(FILLED), page(OPEN), "filled quantity, status"),
        (claim(FILLED), page(CANCELLED), "filled quantity, status"),
        (claim(CANCELLED, filled_quantity=0), page(OPEN), "status"),
        (claim(PARTLY), page(OPEN), "filled quantity"),
        (claim(OPEN, side="SELL"), page(OPEN), "side"),
        (claim(OPEN, symbol="INFY"), page(OPEN), "instrument"),
        (claim(FILLED, quantity=100), page(FILLED), "quantity"),
        (claim(FILLED, filled_quantity=1), page(FILLED), "filled quantity"),
        (claim(FILLED, average_price=Decimal(1)), page(FILLED), "average price"),
        (claim(FILLED, price=Decimal(1)), page(FILLED), "price"),
    ],
)
def test_what_can_never_have_been_is_named(said, held, differs):
    assert contradiction(said, held) == differs
