from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from orderwire.brokers.zerodha.adapter import ZerodhaAdapter
from orderwire.core.events import Event, EventType
from orderwire.testing import FakeClock, RecordingPublisher, open_tools, unlimited
from orderwire.testing.desk import MONDAY


def test_a_fake_clock_moves_only_when_told_to():
    clock = FakeClock(datetime(2026, 8, 17, 4, 30, 0, 250_000, tzinfo=UTC))
    before = (clock.now(), clock.monotonic(), clock.time_ns())

    clock.advance(1.5)
    asyncio.run(clock.sleep(2))

    assert clock.now() - before[0] == timedelta(seconds=3.5)
    assert clock.monotonic() - before[1] == 3.5
    assert clock.time_ns() - before[2] == 3_500_000_000
    assert before[2] == 1_786_941_000_250_000_000


def test_a_fake_clock_starts_on_a_trading_day():
    assert FakeClock().now() == MONDAY
    assert MONDAY.weekday() == 0


def test_what_was_published_is_kept_in_order_by_type():
    published = RecordingPublisher()

    for kind, value in (
        (EventType.ORDER_UPDATE, 1),
        (EventType.TRADE_UPDATE, 2),
        (EventType.ORDER_UPDATE, 3),
    ):
        published.put(Event(kind, value))

    assert published.of(EventType.ORDER_UPDATE) == [1, 3]
    assert len(published.events) == 3


def test_one_can_wait_for_what_is_published():
    async def story():
        published = RecordingPublisher()
        waiting = asyncio.ensure_future(published.until(EventType.ORDER_UPDATE, lambda value: value > 1))
        await asyncio.sleep(0)
        for value in (1, 2):
            published.put(Event(EventType.ORDER_UPDATE, value))
        return await waiting, await published.until(EventType.ORDER_UPDATE, lambda value: value == 1)

    assert asyncio.run(story()) == (2, 1)


def test_waiting_for_what_never_comes_ends():
    with pytest.raises(TimeoutError):
        asyncio.run(RecordingPublisher().until(EventType.ORDER_UPDATE, lambda _: True, within=0.01))


def test_an_adapter_gets_what_the_service_would_give_it():
    published, clock = RecordingPublisher(), FakeClock()

    async def story():
        async with open_tools(ZerodhaAdapter, publisher=published, clock=clock) as tools:
            return tools

    tools = asyncio.run(story())

    assert (tools.publisher, tools.clock) == (published, clock)
    assert tools.http.counts() == {}
    assert tools.instruments.by_symbol("NSE", "SBIN") is None


def test_unlimited_buckets_have_the_same_names_and_no_limits():
    buckets = unlimited(ZerodhaAdapter)

    assert buckets.keys() == ZerodhaAdapter.budgets.keys()
    assert not any(bucket.budgets or bucket.breaks for bucket in buckets.values())
