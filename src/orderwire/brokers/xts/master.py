"""Reads XTS's instrument master and index lists into instruments named as OpenAlgo names them (instruments.md §2, §3.3).

Pure. Rows have different lengths, so a row is read by its InstrumentType and rejected when its length does not fit:
a shifted row looks plausible and would take another contract's symbol.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

from orderwire.brokers.xts.messages import EXCHANGES
from orderwire.core.instruments import Instrument, openalgo_symbol
from orderwire.decoding import decode
from orderwire.errors import UNDECODABLE, ProtocolViolationError

SEGMENT_NUMBERS: Final[Mapping[str, int]] = {
    "NSECM": 1,
    "NSEFO": 2,
    "NSECD": 3,
    "NSECO": 4,
    "BSECM": 11,
    "BSEFO": 12,
    "BSECD": 13,
    "NCDEX": 21,
    "MCXFO": 51,
}
"""Market data speaks in numbers, orders and the master in names."""

CALENDARS: Final[Mapping[str, str]] = {
    "NSECM": "NSE",
    "NSEFO": "NSE",
    "NSECD": "CDS",
    "NSECO": "MCX",
    "BSECM": "BSE",
    "BSEFO": "BSE",
    "BSECD": "CDS",
    "NCDEX": "MCX",
    "MCXFO": "MCX",
}
"""Whose hours a segment keeps, in the words of the market calendar; commodities keep MCX's everywhere."""

_SEGMENTS: Final = {str(number): name for name, number in SEGMENT_NUMBERS.items()} | {
    name: name for name in SEGMENT_NUMBERS
}
_INDEX_EXCHANGES: Final = {"NSECM": "NSE_INDEX", "BSECM": "BSE_INDEX"}
_INDEX_NAMES: Final = {
    "NIFTY50": "NIFTY",
    "NIFTYBANK": "BANKNIFTY",
    "NIFTYFINSERVICE": "FINNIFTY",
    "NIFTYNEXT50": "NIFTYNXT50",
    "NIFTYMIDSELECT": "MIDCPNIFTY",
    "SNSX50": "SENSEX50",
    "AUTO": "BSEAUTO",
}
"""OpenAlgo's names of indices, by the broker's name without spaces and hyphens (instruments.md §3.2, §3.3)."""
_FIRST_REFUSED: Final = frozenset({"NSEFO"})
"""Segments whose FreezeQty is the first quantity that is refused, one above the limit."""
_OPTION_CODES: Final = {"3": "CE", "4": "PE", "1": "CE", "2": "PE"}
_DOUBTFUL_CODES: Final = frozenset({"1", "2"})
_TEST_NAME = re.compile(r"\d{3}NSETEST", re.ASCII)

# Columns that all rows share.
_ID, _TYPE, _NAME, _DESCRIPTION, _SERIES, _FREEZE, _TICK, _LOT = 1, 2, 3, 4, 5, 10, 11, 12
# Columns that follow, by InstrumentType.
_CASH_DISPLAY, _EXPIRY, _STRIKE, _OPTION_CODE = 14, 16, 17, 18

_NONE: Final = Decimal(0)
_MOST_DIGITS: Final = 12
_SKIPPED_TYPES: Final = {"4": "spread", "16": "spot"}


@dataclass(slots=True)
class MasterCount:
    """What became of the rows that are no instruments, by reason."""

    skipped: Counter[str] = field(default_factory=Counter)
    """Left out on purpose: spreads, spots, test contracts."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Unreadable: a type and length that do not fit, a word that is no number."""
    doubtful: Counter[str] = field(default_factory=Counter)
    """Kept, though an option code is one that only old servers used."""


def read_master(rows: Iterable[str], *, broker: str, count: MasterCount) -> Iterator[Instrument]:
    """Read master rows one by one, counting in `count` what is left out. Raises nothing for a bad row."""
    for row in rows:
        if not row.strip():
            continue
        try:
            instrument = _read_row(row.rstrip("\r").split("|"), broker=broker, count=count)
        except _RejectedRow as rejected:
            count.rejected[str(rejected)] += 1
            continue
        except (ValueError, InvalidOperation, ArithmeticError):
            count.rejected["a word that is no number or date"] += 1
            continue
        if instrument is not None:
            yield instrument


def master_rows(result: bytes) -> Sequence[str]:
    """Split a master's `result`: one string of lines, or (L) a list of rows."""
    try:
        value = decode(result or b'""', str | list[str])
    except UNDECODABLE:
        raise ProtocolViolationError("an instrument master that is no text", raw=result[:400]) from None
    return value.split("\n") if isinstance(value, str) else value


def read_index_list(result: bytes, *, broker: str, segment: str) -> list[Instrument]:
    """Read `indexList`: names with their number after the last underscore; quote-only instruments."""
    try:
        names = decode(result or b"{}", _IndexList).indexList
    except UNDECODABLE:
        raise ProtocolViolationError("an index list that cannot be read", raw=result[:400]) from None
    split = [name.rpartition("_") for name in names]
    return [
        _index(name, int(token), broker=broker, segment=segment)
        for name, _, token in split
        if name and token.isascii() and token.isdigit()
    ]


class _IndexList(msgspec.Struct):
    indexList: list[str] = msgspec.field(default_factory=list)  # noqa: N815 - XTS's own spelling


class _RejectedRow(Exception):  # noqa: N818 - it never leaves this module
    pass


def _read_row(columns: list[str], *, broker: str, count: MasterCount) -> Instrument | None:
    if len(columns) <= _LOT + 1:
        raise _RejectedRow("too few columns")
    kind = columns[_TYPE].strip()
    skipped = "test" if _TEST_NAME.fullmatch(columns[_NAME]) else _SKIPPED_TYPES.get(kind)
    if skipped:
        count.skipped[skipped] += 1
        return None
    lengths, read = _READERS.get(kind, (frozenset[int](), _cash))
    if len(columns) not in lengths:
        raise _RejectedRow(f"type {kind[:8]} with {len(columns)} columns")
    segment = _SEGMENTS.get(columns[0].strip())
    if segment is None:
        raise _RejectedRow(f"segment {columns[0][:8]}")
    return read(_Master(columns, segment, broker, count))


@dataclass(frozen=True, slots=True)
class _Master:
    columns: list[str]
    segment: str
    broker: str
    count: MasterCount


def _cash(row: _Master) -> Instrument:
    """NSE lists a share once per series: EQ has the plain name, others carry their series, as Kite's do."""
    columns = row.columns
    name, series = columns[_NAME].strip().upper(), columns[_SERIES].strip().upper()
    if series == "SPOT":
        return _index(name, int(columns[_ID]), broker=row.broker, segment=row.segment)
    plain = row.segment != "NSECM" or series == "EQ"
    shown = columns[_CASH_DISPLAY if plain else _DESCRIPTION]
    return _instrument(row, symbol=name if plain else f"{name}-{series}", shown=shown)


def _future(row: _Master) -> Instrument:
    return _contract(row, kind="FUT", strike=Decimal(0))


def _option(row: _Master) -> Instrument:
    code = row.columns[_OPTION_CODE].strip()
    if code not in _OPTION_CODES:
        raise _RejectedRow(f"option type {code[:8]}")
    if code in _DOUBTFUL_CODES:
        row.count.doubtful[f"option type {code}"] += 1
    return _contract(row, kind=_OPTION_CODES[code], strike=_decimal(row.columns[_STRIKE]))


def _contract(row: _Master, *, kind: str, strike: Decimal) -> Instrument:
    expiry = date.fromisoformat(row.columns[_EXPIRY][:10])
    symbol = openalgo_symbol(row.columns[_NAME], kind=kind, expiry=expiry, strike=strike)
    shown = row.columns[_DESCRIPTION]
    return _instrument(row, symbol=symbol, shown=shown, kind=kind, expiry=expiry, strike=strike)


def _instrument(
    row: _Master,
    *,
    symbol: str,
    shown: str,
    kind: str = "EQ",
    expiry: date | None = None,
    strike: Decimal = _NONE,
) -> Instrument:
    columns = row.columns
    freeze = int(_decimal(columns[_FREEZE] or "0"))
    return Instrument(
        broker=row.broker,
        exchange=EXCHANGES[row.segment],
        symbol=symbol,
        broker_exchange=row.segment,
        broker_symbol=shown.strip(),
        token=int(columns[_ID]),
        name=columns[_NAME].strip().upper(),
        kind=kind,
        expiry=expiry,
        strike=strike,
        lot_size=int(_decimal(columns[_LOT])),
        tick_size=_decimal(columns[_TICK]),
        freeze_quantity=max(0, freeze - 1) if row.segment in _FIRST_REFUSED else freeze,
    )


def _index(name: str, token: int, *, broker: str, segment: str) -> Instrument:
    short = re.sub(r"[\s-]", "", name.upper())
    return Instrument(
        broker=broker,
        exchange=_INDEX_EXCHANGES.get(segment, f"{EXCHANGES[segment]}_INDEX"),
        symbol=_INDEX_NAMES.get(short, short),
        broker_exchange=segment,
        broker_symbol=name,
        token=token,
        name=name,
        kind="INDEX",
    )


def _decimal(text: str) -> Decimal:
    value = Decimal(text)
    if not value.is_finite() or value < 0 or abs(value.adjusted()) > _MOST_DIGITS:
        raise _RejectedRow("a number beyond all reason")
    return value


_Reader = Callable[[_Master], Instrument]
_READERS: Final[Mapping[str, tuple[frozenset[int], _Reader]]] = {
    "8": (frozenset({18, 19, 22}), _cash),
    "2": (frozenset({23}), _option),
    "1": (frozenset({21}), _future),
}
