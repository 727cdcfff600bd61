"""The demo: both simulated brokers, the service, users and a gentle flow of orders, with one command."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx2
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orderwire import service, serving
from orderwire.config import Settings, load
from orderwire.errors import ConfigurationError, OrderwireError
from orderwire.store.users import Role
from orderwire.web import operations

HOST: Final = "127.0.0.1"
PASSWORD: Final = "orderwire-demo"  # noqa: S105 - public, of the demo only
USERS: Final[Mapping[str, Role]] = {
    "asha": Role.TRADER,
    "jay": Role.TRADER,
    "ops": Role.OPERATOR,
    "maya": Role.OWNER,
}
ZERODHA, JAINAM = "zerodha-asha", "jainam-jay"

READY_WAIT: Final = 60.0
STOP_WAIT: Final = 2.5
"""Seconds the children get to stop by themselves; then they are killed, so that 3 s are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """What the demo was asked to do."""

    port: int = 5080
    data_dir: Path = Path("demo-data")
    orders_per_minute: float = 12
    fresh: bool = False
    seed: int = 1
    sim_port: int = 8100


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowOrder:
    """One order of the gentle flow."""

    account: str
    order: Mapping[str, Any]


class Flow:
    """Decides the next order of the flow; the chance is an argument, so a seed repeats it."""

    _SYMBOLS: Final = ("SBIN", "RELIANCE", "INFY", "M&M", "BAJAJ-AUTO")

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def next(self, prices: Mapping[str, Decimal]) -> FlowOrder:
        """Choose an account, a share, a side and a price near the market; one in eight is far from it."""
        symbol = self._chance.choice(self._SYMBOLS)
        side = self._chance.choice(("BUY", "SELL"))
        last = prices[symbol]
        order: dict[str, Any] = {
            "symbol": symbol,
            "exchange": "NSE",
            "side": side,
            "quantity": self._chance.choice((1, 5, 10, 25, 40, 100)),
            "product": "MIS",
            "order_type": self._chance.choice(("LIMIT", "LIMIT", "LIMIT", "LIMIT", "MARKET", "SL")),
        }
        if order["order_type"] != "MARKET":
            away = Decimal("0.04") if self._chance.random() < 1 / 8 else Decimal("0.0005")
            order["price"] = str(_on_tick(last * (1 - away if side == "BUY" else 1 + away)))
        if order["order_type"] == "SL":
            order["trigger_price"] = str(
                _on_tick(last * (Decimal("1.001") if side == "BUY" else Decimal("0.999")))
            )
            order["price"] = str(_on_tick(last * (Decimal("1.004") if side == "BUY" else Decimal("0.996"))))
        return FlowOrder(account=self._chance.choice((ZERODHA, JAINAM)), order=order)


def _on_tick(price: Decimal) -> Decimal:
    """Every share of the demo has a tick that divides one rupee."""
    return price.quantize(Decimal(1))


@dataclass(slots=True)
class Progress:
    """What the demo shows of itself."""

    steps: list[tuple[str, str]] = field(default_factory=list)
    placed: int = 0
    refused: int = 0
    last: str = ""
    ready: bool = False


class Demo:
    """Runs the demo in the foreground; one thread, everything else is a child process."""

    def __init__(self, plan: DemoPlan, *, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._progress = Progress()
        self._stop = threading.Event()
        self._children: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._settings = load(
            data_dir=plan.data_dir, host=HOST, port=plan.port, market_always_open=True, log_level="WARNING"
        )
        self._control = httpx2.Client(base_url=f"http://{HOST}:{plan.sim_port}", timeout=5, trust_env=False)

    def run(self) -> int:
        """Run until Ctrl-C or TERM; returns the exit code. Raises ConfigurationError when it cannot start."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stop.set())
        try:
            return self._run()
        finally:
            self._stop_children()
            self._control.close()

    def _run(self) -> int:
        self._check_ports()
        with Live(self._screen(), console=self._console, refresh_per_second=4, transient=False) as live:
            for words, step in self._start_up():
                self._progress.steps.append((words, "…"))
                live.update(self._screen(), refresh=True)
                step()
                self._progress.steps[-1] = (words, "ok")
                if self._stop.is_set():
                    return 0
            self._progress.ready = True
            live.update(self._screen(), refresh=True)
            return self._follow(live)

    def _start_up(self) -> Iterator[tuple[str, Callable[[], None]]]:
        plan = self._plan
        yield "data folder, users and accounts", self._prepare
        yield (
            f"simulated brokers on {HOST}:{plan.sim_port + 1} (Zerodha) and {plan.sim_port + 2} (Jainam)",
            (self._start_simulators),
        )
        yield f"the service on {self._settings.url}", self._start_service
        yield "log in to both brokers", self._log_in

    # --- steps -----------------------------------------------------------------------------------------

    def _check_ports(self) -> None:
        for number in (self._plan.port, *(self._plan.sim_port + i for i in range(3))):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((HOST, number))
                except OSError as error:
                    option = "--port" if number == self._plan.port else "--sim-port"
                    raise ConfigurationError(
                        f"Port {number} is taken ({error.strerror}). Stop what uses it, or choose another: {option}."
                    ) from error

    def _prepare(self) -> None:
        if self._plan.fresh and self._plan.data_dir.exists():
            shutil.rmtree(self._plan.data_dir)
        service.make_data_folder(self._settings)
        records = service.open_records(self._settings)
        try:
            _make_users(records)
            _make_accounts(records, self._plan)
        finally:
            records.database.close()

    def _start_simulators(self) -> None:
        plan = self._plan
        ports = {"control": plan.sim_port, "kite": plan.sim_port + 1, "xts": plan.sim_port + 2}
        command = [sys.executable, "-m", "brokersim", "serve", "--seed", str(plan.seed)]
        for name, number in ports.items():
            command += [f"--{name}-port", str(number)]
        command += ["--state", str(plan.data_dir / "brokersim.state.json")]
        command += ["--kite-redirect-url", f"{self._settings.url}/accounts/{ZERODHA}/callback"]
        command += ["--kite-postback-url", self._postback_url()]
        child = self._spawn("brokersim", command)
        self._await("brokersim", child, lambda: self._control.get("/health").is_success)

    def _start_service(self) -> None:
        command = [sys.executable, "-m", "orderwire", "serve"]
        child = self._spawn("orderwire", command)
        with httpx2.Client(base_url=self._settings.url, timeout=5, trust_env=False) as client:
            self._await("orderwire", child, lambda: client.get("/healthz").is_success)

    def _log_in(self) -> None:
        """Log Zerodha in through its login page; Jainam logs in by itself, with its keys."""
        address = self._command("accounts.login", id=ZERODHA)["login_url"]
        form = dict(httpx2.URL(address).params) | {"user_id": "ZD0001", "password": "demo"}
        with httpx2.Client(timeout=10, trust_env=False) as browser:
            reply = browser.post(address, data=form)
        grant = dict(httpx2.URL(reply.headers["location"]).params)
        self._command("accounts.login", id=ZERODHA, grant=grant)

    def _postback_url(self) -> str:
        records = service.open_records(self._settings)
        try:
            segment = records.accounts.get(ZERODHA).postback_segment
        finally:
            records.database.close()
        return f"{self._settings.url}/postback/zerodha/{segment}"

    # --- the flow --------------------------------------------------------------------------------------

    def _follow(self, live: Live) -> int:
        flow = Flow(random.Random(self._plan.seed))  # noqa: S311 - a demo's chance, repeated by its seed
        pause = 60 / self._plan.orders_per_minute if self._plan.orders_per_minute else None
        due = time.monotonic() + (pause or 0)
        while not self._stop.wait(0.25):
            for name, child in self._children:
                if child.poll() is not None:
                    live.stop()
                    self._console.print(
                        f"{name} stopped by itself (exit code {child.returncode}).", style="red"
                    )
                    return 1
            if pause is not None and time.monotonic() >= due:
                due += pause
                self._place(flow)
            live.update(self._screen())
        return 0

    def _place(self, flow: Flow) -> None:
        try:
            wanted = flow.next(self._prices())
            made = self._command("orders.place", account=wanted.account, order=wanted.order)
        except (OrderwireError, httpx2.HTTPError) as error:
            self._progress.refused += 1
            self._progress.last = str(error)
            return
        self._progress.placed += 1
        order = wanted.order
        self._progress.last = (
            f"{wanted.account}: {order['side']} {order['quantity']} {order['symbol']} {order['order_type']}"
            f" {order.get('price', '')} → {made['state']}"
        )

    def _prices(self) -> dict[str, Decimal]:
        market = self._control.get("/market").raise_for_status().json()["data"]
        return {
            key.removeprefix("NSE:"): Decimal(prices["last"])
            for key, prices in market.items()
            if key.startswith("NSE:")
        }

    # --- children --------------------------------------------------------------------------------------

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        log = (self._plan.data_dir / f"{name}.log").open("ab")
        with log:
            child = subprocess.Popen(  # noqa: S603 - our own programs
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(self._settings),
                start_new_session=True,  # Ctrl-C is ours to hand on
            )
        self._children.append((name, child))
        return child

    def _await(self, name: str, child: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_WAIT
        while not self._stop.is_set():
            with contextlib.suppress(httpx2.HTTPError):
                if ready():
                    return
            if child.poll() is not None or time.monotonic() > deadline:
                raise ConfigurationError(f"{name} did not start: {self._last_words(name)}")
            self._stop.wait(0.05)

    def _last_words(self, name: str) -> str:
        lines = (self._plan.data_dir / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _stop_children(self) -> None:
        for _, child in reversed(self._children):
            child.terminate()
        deadline = time.monotonic() + STOP_WAIT
        for _, child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
        for _, child in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def _command(self, name: str, **arguments: Any) -> Any:
        return operations.ask(serving.control_socket(self._settings), name, arguments)

    # --- what is shown ---------------------------------------------------------------------------------

    def _screen(self) -> Group:
        steps = Table.grid(padding=(0, 1))
        for words, state in self._progress.steps:
            steps.add_row(
                Text("✓" if state == "ok" else "…", style="green" if state == "ok" else "yellow"), words
            )
        if not self._progress.ready:
            return Group(steps)
        return Group(steps, Text(), self._logins(), Text(), self._flow_line())

    def _logins(self) -> Group:
        table = Table("user", "password", "sees", box=None)
        table.add_row("asha", PASSWORD, "her orders at Zerodha")
        table.add_row("jay", PASSWORD, "his orders at Jainam")
        table.add_row("ops", PASSWORD, "the operator: no orders, an order is its owner's alone")
        table.add_row("maya", PASSWORD, "the owner: people, audit, and what the operator sees")
        address = Text("Open ", style="bold").append(self._settings.url, style="bold cyan underline")
        return Group(address, table)

    def _flow_line(self) -> Text:
        line = Text(f"{self._progress.placed} orders sent", style="dim")
        if self._progress.refused:
            line.append(f", {self._progress.refused} refused", style="yellow")
        if self._progress.last:
            line.append(f" · {self._progress.last}")
        return line.append("\nCtrl-C stops everything.", style="dim")


def _make_users(records: service.Records) -> None:
    known = {user.name for user in records.users.all()}
    for name, role in USERS.items():
        if name not in known:
            records.users.add(name, PASSWORD, role=role, by="demo")


def _make_accounts(records: service.Records, plan: DemoPlan) -> None:
    kite, xts = (f"{HOST}:{plan.sim_port + i}" for i in (1, 2))
    wanted: dict[str, dict[str, Any]] = {
        ZERODHA: {
            "broker": "zerodha",
            "owner": "asha",
            "title": "Asha at Zerodha",
            "credentials": {"api_key": "demokite", "api_secret": "demokite-secret"},
            "addresses": {
                "api": f"http://{kite}",
                "stream": f"ws://{kite}",
                "login": f"http://{kite}/connect/login",
            },
        },
        JAINAM: {
            "broker": "jainam",
            "owner": "jay",
            "title": "Jay at Jainam",
            "credentials": {"app_key": "demoxts", "secret_key": "demoxts-secret"},
            "addresses": {"base": f"http://{xts}"},
        },
    }
    known = {account.id for account in records.accounts.all()}
    for account_id, given in wanted.items():
        if account_id in known:
            records.accounts.change(account_id, addresses=given["addresses"], by="demo")
        else:
            operations.perform(records.office(), "accounts.add", {"id": account_id, "by": "demo", **given})


def _environment(settings: Settings) -> dict[str, str]:
    """Hand our settings on to the service we start."""
    return settings.as_environment() | {"PYTHONUNBUFFERED": "1"}
