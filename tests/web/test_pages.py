from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest

from orderwire.core.recovery import Freshness
from orderwire.errors import BrokerUnreachableError, SessionExpiredError
from web.house import csrf

NEW = {
    "broker": "wired",
    "id": "wired-2",
    "title": "Second",
    "credential.api_key": "k2",
    "credential.api_secret": "second-secret",
}


@pytest.fixture
def client(house):
    return house.client("asha")


def post(client, path, **fields):
    return client.post(path, data=fields | {"csrf_token": csrf(client, "/")})


def text_of(answer) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text)).replace("&#39;", "'")


def test_the_order_page_names_the_users_accounts_and_no_others(house, client):
    house.user("ravi")
    house.account("theirs", "ravi", title="Not yours")

    page = client.get("/").text

    assert '"id": "acc"' in page
    assert "Not yours" not in page


def test_without_an_account_the_page_says_how_to_get_one(house):
    house.user("newbie")

    page = text_of(house.client("newbie").get("/"))

    assert "No account is connected yet" in page


def test_titles_cannot_carry_markup_into_a_page(house, client):
    house.account("evil", "asha", title="</script><script>alert(1)</script>")

    pages = client.get("/").text + client.get("/accounts").text

    assert "<script>alert(1)" not in pages


def test_the_accounts_page_tells_the_state_of_each_session(house, client):
    house.fleet.show("acc", Freshness.AUTH_REQUIRED, detail="Log in to the broker again.", connected=False)

    page = text_of(client.get("/accounts"))

    assert "Wired Broking" in page
    assert "logged out" in page
    assert "Log in to the broker again." in page
    assert "Log in at Wired Broking" in page


def test_choosing_a_broker_comes_first(client):
    assert "Wired Broking" in text_of(client.get("/accounts/new"))
    assert "Which broker" in text_of(client.get("/accounts/new?broker=none"))


def test_the_form_asks_for_what_the_broker_needs_and_proposes_a_free_id(house, client):
    house.account("wired", "asha")

    page = client.get("/accounts/new?broker=wired").text

    assert 'name="credential.api_secret" type="password"' in page
    assert 'name="id" type="text" value="wired-2"' in page


def test_an_account_is_added_sealed_and_its_feed_started(house, client):
    answer = post(client, "/accounts/new", **NEW)

    account = house.services.accounts.get("wired-2")
    assert answer.headers["Location"] == "/accounts"
    assert (account.owner, account.title) == ("asha", "Second")
    assert house.services.accounts.credentials("wired-2") == {"api_key": "k2", "api_secret": "second-secret"}
    assert account.addresses == {"api": "https://api.wired.example"}
    assert "wired-2" in house.fleet.feeds


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"id": ""}, "An account id has"),
        ({"id": "acc"}, "There is an account acc already."),
        ({"credential.api_secret": ""}, "API secret is needed."),
        ({"address.api": "http://broker.example"}, "is not encrypted"),
    ],
)
def test_a_form_that_is_not_right_comes_back_with_what_is_wrong(house, client, fields, words):
    answer = post(client, "/accounts/new", **(NEW | fields))

    assert answer.status_code == 400
    assert words in text_of(answer)
    assert NEW["credential.api_secret"] not in answer.text
    assert [account.id for account in house.services.accounts.all()] == ["acc"]


def test_plain_text_needs_to_be_allowed_explicitly(house, client):
    post(client, "/accounts/new", **NEW, **{"address.api": "http://broker.example", "allow_plaintext": "on"})

    assert house.services.accounts.get("wired-2").allow_plaintext
    assert "travel unencrypted" in text_of(client.get("/accounts"))


def test_an_unknown_broker_is_refused(client):
    assert post(client, "/accounts/new", broker="none").status_code == 400


def test_an_account_is_removed_with_its_keys_and_its_feed(house, client):
    answer = post(client, "/accounts/acc/remove")

    assert answer.status_code == 302
    assert house.services.accounts.all() == []
    assert house.fleet.feeds == {}


@pytest.mark.parametrize("path", ["/accounts/theirs/login", "/accounts/theirs/remove"])
def test_nobody_touches_an_account_of_somebody_else(house, client, path):
    house.user("ravi")
    house.account("theirs", "ravi")

    assert post(client, path).status_code == 404
    assert client.get("/accounts/theirs/callback?state=x").status_code == 404
    assert house.services.accounts.get("theirs").owner == "ravi"


# --- the broker's login ----------------------------------------------------------------------------------


def begin(client) -> str:
    answer = post(client, "/accounts/acc/login")
    assert answer.status_code == 303
    return parse_qs(urlsplit(answer.headers["Location"]).query)["state"][0]


def test_the_brokers_redirect_logs_the_account_in(house, client):
    state = begin(client)

    answer = client.get(f"/accounts/acc/callback?state={state}&request_token=abc", follow_redirects=True)

    assert house.fleet.grants == [("acc", {"state": state, "request_token": "abc"})]
    assert "Wired is logged in as AB1234." in text_of(answer)


def test_a_redirect_that_was_not_asked_for_is_refused(house, client):
    begin(client)

    for state in ("", "wrong", "ünïcödé"):
        answer = client.get(f"/accounts/acc/callback?state={state}&request_token=abc", follow_redirects=True)
        assert "was not started here" in text_of(answer)
    assert house.fleet.grants == []


def test_a_redirect_works_once(house, client):
    state = begin(client)

    for _ in range(2):
        client.get(f"/accounts/acc/callback?state={state}&request_token=abc")

    assert len(house.fleet.grants) == 1


def test_another_user_cannot_finish_a_login(house, client):
    state = begin(client)
    house.user("ravi")

    answer = house.client("ravi").get(f"/accounts/acc/callback?state={state}&request_token=abc")

    assert answer.status_code == 404
    assert house.fleet.grants == []


def test_where_keys_suffice_a_button_logs_in(house, client):
    house.fleet.redirects = False

    post(client, "/accounts/acc/login")

    assert house.fleet.grants == [("acc", {})]


@pytest.mark.parametrize(
    "error", [SessionExpiredError("Invalid token."), BrokerUnreachableError("The broker is away.")]
)
def test_a_login_that_fails_says_why(house, client, error):
    house.fleet.redirects, house.fleet.login_error = False, error

    answer = post(client, "/accounts/acc/login")
    page = text_of(client.get(answer.headers["Location"]))

    assert f"Wired: {error}" in page
