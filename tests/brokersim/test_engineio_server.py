"""Raw dialogues with the Socket.IO server, and the stock clients of its generation against it."""

import asyncio
import functools
import json
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import socketio
from aiohttp import ClientSession, web
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from brokersim import engineio_server
from brokersim.engineio import Mode, Timers, decode_payload
from brokersim.engineio_server import RefusedByHttp, RefusedByMiddleware, SocketServer

FAST = Timers(
    ping_interval=0.2, ping_timeout=0.1, upgrade_timeout=0.3, connect_timeout=0.3, noop_interval=0.02
)
JOINED = '42["joined","Socket joined successfully!"]'


def story(function):
    @functools.wraps(function)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(function(*args, **kwargs), 90))

    return run


@asynccontextmanager
async def serving(**settings):
    left = asyncio.Queue()

    def on_join(session):
        session.greet("joined", "Socket joined successfully!")

    server = SocketServer(
        **{"on_join": on_join, "on_leave": lambda session, reason: left.put_nowait(reason), **settings}
    )
    app = web.Application()
    app.router.add_route("*", "/socket.io/", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with ClientSession(f"http://127.0.0.1:{port}") as http:
            yield SimpleNamespace(server=server, left=left, http=http, port=port, ws=f"ws://127.0.0.1:{port}")
    finally:
        await server.close()
        await runner.cleanup()


def websocket(desk, query="EIO=3&transport=websocket"):
    return connect(f"{desk.ws}/socket.io/?{query}", compression=None)


async def poll(desk, sid, revision=3):
    async with desk.http.get(f"/socket.io/?EIO={revision}&transport=polling&sid={sid}") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; charset=UTF-8"
        return decode_payload(await answer.read(), revision)


async def post(desk, sid, body, revision=3):
    async with desk.http.post(f"/socket.io/?EIO={revision}&transport=polling&sid={sid}", data=body) as answer:
        return answer.status, await answer.text()


async def polling_handshake(desk, revision=3):
    async with desk.http.get(f"/socket.io/?EIO={revision}&transport=polling") as answer:
        packets = decode_payload(await answer.read(), revision)
    return json.loads(packets[0][1:])["sid"], packets


async def close_code(socket):
    try:
        while True:
            await socket.recv()
    except ConnectionClosed:
        return socket.close_code


async def pending_poll(desk, sid):
    task = asyncio.create_task(poll(desk, sid))
    while desk.server.sessions[sid].poll is None:  # noqa: ASYNC110 - the server tells nobody
        await asyncio.sleep(0)
    return task


@story
async def test_websocket_only_dialogue():
    async with serving() as desk, websocket(desk) as socket:
        opening = await socket.recv()
        assert json.loads(opening[1:]) | {"sid": ""} == {
            "sid": "",
            "upgrades": [],
            "pingInterval": 25000,
            "pingTimeout": 20000,
        }
        assert [await socket.recv(), await socket.recv()] == ["40", JOINED]

        await socket.send("2")

        assert await socket.recv() == "3"


@story
async def test_events_reach_the_client_in_order():
    async with serving() as desk, websocket(desk) as socket:
        sid = json.loads((await socket.recv())[1:])["sid"]
        for number in range(3):
            assert desk.server.sessions[sid].emit("order", json.dumps({"n": number}))

        frames = [await socket.recv() for _ in range(5)]

        assert frames[2:] == [rf'42["order","{{\"n\": {number}}}"]' for number in range(3)]


@story
async def test_second_connect_joins_again_and_doubles_events():
    async with serving() as desk, websocket(desk) as socket:
        sid = json.loads((await socket.recv())[1:])["sid"]
        assert [await socket.recv(), await socket.recv()] == ["40", JOINED]

        await socket.send("40")

        assert await socket.recv() == JOINED
        desk.server.sessions[sid].emit("order", "{}")
        assert [await socket.recv(), await socket.recv()] == ['42["order","{}"]'] * 2


@story
async def test_second_connect_drops_on_the_newer_server():
    async with serving(mode=Mode.SIO4_ALLOW_EIO3) as desk, websocket(desk) as socket:
        await socket.send("40")

        assert await close_code(socket) == 1005


@pytest.mark.parametrize("packet", ["9x", "42{bad"])
@story
async def test_garbage_closes_without_a_code(packet):
    async with serving() as desk, websocket(desk) as socket:
        await socket.send(packet)

        assert await close_code(socket) == 1005
        assert await desk.left.get() == "parse error"


@story
async def test_silent_client_is_closed_after_interval_plus_timeout():
    started = asyncio.get_running_loop().time()
    async with serving(timers=FAST) as desk, websocket(desk) as socket:
        assert await close_code(socket) == 1005
        assert asyncio.get_running_loop().time() - started >= FAST.ping_interval + FAST.ping_timeout
        assert await desk.left.get() == "ping timeout"


@story
async def test_pinging_client_stays():
    """For longer than the server's patience, which is long enough for a machine that is busy."""
    timers = replace(FAST, ping_interval=1.5, ping_timeout=0.5)
    async with serving(timers=timers) as desk, websocket(desk) as socket:
        for _ in range(3):
            await socket.recv()
        for _ in range(21):
            await socket.send("2")
            assert await socket.recv() == "3"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(socket.recv(), 0.1)

        assert desk.left.empty()


@story
async def test_server_disconnect_leaves_the_transport_open():
    async with serving() as desk, websocket(desk) as socket:
        sid = json.loads((await socket.recv())[1:])["sid"]
        desk.server.sessions[sid].leave()

        assert [await socket.recv() for _ in range(3)] == ["40", JOINED, "41"]
        await socket.send("2")
        assert await socket.recv() == "3"
        assert not desk.server.sessions[sid].emit("order", "{}")


@story
async def test_server_disconnect_with_close():
    async with serving() as desk, websocket(desk) as socket:
        sid = json.loads((await socket.recv())[1:])["sid"]
        desk.server.sessions[sid].leave(close=True)

        assert [await socket.recv() for _ in range(3)] == ["40", JOINED, "41"]
        assert await close_code(socket) == 1005


@story
async def test_client_close_ends_the_session():
    async with serving() as desk:
        async with websocket(desk) as socket:
            await socket.recv()

        assert await desk.left.get() == "transport close"
        assert desk.server.sessions == {}
        assert socket.close_code in {1000, 1005}


@story
async def test_dropped_session_ends_without_a_close_frame():
    async with serving() as desk, websocket(desk) as socket:
        sid = json.loads((await socket.recv())[1:])["sid"]
        desk.server.sessions[sid].drop()

        assert await close_code(socket) == 1006


@story
async def test_frozen_session_is_half_open_until_thawed():
    async with serving() as desk, websocket(desk) as socket:
        session = desk.server.sessions[json.loads((await socket.recv())[1:])["sid"]]
        assert [await socket.recv(), await socket.recv()] == ["40", JOINED]
        session.freeze()
        session.emit("order", "{}")
        await socket.send("2")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 0.1)

        session.freeze(frozen=False)

        assert await socket.recv() == '42["order","{}"]'


@story
async def test_middleware_refusal():
    async def admit(_request):
        return RefusedByMiddleware(text="Invalid Token")

    async with serving(admit=admit) as desk, websocket(desk) as socket:
        assert (await socket.recv()).startswith("0{")
        assert await socket.recv() == '44"Invalid Token"'
        await socket.send("2")
        assert await socket.recv() == "3"


@story
async def test_refusal_by_http():
    async def admit(_request):
        return RefusedByHttp()

    async with serving(admit=admit) as desk:
        async with desk.http.get("/socket.io/?EIO=3&transport=polling") as answer:
            assert (answer.status, await answer.json()) == (403, {"code": 4, "message": "Forbidden"})
        with pytest.raises(InvalidStatus, match="403"):
            await websocket(desk)


@story
async def test_polling_dialogue():
    async with serving() as desk:
        sid, packets = await polling_handshake(desk)
        assert packets[1:] == ["40"]
        assert '"upgrades":["websocket"]' in packets[0]
        assert await poll(desk, sid) == [JOINED]

        assert await post(desk, sid, "1:2") == (200, "ok")
        assert await poll(desk, sid) == ["3"]
        assert await post(desk, sid, b"\x00\x01\xff2") == (200, "ok")
        assert await poll(desk, sid) == ["3"]


@story
async def test_poll_is_held_until_there_is_something():
    async with serving() as desk:
        sid, _ = await polling_handshake(desk)
        await poll(desk, sid)
        pending = await pending_poll(desk, sid)

        desk.server.sessions[sid].emit("order", "{}")

        assert await pending == ['42["order","{}"]']


@story
async def test_polling_client_says_goodbye():
    async with serving() as desk:
        sid, _ = await polling_handshake(desk)

        await post(desk, sid, "1:1")

        assert await desk.left.get() == "transport close"


@story
async def test_server_ends_a_polling_session_in_the_poll():
    async with serving() as desk:
        sid, _ = await polling_handshake(desk)
        await poll(desk, sid)
        desk.server.sessions[sid].leave(close=True)

        assert await poll(desk, sid) == ["41", "1"]
        assert desk.server.sessions == {}


@pytest.mark.parametrize(("mode", "status"), [(Mode.SIO2, 500), (Mode.SIO4_ALLOW_EIO3, 400)])
@story
async def test_overlapping_poll_ends_the_session(mode, status):
    async with serving(mode=mode) as desk:
        sid, _ = await polling_handshake(desk)
        await poll(desk, sid)
        pending = await pending_poll(desk, sid)

        async with desk.http.get(f"/socket.io/?EIO=3&transport=polling&sid={sid}") as answer:
            assert answer.status == status
        assert await pending == ["1"]
        assert desk.server.sessions == {}


@story
async def test_silent_polling_client_is_forgotten():
    async with serving(timers=FAST) as desk:
        sid, _ = await polling_handshake(desk)
        await poll(desk, sid)

        assert await poll(desk, sid) == ["1"]
        assert await desk.left.get() == "ping timeout"


@story
async def test_upgrade_moves_everything_to_the_websocket():
    async with serving() as desk:
        sid, _ = await polling_handshake(desk)
        await poll(desk, sid)
        pending = asyncio.create_task(poll(desk, sid))
        async with websocket(desk, f"EIO=3&transport=websocket&sid={sid}") as socket:
            await socket.send("2probe")
            assert await socket.recv() == "3probe"
            assert await pending == ["6"]
            desk.server.sessions[sid].emit("order", "{}")

            await socket.send("5")

            assert await socket.recv() == '42["order","{}"]'
            await socket.send("2")
            assert await socket.recv() == "3"
            async with desk.http.get(f"/socket.io/?EIO=3&transport=polling&sid={sid}") as answer:
                assert (answer.status, await answer.json()) == (400, {"code": 3, "message": "Bad request"})


@pytest.mark.parametrize("frames", [["2"], ["2probe", "2"], ["2probe"], []])
@story
async def test_failed_upgrade_closes_the_websocket_only(frames):
    async with serving(timers=Timers(upgrade_timeout=0.2)) as desk:
        sid, _ = await polling_handshake(desk)
        async with websocket(desk, f"EIO=3&transport=websocket&sid={sid}") as socket:
            for frame in frames:
                await socket.send(frame)
            assert await close_code(socket) == 1005

        assert await poll(desk, sid) == [JOINED]


@pytest.mark.parametrize(
    ("method", "query", "code", "message"),
    [
        ("GET", "EIO=3&transport=foo", 0, "Transport unknown"),
        ("GET", "EIO=3", 0, "Transport unknown"),
        ("GET", "EIO=3&transport=polling&sid=gone", 1, "Session ID unknown"),
        ("POST", "EIO=3&transport=polling", 2, "Bad handshake method"),
        ("GET", "EIO=3&transport=websocket", 3, "Bad request"),
    ],
)
@story
async def test_http_errors(method, query, code, message):
    async with serving() as desk, desk.http.request(method, f"/socket.io/?{query}") as answer:
        assert (answer.status, await answer.json()) == (400, {"code": code, "message": message})


@story
async def test_unknown_sid_on_a_websocket_upgrade_is_plain_text():
    async with serving() as desk:
        with pytest.raises(InvalidStatus) as refused:
            await websocket(desk, "EIO=3&transport=websocket&sid=gone")

        assert refused.value.response.body == b"Session ID unknown"


@story
async def test_engineio_3_is_refused_by_the_newest_server():
    async with serving(mode=Mode.SIO4_ONLY) as desk:
        async with desk.http.get("/socket.io/?EIO=3&transport=polling") as answer:
            assert await answer.json() == {"code": 5, "message": "Unsupported protocol version"}
        async with websocket(desk) as socket:
            assert await close_code(socket) in {1002, 1006}


@story
async def test_newer_server_sends_the_join_in_the_next_poll():
    async with serving(mode=Mode.SIO4_ALLOW_EIO3) as desk:
        sid, packets = await polling_handshake(desk)

        assert len(packets) == 1
        assert await poll(desk, sid) == ["40", JOINED]


@story
async def test_engineio_4_dialogue():
    async with serving(mode=Mode.SIO4_ONLY, timers=replace(FAST, ping_timeout=1.0)) as desk:
        async with websocket(desk, "EIO=4&transport=websocket") as socket:
            assert '"maxPayload":1000000' in await socket.recv()
            await socket.send("40")
            assert (await socket.recv()).startswith('40{"sid":"')
            assert await socket.recv() == JOINED
            for _ in range(3):
                assert await socket.recv() == "2"
                await socket.send("3")

            assert await close_code(socket) == 1005  # no more pongs
        assert await desk.left.get() == "ping timeout"


@story
async def test_engineio_4_client_that_never_joins_is_closed():
    timers = Timers(connect_timeout=0.1)
    async with serving(mode=Mode.SIO4_ONLY, timers=timers) as desk:
        async with websocket(desk, "EIO=4&transport=websocket") as socket:
            assert await close_code(socket) == 1005
        assert await desk.left.get() == "connect timeout"


@story
async def test_engineio_4_polling():
    async with serving(mode=Mode.SIO4_ONLY) as desk:
        sid, _ = await polling_handshake(desk, revision=4)
        await post(desk, sid, "40", revision=4)

        assert (await poll(desk, sid, revision=4))[1:] == [JOINED]


@story
async def test_engineio_4_query_is_ignored_by_the_old_server():
    async with serving() as desk, websocket(desk, "EIO=4&transport=websocket") as socket:
        assert "maxPayload" not in await socket.recv()
        assert await socket.recv() == "40"


@story
async def test_closing_the_server_closes_its_clients():
    async with serving() as desk, websocket(desk) as socket:
        sid, _ = await polling_handshake(desk)

        await desk.server.close()

        assert await close_code(socket) == 1005
        assert sid not in desk.server.sessions


SYMPHONY_CLIENT = """
import sys, socketio_v4 as socketio
client = socketio.Client(reconnection=False)
seen = []
@client.on("joined")
def joined(data): print("joined", data, flush=True)
@client.on("order")
def order(data):
    print("order", data, flush=True)
    client.disconnect()
client.connect(sys.argv[1], transports=sys.argv[2].split(","))
client.wait()
print("over", flush=True)
"""


@pytest.mark.needs("peers")
@pytest.mark.parametrize("mode", [Mode.SIO2, Mode.SIO4_ALLOW_EIO3])
@pytest.mark.parametrize("transports", ["websocket", "polling", "polling,websocket"])
@story
async def test_python_socketio_4_client(peers, mode, transports):
    async with serving(mode=mode) as desk:
        lines = await run_client(
            desk, [peers, "-c", SYMPHONY_CLIENT, f"http://127.0.0.1:{desk.port}", transports]
        )

    assert lines == ["joined Socket joined successfully!", 'order {"n":1}', "over"]


@pytest.mark.parametrize(("mode", "copies"), [(Mode.SIO2, 2), (Mode.SIO4_ALLOW_EIO3, 1), (Mode.SIO4_ONLY, 1)])
@story
async def test_python_socketio_5_gets_everything_twice_from_the_old_server(mode, copies):
    heard = asyncio.Queue()
    client = socketio.AsyncClient(reconnection=False)
    client.on("joined", heard.put_nowait)
    client.on("order", heard.put_nowait)
    async with serving(mode=mode) as desk:
        await client.connect(f"http://127.0.0.1:{desk.port}", transports=["websocket"])
        for _ in range(copies):
            assert await heard.get() == "Socket joined successfully!"
        for session in desk.server.sessions.values():
            session.emit("order", "{}")

        assert [await heard.get() for _ in range(copies)] == ["{}"] * copies
        await client.disconnect()
        assert heard.empty()


NODE_CLIENT = """
const io = require("socket.io-client")(process.argv[1], {transports: process.argv[2].split(","), reconnection: false});
io.on("joined", (data) => console.log("joined", data));
io.on("order", (data) => { console.log("order", data); io.close(); console.log("over"); });
"""


@pytest.fixture(scope="session")
def node_client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefer-offline", "socket.io-client@2.5.0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode:
        pytest.skip(f"needs the npm registry (socket.io-client 2.5.0): {done.stderr[-200:]}")
    return folder


@pytest.mark.needs("npm")
@pytest.mark.parametrize("mode", [Mode.SIO2, Mode.SIO4_ALLOW_EIO3])
@pytest.mark.parametrize("transports", ["websocket", "polling", "polling,websocket"])
@story
async def test_node_socketio_2_client(node_client, mode, transports):
    async with serving(mode=mode) as desk:
        command = ["node", "-e", NODE_CLIENT, f"http://127.0.0.1:{desk.port}", transports]
        lines = await run_client(desk, command, cwd=node_client)

    assert lines == ["joined Socket joined successfully!", 'order {"n":1}', "over"]


async def run_client(desk, command, cwd=None):
    """Run a client, send it one order once it joined, and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=sys.stderr
    )
    lines = [(await process.stdout.readline()).decode().strip()]
    for session in desk.server.sessions.values():
        session.emit("order", '{"n":1}')
    lines += (await process.stdout.read()).decode().splitlines()
    await process.wait()
    return lines


@story
async def test_who_leaves_before_the_handshake_is_answered_leaves_no_session(monkeypatch):
    async def gone(_request):
        raise ConnectionResetError

    async with serving() as desk:
        monkeypatch.setattr(engineio_server, "_prepare", gone)

        with pytest.raises((InvalidStatus, ConnectionClosed, InvalidMessage, EOFError)):
            async with websocket(desk):
                pass

        assert desk.server.sessions == {}
