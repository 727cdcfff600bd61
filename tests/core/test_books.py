from __future__ import annotations

import pytest

from orderwire.core.books import MOST_KEPT, BookRows, odd_rows, read_rows
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
