from __future__ import annotations

import contextlib
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderwire.brokers.zerodha.instruments import INSTRUMENT_COLUMNS, read_instruments
from orderwire.core.instruments import InstrumentTable
from orderwire.errors import ProtocolViolationError

DATA = Path(__file__).resolve().parents[2] / "data" / "kite"
TABLE = InstrumentTable(read_instruments((DATA / "instruments.csv").read_bytes()).instruments)


@pytest.mark.parametrize(
    ("broker_exchange", "broker_symbol", "exchange", "symbol"),
    [
        ("NSE", "M&M", "NSE", "M&M"),
        ("NSE", "TNTELE-BE", "NSE", "TNTELE-BE"),
        ("BSE", "RELIANCE", "BSE", "RELIANCE"),
        ("NSE", "NIFTY 50", "NSE_INDEX", "NIFTY"),
        ("NSE", "NIFTY BANK", "NSE_INDEX", "BANKNIFTY"),
        ("NSE", "NIFTY OIL AND GAS", "NSE_INDEX", "NIFTYOILANDGAS"),
        ("BSE", "SENSEX", "BSE_INDEX", "SENSEX"),
        ("BSE", "SNSX50", "BSE_INDEX", "SENSEX50"),
        ("NSEIX", "GIFT NIFTY", "GLOBAL_INDEX", "GIFTNIFTY"),
        ("NFO", "NIFTY26AUGFUT", "NFO", "NIFTY25AUG26FUT"),
        ("NFO", "NIFTY2681824400CE", "NFO", "NIFTY18AUG2624400CE"),
        ("NFO", "NIFTY26AUG24400CE", "NFO", "NIFTY25AUG2624400CE"),
        ("NFO", "ITC26AUG277.5CE", "NFO", "ITC25AUG26277.5CE"),
        ("NFO", "NIFTYNXT5026OCTFUT", "NFO", "NIFTYNXT5027OCT26FUT"),
        ("BFO", "SENSEX2682080000CE", "BFO", "SENSEX20AUG2680000CE"),
        ("CDS", "USDINR26AUGFUT", "CDS", "USDINR27AUG26FUT"),
        ("MCX", "CRUDEOIL26SEPFUT", "MCX", "CRUDEOIL21SEP26FUT"),
    ],
)
def test_contracts_are_named_both_ways(broker_exchange, broker_symbol, exchange, symbol):
    there = TABLE.by_broker_symbol(broker_exchange, broker_symbol)
    back = TABLE.by_symbol(exchange, symbol)

    assert there is back
    assert (there.exchange, there.symbol, there.broker_symbol) == (exchange, symbol, broker_symbol)


def test_a_contract_keeps_its_numbers_exact():
    option = TABLE.by_symbol("NFO", "NIFTY18AUG2624400CE")
    rupee = TABLE.by_symbol("CDS", "USDINR27AUG26FUT")

    assert (option.token, option.broker_token, option.lot_size, option.strike) == (
        45106,
        "11547138",
        65,
        Decimal(24400),
    )
    assert (option.tick_size, rupee.tick_size) == (Decimal("0.05"), Decimal("0.0025"))
    assert option.expiry == date(2026, 8, 18)


def test_an_index_cannot_be_traded_and_has_no_token_of_a_share():
    assert not TABLE.by_symbol("NSE_INDEX", "NIFTY").tradable
    assert TABLE.by_token("NSE", 1001) is None


def test_the_columns_are_found_by_name_not_by_place():
    header, *rows = (DATA / "instruments.csv").read_text().splitlines()[:2]
    turned = [",".join([*line.split(",")[::-1], "extra"]) for line in (header, *rows)]

    (sbin,) = read_instruments("\n".join(turned).encode()).instruments

    assert (sbin.symbol, sbin.token) == ("SBIN", 3045)


def test_a_row_that_cannot_be_read_is_counted_and_left_out():
    header, sbin, *_ = (DATA / "instruments.csv").read_text().splitlines()
    bad = "1,x,ODD,odd,0,,0,0.1,1,EQ,NSE,NSE"

    found = read_instruments("\r\n".join([header, *[sbin] * 200, bad, "1,2"]).encode())

    assert (len(found.instruments), found.rejected) == (200, 2)


@pytest.mark.parametrize(
    "row",
    [
        "1,2,X,X,0,,0,0.1,1,FUT,NFO-FUT,NFO",
        "1,2,X,X,0,2026-99-01,0,0.1,1,FUT,NFO-FUT,NFO",
        "1,2,X,X,0,2026-08-25,x,0.1,1,CE,NFO-OPT,NFO",
        "1,2,X,X,0,,0,NaN,1,EQ,NSE,NSE",
        "1,2,X,X,0,,0,0.1,1,SWAP,NSE,NSE",
    ],
)
def test_a_list_full_of_unreadable_rows_is_refused(row):
    header = (DATA / "instruments.csv").read_text().splitlines()[0]

    with pytest.raises(ProtocolViolationError, match="1 rows"):
        read_instruments(f"{header}\n{row}\n".encode())


@pytest.mark.parametrize("body", [b"", b"<html>502</html>", b'{"status":"error"}', b"a,b,c\n1,2,3"])
def test_an_error_page_is_no_instrument_list(body):
    with pytest.raises(ProtocolViolationError, match="header"):
        read_instruments(body)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_instrument_reader_raise_anything_but_a_violation(body):
    header = (",".join(INSTRUMENT_COLUMNS) + "\n").encode()
    for candidate in (body, header + body):
        with contextlib.suppress(ProtocolViolationError):
            read_instruments(candidate)
