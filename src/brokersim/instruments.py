"""The seventeen contracts that both simulated brokers list, and each broker's own dump of them.

The list is one frozen day, Monday 17 August 2026 (docs/brokersim.md); nothing here compares an expiry with
the wall clock. A contract is known to both brokers by the same exchange token, except the two indices.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from enum import IntEnum
from itertools import starmap
from typing import Final

LIST_DATE: Final = date(2026, 8, 17)
KITE_HEADER: Final = (
    "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,"
    "instrument_type,segment,exchange"
)
KITE_SEGMENT_CODE: Final = {
    "NSE": 1,
    "NFO-FUT": 2,
    "NFO-OPT": 2,
    "CDS-FUT": 3,
    "BSE": 4,
    "BFO-OPT": 5,
    "MCX-FUT": 7,
    "INDICES": 9,
}
XTS_SEGMENT_NUMBER: Final = {"NSECM": 1, "NSEFO": 2, "NSECD": 3, "BSECM": 11, "BSEFO": 12, "MCXFO": 51}
XTS_INDEX_LISTS: Final[dict[int, tuple[str, ...]]] = {
    1: ("NIFTY 50_26000", "NIFTY BANK_26001", "INDIA VIX_26002", "NIFTY FIN SERVICE_26034"),
    11: ("SENSEX_26065", "BANKEX_26118", "SNSX50_26067"),
}
# One calendar spread, InstrumentType 4 with 21 columns: every reader must skip it.
XTS_SPREAD_ROW: Final = (
    "NSEFO|12778737|4|NIFTY|NIFTY26AUG26SEPFUT|FUTIDX|NIFTY-FUTIDX|2100112778737|500|-500|1801|0.1|65|1|-1||"
    "2026-08-25T14:30:00|NIFTY 25AUG26SEP SPD|1|1|NIFTY26AUG26SEPFUT"
)
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_EXPIRY_TIME: Final = {"BSEFO": "T00:00:00", "MCXFO": "T23:59:59"}
_OPTION_CODE: Final = {"CE": 3, "PE": 4}
# How far a price may go from its reference before the exchange refuses it, as a fraction.
_BAND: Final = {"EQ": Decimal("0.10"), "FUT": Decimal("0.10")}


class XtsType(IntEnum):
    """XTS's InstrumentType numbers, as far as they occur here."""

    FUTURE = 1
    OPTION = 2
    SPREAD = 4
    EQUITY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """One contract as the exchange knows it, with what each broker calls it.

    Prices are rupees; quantities are units, except that CDS and MCX count lots. `freeze` is the greatest
    quantity the exchange takes in one order. `xts_id` differs from `token` for indices only.
    """

    exchange: str
    symbol: str
    name: str
    token: int
    kind: str
    segment: str
    expiry: date | None
    strike: Decimal
    tick: Decimal
    lot: int
    price: Decimal
    freeze: int
    freeze_column: int
    xts_segment: str
    xts_id: int
    xts_name: str
    series: str
    multiplier: int
    isin: str
    details: str
    underlying_id: str
    underlying_name: str

    @property
    def key(self) -> str:
        """EXCHANGE:SYMBOL, Kite's own spelling and this program's identity of a contract."""
        return f"{self.exchange}:{self.symbol}"

    @property
    def kite_token(self) -> int:
        """Kite's instrument_token: the exchange token and the segment's code in the low byte."""
        return self.token * 256 + KITE_SEGMENT_CODE[self.segment]

    @property
    def tradable(self) -> bool:
        """False for an index."""
        return self.segment != "INDICES"

    @property
    def derivative(self) -> bool:
        """True for futures and options."""
        return self.kind != "EQ"

    @property
    def band(self) -> tuple[Decimal, Decimal]:
        """The lowest and the highest price the exchange takes today, both on the tick."""
        if not self.tradable:
            return self.price, self.price
        if self.kind in _OPTION_CODE:
            return self.tick, self._on_tick(self.price * 4)
        width = self.price * _BAND[self.kind]
        return self._on_tick(self.price - width), self._on_tick(self.price + width)

    @property
    def xts_description(self) -> str:
        """The master's Description: Kite's tradingsymbol for derivatives, Name-Series for cash."""
        return self.symbol if self.derivative else f"{self.xts_name}-{self.series}"

    @property
    def xts_display(self) -> str:
        """The master's DisplayName, which orders carry as TradingSymbol."""
        if self.expiry is None:
            return self.xts_name
        day = f"{self.expiry.day:02}{_MONTHS[self.expiry.month - 1]}{self.expiry.year}"
        option = f" {self.kind} {self.strike}" if self.kind in _OPTION_CODE else ""
        return f"{self.xts_name} {day}{option}"

    @property
    def xts_type(self) -> XtsType:
        """The master's InstrumentType."""
        if self.kind in _OPTION_CODE:
            return XtsType.OPTION
        return XtsType.FUTURE if self.kind == "FUT" else XtsType.EQUITY

    def _on_tick(self, price: Decimal) -> Decimal:
        return (price // self.tick) * self.tick


def _contract(  # noqa: PLR0917 - one row of the table below, read column by column
    exchange: str,
    symbol: str,
    name: str,
    token: int,
    segment: str,
    expiry: str,
    strike: str,
    tick: str,
    lot: int,
    price: str,
    freeze: int,
    kind: str,
    xts: tuple[str, int, str, str, int, int, str, str, str, str],
) -> Instrument:
    xts_segment, xts_id, xts_name, series, multiplier, column, isin, details, underlying_id, underlying = xts
    return Instrument(
        exchange=exchange,
        symbol=symbol,
        name=name,
        token=token,
        kind=kind,
        segment=segment,
        expiry=date.fromisoformat(expiry) if expiry else None,
        strike=Decimal(strike),
        tick=Decimal(tick),
        lot=lot,
        price=Decimal(price),
        freeze=freeze,
        freeze_column=column,
        xts_segment=xts_segment,
        xts_id=xts_id,
        xts_name=xts_name,
        series=series,
        multiplier=multiplier,
        isin=isin,
        details=details,
        underlying_id=underlying_id,
        underlying_name=underlying,
    )


# fmt: off
_CASH = "", ""
_N50 = "-1", "Nifty 50"
_TABLE: Final = (
    ("NSE", "SBIN", "STATE BANK OF INDIA", 3045, "NSE", "", "0", "0.1", 1, "820", 90_000, "EQ",
     ("NSECM", 3045, "SBIN", "EQ", 1, 90_001, "INE062A01020", "STATE BANK OF INDIA-EQ|0|-1|-1", *_CASH)),
    ("NSE", "RELIANCE", "RELIANCE INDUSTRIES", 2885, "NSE", "", "0", "0.1", 1, "1402.5", 67_661, "EQ",
     ("NSECM", 2885, "RELIANCE", "EQ", 1, 67_662, "INE002A01018", "RELIANCE INDUSTRIES LTD-EQ|0|-1|-1", *_CASH)),
    ("NSE", "INFY", "INFOSYS", 1594, "NSE", "", "0", "0.1", 1, "1500", 50_000, "EQ",
     ("NSECM", 1594, "INFY", "EQ", 1, 50_001, "INE009A01021", "INFOSYS LIMITED-EQ|0|-1|-1", *_CASH)),
    ("NSE", "M&M", "MAHINDRA & MAHINDRA", 2031, "NSE", "", "0", "0.1", 1, "3200", 30_000, "EQ",
     ("NSECM", 2031, "M&M", "EQ", 1, 30_001, "INE101A01026", "MAHINDRA & MAHINDRA LTD-EQ|0|-1|-1", *_CASH)),
    ("NSE", "BAJAJ-AUTO", "BAJAJ AUTO", 16669, "NSE", "", "0", "1", 1, "9000", 9_000, "EQ",
     ("NSECM", 16669, "BAJAJ-AUTO", "EQ", 1, 9_001, "INE917I01010", "BAJAJ AUTO LIMITED-EQ|0|-1|-1", *_CASH)),
    ("NSE", "TNTELE-BE", "TAMILNADU TELECOMMUNICATI", 9884, "NSE", "", "0", "0.01", 1, "9.5", 1_493_453, "EQ",
     ("NSECM", 9884, "TNTELE", "BE", 1, 1_493_454, "INE141D01018", "TAMILNADU TELECOMMUNICATI-BE|99|-1|-1",
      *_CASH)),
    ("BSE", "RELIANCE", "RELIANCE INDUSTRIES", 500325, "BSE", "", "0", "0.05", 1, "1402.5", 1_000_000, "EQ",
     ("BSECM", 500325, "RELIANCE", "A", 1, 0, "INE002A01018", "RELIANCE INDUSTRIES LTD.|100|-1|-1", *_CASH)),
    ("NSE", "NIFTY 50", "NIFTY 50", 1001, "INDICES", "", "0", "0", 0, "24412.35", 0, "EQ",
     ("", 26000, "NIFTY 50", "", 1, 0, "", "", *_CASH)),
    ("BSE", "SENSEX", "SENSEX", 1, "INDICES", "", "0", "0", 0, "80051.2", 0, "EQ",
     ("BSECM", 26065, "SENSEX", "SPOT", 1, 0, "", "SENSEX-SPOT|-1|-1|-1", *_CASH)),
    ("NFO", "NIFTY26AUGFUT", "NIFTY", 58072, "NFO-FUT", "2026-08-25", "0", "0.1", 65, "24450", 1_800, "FUT",
     ("NSEFO", 58072, "NIFTY", "FUTIDX", 1, 1_801, "", "", *_N50)),
    ("NFO", "NIFTY2681824400CE", "NIFTY", 45106, "NFO-OPT", "2026-08-18", "24400", "0.05", 65, "95", 1_800, "CE",
     ("NSEFO", 45106, "NIFTY", "OPTIDX", 1, 1_801, "", "", *_N50)),
    ("NFO", "NIFTY26AUG24400CE", "NIFTY", 61720, "NFO-OPT", "2026-08-25", "24400", "0.05", 65, "265", 1_800, "CE",
     ("NSEFO", 61720, "NIFTY", "OPTIDX", 1, 1_801, "", "", *_N50)),
    ("NFO", "BANKNIFTY26AUG57000PE", "BANKNIFTY", 59080, "NFO-OPT", "2026-08-25", "57000", "0.05", 30, "620", 600,
     "PE", ("NSEFO", 59080, "BANKNIFTY", "OPTIDX", 1, 601, "", "", "-1", "Nifty Bank")),
    ("NFO", "ITC26AUG277.5CE", "ITC", 117946, "NFO-OPT", "2026-08-25", "277.5", "0.05", 1_725, "6.4", 69_000, "CE",
     ("NSEFO", 117946, "ITC", "OPTSTK", 1, 69_001, "", "", "1100100001660", "ITC")),
    ("BFO", "SENSEX2682080000CE", "SENSEX", 855080, "BFO-OPT", "2026-08-20", "80000", "0.05", 20, "420", 1_000,
     "CE", ("BSEFO", 855080, "SENSEX", "IO", 1, 1_000, "", "", "-1", "SENSEX")),
    ("CDS", "USDINR26AUGFUT", "USDINR", 1103, "CDS-FUT", "2026-08-27", "0", "0.0025", 1, "87.5", 10_000, "FUT",
     ("NSECD", 1103, "USDINR", "FUTCUR", 1_000, 10_001, "", "", "3100100000001", "")),
    ("MCX", "CRUDEOIL26SEPFUT", "CRUDEOIL", 565899, "MCX-FUT", "2026-09-21", "0", "1", 1, "5600", 100, "FUT",
     ("MCXFO", 565899, "CRUDEOIL", "FUTCOM", 100, 100, "", "", "51100100000294", "")),
)
# fmt: on

INSTRUMENTS: Final[tuple[Instrument, ...]] = tuple(starmap(_contract, _TABLE))


def second_day(instruments: Sequence[Instrument] = INSTRUMENTS) -> tuple[Instrument, ...]:
    """List the contracts of the next day, on which numbers are reused.

    INFY moved from EQ to BE (new symbol, new token), the weekly NIFTY option's number names another strike
    and BAJAJ-AUTO has a finer tick.
    """
    changes: dict[str, dict[str, object]] = {
        "NSE:INFY": {"symbol": "INFY-BE", "token": 20017, "xts_id": 20017, "series": "BE"},
        "NFO:NIFTY2681824400CE": {
            "symbol": "NIFTY2682524500CE",
            "strike": Decimal(24500),
            "expiry": date(2026, 8, 25),
        },
        "NSE:BAJAJ-AUTO": {"tick": Decimal("0.5")},
    }
    return tuple(replace(each, **changes.get(each.key, {})) for each in instruments)  # type: ignore[arg-type]  # the keys are field names, read by eye above


def kite_csv(instruments: Iterable[Instrument] = INSTRUMENTS, *, exchange: str | None = None) -> str:
    """Write Kite's instrument list: the header line, then one line per contract, each ended by LF.

    With `exchange` only that exchange's rows; an exchange without contracts has the header alone.
    """
    rows = [_kite_row(each) for each in instruments if exchange in {None, each.exchange}]
    return "\n".join([KITE_HEADER, *rows, ""])


def _kite_row(each: Instrument) -> str:
    expiry = each.expiry.isoformat() if each.expiry else ""
    return (
        f'{each.kite_token},{each.token},{each.symbol},"{each.name}",0,{expiry},{each.strike},{each.tick},'
        f"{each.lot},{each.kind},{each.segment},{each.exchange}"
    )


def xts_master(segments: Sequence[str], instruments: Iterable[Instrument] = INSTRUMENTS) -> str:
    """Write XTS's master dump of the named segments: rows joined by LF, columns by `|`.

    A segment without contracts gives no rows; if none has any, the text is empty. NSEFO ends with one
    calendar spread. Cash rows have 22 columns, options 23, futures and the spread 21.
    """
    rows = [xts_row(each) for each in instruments if each.xts_segment in segments]
    if "NSEFO" in segments:
        rows.append(XTS_SPREAD_ROW)
    return "\n".join(rows)


def xts_row(each: Instrument) -> str:
    """Write one row of the XTS master."""
    name_series = f"{each.xts_name}-{each.series}"
    index = not each.tradable
    low, high = ("NaN", "NaN") if index else map(str, each.band)
    tick, lot = ("1", "1") if index else (str(each.tick), str(each.lot))
    head = [each.xts_segment, str(each.xts_id), str(int(each.xts_type)), each.xts_name, each.xts_description]
    head += [each.series, name_series, str(xts_instrument_id(each)), high, low, str(each.freeze_column)]
    return "|".join([*head, tick, lot, str(each.multiplier), *_xts_tail(each)])


def _xts_tail(each: Instrument) -> list[str]:
    if each.expiry is None:
        return [each.xts_name, each.isin, "1", "1", each.details]
    expiry = each.expiry.isoformat() + _EXPIRY_TIME.get(each.xts_segment, "T14:30:00")
    option = [str(each.strike), str(_OPTION_CODE[each.kind])] if each.kind in _OPTION_CODE else []
    names = [each.underlying_id, each.underlying_name]
    return [*names, expiry, *option, each.xts_display, "1", "1", each.xts_description]


def xts_instrument_id(each: Instrument) -> int:
    """Compose XTS's InstrumentID: segment, last digit of the year, day of the year, id in eight digits."""
    day = "1001" if each.expiry is None else f"{each.expiry.year % 10}{each.expiry.timetuple().tm_yday:03}"
    return int(f"{XTS_SEGMENT_NUMBER[each.xts_segment]}{day}{each.xts_id:08}")
