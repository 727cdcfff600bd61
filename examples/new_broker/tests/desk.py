"""The contract's desk at Paisa: an account, orders to try, and the exchange's hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

from msgspec.structs import replace
from orderwire.brokers.adapter import BrokerAdapter
from orderwire.core.orders import OrderId, OrderRequest
from orderwire.testing import BrokerDesk

from paisa import KEY, PIN, Paisa, running_paisa


class PaisaDesk(BrokerDesk):
    """One client's desk."""

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

    def __init__(self, paisa: Paisa, api: str, kind: type[BrokerAdapter]) -> None:
        self.paisa = paisa
        self.credentials = {"key": KEY, "pin": PIN}
        places = {"api": api, "stream": api.replace("http", "ws")}
        self.addresses = {field.name: places[field.name] for field in kind.address_fields}

    async def fill(self, order_id: OrderId, quantity: int) -> None:
        await self.paisa.fill(order_id, quantity)

    async def end_session(self) -> None:
        await self.paisa.end_sessions()


@asynccontextmanager
async def open_desk(kind: type[BrokerAdapter]) -> AsyncIterator[PaisaDesk]:
    """Run a broker without orders, and sit at it with an adapter of that class."""
    async with running_paisa() as (paisa, api):
        yield PaisaDesk(paisa, api, kind)
