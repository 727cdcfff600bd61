"""What the benchmarks of the store take in: the lives of orders as Kite tells them, and as long."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from decimal import Decimal

from orderwire.core.orders import AccountId, Channel, OrderId, OrderStatus, OrderUpdate, session_date

LIFE = (
    ("PUT ORDER REQ RECEIVED", OrderStatus.PENDING_NEW, 0, 0),
    ("OPEN", OrderStatus.OPEN, 10, 0),
    ("UPDATE", OrderStatus.OPEN, 10, 5),
    ("COMPLETE", OrderStatus.FILLED, 11, 10),
)
"""The broker's word, our status, its phase, and how much is filled by then; one a second."""

RAW = b"x" * 900
"""As long as a Kite order frame."""


def update(account: str, order_id: str, *, step: int, began: datetime) -> OrderUpdate:
    """Return what is said of an order at a step of its life, that began then, received now."""
    raw_status, status, phase, filled = LIFE[step]
    return OrderUpdate(
        account=AccountId(account),
        broker="zerodha",
        order_id=OrderId(order_id),
        channel=Channel.STREAM,
        trading_date=session_date(began),
        raw_status=raw_status,
        status=status,
        phase=phase,
        symbol="INFY",
        exchange="NSE",
        side="BUY",
        order_type="LIMIT",
        product="CNC",
        quantity=10,
        filled_quantity=filled,
        price=Decimal("1500.05"),
        average_price=Decimal("1500.05") if filled else Decimal(0),
        broker_time=began + timedelta(seconds=step),
        received_ns=time.time_ns(),
        raw=RAW,
    )
