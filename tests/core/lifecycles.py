"""Orders' lives at both brokers, as observations: what kite.md §3 and xts.md §3 say an order goes through."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal

from msgspec.structs import replace

from orderwire.core.orders import (
    IST,
    AccountId,
    Channel,
    OrderId,
    OrderStatus,
    OrderUpdate,
    Overlay,
)

T0 = datetime(2026, 1, 5, 10, 0, 0, tzinfo=IST)
S = OrderStatus
MODIFY, CANCEL = Overlay.PENDING_MODIFY, Overlay.PENDING_CANCEL

KITE_PHASES = {
    "PUT ORDER REQ RECEIVED": 0,
    "VALIDATION PENDING": 1,
    "OPEN PENDING": 2,
    "MODIFY VALIDATION PENDING": 3,
    "MODIFY PENDING": 4,
    "CANCEL PENDING": 5,
    "MODIFIED": 6,
    "NOT MODIFIED": 6,
    "TRIGGER PENDING": 7,
    "OPEN": 8,
    "UPDATE": 8,
    "COMPLETE": 9,
    "CANCELLED": 9,
    "REJECTED": 9,
}
XTS_PHASES = {
    "PendingNew": 0,
    "PendingReplace": 1,
    "PendingCancel": 2,
    "New": 3,
    "Replaced": 3,
    "PartiallyFilled": 3,
    "Filled": 4,
    "Cancelled": 4,
    "Rejected": 4,
    "Expired": 4,
}


def said(status=S.OPEN, *, at=0, **changes):
    """Return an observation `at` seconds after ten; Kite's OPEN over the stream unless said otherwise."""
    values = {
        "account": AccountId("ZA1"),
        "broker": "zerodha",
        "order_id": OrderId("260105000000001"),
        "channel": Channel.STREAM,
        "trading_date": date(2026, 1, 5),
        "raw_status": "" if status is None else status.value,
        "status": status,
        "phase": 9 if status in {S.FILLED, S.CANCELLED, S.REJECTED, S.EXPIRED} else 8,
        "symbol": "INFY",
        "exchange": "NSE",
        "side": "BUY",
        "order_type": "LIMIT",
        "product": "CNC",
        "validity": "DAY",
        "quantity": 10,
        "price": Decimal("1500.05"),
        "exchange_order_id": "1300000015536862",
        "broker_time": None if at is None else T0 + timedelta(seconds=at),
    }
    return OrderUpdate(**(values | changes))


def rest(status=S.OPEN, **changes):
    """Return the same, read from the order book."""
    return said(status, **({"channel": Channel.REST} | changes))


def _kite(raw, status, at, filled=0, **changes):
    changes = {"order_type": "LIMIT"} | changes
    overlay = changes.pop("overlay", Overlay.NONE)
    average = Decimal("1500.05") if filled else Decimal(0)
    return said(
        status,
        at=at,
        raw_status=raw,
        phase=KITE_PHASES[raw],
        overlay=overlay,
        filled_quantity=filled,
        average_price=average,
        **changes,
    )


def _xts(raw, status, at, filled=0, **changes):
    overlay = changes.pop("overlay", Overlay.NONE)
    average = Decimal("1500.05") if filled else Decimal(0)
    identity = {"broker": "jainam", "account": AccountId("JA1"), "order_id": OrderId("1110037999")}
    return said(
        status,
        at=at,
        raw_status=raw,
        phase=XTS_PHASES[raw],
        overlay=overlay,
        filled_quantity=filled,
        average_price=average,
        **(identity | changes),
    )


def _unseen(update):
    """Return the observation as it is before the exchange knows the order."""
    return replace(update, exchange_order_id="")


NEW = Decimal("1490.00")

KITE_LIVES = {
    "limit order filled in three": [
        _unseen(_kite("PUT ORDER REQ RECEIVED", S.PENDING_NEW, 0)),
        _unseen(_kite("OPEN PENDING", S.PENDING_NEW, 0)),
        _kite("OPEN", S.OPEN, 0),
        _kite("UPDATE", S.PARTIALLY_FILLED, 1, filled=3),
        _kite("UPDATE", S.PARTIALLY_FILLED, 1, filled=7),
        _kite("COMPLETE", S.FILLED, 2, filled=10),
    ],
    "all within one second": [
        _unseen(_kite("VALIDATION PENDING", S.PENDING_NEW, 0)),
        _unseen(_kite("OPEN PENDING", S.PENDING_NEW, 0)),
        _kite("OPEN", S.OPEN, 0),
        _kite("UPDATE", S.PARTIALLY_FILLED, 0, filled=4),
        _kite("COMPLETE", S.FILLED, 0, filled=10),
    ],
    "rejected by the risk check": [
        _unseen(_kite("PUT ORDER REQ RECEIVED", S.PENDING_NEW, 0)),
        _unseen(_kite("VALIDATION PENDING", S.PENDING_NEW, 0)),
        _unseen(_kite("REJECTED", S.REJECTED, 0, reason="Insufficient funds.")),
    ],
    "stop order modified, triggered, filled": [
        _unseen(_kite("OPEN PENDING", S.PENDING_NEW, 0, order_type="SL")),
        _kite("TRIGGER PENDING", S.TRIGGER_PENDING, 0, order_type="SL"),
        _kite("MODIFY PENDING", None, 2, order_type="SL", overlay=MODIFY),
        _kite("MODIFIED", None, 2, order_type="SL"),
        _kite("TRIGGER PENDING", S.TRIGGER_PENDING, 2, order_type="SL", price=NEW),
        _kite("OPEN", S.OPEN, 3, order_type="SL", price=NEW),
        _kite("COMPLETE", S.FILLED, 4, filled=10, order_type="SL", price=NEW),
    ],
    "modification refused, then cancelled with a fill": [
        _kite("OPEN", S.OPEN, 0),
        _kite("MODIFY VALIDATION PENDING", None, 1, overlay=MODIFY),
        _kite("NOT MODIFIED", None, 1, reason="16346 : Order cannot be modified"),
        _kite("OPEN", S.OPEN, 1),
        _kite("CANCEL PENDING", None, 2, overlay=CANCEL),
        _kite("UPDATE", S.PARTIALLY_FILLED, 2, filled=3),
        _kite("CANCELLED", S.CANCELLED, 3, filled=3),
    ],
}
XTS_LIVES = {
    "limit order filled in three": [
        _unseen(_xts("PendingNew", S.PENDING_NEW, 0)),
        _xts("New", S.OPEN, 0),
        _xts("PartiallyFilled", S.PARTIALLY_FILLED, 1, filled=3),
        _xts("PartiallyFilled", S.PARTIALLY_FILLED, 1, filled=7),
        _xts("Filled", S.FILLED, 1, filled=10),
    ],
    "replaced, then cancelled by self-trade prevention": [
        _unseen(_xts("PendingNew", S.PENDING_NEW, 0)),
        _xts("New", S.OPEN, 0),
        _xts("PendingReplace", None, 1, overlay=MODIFY),
        _xts("Replaced", S.OPEN, 1, price=NEW),
        _xts("PartiallyFilled", S.PARTIALLY_FILLED, 2, filled=4, price=NEW),
        _xts("Cancelled", S.CANCELLED, 2, filled=4, price=NEW, reason="17071 : self-trade prevention"),
    ],
    "rejected by the gateway": [
        _unseen(_xts("PendingNew", S.PENDING_NEW, 0)),
        _unseen(_xts("Rejected", S.REJECTED, 0, reason="RMS:Margin Exceeds")),
    ],
    "stop order triggered and filled": [
        _unseen(_xts("PendingNew", S.PENDING_NEW, 0, order_type="SL-M")),
        _xts("New", S.TRIGGER_PENDING, 0, order_type="SL-M", price=Decimal(0)),
        _xts("New", S.OPEN, 5, order_type="MARKET", price=Decimal(0)),
        _xts("Filled", S.FILLED, 5, filled=10, order_type="MARKET", price=Decimal(0)),
    ],
    "expired at the end of the day": [
        _xts("New", S.OPEN, 0),
        _xts("PendingCancel", None, 1, overlay=CANCEL),
        _xts("New", S.OPEN, 2),
        _xts("PartiallyFilled", S.PARTIALLY_FILLED, 3, filled=1),
        _xts("Expired", S.EXPIRED, 9, filled=1),
    ],
}
LIVES = {f"kite: {name}": life for name, life in KITE_LIVES.items()} | {
    f"xts: {name}": life for name, life in XTS_LIVES.items()
}
