"""What is kept, as files for other programs: CSV, JSON lines or Parquet, a row for each order, trade and so on.

The file appears under its name when it is whole. Reading takes place in one moment of the database, beside a running
service if there is one.
"""

from __future__ import annotations

import csv
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, Select, Table, func, select

from orderwire.core.lifecycle import OrderView
from orderwire.core.orders import AccountId, Position, Trade
from orderwire.errors import ConfigurationError
from orderwire.store import schema
from orderwire.store.database import Database
from orderwire.store.encoding import from_ns, loads

Progress = Callable[[int, int], None]
"""Told the rows written and the rows there are."""

_PIECE: Final = 1000


class Subject(StrEnum):
    """What can be exported."""

    ORDERS = "orders"
    TRADES = "trades"
    POSITIONS = "positions"
    OBSERVATIONS = "observations"
    """Everything brokers said about orders, as it came, with what became of it."""


class Form(StrEnum):
    """How the file is written."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which rows: of one account or all, of the session days from `since` to `until`, both included."""

    account: AccountId | None = None
    since: date | None = None
    until: date | None = None


class _Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the inbox."""

    account: str
    order_id: str
    trading_date: date
    channel: str
    verdict: str
    note: str
    received_at: datetime
    settled_at: datetime | None
    claimed_time: str
    raw: str
    """The broker's bytes; what is not UTF-8 is written as `\\xff`."""


def _quietly(_done: int, _all: int) -> None:
    pass


def export(
    database: Database,
    subject: Subject,
    target: Path,
    *,
    form: Form,
    only: Selection = Selection(),
    progress: Progress = _quietly,
) -> int:
    """Write what is kept of `subject` into a new file and return how many rows it has. Any thread.

    Money is written exactly, as text in CSV and JSON lines and as decimal(38, 12) in Parquet; times are aware (UTC
    or the broker's own zone). Raises ConfigurationError when the file exists or cannot be written, or pyarrow is
    missing for Parquet.
    """
    if target.exists():
        raise ConfigurationError(f"{target} exists already; an export overwrites nothing.")
    source = _SOURCES[subject]
    beside = target.with_name(target.name + ".part")
    try:
        with database.read() as connection, _WRITERS[form](beside, source.kind) as write:
            rows = _copy(connection, source, only, write, progress)
        beside.replace(target)
    except OSError as error:
        raise ConfigurationError(f"The export {target} could not be written: {error}.") from error
    finally:
        beside.unlink(missing_ok=True)
    return rows


Write = Callable[[Sequence[msgspec.Struct]], None]


def _copy(connection: Connection, source: _Source, only: Selection, write: Write, progress: Progress) -> int:
    wanted = _narrowed(select(*source.columns), source.table, only)
    count = _narrowed(select(func.count()).select_from(source.table), source.table, only)
    total, done = connection.execute(count).scalar() or 0, 0
    ordered = wanted.order_by(*source.table.primary_key.columns).execution_options(yield_per=_PIECE)
    progress(0, total)
    with connection.execute(ordered) as result:
        for piece in result.partitions():
            write([source.read(row) for row in piece])
            done += len(piece)
            progress(done, total)
    return done


def _narrowed(query: Select[Any], table: Table, only: Selection) -> Select[Any]:
    if only.account is not None:
        query = query.where(table.c.account == only.account)
    if only.since is not None:
        query = query.where(table.c.trading_date >= only.since.isoformat())
    if only.until is not None:
        query = query.where(table.c.trading_date <= only.until.isoformat())
    return query


# --- what -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    table: Table
    columns: tuple[Any, ...]
    kind: type[msgspec.Struct]
    read: Callable[[Row[Any]], msgspec.Struct]


def _observation(row: Row[Any]) -> _Observation:
    return _Observation(
        account=row.account,
        order_id=row.order_id,
        trading_date=date.fromisoformat(row.trading_date),
        channel=row.channel,
        verdict=row.verdict,
        note=row.note,
        received_at=from_ns(row.received_ns),
        settled_at=None if row.settled_ns is None else from_ns(row.settled_ns),
        claimed_time=row.claimed_time,
        raw=row.raw.decode("utf-8", "backslashreplace"),
    )


def _column(table: Table, name: str, kind: type[msgspec.Struct]) -> _Source:
    return _Source(table=table, columns=(table.c[name],), kind=kind, read=lambda row: loads(row[0], kind))


_SOURCES: Final[Mapping[Subject, _Source]] = types.MappingProxyType(
    {
        Subject.ORDERS: _column(schema.orders, "view", OrderView),
        Subject.TRADES: _column(schema.trades, "trade", Trade),
        Subject.POSITIONS: _column(schema.positions, "position", Position),
        Subject.OBSERVATIONS: _Source(
            table=schema.inbox, columns=tuple(schema.inbox.columns), kind=_Observation, read=_observation
        ),
    }
)


def _names(kind: type[msgspec.Struct]) -> list[str]:
    """Return the columns of a file: the value's fields, without the bytes that `observations` has as text."""
    return [name for name, of in typing.get_type_hints(kind).items() if of is not bytes]


# --- how ------------------------------------------------------------------------------------------------


@contextmanager
def _as_csv(path: Path, kind: type[msgspec.Struct]) -> Iterator[Write]:
    names = _names(kind)
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(names)

        def write(rows: Sequence[msgspec.Struct]) -> None:
            out.writerows([_text(getattr(row, name)) for name in names] for row in rows)

        yield write


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat() if isinstance(value, date) else str(value)


@contextmanager
def _as_lines(path: Path, kind: type[msgspec.Struct]) -> Iterator[Write]:
    names, encoder = _names(kind), msgspec.json.Encoder()
    with path.open("wb") as file:

        def write(rows: Sequence[msgspec.Struct]) -> None:
            file.write(encoder.encode_lines([{name: getattr(row, name) for name in names} for row in rows]))

        yield write


@contextmanager
def _as_parquet(path: Path, kind: type[msgspec.Struct]) -> Iterator[Write]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and 0.3 s
        import pyarrow.parquet as pq  # noqa: PLC0415 - see above
    except ImportError:
        raise ConfigurationError(
            "Parquet needs pyarrow: install orderwire[parquet], or export as csv or jsonl."
        ) from None
    arrow: dict[Any, Any] = {
        bool: pa.bool_(),
        int: pa.int64(),
        Decimal: pa.decimal128(38, _PLACES),
        date: pa.date32(),
        datetime: pa.timestamp("us", tz="UTC"),
    }
    hints, names = typing.get_type_hints(kind), _names(kind)
    columns = pa.schema([(name, arrow.get(_plain(hints[name]), pa.string())) for name in names])
    with pq.ParquetWriter(path, columns, compression="zstd") as file:

        def write(rows: Sequence[msgspec.Struct]) -> None:
            lines = [{name: _fitting(getattr(row, name)) for name in names} for row in rows]
            file.write_table(pa.Table.from_pylist(lines, schema=columns))

        yield write


_PLACES: Final = 12
_FINEST: Final = Decimal(1).scaleb(-_PLACES)


def _plain(kind: Any) -> Any:
    """Return the type behind `X | None` and behind a name for it."""
    if isinstance(kind, types.UnionType):
        kind = next(of for of in typing.get_args(kind) if of is not types.NoneType)
    return getattr(kind, "__supertype__", kind)


def _fitting(value: Any) -> Any:
    """Return a value as Arrow takes it; no broker states money finer than the column does, but none may break it."""
    if isinstance(value, Decimal):
        return value.quantize(_FINEST, ROUND_HALF_EVEN)
    return str(value) if isinstance(value, StrEnum) else value


_Writer = Callable[[Path, type[msgspec.Struct]], AbstractContextManager[Write]]
_WRITERS: Final[Mapping[Form, _Writer]] = types.MappingProxyType(
    {Form.CSV: _as_csv, Form.JSONL: _as_lines, Form.PARQUET: _as_parquet}
)
