"""Short-lived notices between processes over Redis' publish and subscribe, and whether the subscription still hears.

It is Flask-SocketIO's own queue and channel, used for more: what is said on it (a command waits, a session was ended)
reaches every process once, in order, or never. So nobody may depend on a notice; everybody also looks by itself.

A subscription can go deaf without an error: the connection is half-open, a proxy dropped it, the server failed over.
Each listener therefore says a canary on the channel every second. One that does not hear its own for a few seconds
lets its connection go, subscribes anew and tells that something may have been missed.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from orderwire.bus.link import BusDownError, Guarded
from orderwire.clock import Clock

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import PubSub

_log = structlog.get_logger(__name__)

CHANNEL: Final = "flask-socketio"
CANARY_EVERY: Final = 1.0
DEAF_AFTER: Final = 3.0
"""Seconds without the own canary after which a subscription is deaf."""

AGAIN_AFTER: Final = 0.5
"""Seconds before a subscription that failed is tried again."""

_NOTICE: Final = "notice"
_CANARY: Final = "canary"

_guarded: Final = Guarded()

Handler = Callable[[Mapping[str, Any]], None]


@dataclass(slots=True)
class WireCounts:
    """What a listener did."""

    heard: int = 0
    canaries: int = 0
    deaf: int = 0
    """Times it heard nothing of its own any more."""
    failures: int = 0
    """Times the connection failed."""
    unsaid: int = 0
    """Notices that could not be published."""


class Wire:
    """Says and hears notices. `tell` from any thread; `listen` in one."""

    def __init__(self, redis: Redis, *, clock: Clock, name: str = "", deaf_after: float = DEAF_AFTER) -> None:
        """`deaf_after`: seconds without the own canary after which the subscription is made anew."""
        self.name = name or secrets.token_hex(6)
        self.counts = WireCounts()
        self.subscribed = threading.Event()
        """Set while a subscription stands."""
        self._redis = redis
        self._clock = clock
        self._deaf_after = deaf_after
        self._handlers: dict[str, tuple[Handler, ...]] = {}
        self._missed: tuple[Callable[[], None], ...] = ()
        self._stopping = threading.Event()
        self._said_at = self._heard_at = 0.0
        self._cut = False

    def on(self, topic: str, handler: Handler) -> None:
        """Call `handler(facts)` for notices of a topic, in the listening thread; it may not block. Before `run`."""
        self._handlers[topic] = (*self._handlers.get(topic, ()), handler)

    def on_missed(self, handler: Callable[[], None]) -> None:
        """Call `handler()` whenever notices may have been missed: at each subscription. Before `run`."""
        self._missed = (*self._missed, handler)

    def tell(self, topic: str, **facts: Any) -> bool:
        """Say a notice to every listener, this process' own among them; False when it could not be said."""
        return self.publish({"method": _NOTICE, "topic": topic, "facts": facts})

    def publish(self, message: Mapping[str, Any]) -> bool:
        """Say a message on the channel as it is; False when it could not be said. Never raises."""
        try:
            with _guarded:
                self._redis.publish(CHANNEL, json.dumps(message))
        except BusDownError as error:
            self.counts.unsaid += 1
            _log.debug("not said", error=str(error))
            return False
        return True

    def run(self) -> None:
        """Listen until `stop`."""
        for _ in self.listen():
            pass

    def stop(self) -> None:
        """End `listen` within a second."""
        self._stopping.set()

    def listen(self) -> Iterator[bytes]:
        """Handle notices until `stop`, whatever happens to the connection; what is not ours is yielded."""
        while not self._stopping.is_set():
            try:
                with _guarded:
                    yield from self._listen_once()
            except BusDownError as error:
                self.counts.failures += 1
                if not self._cut:
                    _log.warning("the wire is cut; trying again until it is not", error=str(error))
                self._cut = True
                self._stopping.wait(AGAIN_AFTER)
            finally:
                self.subscribed.clear()

    def _listen_once(self) -> Iterator[bytes]:
        """Listen on one connection until it fails or is found deaf."""
        subscription: PubSub = self._redis.pubsub(  # type: ignore[no-untyped-call]  # the client has holes in its types
            ignore_subscribe_messages=True
        )
        try:
            subscription.subscribe(CHANNEL)
            self._said_at, self._heard_at = 0.0, self._clock.monotonic()
            self.subscribed.set()
            if self._cut:
                _log.info("the wire is mended")
            self._cut = False
            for handler in self._missed:
                handler()
            while not self._stopping.is_set():
                self._say_canary()
                yield from self._hear(subscription)
                if self._clock.monotonic() - self._heard_at > self._deaf_after:
                    self.counts.deaf += 1
                    _log.warning("the wire was deaf", seconds=self._deaf_after)
                    return
        finally:
            subscription.close()

    def _say_canary(self) -> None:
        now = self._clock.monotonic()
        if now - self._said_at >= CANARY_EVERY:
            self._said_at = now
            self.publish({"method": _CANARY, "host_id": self.name})

    def _hear(self, subscription: PubSub) -> Iterator[bytes]:
        said = subscription.get_message(timeout=CANARY_EVERY)
        if not said or said["type"] != "message":
            return
        data: bytes = said["data"]
        message = _read(data)
        kind = message.get("method")
        if kind == _CANARY:
            if message.get("host_id") == self.name:
                self.counts.canaries += 1
                self._heard_at = self._clock.monotonic()
        elif kind == _NOTICE:
            self.counts.heard += 1
            self._handle(message)
        else:
            yield data

    def _handle(self, message: Mapping[str, Any]) -> None:
        facts = message.get("facts")
        for handler in self._handlers.get(str(message.get("topic")), ()):
            handler(facts if isinstance(facts, dict) else {})


def _read(data: bytes) -> Mapping[str, Any]:
    try:
        message = json.loads(data)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
