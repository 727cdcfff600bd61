from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal

from orderwire.core.latency import Stamps
from orderwire.core.lifecycle import openalgo_order
from orderwire.core.orders import AccountId, Channel, OrderId, OrderStatus, Position, Trade
from orderwire.core.recovery import FeedStatus, Freshness
from orderwire.web import payloads
from web.house import INSTRUMENTS, MemoryLog, order

NOON = datetime(2026, 11, 24, 6, 30, 15, tzinfo=UTC)
TRADE = Trade(
    account=AccountId("acc"),
    broker="wired",
    order_id=OrderId("1"),
    trade_id="7",
    channel=Channel.STREAM,
    trading_date=date(2026, 11, 24),
    symbol="INFY",
    exchange="NSE",
    side="BUY",
    product="MIS",
    quantity=5,
    price=Decimal("1500.55"),
    traded_at=NOON,
)
POSITION = Position(
    account=AccountId("acc"),
    broker="wired",
    channel=Channel.REST,
    trading_date=date(2026, 11, 24),
    symbol="INFY",
    exchange="NSE",
    product="MIS",
    quantity=-5,
    average_price=Decimal("1500.55"),
    pnl=Decimal("-12.5"),
)


def test_an_order_keeps_openalgos_fields_as_they_are():
    view = order(status=OrderStatus.PARTIALLY_FILLED, filled_quantity=3, reason="")

    told = payloads.order_fields(view)

    assert openalgo_order(view).items() <= told.items()
    assert (told["order_status"], told["status"]) == ("open", "PARTIALLY_FILLED")


def test_times_are_told_to_programs_in_ms_and_to_openalgo_in_indian_text():
    told = payloads.order_fields(order(broker_time=NOON))

    assert told["broker_time"] == 1795501815000
    assert told["timestamp"] == "2026-11-24 12:00:15"


def test_what_is_not_known_yet_is_nothing_rather_than_null():
    told = payloads.order_fields(order(broker_time=None, first_seen=None, order_id=OrderId("")))

    assert (told["broker_time"], told["first_seen"], told["timestamp"], told["orderid"]) == (0, 0, "", "")


def test_trades_and_positions_have_a_key_within_their_account():
    assert payloads.trade_fields(TRADE)["row"] == "2026-11-24/NSE/1/7"
    assert payloads.position_fields(POSITION)["row"] == "NSE/INFY/MIS"
    assert payloads.position_fields(POSITION)["quantity"] == -5


def test_each_kind_of_change_has_its_event_and_its_key():
    log = MemoryLog()
    changes = [log.change(thing) for thing in (order(number=3), TRADE, POSITION)]

    assert [payloads.change_event(one) for one in changes] == [
        "order_update",
        "trade_update",
        "position_update",
    ]
    assert [payloads.change_key(one) for one in changes] == [
        ("order", "r3"),
        ("trade", "2026-11-24/NSE/1/7"),
        ("position", "NSE/INFY/MIS"),
    ]
    assert [payloads.change_fields(one)["sequence"] for one in changes] == [1, 2, 3]


def test_stamps_are_milliseconds_with_the_microseconds_kept():
    told = payloads.stamp_fields(Stamps(received=1_795_501_815_123_456_789))

    assert told["received"] == 1_795_501_815_123.4568
    assert "painted" not in told


def test_freshness_is_told_with_the_age_of_the_data():
    status = FeedStatus(
        account=AccountId("acc"), freshness=Freshness.STALE, since=NOON, read_at=NOON, detail="No answer."
    )

    told = payloads.feed_fields(status)

    assert (told["freshness"], told["read_at"], told["next_try"]) == ("STALE", 1795501815000, 0)


def test_the_packer_takes_our_values_as_they_are():
    packed = payloads.Json.dumps({"price": Decimal("1.50"), "day": date(2026, 1, 2)}, separators=(",", ":"))

    assert json.loads(packed) == {"price": "1.50", "day": "2026-01-02"}
    assert payloads.Json.loads(b'["follow",{"cursors":{}}]') == ["follow", {"cursors": {}}]


def test_an_instrument_is_told_with_what_the_ticket_needs():
    told = payloads.instrument_fields(INSTRUMENTS[5])

    assert (told["symbol"], told["lot_size"], told["tick_size"]) == ("NIFTY29DEC2624400CE", 75, 0.05)
