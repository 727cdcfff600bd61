"""Runs the simulated XTS on a free port, with time in the test's hand or flowing, and talks to it in raw frames."""

from __future__ import annotations

import asyncio
import functools
import json
from contextlib import asynccontextmanager, suppress
from decimal import Decimal

from aiohttp import ClientSession, web
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from brokersim.world import Settings, World
from brokersim.xts.app import build_app
from brokersim.xts.settings import XtsSettings

# Tuesday 5 January 2027, 10:00:00.25 in India.
START = 1_799_123_400.25
AT_ONCE = Settings(reply_delay=0, push_delay=0)
LIMIT_ORDER = {
    "exchangeSegment": "NSECM",
    "exchangeInstrumentID": 3045,
    "productType": "MIS",
    "orderType": "LIMIT",
    "orderSide": "BUY",
    "timeInForce": "DAY",
    "disclosedQuantity": 0,
    "orderQuantity": 50,
    "limitPrice": 800,
    "stopPrice": 0,
    "orderUniqueIdentifier": "sim-0001",
}
SBIN = "NSE:SBIN"


def story(function):
    """Run an async test to its end."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(function(*args, **kwargs), 30))

    return run


class Desk:
    """A client's view of the simulator, and the hand on its clock."""

    def __init__(self, world, port, http):
        self.world = world
        self.port = port
        self.http = http
        self.front = world.controls["xts"]
        self.base = "/interactive"

    def pass_time(self, seconds=1.0):
        self.world.timeline.advance_by(seconds)

    async def call(self, method, path, *, token=None, base=None, **request):
        headers = {"Authorization": token} if token else {}
        url = (self.base if base is None else base) + path
        async with self.http.request(method, url, headers=headers, **request) as answer:
            return answer.status, await answer.json(content_type=None)

    async def ok(self, method, path, **request):
        status, body = await self.call(method, path, **request)
        assert (status, body["type"]) == (200, "success"), body
        return body["result"]

    async def refused(self, method, path, **request):
        status, body = await self.call(method, path, **request)
        assert body["type"] == "error", body
        return status, body["code"]

    async def log_in(self, app_key="demoxts"):
        body = {"appKey": app_key, "secretKey": f"{app_key}-secret", "source": "WEBAPI"}
        return (await self.ok("POST", "/user/session", json=body))["token"]

    async def place(self, token, **changes):
        return (await self.ok("POST", "/orders", token=token, json=LIMIT_ORDER | changes))["AppOrderID"]

    async def history(self, token, order_id, **query):
        params = {"appOrderID": order_id} | query
        return await self.ok("GET", "/orders", token=token, params=params)

    async def statuses(self, token, order_id, **query):
        return [row["OrderStatus"] for row in await self.history(token, order_id, **query)]

    def socket(self, token, *, path="/interactive/socket.io/", query="&apiType=INTERACTIVE"):
        url = f"ws://127.0.0.1:{self.port}{path}?EIO=3&transport=websocket&token={token}&userID=X{query}"
        return connect(url, compression=None)


@asynccontextmanager
async def serving(*, settings=AT_ONCE, xts=None, flowing=False, **world_settings):
    """Give a desk; without `flowing` time stands still, prices rest and only users trade."""
    if flowing:
        world = World(settings=settings, **world_settings)
    else:
        defaults = {"start": START, "liquidity": False, "walking": False}
        world = World(settings=settings, **(defaults | world_settings))
        world.exchange.set_price(SBIN, Decimal(800))
    app = build_app(world, xts or XtsSettings())
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    clock = asyncio.create_task(world.run()) if flowing else None
    try:
        async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as http:
            yield Desk(world, runner.addresses[0][1], http)
    finally:
        if clock is not None:
            clock.cancel()
            with suppress(asyncio.CancelledError):
                await clock
        await world.shut_down()
        await runner.cleanup()


async def next_event(socket, name=None):
    """Give the next event (of that name): its name and its argument, parsed once more if it is JSON."""
    while True:
        frame = await asyncio.wait_for(socket.recv(), 5)
        if not frame.startswith("42"):
            continue
        found, argument = json.loads(frame[2:])
        if name in {None, found}:
            return found, parse(argument)


async def events_until(socket, name, status):
    """Give the events up to and with the first `name` event in `status`."""
    events = []
    while not events or (events[-1][0], events[-1][1].get("OrderStatus")) != (name, status):
        found = await next_event(socket)
        if isinstance(found[1], dict):
            events.append(found)
    return events


async def nothing_more(socket, seconds=0.05):
    """Assert that no event comes; heartbeats do not count."""
    try:
        event = await asyncio.wait_for(next_event(socket), seconds)
    except TimeoutError:
        return
    raise AssertionError(event)


async def ended(socket):
    """Wait for the end of a connection and give its close code."""
    with suppress(ConnectionClosed):
        async for _frame in socket:
            pass
    return socket.close_code


def parse(argument):
    if not isinstance(argument, str):
        return argument
    try:
        return json.loads(argument)
    except ValueError:
        return argument
