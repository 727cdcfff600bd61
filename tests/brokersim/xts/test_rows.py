"""Rows and events: their exact spelling, and the keys and types of third-party samples where those are present."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from brokersim.orders import OrderType
from brokersim.portfolio import Position
from brokersim.xts import rows
from brokersim.xts.rows import Manner
from xts_floor import Floor

INVESTOR = Manner(client="C1")


@pytest.fixture
def floor():
    return Floor()


@pytest.fixture
def filled(floor):
    """A view of an order filled in two parts at different prices, on a dearer share."""
    floor.place(quantity=50)
    floor.exchange.fill("xts:1", 20, Decimal("2853.5"))
    floor.timeline.advance_by(1)
    floor.exchange.fill("xts:1", 30, Decimal("2853.1"))
    return floor.shown[-1]


def test_average_has_thousands_commas_as_text_and_is_a_number_in_the_twin(filled):
    row = rows.socket_order(filled, INVESTOR, sequence=1)

    assert (row["OrderAverageTradedPrice"], row["OrderAverageTradedPriceAPI"]) == ("2,853.26", 2853.26)


def test_average_of_an_unfilled_order(floor):
    floor.place()
    row = rows.socket_order(floor.shown[0], INVESTOR, sequence=1)

    assert (row["OrderAverageTradedPrice"], row["OrderAverageTradedPriceAPI"]) == ("", "NaN")


def test_times_of_a_pending_order(floor):
    floor.place()
    row = rows.socket_order(floor.shown[0], INVESTOR, sequence=1)

    assert row["OrderGeneratedDateTime"] == "2027-01-05T10:00:00.25"
    assert row["ExchangeTransactTime"] == "2027-01-05T10:00:00.25+05:30"
    assert row["ExchangeTransactTimeAPI"] == "05-01-2027 10:00:00"


def test_times_once_the_exchange_has_stamped(floor):
    floor.place()
    row = rows.socket_order(floor.shown[1], INVESTOR, sequence=1)

    assert row["ExchangeTransactTime"] == "2027-01-05T10:00:00+05:30"
    assert row["LastUpdateDateTime"] == "2027-01-05T10:00:00.274"


@pytest.mark.parametrize(
    ("microsecond", "text"),
    [(0, "10:00:00"), (250_000, "10:00:00.25"), (597_283, "10:00:00.5972831"), (566_030, "10:00:00.56603")],
)
def test_nought_to_seven_digits(floor, microsecond, text):
    assert rows.iso(floor.timeline.date.replace(microsecond=microsecond)) == f"2027-01-05T{text}"


def test_rest_row_of_a_newer_server(filled):
    row = rows.rest_order(filled, INVESTOR)

    assert (row["OrderSide"], row["SequenceNumber"], row["ApplicationType"]) == ("BUY", 0, 0)
    assert row["LastUpdateDateTime"] == "05-01-2027 10:00:02"
    assert row["OrderExpiryDate"] == "01-01-1980 00:00:00"


def test_rest_row_of_an_older_server(filled):
    row = rows.rest_order(filled, replace(INVESTOR, old=True))

    assert row["OrderSide"] == "Buy"
    assert row["OrderGeneratedDateTime"] == "2027-01-05T10:00:00.25"
    assert row["ExchangeTransactTime"] == "2027-01-05T10:00:02+05:30"
    assert len(str(row["SequenceNumber"])) == 15
    assert not {"IsAMO", "ApiOrderSource", "TradingSymbol", "BoLegDetails"} & set(row)


def test_leaves_quantity_is_not_zeroed(floor):
    floor.place()
    floor.exchange.fill("xts:1", 20)
    floor.exchange.cancel_by_exchange("xts:1")
    row = rows.rest_order(floor.shown[-1], INVESTOR)

    assert (row["OrderStatus"], row["LeavesQuantity"], row["CumulativeQuantity"]) == ("Cancelled", 30, 20)
    assert row["CancelRejectReason"].endswith(" ")


def test_triggered_stop_keeps_its_stop_price(floor):
    floor.place(type=OrderType.SLM, trigger_price=Decimal("810.5"), price=Decimal(0))
    floor.exchange.set_price("NSE:SBIN", Decimal(811))
    row = rows.rest_order(floor.shown[-1], INVESTOR)

    assert (row["OrderType"], row["OrderStopPrice"], row["OrderPrice"]) == ("Market", 810.5, 0)


def test_clock_skew(filled):
    manner = replace(INVESTOR, broker_skew=timedelta(seconds=1), exchange_skew=timedelta(seconds=-2))
    row = rows.rest_order(filled, manner)

    assert (row["LastUpdateDateTime"], row["ExchangeTransactTime"]) == (
        "05-01-2027 10:00:03",
        "05-01-2027 10:00:00",
    )


def test_terminal_order(floor):
    floor.place()
    view = replace(
        floor.shown[0],
        order=replace(floor.shown[0].order, request=replace(floor.shown[0].order.request, app="")),
    )
    row = rows.socket_order(view, INVESTOR, sequence=1)

    assert (row["GeneratedBy"], row["ApplicationType"]) == ("TWS", 0)


@pytest.fixture
def position(floor):
    return Position(
        instrument=floor.exchange.instrument("NSE:SBIN"),
        product="MIS",
        last=Decimal(800),
        buy_quantity=26,
        buy_value=Decimal("18465.2"),
        sell_quantity=1026,
        sell_value=Decimal("818594.55"),
    )


def test_rest_position_is_text_with_commas(position):
    row = rows.rest_position(position, account="Pro")

    assert (row["AccountID"], row["OpenSellQuantity"], row["Quantity"]) == ("Pro", "1,026", "-1,000")
    assert (row["SellAmount"], row["NetAmount"], row["BuyAveragePrice"]) == (
        "818,594.55",
        "800,129.35",
        "710.20",
    )
    assert row["ExchangeInstrumentId"] == "3045"


def test_socket_position_is_text_with_raw_floats(position):
    row = rows.socket_position(position, INVESTOR, login="L1", kind="DayWise")

    assert (row["LongPosition"], row["ShortPosition"], row["NetPosition"]) == ("26", "1026", "-1000")
    assert (row["BuyValue"], row["NetValue"]) == ("18465.2", repr(818594.55 - 18465.2))
    assert (row["RealizedMTM"], row["ExchangeInstrumentID"]) == ("0.00", "3045")


def test_nothing_is_minus_nought():
    assert rows.with_commas(Decimal("-0.001")) == "0.00"


# ---- third-party samples


def payload(samples, name):
    return json.loads((samples / "xts" / f"{name}.json").read_text())["payload"]


def shape(row):
    """Keys in order, with the kind of each value; a number may be whole or not."""
    return [
        (key, "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value))
        for key, value in row.items()
    ]


@pytest.mark.needs("samples")
def test_socket_order_is_shaped_like_the_capture(samples, floor):
    floor.place()

    assert shape(rows.socket_order(floor.shown[0], INVESTOR, sequence=1)) == shape(
        payload(samples, "socket_order_pendingnew")
    )


@pytest.mark.needs("samples")
def test_socket_trade_is_shaped_like_the_capture(samples, filled):
    assert shape(rows.socket_trade(filled, filled.trade, INVESTOR, sequence=1)) == shape(
        payload(samples, "socket_trade_filled")
    )


@pytest.mark.needs("samples")
def test_socket_position_is_shaped_like_the_capture(samples, position):
    row = rows.socket_position(position, INVESTOR, login="L1", kind="DayWise")

    assert shape(row) == shape(payload(samples, "socket_position_daywise"))


@pytest.mark.needs("samples")
def test_history_row_is_shaped_like_the_capture(samples, floor):
    floor.place()
    row = rows.rest_order(floor.shown[0], INVESTOR, history=True)

    assert shape(row) == shape(payload(samples, "rest_order_history_pro_rejected_2026")[0])


@pytest.mark.needs("samples")
def test_older_order_row_is_shaped_like_the_capture(samples, filled):
    row = rows.rest_order(filled, replace(INVESTOR, old=True))

    assert shape(row) == shape(payload(samples, "rest_orderbook_real_2020_iso")["result"][0])


@pytest.mark.needs("samples")
def test_older_trade_row_has_the_keys_of_the_capture(samples, filled):
    row = rows.rest_trade(filled, filled.trade, replace(INVESTOR, old=True))

    assert sorted(shape(row), key=str) == sorted(
        shape(payload(samples, "rest_tradebook_real_2021_iso")[0]), key=str
    )
