"""The program itself: how it starts, how it refuses to, how it stops."""

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import aiohttp
import pytest

from brokersim.running import Options, PortTakenError, running
from brokersim.world import World

COMMAND = (sys.executable, "-m", "brokersim", "serve")
ANY_PORT = ("--kite-port", "0", "--xts-port", "0", "--control-port", "0")


def start(*arguments):
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def first_line(process):
    ready, _, _ = select.select([process.stdout], [], [], 20)
    assert ready, "no line within 20 s"
    return json.loads(process.stdout.readline())


@pytest.fixture
def program():
    process = start(*ANY_PORT, "--reply-ms", "0", "--seed", "3")
    yield process, first_line(process)
    process.kill()
    process.communicate()


def read(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def test_one_line_tells_where_everything_listens(program):
    _, ready = program

    assert "instrument_token" in read(f"{ready['kite']}/instruments")
    assert json.loads(read(f"{ready['control']}/health"))["status"] == "ok"
    assert ready["xts"] == f"http://127.0.0.1:{ready['xts_port']}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_within_a_second_even_with_an_open_socket(program, number):
    process, ready = program

    async def hold():
        async with aiohttp.ClientSession() as client:
            login = {"api_key": "demokite", "user_id": "ZD0001"}
            async with client.post(f"{ready['control']}/kite/sessions", json=login) as answer:
                token = (await answer.json())["data"]["access_token"]
            ws = await client.ws_connect(f"{ready['kite']}/?api_key=demokite&access_token={token}")
            await ws.receive()
            began = time.monotonic()
            os.kill(process.pid, number)
            code = await asyncio.to_thread(process.wait, 10)
            spent = time.monotonic() - began
            await ws.close()
            return code, spent

    code, spent = asyncio.run(hold())

    assert code == 0
    assert spent < 1.0
    assert process.stderr.read() == ""


def test_a_taken_port_is_one_clear_line(program):
    _, ready = program

    second = start("--kite-port", str(ready["kite_port"]), "--xts-port", "0", "--control-port", "0")
    out, err = second.communicate(timeout=20)

    assert second.returncode == 1
    assert out == ""
    assert err == f"brokersim: cannot listen on 127.0.0.1:{ready['kite_port']}: Address already in use\n"


@pytest.mark.parametrize(
    "arguments", [("--kite-port", "70000"), ("--reply-ms", "-1"), ("--reply-ms", "soon")]
)
def test_wrong_arguments_are_refused(arguments):
    process = start(*arguments)
    _, err = process.communicate(timeout=20)

    assert process.returncode == 2
    assert "error: argument" in err


def test_options_reach_the_demo_app():
    async def look():
        options = Options(kite_postback_url="http://127.0.0.1:9/p", kite_redirect_url="http://127.0.0.1:9/r")
        async with running(options) as sim:
            return sim.world.users.kite_apps["demokite"]

    app = asyncio.run(look())

    assert (app.postback_url, app.redirect_url) == ("http://127.0.0.1:9/p", "http://127.0.0.1:9/r")


def test_nothing_stays_bound_when_a_port_is_taken():
    taken = socket.create_server(("127.0.0.1", 0))
    free = socket.create_server(("127.0.0.1", 0))
    kite_port = free.getsockname()[1]
    free.close()

    async def try_it():
        async with running(Options(kite_port=kite_port, control_port=taken.getsockname()[1])):
            pass

    with taken, pytest.raises(PortTakenError):
        asyncio.run(try_it())

    socket.create_server(("127.0.0.1", kite_port)).close()


def test_in_real_time_orders_move_by_themselves():
    async def watch():
        async with running(world=World(seed=1)) as sim, aiohttp.ClientSession() as client:
            login = {"api_key": "demokite", "user_id": "ZD0001"}
            async with client.post(f"{sim.control_url}/kite/sessions", json=login) as answer:
                token = (await answer.json())["data"]["access_token"]
            ws = await client.ws_connect(f"{sim.kite_url}/?api_key=demokite&access_token={token}")
            form = {
                "exchange": "NSE",
                "tradingsymbol": "SBIN",
                "transaction_type": "BUY",
                "quantity": "1",
                "product": "CNC",
                "order_type": "MARKET",
                "market_protection": "-1",
            }
            headers = {"Authorization": f"token demokite:{token}"}
            async with client.post(f"{sim.kite_url}/orders/regular", data=form, headers=headers):
                pass
            found = []
            async with asyncio.timeout(5):
                while "COMPLETE" not in found:
                    message = await ws.receive()
                    if message.type is aiohttp.WSMsgType.TEXT:
                        found.append(json.loads(message.data)["data"]["status"])
            await ws.close()
            return found

    assert asyncio.run(watch()) == ["OPEN", "COMPLETE"]
