"""orderwire inside the example host, under each server such hosts run: its orders, its fall and its return."""

from __future__ import annotations

import signal

import httpx2
import pytest

from house import Simulators, eventually
from openalgo_host import XTS_KEY, XTS_SECRET, ExampleHost, zerodha_token
from orderwire.config import load
from orderwire.errors import ConfigurationError
from orderwire.service import make_data_folder, open_records

FIELDS = {
    "mode", "broker", "orderid", "symbol", "exchange", "action", "quantity", "price", "trigger_price", "pricetype",
    "product", "order_status", "filled_quantity", "pending_quantity", "average_price", "rejection_reason",
}  # fmt: skip
"""Of OpenAlgo's `order_update` (openalgo.md §3)."""


@pytest.fixture
def sims(tmp_path):
    sims = Simulators(tmp_path)
    yield sims
    sims.stop()


def add_jainam(host, sims, *, app_key=XTS_KEY, secret_key=XTS_SECRET):
    """Give the host's user a Jainam account that logs in with a key of its own, before the service runs."""
    settings = load(data_dir=host.folder / "data")
    make_data_folder(settings)
    records = open_records(settings)
    try:
        records.users.add("trader", "trader-password")
        records.accounts.add(
            "jainam-own",
            broker="jainam",
            owner="trader",
            credentials={"app_key": app_key, "secret_key": secret_key},
            addresses={"base": sims.ready["xts"]},
        )
    finally:
        records.database.close()


@pytest.fixture(params=["threads", "gevent", "eventlet"])
def host(request, tmp_path, sims):
    """The example host, logged in to Zerodha; its user has a Jainam account besides."""
    host = ExampleHost(tmp_path, sims, server=request.param, ORDERWIRE_TAKE_OVER="zerodha")
    add_jainam(host, sims)
    host.start()
    try:
        host.log_in_to_broker("zerodha", zerodha_token(sims))
        host.await_freshness("zerodha", "LIVE")
        host.await_freshness("jainam", "LIVE")
        yield host
    finally:
        host.stop()


def streams(sims):
    return {socket["sid"] for socket in sims.ask("GET", "/sockets")["xts"]}


def on_the_bus(host, order_id, status):
    found = [e for e in host.bus() if e["orderid"] == order_id and e["order_status"] == status]
    return found[-1] if found else None


def await_on_the_bus(host, order_id, status):
    return eventually(lambda: on_the_bus(host, order_id, status), what=f"{order_id} {status} on the bus")


@pytest.mark.timeout(240)
def test_orders_of_both_brokers_reach_the_hosts_pages_and_bus_and_a_killed_service_comes_back(host, sims):
    with host.stream() as page, host.stream("/orderwire") as ours:
        for broker, account in (("zerodha", "zerodha-trader"), ("jainam", "jainam-own")):
            order_id = host.place(account)
            told = page.await_order(order_id, "complete")
            event = await_on_the_bus(host, order_id, "complete")
            assert told["broker"] == event["broker"] == broker
            assert set(told) > FIELDS
            assert {name: event[name] for name in FIELDS} == {name: told[name] for name in FIELDS}
            assert event["topic"] == "order.update"
            assert event["request_data"] == {"user_id": "trader"}
            assert ours.await_order(order_id, "complete")["event_id"] == told["event_id"]

        resting = host.place("zerodha-trader", order_type="LIMIT", price="1400")
        page.await_order(resting, "open")

        host.kill_service()
        away = host.await_state("away")
        sims.ask("POST", "/market/cancel", {"uid": f"kite:{resting}"})
        manual = eventually(
            lambda: [f for f in page.heard("feed_status") if f["freshness"] == "MANUAL"],
            what="MANUAL on the page",
        )
        back = host.await_state("live")
        told = page.await_order(resting, "cancelled")

        assert {feed["broker"] for feed in manual} == {"zerodha", "jainam"}
        assert all(feed["detail"].startswith("orderwire is away") for feed in manual)
        assert back["pid"] != away["pid"]
        assert await_on_the_bus(host, resting, "cancelled")["event_id"] == told["event_id"]
        assert [
            d["sequence"] for d in page.heard("order_update") if d["account"] == told["account"]
        ] == sorted({d["sequence"] for d in page.heard("order_update") if d["account"] == told["account"]})
        assert host.status()["faults"] == {}


@pytest.mark.timeout(120)
def test_strangers_hear_nothing_and_the_hosts_own_rules_count(tmp_path, sims):
    host = ExampleHost(tmp_path, sims, ORDERWIRE_TAKE_OVER="zerodha")
    host.start()
    try:
        host.log_in_to_broker("zerodha", zerodha_token(sims))
        host.await_freshness("zerodha", "LIVE")
        with pytest.raises(ConnectionError, match="/orderwire"):
            host.stream("/orderwire", cookies=False)
        with (
            host.stream(cookies=False) as stranger,
            host.stream("/orderwire", cookies=False, apikey=host.api_key) as program,
            host.stream(polling=False) as page,
        ):
            order_id = host.place("zerodha-trader")
            page.await_order(order_id, "complete")
            program.await_order(order_id, "complete")
            assert stranger.heard("order_update") == stranger.heard("feed_status") == []
        with httpx2.Client(base_url=host.url, trust_env=False) as nobody:
            assert nobody.get("/orderwire/status").status_code == 401
            assert nobody.post("/orderwire/exchange", content=b"{}").status_code == 403
            assert nobody.post("/broker", data={"broker": "zerodha", "token": "x"}).status_code == 400  # CSRF
            assert (
                nobody.post("/postback/zerodha", content=b"{}").status_code == 400
            )  # ours now, and no checksum
            assert nobody.post("/postback/other", content=b"{}").status_code == 200  # still the host's
            script = nobody.get("/orderwire/follow.js")
        assert script.headers["content-type"].startswith("text/javascript")
        assert "default-src 'self'" in script.headers["content-security-policy"]
        assert [broker for broker, _ in host.browser.get("/witness").json()["postbacks"]] == ["other"]
    finally:
        host.stop()


@pytest.mark.timeout(120)
def test_jainam_follows_the_hosts_token_and_only_a_new_one_restarts_its_stream(tmp_path, sims):
    host = ExampleHost(tmp_path, sims, server="threads", broker="jainam")
    host.start()
    try:
        first = host.jainam_token()
        host.log_in_to_broker("jainam", first)
        followed = host.await_freshness("jainam", "LIVE")
        assert followed["session_user"].endswith(f"_{XTS_KEY.upper()}")  # the token's own claim
        with host.stream() as page:
            order_id = host.place("jainam-trader")
            assert page.await_order(order_id, "complete")["broker"] == "jainam"

            sockets = streams(sims)
            host.log_in_to_broker("jainam", first)  # another device of the same user
            again = host.place("jainam-trader")
            page.await_order(again, "complete")
            assert streams(sims) == sockets

            host.log_in_to_broker("jainam", host.jainam_token())  # ends the first one at the broker
            eventually(lambda: streams(sims) - sockets, what="a stream with the new token")
            host.await_freshness("jainam", "LIVE")
            page.await_order(host.place("jainam-trader"), "complete")

            host.log_in_to_broker("jainam", "")
            assert "logged out" in host.await_freshness("jainam", "AUTH_REQUIRED")["detail"]
    finally:
        host.stop()


@pytest.mark.timeout(120)
def test_nothing_of_the_service_outlives_a_host_that_is_killed(tmp_path, sims):
    host = ExampleHost(tmp_path, sims)
    host.start()
    try:
        host.await_state("live")
        eventually(lambda: host.command("accounts.list") == [], what="the service's control socket")
    finally:
        host.stop(signal.SIGKILL)

    def is_free():
        try:
            records = open_records(load(data_dir=tmp_path / "data"))
        except ConfigurationError:  # it is another process's still
            return False
        records.database.close()
        return True

    eventually(is_free, what="the data folder given up")
