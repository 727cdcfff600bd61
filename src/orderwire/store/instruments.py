"""The day's instruments of each broker: kept whole, refused when implausible, searched for the order ticket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, case, delete, func, insert, select, tuple_

from orderwire.core.instruments import Instrument, InstrumentTable, strike_text
from orderwire.errors import StoreError
from orderwire.store import schema
from orderwire.store.database import Database

_LEAST_SHARE = 0.5
"""Of yesterday's rows per segment that a new list must still have (instruments.md §5)."""

_SMALL = 20
"""Segments with fewer rows than this come and go (a weekly series that ends)."""

_LANDMARKS = (("NSE", "SBIN"), ("NSE_INDEX", "NIFTY"))
"""Rows that do not go away from one day to the next."""

_TABLE = schema.instruments


class ImplausibleListError(StoreError):
    """The broker's list of instruments is not believable; yesterday's stays in force."""


def implausible(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """Say why a list with `now` rows per segment cannot follow one with `before`; empty when it can. Pure."""
    if not sum(now.values()):
        return "it is empty"
    for segment, count in sorted(before.items()):
        if count >= _SMALL and now.get(segment, 0) < count * _LEAST_SHARE:
            return f"{segment} has {now.get(segment, 0)} rows, the list before had {count}"
    return ""


def replace_day(database: Database, broker: str, day: date, instruments: Sequence[Instrument]) -> int:
    """Put the broker's list of `day` in the place of any earlier one and return its length; all or nothing.

    Of rows with the same exchange and symbol the first is kept. Raises ImplausibleListError when the list is
    empty, a segment lost more than half of its rows, or a landmark is gone: the list before stays.
    """
    named = {(row["exchange"], row["symbol"]): row for row in map(_row, reversed(instruments))}
    rows = list(named.values())
    now = Counter(row["broker_exchange"] for row in rows)

    def work(connection: Connection) -> int:
        gone = [
            symbol for exchange, symbol in _landmarks(connection, broker) if (exchange, symbol) not in named
        ]
        why = implausible(_counts(connection, broker), now) or (f"{gone[0]} is gone" if gone else "")
        if why:
            raise ImplausibleListError(f"The instruments of {broker} for {day} were refused: {why}.")
        connection.execute(delete(_TABLE).where(_TABLE.c.broker == broker))
        connection.execute(insert(_TABLE), rows)
        days = schema.instrument_days
        connection.execute(delete(days).where(days.c.broker == broker))
        held = {"broker": broker, "day": day.isoformat(), "rows": len(rows)}
        connection.execute(insert(days), {**held, "loaded_ns": database.clock.time_ns()})
        return len(rows)

    return database.write(work)


def loaded_day(database: Database, broker: str) -> date | None:
    """Return the day of the broker's list in force, None when there is none."""
    days = schema.instrument_days
    with database.read() as connection:
        day = connection.execute(select(days.c.day).where(days.c.broker == broker)).scalar()
    return date.fromisoformat(day) if day else None


def load(database: Database, broker: str) -> InstrumentTable:
    """Return the broker's list in force for looking up; some 10 µs a row."""
    with database.read() as connection:
        return InstrumentTable(map(_instrument, connection.execute(_of(broker))))


def search(
    database: Database, text: str, *, broker: str, exchange: str | None = None, most: int = 20
) -> list[Instrument]:
    """Return tradable instruments whose symbol or name holds `text`: exact first, then beginnings, then the rest.

    Words are found in any order (`NIFTY 24400 CE`); case does not matter.
    """
    words = text.upper().split()
    if not words:
        return []
    symbol, name = _TABLE.c.symbol, func.upper(_TABLE.c.name)
    found = _of(broker).where(_TABLE.c.kind != "INDEX")
    for word in words:
        found = found.where(symbol.contains(word, autoescape=True) | name.contains(word, autoescape=True))
    if exchange is not None:
        found = found.where(_TABLE.c.exchange == exchange)
    wanted = "".join(words)
    rank = case((symbol == wanted, 0), (symbol.startswith(words[0], autoescape=True), 1), else_=2)
    derivative = case((_TABLE.c.kind == "EQ", 0), (_TABLE.c.kind == "FUT", 1), else_=2)
    ordered = found.order_by(rank, derivative, _TABLE.c.expiry, func.length(symbol), symbol)
    with database.read() as connection:
        return [_instrument(row) for row in connection.execute(ordered.limit(most))]


def _of(broker: str) -> Any:
    return select(_TABLE).where(_TABLE.c.broker == broker)


def _counts(connection: Connection, broker: str) -> dict[str, int]:
    per = (
        select(_TABLE.c.broker_exchange, func.count())
        .where(_TABLE.c.broker == broker)
        .group_by(_TABLE.c.broker_exchange)
    )
    return {row[0]: row[1] for row in connection.execute(per)}


def _landmarks(connection: Connection, broker: str) -> list[tuple[str, str]]:
    pairs = tuple_(_TABLE.c.exchange, _TABLE.c.symbol)
    held = select(_TABLE.c.exchange, _TABLE.c.symbol).where(_TABLE.c.broker == broker, pairs.in_(_LANDMARKS))
    return [(row.exchange, row.symbol) for row in connection.execute(held)]


def _row(instrument: Instrument) -> dict[str, Any]:
    return {
        "broker": instrument.broker,
        "exchange": instrument.exchange,
        "symbol": instrument.symbol,
        "broker_exchange": instrument.broker_exchange,
        "broker_symbol": instrument.broker_symbol,
        "token": instrument.token,
        "broker_token": instrument.broker_token,
        "name": instrument.name,
        "kind": instrument.kind,
        "expiry": instrument.expiry.isoformat() if instrument.expiry else None,
        "strike": strike_text(instrument.strike),
        "lot_size": instrument.lot_size,
        "tick_size": str(instrument.tick_size),
        "freeze_quantity": instrument.freeze_quantity,
    }


def _instrument(row: Row[Any]) -> Instrument:
    return Instrument(
        broker=row.broker,
        exchange=row.exchange,
        symbol=row.symbol,
        broker_exchange=row.broker_exchange,
        broker_symbol=row.broker_symbol,
        token=row.token,
        broker_token=row.broker_token,
        name=row.name,
        kind=row.kind,
        expiry=date.fromisoformat(row.expiry) if row.expiry else None,
        strike=Decimal(row.strike),
        lot_size=row.lot_size,
        tick_size=Decimal(row.tick_size),
        freeze_quantity=row.freeze_quantity,
    )
