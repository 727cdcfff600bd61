"""How every account's feed is doing, by its owner's word, for the processes that have no feeds themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

from msgspec.structs import replace
from sqlalchemy import Connection, text

from orderwire.core.health import FeedHealth
from orderwire.core.orders import AccountId
from orderwire.core.recovery import FeedStatus, Freshness
from orderwire.store.database import Database
from orderwire.store.encoding import dumps, loads
from orderwire.store.leases import NOW

NOBODY: Final = "Nothing feeds this account just now; another worker takes over within seconds."

_OVERLAP_NS: Final = 3_000_000_000
"""How far back each look goes again: a transaction may commit after one that began later."""

_EVERYTHING_AFTER = 10.0
"""Seconds after which everything is read again, so that what is gone goes here too."""

_TELL = text(f"""
    INSERT INTO feed_states (account, worker, status, health, redirects, changed_ns)
    SELECT :account, :me, :status, :health, :redirects, {NOW} FROM leases
    WHERE account = :account AND worker = :me FOR SHARE
    ON CONFLICT (account) DO UPDATE SET worker = excluded.worker, status = excluded.status,
        health = excluded.health, redirects = excluded.redirects, changed_ns = excluded.changed_ns
""")  # noqa: S608 - constants of ours
_CHANGED = text("SELECT account, changed_ns FROM feed_states WHERE changed_ns > :since")
_THESE = text("SELECT * FROM feed_states WHERE account = ANY(:accounts)")
_MOVED = text("SELECT account, worker FROM leases WHERE token > :since OR worker = ''")
"""Leases that changed hands: a token is the time of that. To read all of them four times a second took a third of a
core for 10,000 accounts."""
_LIVE = text(f"SELECT id FROM workers WHERE expires_ns > {NOW}")  # noqa: S608


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedState:
    """One account's feed."""

    worker: str
    status: FeedStatus
    health: FeedHealth
    redirects: bool
    """Logging in leads to the broker's own page."""


def tell(database: Database, worker: str, states: Mapping[AccountId, FeedState]) -> None:
    """Write down how feeds of ours do; what is another's meanwhile is left out."""
    rows = [
        {
            "account": account,
            "me": worker,
            "status": dumps(state.status),
            "health": dumps(state.health),
            "redirects": int(state.redirects),
        }
        for account, state in sorted(states.items())
    ]

    def work(connection: Connection) -> None:
        connection.execute(_TELL, rows)

    if rows:
        database.write(work)


class FeedStates:
    """What all owners say, read again when it is asked for and older than `fresh` seconds. Any thread."""

    def __init__(self, database: Database, *, fresh: float = 0.25) -> None:
        self._database = database
        self._fresh = fresh
        self._lock = (
            Lock()
        )  # guards what follows; held while the database is read, so that one thread reads for all
        self._states: dict[AccountId, FeedState] = {}
        self._seen: dict[AccountId, int] = {}
        """When what is in `_states` was told."""
        self._owners: dict[AccountId, str] = {}
        """By the leases, also those of workers that are gone."""
        self._live: frozenset[str] = frozenset()
        self._since = 0
        self._stale_at = self._complete_until = 0.0

    def all(self) -> dict[AccountId, FeedState]:
        """Return every account that ever had a feed; one whose owner is gone is STALE. Raises StoreError."""
        with self._lock:
            self._look_when_old()
            return {account: self._judged(account, state) for account, state in self._states.items()}

    def get(self, account: AccountId) -> FeedState | None:
        """Return one account's feed, None when it never had one."""
        with self._lock:
            self._look_when_old()
            state = self._states.get(account)
            return self._judged(account, state) if state is not None else None

    def _look_when_old(self) -> None:
        now = self._database.clock.monotonic()
        if now >= self._stale_at:
            self._look()
            self._stale_at = now + self._fresh

    def _look(self) -> None:
        now = self._database.clock.monotonic()
        whole = now >= self._complete_until
        since = {"since": 0 if whole else self._since}
        with self._database.read() as connection:
            changed = {AccountId(account): at for account, at in connection.execute(_CHANGED, since)}
            moved = {AccountId(account): worker for account, worker in connection.execute(_MOVED, since)}
            self._live = frozenset(connection.execute(_LIVE).scalars())
            news = [account for account, at in changed.items() if self._seen.get(account) != at]
            rows: list[Any] = list(connection.execute(_THESE, {"accounts": news})) if news else []
        if whole:
            self._complete_until = now + _EVERYTHING_AFTER
            self._states = {account: self._states[account] for account in changed if account in self._states}
            self._seen, self._owners = {account: self._seen[account] for account in self._states}, {}
        self._owners.update(moved)
        self._since = max((self._since, *(at - _OVERLAP_NS for at in changed.values())))
        for row in rows:
            self._seen[AccountId(row.account)] = row.changed_ns
            self._states[AccountId(row.account)] = FeedState(
                worker=row.worker,
                status=loads(row.status, FeedStatus),
                health=loads(row.health, FeedHealth),
                redirects=bool(row.redirects),
            )

    def _judged(self, account: AccountId, state: FeedState) -> FeedState:
        owner = self._owners.get(account)
        owner = owner if owner in self._live else None
        if owner is not None and owner == state.worker:
            return state
        freshness = Freshness.STALE if owner is None else Freshness.RECONCILING
        detail = NOBODY if owner is None else "Another worker has just taken this account over."
        return FeedState(
            worker=owner or "",
            status=replace(state.status, freshness=freshness, detail=detail, connected=False),
            health=replace(
                state.health, freshness=freshness, detail=detail, connected=False, running=owner is not None
            ),
            redirects=state.redirects,
        )
