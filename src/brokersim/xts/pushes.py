"""Brings every visible step of every order to the sockets of the logins that own its client, faults included.

There is no replay: what finds no socket is lost, and the ledger says so.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any, Final

from brokersim.engineio_server import Session as Socket
from brokersim.faults import Fault, FaultKind, Situation
from brokersim.ledger import Fate
from brokersim.orders import ExchangeEvent
from brokersim.portfolio import Position
from brokersim.users import XtsLogin
from brokersim.world import World
from brokersim.written import Row
from brokersim.xts.lives import BROKER, Book, View
from brokersim.xts.positions import Positions
from brokersim.xts.rows import Manner, socket_order, socket_position, socket_trade
from brokersim.xts.sessions import SocketLogin

LOGGED_OUT: Final = "You have been logged out by another user."
_HEAD_START: Final = 0.01
_FIRST_SEQUENCE: Final = 1_578_799_396_700_000
_PUSH_FAULTS: Final = (
    FaultKind.DROP,
    FaultKind.DUPLICATE,
    FaultKind.REORDER,
    FaultKind.DELAY,
    FaultKind.CORRUPT,
    FaultKind.TRUNCATE,
    FaultKind.SILENCE,
    FaultKind.DISCONNECT,
    FaultKind.TOKEN_DEATH,
    FaultKind.DICT_PAYLOAD,
    FaultKind.UNKNOWN_STATUS,
)
_TERMINAL_WORDS: Final = frozenset({"Filled", "Cancelled", "Rejected", "Expired"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One event for one login: its name, its object, and the faults that have struck it."""

    login: XtsLogin
    client: str
    order_id: str
    name: str
    what: str
    row: Row
    faults: tuple[Fault, ...] = ()

    def fault(self, kind: FaultKind) -> Fault | None:
        """Give the first fault of a kind that struck."""
        return next((each for each in self.faults if each.kind is kind), None)

    @property
    def argument(self) -> Row | str:
        """What goes on the wire: a JSON string, unless a fault makes it otherwise."""
        if self.fault(FaultKind.DICT_PAYLOAD):
            return self.row
        text = json.dumps(self.row, separators=(",", ":"))
        if fault := self.fault(FaultKind.TRUNCATE):
            text = text[: int(len(text) * float(fault.params.get("keep", 0.5)))]
        if self.fault(FaultKind.CORRUPT):
            middle = len(text) // 2
            text = f"{text[: middle - 2]}#!?#{text[middle + 2 :]}"
        return text


@dataclass(slots=True)
class _Lane:
    """What is on its way to one login, in order; `held` waits for the next push to overtake it."""

    queue: deque[tuple[float, Push]] = field(default_factory=deque)
    held: list[Push] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    running: bool = False


class Pushes:
    """Listens to the exchange and speaks to the sockets.

    `sockets_of(app_key)` gives the connected sockets of a login; `end(app_key)` lets its token die.
    """

    def __init__(
        self,
        world: World,
        book: Book,
        positions: Positions,
        *,
        sockets_of: Callable[[str], list[Socket]],
        end: Callable[[str], None],
    ) -> None:
        """Begin to listen."""
        self._world = world
        self._book = book
        self._positions = positions
        self._sockets_of = sockets_of
        self._end = end
        self._numbers = count(_FIRST_SEQUENCE)
        self._lanes: dict[str, _Lane] = {}
        self._waiting: dict[str, asyncio.Event] = {}
        world.exchange.subscribe(self._on_event)

    async def pushed(self, order_id: str, *, at_most: float) -> None:
        """Wait until something about an order was pushed and is on the wire, but not longer than so many seconds."""
        event = self._waiting.setdefault(order_id, asyncio.Event())
        try:
            async with asyncio.timeout(at_most):
                await event.wait()
                await asyncio.sleep(_HEAD_START)
        except TimeoutError:
            return
        finally:
            self._waiting.pop(order_id, None)

    def send(
        self, client: str, name: str, row_for: Callable[[XtsLogin], Row], *, what: str, order_id: str = ""
    ) -> None:
        """Push one event to every login of a client."""
        situation = Situation(broker=BROKER, channel="sio", user=client, order_id=order_id, operation=what)
        faults = self._world.faults.strike(situation, *_PUSH_FAULTS)
        for login in self._logins_of(client):
            push = Push(
                login=login,
                client=client,
                order_id=order_id,
                name=name,
                what=what,
                row=_with_unknown_status(row_for(login), faults),
                faults=faults,
            )
            self._dispatch(push)

    # ---- from the exchange

    def _on_event(self, event: ExchangeEvent) -> None:
        view = self._book.take(event)
        if view is None:
            return
        position = self._positions.take(event.trade) if event.trade else None
        manner = self.manner(view, channel="sio")
        self._tell(view, position, manner)
        if view.status in _TERMINAL_WORDS:
            self._maybe_stale(view, manner)

    def manner(self, view: View, *, channel: str, old: bool = False, bare: bool = False) -> Manner:
        """Say how an order is spelt on a channel, as the clock fault has it."""
        situation = self._situation(view, channel)
        skew = self._world.faults.first(situation, FaultKind.CLOCK_SKEW)
        if channel == "sio":
            bare = self._world.faults.first(situation, FaultKind.MISSING_FIELDS) is not None
        return Manner(client=view.order.user, old=old, bare=bare, **skews(skew))

    def _situation(self, view: View, channel: str) -> Situation:
        order = view.order
        what = f"order.{view.status}"
        return Situation(
            broker=BROKER, channel=channel, user=order.user, order_id=order.order_id, operation=what
        )

    def _tell(self, view: View, position: Position | None, manner: Manner) -> None:
        sequence = next(self._numbers)
        steps: list[tuple[str, str, Callable[[XtsLogin], Row]]] = [
            ("order", view.status, lambda _: socket_order(view, manner, sequence=sequence))
        ]
        if trade := view.trade:
            row = socket_trade(view, trade, manner, sequence=next(self._numbers))
            steps.append(("trade", view.status, lambda _: row))
            if self._world.faults.first(self._situation(view, "sio"), FaultKind.TRADE_BEFORE_ORDER):
                steps.reverse()
        for name, status, row_for in steps:
            self._send_about(view, name, status, row_for)
        if position is not None:
            self.tell_position(view.order.user, position, manner, order_id=view.order.order_id)

    def tell_position(self, client: str, position: Position, manner: Manner, *, order_id: str = "") -> None:
        """Push a position in both variants."""

        def spelt(kind: str) -> Callable[[XtsLogin], Row]:
            return lambda login: socket_position(position, manner, login=login.login_id, kind=kind)

        for kind in ("DayWise", "NetWise"):
            self.send(client, "position", spelt(kind), what=f"position.{kind}", order_id=order_id)

    def _send_about(self, view: View, name: str, status: str, row_for: Callable[[XtsLogin], Row]) -> None:
        order = view.order
        self.send(order.user, name, row_for, what=f"{name}.{status}", order_id=order.order_id)

    def _maybe_stale(self, view: View, manner: Manner) -> None:
        fault = self._world.faults.first(self._situation(view, "sio"), FaultKind.STALE_OPEN)
        earlier = [each for each in self._book.lives[view.order.order_id].views if each.status == "New"]
        if fault is None or not earlier:
            return
        row = socket_order(earlier[-1], manner, sequence=next(self._numbers))
        self._world.later(fault.seconds(0.05), self._send_later(view, row))

    async def _send_later(self, view: View, row: Row) -> None:
        self._send_about(view, "order", "stale", lambda _: row)

    # ---- to the sockets

    def _logins_of(self, client: str) -> list[XtsLogin]:
        return [each for each in self._world.users.xts_logins.values() if client in each.clients]

    def _dispatch(self, push: Push) -> None:
        if push.fault(FaultKind.DROP):
            self._record(push, Fate.DROPPED)
        elif not self._listeners(push.login):
            self._record(push, Fate.LOST, detail="no socket")
        elif delay := push.fault(FaultKind.DELAY):
            self._world.later(delay.seconds(1.0), self._enqueue_later(push))
        elif hold := push.fault(FaultKind.REORDER):
            self._lane(push.login).held.append(push)
            self._world.later(float(hold.params.get("wait", 1.0)), self._release(push.login))
        else:
            self._enqueue(push)
            self._free_held(push.login)

    async def _enqueue_later(self, push: Push) -> None:
        self._enqueue(push)

    async def _release(self, login: XtsLogin) -> None:
        self._free_held(login)

    def _free_held(self, login: XtsLogin) -> None:
        lane = self._lane(login)
        held, lane.held = lane.held, []
        for push in held:
            self._enqueue(push)

    def _enqueue(self, push: Push) -> None:
        lane = self._lane(push.login)
        due = asyncio.get_running_loop().time() + self._world.settings.push_delay
        lane.queue.append((due, push))
        lane.wake.set()
        if not lane.running:
            lane.running = True
            self._world.spawn(self._run(lane))

    async def _run(self, lane: _Lane) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while lane.queue:
                due, push = lane.queue[0]
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                lane.queue.popleft()
                self._deliver(push)
            lane.wake.clear()
            await lane.wake.wait()

    def _lane(self, login: XtsLogin) -> _Lane:
        return self._lanes.setdefault(login.app_key, _Lane())

    def _listeners(self, login: XtsLogin) -> list[Socket]:
        return [each for each in self._sockets_of(login.app_key) if each.joined and not each.context.deaf]

    def _deliver(self, push: Push) -> None:
        self._strike_connection(push)
        repeat = push.fault(FaultKind.DUPLICATE)
        times = int(repeat.params.get("times", 2)) if repeat else 1
        gap = float(repeat.params.get("gap", 0)) if repeat else 0.0
        self._emit(push)
        for copy in range(1, times):
            if gap:
                self._world.later(gap * copy, self._emit_later(push))
            else:
                self._emit(push)
        if waiting := self._waiting.get(push.order_id):
            waiting.set()

    async def _emit_later(self, push: Push) -> None:
        self._emit(push)

    def _emit(self, push: Push) -> None:
        sockets = [each for each in self._listeners(push.login) if each.emit(push.name, push.argument)]
        for socket in sockets:
            socket.context.delivered += 1
        frozen = bool(sockets) and all(socket.frozen for socket in sockets)
        self._record(
            push, Fate.SENT if sockets and not frozen else Fate.LOST, detail="half-open" if frozen else ""
        )

    def _strike_connection(self, push: Push) -> None:
        sockets = self._sockets_of(push.login.app_key)
        if push.fault(FaultKind.SILENCE):
            for socket in sockets:
                socket.freeze()
        if cut := push.fault(FaultKind.DISCONNECT):
            for socket in sockets:
                cut_socket(socket, abort=cut.params.get("mode", "abort") == "abort")
        if push.fault(FaultKind.TOKEN_DEATH):
            self._end(push.login.app_key)

    def _record(self, push: Push, fate: Fate, *, detail: str = "") -> None:
        argument = push.argument
        self._world.ledger.message(
            argument if isinstance(argument, str) else json.dumps(argument),
            at=self._world.timeline.now,
            broker=BROKER,
            channel="sio",
            user=push.client,
            order_id=push.order_id,
            what=push.what,
            fate=fate,
            faults=(each.kind.value for each in push.faults),
            detail=detail,
        )


def cut_socket(socket: Socket, *, abort: bool) -> None:
    """Cut a socket, abruptly or with `41` and a close frame; deliver nothing more to it."""
    context: SocketLogin = socket.context
    context.deaf = True
    if abort:
        socket.drop()
    else:
        socket.leave(close=True)


def silence(sockets: Iterable[Socket]) -> None:
    """Say `logout` to sockets and leave them open and deaf, as XTS does with the loser of two logins."""
    for socket in sockets:
        if not socket.context.deaf:
            socket.emit("logout", LOGGED_OUT)
            socket.context.deaf = True


def skews(fault: Fault | None) -> dict[str, Any]:
    """Read the clock fault: by default the broker is 0.9 s ahead and the exchange 2 s behind."""
    if fault is None:
        return {}
    return {
        "broker_skew": timedelta(seconds=float(fault.params.get("broker", 0.9))),
        "exchange_skew": timedelta(seconds=float(fault.params.get("exchange", -2.0))),
    }


def _with_unknown_status(row: Row, faults: tuple[Fault, ...]) -> Row:
    fault = next((each for each in faults if each.kind is FaultKind.UNKNOWN_STATUS), None)
    if fault is None or "OrderStatus" not in row:
        return row
    return {**row, "OrderStatus": str(fault.params.get("status", "Suspended"))}
