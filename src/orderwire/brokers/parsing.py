"""Reads big answers beside the feed loop: one account's book must not hold up everybody's updates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

BIG: Final = 65_536
"""Bytes of an answer that are read at once: about a hundred rows, a few milliseconds."""


async def parsed(size: int, parse: Callable[[], T]) -> T:
    """Return what `parse` makes of an answer of `size` bytes; its errors pass through. On the feed loop.

    A big one is read in a thread, in which the loop goes on: `parse` touches nothing that the loop changes meanwhile.
    Not in slices between which the loop has its turn: a slice is one row too many as soon as the rows are long, and
    each broker's reader would have to be written in two ways.
    """
    return parse() if size < BIG else await asyncio.to_thread(parse)
