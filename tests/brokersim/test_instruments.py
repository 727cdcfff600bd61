"""The contract list: the document's own numbers, and the laws that tie the two brokers' lists together."""

import csv
import io
from decimal import Decimal

import pytest

from brokersim.instruments import (
    INSTRUMENTS,
    KITE_HEADER,
    KITE_SEGMENT_CODE,
    XTS_SPREAD_ROW,
    kite_csv,
    second_day,
    xts_instrument_id,
    xts_master,
    xts_row,
)

ALL_SEGMENTS = ("NSECM", "NSEFO", "NSECD", "BSECM", "BSEFO", "MCXFO")
COLUMNS = {"8": 22, "2": 23, "1": 21, "4": 21}
KITE_TOKENS = {
    "NSE:SBIN": 779521,
    "NSE:RELIANCE": 738561,
    "NSE:INFY": 408065,
    "NSE:M&M": 519937,
    "NSE:BAJAJ-AUTO": 4267265,
    "NSE:TNTELE-BE": 2530305,
    "BSE:RELIANCE": 128083204,
    "NSE:NIFTY 50": 256265,
    "BSE:SENSEX": 265,
    "NFO:NIFTY26AUGFUT": 14866434,
    "NFO:NIFTY2681824400CE": 11547138,
    "NFO:NIFTY26AUG24400CE": 15800322,
    "NFO:BANKNIFTY26AUG57000PE": 15124482,
    "NFO:ITC26AUG277.5CE": 30194178,
    "BFO:SENSEX2682080000CE": 218900485,
    "CDS:USDINR26AUGFUT": 282371,
    "MCX:CRUDEOIL26SEPFUT": 144870151,
}
XTS_IDS = {
    "NSE:SBIN": 1100100003045,
    "BSE:RELIANCE": 11100100500325,
    "BSE:SENSEX": 11100100026065,
    "NFO:NIFTY26AUGFUT": 2623700058072,
    "NFO:NIFTY2681824400CE": 2623000045106,
    "BFO:SENSEX2682080000CE": 12623200855080,
    "CDS:USDINR26AUGFUT": 3623900001103,
    "MCX:CRUDEOIL26SEPFUT": 51626400565899,
}
BY_KEY = {each.key: each for each in INSTRUMENTS}


def test_the_documents_seventeen_contracts_have_its_tokens():
    assert {each.key: each.kite_token for each in INSTRUMENTS} == KITE_TOKENS


def test_the_low_byte_of_a_token_is_the_segment():
    for each in INSTRUMENTS:
        assert each.kite_token & 0xFF == KITE_SEGMENT_CODE[each.segment]
        assert each.kite_token >> 8 == each.token


@pytest.mark.parametrize(("key", "number"), XTS_IDS.items())
def test_the_composed_xts_id_is_the_documents(key, number):
    assert xts_instrument_id(BY_KEY[key]) == number


def test_both_brokers_know_a_contract_by_one_number_except_indices():
    assert {each.key for each in INSTRUMENTS if each.token != each.xts_id} == {"NSE:NIFTY 50", "BSE:SENSEX"}


def test_the_kite_list_parses_as_csv_with_quoted_names():
    rows = list(csv.DictReader(io.StringIO(kite_csv())))

    assert kite_csv().startswith(
        KITE_HEADER + '\n779521,3045,SBIN,"STATE BANK OF INDIA",0,,0,0.1,1,EQ,NSE,NSE\n'
    )
    assert len(rows) == 17
    assert {row["exchange"] for row in rows} == {"NSE", "BSE", "NFO", "BFO", "CDS", "MCX"}
    assert len(list(csv.DictReader(io.StringIO(kite_csv(exchange="NFO"))))) == 5


def test_xts_rows_are_as_long_as_their_type_demands():
    for row in xts_master(ALL_SEGMENTS).split("\n"):
        columns = row.split("|")
        assert len(columns) == COLUMNS[columns[2]], row


def test_an_xts_option_row_is_the_documents():
    row = xts_row(BY_KEY["NFO:NIFTY2681824400CE"]).split("|")

    row[8:10] = ["H", "L"]
    assert "|".join(row) == (
        "NSEFO|45106|2|NIFTY|NIFTY2681824400CE|OPTIDX|NIFTY-OPTIDX|2623000045106|H|L|1801|0.05|65|1|-1|Nifty 50|"
        "2026-08-18T14:30:00|24400|3|NIFTY 18AUG2026 CE 24400|1|1|NIFTY2681824400CE"
    )


def test_one_spread_must_be_skipped_and_empty_segments_are_empty():
    assert xts_master(["NSEFO"]).split("\n")[-1] == XTS_SPREAD_ROW
    assert xts_master(["NSECO"]) == ""
    assert XTS_SPREAD_ROW not in xts_master(["NSECM"])


def test_prices_and_bands_lie_on_the_tick():
    for each in INSTRUMENTS:
        if each.tradable:
            low, high = each.band
            assert low < each.price < high
            assert all(price % each.tick == 0 for price in (low, each.price, high))


def test_on_the_second_day_numbers_name_other_contracts():
    changed = {new.key for new, old in zip(second_day(), INSTRUMENTS, strict=True) if new != old}

    assert changed == {"NSE:INFY-BE", "NFO:NIFTY2682524500CE", "NSE:BAJAJ-AUTO"}
    weekly = next(each for each in second_day() if each.key == "NFO:NIFTY2682524500CE")
    assert (weekly.token, weekly.strike) == (45106, Decimal(24500))
