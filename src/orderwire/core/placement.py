"""How many accounts each worker owns: as equal as can be, and as few as possible change hands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

Owned = TypeVar("Owned", bound=str)


def share(accounts: int, workers: Sequence[str], me: str) -> int:
    """Return how many of the accounts `me` is to own; the shares of all workers add up to the accounts.

    Shares differ by one at most; who has one more is decided by the names, so that all workers decide alike.
    """
    if me not in workers:
        return 0
    whole, rest = divmod(accounts, len(workers))
    return whole + (sorted(workers).index(me) < rest)


def surplus(owned: Iterable[Owned], fair: int) -> list[Owned]:
    """Return what to give up: no more than is above the fair share, and always the same ones."""
    return sorted(owned)[fair:]
