from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest
import socketio
from flask import Flask, request
from flask_socketio import SocketIO, join_room
from werkzeug.serving import make_server

from house import eventually
from orderwire.bus.link import open_redis
from orderwire.bus.switchboard import Switchboard
from orderwire.bus.wire import Wire
from orderwire.clock import SystemClock


class WebProcess:
    """A Socket.IO server on the wire, as a web process has one."""

    def __init__(self, url: str) -> None:
        app = Flask(__name__)
        self.wire = Wire(
            open_redis(url), clock=SystemClock(), deaf_after=600.0
        )  # deaf is not what is tested here
        self.socketio = SocketIO(app, async_mode="threading", client_manager=Switchboard(self.wire))
        self.sids: list[str] = []

        @self.socketio.on("connect")
        def connect() -> None:
            join_room("everybody")
            self.sids.append(request.sid)

        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.port}"

    def close(self) -> None:
        self.wire.stop()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        eventually(lambda: not self.wire.subscribed.is_set(), what="the end of listening")


@contextmanager
def client(web: WebProcess):
    heard: list[object] = []
    one = socketio.Client(reconnection=False)
    one.on("said", heard.append)
    one.connect(web.url, transports=["websocket"])
    try:
        yield one, heard
    finally:
        one.disconnect()
        one.wait()


@pytest.fixture
def webs(redis_server):
    made = [WebProcess(redis_server.url) for _ in range(2)]
    yield made
    for web in made:
        web.close()


def test_rooms_and_disconnections_reach_clients_of_other_processes(webs):
    one, two = webs
    with client(one) as (_, heard_one), client(two) as (second, heard_two):
        for web in webs:
            eventually(lambda web=web: web.sids, what="the client")
            eventually(web.wire.subscribed.is_set, what="the subscription")

        one.socketio.emit("said", {"n": 1}, to="everybody")
        eventually(lambda: heard_one and heard_two, what="what was said to the room")
        one.socketio.server.disconnect(two.sids[0])
        eventually(lambda: not second.connected, what="the disconnection")

    assert heard_one == heard_two == [{"n": 1}]


def test_what_a_client_is_sent_directly_does_not_pass_through_redis(webs):
    one, _ = webs
    said, publish = [], one.wire.publish

    def record(message):
        said.append(message["method"])
        return publish(message)

    one.wire.publish = record
    with client(one) as (_, heard):
        eventually(lambda: one.sids, what="the client")

        one.socketio.server.emit("said", 1, to=one.sids[0], ignore_queue=True)
        eventually(lambda: heard, what="what was said")
        one.socketio.emit("said", 2, to="everybody")
        eventually(lambda: len(heard) == 2, what="what was said to the room")

    assert [method for method in said if method != "canary"] == ["emit"]
