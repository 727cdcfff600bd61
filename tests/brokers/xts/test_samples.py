"""What each third-party sample must mean; the samples stay outside the repository (ORDERWIRE_SAMPLES)."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from orderwire.brokers.jainam.adapter import PROP_B_LIMITS
from orderwire.brokers.xts import answers, messages
from orderwire.brokers.xts.socketio import Connection, Joined, Received
from orderwire.core.orders import IST, Channel, ModifyRequest, OrderId, OrderStatus
from orderwire.errors import ProtocolViolationError

pytestmark = pytest.mark.needs("samples")

FILLED, CANCELLED, REJECTED = OrderStatus.FILLED, OrderStatus.CANCELLED, OrderStatus.REJECTED
OPEN, PENDING = OrderStatus.OPEN, OrderStatus.PENDING_NEW

ORDERS = {
    # file: for each row (order id, status, filled, quantity, average, side, type, broker time)
    "socket_order_pendingnew.json": [
        ("1110037830", PENDING, 0, 46, "0", "SELL", "SL-M", "2025-01-01 10:00:15"),
    ],
    "socket_trade_filled.json": [
        ("1110027235", FILLED, 3, 3, "2853.50", "SELL", "MARKET", "2024-12-27 11:22:47"),
    ],
    "socket_trade_doc_2019.json": [
        ("648468731", FILLED, 1, 1, "44.00", "BUY", "LIMIT", "2019-03-09 14:31:51"),
    ],
    "rest_orderbook_doc_2021.json": [
        ("648468730", OPEN, 0, 15, "0", "BUY", "LIMIT", "2021-05-14 11:17:29"),
    ],
    "rest_orderbook_real_2020_iso.json": [
        ("10026325", FILLED, 75, 75, "31.80", "SELL", "MARKET", "2020-12-21 14:49:16"),
        ("10026366", CANCELLED, 0, 75, "0", "BUY", "SL-M", "2020-12-29 15:05:57"),
    ],
    "rest_order_history_pro_rejected_2026.json": [
        ("1210030263", REJECTED, 0, 65, "0", "BUY", "LIMIT", "2026-02-04 14:22:11"),
    ],
    "rest_tradebook_real_2021_iso.json": [
        ("10027535", FILLED, 75, 75, "91.50", "SELL", "MARKET", "2021-01-05 09:45:17"),
    ],
}

TRADES = {
    "socket_trade_filled.json": [("1110027235", "2177829", 3, "2853.5")],
    "socket_trade_doc_2019.json": [("648468731", "1320599196383056", 1, "44")],
    "rest_tradebook_real_2021_iso.json": [("10027535", "31995558", 75, "91.5")],
}

LIFECYCLES = {
    # story: the distinct states that its events show, in order; None where only a request is pending
    "limit_fill_two_parts": ["PENDING_NEW", "OPEN", "PARTIALLY_FILLED", "FILLED"],
    "replace": ["OPEN", None, "OPEN"],
    "cancel": ["OPEN", None, "CANCELLED"],
}


@pytest.fixture
def payload(samples):
    return lambda name: json.loads((samples / "xts" / name).read_text(), parse_float=Decimal)["payload"]


def rows_of(value):
    value = value.get("result", value) if isinstance(value, dict) else value
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_sample_means_what_the_table_says(payload, reading, name):
    updates = [messages.order_update(row, reading(), raw=b"{}") for row in rows_of(payload(name))]

    assert [
        (
            u.order_id,
            u.status,
            u.filled_quantity,
            u.quantity,
            u.average_price,
            u.side,
            u.order_type,
            u.broker_time,
        )
        for u in updates
    ] == [
        (*row[:4], Decimal(row[4]), *row[5:7], datetime.fromisoformat(row[7]).replace(tzinfo=IST))
        for row in ORDERS[name]
    ]


@pytest.mark.parametrize("name", TRADES)
def test_a_trade_sample_means_what_the_table_says(payload, reading, name):
    trades = [messages.trade(row, reading(), raw=b"{}") for row in rows_of(payload(name))]

    assert [(t.order_id, t.trade_id, t.quantity, t.price) for t in trades] == [
        (*row[:3], Decimal(row[3])) for row in TRADES[name]
    ]


def test_a_rejection_keeps_the_brokers_words(payload, reading):
    (row,) = payload("rest_order_history_pro_rejected_2026.json")

    update = messages.order_update(row, reading(Channel.HISTORY), raw=b"{}")

    assert update.reason == "Gateway:DMA order can't be placed, for PRO Orders"
    assert answers.clients(kind="pro", client_id="", investor=False).owns(messages.client_of(row))


def test_the_position_sample_is_a_day_wise_twin_of_a_closed_pair(payload, reading):
    row = payload("socket_position_daywise.json")

    position = messages.position(row, reading(), raw=b"{}")

    assert not messages.is_net_position(row)
    assert (position.quantity, position.buy_quantity, position.sell_quantity) == (0, 26, 26)
    assert position.pnl == Decimal("129.35")


def test_the_synthetic_lifecycles_pass_through_the_expected_states(payload, reading):
    stories = payload("SYNTHETIC_lifecycles.json")

    seen = {}
    for name, events in stories.items():
        orders = [row for kind, row in events if kind == "order"]
        states = [messages.order_update(row, reading(), raw=b"{}").status for row in orders]
        seen[name] = [state for at, state in enumerate(states) if at == 0 or state is not states[at - 1]]

    assert seen == LIFECYCLES


def test_the_login_the_lookup_and_the_errors_are_judged(payload):
    def judged(status, body):
        return answers.read_answer(status, json.dumps(body).encode())

    errors = payload("rest_errors.json")
    login = answers.read_login(judged(200, payload("rest_login_response.json")))
    lookup = answers.read_lookup(judged(200, payload("rest_hostlookup.json")["response"]))
    empty = [name for name, body in errors.items() if judged(400, body).empty]
    dead = [name for name, body in errors.items() if judged(400, body).dead_token]

    assert (login.user_id, login.investor, login.client_codes) == ("LOGIN01", True, ("CLIENT01",))
    assert lookup.connection == "http://ctrade.jainam.in:4202"
    assert empty == [
        "empty_order_book_http_400",
        "empty_trade_book_http_400",
        "empty_positions_http_400",
        "empty_holdings_http_400",
    ]
    assert dead == ["invalid_token_http_400", "session_replaced_http_400", "no_token"]
    assert "must be one of" in judged(400, errors["validation_http_400"]).description


def test_the_order_numbers_of_placements_are_read(payload):
    sample = payload("rest_place_order.json")

    assert (
        messages.placed_order_id(json.dumps(sample["response_investor"]["result"]).encode()) == "2190766863"
    )
    assert (
        messages.placed_order_id(json.dumps(sample["response_pro_dealer_result_only"]).encode())
        == "1210049745"
    )


@pytest.mark.parametrize(("story", "revision"), [("eio3_websocket_only", 3), ("eio4_websocket", 4)])
def test_the_measured_frames_are_spoken(payload, story, revision):
    connection, said, signals = Connection(revision=revision, now=0.0), [], []

    for line in payload("socketio_wire_frames.json")[story]:
        direction, frame = line.split(" ", 1)
        if direction == "<" and not frame.endswith('…}"]'):
            signals += connection.receive(frame.replace(",…]", ',"x"]').replace("…", "x"), now=1.0)
            said += connection.frames()

    assert any(isinstance(signal, Joined) and signal.revision == revision for signal in signals)
    assert any(isinstance(signal, Received) and signal.name == "joined" for signal in signals)
    assert said == ([] if revision == 3 else ["40", "3"])


def test_our_limits_are_those_of_the_notice(payload):
    notice = {
        row["api"]: (row["requests"], float(row["interval_s"]))
        for row in payload("jainam_prop_b_rate_limits.json")["limits"]
    }
    names = {
        "books": "orderbook/orderhistory",
        "place": "Place order",
        "modify": "Modify Order",
        "cancel": "Cancel Order",
        "trades": "Tradebook",
        "positions": "Positions",
        "holdings": "Holdings",
        "balance": "Balance",
    }

    assert {call: PROP_B_LIMITS[call] for call in names} == {call: notice[api] for call, api in names.items()}


def test_every_sample_has_a_place_in_these_tests(samples):
    elsewhere = {
        "SYNTHETIC_lifecycles.json",
        "jainam_prop_b_rate_limits.json",
        "rest_errors.json",
        "rest_hostlookup.json",
        "rest_login_response.json",
        "rest_place_order.json",
        "socket_position_daywise.json",
        "socketio_wire_frames.json",
    }
    requests_and_claims = {
        "rest_modify_cancel_requests.json",
        "jwt_claims.json",
        "socket_trade_conversion.json",
    }

    found = {path.name for path in (samples / "xts").glob("*.json")}

    assert found == {*ORDERS, *elsewhere, *requests_and_claims}


def test_a_conversion_is_no_order(payload, reading):
    with pytest.raises(ProtocolViolationError):
        messages.order_update(payload("socket_trade_conversion.json"), reading(), raw=b"{}")


def test_our_modification_names_the_fields_of_the_brokers_document(payload):
    documented = payload("rest_modify_cancel_requests.json")["modify_PUT_/interactive/orders"]
    change = ModifyRequest(
        order_id=OrderId(str(documented["appOrderID"])),
        quantity=3,
        order_type="MARKET",
        product="NRML",
        tag="454845",
    )

    assert messages.modify_body(change, client_id="*****") == documented


def test_the_claims_of_a_token_say_when_it_ends(payload):
    claims = payload("jwt_claims.json")["claims_interactive"]
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()

    assert answers.token_expiry(f"e30.{part}.x") == datetime.fromtimestamp(claims["exp"], UTC)
