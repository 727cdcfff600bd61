"""Observations as the tests of the store need them: one order's life, in Zerodha's words, and our submissions."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import Submission, SubmissionState
from orderwire.core.orders import (
    IST,
    Channel,
    OrderRequest,
    OrderStatus,
    OrderUpdate,
    Position,
    Trade,
    Unreadable,
    session_date,
)
from orderwire.core.recovery import BookRead

OPENED = datetime(2026, 8, 17, 10, 30, 0, tzinfo=IST)
"""The broker's time of the first word about an order; the test clock stands at the same moment."""

DAY = date(2026, 8, 17)
NS = 1_000_000_000


class FakeClock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.moment = OPENED.astimezone(UTC)
        self.ticks = 100.0

    def now(self) -> datetime:
        return self.moment

    def time_ns(self) -> int:
        return int(self.moment.timestamp()) * 1_000_000_000

    def monotonic(self) -> float:
        return self.ticks

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
        self.ticks += seconds


_WORDS = {
    "placed": ("PUT ORDER REQ RECEIVED", OrderStatus.PENDING_NEW, 0, 0, 0),
    "open": ("OPEN", OrderStatus.OPEN, 10, 0, 1),
    "part": ("UPDATE", OrderStatus.OPEN, 10, 4, 2),
    "filled": ("COMPLETE", OrderStatus.FILLED, 11, 10, 3),
    "cancelled": ("CANCELLED", OrderStatus.CANCELLED, 11, 4, 4),
    "rejected": ("REJECTED", OrderStatus.REJECTED, 11, 0, 3),
}
LIFE = ("placed", "open", "part", "filled")


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * NS


def update(
    word: str = "open", *, order: str = "260817000000001", account: str = "A1", **given: Any
) -> OrderUpdate:
    """One word about an order, at the second the story has it."""
    raw_status, status, phase, filled, second = _WORDS[word]
    at = given.pop("at", OPENED + timedelta(seconds=second))
    values = {
        "broker": "zerodha",
        "channel": Channel.STREAM,
        "trading_date": session_date(at),
        "raw_status": raw_status,
        "status": status,
        "phase": phase,
        "symbol": "SBIN",
        "exchange": "NSE",
        "side": "BUY",
        "order_type": "LIMIT",
        "product": "MIS",
        "validity": "DAY",
        "quantity": 10,
        "filled_quantity": filled,
        "price": Decimal("800.10"),
        "average_price": Decimal("800.05") if filled else Decimal(0),
        "broker_time": at,
        "received_ns": ns(at) + 20_000_000,
        "raw": f'{{"order_id": "{order}", "status": "{raw_status}"}}'.encode(),
    }
    return OrderUpdate(account=account, order_id=order, **{**values, **given})


def read(word: str = "open", **given: Any) -> OrderUpdate:
    """The same as a row of the broker's order book."""
    return update(word, **{"channel": Channel.REST, **given})


def hint(*, order: str = "260817000000001", received: datetime = OPENED, **given: Any) -> OrderUpdate:
    """What a postback claims."""
    return update("filled", order=order, channel=Channel.POSTBACK, received_ns=ns(received), **given)


def trade(number: str = "T1", *, order: str = "260817000000001", **given: Any) -> Trade:
    values = {
        "account": "A1",
        "broker": "zerodha",
        "channel": Channel.REST,
        "trading_date": DAY,
        "symbol": "SBIN",
        "exchange": "NSE",
        "side": "BUY",
        "product": "MIS",
        "quantity": 4,
        "price": Decimal("800.05"),
        "traded_at": OPENED + timedelta(seconds=2),
        "received_ns": ns(OPENED) + 2 * NS,
        "raw": b"{}",
    }
    return Trade(order_id=order, trade_id=number, **{**values, **given})


def position(**given: Any) -> Position:
    values = {
        "account": "A1",
        "broker": "zerodha",
        "channel": Channel.REST,
        "trading_date": DAY,
        "symbol": "SBIN",
        "exchange": "NSE",
        "product": "MIS",
        "quantity": 4,
        "average_price": Decimal("800.05"),
        "last_price": Decimal(801),
        "buy_quantity": 4,
        "buy_value": Decimal("3200.20"),
        "received_ns": ns(OPENED) + 2 * NS,
        "raw": b"{}",
    }
    return Position(**{**values, **given})


def submission(
    tag: str = "OWTAG1", *, state: SubmissionState = SubmissionState.SENDING, **given: Any
) -> Submission:
    values = {
        "account": "A1",
        "broker": "zerodha",
        "request": OrderRequest(
            symbol="SBIN",
            exchange="NSE",
            side="BUY",
            quantity=10,
            order_type="LIMIT",
            price=Decimal("800.10"),
            tag=tag,
        ),
        "created": OPENED.astimezone(UTC),
        "decided": None
        if state is SubmissionState.SENDING
        else OPENED.astimezone(UTC) + timedelta(seconds=1),
    }
    return Submission(id=tag, state=state, **{**values, **given})


def observed(value: OrderUpdate | Trade | Position | BookRead | Unreadable) -> Event:
    kinds = {
        BookRead: EventType.BOOK_READ,
        Unreadable: EventType.UNREADABLE,
        OrderUpdate: EventType.ORDER_UPDATE,
        Trade: EventType.TRADE_UPDATE,
        Position: EventType.POSITION_UPDATE,
    }
    return Event(kinds[type(value)], value)
