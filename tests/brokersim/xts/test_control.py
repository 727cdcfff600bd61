"""What the control API can do to XTS, through the whole program."""

from contextlib import asynccontextmanager

from aiohttp import ClientSession

from brokersim.running import Options, running
from brokersim.world import Settings
from xts_harness import LIMIT_ORDER, story

QUICK = Settings(reply_delay=0, push_delay=0)


@asynccontextmanager
async def controlling():
    async with running(Options(settings=QUICK)) as sim, ClientSession(sim.control_url) as http:

        async def call(method, path, **body):
            async with http.request(method, path, json=body) as answer:
                found = await answer.json()
                return answer.status, found.get("data") or found["message"]

        yield call


@story
async def test_settings_can_be_seen_and_changed():
    async with controlling() as call:
        assert (await call("GET", "/xts/settings"))[1]["socket_mode"] == "sio2"

        status, found = await call("PATCH", "/xts/settings", socket_mode="sio4_only", ping_interval=3)

        assert (status, found["socket_mode"], found["ping_interval"]) == (200, "sio4_only", 3)
        assert (await call("PATCH", "/xts/settings", socket_mode="sio9"))[0] == 400
        for wrong in ({"nothing": 1}, {"ping_interval": "x"}, {"ping_interval": 0}, {"cancel_as_list": 1}):
            assert (await call("PATCH", "/xts/settings", **wrong))[0] == 400
        assert (await call("GET", "/xts/settings"))[1]["socket_mode"] == "sio4_only"


@story
async def test_orders_from_the_terminal():
    async with controlling() as call:
        status, order = await call("POST", "/xts/orders", user="JN0001", **LIMIT_ORDER)

        assert (status, order["app"], order["user"]) == (200, "", "JN0001")
        assert (await call("POST", "/xts/orders", user="nobody", **LIMIT_ORDER))[0] == 400
        assert "Bad Request" in (await call("POST", "/xts/orders", user="JN0001"))[1]


@story
async def test_sockets_of_xts_are_listed():
    async with controlling() as call:
        assert (await call("GET", "/sockets"))[1]["xts"] == []
