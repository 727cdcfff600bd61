"""Speaks Engine.IO 3 and 4 with Socket.IO on top: text in, signals and frames out, no I/O and no clock.

The rules are xts.md §5, measured against Socket.IO 2.5 and 4.8. Times are monotonic seconds, given by the caller.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from typing import Any, ClassVar, Final
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec

from orderwire.decoding import decode
from orderwire.errors import UNDECODABLE, ConfigurationError, ProtocolViolationError

REVISIONS: Final = ("auto", "3", "4")
"""What the setting may say."""


class PacketType(IntEnum):
    """Engine.IO packets, by their digit."""

    OPEN = 0
    CLOSE = 1
    PING = 2
    PONG = 3
    MESSAGE = 4
    UPGRADE = 5
    NOOP = 6


class SocketType(IntEnum):
    """Socket.IO packets, by their digit."""

    CONNECT = 0
    DISCONNECT = 1
    EVENT = 2
    ACK = 3
    ERROR = 4
    BINARY_EVENT = 5
    BINARY_ACK = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketPacket:
    """One Socket.IO packet. `data` is decoded JSON, None when there is none."""

    type: SocketType
    namespace: str = "/"
    ack: int | None = None
    attachments: int = 0
    data: Any = None


_SOCKET_PACKET = re.compile(
    r"([0-6])(?:(?<=[56])([0-9]{1,4})-)?(?:(/[^,]*),?)?([0-9]{0,15})(?![0-9])(.*)", re.DOTALL
)
_LENGTH = re.compile(r"([0-9]{1,9}):")
_SEPARATOR = "\x1e"
_LISTS = frozenset(
    {SocketType.EVENT, SocketType.ACK, SocketType.BINARY_EVENT, SocketType.BINARY_ACK},
)
_MOST_SHOWN = 200
_MOST_KEPT = 8000


def read_packet(frame: str) -> tuple[PacketType, str]:
    """Split an Engine.IO text frame into its type and data. Raises ProtocolViolationError."""
    if not frame or not "0" <= frame[0] <= "6":
        raise _violation("not an Engine.IO packet", frame)
    return PacketType(int(frame[0])), frame[1:]


def read_socket_packet(text: str) -> SocketPacket:
    """Read what an Engine.IO message carries (xts.md §5.3). Raises ProtocolViolationError."""
    found = _SOCKET_PACKET.fullmatch(text)
    if found is None:
        raise _violation("not a Socket.IO packet", text)
    digit, attachments, namespace, ack, rest = found.groups()
    kind = SocketType(int(digit))
    return SocketPacket(
        type=kind,
        namespace=namespace or "/",
        ack=int(ack) if ack else None,
        attachments=int(attachments or 0),
        data=_socket_data(kind, rest, whole=text),
    )


def write_socket_packet(packet: SocketPacket) -> str:
    """Write a packet the way `read_socket_packet` reads it."""
    attachments = f"{packet.attachments}-" if packet.attachments else ""
    namespace = "" if packet.namespace == "/" else f"{packet.namespace},"
    ack = "" if packet.ack is None else str(packet.ack)
    data = "" if packet.data is None else msgspec.json.encode(packet.data).decode()
    return f"{packet.type:d}{attachments}{namespace}{ack}{data}"


def read_payload(body: bytes) -> list[str]:
    """Split a polling body into Engine.IO packets; the three framings tell themselves apart (xts.md §5.5, §5.8).

    A Socket.IO 2 server answers `EIO=4` in revision 3's framing, so the caller cannot say which one it is.
    Raises ProtocolViolationError.
    """
    if body[:1] in {b"\x00", b"\x01"}:
        return list(_binary_payload(body))
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise _violation("a polling answer is not UTF-8", repr(body[:_MOST_SHOWN])) from None
    return list(_counted_payload(text)) if _LENGTH.match(text) else text.split(_SEPARATOR)


def write_payload(packets: Sequence[str], *, revision: int) -> bytes:
    """Join Engine.IO packets into a polling body, in the text form of that revision."""
    if revision == 4:
        return _SEPARATOR.join(packets).encode()
    return "".join(f"{_utf16_units(packet)}:{packet}" for packet in packets).encode()


def handshake_url(
    base: str, *, path: str, query: Mapping[str, str], revision: int, transport: str, sid: str = ""
) -> str:
    """Return the address of a handshake or, with `sid`, of an upgrade; websocket addresses begin with ws or wss.

    `path` is the Socket.IO path without its slashes; the address holds the query and so the token: never log it.
    """
    parts = urlsplit(base)
    scheme = parts.scheme if transport == "polling" else {"http": "ws", "https": "wss"}[parts.scheme]
    fields = {"EIO": str(revision), "transport": transport, **query, **({"sid": sid} if sid else {})}
    return urlunsplit((scheme, parts.netloc, f"/{path.strip('/')}/", urlencode(fields), ""))


def revision_to_try(setting: str, *, winner: int | None = None, failures: int = 0) -> int:
    """Return the Engine.IO revision for the next handshake.

    `setting` is one of `REVISIONS`; `winner` is what last joined; `failures` counts the handshakes that reached the
    server and failed since. Auto begins with the winner, else with 3, and takes turns after each failure.
    """
    if setting not in REVISIONS:
        raise ConfigurationError(f"the socket revision is {' | '.join(REVISIONS)}, not {setting!r}")
    if setting != "auto":
        return int(setting)
    first = winner or 3
    return first if failures % 2 == 0 else 7 - first


# --- the connection ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The server's open packet: its timers in seconds, and the packet as it came."""

    sid: str
    ping_interval: float
    ping_timeout: float
    upgrades: tuple[str, ...]
    raw: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The default namespace is joined: events come from now on. `revision` is what is really spoken."""

    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """An event, with its arguments as they came."""

    name: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """Something allowed that XTS does not use: binary, another namespace, an acknowledgement."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A frame that is not what the protocol allows; the connection goes on, what it said is lost."""

    error: ProtocolViolationError


class Ending(StrEnum):
    """Why a connection is over."""

    LEFT = "left"
    """`41`: the server left the namespace; the transport may still answer pings."""
    CLOSED = "closed"
    """`1`: the server ended the session."""
    REFUSED = "refused"
    """`44`: the server's own check said no; in XTS, to the token."""
    SILENT = "silent"
    """Nothing came in time."""
    NOT_JOINED = "not joined"
    """The transport works, the namespace was not joined in time: the wrong revision, perhaps."""
    MALFORMED = "malformed"
    """What came instead of an open packet is not Engine.IO."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The connection is over: close the transport. No signal follows."""

    how: Ending
    detail: str


Signal = Opened | Joined | Received | Ignored | Unreadable | Ended


class TransportPing(Enum):
    """Asks the owner for a ping of the websocket itself: an Engine.IO 4 client may not send its own."""

    PING = "ping"


Outgoing = str | TransportPing


@dataclass(frozen=True, slots=True, kw_only=True)
class Timers:
    """Our own patience in seconds; the server's timers only make it shorter (design §8)."""

    open_within: float = 7.0
    join_within: float = 7.0
    ask_after: float = 1.0
    """How long revision 4 waits for a Socket.IO 2 server's unasked `40` before asking to join."""
    ping_every: float = 3.0
    answer_within: float = 4.5
    """Five seconds less what closing a dead line takes (0.4 s), so that the page knows within eight."""


class _Due(StrEnum):
    OPEN = "no open packet came in time"
    JOIN = "the namespace was not joined in time"
    ASK = "ask to join"
    PING = "send a ping"
    ANSWER = "a ping was not answered in time"
    SILENCE = "the server was silent for longer than its own timers allow"


class Connection:
    """One Socket.IO session on one transport, as a state machine. Not thread-safe; one owner drives it.

    Give it what arrives (`receive`, or `receive_poll` before an upgrade), send what `frames` returns, and call `tick`
    once `deadline` has passed. After `Ended` it stays silent.
    """

    def __init__(
        self, *, revision: int, now: float, timers: Timers | None = None, polling: bool = False
    ) -> None:
        """`revision` is what the handshake asked for; `polling`: the handshake goes by HTTP, then upgrades."""
        self._timers = timers or Timers()
        self._dialogue = revision if revision == 3 else 0  # 0: the server has not shown what it speaks
        self._opened: Opened | None = None
        self._joined = False
        self._ended = False
        self._upgraded = not polling
        self._outbox: list[Outgoing] = []
        self._held: list[Signal] = []
        self._due: dict[_Due, float] = {_Due.OPEN: now + self._timers.open_within}

    @property
    def deadline(self) -> float | None:
        """The monotonic second at which `tick` is wanted; None once the connection is over."""
        return min(self._due.values(), default=None)

    @property
    def joined(self) -> bool:
        """Whether events can arrive."""
        return self._joined and self._upgraded and not self._ended

    def frames(self) -> list[Outgoing]:
        """Take what must be sent now, in order; nothing while an upgrade is awaited."""
        if not self._upgraded:
            return []
        frames, self._outbox = self._outbox, []
        return frames

    def upgrade(self) -> str:
        """Return the frame to send on the websocket that was opened beside the polling session."""
        return "2probe"

    def heard(self, now: float) -> None:
        """Note that bytes arrived: any byte proves that the way is open."""
        self._due.pop(_Due.ANSWER, None)
        if self._opened is not None and not self._ended:
            self._due[_Due.SILENCE] = now + self._opened.ping_interval + self._opened.ping_timeout

    def receive(self, frame: str | bytes, *, now: float) -> list[Signal]:
        """Take one websocket frame and return what it means."""
        if self._ended:
            return []
        self.heard(now)
        if isinstance(frame, bytes):
            return self._on_binary(frame)
        try:
            return self._on_packet(frame, now)
        except ProtocolViolationError as error:
            return self._on_violation(error)

    def receive_poll(self, body: bytes, *, now: float) -> list[Signal]:
        """Take one polling answer; `Joined` is held back until the upgrade is done."""
        try:
            packets = read_payload(body)
        except ProtocolViolationError as error:
            return self._on_violation(error)
        signals = [signal for packet in packets for signal in self.receive(packet, now=now)]
        self._held += [signal for signal in signals if isinstance(signal, Joined | Received)]
        return [signal for signal in signals if not isinstance(signal, Joined | Received)]

    def tick(self, now: float) -> list[Signal]:
        """Do what is due at `now`; harmless when nothing is."""
        signals: list[Signal] = []
        for _, due in sorted((moment, due) for due, moment in self._due.items() if moment <= now):
            if self._due.pop(due, None) is not None:
                signals += self._ON_DUE[due](self, due, now)
        return signals

    def _on_violation(self, error: ProtocolViolationError) -> list[Signal]:
        if self._opened is None:
            return [self._end(Ending.MALFORMED, str(error))]
        return [Unreadable(error=error)]

    def _on_binary(self, frame: bytes) -> list[Signal]:
        if self._opened is None:
            return [self._end(Ending.MALFORMED, f"binary instead of an open packet: {frame[:16]!r}")]
        return [Ignored(reason="a binary frame")]

    def _on_packet(self, frame: str, now: float) -> list[Signal]:
        kind, data = read_packet(frame)
        if self._opened is None and kind is not PacketType.OPEN:
            return [self._end(Ending.MALFORMED, f"{kind.name} came before the open packet")]
        return self._ON_PACKET[kind](self, data, now)

    def _on_open(self, data: str, now: float) -> list[Signal]:
        if self._opened is not None:
            return [Ignored(reason="a second open packet")]
        self._opened = opened = _read_open(data)
        del self._due[_Due.OPEN]
        self._due[_Due.JOIN] = now + self._timers.join_within
        self.heard(now)
        if self._dialogue == 3:
            self._start_pings(now)
        elif '"maxPayload"' in data:  # a Socket.IO 2 server never says that (xts.md §5.8)
            self._ask_to_join(now)
        else:
            self._due[_Due.ASK] = now + self._timers.ask_after
        return [opened]

    def _on_close(self, _data: str, _now: float) -> list[Signal]:
        return [self._end(Ending.CLOSED, "the server ended the session")]

    def _on_ping(self, data: str, now: float) -> list[Signal]:
        self._outbox.append(f"3{data}")
        if not self._dialogue:  # a true revision 3 server never pings
            self._ask_to_join(now)
        return []

    def _on_pong(self, data: str, now: float) -> list[Signal]:
        if self._upgraded or data != "probe":
            return []
        self._upgraded = True
        self._outbox.insert(0, "5")
        if self._dialogue:
            self._start_pings(now)
        if self._joined:
            self._due.pop(_Due.JOIN, None)
        released, self._held = self._held, []
        return released

    def _on_noop(self, _data: str, _now: float) -> list[Signal]:
        return []

    def _on_message(self, data: str, now: float) -> list[Signal]:
        packet = read_socket_packet(data)
        if packet.namespace != "/":
            return [Ignored(reason=f"a packet of namespace {packet.namespace[:40]}")]
        return self._ON_SOCKET[packet.type](self, packet, now)

    def _on_connect(self, packet: SocketPacket, now: float) -> list[Signal]:
        if self._joined:
            return [Ignored(reason="joined once more")]
        if not self._dialogue:
            # Unasked and without a sid: a Socket.IO 2 server that ignores EIO=4. Never answer it with `40`.
            self._dialogue = 4 if isinstance(packet.data, dict) and "sid" in packet.data else 3
            self._start_pings(now)
        self._joined = True
        self._due.pop(_Due.ASK, None)
        if self._upgraded:
            self._due.pop(_Due.JOIN, None)
        return [Joined(revision=self._dialogue)]

    def _on_disconnect(self, _packet: SocketPacket, _now: float) -> list[Signal]:
        return [self._end(Ending.LEFT, "the server left the namespace")]

    def _on_event(self, packet: SocketPacket, _now: float) -> list[Signal]:
        if packet.ack is not None:
            self._outbox.append(f"43{packet.ack}[]")
        name, *arguments = packet.data
        return [Received(name=name, arguments=tuple(arguments))]

    def _on_error(self, packet: SocketPacket, _now: float) -> list[Signal]:
        return [self._end(Ending.REFUSED, _refusal_text(packet.data))]

    def _on_unused(self, packet: SocketPacket, _now: float) -> list[Signal]:
        return [Ignored(reason=f"a Socket.IO {packet.type.name} packet")]

    def _ask_to_join(self, now: float) -> list[Signal]:
        self._dialogue = 4
        self._outbox.append("40")
        self._due.pop(_Due.ASK, None)
        self._start_pings(now)
        return []

    def _start_pings(self, now: float) -> None:
        if self._upgraded and self._opened is not None:
            self._due[_Due.PING] = now + self._ping_every(self._opened)

    def _ping_every(self, opened: Opened) -> float:
        return min(self._timers.ping_every, opened.ping_interval / 2, opened.ping_timeout / 2)

    def _on_due_ask(self, _due: _Due, now: float) -> list[Signal]:
        return self._ask_to_join(now)

    def _on_due_ping(self, _due: _Due, now: float) -> list[Signal]:
        self._outbox.append("2" if self._dialogue == 3 else TransportPing.PING)
        if self._opened is not None:
            patience = min(self._timers.answer_within, self._opened.ping_timeout)
            self._due.setdefault(_Due.ANSWER, now + patience)
        self._start_pings(now)
        return []

    def _on_due_join(self, due: _Due, _now: float) -> list[Signal]:
        return [self._end(Ending.NOT_JOINED, due.value)]

    def _on_due_silence(self, due: _Due, _now: float) -> list[Signal]:
        return [self._end(Ending.SILENT, due.value)]

    def _end(self, how: Ending, detail: str) -> Ended:
        self._ended = True
        self._due.clear()
        self._outbox.clear()
        self._held.clear()
        return Ended(how=how, detail=detail[:_MOST_SHOWN])

    _ON_PACKET: ClassVar[Mapping[PacketType, _PacketHandler]] = {
        PacketType.OPEN: _on_open,
        PacketType.CLOSE: _on_close,
        PacketType.PING: _on_ping,
        PacketType.PONG: _on_pong,
        PacketType.MESSAGE: _on_message,
        PacketType.UPGRADE: _on_noop,
        PacketType.NOOP: _on_noop,
    }
    _ON_SOCKET: ClassVar[Mapping[SocketType, _SocketHandler]] = {
        SocketType.CONNECT: _on_connect,
        SocketType.DISCONNECT: _on_disconnect,
        SocketType.EVENT: _on_event,
        SocketType.ACK: _on_unused,
        SocketType.ERROR: _on_error,
        SocketType.BINARY_EVENT: _on_unused,
        SocketType.BINARY_ACK: _on_unused,
    }
    _ON_DUE: ClassVar[Mapping[_Due, _DueHandler]] = {
        _Due.OPEN: _on_due_silence,
        _Due.JOIN: _on_due_join,
        _Due.ASK: _on_due_ask,
        _Due.PING: _on_due_ping,
        _Due.ANSWER: _on_due_silence,
        _Due.SILENCE: _on_due_silence,
    }


_PacketHandler = Callable[[Connection, str, float], list[Signal]]
_SocketHandler = Callable[[Connection, SocketPacket, float], list[Signal]]
_DueHandler = Callable[[Connection, _Due, float], list[Signal]]


class _OpenPacket(msgspec.Struct):
    sid: str
    pingInterval: float  # noqa: N815 - Engine.IO's own spelling
    pingTimeout: float  # noqa: N815 - same
    upgrades: list[str] = msgspec.field(default_factory=list)


def _read_open(data: str) -> Opened:
    try:
        packet = decode(data, _OpenPacket)
    except UNDECODABLE:
        raise _violation("the open packet cannot be read", data) from None
    if not (packet.pingInterval > 0 and packet.pingTimeout > 0):
        raise _violation("the open packet's timers make no sense", data)
    return Opened(
        sid=packet.sid,
        ping_interval=packet.pingInterval / 1000,
        ping_timeout=packet.pingTimeout / 1000,
        upgrades=tuple(packet.upgrades),
        raw=data[:_MOST_SHOWN],
    )


def _socket_data(kind: SocketType, rest: str, *, whole: str) -> Any:
    if kind in {SocketType.CONNECT, SocketType.DISCONNECT, SocketType.ERROR}:
        return _loose_json(rest)
    data = _loose_json(rest)
    if kind in _LISTS and not isinstance(data, list):
        raise _violation("a Socket.IO packet without its list", whole)
    if kind is SocketType.EVENT and not (data and isinstance(data[0], str)):
        raise _violation("an event without a name", whole)
    return data


def _loose_json(text: str) -> Any:
    """Decode, or give the text back: a refusal may be anything."""
    if not text:
        return None
    try:
        return msgspec.json.decode(text)
    except UNDECODABLE:
        return text


def _refusal_text(data: Any) -> str:
    if isinstance(data, Mapping):
        data = data.get("message", data)
    return str(data or "the server refused the connection")


def _counted_payload(text: str) -> list[str]:
    """`<length>:<packet>…`; the length counts UTF-16 units, which differ from characters beyond the BMP."""
    wide = text.encode("utf-16-le", "surrogatepass")
    packets, at = [], 0
    while at < len(wide):
        found = _LENGTH.match(wide[at : at + 20].decode("utf-16-le", "replace"))
        if found is None:
            raise _violation("a polling answer without a length", text)
        at += 2 * found.end()
        end = at + 2 * int(found[1])
        if end > len(wide):
            raise _violation("a polling answer is cut short", text)
        packets.append(wide[at:end].decode("utf-16-le", "replace"))
        at = end
    return packets


def _binary_payload(body: bytes) -> list[str]:
    """`<0 or 1><length digits as bytes 0-9><0xFF><packet>`; binary packets are passed over."""
    packets, at = [], 0
    while at < len(body):
        colon = body.find(b"\xff", at, at + 12)
        digits = body[at + 1 : colon]
        if body[at] > 1 or colon < 0 or not digits or max(digits) > 9:
            raise _violation("a binary polling answer without a length", repr(body[:_MOST_SHOWN]))
        end = colon + 1 + int("".join(map(str, digits)))
        if end > len(body):
            raise _violation("a binary polling answer is cut short", repr(body[:_MOST_SHOWN]))
        if body[at] == 0:
            packets.append(body[colon + 1 : end].decode("utf-8", "replace"))
        at = end
    return packets


def _utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _violation(what: str, raw: str) -> ProtocolViolationError:
    return ProtocolViolationError(what, raw=raw[:_MOST_KEPT].encode("utf-8", "replace"))
