"""Builds orders of the simulated exchange for tests, without an exchange."""

from datetime import datetime
from decimal import Decimal

from brokersim.instruments import INSTRUMENTS
from brokersim.orders import (
    Cause,
    OrderRecord,
    OrderRequest,
    OrderSnapshot,
    OrderType,
    Side,
    Stage,
    Terms,
    Trade,
)
from brokersim.timeline import IST

NOON = datetime(2026, 8, 17, 12, 0, 1, 250_000, tzinfo=IST)


def request(price="820", side=Side.BUY, **more):
    kind = OrderType.MARKET if price is None else OrderType.LIMIT
    terms = Terms(type=kind, quantity=more.pop("quantity", 10), price=Decimal(price or 0))
    given = {
        "broker": "kite",
        "order_id": "2125253389729136641",
        "user": "ZD0001",
        "placed_by": "ZD0001",
        "app": "demokite",
        "instrument": INSTRUMENTS[0],
        "product": "CNC",
    } | more
    return OrderRequest(side=side, terms=terms, **given)


def order(price="820", side=Side.BUY, *, stage=Stage.OPEN, changes=None, **more):
    asked = request(price, side, **more)
    given = {"number": 3, "cause": Cause.PLACED, "received_at": NOON, "updated_at": NOON} | (changes or {})
    return OrderSnapshot(request=asked, stage=stage, terms=asked.terms, **given)


def record(price="820", side=Side.BUY, **more):
    return OrderRecord(history=[order(price, side, **more)])


def trade(price="820", quantity=10, side=Side.BUY, **more):
    return Trade(
        trade_id="10000001",
        order=request(price, side, **more),
        exchange_order_id="1100000000000001",
        quantity=quantity,
        price=Decimal(price),
        at=NOON,
    )
