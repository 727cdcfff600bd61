"""Brings what was committed onto the streams: reads the outbox by shard, and forgets what every follower has."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import structlog

from orderwire.bus.link import BusDownError
from orderwire.bus.streams import ABSENT, StreamKey, Streams
from orderwire.clock import Clock
from orderwire.errors import StoreError
from orderwire.store import shards
from orderwire.store.database import Database
from orderwire.store.shards import Head, Row

_log = structlog.get_logger(__name__)

MOST: Final = 500
"""Rows published at a time."""

LOOK_EVERY: Final = 1.0
"""Seconds after which a relay looks by itself, for what another worker committed and did not live to publish."""

TRIM_EVERY: Final = 5.0
MOST_KEPT: Final = 5_000
"""Entries a shard's stream keeps for a slow follower; one that is further behind reads the database."""


@dataclass(slots=True)
class RelayCounts:
    """What a relay did."""

    published: int = 0
    refused: int = 0
    """Appends that found the stream elsewhere: another relay was there first."""
    trimmed: int = 0
    failures: int = 0
    renewed: int = 0
    """Shards whose stream was ahead of the database: that lost commits, or was restored."""


class Relay:
    """Publishes for all shards, whoever wrote them. `wake` and `stop` from any thread, the rest from one."""

    def __init__(self, database: Database, streams: Streams, *, clock: Clock) -> None:
        self.counts = RelayCounts()
        self._database = database
        self._streams = streams
        self._clock = clock
        self._published: dict[StreamKey, int] = {}
        self._bell = threading.Event()
        self._guard = threading.Lock()  # guards _dirty
        self._dirty: set[int] = set()
        self._stopping = False
        self._trim_at = 0.0
        self._healthy: bool | None = None  # not known yet: the first round looks at everything

    def wake(self, accounts: Collection[str]) -> None:
        """Say that changes of these accounts were committed."""
        with self._guard:
            self._dirty.update(map(shards.shard_of, accounts))
        self._bell.set()

    def run(self) -> None:
        """Publish until `stop`."""
        while not self._stopping:
            woken = self._bell.wait(LOOK_EVERY)
            self._bell.clear()
            self.round(self._take() if woken and self._healthy else None)

    def stop(self) -> None:
        """End `run` after the round it is in."""
        self._stopping = True
        self._bell.set()

    def round(self, dirty: Collection[int] | None = None) -> None:
        """Publish what there is, of some shards or of all; whatever fails is done again by the next round."""
        try:
            if dirty is None:
                self._look()
            else:
                self._publish(dirty)
            self._trim()
        except (BusDownError, StoreError) as error:
            self.counts.failures += 1
            if self._healthy is not False:
                _log.warning("the bus is not fed", error=str(error))
            self._healthy = False
        else:
            if self._healthy is False:
                _log.info("the bus is fed again")
            self._healthy = True

    def _take(self) -> set[int]:
        with self._guard:
            taken, self._dirty = self._dirty, set()
            return taken

    # --- publishing ------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Ask Redis and the database where they stand, in this order: so the streams cannot seem ahead."""
        self._take()
        heads = self._heads()
        known = [StreamKey(shard, head.generation) for shard, head in heads.items()]
        tops = self._streams.tops(known)
        now = self._heads()
        before, self._published = self._published, {}
        for key, top in tops.items():
            head = now.get(key.shard)
            if head is None or head.generation != key.generation:
                continue
            if top > head.position:
                self._renew(key, top=top, head=head)
            elif top != ABSENT:
                self._published[key] = top
            elif key in before:  # it was flushed: go on where we were
                self._published[key] = before[key]
        self._publish(now)

    def _renew(self, key: StreamKey, *, top: int, head: Head) -> None:
        """The database forgot what was told already: what it says from now on is told under another name."""
        _log.error("the database is behind the bus", shard=key.shard, bus=top, database=head.position)
        begun = self._database.write(
            lambda connection: shards.begin_generation(connection, key.shard, instead_of=key.generation)
        )
        self.counts.renewed += begun

    def _heads(self) -> dict[int, Head]:
        with self._database.read() as connection:
            return shards.heads(connection)

    def _publish(self, wanted: Collection[int]) -> None:
        """Publish until the streams of these shards are where the database is."""
        wanted = set(wanted)
        while wanted and not self._stopping:
            rows, after = self._unpublished(wanted)
            if not rows:
                return
            reached = self._streams.append(rows, after=after)
            full = sum(map(len, rows.values())) >= MOST
            refused = {key.shard for key in rows if not self._note(key, rows[key], reached[key])}
            wanted = wanted if full else refused

    def _note(self, key: StreamKey, rows: list[Row], reached: int) -> bool:
        """Take notice of where a stream stands; False when another relay was there first."""
        self._published[key] = reached
        if reached == rows[-1].position:
            self.counts.published += len(rows)
            return True
        self.counts.refused += 1
        return False

    def _unpublished(self, wanted: Collection[int]) -> tuple[dict[StreamKey, list[Row]], dict[int, int]]:
        with self._database.read() as connection:
            heads = shards.heads(connection, wanted)
            keys = {shard: StreamKey(shard, heads[shard].generation) for shard in wanted if shard in heads}
            after = {shard: self._place_of(key, heads[shard]) for shard, key in keys.items()}
            behind = {shard: place for shard, place in after.items() if place < heads[shard].position}
            rows = shards.tail(connection, behind, most=MOST)
        return {keys[shard]: list(part) for shard, part in groupby(rows, lambda row: row.shard)}, after

    def _place_of(self, key: StreamKey, head: Head) -> int:
        """Return after which position to publish; a stream that never was begins with the shard's first change."""
        return self._published.setdefault(key, 0 if head.position <= MOST else head.position)

    # --- forgetting ------------------------------------------------------------------------------------

    def _trim(self) -> None:
        if self._clock.monotonic() < self._trim_at:
            return
        self._trim_at = self._clock.monotonic() + TRIM_EVERY
        if self._published:
            self.counts.trimmed += self._streams.trim(
                trim_points(self._published, self._streams.slowest(self._published))
            )


def trim_points(tops: Mapping[StreamKey, int], slowest: Mapping[StreamKey, int]) -> dict[StreamKey, int]:
    """Return up to which position each stream may be forgotten: where its slowest follower is, or its end.

    A follower more than `MOST_KEPT` behind holds nothing back. Pure.
    """
    return {key: max(min(slowest.get(key, top), top), top - MOST_KEPT) for key, top in tops.items()}
