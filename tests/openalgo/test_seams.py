"""What OpenAlgo's own functions answer, by modules of those names; and which versions are too old."""

from __future__ import annotations

import importlib.metadata
import sys
from types import ModuleType, SimpleNamespace

import pytest
from flask import Flask, session

from orderwire.config import load_mount
from orderwire.core.hosts import HostLogin
from orderwire.errors import ConfigurationError
from orderwire.openalgo.seams import OLDEST, openalgo_seams, version_problems


@pytest.fixture
def openalgo(monkeypatch):
    """Modules with the names and functions of OpenAlgo, as far as we ask them; written here."""
    held = SimpleNamespace(broker="zerodha", token="key:token", removed=0)

    def remove():
        held.removed += 1

    auth, users = ModuleType("database.auth_db"), ModuleType("database.user_db")
    auth.get_auth_token_dbquery = lambda name: SimpleNamespace(broker=held.broker) if held.broker else None
    auth.get_auth_token = lambda name: held.token
    auth.verify_api_key = lambda key: "trader" if key == "good" else None
    auth.get_api_key_for_tradingview = lambda name: "api-key"
    auth.db_session = SimpleNamespace(remove=remove)
    users.find_user_by_username = lambda: SimpleNamespace(username="Trader")
    monkeypatch.setitem(sys.modules, "database", ModuleType("database"))
    monkeypatch.setitem(sys.modules, "database.auth_db", auth)
    monkeypatch.setitem(sys.modules, "database.user_db", users)
    held.auth = auth
    return held


def seams(**settings):
    return openalgo_seams(load_mount(broker_api_key="app", broker_api_secret="secret", **settings))


def test_its_user_its_login_and_its_key_are_handed_over(openalgo):
    state = seams(broker_addresses="api=http://127.0.0.1:1").state()

    assert (state.user, state.api_key) == ("Trader", "api-key")
    assert state.logins == [
        HostLogin(
            broker="zerodha",
            token="key:token",
            app_key="app",
            app_secret="secret",
            addresses={"api": "http://127.0.0.1:1"},
        )
    ]
    assert openalgo.removed == 1  # the connection of this thread was given back


def test_without_a_broker_nothing_is_handed_over_and_without_a_token_a_logout(openalgo):
    openalgo.token = None
    assert [login.token for login in seams().state().logins] == [""]

    openalgo.broker = None
    assert seams().state().logins == []


def test_the_user_may_be_named_by_the_operator(openalgo):
    assert seams(host_user="somebody").state().user == "somebody"


def test_a_session_and_a_key_say_whose_they_are(openalgo):
    app = Flask(__name__)
    app.secret_key = "x"
    answers = seams()
    with app.test_request_context():
        assert answers.who() is None
        session["user"] = "trader"
        assert answers.who() is None  # known, and not logged in
        session["logged_in"] = True
        assert answers.who() == "trader"

    assert (answers.key_owner("good"), answers.key_owner("bad")) == ("trader", None)


def test_an_openalgo_whose_subscriber_emits_by_itself_is_noticed(openalgo, monkeypatch):
    answers = seams()
    assert not answers.repeats()

    monkeypatch.setitem(
        sys.modules, "subscribers.socketio_subscriber", SimpleNamespace(on_order_update=print)
    )

    assert answers.repeats()


def test_another_openalgo_is_refused_with_what_it_lacks(openalgo):
    del openalgo.auth.get_auth_token

    with pytest.raises(ConfigurationError, match="has no get_auth_token"):
        seams()


def test_versions_that_are_there_are_fine():
    assert version_problems() == []


@pytest.mark.parametrize(
    ("found", "says"), [("1.9.9", "is 1.9.9; orderwire needs"), (None, "is missing; orderwire needs")]
)
def test_a_version_that_is_too_old_or_missing_is_named_with_what_is_needed(found, says):
    def installed(name):
        if name != "flask":
            return "99.0"
        if found is None:
            raise importlib.metadata.PackageNotFoundError
        return found

    assert version_problems(installed) == [f"flask {says} 2.3 or newer."]
    assert "flask" in OLDEST
