"""The how-to is followed from an empty folder: a stranger's broker is packaged, installed, tested and used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from house import DEADLINE, PASSWORD, House, eventually, free_port
from orderwire.client import OrderStream
from orderwire.config import load
from orderwire.service import make_data_folder, open_records
from orderwire.store.users import Role, Scope
from orderwire.testing import AdapterContract

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "new_broker"
HOWTO = ROOT / "docs" / "howto" / "add-a-broker.md"
FILE = re.compile(r"^```\w+ (?P<name>\S+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
OURS_ALONE = {"README.md", "ruff.toml"}
"""Files of the example that belong to this repository, not to the package."""
PAISA = "paisa-asha"

pytestmark = pytest.mark.xdist_group("new_broker")


def files_of(part):
    return {found["name"]: found["text"] for found in FILE.finditer(part)}


def steps():
    _, first, second = re.split(r"^## Step \d.*$", HOWTO.read_text(), flags=re.MULTILINE)
    return files_of(first), files_of(second)


class Package:
    """What a developer has on disk, and where it is installed."""

    def __init__(self, folder):
        self.source, self.installed = folder / "source", folder / "installed"

    def write(self, files):
        for name, text in files.items():
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def install(self):
        """As the how-to says, but beside this environment instead of into it."""
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        command += ["--no-index", "--no-deps", "--no-build-isolation", "--upgrade"]
        command += ["--target", str(self.installed), str(self.source)]
        subprocess.run(command, check=True, timeout=100)

    def environment(self):
        return {**os.environ, "PYTHONPATH": str(self.installed)}

    def run(self, *command):
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.source,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )

    def test(self):
        return self.run("pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-rA")


class PaisaProcess:
    """The how-to's small broker as a program of its own."""

    def __init__(self, package):
        self.process = subprocess.Popen(
            [sys.executable, package.source / "tests" / "paisa.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.ready = json.loads(self.process.stdout.readline())

    def fill(self, order_id, quantity):
        reply = httpx2.post(
            f"{self.ready['api']}/desk/fill", json={"no": order_id, "qty": quantity}, trust_env=False
        )
        assert reply.is_success, reply.text

    def stop(self):
        self.process.stdin.close()
        self.process.wait(5)
        self.process.stdout.close()


class PaisaHouse(House):
    """The real service with nothing but an account at the stranger's broker."""

    def __init__(self, folder, paisa):
        self.folder, self.sims, self.process = folder, paisa, None
        self.settings = load(
            data_dir=folder / "data", host="127.0.0.1", port=free_port(), market_always_open=True
        )
        make_data_folder(self.settings)
        records = open_records(self.settings)
        records.users.add("asha", PASSWORD, role=Role.TRADER)
        self.keys = {"asha": records.users.add_key("asha", scope=Scope.TRADE)[1]}
        records.database.close()

    def add_account(self, **addresses):
        self.command(
            "accounts.add",
            id=PAISA,
            broker="paisa",
            owner="asha",
            credentials={name: self.sims.ready[name] for name in ("key", "pin")},
            addresses={"api": self.sims.ready["api"], **addresses},
        )

    def change_addresses(self, **addresses):
        records = open_records(self.settings)
        records.accounts.change(PAISA, addresses={"api": self.sims.ready["api"], **addresses})
        records.database.close()

    @contextmanager
    def page(self):
        """Follow the stream that a page follows, from its first snapshot on."""
        with OrderStream(self.url, apikey=self.keys["asha"]) as stream:
            yield Page(stream)


class Page:
    def __init__(self, stream):
        self.stream = stream
        self.orders = self.until(lambda event: event.kind == "snapshot").fields["orders"]
        self.trades = 0

    def until(self, wanted):
        while (event := self.stream.next(timeout=DEADLINE)) is not None:
            if wanted(event):
                return event
        raise AssertionError("it never came")

    def order(self, order_id, status):
        def wanted(event):
            return event.kind == "order" and (event.fields["orderid"], event.fields["status"]) == (
                order_id,
                status,
            )

        return self.until(wanted).fields


def follow_an_order(house, paisa):
    """Place an order through the service, fill it at the broker; return what the page was told of the fill."""
    with house.page() as page:
        placed = house.place(PAISA, symbol="SBIN", order_type="LIMIT", price="790")
        order_id = placed["order_id"]
        page.order(order_id, "OPEN")
        paisa.fill(order_id, 4)
        page.order(order_id, "PARTIALLY_FILLED")
        paisa.fill(order_id, 6)
        filled = page.order(order_id, "FILLED")
        house.command("orders.cancel", account=PAISA, order_id=house.place(PAISA, **RESTS)["order_id"])
        page.until(lambda event: event.kind == "order" and event.fields["status"] == "CANCELLED")
    return filled


RESTS = {"symbol": "INFY", "order_type": "LIMIT", "price": "1400"}


# --- the page itself --------------------------------------------------------------------------------------


def test_the_how_to_holds_the_example_whole():
    first, second = steps()
    paths = [path.relative_to(EXAMPLE) for path in EXAMPLE.rglob("*") if path.is_file()]
    ours = [path for path in paths if not any(part.startswith((".", "__pycache__")) for part in path.parts)]

    assert {path.as_posix() for path in ours} - OURS_ALONE == {*first, *second}
    for name, text in {**first, **second}.items():
        assert text == (EXAMPLE / name).read_text(), f"docs/howto/add-a-broker.md: {name}"


def test_the_second_step_leaves_every_line_of_the_first_but_the_entry_point():
    first, second = steps()

    assert set(first) & set(second) == {"pyproject.toml"}
    before, after = first["pyproject.toml"].splitlines(), second["pyproject.toml"].splitlines()
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert changed == [
        (
            'paisa = "orderwire_paisa.adapter:PaisaAdapter"',
            'paisa = "orderwire_paisa.stream:StreamingPaisaAdapter"',
        )
    ]


def test_the_how_to_lists_what_the_contract_asks():
    class Listed(AdapterContract):
        def desk(self):
            raise NotImplementedError

    promises = [f"{check.number}. {check.promise}" for check in Listed().checks()]

    assert re.findall(r"^\d+\. .*$", HOWTO.read_text(), flags=re.MULTILINE) == promises
    assert [promise.split(".")[0] for promise in promises] == [str(n + 1) for n in range(len(promises))]


# --- following it -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return Package(tmp_path_factory.mktemp("paisa"))


@pytest.mark.timeout(300)
def test_a_stranger_adds_a_broker_and_then_its_stream(package, tmp_path, monkeypatch):
    rest_only, stream = steps()
    monkeypatch.setenv("PYTHONPATH", str(package.installed))

    package.write(rest_only)
    package.install()
    tested = package.test()
    assert tested.returncode == 0, tested.stdout
    assert "38_one_odd_row" in tested.stdout
    doctor = package.run("orderwire", "doctor", "--data-dir", str(tmp_path / "none"))
    assert re.search(r"broker paisa +ok +API 1", doctor.stdout), doctor.stdout

    paisa = PaisaProcess(package)
    house = PaisaHouse(tmp_path, paisa)
    try:
        house.start()
        house.add_account()
        house.await_freshness(PAISA, "DEGRADED")
        filled = follow_an_order(house, paisa)
        assert (filled["source"], filled["filled_quantity"], filled["average_price"]) == ("rest", 10, 790.0)
        house.stop()

        package.write(stream)
        package.install()
        tested = package.test()
        assert tested.returncode == 0, tested.stdout

        house.change_addresses(stream=paisa.ready["api"].replace("http", "ws"))
        house.start()
        house.await_freshness(PAISA, "LIVE")
        with house.page() as page:
            assert {order["status"] for order in page.orders} == {"FILLED", "CANCELLED"}
        streamed = follow_an_order(house, paisa)
        assert streamed["source"] == "stream"
        eventually(lambda: house.freshness(PAISA) == "LIVE")
        assert "Traceback" not in house.log()
    finally:
        house.close()
