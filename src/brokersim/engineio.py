"""Engine.IO 3 and 4 with Socket.IO on top: packets as text and one client's dialogue, without I/O and without a clock.

The rules are those of the XTS protocol document, section 5 (measured on socket.io 2.5.1 and 4.8).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Final

MAX_PAYLOAD: Final = 1_000_000
RECORD_SEPARATOR: Final = "\x1e"

OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = "0123456"
CONNECT, DISCONNECT, EVENT, ACK, ERROR, BINARY_EVENT, BINARY_ACK = range(7)
_WITH_LIST = frozenset({EVENT, ACK, BINARY_EVENT, BINARY_ACK})
_WITH_ATTACHMENTS = frozenset({BINARY_EVENT, BINARY_ACK})


class MalformedPacketError(ValueError):
    """A packet or payload that no Engine.IO peer would send."""


class Mode(StrEnum):
    """Which server generation is played: XTS runs `sio2`; the others exist to test clients that guess."""

    SIO2 = "sio2"
    SIO4_ALLOW_EIO3 = "sio4_allow_eio3"
    SIO4_ONLY = "sio4_only"

    def revision(self, eio: str) -> int | None:
        """Return the Engine.IO revision spoken to a client that asks for `eio`, or None when it is refused."""
        if self is Mode.SIO2:
            return 3
        if eio == "4":
            return 4
        return 3 if self is Mode.SIO4_ALLOW_EIO3 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timers:
    """The server's periods in seconds; the defaults are those of the live interactive hosts."""

    ping_interval: float = 25.0
    ping_timeout: float = 20.0
    upgrade_timeout: float = 10.0
    connect_timeout: float = 45.0
    noop_interval: float = 0.1
    close_timeout: float = 30.0

    @property
    def patience(self) -> float:
        """Seconds of silence from an Engine.IO 3 client after which the server closes."""
        return self.ping_interval + self.ping_timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketPacket:
    """One Socket.IO packet, the content of an Engine.IO message."""

    kind: int
    namespace: str = "/"
    ack: int | None = None
    data: object = None
    attachments: int = 0


def parse_socket_packet(text: str) -> SocketPacket:
    """Read the text behind the `4` of an Engine.IO message.

    Raises:
        MalformedPacketError: unknown type, bad JSON, or an event that is no array.
    """
    if not text or text[0] not in "0123456":
        raise MalformedPacketError(text)
    kind = int(text[0])
    attachments, rest = _split_attachments(text[1:]) if kind in _WITH_ATTACHMENTS else (0, text[1:])
    namespace, rest = _split_namespace(rest)
    ack, rest = _split_digits(rest)
    data = _read_json(rest) if rest else None
    if kind in _WITH_LIST and not isinstance(data, list):
        raise MalformedPacketError(text)
    return SocketPacket(kind=kind, namespace=namespace, ack=ack, data=data, attachments=attachments)


def _split_attachments(text: str) -> tuple[int, str]:
    count, dash, rest = text.partition("-")
    if not dash or not count.isdecimal():
        raise MalformedPacketError(text)
    return int(count), rest


def _split_namespace(text: str) -> tuple[str, str]:
    if not text.startswith("/"):
        return "/", text
    namespace, _, rest = text.partition(",")
    return namespace.partition("?")[0], rest


def _split_digits(text: str) -> tuple[int | None, str]:
    rest = text.lstrip("0123456789")
    digits = text[: len(text) - len(rest)]
    return (int(digits) if digits else None), rest


def _read_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedPacketError(text) from error


def compact_json(value: object) -> str:
    """Write JSON as the Node servers do: no spaces, and ASCII so that characters and bytes count the same."""
    return json.dumps(value, separators=(",", ":"))


def event_packet(name: str, *arguments: object) -> str:
    """Build the Engine.IO message of one event in the default namespace."""
    return f"{MESSAGE}{EVENT}{compact_json([name, *arguments])}"


def encode_payload(packets: Iterable[str], revision: int) -> str:
    """Join packets into the body of one polling answer; lengths count UTF-16 units, as JavaScript does."""
    if revision == 4:
        return RECORD_SEPARATOR.join(packets)
    return "".join(f"{len(packet.encode('utf-16-le')) // 2}:{packet}" for packet in packets)


def decode_payload(body: bytes, revision: int) -> list[str | bytes]:
    """Split the body of one polling request into packets; the binary framing of python-engineio 3 is read too.

    Raises:
        MalformedPacketError: lengths that do not fit, bad UTF-8 or bad base64.
    """
    try:
        if revision == 4:
            return [_unwrap_base64(part, "b") for part in body.decode().split(RECORD_SEPARATOR)]
        if body[:1] in {b"\x00", b"\x01"}:
            return _decode_binary_framing(body)
        return [_unwrap_base64(part, "b4") for part in _split_lengths(body.decode())]
    except (UnicodeDecodeError, binascii.Error) as error:
        raise MalformedPacketError(repr(body[:100])) from error


def _unwrap_base64(packet: str, prefix: str) -> str | bytes:
    if packet.startswith(prefix):
        return base64.b64decode(packet[len(prefix) :], validate=True)
    return packet


def _split_lengths(text: str) -> list[str]:
    units, packets, position = text.encode("utf-16-le"), [], 0
    while position < len(units):
        head, colon, _ = units[position : position + 40].decode("utf-16-le", "ignore").partition(":")
        if not colon or not head.isdecimal():
            raise MalformedPacketError(text[:100])
        start = position + 2 * (len(head) + 1)
        position = start + 2 * int(head)
        if position > len(units):
            raise MalformedPacketError(text[:100])
        packets.append(units[start:position].decode("utf-16-le"))
    return packets


def _decode_binary_framing(body: bytes) -> list[str | bytes]:
    packets: list[str | bytes] = []
    while body:
        end = body.find(b"\xff")
        digits = body[1:end]
        if end < 2 or body[0] > 1 or max(digits) > 9:
            raise MalformedPacketError(repr(body[:100]))
        size = int("".join(map(str, digits)))
        packet, rest = body[end + 1 : end + 1 + size], body[end + 1 + size :]
        if len(packet) != size:
            raise MalformedPacketError(repr(body[:100]))
        packets.append(packet if body[0] else packet.decode())
        body = rest
    return packets


@dataclass(frozen=True, slots=True)
class Send:
    """The server says this packet."""

    packet: str


class Happening(Enum):
    """What a packet of the client changed."""

    JOINED = "joined"  # once per connect packet that the server took as one
    LEFT = "left"  # the client left the namespace; the transport stays
    DROP = "drop"  # close the transport
    CLOSED = "closed"  # the client ended a polling session


Outputs = tuple[Send | Happening, ...]
_NOTHING: Outputs = ()


@dataclass(slots=True, kw_only=True)
class Dialogue:
    """One client's conversation: feed it packets, do what it returns.

    `joins` counts how often the client is in the default namespace: a Socket.IO 2 server takes a second `40`
    as a second connect and delivers every event once per join.
    """

    sid: str
    mode: Mode
    revision: int
    timers: Timers
    refusal: str | None = None
    joins: int = field(default=0, init=False)

    def open_packet(self, upgrades: Sequence[str]) -> str:
        """Return the first packet of the session."""
        opening: dict[str, object] = {
            "sid": self.sid,
            "upgrades": list(upgrades),
            "pingInterval": round(self.timers.ping_interval * 1000),
            "pingTimeout": round(self.timers.ping_timeout * 1000),
        }
        if self.mode is not Mode.SIO2:
            opening["maxPayload"] = MAX_PAYLOAD
        return OPEN + compact_json(opening)

    def welcome(self) -> Outputs:
        """Return what follows the open packet unasked: in revision 3 the namespace is joined or refused at once."""
        return self._join() if self.revision == 3 else _NOTHING

    def receive(self, packet: str, *, polling: bool = False) -> Outputs:
        """Take one packet of the client."""
        kind, data = packet[:1], packet[1:]
        if kind == PING:
            return (Send(PONG + data),) if self.revision == 3 else (Happening.DROP,)
        if kind == PONG:
            return (Happening.DROP,) if self.revision == 3 and self.mode is not Mode.SIO2 else _NOTHING
        if kind == CLOSE:
            return (Happening.CLOSED,) if polling else _NOTHING
        if kind == MESSAGE:
            return self._receive_message(data)
        return _NOTHING if kind in {OPEN, UPGRADE, NOOP} else (Happening.DROP,)

    def event(self, name: str, *arguments: object) -> tuple[str, ...]:
        """Return the packets that bring one event to this client: none before it joined, two after joining twice."""
        return (event_packet(name, *arguments),) * self.joins

    def leave(self) -> Outputs:
        """Take the client out of the namespace from the server's side."""
        self.joins = 0
        return (Send(f"{MESSAGE}{DISCONNECT}"),)

    def _receive_message(self, text: str) -> Outputs:
        try:
            packet = parse_socket_packet(text)
        except MalformedPacketError:
            return (Happening.DROP,)
        handler = _HANDLERS.get(packet.kind)
        return handler(self, packet) if handler else _NOTHING

    def _on_connect(self, packet: SocketPacket) -> Outputs:
        if packet.namespace != "/":
            return (self._refuse("Invalid namespace", f"{packet.namespace},"),)
        if self.mode is not Mode.SIO2 and (self.joins or self.revision == 3):
            return (Happening.DROP,)
        return self._join()

    def _on_disconnect(self, packet: SocketPacket) -> Outputs:
        if packet.namespace != "/":
            return _NOTHING
        self.joins = 0
        return (Happening.LEFT,)

    def _join(self) -> Outputs:
        if self.refusal is not None:
            return (self._refuse(self.refusal),)
        self.joins += 1
        if self.joins > 1:
            return (Happening.JOINED,)
        answer = compact_json({"sid": self.sid[::-1]}) if self.revision == 4 else ""
        return (Send(f"{MESSAGE}{CONNECT}{answer}"), Happening.JOINED)

    def _refuse(self, text: str, namespace: str = "") -> Send:
        reason = compact_json({"message": text} if self.revision == 4 else text)
        return Send(f"{MESSAGE}{ERROR}{namespace}{reason}")


_HANDLERS: Final[dict[int, Callable[[Dialogue, SocketPacket], Outputs]]] = {
    CONNECT: Dialogue._on_connect,  # noqa: SLF001  # the table belongs to the class
    DISCONNECT: Dialogue._on_disconnect,  # noqa: SLF001  # same
}
