"""Replaces every process of a running cluster by the next release's, one at a time, while orders are placed."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Self

import pytest

import orderwire
from cluster import PATIENCE, Cluster, new_database, postgres_server
from house import eventually as soon
from orderwire.client import Orders
from orderwire.errors import OrderwireError
from orderwire.store import schema

eventually = partial(soon, within=PATIENCE)

TERMS = {
    "symbol": "INFY",
    "exchange": "NSE",
    "quantity": 1,
    "product": "MIS",
    "action": "BUY",
    "pricetype": "LIMIT",
    "price": "1400",
    "trigger_price": "0",
}
NEXT = "9001"


@pytest.fixture
def next_release(tmp_path: Path) -> str:
    """A copy of the service with one more migration, as the rules for migrations allow it."""
    source = Path(orderwire.__file__).parent
    copy = tmp_path / "next" / "orderwire"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / "store" / "schema.py"
    path.write_text(path.read_text().replace(f'REVISION = "{schema.REVISION}"', f'REVISION = "{NEXT}"'))
    (copy / "store" / "migrations" / "versions" / f"{NEXT}_next.py").write_text(
        f'import sqlalchemy as sa\nfrom alembic import op\n\nrevision = "{NEXT}"\n'
        f'down_revision = "{schema.REVISION}"\n\n\ndef upgrade():\n'
        '    op.add_column("orders", sa.Column("added_later", sa.Text(), nullable=True))\n'
        '    op.create_table("made_later", sa.Column("id", sa.Text(), primary_key=True))\n'
    )
    return str(copy.parent)


class Load:
    """Places orders one after the other, each under a key of its own, at whichever web worker answers."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.placed: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._over.is_set():
            key = f"upgrade-{number:06}"
            account = self._cluster.accounts[number % len(self._cluster.accounts)]
            while not self._try(key, account):
                self._over.wait(0.05)
            number += 1
            self._over.wait(0.1)

    def _try(self, key: str, account: str) -> bool:
        """Ask with the same key again where there was no clear answer: that never places twice."""
        for name in [name for name in self._cluster.processes if name.startswith("w")]:
            try:
                with Orders(self._cluster.url(name), apikey=self._cluster.key, account=account) as desk:
                    orderid, _ = desk.place(idempotency_key=key, **TERMS)
            except OrderwireError:
                continue
            if orderid:
                self.placed[key] = orderid
                return True
        return False

    def goes_on(self) -> None:
        """Wait until three more orders were placed."""
        target = len(self.placed) + 3
        eventually(lambda: len(self.placed) >= target, what="orders are placed")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with postgres_server() as server:
        running = Cluster(tmp_path, new_database(server, "upgrade"), accounts=2)
        try:
            for role, name in (("feeds", "f1"), ("web", "w1")):
                running.start(role, name)
            for name in ("f1", "w1"):
                running.await_health(name)
            running.await_live()
            yield running
        finally:
            running.close()


@pytest.mark.timeout(900)
def test_workers_are_replaced_one_by_one_under_load(cluster, next_release):
    def replace(old: str, role: str, new: str) -> None:
        cluster.start(role, new, PYTHONPATH=next_release)
        cluster.await_health(new)
        load.goes_on()
        assert cluster.stop(old) == 0
        load.goes_on()

    with Load(cluster) as load:
        load.goes_on()
        replace("f1", "feeds", "f2")
        assert cluster.ask("SELECT version_num FROM alembic_version") == [(NEXT,)]
        cluster.start("feeds", "f3")  # one of the old release that starts again in the middle of it
        cluster.await_health("f3")
        eventually(lambda: set(cluster.owners().values()) == {"f2", "f3"})
        replace("f3", "feeds", "f4")
        replace("w1", "web", "w2")

    orders = {str(order["order_id"]) for order in cluster.sims.ask("GET", "/orders?broker=xts")}
    assert len(set(load.placed.values())) == len(load.placed)
    assert orders == set(load.placed.values())
    shown = {}
    for account in cluster.accounts:
        with Orders(cluster.url("w2"), apikey=cluster.key, account=account) as desk:
            eventually(lambda desk=desk: all(row.order_status == "open" for row in desk.book()))
            shown |= {row.orderid: row.order_status for row in desk.book()}
    assert shown == dict.fromkeys(orders, "open")
