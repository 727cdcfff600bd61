"""Follows every shard and hands each change on once, in order: from the streams while they are there, else from SQL.

A position that is not the next one is a question to the database, whatever the reason: Redis was flushed, an entry was
trimmed or never published, the follower was away. So nothing is lost with Redis, and nothing is told twice, because
positions at or below the own one are passed over. What cannot be read or handed on is parked among the dead letters,
its account is read anew, and the rest goes on.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Connection, select

from orderwire.bus.link import BusDownError
from orderwire.bus.streams import Entry, StreamKey, Streams
from orderwire.clock import Clock
from orderwire.core.lifecycle import OrderChange
from orderwire.core.orders import AccountId
from orderwire.errors import OrderwireError, StoreError
from orderwire.store import schema, shards
from orderwire.store.database import Database
from orderwire.store.encoding import loads
from orderwire.store.shards import Head
from orderwire.store.wake import WakeListener

_log = structlog.get_logger(__name__)

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the database while the streams deliver."""

POLL_EVERY: Final = 0.1
"""The same while there is no stream to follow."""

WAIT_MS: Final = 200
"""Milliseconds a read of the streams waits for something new."""

MOST: Final = 500
"""Entries of one stream, and rows of the database, taken at a time."""

MOST_PARKED: Final = 1_000
"""Parked entries that wait for a database that takes no writes; beyond it they are only counted."""

_BAD: Final = (OrderwireError, ValueError, TypeError, LookupError, ArithmeticError)
"""What one bad value can cause in a listener."""

KIND: Final = "bus"
"""The kind of a dead letter that holds a parked entry."""


@dataclass(slots=True)
class FollowerCounts:
    """What a follower did."""

    from_streams: int = 0
    from_database: int = 0
    repeated: int = 0
    """Entries that were known already."""
    gaps: int = 0
    """Entries that were not the next: the database was asked."""
    missed: int = 0
    """Looks that found the database ahead of what the streams had delivered a look before."""
    parked: int = 0
    renewed: int = 0
    """Shards that began a new numbering."""
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parked:
    place: str
    account: str
    reason: str
    raw: bytes


class Follower:
    """One per process that has clients. `run` in one thread or greenlet; `stop` and the counts from any."""

    def __init__(
        self,
        database: Database,
        streams: Streams | None,
        listener: WakeListener,
        *,
        clock: Clock,
        name: str = "",
    ) -> None:
        """Without `streams` the database alone is followed."""
        self.name = name or secrets.token_hex(6)
        self.counts = FollowerCounts()
        self._database = database
        self._streams = streams
        self._listener = listener
        self._clock = clock
        self._heads: dict[int, Head] = {}
        """Where we are, by shard."""
        self._owed: dict[int, Head] = {}
        """Where the database was at the last look, of shards that were ahead of us."""
        self._parked: list[_Parked] = []
        self._look_at = 0.0
        self._checked_in_at = 0.0
        self._streaming = self._failing = False
        self._stopping = threading.Event()
        self.started = threading.Event()
        """Set once it knows where it begins: what commits from then on is handed on."""

    def run(self) -> None:
        """Follow until `stop`."""
        while not self._stopping.is_set():
            self.round()
        self._check_out()

    def stop(self) -> None:
        """End `run` within a round."""
        self._stopping.set()

    def round(self) -> None:
        """Hand on what is new, and look at the database when it is time; waits a moment when nothing is new."""
        try:
            if not self.started.is_set():
                self._begin()
            self._follow_streams()
            if self._clock.monotonic() >= self._look_at:
                self.look()
        except StoreError as error:
            if not self._failing:
                self._fail(error)
            self._failing = True
            self._stopping.wait(POLL_EVERY)
        else:
            self._failing = False
            if not self._streaming:
                self._stopping.wait(POLL_EVERY)

    def _begin(self) -> None:
        with self._database.read() as connection:
            self._heads = shards.heads(connection)
        self.started.set()

    def _fail(self, error: Exception) -> None:
        self.counts.failures += 1
        _log.warning("cannot follow", error=str(error))

    # --- from the streams ------------------------------------------------------------------------------

    def _follow_streams(self) -> None:
        if self._streams is None or not self._heads:
            self._streaming = False
            return
        keys = {StreamKey(shard, head.generation): head.position for shard, head in self._heads.items()}
        try:
            self._check_in(keys)
            found = self._streams.read(keys, most=MOST, wait_ms=WAIT_MS)
        except BusDownError as error:
            if self._streaming:
                self._fail(error)
            self._streaming = False
            return
        self._streaming = True
        for key, entries in found.items():
            self._take(key, entries)

    def _take(self, key: StreamKey, entries: Sequence[Entry]) -> None:
        """Hand on what continues; ask the database where something does not."""
        fresh: list[Entry] = []
        place = self._heads[key.shard].position
        for entry in entries:
            if entry.position <= place:
                self.counts.repeated += 1
            elif entry.position == place + 1:
                fresh.append(entry)
                place = entry.position
            else:
                self.counts.gaps += 1
                break
        self._hand_on(key.shard, fresh)
        self.counts.from_streams += len(fresh)
        self._heads[key.shard] = Head(place, key.generation)
        if len(fresh) < len(entries) and entries[-1].position > place:
            self._read_on([key.shard])

    def _check_in(self, keys: Mapping[StreamKey, int]) -> None:
        now = self._clock.monotonic()
        if self._streams is not None and now >= self._checked_in_at:
            self._streams.check_in(self.name, keys)
            self._checked_in_at = now + LOOK_EVERY

    def _check_out(self) -> None:
        if self._streams is not None:
            try:
                self._streams.check_out(self.name)
            except BusDownError as error:
                _log.info("could not check out", error=str(error))

    # --- from the database -----------------------------------------------------------------------------

    def look(self) -> None:
        """Compare with the database, and read what the streams should have told by now."""
        self._look_at = self._clock.monotonic() + (LOOK_EVERY if self._streaming else 0)
        with self._database.read() as connection:
            heads = shards.heads(connection)
        self._renew(heads)
        ahead = {shard: head for shard, head in heads.items() if head.position > self._place(shard)}
        if self._streaming:
            missed = [
                shard
                for shard in ahead
                if shard in self._owed and self._place(shard) < self._owed[shard].position
            ]
            new = [shard for shard in ahead if shard not in self._heads]
            self.counts.missed += len(missed)
        else:
            missed, new = list(ahead), []
        self._owed = ahead
        self._read_on([*missed, *new])
        self._bury()

    def _place(self, shard: int) -> int:
        return self._heads.get(shard, shards.NOTHING_YET).position

    def _renew(self, heads: Mapping[int, Head]) -> None:
        """Begin anew in shards whose numbering is another, or that went back: what we told of them may not be true."""
        for shard, head in list(self._heads.items()):
            now = heads.get(shard)
            if now is not None and now.generation == head.generation and now.position >= head.position:
                continue
            self.counts.renewed += 1
            if now is None:
                del self._heads[shard]
            else:
                self._heads[shard] = now
            self._owed.pop(shard, None)
            self._listener.wake(self._accounts_of(shard))

    def _accounts_of(self, shard: int) -> list[AccountId]:
        with self._database.read() as connection:
            accounts = connection.execute(select(schema.ledgers.c.account)).scalars().all()
        return [AccountId(account) for account in accounts if shards.shard_of(account) == shard]

    def _read_on(self, wanted: Iterable[int]) -> None:
        """Hand on everything the database has of these shards."""
        waiting = set(wanted)
        while waiting and not self._stopping.is_set():
            with self._database.read() as connection:
                heads = shards.heads(connection)
                rows = shards.tail(connection, {shard: self._place(shard) for shard in waiting}, most=MOST)
            if any(
                head.generation != heads.get(shard, shards.NOTHING_YET).generation
                for shard, head in self._heads.items()
            ):
                self._renew(heads)
                continue
            cut_off = rows[-1].shard if len(rows) == MOST else None
            for shard in sorted(waiting):
                if cut_off is not None and shard > cut_off:
                    break
                found = [row for row in rows if row.shard == shard]
                self._hand_on(
                    shard, [Entry(row.position, row.account.encode(), row.change.encode()) for row in found]
                )
                self.counts.from_database += len(found)
                if shard != cut_off:  # what is missing up to the shard's head was erased
                    self._heads[shard] = heads.get(shard, shards.NOTHING_YET)
                    waiting.discard(shard)
                elif found:
                    self._heads[shard] = Head(found[-1].position, heads[shard].generation)

    # --- handing on ------------------------------------------------------------------------------------

    def _hand_on(self, shard: int, entries: Sequence[Entry]) -> None:
        """Give changes to the listener, together; what it does not take, or nobody can read, is parked."""
        changes: list[OrderChange] = []
        for entry in entries:
            try:
                changes.append(loads(entry.change.decode(), OrderChange))
            except (StoreError, ValueError) as error:
                self._park(shard, entry, error)
        self._offer(changes)

    def _offer(self, changes: Sequence[OrderChange]) -> None:
        """Only notes and returns, by its promise; what it raises all the same costs its account a look."""
        if not changes:
            return
        try:
            self._listener.offer(changes)
        except _BAD as error:
            self.counts.parked += len(changes)
            accounts = sorted({change.account for change in changes})
            _log.error("a listener failed", accounts=accounts, error=str(error))
            self._listener.wake(accounts)

    def _park(self, shard: int, entry: Entry, error: Exception) -> None:
        """Keep what cannot be read for the operator; its account is read anew, the rest goes on."""
        self.counts.parked += 1
        account = entry.account.decode(errors="replace")
        place = f"{self._heads.get(shard, shards.NOTHING_YET).generation}.{shard}.{entry.position}"
        _log.error("parked", place=place, account=account, error=str(error))
        if len(self._parked) < MOST_PARKED:
            self._parked.append(_Parked(place=place, account=account, reason=str(error), raw=entry.change))
        if account:
            self._listener.wake([AccountId(account)])

    def _bury(self) -> None:
        """Write down what was parked, unless another follower did."""
        if self._parked:
            self._database.write(self._write_parked)
            self._parked.clear()

    def _write_parked(self, connection: Connection) -> None:
        table, now = schema.dead_letters, self._clock.time_ns()
        for parked in self._parked:
            known = select(table.c.id).where(
                table.c.account == parked.account, table.c.observation == parked.place
            )
            if connection.execute(known).first() is None:
                row = {
                    "at_ns": now,
                    "account": parked.account,
                    "order_id": "",
                    "kind": KIND,
                    "reason": parked.reason,
                    "observation": parked.place,
                    "raw": parked.raw,
                }
                connection.execute(table.insert(), [row])
