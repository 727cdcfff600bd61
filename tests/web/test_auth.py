from __future__ import annotations

import pytest

from web.house import PASSWORD, csrf


def log_in(client, **fields):
    data = {"name": "asha", "password": PASSWORD, "csrf_token": csrf(client)} | fields
    return client.post("/login", data=data)


def test_a_wrong_login_says_so_and_keeps_the_name(house):
    answer = log_in(house.client(), password="wrong")

    assert answer.status_code == 401
    assert "User name or password is wrong." in answer.text
    assert 'value="asha"' in answer.text


@pytest.mark.parametrize("fields", [{"name": "nobody"}, {"name": ""}, {"password": ""}, {"name": "a" * 9999}])
def test_what_is_wrong_about_a_login_is_not_told(house, fields):
    answer = log_in(house.client(), **fields)

    assert answer.status_code == 401
    assert "User name or password is wrong." in answer.text


def test_a_login_leads_back_to_where_the_user_was(house):
    client = house.client()

    sent = client.get("/accounts?x=1")
    back = log_in(client, next="/accounts?x=1")

    assert sent.headers["Location"] == "/login?next=/accounts?x%3D1"
    assert back.headers["Location"] == "/accounts?x=1"
    assert client.get("/accounts").status_code == 200


def test_a_login_never_leads_to_another_site(house):
    assert log_in(house.client(), next="https://evil.example/").headers["Location"] == "/"


def test_the_name_may_be_written_in_capitals(house):
    assert log_in(house.client(), name=" Asha ").status_code == 302


def test_a_call_without_a_session_is_refused_as_json(house):
    answer = house.client().get("/ui/feeds")

    assert (answer.status_code, answer.json["status"]) == (401, "error")


def test_the_session_gets_a_new_id_at_login(house):
    client = house.client()
    csrf(client)
    before = client.get_cookie("orderwire").value

    log_in(client)

    assert client.get_cookie("orderwire").value != before
    assert house.services.users.load_session(before) is None


def test_logging_out_ends_the_session_for_good(house):
    client = house.client("asha")
    stolen = client.get_cookie("orderwire").value

    client.post("/logout", data={"csrf_token": csrf(client, "/")})

    thief = house.app.test_client()
    thief.set_cookie("orderwire", stolen)
    assert thief.get("/").status_code == 302
    assert client.get("/").status_code == 302


def test_a_user_who_is_locked_out_is_out_at_once(house):
    client = house.client("asha")
    assert client.get("/").status_code == 200

    house.services.users.disable("asha")

    assert client.get("/").status_code == 302


def test_a_session_that_has_expired_leads_to_the_login(house):
    client = house.client("asha")

    house.services.users.end_session(client.get_cookie("orderwire").value)

    assert client.get("/").headers["Location"] == "/login?next=/"


def test_guessing_passwords_is_slowed_down(house):
    client = house.client()

    codes = [log_in(client, password=f"guess {number}").status_code for number in range(12)]

    assert codes[:10] == [401] * 10
    assert codes[-1] == 429


def test_who_is_logged_in_need_not_log_in_again(house):
    assert house.client("asha").get("/login?next=/accounts").headers["Location"] == "/accounts"
