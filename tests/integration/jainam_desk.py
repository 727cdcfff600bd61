"""A Jainam trader's desk for the tests: the adapter at a simulator that runs as a process, or at a real account."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import Any

import httpx2

from orderwire.brokers.adapter import AccountProfile
from orderwire.brokers.checklist import first_day
from orderwire.brokers.jainam.adapter import JainamAdapter
from orderwire.core import lifecycle
from orderwire.core.events import EventType
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import AccountId, OrderRequest
from scripted_xts import until
from xts_desk import Published, adapter_of, listening, profile_at

SEGMENTS = {"segments": "NSECM,NSEFO,NSECD,BSECM,BSEFO,MCXFO"}


class Simulator:
    """`brokersim serve` on free ports, and its control API."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "brokersim", "serve", "--reply-ms", "5", "--push-ms", "5"]
        command += ["--kite-port", "0", "--xts-port", "0", "--control-port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        ready = json.loads(self.process.stdout.readline())
        self.url = ready["xts"]
        self._control = httpx2.Client(base_url=ready["control"], trust_env=False)
        self._numbers = count(1)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        reply = self._control.request(method, path, json=body)
        assert reply.is_success, reply.text
        return reply.json()["data"]

    def trader(self, **login: Any) -> dict[str, str]:
        """Register a login with an app key of its own, so that no test shares a limit with another."""
        number = next(self._numbers)
        login = {"app_key": f"itkey{number}", "login_id": f"IT{number:04d}", **login}
        self.ask("POST", "/users/xts", {"logins": [login]})
        return {"app_key": login["app_key"], "secret_key": f"{login['app_key']}-secret"}

    def fault(self, kind: str, **fields: Any) -> None:
        self.ask("POST", "/faults", {"kind": kind, "broker": "xts", **fields})

    def order(self, order_id: str) -> dict[str, Any]:
        return next(order for order in self.ask("GET", "/orders?broker=xts") if order["order_id"] == order_id)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(5)
        self.process.stdout.close()
        self._control.close()


def run(work):
    return asyncio.run(asyncio.wait_for(work, 60))


class Seat:
    """A trader's adapter, what its stream gave, and the join of everything observed."""

    def __init__(self, adapter: JainamAdapter, published: Published, sim: Simulator) -> None:
        self.adapter = adapter
        self.published = published
        self.sim = sim

    @property
    def updates(self):
        return self.published.of(EventType.ORDER_UPDATE)

    def of(self, order_id):
        return [update for update in self.updates if update.order_id == order_id]

    async def status(self, order_id, status):
        await until(lambda: any(update.status is status for update in self.of(order_id)))
        return next(update for update in self.of(order_id) if update.status is status)

    def words(self, order_id):
        """The broker's words about an order in the order they came, repetitions left out."""
        words = [update.raw_status for update in self.of(order_id)]
        return [word for at, word in enumerate(words) if at == 0 or word != words[at - 1]]

    async def place(self, **changes):
        terms = {"symbol": "SBIN", "exchange": "NSE", "side": "BUY", "quantity": 10, "order_type": "LIMIT"}
        return await self.adapter.place_order(
            OrderRequest(**{**terms, "price": Decimal(815), "tag": "ow1", **changes})
        )

    async def settled(self):
        """Join the stream with three reads of the book, and return what a trader sees, by order."""
        states: dict[str, Any] = {}
        observed = list(self.updates)
        for _ in range(3):
            observed += await self.adapter.order_book()
        for update in observed:
            states[update.order_id] = lifecycle.observe(states.get(update.order_id), update).state
        return {order_id: lifecycle.view(state) for order_id, state in states.items() if state is not None}


@asynccontextmanager
async def seat(sim, *, credentials=None, addresses=None, listen=True, **profile):
    """A desk at the simulator, for a trader nobody else uses unless credentials say which."""
    placed = profile_at(
        sim.url,
        credentials=credentials or sim.trader(),
        addresses={**SEGMENTS, **(addresses or {})},
        **profile,
    )
    async with _seated(placed, sim, listen=listen) as here:
        yield here


@asynccontextmanager
async def seat_at_account(environment: Mapping[str, str], *, listen=True):
    """A desk at the account that ORDERWIRE_LIVE_XTS_… name (docs/brokers/jainam.md)."""
    given = {
        name: json.loads(environment.get(f"ORDERWIRE_LIVE_XTS_{name.upper()}", "null"))
        for name in ("credentials", "addresses", "allow_plaintext")
    }
    profile = AccountProfile(
        account=AccountId("live"),
        credentials=given["credentials"],
        addresses=given["addresses"] or {},
        allow_plaintext=bool(given["allow_plaintext"]),
    )
    async with _seated(profile, None, listen=listen) as here:
        yield here


async def checklist_of(adapter, *, seconds):
    found = first_day(adapter, seconds=seconds, log_in=lambda: adapter.login({}))
    return [finding async for finding in found]


@asynccontextmanager
async def _seated(profile, sim, *, listen):
    async with adapter_of(JainamAdapter, profile) as (adapter, published):
        adapter.session = await adapter.login({})
        table = InstrumentTable(await adapter.instruments_of_the_day())
        adapter.tools = replace(adapter.tools, instruments=table)
        here = Seat(adapter, published, sim)
        if not listen:
            yield here
            return
        async with listening(adapter) as task:
            await until(lambda: adapter.listening or task.done())
            here.task = task
            yield here


def sit(sim, story, **options):
    """Run a story of one trader."""

    async def work():
        async with seat(sim, **options) as here:
            return await story(here)

    return run(work())
