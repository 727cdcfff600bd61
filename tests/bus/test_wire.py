from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from contextlib import contextmanager

import pytest

from house import eventually
from orderwire.bus.link import open_redis
from orderwire.bus.wire import CHANNEL, Wire
from orderwire.clock import SystemClock
from orderwire.errors import ConfigurationError


class HalfOpen:
    """Stands between Redis and its clients; `deafen` swallows from now on what open subscriptions are sent."""

    def __init__(self, server, folder) -> None:
        self.url = f"unix://{folder}/between.sock"
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{folder}/between.sock")
        self._listener.listen(16)
        self._subscriptions: set[socket.socket] = set()
        self._deaf: set[socket.socket] = set()
        self._open: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def deafen(self) -> None:
        self._deaf |= self._subscriptions

    def close(self) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._server.socket))
                self._open += [client, server]
                for pair in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source, target, upwards) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if upwards and b"SUBSCRIBE" in data:
                    self._subscriptions.add(source)
                if upwards or target not in self._deaf:
                    target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def half_open(redis_server):
    with tempfile.TemporaryDirectory(prefix="ow-") as folder:
        between = HalfOpen(redis_server, folder)
        yield between
        between.close()


PATIENT = 600.0
"""Seconds without a canary that a machine which is only slow may take."""


def wire(server, *, deaf_after=PATIENT, **given) -> Wire:
    return Wire(open_redis(server.url), clock=SystemClock(), deaf_after=deaf_after, **given)


@contextmanager
def listening(*wires):
    threads = [threading.Thread(target=one.run) for one in wires]
    for thread in threads:
        thread.start()
    try:
        for one in wires:
            eventually(one.subscribed.is_set, what="the subscription")
        yield
    finally:
        for one in wires:
            one.stop()
        for thread in threads:
            thread.join()


def test_a_notice_reaches_every_listener_of_its_topic_in_order(redis_server):
    heard = {name: [] for name in ("one", "two")}
    wires = [wire(redis_server, name=name) for name in heard]
    for one in wires:
        one.on("cut", lambda facts, name=one.name: heard[name].append(facts["number"]))

    with listening(*wires):
        for number in range(50):
            assert wires[0].tell("cut", number=number)
            assert wires[1].tell("other", number=number)
        eventually(lambda: all(len(notices) == 50 for notices in heard.values()), what="the notices")

    assert all(notices == list(range(50)) for notices in heard.values())


def test_what_is_no_notice_is_left_to_socketio_and_rubbish_harms_nobody(redis_server):
    one, left = wire(redis_server), []
    thread = threading.Thread(target=lambda: left.extend(one.listen()))
    thread.start()
    try:
        eventually(one.subscribed.is_set, what="the subscription")
        for said in (
            b"{no",
            b"[1]",
            b'{"method": "emit", "n": 1}',
            b'{"method": "notice", "topic": [], "facts": 3}',
        ):
            redis_server.client.publish(CHANNEL, said)
        eventually(lambda: left and one.counts.heard, what="what was said")
    finally:
        one.stop()
        thread.join()

    assert left == [b"{no", b"[1]", b'{"method": "emit", "n": 1}']


def test_a_listener_hears_its_own_canary(redis_server):
    one, two = wire(redis_server), wire(redis_server)

    with listening(one, two):
        eventually(lambda: min(one.counts.canaries, two.counts.canaries) >= 2, what="canaries")

    assert one.counts.deaf == two.counts.deaf == 0


def test_a_subscription_that_went_deaf_is_noticed_and_made_anew(redis_server, half_open):
    """Something between us and Redis swallows what a subscription is sent: no error ever comes."""
    one, missed, heard = Wire(open_redis(half_open.url), clock=SystemClock()), [], []
    one.on_missed(lambda: missed.append(1))
    one.on("cut", heard.append)

    with listening(one):
        eventually(lambda: one.counts.canaries, what="a canary")
        half_open.deafen()
        eventually(lambda: one.counts.deaf, what="that it was noticed")
        eventually(lambda: len(missed) >= 2, what="a second subscription")
        eventually(lambda: one.tell("cut", n=1) and heard, what="a notice")

    assert one.counts.deaf >= 1


def test_a_redis_that_stands_still_and_goes_on_is_heard_again(own_redis):
    one, heard = wire(own_redis, deaf_after=3.0), []
    one.on("cut", heard.append)

    with listening(one):
        own_redis.freeze()
        eventually(lambda: not one.subscribed.is_set() or one.counts.unsaid, what="that it was noticed")
        own_redis.thaw()
        eventually(lambda: one.subscribed.is_set() and one.tell("cut", n=1) and heard, what="a notice")


def test_a_redis_that_was_killed_is_subscribed_to_again(own_redis):
    one, missed, heard = wire(own_redis), [], []
    one.on_missed(lambda: missed.append(1))
    one.on("cut", heard.append)

    with listening(one):
        own_redis.kill()
        eventually(lambda: one.counts.failures, what="the failure")
        assert one.tell("cut", n=0) is False
        own_redis.start()
        eventually(lambda: len(missed) >= 2, what="a second subscription")
        eventually(lambda: one.tell("cut", n=1) and heard, what="a notice")


def test_an_address_that_cannot_be_one_is_refused_at_once():
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        open_redis("postgresql://x")
