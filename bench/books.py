"""Measures for how long one account's big trade book holds up the loop that all feeds share.

    python bench/books.py [--rows 20000]

Zerodha's and XTS's own readers take the same number of rows twice: at once on the loop, as a small answer is read, and
beside it, as a big one is. A task that does nothing but take its turn says for how long it had none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from msgspec import Raw

from orderwire.brokers.parsing import BIG, parsed
from orderwire.brokers.xts import messages as xts
from orderwire.brokers.zerodha import messages as kite
from orderwire.core.books import read_rows
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import AccountId, Channel

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
FACTS: dict[str, Any] = {
    "account": AccountId("A1"),
    "channel": Channel.REST,
    "trading_date": date(2026, 8, 17),
    "received_ns": 1,
    "instruments": InstrumentTable(),
}


def zerodha(count: int) -> tuple[bytes, Callable[[bytes], Any]]:
    row = json.loads((DATA / "kite" / "trades.json").read_text())["data"][0]
    reading = kite.Reading(**FACTS)
    return json.dumps([row] * count).encode(), lambda book: kite.read_trades(Raw(book), reading)


def jainam(count: int) -> tuple[bytes, Callable[[bytes], Any]]:
    row = json.loads((DATA / "xts" / "socket_trade.json").read_text())
    reading = xts.Reading(broker="jainam", **FACTS)

    def read(book: bytes) -> Any:
        return read_rows(xts.list_rows(book), lambda raw: xts.trade(xts.read_row(raw), reading, raw=raw))

    return json.dumps([row] * count).encode(), read


async def longest_pause(work: Awaitable[Any]) -> tuple[float, float]:
    """Return the longest time without a turn while `work` ran, and how long that took, in milliseconds."""
    worst, last = 0.0, time.perf_counter()

    async def take_turns() -> None:
        nonlocal worst, last
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            worst, last = max(worst, now - last), now

    turns = asyncio.create_task(take_turns())
    await asyncio.sleep(0)
    began = time.perf_counter()
    await work
    took = time.perf_counter() - began
    await asyncio.sleep(0)
    turns.cancel()
    with suppress(asyncio.CancelledError):
        await turns
    return 1e3 * worst, 1e3 * took


async def measure(count: int) -> None:
    for name, broker in (("Zerodha", zerodha), ("XTS", jainam)):
        book, read = broker(count)
        for way, size in (("at once", 0), ("beside the loop", max(len(book), BIG))):
            pause, took = await longest_pause(parsed(size, lambda read=read, book=book: read(book)))
            print(
                f"{name}, {count:,} rows, {len(book) / 1e6:.1f} MB, {way}: {took:.0f} ms, nobody's turn for {pause:.0f} ms"
            )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    sys.setswitchinterval(0.0005)  # as the service has it
    asyncio.run(measure(parser.parse_args().rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
