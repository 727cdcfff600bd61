from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderwire.core.instruments import (
    MONTHS,
    Instrument,
    InstrumentTable,
    openalgo_symbol,
    strike_text,
    suggestions,
)


def instrument(symbol="SBIN", token=3045, **changes):
    values = {
        "broker": "zerodha",
        "exchange": "NSE",
        "symbol": symbol,
        "broker_exchange": "NSE",
        "broker_symbol": symbol,
        "token": token,
    }
    return Instrument(**(values | changes))


SBIN = instrument()
INFY = instrument("INFY", 1594)
BSE_SBIN = instrument(exchange="BSE", broker_exchange="BSE")
NIFTY = instrument("NIFTY", 1594, exchange="NSE_INDEX", broker_symbol="NIFTY 50", kind="INDEX")
TABLE = InstrumentTable([SBIN, INFY, BSE_SBIN, NIFTY])


def test_a_name_is_found_by_each_of_its_keys():
    assert TABLE.by_symbol("NSE", "SBIN") is SBIN
    assert TABLE.by_broker_symbol("NSE", "SBIN") is SBIN
    assert TABLE.by_token("NSE", 3045) is SBIN
    assert len(TABLE) == 4


def test_an_id_means_nothing_without_its_segment():
    assert TABLE.by_token("BSE", 3045) is BSE_SBIN
    assert TABLE.by_symbol("BSE", "SBIN") is BSE_SBIN
    assert TABLE.by_broker_symbol("BSE", "SBIN") is BSE_SBIN
    assert TABLE.by_token("NFO", 3045) is None


def test_an_index_does_not_take_the_number_of_a_share():
    assert TABLE.by_token("NSE", 1594) is INFY
    assert TABLE.by_broker_symbol("NSE", "NIFTY 50") is NIFTY
    assert TABLE.by_symbol("NSE_INDEX", "NIFTY") is NIFTY


def test_what_is_unknown_is_nothing():
    assert TABLE.by_symbol("NSE", "NOPE") is None
    assert TABLE.by_broker_symbol("NSE", "NOPE") is None
    assert TABLE.by_token("NSE", 1) is None
    assert len(InstrumentTable()) == 0


def test_only_what_can_be_traded_is_listed():
    assert TABLE.symbols("NSE") == ["SBIN", "INFY"]
    assert TABLE.symbols("NSE_INDEX") == []
    assert (SBIN.tradable, NIFTY.tradable) == (True, False)


@pytest.mark.parametrize(
    ("name", "kind", "expiry", "strike", "symbol"),
    [
        ("SBIN", "EQ", None, "0", "SBIN"),
        (" m&m ", "EQ", None, "0", "M&M"),
        ("NIFTY", "FUT", date(2026, 8, 25), "0", "NIFTY25AUG26FUT"),
        ("NIFTYNXT50", "FUT", date(2026, 10, 6), "0", "NIFTYNXT5006OCT26FUT"),
        ("NIFTY", "CE", date(2026, 8, 25), "24400", "NIFTY25AUG2624400CE"),
        ("BANKNIFTY", "PE", date(2026, 8, 25), "57000.00", "BANKNIFTY25AUG2657000PE"),
        ("ITC", "CE", date(2026, 8, 25), "277.5", "ITC25AUG26277.5CE"),
        ("nifty", "PE", date(2030, 12, 2), "24000", "NIFTY02DEC3024000PE"),
    ],
)
def test_a_symbol_is_built_from_its_columns(name, kind, expiry, strike, symbol):
    assert openalgo_symbol(name, kind=kind, expiry=expiry, strike=Decimal(strike)) == symbol


@pytest.mark.parametrize("kind", ["FUT", "CE", "PE"])
def test_a_contract_needs_an_expiry(kind):
    with pytest.raises(ValueError, match=f"^NIFTY: a {kind} needs an expiry$"):
        openalgo_symbol("NIFTY", kind=kind)


def test_months_are_english_whatever_the_locale():
    assert [openalgo_symbol("X", kind="FUT", expiry=date(2026, month, 1))[3:6] for month in range(1, 13)] == [
        *MONTHS
    ]
    assert MONTHS[0] + MONTHS[7] + MONTHS[11] == "JANAUGDEC"


@pytest.mark.parametrize(
    ("strike", "text"),
    [
        ("24400", "24400"),
        ("24400.00", "24400"),
        ("172.50", "172.5"),
        ("0.95", "0.95"),
        ("86.125", "86.125"),
        ("1E+3", "1000"),
        ("100", "100"),
    ],
)
def test_a_strike_has_no_zeros_behind_and_no_exponent(strike, text):
    assert strike_text(Decimal(strike)) == text


@given(st.decimals(min_value=0, max_value=10**7, places=3))
def test_a_strike_keeps_its_value(strike):
    assert Decimal(strike_text(strike)) == strike


def test_suggestions_begin_alike_and_then_look_alike():
    known = ["SBIN", "SBILIFE", "INFY", "SBICARD", "TATASTEEL", "INFYBEES"]

    assert suggestions("sbi", known) == ["SBICARD", "SBILIFE", "SBIN"]
    assert suggestions(" INFYY ", known) == ["INFY", "INFYBEES"]
    assert suggestions("SBI", known, most=2) == ["SBICARD", "SBILIFE"]


@pytest.mark.parametrize("typed", ["", "   ", "QQQQQQQQQ"])
def test_nothing_is_suggested_for_what_resembles_nothing(typed):
    assert suggestions(typed, ["SBIN", "INFY"]) == []


def test_each_name_is_suggested_once():
    assert suggestions("SBIN", ["SBIN", "SBIN"]) == ["SBIN"]
