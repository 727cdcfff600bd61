"""Paisa keeps orderwire's adapter contract."""

from __future__ import annotations

from contextlib import asynccontextmanager
from decimal import Decimal

from msgspec.structs import replace
from orderwire.brokers.registry import load_brokers
from orderwire.core.orders import OrderRequest
from orderwire.testing import AdapterContract, BrokerDesk

from paisa import KEY, PIN, running_paisa

INSTALLED = load_brokers().get("paisa")
"""What the entry point names, as the service will find it."""


class PaisaDesk(BrokerDesk):
    """The exchange's hand at Paisa."""

    credentials = {"key": KEY, "pin": PIN}
    resting = OrderRequest(
        symbol="SBIN",
        exchange="NSE",
        side="BUY",
        quantity=10,
        order_type="LIMIT",
        product="MIS",
        price=Decimal("790.00"),
    )
    refused = replace(resting, quantity=0)
    other_price = Decimal("790.50")

    def __init__(self, paisa, api):
        self.paisa = paisa
        places = {"api": api, "stream": api.replace("http", "ws")}
        self.addresses = {field.name: places[field.name] for field in INSTALLED.address_fields}

    async def fill(self, order_id, quantity):
        await self.paisa.fill(order_id, quantity)

    async def end_session(self):
        await self.paisa.end_sessions()


class TestPaisa(AdapterContract):
    adapter_class = INSTALLED

    @asynccontextmanager
    async def desk(self):
        async with running_paisa() as (paisa, api):
            yield PaisaDesk(paisa, api)
