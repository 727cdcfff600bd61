from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from engineio.async_drivers._websocket_wsgi import SimpleWebSocketWSGI
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from house import eventually, free_port
from orderwire.web.lines import browsers_line

SERVER = Path(__file__).resolve().parents[1] / "line_server.py"
HANDSHAKE = {
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/",
    "HTTP_HOST": "x",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_UPGRADE": "websocket",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
}
LARGE = 16 * 2**20
"""Bytes that no buffer of the system takes at once."""


@contextlib.contextmanager
def served(kind, log):
    port = free_port()
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, str(SERVER), kind, str(port)], stdout=out, stderr=out)
    try:
        eventually(lambda: answers(port), what="the server")
        yield process, port
    finally:
        process.kill()
        process.wait()


def answers(port):
    with contextlib.suppress(httpx2.TransportError):
        return count(port) is not None
    return False


def count(port):
    """How many connections the worker believes to have, this one among them."""
    return int(httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False, timeout=1.0).text)


def dialled(port):
    """A connection that takes little at once, and nothing compressed."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    line.connect(("127.0.0.1", port))
    return connect(f"ws://127.0.0.1:{port}/line", sock=line, compression=None, max_size=None)


@pytest.mark.parametrize("kind", ["threads", "greenlets"])
def test_a_large_frame_arrives_whole_with_pings_answered_around_it(tmp_path, kind):
    with served(kind, tmp_path / "log") as (_, port), dialled(port) as line:
        answered = [line.ping()]
        line.send(str(LARGE))
        ended = threading.Event()

        def ping_on():
            while not ended.is_set():
                answered.append(line.ping())
                answered[-1].wait(0.002)

        pinging = threading.Thread(target=ping_on)
        pinging.start()
        try:
            large = line.recv(timeout=60)
            line.send("5")
            small = line.recv(timeout=20)
        finally:
            ended.set()
            pinging.join()

        assert (len(large), set(large), small) == (LARGE, {"x"}, "xxxxx")
        assert all(each.wait(20) for each in answered)


@pytest.mark.parametrize("kind", ["threads", "greenlets"])
def test_a_message_that_is_too_large_ends_the_connection_before_it_is_held(tmp_path, kind):
    sent = []

    def pieces():
        for _ in range(100_000):
            sent.append("1" * 4_096)
            yield sent[-1]

    with served(kind, tmp_path / "log") as (_, port), dialled(port) as line:
        with pytest.raises(ConnectionClosedError):
            line.send(pieces())

        assert len(sent) < 50_000
        assert count(port) is not None


def test_who_asks_for_the_end_and_does_not_close_holds_nobody_up(tmp_path):
    with served("threads", tmp_path / "log") as (_, port), contextlib.ExitStack() as held:
        for _ in range(6):
            line = held.enter_context(socket.create_connection(("127.0.0.1", port)))
            line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

        assert httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False, timeout=5.0).is_success


def test_a_request_that_was_begun_is_answered_though_the_server_stops(tmp_path):
    begun, until = tmp_path / "begun", tmp_path / "until"
    with served("threads", tmp_path / "log") as (process, port), ThreadPoolExecutor(1) as pool:
        for _ in range(5):
            with dialled(port) as line:
                line.send("1")
                assert line.recv(timeout=20) == "x"
        eventually(lambda: count(port) <= 1, what="the connections' end")
        asked = pool.submit(
            httpx2.get,
            f"http://127.0.0.1:{port}/",
            params={"begun": str(begun), "until": str(until)},
            trust_env=False,
            timeout=30,
        )
        eventually(begun.exists, what="the request")
        process.send_signal(signal.SIGTERM)
        eventually(lambda: not answers(port), what="no new connections")
        until.touch()

        assert asked.result(30).text == "1"
        assert process.wait(20) == 0


def test_a_client_that_leaves_while_it_is_told_good_bye_is_no_error():
    ours, theirs = socket.socketpair()
    closed = []

    def converse(line):
        line.ws.sock.close()
        closed.append((line.ws.connected, line.close()))

    driver = browsers_line(SimpleWebSocketWSGI, most_bytes=100)
    with (
        theirs,
        pytest.raises(ConnectionError),
    ):  # how Werkzeug's server is told that the connection was taken over
        driver(converse, None)(HANDSHAKE | {"werkzeug.socket": ours}, None)

    assert closed == [(True, None)]
