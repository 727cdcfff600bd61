from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import httpx2
import pytest
from aiohttp import WSMsgType, web
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from orderwire.brokers.http import open_client
from orderwire.testing import Line, Response, cut, instead, replayed, rewritten, silent
from orderwire.testing.line import relayed


async def echo(request):
    return web.Response(text=f"{request.method} {request.path_qs} {await request.text()}")


async def chunks(request):
    reply = web.StreamResponse(headers={"X-Kind": "chunks"})
    reply.enable_chunked_encoding()
    await reply.prepare(request)
    for piece in (b"one ", b"two"):
        await reply.write(piece)
    await reply.write_eof()
    return reply


async def socket(request):
    if request.query.get("token") == "bad":
        return web.Response(status=403, text="no")
    stream = web.WebSocketResponse()
    await stream.prepare(request)
    async for message in stream:
        if message.type is WSMsgType.TEXT:
            await stream.send_str(message.data * int(request.query.get("times", "1")))
    return stream


@asynccontextmanager
async def broker():
    app = web.Application()
    app.add_routes(
        [web.get("/chunks", chunks), web.get("/socket", socket), web.route("*", "/{rest:.*}", echo)]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def told(story):
    """Run a story of a line, an HTTP client and the addresses led through the line."""

    async def run():
        async with broker() as root, Line() as line, open_client() as client:
            led = await line.lead({"api": f"{root}/v1", "stream": root.replace("http", "ws"), "word": "auto"})
            return await story(line, client, led)

    return asyncio.run(asyncio.wait_for(run(), 10))


def test_addresses_are_led_through_one_port_and_words_are_left():
    async def story(line, client, led):
        return led

    led = told(story)

    assert led["word"] == "auto"
    assert led["api"].startswith("http://127.0.0.1:")
    assert led["api"].endswith("/v1")
    assert led["stream"] == led["api"].removesuffix("/v1").replace("http", "ws")


def test_requests_are_relayed_and_remembered():
    async def story(line, client, led):
        replies = [await client.post(f"{led['api']}/a?b=c", content=b"body"), await client.get(led["api"])]
        return [reply.text for reply in replies], line.requests, line.responses

    texts, requests, responses = told(story)

    assert texts == ["POST /v1/a?b=c body", "GET /v1 "]
    assert [(each.method, each.path, each.body) for each in requests] == [
        ("POST", "/v1/a?b=c", b"body"),
        ("GET", "/v1", b""),
    ]
    assert responses[0].body == b"POST /v1/a?b=c body"
    assert "date" in responses[0].headers


def test_a_reply_in_pieces_is_put_together():
    async def story(line, client, led):
        return await client.get(led["api"].removesuffix("/v1") + "/chunks")

    reply = told(story)

    assert (reply.text, reply.headers["x-kind"]) == ("one two", "chunks")


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (relayed, 200, b"GET /v1 "),
        (instead(429, b"{}", retry_after="3"), 429, b"{}"),
        (replayed(Response(status=200, body=b"again")), 200, b"again"),
        (rewritten(bytes.lower), 200, b"get /v1 "),
    ],
)
def test_an_answer_can_be_replaced(answer, status, body):
    async def story(line, client, led):
        line.answer = answer
        return [await client.get(led["api"]) for _ in range(2)]

    for reply in told(story):
        assert (reply.status_code, reply.content) == (status, body)
        assert reply.headers.get("retry-after") == ("3" if status == 429 else None)


def test_a_cut_line_is_a_lost_connection():
    async def story(line, client, led):
        await client.get(led["api"])
        line.answer = cut
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get(led["api"])
        return len(line.requests)

    assert told(story) == 2


def test_a_silent_line_says_nothing():
    async def story(line, client, led):
        line.answer = silent
        with pytest.raises(httpx2.ReadTimeout):
            await client.get(led["api"], timeout=0.1)
        line.forget()
        return line.requests

    assert told(story) == []


@pytest.mark.parametrize("times", [1, 200, 70_000])
def test_a_stream_is_relayed_frame_by_frame(times):
    async def story(line, client, led):
        async with connect(f"{led['stream']}/socket?times={times}", proxy=None) as stream:
            await stream.send("x")
            return await stream.recv(), len(line.handshakes), len(line.streams)

    assert told(story) == ("x" * times, 1, 1)


@pytest.mark.parametrize("text", ["}{", "y" * 300])
def test_something_can_be_said_between_two_frames(text):
    async def story(line, client, led):
        async with connect(f"{led['stream']}/socket", proxy=None) as stream:
            await stream.send("a")
            heard = [await stream.recv()]
            line.inject(text)
            await stream.send("b")
            return [*heard, await stream.recv(), await stream.recv()]

    assert told(story) == ["a", text, "b"]


def test_a_stalled_stream_is_open_and_says_nothing():
    async def story(line, client, led):
        async with connect(f"{led['stream']}/socket", proxy=None, close_timeout=0.1) as stream:
            line.stall()
            await stream.send("a")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await stream.recv()
            return len(line.streams)

    assert told(story) == 1


def test_open_streams_can_be_cut():
    async def story(line, client, led):
        async with connect(f"{led['stream']}/socket", proxy=None) as stream:
            line.cut_streams()
            with pytest.raises(ConnectionClosed) as caught:
                await stream.recv()
            return caught.value.rcvd

    assert told(story) is None


def test_a_handshake_that_the_broker_refuses_is_relayed():
    async def story(line, client, led):
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"{led['stream']}/socket?token=bad", proxy=None)
        return caught.value.response.status_code, caught.value.response.body, len(line.streams)

    assert told(story) == (403, b"no", 0)


@pytest.mark.parametrize(("answer", "error"), [(instead(503, b""), InvalidStatus), (cut, InvalidMessage)])
def test_a_handshake_can_be_refused(answer, error):
    async def story(line, client, led):
        line.handshake = answer
        with pytest.raises(error):
            await connect(f"{led['stream']}/socket", proxy=None)
        return len(line.handshakes)

    assert told(story) == 1


def test_a_handshake_is_not_forwarded_by_hand():
    async def story(line, client, led):
        line.handshake = relayed
        with pytest.raises(InvalidMessage):
            await connect(f"{led['stream']}/socket", proxy=None)

    told(story)
