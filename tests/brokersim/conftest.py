"""A Kite host in this process whose time the test moves, driven from plain functions."""

import asyncio
import contextlib
import json
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest

from brokersim.kite.rows import session_checksum
from brokersim.running import Options, Running, running
from brokersim.world import Settings, World

START = 1_786_953_200.0  # Monday 17 August 2026, 13:23:20 in India
QUICK = Settings(reply_delay=0, push_delay=0, rate_limits=False)


class Frames:
    """One WebSocket of a test."""

    def __init__(self, host: "KiteHost", ws: aiohttp.ClientWebSocketResponse) -> None:
        self._host, self.ws = host, ws

    def next(self) -> aiohttp.WSMessage:
        return self._host.run(self.ws.receive(timeout=5))

    def next_but_binary(self) -> aiohttp.WSMessage:
        async def wait() -> aiohttp.WSMessage:
            async with asyncio.timeout(5):
                while (message := await self.ws.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass
                return message

        return self._host.run(wait())

    def orders(self, count: int) -> list[dict[str, Any]]:
        texts = [self.next_but_binary() for _ in range(count)]
        assert {each.type for each in texts} <= {aiohttp.WSMsgType.TEXT}, texts
        return [json.loads(each.data)["data"] for each in texts]


class KiteHost:
    """Calls a running simulator as a user of app demokite would."""

    def __init__(self, runner: asyncio.Runner, sim: Running, client: aiohttp.ClientSession) -> None:
        self._runner, self.sim, self.client = runner, sim, client
        self._open: list[aiohttp.ClientWebSocketResponse] = []
        self.token = self.log_in("ZD0001")

    @property
    def world(self) -> World:
        return self.sim.world

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    def settings(self, **changes: Any) -> None:
        self.world.settings = replace(self.world.settings, **changes)

    def pass_time(self, seconds: float) -> None:
        async def advance() -> None:
            self.world.timeline.advance_by(seconds)

        self.run(advance())

    def log_in(self, user: str, api_key: str = "demokite") -> str:
        form = {"api_key": api_key, "user_id": user, "password": "demo"}
        request_token = self.redirected("/connect/login", form)["request_token"]
        checksum = session_checksum(api_key, request_token, f"{api_key}-secret")
        form = {"api_key": api_key, "request_token": request_token, "checksum": checksum}
        status, body = self.raw("POST", "/session/token", data=form)
        assert status == 200, body
        return str(body["data"]["access_token"])

    def redirected(self, path: str, form: dict[str, str]) -> dict[str, str]:
        async def call() -> str:
            url = self.sim.kite_url + path
            async with self.client.post(url, data=form, allow_redirects=False) as answer:
                return answer.headers["Location"]

        return dict(parse_qsl(urlsplit(self.run(call())).query))

    def raw(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async def call() -> tuple[int, Any]:
            async with self.client.request(method, self.sim.kite_url + path, **options) as answer:
                if answer.content_type == "application/json":
                    return answer.status, await answer.json()
                return answer.status, await answer.text()

        return self.run(call())

    def call(self, method: str, path: str, *, token: str = "", **options: Any) -> tuple[int, Any]:
        headers = {"X-Kite-Version": "3", "Authorization": f"token demokite:{token or self.token}"}
        return self.raw(method, path, headers=headers, **options)

    def data(self, method: str, path: str, **options: Any) -> Any:
        status, body = self.call(method, path, **options)
        assert status == 200, body
        return body["data"]

    def place(self, variety: str = "regular", **form: Any) -> str:
        return str(self.data("POST", f"/orders/{variety}", data=order_form(**form))["order_id"])

    def refused(self, variety: str = "regular", **form: Any) -> tuple[int, str, str]:
        status, body = self.call("POST", f"/orders/{variety}", data=order_form(**form))
        return status, body["error_type"], body["message"]

    def order(self, order_id: str) -> dict[str, Any]:
        return next(row for row in self.data("GET", "/orders") if row["order_id"] == order_id)

    def history(self, order_id: str) -> list[dict[str, Any]]:
        return list(self.data("GET", f"/orders/{order_id}"))

    def control(self, method: str, path: str, **body: Any) -> Any:
        async def call() -> Any:
            async with self.client.request(method, self.sim.control_url + path, json=body) as answer:
                return await answer.json()

        return self.run(call())

    def socket(self, token: str = "", api_key: str = "demokite") -> Frames:
        query = f"/?api_key={api_key}&access_token={token or self.token}"
        ws = self.run(self.client.ws_connect(self.sim.kite_url + query))
        self._open.append(ws)
        return Frames(self, ws)

    async def close(self) -> None:
        for ws in self._open:
            await ws.close()


def order_form(**changes: Any) -> dict[str, str]:
    form = {
        "exchange": "NSE",
        "tradingsymbol": "SBIN",
        "transaction_type": "BUY",
        "quantity": 10,
        "product": "CNC",
        "order_type": "LIMIT",
        "price": 800,
        "validity": "DAY",
    } | changes
    return {key: str(value) for key, value in form.items() if value is not None}


@pytest.fixture
def kite() -> Iterator[KiteHost]:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()

        async def start() -> tuple[Running, aiohttp.ClientSession]:
            world = World(seed=7, settings=QUICK, start=START, walking=False)
            sim = await stack.enter_async_context(running(Options(), world=world))
            client = await stack.enter_async_context(aiohttp.ClientSession())
            return sim, client

        sim, client = runner.run(start())
        host = KiteHost(runner, sim, client)
        yield host
        runner.run(host.close())
        runner.run(stack.aclose())
