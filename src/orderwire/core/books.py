"""A broker's book row by row: the rows that can be read count, whatever the others are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from typing import Final, TypeVar

from orderwire.core.orders import Trade
from orderwire.errors import ProtocolViolationError

R = TypeVar("R", bound=bytes | memoryview)
V = TypeVar("V")

MOST_KEPT: Final = 2000
"""Bytes of an unreadable row that are kept for a person to look at."""


class BookRows(list[V]):
    """The rows of a book that could be read, in the broker's order; `odd` says of each of the others why not."""

    def __init__(self, rows: Iterable[V] = (), *, odd: Iterable[ProtocolViolationError] = ()) -> None:
        super().__init__(rows)
        self.odd: tuple[ProtocolViolationError, ...] = tuple(odd)


def read_rows(rows: Iterable[R], read: Callable[[R], V | None]) -> BookRows[V]:
    """Read each row by itself. `read` returns None for a row that is another's: it is left out silently.

    One that raises ProtocolViolationError is odd; its error carries the row's bytes. Other errors pass through.
    """
    values: list[V] = []
    odd: list[ProtocolViolationError] = []
    for row in rows:
        try:
            value = read(row)
        except ProtocolViolationError as error:
            odd.append(ProtocolViolationError(str(error), raw=bytes(row)[:MOST_KEPT]))
        else:
            if value is not None:
                values.append(value)
    return BookRows(values, odd=odd)


class TradeRows:
    """Reads a trade book again and again: a row that comes once more, byte for byte, is not read once more.

    An execution never changes, but a broker gives the book whole: 10,000 rows take a quarter of a second to read, and
    all but the last few were in it a second ago. One reading at a time, any thread.
    """

    def __init__(self) -> None:
        self._day: date | None = None
        self._known: dict[bytes, Trade] = {}

    def read(self, rows: Iterable[R], read: Callable[[R], Trade | None], *, day: date) -> BookRows[Trade]:
        """Read each row as `read_rows` does; what was read for another trading `day` is read anew.

        So is a trade whose instrument was not known: the day's list of instruments may have come meanwhile.
        """
        known = self._known if day == self._day else {}
        now: dict[bytes, Trade] = {}

        def once(row: R) -> Trade | None:
            raw = bytes(row)
            trade = known.get(raw) or read(row)
            if trade is not None and trade.known_symbol:
                now[raw] = trade
            return trade

        found = read_rows(rows, once)
        self._day, self._known = day, now
        return found


def odd_rows(rows: Iterable[object]) -> tuple[ProtocolViolationError, ...]:
    """Return what could not be read of a book; nothing for an adapter that reads its books whole or not at all."""
    return rows.odd if isinstance(rows, BookRows) else ()
