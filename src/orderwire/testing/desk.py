"""Stand-ins for what the service gives an adapter, and the broker that a test puts in front of it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from orderwire.brokers.adapter import AdapterTools, BrokerAdapter, Publisher
from orderwire.brokers.http import BrokerHttp, Bucket, open_client
from orderwire.clock import Clock, SystemClock
from orderwire.core.events import Event, EventType
from orderwire.core.instruments import Instrument, InstrumentTable
from orderwire.core.orders import OrderId, OrderRequest

MONDAY = datetime(2026, 8, 17, 4, 30, tzinfo=UTC)
"""10:00 IST on a trading day."""


class FakeClock:
    """A clock that moves only when it is told to; `sleep` tells it."""

    def __init__(self, start: datetime = MONDAY) -> None:
        """`start`: aware."""
        self._start = start
        self._seconds = 0.0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._seconds)

    def time_ns(self) -> int:
        return int(self.now().timestamp()) * 1_000_000_000 + self.now().microsecond * 1000

    def monotonic(self) -> float:
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self._seconds += seconds

    async def sleep(self, seconds: float) -> None:
        """Let so much time pass, and others run."""
        self.advance(seconds)
        await asyncio.sleep(0)


class RecordingPublisher:
    """Keeps what an adapter publishes, in order; on one loop."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._came = asyncio.Event()

    def put(self, event: Event) -> None:
        self.events.append(event)
        self._came.set()

    def of(self, kind: EventType) -> list[Any]:
        """Return what the events of one type carry."""
        return [event.data for event in self.events if event.type == kind]

    async def until(self, kind: EventType, wanted: Callable[[Any], bool], *, within: float = 5.0) -> Any:
        """Return the first value of that type, past or coming, that is wanted. Raises TimeoutError."""
        async with asyncio.timeout(within):
            while True:
                found = next((value for value in self.of(kind) if wanted(value)), None)
                if found is not None:
                    return found
                self._came.clear()
                await self._came.wait()


def unlimited(kind: type[BrokerAdapter]) -> dict[str, Bucket]:
    """Return the adapter's buckets without their limits, so that a test waits for no budget."""
    return {name: Bucket(breaks=False) for name in kind.budgets}


@asynccontextmanager
async def open_tools(
    kind: type[BrokerAdapter],
    *,
    instruments: Iterable[Instrument] = (),
    publisher: Publisher | None = None,
    clock: Clock | None = None,
    budgets: Mapping[str, Bucket] | None = None,
) -> AsyncIterator[AdapterTools]:
    """Open what an adapter of that class works with, as the service would; on the running loop.

    The HTTP client is the service's own. `budgets`: the adapter's, unless given (see `unlimited`).
    """
    clock = clock or SystemClock()
    async with open_client() as client:
        yield AdapterTools(
            http=BrokerHttp(client, clock=clock, budgets=kind.budgets if budgets is None else budgets),
            instruments=InstrumentTable(instruments),
            clock=clock,
            publisher=publisher,
        )


class BrokerDesk(ABC):
    """A broker that runs, as one check of the contract sees it: a fresh account, and the exchange's hand.

    The methods run on the adapter's loop: what blocks belongs in `asyncio.to_thread`.
    """

    credentials: Mapping[str, str]
    """Of an account without orders that no other check uses."""
    addresses: Mapping[str, str]
    """Where the broker is, by the adapter's address fields."""
    resting: OrderRequest
    """A LIMIT order that the broker takes, and that stays open until `fill`; at least two lots."""
    refused: OrderRequest
    """An order that the broker refuses when it is sent, leaving no trace in its book."""
    other_price: Decimal
    """A price to which `resting` can be modified and at which it still rests."""

    async def grant(self, login_url: str | None) -> Mapping[str, str]:  # noqa: ARG002 - for those with a page
        """Do what the user does at the login page; return what comes back. Keys alone: an empty mapping."""
        return {}

    @abstractmethod
    async def fill(self, order_id: OrderId, quantity: int) -> None:
        """Have the exchange fill so much of the order now."""

    @abstractmethod
    async def end_session(self) -> None:
        """Have the broker end the account's session, as it does at the end of the day."""
