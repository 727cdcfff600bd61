"""The service without its threads and sockets: the real engine, book, poller and live stream, stepped by hand."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, TypeVar

from msgspec import Raw
from sqlalchemy import Connection

from orderwire.brokers.xts import answers
from orderwire.brokers.xts import messages as xts
from orderwire.brokers.zerodha import messages as kite
from orderwire.core.instruments import Instrument, InstrumentTable
from orderwire.core.lifecycle import OrderChange
from orderwire.core.orders import AccountId, Channel, OrderUpdate, Trade, session_date
from orderwire.engine import EventEngine
from orderwire.errors import StoreBusyError
from orderwire.store import outbox
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from orderwire.web.outbox import Cursor
from orderwire.web.realtime import Reader, Realtime
from simulation.wording import DERIVATIVES, NAMES

T = TypeVar("T")

START = datetime(2026, 8, 17, 4, 30, tzinfo=UTC)
"""10:00 in India, a Monday; second 0 of every world."""
_START_NS = int(START.timestamp()) * 1_000_000_000


class WorldClock:
    """Stands where the world puts it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def time_ns(self) -> int:
        return _START_NS + int(self.seconds * 1e9)

    def monotonic(self) -> float:
        return self.seconds


class WorldDatabase(Database):
    """A SQLite database in memory that can be made to take no writes."""

    busy: Callable[[], bool] = staticmethod(lambda: False)

    def write(self, work: Callable[[Connection], T]) -> T:
        if self.busy():
            raise StoreBusyError("the disk is full")
        return super().write(work)


def open_database() -> WorldDatabase:
    """Open an empty database with a clock of its own."""
    database = WorldDatabase("sqlite://", clock=WorldClock())
    database.migrate()
    return database


class SteppedEngine(EventEngine):
    """The event engine with its dispatcher's loop called instead of run: same code, one thread, injected time."""

    def __init__(self, clock: WorldClock) -> None:
        super().__init__(now=clock.monotonic)
        self._clock = clock

    def step(self) -> None:
        """Deliver everything queued, batch by batch, as the dispatcher's thread does."""
        while self._queue:
            self._batch_safely()

    def lose(self) -> None:
        """Forget what is queued: the process was killed."""
        self._queue.clear()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def queued_ns(self, event: object) -> int:
        return self._clock.time_ns()


INSTRUMENTS = {
    broker: InstrumentTable(
        Instrument(
            broker=broker,
            exchange=exchange,
            symbol=NAMES[token],
            broker_exchange=exchange if broker == "zerodha" else segment,
            broker_symbol=NAMES[token],
            token=token,
        )
        for token in NAMES
        for exchange, segment in [("NFO", "NSEFO") if token in DERIVATIVES else ("NSE", "NSECM")]
    )
    for broker in ("zerodha", "jainam")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parser:
    """Reads one broker's bytes with the service's own readers."""

    broker: str
    account: AccountId
    clock: WorldClock

    def push(self, kind: str, text: bytes) -> list[OrderUpdate | Trade]:
        """Read what came over the stream."""
        if self.broker == "zerodha":
            frame = kite.read_frame(text)
            return [kite.read_order(frame.data, self._kite(Channel.STREAM))]
        reading = self._xts(Channel.STREAM)
        said: list[OrderUpdate | Trade] = []
        for row, raw in xts.event_rows(text.decode()):
            said.append(xts.order_update(row, reading, raw=raw))
            if kind == "trade":
                said.append(xts.trade(row, reading, raw=raw))
        return said

    def orders(self, body: bytes) -> list[OrderUpdate]:
        """Read a reply with the order book."""
        if self.broker == "zerodha":
            return kite.read_orders(_kite_data(body), self._kite(Channel.REST))
        reading = self._xts(Channel.REST)
        return [xts.order_update(row, reading, raw=raw) for row, raw in _xts_rows(body)]

    def history(self, body: bytes) -> list[OrderUpdate]:
        """Read a reply with one order's history."""
        if self.broker == "zerodha":
            return kite.read_history(_kite_data(body), self._kite(Channel.HISTORY))
        reading = self._xts(Channel.HISTORY)
        return [
            xts.order_update(row, reading, raw=raw, history_index=index)
            for index, (row, raw) in enumerate(_xts_rows(body))
        ]

    def trades(self, body: bytes) -> list[Trade]:
        """Read a reply with the trade book."""
        if self.broker == "zerodha":
            return kite.read_trades(_kite_data(body), self._kite(Channel.REST))
        reading = self._xts(Channel.REST)
        return [xts.trade(row, reading, raw=raw) for row, raw in _xts_rows(body)]

    def _kite(self, channel: Channel) -> kite.Reading:
        return kite.Reading(
            account=self.account,
            channel=channel,
            trading_date=session_date(self.clock.now()),
            received_ns=self.clock.time_ns(),
            instruments=INSTRUMENTS["zerodha"],
            owner="ZS0001",
        )

    def _xts(self, channel: Channel) -> xts.Reading:
        return xts.Reading(
            account=self.account,
            broker="jainam",
            channel=channel,
            trading_date=session_date(self.clock.now()),
            received_ns=self.clock.time_ns(),
            instruments=INSTRUMENTS["jainam"],
        )


def _kite_data(body: bytes) -> Raw:
    return kite.read_reply(body, status=200)


def _xts_rows(body: bytes) -> list[tuple[xts.Row, bytes]]:
    answer = answers.read_answer(200, body)
    assert answer.ok
    return [(xts.read_row(raw), raw) for raw in xts.list_rows(answer.result)]


class StoredLog:
    """What the live stream reads of the database, as the web application gives it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def snapshot(self, account: AccountId) -> outbox.Snapshot:
        return outbox.snapshot(self._database, account)

    def changes_since(self, account: AccountId, cursor: Cursor, *, most: int) -> list[OrderChange] | None:
        epoch, sequence = cursor.epoch, cursor.sequence
        return outbox.changes_since(self._database, account, epoch=epoch, sequence=sequence, most=most)


Emit = Callable[[str, str, Any, Callable[..., None]], None]


class Wire:
    """Stands for the Socket.IO server: hands every emission to the world."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.server = SimpleNamespace(emit=self._send, disconnect=lambda sid: None)

    def _send(
        self, name: str, payload: Any, *, to: str, callback: Callable[..., None], ignore_queue: bool
    ) -> None:
        assert ignore_queue  # one of its own clients: other processes follow the log themselves
        self._emit(to, name, payload, callback)


class Service:
    """One process of the service, from its start to its end."""

    def __init__(self, database: Database, clock: WorldClock, *, epoch: str, emit: Emit, most: int) -> None:
        self.engine = SteppedEngine(clock)
        self.book = OrderBook(database, clock=clock, epoch=lambda: epoch)
        self.book.attach(self.engine)
        wire: Any = Wire(emit)
        self.log = StoredLog(database)
        self.realtime = Realtime(wire, log=self.log, feeds=_no_feeds, clock=clock, window=4, most=most)
        self.realtime.attach(self.engine)

    def connect(self, sid: str, account: AccountId) -> None:
        self.realtime.connect(sid, Reader(user="asha", accounts=(account,)))


def _no_feeds() -> Iterable[Any]:
    return ()


def finished(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # of type T by the coroutine's own word
    raise RuntimeError("the coroutine waits for something")
