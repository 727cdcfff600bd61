"""Reads Kite's daily list of instruments and names each contract as OpenAlgo does; pure (instruments.md)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from sys import intern
from types import MappingProxyType

from orderwire.brokers.zerodha.messages import NAME
from orderwire.core.instruments import Instrument, openalgo_symbol
from orderwire.core.orders import ZERO
from orderwire.errors import ProtocolViolationError

INSTRUMENT_COLUMNS = (
    "instrument_token",
    "exchange_token",
    "tradingsymbol",
    "name",
    "last_price",
    "expiry",
    "strike",
    "tick_size",
    "lot_size",
    "instrument_type",
    "segment",
    "exchange",
)

INDEX_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "NIFTY 50": "NIFTY",
        "NIFTY BANK": "BANKNIFTY",
        "NIFTY FIN SERVICE": "FINNIFTY",
        "NIFTY NEXT 50": "NIFTYNXT50",
        "NIFTY MID SELECT": "MIDCPNIFTY",
        "INDIA VIX": "INDIAVIX",
        "SNSX50": "SENSEX50",
        "AUTO": "BSEAUTO",
    }
)
"""Kite's names of indices and OpenAlgo's, where those differ by more than spaces (instruments.md §3.2)."""

_FOREIGN = {"GLOBAL": "GLOBAL_INDEX", "NSEIX": "GLOBAL_INDEX"}
_KINDS = frozenset({"EQ", "FUT", "CE", "PE"})
_TICK_PLACES = Decimal("0.0001")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentList:
    """The day's instruments, and how many rows could not be read."""

    instruments: tuple[Instrument, ...]
    rejected: int


def read_instruments(body: bytes) -> InstrumentList:
    """Read the CSV of `GET /instruments` by its column names (instruments.md §1, §3.2).

    A row that cannot be read is counted and left out. Raises ProtocolViolationError when the header is not
    Kite's, as with an error page, or more than one row in a hundred cannot be read.
    """
    header, *rows = _lines(body)
    columns = _columns(header, body)
    found, rejected = [], 0
    for row in rows:
        instrument = _read_instrument(row, columns) if row else None
        rejected += bool(row) and instrument is None
        if instrument is not None:
            found.append(instrument)
    if rejected * 100 > len(found) + rejected:
        raise ProtocolViolationError(f"{rejected} rows of Zerodha's instrument list cannot be read")
    return InstrumentList(instruments=tuple(found), rejected=rejected)


def _lines(body: bytes) -> list[list[str]]:
    text = body.decode("utf-8-sig", "replace").replace("\r", "")
    try:
        return list(csv.reader(text.split("\n")))
    except csv.Error as error:
        raise ProtocolViolationError(
            f"Zerodha's instrument list is not CSV: {error}", raw=body[:200]
        ) from None


def _columns(header: Sequence[str], body: bytes) -> list[int]:
    names = [name.strip() for name in header]
    try:
        return [names.index(name) for name in INSTRUMENT_COLUMNS]
    except ValueError:
        raise ProtocolViolationError(
            "this is not Zerodha's instrument list: the header line does not fit", raw=body[:200]
        ) from None


def _read_instrument(row: Sequence[str], columns: Sequence[int]) -> Instrument | None:
    try:
        return _instrument(*(row[place] for place in columns))
    except (ValueError, IndexError, InvalidOperation):
        return None


def _instrument(  # noqa: PLR0917 - the twelve columns of the file, in its order
    instrument_token: str,
    exchange_token: str,
    tradingsymbol: str,
    name: str,
    _last_price: str,
    expiry: str,
    strike: str,
    tick_size: str,
    lot_size: str,
    kind: str,
    segment: str,
    exchange: str,
) -> Instrument:
    if kind not in _KINDS:
        raise ValueError(kind)
    index = segment == "INDICES" or exchange in _FOREIGN
    day = date.fromisoformat(expiry[:10]) if expiry else None
    price = Decimal(strike or 0) if kind in {"CE", "PE"} else ZERO
    return Instrument(
        broker=NAME,
        exchange=_FOREIGN.get(exchange) or intern(f"{exchange}_INDEX" if index else exchange),
        symbol=_index_symbol(tradingsymbol) if index else _symbol(tradingsymbol, name, kind, day, price),
        broker_exchange=intern(exchange),
        broker_symbol=tradingsymbol,
        token=int(exchange_token),
        broker_token=instrument_token,
        name=intern(name),
        kind="INDEX" if index else intern(kind),
        expiry=day,
        strike=price,
        lot_size=max(int(lot_size or 1), 1),
        tick_size=_tick(tick_size),
    )


def _symbol(tradingsymbol: str, name: str, kind: str, expiry: date | None, strike: Decimal) -> str:
    if kind == "EQ":
        return tradingsymbol
    return openalgo_symbol(name, kind=kind, expiry=expiry, strike=strike)


def _index_symbol(tradingsymbol: str) -> str:
    name = tradingsymbol.strip().upper()
    return INDEX_NAMES.get(name) or name.replace(" ", "").replace("-", "")


def _tick(text: str) -> Decimal:
    tick = Decimal(text or 0)
    if not tick.is_finite():
        raise ValueError(text)
    tick = tick.quantize(_TICK_PLACES)
    return Decimal(f"{tick.normalize():f}")
