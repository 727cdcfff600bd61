"""Trading from the terminal, against the running service."""

from __future__ import annotations

import httpx2
import pytest
from typer.testing import CliRunner

from house import eventually, running_house
from orderwire.cli import app
from orderwire.client import Orders
from orderwire.errors import OrderwireError


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with running_house(tmp_path_factory.mktemp("trading")) as house:
        yield house


@pytest.fixture
def run(house, monkeypatch):
    """Run a command as asha, on the service's own machine."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ORDERWIRE_PORT", str(house.settings.port))

    def run(*words, typed="", user=("--user", "asha"), fails=False):
        folder = ("--data-dir", str(house.settings.data_dir))
        done = CliRunner().invoke(app, [*words, *user, *folder], input=typed)
        if fails:
            assert isinstance(done.exception, OrderwireError | SystemExit), done.output
            return done.output + str(done.exception)
        assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
        return done.output

    return run


def test_an_order_is_placed_listed_and_cancelled(run, house):
    placed = run("place", "buy", "5", "infy", "--price", "1400.5", "--yes")
    orderid = placed.split("order ")[1].split(".")[0]

    eventually(lambda: "0/5" in run("orders", "--open"))
    assert orderid in run("cancel", orderid)
    eventually(lambda: orderid not in run("orders", "--open"))
    assert "CANCELLED" in run("orders")


def test_placing_asks_first_and_takes_a_no(run):
    said = run("place", "SELL", "5", "INFY", "--trigger", "1300", "--price", "1299", typed="n\n", fails=True)

    assert "SELL 5 INFY NSE at 1299 once 1300 is reached, MIS?" in said


def test_the_same_key_places_once(run):
    words = ("place", "BUY", "1", "INFY", "--price", "1401", "--key", "terminal-1", "--yes")

    assert run(*words) == run(*words)


def test_all_live_orders_are_cancelled_at_once(run):
    run("place", "BUY", "2", "INFY", "--price", "1402", "--yes")
    eventually(lambda: "0/2" in run("orders", "--open"))

    assert "Failed to cancel 0 orders." in run("cancel", "--all", "--yes")
    eventually(lambda: run("orders", "--open").strip() == "none")


def test_what_is_wrong_is_one_clear_line(run):
    assert "NOSUCH" in run("place", "BUY", "1", "NOSUCH", "--yes", fails=True)
    assert "Order 404 not found" in run("cancel", "404", fails=True)
    assert "--all" in run("cancel", fails=True)
    assert "--apikey" in run("orders", user=(), fails=True)


def test_a_key_made_for_a_command_ends_with_it(run, house):
    run("orders")

    assert "in a terminal" not in str(house.command("apikeys.list", owner="asha"))


@pytest.mark.parametrize("path", ["openapi.json", "docs"])
def test_the_running_service_describes_its_calls(house, path):
    answer = httpx2.get(f"{house.url}/api/v1/{path}", trust_env=False)

    assert answer.status_code == 200
    assert "/api/v1/placeorder" in answer.text
    assert "/control/" not in answer.text


def test_a_key_of_ones_own_works_from_anywhere(run, house):
    assert run("orders", "--url", house.url, user=("--apikey", house.keys["asha"]))
    with (
        Orders(house.url, apikey="guess") as desk,
        pytest.raises(OrderwireError, match="Invalid openalgo apikey"),
    ):
        desk.book()
