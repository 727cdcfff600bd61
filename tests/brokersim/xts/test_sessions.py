import base64
import json
from random import Random

import pytest

from brokersim.users import demo_users
from brokersim.xts.errors import XtsError
from brokersim.xts.sessions import Sessions, dealer_speakers, speaker

NOW = 1_799_123_400.25


@pytest.fixture
def users():
    return demo_users()


@pytest.fixture
def sessions(users):
    return Sessions(users, Random(1))


def log_in(sessions, app_key="demoxts", now=NOW, **changes):
    settings = {"unique_key": None, "key_needed": False} | changes
    return sessions.log_in(app_key, f"{app_key}-secret", now=now, **settings)


def refused(code):
    return pytest.raises(XtsError, check=lambda error: error.code == code)


def decoded(part):
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_token_is_a_jwt_with_the_observed_claims(sessions):
    session, _ = log_in(sessions)

    header, claims, _signature = session.token.split(".")
    assert decoded(header) == {"alg": "HS256", "typ": "JWT"}
    assert decoded(claims) == {
        "userID": "JN0001_DEMOXTS",
        "publicKey": "demoxts",
        "isInteractive": True,
        "iat": int(NOW),
        "exp": int(NOW) + 86400,
    }


def test_second_login_replaces_the_first(sessions):
    first, _ = log_in(sessions)

    second, replaced = log_in(sessions)

    assert replaced is first
    assert second.token != first.token
    assert sessions.find(second.token, now=NOW) is second
    with refused("e-session-0005"):
        sessions.find(first.token, now=NOW)


def test_two_app_keys_do_not_meet(sessions):
    first, _ = log_in(sessions)

    assert log_in(sessions, "demodealer")[1] is None
    assert sessions.find(first.token, now=NOW) is first


def test_token_dies_after_a_day(sessions):
    session, _ = log_in(sessions)

    sessions.find(session.token, now=NOW + 86_398)
    with refused("e-session-0005"):
        sessions.find(session.token, now=NOW + 86_401)


@pytest.mark.parametrize(
    ("token", "code"), [("", "e-token-0002"), (None, "e-token-0002"), ("Bearer x", "e-session-0007")]
)
def test_bad_tokens(sessions, token, code):
    with refused(code):
        sessions.find(token, now=NOW)


def test_wrong_secret(sessions):
    with refused("e-user-0001"):
        sessions.log_in("demoxts", "wrong", now=NOW, unique_key=None, key_needed=False)
    with refused("e-user-0001"):
        sessions.log_in("unknown", "wrong", now=NOW, unique_key=None, key_needed=False)


def test_unique_key_of_the_hostlookup(sessions):
    key = sessions.look_up_host("2021HostLookUpAccess")

    assert log_in(sessions, unique_key=key, key_needed=True)
    for wrong in ("invented", None):
        with refused("e-hostlookup-0002"):
            log_in(sessions, unique_key=wrong, key_needed=True)
    with refused("e-hostlookup-0002"):
        log_in(sessions, unique_key="invented")
    with refused("e-hostlookup-0001"):
        sessions.look_up_host("wrong")


@pytest.mark.parametrize(
    ("app_key", "client_id", "spellings"),
    [
        ("demoxts", None, ("JN0001", "JN0001", "JN0001")),
        ("demoxts", "JN0001", ("JN0001", "JN0001", "JN0001")),
        ("demodealer", "JD002", ("JD002", "JD002", "JD002")),
        ("demopro", "*****", ("PRO012", "*****", "Pro")),
    ],
)
def test_who_a_call_is_for(users, app_key, client_id, spellings):
    found = speaker(users.xts_logins[app_key], client_id)

    assert (found.client, found.in_answer, found.in_books) == spellings


@pytest.mark.parametrize(
    ("app_key", "client_id", "code"),
    [
        ("demoxts", "JD001", "e-trade-00002"),
        ("demodealer", "PRO012", "e-trade-00002"),
        ("demodealer", "*****", "e-trade-00002"),
        ("demodealer", None, "e-property-validation-failed"),
        ("demopro", "PRO012", "e-trade-00002"),
        ("demopro", None, "e-property-validation-failed"),
    ],
)
def test_who_a_call_is_not_for(users, app_key, client_id, code):
    with refused(code):
        speaker(users.xts_logins[app_key], client_id)


@pytest.mark.parametrize(
    ("app_key", "client_id", "clients"),
    [
        ("demodealer", None, ["JD001", "JD002"]),
        ("demodealer", "JD002", ["JD002"]),
        ("demopro", None, ["PRO012"]),
        ("demoxts", None, ["JN0001"]),
    ],
)
def test_whose_rows_a_dealers_book_shows(users, app_key, client_id, clients):
    assert [each.client for each in dealer_speakers(users.xts_logins[app_key], client_id)] == clients
