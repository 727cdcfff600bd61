"""An XTS adapter with fast timers and generous limits, in front of whatever host a test has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orderwire.brokers.adapter import AccountProfile, AdapterTools, BrokerSession
from orderwire.brokers.http import BrokerHttp, open_client
from orderwire.brokers.xts.adapter import XtsAdapter, address_fields, budgets_of
from orderwire.brokers.xts.socketio import Timers
from orderwire.clock import SystemClock
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import AccountId

TOKEN = "TOKEN-THAT-NOBODY-MAY-SEE"
CALLS = "place modify cancel books trades positions holdings balance session market"


class DeskXts(XtsAdapter):
    name = "deskxts"
    title = "Desk XTS"
    address_fields = address_fields()
    budgets = budgets_of("deskxts", dict.fromkeys(CALLS.split(), (1000, 1.0)))
    timers = Timers(ask_after=0.05, ping_every=0.05, answer_within=5.0)


class Published(list):
    """What an adapter published, in order."""

    def put(self, event):
        self.append(event)

    def of(self, kind):
        return [event.data for event in self if event.type == kind]


def profile_at(url, *, credentials=None, addresses=None, allow_plaintext=False):
    """A profile of a host; `{host}` in an address stands for it."""
    placed = {name: text.replace("{host}", url) for name, text in (addresses or {}).items()}
    return AccountProfile(
        account=AccountId("acc"),
        credentials={"app_key": "key", "secret_key": "secret", **(credentials or {})},
        addresses={"base": url, **placed},
        allow_plaintext=allow_plaintext,
    )


def logged_in(url, *, token=TOKEN, investor=True, path="/interactive"):
    return BrokerSession(
        user_id="JN0042",
        secrets={"token": token},
        facts={"base": f"{url}{path}", "investor": "yes" if investor else "no"},
    )


@asynccontextmanager
async def adapter_of(kind, profile, *, instruments=None) -> AsyncIterator[tuple[XtsAdapter, Published]]:
    """An adapter of that class with an HTTP client of its own."""
    async with open_client() as client:
        http = BrokerHttp(client, clock=SystemClock(), budgets=kind.budgets)
        published = Published()
        tools = AdapterTools(
            http=http, instruments=instruments or InstrumentTable(), clock=SystemClock(), publisher=published
        )
        yield kind(profile, tools), published


@asynccontextmanager
async def listening(adapter):
    """Run `listen` beside the block; cancelled at its end."""
    task = asyncio.create_task(adapter.listen())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
