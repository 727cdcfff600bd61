"""The Kite host as a client meets it: login, orders, books, refusals, limits and broken answers."""

import gzip
from decimal import Decimal

import aiohttp
import pytest

from brokersim.instruments import KITE_HEADER
from brokersim.kite.rows import session_checksum
from brokersim.orders import Stage


def test_the_login_page_leads_back_to_the_app_with_a_token_that_works_once(kite):
    kite.control("PATCH", "/kite/apps/demokite", redirect_url="http://127.0.0.1:5080/back?x=1")

    form = {"api_key": "demokite", "user_id": "ZD0001", "password": "demo", "redirect_params": "a=b%20c"}
    query = kite.redirected("/connect/login", form)

    assert query["x"] == "1"
    assert (query["action"], query["status"], query["a"]) == ("login", "success", "b c")
    assert len(query["request_token"]) == 32
    status, page = kite.raw("GET", "/connect/login?v=3&api_key=demokite")
    assert status == 200
    assert 'name="user_id"' in page


def test_a_wrong_login_stays_on_the_page(kite):
    form = {"api_key": "demokite", "user_id": "ZD0001", "password": "wrong"}

    status, page = kite.raw("POST", "/connect/login", data=form)

    assert status == 403
    assert "Invalid user id or password." in page


def exchange(kite, **changes):
    login = {"api_key": "demokite", "user_id": "ZD0002", "password": "demo"}
    token = kite.redirected("/connect/login", login)["request_token"]
    form = {
        "api_key": "demokite",
        "request_token": token,
        "checksum": session_checksum("demokite", token, "demokite-secret"),
    } | changes
    return form, kite.raw("POST", "/session/token", data=form)


def test_a_request_token_becomes_a_session_once(kite):
    form, (status, body) = exchange(kite)

    again = kite.raw("POST", "/session/token", data=form)

    assert status == 200
    assert body["data"]["user_id"] == "ZD0002"
    assert body["data"]["refresh_token"] == ""
    assert body["data"]["login_time"] == "2026-08-17 13:23:20"
    assert again[0] == 400
    assert again[1]["message"] == "Token is invalid or has expired."


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"checksum": "0" * 64}, 403, "Invalid `checksum`."),
        ({"request_token": "unknown"}, 400, "Token is invalid or has expired."),
        ({"api_key": "abc"}, 400, "Missing or invalid field `api_key`. Min length is 6."),
        ({"api_key": "nobodys"}, 403, "Incorrect `api_key` or `access_token`."),
    ],
)
def test_a_wrong_exchange_is_refused(kite, changes, status, message):
    _, (found, body) = exchange(kite, **changes)

    assert (found, body["message"], body["status"]) == (status, message, "error")


def test_a_request_token_dies_after_five_minutes(kite):
    login = {"api_key": "demokite", "user_id": "ZD0002", "password": "demo"}
    token = kite.redirected("/connect/login", login)["request_token"]
    kite.pass_time(301)

    form = {"api_key": "demokite", "request_token": token, "checksum": "x"}
    status, body = kite.raw("POST", "/session/token", data=form)

    assert (status, body["message"]) == (400, "Token is invalid or has expired.")


def test_a_second_login_of_the_day_gives_the_same_token(kite):
    assert kite.log_in("ZD0001") == kite.token


def test_a_token_dies_at_six_in_the_morning(kite):
    kite.pass_time(16.6 * 3600 - 60)
    assert kite.call("GET", "/orders")[0] == 200
    kite.pass_time(120)

    status, body = kite.call("GET", "/orders")

    assert status == 403
    assert body == {
        "status": "error",
        "message": "Incorrect `api_key` or `access_token`.",
        "data": None,
        "error_type": "TokenException",
    }


def test_logging_out_ends_the_session(kite):
    path = f"/session/token?api_key=demokite&access_token={kite.token}"

    assert kite.raw("DELETE", path) == (200, {"status": "success", "data": True})
    assert kite.call("GET", "/orders")[0] == 403
    assert kite.raw("DELETE", path)[0] == 403


@pytest.mark.parametrize("header", ["", "Bearer x", "token demokite", "token demokite:wrong", "token x:y:z"])
def test_without_a_good_token_nothing_is_told(kite, header):
    status, body = kite.raw("GET", "/orders", headers={"Authorization": header})

    assert (status, body["error_type"]) == (403, "TokenException")


def test_profile_margins_and_holdings(kite):
    assert kite.data("GET", "/user/profile")["user_id"] == "ZD0001"
    assert kite.data("GET", "/user/margins/equity")["net"] == 10_000_000
    assert set(kite.data("GET", "/user/margins")) == {"equity", "commodity"}
    assert kite.call("GET", "/user/margins/moon")[0] == 400
    assert [row["tradingsymbol"] for row in kite.data("GET", "/portfolio/holdings")] == ["SBIN", "INFY"]


def test_the_instrument_list_is_gzipped_and_split_by_exchange(kite):
    async def fetch(path):
        async with (
            aiohttp.ClientSession(auto_decompress=False) as client,
            client.get(kite.sim.kite_url + path, headers={"Accept-Encoding": "gzip"}) as answer,
        ):
            return answer, await answer.read()

    answer, packed = kite.run(fetch("/instruments"))
    text = gzip.decompress(packed).decode()

    assert answer.content_type == "text/csv"
    assert answer.headers["Content-Encoding"] == "gzip"
    assert text.splitlines()[0] == KITE_HEADER
    assert len(text.splitlines()) == 18
    assert len(kite.raw("GET", "/instruments/NFO")[1].splitlines()) == 6
    assert kite.raw("GET", "/instruments/XYZ")[1].splitlines() == [KITE_HEADER]


def test_the_second_day_has_another_list(kite):
    kite.control("PATCH", "/settings", second_day=True)

    text = kite.raw("GET", "/instruments")[1]

    assert "INFY-BE" in text
    assert '11547138,45106,NIFTY2682524500CE,"NIFTY",0,2026-08-25,24500' in text


# --- orders ----------------------------------------------------------------------------------------------


def test_a_limit_order_goes_through_its_statuses(kite):
    order_id = kite.place(price=800, tag="hello", algo_id="A1", variety="regular")
    assert kite.order(order_id)["status"] == "PUT ORDER REQ RECEIVED"
    kite.pass_time(0.1)

    assert [row["status"] for row in kite.history(order_id)] == [
        "PUT ORDER REQ RECEIVED",
        "VALIDATION PENDING",
        "OPEN PENDING",
        "OPEN",
    ]
    row = kite.order(order_id)
    assert (row["price"], row["tag"], row["tags"]) == (800, "hello", ["hello"])


def test_fills_show_in_trades_and_positions(kite):
    order_id = kite.place(quantity=10, price=820.5)
    kite.pass_time(4)

    row = kite.order(order_id)
    trades = kite.data("GET", f"/orders/{order_id}/trades")
    position = kite.data("GET", "/portfolio/positions")["net"][0]
    assert row["status"] == "COMPLETE"
    assert sum(trade["quantity"] for trade in trades) == 10
    assert kite.data("GET", "/trades") == trades
    assert len(trades[0]["order_timestamp"]) == 8
    assert (position["tradingsymbol"], position["quantity"]) == ("SBIN", 10)
    assert position["average_price"] == row["average_price"]
    assert kite.data("GET", "/user/margins/equity")["net"] == pytest.approx(
        10_000_000 - 10 * row["average_price"]
    )


def test_a_modification_and_a_cancellation(kite):
    order_id = kite.place(price=800)
    kite.pass_time(0.1)

    form = {"variety": "regular", "order_id": order_id, "quantity": 12, "price": 801, "order_type": "LIMIT"}
    assert kite.data("PUT", f"/orders/regular/{order_id}", data=form) == {"order_id": order_id}
    kite.pass_time(0.1)
    changed = kite.order(order_id)
    assert kite.data("DELETE", f"/orders/regular/{order_id}") == {"order_id": order_id}
    kite.pass_time(0.1)

    assert (changed["status"], changed["price"], changed["quantity"]) == ("OPEN", 801, 12)
    assert [row["status"] for row in kite.history(order_id)][4:] == [
        "MODIFY VALIDATION PENDING",
        "MODIFY PENDING",
        "MODIFIED",
        "OPEN",
        "CANCEL PENDING",
        "CANCELLED",
    ]


def test_an_order_on_its_way_can_be_neither_modified_nor_cancelled(kite):
    order_id = kite.place(price=800)

    status, modify = kite.call("PUT", f"/orders/regular/{order_id}", data={"price": "801"})
    _, cancel = kite.call("DELETE", f"/orders/regular/{order_id}")

    assert status == 400
    assert modify["message"] == "Order cannot be modified as it is being processed. Try later."
    assert cancel["message"] == "Order cannot be cancelled as it is being processed. Try later."


def test_the_twenty_sixth_modification_is_refused(kite):
    order_id = kite.place(price=800)
    kite.pass_time(0.1)
    for step in range(25):
        kite.data("PUT", f"/orders/regular/{order_id}", data={"price": str(801 + step)})
        kite.pass_time(0.1)

    status, body = kite.call("PUT", f"/orders/regular/{order_id}", data={"price": "840"})

    assert (status, body["message"]) == (400, "Maximum allowed order modifications exceeded.")


def test_another_users_order_does_not_exist(kite):
    order_id = kite.place(price=800)
    other = kite.log_in("ZD0002")

    for method, path in [("GET", f"/orders/{order_id}"), ("DELETE", f"/orders/regular/{order_id}")]:
        status, body = kite.call(method, path, token=other)
        assert (status, body["error_type"]) == (400, "OrderException")
    assert kite.call("GET", "/orders", token=other)[1]["data"] == []


@pytest.mark.parametrize(
    ("form", "error_type", "message"),
    [
        ({"tradingsymbol": "NOPE"}, "InputException", "does not exist"),
        ({"tradingsymbol": "NIFTY 50"}, "InputException", "index"),
        ({"quantity": 0}, "InputException", "`quantity`"),
        ({"quantity": "ten"}, "InputException", "`quantity`"),
        ({"quantity": 1.5}, "InputException", "`quantity`"),
        ({"quantity": -1}, "InputException", "`quantity`"),
        ({"quantity": "1e400"}, "InputException", "`quantity`"),
        ({"price": "800.123"}, "InputException", "Tick size"),
        ({"price": "NaN"}, "InputException", "`price`"),
        ({"price": None}, "InputException", "`price`"),
        ({"order_type": "SL", "price": 800}, "InputException", "`trigger_price`"),
        ({"order_type": "FANCY"}, "InputException", "`order_type`"),
        ({"transaction_type": "HOLD"}, "InputException", "`transaction_type`"),
        ({"product": "XYZ"}, "InputException", "`product`"),
        ({"exchange": None}, "InputException", "`exchange`"),
        ({"tag": "x" * 21}, "InputException", "`tag`"),
        ({"order_type": "MARKET"}, "InputException", "without market protection"),
        ({"order_type": "SL-M", "trigger_price": 830}, "InputException", "without market protection"),
        ({"order_type": "MARKET", "market_protection": 101}, "InputException", "`market_protection`"),
        ({"order_type": "MARKET", "market_protection": "x"}, "InputException", "`market_protection`"),
        ({"variety": "fancy"}, "InputException", "`variety`"),
        (
            {"exchange": "MCX", "tradingsymbol": "CRUDEOIL26SEPFUT", "price": 5600, "validity": "IOC"},
            "InputException",
            "MCX",
        ),
        (
            {"exchange": "NFO", "tradingsymbol": "NIFTY26AUGFUT", "price": 24450, "quantity": 64},
            "InputException",
            "lot size",
        ),
    ],
)
def test_refused_at_once_and_never_in_the_book(kite, form, error_type, message):
    status, found, text = kite.refused(form.pop("variety", "regular"), **form)

    assert (status, found) == (400, error_type)
    assert message in text
    assert kite.data("GET", "/orders") == []


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"price": 2000}, "price band"),
        ({"quantity": 50_000, "price": 820}, "Insufficient funds. Required margin is 41000000.00"),
        ({"quantity": 90_001, "price": 1}, "freeze"),
    ],
)
def test_rejected_by_risk_control_or_exchange_with_a_row(kite, form, message):
    order_id = kite.place(**form)
    kite.pass_time(0.1)

    row = kite.order(order_id)
    assert row["status"] == "REJECTED"
    assert message in row["status_message"]


def test_a_shortfall_can_also_be_refused_at_once(kite):
    kite.settings(kite_margin_at_once=True)

    status, error_type, text = kite.refused(quantity=50_000, price=820)

    assert (status, error_type) == (400, "MarginException")
    assert text.startswith("Insufficient funds. Required margin is 41000000.00 but available margin is")


def test_a_market_order_is_stored_as_limit_at_its_protection_price(kite):
    order_id = kite.place(order_type="MARKET", price=None, market_protection=-1)
    kite.pass_time(0.2)

    row = kite.order(order_id)
    assert (row["status"], row["order_type"], row["price"]) == ("COMPLETE", "LIMIT", 836.4)
    assert row["tags"] == ["mktp", "mktp:2.00"]
    assert row["average_price"] == 820.1


def test_the_rule_of_protection_can_be_off(kite):
    kite.settings(kite_market_protection=False)

    order_id = kite.place(order_type="MARKET", price=None)
    kite.pass_time(0.2)

    assert kite.order(order_id)["order_type"] == "MARKET"


def test_orders_need_a_listed_address_when_the_rule_is_on(kite):
    kite.settings(kite_static_ip=True)
    nothing = kite.refused()
    kite.control("PATCH", "/kite/apps/demokite", allowed_ips=["203.0.113.9"])
    other = kite.refused()
    kite.control("PATCH", "/kite/apps/demokite", allowed_ips=["127.0.0.1"])

    assert nothing[:2] == other[:2] == (403, "PermissionException")
    assert nothing[2].startswith("No IPs configured")
    assert other[2].startswith("IP (127.0.0.1) is not allowed")
    assert kite.place()
    assert kite.call("GET", "/orders")[0] == 200


def test_an_amo_waits_and_then_is_addressed_as_regular(kite):
    order_id = kite.place("amo", price=800)
    assert kite.order(order_id)["status"] == "AMO REQ RECEIVED"
    kite.pass_time(5)

    assert kite.order(order_id)["status"] == "OPEN"
    assert kite.order(order_id)["variety"] == "amo"
    status, body = kite.call("DELETE", f"/orders/amo/{order_id}")
    assert (status, body["error_type"]) == (504, "NetworkException")
    assert kite.call("DELETE", f"/orders/regular/{order_id}")[0] == 200


def test_an_iceberg_shows_one_leg_after_the_other(kite):
    first = kite.place("iceberg", quantity=25, price=820.5, iceberg_legs=3, iceberg_quantity=10)
    assert len(kite.data("GET", "/orders")) == 1
    kite.pass_time(10)

    book = kite.data("GET", "/orders")
    assert [row["quantity"] for row in book] == [10, 10, 5]
    assert [row["parent_order_id"] for row in book] == [None, first, first]
    assert book[2]["meta"] == {
        "iceberg": {
            "leg": 3,
            "legs": 3,
            "leg_quantity": 10,
            "total_quantity": 25,
            "remaining_quantity": 0,
        }
    }
    assert kite.refused("iceberg", quantity=25, iceberg_legs=51, iceberg_quantity=1)[0] == 400


def test_a_cancelled_leg_ends_an_iceberg(kite):
    first = kite.place("iceberg", quantity=20, price=800, iceberg_legs=2, iceberg_quantity=10)
    kite.pass_time(0.1)

    kite.data("DELETE", f"/orders/iceberg/{first}")
    kite.pass_time(1)

    assert len(kite.data("GET", "/orders")) == 1


@pytest.mark.parametrize("array", [False, True])
def test_autoslice_answers_in_both_shapes(kite, array):
    kite.settings(kite_autoslice_array=array)
    form = {"exchange": "NFO", "tradingsymbol": "NIFTY26AUG24400CE", "price": 200, "quantity": 65 * 60}

    data = kite.data("POST", "/orders/regular", data=_order_form(form | {"autoslice": "true"}))

    parent = data[0]["order_id"] if array else data["order_id"]
    children = [each["order_id"] for each in (data[1:] if array else data["children"])]
    book = {row["order_id"]: row for row in kite.data("GET", "/orders")}
    assert list(book) == children
    assert [book[child]["quantity"] for child in children] == [1755, 1755, 390]
    assert all(row["tags"] == ["autoslice", f"autoslice:{parent}"] for row in book.values())


def test_autoslice_reports_a_refused_child_and_refuses_too_many(kite):
    kite.settings(kite_margin_at_once=True)
    form = {"exchange": "NFO", "tradingsymbol": "NIFTY26AUGFUT", "price": 24400, "autoslice": "true"}

    data = kite.data("POST", "/orders/regular", data=_order_form(form | {"quantity": 65 * 58}))
    status, body = kite.call("POST", "/orders/regular", data=_order_form(form | {"quantity": 65 * 271}))

    assert [next(iter(child)) for child in data["children"]] == ["order_id", "error", "order_id"]
    assert data["children"][1]["error"]["error_type"] == "MarginException"
    assert status == 400
    assert "sliced" in body["message"]


def test_a_cover_order_places_its_second_leg_when_filled(kite):
    first = kite.place("co", price=820.5, trigger_price=810)
    kite.pass_time(5)

    second = kite.data("GET", "/orders")[1]
    assert (second["parent_order_id"], second["transaction_type"]) == (first, "SELL")
    assert (second["order_type"], second["trigger_price"]) == ("SL-M", 810)


@pytest.mark.parametrize(("style", "lengths"), [("19", {19}), ("15", {15}), ("mixed", {15, 19})])
def test_order_ids_have_19_or_15_digits(kite, style, lengths):
    kite.settings(kite_order_ids=style)

    ids = [kite.place(price=800) for _ in range(4)]

    assert {len(order_id) for order_id in ids} == lengths
    assert len(set(ids)) == 4
    if style == "15":
        assert ids[0].startswith("260817")


def test_a_gtt_places_its_order_when_the_price_is_reached(kite):
    leg = (
        '{"exchange":"NSE","tradingsymbol":"INFY","transaction_type":"BUY","quantity":1,"order_type":"LIMIT"'
    )
    condition = '{"exchange":"NSE","tradingsymbol":"INFY","trigger_values":[1490.0],"last_price":1500}'
    form = {"type": "single", "condition": condition, "orders": f'[{leg},"product":"CNC","price":1490.5}}]'}

    trigger_id = kite.data("POST", "/gtt/triggers", data=form)["trigger_id"]
    kite.pass_time(5)
    assert kite.data("GET", "/orders") == []
    kite.world.exchange.set_price("NSE:INFY", Decimal(1490))
    kite.pass_time(1)

    row = kite.data("GET", f"/gtt/triggers/{trigger_id}")
    order = kite.data("GET", "/orders")[0]
    assert row["status"] == "triggered"
    assert row["orders"][0]["result"]["order_result"]["order_id"] == order["order_id"]
    assert order["price"] == 1490.5
    assert [each["id"] for each in kite.data("GET", "/gtt/triggers")] == [trigger_id]


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "triple"},
        {"condition": "nonsense"},
        {"condition": "[]"},
        {"orders": "[]"},
        {"condition": '{"exchange":"NSE","tradingsymbol":"INFY","trigger_values":["x"]}'},
        {"condition": '{"exchange":"NSE","tradingsymbol":"NOPE","trigger_values":[1]}'},
    ],
)
def test_a_malformed_gtt_is_refused(kite, changes):
    condition = '{"exchange":"NSE","tradingsymbol":"INFY","trigger_values":[1490.0]}'
    form = {"type": "single", "condition": condition, "orders": "[{}]"} | changes

    assert kite.call("POST", "/gtt/triggers", data=form)[0] == 400


def test_a_gtt_can_be_changed_and_deleted(kite):
    condition = '{"exchange":"NSE","tradingsymbol":"INFY","trigger_values":[1400.0]}'
    form = {"type": "single", "condition": condition, "orders": "[{}]"}
    trigger_id = kite.data("POST", "/gtt/triggers", data=form)["trigger_id"]
    path = f"/gtt/triggers/{trigger_id}"

    changed = kite.data("PUT", path, data=form | {"condition": condition.replace("1400", "1410")})
    values = kite.data("GET", path)["condition"]["trigger_values"]
    kite.data("DELETE", path)

    assert changed == {"trigger_id": trigger_id}
    assert values == [1410]
    assert kite.data("GET", path)["status"] == "deleted"
    assert kite.call("PUT", path, data=form)[0] == 400
    assert kite.call("GET", "/gtt/triggers/99")[0] == 404


def test_quotes(kite):
    ltp = kite.data("GET", "/quote/ltp?i=NSE:SBIN&i=NSE:NOPE")
    full = kite.data("GET", "/quote?i=NSE:SBIN")

    assert ltp == {"NSE:SBIN": {"instrument_token": 779521, "last_price": 820}}
    assert full["NSE:SBIN"]["upper_circuit_limit"] == 902


# --- limits and broken answers ---------------------------------------------------------------------------


def test_reads_are_limited_to_ten_a_second(kite):
    kite.settings(rate_limits=True)

    codes = [kite.call("GET", "/orders")[0] for _ in range(11)]
    status, body = kite.call("GET", "/trades")
    kite.pass_time(1.01)

    assert codes == [200] * 10 + [429]
    assert body == {"status": "error", "message": "Too many requests", "error_type": "NetworkException"}
    assert status == 429
    assert kite.call("GET", "/orders")[0] == 200


def test_orders_have_limits_of_their_own_by_second_and_minute(kite):
    kite.settings(rate_limits=True)

    codes = []
    for _ in range(41):
        codes += [kite.call("POST", "/orders/regular", data=_order_form({}))[0] for _ in range(10)]
        kite.pass_time(1.01)

    assert codes[:400] == [200] * 400
    assert codes[400:] == [429] * 10
    assert kite.call("GET", "/orders")[0] == 200


@pytest.mark.parametrize(
    ("fault", "status", "error_type"),
    [
        ({"kind": "rate_limit"}, 429, "NetworkException"),
        ({"kind": "unauthorized"}, 403, "TokenException"),
        ({"kind": "unauthorized", "params": {"status": 401}}, 401, "TokenException"),
        ({"kind": "server_error"}, 503, "NetworkException"),
        ({"kind": "server_error", "params": {"status": 500}}, 500, "NetworkException"),
        ({"kind": "timeout", "params": {"seconds": 0, "cut": False}}, 504, "NetworkException"),
    ],
)
def test_answers_break_as_often_as_they_are_told(kite, fault, status, error_type):
    kite.control("POST", "/faults", operation="orders.place", count=1, **fault)

    broken = kite.refused()
    reads = kite.data("GET", "/orders")

    assert broken[:2] == (status, error_type)
    assert reads == []
    assert kite.place()


@pytest.mark.parametrize("kind", ["server_error", "timeout", "html_error"])
def test_a_broken_answer_can_hide_an_order_that_was_placed(kite, kind):
    params = {"done": True, "seconds": 0, "cut": False}
    kite.control("POST", "/faults", kind=kind, operation="orders.place", params=params)

    status, _ = kite.call("POST", "/orders/regular", data=_order_form({}))

    assert status >= 500
    assert len(kite.data("GET", "/orders")) == 1


def test_an_html_page_instead_of_json(kite):
    kite.control("POST", "/faults", kind="html_error")

    status, page = kite.call("GET", "/orders")

    assert status == 502
    assert page.startswith("<html>")


def test_a_cut_connection(kite):
    kite.control("POST", "/faults", kind="timeout", params={"seconds": 0}, operation="orders.book")

    with pytest.raises(aiohttp.ClientError):
        kite.call("GET", "/orders")


def test_retry_after_is_sent_when_asked_for(kite):
    kite.control("POST", "/faults", kind="rate_limit", params={"retry_after": 3})

    async def fetch():
        headers = {"Authorization": f"token demokite:{kite.token}"}
        async with kite.client.get(kite.sim.kite_url + "/orders", headers=headers) as answer:
            return answer.status, answer.headers.get("Retry-After")

    assert kite.run(fetch()) == (429, "3")


def test_token_death_ends_the_session_in_the_middle_of_a_day(kite):
    kite.control("POST", "/faults", kind="token_death", count=1, operation="orders.place")

    assert kite.refused()[0] == 403
    assert kite.call("GET", "/orders")[0] == 403
    kite.token = kite.log_in("ZD0001")
    assert kite.place()


def test_a_book_that_lags(kite):
    order_id = kite.place(price=800)
    kite.pass_time(0.5)
    kite.control("POST", "/faults", kind="rest_lag", params={"seconds": 0.49})

    assert kite.order(order_id)["status"] == "OPEN PENDING"
    kite.pass_time(0.5)
    assert kite.order(order_id)["status"] == "OPEN"


def test_a_shuffled_book_has_the_same_rows(kite):
    ids = [kite.place(price=800) for _ in range(8)]
    kite.control("POST", "/faults", kind="shuffled_book")

    seen = [[row["order_id"] for row in kite.data("GET", "/orders")] for _ in range(3)]

    assert all(sorted(each) == sorted(ids) for each in seen)
    assert any(each != ids for each in seen)


def test_planned_refusals_of_risk_exchange_modify_and_cancel(kite):
    kite.control("POST", "/faults", kind="reject_risk", count=1, params={"message": "RMS says no"})
    kite.control("POST", "/faults", kind="refuse_modify", count=1)
    kite.control("POST", "/faults", kind="refuse_cancel", count=1)

    rejected, order_id = kite.place(price=800), kite.place(price=800)
    kite.pass_time(0.1)
    kite.data("PUT", f"/orders/regular/{order_id}", data={"price": "801"})
    kite.pass_time(0.1)
    kite.data("DELETE", f"/orders/regular/{order_id}")
    kite.pass_time(0.1)

    assert kite.order(rejected)["status_message"] == "RMS says no"
    rows = kite.history(order_id)
    assert [row["status"] for row in rows][-4:] == ["NOT MODIFIED", "OPEN", "CANCEL PENDING", "OPEN"]
    assert rows[-4]["status_message"] == "16346 : Order cannot be modified"


def test_orders_stuck_on_their_way(kite):
    kite.control("POST", "/market/freeze", stages=[Stage.SENT])

    order_id = kite.place()
    kite.pass_time(120)
    assert kite.order(order_id)["status"] == "OPEN PENDING"
    kite.control("POST", "/market/thaw")

    assert kite.order(order_id)["status"] == "OPEN"


def test_unknown_paths_and_methods_have_kites_envelope(kite):
    status, body = kite.call("GET", "/nowhere")

    assert (status, body["status"], body["error_type"]) == (404, "error", "GeneralException")
    assert kite.call("PATCH", "/orders")[0] == 405


def test_every_answer_is_in_the_ledger(kite):
    order_id = kite.place()
    kite.order(order_id)

    messages = kite.control("GET", "/ledger/messages?channel=rest&user=ZD0001")["data"]

    assert [(each["what"], each["detail"]) for each in messages] == [
        ("orders.place", "HTTP 200"),
        ("orders.book", "HTTP 200"),
    ]


def _order_form(changes):
    form = {
        "exchange": "NSE",
        "tradingsymbol": "SBIN",
        "transaction_type": "BUY",
        "quantity": 10,
        "product": "NRML",
        "order_type": "LIMIT",
        "price": 800,
    } | changes
    return {key: str(value) for key, value in form.items()}
