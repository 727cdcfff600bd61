"""Third-party samples of Kite, each against the committed table of what it must become."""

from __future__ import annotations

import base64
import json
from datetime import date
from decimal import Decimal

import pytest
from msgspec import Raw

from brokers.zerodha.samples_table import SAMPLES
from orderwire.brokers.zerodha import messages
from orderwire.brokers.zerodha.messages import Reading, session_checksum
from orderwire.brokers.zerodha.postbacks import postback_checksum, read_postback
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import AccountId, Channel, OrderStatus
from orderwire.errors import BrokerError, ProtocolViolationError, SessionExpiredError

pytestmark = pytest.mark.needs("samples")

ORDER_FILES = {sample.file for sample in SAMPLES}


def reading(channel=Channel.REST):
    return Reading(
        account=AccountId("acc"),
        channel=channel,
        trading_date=date(2026, 8, 17),
        received_ns=1,
        instruments=InstrumentTable(),
    )


def body(samples, name):
    return (samples / "kite" / name).read_bytes()


def reply(samples, name):
    return messages.read_reply(body(samples, name), status=200)


def row(samples, sample):
    found = json.loads(body(samples, sample.file))
    if "type" in found:
        found = found["data"]
    elif "data" in found:
        found = found["data"][sample.index]
    return json.dumps(found).encode()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample.file}-{sample.index}")
def test_a_sample_becomes_what_the_table_says(samples, sample):
    update = messages.read_order(row(samples, sample), reading())

    assert (update.order_id, update.status, update.raw_status) == (
        sample.order_id,
        sample.status,
        sample.raw_status,
    )
    assert (update.filled_quantity, update.quantity) == (sample.filled, sample.quantity)
    assert (update.average_price, update.broker_time) == (sample.average, sample.moment)
    assert (update.overlay, update.tag, update.parent_order_id) == (sample.overlay, sample.tag, sample.parent)


def test_every_order_of_the_samples_is_in_the_table(samples):
    rows = json.loads(body(samples, "orders.json"))["data"]
    captures = {f"captures/{path.name}" for path in (samples / "kite" / "captures").glob("ws_*.json")}

    assert len([sample for sample in SAMPLES if sample.file == "orders.json"]) == len(rows)
    assert captures <= ORDER_FILES


def test_the_edited_capture_contradicts_itself_and_is_the_only_one_not_trusted():
    doubtful = [sample for sample in SAMPLES if not sample.trusted]
    contradictory = [s for s in SAMPLES if s.status is OrderStatus.FILLED and s.filled < s.quantity]

    assert [sample.file for sample in doubtful] == ["captures/ws_frame_envelope_2023-03-24_EDITED.json"]
    assert contradictory == doubtful


def test_the_edited_capture_still_shows_the_envelope(samples):
    frame = messages.read_frame(body(samples, "captures/ws_frame_envelope_2023-03-24_EDITED.json"))

    assert frame.kind == "order"
    assert messages.read_order(frame.data, reading(Channel.STREAM)).order_id == "230324200948857"


def test_trades_positions_holdings_and_funds_are_read(samples):
    assert len(messages.read_trades(reply(samples, "trades.json"), reading())) == 4
    assert messages.read_trades(reply(samples, "order_trades.json"), reading())
    net = messages.read_positions(reply(samples, "positions.json"), reading())
    held = messages.read_holdings(reply(samples, "holdings.json"), reading())
    funds = messages.read_funds(reply(samples, "margins.json"), AccountId("acc"))

    assert (net[0].symbol, net[0].quantity, net[0].average_price) == (
        "LEADMINI17DECFUT",
        1,
        Decimal("161.05"),
    )
    assert held[1].average_price == Decimal("801.78125")
    assert funds.utilised == Decimal("145706.55")


@pytest.mark.parametrize("name", ["order_response.json", "order_modify.json", "order_cancel.json"])
def test_answers_to_our_requests_name_an_order(samples, name):
    assert messages.read_placed(reply(samples, name)).order_id.isdigit()


def test_the_older_autoslice_answer_is_read(samples):
    placed = messages.read_placed(reply(samples, "docs/autoslice_response_v1_array.json"))

    assert placed.order_id == "1914227164488687616"
    assert [bool(part.reason) for part in placed.slices] == [False, False, False, True, False]


def test_a_session_is_read(samples):
    assert messages.read_session(reply(samples, "generate_session.json")).user_id == "XX0000"


def test_both_checksum_vectors_verify(samples):
    for vector in json.loads(body(samples, "captures/checksum_vectors.json")):
        if vector["kind"] == "postback":
            computed = postback_checksum(
                order_id=vector["order_id"],
                order_timestamp=vector["order_timestamp"],
                api_secret=vector["api_secret"],
            )
        else:
            computed = session_checksum(
                api_key=vector["api_key"],
                request_token=vector["request_token"],
                api_secret=vector["api_secret"],
            )
        assert computed == vector["sha256"]


def test_a_published_postback_verifies_once_it_is_signed_with_a_known_secret(samples):
    genuine = json.loads(body(samples, "postback.json"))
    genuine["checksum"] = postback_checksum(
        order_id=genuine["order_id"], order_timestamp=genuine["order_timestamp"], api_secret="ours"
    )

    assert read_postback(json.dumps(genuine).encode(), secrets=["ours"]).claims["average_price"] == "470"
    with pytest.raises(ProtocolViolationError):
        read_postback(body(samples, "postback.json"), secrets=["ours"])


def test_every_error_body_becomes_an_error_with_its_words(samples):
    for entry in json.loads(body(samples, "captures/error_bodies.json")):
        text = json.dumps(entry["body"]).encode()
        with pytest.raises(BrokerError) as caught:
            messages.read_reply(text, status=entry["http"])
        assert entry["body"]["message"][:60] in str(caught.value)
        if entry["body"]["error_type"] == "TokenException":
            assert isinstance(caught.value, SessionExpiredError)


def test_frames_of_the_documentation_are_told_apart(samples):
    kinds = [
        messages.read_frame(json.dumps(frame)).kind
        for frame in json.loads(body(samples, "docs/ws_text_frames.json"))
    ]

    assert kinds == ["order", "error", "message"]


def test_a_tick_is_no_text_frame(samples):
    packet = base64.b64decode(body(samples, "ticker_full.packet"))

    with pytest.raises(ProtocolViolationError):
        messages.read_frame(packet)


def test_samples_that_are_not_orders_are_refused_as_orders(samples):
    rows = messages.read_orders(reply(samples, "trades.json"), reading())
    assert (len(rows), len(rows.odd)) == (0, 4)
    with pytest.raises(ProtocolViolationError):
        messages.read_orders(Raw(body(samples, "ticker_full.json")), reading())
