"""Our codec and adapter against real Socket.IO servers of both generations, installed by npm into .cache/."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from npm_peers import installed
from orderwire.brokers.xts.socketio import Timers
from orderwire.core.events import EventType
from orderwire.errors import BrokerUnreachableError, SessionExpiredError
from scripted_xts import until
from xts_desk import DeskXts, adapter_of, listening, logged_in, profile_at

pytestmark = [pytest.mark.needs("npm"), pytest.mark.xdist_group("socketio-peers")]

HERE = Path(__file__).resolve().parent / "node"
CYCLES_OF_90_MINUTES = 216
"""Ping cycles of a server that pings, or is pinged, every 25 s."""


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The installed peers."""
    return installed(HERE, name="socketio-peers")


class Peer:
    """A running server: what it told so far, and a way to tell it something."""

    def __init__(self, process):
        self._process = process
        self.told = []

    async def follow(self):
        while line := await self._process.stdout.readline():
            self.told.append(json.loads(line))

    def count(self, event):
        return sum(told["event"] == event for told in self.told)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.told[0]['port']}"

    def command(self, **what):
        self._process.stdin.write(json.dumps(what).encode() + b"\n")


@asynccontextmanager
async def peer(node_modules, generation, **options):
    process = await asyncio.create_subprocess_exec(
        "node",
        str(HERE / "server.js"),
        generation,
        json.dumps(options),
        env={**os.environ, "NODE_PATH": str(node_modules)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    server = Peer(process)
    following = asyncio.create_task(server.follow())
    try:
        await until(lambda: server.told, seconds=20)
        yield server
    finally:
        process.stdin.close()
        await process.wait()
        await following


def run(work):
    return asyncio.run(asyncio.wait_for(work, 60))


async def connect(adapter, *, attempts):
    """Listen until it delivers; return the listening task. Earlier attempts must fail as unreachable."""
    for _ in range(attempts - 1):
        with pytest.raises(BrokerUnreachableError):
            await adapter.listen()
    task = asyncio.create_task(adapter.listen())
    await until(lambda: adapter.listening or task.done())
    if task.done():
        await task
    return task


SERVERS = {
    "2.5": ("socket.io-2", {}),
    "4.8 allowEIO3": ("socket.io-4", {"allowEIO3": True}),
    "4.8": ("socket.io-4", {}),
}


@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.parametrize(
    "case",  # server, revision setting, attempts it takes, revision spoken
    [
        ("2.5", "auto", 1, 3),
        ("2.5", "3", 1, 3),
        ("2.5", "4", 1, 3),
        ("4.8 allowEIO3", "auto", 1, 3),
        ("4.8 allowEIO3", "4", 1, 4),
        ("4.8", "auto", 2, 4),
        ("4.8", "4", 1, 4),
    ],
    ids=str,
)
def test_every_generation_delivers_each_event_once(node_modules, socket_order, transport, case):
    server, revision, attempts, spoken = case
    generation, options = SERVERS[server]

    async def story():
        addresses = {"revision": revision, "transport": transport}
        async with peer(node_modules, generation, **options) as node:
            profile = profile_at(node.url, addresses=addresses)
            async with adapter_of(DeskXts, profile) as (adapter, published):
                adapter.session = logged_in(node.url)
                task = await connect(adapter, attempts=attempts)
                for order_id in (1, 2, 3):
                    node.command(emit=["order", json.dumps({**socket_order, "AppOrderID": order_id})])
                await until(lambda: len(published) >= 3)
                node.command(ask=["order", json.dumps({**socket_order, "AppOrderID": 4})])
                await until(lambda: node.count("answered") == 1)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                return adapter, published, node

    adapter, published, node = run(story())

    assert [update.order_id for update in published.of(EventType.ORDER_UPDATE)] == ["1", "2", "3", "4"]
    assert node.count("connection") == 1  # an extra `40` would show as a second one
    assert (adapter.winner, adapter.failures) == (spoken, 0)


def test_ninety_minutes_of_ping_cycles_without_a_drop(node_modules):
    class Brisk(DeskXts):
        timers = Timers(ping_every=0.015, answer_within=5.0)

    async def story():
        async with (
            peer(node_modules, "socket.io-2", pingInterval=30, pingTimeout=3000) as node,
            adapter_of(Brisk, profile_at(node.url)) as (adapter, _),
            _logged(adapter, node) as task,
        ):
            await until(lambda: node.count("ping") >= CYCLES_OF_90_MINUTES or task.done(), seconds=40)
            return task.done(), node.count("connection"), node.count("disconnect")

    assert run(story()) == (False, 1, 0)


def test_a_server_that_pings_is_answered_for_as_many_cycles(node_modules):
    async def story():
        async with peer(node_modules, "socket.io-4", pingInterval=20, pingTimeout=3000) as node:
            profile = profile_at(node.url, addresses={"revision": "4"})
            async with adapter_of(DeskXts, profile) as (adapter, _), _logged(adapter, node) as task:
                await until(lambda: adapter.listening)
                heard = adapter.heard_at
                await until(
                    lambda: adapter.heard_at - heard > 0.02 * CYCLES_OF_90_MINUTES or task.done(), seconds=30
                )
                return task.done(), node.count("disconnect")

    assert run(story()) == (False, 0)


@asynccontextmanager
async def _logged(adapter, node):
    adapter.session = logged_in(node.url)
    async with listening(adapter) as task:
        yield task


@pytest.mark.parametrize("server", SERVERS)
def test_a_refused_token_ends_the_login(node_modules, server):
    generation, options = SERVERS[server]
    revision = "4" if server == "4.8" else "auto"

    async def story():
        async with peer(node_modules, generation, **options) as node:
            profile = profile_at(node.url, addresses={"revision": revision})
            async with adapter_of(DeskXts, profile) as (adapter, _):
                adapter.session = logged_in(node.url, token="BAD")
                await adapter.listen()

    with pytest.raises(SessionExpiredError):
        run(story())


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("transport_too", [False, True])
def test_a_server_that_disconnects_us_is_left(node_modules, server, transport_too):
    generation, options = SERVERS[server]
    revision = "4" if server == "4.8" else "auto"

    async def story():
        async with peer(node_modules, generation, **options) as node:
            profile = profile_at(node.url, addresses={"revision": revision})
            async with adapter_of(DeskXts, profile) as (adapter, _), _logged(adapter, node) as task:
                await until(lambda: adapter.listening)
                node.command(disconnect=transport_too)
                await task

    with pytest.raises(BrokerUnreachableError):
        run(story())
