from __future__ import annotations

import pytest

from orderwire.errors import InvalidRequestError, NotFoundError
from orderwire.store import audit
from orderwire.store.users import Role, Scope, Users


@pytest.fixture
def users(database, hasher) -> Users:
    users = Users(database, hasher=hasher)
    users.add("asha", "correct horse")
    return users


def test_a_user_gets_in_with_the_right_password_only(users):
    assert users.check("Asha ", "correct horse") == users.get("asha")
    assert users.check("asha", "correct horse ") is None
    assert users.check("nobody", "correct horse") is None


def test_passwords_are_kept_as_argon2id(database):
    Users(database).add("asha", "correct horse")

    with database.read() as connection:
        stored = connection.exec_driver_sql("SELECT password FROM users").scalar()

    assert stored.startswith("$argon2id$")


@pytest.mark.parametrize(
    ("name", "password", "field"),
    [
        ("", "long enough", "name"),
        ("two words", "long enough", "name"),
        ("x" * 65, "long enough", "name"),
        ("ravi", "short", "password"),
        ("asha", "long enough", "name"),
        ("ASHA", "long enough", "name"),
    ],
)
def test_a_bad_user_is_refused_naming_the_field(users, name, password, field):
    with pytest.raises(InvalidRequestError) as refusal:
        users.add(name, password)

    assert list(refusal.value.problems) == [field]


def test_a_disabled_user_gets_in_nowhere(users):
    _, plain = users.add_key("asha")
    users.save_session("cookie", b"x", owner="asha", expires_ns=2**62)

    users.disable("asha")

    assert users.check("asha", "correct horse") is None
    assert users.key(plain) is None
    assert users.load_session("cookie") is None
    users.enable("asha")
    assert users.check("asha", "correct horse") is not None


def test_a_new_password_ends_the_web_sessions(users):
    users.save_session("cookie", b"x", owner="asha", expires_ns=2**62)
    users.save_session("other", b"y", owner=None, expires_ns=2**62)

    users.set_password("asha", "battery staple")

    assert users.check("asha", "correct horse") is None
    assert users.check("asha", "battery staple") is not None
    assert (users.load_session("cookie"), users.load_session("other")) == (None, b"y")


def test_roles_include_the_ones_below():
    allowed = [(a, b) for a in Role for b in Role if a.may(b)]

    assert allowed == [
        (Role.TRADER, Role.TRADER),
        (Role.OPERATOR, Role.TRADER),
        (Role.OPERATOR, Role.OPERATOR),
        (Role.OWNER, Role.TRADER),
        (Role.OWNER, Role.OPERATOR),
        (Role.OWNER, Role.OWNER),
    ]


def test_a_role_is_changed_and_audited(users, database):
    users.set_role("asha", Role.OPERATOR, by="root")

    assert users.get("asha").role is Role.OPERATOR
    latest = audit.entries(database, most=1)[0]
    assert (latest.who, latest.what, latest.detail) == ("root", "role set to operator", {"user": "asha"})


@pytest.mark.parametrize("act", ["get", "disable", "enable", "add_key"])
def test_an_unknown_user_is_not_found(users, act):
    with pytest.raises(NotFoundError, match="no user ravi"):
        getattr(users, act)("ravi")


def test_an_api_key_works_until_it_is_revoked_and_is_stored_only_as_a_digest(users, database):
    key, plain = users.add_key("asha", scope=Scope.TRADE, label="my algo")

    assert users.key(plain) == key
    assert users.keys("asha") == [key]
    with database.read() as connection:
        assert plain not in repr(connection.exec_driver_sql("SELECT * FROM api_keys").all())
    users.revoke_key(key.id, owner="asha")
    assert users.key(plain) is None
    assert users.keys("asha") == []


def test_no_command_line_takes_a_key_for_an_option(users, monkeypatch):
    monkeypatch.setattr("secrets.token_urlsafe", lambda _bytes: "-AhbYw")

    assert not users.add_key("asha", scope=Scope.READ)[1].startswith("-")


def test_nobody_revokes_the_key_of_another(users):
    users.add("ravi", "correct horse")
    key, plain = users.add_key("asha")

    with pytest.raises(NotFoundError):
        users.revoke_key(key.id, owner="ravi")

    assert users.key(plain) == key


def test_a_web_session_is_replaced_expires_and_is_purged(users, clock):
    soon = clock.time_ns() + 10_000_000_000
    users.save_session("cookie", b"one", owner=None, expires_ns=soon)
    users.save_session("cookie", b"two", owner="asha", expires_ns=soon)
    assert users.load_session("cookie") == b"two"

    clock.advance(10)

    assert users.load_session("cookie") is None
    assert (users.purge_sessions(), users.purge_sessions()) == (1, 0)


def test_an_ended_web_session_is_gone(users):
    users.save_session("cookie", b"one", owner=None, expires_ns=2**62)

    users.end_session("cookie")

    assert users.load_session("cookie") is None


def test_all_users_are_listed_and_counted(users):
    users.add("arun", "correct horse", role=Role.OWNER)

    assert [user.name for user in users.all()] == ["arun", "asha"]
    assert users.count() == 2
