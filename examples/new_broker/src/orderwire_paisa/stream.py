"""Paisa's stream: the REST adapter as it is, and one method more."""

from __future__ import annotations

import asyncio
import logging
from typing import ClassVar, NoReturn

import msgspec
from msgspec import Raw, Struct
from orderwire.brokers.adapter import Field
from orderwire.core.orders import Channel
from orderwire.errors import BrokerError, BrokerUnreachableError, ProtocolViolationError, SessionExpiredError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from orderwire_paisa import messages
from orderwire_paisa.adapter import PaisaAdapter

SILENCE = 5.0
"""Seconds without a message after which the stream counts as dead; Paisa's beat comes every second."""

_TOKEN_REFUSED = 4401
"""The code with which Paisa closes the stream of a dead token."""

_SILENT = logging.Logger("paisa stream", level=logging.CRITICAL + 1)  # noqa: LOG001 - of no tree, so no handler
"""The library would log what it sends, and the token is part of that."""


class StreamingPaisaAdapter(PaisaAdapter):
    """One Paisa account with its stream."""

    has_stream = True
    address_fields: ClassVar[tuple[Field, ...]] = (
        *PaisaAdapter.address_fields,
        Field(name="stream", label="Stream", default="wss://stream.paisa.example"),
    )

    async def listen(self) -> None:
        """Follow the account until the line ends. It dials once: the supervisor reconnects, backs off and polls."""
        token = self._token()
        try:
            async with self._dial() as socket:
                await socket.send(msgspec.json.encode({"token": token}).decode())
                await self._follow(socket)
        except ConnectionClosed as error:
            raise _closed(error) from None
        except (TimeoutError, OSError, InvalidHandshake) as error:
            raise BrokerUnreachableError(
                f"Paisa's stream cannot be reached, or fell silent ({type(error).__name__})"
            ) from None
        finally:
            self.listening = False

    def _dial(self) -> _Dial:
        return _Dial(
            f"{self._addresses['stream']}/v1/stream",
            open_timeout=7,
            close_timeout=0.4,
            ping_interval=None,
            proxy=None,
            max_size=2**20,
            logger=_SILENT,
        )

    async def _follow(self, socket: ClientConnection) -> NoReturn:
        while True:
            async with asyncio.timeout(SILENCE):
                text = await socket.recv()
            self.heard_at = self.tools.clock.monotonic()
            try:
                self._take(messages.decode(text, _Message))
            except ProtocolViolationError as error:
                self.note_violation(error)  # counted; the book is read for what it would have told

    def _take(self, message: _Message) -> None:
        """Publish what a message says; our session was taken once it says hello."""
        reading = self._reading(Channel.STREAM)
        if message.hello is not None:
            self.listening = True
        if message.order:
            self.on_order(messages.order_update(message.order, reading))
        if message.trade:
            self.on_trade(messages.trade(message.trade, reading))
        if message.position:
            self.on_position(messages.position(message.position, reading))


_ABSENT = Raw()


class _Message(Struct):
    """A message of the stream has one of these; a beat has none."""

    hello: str | None = None
    order: Raw = _ABSENT
    trade: Raw = _ABSENT
    position: Raw = _ABSENT


class _Dial(connect):
    """Dials once: a redirect, which could lead our token elsewhere, is a refusal."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


def _closed(error: ConnectionClosed) -> BrokerError:
    if error.rcvd is not None and error.rcvd.code == _TOKEN_REFUSED:
        return SessionExpiredError("Paisa no longer accepts this login.")
    return BrokerUnreachableError("Paisa closed the stream")
