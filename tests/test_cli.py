import subprocess
import sys

import pytest
from typer.testing import CliRunner

from orderwire.cli import app
from orderwire.errors import OrderwireError

PASSWORD = "long-enough-password"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words, typed="", fails=False):
        done = CliRunner().invoke(app, [*words, "--data-dir", str(tmp_path / "data")], input=typed)
        if fails:
            assert isinstance(done.exception, OrderwireError | SystemExit), done.output
            return done.output + str(done.exception)
        assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
        return done.output

    return run


@pytest.fixture
def made(run):
    run("init", "--password", PASSWORD)
    run("users", "add", "asha", "--password", PASSWORD)
    return run


def test_init_makes_the_folder_its_key_and_the_first_owner(run, tmp_path):
    said = run("init", "--password", PASSWORD)

    assert "admin" in said
    assert (tmp_path / "data" / "sealing-key.json").stat().st_mode & 0o077 == 0
    assert "owner" in run("users", "list")


def test_the_first_administrator_can_be_left_to_the_browser(run):
    run("init", "--later")

    assert run("users", "list").strip() == "none"
    assert "http://127.0.0.1:5080/setup/" in run("users", "first")


def test_a_forgotten_password_is_replaced_by_a_link(made):
    assert "http://127.0.0.1:5080/password/" in made("users", "reset", "asha")
    assert "There is no user nobody." in made("users", "reset", "nobody", fails=True)
    assert "There are users already" in made("users", "first", fails=True)


def test_a_role_is_changed_but_the_last_owner_stays(made):
    made("users", "role", "asha", "operator")

    assert "operator" in made("users", "list")
    assert "last owner" in made("users", "role", "admin", "trader", fails=True)


def test_keys_are_rotated(made):
    made("accounts", "add", "zerodha", "--owner", "asha", "--set", "api_key=k", "--set", "api_secret=s")

    assert "Sealed 2 secrets again with key k2" in made("keys", "rotate")
    assert "Earlier keys were removed." in made("keys", "rotate", "--forget-old")


def test_init_again_changes_nothing(run, tmp_path):
    run("init", "--password", PASSWORD)
    key = (tmp_path / "data" / "sealing-key.json").read_bytes()

    assert "Found" in run("init", "--password", "another-password")
    assert (tmp_path / "data" / "sealing-key.json").read_bytes() == key


def test_without_init_every_command_says_what_to_do(run):
    assert "orderwire init" in run("users", "list", fails=True)


def test_a_short_password_is_refused_with_the_rule(made):
    assert "8 characters" in made("users", "add", "ravi", "--password", "short", fails=True)


def test_a_user_cannot_be_made_twice(made):
    assert "already" in made("users", "add", "asha", "--password", PASSWORD, fails=True)


def test_an_api_key_is_shown_once_and_can_be_revoked(made):
    key = made("apikeys", "add", "asha", "--label", "bot").split()[0]
    listed = made("apikeys", "list", "asha")
    key_id = listed.split("\n")[1].split()[0]

    assert key not in listed
    made("apikeys", "revoke", "asha", key_id)
    assert key_id not in made("apikeys", "list", "asha")


def test_an_account_asks_for_the_credentials_it_needs_and_names_the_postback_path(made):
    said = made("accounts", "add", "zerodha", "--owner", "asha", typed="my-api-key\nmy-api-secret\n")

    assert "zerodha-asha" in said
    assert "/postback/zerodha/" in said
    assert "my-api-secret" not in said
    assert "my-api-secret" not in made("accounts", "list")


def test_every_address_of_a_broker_can_be_set(made):
    made(
        "accounts", "add", "jainam", "--owner", "asha", "--id", "j1",
        "--set", "app_key=a", "--set", "secret_key=b", "--set", "base=https://xts.example:4000",
    )  # fmt: skip

    assert "j1" in made("accounts", "list")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("accounts", "add", "nobroker", "--owner", "asha"), "zerodha"),
        (("accounts", "add", "zerodha", "--owner", "nobody", "--set", "api_key=a", "--set", "api_secret=b"), "nobody"),
        (("accounts", "add", "zerodha", "--owner", "asha", "--set", "nonsense"), "name=value"),
        (
            ("accounts", "add", "zerodha", "--owner", "asha", "--set", "api_key=a", "--set", "api_secret=b", "--set", "x=1"),
            "knows no x",
        ),
        (("accounts", "login", "zerodha-asha"), "orderwire serve"),
        (("accounts", "remove", "nobody", "--yes"), "nobody"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_says_why(made, words, says):
    assert says in made(*words, fails=True)


def test_the_doctor_looks_at_brokers_folder_and_accounts(made):
    made("accounts", "add", "zerodha", "--owner", "asha", "--set", "api_key=a", "--set", "api_secret=b")

    said = made("doctor")

    for word in ("Python", "broker zerodha", "broker jainam", "data folder", "account zerodha-asha"):
        assert word in said


def test_the_doctor_fails_when_something_is_wrong(run):
    assert "orderwire init" in run("doctor", fails=True)


def test_an_error_is_one_clear_line_and_exit_code_1(tmp_path):
    command = [sys.executable, "-m", "orderwire", "serve", "--data-dir", str(tmp_path / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "orderwire init" in done.stderr
