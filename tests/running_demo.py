"""`orderwire demo` as a process, for the tests that look at it from outside."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2

from house import eventually, free_port
from orderwire.config import load
from orderwire.serving import control_socket
from orderwire.web import operations


def three_free_ports() -> int:
    """The first of three ports in a row that are free."""
    while True:
        first = free_port()
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for number in range(first, first + 3):
                probe = probes.enter_context(socket.socket())
                probe.bind(("127.0.0.1", number))
            return first


class RunningDemo:
    """The demo on free ports, with its data in a folder."""

    def __init__(
        self, folder: Path, *options: str, port: int | None = None, sim_port: int | None = None
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.sim_port = sim_port or three_free_ports()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "orderwire", "demo", "--port", str(self.port)]
        command += ["--sim-port", str(self.sim_port), "--data-dir", str(folder / "demo-data"), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def await_page(self) -> None:
        eventually(self._answers, what="the demo's page")

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(self.process.communicate()[0])
        with contextlib.suppress(httpx2.HTTPError):
            return httpx2.get(f"{self.url}/healthz", trust_env=False).is_success
        return False

    def command(self, name: str, **arguments: Any) -> Any:
        settings = load(data_dir=self.folder / "demo-data", port=self.port)
        return operations.ask(control_socket(settings), name, arguments)

    def freshness(self) -> dict[str, str]:
        return {row["id"]: row["freshness"] for row in self.command("accounts.list")}

    def stop(self, number: int = signal.SIGINT) -> tuple[float, str]:
        started = time.monotonic()
        self.process.send_signal(number)
        said = self.process.communicate(timeout=60)[0]
        return time.monotonic() - started, said
