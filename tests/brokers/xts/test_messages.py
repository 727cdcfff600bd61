from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderwire.brokers.xts import messages
from orderwire.brokers.xts.messages import (
    EXCHANGES,
    STATUSES,
    broker_time,
    cancel_query,
    decode_json,
    event_rows,
    funds,
    holdings,
    list_rows,
    modify_body,
    money,
    number,
    order_update,
    place_body,
    placed_order_id,
    position,
    position_rows,
    trade,
    units,
)
from orderwire.core.books import odd_rows
from orderwire.core.orders import (
    IST,
    AccountId,
    Channel,
    ModifyRequest,
    OrderId,
    OrderRequest,
    OrderStatus,
    Overlay,
)
from orderwire.errors import InvalidRequestError, ProtocolViolationError

DATA = Path(__file__).resolve().parents[2] / "data" / "xts"


def load(name):
    return json.loads((DATA / name).read_text())


# --- numbers and times ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2,853.50", Decimal("2853.50")),
        ("1,23,456.7", Decimal("123456.7")),
        ("31.80", Decimal("31.80")),
        (250.4, Decimal("250.4")),
        (3, Decimal(3)),
        (Decimal("0.1"), Decimal("0.1")),
        ("-1,250.00", Decimal("-1250.00")),
        ("", None),
        ("  ", None),
        ("NaN", None),
        ("nan", None),
        (float("nan"), None),
        (Decimal("NaN"), None),
        (None, None),
    ],
)
def test_numbers_come_in_every_spelling(value, expected):
    assert number(value) == expected


@pytest.mark.parametrize(
    "value", ["abc", "1.2.3", True, [], {}, "Infinity", float("inf"), "1e99", 10**30, "1e-99"]
)
def test_what_is_no_number_is_a_violation(value):
    with pytest.raises(ProtocolViolationError):
        number(value)


def test_money_and_units_are_zero_where_there_is_none():
    assert (money(""), units("NaN"), units(None)) == (0, 0, 0)


def test_a_quantity_must_be_whole():
    assert units("1,050.00") == 1050
    with pytest.raises(ProtocolViolationError):
        units("1.5")


@pytest.mark.parametrize(
    ("text", "clock"),
    [
        ("04-02-2026 14:22:11", (2026, 2, 4, 14, 22, 11)),
        ("2021-04-29T09:48:05.9745602", (2021, 4, 29, 9, 48, 5)),
        ("2024-12-27T11:22:47", (2024, 12, 27, 11, 22, 47)),
        ("2024-12-27T11:22:47.5", (2024, 12, 27, 11, 22, 47)),
        ("2024-12-27T11:22:47+05:30", (2024, 12, 27, 11, 22, 47)),
        ("2025-01-01T10:00:15.237162+05:30", (2025, 1, 1, 10, 0, 15)),
        ("2025-01-01T04:30:15Z", (2025, 1, 1, 10, 0, 15)),
        ("2021-10-29T17:22:25.945707", (2021, 10, 29, 17, 22, 25)),
        ("2025-01-01 10:00:15", (2025, 1, 1, 10, 0, 15)),
        ("04-Feb-2026 14:22:11", (2026, 2, 4, 14, 22, 11)),
        ("Feb 4 2026 14:22:11", (2026, 2, 4, 14, 22, 11)),
        ("04/02/202614:22:11", (2026, 2, 4, 14, 22, 11)),
    ],
)
def test_times_are_ist_cut_to_whole_seconds(text, clock):
    assert broker_time(text) == datetime(*clock, tzinfo=IST)


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        0,
        "1980-01-01T00:00:00",
        "01-01-1980 00:00:00",
        "0001-01-01T00:00:00",
        "0001-01-01T00:00:00+05:30",
    ],
)
def test_placeholders_are_no_time(text):
    assert broker_time(text) is None


@pytest.mark.parametrize(
    "text", ["yesterday", "2026-13-01T00:00:00", "31-02-2026 10:00:00", "99-XYZ-2026 10:00:00"]
)
def test_a_time_in_no_known_format_is_a_violation(text):
    with pytest.raises(ProtocolViolationError):
        broker_time(text)


# --- statuses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (("PendingNew", 0, "Limit"), (OrderStatus.PENDING_NEW, Overlay.NONE, 0)),
        (("New", 0, "Limit"), (OrderStatus.OPEN, Overlay.NONE, 3)),
        (("OPEN", 0, "Limit"), (OrderStatus.OPEN, Overlay.NONE, 3)),
        (("Replaced", 0, "Market"), (OrderStatus.OPEN, Overlay.NONE, 3)),
        (("New", 0, "StopLimit"), (OrderStatus.TRIGGER_PENDING, Overlay.NONE, 3)),
        (("Replaced", 0, "StopMarket"), (OrderStatus.TRIGGER_PENDING, Overlay.NONE, 3)),
        (("New", 5, "StopLimit"), (OrderStatus.PARTIALLY_FILLED, Overlay.NONE, 3)),
        (("Replaced", 5, "Limit"), (OrderStatus.PARTIALLY_FILLED, Overlay.NONE, 3)),
        (("PartiallyFilled", 5, "Limit"), (OrderStatus.PARTIALLY_FILLED, Overlay.NONE, 3)),
        (("Partially Filled", 5, "Limit"), (OrderStatus.PARTIALLY_FILLED, Overlay.NONE, 3)),
        (("PendingReplace", 0, "Limit"), (None, Overlay.PENDING_MODIFY, 1)),
        (("PendingCancel", 5, "Limit"), (None, Overlay.PENDING_CANCEL, 2)),
        (("Filled", 40, "Limit"), (OrderStatus.FILLED, Overlay.NONE, 4)),
        (("Cancelled", 5, "Limit"), (OrderStatus.CANCELLED, Overlay.NONE, 4)),
        (("Rejected", 0, "Limit"), (OrderStatus.REJECTED, Overlay.NONE, 4)),
        (("Expired", 0, "Limit"), (OrderStatus.EXPIRED, Overlay.NONE, 4)),
        (("Suspended", 0, "Limit"), (OrderStatus.UNKNOWN, Overlay.NONE, -1)),
    ],
)
def test_the_status_table(socket_order, reading, row, expected):
    word, filled, order_type = row
    row = {**socket_order, "OrderStatus": word, "CumulativeQuantity": filled, "OrderType": order_type}

    update = order_update(row, reading(), raw=b"{}")

    assert (update.status, update.overlay, update.phase) == expected
    assert update.raw_status == word


def test_phases_rise_as_the_design_says():
    ranks = [STATUSES[word].phase for word in ("pendingnew", "pendingreplace", "pendingcancel", "new")]

    assert ranks == sorted(set(ranks))
    assert {STATUSES[word].phase for word in ("new", "open", "replaced", "partiallyfilled")} == {3}


@pytest.mark.parametrize("status", ["Cancelled", "Rejected"])
def test_filled_is_cumulative_quantity_whatever_leaves_quantity_says(socket_order, reading, status):
    row = {**socket_order, "OrderStatus": status, "CumulativeQuantity": 15, "LeavesQuantity": 25}

    assert order_update(row, reading(), raw=b"{}").filled_quantity == 15


def test_a_triggered_stop_order_is_open_and_keeps_its_trigger(socket_order, reading):
    row = {**socket_order, "OrderStatus": "New", "OrderType": "Market"}

    update = order_update(row, reading(), raw=b"{}")

    assert (update.status, update.order_type, update.trigger_price) == (
        OrderStatus.OPEN,
        "MARKET",
        Decimal("812.35"),
    )


def test_a_refused_modification_keeps_the_order_alive_and_says_why(socket_order, reading):
    row = {**socket_order, "OrderStatus": "New", "OrderType": "Limit", "CancelRejectReason": "16388 : no "}

    update = order_update(row, reading(), raw=b"{}")

    assert (update.status, update.overlay, update.reason) == (OrderStatus.OPEN, Overlay.NONE, "16388 : no")


# --- orders -----------------------------------------------------------------------------------------------


def test_a_socket_order_is_read_whole(socket_order, reading):
    raw = json.dumps(socket_order).encode()

    update = order_update(socket_order, reading(), raw=raw)

    assert msgspec.structs.asdict(update) == {
        "account": "acc",
        "broker": "jainam",
        "order_id": "1110044001",
        "channel": Channel.STREAM,
        "trading_date": datetime(2026, 8, 17, tzinfo=UTC).date(),
        "raw_status": "PendingNew",
        "status": OrderStatus.PENDING_NEW,
        "phase": 0,
        "overlay": Overlay.NONE,
        "symbol": "SBIN",
        "exchange": "NSE",
        "known_symbol": True,
        "side": "SELL",
        "order_type": "SL-M",
        "product": "MIS",
        "validity": "DAY",
        "quantity": 40,
        "filled_quantity": 0,
        "price": Decimal(0),
        "trigger_price": Decimal("812.35"),
        "average_price": Decimal(0),
        "disclosed_quantity": 0,
        "broker_time": datetime(2026, 8, 17, 10, 15, 2, tzinfo=IST),
        "history_index": -1,
        "reason": "",
        "tag": "ow0000000001",
        "exchange_order_id": "",
        "parent_order_id": "",
        "placed_by": "TWSAPI",
        "received_ns": 7,
        "raw": raw,
    }


def test_a_row_of_the_book_names_the_openalgo_symbol_and_reads_commas(rest_order, reading):
    update = order_update(rest_order, reading(Channel.REST), raw=b"{}", history_index=2)

    assert (update.symbol, update.exchange) == ("NIFTY25AUG2624400CE", "NFO")
    assert (update.average_price, update.filled_quantity) == (Decimal("2853.50"), 65)
    assert update.broker_time == datetime(2026, 8, 17, 10, 20, 2, tzinfo=IST)
    assert (update.history_index, update.placed_by, update.tag) == (2, "TWS", "")


def test_a_row_of_an_old_server_gives_the_same_words(reading):
    update = order_update(load("rest_order_old.json"), reading(Channel.REST), raw=b"{}")

    assert (update.side, update.order_type, update.status) == ("SELL", "SL-M", OrderStatus.CANCELLED)
    assert (update.filled_quantity, update.average_price) == (65, Decimal("31.80"))
    assert update.broker_time == datetime(2020, 12, 29, 15, 5, 57, tzinfo=IST)


def test_rest_and_socket_agree_on_the_time_that_orders_them(socket_order, reading):
    by_rest = {**socket_order, "LastUpdateDateTime": "17-08-2026 10:15:02"}

    times = {order_update(row, reading(), raw=b"{}").broker_time for row in (socket_order, by_rest)}

    assert len(times) == 1


def test_the_api_twin_stands_in_for_a_missing_time_and_average(socket_order, reading):
    row = {
        **socket_order,
        "CumulativeQuantity": 10,
        "OrderAverageTradedPriceAPI": 811.5,
        "LastUpdateDateTimeAPI": "17-08-2026 10:15:09",
    }
    del row["LastUpdateDateTime"]

    update = order_update(row, reading(), raw=b"{}")

    assert update.broker_time == datetime(2026, 8, 17, 10, 15, 9, tzinfo=IST)
    assert update.average_price == Decimal("811.5")


def test_only_the_basics_are_needed(reading):
    row = {"AppOrderID": 5, "OrderStatus": "New", "OrderQuantity": "10"}

    update = order_update(row, reading(), raw=b"{}")

    assert (update.order_id, update.quantity, update.status) == ("5", 10, OrderStatus.OPEN)
    assert (update.broker_time, update.known_symbol) == (None, False)


@pytest.mark.parametrize("missing", ["AppOrderID", "OrderStatus", "OrderQuantity"])
def test_a_row_without_its_basics_is_a_violation(socket_order, reading, missing):
    del socket_order[missing]

    with pytest.raises(ProtocolViolationError):
        order_update(socket_order, reading(), raw=b"{}")


def test_an_unknown_instrument_keeps_the_brokers_name_and_says_so(socket_order, reading):
    row = {**socket_order, "ExchangeInstrumentID": 999, "TradingSymbol": "MUTHOOTFIN"}

    update = order_update(row, reading(), raw=b"{}")

    assert (update.symbol, update.exchange, update.known_symbol) == ("MUTHOOTFIN", "NSE", False)


def test_an_unknown_instrument_without_a_name_is_shown_by_its_number(socket_order, reading):
    row = {**socket_order, "ExchangeSegment": "XYZ"}
    del row["TradingSymbol"]

    update = order_update(row, reading(), raw=b"{}")

    assert (update.symbol, update.exchange, update.known_symbol) == ("3045", "XYZ", False)


def test_unknown_words_are_kept_as_they_came(socket_order, reading):
    row = {**socket_order, "OrderType": "Iceberg", "ProductType": "MTF", "OrderSide": "Short"}

    update = order_update(row, reading(), raw=b"{}")

    assert (update.order_type, update.product, update.side) == ("Iceberg", "MTF", "Short")


# --- events -----------------------------------------------------------------------------------------------


def test_an_event_argument_is_json_in_a_string(socket_order):
    text = json.dumps(socket_order)

    ((row, raw),) = event_rows(text)

    assert (row["AppOrderID"], raw) == (1110044001, text.encode())


@pytest.mark.parametrize("wrap", [lambda row: row, lambda row: [row], lambda row: json.dumps([row])])
def test_objects_and_lists_are_tolerated(socket_order, wrap):
    ((row, raw),) = event_rows(wrap(socket_order))

    assert row["AppOrderID"] == 1110044001
    assert json.loads(raw)["OrderStopPrice"] == 812.35


@pytest.mark.parametrize("argument", ["Socket joined", "", "[", "3", "null", None, 5, '["x"]', "[" * 20_000])
def test_any_other_argument_is_a_violation(argument):
    with pytest.raises(ProtocolViolationError):
        event_rows(argument)


def test_a_trade_event_gives_the_execution_and_the_order(socket_trade, reading):
    execution = trade(socket_trade, reading(), raw=b"{}")
    update = order_update(socket_trade, reading(), raw=b"{}")

    assert (execution.order_id, execution.trade_id) == ("1110044002", "9001177")
    assert (execution.quantity, execution.price) == (65, Decimal("1250.25"))
    assert (execution.symbol, execution.side) == ("NIFTY25AUG2624400CE", "BUY")
    assert execution.traded_at == datetime(2026, 8, 17, 10, 15, 4, tzinfo=IST)
    assert (update.status, update.filled_quantity) == (OrderStatus.PARTIALLY_FILLED, 65)
    assert update.average_price == Decimal("1250.25")


@pytest.mark.parametrize(
    "change", [{"ExecutionID": ""}, {"LastTradedQuantity": 0}, {"LastTradedQuantity": -5}]
)
def test_a_trade_without_identity_or_quantity_is_a_violation(socket_trade, reading, change):
    with pytest.raises(ProtocolViolationError):
        trade({**socket_trade, **change}, reading(), raw=b"{}")


# --- positions, holdings, money ---------------------------------------------------------------------------


def test_a_socket_position_and_a_rest_position_use_different_names(reading):
    by_socket = position(load("socket_position.json"), reading(), raw=b"{}")
    body = json.dumps(load("rest_positions.json")["result"]).encode()
    by_rest = position(decode_json(position_rows(body)[0]), reading(Channel.REST), raw=b"{}")

    assert (by_socket.symbol, by_socket.quantity, by_socket.average_price) == ("SBIN", -30, Decimal("812.3"))
    assert (by_socket.buy_quantity, by_socket.sell_quantity, by_socket.pnl) == (10, 40, Decimal("-12.50"))
    assert (by_rest.symbol, by_rest.quantity, by_rest.average_price) == ("SBIN", -1050, Decimal("2148.00"))
    assert (by_rest.sell_quantity, by_rest.sell_value) == (1050, Decimal("2255400.00"))
    assert by_rest.pnl == Decimal("-1250.00")


def test_the_profit_of_a_flat_position_is_computed(reading):
    body = json.dumps(load("rest_positions.json")["result"]).encode()

    flat = position(decode_json(position_rows(body)[1]), reading(Channel.REST), raw=b"{}")

    assert (flat.quantity, flat.average_price, flat.pnl) == (0, 0, Decimal("105.00"))


@pytest.mark.parametrize(("kind", "net"), [("NetWise", True), ("DayWise", False), ("", False)])
def test_only_the_net_twin_of_a_socket_position_counts(kind, net):
    assert messages.is_net_position({"IsDayWiseNetWise": kind}) is net


def test_holdings_are_named_by_their_exchange_number(reading):
    body = json.dumps(load("rest_holdings.json")["result"]).encode()

    first, second = holdings(body, reading(Channel.REST))

    assert (first.symbol, first.exchange, first.quantity) == ("SBIN", "NSE", 25)
    assert first.average_price == Decimal("1001.25")
    assert (second.symbol, second.quantity, second.average_price) == ("INE000X00001", 5, 0)


@pytest.mark.parametrize("form", ["by ISIN", "list"])
def test_a_holding_that_cannot_be_read_does_not_hide_the_others(reading, form):
    whole = load("rest_holdings.json")["result"]
    good = dict(next(iter(whole["RMSHoldings"]["Holdings"].values())))
    rows = {"A": {**good, "HoldingQuantity": "many"}, "B": good, "C": 7}
    by_name = {"RMSHoldings": {"Holdings": rows}}
    body = by_name if form == "by ISIN" else {"RMSHoldingList": list(rows.values())}

    held = holdings(json.dumps(body).encode(), reading(Channel.REST))

    assert [holding.symbol for holding in held] == ["SBIN"]
    assert len(odd_rows(held)) == 2
    assert b"many" in odd_rows(held)[0].raw


def test_holdings_that_are_no_list_are_refused(reading):
    with pytest.raises(ProtocolViolationError, match="no list"):
        holdings(b'{"RMSHoldingList": 7}', reading(Channel.REST))


def test_no_holdings_are_an_empty_list(reading):
    assert holdings(b"", reading(Channel.REST)) == []


def test_money_that_is_nan_is_looked_for_under_its_other_name():
    limits = {"netMarginAvailable": "nan", "cashAvailable": "1,000.50"}
    body = json.dumps({"BalanceList": [{"limitObject": {"RMSSubLimits": limits}}]}).encode()

    assert funds(body, account=AccountId("acc")).available == Decimal("1000.50")


def test_funds_read_texts_and_nan():
    body = json.dumps(load("rest_balance.json")["result"]).encode()

    read = funds(body, account=AccountId("acc"))

    assert (read.available, read.utilised, read.collateral) == (Decimal("7499.50"), Decimal("2500.5"), 0)
    assert (read.m2m_realised, read.m2m_unrealised) == (100, Decimal("-12.5"))


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"[]"])
def test_an_empty_book_is_empty_in_every_form(body):
    assert list_rows(body) == []


def test_the_rows_of_a_book_keep_their_own_bytes():
    assert list_rows(b'[ {"a": 1.10}, {"b":2} ]') == [b'{"a": 1.10}', b'{"b":2}']


def test_a_success_without_positions_is_empty():
    assert position_rows(b'{"positionList":[]}') == []
    assert position_rows(b"{}") == []


@pytest.mark.parametrize("body", [b'{"a":1}', b'"x"', b"[", b"<html>", b'{"\xbf": []}', b"[" * 20_000])
def test_a_book_that_is_no_list_is_a_violation(body):
    with pytest.raises(ProtocolViolationError):
        list_rows(body)


@pytest.mark.parametrize("body", [b"[]5", b'"x"', b"[", b'{"positionList": 5}', b'{"a": ' + b"[" * 20_000])
def test_positions_that_are_no_object_are_a_violation(body):
    with pytest.raises(ProtocolViolationError):
        position_rows(body)


# --- requests ---------------------------------------------------------------------------------------------


def request(**changes):
    fields = {
        "symbol": "NIFTY25AUG2624400CE",
        "exchange": "NFO",
        "side": "BUY",
        "quantity": 65,
        "order_type": "SL",
        "product": "NRML",
        "price": Decimal("120.05"),
        "trigger_price": Decimal(119),
        "tag": "ow0001",
    }
    return OrderRequest(**{**fields, **changes})


def test_a_placement_says_everything_in_xts_words(instruments):
    instrument = instruments.by_symbol("NFO", "NIFTY25AUG2624400CE")

    body = place_body(request(), instrument, client_id="*****")

    assert json.loads(json.dumps(body)) == {
        "exchangeSegment": "NSEFO",
        "exchangeInstrumentID": 61720,
        "productType": "NRML",
        "orderType": "STOPLIMIT",
        "orderSide": "BUY",
        "timeInForce": "DAY",
        "disclosedQuantity": 0,
        "orderQuantity": 65,
        "limitPrice": 120.05,
        "stopPrice": 119,
        "orderUniqueIdentifier": "ow0001",
        "clientID": "*****",
    }


@pytest.mark.parametrize(
    ("order_type", "word", "limit", "stop"),
    [("MARKET", "MARKET", 0, 0), ("LIMIT", "LIMIT", 120.05, 0), ("SL-M", "STOPMARKET", 0, 119)],
)
def test_prices_are_sent_only_where_the_type_wants_them(instruments, order_type, word, limit, stop):
    instrument = instruments.by_symbol("NFO", "NIFTY25AUG2624400CE")

    body = place_body(request(order_type=order_type), instrument)

    assert (body["orderType"], body["limitPrice"], body["stopPrice"]) == (word, limit, stop)
    assert "clientID" not in body


@pytest.mark.parametrize(
    ("change", "field"),
    [({"order_type": "AMO"}, "order_type"), ({"product": "BO"}, "product"), ({"tag": "x" * 21}, "tag")],
)
def test_terms_that_xts_does_not_know_are_named(instruments, change, field):
    instrument = instruments.by_symbol("NFO", "NIFTY25AUG2624400CE")

    with pytest.raises(InvalidRequestError) as caught:
        place_body(request(**change), instrument)

    assert list(caught.value.problems) == [field]


def test_a_modification_sends_every_field():
    change = ModifyRequest(
        order_id=OrderId("1110044001"),
        quantity=40,
        order_type="SL-M",
        product="MIS",
        price=Decimal("0.05"),
        trigger_price=Decimal("815.5"),
    )

    assert modify_body(change, tag="ow1", client_id="JD001") == {
        "appOrderID": 1110044001,
        "modifiedProductType": "MIS",
        "modifiedOrderType": "STOPMARKET",
        "modifiedOrderQuantity": 40,
        "modifiedDisclosedQuantity": 0,
        "modifiedLimitPrice": 0,
        "modifiedStopPrice": 815.5,
        "modifiedTimeInForce": "DAY",
        "orderUniqueIdentifier": "ow1",
        "clientID": "JD001",
    }


def test_a_cancellation_names_the_order_and_the_client():
    assert cancel_query(OrderId("1100062468"), client_id="*****") == {
        "appOrderID": "1100062468",
        "clientID": "*****",
    }
    assert cancel_query(OrderId("1100062468")) == {"appOrderID": "1100062468"}


@pytest.mark.parametrize("order_id", ["", "x", "-5", "1" * 30, "0", "²"])
def test_what_is_no_order_number_is_refused_before_it_is_sent(order_id):
    with pytest.raises(InvalidRequestError):
        cancel_query(OrderId(order_id))


@pytest.mark.parametrize("result", [b'{"AppOrderID":7}', b'[{"AppOrderID":"7"}]'])
def test_the_order_number_of_an_answer(result):
    assert placed_order_id(result) == "7"


@pytest.mark.parametrize(
    "result", [b"", b"{}", b"[]", b'{"AppOrderID":null}', b'{"AppOrderID":"x"}', b'{"AppOrderID":0}']
)
def test_an_answer_without_an_order_number_is_a_violation(result):
    with pytest.raises(ProtocolViolationError):
        placed_order_id(result)


def test_every_segment_has_an_exchange():
    assert EXCHANGES["NSEFO"] == "NFO"
    assert len(set(EXCHANGES.values())) == len(EXCHANGES)


# --- anything at all --------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["NaN", "", "2,853.50", "1e400", "Infinity", "New", "Filled", "1980-01-01T00:00:00"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
FIELDS = sorted(
    {
        *load("socket_order.json"),
        *load("socket_trade.json"),
        *load("socket_position.json"),
        "ExchangeInstrumentId",
    }
)


@given(
    changes=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8),
    base=st.sampled_from(["order", "trade", "position"]),
)
def test_a_damaged_row_raises_nothing_but_a_violation(instruments, changes, base):
    row = {**load(f"socket_{base}.json"), **changes}
    where = messages.Reading(
        account=AccountId("a"),
        broker="jainam",
        channel=Channel.STREAM,
        trading_date=datetime(2026, 8, 17, tzinfo=UTC).date(),
        received_ns=1,
        instruments=instruments,
    )

    for read in (order_update, trade, position):
        try:
            value = read(row, where, raw=b"{}")
        except ProtocolViolationError:
            continue
        assert value.account == "a"


@given(text=st.text() | st.binary())
def test_decoding_anything_raises_nothing_but_a_violation(text):
    for read in (
        (decode_json, event_rows) if isinstance(text, str) else (decode_json, list_rows, position_rows)
    ):
        try:
            read(text)
        except ProtocolViolationError:
            continue


@pytest.mark.parametrize("text", ["9" * 5000, '{"a":' + "9" * 5000 + "}", '{"a":1e999999999}', '"\\ud800"'])
def test_hostile_json_is_read_or_refused(text):
    try:
        value = decode_json(text)
    except ProtocolViolationError:
        return
    with pytest.raises(ProtocolViolationError):
        number(value["a"] if isinstance(value, dict) else value)
