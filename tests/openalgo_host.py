"""The example host as a process, with its broker logins at the simulators, and what its pages and programs see."""

from __future__ import annotations

import contextlib
import html
import os
import queue
import re
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx2
import socketio
import socketio.exceptions

import house
from house import Simulators, answers, free_port, run_python
from orderwire.web import operations

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "openalgo_mount"
PATIENCE = 150.0
"""Seconds: a host and its service are two starts of a program, and a busy machine takes its time with each."""

eventually = partial(house.eventually, within=PATIENCE)

KITE_KEY, KITE_SECRET = "demokite", "demokite-secret"
XTS_KEY, XTS_SECRET = "demoxts", "demoxts-secret"


class ExampleHost:
    """`run.py <server>` in a folder of its own; orderwire is inside it."""

    def __init__(
        self,
        folder: Path,
        sims: Simulators,
        *,
        server: str = "threads",
        broker: str = "zerodha",
        **environment: str,
    ) -> None:
        self.folder = folder
        self.sims = sims
        self.server = server
        self.port, self.service_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.service_url = f"http://127.0.0.1:{self.service_port}"
        kite, xts = sims.ready["kite"], sims.ready["xts"]
        at_zerodha = broker == "zerodha"
        stream = kite.replace("http", "ws", 1)
        self.environment = {
            "HOST_FOLDER": str(folder / "host"),
            "ORDERWIRE_DATA_DIR": str(folder / "data"),
            "ORDERWIRE_PORT": str(self.service_port),
            "ORDERWIRE_MARKET_ALWAYS_OPEN": "true",
            "ORDERWIRE_BROKER_ADDRESSES": f"api={kite},stream={stream}" if at_zerodha else f"base={xts}",
            "ORDER_UPDATES_ENABLED": "FALSE",
            "BROKER_API_KEY": KITE_KEY if at_zerodha else XTS_KEY,
            "BROKER_API_SECRET": KITE_SECRET if at_zerodha else XTS_SECRET,
        } | environment
        self.process: subprocess.Popen[bytes] | None = None

    # --- running ---------------------------------------------------------------------------------------

    def start(self) -> None:
        self.process = run_python(
            str(EXAMPLE / "run.py"),
            self.server,
            str(self.port),
            log=self._log,
            env=os.environ | self.environment,
            cwd=self.folder,
        )
        eventually(
            lambda: answers(self.process, f"{self.url}/login", log=self._log), what="the host's login page"
        )
        self.browser = self.logged_in()

    @property
    def _log(self) -> Path:
        return self.folder / "host.log"

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.browser.close()
        self.process.send_signal(how)
        self.process.wait(PATIENCE)

    # --- its user --------------------------------------------------------------------------------------

    def logged_in(self) -> httpx2.Client:
        client = httpx2.Client(base_url=self.url, timeout=60, trust_env=False)
        form = {"user": "trader", "password": "trader", "csrf_token": token_in(client.get("/login").text)}
        assert client.post("/login", data=form).status_code == 302
        return client

    def log_in_to_broker(self, broker: str, token: str) -> None:
        form = {"broker": broker, "token": token, "csrf_token": token_in(self.browser.get("/").text)}
        assert self.browser.post("/broker", data=form).status_code == 302

    def jainam_token(self) -> str:
        """Log in to XTS as the host does."""
        keys = {"appKey": XTS_KEY, "secretKey": XTS_SECRET, "source": "WEBAPI"}
        reply = httpx2.post(f"{self.sims.ready['xts']}/interactive/user/session", json=keys, trust_env=False)
        return str(reply.json()["result"]["token"])

    @property
    def api_key(self) -> str:
        return re.search(r"<code>(\w+)</code>", self.browser.get("/").text)[1]

    # --- its service -----------------------------------------------------------------------------------

    def command(self, name: str, **arguments: Any) -> Any:
        return operations.ask(self.folder / "data" / "control.sock", name, arguments)

    def place(self, account: str, **order: Any) -> str:
        wanted = {
            "symbol": "INFY",
            "exchange": "NSE",
            "side": "BUY",
            "quantity": 10,
            "product": "MIS",
        } | order
        return self.command("orders.place", account=account, order=wanted)["order_id"]

    def kill_service(self) -> None:
        """`kill -9` everything of the child at once."""
        os.killpg(self.status()["pid"], signal.SIGKILL)

    # --- looking ---------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        return self.browser.get("/orderwire/status").json()

    def await_state(self, wanted: str) -> dict[str, Any]:
        last: list[Any] = [None]

        def reached() -> Any:
            last[0] = self.status()
            return last[0] if last[0]["state"] == wanted else None

        return eventually(reached, what=f"orderwire {wanted} in the host; {self.log()[-3000:]}", last=last)

    def await_freshness(self, broker: str, wanted: str, words: str = "") -> dict[str, Any]:
        last: list[Any] = [None]

        def reached() -> Any:
            last[0] = found = [a for a in self.status()["accounts"] if a["broker"] == broker]
            there = found and found[0]["freshness"] == wanted and words in found[0]["detail"]
            return found[0] if there else None

        return eventually(reached, what=f"{broker} {wanted} {words}", last=last)

    def bus(self) -> list[dict[str, Any]]:
        return self.browser.get("/witness").json()["bus"]

    def stream(self, namespace: str = "/", **how: Any) -> Listener:
        return Listener(self, namespace, **how)


class Listener:
    """A page of the host: its Socket.IO client, with the session's cookie unless told otherwise."""

    def __init__(
        self,
        host: ExampleHost,
        namespace: str,
        *,
        cookies: bool = True,
        apikey: str = "",
        polling: bool = True,
    ) -> None:
        self.got: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self.kept: list[tuple[str, dict[str, Any]]] = []
        self.client = socketio.Client(reconnection=False, request_timeout=60)
        for name in ("order_update", "feed_status", "snapshot", "trade_update", "position_update"):
            self.client.on(name, self._taker(name), namespace=namespace)
        headers = (
            {"Cookie": "; ".join(f"{k}={v}" for k, v in host.browser.cookies.items())} if cookies else {}
        )
        try:
            self.client.connect(
                host.url,
                namespaces=[namespace],
                headers=headers,
                auth={"apikey": apikey} if apikey else None,
                transports=["polling"] if polling else ["websocket"],
                wait_timeout=60,
            )
        except socketio.exceptions.ConnectionError as error:
            raise ConnectionError(str(error)) from error

    def _taker(self, name: str) -> Any:
        return lambda data: self.got.put((name, data))

    def heard(self, name: str) -> list[dict[str, Any]]:
        with contextlib.suppress(queue.Empty):
            while True:
                self.kept.append(self.got.get_nowait())
        return [data for kind, data in self.kept if kind == name]

    def await_order(self, order_id: str, status: str) -> dict[str, Any]:
        def found() -> Any:
            return [
                d
                for d in self.heard("order_update")
                if d["orderid"] == order_id and d["order_status"] == status
            ]

        return eventually(found, what=f"order_update {order_id} {status}", last=self.kept)[-1]

    def await_event(self, event_id: str) -> dict[str, Any]:
        def found() -> Any:
            return [d for d in self.heard("order_update") if d["event_id"] == event_id]

        return eventually(found, what=f"order_update {event_id}", last=self.kept)[0]

    def close(self) -> None:
        self.client.disconnect()
        for left in (
            self.client.eio.ws,
            self.client.eio.http,
        ):  # the library leaves both to the garbage collector
            if left is not None:
                left.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def zerodha_token(sims: Simulators) -> str:
    """Log in to Kite as the host does, and keep the token as OpenAlgo keeps it: `api_key:access_token`."""
    made = sims.ask("POST", "/kite/sessions", {"api_key": KITE_KEY, "user_id": "ZD0001"})
    return f"{KITE_KEY}:{made['access_token']}"


def token_in(page: str) -> str:
    return html.unescape(re.search(r'name="csrf_token" value="([^"]+)"', page)[1])
