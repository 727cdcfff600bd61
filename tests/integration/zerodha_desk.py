"""A Zerodha trader's desk for the tests: the adapter at a simulator that runs as a process, or at Zerodha itself."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import Any

import httpx2

from orderwire.brokers.adapter import AccountProfile, AdapterTools, BrokerSession
from orderwire.brokers.http import BrokerHttp, open_client
from orderwire.brokers.zerodha.adapter import ZerodhaAdapter
from orderwire.clock import SystemClock
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import AccountId, ModifyRequest, OrderRequest, OrderStatus

SOON = 5.0


class Simulator:
    """`brokersim serve` on free ports, and its control API."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "brokersim", "serve", "--reply-ms", "5", "--push-ms", "5"]
        command += ["--kite-port", "0", "--xts-port", "0", "--control-port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        ready = json.loads(self.process.stdout.readline())
        self.kite = ready["kite"]
        self._control = httpx2.Client(base_url=ready["control"], trust_env=False)
        self._numbers = count(1)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        reply = self._control.request(method, path, json=body)
        assert reply.is_success, reply.text
        return reply.json()["data"]

    def trader(self, **app: Any) -> dict[str, str]:
        """Register a client with an app of its own, so that no test shares a limit with another."""
        number = next(self._numbers)
        user, key = f"IT{number:04d}", f"itkey{number}"
        self.ask("POST", "/users/kite", {"users": [{"user_id": user, "cash": 1_000_000}]})
        self.ask("POST", "/kite/apps", {"api_key": key, "api_secret": f"secret{number}", **app})
        return {"user_id": user, "api_key": key, "api_secret": f"secret{number}"}

    def fault(self, kind: str, **fields: Any) -> None:
        self.ask("POST", "/faults", {"kind": kind, "broker": "kite", **fields})

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(5)
        self.process.stdout.close()
        self._control.close()


class Seat:
    """A trader's adapter, and everything its stream gave."""

    def __init__(self, adapter: ZerodhaAdapter, sim: Simulator) -> None:
        self.adapter = adapter
        self.sim = sim
        self.updates: list[Any] = []
        self.grown = asyncio.Condition()
        self.listening: asyncio.Task[None] | None = None

    def put(self, event: Any) -> None:
        self.updates.append(event.data)
        self._tell = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self.grown:
            self.grown.notify_all()

    async def until(self, wanted: Callable[[Any], bool]) -> Any:
        """Return the first update of the stream, past or coming, that is wanted."""
        async with asyncio.timeout(SOON), self.grown:
            await self.grown.wait_for(lambda: any(wanted(update) for update in self.updates))
        return next(update for update in self.updates if wanted(update))

    async def status(self, order_id: str, status: OrderStatus) -> Any:
        return await self.until(lambda update: update.order_id == order_id and update.status is status)

    async def listen(self) -> None:
        began = asyncio.Event()
        self.adapter.on_listening = lambda delivers: began.set() if delivers else None
        self.listening = asyncio.create_task(self.adapter.listen())
        waiting = asyncio.create_task(began.wait())
        await asyncio.wait({waiting, self.listening}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self.listening.done():
            await self.listening

    async def ending(self) -> BaseException:
        """Wait for the stream to end, and return why."""
        (result,) = await asyncio.gather(self.listening, return_exceptions=True)
        return result

    def log_in_at_the_page(self) -> dict[str, str]:
        """Do what the user's browser does; return what comes back to our redirect address."""
        user = self.adapter.profile.credentials["user_id"]
        page = httpx2.get(self.adapter.login_url(state="st-42"), trust_env=False)
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
        form = {**hidden, "user_id": user, "password": "demo"}
        reply = httpx2.post(f"{self.sim.kite}/connect/login", data=form, trust_env=False)
        return dict(httpx2.URL(reply.headers["location"]).params)

    async def load_instruments(self) -> None:
        tools = self.adapter.tools
        table = InstrumentTable(await self.adapter.instruments_of_the_day())
        self.adapter.tools = replace(tools, instruments=table, publisher=self)

    async def close(self) -> None:
        if self.listening is not None:
            self.listening.cancel()
            await asyncio.gather(self.listening, return_exceptions=True)


@asynccontextmanager
async def at_desk(sim, *, login=True, instruments=True, **app):
    """A desk at the simulator, for a trader nobody else uses."""
    addresses = {
        "api": sim.kite,
        "stream": sim.kite.replace("http", "ws"),
        "login": f"{sim.kite}/connect/login",
    }
    profile = AccountProfile(account=AccountId("it"), credentials=sim.trader(**app), addresses=addresses)
    async with _seated(profile, sim) as seat:
        if login:
            seat.adapter.session = await seat.adapter.login(seat.log_in_at_the_page())
        if instruments:
            await seat.load_instruments()
        yield seat


@asynccontextmanager
async def at_zerodha(environment: Mapping[str, str]):
    """A desk at Zerodha itself, with a token that was obtained outside."""
    credentials = {
        "api_key": environment["ORDERWIRE_ZERODHA_API_KEY"],
        "api_secret": "not needed with a token",
    }
    async with _seated(AccountProfile(account=AccountId("it"), credentials=credentials), None) as seat:
        seat.adapter.session = BrokerSession(
            user_id=environment.get("ORDERWIRE_ZERODHA_USER_ID", ""),
            secrets={"access_token": environment["ORDERWIRE_ZERODHA_ACCESS_TOKEN"]},
        )
        await seat.load_instruments()
        yield seat


@asynccontextmanager
async def _seated(profile, sim):
    clock = SystemClock()
    async with open_client() as client:
        http = BrokerHttp(client, clock=clock, budgets=ZerodhaAdapter.budgets)
        tools = AdapterTools(http=http, instruments=InstrumentTable(), clock=clock)
        seat = Seat(ZerodhaAdapter(profile, tools), sim)
        try:
            yield seat
        finally:
            await seat.close()


def order(**changes):
    terms = {
        "symbol": "SBIN",
        "exchange": "NSE",
        "side": "BUY",
        "quantity": 10,
        "order_type": "LIMIT",
        "price": Decimal("819.5"),
        "tag": "OWINTEGRATION",
    }
    return OrderRequest(**{**terms, **changes})


def new_terms(order_id, **changes):
    terms = {
        "order_id": order_id,
        "quantity": 12,
        "order_type": "LIMIT",
        "product": "MIS",
        "price": Decimal("819.1"),
    }
    return ModifyRequest(**{**terms, **changes})
