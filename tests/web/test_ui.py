from __future__ import annotations

from decimal import Decimal

import pytest

from orderwire.core.lifecycle import SubmissionState
from orderwire.errors import OrderRefusedError
from web.house import csrf, order

PLACE = {
    "account": "acc",
    "symbol": "INFY",
    "exchange": "NSE",
    "action": "BUY",
    "quantity": "10",
    "pricetype": "LIMIT",
    "price": "1500.50",
    "product": "CNC",
}


@pytest.fixture
def call(house):
    client = house.client("asha")
    token = csrf(client, "/")

    def post(path, body, **headers):
        return client.post(f"/ui/{path}", json=body, headers={"X-CSRFToken": token} | headers)

    return post


def test_an_order_is_placed_and_its_number_told(house, call):
    answer = call("orders", PLACE, **{"Idempotency-Key": "3f6c11ee-aa"})

    assert answer.status_code == 200
    assert answer.json["state"] == "ACCEPTED"
    ((account, request, key),) = house.desk.placed
    assert (account, key) == ("acc", "3f6c11ee-aa")
    assert (request.symbol, request.quantity, request.price, request.product) == (
        "INFY",
        10,
        Decimal("1500.50"),
        "CNC",
    )


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"symbol": "INFFY"}, "symbol", "not in today's list"),
        ({"quantity": "0"}, "quantity", "at least 1"),
        ({"quantity": "-3"}, "quantity", "at least 1"),
        ({"price": "1500.123"}, "price", "more decimals"),
        ({"price": ""}, "price", "Enter a price"),
        ({"symbol": "NIFTY29DEC26FUT", "exchange": "NFO", "quantity": "10"}, "quantity", "lot size"),
        ({"exchange": "NSE_INDEX"}, "exchange", "cannot be traded"),
        ({"pricetype": "SL", "trigger_price": "1600"}, "trigger_price", "not above"),
        ({"account": ""}, "account", "Choose an account"),
    ],
)  # fmt: skip
def test_bad_input_is_answered_field_by_field(house, call, fields, field, words):
    answer = call("orders", PLACE | fields)

    assert answer.status_code == 400
    assert answer.json["status"] == "error"
    assert words in answer.json["problems"][field]
    assert house.desk.placed == []


def test_a_refused_order_is_answered_with_the_brokers_words(house, call):
    house.desk.state, house.desk.reason = SubmissionState.REFUSED, "Insufficient funds."

    answer = call("orders", PLACE)

    assert answer.status_code == 422
    assert answer.json["message"] == "Insufficient funds."
    assert answer.json["state"] == "REFUSED"


def test_an_order_in_doubt_is_told_to_be_in_doubt(house, call):
    house.desk.state = SubmissionState.UNKNOWN

    answer = call("orders", PLACE)

    assert answer.status_code == 202
    assert "did not confirm" in answer.json["message"]


def test_an_order_is_modified(house, call):
    terms = {
        "orderid": "1",
        "quantity": "5",
        "pricetype": "LIMIT",
        "product": "CNC",
        "price": "10",
        "account": "acc",
    }

    assert call("orders/modify", terms).json == {"status": "success", "orderid": "1"}
    assert house.desk.modified[0][1].price == 10


def test_an_order_is_cancelled(house, call):
    assert call("orders/cancel", {"account": "acc", "orderid": "1"}).status_code == 200
    assert house.desk.cancelled == [("acc", "1")]


def test_a_refused_cancellation_says_why(house, call):
    house.desk.fail = OrderRefusedError("Order is already complete.")

    answer = call("orders/cancel", {"account": "acc", "orderid": "1"})

    assert (answer.status_code, answer.json["message"]) == (422, "Order is already complete.")


@pytest.mark.parametrize("path", ["orders", "orders/modify", "orders/cancel", "refresh"])
@pytest.mark.parametrize("body", ["text", [1], None, {"account": {"a": 1}}, {"account": 7}])
def test_a_body_of_another_shape_is_refused(call, path, body):
    assert call(path, body).status_code == 400


@pytest.mark.parametrize("path", ["orders", "orders/modify", "orders/cancel", "refresh"])
@pytest.mark.parametrize("account", ["theirs", "none", "'; --"])
def test_an_account_of_somebody_else_looks_like_none(house, call, path, account):
    house.user("ravi")
    house.account("theirs", "ravi")

    answer = call(path, PLACE | {"account": account, "orderid": "1"})

    assert answer.status_code == 404
    assert answer.json["message"] == f"There is no account {account}."
    assert house.desk.placed == house.desk.cancelled == house.fleet.refreshed == []


def test_refresh_reads_one_book_or_all_of_mine(house, call):
    house.account("acc2", "asha")
    house.user("ravi")
    house.account("theirs", "ravi")

    call("refresh", {"account": "acc2"})
    answer = call("refresh", {})

    assert answer.status_code == 202
    assert house.fleet.refreshed == ["acc2", "acc", "acc2"]


def test_the_search_finds_instruments_of_the_accounts_broker(house):
    found = house.client("asha").get("/ui/search?account=acc&text=nifty 24400").json["instruments"]

    assert [one["symbol"] for one in found] == ["NIFTY29DEC2624400CE"]
    assert found[0]["lot_size"] == 75


@pytest.mark.parametrize(
    "query", ["account=acc&text=", "account=acc&text=%25%5F", "account=acc&text=" + "x" * 999]
)
def test_a_search_for_nothing_finds_nothing(house, query):
    answer = house.client("asha").get(f"/ui/search?{query}")

    assert (answer.status_code, answer.json["instruments"]) == (200, [])


def test_the_feeds_are_those_of_my_accounts(house):
    house.user("ravi")
    house.account("theirs", "ravi")

    feeds = house.client("asha").get("/ui/feeds").json["feeds"]

    assert [(one["account"], one["freshness"]) for one in feeds] == [("acc", "LIVE")]


def test_the_snapshot_is_what_the_stream_would_give(house):
    house.log.change(order(number=1))

    told = house.client("asha").get("/ui/snapshot?account=acc").json

    assert [row["row"] for row in told["orders"]] == ["r1"]
    assert (told["epoch"], told["sequence"], told["feed"]["freshness"]) == ("e1", 1, "LIVE")


def test_nobody_gets_a_snapshot_of_somebody_else(house):
    house.user("ravi")
    house.account("theirs", "ravi")

    assert house.client("asha").get("/ui/snapshot?account=theirs").status_code == 404


def test_placing_faster_than_a_person_can_is_slowed_down(call):
    codes = [call("orders", PLACE).status_code for _ in range(15)]

    assert codes[0] == 200
    assert codes[-1] == 429
