"""One feed under test, with a broker that does what the test says and time that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from datetime import date
from decimal import Decimal

from orderwire.brokers.adapter import AccountProfile, AdapterTools, BrokerAdapter, BrokerSession
from orderwire.core.events import Event, EventType
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import AccountId, Channel, Funds, OrderId, OrderStatus, OrderUpdate, Trade
from orderwire.feeds.supervisor import ConnectLimiter, FeedSupervisor, FeedSurroundings
from virtual_time import VirtualClock, run_virtually

ACCOUNT = AccountId("acc")
SESSION = BrokerSession(user_id="U", secrets={"token": "t"})


def order(order_id="1", status=OrderStatus.OPEN, filled=0, **more):
    fields = {
        "account": ACCOUNT,
        "broker": "fake",
        "order_id": OrderId(order_id),
        "channel": Channel.REST,
        "trading_date": date(2026, 8, 17),
        "raw_status": str(status),
        "status": status,
        "phase": 9,
        "symbol": "INFY",
        "exchange": "NSE",
        "side": "BUY",
        "order_type": "LIMIT",
        "product": "CNC",
        "quantity": 10,
        "filled_quantity": filled,
    }
    return OrderUpdate(**{**fields, **more})


def trade(trade_id="T1", order_id="1", quantity=10, **more):
    """Make an execution of `order`."""
    fields = {
        "account": ACCOUNT,
        "broker": "fake",
        "order_id": OrderId(order_id),
        "trade_id": trade_id,
        "channel": Channel.STREAM,
        "trading_date": date(2026, 8, 17),
        "symbol": "INFY",
        "exchange": "NSE",
        "side": "BUY",
        "product": "CNC",
        "quantity": quantity,
        "price": Decimal(1500),
    }
    return Trade(**{**fields, **more})


class ScriptedBroker(BrokerAdapter):
    """A broker that does what the test says; real time never passes."""

    name = "fake"
    title = "Fake"
    has_stream = True

    def __init__(self, profile, tools):
        super().__init__(profile, tools)
        self.book = []
        self.read_times = []
        self.connect_times = []
        self.read_error = None
        self.stream: Callable = self.stay_connected
        self.history = []

    async def stay_connected(self):
        self.listening = True
        await asyncio.Event().wait()

    async def listen(self):
        self.connect_times.append(asyncio.get_running_loop().time())
        await self.stream()

    async def order_book(self):
        self.read_times.append(asyncio.get_running_loop().time())
        if self.read_error:
            raise self.read_error
        return copy(self.book)

    async def order_history(self, order_id):
        self.history.append(order_id)
        return []

    async def login(self, grant):
        return SESSION

    async def place_order(self, request): ...
    async def modify_order(self, request, *, current=None): ...
    async def cancel_order(self, order_id, *, current=None): ...
    async def trade_book(self):
        return []

    async def positions(self):
        return []

    async def holdings(self):
        return []

    async def funds(self):
        return Funds(account=ACCOUNT)

    async def instruments_of_the_day(self):
        return []


class Held:
    """What the book holds, as far as the feed asks."""

    def __init__(self):
        self.open = 0

    def current(self, account, order_id):
        return None

    def open_orders(self, account):
        return self.open


class Desk:
    """One feed under test with everything around it."""

    def __init__(self, *, push=True, renew=None, chance=0.5):
        self.clock = VirtualClock()
        self.chance = chance
        self.market_is_open = True
        self.instruments = None
        self.events: list[Event] = []
        self.held = Held()
        self.renewals = 0
        tools = AdapterTools(http=None, instruments=InstrumentTable(), clock=self.clock, publisher=self)
        self.broker = ScriptedBroker(AccountProfile(account=ACCOUNT, credentials={}), tools)
        self.push = push
        self.renew_with = renew

    def put(self, event):
        self.events.append(event)

    async def renew(self, account):
        self.renewals += 1
        return self.renew_with

    async def seconds(self, count):
        """Let time pass, with the fleet's tick in each second."""
        for _ in range(int(count)):
            await asyncio.sleep(1)
            self.feed.look()

    def run(self, story, *, logged_in=True):
        async def play():
            around = FeedSurroundings(
                held=self.held,
                publish=self.put,
                clock=self.clock,
                chance=lambda: self.chance,
                connects=ConnectLimiter(),
                market_open=lambda segments: self.market_is_open,
                renew=self.renew,
                instruments=self.instruments,
            )
            if logged_in:
                self.broker.session = SESSION
            self.feed = FeedSupervisor(self.broker, around, push=self.push)
            running = asyncio.create_task(self.feed.run())
            try:
                await story(self)
            finally:
                running.cancel()
                await asyncio.wait({running}, timeout=5)

        run_virtually(play(), self.clock)

    def freshness(self):
        seen = [event.data.freshness for event in self.events if event.type == EventType.FEED_STATUS]
        return [state for at, state in enumerate(seen) if at == 0 or seen[at - 1] is not state]

    def alerts(self):
        return [event.data.kind for event in self.events if event.type == EventType.ALERT]

    def orders(self):
        return [event.data for event in self.events if event.type == EventType.ORDER_UPDATE]
