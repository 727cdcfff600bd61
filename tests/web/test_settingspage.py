"""A user's own settings: each form, what is wrong with it, and that it reaches nobody else."""

from __future__ import annotations

import re

import pytest

from orderwire.core.notifications import Loudness, Occasion
from orderwire.store.users import Scope
from web.house import PASSWORD, csrf


@pytest.fixture
def client(house):
    return house.client("asha")


def post(client, path, **fields):
    return client.post(path, data=fields | {"csrf_token": csrf(client, "/")}, follow_redirects=True)


def text_of(answer) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text)).replace("&#39;", "'")


def secret_of(answer) -> str:
    return re.search(r'id="secret">([^<]+)', answer.text).group(1)


# --- password and sessions -------------------------------------------------------------------------------


def test_a_password_is_changed_here_and_other_sessions_end(house, client):
    elsewhere = house.client("asha")
    before = client.get_cookie("orderwire").value

    answer = post(
        client, "/settings/password", current=PASSWORD, password="brass kettle", again="brass kettle"
    )

    assert "Your password was changed" in text_of(answer)
    assert client.get("/").status_code == 200
    assert client.get_cookie("orderwire").value != before
    assert elsewhere.get("/").status_code == 302
    assert house.services.users.check("asha", "brass kettle") is not None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"current": "wrong"}, "This is not your password."),
        ({"again": "other than that"}, "The two passwords differ."),
        ({"password": "short", "again": "short"}, "at least 8 characters"),
    ],
)
def test_a_wrong_password_form_says_what_is_wrong(house, client, fields, words):
    typed = {"current": PASSWORD, "password": "brass kettle", "again": "brass kettle"} | fields

    answer = post(client, "/settings/password", **typed)

    assert answer.status_code == 400
    assert words in text_of(answer)
    assert "brass kettle" not in answer.text
    assert house.services.users.check("asha", PASSWORD) is not None


def test_each_session_is_listed_with_its_browser_and_ends_on_its_own(house, client):
    elsewhere = house.app.test_client()
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    elsewhere.post(
        "/login",
        data={"name": "asha", "password": PASSWORD, "csrf_token": csrf(elsewhere)},
        headers={"User-Agent": agent},
    )
    page = client.get("/settings").text
    assert "Firefox on Linux" in page
    (mark,) = re.findall(r'name="id" value="([^"]+)"', page)

    answer = post(client, "/settings/sessions/end", id=mark)

    assert "That session ended." in text_of(answer)
    assert elsewhere.get("/").status_code == 302
    assert client.get("/").status_code == 200


def test_all_other_sessions_end_together_and_nobody_elses(house, client):
    house.user("ravi")
    others = [house.client("asha"), house.client("asha")]
    ravi = house.client("ravi")

    answer = post(client, "/settings/sessions/end")

    assert "2 other sessions ended." in text_of(answer)
    assert [other.get("/").status_code for other in (*others, client, ravi)] == [302, 302, 200, 200]


def test_the_session_of_somebody_else_cannot_be_ended(house, client):
    house.user("ravi")
    ravi = house.client("ravi")
    (mark,) = [one.id for one in house.services.users.sessions("ravi")]

    post(client, "/settings/sessions/end", id=mark)

    assert ravi.get("/").status_code == 200


# --- keys ------------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_may_what_was_chosen(house, client):
    answer = post(client, "/settings/keys", label="my algo", scope="trade")
    plain = secret_of(answer)

    key = house.services.users.key(plain)
    assert (key.owner, key.scope, key.label) == ("asha", Scope.TRADE, "my algo")
    page = client.get("/settings").text
    assert plain not in page
    assert "my algo" in page


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"label": "", "scope": "read"}, "Say what the key is for."),
        ({"label": "x", "scope": "all"}, "Choose what the key may do."),
    ],
)
def test_a_wrong_key_form_says_what_is_wrong(house, client, fields, words):
    answer = post(client, "/settings/keys", **fields)

    assert (answer.status_code, words in text_of(answer)) == (400, True)
    assert house.services.users.keys("asha") == []


def test_a_key_is_revoked_by_its_owner_alone(house, client):
    house.user("ravi")
    key, plain = house.services.users.add_key("ravi", label="theirs")
    mine, _ = house.services.users.add_key("asha", label="mine")

    refused = post(client, f"/settings/keys/{key.id}/revoke")
    post(client, f"/settings/keys/{mine.id}/revoke")

    assert "has no API key" in text_of(refused)
    assert house.services.users.key(plain) is not None
    assert house.services.users.keys("asha") == []


# --- notifications ---------------------------------------------------------------------------------------

TOLD = {f"rule.{one}": "off" for one in Occasion} | {"digest_seconds": "60", "per_minute": "5"}


def test_what_a_user_is_told_and_how_is_saved(house, client):
    answer = post(
        client, "/settings/notifications", **(TOLD | {"rule.rejected": "silent", "market_hours": "on"})
    )

    kept = house.services.notifications
    assert "Saved." in text_of(answer)
    assert kept.rules("asha")[Occasion.REJECTED] is Loudness.SILENT
    assert kept.rules("asha")[Occasion.FILLED] is Loudness.OFF
    wanted = kept.preferences("asha")
    assert (wanted.digest_seconds, wanted.per_minute, wanted.market_hours) == (60, 5, True)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"digest_seconds": "-1"}, "This is a whole number."),
        ({"digest_seconds": "99999"}, "A digest collects for 0 to"),
        ({"per_minute": "many"}, "This is a whole number."),
        ({"rule.filled": "loud"}, "Choose on, silent or off for each."),
    ],
)
def test_wrong_wishes_say_what_is_wrong_and_keep_what_was_typed(house, client, fields, words):
    answer = post(client, "/settings/notifications", **(TOLD | fields))

    assert (answer.status_code, words in text_of(answer)) == (400, True)


def test_a_program_is_given_the_secret_of_its_signature_once(house, client):
    answer = post(
        client, "/settings/targets", kind="webhook", address="https://algo.example/hook", target_label="Algo"
    )
    (target,) = house.services.notifications.targets("asha")

    assert house.services.notifications.address(target.id, owner="asha") == (
        "https://algo.example/hook",
        secret_of(answer),
    )
    page = client.get("/settings").text
    assert "Algo" in page
    assert "algo.example/hook" not in page  # sealed: not shown again
    assert secret_of(answer) not in page


@pytest.mark.parametrize(
    ("kind", "address"), [("apprise", ""), ("apprise", "just words"), ("webhook", "http://algo.example/hook")]
)
def test_an_address_that_is_none_is_refused_at_its_field(house, client, kind, address):
    answer = post(client, "/settings/targets", kind=kind, address=address)

    assert answer.status_code == 400
    assert 'id="f-address"' in answer.text
    assert house.services.notifications.targets("asha") == []


def test_a_place_is_removed_by_its_owner_alone(house, client):
    house.user("ravi")
    post(client, "/settings/targets", kind="webhook", address="https://algo.example/hook")
    (target,) = house.services.notifications.targets("asha")

    post(house.client("ravi"), f"/settings/targets/{target.id}/remove")
    assert house.services.notifications.targets("asha") == [target]
    post(client, f"/settings/targets/{target.id}/remove")

    assert house.services.notifications.targets("asha") == []


def test_a_user_opts_out_and_in_again_on_the_same_page(house, client):
    choices = {}
    for choice in ("out", "in", "none"):
        post(client, "/settings/realtime", choice=choice)
        page = client.get("/settings").text
        choices[choice] = re.findall(r'name="choice" value="(\w+)" checked', page)

    assert choices == {"out": ["out"], "in": ["in"], "none": ["none"]}
