"""Paisa on the desk: a small broker with one exchange, written from Paisa's (imaginary) documents."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import count
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

IST = timezone(timedelta(hours=5, minutes=30))
KEY, PIN = "paisa-key", "paisa-pin-1234"
SCRIPS = [
    {"seg": "NSE", "scrip": "SBIN-E", "symbol": "SBIN", "token": 3045},
    {"seg": "NSE", "scrip": "INFY-E", "symbol": "INFY", "token": 1594},
]


class RefusedError(Exception):
    """Paisa says no: HTTP status, code, text."""


class Paisa:
    """One client's books. `orders` holds each order's states, oldest first."""

    def __init__(self) -> None:
        self.orders: dict[str, list[dict[str, Any]]] = {}
        self.trades: list[dict[str, Any]] = []
        self.tokens: set[str] = set()
        self.sockets: set[web.WebSocketResponse] = set()
        self._numbers = count(1)

    def log_in(self, body: dict[str, Any]) -> dict[str, Any]:
        if (body.get("key"), body.get("pin")) != (KEY, PIN):
            raise RefusedError(401, "E-SESSION", "Key or PIN is wrong")
        token = f"paisa-token-{next(self._numbers)}"
        self.tokens.add(token)
        return {"client": "PA1001", "token": token, "valid_till": _now(timedelta(hours=12))}

    async def place(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["scrip"] not in {scrip["scrip"] for scrip in SCRIPS} or body["qty"] < 1:
            raise RefusedError(422, "E-REFUSED", "Unknown scrip, or a quantity below 1")
        number = f"P{next(self._numbers)}"
        order = {"no": number, "done": 0, "avg": "0", "why": "", **body}
        self.orders[number] = []
        await self._move(order, state="RECEIVED")
        await self._move(order, state="WAITING" if body["kind"] in {"SL", "SM"} else "WORKING")
        if body["kind"] == "M":
            await self.fill(number, body["qty"], price="820.00")
        return {"no": number}

    async def modify(self, number: str, body: dict[str, Any]) -> dict[str, Any]:
        await self._move(self._live(number), **body)
        return {"no": number}

    async def cancel(self, number: str) -> dict[str, Any]:
        await self._move(self._live(number), state="CANCELLED")
        return {"no": number}

    async def fill(self, number: str, quantity: int, *, price: str = "") -> None:
        order = self._live(number)
        price = price or order["limit"]
        terms = {name: order[name] for name in ("no", "seg", "scrip", "side", "prod")}
        execution = {"id": f"T{next(self._numbers)}", "qty": quantity, "price": price, "at": _now(), **terms}
        self.trades.append(execution)
        done = order["done"] + quantity
        spent = Decimal(order["avg"]) * order["done"] + Decimal(price) * quantity
        state = "DONE" if done == order["qty"] else "WORKING"
        await self._move(order, done=done, avg=str(spent / done), state=state)
        await self._push({"trade": execution})
        for position in self.positions():
            await self._push({"position": position})

    def positions(self) -> list[dict[str, Any]]:
        net: dict[tuple[str, str, str], int] = {}
        for each in self.trades:
            key = (each["seg"], each["scrip"], each["prod"])
            net[key] = net.get(key, 0) + each["qty"] * (1 if each["side"] == "B" else -1)
        return [{"seg": seg, "scrip": scrip, "prod": prod, "net": n} for (seg, scrip, prod), n in net.items()]

    async def end_sessions(self) -> None:
        self.tokens.clear()
        for socket in list(self.sockets):
            await socket.close(code=4401)

    def _live(self, number: str) -> dict[str, Any]:
        order = self.orders.get(number, [{"state": "unknown"}])[-1]
        if order["state"] not in {"WORKING", "WAITING"}:
            raise RefusedError(409, "E-REFUSED", f"The order is {order['state']}")
        return order

    async def _move(self, order: dict[str, Any], **changes: Any) -> None:
        self.orders[order["no"]].append({**order, **changes, "at": _now()})
        order.update(changes)
        await self._push({"order": self.orders[order["no"]][-1]})

    async def _push(self, message: dict[str, Any]) -> None:
        for socket in list(self.sockets):
            await socket.send_json(message)

    # --- its doors ------------------------------------------------------------------------------------

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._doorman])
        app.add_routes(
            [
                web.post("/v1/login", self._on_login),
                web.post("/v1/orders", self._on_place),
                web.put("/v1/orders/{no}", self._on_modify),
                web.delete("/v1/orders/{no}", self._on_cancel),
                web.get("/v1/orders/{no}/log", self._on_log),
                web.get("/v1/stream", self._on_stream),
                web.get("/v1/{book}", self._on_book),
                web.post("/desk/fill", self._on_fill),
            ]
        )
        app.on_shutdown.append(self._close)
        return app

    @web.middleware
    async def _doorman(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            self._let_in(request)
            result = await handler(request)
        except RefusedError as refusal:
            status, code, text = refusal.args
            return web.json_response({"error": {"code": code, "text": text}}, status=status)
        return result if isinstance(result, web.StreamResponse) else web.json_response({"ok": result})

    def _let_in(self, request: web.Request) -> None:
        open_to_all = {"/v1/login", "/v1/stream", "/desk/fill"}
        if request.path not in open_to_all and request.headers.get("X-Paisa-Token") not in self.tokens:
            raise RefusedError(401, "E-SESSION", "The session has ended")

    async def _on_login(self, request: web.Request) -> Any:
        return self.log_in(await request.json())

    async def _on_place(self, request: web.Request) -> Any:
        return await self.place(await request.json())

    async def _on_modify(self, request: web.Request) -> Any:
        return await self.modify(request.match_info["no"], await request.json())

    async def _on_cancel(self, request: web.Request) -> Any:
        return await self.cancel(request.match_info["no"])

    async def _on_log(self, request: web.Request) -> Any:
        return self.orders.get(request.match_info["no"], [])

    async def _on_fill(self, request: web.Request) -> Any:
        body = await request.json()
        await self.fill(body["no"], body["qty"])
        return {}

    async def _on_book(self, request: web.Request) -> Any:
        books: dict[str, Any] = {
            "orders": [states[-1] for states in self.orders.values()],
            "trades": self.trades,
            "positions": self.positions(),
            "holdings": [{"seg": "NSE", "scrip": "INFY-E", "qty": 20, "avg": "1500"}],
            "funds": {"free": "1000000", "used": "0"},
            "scrips": SCRIPS,
        }
        return books[request.match_info["book"]]

    async def _on_stream(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        greeting = await socket.receive_json()
        if greeting.get("token") not in self.tokens:
            await socket.close(code=4401)
            return socket
        await socket.send_json({"hello": "PA1001"})
        self.sockets.add(socket)
        beats = asyncio.create_task(self._beat(socket))
        try:
            while (await socket.receive()).type not in {WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED}:
                pass
        finally:
            beats.cancel()
            self.sockets.discard(socket)
        return socket

    async def _beat(self, socket: web.WebSocketResponse) -> None:
        while not socket.closed:
            await socket.send_json({"beat": _now()})
            await asyncio.sleep(1)

    async def _close(self, _app: web.Application) -> None:
        for socket in list(self.sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)


def _now(later: timedelta = timedelta()) -> str:
    return (datetime.now(IST) + later).isoformat(timespec="milliseconds")


@asynccontextmanager
async def running_paisa() -> AsyncIterator[tuple[Paisa, str]]:
    """Run a broker without orders on a free port; yields it and its address."""
    paisa = Paisa()
    runner = web.AppRunner(paisa.app(), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield paisa, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def main() -> None:
    """Serve until standard input ends; the first line says where."""
    async with running_paisa() as (_paisa, address):
        print(json.dumps({"api": address, "key": KEY, "pin": PIN}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
