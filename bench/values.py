"""Measures what the values that cross the house cost: structs beside dataclasses, and the join's own steps.

    python bench/values.py

Prints microseconds, the best of five rounds each. docs/decisions/0003-values.md and 0004-the-join.md quote them.
"""

from __future__ import annotations

import dataclasses
import gc
import platform
import sys
import timeit
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal

import msgspec

from orderwire.core.lifecycle import join, lift, observe, view
from orderwire.core.orders import IST, AccountId, Channel, OrderId, OrderStatus, OrderUpdate

FIELDS = {
    "account": AccountId("ZA1"),
    "broker": "zerodha",
    "order_id": OrderId("260105000000001"),
    "channel": Channel.STREAM,
    "trading_date": date(2026, 1, 5),
    "raw_status": "OPEN",
    "status": OrderStatus.OPEN,
    "phase": 8,
    "symbol": "INFY",
    "exchange": "NSE",
    "side": "BUY",
    "order_type": "LIMIT",
    "product": "CNC",
    "quantity": 10,
    "price": Decimal("1500.05"),
    "broker_time": datetime(2026, 1, 5, 10, 0, tzinfo=IST),
}

DataclassUpdate = dataclasses.make_dataclass(
    "DataclassUpdate",
    [
        (field.name, object)
        if field.required
        else (field.name, object, dataclasses.field(default=field.default))
        for field in msgspec.structs.fields(OrderUpdate)
    ],
    frozen=True,
    slots=True,
    kw_only=True,
)
"""The same fields as a frozen, slotted, keyword-only dataclass."""


def microseconds(work: Callable[[], object], *, times: int = 20_000, rounds: int = 5) -> float:
    return min(timeit.repeat(work, number=times, repeat=rounds)) / times * 1e6


def show(name: str, work: Callable[[], object]) -> float:
    cost = microseconds(work)
    print(f"{name:<44}{cost:8.2f} µs")
    return cost


def values() -> None:
    print("One observation of 30 fields, 16 given")
    struct = show("make an OrderUpdate (msgspec struct)", lambda: OrderUpdate(**FIELDS))
    other = show("make the same as a dataclass", lambda: DataclassUpdate(**FIELDS))
    print(f"{'the dataclass costs':<44}{other / struct:8.1f} times")
    one, two = OrderUpdate(**FIELDS), DataclassUpdate(**FIELDS)
    show("copy with one change, struct", lambda: msgspec.structs.replace(one, phase=9))
    show("copy with one change, dataclass", lambda: dataclasses.replace(two, phase=9))
    show("write as JSON, struct", lambda: msgspec.json.encode(one))
    print(
        f"{'watched by the collector, struct / dataclass':<44}{gc.is_tracked(one)!s:>6} / {gc.is_tracked(two)}"
    )


def steps() -> None:
    first = OrderUpdate(**FIELDS)
    then = msgspec.structs.replace(first, status=OrderStatus.PARTIALLY_FILLED, filled_quantity=3)
    row = msgspec.structs.replace(then, channel=Channel.REST)
    now = first.broker_time
    opened, filled = lift(first), join(lift(first), lift(then))
    print("\nOne observation of an order")
    show("lift", lambda: lift(then))
    show("join", lambda: join(opened, lift(then)))
    show("observe: first seen", lambda: observe(None, first, broker_now=now))
    show("observe: a change", lambda: observe(opened, then, broker_now=now))
    show("observe: a duplicate", lambda: observe(filled, then, broker_now=now))
    show("observe: a stale one", lambda: observe(filled, first, broker_now=now))
    show("observe: REST confirms", lambda: observe(filled, row, broker_now=now))
    show("view", lambda: view(filled))
    show("write the state as JSON", lambda: msgspec.json.encode(filled))
    print(f"{'the state as JSON':<44}{len(msgspec.json.encode(filled)):8d} B")


if __name__ == "__main__":
    print(f"Python {platform.python_version()}, msgspec {msgspec.__version__}, {sys.platform}\n")
    values()
    steps()
