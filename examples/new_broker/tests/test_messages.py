"""Paisa's sample payloads are read as they are meant."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

from orderwire.core.instruments import Instrument, InstrumentTable
from orderwire.core.orders import AccountId, Channel, OrderStatus

from orderwire_paisa import messages

SAMPLES = Path(__file__).parent / "data"
LISTED = Instrument(
    broker="paisa", exchange="NSE", symbol="SBIN", broker_exchange="NSE", broker_symbol="SBIN-E", token=3045
)
READING = messages.Reading(
    account=AccountId("acc"),
    channel=Channel.REST,
    trading_date=date(2026, 8, 17),
    received_ns=1,
    instruments=InstrumentTable([LISTED]),
)


def orders():
    data = messages.read_reply((SAMPLES / "orders.json").read_bytes(), status=200)
    return [messages.order_update(row, READING) for row in messages.rows(data)]


def test_a_partly_filled_order_is_read():
    order, _ = orders()

    assert (order.symbol, order.side, order.order_type, order.product) == ("SBIN", "BUY", "LIMIT", "MIS")
    assert (order.status, order.filled_quantity) == (OrderStatus.PARTIALLY_FILLED, 4)
    assert (order.price, order.average_price) == (Decimal(790), Decimal("789.95"))
    assert order.broker_time.isoformat() == "2026-08-17T10:00:01+05:30"


def test_words_that_are_not_known_stay_what_they_are():
    _, order = orders()

    assert (order.status, order.phase, order.raw_status) == (OrderStatus.UNKNOWN, -1, "SLEEPING")
    assert (order.order_type, order.symbol, order.known_symbol) == ("ICE", "GOLD-X", False)
