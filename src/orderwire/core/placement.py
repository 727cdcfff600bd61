"""How many accounts each worker owns, and which: as equal as can be, whole shards, and few that change hands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
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


def rank(shard: int, workers: Sequence[str], me: str) -> int:
    """Return how many of the workers a shard would rather have than `me`: 0 is its first choice.

    Each shard has its own order of the workers, which the coming and going of others does not change.
    """
    mine = _liking(shard, me)
    return sum(_liking(shard, other) > mine for other in workers if other != me)


def _liking(shard: int, worker: str) -> tuple[bytes, str]:
    return blake2b(f"{shard}/{worker}".encode(), digest_size=8).digest(), worker


def _all_alike(_one: str) -> int:
    return 0


def surplus(
    owned: Iterable[Owned], fair: int, *, rank_of: Callable[[Owned], int] = _all_alike
) -> list[Owned]:
    """Return what to give up: no more than is above the fair share, first what others would rather have."""
    return sorted(owned, key=lambda one: (rank_of(one), one))[fair:]
