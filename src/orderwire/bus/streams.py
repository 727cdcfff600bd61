"""The streams: one per shard, whose entries bear the positions the database gave them.

An entry's id is `<position>-0`, so a position can be in a stream once, whoever adds it and however often. Entries are
added by comparing first: a relay says after which position its entries follow, and nothing is added when the stream
stands elsewhere. So any number of relays may run, none of them can publish twice, and none can overtake another.

Nothing here is the truth: a stream that is gone begins anew where the next relay stands, and whoever followed it
reads what lies between from the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from orderwire.bus.link import PREFIX, Guarded
from orderwire.store.shards import Row

if TYPE_CHECKING:
    from redis import Redis

ABSENT: Final = -1
"""Where a stream stands that is not there."""

KEPT_UNUSED: Final = 3_600_000
"""Milliseconds after which a stream to which nothing is added goes: those of earlier generations."""

CHECKED_IN: Final = 30_000
"""Milliseconds for which a follower's word counts; one that is gone holds nothing back for longer."""

_APPEND: Final = """
local top = -1
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then top = tonumber(string.match(info[i + 1], '^%d+')) end
  end
end
if top ~= -1 and top ~= tonumber(ARGV[1]) then return top end
for i = 2, #ARGV - 1, 3 do
  redis.call('XADD', KEYS[1], ARGV[i] .. '-0', 'account', ARGV[i + 1], 'change', ARGV[i + 2])
end
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[#ARGV]))
return tonumber(ARGV[#ARGV - 3])
"""
"""Add rows after a position; returns where the stream stands then, which is elsewhere when nothing was added."""

_TOP: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then return tonumber(string.match(info[i + 1], '^%d+')) end
end
"""

_guarded: Final = Guarded()


class StreamKey(NamedTuple):
    """Which stream: a shard in one numbering."""

    shard: int
    generation: str

    @property
    def name(self) -> str:
        """Its key in Redis."""
        return f"{PREFIX}:{self.generation}:{self.shard}"


class Entry(NamedTuple):
    """What stands in a stream; as it came, nothing is believed of it."""

    position: int
    account: bytes
    change: bytes


class Streams:
    """What can be done with them. Any thread; everything raises BusDownError."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def append(
        self, rows: Mapping[StreamKey, Sequence[Row]], *, after: Mapping[int, int]
    ) -> dict[StreamKey, int]:
        """Add each stream's rows, where it stands at the position `after` its shard or is not there.

        Returns where each stream stands then: at its last row when they were added, elsewhere when it stood elsewhere.
        """
        with _guarded, self._redis.pipeline(transaction=False) as pipe:
            for key, wanted in rows.items():
                texts = [part for row in wanted for part in (row.position, row.account, row.change)]
                pipe.eval(_APPEND, 1, key.name, after[key.shard], *texts, KEPT_UNUSED)
            return dict(zip(rows, map(int, pipe.execute()), strict=True))

    def tops(self, keys: Iterable[StreamKey]) -> dict[StreamKey, int]:
        """Return the last position of each stream; it is remembered after a trim. ABSENT where there is none."""
        asked = list(keys)
        with _guarded, self._redis.pipeline(transaction=False) as pipe:
            for key in asked:
                pipe.eval(_TOP, 1, key.name)
            return dict(zip(asked, map(int, pipe.execute()), strict=True))

    def read(
        self, after: Mapping[StreamKey, int], *, most: int, wait_ms: int
    ) -> dict[StreamKey, list[Entry]]:
        """Return up to `most` entries of each stream that follow the positions, waiting for the first one."""
        names = {key.name.encode(): key for key in after}
        asked: Any = {key.name: f"{position}-18446744073709551615" for key, position in after.items()}
        with _guarded:
            found = cast("Any", self._redis.xread(asked, count=most, block=wait_ms))
        pairs = found.items() if isinstance(found, dict) else found or ()
        return {names[name]: [_entry(*item) for item in _flat(items)] for name, items in pairs}

    def trim(self, upto: Mapping[StreamKey, int]) -> int:
        """Forget the entries up to and with the given positions; returns how many went."""
        with _guarded, self._redis.pipeline(transaction=False) as pipe:
            for key, position in upto.items():
                pipe.xtrim(key.name, minid=f"{position + 1}-0", approximate=False)
            return sum(map(int, pipe.execute()))

    # --- how far the followers are ---------------------------------------------------------------------

    def check_in(self, follower: str, positions: Mapping[StreamKey, int]) -> None:
        """Say how far a follower has got; it counts for `CHECKED_IN`."""
        mine = f"{PREFIX}:follower:{follower}"
        with _guarded, self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(mine)
            if positions:
                pipe.hset(mine, mapping={key.name: position for key, position in positions.items()})
            pipe.pexpire(mine, CHECKED_IN)
            pipe.sadd(f"{PREFIX}:followers", follower)
            pipe.execute()

    def check_out(self, follower: str) -> None:
        """Say that a follower follows no more."""
        with _guarded, self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(f"{PREFIX}:follower:{follower}")
            pipe.srem(f"{PREFIX}:followers", follower)
            pipe.execute()

    def slowest(self, keys: Iterable[StreamKey]) -> dict[StreamKey, int]:
        """Return the position of the slowest follower of each stream; streams nobody follows are left out."""
        followers = sorted(self._followers())
        with _guarded, self._redis.pipeline(transaction=False) as pipe:
            for name in followers:
                pipe.hgetall(f"{PREFIX}:follower:{name.decode()}")
            reports: list[dict[bytes, bytes]] = pipe.execute()
        gone = [name for name, report in zip(followers, reports, strict=True) if not report]
        if gone:
            with _guarded:
                self._redis.srem(f"{PREFIX}:followers", *gone)
        found = {}
        for key in keys:
            places = [int(place) for report in reports if (place := report.get(key.name.encode()))]
            if places:
                found[key] = min(places)
        return found

    def _followers(self) -> set[bytes]:
        with _guarded:
            return cast("set[bytes]", self._redis.smembers(f"{PREFIX}:followers"))


def _flat(items: Any) -> Iterable[tuple[bytes, dict[bytes, bytes]]]:
    """Unify what the client returns in Redis' second and third protocol (a list more)."""
    return items[0] if items and isinstance(items[0], list) else items


def _entry(number: bytes, fields: dict[bytes, bytes] | None) -> Entry:
    fields = fields or {}
    return Entry(int(number.split(b"-")[0]), fields.get(b"account", b""), fields.get(b"change", b""))
