"""Keeps everything the brokers remember in one file, so that a restart, clean or not, goes on with the same books.

The file is one JSON document, replaced as a whole. Orders, users, money, counters and prices are in it; logins,
sockets, fault switches, settings and the ledger are not. What belongs to an earlier session day (06:00 to 06:00
Indian time) is settled when it is read.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any, Final

from brokersim.codec import decode, encode, read_fields
from brokersim.instruments import INSTRUMENTS
from brokersim.kite.app import Kite
from brokersim.kite.desk import Iceberg
from brokersim.kite.gtt import Trigger
from brokersim.kite.sessions import next_day_break
from brokersim.orders import Cause, ExchangeEvent, OrderRecord, OrderRequest, OrderSnapshot, Trade
from brokersim.portfolio import Position
from brokersim.resuming import Books
from brokersim.settlement import settle
from brokersim.users import Account, KiteApp, KiteUser, XtsLogin
from brokersim.world import World
from brokersim.xts.app import XtsFront

FORMAT: Final = "brokersim-state"
VERSION: Final = 1
# How often changes are looked for, and after how long moved prices alone are worth a save; seconds.
_PERIOD: Final = 0.5
_PRICES_PERIOD: Final = 10.0
# A killed program may have given out numbers after its last save: nobody gives out so many in that time.
_LEAP: Final = 100_000
_EXCHANGES: Final = frozenset(each.exchange for each in INSTRUMENTS)
_DAMAGE: Final = (ValueError, LookupError, TypeError, ArithmeticError, RecursionError)
_STEP_FIELDS: Final = tuple(
    each.name for each in fields(OrderSnapshot) if each.name not in {"request", "number"}
)
_TRADE_FIELDS: Final = tuple(each.name for each in fields(Trade) if each.name != "order")


class StateError(Exception):
    """The state file cannot be read or written; the message says which and why, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _KiteMemory:
    numbers: int
    icebergs: Mapping[str, Iceberg]
    covers: Mapping[str, Decimal]
    triggers: tuple[Trigger, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _XtsMemory:
    numbers: int
    positions: Mapping[str, tuple[Position, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _UsersMemory:
    kite_apps: tuple[KiteApp, ...]
    kite_users: tuple[KiteUser, ...]
    xts_logins: tuple[XtsLogin, ...]
    accounts: tuple[Account, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Memory:
    """Everything but the orders; `exchange` comes without its records."""

    exchange: Books
    users: _UsersMemory
    kite: _KiteMemory
    xts: _XtsMemory


# --- from the world --------------------------------------------------------------------------------------


def _kite(world: World) -> Kite:
    front = world.controls["kite"]
    if not isinstance(front, Kite):
        raise TypeError("no Kite host on this world")
    return front


def _xts(world: World) -> XtsFront:
    front = world.controls["xts"]
    if not isinstance(front, XtsFront):
        raise TypeError("no XTS host on this world")
    return front


def _remember(world: World) -> _Memory:
    users, kite, xts = world.users, _kite(world), _xts(world)
    return _Memory(
        exchange=replace(world.exchange.books(), records={}),
        users=_UsersMemory(
            kite_apps=tuple(users.kite_apps.values()),
            kite_users=tuple(users.kite_users.values()),
            xts_logins=tuple(users.xts_logins.values()),
            accounts=tuple(users.accounts.values()),
        ),
        kite=_KiteMemory(
            numbers=kite.desk.numbers,
            icebergs=kite.desk.icebergs,
            covers=kite.desk.covers,
            triggers=tuple(_without_token(each) for each in kite.triggers.remember()),
        ),
        xts=_XtsMemory(
            numbers=xts.desk.numbers,
            positions={
                client: tuple(replace(each, last=Decimal(0)) for each in rows.values())
                for client, rows in xts.desk.positions.rows.items()
            },
        ),
    )


def _without_token(trigger: Trigger) -> Trigger:
    return replace(trigger, session=replace(trigger.session, access_token=""))


def _without_prices(memory: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what moves all the time."""
    exchange = memory["exchange"]
    prices = {key: {**price, "last": None} for key, price in exchange["prices"].items()}
    return {**memory, "exchange": {**exchange, "prices": prices}}


@dataclass(slots=True)
class _WrittenOrder:
    """One order as JSON text; steps that were written are not written again. A step is what differs from the one before."""

    request: OrderRequest
    steps: list[str] = field(default_factory=list)
    trades: list[str] = field(default_factory=list)
    text: str = ""
    _last: OrderSnapshot | None = None

    def add(self, steps: Iterable[OrderSnapshot], trades: Iterable[Trade]) -> None:
        for step in steps:
            self.steps.append(_text(_difference(self._last, step)))
            self._last = step
        self.trades += [
            _text({name: encode(getattr(each, name)) for name in _TRADE_FIELDS}) for each in trades
        ]
        self.text = (
            f'{{"request":{_text(encode(self.request))},'
            f'"steps":[{",".join(self.steps)}],"trades":[{",".join(self.trades)}]}}'
        )


def _difference(before: OrderSnapshot | None, step: OrderSnapshot) -> dict[str, Any]:
    return {
        name: encode(value)
        for name in _STEP_FIELDS
        if (value := getattr(step, name)) is not getattr(before, name, _NOTHING)
    }


_NOTHING: Final = object()


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


# --- to the world ----------------------------------------------------------------------------------------


def _records(data: Any) -> dict[str, OrderRecord]:
    records: dict[str, OrderRecord] = {}
    for each in data:
        record = _record(each)
        if records.setdefault(record.last.uid, record) is not record:
            raise ValueError(f"{record.last.uid} is there twice")
    return records


def _record(data: Mapping[str, Any]) -> OrderRecord:
    request: OrderRequest = decode(OrderRequest, data["request"])
    history: list[OrderSnapshot] = []
    for number, step in enumerate(data["steps"]):
        changes = read_fields(OrderSnapshot, step, partly=True)
        if history:
            history.append(replace(history[-1], number=number, **changes))
        else:
            history.append(OrderSnapshot(request=request, number=number, **changes))
    trades = [_trade(request, each) for each in data["trades"]]
    record = OrderRecord(history=history, trades=trades)
    fills = sum(each.cause is Cause.FILL for each in history)
    if fills != len(trades) or sum(each.quantity for each in trades) != record.last.filled:
        raise ValueError(f"{record.last.uid}: its fills are not its trades")
    return record


def _trade(request: OrderRequest, data: Mapping[str, Any]) -> Trade:
    return Trade(order=request, **read_fields(Trade, data, partly=True))


def _restore(world: World, document: Mapping[str, Any]) -> None:
    memory: _Memory = decode(_Memory, document["memory"])
    saved_at: datetime = decode(datetime, document["saved_at"])
    day_began = next_day_break(world.timeline.date) - timedelta(days=1)
    records = _records(document["orders"])
    earlier = {uid: each for uid, each in records.items() if each.last.received_at < day_began}
    today = {uid: each for uid, each in records.items() if uid not in earlier}
    _restore_users(world, memory.users)
    world.exchange.restore(_books(memory.exchange, today, new_day=saved_at < day_began))
    _settle(world, earlier.values())
    _restore_kite(_kite(world), memory.kite, today)
    _restore_xts(_xts(world), memory.xts, today, carried=not earlier)


def _books(books: Books, records: Mapping[str, OrderRecord], *, new_day: bool) -> Books:
    """Give the books of the day: without what is not in `records`, and opened again on a new day."""
    prices = books.prices.items()
    return replace(
        books,
        records=records,
        queued={uid: place for uid, place in books.queued.items() if uid in records},
        stops=tuple(uid for uid in books.stops if uid in records),
        prices={key: replace(price, paused=price.paused and not new_day) for key, price in prices},
        closed=books.closed and not new_day,
        order_numbers=books.order_numbers + _LEAP,
        trade_numbers={each: books.trade_numbers.get(each, 0) + _LEAP for each in _EXCHANGES},
    )


def _restore_users(world: World, memory: _UsersMemory) -> None:
    users = world.users
    users.kite_apps.update({each.api_key: each for each in memory.kite_apps})
    users.kite_users.update({each.user_id: each for each in memory.kite_users})
    users.xts_logins.update({each.app_key: each for each in memory.xts_logins})
    users.accounts.update({(each.broker, each.user): each for each in memory.accounts})


def _settle(world: World, records: Iterable[OrderRecord]) -> None:
    by_owner: dict[tuple[str, str], list[OrderRecord]] = {}
    for record in records:
        by_owner.setdefault((record.last.broker, record.last.user), []).append(record)
    for owner, theirs in by_owner.items():
        if account := world.users.accounts.get(owner):
            settle(account, theirs, world.last_price)


def _restore_kite(kite: Kite, memory: _KiteMemory, records: Mapping[str, OrderRecord]) -> None:
    kite.desk.numbers = memory.numbers + _LEAP
    kite.desk.icebergs = {id_: each for id_, each in memory.icebergs.items() if f"kite:{id_}" in records}
    kite.desk.covers = {id_: each for id_, each in memory.covers.items() if f"kite:{id_}" in records}
    kite.triggers.restore(memory.triggers)


def _restore_xts(
    xts: XtsFront, memory: _XtsMemory, records: Mapping[str, OrderRecord], *, carried: bool
) -> None:
    """Bring XTS's views back. Positions as they were (conversions included), unless part of them was settled."""
    xts.desk.numbers = memory.numbers + _LEAP
    events = chain.from_iterable(_events(each) for each in records.values())
    for event in events:
        if xts.desk.book.take(event) and event.trade and not carried:
            xts.desk.positions.take(event.trade)
    if carried:
        for client, rows in memory.positions.items():
            xts.desk.positions.rows[client] = {(each.instrument.key, each.product): each for each in rows}


def _events(record: OrderRecord) -> Iterator[ExchangeEvent]:
    trades = iter(record.trades)
    for order in record.history:
        yield ExchangeEvent(order=order, trade=next(trades) if order.cause is Cause.FILL else None)


# --- the file --------------------------------------------------------------------------------------------


_Addition = tuple[_WrittenOrder, list[OrderSnapshot], list[Trade]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What one save writes: the head of the document, and what is new about each changed order."""

    head: Mapping[str, Any]
    added: list[_Addition]


class Keeper:
    """Reads the file once and keeps it up to date. Lives on the world's loop; files are written in a thread."""

    def __init__(self, world: World, path: Path, *, period: float = _PERIOD) -> None:
        """Watch a world whose front ends are built. `period` is the time between two looks, in seconds."""
        self._world = world
        self._path = path.resolve()
        self._period = period
        self._orders: dict[str, _WrittenOrder] = {}
        self._changed: dict[str, None] = {}
        self._saved: dict[str, Any] | None = None
        self._saved_at = 0.0
        self._begun = self._failing = False
        self._writing: asyncio.Future[None] | None = None
        world.exchange.subscribe(self._note)

    def restore(self) -> None:
        """Bring the remembered state into a world nobody has used yet; a missing file leaves it as it is.

        Raises StateError; the file stays untouched.
        """
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(error) from error
        self._world.sync()
        try:
            _restore(self._world, _document(text))
        except _DAMAGE as error:
            raise self._unreadable(error) from error
        self._changed = dict.fromkeys(self._world.exchange.books().records)

    def begin(self) -> None:
        """Save for the first time, at once, and go on saving. Raises StateError if that cannot be done."""
        try:
            self._write(self._take())
        except OSError as error:
            raise self._unwritable(error) from error
        self._begun = True
        self._world.spawn(self._run())

    async def save(self) -> None:
        """Save now. Raises OSError."""
        job = self._take()
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(None, self._write, job)
        await asyncio.shield(self._writing)

    async def finish(self) -> None:
        """Save for the last time, when nothing changes any more. Raises StateError."""
        if not self._begun:
            return
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        try:
            self._write(self._take())
        except OSError as error:
            raise self._unwritable(error) from error

    def _note(self, event: ExchangeEvent) -> None:
        self._changed[event.order.uid] = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period)
            if self._is_due():
                await self._try_to_save()

    def _is_due(self) -> bool:
        if self._changed or self._failing or time.monotonic() - self._saved_at >= _PRICES_PERIOD:
            return True
        return _without_prices(encode(_remember(self._world))) != self._saved

    async def _try_to_save(self) -> None:
        try:
            await self.save()
        except OSError as error:
            if not self._failing:
                sys.stderr.write(f"brokersim: {self._unwritable(error)}; trying again\n")
                sys.stderr.flush()
            self._failing = True
        else:
            self._failing = False

    def _take(self) -> _Job:
        # On the loop; what is taken here does not change while the thread writes it.
        records = self._world.exchange.books().records
        added = [self._addition(records[uid]) for uid in self._changed]
        self._changed = {}
        memory = encode(_remember(self._world))
        self._saved, self._saved_at = _without_prices(memory), time.monotonic()
        saved_at = encode(self._world.timeline.date)
        head = {"format": FORMAT, "version": VERSION, "saved_at": saved_at, "memory": memory}
        return _Job(head=head, added=added)

    def _addition(self, record: OrderRecord) -> _Addition:
        order = self._orders.setdefault(record.last.uid, _WrittenOrder(record.last.request))
        return order, record.history[len(order.steps) :], record.trades[len(order.trades) :]

    def _write(self, job: _Job) -> None:
        for order, steps, trades in job.added:
            order.add(steps, trades)
        orders = ",\n".join(each.text for each in self._orders.values())
        _replace_file(self._path, f'{_text(job.head)[:-1]},"orders":[\n{orders}\n]}}\n')

    def _unreadable(self, error: Exception) -> StateError:
        return StateError(
            f"cannot go on with the state file {self._path}: {_in_one_line(error)}; "
            "it is kept as it is: move it away or name another with --state"
        )

    def _unwritable(self, error: OSError) -> StateError:
        return StateError(f"cannot write the state file {self._path}: {_in_one_line(error)}")


def _document(text: str) -> Mapping[str, Any]:
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError("it is not a state file of brokersim")
    if document.get("version") != VERSION:
        raise ValueError(f"its version is {document.get('version')}, this program reads {VERSION}")
    return document


def _replace_file(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all, readable by its owner only."""
    fresh = path.with_name(f"{path.name}.new")
    with os.fdopen(
        os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _in_one_line(error: Exception) -> str:
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else str(error)
    return f"{' '.join(str(error).split())[:200]} ({type(error).__name__})"
