from __future__ import annotations

import contextlib
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from orderwire.brokers.zerodha import messages
from orderwire.brokers.zerodha.instruments import read_instruments
from orderwire.brokers.zerodha.messages import Reading
from orderwire.core.books import odd_rows
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import (
    IST,
    AccountId,
    Channel,
    Funds,
    ModifyRequest,
    OrderId,
    OrderRequest,
    OrderStatus,
    Overlay,
)
from orderwire.errors import (
    BrokerError,
    BrokerUnreachableError,
    OrderRefusedError,
    PermissionRefusedError,
    ProtocolViolationError,
    SessionExpiredError,
)

DATA = Path(__file__).resolve().parents[2] / "data" / "kite"
DAY = date(2026, 8, 17)
INSTRUMENTS = read_instruments((DATA / "instruments.csv").read_bytes()).instruments
TABLE = InstrumentTable(INSTRUMENTS)


def reading(channel=Channel.REST, **changes):
    facts = {
        "account": AccountId("acc"),
        "channel": channel,
        "trading_date": DAY,
        "received_ns": 5,
        "instruments": TABLE,
    }
    return Reading(**{**facts, **changes})


def data_of(name):
    return messages.read_reply((DATA / name).read_bytes(), status=200)


def one(**fields):
    return messages.read_order(json.dumps({"order_id": "1", "status": "OPEN", **fields}).encode(), reading())


BOOK = {row.order_id: row for row in messages.read_orders(data_of("orders.json"), reading())}


# --- statuses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status", "overlay", "phase"),
    [
        ("PUT ORDER REQ RECEIVED", OrderStatus.PENDING_NEW, "", 0),
        ("AMO REQ RECEIVED", OrderStatus.PENDING_NEW, "", 0),
        ("VALIDATION PENDING", OrderStatus.PENDING_NEW, "", 1),
        ("OPEN PENDING", OrderStatus.PENDING_NEW, "", 2),
        ("MODIFY VALIDATION PENDING", None, "pending_modify", 3),
        ("MODIFY PENDING", None, "pending_modify", 4),
        ("CANCEL PENDING", None, "pending_cancel", 5),
        ("MODIFIED", None, "", 6),
        ("NOT MODIFIED", None, "", 6),
        ("TRIGGER PENDING", OrderStatus.TRIGGER_PENDING, "", 7),
        ("OPEN", OrderStatus.OPEN, "", 8),
        ("UPDATE", OrderStatus.OPEN, "", 8),
        ("COMPLETE", OrderStatus.FILLED, "", 9),
        ("CANCELLED", OrderStatus.CANCELLED, "", 9),
        ("CANCEL", OrderStatus.CANCELLED, "", 9),
        ("CANCELLED AMO", OrderStatus.CANCELLED, "", 9),
        ("REJECTED", OrderStatus.REJECTED, "", 9),
        (" open ", OrderStatus.OPEN, "", 8),
        ("CANCEL REQUESTED", OrderStatus.UNKNOWN, "", -1),
        ("COMPLETED", OrderStatus.UNKNOWN, "", -1),
        ("", OrderStatus.UNKNOWN, "", -1),
    ],
)
def test_each_status_means_what_the_table_of_the_protocol_says(raw, status, overlay, phase):
    update = one(status=raw)

    assert (update.status, update.overlay, update.phase) == (status, Overlay(overlay), phase)
    assert update.raw_status == raw


@pytest.mark.parametrize("raw", ["OPEN", "UPDATE"])
def test_an_open_order_with_fills_is_partially_filled(raw):
    assert one(status=raw, quantity=10, filled_quantity=4).status is OrderStatus.PARTIALLY_FILLED


def test_the_phases_never_fall_along_the_ways_an_order_takes():
    ways = (
        "PUT ORDER REQ RECEIVED, VALIDATION PENDING, OPEN PENDING, TRIGGER PENDING, OPEN, COMPLETE",
        "AMO REQ RECEIVED, VALIDATION PENDING, OPEN PENDING, OPEN, CANCELLED",
        "MODIFY VALIDATION PENDING, MODIFY PENDING, MODIFIED, OPEN",
        "MODIFY PENDING, CANCEL PENDING, NOT MODIFIED, TRIGGER PENDING",
    )

    for way in ways:
        phases = [messages.meaning(word).phase for word in way.split(", ")]
        assert phases == sorted(phases)


# --- orders -----------------------------------------------------------------------------------------------


def test_a_book_keeps_ids_of_both_lengths_as_text():
    assert {"260817000000001", "1957000000000000001"} <= set(BOOK)


def test_an_order_is_named_as_openalgo_names_it():
    option = BOOK["1957000000000000002"]

    assert (option.exchange, option.symbol, option.known_symbol) == ("NFO", "NIFTY18AUG2624400CE", True)


def test_an_unknown_contract_keeps_the_brokers_own_name():
    stranger = BOOK["260817000000012"]

    assert (stranger.exchange, stranger.symbol, stranger.known_symbol) == (
        "NFO",
        "BANKNIFTY26SEP99000CE",
        False,
    )


def test_a_row_says_what_it_says_and_nothing_more():
    order = BOOK["1957000000000000001"]

    assert order.status is OrderStatus.PARTIALLY_FILLED
    assert (order.quantity, order.filled_quantity) == (10, 4)
    assert (order.price, order.average_price) == (Decimal("812.3"), Decimal("812.25"))
    assert order.broker_time == datetime(2026, 8, 17, 10, 0, 2, tzinfo=IST)
    assert (order.trading_date, order.received_ns, order.channel) == (DAY, 5, Channel.REST)
    assert (order.exchange_order_id, order.placed_by) == ("1100000000000002", "OW1234")
    assert (order.account, order.broker, order.history_index) == ("acc", "zerodha", -1)


def test_the_raw_bytes_of_each_row_are_kept_as_they_came():
    body = (
        b'{"status":"success","data":[ {"order_id": "1",  "status":"OPEN"},{"order_id":"2","status":"OPEN"}]}'
    )

    rows = messages.read_orders(messages.read_reply(body, status=200), reading())

    assert [row.raw for row in rows] == [
        b'{"order_id": "1",  "status":"OPEN"}',
        b'{"order_id":"2","status":"OPEN"}',
    ]


def test_only_id_and_status_must_be_there():
    bare = BOOK["260817000000013"]

    assert bare.status is OrderStatus.PENDING_NEW
    assert (bare.quantity, bare.price, bare.broker_time, bare.reason, bare.tag) == (0, 0, None, "", "")


@pytest.mark.parametrize("field", ["order_id", "status"])
def test_without_id_or_status_a_row_is_refused(field):
    row = {"order_id": "1", "status": "OPEN"}
    del row[field]

    with pytest.raises(ProtocolViolationError) as caught:
        messages.read_order(json.dumps(row).encode(), reading())

    assert caught.value.raw == json.dumps(row).encode()


def test_a_rejection_gives_the_brokers_reason():
    assert "Required margin is 8123.00" in BOOK["260817000000005"].reason


def test_the_raw_message_stands_in_for_a_missing_one():
    assert one(status="REJECTED", status_message_raw="RMS:Blocked").reason == "RMS:Blocked"


@pytest.mark.parametrize(
    ("fields", "tag"),
    [
        ({"tag": "OWAB"}, "OWAB"),
        ({"tag": None, "tags": ["mktp", "mktp:2.00", "OWAB"]}, "OWAB"),
        ({"tag": "", "tags": ["autoslice", "autoslice:77"]}, ""),
        ({"tags": None}, ""),
        ({"tags": "mktp"}, ""),
    ],
)
def test_the_tag_is_the_users_never_the_systems(fields, tag):
    assert one(**fields).tag == tag


def test_a_slice_names_its_parent():
    assert BOOK["1957000000000000002"].parent_order_id == "1957000000000000000"


@pytest.mark.parametrize("value", [None, ""])
def test_no_parent_is_no_parent_in_either_spelling(value):
    assert one(parent_order_id=value).parent_order_id == ""


def test_prices_are_exact_however_they_are_written():
    row = b'{"order_id":"1","status":"OPEN","price":0.1,"average_price":470,"trigger_price":159.820,"quantity":2.0}'

    order = messages.read_order(row, reading())

    assert (order.price, order.average_price, order.trigger_price) == (
        Decimal("0.1"),
        Decimal(470),
        Decimal("159.82"),
    )
    assert order.quantity == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"quantity": 1.5},
        {"quantity": 1e300},
        {"price": "NaN"},
        {"price": "Infinity"},
        {"filled_quantity": True},
        {"order_timestamp": "17-08-2026 10:00:00"},
        {"order_timestamp": "2026-02-30 10:00:00"},
        {"order_timestamp": "2026-08-17T10:00:00"},
        {"order_timestamp": 1755405000},
        {"order_id": 260817000000001},
        {"order_id": "../session"},
        {"order_id": ""},
        {"status": None},
    ],
)
def test_what_kite_never_writes_is_refused(fields):
    with pytest.raises(ProtocolViolationError):
        one(**fields)


def test_a_pushed_order_of_another_client_is_refused():
    row = b'{"order_id":"1","status":"OPEN","account_id":"XX0001"}'

    with pytest.raises(ProtocolViolationError, match="another account"):
        messages.read_order(row, reading(owner="OW1234"))


def test_a_history_is_numbered_and_its_interim_rows_bear_no_state():
    rows = messages.read_history(data_of("history.json"), reading(Channel.HISTORY))

    assert [row.history_index for row in rows] == list(range(8))
    assert [row.status for row in rows] == [
        OrderStatus.PENDING_NEW,
        OrderStatus.PENDING_NEW,
        OrderStatus.PENDING_NEW,
        OrderStatus.OPEN,
        None,
        None,
        None,
        OrderStatus.OPEN,
    ]
    assert rows[4].overlay is Overlay.PENDING_MODIFY
    assert rows[-1].price == Decimal("811.9")
    assert all(row.symbol == "SBIN" and row.known_symbol for row in rows)


@pytest.mark.parametrize("odd", [b'{"order_id": "2", "status": "OPEN", "quantity": "NaN"}', b"12", b"null"])
def test_an_odd_row_of_the_book_or_a_history_leaves_the_others(odd):
    sound = b'{"order_id": "%d", "status": "OPEN"}'
    data = Raw(b"[%b, %b, %b]" % (sound % 1, odd, sound % 3))

    book = messages.read_orders(data, reading())
    history = messages.read_history(data, reading(Channel.HISTORY))

    assert [row.order_id for row in book] == ["1", "3"]
    assert [error.raw for error in book.odd] == [odd]
    assert [(row.order_id, row.history_index) for row in history] == [("1", 0), ("3", 2)]
    assert [error.raw for error in history.odd] == [odd]


def test_an_odd_trade_or_position_leaves_the_others():
    trade = b'{"trade_id": "T1", "order_id": "1", "quantity": 5}'
    held = b'{"tradingsymbol": "SBIN", "exchange": "NSE", "product": "CNC", "quantity": 5}'

    trades = messages.read_trades(Raw(b"[{}, %b]" % trade), reading())
    positions = messages.read_positions(Raw(b'{"net": [%b, {"quantity": 1}]}' % held), reading())

    assert ([one.trade_id for one in trades], len(trades.odd)) == (["T1"], 1)
    assert ([one.symbol for one in positions], len(positions.odd)) == (["SBIN"], 1)


@pytest.mark.parametrize("data", [b"{}", b"12", b'"x"'])
def test_a_book_that_is_no_list_is_a_failure(data):
    with pytest.raises(ProtocolViolationError):
        messages.read_orders(Raw(data), reading())


def test_an_empty_book_is_an_empty_list():
    for data in (Raw(b"[]"), Raw(b"null")):
        assert messages.read_orders(data, reading()) == []


def test_trades_are_read_with_their_own_time():
    trades = messages.read_trades(data_of("trades.json"), reading())

    assert [(t.symbol, t.quantity, t.price) for t in trades] == [
        ("SBIN", 4, Decimal("812.25")),
        ("NIFTY18AUG2624400CE", 65, Decimal(101)),
    ]
    assert trades[0].traded_at == datetime(2026, 8, 17, 10, 0, 2, tzinfo=IST)


def test_positions_are_the_net_ones_and_signed():
    positions = messages.read_positions(data_of("positions.json"), reading())

    assert [(p.symbol, p.quantity, p.known_symbol) for p in positions] == [
        ("SBIN", -4, True),
        ("UNLISTED", 0, False),
    ]
    assert positions[0].pnl == Decimal("2.2000000000000455")


def test_holdings_count_shares_on_their_way_in():
    (holding,) = messages.read_holdings(data_of("holdings.json"), reading())

    assert (holding.symbol, holding.quantity, holding.average_price) == ("INFY", 20, Decimal("1401.78125"))


def test_a_holding_that_cannot_be_read_does_not_hide_the_others():
    good = json.loads(bytes(data_of("holdings.json")))[0]
    data = Raw(json.dumps([good | {"quantity": "many"}, good, 7]).encode())

    held = messages.read_holdings(data, reading())

    assert [holding.symbol for holding in held] == ["INFY"]
    assert len(odd_rows(held)) == 2
    assert b"many" in odd_rows(held)[0].raw


@pytest.mark.parametrize("amount", ['"NaN"', '"-Infinity"', "1e400"])
def test_money_that_is_no_number_is_refused(amount):
    with pytest.raises(ProtocolViolationError, match="out of all bounds"):
        messages.read_funds(Raw(b'{"equity":{"net":%s}}' % amount.encode()), AccountId("acc"))


def test_funds_are_the_sum_of_the_segments():
    assert messages.read_funds(data_of("margins.json"), AccountId("acc")) == Funds(
        account=AccountId("acc"),
        available=Decimal("99825.5"),
        utilised=Decimal("1500.25"),
        collateral=Decimal(1000),
        m2m_realised=Decimal("761.7"),
        m2m_unrealised=Decimal("-10.5"),
    )


@pytest.mark.parametrize(
    ("raw", "variety"),
    [
        (b'{"order_id":"1","status":"OPEN","variety":"iceberg"}', "iceberg"),
        (b'{"order_id":"1","status":"AMO REQ RECEIVED","variety":"amo"}', "amo"),
        (b'{"order_id":"1","status":"OPEN","variety":"amo"}', "regular"),
        (b'{"order_id":"1","status":"OPEN","variety":"../x"}', "regular"),
        (b'{"order_id":"1","status":"OPEN"}', "regular"),
        (b"not a row", "regular"),
        (b"", "regular"),
    ],
)
def test_an_order_is_changed_under_its_variety(raw, variety):
    assert messages.variety_of(msgspec.structs.replace(BOOK["260817000000001"], raw=raw)) == variety


def test_an_order_nobody_has_seen_is_changed_as_regular():
    assert messages.variety_of(None) == "regular"


# --- replies and errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error_type", "message", "error", "words"),
    [
        (
            403,
            "TokenException",
            "Incorrect `api_key` or `access_token`.",
            SessionExpiredError,
            "Log in again",
        ),
        (400, "TokenException", "Token is invalid or has expired.", SessionExpiredError, "Log in again"),
        (
            403,
            "TokenException",
            "Invalid `checksum`.",
            SessionExpiredError,
            "API secret kept for this account is wrong",
        ),
        (403, "TwoFAException", "x", SessionExpiredError, "x"),
        (
            403,
            "PermissionException",
            "IP (203.0.113.7) is not allowed to place orders for this app.",
            PermissionRefusedError,
            "static IP",
        ),
        (
            403,
            "PermissionException",
            "No IPs configured for this app.",
            PermissionRefusedError,
            "developers.kite.trade",
        ),
        (
            403,
            "PermissionException",
            "Insufficient permission for that call.",
            PermissionRefusedError,
            "plan",
        ),
        (403, "UserException", "x", PermissionRefusedError, "x"),
        (
            400,
            "InputException",
            "Order cannot be modified as it is being processed. Try later.",
            OrderRefusedError,
            "look at it again",
        ),
        (400, "InputException", "Maximum allowed order modifications exceeded.", OrderRefusedError, "25"),
        (
            400,
            "InputException",
            "Market orders without market protection are not allowed via API.",
            OrderRefusedError,
            "LIMIT",
        ),
        (400, "MarginException", "Insufficient funds.", OrderRefusedError, "Insufficient funds"),
        (428, "HoldingException", "CDSL", OrderRefusedError, "CDSL"),
        (400, "OrderException", "does not exist", OrderRefusedError, "does not exist"),
        (500, "OrderException", "oms", BrokerUnreachableError, "oms"),
        (500, "GeneralException", "x", BrokerUnreachableError, "x"),
        (400, "GeneralException", "x", OrderRefusedError, "x"),
        (503, "NetworkException", "Request failed (kitetrade-oms)", BrokerUnreachableError, "kitetrade-oms"),
        (504, "NetworkException", "request timed out", BrokerUnreachableError, "timed out"),
        (502, "DataException", "x", BrokerUnreachableError, "x"),
        (400, "BrandNewException", "x", BrokerUnreachableError, "x"),
        (404, "", "", BrokerUnreachableError, "HTTP 404"),
    ],
)
def test_the_error_type_decides_and_the_words_help(status, error_type, message, error, words):
    body = json.dumps(
        {"status": "error", "message": message, "error_type": error_type, "data": None}
    ).encode()

    with pytest.raises(error, match=words) as caught:
        messages.read_reply(body, status=status)

    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("status", "error_type"), [(500, "OrderException"), (503, "NetworkException"), (400, "New")]
)
def test_what_leaves_open_whether_an_order_exists_says_so(status, error_type):
    assert messages.reply_error(error_type, "x", status=status).sent is True


def test_a_refusal_carries_its_code():
    assert messages.reply_error("MarginException", "x", status=400).code == "MarginException"


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (502, b"<html>Bad gateway</html>", BrokerUnreachableError),
        (200, b"<html>hello</html>", ProtocolViolationError),
        (403, b"<html>blocked</html>", ProtocolViolationError),
        (200, b"", ProtocolViolationError),
        (200, b'{"status":"maybe"}', ProtocolViolationError),
        (200, b"[1]", ProtocolViolationError),
        (200, b'{"status":"success","data":[' + b"[" * 100_000, ProtocolViolationError),
        (200, b'{"status":"error","error_type":"InputException","message":"no"}', OrderRefusedError),
        (503, b'{"status":"success","data":{}}', BrokerUnreachableError),
    ],
)
def test_a_reply_that_is_not_kites_is_never_a_success(status, body, error):
    with pytest.raises(error):
        messages.read_reply(body, status=status)


# --- requests ---------------------------------------------------------------------------------------------


def request(**changes):
    terms = {"symbol": "SBIN", "exchange": "NSE", "side": "BUY", "quantity": 5, "tag": "OWABC"}
    return OrderRequest(**{**terms, **changes})


SBIN = TABLE.by_symbol("NSE", "SBIN")
BASE = {
    "exchange": "NSE",
    "tradingsymbol": "SBIN",
    "transaction_type": "BUY",
    "quantity": "5",
    "product": "MIS",
    "validity": "DAY",
    "tag": "OWABC",
}


@pytest.mark.parametrize(
    ("changes", "form"),
    [
        ({"order_type": "MARKET"}, {"order_type": "MARKET", "market_protection": "-1"}),
        ({"order_type": "MARKET", "price": Decimal(9)}, {"order_type": "MARKET", "market_protection": "-1"}),
        ({"order_type": "LIMIT", "price": Decimal("420.50")}, {"order_type": "LIMIT", "price": "420.5"}),
        ({"order_type": "LIMIT", "price": Decimal("1E+2")}, {"order_type": "LIMIT", "price": "100"}),
        (
            {"order_type": "SL", "price": Decimal(420), "trigger_price": Decimal("419.95")},
            {"order_type": "SL", "price": "420", "trigger_price": "419.95"},
        ),
        (
            {"order_type": "SL-M", "trigger_price": Decimal("419.95")},
            {"order_type": "SL-M", "trigger_price": "419.95", "market_protection": "-1"},
        ),
        (
            {"order_type": "LIMIT", "price": Decimal(1), "disclosed_quantity": 2, "validity": "IOC"},
            {"order_type": "LIMIT", "price": "1", "disclosed_quantity": "2", "validity": "IOC"},
        ),
    ],
)
def test_a_placement_carries_what_the_rules_of_2026_want(changes, form):
    assert messages.place_form(request(**changes), SBIN) == {**BASE, **form}


def test_a_placement_names_the_contract_as_kite_does():
    option = TABLE.by_symbol("NFO", "NIFTY18AUG2624400CE")

    form = messages.place_form(request(symbol=option.symbol, exchange="NFO", tag=""), option)

    assert (form["exchange"], form["tradingsymbol"], "tag" in form) == ("NFO", "NIFTY2681824400CE", False)


def test_a_modification_carries_the_complete_terms():
    change = ModifyRequest(
        order_id=OrderId("1"),
        quantity=7,
        order_type="SL",
        product="MIS",
        price=Decimal(5),
        trigger_price=Decimal(4),
    )

    assert messages.modify_form(change) == {
        "order_type": "SL",
        "quantity": "7",
        "validity": "DAY",
        "price": "5",
        "trigger_price": "4",
    }


def test_a_placement_is_answered_with_an_id():
    assert messages.read_placed(data_of("placed.json")).order_id == "1957000000000000001"


@pytest.mark.parametrize(("file", "parts"), [("autoslice_object.json", 2), ("autoslice_array.json", 3)])
def test_both_shapes_of_autoslice_are_read(file, parts):
    placed = messages.read_placed(data_of(file))

    assert placed.order_id == "1957000000000000000"
    assert len(placed.slices) == parts
    assert placed.slices[-2].order_id == "1957000000000000002"
    assert "Insufficient funds" in placed.slices[-1].reason


def test_when_every_slice_is_refused_there_is_no_order():
    data = Raw(b'[{"error":{"message":"Insufficient funds."}},{"error":{"message":"Insufficient funds."}}]')

    with pytest.raises(OrderRefusedError, match="Insufficient funds"):
        messages.read_placed(data)


@pytest.mark.parametrize("data", [b"{}", b"[]", b"null", b"7", b'{"order_id":5}', b'{"order_id":"a/b"}'])
def test_an_answer_without_an_id_is_no_answer(data):
    with pytest.raises(ProtocolViolationError):
        messages.read_placed(Raw(data))


# --- logging in -------------------------------------------------------------------------------------------


def test_the_login_checksum_is_the_published_one():
    checksum = messages.session_checksum(api_key="testkey", request_token="reqtok", api_secret="secret")

    assert checksum == "7e010cfbf4885caf1e063ce23f35cb1b126a6c0a74ac10b8f700e1d63e5fbeef"


def test_a_session_is_read_and_does_not_show_its_token():
    granted = messages.read_session(data_of("session.json"))

    assert (granted.user_id, granted.access_token, granted.user_name) == (
        "OW1234",
        "not-a-real-token",
        "Demo Trader",
    )
    assert "not-a-real-token" not in repr(granted)


@pytest.mark.parametrize("data", [b'{"access_token":"", "user_id":"a"}', b'{"access_token":7}', b'"tok"'])
def test_a_session_without_a_token_is_refused_without_quoting_it(data):
    with pytest.raises(ProtocolViolationError) as caught:
        messages.read_session(Raw(data))

    assert caught.value.raw == b""


@pytest.mark.parametrize(
    ("now", "dies"),
    [
        (datetime(2026, 8, 17, 3, 0, tzinfo=UTC), datetime(2026, 8, 18, 6, 0, tzinfo=IST)),
        (datetime(2026, 8, 17, 0, 29, 59, tzinfo=UTC), datetime(2026, 8, 17, 6, 0, tzinfo=IST)),
        (datetime(2026, 8, 17, 0, 30, tzinfo=UTC), datetime(2026, 8, 18, 6, 0, tzinfo=IST)),
        (datetime(2026, 8, 17, 20, 0, tzinfo=UTC), datetime(2026, 8, 18, 6, 0, tzinfo=IST)),
    ],
)
def test_a_token_dies_at_the_next_six_oclock(now, dies):
    assert messages.token_dies(now) == dies


# --- frames -----------------------------------------------------------------------------------------------


def test_an_order_frame_becomes_an_observation():
    frame = messages.read_frame((DATA / "stream_order.json").read_text())

    update = messages.read_order(frame.data, reading(Channel.STREAM, owner="OW1234"))

    assert frame.kind == "order"
    assert (update.status, update.filled_quantity, update.raw_status) == (
        OrderStatus.PARTIALLY_FILLED,
        3,
        "UPDATE",
    )
    assert update.channel is Channel.STREAM


@pytest.mark.parametrize(
    ("text", "kind"),
    [('{"type":"error","data":"x"}', "error"), ('{"type":"new","data":{"a":1}}', "new"), ("{}", "")],
)
def test_other_frames_keep_their_kind(text, kind):
    assert messages.read_frame(text).kind == kind


@pytest.mark.parametrize("text", ["", "hello", "[]", '{"type":5}', "[" * 100_000, '{"type":"\ud800"}'])
def test_text_that_is_no_frame_is_refused(text):
    with pytest.raises(ProtocolViolationError):
        messages.read_frame(text)


def test_words_of_a_frame_are_read_whatever_they_are():
    assert messages.read_words(Raw(b'"hello"')) == "hello"
    assert messages.read_words(Raw(b'{"a":1}')) == '{"a":1}'


# --- whatever comes ---------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from([*messages._Order.__struct_fields__, "meta", "data", "x"])
rows = st.dictionaries(
    names, json_values | st.sampled_from(["OPEN", "1", "2026-08-17 10:00:00"]), max_size=12
)


@given(st.binary(max_size=200), st.sampled_from([200, 400, 403, 500, 502]))
def test_no_bytes_make_a_reply_raise_anything_but_our_errors(body, status):
    with contextlib.suppress(BrokerError):
        messages.read_reply(body, status=status)


@given(rows)
def test_no_row_makes_the_parser_raise_anything_but_a_violation(row):
    text = json.dumps({"order_id": "1", "status": "OPEN", **row}).encode()
    try:
        update = messages.read_order(text, reading())
    except ProtocolViolationError:
        return
    update.symbol.encode(), update.reason.encode(), update.tag.encode()
    assert update.quantity == int(update.quantity)


@given(json_values)
def test_no_data_makes_any_reader_raise_anything_but_our_errors(value):
    data = Raw(json.dumps(value).encode())
    for read in (
        lambda: messages.read_orders(data, reading()),
        lambda: messages.read_history(data, reading()),
        lambda: messages.read_trades(data, reading()),
        lambda: messages.read_positions(data, reading()),
        lambda: messages.read_holdings(data, reading()),
        lambda: messages.read_funds(data, AccountId("a")),
        lambda: messages.read_placed(data),
        lambda: messages.read_session(data),
        lambda: messages.read_words(data),
    ):
        with contextlib.suppress(BrokerError):
            read()


@given(st.text(max_size=100) | st.builds(json.dumps, json_values))
def test_no_text_makes_a_frame_raise_anything_but_a_violation(text):
    with contextlib.suppress(ProtocolViolationError):
        messages.read_frame(text)
