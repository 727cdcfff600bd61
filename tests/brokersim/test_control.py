"""The control API: what it shows and what it moves."""

import pytest


def placed(kite, **form):
    order_id = kite.place(**{"price": 800} | form)
    kite.pass_time(0.1)
    return f"kite:{order_id}"


def test_it_shows_orders_with_their_whole_history(kite):
    uid = placed(kite)
    kite.control("POST", "/market/fill", uid=uid, quantity=4)

    (row,) = kite.control("GET", "/orders?broker=kite&user=ZD0001")["data"]
    detail = kite.control("GET", f"/orders/{uid}")["data"]

    assert (row["uid"], row["stage"], row["filled"], row["price"]) == (uid, "PARTIALLY_FILLED", 4, "800")
    assert [each["stage"] for each in detail["history"]][:4] == ["RECEIVED", "VALIDATING", "SENT", "OPEN"]
    assert [(each["quantity"], each["price"]) for each in detail["trades"]] == [(4, "800")]
    assert kite.control("GET", "/orders?broker=xts")["data"] == []


def test_truths_are_read_from_where_one_left_off(kite):
    placed(kite)

    first = kite.control("GET", "/ledger/truths")["data"]
    rest = kite.control("GET", f"/ledger/truths?after={first[1]['number']}")["data"]

    assert [each["order"]["stage"] for each in rest] == ["SENT", "OPEN"]
    assert kite.control("GET", "/ledger/totals")["data"]["truths"] == 4


def test_it_moves_prices(kite):
    quote = kite.control("POST", "/market/price", key="NSE:SBIN", price="810.5")["data"]

    assert quote["last"] == "810.5"
    assert kite.control("GET", "/market")["data"]["NSE:SBIN"]["last"] == "810.5"


def test_it_pauses_closes_and_ends_the_day(kite):
    kite.control("POST", "/market/pause")
    uid = placed(kite, price=820.5)
    kite.pass_time(5)
    resting = kite.control("GET", f"/orders/{uid}")["data"]["history"][-1]["stage"]
    kite.control("POST", "/market/resume")
    kite.control("POST", "/market/close")
    refused = placed(kite)
    kite.control("POST", "/market/open")
    ended = kite.control("POST", "/market/end-day")["data"]

    assert resting == "OPEN"
    assert kite.control("GET", f"/orders/{refused}")["data"]["history"][-1]["stage"] == "REJECTED"
    assert ended == {"expired": 1}


def test_the_exchange_can_cancel_by_itself(kite):
    uid = placed(kite)

    row = kite.control("POST", "/market/cancel", uid=uid)["data"]

    assert (row["stage"], row["cause"]) == ("CANCELLED", "SELF_TRADE")
    assert row["reason"].startswith("17071")


def test_users_apps_and_sessions_can_be_made_by_the_hundred(kite):
    names = [f"ZD{number:04}" for number in range(100, 300)]
    added = kite.control("POST", "/users/kite", users=[{"user_id": name, "cash": "5000"} for name in names])
    kite.control("POST", "/kite/apps", api_key="platform", api_secret="s", postback_url="http://x/")
    session = kite.control("POST", "/kite/sessions", api_key="platform", user_id="ZD0250")["data"]

    header = {"Authorization": f"token platform:{session['access_token']}"}
    status, body = kite.raw("GET", "/user/margins/equity", headers=header)

    assert added["data"]["added"] == names
    assert (status, body["data"]["net"]) == (200, 5000)
    users = kite.control("GET", "/users")["data"]
    assert {"broker": "kite", "user": "ZD0100", "cash": "5000", "available": "5000"} in users["accounts"]


def test_xts_logins_can_be_added(kite):
    login = {"kind": "dealer", "app_key": "k9", "login_id": "DLL9", "clients": ["C1", "C2"]}

    kite.control("POST", "/users/xts", logins=[login])

    found = {each["app_key"]: each for each in kite.control("GET", "/users")["data"]["xts_logins"]}["k9"]
    assert (found["secret_key"], found["clients"]) == ("k9-secret", ["C1", "C2"])


def test_settings_are_changed_by_name_and_kind(kite):
    before = kite.control("GET", "/settings")["data"]

    changed = kite.control("PATCH", "/settings", reply_delay=1, kite_static_ip=True)["data"]

    assert (changed["reply_delay"], changed["kite_static_ip"]) == (1, True)
    assert {**changed, "reply_delay": 0, "kite_static_ip": False} == before


def test_faults_are_listed_with_how_often_they_struck(kite):
    added = kite.control("POST", "/faults", kind="rate_limit", operation="orders.book", count=3)["data"]
    kite.call("GET", "/orders")

    (row,) = kite.control("GET", "/faults")["data"]
    removed = kite.control("DELETE", f"/faults/{added['id']}")["data"]

    assert (row["kind"], row["count"], row["struck"]) == ("rate_limit", 3, 1)
    assert removed == {"removed": True}
    kite.control("POST", "/faults", kind="drop")
    kite.control("DELETE", "/faults")
    assert kite.control("GET", "/faults")["data"] == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/settings", {"no_such": 1}),
        ("PATCH", "/settings", {"reply_delay": "soon"}),
        ("PATCH", "/settings", {"rate_limits": 1}),
        ("POST", "/faults", {"kind": "nonsense"}),
        ("POST", "/faults", {"kind": "drop", "colour": "red"}),
        ("POST", "/market/price", {"key": "NSE:NOPE", "price": "1"}),
        ("POST", "/market/price", {"key": "NSE:SBIN", "price": "much"}),
        ("POST", "/market/fill", {"uid": "kite:1", "quantity": 1}),
        ("POST", "/market/freeze", {"stages": ["NOWHERE"]}),
        ("POST", "/kite/sessions", {"api_key": "nobodys", "user_id": "ZD0001"}),
        ("POST", "/kite/sessions", {"api_key": "demokite", "user_id": "NOBODY"}),
        ("PATCH", "/kite/apps/nobodys", {"plan": "connect"}),
        ("PATCH", "/kite/apps/demokite", {"plan": "gold"}),
        ("POST", "/users/kite", {}),
        ("GET", "/orders/kite:1", {}),
        ("POST", "/sockets/disconnect", {"broker": "other"}),
        ("POST", "/tokens/kill", {}),
    ],
)
def test_a_bad_request_says_what_is_wrong_and_changes_nothing(kite, method, path, body):
    before = kite.control("GET", "/settings")["data"]

    answer = kite.control(method, path, **body)

    assert answer["status"] == "error"
    assert answer["message"]
    assert kite.control("GET", "/settings")["data"] == before


def test_a_body_that_is_no_object_is_refused(kite):
    async def post(data):
        async with kite.client.post(kite.sim.control_url + "/faults", data=data) as answer:
            return answer.status

    assert kite.run(post(b"[1]")) == 400
    assert kite.run(post(b"{nonsense")) == 400


def test_a_web_page_cannot_steer_the_market(kite):
    async def post():
        url, headers = kite.sim.control_url + "/market/close", {"Origin": "http://evil.example"}
        async with kite.client.post(url, headers=headers) as answer:
            return answer.status

    assert kite.run(post()) == 403
    assert not kite.world.exchange.closed


def test_one_call_fills_many_times_and_each_is_told(kite):
    uid = placed(kite)

    kite.control("POST", "/market/fill", uid=uid, quantity=1, times=3)

    trades = kite.control("GET", f"/orders/{uid}")["data"]["trades"]
    assert [trade["quantity"] for trade in trades] == [1, 1, 1]
