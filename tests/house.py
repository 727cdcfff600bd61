"""Runs the whole house as its users do: simulated brokers and the service as processes on free ports."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import SystemRandom
from typing import Any

import httpx2

from orderwire.client import OrderStream
from orderwire.config import Settings, load
from orderwire.service import make_data_folder, open_records
from orderwire.serving import control_socket
from orderwire.store.users import Role, Scope
from orderwire.web import operations

PASSWORD = "house-password"
ZERODHA, JAINAM = "zerodha-asha", "jainam-jay"
DEADLINE = 60.0


def free_port() -> int:
    """Find a port that no outgoing connection is given before whoever is to listen there does, or while they are dead."""
    while True:
        port = _CHANCE.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


_CHANCE = SystemRandom()
"""Not seeded: several runs at once must not find the same."""


def eventually(
    check: Callable[[], Any], *, within: float = DEADLINE, what: str = "", last: object = None
) -> Any:
    """Return the first true result of `check`, asked again and again; fails after `within` seconds, showing `last`."""
    deadline = time.monotonic() + within
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(
                f"{what or check} did not come true within {within} s; last: {last or found!r}"
            )
        time.sleep(0.02)  # the pace of asking, not a wait for an outcome


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; gunicorn's workers then miss their parent


def run_python(
    *words: str,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    reads: bool = False,
) -> subprocess.Popen[bytes]:
    """Run a Python program that ends with the tests, though they be killed (where the system can: Linux).

    What it says goes to `log`; with `reads` its standard output is a pipe. Call it from the main thread, for it
    ends with the thread that began it.
    """
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, *words],
            stdout=subprocess.PIPE if reads else out,
            stderr=out,
            env=env,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - a system call, nothing more
        )


def answers(process: subprocess.Popen[bytes], url: str, *, log: Path) -> bool:
    """Whether a program answers at `url` already. Fails once it has ended, with what it said."""
    if process.poll() is not None:
        raise AssertionError(f"it ended with code {process.returncode}:\n{log.read_text(errors='replace')}")
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(url, timeout=5, trust_env=False).is_success
    return False


class Simulators:
    """`brokersim serve` as a process; the control API is the oracle."""

    def __init__(self, folder: Path, *, reply_ms: float = 30, push_ms: float = 20, **options: str) -> None:
        words = ["-m", "brokersim", "serve", "--reply-ms", str(reply_ms), "--push-ms", str(push_ms)]
        for name in ("kite", "xts", "control"):
            words += [f"--{name}-port", options.pop(f"{name}_port", "0")]
        for name, value in options.items():
            words += [f"--{name.replace('_', '-')}", value]
        self.process = run_python(*words, log=folder / "brokersim.log", reads=True)
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError((folder / "brokersim.log").read_text())
        self.ready = json.loads(line)
        self._client = httpx2.Client(base_url=self.ready["control"], timeout=10, trust_env=False)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        reply = self._client.request(method, path, json=body)
        assert reply.is_success, reply.text
        return reply.json()["data"]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(5)
        self.process.stdout.close()
        self._client.close()


class House:
    """The service with two accounts at the simulators, in a folder of its own."""

    served = ("-m", "orderwire", "serve")
    """What Python runs as the service."""

    def __init__(self, folder: Path, *, subscriptions_port: int = 0, **options: Any) -> None:
        self.folder = folder
        self.settings: Settings = load(
            data_dir=folder / "data",
            host="127.0.0.1",
            port=free_port(),
            market_always_open=True,
            subscriptions_port=subscriptions_port,
            **self._shared(),
        )
        make_data_folder(self.settings)
        self._make_people()
        self.sims = Simulators(
            folder,
            kite_redirect_url=f"{self.url}/accounts/{ZERODHA}/callback",
            kite_postback_url=self.postback_url,
            **options,
        )
        self._make_accounts()
        self.process: subprocess.Popen[bytes] | None = None

    def _shared(self) -> dict[str, Any]:
        """More settings: where the processes meet, in a house of several."""
        return {}

    @property
    def url(self) -> str:
        return self.settings.url

    @property
    def urls(self) -> list[str]:
        """Of every process that serves pages."""
        return [self.url]

    # --- making ----------------------------------------------------------------------------------------

    def _make_people(self) -> None:
        records = open_records(self.settings)
        try:
            for name, role in (("asha", Role.TRADER), ("jay", Role.TRADER), ("ops", Role.OPERATOR)):
                records.users.add(name, PASSWORD, role=role)
            self.keys = {name: records.users.add_key(name, scope=Scope.TRADE)[1] for name in ("asha", "jay")}
            account = records.accounts.add(
                ZERODHA,
                broker="zerodha",
                owner="asha",
                credentials={"api_key": "demokite", "api_secret": "demokite-secret"},
            )
            self.postback_url = f"{self.url}/postback/zerodha/{account.postback_segment}"
            records.accounts.add(
                JAINAM,
                broker="jainam",
                owner="jay",
                credentials={"app_key": "demoxts", "secret_key": "demoxts-secret"},
            )
        finally:
            records.database.close()

    def _make_accounts(self) -> None:
        kite, xts = self.sims.ready["kite"], self.sims.ready["xts"]
        records = open_records(self.settings)
        try:
            stream = kite.replace("http", "ws", 1)
            records.accounts.change(
                ZERODHA, addresses={"api": kite, "stream": stream, "login": f"{kite}/connect/login"}
            )
            records.accounts.change(JAINAM, addresses={"base": xts})
        finally:
            records.database.close()

    # --- running ---------------------------------------------------------------------------------------

    def start(self) -> None:
        log = self.folder / "orderwire.log"
        self.process = run_python(*self.served, log=log, env=self.settings.as_environment())
        eventually(lambda: answers(self.process, f"{self.url}/healthz", log=log), what="the service's health")

    def log(self) -> str:
        return (self.folder / "orderwire.log").read_text(errors="replace")

    def log_in(self) -> None:
        """Log Zerodha in through its login page; Jainam logs in by itself, with its keys."""
        address = self.command("accounts.login", id=ZERODHA)["login_url"]
        form = dict(httpx2.URL(address).params) | {"user_id": "ZD0001", "password": "demo"}
        reply = httpx2.post(address, data=form, trust_env=False)
        self.command("accounts.login", id=ZERODHA, grant=dict(httpx2.URL(reply.headers["location"]).params))
        for account in (ZERODHA, JAINAM):
            self.await_freshness(account, "LIVE")

    def await_freshness(self, account: str, wanted: str, *, within: float = DEADLINE) -> None:
        eventually(lambda: self.freshness(account) == wanted, within=within, what=f"{account} {wanted}")

    def freshness(self, account: str) -> str:
        return {row["id"]: row["freshness"] for row in self.command("accounts.list")}[account]

    def kill(self) -> None:
        """`kill -9` everything of the service at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> float:
        """Stop the service with TERM; returns the seconds it took."""
        started = time.monotonic()
        self.process.terminate()
        self.process.wait(20)
        return time.monotonic() - started

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self.sims.stop()

    # --- using -----------------------------------------------------------------------------------------

    def command(self, name: str, **arguments: Any) -> Any:
        return operations.ask(control_socket(self.settings), name, arguments)

    def place(self, account: str, **order: Any) -> Any:
        wanted = {
            "symbol": "INFY",
            "exchange": "NSE",
            "side": "BUY",
            "quantity": 10,
            "product": "MIS",
        } | order
        return self.command("orders.place", account=account, order=wanted)

    def book(self, user: str, url: str = "") -> dict[str, Any]:
        """What the page of a user shows of the user's first account, of one of the processes: every order by its row."""
        account = {"asha": ZERODHA, "jay": JAINAM}[user]
        with OrderStream(url or self.url, apikey=self.keys[user]) as stream:
            while (event := stream.next(timeout=DEADLINE)) is not None:
                if event.kind == "snapshot" and event.fields["account"] == account:
                    return {order["row"]: order for order in event.fields["orders"]}
        raise AssertionError("no snapshot came")

    def broker_orders(self, broker: str) -> dict[str, Any]:
        """What the broker holds, by order id: the simulators' truth."""
        return {order["order_id"]: order for order in self.sims.ask("GET", f"/orders?broker={broker}")}


@contextlib.contextmanager
def running_house(folder: Path, **options: Any) -> Iterator[House]:
    """A house that is up and logged in; closed at the end."""
    house = House(folder, **options)
    try:
        house.start()
        house.log_in()
        yield house
    finally:
        house.close()
