from __future__ import annotations

import stat

from orderwire.web.sessions import web_key
from web.house import csrf


def test_the_database_holds_a_session_only_under_the_digest_of_its_token(house):
    client = house.client("asha")
    token = client.get_cookie("orderwire").value

    with house.services.database.read() as connection:
        rows = connection.exec_driver_sql("select digest, owner from web_sessions").all()

    assert ("asha" in {row.owner for row in rows}) is True
    assert token not in {row.digest for row in rows}


def test_a_visit_without_a_change_writes_nothing(house):
    client = house.client("asha")
    csrf(client, "/")
    before = house.services.database.counts().works

    client.get("/")
    client.get("/accounts")

    assert house.services.database.counts().works == before


def test_a_cookie_nobody_issued_is_not_taken_over(house):
    client = house.app.test_client()
    client.set_cookie("orderwire", "chosen-by-somebody-else")

    client.get("/login")

    assert client.get_cookie("orderwire").value != "chosen-by-somebody-else"


def test_the_key_is_made_once_and_only_its_owner_may_read_it(tmp_path):
    key = web_key(tmp_path)

    assert web_key(tmp_path) == key
    assert len(key) == 32
    assert stat.S_IMODE((tmp_path / "web.key").stat().st_mode) == 0o600
