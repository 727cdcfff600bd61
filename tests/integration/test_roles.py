"""Several processes on one PostgreSQL database, as their users run them: the simulators are the oracle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cluster import PATIENCE, Cluster, new_database, postgres_server
from house import PASSWORD
from house import eventually as soon
from orderwire.client import InDoubtError, Orders, OrderStream, RequestRefusedError
from orderwire.console import operate
from orderwire.errors import StoreBusyError
from orderwire.service import open_records

eventually = partial(soon, within=PATIENCE)

TERMS = {"symbol": "INFY", "exchange": "NSE", "quantity": 10, "product": "MIS"}
RESTING = {**TERMS, "action": "BUY", "pricetype": "LIMIT", "price": "1400", "trigger_price": "0"}


pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def running(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), new_database(database, "roles"))
    try:
        for role, name in (("feeds", "f1"), ("feeds", "f2"), ("web", "w1"), ("web", "w2")):
            cluster.start(role, name)
        for name in ("f1", "f2", "w1", "w2"):
            cluster.await_health(name)
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    """Two feeds workers and two web workers, everything LIVE; what a test took away is there again afterwards."""
    settle(running)
    yield running
    running.sims.ask("DELETE", "/faults")
    for role, name in (("feeds", "f1"), ("feeds", "f2"), ("web", "w1"), ("web", "w2")):
        if name not in running.processes:
            running.start(role, name)
            running.await_health(name)


def settle(cluster: Cluster) -> None:
    eventually(
        lambda: (cluster.shares(), set(cluster.owners().values())) == ([2, 2], {"f1", "f2"}),
        what="an even share",
    )
    cluster.await_live()


def desk(cluster: Cluster, web: str, account: str) -> Orders:
    return Orders(cluster.url(web), apikey=cluster.key, account=account)


def at_broker(cluster: Cluster, account: str) -> dict[str, Any]:
    """The orders of an account as the simulated broker has them."""
    user = f"XT{cluster.accounts.index(account):04}"
    return {str(o["order_id"]): o for o in cluster.sims.ask("GET", f"/orders?broker=xts&user={user}")}


def of_worker(cluster: Cluster, worker: str) -> str:
    """An account that a worker owns."""
    return next(account for account, owner in cluster.owners().items() if owner == worker)


# --- ownership ----------------------------------------------------------------------------------------


def test_a_worker_that_ends_hands_its_accounts_over_and_comes_back_to_its_share(cluster):
    assert cluster.stop("f1") == 0

    eventually(lambda: set(cluster.owners().values()) == {"f2"} and len(cluster.owners()) == 4)
    cluster.await_live()
    assert "f1" not in {worker for (worker,) in cluster.ask("SELECT id FROM workers")}
    before = dict(cluster.ask("SELECT account, token FROM leases"))
    cluster.start("feeds", "f1")
    settle(cluster)
    moved = {
        name for name, token in cluster.ask("SELECT account, token FROM leases") if token != before[name]
    }
    assert moved == {account for account, owner in cluster.owners().items() if owner == "f1"}


def test_a_worker_that_is_killed_is_replaced(cluster, record_property):
    killed = time.monotonic()
    cluster.kill("f2")

    eventually(lambda: set(cluster.owners().values()) == {"f1"} and len(cluster.owners()) == 4)

    taken = time.monotonic() - killed
    cluster.await_live()
    record_property("figure", f"owner of feeds killed: all taken over within {taken:.1f} s")


def test_a_worker_that_slept_through_its_lease_writes_nothing_stale(cluster):
    """Stopped for longer than a lease lasts and woken again: it finds out, and the accounts are told once."""
    account = of_worker(cluster, "f1")
    group = cluster.processes["f1"].pid
    os.killpg(group, 19)  # SIGSTOP
    try:
        eventually(lambda: cluster.owners().get(account) == "f2")
        with desk(cluster, "w1", account) as orders:
            orderid, _ = orders.place(**RESTING)
    finally:
        os.killpg(group, 18)  # SIGCONT
    settle(cluster)

    with desk(cluster, "w1", account) as orders:
        assert [row.order_status for row in orders.book() if row.orderid == orderid] == ["open"]
    assert at_broker(cluster, account)[orderid]["stage"] == "OPEN"
    epochs = cluster.ask("SELECT count(*), max(sequence) FROM outbox WHERE account = %s", account)
    assert epochs[0][0] == epochs[0][1]


# --- what the web asks for ----------------------------------------------------------------------------


def test_an_order_placed_at_one_web_worker_moves_on_the_pages_of_another(cluster):
    account = cluster.accounts[0]
    with (
        OrderStream(cluster.url("w2"), apikey=cluster.key) as stream,
        desk(cluster, "w1", account) as orders,
    ):
        until(stream, lambda event: event.kind == "snapshot" and event.fields["account"] == account)
        orderid, row = orders.place(**RESTING)
        until(stream, lambda event: is_order(event, row, "open"))
        orders.modify(orderid, **{**RESTING, "quantity": 20})
        until(stream, lambda event: is_order(event, row, "open") and event.fields["quantity"] == 20)
        orders.cancel(orderid)
        until(stream, lambda event: is_order(event, row, "cancelled"))
        assert orders.call("funds")["data"]["availablecash"]

    assert at_broker(cluster, account)[orderid]["stage"] == "CANCELLED"


def is_order(event: Any, row: str, status: str) -> bool:
    return event.kind == "order" and event.fields["row"] == row and event.fields["order_status"] == status


def until(stream: OrderStream, wanted) -> None:
    while True:
        event = stream.next(timeout=PATIENCE)
        assert event is not None, "the stream said nothing for a minute"
        if wanted(event):
            return


def test_what_is_wrong_with_a_request_is_said_as_the_owner_says_it(cluster):
    with (
        desk(cluster, "w1", cluster.accounts[1]) as orders,
        pytest.raises(RequestRefusedError, match=r"NOSUCH|not known|no such|Did you mean") as refused,
    ):
        orders.place(**{**RESTING, "symbol": "NOSUCH"})
    assert refused.value.code == 400


def test_a_key_places_once_whichever_worker_is_asked(cluster):
    account = cluster.accounts[2]
    before = at_broker(cluster, account)
    with (
        desk(cluster, "w1", account) as one,
        desk(cluster, "w2", account) as other,
        ThreadPoolExecutor(4) as pool,
    ):
        placed = [
            pool.submit(each.place, idempotency_key="once-and-for-all", **RESTING)
            for each in (one, other, one, other)
        ]
        rows = {each.result(60)[1] for each in placed}

    assert len(rows) == 1
    assert len(at_broker(cluster, account)) == len(before) + 1


def test_an_order_whose_owner_dies_while_it_is_sent_is_in_doubt_and_exists_once(cluster):
    account = of_worker(cluster, "f1")
    before = at_broker(cluster, account)
    cluster.sims.ask(
        "POST",
        "/faults",
        {
            "kind": "timeout",
            "broker": "xts",
            "operation": "orders.place",
            "params": {"seconds": 30, "done": True},
        },
    )
    with desk(cluster, "w1", account) as orders, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(orders.place, **RESTING)
        eventually(lambda: len(at_broker(cluster, account)) == len(before) + 1, what="the broker has it")
        cluster.kill("f1")
        cluster.sims.ask("DELETE", "/faults")
        told, row = answer_of(asked)
    (new,) = at_broker(cluster, account).keys() - before.keys()
    assert told in {"", new}

    with desk(cluster, "w2", account) as orders:
        eventually(lambda: any(line.orderid == new for line in orders.book()), what="the book tells")
        eventually(
            lambda: (
                cluster.ask("SELECT state, order_id FROM submissions WHERE id = %s", row)
                == [("ACCEPTED", new)]
            )
        )
    assert len(at_broker(cluster, account)) == len(before) + 1


def answer_of(asked: Future[tuple[str, str]]) -> tuple[str, str]:
    """The order's number, empty while it is in doubt (the next owner may have found it by then), and its row."""
    try:
        return asked.result(PATIENCE)
    except InDoubtError as doubt:
        return "", doubt.submission


def test_without_an_owner_nothing_is_sent_and_it_is_said(cluster):
    account = cluster.accounts[3]
    before = at_broker(cluster, account)
    for name in ("f1", "f2"):
        cluster.stop(name)

    with (
        desk(cluster, "w1", account) as orders,
        pytest.raises(RequestRefusedError, match="nothing was sent") as refused,
    ):
        orders.place(**RESTING)

    assert refused.value.code == 500
    assert cluster.ask(
        "SELECT state FROM commands WHERE account = %s ORDER BY asked_ns DESC LIMIT 1", account
    ) == [("WITHDRAWN",)]
    assert at_broker(cluster, account).keys() == before.keys()


def test_a_login_through_the_brokers_page_and_a_postback_reach_the_owner(cluster):
    account, kite = "zerodha-asha", cluster.sims.ready["kite"]
    records = open_records(cluster.settings)
    addresses = {
        "api": kite,
        "stream": kite.replace("http", "ws", 1),
        "login": f"{kite}/connect/login",
    }
    segment = records.accounts.add(
        account,
        broker="zerodha",
        owner="asha",
        credentials={"api_key": "demokite", "api_secret": "demokite-secret"},
        addresses=addresses,
    ).postback_segment
    records.database.close()
    try:
        eventually(lambda: account in cluster.owners())
        eventually(lambda: cluster.freshness().get(account) == "AUTH_REQUIRED")
        address = operate(cluster.settings, "accounts.login", id=account)["login_url"]
        form = dict(httpx2.URL(address).params) | {"user_id": "ZD0001", "password": "demo"}
        reply = httpx2.post(address, data=form, trust_env=False)
        grant = dict(httpx2.URL(reply.headers["location"]).params)
        assert operate(cluster.settings, "accounts.login", id=account, grant=grant)["user_id"] == "ZD0001"
        eventually(lambda: cluster.freshness().get(account) == "LIVE")
        hook = f"{cluster.url('w1')}/postback/zerodha/{segment}"
        cluster.sims.ask("PATCH", "/kite/apps/demokite", {"postback_url": hook})

        with desk(cluster, "w2", account) as orders:
            orderid, _ = orders.place(**RESTING)
            orders.cancel(orderid)

        taken = "SELECT count(*) FROM commands WHERE account = %s AND kind = 'TakePostbackRequest' AND state = 'DONE'"
        eventually(lambda: cluster.ask(taken, account)[0][0] >= 1)
        kept = "SELECT count(*), count(settled_ns) FROM inbox WHERE account = %s AND channel = 'postback'"
        eventually(lambda: (found := cluster.ask(kept, account)[0])[0] == found[1] >= 1)
    finally:
        eventually(lambda: removed(cluster, account), what="the account is removed")


def removed(cluster: Cluster, account: str) -> bool:
    """Remove an account, again where its owner was just writing to it."""
    with suppress(StoreBusyError):
        operate(cluster.settings, "accounts.remove", id=account)
    return account not in cluster.owners()


# --- what is for everybody ----------------------------------------------------------------------------


def test_the_kill_switch_reaches_every_worker(cluster, record_property):
    settings = cluster.settings
    began = time.monotonic()
    operate(settings, "rollout.kill", why="a drill")
    try:
        manual = dict.fromkeys(cluster.accounts, "MANUAL")
        eventually(lambda: cluster.freshness() == manual)
        record_property(
            "figure", f"kill switch: MANUAL in every worker within {time.monotonic() - began:.2f} s"
        )
    finally:
        operate(settings, "rollout.resume", why="the drill is over")
    cluster.await_live()


def test_commands_reach_the_owner_of_an_account_and_list_every_feed(cluster):
    rows = {row["id"]: row["freshness"] for row in operate(cluster.settings, "accounts.list")}

    assert rows == dict.fromkeys(cluster.accounts, "LIVE")
    said = operate(cluster.settings, "accounts.login", id=cluster.accounts[0])
    assert said["user_id"]
    cluster.await_live()


def test_the_operators_page_shows_all_processes_together(cluster):
    with httpx2.Client(
        base_url=cluster.url("w1"), trust_env=False, follow_redirects=True, timeout=60
    ) as client:
        token = client.get("/login").text.split('name="csrf-token" content="')[1].split('"')[0]
        client.post("/login", data={"name": "ops", "password": PASSWORD, "csrf_token": token})
        with OrderStream(cluster.url("w2"), apikey=cluster.key) as stream:
            until(stream, lambda event: event.kind == "snapshot")

            shown = ("4 processes ready", "most at w2, 1", "Processes")
            eventually(lambda: all(words in client.get("/operator").text for words in shown), what="all")


# --- what cannot work ---------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["feeds", "web"])
def test_sqlite_is_refused_with_the_reason(role, tmp_path):
    environment = {**os.environ, "ORDERWIRE_DATA_DIR": str(tmp_path / "data")}
    subprocess.run(
        [sys.executable, "-m", "orderwire", "init", "--later"],
        env=environment,
        check=True,
        capture_output=True,
    )

    ended = subprocess.run(
        [sys.executable, "-m", "orderwire", role],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert "SQLite database belongs to one process" in ended.stderr


def test_a_worker_waits_for_a_database_that_is_away_and_says_so(database: str, tmp_path: Path):
    address = database.replace("/postgres?", "/later?").replace("postgresql://", "postgresql+psycopg://")
    told = tmp_path / "told.log"
    script = (
        "from orderwire.config import load; from orderwire.roles import await_database;"
        f"await_database(load(database_url={address!r}, data_dir={str(tmp_path)!r})); print('there', flush=True)"
    )
    with told.open("wb") as log:
        waiting = subprocess.Popen([sys.executable, "-c", script], stdout=log, stderr=log)
    try:
        eventually(lambda: "trying again until it is there" in told.read_text())
        assert waiting.poll() is None
        new_database(database, "later")
        eventually(lambda: waiting.poll() == 0, what="it goes on")
    finally:
        waiting.kill()
        waiting.wait()
    assert "there" in told.read_text().splitlines()[-1]
