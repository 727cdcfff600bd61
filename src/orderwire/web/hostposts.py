"""Tells a host application of changes by signed webhooks, and takes its logins over from the answers.

For a service that runs beside its host and shares no socket with it. One lane, so a host that hangs delays nobody;
what it did not take is told again from the log, in order, until it does.
"""

from __future__ import annotations

import itertools
from typing import Final

import httpx2
import msgspec
import structlog
from msgspec import Struct

from orderwire.brokers.adapter import plaintext_refusal
from orderwire.clock import Clock
from orderwire.config import Settings
from orderwire.core import webhooks
from orderwire.core.events import Event, EventType
from orderwire.core.hosts import WAIT, FromHost, Place, ToHost
from orderwire.decoding import decode
from orderwire.engine import EventEngine
from orderwire.errors import UNDECODABLE, ConfigurationError, OrderwireError
from orderwire.web.hosts import HostLine

_log = structlog.get_logger(__name__)

LANE: Final = "host"
PATH: Final = "/orderwire/exchange"
PATIENCE: Final = 5.0
BACK_OFF: Final = (1.0, 2.0, 4.0, 8.0)


class _TakenError(OrderwireError):
    """The host follows another service."""


class _Refusal(Struct):
    message: str
    taken: bool = False


class HostPosts:
    """Posts to one host. Everything runs on its lane; nothing does without `host_url`."""

    def __init__(self, line: HostLine, *, settings: Settings, clock: Clock, alone: bool = True) -> None:
        """Raise ConfigurationError for an address over which tokens could be read on the way.

        `alone`: this process has all accounts; a host is told by one.
        """
        self._line = line
        self._clock = clock
        self._url = settings.host_url.rstrip("/")
        self._secret = settings.host_secret.get_secret_value()
        refusal = plaintext_refusal(self._url, allow_plaintext=False) if self._url else None
        if refusal:
            raise ConfigurationError(f"ORDERWIRE_HOST_URL: {refusal}")
        if self._url and not alone:
            raise ConfigurationError(
                "ORDERWIRE_HOST_URL is for `orderwire serve`: one process tells a host of everything."
            )
        self._client = httpx2.Client(timeout=PATIENCE, follow_redirects=False, trust_env=False)
        self._numbers = itertools.count(clock.time_ns())
        self._user = ""
        self._places: dict[str, Place] = {}
        self._posted_at = -WAIT
        self._failures = 0
        self._not_before = 0.0
        self._said = ""

    def attach(self, engine: EventEngine) -> None:
        """Make the lane and register; once, before the engine starts. No effect without a host."""
        if not self._url:
            return
        engine.add_lane(
            LANE, capacity=4, when_full="conflate", key=lambda event: event.type == EventType.TIMER
        )
        for kind in (EventType.ORDER_CHANGED, EventType.FEED_STATUS):
            engine.register(kind, self.on_news, lane=LANE)
        engine.register(EventType.TIMER, self.on_timer, lane=LANE)

    def close(self) -> None:
        """Close the connection; after the engine has stopped."""
        self._client.close()

    def on_news(self, event: Event) -> None:  # noqa: ARG002 - the engine's signature
        """Tell the host, unless it is to be left alone for a while."""
        self._post_all()

    def on_timer(self, event: Event) -> None:  # noqa: ARG002 - the engine's signature
        """Say that we are here, and learn of a new login."""
        if self._clock.monotonic() - self._posted_at >= WAIT or self._failures:
            self._post_all()

    def _post_all(self) -> None:
        while self._clock.monotonic() >= self._not_before and self._post():
            pass

    def _post(self) -> bool:
        """Post what the host does not know; returns whether there is more to say at once."""
        told = msgspec.structs.replace(self._line.news(self._user, self._places), number=next(self._numbers))
        try:
            answer = self._ask(told)
            user = self._line.admit(answer)
        except _TakenError as error:
            self._line.refuse(str(error))
            self._failed(str(error))
            return False
        except (httpx2.HTTPError, *UNDECODABLE, OrderwireError) as error:
            self._failed(f"{type(error).__name__}: {error}")
            return False
        self._line.refuse("")
        self._line.trouble = ""
        more = bool(told.events) or answer.state is not None or user != self._user
        self._user, self._places = user, dict(answer.places)
        self._posted_at, self._failures, self._said = self._clock.monotonic(), 0, ""
        return more

    def _ask(self, told: ToHost) -> FromHost:
        body, at = msgspec.json.encode(told), int(self._clock.now().timestamp())
        headers = webhooks.headers(
            body, secret=self._secret, message_id=f"{told.service}-{told.number}", at=at
        )
        reply = self._client.post(self._url + PATH, content=body, headers=headers)
        if not reply.is_success and (why := _taken(reply.content)):
            raise _TakenError(why)
        if not reply.is_success:
            raise OrderwireError(f"it answered {reply.status_code}: {reply.text[:200]}")
        return decode(reply.content, FromHost)

    def _failed(self, why: str) -> None:
        pause = BACK_OFF[min(self._failures, len(BACK_OFF) - 1)]
        self._failures += 1
        self._not_before = self._clock.monotonic() + pause
        self._line.trouble = f"{self._url} is not told: {why}"
        if why != self._said:
            self._said = why
            _log.warning("host not told", host=self._url, error=why)


def _taken(body: bytes) -> str:
    """Return why the host follows another service, empty where it refused for something else."""
    try:
        refusal = decode(body, _Refusal)
    except UNDECODABLE:
        return ""
    return refusal.message[:500] if refusal.taken else ""
