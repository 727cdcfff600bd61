"""Kite's WebSocket: handshake rules, heartbeats, order frames, and every way in which it can go wrong."""

import asyncio
import json
import struct
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import WSCloseCode, WSMsgType, web

from brokersim.faults import FaultKind, Situation
from brokersim.kite.sessions import Session
from brokersim.ledger import Fate
from brokersim.users import Plan
from brokersim.world import World

MOST_CONNECTIONS: Final = 3
HEARTBEAT: Final = b"\x00"
CHANNEL: Final = "ws"
# How long a close waits for the client's own close frame.
_CLOSING: Final = 0.2
_NOISE_TOKEN: Final = 779521  # NSE:SBIN


@dataclass(eq=False, slots=True)
class Socket:
    """One connected client. A silent one is half-open: it takes everything and sends nothing."""

    session: Session
    ws: web.WebSocketResponse
    transport: asyncio.Transport | None
    queue: asyncio.Queue[str | bytes | None] = field(default_factory=asyncio.Queue)
    silent: bool = False


class Hub:
    """Every socket that is connected now."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sockets: list[Socket] = []

    def refusal(self, session: Session) -> int | None:
        """Say with which HTTP code a handshake is refused: free plan, too many, or a switch."""
        situation = Situation(broker="kite", channel="handshake", user=session.user, operation="socket")
        if fault := self._world.faults.first(situation, FaultKind.REFUSE_HANDSHAKE):
            return int(fault.params.get("status", 403))
        if self._world.users.kite_apps[session.api_key].plan is Plan.PERSONAL:
            return 403
        taken = sum(each.session.access_token == session.access_token for each in self._sockets)
        return 429 if taken >= MOST_CONNECTIONS else None

    async def serve(self, request: web.Request, session: Session) -> web.WebSocketResponse:
        """Run one client's connection to its end."""
        ws = web.WebSocketResponse(autoping=False, autoclose=True, timeout=_CLOSING)
        await ws.prepare(request)
        socket = Socket(session=session, ws=ws, transport=request.transport)
        self._sockets.append(socket)
        writer = asyncio.create_task(self._write(socket))
        beats = asyncio.create_task(self._beat(socket))
        try:
            await self._read(socket)
        finally:
            self._sockets.remove(socket)
            for task in (writer, beats):
                task.cancel()
            await asyncio.gather(writer, beats, return_exceptions=True)
        return ws

    def push(self, user: str, text: str, *, order_id: str, what: str, faults: tuple[str, ...] = ()) -> None:
        """Send a text to every socket of a user; what nobody receives is lost for good."""
        mine = [each for each in self._sockets if each.session.user == user]
        if not mine:
            self.note(text, user=user, order_id=order_id, what=what, fate=Fate.LOST, faults=faults)
        for socket in mine:
            fault = self._world.faults.first(self._situation(user, what, order_id), FaultKind.DISCONNECT)
            if fault is not None:
                socket.queue.put_nowait(None)
                self._end(socket, abort=fault.params.get("mode", "abort") == "abort")
            lost = fault is not None or socket.silent
            if not lost:
                socket.queue.put_nowait(text)
            fate = Fate.LOST if lost else Fate.SENT
            self.note(text, user=user, order_id=order_id, what=what, fate=fate, faults=faults)

    def note(
        self, text: str, *, user: str, order_id: str, what: str, fate: Fate, faults: tuple[str, ...] = ()
    ) -> None:
        """Enter a push into the ledger."""
        self._world.ledger.message(
            text,
            at=self._world.timeline.now,
            broker="kite",
            channel=CHANNEL,
            user=user,
            what=what,
            fate=fate,
            order_id=order_id,
            faults=faults,
        )

    def send_raw(self, user: str, text: str) -> int:
        """Send any text to a user's sockets (error and message frames, nonsense); return to how many."""
        mine = [each for each in self._sockets if user in {"", each.session.user}]
        for socket in mine:
            socket.queue.put_nowait(text)
        return len(mine)

    async def disconnect(self, user: str, *, abort: bool) -> int:
        """Cut a user's sockets, or all, abruptly or with a close 1000."""
        doomed = [each for each in self._sockets if user in {"", each.session.user}]
        for socket in doomed:
            self._end(socket, abort=abort)
        return len(doomed)

    async def close_all(self) -> None:
        """Say good-bye to everybody, at the program's end."""
        closing = [each.ws.close(code=WSCloseCode.GOING_AWAY) for each in self._sockets]
        await asyncio.gather(*closing, return_exceptions=True)

    def listing(self) -> list[dict[str, Any]]:
        """Describe the sockets."""
        return [
            {"user": each.session.user, "api_key": each.session.api_key, "silent": each.silent}
            for each in self._sockets
        ]

    def _end(self, socket: Socket, *, abort: bool) -> None:
        if abort and socket.transport is not None:
            socket.transport.abort()
        else:
            self._world.spawn(_close(socket.ws))

    async def _read(self, socket: Socket) -> None:
        async for message in socket.ws:
            if message.type is WSMsgType.PING and not socket.silent:
                await socket.ws.pong(message.data)

    async def _write(self, socket: Socket) -> None:
        while (frame := await socket.queue.get()) is not None:
            try:
                if isinstance(frame, str):
                    await socket.ws.send_str(frame)
                else:
                    await socket.ws.send_bytes(frame)
            except ConnectionError:
                return

    async def _beat(self, socket: Socket) -> None:
        while True:
            situation = self._situation(socket.session.user, "heartbeat")
            if not socket.silent:
                socket.silent = self._world.faults.first(situation, FaultKind.SILENCE) is not None
            if fault := self._world.faults.first(situation, FaultKind.DISCONNECT):
                self._end(socket, abort=fault.params.get("mode", "abort") == "abort")
            if not socket.silent:
                socket.queue.put_nowait(HEARTBEAT)
                if self._world.settings.kite_tick_noise:
                    socket.queue.put_nowait(self._tick())
            await asyncio.sleep(self._world.settings.kite_heartbeat)

    def _tick(self) -> bytes:
        paise = int(self._world.last_price("NSE:SBIN") * 100)
        return struct.pack(">HHII", 1, 8, _NOISE_TOKEN, paise)

    @staticmethod
    def _situation(user: str, operation: str, order_id: str = "") -> Situation:
        return Situation(broker="kite", channel=CHANNEL, user=user, operation=operation, order_id=order_id)


async def _close(ws: web.WebSocketResponse) -> None:
    await ws.close(code=WSCloseCode.OK)


def order_frame(data: dict[str, Any]) -> str:
    """Write an order frame."""
    return json.dumps({"type": "order", "id": "", "data": data})
