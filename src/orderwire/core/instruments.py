"""Instruments, OpenAlgo's symbol rules, and how adapters look an instrument up (instruments.md)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Protocol

from msgspec import Struct

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
"""Our own table: `%b` depends on the locale."""


class Instrument(Struct, frozen=True, kw_only=True, gc=False):
    """One contract at one broker, named the way OpenAlgo names it. Valid for one day (instruments.md §1.6)."""

    broker: str
    exchange: str
    """OpenAlgo's exchange code, e.g. NFO; NSE_INDEX for an index, which cannot be traded."""
    symbol: str
    """OpenAlgo's symbol, e.g. NIFTY25AUG2624400CE."""
    broker_exchange: str
    """Kite's exchange or XTS's segment name."""
    broker_symbol: str
    """What the broker's order call or display uses."""
    token: int
    """Exchange token: Kite exchange_token, XTS ExchangeInstrumentID. Key with `broker_exchange`, never alone."""
    broker_token: str = ""
    """The broker's own further identifier (Kite instrument_token), as text."""
    name: str = ""
    kind: str = "EQ"
    """EQ, FUT, CE, PE or INDEX."""
    expiry: date | None = None
    strike: Decimal = Decimal(0)
    lot_size: int = 1
    tick_size: Decimal = Decimal("0.05")
    freeze_quantity: int = 0
    """Largest quantity one order may have; 0: not stated by the broker."""

    @property
    def tradable(self) -> bool:
        """Whether orders exist for it: indices are quote-only."""
        return self.kind != "INDEX"


class InstrumentLookup(Protocol):
    """Finds one broker's instruments of the day; in memory, any thread, None when unknown."""

    def by_token(self, broker_exchange: str, token: int) -> Instrument | None:
        """Find by the broker's segment and the exchange token."""
        ...

    def by_broker_symbol(self, broker_exchange: str, broker_symbol: str) -> Instrument | None:
        """Find by the broker's exchange and trading symbol."""
        ...

    def by_symbol(self, exchange: str, symbol: str) -> Instrument | None:
        """Find by OpenAlgo's exchange and symbol."""
        ...


class InstrumentTable:
    """An `InstrumentLookup` over a fixed list; replaced as a whole when the day's list arrives."""

    __slots__ = ("_by_broker_symbol", "_by_symbol", "_by_token")

    def __init__(self, instruments: Iterable[Instrument] = ()) -> None:
        self._by_token: dict[tuple[str, int], Instrument] = {}
        self._by_broker_symbol: dict[tuple[str, str], Instrument] = {}
        self._by_symbol: dict[tuple[str, str], Instrument] = {}
        for instrument in instruments:
            if instrument.tradable:  # an index number may equal a share's (instruments.md §5)
                self._by_token[instrument.broker_exchange, instrument.token] = instrument
            self._by_broker_symbol[instrument.broker_exchange, instrument.broker_symbol] = instrument
            self._by_symbol[instrument.exchange, instrument.symbol] = instrument

    def __len__(self) -> int:
        return len(self._by_symbol)

    def symbols(self, exchange: str) -> list[str]:
        """List the tradable symbols of an exchange."""
        return [
            symbol for (at, symbol), found in self._by_symbol.items() if at == exchange and found.tradable
        ]

    def by_token(self, broker_exchange: str, token: int) -> Instrument | None:
        return self._by_token.get((broker_exchange, token))

    def by_broker_symbol(self, broker_exchange: str, broker_symbol: str) -> Instrument | None:
        return self._by_broker_symbol.get((broker_exchange, broker_symbol))

    def by_symbol(self, exchange: str, symbol: str) -> Instrument | None:
        return self._by_symbol.get((exchange, symbol))


def openalgo_symbol(name: str, *, kind: str, expiry: date | None = None, strike: Decimal = Decimal(0)) -> str:
    """Build OpenAlgo's symbol of a future or option from its columns (instruments.md §3.2); never by parsing.

    Raises ValueError when a contract of that kind has no expiry.
    """
    name = name.strip().upper()
    if kind not in {"FUT", "CE", "PE"}:
        return name
    if expiry is None:
        raise ValueError(f"{name}: a {kind} needs an expiry")
    day = f"{expiry.day:02d}{MONTHS[expiry.month - 1]}{expiry.year % 100:02d}"
    return f"{name}{day}FUT" if kind == "FUT" else f"{name}{day}{strike_text(strike)}{kind}"


def strike_text(strike: Decimal) -> str:
    """Write a strike as OpenAlgo does: no trailing zeros, no exponent (24400, 172.5, 0.95)."""
    text = f"{strike:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def suggestions(symbol: str, known: Iterable[str], *, most: int = 5) -> list[str]:
    """Return the known symbols nearest to a mistyped one, best first: same beginning, then similar spelling."""
    wanted = symbol.strip().upper()
    names = sorted(set(known))
    first = [name for name in names if wanted and name.startswith(wanted)]
    near = difflib.get_close_matches(wanted, names, n=most, cutoff=0.5)
    return list(dict.fromkeys([*first, *near]))[:most]
