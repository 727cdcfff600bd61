"""What the bus counted in one process, put together for the metrics: by loop and name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from orderwire.bus.follower import Follower
from orderwire.bus.wake import RedisWake

HEARS = ("wire", "hears")
"""1 while the subscription stands."""


def counted(bus: RedisWake | None, followers: Iterable[Follower] = ()) -> Mapping[tuple[str, str], int]:
    """Return what a process' bus counted, and those that follow the database alone. Any thread."""
    found: Counter[tuple[str, str]] = Counter()
    for follower in (*followers, *(bus.followers if bus is not None else ())):
        _add(found, "follower", asdict(follower.counts))
    if bus is not None:
        _add(found, "wire", asdict(bus.wire.counts))
        found[HEARS] += bus.hears
        if bus.relay is not None:
            _add(found, "relay", asdict(bus.relay.counts))
    return found


def _add(found: Counter[tuple[str, str]], loop: str, counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        found[loop, name] += count
