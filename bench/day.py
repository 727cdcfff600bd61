"""Measures a day of half a million orders: taking it in, starting again on it, and one trader's page.

    python bench/day.py [--orders 500000] [--traders 1000] [--pages 2000] [--database day.db]

The orders go through the order book as a broker's rows do (join, dedupe mark, outbox, one commit per batch, SQLite with
synchronous=FULL). Then a new process's view of it: every trader's shelf is loaded from the database. Then the page's
query of one trader after another, in a drawn order, each as the page asks it (snapshot of orders, trades, positions
and cursor in one moment). With --database the day is kept, and a second run measures the pages alone.
"""

from __future__ import annotations

import argparse
import platform
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from orderwire.clock import SystemClock
from orderwire.core.events import Event, EventType
from orderwire.core.orders import (
    IST,
    AccountId,
    Channel,
    OrderId,
    OrderStatus,
    OrderUpdate,
    Trade,
    session_date,
)
from orderwire.store import outbox
from orderwire.store.book import OrderBook
from orderwire.store.database import Database

BATCH = 256
GATE_MS = 20.0
SYMBOLS = ("INFY", "SBIN", "RELIANCE", "TCS", "HDFCBANK", "NIFTY26AUG24500CE")
ENDS = (
    ("COMPLETE", OrderStatus.FILLED, 10),
    ("CANCELLED", OrderStatus.CANCELLED, 4),
    ("REJECTED", OrderStatus.REJECTED, 0),
    ("OPEN", OrderStatus.OPEN, 0),
)
RAW = b"x" * 900
"""As long as a Kite order row."""


def day(orders: int, traders: int) -> Iterator[Event]:
    """Tell a day's orders, one row each, and the trades of those that filled; traders take turns."""
    began = datetime.now(IST).replace(microsecond=0)
    for number in range(orders):
        account = AccountId(f"T{number % traders:05}")
        word, status, filled = ENDS[number % len(ENDS)]
        symbol, order = SYMBOLS[number % len(SYMBOLS)], OrderId(f"26010500{number:07}")
        shared = {
            "account": account,
            "broker": "zerodha",
            "order_id": order,
            "trading_date": session_date(began),
            "symbol": symbol,
            "exchange": "NSE",
            "side": "BUY",
            "product": "MIS",
            "received_ns": time.time_ns(),
            "raw": RAW,
        }
        update = OrderUpdate(
            **shared,
            channel=Channel.REST,
            raw_status=word,
            status=status,
            phase=9,
            order_type="LIMIT",
            quantity=10,
            filled_quantity=filled,
            price=Decimal("1500.05"),
            average_price=Decimal("1500.05") if filled else Decimal(0),
            broker_time=began - timedelta(seconds=number % 3600),
            tag=f"tag{number % 10}",
        )
        yield Event(EventType.ORDER_UPDATE, update)
        if status is OrderStatus.FILLED:
            yield Event(
                EventType.TRADE_UPDATE,
                Trade(
                    **shared, channel=Channel.REST, trade_id=str(number), quantity=filled, price=update.price
                ),
            )


def take_in(database: Database, orders: int, traders: int) -> float:
    book = OrderBook(database, clock=SystemClock())
    began = time.perf_counter()
    for number, event in enumerate(day(orders, traders)):
        book.on_observation(event)
        if number % BATCH == BATCH - 1:
            book.commit()
        if number % 20_000 == 0:
            print(f"\r{number:,} observations", end="", file=sys.stderr, flush=True)
    book.commit()
    print(file=sys.stderr)
    return time.perf_counter() - began


def start_again(database: Database, traders: int) -> float:
    book = OrderBook(database, clock=SystemClock())
    began = time.perf_counter()
    held = sum(book.open_orders(AccountId(f"T{number:05}")) for number in range(traders))
    assert held > 0
    return time.perf_counter() - began


def pages(database: Database, traders: int, count: int) -> tuple[list[float], list[float], float]:
    """Return the milliseconds of each page's query, by the clock and of the processor, and the orders a page has."""
    rng, taken, worked, rows = random.Random(0), [], [], 0
    for _ in range(count):
        account = AccountId(f"T{rng.randrange(traders):05}")
        began, ran = time.perf_counter(), time.thread_time()
        page = outbox.snapshot(database, account)
        taken.append((time.perf_counter() - began) * 1000)
        worked.append((time.thread_time() - ran) * 1000)
        rows += len(page.orders)
    return sorted(taken), sorted(worked), rows / count


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=500_000)
    parser.add_argument("--traders", type=int, default=1000)
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--database", type=Path, help="keep the day here; if it is there, only read it")
    asked = parser.parse_args()
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, synchronous=FULL")
    with tempfile.TemporaryDirectory() as folder:
        path = asked.database or Path(folder) / "day.db"
        new = not path.exists()
        database = Database(f"sqlite:///{path}", clock=SystemClock())
        database.migrate()
        if new:
            seconds = take_in(database, asked.orders, asked.traders)
            print(f"{asked.orders:,} orders of {asked.traders:,} traders taken in: {seconds:.0f} s,", end=" ")
            print(f"{asked.orders / seconds:,.0f} orders/s, {path.stat().st_size / 1e6:,.0f} MB")
        print(f"every trader's shelf loaded again: {start_again(database, asked.traders):.1f} s")
        taken, worked, rows = pages(database, asked.traders, asked.pages)
        database.close()
    print(f"one trader's page ({rows:.0f} orders), {len(taken):,} queries:")
    for name, each in (("by the clock", taken), ("of the processor", worked)):
        p50, p99 = (each[int(len(each) * share)] for share in (0.5, 0.99))
        print(f"  {name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    p99 = taken[int(len(taken) * 0.99)]
    return 0 if p99 < GATE_MS else 1


if __name__ == "__main__":
    sys.exit(main())
