"""The adapters of this package keep the contract that every other broker's must keep, at the simulated brokers."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import count

import httpx2
import msgspec
import pytest

from house import Simulators
from orderwire.brokers.jainam.adapter import JainamAdapter
from orderwire.brokers.zerodha.adapter import ZerodhaAdapter
from orderwire.core.orders import OrderRequest
from orderwire.testing import AdapterContract, BrokerDesk

RESTING = OrderRequest(
    symbol="SBIN",
    exchange="NSE",
    side="BUY",
    quantity=10,
    order_type="LIMIT",
    product="MIS",
    price=Decimal(790),
)
REFUSED = msgspec.structs.replace(RESTING, quantity=0)


@pytest.fixture(scope="module")
def simulators(tmp_path_factory):
    running = Simulators(tmp_path_factory.mktemp("sims"), reply_ms=2, push_ms=2)
    running.ask("PATCH", "/settings", {"rate_limits": False})
    running.ask("POST", "/market/price", {"key": "NSE:SBIN", "price": "820"})
    running.numbers = count(1)
    yield running
    running.stop()


class SimulatedDesk(BrokerDesk):
    """An account of its own at one of the simulated brokers."""

    resting, refused, other_price = RESTING, REFUSED, Decimal("790.5")
    broker: str
    user: str

    def __init__(self, simulators):
        self._simulators = simulators

    async def ask(self, method, path, body):
        return await asyncio.to_thread(self._simulators.ask, method, path, body)

    async def fill(self, order_id, quantity):
        await self.ask("POST", "/market/fill", {"uid": f"{self.broker}:{order_id}", "quantity": quantity})

    async def end_session(self):
        await self.ask("POST", "/tokens/kill", {"broker": self.broker, "user": self.user})


class KiteDesk(SimulatedDesk):
    broker = "kite"

    def __init__(self, simulators):
        super().__init__(simulators)
        number, api = next(simulators.numbers), simulators.ready["kite"]
        self.user = f"CT{number:04d}"
        self.credentials = {"api_key": f"ctkey{number}", "api_secret": f"ctsecret{number}"}
        self.addresses = {
            "api": api,
            "stream": api.replace("http", "ws"),
            "login": f"{api}/connect/login",
        }
        simulators.ask("POST", "/users/kite", {"users": [{"user_id": self.user, "cash": 1_000_000}]})
        simulators.ask("POST", "/kite/apps", self.credentials)

    async def grant(self, login_url):
        async with httpx2.AsyncClient(trust_env=False) as browser:
            page = await browser.get(login_url)
            hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
            form = {**hidden, "user_id": self.user, "password": "demo"}
            reply = await browser.post(login_url, data=form)
        return dict(httpx2.URL(reply.headers["location"]).params)


class XtsDesk(SimulatedDesk):
    broker = "xts"

    def __init__(self, simulators):
        super().__init__(simulators)
        number = next(simulators.numbers)
        key, self.user = f"ctkey{number}", f"CT{number:04d}"
        self.credentials = {"app_key": key, "secret_key": f"{key}-secret"}
        self.addresses = {"base": simulators.ready["xts"], "segments": "NSECM"}
        simulators.ask("POST", "/users/xts", {"logins": [{"app_key": key, "login_id": self.user}]})


class SimulatedContract(AdapterContract):
    desk_class: type[SimulatedDesk]

    @pytest.fixture(autouse=True)
    def _broker(self, simulators):
        self.simulators = simulators

    @asynccontextmanager
    async def desk(self):
        yield await asyncio.to_thread(self.desk_class, self.simulators)


class TestZerodha(SimulatedContract):
    adapter_class, desk_class = ZerodhaAdapter, KiteDesk


class TestJainam(SimulatedContract):
    adapter_class, desk_class = JainamAdapter, XtsDesk
