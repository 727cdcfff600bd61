"""orderwire inside the example host, under each server such hosts run: its orders, its fall and its return."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import httpx2
import pytest

from house import Simulators, answers, run_python
from openalgo_host import XTS_KEY, XTS_SECRET, ExampleHost, eventually, zerodha_token
from orderwire.config import load
from orderwire.errors import ConfigurationError
from orderwire.service import make_data_folder, open_records

pytestmark = pytest.mark.timeout(480)

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


def await_event_on_the_bus(host, event_id):
    def found():
        return [event for event in host.bus() if event["event_id"] == event_id]

    return eventually(found, what=f"{event_id} on the bus")[0]


def manual(page):
    """Why each broker's orders are not live, as the page was told."""
    return {f["broker"]: f["detail"] for f in page.heard("feed_status") if f["freshness"] == "MANUAL"}


def test_orders_of_both_brokers_reach_the_hosts_pages_and_bus_and_a_killed_service_comes_back(host, sims):
    with host.stream() as page, host.stream("/orderwire") as ours:
        for broker, account in (("zerodha", "zerodha-trader"), ("jainam", "jainam-own")):
            order_id = host.place(account)
            told = page.await_order(order_id, "complete")
            event = await_event_on_the_bus(host, told["event_id"])
            assert told["broker"] == event["broker"] == broker
            assert set(told) > FIELDS
            assert {name: event[name] for name in FIELDS} == {name: told[name] for name in FIELDS}
            assert event["topic"] == "order.update"
            assert event["request_data"] == {"user_id": "trader"}
            ours.await_event(told["event_id"])

        resting = host.place("zerodha-trader", order_type="LIMIT", price="1400")
        page.await_order(resting, "open")

        before = host.status()["pid"]
        host.kill_service()
        sims.ask("POST", "/market/cancel", {"uid": f"kite:{resting}"})
        eventually(lambda: set(manual(page)) == {"zerodha", "jainam"}, what="MANUAL on the page")
        eventually(
            lambda: (s := host.status())["state"] == "live" and s["pid"] not in {0, before}, what="the return"
        )
        told = page.await_order(resting, "cancelled")

        assert all(detail.startswith("orderwire is away") for detail in manual(page).values())
        assert await_event_on_the_bus(host, told["event_id"])["order_status"] == "cancelled"
        sequences = [d["sequence"] for d in page.heard("order_update") if d["account"] == told["account"]]
        assert sequences == sorted(set(sequences))
        assert host.status()["faults"] == {}


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


def test_jainam_follows_the_hosts_token_through_its_changes_and_its_end(tmp_path, sims):
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

            host.log_in_to_broker("jainam", host.jainam_token())  # ends the first one at the broker
            eventually(lambda: streams(sims) - sockets, what="a stream with the new token")
            host.await_freshness("jainam", "LIVE")
            page.await_order(host.place("jainam-trader"), "complete")

            host.log_in_to_broker("jainam", "")
            host.await_freshness("jainam", "AUTH_REQUIRED", "logged out")
    finally:
        host.stop()


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


SECRET = "a secret of the host and the service"


class ServiceBeside:
    """`orderwire serve` as a process of its own, which posts to the host."""

    def __init__(self, host, *, told=True):
        self.host = host
        self.told = {"ORDERWIRE_HOST_URL": host.url, "ORDERWIRE_HOST_SECRET": SECRET} if told else {}
        self.process = None

    def start(self):
        environment = self.host.environment | self.told
        log = self.host.folder / "service.log"
        self.process = run_python("-m", "orderwire", "serve", "--make", log=log, env=os.environ | environment)
        eventually(
            lambda: answers(self.process, f"{self.host.service_url}/healthz", log=log),
            what="the service's health",
        )

    def stop(self, how=signal.SIGTERM):
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, how)
            self.process.wait(150)


def test_beside_the_host_it_posts_signed_webhooks_and_either_may_restart(tmp_path, sims):
    host = ExampleHost(
        tmp_path, sims, ORDERWIRE_MOUNT="beside", ORDERWIRE_HOST_SECRET=SECRET, ORDERWIRE_TAKE_OVER="zerodha"
    )
    service = ServiceBeside(host)
    host.start()
    try:
        host.log_in_to_broker("zerodha", zerodha_token(sims))
        service.start()
        host.await_freshness("zerodha", "LIVE")
        assert host.await_state("live")["pid"] == 0  # it is not ours to start
        placed = httpx2.post(
            f"{host.service_url}/api/v1/placeorder",
            json={
                "apikey": host.api_key,  # the host's own: a script changes nothing but the host
                "strategy": "s",
                "symbol": "INFY",
                "exchange": "NSE",
                "action": "BUY",
                "quantity": "3",
                "pricetype": "LIMIT",
                "price": "1400",
                "product": "MIS",
            },
            trust_env=False,
            timeout=30,
        ).json()
        assert await_on_the_bus(host, placed["orderid"], "open")["quantity"] == 3

        service.stop(signal.SIGKILL)
        assert "has not been heard" in host.await_state("away")["detail"]
        service.start()
        host.await_state("live")
        host.await_freshness("zerodha", "LIVE")  # its login was kept

        host.stop()
        sims.ask("POST", "/market/cancel", {"uid": f"kite:{placed['orderid']}"})
        eventually(
            lambda: [
                row
                for row in orders_of(host)
                if row["orderid"] == placed["orderid"] and row["order_status"] == "cancelled"
            ],
            what="the service's own book",
        )
        host.start()
        host.await_state("live")
        missed = await_on_the_bus(host, placed["orderid"], "cancelled")
        assert missed["epoch"] == host.bus()[0]["epoch"]
    finally:
        host.stop()
        service.stop()


def orders_of(host):
    key = json.loads((host.folder / "host" / "host.json").read_text())["api_key"]
    reply = httpx2.post(
        f"{host.service_url}/api/v1/orderbook", json={"apikey": key}, trust_env=False, timeout=30
    )
    return reply.json()["data"]["orders"]


def test_the_doctor_refuses_an_app_key_that_the_host_logs_in_with(tmp_path, sims):
    host = ExampleHost(tmp_path, sims, broker="jainam")
    add_jainam(host, sims, app_key=XTS_KEY.upper())
    host.start()
    try:
        host.log_in_to_broker("jainam", host.jainam_token())
        host.await_freshness("jainam", "STALE", "second app key")
        done = doctor(host)
    finally:
        host.stop()

    assert done.returncode == 1
    assert "logs in with the app key that the host of trader uses" in " ".join(done.stdout.split())
    assert "logs in with the app key" in " ".join(doctor(host).stdout.split())  # also while no service runs


def doctor(host):
    return subprocess.run(
        [sys.executable, "-m", "orderwire", "doctor", "--data-dir", str(host.folder / "data")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | {"COLUMNS": "400"},
    )


def test_a_second_host_is_told_whose_the_service_is_and_works_as_before(tmp_path, sims):
    host = ExampleHost(tmp_path, sims)
    host.start()
    second = ExampleHost(
        tmp_path, sims, ORDERWIRE_MOUNT="beside", ORDERWIRE_DATA_DIR=host.environment["ORDERWIRE_DATA_DIR"]
    )
    try:
        host.await_state("live")
        second.start()
        assert "The accounts of trader are told to app (process" in second.await_state("refused")["detail"]
        assert second.browser.get("/orderbook").is_success
    finally:
        second.stop()
        host.stop()


def test_a_second_orderwire_for_one_account_is_refused_with_the_firsts_name_and_takes_over_from_it(
    tmp_path, sims
):
    first = ExampleHost(tmp_path / "first", sims, broker="jainam")
    second = ExampleHost(tmp_path / "second", sims, broker="jainam")
    for host in (first, second):
        host.folder.mkdir()
    add_jainam(second, sims)  # of the first host's app key: its login would end the first one's
    first.start()
    service = ServiceBeside(second, told=False)
    try:
        first.log_in_to_broker("jainam", first.jainam_token())
        first.await_freshness("jainam", "LIVE")
        before = streams(sims)
        service.start()
        refused = eventually(lambda: fed_elsewhere(second), what="the second one's status")
        checked = doctor(second)
        with first.stream() as page:
            page.await_order(first.place("jainam-trader"), "complete")
        assert streams(sims) == before  # the first one's session and stream went on
        assert (
            f"Fed by orderwire at {first.folder / 'data'}, process {first.status()['pid']}, since" in refused
        )
        assert "(as jainam-trader)" in refused
        assert checked.returncode == 1
        assert f"Fed by orderwire at {first.folder / 'data'}" in " ".join(checked.stdout.split())

        service.stop()
        assert "Fed by orderwire at" in " ".join(doctor(second).stdout.split())  # also while it does not run
        service.start()
        eventually(lambda: fed_elsewhere(second), what="the second one's status")
        first.stop()
        eventually(lambda: freshness_at(second) == "LIVE", what="the second one in its place")
    finally:
        first.stop()
        service.stop()


def freshness_at(host):
    return host.command("accounts.list")[0]["freshness"]


def fed_elsewhere(host):
    found = host.command("accounts.list")[0]
    return found["freshness"] == "STALE" and found["detail"]


def test_uninstalled_nothing_is_left_and_installed_again_the_data_is_there(tmp_path, sims):
    host = ExampleHost(tmp_path, sims)
    host.start()
    try:
        host.log_in_to_broker("zerodha", zerodha_token(sims))
        host.await_freshness("zerodha", "LIVE")
        order_id = host.place("zerodha-trader")
        epoch = await_on_the_bus(host, order_id, "complete")["epoch"]
        host.stop()
        before = sorted(path.name for path in (tmp_path / "host").iterdir())

        host.start()  # a newer release would start the same way
        host.await_freshness("zerodha", "LIVE")
        second = await_on_the_bus(host, host.place("zerodha-trader"), "complete")
        assert order_id in {row["orderid"] for row in orders_of(host)}
        assert second["epoch"] == epoch
    finally:
        host.stop()

    assert before == ["host.json"]  # the host's own
    assert {path.name for path in tmp_path.iterdir()} == {"brokersim.log", "data", "host", "host.log"}
