"""A Socket.IO server on aiohttp: websocket, long polling and the upgrade between them, for both server generations.

Everything runs on one event loop; no method here may be called from another thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import WSMessage, WSMsgType, web

from brokersim.engineio import (
    CLOSE,
    MAX_PAYLOAD,
    NOOP,
    PING,
    PONG,
    UPGRADE,
    Dialogue,
    Happening,
    MalformedPacketError,
    Mode,
    Outputs,
    Send,
    Timers,
    decode_payload,
    encode_payload,
    event_packet,
)

_CLOSING_FRAMES = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR})
# aiohttp ignores what clients still say once it shuts down, so their goodbyes are not waited for longer.
_FAREWELL: Final = 0.1
_ERRORS: Final = {
    0: "Transport unknown",
    1: "Session ID unknown",
    2: "Bad handshake method",
    3: "Bad request",
    4: "Forbidden",
    5: "Unsupported protocol version",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedByHttp:
    """The handshake ends with an HTTP answer instead of a session."""

    status: int = 403
    body: str = '{"code":4,"message":"Forbidden"}'
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedByMiddleware:
    """The session opens, then the namespace is refused with `44` and this text."""

    text: str


Admission = RefusedByHttp | RefusedByMiddleware | None
Admit = Callable[[web.Request], Awaitable[Admission]]


async def admit_everyone(_request: web.Request) -> Admission:
    """Let every handshake through."""
    return None


class Session:
    """One client's session, whatever carries it at the moment."""

    def __init__(self, dialogue: Dialogue, *, query: Mapping[str, str], timers: Timers) -> None:
        self.dialogue = dialogue
        self.query = dict(query)
        self.context: Any = None  # the application's own, e.g. the login behind the session
        self.closing = False
        self.ended = asyncio.Event()
        self.frozen = False
        self.reason = ""
        self.transport = "polling"
        self.upgrading = False
        self.poll: asyncio.Future[list[str]] | None = None
        self.wake = asyncio.Event()
        self.tcp: asyncio.Transport | None = None
        self._timers = timers
        self._outbox: deque[str] = deque()
        self.touch()
        self.ponged = asyncio.Event()

    @property
    def sid(self) -> str:
        """The Engine.IO session id."""
        return self.dialogue.sid

    @property
    def over(self) -> bool:
        """Whether the session is finished and forgotten."""
        return self.ended.is_set()

    @property
    def joined(self) -> bool:
        """Whether the client is in the default namespace."""
        return self.dialogue.joins > 0

    def emit(self, name: str, *arguments: object) -> bool:
        """Queue an event, once per join; False when the client is not (or no longer) there to get it."""
        packets = self.dialogue.event(name, *arguments)
        if self.over or self.closing or not packets:
            return False
        self.send(packets)
        return True

    def greet(self, name: str, *arguments: object) -> None:
        """Queue an event of the present join alone: one copy, however often the client has joined."""
        if self.joined and not self.over and not self.closing:
            self.send([event_packet(name, *arguments)])

    def send(self, packets: Iterable[str]) -> None:
        """Queue raw Engine.IO packets."""
        self._outbox.extend(packets)
        self._flush()

    def leave(self, *, close: bool = False) -> None:
        """Disconnect the client from the namespace (`41`); with `close` end the transport as well."""
        self.send(output.packet for output in self.dialogue.leave() if isinstance(output, Send))
        if close:
            self.close("server namespace disconnect")

    def close(self, reason: str = "forced server close") -> None:
        """End the session after what is queued was sent: a close frame without code, or `1` to a poll."""
        if self.closing or self.over:
            return
        self.closing, self.reason = True, reason
        if self.transport == "polling":
            self._outbox.append(CLOSE)
        self._flush()

    def drop(self) -> None:
        """Cut the connection without a word, as a dying network does."""
        self.reason = self.reason or "transport error"
        if self.tcp is not None:
            self.tcp.abort()
        else:
            self.close(self.reason)

    def freeze(self, *, frozen: bool = True) -> None:
        """Stay connected but neither speak nor listen (half-open), until thawed."""
        self.frozen = frozen
        self._flush()

    def touch(self) -> None:
        """Note that the client was heard."""
        self._heard = asyncio.get_running_loop().time()

    def silence_left(self) -> float:
        """Seconds until the patience with a silent client ends."""
        return self._heard + self._timers.patience - asyncio.get_running_loop().time()

    def drain(self) -> list[str]:
        """Take what is queued, unless frozen."""
        if self.frozen:
            return []
        packets = list(self._outbox)
        self._outbox.clear()
        return packets

    def answer_poll(self, packets: list[str]) -> None:
        """Complete the pending poll, if there is one."""
        if self.poll is not None and not self.poll.done():
            self.poll.set_result(packets)

    def _flush(self) -> None:
        self.wake.set()
        if self.poll is not None and not self.poll.done() and self._outbox and not self.frozen:
            self.poll.set_result(self.drain())


class SocketServer:
    """Serves Socket.IO at whatever routes `handle` is mounted on.

    `mode` may be changed while running; sessions keep the mode they began with. `admit` decides each handshake,
    `on_join(session)` runs at every join (a second `40` joins again) and `on_leave(session, reason)` once at the end.
    """

    def __init__(
        self,
        *,
        mode: Mode = Mode.SIO2,
        timers: Timers | None = None,
        admit: Admit = admit_everyone,
        on_join: Callable[[Session], None] = lambda _session: None,
        on_leave: Callable[[Session, str], None] = lambda _session, _reason: None,
        new_sid: Callable[[], str] = lambda: secrets.token_urlsafe(15),
    ) -> None:
        self.mode = mode
        self.timers = timers or Timers()
        self.sessions: dict[str, Session] = {}
        self._admit = admit
        self._on_join = on_join
        self._on_leave = on_leave
        self._new_sid = new_sid
        self._watchers: set[asyncio.Task[None]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one HTTP request of any client, new or known."""
        upgrade = "websocket" in request.headers.get("Upgrade", "").lower()
        code = self._objection(request, upgrade=upgrade)
        if code is not None:
            return _plain_error(code) if upgrade else _json_error(code)
        session = self.sessions.get(request.query.get("sid", ""))
        if session is None:
            return await self._handshake(request, upgrade=upgrade)
        if upgrade:
            return await self._upgrade(request, session)
        return await (self._poll(session) if request.method == "GET" else self._post(request, session))

    async def close(self) -> None:
        """End every session, politely for a tenth of a second, and wait for what runs on their behalf."""
        sessions = list(self.sessions.values())
        for session in sessions:
            session.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await asyncio.gather(*(session.ended.wait() for session in sessions))
        for session in sessions:
            session.drop()
            self._forget(session)
        for watcher in list(self._watchers):
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)

    def _objection(self, request: web.Request, *, upgrade: bool) -> int | None:
        transport, sid = request.query.get("transport"), request.query.get("sid")
        if transport not in {"polling", "websocket"}:
            return 0
        if sid is not None:
            session = self.sessions.get(sid)
            if session is None:
                return 1
            return 3 if not upgrade and session.transport != transport else None
        if request.method != "GET":
            return 2
        return 3 if transport == "websocket" and not upgrade else None

    async def _handshake(self, request: web.Request, *, upgrade: bool) -> web.StreamResponse:
        revision = self.mode.revision(request.query.get("EIO", ""))
        if revision is None:
            return await _refuse_after_101(request) if upgrade else _json_error(5)
        admission = await self._admit(request)
        if isinstance(admission, RefusedByHttp):
            return web.Response(
                status=admission.status, text=admission.body, content_type=admission.content_type
            )
        refusal = admission.text if isinstance(admission, RefusedByMiddleware) else None
        session = self._new_session(request, revision=revision, refusal=refusal)
        return await (self._open_websocket(request, session) if upgrade else self._open_polling(session))

    def _new_session(self, request: web.Request, *, revision: int, refusal: str | None) -> Session:
        dialogue = Dialogue(
            sid=self._new_sid(), mode=self.mode, revision=revision, timers=self.timers, refusal=refusal
        )
        session = Session(dialogue, query=request.query, timers=self.timers)
        self.sessions[session.sid] = session
        self._watch(self._watch_silence(session) if revision == 3 else self._beat(session))
        if revision == 4:
            self._watch(self._await_join(session))
        return session

    # ---- polling

    async def _open_polling(self, session: Session) -> web.Response:
        opening = [session.dialogue.open_packet(["websocket"])]
        welcome = session.dialogue.welcome()
        if session.dialogue.mode is Mode.SIO2 and session.dialogue.refusal is None:
            opening += [output.packet for output in welcome if isinstance(output, Send)]
            welcome = tuple(output for output in welcome if not isinstance(output, Send))
        self._apply(session, welcome)
        return _poll_answer(session, opening)

    async def _poll(self, session: Session) -> web.Response:
        if session.poll is not None:
            return self._overlap(session)
        session.poll = asyncio.get_running_loop().create_future()
        try:
            packets = session.drain()
            return _poll_answer(session, packets or await session.poll)
        finally:
            session.poll = None
            if session.closing and session.transport == "polling":
                self._forget(session)

    def _overlap(self, session: Session) -> web.Response:
        session.close("transport error")
        session.answer_poll([CLOSE])
        self._forget(session)
        return web.Response(status=500 if session.dialogue.mode is Mode.SIO2 else 400)

    async def _post(self, request: web.Request, session: Session) -> web.Response:
        body = await request.read()
        if len(body) > MAX_PAYLOAD:
            return web.Response(status=413)
        try:
            packets = decode_payload(body, session.dialogue.revision)
        except MalformedPacketError:
            session.close("parse error")
            return _post_answer(session)
        for packet in packets:
            self._receive(session, packet, polling=True)
        return _post_answer(session)

    # ---- websocket

    async def _open_websocket(self, request: web.Request, session: Session) -> web.WebSocketResponse:
        try:
            socket = await _prepare(request)
        except ConnectionError:  # gone before the answer: there is nobody whose session it could be
            session.close("transport close")
            self._forget(session)
            raise
        session.transport, session.tcp = "websocket", request.transport
        session.send([session.dialogue.open_packet([])])
        self._apply(session, session.dialogue.welcome())
        await self._carry(socket, session)
        return socket

    async def _upgrade(self, request: web.Request, session: Session) -> web.WebSocketResponse:
        socket = await _prepare(request)
        taken = session.transport == "websocket" or session.upgrading
        if not taken and await self._probe(socket, session):
            session.transport, session.tcp = "websocket", request.transport
            session.answer_poll([NOOP])
            await self._carry(socket, session)
        else:
            await _send_close(socket)
        return socket

    async def _probe(self, socket: web.WebSocketResponse, session: Session) -> bool:
        session.upgrading = True
        noops: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(self.timers.upgrade_timeout):
                if await _next_text(socket) != f"{PING}probe":
                    return False
                await socket.send_str(f"{PONG}probe")
                noops = asyncio.create_task(self._free_polls(session))
                return await _next_text(socket) == UPGRADE and not session.over
        except TimeoutError:
            return False
        finally:
            session.upgrading = False
            if noops is not None:
                noops.cancel()

    async def _free_polls(self, session: Session) -> None:
        while not session.over:
            session.answer_poll([NOOP])
            await asyncio.sleep(self.timers.noop_interval)

    async def _carry(self, socket: web.WebSocketResponse, session: Session) -> None:
        writer = asyncio.create_task(self._write(socket, session))
        try:
            while (message := await socket.receive()).type not in _CLOSING_FRAMES:
                self._receive(session, message.data)
            if message.type is WSMsgType.CLOSE and not session.closing:
                await _send_close(socket)
        finally:
            session.reason = session.reason or "transport close"
            self._forget(session)
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            if session.tcp is not None:
                session.tcp.close()

    async def _write(self, socket: web.WebSocketResponse, session: Session) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                session.wake.clear()
                for packet in session.drain():
                    await socket.send_str(packet)
                if session.closing and not session.frozen:
                    break
                if not session.wake.is_set():
                    await session.wake.wait()
            await _send_close(socket)
            await asyncio.sleep(1)  # the client's time to answer the close frame
        if session.tcp is not None:
            session.tcp.close()

    # ---- both

    def _receive(self, session: Session, packet: str | bytes, *, polling: bool = False) -> None:
        if session.frozen or session.over:
            return
        session.touch()
        if isinstance(packet, str):
            if packet.startswith(PONG):
                session.ponged.set()
            self._apply(session, session.dialogue.receive(packet, polling=polling))

    def _apply(self, session: Session, outputs: Outputs) -> None:
        for output in outputs:
            if isinstance(output, Send):
                session.send([output.packet])
            elif output is Happening.JOINED:
                self._on_join(session)
            elif output is Happening.DROP:
                session.close("parse error")
            elif output is Happening.CLOSED:
                session.reason = "transport close"
                session.answer_poll([NOOP])
                self._forget(session)

    def _forget(self, session: Session) -> None:
        if self.sessions.pop(session.sid, None) is None:
            return
        session.ended.set()
        session.ponged.set()
        session.wake.set()
        self._on_leave(session, session.reason)

    def _watch(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    async def _watch_silence(self, session: Session) -> None:
        while not session.over and (left := session.silence_left()) > 0:
            await _pause(session, left)
        await self._end(session, "ping timeout")

    async def _beat(self, session: Session) -> None:
        while await _pause(session, self.timers.ping_interval):
            session.ponged.clear()
            session.send([PING])
            try:
                async with asyncio.timeout(self.timers.ping_timeout):
                    await session.ponged.wait()
            except TimeoutError:
                return await self._end(session, "ping timeout")
        return None

    async def _await_join(self, session: Session) -> None:
        if await _pause(session, self.timers.connect_timeout) and not session.joined:
            await self._end(session, "connect timeout")

    async def _end(self, session: Session, reason: str) -> None:
        """Close; a polling client that does not come for the answer is forgotten after a while."""
        session.close(reason)
        if session.transport == "polling":
            await _pause(session, self.timers.close_timeout)
            self._forget(session)


async def _pause(session: Session, seconds: float) -> bool:
    """Sleep, but not beyond the end of the session; say whether it still lives."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await session.ended.wait()
    return not session.over


async def _prepare(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False, autoclose=False, max_msg_size=MAX_PAYLOAD)
    await socket.prepare(request)
    return socket


async def _send_close(socket: web.WebSocketResponse) -> None:
    """Send a close frame without a status code, as the Node servers do (the client sees 1005)."""
    with contextlib.suppress(ConnectionError):
        await socket.send_frame(b"", WSMsgType.CLOSE)


async def _next_text(socket: web.WebSocketResponse) -> str | None:
    message: WSMessage = await socket.receive()
    return message.data if message.type is WSMsgType.TEXT else None


async def _refuse_after_101(request: web.Request) -> web.StreamResponse:
    """Answer as socket.io 4.8 does: the upgrade first, then a raw HTTP error where frames are expected."""
    socket = await _prepare(request)
    if request.transport is not None:
        body = _ERRORS[5].encode()
        head = f"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-type: text/html\r\nContent-Length: {len(body)}"
        request.transport.write(head.encode() + b"\r\n\r\n" + body)
        request.transport.close()
    return socket


def _json_error(code: int) -> web.Response:
    body = json.dumps({"code": code, "message": _ERRORS[code]}, separators=(",", ":"))
    return web.Response(status=400, body=body.encode(), headers={"Content-Type": "application/json"})


def _plain_error(code: int) -> web.Response:
    headers = {"Content-Type": "text/html", "Connection": "close"}
    return web.Response(status=400, body=_ERRORS[code].encode(), headers=headers)


def _poll_answer(session: Session, packets: list[str]) -> web.Response:
    headers = {"Content-Type": "text/plain; charset=UTF-8", **_generation_headers(session)}
    return web.Response(body=encode_payload(packets, session.dialogue.revision).encode(), headers=headers)


def _post_answer(session: Session) -> web.Response:
    return web.Response(body=b"ok", headers={"Content-Type": "text/html", **_generation_headers(session)})


def _generation_headers(session: Session) -> dict[str, str]:
    if session.dialogue.mode is not Mode.SIO2:
        return {"Cache-Control": "no-store"}
    return {
        "Access-Control-Allow-Origin": "*",
        "Set-Cookie": f"io={session.sid}; Path=/; HttpOnly; SameSite=Strict",
    }
