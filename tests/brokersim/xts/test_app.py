import asyncio
import json
import sys

import pytest
from aiohttp import ClientError

from brokersim.faults import FaultKind
from brokersim.world import Settings
from brokersim.xts.app import _written
from brokersim.xts.settings import XtsSettings
from xts_harness import (
    LIMIT_ORDER,
    ended,
    events_until,
    next_event,
    nothing_more,
    parse,
    serving,
    story,
)

LOGGED_OUT = ("logout", "You have been logged out by another user.")
LOOKUP = {"accesspassword": "2021HostLookUpAccess", "version": "interactive_1.0.1"}
LOGIN = {"appKey": "demoxts", "secretKey": "demoxts-secret", "source": "WEBAPI"}


@story
async def test_an_order_from_placing_to_filled():
    async with serving(settings=Settings(reply_delay=0.005, push_delay=0.005), flowing=True) as desk:
        token = await desk.log_in()
        async with desk.socket(token) as socket:
            assert await next_event(socket) == ("joined", "Socket joined successfully!")

            order_id = await desk.place(token, limitPrice=760)
            await events_until(socket, "order", "New")
            await desk.ok("DELETE", "/orders", token=token, params={"appOrderID": order_id})
            await events_until(socket, "order", "Cancelled")

            order_id = await desk.place(token, orderType="MARKET", limitPrice=0)
            events = await events_until(socket, "trade", "Filled")

        statuses = [row["OrderStatus"] for name, row in events if name == "order"]
        assert statuses[:2] == ["PendingNew", "New"]
        assert statuses[-1] == "Filled"
        assert await desk.statuses(token, order_id) == statuses


# ---- login


@pytest.mark.parametrize("kind", ["json", "data"])
@story
async def test_plain_login_takes_json_and_forms(kind):
    async with serving() as desk:
        status, body = await desk.call("POST", "/user/session", **{kind: LOGIN})

        result = body["result"]
        assert (status, body["type"], body["code"]) == (200, "success", "s-user-0001")
        assert (result["userID"], result["isInvestorClient"], result["clientCodes"]) == (
            "JN0001",
            True,
            ["JN0001"],
        )
        assert sorted(result) == sorted(
            [
                "enums",
                "clientCodes",
                "exchangeSegmentArray",
                "token",
                "userID",
                "isInvestorClient",
                "isOneTouchUser",
            ]
        )


@story
async def test_dealer_login_lists_its_clients():
    async with serving() as desk:
        body = {"appKey": "demodealer", "secretKey": "demodealer-secret"}
        result = await desk.ok("POST", "/user/session", json=body)

        assert (result["isInvestorClient"], result["clientCodes"]) == (False, ["JD001", "JD002"])


@story
async def test_wrong_secret_and_unreadable_body():
    async with serving() as desk:
        wrong = LOGIN | {"secretKey": "x"}
        assert await desk.refused("POST", "/user/session", json=wrong) == (400, "e-user-0001")
        assert (await desk.refused("POST", "/user/session", data=b"{"))[0] == 400
        assert (await desk.refused("POST", "/user/session", json=[1]))[0] == 400
        assert (await desk.refused("POST", "/user/session", json={}))[1] == "e-property-validation-failed"


@pytest.mark.parametrize("path", ["/interactive", "", "/1interactive", "/2hostlookup"])
@story
async def test_hostlookup_login(path):
    async with serving(xts=XtsSettings(connection_path=path)) as desk:
        found = await desk.ok("POST", "/hostlookup", base="", json=LOOKUP)
        assert found["connectionString"] == f"http://127.0.0.1:{desk.port}{path}"
        desk.base = path

        body = LOGIN | {"uniqueKey": found["uniqueKey"]}
        token = (await desk.ok("POST", "/user/session", json=body))["token"]
        async with desk.socket(token, path=f"{path}/socket.io/") as socket:
            await next_event(socket, "joined")
            order_id = await desk.place(token)
            assert (await next_event(socket))[1]["AppOrderID"] == order_id

        wrong = LOGIN | {"uniqueKey": "invented"}
        assert await desk.refused("POST", "/user/session", json=wrong) == (400, "e-hostlookup-0002")


@story
async def test_hostlookup_address_wants_its_key():
    async with serving() as desk:
        assert (await desk.refused("POST", "/user/session", base="", json=LOGIN))[1] == "e-hostlookup-0002"
        wrong = LOOKUP | {"accesspassword": "x"}
        assert (await desk.refused("POST", "/hostlookup", base="", json=wrong))[1] == "e-hostlookup-0001"


@story
async def test_type_of_the_hostlookup():
    async with serving() as desk:
        _, plain = await desk.call("POST", "/hostlookup", base="", json=LOOKUP)
        desk.world.faults.add(FaultKind.BOOLEAN_TYPE)
        other_spelling = {"AccessPassword": LOOKUP["accesspassword"], "version": "interactive_1.0.1"}
        _, boolean = await desk.call("POST", "/hostlookup", base="", json=other_spelling)

        assert (plain["type"], boolean["type"]) == ("success", True)
        assert plain["code"] == boolean["code"] == "hostlookup"


# ---- sessions


@story
async def test_second_login_evicts_the_first():
    async with serving() as desk:
        first = await desk.log_in()
        async with desk.socket(first) as loser:
            await next_event(loser, "joined")

            second = await desk.log_in()

            assert await next_event(loser) == LOGGED_OUT
            assert await desk.refused("GET", "/orders", token=first) == (400, "e-session-0005")
            await desk.place(second)
            await nothing_more(loser)
            await loser.send("2")
            assert await loser.recv() == "3"  # dead but open


@story
async def test_logout_ends_the_session_quietly():
    async with serving() as desk:
        token = await desk.log_in()
        async with desk.socket(token) as socket:
            await next_event(socket, "joined")
            await desk.ok("DELETE", "/user/session", token=token)

            assert await desk.refused("GET", "/orders", token=token) == (400, "e-session-0005")
            await nothing_more(socket)


@story
async def test_token_expires_after_a_day():
    async with serving() as desk:
        token = await desk.log_in()
        async with desk.socket(token) as socket:
            await next_event(socket, "joined")
            desk.pass_time(86_401)

            assert await next_event(socket) == LOGGED_OUT
            assert await desk.refused("GET", "/orders", token=token) == (400, "e-session-0005")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "e-token-0002"),
        ({"Authorization": "nonsense"}, "e-session-0007"),
        ({"authorization": "nonsense"}, "e-session-0007"),
    ],
)
@story
async def test_bad_tokens_are_http_400(headers, code):
    async with serving() as desk, desk.http.get("/interactive/orders", headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, code)


# ---- socket


@pytest.mark.parametrize("path", ["/interactive/socket.io/", "/1interactive/socket.io/", "/socket.io/"])
@story
async def test_socket_paths(path):
    async with serving() as desk:
        token = await desk.log_in()
        async with desk.socket(token, path=path) as socket:
            assert (await next_event(socket))[0] == "joined"


@story
async def test_socket_without_api_type_is_closed_after_its_grace():
    async with serving(xts=XtsSettings(grace=0.1)) as desk:
        token = await desk.log_in()
        async with desk.socket(token, query="") as socket:
            assert [await next_event(socket), await next_event(socket)] == [
                ("joined", "Socket joined successfully!"),
                ("error", "Your session has been expired"),
            ]
            await desk.place(token)

            await nothing_more(socket)
            assert await ended(socket) == 1005


@story
async def test_timers_of_the_open_packet_can_be_set():
    async with serving(xts=XtsSettings(ping_interval=20, ping_timeout=60)) as desk:
        token = await desk.log_in()
        async with desk.socket(token) as socket:
            opening = json.loads((await socket.recv())[1:])

        assert (opening["pingInterval"], opening["pingTimeout"]) == (20000, 60000)


@pytest.mark.parametrize(
    ("how", "frame"),
    [("middleware", '44"Invalid Token"'), ("event", '42["joined","Socket joined successfully!"]')],
)
@story
async def test_bad_token_at_the_socket(how, frame):
    async with serving(xts=XtsSettings()) as desk:
        desk.front.configure(token_refusal=how)
        async with desk.socket("nonsense") as socket:
            frames = [await socket.recv(), await socket.recv()]
            if how == "event":
                frames.append(await socket.recv())
                assert parse((await next_event(socket, "error"))[1])["code"] == "e-session-0007"

        assert frames[-1] == frame


@pytest.mark.parametrize("good", [False, True])
@story
async def test_refused_handshake(good):
    async with serving() as desk:
        token = await desk.log_in() if good else "nonsense"
        if good:
            desk.world.faults.add(FaultKind.REFUSE_HANDSHAKE, count=1)
        url = f"/interactive/socket.io/?EIO=3&transport=polling&apiType=INTERACTIVE&token={token}"

        async with desk.http.get(url) as answer:
            found = answer.status, (await answer.json())["code"]

        assert found == ((403, 4) if good else (400, "e-session-0007"))


@story
async def test_second_connect_frame_doubles_events():
    async with serving() as desk:
        token = await desk.log_in()
        async with desk.socket(token) as socket:
            await next_event(socket, "joined")
            await socket.send("40")
            await desk.place(token)

            names = [(await next_event(socket))[0] for _ in range(3)]

        assert names == ["joined", "order", "order"]


@story
async def test_newer_server_generation():
    async with serving(xts=XtsSettings()) as desk:
        desk.front.configure(socket_mode="sio4_only")
        token = await desk.log_in()
        async with desk.http.get(f"/interactive/socket.io/?EIO=3&transport=polling&token={token}") as answer:
            assert (await answer.json())["code"] == 5


@story
async def test_controls():
    async with serving() as desk:
        token = await desk.log_in()
        other = await desk.log_in("demodealer")
        async with desk.socket(token) as socket, desk.socket(other) as bystander:
            await next_event(socket, "joined")
            await next_event(bystander, "joined")
            assert [each["user"] for each in desk.front.sockets()] == ["JN0001", "DLL01234"]

            assert await desk.front.disconnect("JN0001", abort=True) == 1
            assert await ended(socket) == 1006
            assert desk.front.kill_tokens("JD002") == 1
            assert await next_event(bystander) == LOGGED_OUT

        await desk.place(token)
        assert (await desk.refused("GET", "/orders", token=other))[1] == "e-session-0005"


# ---- faults of answers


@pytest.mark.parametrize(
    ("kind", "params", "status", "content"),
    [
        (FaultKind.RATE_LIMIT, {}, 429, "e-apirl-0004"),
        (FaultKind.UNAUTHORIZED, {}, 400, "e-session-0007"),
        (FaultKind.TOKEN_DEATH, {}, 400, "e-session-0005"),
        (FaultKind.HTML_ERROR, {"status": 404}, 404, "<html>"),
        (FaultKind.SERVER_ERROR, {"status": 500, "html": True}, 500, "<html>"),
        (FaultKind.SERVER_ERROR, {}, 503, "Service Unavailable"),
    ],
)
@story
async def test_faults_of_answers(kind, params, status, content):
    async with serving() as desk:
        token = await desk.log_in()
        desk.world.faults.add(kind, channel="rest", count=1, operation="orders.place", params=params)

        headers = {"Authorization": token}
        async with desk.http.post("/interactive/orders", headers=headers, json=LIMIT_ORDER) as answer:
            found = answer.status, await answer.text()

        assert found[0] == status
        assert content in found[1]
        assert desk.world.exchange.orders() == []


@pytest.mark.parametrize(
    ("kind", "params"),
    [(FaultKind.TIMEOUT, {"seconds": 0.01}), (FaultKind.DISCONNECT, {}), (FaultKind.SERVER_ERROR, {})],
)
@pytest.mark.parametrize("done", [False, True])
@story
async def test_answer_is_lost_with_or_without_the_order_placed(kind, params, done):
    async with serving() as desk:
        token = await desk.log_in()
        desk.world.faults.add(kind, channel="rest", count=1, params=params | {"done": done})

        try:
            status, _ = await desk.call("POST", "/orders", token=token, json=LIMIT_ORDER)
        except ClientError:
            status = None

        assert status == (503 if kind is FaultKind.SERVER_ERROR else None)
        assert len(desk.world.exchange.orders()) == int(done)


@story
async def test_slow_answer_and_cut_body():
    async with serving() as desk:
        token = await desk.log_in()
        desk.world.faults.add(FaultKind.SLOW, params={"seconds": 0.05}, count=1)
        started = asyncio.get_running_loop().time()
        await desk.place(token)
        assert asyncio.get_running_loop().time() - started >= 0.05

        desk.world.faults.add(FaultKind.TRUNCATE, channel="rest", count=1)
        async with desk.http.get("/interactive/orders", headers={"Authorization": token}) as answer:
            text = await answer.text()
        assert text.startswith('{"type":"success"')
        assert not text.endswith("}")


@story
async def test_reply_delay_applies():
    async with serving(settings=Settings(reply_delay=0.03, push_delay=0)) as desk:
        started = asyncio.get_running_loop().time()
        await desk.log_in()

        assert asyncio.get_running_loop().time() - started >= 0.03


@story
async def test_unknown_paths_answer_as_nginx():
    async with serving() as desk, desk.http.get("/interactive/nothing") as answer:
        assert (answer.status, answer.content_type) == (404, "text/html")
        assert "nginx" in await answer.text()


@story
async def test_every_answer_is_in_the_ledger():
    async with serving() as desk:
        token = await desk.log_in()
        order_id = await desk.place(token)

        entries = [(each.what, each.order_id) for each in desk.world.ledger.messages(channel="rest")]

        assert entries == [("user.login", ""), ("orders.place", str(order_id))]


# ---- the SDK's generation of clients

SYMPHONY_CLIENT = """
import json, sys, threading, socketio_v4 as socketio
url, token, path, transports = sys.argv[1:]
client = socketio.Client(reconnection=False)
seen, lock = [], threading.Lock()
def note(*words):  # every handler runs in a thread of its own: one line at a time, over when all have spoken
    with lock:
        print(*words, flush=True)
        seen.append(words)
        if len(seen) == 7: client.disconnect()
@client.on("joined")
def joined(data): note("joined", data)
@client.on("order")
def order(data): note("order", json.loads(data)["OrderStatus"])
@client.on("trade")
def trade(data): note("trade", json.loads(data)["LastTradedQuantity"])
@client.on("position")
def position(data): note("position", json.loads(data)["IsDayWiseNetWise"])
address = f"{url}/?token={token}&userID=JN0001&apiType=INTERACTIVE"
client.connect(address, transports=transports.split(","), socketio_v4_path=path)
client.wait()
print("over", flush=True)
"""


@pytest.mark.needs("peers")
@pytest.mark.parametrize("transports", ["websocket", "polling,websocket"])
@pytest.mark.parametrize("path", ["/interactive/socket.io", "/socket.io"])
@story
async def test_the_sdks_client(peers, path, transports):
    async with serving() as desk:
        token = await desk.log_in()
        url = f"http://127.0.0.1:{desk.port}"
        client = await asyncio.create_subprocess_exec(
            *(str(peers), "-c", SYMPHONY_CLIENT, url, token, path, transports),
            stdout=asyncio.subprocess.PIPE,
            stderr=sys.stderr,
        )
        lines = [(await client.stdout.readline()).decode().strip()]
        order_id = await desk.place(token)
        desk.pass_time()
        desk.world.exchange.fill(f"xts:{order_id}", 50)
        lines += (await client.stdout.read()).decode().splitlines()
        await client.wait()

    # The client runs each handler in a thread of its own, so only the ends are in order.
    assert (lines[0], lines[-1]) == ("joined Socket joined successfully!", "over")
    assert sorted(lines[1:-1]) == [
        "order Filled",
        "order New",
        "order PendingNew",
        "position DayWise",
        "position NetWise",
        "trade 50",
    ]


@pytest.mark.parametrize(
    ("words", "written"),
    [("margin", '{"result":["margin"]}'), ("₹", '{"result":["₹"]}'), ("\ud83d", '{"result":["\\ud83d"]}')],
)
def test_answers_are_written_as_node_writes_them(words, written):
    assert _written({"result": [words]}) == written
