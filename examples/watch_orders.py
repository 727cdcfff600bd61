"""Prints each order as it moves, in three ways: as an iterator, with async, and with callbacks.

python examples/watch_orders.py --apikey … [--with iterator|async|callbacks]
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from orderwire.client import Order, OrderStream
from orderwire.errors import OrderwireError


def show(order: Order) -> None:
    filled = f"{order.filled_quantity}/{order.quantity}"
    words = (
        order.orderid or "…",
        order.symbol,
        order.action,
        filled,
        order.order_status,
        order.rejection_reason,
    )
    print(*words, flush=True)


def iterate(stream: OrderStream) -> None:
    for event in stream:
        for order in event.orders:
            show(order)


async def iterate_async(stream: OrderStream) -> None:
    async for event in stream:
        for order in event.orders:
            show(order)


def call_back(stream: OrderStream) -> None:
    stream.on_order(show)
    stream.run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:5080")
    parser.add_argument("--apikey", required=True)
    parser.add_argument("--with", dest="way", choices=("iterator", "async", "callbacks"), default="iterator")
    asked = parser.parse_args()
    stream = OrderStream(asked.url, apikey=asked.apikey)
    try:
        if asked.way == "async":
            asyncio.run(iterate_async(stream))
        else:
            (call_back if asked.way == "callbacks" else iterate)(stream)
    except KeyboardInterrupt:
        pass
    except OrderwireError as error:
        sys.exit(f"watch_orders: {error}")


if __name__ == "__main__":
    main()
