"""A line to a broker on which everything can go wrong: HTTP/1.1 and WebSocket on their way, bytes and all.

The switches of `faults` work inside the brokers, where the truth is known; these work between a broker and its
client, where the network is: a request that arrived and was never answered, a reply that stops in the middle, a
connection that is reset, a stream that is open and dead. Any server on this machine can be behind it.
"""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections import deque
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from brokersim.faults import Fault, FaultBoard, FaultKind, Situation

CHANNEL: Final = "wire"
LOOPBACK: Final = "127.0.0.1"
_HEAD_BYTES: Final = 1 << 20
_NOISE: Final = b"#~?"
_FAREWELL: Final = 0.3
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_GONE: Final = (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError)
_TEXT, _BINARY = 1, 2
_OPCODES: Final = {0: "more", _TEXT: "text", _BINARY: "binary", 8: "close", 9: "ping", 10: "pong"}
_ANSWERS: Final = (FaultKind.UNAUTHORIZED, FaultKind.RATE_LIMIT, FaultKind.SERVER_ERROR)
_ENDS: Final = (FaultKind.RESET, FaultKind.BLACK_HOLE)
_REASONS: Final = {
    401: "Unauthorized",
    403: "Forbidden",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


class _CutError(Exception):
    """The connection is to end here, without another word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The first line and the headers of a message, names in lower case."""

    first: str
    headers: Mapping[str, str]

    @property
    def request(self) -> str:
        """Method and path without the query, as fault switches name them: `POST /orders/regular`."""
        method, path, _ = self.first.split(" ", 2)
        return f"{method} {path.partition('?')[0]}"

    @property
    def upgrade(self) -> bool:
        """Whether it asks for a WebSocket."""
        return "upgrade" in self.headers.get("connection", "").lower()

    def encoded(self, **changes: str) -> bytes:
        """Write it, with some headers replaced; `_` stands for `-`, an empty value removes."""
        given = {name.replace("_", "-"): value for name, value in changes.items()}
        headers = {name: value for name, value in {**self.headers, **given}.items() if value}
        lines = [self.first, *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclass(frozen=True, slots=True)
class Frame:
    """One WebSocket frame from the broker."""

    first: int
    payload: bytes

    @property
    def kind(self) -> str:
        """Its opcode in a word."""
        return _OPCODES.get(self.first & 0x0F, "unknown")

    def encoded(self) -> bytes:
        """Write it as a server does: not masked (RFC 6455 §5.2)."""
        size = len(self.payload)
        if size < 126:
            return bytes([self.first, size]) + self.payload
        if size < 1 << 16:
            return bytes([self.first, 126]) + size.to_bytes(2, "big") + self.payload
        return bytes([self.first, 127]) + size.to_bytes(8, "big") + self.payload


@dataclass(slots=True, kw_only=True)
class Proxy:
    """One line: an address of its own in front of a server on this machine."""

    name: str
    host: str
    port: int
    board: FaultBoard
    rng: Random
    url: str = ""
    """Where clients dial; a WebSocket dials the same with ws://."""
    counts: dict[str, int] = field(default_factory=dict)
    """What came so far: `connections`, `requests`, `streams`, `frames`."""
    streams_at: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))
    """When each of the last WebSockets was asked for, in seconds since the epoch."""
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        """Listen on a free port of the loopback address."""
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0, limit=_HEAD_BYTES)
        self.url = f"http://{LOOPBACK}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """End every connection and listen no more."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def described(self) -> dict[str, Any]:
        """Describe it for the control API."""
        return {
            "name": self.name,
            "url": self.url,
            "target": f"{self.host}:{self.port}",
            "counts": self.counts,
            "streams_at": list(self.streams_at),
        }

    # --- one connection ----------------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count("connections")
        try:
            await self._end_if(self._first("connect", *_ENDS), writer)
            while True:
                head, body = await _read_request(reader)
                if head.upgrade:
                    await self._stream(head, reader, writer)
                    return
                await self._request(head, body, writer)
        except (_CutError, *_GONE):
            pass
        finally:
            writer.close()
            with contextlib.suppress(*_GONE, TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await writer.wait_closed()
            writer.transport.abort()

    async def _end_if(self, fault: Fault | None, writer: asyncio.StreamWriter) -> None:
        if fault is None:
            return
        if fault.kind is FaultKind.BLACK_HOLE:
            await asyncio.Event().wait()
        reset(writer)
        raise _CutError

    # --- requests ----------------------------------------------------------------------------------------

    async def _request(self, head: Head, body: bytes, writer: asyncio.StreamWriter) -> None:
        self._count("requests")
        what = head.request
        await self._pause(self._first(what, FaultKind.DELAY))
        answer, end = self._first(what, *_ANSWERS), self._first(what, *_ENDS)
        fault = answer or end
        if fault is None or fault.params.get("done", False):
            reply = await self._forward(head, body)
            if self._first(what, FaultKind.DUPLICATE):
                reply = await self._forward(head, body)
        await self._end_if(end if answer is None else None, writer)
        if answer is not None:
            reply = _instead(answer)
        await self._give(what, reply, writer)

    async def _forward(self, head: Head, body: bytes) -> tuple[Head, bytes]:
        reader, writer = await asyncio.open_connection(self.host, self.port, limit=_HEAD_BYTES)
        try:
            host = f"{self.host}:{self.port}"
            writer.write(head.encoded(host=host, connection="close", accept_encoding="identity") + body)
            return await _read_response(reader)
        finally:
            writer.close()

    async def _give(self, what: str, reply: tuple[Head, bytes], writer: asyncio.StreamWriter) -> None:
        head, body = reply
        if self._first(what, FaultKind.CORRUPT):
            body = self._corrupted(body)
        whole = head.encoded(content_length=str(len(body)), transfer_encoding="", connection="") + body
        if fault := self._first(what, FaultKind.SLOW_LORIS):
            await self._dribble(whole, fault, writer)
        elif fault := self._first(what, FaultKind.TRUNCATE):
            writer.write(whole[: len(whole) - len(body) + int(len(body) * _keep(fault))])
            await writer.drain()
            raise _CutError
        else:
            writer.write(whole)
            await writer.drain()

    # --- streams -----------------------------------------------------------------------------------------

    async def _stream(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count("streams")
        self.streams_at.append(time.time())
        what = f"upgrade {head.request.partition(' ')[2]}"
        await self._pause(self._first(what, FaultKind.DELAY))
        await self._end_if(self._first(what, *_ENDS), writer)
        if fault := self._first(what, FaultKind.REFUSE_HANDSHAKE):
            await self._give(what, _instead(fault), writer)
            raise _CutError
        broker_reader, broker_writer = await asyncio.open_connection(self.host, self.port, limit=_HEAD_BYTES)
        try:
            host = f"{self.host}:{self.port}"
            broker_writer.write(head.encoded(host=host, sec_websocket_extensions=""))
            answer = await broker_reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            taken = answer.split(b" ", 2)[1] == b"101"
            down = self._frames if taken else _pump
            await _first_of(down(broker_reader, writer), _pump(reader, broker_writer))
        finally:
            broker_writer.close()

    async def _frames(self, broker: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held: tuple[Frame, float] | None = None
        while True:
            frame = await _next_frame(broker, patience=held[1] if held else None)
            if frame is None and held is not None:
                writer.write(held[0].encoded())
                held = None
                continue
            if frame is None:
                return
            self._count("frames")
            what = f"frame {frame.kind}"
            await self._end_if(self._first(what, *_ENDS), writer)
            await self._pause(self._first(what, FaultKind.DELAY))
            if self._first(what, FaultKind.DROP):
                continue
            frame = self._changed(what, frame)
            fault = self._first(what, FaultKind.REORDER) if held is None else None
            if fault is not None:
                held = (frame, float(fault.params.get("wait", 1.0)))
                continue
            await self._say(what, frame, writer)
            if held is not None:
                await self._say(what, held[0], writer)
                held = None

    def _changed(self, what: str, frame: Frame) -> Frame:
        if fault := self._first(what, FaultKind.TRUNCATE):
            frame = Frame(frame.first, frame.payload[: int(len(frame.payload) * _keep(fault))])
        if self._first(what, FaultKind.CORRUPT):
            frame = Frame(frame.first, self._corrupted(frame.payload))
        return frame

    async def _say(self, what: str, frame: Frame, writer: asyncio.StreamWriter) -> None:
        fault = self._first(what, FaultKind.DUPLICATE)
        for _ in range(int(fault.params.get("times", 2)) if fault else 1):
            if slow := self._first(what, FaultKind.SLOW_LORIS):
                await self._dribble(frame.encoded(), slow, writer)
            else:
                writer.write(frame.encoded())
                await writer.drain()

    async def _dribble(self, data: bytes, fault: Fault, writer: asyncio.StreamWriter) -> None:
        """Write so slowly (`rate` bytes a second, 10) that a reader without a deadline waits for ever.

        What is left when the fault is switched off is written at once.
        """
        pause = 1.0 / float(fault.params.get("rate", 10))
        for at in range(len(data)):
            if not self.board.is_on(fault.id):
                writer.write(data[at:])
                break
            writer.write(data[at : at + 1])
            await writer.drain()
            await asyncio.sleep(pause)
        await writer.drain()

    # --- faults ------------------------------------------------------------------------------------------

    def _first(self, operation: str, *kinds: FaultKind) -> Fault | None:
        return self.board.first(Situation(broker=self.name, channel=CHANNEL, operation=operation), *kinds)

    async def _pause(self, fault: Fault | None) -> None:
        if fault is not None:
            await asyncio.sleep(fault.seconds(1.0))

    def _corrupted(self, body: bytes) -> bytes:
        spoilt = bytearray(body)
        for _ in range(3 if spoilt else 0):
            spoilt[self.rng.randrange(len(spoilt))] = self.rng.choice(_NOISE)
        return bytes(spoilt)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


class Proxies:
    """Every line that was laid, by name. On one loop."""

    def __init__(self, board: FaultBoard) -> None:
        """The board's switches strike on channel `wire` with the line's name as broker."""
        self._board = board
        self._proxies: dict[str, Proxy] = {}
        self.targets: dict[str, tuple[str, int]] = {}
        """Names for servers: `kite`, `xts`."""

    async def add(self, target: str, name: str = "") -> Proxy:
        """Lay a line to `kite`, `xts` or 127.0.0.1:port; its name is the target's unless given.

        Raises ValueError for a target off this machine or a name that is taken.
        """
        host, port = self.targets.get(target) or _address(target)
        name = name or target
        if name in self._proxies:
            raise ValueError(f"there is a proxy {name!r} already")
        proxy = Proxy(name=name, host=host, port=port, board=self._board, rng=Random(port))  # noqa: S311 - noise
        self._proxies[name] = proxy
        await proxy.start()
        return proxy

    def all(self) -> list[Proxy]:
        """List them."""
        return list(self._proxies.values())

    async def remove(self, name: str) -> bool:
        """Cut a line; False when there is none of that name."""
        proxy = self._proxies.pop(name, None)
        if proxy is not None:
            await proxy.stop()
        return proxy is not None

    async def stop(self) -> None:
        """Cut every line."""
        for name in list(self._proxies):
            await self.remove(name)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST, as a crashed machine or a firewall does."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()


def _address(target: str) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    if host not in {LOOPBACK, "localhost"} or not port.isdigit():
        raise ValueError(f"target must be kite, xts or {LOOPBACK}:port, not {target!r}")
    return LOOPBACK, int(port)


def _keep(fault: Fault) -> float:
    return float(fault.params.get("keep", 0.5))


def _instead(fault: Fault) -> tuple[Head, bytes]:
    """Answer in the broker's stead; `status`, `retry_after` and `body` are the fault's parameters."""
    usual = {FaultKind.RATE_LIMIT: 429, FaultKind.SERVER_ERROR: 503}.get(fault.kind, 403)
    status = int(fault.params.get("status", usual))
    body = fault.params.get("body", {"status": "error", "message": _REASONS.get(status, "Error")})
    text = body if isinstance(body, str) else json.dumps(body)
    headers = {"content-type": "application/json" if not isinstance(body, str) else "text/html"}
    if "retry_after" in fault.params:
        headers["retry-after"] = str(fault.params["retry_after"])
    headers["content-length"] = str(len(text.encode()))
    return Head(first=f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}", headers=headers), text.encode()


async def _first_of(*works: Awaitable[None]) -> None:
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()


async def _next_frame(reader: asyncio.StreamReader, *, patience: float | None) -> Frame | None:
    """Read one frame; None when the line ended, or nothing began within `patience` seconds."""
    try:
        async with asyncio.timeout(patience):
            first = await reader.readexactly(1)
    except (TimeoutError, asyncio.IncompleteReadError):
        return None
    size = (await reader.readexactly(1))[0] & 0x7F
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return Frame(first[0], await reader.readexactly(size))


async def _read_head(reader: asyncio.StreamReader) -> Head:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
    pairs = (line.partition(":") for line in lines[1:])
    return Head(first=lines[0], headers={name.strip().lower(): value.strip() for name, _, value in pairs})


async def _read_request(reader: asyncio.StreamReader) -> tuple[Head, bytes]:
    head = await _read_head(reader)
    return head, await _read_body(head, reader, endless=False)


async def _read_response(reader: asyncio.StreamReader) -> tuple[Head, bytes]:
    head = await _read_head(reader)
    return head, await _read_body(head, reader, endless=True)


async def _read_body(head: Head, reader: asyncio.StreamReader, *, endless: bool) -> bytes:
    if head.headers.get("transfer-encoding", "").lower() == "chunked":
        return await _read_chunks(reader)
    if "content-length" in head.headers:
        return await reader.readexactly(int(head.headers["content-length"]))
    return await reader.read() if endless else b""


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body
