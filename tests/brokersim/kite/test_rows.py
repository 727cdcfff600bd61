"""Kite's spelling, against the protocol document's own vectors and the samples' key sets."""

import json
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import pytest

from brokersim.instruments import INSTRUMENTS
from brokersim.kite import rows
from brokersim.orders import Cause, OrderRequest, OrderSnapshot, OrderType, Reason, Side, Stage, Terms
from brokersim.timeline import IST
from brokersim.users import KiteApp

NOON = datetime(2026, 8, 17, 12, 0, 1, 250_000, tzinfo=IST)
APP = KiteApp(api_key="demokite", api_secret="API_SECRET", app_id=1234)


def snapshot(stage=Stage.OPEN, **changes):
    request = OrderRequest(
        broker="kite",
        order_id="2125253389729136641",
        user="ZD0001",
        placed_by="ZD0001",
        app="demokite",
        instrument=INSTRUMENTS[0],
        side=Side.BUY,
        product="CNC",
        terms=Terms(type=OrderType.LIMIT, quantity=10, price=Decimal("820.5")),
        tag=changes.pop("tag", ""),
        meta=changes.pop("meta", {}),
    )
    given = {"cause": Cause.PLACED, "number": 3, "received_at": NOON, "updated_at": NOON} | changes
    return OrderSnapshot(request=request, stage=stage, terms=request.terms, **given)


def test_the_documents_checksum_vectors_hold():
    postback = rows.postback_checksum("220303000308932", "2022-03-03 09:24:25", "API_SECRET")
    login = rows.session_checksum("testkey", "reqtok", "secret")

    assert postback == "aa389e3f151b51d34809d96299463207da0353105274d9495bad54a38ec227c1"
    assert login == "7e010cfbf4885caf1e063ce23f35cb1b126a6c0a74ac10b8f700e1d63e5fbeef"


@pytest.mark.parametrize(
    ("value", "text"), [("470", "470"), ("470.00", "470"), ("37.25", "37.25"), ("87.0025", "87.0025")]
)
def test_whole_prices_are_written_without_a_point(value, text):
    assert json.dumps(rows.number(Decimal(value))) == text


def test_every_stage_has_a_status_or_none_on_purpose():
    assert set(rows.STATUS) == set(Stage)
    assert [stage for stage, status in rows.STATUS.items() if status is None] == [Stage.CANCEL_REFUSED]


@pytest.mark.parametrize(
    ("stage", "filled", "pending", "cancelled"),
    [
        (Stage.OPEN, 0, 10, 0),
        (Stage.PARTIALLY_FILLED, 4, 6, 0),
        (Stage.FILLED, 10, 0, 0),
        (Stage.CANCELLED, 4, 6, 6),
        (Stage.REJECTED, 0, 0, 0),
    ],
)
def test_pending_is_not_zeroed_by_a_cancellation(stage, filled, pending, cancelled):
    row = rows.order_row(snapshot(stage, filled=filled, value=Decimal(820) * filled))

    found = (row["filled_quantity"], row["pending_quantity"], row["cancelled_quantity"])
    assert found == (filled, pending, cancelled)


def test_times_are_indian_whole_seconds_and_null_before_the_exchange_spoke():
    row = rows.order_row(snapshot(Stage.SENT))

    assert row["order_timestamp"] == "2026-08-17 12:00:01"
    assert (row["exchange_timestamp"], row["exchange_update_timestamp"], row["exchange_order_id"]) == (
        None,
        None,
        None,
    )


def test_a_reason_is_shown_as_text_and_raw():
    row = rows.order_row(snapshot(Stage.REJECTED, reason=Reason(text="no money", raw="RMS:no money")))

    assert (row["status_message"], row["status_message_raw"]) == ("no money", "RMS:no money")


def test_tags_are_there_only_when_there_is_one():
    tagged = rows.order_row(snapshot(tag="mine", meta={"tags": ["mktp"]}))

    assert (tagged["tag"], tagged["tags"]) == ("mine", ["mine", "mktp"])
    assert "tags" not in rows.order_row(snapshot())


def test_a_history_begins_with_the_wrong_token_and_skips_what_has_no_status():
    steps = [Stage.RECEIVED, Stage.VALIDATING, Stage.CANCEL_REFUSED, Stage.OPEN]

    found = rows.history_rows(snapshot(stage) for stage in steps)

    assert [(row["status"], row["instrument_token"]) for row in found] == [
        ("PUT ORDER REQ RECEIVED", 1),
        ("VALIDATION PENDING", 779521),
        ("OPEN", 779521),
    ]


@pytest.mark.parametrize(
    ("stage", "cause", "before", "status"),
    [
        (Stage.RECEIVED, Cause.PLACED, None, None),
        (Stage.SENT, Cause.PLACED, Stage.VALIDATING, None),
        (Stage.OPEN, Cause.PLACED, Stage.SENT, "OPEN"),
        (Stage.TRIGGER_PENDING, Cause.PLACED, Stage.SENT, None),
        (Stage.OPEN, Cause.TRIGGER, Stage.TRIGGER_PENDING, "UPDATE"),
        (Stage.PARTIALLY_FILLED, Cause.FILL, Stage.OPEN, "UPDATE"),
        (Stage.MODIFY_SENT, Cause.MODIFY, Stage.MODIFY_VALIDATING, None),
        (Stage.MODIFIED, Cause.MODIFY, Stage.MODIFY_SENT, None),
        (Stage.OPEN, Cause.MODIFY, Stage.MODIFIED, "UPDATE"),
        (Stage.OPEN, Cause.MODIFY, Stage.MODIFY_REFUSED, "UPDATE"),
        (Stage.OPEN, Cause.CANCEL, Stage.CANCEL_REFUSED, "UPDATE"),
        (Stage.CANCEL_SENT, Cause.CANCEL, Stage.OPEN, None),
        (Stage.FILLED, Cause.FILL, Stage.OPEN, "COMPLETE"),
        (Stage.CANCELLED, Cause.CANCEL, Stage.CANCEL_SENT, "CANCELLED"),
        (Stage.REJECTED, Cause.RISK, Stage.VALIDATING, "REJECTED"),
        (Stage.EXPIRED, Cause.DAY_END, Stage.OPEN, "CANCELLED"),
    ],
)
def test_what_is_pushed_and_as_what(stage, cause, before, status):
    earlier = snapshot(before) if before else None

    assert rows.push_status(snapshot(stage, cause=cause), earlier) == status


def test_socket_and_postback_differ_as_they_do_at_kite():
    order = snapshot()

    socket, postback = rows.socket_data(order, "OPEN"), rows.postback_body(order, "OPEN", APP)

    assert socket["checksum"] == ""
    assert set(postback) - set(socket) == {"user_id", "app_id"}
    assert set(socket) - set(postback) == {"account_id"}
    expected = rows.postback_checksum(order.order_id, "2026-08-17 12:00:01", "API_SECRET")
    assert postback["checksum"] == expected
    assert postback["unfilled_quantity"] == 0


def test_a_lagging_book_shows_the_past():
    later = replace(snapshot(), updated_at=NOON.replace(second=9))

    assert rows.visible([snapshot(), later], NOON.replace(second=5)) == [snapshot()]


@pytest.mark.needs("samples")
def test_the_keys_are_those_of_the_published_samples(samples):
    postback = json.loads((samples / "kite" / "postback.json").read_text())
    capture = json.loads((samples / "kite" / "captures" / "ws_data_2023-04-11_a_open_limit.json").read_text())
    orders = json.loads((samples / "kite" / "orders.json").read_text())["data"]
    order = snapshot()

    assert set(rows.postback_body(order, "OPEN", APP)) == set(postback)
    assert set(rows.socket_data(order, "OPEN")) == set(capture)
    assert set(rows.order_row(order)) <= set().union(*orders)
