"""XTS's market-data root as far as it lists instruments: login, master, index list and search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from brokersim.instruments import (
    XTS_INDEX_LISTS,
    XTS_SEGMENT_NUMBER,
    Instrument,
    xts_instrument_id,
    xts_master,
)
from brokersim.xts import forms
from brokersim.xts.errors import Flaw, bad_request
from brokersim.xts.forms import Fields

ROOTS: Final = ("/apibinarymarketdata", "/apimarketdata")
_OPTION_CODE: Final = {"CE": 3, "PE": 4}
_MOST_HITS: Final = 50
Instruments = Callable[[], Sequence[Instrument]]


def master(fields: Fields, instruments: Sequence[Instrument]) -> dict[str, Any]:
    """Give the pipe-separated rows of the named segments; unknown or empty segments give no rows."""
    segments = fields.get("exchangeSegmentList")
    if not isinstance(segments, list) or not all(isinstance(each, str) for each in segments):
        message = '"exchangeSegmentList" must be an array'
        raise bad_request([Flaw(field="exchangeSegmentList", message=message, type="array.base")])
    return _success(
        "s-instrument-0010", "Instrument Master Fetched Successfully", xts_master(segments, instruments)
    )


def index_list(fields: Fields, _instruments: Sequence[Instrument]) -> dict[str, Any]:
    """Give `NAME_number` of each index of a segment, by the segment's number."""
    segment = forms.decimal(fields.get("exchangeSegment"))
    names = XTS_INDEX_LISTS.get(int(segment)) if segment is not None else None
    if names is None:
        message = '"exchangeSegment" must be one of [1, 11]'
        flaw = Flaw(field="exchangeSegment", message=message, type="any.allowOnly")
        raise bad_request([flaw], location="query")
    result = {"exchangeSegment": int(segment or 0), "indexList": list(names)}
    return _success("s-instrument-0006", "Index List successfully", result)


def search(fields: Fields, instruments: Sequence[Instrument]) -> dict[str, Any]:
    """Find contracts whose names contain the text."""
    text = str(fields.get("searchString") or "").upper()
    if not text:
        flaw = Flaw(field="searchString", message='"searchString" is required', type="any.required")
        raise bad_request([flaw], location="query")
    hits = [each for each in _listed(instruments) if any(text in name.upper() for name in _names(each))]
    return _success("s-search-0001", "Instrument Found", [_search_row(each) for each in hits[:_MOST_HITS]])


def search_by_id(fields: Fields, instruments: Sequence[Instrument]) -> dict[str, Any]:
    """Find contracts by (segment number, id); unknown ones are left out."""
    asked = fields.get("instruments")
    if not isinstance(asked, list):
        flaw = Flaw(field="instruments", message='"instruments" must be an array', type="array.base")
        raise bad_request([flaw])
    wanted = {_pair(each) for each in asked if isinstance(each, dict)}
    hits = [
        each for each in _listed(instruments) if (XTS_SEGMENT_NUMBER[each.xts_segment], each.xts_id) in wanted
    ]
    return _success("s-search-0001", "Instrument Found", [_search_row(each) for each in hits])


CALLS: Final[dict[tuple[str, str], Callable[[Fields, Sequence[Instrument]], dict[str, Any]]]] = {
    ("POST", "/instruments/master"): master,
    ("GET", "/instruments/indexlist"): index_list,
    ("GET", "/search/instruments"): search,
    ("POST", "/search/instrumentsbyid"): search_by_id,
}


def _success(code: str, description: str, result: Any) -> dict[str, Any]:
    return {"type": "success", "code": code, "description": description, "result": result}


def _pair(asked: dict[str, Any]) -> tuple[int, int]:
    segment, number = (forms.decimal(asked.get(name)) for name in ("exchangeSegment", "exchangeInstrumentID"))
    return int(segment or 0), int(number or 0)


def _listed(instruments: Sequence[Instrument]) -> list[Instrument]:
    """Leave out what XTS has only in its index lists."""
    return [each for each in instruments if each.xts_segment]


def _names(each: Instrument) -> tuple[str, ...]:
    return each.xts_name, each.xts_description, each.xts_display, each.details


def _search_row(each: Instrument) -> dict[str, Any]:
    low, high = each.band
    row: dict[str, Any] = {
        "ExchangeSegment": XTS_SEGMENT_NUMBER[each.xts_segment],
        "ExchangeInstrumentID": each.xts_id,
        "InstrumentType": int(each.xts_type),
        "Name": each.xts_name,
        "DisplayName": each.xts_display,
        "Description": each.details or each.xts_description,
        "Series": each.series,
        "NameWithSeries": f"{each.xts_name}-{each.series}",
        "InstrumentID": xts_instrument_id(each),
        "PriceBand": {"High": float(high), "Low": float(low)},
        "FreezeQty": each.freeze_column,
        "TickSize": float(each.tick),
        "LotSize": each.lot,
        "ISIN": each.isin,
    }
    return row | (_contract_columns(each) if each.derivative else {})


def _contract_columns(each: Instrument) -> dict[str, Any]:
    expiry = each.expiry
    columns: dict[str, Any] = {
        "UnderlyingIndexName": each.underlying_name,
        "ContractExpiration": f"{expiry}T14:30:00" if expiry else "",
        "ContractExpirationString": each.xts_display.split()[1].title() if expiry else "",
    }
    if each.kind in _OPTION_CODE:
        columns |= {"StrikePrice": float(each.strike), "OptionType": _OPTION_CODE[each.kind]}
    return columns
