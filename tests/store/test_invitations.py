from __future__ import annotations

import threading

import pytest

from orderwire.errors import InvalidRequestError, NotFoundError
from orderwire.store import audit
from orderwire.store.invitations import RESET_HOURS, Invitations, Purpose
from orderwire.store.users import Role, Users

PASSWORD = "correct horse"


@pytest.fixture
def users(database, hasher):
    return Users(database, hasher=hasher)


@pytest.fixture
def invitations(database, users):
    return Invitations(database, users)


def test_the_first_administrator_is_an_owner_and_the_way_in_closes(invitations, users):
    token = invitations.first()

    made = invitations.make_first(token, "Maya", PASSWORD)

    assert (made.name, made.role) == ("maya", Role.OWNER)
    assert invitations.first() is None
    assert invitations.find(token, Purpose.FIRST) is None


def test_a_new_link_for_the_first_administrator_ends_the_one_before(invitations):
    before = invitations.first()

    assert invitations.first() != before
    assert invitations.find(before, Purpose.FIRST) is None


def test_a_bad_name_does_not_spend_the_link(invitations):
    token = invitations.first()
    with pytest.raises(InvalidRequestError):
        invitations.make_first(token, "no spaces", PASSWORD)
    with pytest.raises(InvalidRequestError):
        invitations.make_first(token, "maya", "short")

    assert invitations.make_first(token, "maya", PASSWORD).name == "maya"


def test_a_password_link_sets_the_password_once(invitations, users):
    users.add("asha", "old password")
    token = invitations.password("asha", by="maya")

    invitations.set_password(token, "new password")

    assert users.check("asha", "new password") is not None
    assert users.check("asha", "old password") is None
    with pytest.raises(NotFoundError):
        invitations.set_password(token, "third password")


def test_a_link_grows_old(invitations, users, clock):
    users.add("asha", PASSWORD)
    token = invitations.password("asha", by="maya")

    clock.advance(RESET_HOURS * 3600)

    assert invitations.find(token, Purpose.PASSWORD) is None
    with pytest.raises(NotFoundError):
        invitations.set_password(token, "new password")


def test_one_link_is_not_the_other(invitations, users):
    first = invitations.first()
    users.add("asha", PASSWORD)
    token = invitations.password("asha", by="maya")

    assert invitations.find(token, Purpose.FIRST) is None
    assert invitations.find(first, Purpose.PASSWORD) is None
    assert invitations.find("", Purpose.PASSWORD) is None


def test_of_two_who_use_a_link_at_once_one_gets_in(invitations, users):
    users.add("asha", PASSWORD)
    token = invitations.password("asha", by="maya")
    ends = []

    def use(password):
        try:
            invitations.set_password(token, password)
            ends.append("in")
        except NotFoundError:
            ends.append("out")

    threads = [threading.Thread(target=use, args=(f"password {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert sorted(ends) == ["in", "out", "out", "out"]


def test_the_database_holds_only_a_digest_and_the_audit_no_token(invitations, users, database):
    users.add("asha", PASSWORD)
    token = invitations.password("asha", by="maya")

    with database.read() as connection:
        rows = connection.exec_driver_sql("select digest, made_by from invitations").all()

    assert [row.made_by for row in rows] == ["maya"]
    assert token not in rows[0].digest
    assert token not in repr(audit.entries(database))
