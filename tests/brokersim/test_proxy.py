"""The faulty line: every way it can go wrong, over real sockets to a real simulator."""

import asyncio
import json
import time

import aiohttp
import pytest


@pytest.fixture
def line(kite):
    return Line(kite)


class Line:
    """A proxy in front of the Kite host, and a client that dials it."""

    def __init__(self, kite):
        self.kite = kite
        self.described = kite.control("POST", "/proxies", target="kite")["data"]
        self.url = self.described["url"]
        self.headers = {"Authorization": f"token demokite:{kite.token}", "X-Kite-Version": "3"}

    def fault(self, kind, **fields):
        body = {"kind": kind, "channel": "wire", "broker": "kite", **fields}
        return self.kite.control("POST", "/faults", **body)

    async def calling(self, method, path, *, seconds, **more):
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            asked = client.request(method, self.url + path, headers=self.headers, **more)
            async with asked as reply:
                return reply.status, await reply.read(), dict(reply.headers)

    def call(self, method="GET", path="/orders", *, seconds=5.0, **more):
        return self.kite.run(self.calling(method, path, seconds=seconds, **more))

    def place(self):
        form = {
            "exchange": "NSE",
            "tradingsymbol": "SBIN",
            "transaction_type": "BUY",
            "quantity": "10",
            "order_type": "LIMIT",
            "price": "800",
            "product": "MIS",
            "validity": "DAY",
        }
        return self.call("POST", "/orders/regular", data=form)

    def orders(self):
        return self.kite.control("GET", "/orders?broker=kite&user=ZD0001")["data"]

    def stream(self, story):
        """Run a story with a WebSocket through the line."""

        async def play():
            url = f"{self.url}/?api_key=demokite&access_token={self.kite.token}"
            async with aiohttp.ClientSession() as client, client.ws_connect(url) as ws:
                return await story(ws)

        return self.kite.run(play())

    def say(self, *texts):
        for text in texts:
            self.kite.sim.world.controls["kite"].hub.send_raw("ZD0001", text)


async def texts(ws, count, seconds=5.0):
    async with asyncio.timeout(seconds):
        found = []
        while len(found) < count:
            message = await ws.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                found.append(message.data)
            elif message.type is not aiohttp.WSMsgType.BINARY:
                found.append(message.type)
                return found
        return found


def test_without_a_fault_everything_passes(line):
    status, body, _ = line.call()

    async def story(ws):
        line.say("one", "two")
        return await texts(ws, 2)

    heard = line.stream(story)
    line.place()

    assert (status, json.loads(body)["data"]) == (200, [])
    assert heard == ["one", "two"]
    assert len(line.orders()) == 1
    (described,) = line.kite.control("GET", "/proxies")["data"]
    assert described["counts"]["requests"] == 2
    assert described["counts"]["streams"] == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_request_can_be_refused(line, status):
    line.fault("unauthorized", operation="GET /orders", params={"status": status}, count=1)

    assert line.call()[0] == status
    assert line.call()[0] == 200


@pytest.mark.parametrize("retry_after", [None, 7])
def test_too_many_requests_with_and_without_retry_after(line, retry_after):
    line.fault("rate_limit", params={} if retry_after is None else {"retry_after": retry_after})

    status, _, headers = line.call()

    assert status == 429
    assert headers.get("Retry-After", headers.get("retry-after")) == (
        str(retry_after) if retry_after else None
    )


@pytest.mark.parametrize(("done", "placed"), [(True, 1), (False, 0)])
@pytest.mark.parametrize("kind", ["server_error", "reset", "black_hole"])
def test_an_order_whose_answer_is_lost_was_placed_or_was_not(line, kind, done, placed):
    line.fault(kind, operation="POST /orders", params={"done": done, "status": 502})

    if kind == "server_error":
        assert line.place()[0] == 502
    else:
        with pytest.raises((aiohttp.ClientError, ConnectionError, TimeoutError)):
            line.call(
                "POST",
                "/orders/regular",
                seconds=1.0,
                data={
                    "exchange": "NSE",
                    "tradingsymbol": "SBIN",
                    "transaction_type": "BUY",
                    "quantity": "10",
                    "order_type": "LIMIT",
                    "price": "800",
                    "product": "MIS",
                    "validity": "DAY",
                },
            )

    assert len(line.orders()) == placed


def test_a_request_that_the_network_repeats_is_placed_twice(line):
    line.fault("duplicate", operation="POST /orders")

    line.place()

    assert len(line.orders()) == 2


def test_a_reply_can_stop_in_the_middle(line):
    line.fault("truncate", operation="GET /orders")

    with pytest.raises(aiohttp.ClientPayloadError):
        line.call()


def test_a_reply_can_be_spoilt(line):
    sound = line.call()[1]
    line.fault("corrupt", operation="GET /orders")

    spoilt = line.call()[1]

    assert len(spoilt) == len(sound)
    assert spoilt != sound


def test_a_reply_can_come_byte_by_byte_for_ever(line):
    line.fault("slow_loris", operation="GET /orders", params={"rate": 20})

    with pytest.raises(TimeoutError):
        line.call(seconds=0.5)


def test_a_reply_that_comes_byte_by_byte_comes_whole_once_that_is_switched_off(line):
    line.fault("slow_loris", operation="GET /orders", params={"rate": 5})
    board = line.kite.sim.world.faults

    async def heal():
        while not any(struck for _, struck in board.listing()):  # noqa: ASYNC110 - the pace of asking
            await asyncio.sleep(0.01)
        board.clear()

    async def story():
        reply, _ = await asyncio.gather(line.calling("GET", "/orders", seconds=30.0), heal())
        return reply

    status, body, _ = line.kite.run(story())

    assert (status, json.loads(body)["data"]) == (200, [])


def test_a_reply_can_be_late(line):
    line.fault("delay", operation="GET /orders", params={"seconds": 0.3})
    began = time.monotonic()

    line.call()

    assert time.monotonic() - began >= 0.3


def test_a_connection_can_be_reset_before_a_word(line):
    line.fault("reset", operation="connect", count=1)

    async def dial():
        reader, writer = await asyncio.open_connection("127.0.0.1", int(line.url.rpartition(":")[2]))
        try:
            return await reader.read()
        finally:
            writer.close()

    with pytest.raises(ConnectionResetError):
        line.kite.run(dial())

    assert line.call()[0] == 200


@pytest.mark.parametrize(
    ("kind", "error"), [("refuse_handshake", aiohttp.WSServerHandshakeError), ("reset", aiohttp.ClientError)]
)
def test_a_handshake_can_be_refused(line, kind, error):
    line.fault(kind, operation="upgrade /", params={"status": 503})

    async def story(ws):
        return None

    with pytest.raises(error):
        line.stream(story)


@pytest.mark.parametrize(
    ("kind", "params", "expected"),
    [
        ("drop", {}, ["two", "three"]),
        ("duplicate", {"times": 2}, ["one", "one", "two"]),
        ("reorder", {}, ["two", "one", "three"]),
        ("truncate", {"keep": 0.34}, ["o", "two", "three"]),
        ("delay", {"seconds": 0.05}, ["one", "two", "three"]),
    ],
)
def test_a_frame_can_be_lost_doubled_overtaken_or_cut(line, kind, params, expected):
    line.fault(kind, operation="frame text", params=params, count=1)

    async def story(ws):
        line.say("one", "two", "three")
        return await texts(ws, len(expected))

    assert line.stream(story) == expected


def test_a_held_frame_goes_on_alone_when_no_other_comes(line):
    line.kite.settings(kite_heartbeat=60.0)
    line.fault("reorder", operation="frame text", params={"wait": 0.05}, count=1)

    async def story(ws):
        line.say("one")
        return await texts(ws, 1)

    assert line.stream(story) == ["one"]


def test_a_frame_can_be_spoilt(line):
    line.fault("corrupt", operation="frame text", count=1)

    async def story(ws):
        line.say("a" * 400, "sound")
        return await texts(ws, 2)

    spoilt, sound = line.stream(story)

    assert (len(spoilt), sound) == (400, "sound")
    assert set(spoilt) - set("a") <= set("#~?")
    assert spoilt != "a" * 400


def test_a_stream_can_be_open_and_dead(line):
    line.fault("black_hole", operation="frame text")

    async def story(ws):
        line.say("never heard")
        with pytest.raises(TimeoutError):
            await texts(ws, 1, seconds=0.5)
        return ws.closed

    assert line.stream(story) is False


def test_a_stream_can_be_reset(line):
    line.fault("reset", operation="frame text")

    async def story(ws):
        line.say("last words")
        return await texts(ws, 1)

    (end,) = line.stream(story)

    assert end in {aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSED}


def test_a_long_frame_passes_whole(line):
    long = "x" * 200_000

    async def story(ws):
        line.say(long)
        return await texts(ws, 1)

    assert line.stream(story) == [long]


def test_a_line_that_was_cut_is_gone(line):
    assert line.kite.control("DELETE", "/proxies/kite")["data"] == {"removed": True}

    with pytest.raises(aiohttp.ClientError):
        line.call()

    assert line.kite.control("DELETE", "/proxies/kite")["data"] == {"removed": False}


@pytest.mark.parametrize("target", ["example.com:80", "8.8.8.8:53", "127.0.0.1", "", "127.0.0.1:x"])
def test_only_this_machine_can_be_behind_a_line(kite, target):
    answer = kite.control("POST", "/proxies", target=target)

    assert answer["status"] == "error"


def test_two_lines_have_two_names(line):
    again = line.kite.control("POST", "/proxies", target="kite")
    other = line.kite.control("POST", "/proxies", target="kite", name="second")

    assert again["status"] == "error"
    assert other["data"]["url"] != line.url
