"""`orderwire doctor <broker>`: by itself while no service runs, through the running service otherwise."""

from __future__ import annotations

import subprocess
import sys

import pytest

from house import JAINAM, ZERODHA, House
from orderwire.service import open_records


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    house = House(tmp_path_factory.mktemp("house"), reply_ms=5, push_ms=5)
    yield house
    house.close()


def doctor(house, *words):
    command = [sys.executable, "-m", "orderwire", "doctor", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=house.settings.as_environment()
    )


def kept_user(house):
    records = open_records(house.settings)
    try:
        return records.accounts.get(JAINAM).session_user
    finally:
        records.database.close()


EXPECTED = (
    'order book  empty: HTTP 400, "Data Not Available" (e-orders-0005)',
    'trade book  empty: HTTP 400, "Data Not Available" (e-tradeBook-0005)',
    'positions  empty: HTTP 400, "Data Not Available" (e-portfolio-0005)',
    "stale login  refused: HTTP 400",
    "stale login at the socket  refused: ",
    "stream  Engine.IO 3, open packet ",
    '"pingInterval":25000,"pingTimeout":20000',
)


def test_without_a_service_it_logs_in_asks_everything_and_keeps_the_login(house):
    done = doctor(house, "jainam", "--seconds", "0.5")

    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    for words in EXPECTED:
        assert words in done.stdout
    assert "wrong" not in done.stdout
    assert "demoxts-secret" not in done.stdout
    assert kept_user(house)


def test_what_the_broker_does_otherwise_is_told_and_the_exit_code_is_1(house):
    house.sims.ask("PATCH", "/xts/settings", {"socket_mode": "sio4_only"})
    house.sims.ask("POST", "/faults", {"kind": "html_error", "broker": "xts", "operation": "orders"})
    try:
        done = doctor(house, "jainam", "--account", JAINAM, "--seconds", "0")
    finally:
        house.sims.ask("DELETE", "/faults")
        house.sims.ask("PATCH", "/xts/settings", {"socket_mode": "sio2"})

    assert done.returncode == 1
    assert f"wrong {JAINAM}  order book  BrokerUnreachableError: HTTP 502" in done.stdout
    assert "Engine.IO 4, open packet" in done.stdout
    assert '"maxPayload"' in done.stdout


def test_a_broker_whose_user_must_log_in_says_so(tmp_path):
    house = House(tmp_path, reply_ms=5, push_ms=5)  # nobody ever logged in here
    try:
        done = doctor(house, "zerodha")
    finally:
        house.close()

    assert done.returncode == 1
    assert f"orderwire accounts login {ZERODHA}" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nobroker",), "There is no broker 'nobroker'; installed: jainam, zerodha"),
        (("jainam", "--account", "nobody"), "There is no account nobody at jainam"),
    ],
)
def test_what_is_not_there_is_one_clear_line(house, words, says):
    done = doctor(house, *words)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert says in done.stderr


@pytest.fixture
def service(house):
    house.start()
    house.log_in()
    yield house
    house.stop()


def test_beside_a_running_service_its_own_login_and_stream_are_looked_at(service):
    login = [account["session_expires"] for account in service.command("accounts.list")]

    done = doctor(service, "jainam", "--seconds", "1")

    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    for words in EXPECTED:
        assert words in done.stdout
    assert [account["session_expires"] for account in service.command("accounts.list")] == login
    assert service.freshness(JAINAM) == "LIVE"
