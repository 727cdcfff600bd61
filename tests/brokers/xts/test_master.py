from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderwire.brokers.xts.master import (
    SEGMENT_NUMBERS,
    MasterCount,
    master_rows,
    read_index_list,
    read_master,
)
from orderwire.brokers.xts.messages import EXCHANGES
from orderwire.errors import ProtocolViolationError

ROWS = (Path(__file__).resolve().parents[2] / "data" / "xts" / "master.txt").read_text().splitlines()


def read(*rows):
    count = MasterCount()
    return list(read_master(rows, broker="jainam", count=count)), count


def row_of(token):
    return next(row for row in ROWS if row.split("|")[1] == str(token))


def changed(token, **columns):
    parts = row_of(token).split("|")
    for column, text in columns.items():
        parts[int(column.removeprefix("c"))] = text
    return "|".join(parts)


def test_every_row_of_the_day_gets_its_openalgo_name():
    instruments, count = read(*ROWS)

    assert {(instrument.exchange, instrument.symbol, instrument.token) for instrument in instruments} == {
        ("NSE", "SBIN", 3045),
        ("NSE", "RELIANCE", 2885),
        ("NSE", "INFY", 1594),
        ("NSE", "M&M", 2031),
        ("NSE", "BAJAJ-AUTO", 16669),
        ("NSE", "TNTELE-BE", 9884),
        ("BSE", "RELIANCE", 500325),
        ("BSE_INDEX", "SENSEX", 26065),
        ("NFO", "NIFTY25AUG26FUT", 58072),
        ("NFO", "NIFTY18AUG2624400CE", 45106),
        ("NFO", "NIFTY25AUG2624400CE", 61720),
        ("NFO", "BANKNIFTY25AUG2657000PE", 59080),
        ("NFO", "ITC25AUG26277.5CE", 117946),
        ("BFO", "SENSEX20AUG2680000CE", 855080),
        ("CDS", "USDINR27AUG26FUT", 1103),
        ("MCX", "CRUDEOIL21SEP26FUT", 565899),
    }
    assert count.skipped == {"spread": 1, "spot": 1}
    assert not count.rejected
    assert not count.doubtful


def test_an_option_is_read_whole():
    ((option,), _) = read(row_of(117946))

    assert (option.kind, option.expiry, option.strike) == ("CE", date(2026, 8, 25), Decimal("277.5"))
    assert (option.lot_size, option.tick_size, option.freeze_quantity) == (1725, Decimal("0.05"), 69_000)
    assert (option.broker_exchange, option.broker_symbol) == ("NSEFO", "ITC26AUG277.5CE")


def test_a_freeze_quantity_that_is_the_limit_itself_is_kept():
    ((option,), _) = read(row_of(855080))

    assert option.freeze_quantity == 1000


@pytest.mark.parametrize(
    ("row", "symbol"),
    [
        (
            changed(45106, c1="1300", c0="NSECD", c3="USDINR", c16="2025-01-17T14:30:00", c17="86.125"),
            "USDINR17JAN2586.125CE",
        ),
        (
            changed(45106, c0="NSECD", c3="EURUSD", c16="2025-06-26T14:30:00", c17=".95"),
            "EURUSD26JUN250.95CE",
        ),
        (changed(855080, c16="2026-08-20T00:00:00"), "SENSEX20AUG2680000CE"),
        (changed(45106, c3="nifty ", c17="24400.000"), "NIFTY18AUG2624400CE"),
        (changed(3045, c0="1"), "SBIN"),
    ],
)
def test_names_come_from_columns_and_dates_from_their_first_ten_characters(row, symbol):
    ((instrument,), _) = read(row)

    assert instrument.symbol == symbol


@pytest.mark.parametrize("columns", [18, 19, 22])
def test_older_servers_send_shorter_cash_rows(columns):
    row = "|".join(row_of(3045).split("|")[:columns])

    ((instrument,), _) = read(row)

    assert instrument.symbol == "SBIN"


def test_a_future_under_the_options_header_is_rejected_instead_of_misread():
    shifted = changed(58072, c2="2")
    short_option = "|".join(row_of(61720).split("|")[:21])

    instruments, count = read(shifted, short_option)

    assert instruments == []
    assert count.rejected == {"type 2 with 21 columns": 2}


@pytest.mark.parametrize(("code", "kind"), [("1", "CE"), ("2", "PE")])
def test_old_option_codes_are_taken_on_full_rows_and_counted(code, kind):
    ((option,), count) = read(changed(61720, c18=code))

    assert option.kind == kind
    assert count.doubtful == {f"option type {code}": 1}


@pytest.mark.parametrize(
    "row",
    [
        "x",
        "|".join(["NSECM"] * 13),
        changed(3045, c0="XYZ"),
        changed(3045, c1="abc"),
        changed(3045, c2="9"),
        changed(3045, c11="NaN"),
        changed(3045, c12="1e999999"),
        changed(61720, c16="soon"),
        changed(61720, c17="-5"),
        changed(61720, c17="1e99"),
        changed(61720, c18="7"),
    ],
)
def test_a_row_that_cannot_be_read_is_counted_and_left_out(row):
    instruments, count = read(row, row_of(2885))

    assert [instrument.symbol for instrument in instruments] == ["RELIANCE"]
    assert count.rejected.total() == 1


def test_test_contracts_and_empty_lines_are_left_out():
    instruments, count = read(changed(3045, c3="041NSETEST"), "", "  ")

    assert instruments == []
    assert count.skipped == {"test": 1}


def test_a_master_is_lines_or_a_list():
    assert master_rows(b'"a|b\\nc|d\\r\\n"') == ["a|b", "c|d\r", ""]
    assert master_rows(b'["a|b"]') == ["a|b"]
    assert master_rows(b"") == [""]


@pytest.mark.parametrize("result", [b'{"a":1}', b'"\xbf"', b'["a", "\xbf"]', b"[" * 20_000])
def test_a_master_that_is_neither_is_a_violation(result):
    with pytest.raises(ProtocolViolationError):
        master_rows(result)


@pytest.mark.parametrize("result", [b'{"indexList":5}', b'{"indexList":["\xbf"]}', b'{"a":' + b"[" * 20_000])
def test_an_index_list_that_cannot_be_read_is_a_violation(result):
    with pytest.raises(ProtocolViolationError):
        read_index_list(result, broker="test", segment="NSECM")


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (("NIFTY 50_26000", "NSECM"), ("NSE_INDEX", "NIFTY", 26000)),
        (("NIFTY BANK_26001", "NSECM"), ("NSE_INDEX", "BANKNIFTY", 26001)),
        (("NIFTY FIN SERVICE_26034", "NSECM"), ("NSE_INDEX", "FINNIFTY", 26034)),
        (("India VIX_26002", "NSECM"), ("NSE_INDEX", "INDIAVIX", 26002)),
        (("HANGSENG BEES-NAV_26016", "NSECM"), ("NSE_INDEX", "HANGSENGBEESNAV", 26016)),
        (("A_B_7", "NSECM"), ("NSE_INDEX", "A_B", 7)),
        (("SNSX50_26067", "BSECM"), ("BSE_INDEX", "SENSEX50", 26067)),
    ],
)
def test_an_index_is_split_at_its_last_underscore(listed, expected):
    name, segment = listed
    body = f'{{"indexList":["{name}","no number","x_y"]}}'.encode()

    (index,) = read_index_list(body, broker="jainam", segment=segment)

    assert (index.exchange, index.symbol, index.token) == expected
    assert not index.tradable


def test_an_index_list_that_is_none_is_a_violation():
    assert read_index_list(b"", broker="jainam", segment="NSECM") == []
    with pytest.raises(ProtocolViolationError):
        read_index_list(b"[1]", broker="jainam", segment="NSECM")


def test_every_segment_has_its_number():
    assert set(SEGMENT_NUMBERS) == set(EXCHANGES)


@given(
    row=st.text()
    | st.lists(
        st.text(max_size=8) | st.sampled_from(["8", "2", "1", "NSECM", "3", "1e9", "NaN"]), max_size=24
    ).map("|".join)
    | st.builds(
        lambda token, column, text: changed(token, **{f"c{column}": text}),
        st.sampled_from([3045, 61720, 58072]),
        st.integers(0, 20),
        st.text(st.characters(exclude_characters="|"), max_size=10),
    )
)
def test_any_row_is_read_skipped_or_rejected(row):
    instruments, count = read(row)

    assert len(instruments) + count.skipped.total() + count.rejected.total() == (1 if row.strip() else 0)
