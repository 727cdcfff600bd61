"""The outbox numbered a second time: one gap-free order per shard of accounts, which is the order of the commits.

An account's own sequence says what its clients have; a position says what a process that follows thousands of
accounts has. A shard's counter is locked from just before the outbox rows until the commit, so whoever reads
`position > mine` misses nothing that commits later: no smaller number can still come.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple
from zlib import crc32

from sqlalchemy import Connection, Select, and_, bindparam, delete, or_, select, update

from orderwire.store import schema
from orderwire.store.statements import Statements

SHARDS: Final = 64
"""Shards the accounts are spread over. To change it: stop everything, then `renew`."""

_TABLE, _LOG = schema.shards.c, schema.outbox.c


class Place(NamedTuple):
    """Where a change stands on the bus."""

    shard: int
    position: int


class Head(NamedTuple):
    """How far a shard got, and in which numbering."""

    position: int
    generation: str


class Row(NamedTuple):
    """A change as it was written down."""

    shard: int
    position: int
    account: str
    change: str


NOTHING_YET: Final = Head(0, "")


def shard_of(account: str) -> int:
    """Return the shard of an account: the same in every process and release. Pure."""
    return crc32(account.encode()) % SHARDS


def new_generation() -> str:
    """Return a name for a numbering that no other has."""
    return secrets.token_hex(6)


# --- writing, inside the caller's transaction ---------------------------------------------------------


_LOCKED = (
    select(_TABLE.shard, _TABLE.position)
    .where(_TABLE.shard.in_(bindparam("shards", expanding=True)))
    .order_by(_TABLE.shard)
    .with_for_update()
)


def take_places(
    connection: Connection,
    accounts: Sequence[str],
    *,
    statements: Statements,
    generation: Callable[[], str] = new_generation,
) -> list[Place]:
    """Give a change of each of `accounts` the next position of its shard, in the order given.

    The shards stay locked until the transaction ends, so call it last.
    """
    wanted = [shard_of(account) for account in accounts]
    reached = _open(connection, sorted(set(wanted)), statements, generation)
    places = []
    for shard in wanted:
        reached[shard] += 1
        places.append(Place(shard, reached[shard]))
    rows = [{"of": shard, "reached": position} for shard, position in reached.items()]
    connection.execute(statements.advance_shard, rows)
    return places


def _open(
    connection: Connection, wanted: list[int], statements: Statements, generation: Callable[[], str]
) -> dict[int, int]:
    found = _locked(connection, wanted)
    if len(found) < len(wanted):  # the first change of all makes every shard, so that followers know them
        rows = [{"shard": shard, "position": 0, "generation": generation()} for shard in range(SHARDS)]
        connection.execute(statements.open_shard, rows)
        found = _locked(connection, wanted)
    return found


def _locked(connection: Connection, wanted: list[int]) -> dict[int, int]:
    return {row.shard: row.position for row in connection.execute(_LOCKED, {"shards": wanted})}


def renew(connection: Connection) -> None:
    """Begin every shard anew, with an empty outbox: after a restore positions would be given a second time."""
    connection.execute(delete(schema.shards))


def begin_generation(connection: Connection, shard: int, *, instead_of: str) -> bool:
    """Begin a shard's next numbering where it stands; False when somebody else did already."""
    given = update(schema.shards).where(_TABLE.shard == shard, _TABLE.generation == instead_of)
    return connection.execute(given.values(generation=new_generation())).rowcount == 1


# --- reading ------------------------------------------------------------------------------------------

_HEADS = select(_TABLE.shard, _TABLE.position, _TABLE.generation)
_SOME_HEADS = _HEADS.where(_TABLE.shard.in_(bindparam("shards", expanding=True)))


def heads(connection: Connection, only: Collection[int] | None = None) -> dict[int, Head]:
    """Return how far each shard got, of all or some; before the first change of all there are none."""
    asked = (_HEADS, None) if only is None else (_SOME_HEADS, {"shards": list(only)})
    return {shard: Head(position, generation) for shard, position, generation in connection.execute(*asked)}


def tail(connection: Connection, after: Mapping[int, int], *, most: int) -> list[Row]:
    """Return up to `most` changes that follow the given positions: by shard, each in order."""
    if not after:
        return []
    asked = list(after.items())
    padded = asked + [asked[-1]] * (_power_of_two(len(asked)) - len(asked))
    given = {
        f"{name}{i}": value for i, pair in enumerate(padded) for name, value in zip("sp", pair, strict=True)
    }
    found = connection.execute(_tail(len(padded)), {**given, "most": most})
    return [Row(*tuple[Any, ...](row)) for row in found]


@cache
def _tail(count: int) -> Select[int | None, int | None, str, str]:
    """Build the statement once for each size."""
    where = (and_(_LOG.shard == bindparam(f"s{i}"), _LOG.position > bindparam(f"p{i}")) for i in range(count))
    return (
        select(_LOG.shard, _LOG.position, _LOG.account, _LOG.change)
        .where(or_(*where))
        .order_by(_LOG.shard, _LOG.position)
        .limit(bindparam("most"))
    )


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
