"""The owner's pages, the operator's audit, and the ways in: who may, who may not, and what is said."""

from __future__ import annotations

import re

import pytest

from orderwire.store import audit
from orderwire.store.invitations import Invitations
from orderwire.store.users import Role
from web.house import PASSWORD, a_house, csrf


@pytest.fixture
def client(house):
    return house.client(house.user("maya", Role.OWNER))


def post(client, path, **fields):
    return client.post(path, data=fields | {"csrf_token": csrf(client, "/")}, follow_redirects=True)


def text_of(answer) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text)).replace("&#39;", "'")


def link_of(answer) -> str:
    return re.search(r"http://127\.0\.0\.1:\d+(/password/[^<\"]+)", answer.text).group(1)


def test_somebody_is_added_and_chooses_their_password_by_a_link(house, client):
    answer = post(client, "/people", name="Ravi", role="operator")
    path = link_of(answer)
    ravi = house.client()
    token = csrf(ravi, path)

    done = ravi.post(path, data={"password": "tungsten tree", "again": "tungsten tree", "csrf_token": token})

    assert "ravi was added as operator" in text_of(answer)
    assert done.headers["Location"] == "/login"
    assert house.services.users.check("ravi", "tungsten tree").role is Role.OPERATOR
    assert ravi.get(path).status_code == 404


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "asha", "role": "trader"}, "There is a user asha already."),
        ({"name": "a b", "role": "trader"}, "A user name has 1 to 64"),
        ({"name": "ravi", "role": "king"}, "Choose a role."),
    ],
)
def test_a_wrong_form_says_what_is_wrong(client, fields, words):
    answer = post(client, "/people", **fields)

    assert answer.status_code == 400
    assert words in text_of(answer)


def test_a_role_changes_and_the_sessions_end(house, client):
    asha = house.client("asha")

    answer = post(client, "/people/asha/role", role="operator")

    assert "asha was changed" in text_of(answer)
    assert house.services.users.get("asha").role is Role.OPERATOR
    assert asha.get("/").status_code == 302


def test_the_last_owner_cannot_be_lost(house, client):
    for answer in (post(client, "/people/maya/role", role="trader"), post(client, "/people/maya/disable")):
        assert "This is the last owner" in text_of(answer)
    assert client.get("/people").status_code == 200


def test_locking_out_and_letting_in(house, client):
    asha = house.client("asha")

    post(client, "/people/asha/disable")
    locked = asha.get("/").status_code
    post(client, "/people/asha/enable")

    assert locked == 302
    assert house.services.users.check("asha", PASSWORD) is not None


@pytest.mark.parametrize("role", [Role.TRADER, Role.OPERATOR])
@pytest.mark.parametrize(
    "path", ["/people", "/people/asha/role", "/people/asha/disable", "/people/asha/password"]
)
def test_nobody_but_an_owner_changes_people(house, role, path):
    client = house.client(house.user("somebody", role))

    assert post(client, path, name="x", role="owner").status_code == 403
    assert house.services.users.get("asha").role is Role.TRADER


def test_changes_need_the_token_of_the_page(house, client):
    assert client.post("/people/asha/disable").status_code == 400
    assert not house.services.users.get("asha").disabled


# --- the audit -------------------------------------------------------------------------------------------


def test_deeds_are_on_the_audit_page_with_who_and_what(house, client):
    post(client, "/people/asha/role", role="operator")

    page = text_of(client.get("/audit"))

    assert "maya" in page
    assert "role set to operator" in page


def test_the_audit_is_narrowed_by_who_and_by_words_and_has_pages(house, client):
    def work(connection):
        for number in range(120):
            who = "asha" if number % 2 else "ravi"
            audit.record(connection, at_ns=number, who=who, what="a deed", number=f"n{number}%")

    house.services.database.write(work)

    first = client.get("/audit?who=asha")
    second = client.get("/audit?who=asha&page=2")

    assert first.text.count('<th scope="row">') == 50
    assert second.text.count('<th scope="row">') == 10
    assert "page=2" in first.text
    assert text_of(client.get("/audit?text=deed+n7%25")).count("a deed") == 1
    assert "Nothing found" in text_of(client.get("/audit?text=nosuchword"))


def test_a_trader_sees_no_audit(house):
    assert house.client("asha").get("/audit").status_code == 403


# --- the first administrator -----------------------------------------------------------------------------


def test_the_first_administrator_is_made_by_the_link_of_the_first_start(tmp_path):
    with a_house(tmp_path) as empty:
        token = Invitations(empty.services.database, empty.services.users).first()
        client = empty.app.test_client()
        page = client.get(f"/setup/{token}")
        fields = {"name": "maya", "password": PASSWORD, "csrf_token": csrf(client, f"/setup/{token}")}

        differ = client.post(f"/setup/{token}", data=fields | {"again": "x"})
        done = client.post(f"/setup/{token}", data=fields | {"again": PASSWORD})

        assert "Nobody can log in yet" in text_of(page)
        assert (differ.status_code, "The two passwords differ." in text_of(differ)) == (400, True)
        assert done.headers["Location"] == "/people"
        assert empty.services.users.get("maya").role is Role.OWNER
        assert client.get("/people").status_code == 200
        assert client.get(f"/setup/{token}").status_code == 404


@pytest.mark.parametrize("path", ["/setup/guess", "/password/guess"])
def test_a_guessed_link_opens_nothing(house, path):
    client = house.client()

    assert client.get(path).status_code == 404
    answer = client.post(
        path, data={"name": "x", "password": PASSWORD, "again": PASSWORD, "csrf_token": csrf(client)}
    )
    assert answer.status_code == 404


def test_guessing_links_is_slowed_down(house):
    client = house.client()

    assert [client.get(f"/password/{n}").status_code for n in range(12)][-1] == 429


def test_an_empty_installation_says_where_its_link_is(tmp_path):
    with a_house(tmp_path) as empty:
        client = empty.app.test_client()

        assert "Nobody can log in yet" in text_of(client.get("/login"))
        assert "orderwire users first" in text_of(client.get("/setup"))
