"""Bad input gets a clear message, loses nothing, and never ends in a 500."""

import re

import httpx2
import pytest

from house import PASSWORD, ZERODHA, eventually, running_house
from orderwire.serving import control_socket

GOOD = {
    "account": ZERODHA,
    "symbol": "INFY",
    "exchange": "NSE",
    "action": "BUY",
    "quantity": "5",
    "pricetype": "LIMIT",
    "product": "MIS",
    "price": "1450",
}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with running_house(tmp_path_factory.mktemp("house")) as house:
        yield house
        assert "fault in the web" not in house.log()


def log_in(http, user, password):
    page = http.get("/login")
    token = re.search(r'name="csrf_token" value="([^"]+)"', page.text).group(1)
    return http.post("/login", data={"name": user, "password": password, "csrf_token": token})


class Browserlike:
    """A logged-in session with its CSRF token."""

    def __init__(self, house, user):
        self.http = httpx2.Client(base_url=house.url, trust_env=False, follow_redirects=True, timeout=20)
        page = log_in(self.http, user, PASSWORD)
        self.token = re.search(r'name="csrf-token" content="([^"]+)"', page.text).group(1)

    def close(self):
        self.http.close()

    def place(self, **fields):
        headers = {"X-CSRFToken": self.token, "Accept": "application/json"}
        return self.http.post("/ui/orders", json=GOOD | fields, headers=headers)


@pytest.fixture(scope="module")
def asha(house):
    asha = Browserlike(house, "asha")
    yield asha
    asha.close()


@pytest.mark.parametrize(
    ("fields", "where", "says"),
    [
        pytest.param({"symbol": "INFOSYS"}, "symbol", "INFY", id="unknown symbol, with a suggestion"),
        pytest.param({"quantity": "0"}, "quantity", "at least 1", id="zero quantity"),
        pytest.param({"quantity": "-5"}, "quantity", "at least 1", id="negative quantity"),
        pytest.param({"quantity": "ten"}, "quantity", "number", id="a quantity in words"),
        pytest.param({"price": "1450.005"}, "price", "0.1", id="a price with three decimals"),
        pytest.param({"price": ""}, "price", "price", id="a limit without a price"),
        pytest.param({"pricetype": "STOP"}, "pricetype", "LIMIT", id="an unknown type"),
        pytest.param({"account": "jainam-jay"}, None, "no account", id="somebody else's account"),
    ],
)
def test_a_wrong_order_says_which_field_and_what_to_do(asha, house, fields, where, says):
    before = house.broker_orders("kite")

    reply = asha.place(**fields)

    assert 400 <= reply.status_code < 500
    told = reply.json()
    assert says in (told["problems"][where] if where else told["message"]), told
    assert house.broker_orders("kite") == before


def test_what_the_broker_refuses_is_shown_in_its_own_words_and_kept(asha, house):
    reply = asha.place(symbol="BAJAJ-AUTO", quantity="90000", price="9000", product="CNC")

    assert reply.status_code in {200, 422}
    eventually(lambda: rejected(house), what="the refused order on the page")


def rejected(house):
    return [o for o in house.book("asha").values() if o["status"] == "REJECTED" and o["rejection_reason"]]


def test_a_wrong_login_says_so_and_lets_nobody_in(house):
    with httpx2.Client(base_url=house.url, trust_env=False, follow_redirects=True) as http:
        page = log_in(http, "asha", "not-the-password")

        assert 'role="alert"' in page.text
        assert http.get("/").url.path == "/login"


@pytest.mark.parametrize("path", ["/ui/orders", "/ui/orders/cancel", "/ui/refresh"])
def test_without_a_session_nothing_is_done(house, path):
    reply = httpx2.post(f"{house.url}{path}", json=GOOD, trust_env=False)

    assert reply.status_code in {400, 401, 403}


def test_the_control_routes_do_not_exist_on_the_network(house):
    assert httpx2.post(f"{house.url}/control/users.list", trust_env=False).status_code == 404


@pytest.mark.parametrize("body", [b"[]", b'{"name": "\xbf"}', b'{"name": ' + b"[" * 20_000])
def test_a_command_that_cannot_be_read_says_so(house, body):
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(control_socket(house.settings)))) as http:
        answer = http.post("http://localhost/control/users.list", content=body).json()

    assert (answer["status"], answer["error"]) == ("error", "InvalidRequestError")


@pytest.fixture(scope="module")
def order_id(house):
    made = house.place(ZERODHA, order_type="LIMIT", price="1400", quantity=11)
    eventually(lambda: shown(house, made["order_id"]) == ("OPEN", 0), what="the open order")
    return made["order_id"]


@pytest.mark.parametrize(
    "altered",
    [
        pytest.param({"status": "COMPLETE", "filled_quantity": 11}, id="a fill that never was"),
        pytest.param({"status": "CANCELLED"}, id="a cancellation that never was"),
        pytest.param({"user_id": "ZD0002"}, id="another user's name"),
    ],
)
def test_an_altered_postback_with_a_valid_checksum_changes_nothing(house, order_id, altered):
    answered = forge(house, order_id, altered)

    assert answered == 200
    eventually(lambda: verified(house, order_id), what="the verification by REST")
    assert shown(house, order_id) == ("OPEN", 0)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"order_id": NaN}', b'{"a":1,"a":2}', b"[" * 5000, b"\xff\xfe", b'{"order_id":"1"}'],
    ids=["empty", "cut", "a list", "NaN", "a duplicate key", "deep", "not UTF-8", "no checksum"],
)
def test_a_postback_that_is_nonsense_is_refused_without_detail(house, body):
    reply = httpx2.post(house.postback_url, content=body, trust_env=False)

    assert (reply.status_code, reply.text) == (400, "")


def test_a_postback_that_is_too_large_is_refused_unread(house):
    reply = httpx2.post(house.postback_url, content=b"x" * 70_000, trust_env=False)

    assert reply.status_code == 413


def test_a_postback_to_a_guessed_path_finds_nothing(house):
    guess = house.postback_url[:-4] + "AAAA"

    assert httpx2.post(guess, content=b"{}", trust_env=False).status_code == 404


def forge(house, order_id, altered):
    body = {"order_id": order_id, "kind": "altered", "fields": altered}
    return house.sims.ask("POST", "/kite/postbacks/forge", body)["answers"][0]


def shown(house, order_id):
    return next(
        (
            (o["status"], o["filled_quantity"])
            for o in house.book("asha").values()
            if o["orderid"] == order_id
        ),
        None,
    )


def verified(house, order_id):
    order = next(o for o in house.book("asha").values() if o["orderid"] == order_id)
    return not order["checking"]


def test_nothing_was_lost(house):
    made = house.place(ZERODHA, order_type="MARKET", quantity=1)

    eventually(lambda: shown(house, made["order_id"]) == ("FILLED", 1), what="an ordinary order afterwards")
