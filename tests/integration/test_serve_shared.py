"""`orderwire serve` on PostgreSQL: it owns its accounts by lease, and lives on the database alone or not at all."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest

from cluster import PATIENCE, Cluster, new_database, postgres_server
from house import eventually as soon
from orderwire.client import Orders
from orderwire.console import operate
from orderwire.errors import StoreBusyError
from orderwire.service import KEY_FILE

eventually = partial(soon, within=PATIENCE)

RESTING = {
    "symbol": "INFY",
    "exchange": "NSE",
    "quantity": 10,
    "product": "MIS",
    "action": "BUY",
    "pricetype": "LIMIT",
    "price": "1400",
    "trigger_price": "0",
}
ALONE = "`orderwire serve` has it to itself"


pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def cluster(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("alone"), new_database(database, "alone"), accounts=3)
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def alone(cluster: Cluster) -> Cluster:
    """`serve`, under the name s, with everything LIVE, and nobody else."""
    if list(cluster.processes) != ["s"]:
        clear(cluster)
        cluster.start("serve", "s")
        cluster.await_health("s")
    await_live(cluster)
    return cluster


def clear(cluster: Cluster) -> None:
    for name in list(cluster.processes):
        cluster.stop(name)
    eventually(lambda: not living(cluster), what="nobody is there")


def living(cluster: Cluster) -> list[str]:
    """The roles of the processes that live."""
    now = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000"
    return [
        role for (role,) in cluster.ask(f"SELECT role FROM workers WHERE expires_ns > {now} ORDER BY role")
    ]


def await_live(cluster: Cluster) -> None:
    eventually(lambda: freshness(cluster) == dict.fromkeys(cluster.accounts, "LIVE"), what="all LIVE")


def freshness(cluster: Cluster) -> dict[str, str]:
    return {row["id"]: row["freshness"] for row in operate(cluster.settings, "accounts.list")}


def refusal(cluster: Cluster, name: str) -> str:
    """What a process said that ended by itself because of others."""
    process: subprocess.Popen[bytes] = cluster.processes.pop(name)
    assert process.wait(PATIENCE) == 1
    return cluster.log(name)


def test_it_owns_its_accounts_and_does_what_it_does_alone(alone):
    owners = alone.owners()
    assert owners.keys() == set(alone.accounts)
    assert len(set(owners.values())) == 1
    with Orders(alone.url("s"), apikey=alone.key, account=alone.accounts[0]) as orders:
        orderid, _ = orders.place(**RESTING)
        assert [row.order_status for row in orders.book() if row.orderid == orderid] == ["open"]
        orders.cancel(orderid)
    operate(alone.settings, "rollout.kill", why="a drill")
    eventually(lambda: set(freshness(alone).values()) == {"MANUAL"})
    operate(alone.settings, "rollout.resume", why="the drill is over")
    await_live(alone)


def test_an_account_that_is_added_is_owned_and_live_and_the_others_notice_nothing(alone):
    alone.sims.ask("POST", "/users/xts", {"logins": [{"app_key": "late", "login_id": "XT9000"}]})
    before, said = dict(alone.ask("SELECT account, token FROM leases")), len(alone.log("s"))

    operate(
        alone.settings,
        "accounts.add",
        id="jainam-late",
        broker="jainam",
        owner="asha",
        credentials={"app_key": "late", "secret_key": "late-secret"},
        addresses={"base": alone.sims.ready["xts"]},
    )
    try:
        assert "jainam-late" in alone.owners()
        eventually(lambda: freshness(alone).get("jainam-late") == "LIVE")
    finally:
        eventually(lambda: removed(alone, "jainam-late"), what="the account is removed")

    eventually(lambda: "feeds stopped: no longer ours" in alone.log("s")[said:], what="it let go")
    assert dict(alone.ask("SELECT account, token FROM leases")) == before
    assert "feeds given up" not in alone.log("s")[said:]
    await_live(alone)


def removed(cluster: Cluster, account: str) -> bool:
    """Remove an account, again where its owner was just writing to it."""
    with suppress(StoreBusyError):
        operate(cluster.settings, "accounts.remove", id=account)
    return account not in cluster.owners()


def test_from_another_machine_it_is_asked_through_the_database(alone):
    elsewhere = alone.settings.model_copy(update={"data_dir": alone.folder / "elsewhere"})
    elsewhere.data_dir.mkdir()
    shutil.copy(alone.settings.data_dir / KEY_FILE, elsewhere.data_dir)

    assert operate(elsewhere, "accounts.login", id=alone.accounts[0])["user_id"]
    rows = operate(elsewhere, "accounts.list")

    assert {row["id"] for row in rows if row["freshness"]} == set(alone.accounts)


def test_nobody_comes_beside_it(alone):
    for role, name in (("feeds", "f1"), ("web", "w1")):
        alone.start(role, name)

    for name in ("f1", "w1"):
        said = refusal(alone, name)
        assert "This database is in use by serve " in said
        assert f"{ALONE}: stop it first" in said
    eventually(lambda: living(alone) == ["serve"], what="it lives, and nobody else")


def test_one_that_was_killed_comes_back_by_itself(alone):
    before = dict(alone.ask("SELECT account, token FROM leases"))
    alone.kill("s")

    alone.start("serve", "s")

    alone.await_health("s")
    await_live(alone)
    after = dict(alone.ask("SELECT account, token FROM leases"))
    assert all(after[account] > before[account] for account in alone.accounts)
    eventually(lambda: living(alone) == ["serve"], what="it lives, and nobody else")


def test_one_that_ends_leaves_the_place_to_others_at_once_and_does_not_come_beside_them(alone):
    assert alone.stop("s") == 0

    assert living(alone) == []  # nobody waits until it runs out
    for role, name in (("feeds", "f3"), ("web", "w3")):
        alone.start(role, name)
    for name in ("f3", "w3"):
        alone.await_health(name)
        assert "others live on this database" not in alone.log(name)
    alone.await_live()
    alone.start("serve", "again")
    said = refusal(alone, "again")
    assert "This database is in use by feeds f3 at " in said
    assert ", web w3 at " in said
    assert f"{ALONE}: stop them first, or run `orderwire feeds`" in said
    eventually(lambda: living(alone) == ["feeds", "web"], what="they live, and nobody else")


def test_of_two_that_come_at_once_one_stays(cluster):
    clear(cluster)
    cluster.start("serve", "s2")
    cluster.start("feeds", "f2")

    loser = eventually(
        lambda: next((name for name, one in cluster.processes.items() if one.poll() is not None), "")
    )
    assert ALONE in refusal(cluster, loser)
    (winner,) = cluster.processes
    cluster.await_health(winner)
    eventually(lambda: set(cluster.owners()) == set(cluster.accounts), what="it has the accounts")
    role = {"s2": "serve", "f2": "feeds"}[winner]
    eventually(lambda: living(cluster) == [role], what="it lives, and nobody else")
