"""A line to a broker that can be listened to, cut and lied on: a relay for HTTP/1.1 and WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

_HEAD_BYTES = 2**20
_GONE = (ConnectionError, asyncio.IncompleteReadError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the adapter asked."""

    method: str
    path: str
    """Query included."""
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case."""
    body: bytes = field(repr=False, default=b"")

    @property
    def upgrade(self) -> bool:
        """Whether a WebSocket was asked for."""
        return "upgrade" in self.headers.get("connection", "").lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What the adapter gets."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case; Content-Length is added."""


Forward = Callable[[], Awaitable[Response]]
Answer = Callable[[Request, Forward], Awaitable[Response | None]]
"""What becomes of a request: a response of the broker's (`await forward()`) or of our own; None cuts the line."""


async def relayed(_request: Request, forward: Forward) -> Response | None:
    """Let the broker answer."""
    return await forward()


async def cut(_request: Request, _forward: Forward) -> Response | None:
    """End the connection once the request was read; the broker never sees it."""
    return None


async def silent(_request: Request, _forward: Forward) -> Response | None:
    """Read the request and never answer."""
    await asyncio.Event().wait()
    return None


def instead(status: int, body: bytes, **headers: str) -> Answer:
    """Answer in the broker's stead; it never sees the request. `_` in a header's name stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = Response(status=status, body=body, headers={"content-type": "application/json", **named})
    return replayed(response)


def replayed(response: Response) -> Answer:
    """Answer every request with this response."""

    async def answer(_request: Request, _forward: Forward) -> Response | None:
        return response

    return answer


def rewritten(change: Callable[[bytes], bytes]) -> Answer:
    """Let the broker answer, and change the body on its way."""

    async def answer(_request: Request, forward: Forward) -> Response | None:
        response = await forward()
        return replace(response, body=change(response.body))

    return answer


class Line:
    """Stands between an adapter and a broker, at an address of its own for each of the broker's; on one loop.

    Addresses that the broker itself names in its replies are not led through it.
    """

    def __init__(self) -> None:
        self.answer: Answer = relayed
        """What becomes of requests; replace it at any time."""
        self.handshake: Answer | None = None
        """What becomes of WebSocket handshakes; None: they are led to the broker."""
        self.requests: list[Request] = []
        """Every request that came, handshakes excluded."""
        self.handshakes: list[Request] = []
        self.responses: list[Response] = []
        """Every response that was given to a request."""
        self.streams: set[_Stream] = set()
        """The WebSockets that are open."""
        self._servers: dict[str, asyncio.Server] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers.values():
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers.values():
            await server.wait_closed()

    async def lead(self, addresses: Mapping[str, str]) -> dict[str, str]:
        """Return the addresses with those that are URLs led through this line."""
        return {
            name: await self._through(text) if "://" in text else text for name, text in addresses.items()
        }

    def stall(self) -> None:
        """Relay nothing more of what the broker says on open streams: half-open."""
        for stream in self.streams:
            stream.stalled = True

    def cut_streams(self) -> None:
        """End every open stream without a word."""
        for stream in list(self.streams):
            stream.client.transport.abort()

    def inject(self, text: str) -> None:
        """Say this on every open stream, between two frames of the broker's."""
        for stream in self.streams:
            stream.client.write(_text_frame(text.encode()))

    def forget(self) -> None:
        """Begin to count anew."""
        self.requests.clear()
        self.handshakes.clear()
        self.responses.clear()

    # --- underneath -----------------------------------------------------------------------------------

    async def _through(self, address: str) -> str:
        parts = urlsplit(address)
        if parts.netloc not in self._servers:
            upstream = _Upstream.of(address)

            def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = asyncio.create_task(self._serve(upstream, reader, writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

            self._servers[parts.netloc] = await asyncio.start_server(serve, "127.0.0.1", 0, limit=_HEAD_BYTES)
        port = self._servers[parts.netloc].sockets[0].getsockname()[1]
        scheme = "ws" if parts.scheme.startswith("ws") else "http"
        return urlunsplit((scheme, f"127.0.0.1:{port}", parts.path, parts.query, parts.fragment))

    async def _serve(
        self, upstream: _Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            request = await _read_request(reader)
            while not request.upgrade:
                response = await self._exchange(request, upstream)
                if response is None:
                    return
                await _give(writer, response)
                request = await _read_request(reader)
            if self.handshake is None:
                self.handshakes.append(request)
                await self._splice(request, upstream, reader, writer)
            else:
                self.handshakes.append(request)
                refused = await self.handshake(request, _nothing_to_forward)
                if refused is not None:
                    await _give(writer, refused)
        except _GONE:
            pass
        finally:
            writer.close()
            with suppress(*_GONE):
                await writer.wait_closed()

    async def _exchange(self, request: Request, upstream: _Upstream) -> Response | None:
        self.requests.append(request)
        response = await self.answer(request, lambda: _forward(request, upstream))
        if response is not None:
            self.responses.append(response)
        return response

    async def _splice(
        self,
        request: Request,
        upstream: _Upstream,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        broker_reader, broker_writer = await upstream.dial()
        stream = _Stream(client=writer)
        try:
            broker_writer.write(_request_bytes(request, upstream))
            head = await broker_reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            taken = head.split(b" ", 2)[1] == b"101"
            if taken:
                self.streams.add(stream)
            ways = {
                asyncio.ensure_future(_pump(reader, broker_writer)),
                asyncio.ensure_future(stream.relay(broker_reader) if taken else _pump(broker_reader, writer)),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self.streams.discard(stream)
            broker_writer.close()
            with suppress(*_GONE):
                await broker_writer.wait_closed()


@dataclass(eq=False, slots=True)
class _Stream:
    """One WebSocket that is relayed."""

    client: asyncio.StreamWriter
    stalled: bool = False

    async def relay(self, broker: asyncio.StreamReader) -> None:
        while True:
            frame = await _read_frame(broker)
            if not self.stalled:
                self.client.write(frame)
                await self.client.drain()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Upstream:
    host: str
    port: int
    netloc: str
    tls: bool

    @classmethod
    def of(cls, address: str) -> _Upstream:
        parts = urlsplit(address)
        tls = parts.scheme in {"https", "wss"}
        return cls(
            host=parts.hostname or "",
            port=parts.port or (443 if tls else 80),
            netloc=parts.netloc,
            tls=tls,
        )

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port, ssl=self.tls or None, limit=_HEAD_BYTES)


async def _nothing_to_forward() -> Response:
    raise NotImplementedError("a handshake is led to the broker by leaving Line.handshake None")


async def _forward(request: Request, upstream: _Upstream) -> Response:
    reader, writer = await upstream.dial()
    try:
        writer.write(_request_bytes(request, upstream))
        return await _read_response(reader)
    finally:
        writer.close()
        with suppress(*_GONE):
            await writer.wait_closed()


def _request_bytes(request: Request, upstream: _Upstream) -> bytes:
    changed = {"host": upstream.netloc}
    if not request.upgrade:
        changed |= {"connection": "close", "accept-encoding": "identity"}
    headers = {**request.headers, **changed}
    lines = [
        f"{request.method} {request.path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + request.body


async def _read_request(reader: asyncio.StreamReader) -> Request:
    first, headers = await _read_head(reader)
    method, path, _ = first.split(" ", 2)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method=method, path=path, headers=headers, body=body)


async def _read_response(reader: asyncio.StreamReader) -> Response:
    first, headers = await _read_head(reader)
    if headers.pop("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunks(reader)
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers.pop("content-length")))
    else:
        body = await reader.read()
    headers.pop("connection", None)
    return Response(status=int(first.split(" ")[1]), body=body, headers=headers)


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
    pairs = (line.partition(":") for line in rest)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        size = int((await reader.readline()).split(b";")[0], 16)
        body += (await reader.readexactly(size + 2))[:-2]
        if not size:
            return body


async def _give(writer: asyncio.StreamWriter, response: Response) -> None:
    headers = {**response.headers, "content-length": str(len(response.body))}
    lines = [
        f"HTTP/1.1 {response.status} Answer",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + response.body)
    await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    """Read one WebSocket frame of a server (RFC 6455 §5.2: not masked)."""
    head = await reader.readexactly(2)
    size = head[1] & 0x7F
    if size >= 126:
        more = await reader.readexactly(2 if size == 126 else 8)
        head, size = head + more, int.from_bytes(more, "big")
    return head + await reader.readexactly(size)


def _text_frame(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes([0x81, size]) + payload
    return bytes([0x81, 126]) + size.to_bytes(2, "big") + payload
