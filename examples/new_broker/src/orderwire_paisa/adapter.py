"""Paisa over REST: everything a broker must have, and nothing more."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import quote

from msgspec import Raw
from orderwire.brokers.adapter import (
    AccountProfile,
    AdapterTools,
    BrokerAdapter,
    BrokerSession,
    Field,
    plaintext_refusal,
)
from orderwire.brokers.http import Bucket, Budget
from orderwire.core.books import read_rows
from orderwire.core.instruments import Instrument
from orderwire.core.orders import (
    Channel,
    Funds,
    Holding,
    ModifyRequest,
    OrderId,
    OrderRequest,
    OrderUpdate,
    Position,
    Trade,
    session_date,
)
from orderwire.errors import ConfigurationError, InvalidRequestError, SessionExpiredError

from orderwire_paisa import messages
from orderwire_paisa.messages import Reading


class PaisaAdapter(BrokerAdapter):
    """One Paisa account. Its keys alone log it in."""

    name = messages.NAME
    title = "Paisa"
    api_version = "1"
    credential_fields = (
        Field(name="key", label="API key"),
        Field(name="pin", label="PIN", secret=True),
    )
    address_fields: ClassVar[tuple[Field, ...]] = (
        Field(name="api", label="REST root", default="https://api.paisa.example"),
    )
    budgets: ClassVar[Mapping[str, Bucket]] = MappingProxyType(
        {
            "paisa.orders": Bucket(budgets=(Budget(rate=10),), patience=1.0, breaks=False),
            "paisa.reads": Bucket(budgets=(Budget(rate=5),), patience=5.0),
        }
    )
    """Paisa's price list: 10 order calls and 5 reads a second for each account."""

    def __init__(self, profile: AccountProfile, tools: AdapterTools) -> None:
        super().__init__(profile, tools)
        self._addresses = {
            field.name: (profile.addresses.get(field.name) or field.default).rstrip("/")
            for field in self.address_fields
        }
        for field in self.credential_fields:
            if field.required and not profile.credentials.get(field.name):
                raise ConfigurationError(f"{self.title} account {profile.account} has no {field.name}")
        for address in self._addresses.values():
            refusal = plaintext_refusal(address, allow_plaintext=profile.allow_plaintext)
            if refusal:
                raise ConfigurationError(refusal)

    # --- logging in -----------------------------------------------------------------------------------

    async def login(self, grant: Mapping[str, str]) -> BrokerSession:  # noqa: ARG002 - keys alone suffice
        keys = {name: self.profile.credentials[name] for name in ("key", "pin")}
        return messages.read_login(
            await self._call("POST", "/v1/login", purpose="login", json=keys, signed=False)
        )

    def broker_now(self) -> datetime | None:
        return self.tools.http.broker_time(self._addresses["api"])

    # --- orders: one request each, never repeated here ------------------------------------------------

    async def place_order(self, request: OrderRequest) -> OrderId:
        listed = self.tools.instruments.by_symbol(request.exchange, request.symbol)
        if listed is None:
            raise InvalidRequestError({"symbol": f"Paisa has no {request.symbol} on {request.exchange}."})
        return await self._order("POST", "/v1/orders", "place", json=messages.place_body(request, listed))

    async def modify_order(
        self,
        request: ModifyRequest,
        *,
        current: OrderUpdate | None = None,  # noqa: ARG002 - Paisa does not want the old terms
    ) -> OrderId:
        body = messages.modify_body(request)
        return await self._order("PUT", _path(request.order_id), "modify", json=body)

    async def cancel_order(
        self,
        order_id: OrderId,
        *,
        current: OrderUpdate | None = None,  # noqa: ARG002 - as above
    ) -> OrderId:
        return await self._order("DELETE", _path(order_id), "cancel")

    async def _order(self, method: str, path: str, purpose: str, *, json: Any = None) -> OrderId:
        data = await self._call(method, path, purpose=purpose, bucket="paisa.orders", json=json)
        return messages.read_placed(data)

    # --- the books ------------------------------------------------------------------------------------

    async def order_book(self) -> Sequence[OrderUpdate]:
        rows, reading = await self._read("/v1/orders", "order_book")
        return read_rows(rows, lambda row: messages.order_update(row, reading))

    async def order_history(self, order_id: OrderId) -> Sequence[OrderUpdate]:
        rows, reading = await self._read(f"{_path(order_id)}/log", "order_history", Channel.HISTORY)
        at = itertools.count()
        return read_rows(rows, lambda row: messages.order_update(row, reading, history_index=next(at)))

    async def trade_book(self) -> Sequence[Trade]:
        rows, reading = await self._read("/v1/trades", "trade_book")
        return read_rows(rows, lambda row: messages.trade(row, reading))

    async def positions(self) -> Sequence[Position]:
        rows, reading = await self._read("/v1/positions", "positions")
        return read_rows(rows, lambda row: messages.position(row, reading))

    async def holdings(self) -> Sequence[Holding]:
        rows, reading = await self._read("/v1/holdings", "holdings")
        return [messages.holding(row, reading) for row in rows]

    async def funds(self) -> Funds:
        return messages.funds(await self._call("GET", "/v1/funds", purpose="funds"), self.profile.account)

    async def instruments_of_the_day(self) -> Sequence[Instrument]:
        rows, _ = await self._read("/v1/scrips", "instruments")
        return [messages.instrument(row) for row in rows]

    # --- underneath -----------------------------------------------------------------------------------

    async def _read(
        self, path: str, purpose: str, channel: Channel = Channel.REST
    ) -> tuple[list[Raw], Reading]:
        rows = messages.rows(await self._call("GET", path, purpose=purpose))
        return rows, self._reading(channel)

    def _reading(self, channel: Channel) -> Reading:
        clock = self.tools.clock
        return Reading(
            account=self.profile.account,
            channel=channel,
            trading_date=session_date(clock.now()),
            received_ns=clock.time_ns(),
            instruments=self.tools.instruments,
        )

    async def _call(
        self,
        method: str,
        path: str,
        *,
        purpose: str,
        bucket: str = "paisa.reads",
        json: Any = None,
        signed: bool = True,
    ) -> Raw:
        headers = {"X-Paisa-Version": self.api_version}
        if signed:
            headers["X-Paisa-Token"] = self._token()
        reply = await self.tools.http.request(
            method,
            f"{self._addresses['api']}{path}",
            purpose=purpose,
            bucket=bucket,
            keys={"account": self.profile.account},
            headers=headers,
            json=json,
        )
        return messages.read_reply(reply.body, status=reply.status)

    def _token(self) -> str:
        if self.session is None:
            raise SessionExpiredError("Log in to Paisa first.")
        return self.session.secrets["token"]


def _path(order_id: OrderId) -> str:
    return f"/v1/orders/{quote(order_id, safe='')}"
