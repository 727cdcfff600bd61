from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from orderwire.core.books import MOST_KEPT, BookRows, TradeRows, odd_rows, read_rows
from orderwire.core.orders import AccountId, Channel, OrderId, Trade
from orderwire.errors import BrokerUnreachableError, ProtocolViolationError


def number(row: bytes) -> int | None:
    if row == b"another's":
        return None
    if not row.isdigit():
        raise ProtocolViolationError("no number")
    return int(row)


def test_the_rows_that_can_be_read_count_and_the_odd_ones_are_told_with_their_bytes():
    rows = read_rows([b"1", b"x", b"another's", b"2", b"y" * 3000], number)

    assert rows == [1, 2]
    assert [(str(error), error.raw) for error in rows.odd] == [
        ("no number", b"x"),
        ("no number", b"y" * MOST_KEPT),
    ]


def test_a_book_that_was_read_whole_or_by_an_adapter_that_does_not_tell_has_no_odd_rows():
    assert odd_rows(read_rows([b"1"], number)) == ()
    assert odd_rows([1]) == ()
    assert odd_rows(BookRows([1])) == ()


def test_any_other_error_is_not_a_rows_own():
    def fails(_row: bytes) -> int:
        raise BrokerUnreachableError("gone")

    with pytest.raises(BrokerUnreachableError):
        read_rows([b"1"], fails)


MONDAY, TUESDAY = date(2026, 8, 17), date(2026, 8, 18)


class Executions:
    """Reads executions of rows that are their numbers, and says which rows it had to read."""

    def __init__(self) -> None:
        self.day, self.known, self.read = MONDAY, True, []
        self.rows = TradeRows()

    def __call__(self, *rows: bytes) -> BookRows[Trade]:
        return self.rows.read(rows, self._one, day=self.day)

    def _one(self, row: bytes) -> Trade | None:
        self.read.append(row)
        if (of := number(row)) is None:
            return None
        return Trade(
            account=AccountId("acc"), broker="wired", order_id=OrderId("1"), trade_id=str(of), channel=Channel.REST,
            trading_date=self.day, symbol="INFY", exchange="NSE", side="BUY", product="CNC", quantity=of,
            price=Decimal(1), known_symbol=self.known,
        )  # fmt: skip


def test_an_execution_that_was_in_the_book_before_is_not_read_again():
    book = Executions()

    assert [trade.quantity for trade in book(b"1", b"2")] == [1, 2]
    assert [trade.quantity for trade in book(b"1", b"2", b"3")] == [1, 2, 3]
    assert book.read == [b"1", b"2", b"3"]


def test_what_left_the_book_is_forgotten():
    book = Executions()
    book(b"1", b"2")
    book(b"2")

    assert [trade.quantity for trade in book(b"1", b"2")] == [1, 2]
    assert book.read == [b"1", b"2", b"1"]


def test_a_row_that_cannot_be_read_or_is_anothers_is_looked_at_each_time():
    book = Executions()

    for _ in range(2):
        rows = book(b"x", b"another's", b"1")
        assert [trade.quantity for trade in rows] == [1]
        assert [error.raw for error in rows.odd] == [b"x"]
    assert book.read == [b"x", b"another's", b"1", b"x", b"another's"]


def test_another_day_or_a_symbol_that_was_not_known_is_read_anew():
    book = Executions()
    book.known = False
    assert not book(b"1")[0].known_symbol
    book.known = True
    assert book(b"1")[0].known_symbol
    book.day = TUESDAY

    assert book(b"1")[0].trading_date == TUESDAY
