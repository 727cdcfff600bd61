"""What may be asked of a real account, asked of the simulator and, when the environment names one, of Zerodha.

Zerodha has no sandbox. ORDERWIRE_ZERODHA_API_KEY and ORDERWIRE_ZERODHA_ACCESS_TOKEN (and ORDERWIRE_ZERODHA_USER_ID)
add the real account; ORDERWIRE_ZERODHA_ORDERS=yes lets it place a purchase of one share of SBIN at
ORDERWIRE_ZERODHA_PRICE, which must be within the day's price band and well below the market, and cancel it.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from integration.zerodha_desk import SOON, Simulator, at_desk, at_zerodha, order
from orderwire.core.orders import OrderStatus

REAL = "ORDERWIRE_ZERODHA_ACCESS_TOKEN" in os.environ
MAY_ORDER = os.environ.get("ORDERWIRE_ZERODHA_ORDERS") == "yes"
PRICE = Decimal(os.environ.get("ORDERWIRE_ZERODHA_PRICE", "780"))
BROKERS = ["simulator", *(["zerodha"] if REAL else [])]
TRADABLE = ["simulator", *(["zerodha"] if REAL and MAY_ORDER else [])]


@pytest.fixture(scope="module")
def simulator():
    running = Simulator()
    running.ask("POST", "/market/price", {"key": "NSE:SBIN", "price": "820"})
    yield running
    running.stop()


@pytest.fixture
def desk(request, simulator):
    @asynccontextmanager
    async def open_desk():
        async with at_zerodha(os.environ) if request.param == "zerodha" else at_desk(simulator) as seat:
            yield seat

    return open_desk


@pytest.mark.parametrize("desk", BROKERS, indirect=True)
def test_every_book_can_be_read(desk):
    async def story():
        async with desk() as seat:
            adapter = seat.adapter
            book = await adapter.order_book()
            histories = [await adapter.order_history(row.order_id) for row in book[:3]]
            return (
                book,
                histories,
                await adapter.trade_book(),
                await adapter.positions(),
                await adapter.holdings(),
                await adapter.funds(),
                adapter.tools.instruments,
                adapter.broker_now(),
            )

    book, histories, trades, positions, _, funds, instruments, broker_now = asyncio.run(story())

    assert all(row.status is not OrderStatus.UNKNOWN and row.known_symbol for row in book)
    assert all(steps[-1].order_id for steps in histories)
    assert {trade.order_id for trade in trades} <= {row.order_id for row in book}
    assert all(position.known_symbol for position in positions)
    assert funds.account == "it"
    assert instruments.by_symbol("NSE", "SBIN").token == 3045
    assert broker_now is not None


@pytest.mark.parametrize("desk", BROKERS, indirect=True)
def test_the_stream_beats_faster_than_its_deadline(desk):
    async def story():
        async with desk() as seat:
            await seat.listen()
            done, _ = await asyncio.wait({seat.listening}, timeout=seat.adapter.silence + 1)
            return done, seat.adapter.violations

    assert asyncio.run(story()) == (set(), 0)


@pytest.mark.parametrize("desk", TRADABLE, indirect=True)
def test_an_order_comes_and_goes(desk):
    async def story():
        async with desk() as seat:
            await seat.listen()
            terms = order(quantity=1, price=PRICE, tag="OWACCOUNT")
            order_id = await seat.adapter.place_order(terms)
            placed = await seat.status(order_id, OrderStatus.OPEN)
            await seat.adapter.cancel_order(order_id, current=placed)
            await seat.status(order_id, OrderStatus.CANCELLED)
            async with asyncio.timeout(SOON):
                book = {row.order_id: row for row in await seat.adapter.order_book()}
            return book[order_id]

    row = asyncio.run(story())

    assert (row.status, row.tag) == (OrderStatus.CANCELLED, "OWACCOUNT")
