"""What may be asked of a real account, asked of the simulator and of the account that the environment names.

Neither Jainam nor Symphony has paper trading without keys. ORDERWIRE_LIVE_XTS_CREDENTIALS (and …_ADDRESSES,
…_ALLOW_PLAINTEXT; docs/brokers/jainam.md) add a real account or Symphony's developer server. With …_ORDER, an
OrderRequest as JSON whose price is within the day's band and far from the market, that order is placed, changed to
the price of …_OTHER_PRICE where that is given, and cancelled; nothing else is ever placed.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from decimal import Decimal

import msgspec
import pytest

from integration.jainam_desk import Simulator, checklist_of, run, seat, seat_at_account
from orderwire.core.events import EventType
from orderwire.core.orders import ModifyRequest, OrderId, OrderRequest, OrderStatus
from orderwire.errors import BrokerUnreachableError, OrderRefusedError, SessionExpiredError
from scripted_xts import until
from xts_desk import listening

ACCOUNT = "ORDERWIRE_LIVE_XTS_CREDENTIALS" in os.environ
ORDER = os.environ.get("ORDERWIRE_LIVE_XTS_ORDER", "")
BROKERS = ["simulator", *(["account"] if ACCOUNT else [])]
TRADABLE = ["simulator", *(["account"] if ACCOUNT and ORDER else [])]
SLOWLY = 15.0
"""Seconds that a real broker may take."""


@pytest.fixture(scope="module")
def simulator():
    running = Simulator()
    running.ask("POST", "/market/price", {"key": "NSE:SBIN", "price": "820"})
    yield running
    running.stop()


@pytest.fixture
def desk(request, simulator):
    """Opens a desk; each call logs in anew, with the same keys."""
    keys = simulator.trader()

    @asynccontextmanager
    async def open_desk(*, listen=True):
        at_account = request.param == "account"
        opened = (
            seat_at_account(os.environ, listen=listen)
            if at_account
            else seat(simulator, credentials=keys, listen=listen)
        )
        async with opened as here:
            yield here
        if (
            at_account
        ):  # one login for all desks, each of which counts its calls anew: the broker counts by the second
            await asyncio.sleep(1.1)

    open_desk.order = (
        msgspec.convert(json.loads(ORDER), OrderRequest, strict=False)
        if request.param == "account" and ORDER
        else OrderRequest(
            symbol="SBIN", exchange="NSE", side="BUY", quantity=10, order_type="LIMIT", price=Decimal(790)
        )
    )
    return open_desk


def at(brokers):
    return pytest.mark.parametrize("desk", brokers, indirect=True)


@at(BROKERS)
def test_every_book_can_be_read(desk):
    async def story():
        async with desk(listen=False) as here:
            adapter = here.adapter
            book = await adapter.order_book()
            histories = [await adapter.order_history(row.order_id) for row in book[:2]]
            return (
                book,
                histories,
                await adapter.trade_book(),
                await adapter.positions(),
                await adapter.holdings(),
                await adapter.funds(),
            )

    book, histories, trades, positions, _, funds = run(story())

    assert all(row.status is not OrderStatus.UNKNOWN and row.known_symbol for row in book)
    assert all(steps[-1].status is not OrderStatus.UNKNOWN for steps in histories)
    assert {trade.order_id for trade in trades} <= {row.order_id for row in book}
    assert all(position.known_symbol for position in positions)
    assert funds.account


@at(BROKERS)
def test_the_first_days_list_passes(desk):
    async def story():
        async with desk(listen=False) as here:
            return await checklist_of(here.adapter, seconds=1)

    found = run(story())

    for finding in found:
        print(f"\n{'ok' if finding.ok else 'NOT'} {finding.name}: {finding.detail}")
    assert [finding for finding in found if not finding.ok] == []


@at(BROKERS)
def test_the_stream_outlives_its_own_deadlines(desk):
    async def story():
        async with desk() as here:
            patience = here.adapter.timers.ping_every + here.adapter.timers.answer_within
            done, _ = await asyncio.wait({here.task}, timeout=patience + 1)
            return done, here.adapter.listening, here.adapter.violations

    assert run(story()) == (set(), True, 0)


@at(BROKERS)
def test_a_second_login_ends_the_first_and_one_token_serves_both(desk):
    async def story():
        async with desk() as first, desk(listen=False) as second:
            with pytest.raises(SessionExpiredError):
                await first.task
            with pytest.raises(SessionExpiredError):
                await first.adapter.order_book()
            first.adapter.session = second.adapter.session
            async with listening(first.adapter):
                await until(lambda: first.adapter.listening, seconds=SLOWLY)

    run(story())


@at(BROKERS)
def test_logging_out_ends_the_token(desk):
    async def story():
        async with desk(listen=False) as here:
            await here.adapter.logout()
            await here.adapter.order_book()

    with pytest.raises(SessionExpiredError):
        run(story())


@at(BROKERS)
def test_an_order_that_is_not_there_is_refused(desk):
    async def story():
        async with desk(listen=False) as here:
            await here.adapter.cancel_order(OrderId("4040404040"))

    with pytest.raises(OrderRefusedError):
        run(story())


@at(TRADABLE)
def test_an_order_is_placed_changed_and_cancelled_and_everything_tells_the_same(desk):
    other = Decimal(os.environ.get("ORDERWIRE_LIVE_XTS_OTHER_PRICE") or desk.order.price)

    async def history(adapter, order_id):
        while True:
            try:
                return await adapter.order_history(order_id)
            except BrokerUnreachableError:  # a broker may not have it yet
                continue  # the call's own budget sets the pace

    async def story():
        async with desk() as here:
            request = msgspec.structs.replace(desk.order, tag="owaccount")
            order_id = await here.adapter.place_order(request)
            await here.status(order_id, OrderStatus.OPEN)
            change = ModifyRequest(
                order_id=order_id,
                quantity=request.quantity,
                order_type=request.order_type,
                product=request.product,
                price=other,
            )
            await here.adapter.modify_order(change, current=here.of(order_id)[-1])
            await until(lambda: "Replaced" in here.words(order_id), seconds=SLOWLY)
            await here.adapter.cancel_order(order_id)
            await here.status(order_id, OrderStatus.CANCELLED)
            steps = await history(here.adapter, order_id)
            return here.of(order_id), (await here.settled())[order_id], steps, here.published

    updates, view, steps, published = run(story())

    assert (view.status, view.filled_quantity, view.price) == (OrderStatus.CANCELLED, 0, other)
    assert {update.tag for update in updates} == {"owaccount"}
    assert steps[-1].status is OrderStatus.CANCELLED
    assert [step.history_index for step in steps] == list(range(len(steps)))
    assert published.of(EventType.TRADE_UPDATE) == []


def test_the_environment_leads_this_suite_to_an_account(simulator):
    """The way to a real account, tried: another simulated one stands for it."""
    order = {
        "symbol": "SBIN",
        "exchange": "NSE",
        "side": "BUY",
        "quantity": 3,
        "order_type": "LIMIT",
        "price": "790",
    }
    given = {
        "ORDERWIRE_LIVE_XTS_CREDENTIALS": json.dumps(simulator.trader()),
        "ORDERWIRE_LIVE_XTS_ADDRESSES": json.dumps({"base": simulator.url}),
        "ORDERWIRE_LIVE_XTS_ORDER": json.dumps(order),
        "ORDERWIRE_LIVE_XTS_OTHER_PRICE": "789",
    }
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-k", "[account]", "-p", "no:cacheprovider"]

    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **given}
    )

    assert "7 passed" in done.stdout, done.stdout[-3000:]
