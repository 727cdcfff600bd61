from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from msgspec.structs import replace

from orderwire.core.instruments import Instrument
from orderwire.store import instruments
from orderwire.store.instruments import ImplausibleListError, implausible

DAY = date(2026, 8, 17)


def instrument(symbol: str, token: int, *, exchange: str = "NSE", **values: object) -> Instrument:
    given = {"broker_exchange": exchange, "broker_symbol": symbol, "tick_size": Decimal("0.10"), **values}
    return Instrument(broker="zerodha", exchange=exchange, symbol=symbol, token=token, **given)


OPTION = instrument(
    "ITC25AUG26277.5CE",
    117946,
    exchange="NFO",
    broker_symbol="ITC26AUG277.5CE",
    broker_token="30194178",
    name="ITC",
    kind="CE",
    expiry=date(2026, 8, 25),
    strike=Decimal("277.5"),
    lot_size=1725,
    freeze_quantity=69001,
)
LIST = [
    instrument("SBIN", 3045, name="STATE BANK OF INDIA"),
    instrument("M&M", 2031, name="MAHINDRA & MAHINDRA"),
    instrument("NIFTY", 1001, exchange="NSE_INDEX", broker_exchange="NSE", kind="INDEX"),
    instrument("NIFTY25AUG26FUT", 58072, exchange="NFO", name="NIFTY", kind="FUT", expiry=date(2026, 8, 25)),
    instrument(
        "NIFTY18AUG2624400CE",
        45106,
        exchange="NFO",
        name="NIFTY",
        kind="CE",
        expiry=date(2026, 8, 18),
        strike=Decimal(24400),
    ),
    instrument(
        "NIFTY25AUG2624400CE",
        61720,
        exchange="NFO",
        name="NIFTY",
        kind="CE",
        expiry=date(2026, 8, 25),
        strike=Decimal(24400),
    ),
    OPTION,
]


@pytest.fixture
def loaded(database):
    instruments.replace_day(database, "zerodha", DAY, LIST)
    return database


def test_every_value_comes_back_exactly(loaded):
    table = instruments.load(loaded, "zerodha")

    assert len(table) == len(LIST)
    assert table.by_symbol("NFO", "ITC25AUG26277.5CE") == OPTION
    assert str(table.by_symbol("NSE", "SBIN").tick_size) == "0.10"
    assert table.by_token("NFO", 117946) == OPTION
    assert instruments.loaded_day(loaded, "zerodha") == DAY


def test_brokers_do_not_see_each_other(loaded):
    other = [replace(row, broker="jainam") for row in LIST[:2]]
    instruments.replace_day(loaded, "jainam", DAY, other)

    assert len(instruments.load(loaded, "jainam")) == 2
    assert len(instruments.load(loaded, "zerodha")) == len(LIST)
    assert instruments.loaded_day(loaded, "nobody") is None


def test_the_next_day_replaces_the_whole_list(loaded):
    tomorrow = [replace(LIST[0], token=9999), *LIST[2:]]

    instruments.replace_day(loaded, "zerodha", date(2026, 8, 18), tomorrow)

    table = instruments.load(loaded, "zerodha")
    assert table.by_symbol("NSE", "SBIN").token == 9999
    assert table.by_symbol("NSE", "M&M") is None
    assert instruments.loaded_day(loaded, "zerodha") == date(2026, 8, 18)


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        ({}, {"NSE": 1}, ""),
        ({}, {}, "it is empty"),
        ({"NSE": 100}, {"NSE": 50}, ""),
        ({"NSE": 100}, {"NSE": 49}, "NSE has 49 rows, the list before had 100"),
        ({"NSE": 100, "NFO": 100}, {"NSE": 100}, "NFO has 0 rows, the list before had 100"),
        ({"CDS": 19}, {"NSE": 100}, ""),
    ],
)
def test_a_list_is_judged_by_the_one_before(before, now, why):
    assert implausible(before, now) == why


@pytest.mark.parametrize("rows", [[], LIST[1:]])
def test_an_implausible_list_leaves_the_one_before(loaded, rows):
    with pytest.raises(ImplausibleListError, match=r"it is empty|SBIN is gone"):
        instruments.replace_day(loaded, "zerodha", date(2026, 8, 18), rows)

    assert len(instruments.load(loaded, "zerodha")) == len(LIST)
    assert instruments.loaded_day(loaded, "zerodha") == DAY


def test_of_two_rows_with_one_symbol_the_first_stays(database):
    instruments.replace_day(database, "zerodha", DAY, [LIST[0], replace(LIST[0], token=1)])

    assert instruments.load(database, "zerodha").by_symbol("NSE", "SBIN").token == 3045


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("sbin", ["SBIN"]),
        ("mahindra", ["M&M"]),
        ("M&M", ["M&M"]),
        ("nifty 24400 ce", ["NIFTY18AUG2624400CE", "NIFTY25AUG2624400CE"]),
        ("nifty", ["NIFTY25AUG26FUT", "NIFTY18AUG2624400CE", "NIFTY25AUG2624400CE"]),
        ("25AUG26 nifty", ["NIFTY25AUG26FUT", "NIFTY25AUG2624400CE"]),
        ("100%", []),
        ("_", []),
        ("  ", []),
        ("'; DROP TABLE instruments; --", []),
    ],
)
def test_the_ticket_finds(loaded, text, found):
    assert [row.symbol for row in instruments.search(loaded, text, broker="zerodha")] == found


def test_the_search_is_narrowed_by_exchange_and_cut(loaded):
    assert instruments.search(loaded, "SBIN", broker="zerodha", exchange="NFO") == []
    assert len(instruments.search(loaded, "NIFTY", broker="zerodha", exchange="NFO", most=2)) == 2
    assert instruments.search(loaded, "SBIN", broker="jainam") == []
