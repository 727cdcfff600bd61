from __future__ import annotations

import pytest

from orderwire.config import Settings
from orderwire.errors import (
    BrokerUnreachableError,
    NotFoundError,
    PermissionRefusedError,
    RateLimitedError,
    SessionExpiredError,
    StoreError,
)
from orderwire.web.app import Web, origins
from web.house import BUILT, a_house, csrf

PLACE = {"account": "acc", "symbol": "INFY", "exchange": "NSE", "action": "BUY", "quantity": "1"}


def place(house, client, **fields):
    headers = {"X-CSRFToken": csrf(client, "/")}
    return client.post("/ui/orders", json=PLACE | fields, headers=headers)


def test_health_is_told_to_anyone_once_the_page_can_be_used(house):
    answer = house.client().get("/healthz")

    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_every_page_forbids_scripts_and_styles_that_are_not_ours(house):
    answer = house.client().get("/login")

    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["img-src"] == "'self' data:"
    assert not {"script-src", "style-src"} & policy.keys()
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/login", "/", "/accounts", "/accounts/new", "/accounts/new?broker=wired", "/none"]
)
def test_no_page_holds_an_inline_script_or_style(house, path):
    page = house.client("asha").get(path).text

    assert " style=" not in page
    assert "<style" not in page
    assert " onclick=" not in page
    for script in page.split("<script")[1:]:
        assert script.startswith((" src=", ' type="application/json"'))


def test_cookies_cannot_be_read_by_scripts_nor_sent_by_other_sites(house):
    cookie = house.client().get("/login").headers["Set-Cookie"]

    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


def test_behind_https_cookies_are_secure_and_http_is_redirected(tmp_path, monkeypatch):
    monkeypatch.setenv("ORDERWIRE_PUBLIC_URL", "https://orders.example.in")
    with a_house(tmp_path) as house:
        redirected = house.client().get("/login")
        page = house.client().get("/login", base_url="https://orders.example.in")
        health = house.client().get("/healthz")
        local = house.client().get("/login", environ_overrides={"REMOTE_ADDR": ""})

    assert redirected.status_code == 308
    assert redirected.headers["Location"].startswith("https://")
    assert "Secure" in page.headers["Set-Cookie"]
    assert "max-age" in page.headers["Strict-Transport-Security"]
    assert (health.status_code, local.status_code) == (200, 200)


def test_a_page_that_is_not_there_says_so_in_the_form_that_was_asked_for(house):
    client = house.client("asha")

    page, call = client.get("/nowhere"), client.get("/ui/nowhere")

    assert (page.status_code, "Not found" in page.text) == (404, True)
    assert (call.status_code, call.json["status"]) == (404, "error")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFoundError("There is no such order."), 404),
        (SessionExpiredError("Log in first."), 409),
        (PermissionRefusedError("Not allowed from here."), 409),
        (RateLimitedError("Slow down."), 429),
        (BrokerUnreachableError("The broker is away."), 503),
        (StoreError("Not written."), 503),
    ],
)
def test_what_a_broker_or_the_store_refuses_is_said_in_its_words(house, error, code):
    house.desk.fail = error

    answer = place(house, house.client("asha"))

    assert answer.status_code == code
    assert answer.json == {"status": "error", "message": str(error), "problems": {}}
    assert not faults(house)


def test_a_fault_of_ours_is_counted_named_and_answered_with_a_number(house):
    house.desk.fail = ZeroDivisionError("secret details")

    answer = place(house, house.client("asha"))

    assert answer.status_code == 500
    assert "quote fault" in answer.json["message"]
    assert "secret" not in answer.text
    assert faults(house) == {"ZeroDivisionError": 1}


def test_a_fault_on_a_page_is_a_page(house, monkeypatch):
    monkeypatch.setattr(house.fleet, "statuses", lambda: 1 / 0)

    answer = house.client("asha").get("/accounts")

    assert answer.status_code == 500
    assert "quote fault" in answer.text
    assert "Traceback" not in answer.text


def faults(house) -> dict:
    web: Web = house.web
    return dict(web.faults.counts)


@pytest.mark.parametrize(
    "path",
    ["/ui/orders", "/ui/orders/modify", "/ui/orders/cancel", "/ui/refresh", "/logout", "/accounts/new"],
)
def test_nothing_changes_without_a_csrf_token(house, path):
    answer = house.client("asha").post(path, json=PLACE)

    assert answer.status_code == 400
    assert house.desk.placed == []
    assert house.fleet.refreshed == []


def test_the_token_of_an_open_page_outlives_a_restart(tmp_path):
    with a_house(tmp_path) as house:
        house.user("asha")
        house.account("acc", "asha")
        client = house.client("asha")
        token, cookie = csrf(client, "/"), client.get_cookie("orderwire").value
    with a_house(tmp_path) as house:
        client = house.app.test_client()
        client.set_cookie("orderwire", cookie)
        answer = client.post("/ui/refresh", json={}, headers={"X-CSRFToken": token})

    assert answer.status_code == 202


def test_a_body_that_is_too_large_is_refused(house):
    client = house.client("asha")

    answer = client.post("/ui/orders", data=b"x" * 70_000, headers={"X-CSRFToken": csrf(client, "/")})

    assert answer.status_code == 413


def test_our_own_origins_are_those_a_browser_here_may_show():
    own = origins(Settings(port=5080, allowed_origins="https://desk.example.in", _env_file=None))

    assert own == [
        "http://127.0.0.1:5080",
        "http://localhost:5080",
        "http://[::1]:5080",
        "https://desk.example.in",
    ]
    assert origins(Settings(public_url="https://orders.example.in/", _env_file=None)) == [
        "https://orders.example.in"
    ]


def test_built_files_are_named_by_their_hash_and_may_be_kept(tmp_path):
    with a_house(tmp_path, assets=BUILT) as house:
        page = house.client().get("/login").text
        with house.client().get("/static/favicon.svg") as kept:
            keeping = kept.headers["Cache-Control"]

    assert '/static/build/app.css"' in page
    assert "max-age=31536000" in keeping


def test_the_address_behind_a_trusted_proxy_is_the_browsers(tmp_path, monkeypatch):
    monkeypatch.setenv("ORDERWIRE_TRUSTED_PROXIES", "1")
    with a_house(tmp_path) as house:
        house.app.add_url_rule("/where", "where", lambda: __import__("flask").request.remote_addr)
        answer = house.client().get("/where", headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.9"})

    assert answer.text == "203.0.113.9"


def test_without_a_proxy_nobody_chooses_their_own_address(house):
    house.app.add_url_rule("/where", "where", lambda: __import__("flask").request.remote_addr)

    answer = house.client().get("/where", headers={"X-Forwarded-For": "203.0.113.9"})

    assert answer.text == "127.0.0.1"
