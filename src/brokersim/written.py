"""Remembers rows that never change, so that a book of ten thousand executions is not written anew for each reader."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass(slots=True)
class Written:
    """Rows by what they are of (the thing itself, not its equals) and how they are written; nobody changes them."""

    _rows: dict[tuple[int, Hashable], tuple[object, Row]] = field(default_factory=dict)

    def row(self, of: object, write: Callable[[], Row], *, how: Hashable = None) -> Row:
        """Give the row of `of`, written at most once for each `how`."""
        found = self._rows.get((id(of), how))
        if found is None:
            found = self._rows[id(of), how] = (of, write())  # with it, or its id could become another's
        return found[1]
