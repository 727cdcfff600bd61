"""A small XTS host whose answers and socket each test writes itself; it keeps what it was asked."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

OPEN = '0{"sid":"S1","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000}'
OPEN_4 = '0{"sid":"S1","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'
JOINED = '42["joined","Socket joined successfully!"]'

Talk = Callable[["Line"], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    token: str
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer to give; text instead of an envelope for HTML."""

    status: int = 200
    body: Any = None
    content_type: str = "application/json"


def success(result: Any, **envelope: Any) -> Reply:
    return Reply(body={"type": "success", "code": "s-x", "description": "ok", "result": result, **envelope})


def error(code: str, description: str, *, status: int = 400, **more: Any) -> Reply:
    return Reply(status=status, body={"type": "error", "code": code, "description": description, **more})


class Line:
    """The server's end of one websocket."""

    def __init__(self, socket: web.WebSocketResponse, query: dict[str, str]) -> None:
        self._socket = socket
        self.query = query
        self.heard: list[str] = []

    async def say(self, *frames: str) -> None:
        for frame in frames:
            await self._socket.send_str(frame)

    async def event(self, name: str, argument: Any, *, as_text: bool = True) -> None:
        argument = json.dumps(argument) if as_text and not isinstance(argument, str) else argument
        await self.say("42" + json.dumps([name, argument]))

    async def hear(self) -> str | None:
        """Return the client's next frame; None once it has gone."""
        message = await self._socket.receive()
        if message.type is not WSMsgType.TEXT:
            return None
        self.heard.append(message.data)
        return message.data

    async def stay(self) -> None:
        """Answer pings until the client has gone."""
        while (frame := await self.hear()) is not None:
            if frame == "2":
                await self.say("3")

    async def deaf(self) -> None:
        """Read and answer nothing until the client has gone."""
        while await self.hear() is not None:
            pass


async def welcome(line: Line) -> None:
    await line.say(OPEN, "40", JOINED)


async def stay_connected(line: Line) -> None:
    await welcome(line)
    await line.stay()


@dataclass(slots=True)
class ScriptedXts:
    """`answers` by method and path; `talk` is what the socket does. `lines` are the sockets so far."""

    answers: dict[tuple[str, str], Reply | Callable[[Asked], Reply]] = field(default_factory=dict)
    talk: Talk = stay_connected
    handshake: Reply | None = None
    """Answers socket handshakes over HTTP instead of opening them."""
    polls: list[bytes] = field(default_factory=list)
    """Answers to polling requests, in order."""
    asked: list[Asked] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    url: str = ""

    def calls(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/socket.io/"):
            return await self._socket(request)
        text = await request.text()
        asked = Asked(
            method=request.method,
            path=request.path,
            query=dict(request.query),
            token=request.headers.get("Authorization", ""),
            body=json.loads(text) if text else None,
        )
        self.asked.append(asked)
        reply = self.answers.get((request.method, request.path), Reply(status=404, body="<html>nginx</html>"))
        return _response(reply(asked) if callable(reply) else reply)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(
            Asked(method="SOCKET", path=request.path, query=dict(request.query), token="", body=None)
        )
        if self.handshake is not None:
            return _response(self.handshake)
        if request.query["transport"] == "polling":
            return web.Response(body=self.polls.pop(0), content_type="text/plain")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        line = Line(socket, dict(request.query))
        self.lines.append(line)
        try:
            await self.talk(line)
        finally:
            await socket.close()
        return socket


def _response(reply: Reply) -> web.Response:
    if isinstance(reply.body, str):
        return web.Response(status=reply.status, text=reply.body, content_type="text/html")
    return web.Response(status=reply.status, text=json.dumps(reply.body), content_type=reply.content_type)


@asynccontextmanager
async def serving(host: ScriptedXts, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedXts]:
    """Serve on a free port of loopback until the block ends."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", host.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield host
    finally:
        await runner.cleanup()


async def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Wait for a condition; the pause is how often it is looked at, not how long anything takes."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions are what a test sees from outside
            await asyncio.sleep(0.005)
