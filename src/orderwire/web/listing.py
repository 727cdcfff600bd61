"""Long lists, a page at a time: which page a request asks for, and the way to its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import urlencode

from flask import request

T = TypeVar("T")

LENGTH: Final = 50
_LAST: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page of a list; `pager(page)` of templates/_macros.html leads on."""

    rows: Sequence[T]
    number: int
    """From 1."""
    more: bool
    """Whether another page follows."""

    def address(self, number: int) -> str:
        """Return the address of another page of the same list, its filters kept."""
        kept = {name: value for name, value in request.args.items() if name != "page"}
        return f"{request.path}?{urlencode({**kept, 'page': number})}"


def asked_page() -> int:
    """Return which page this request asks for; 1 for anything that is no page."""
    asked = request.args.get("page", "")
    return min(max(int(asked), 1), _LAST) if asked.isascii() and asked.isdigit() and len(asked) < 9 else 1


def offset(number: int, *, length: int = LENGTH) -> int:
    """Return how many rows come before a page; read `length + 1` from there and give them to `page`."""
    return (number - 1) * length


def page(rows: Sequence[T], number: int, *, length: int = LENGTH) -> Page[T]:
    """Make a page of the rows read for it; the one beyond `length` only says that there are more."""
    return Page(rows=rows[:length], number=number, more=len(rows) > length)
