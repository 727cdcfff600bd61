"""Who owns which account's feed, when several processes share one PostgreSQL database.

Each account has one row: the worker that owns it, and a token that grows with every change of hands. Each worker has
one row that says until when it lives; renewing that renews everything it owns, so that 20,000 accounts cost a write
in three seconds and not thousands a second. Time is the database's alone. An owner shows its tokens inside every
transaction that writes something of an account (`Leases.stale`, under `FOR SHARE`): nobody can take an account over while such a
transaction runs, and whoever was overtaken writes nothing any more, however long it slept. There is no session
lock and no `LISTEN`, so a pooler that hands out connections by the transaction may stand in between.

An owner that could not renew for `STOP_AT` seconds stops by itself; for the others the lease ends at `TTL`.

`orderwire serve` has a database to itself, workers share it with workers: which of the two it is is decided where a
process enters, in one transaction under a lock that ends with it. A process whose row ran out enters anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, Protocol

from sqlalchemy import Connection, TextClause, bindparam, text

from orderwire.core.orders import AccountId
from orderwire.errors import ConfigurationError, StoreError
from orderwire.store.database import Database

TTL: Final = 10.0
"""Seconds a lease lasts without being renewed."""

ARRIVES_WITHIN: Final = 30.0
"""Seconds that a process which has just entered may take until it renews: it has to come up first."""

RENEW_EVERY: Final = 3.0
STOP_AT: Final = 8.0
"""Seconds after the last renewal at which an owner takes nothing in and sends nothing any more."""

NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000"
"""The database's clock, in nanoseconds since the epoch."""

FEEDS: Final = "feeds"
"""The role whose workers share the accounts."""

WEB: Final = "web"
"""The role that serves pages and owns nothing."""

SERVE: Final = "serve"
"""The role that has all accounts, pages, and the database to itself."""


class NotOwnerError(StoreError):
    """Another worker owns this account now; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A process that keeps this one out."""

    id: str
    role: str
    place: str
    expires_ns: int
    """Until when it lives by the database's clock, unless it says so again."""

    def __str__(self) -> str:
        return f"{self.role} {self.id} at {self.place}" if self.place else f"{self.role} {self.id}"


class CrowdedError(StoreError):
    """Processes live on this database that this one cannot live beside."""

    def __init__(self, others: Sequence[Other]) -> None:
        self.others = tuple(others)
        named = ", ".join(str(other) for other in self.others[:3])
        more = f" and {len(self.others) - 3} more" if len(self.others) > 3 else ""
        super().__init__(f"This database is in use by {named}{more}.")


class Tenure(Protocol):
    """What a writer shows to be allowed to write."""

    def token(self, account: AccountId) -> int | None:
        """Return the token under which this process owns the account, None when it does not. Any thread."""
        ...

    def stale(self, connection: Connection, tokens: Mapping[AccountId, int]) -> Collection[AccountId]:
        """Return the accounts whose token is not in force any more; the others stay ours until the commit."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a worker needs to know to decide how much to own."""

    accounts: int
    workers: tuple[str, ...]
    """Those that live, own accounts and do not drain; sorted."""
    free: int
    """Accounts that nobody owns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One process, as it last said."""

    id: str
    role: str
    place: str
    """The machine and the process id."""
    version: str
    started_ns: int
    draining: bool
    live: bool
    report: str
    owns: int


_ONE_ENTERS = text("SELECT pg_advisory_xact_lock(8030604411690216818)")
"""One at a time, until the commit: this kind of lock belongs to a transaction, and a pooler may give us any session."""

_MOMENT = text(f"SELECT {NOW}")
_WRITE_OFF = text("""
    UPDATE workers SET expires_ns = expires_ns - 1
    WHERE id <> :me AND (role = 'serve' OR :role = 'serve') AND expires_ns <= :moment
""")
"""Whoever ran out and is about to say that it lives finds its row changed, and has to enter anew."""

_KEEP_OUT = text("""
    SELECT id, role, place, expires_ns FROM workers
    WHERE id <> :me AND (role = 'serve' OR :role = 'serve') AND expires_ns > :moment ORDER BY role, id
""")
_ENTER = text(f"""
    INSERT INTO workers (id, role, place, version, started_ns, expires_ns, draining, report)
    VALUES (:me, :role, :place, :version, {NOW}, {NOW} + :ttl, :draining, '')
    ON CONFLICT (id) DO UPDATE SET expires_ns = excluded.expires_ns, draining = excluded.draining,
        role = excluded.role, place = excluded.place, version = excluded.version
""")  # noqa: S608 - constants of ours, as in all statements here
_BEAT = text(f"""
    UPDATE workers SET expires_ns = {NOW} + :ttl, draining = :draining WHERE id = :me AND expires_ns > {NOW}
""")  # noqa: S608
_HELD = text("SELECT account, token FROM leases WHERE worker = :me")
"""Also what has run out, as long as nobody took it: the token says that we were the last to write."""

_MAKE_ROOM = text("""
    INSERT INTO leases (account, worker, token)
    SELECT id, '', 0 FROM accounts WHERE NOT EXISTS (SELECT 1 FROM leases WHERE leases.account = accounts.id)
    ON CONFLICT DO NOTHING
""")
_FREE = text(f"""
    SELECT leases.account, leases.token FROM leases JOIN accounts ON accounts.id = leases.account
    LEFT JOIN workers ON workers.id = leases.worker WHERE coalesce(workers.expires_ns, 0) <= {NOW}
""")  # noqa: S608
_TAKE = text(f"""
    UPDATE leases SET worker = :me, token = greatest(token + 1, {NOW}) WHERE account IN (
        SELECT leases.account FROM leases
        JOIN unnest(CAST(:wanted AS text[]), CAST(:tokens AS bigint[])) AS seen (account, token)
            ON seen.account = leases.account AND seen.token = leases.token
        LEFT JOIN workers ON workers.id = leases.worker WHERE coalesce(workers.expires_ns, 0) <= {NOW}
        ORDER BY leases.account FOR UPDATE OF leases SKIP LOCKED
    ) RETURNING account, token
""")  # noqa: S608
"""A token is a time by the database's clock, so that it is never used again, even for an account made anew.

That it is still the one seen is what keeps two workers apart: where a row was committed by another between our
snapshot and our lock, PostgreSQL looks at the row again, but not for the worker it belongs to by then.
"""

_ABANDON = text("""
    UPDATE commands SET state = 'LOST', body = '' WHERE account = ANY(:accounts) AND state = 'TAKEN' AND worker <> :me
""")
"""What the last owner had begun: it is not begun again, and who asked is told so."""

_INHERIT = text(f"UPDATE leases SET token = greatest(token + 1, {NOW}) WHERE worker = :me")  # noqa: S608
_INTERRUPTED = text("UPDATE commands SET state = 'LOST', body = '' WHERE worker = :me AND state = 'TAKEN'")
_RELEASE = text("UPDATE leases SET worker = '' WHERE worker = :me AND account = ANY(:accounts)")
_LEAVE = text("UPDATE leases SET worker = '' WHERE worker = :me")
_GONE = text("DELETE FROM workers WHERE id = :me")
_FORGET = text(f"DELETE FROM workers WHERE expires_ns < {NOW} - :keep")  # noqa: S608
_SHOW = text("""
    SELECT account, token FROM leases WHERE account IN :accounts AND worker = :me ORDER BY account FOR SHARE
""").bindparams(bindparam("accounts", expanding=True))
_SITUATION = text(f"""
    SELECT (SELECT count(*) FROM accounts) AS accounts,
           (SELECT count(*) FROM accounts WHERE NOT EXISTS
               (SELECT 1 FROM leases JOIN workers ON workers.id = leases.worker
                WHERE leases.account = accounts.id AND workers.expires_ns > {NOW})) AS free,
           ARRAY(SELECT id FROM workers WHERE role IN ('{FEEDS}', '{SERVE}') AND draining = 0 AND expires_ns > {NOW}
               ORDER BY id) AS workers
""")  # noqa: S608
_WORKERS = text(f"""
    SELECT workers.*, expires_ns > {NOW} AS live,
           (SELECT count(*) FROM leases WHERE leases.worker = workers.id AND workers.expires_ns > {NOW}) AS owns
    FROM workers ORDER BY role, id
""")  # noqa: S608
_REPORT = text("UPDATE workers SET report = :report WHERE id = :me")

KEEP_DEAD: Final = 600.0
"""Seconds for which a worker that is gone is still shown."""


def must_share(database: Database) -> None:
    """Raise ConfigurationError where a database cannot be shared by several processes."""
    if database.dialect != "postgresql":
        raise ConfigurationError(
            "A SQLite database belongs to one process: run `orderwire serve`, or give all processes one PostgreSQL "
            "database (DATABASE_URL=postgresql+psycopg://…)."
        )


class Leases:
    """What this process owns. Any thread; times are in seconds.

    Call `enter` once, `renew` every `RENEW_EVERY`, `leave` at the end.
    """

    def __init__(
        self, database: Database, worker: str, *, ttl: float = TTL, stop_at: float = STOP_AT
    ) -> None:
        """Raises ConfigurationError when the database is not PostgreSQL."""
        must_share(database)
        self.worker = worker
        self._database = database
        self._clock = database.clock
        self._ttl_ns = int(ttl * 1e9)
        self._stop_at = stop_at
        self._turn = Lock()  # one change at a time, in the database and here: they must not cross
        self._held: Mapping[AccountId, int] = {}
        self._safe_until = 0.0
        self._card = {"role": FEEDS, "place": "", "version": ""}
        self._left = False
        self.draining = False
        self.lapses = 0
        """How often a renewal came so late that what we held was not ours to act on for a while."""

    # --- what is held ----------------------------------------------------------------------------------

    @property
    def held(self) -> Mapping[AccountId, int]:
        """The accounts owned by the last renewal, with their tokens; nothing once we had to stop."""
        return self._held if self.safe else {}

    @property
    def safe(self) -> bool:
        """Whether the last renewal is young enough to act on."""
        return self._clock.monotonic() < self._safe_until

    def token(self, account: AccountId) -> int | None:
        """Return the token under which the account is ours, None when it is not or may not be any more."""
        return self._held.get(account) if self.safe else None

    def stale(self, connection: Connection, tokens: Mapping[AccountId, int]) -> Collection[AccountId]:
        """Return those of `tokens` that are not in force; the rows of the others are locked until the commit.

        What turns out to be another's is not held any more from then on.
        """
        if not tokens:
            return ()
        rows = connection.execute(_SHOW, {"accounts": sorted(tokens), "me": self.worker})
        shown = {row.account: row.token for row in rows}
        gone = {account for account, token in tokens.items() if shown.get(account) != token}
        if gone:  # without the turn's lock: its holder may wait for the very transaction we are in
            self._held = {
                account: token
                for account, token in self._held.items()
                if not (account in gone and tokens[account] == token)
            }
        return gone

    # --- keeping ---------------------------------------------------------------------------------------

    def enter(self, *, role: str, place: str, version: str, arriving: bool = False) -> None:
        """Say that this process lives; at its start, again for each process that goes on under this name.

        What an earlier process of this name owned is ours under new tokens: should it still run, it writes nothing.
        `arriving`: it takes no accounts yet, and comes up before it enters again. Raises CrowdedError when others live that it cannot live beside.
        """
        self._card = {"role": role, "place": place, "version": version}
        self.draining = arriving

        def work(connection: Connection) -> None:
            self._sign_in(connection, at_least=ARRIVES_WITHIN if arriving else 0.0)
            connection.execute(_INHERIT, {"me": self.worker})
            connection.execute(_INTERRUPTED, {"me": self.worker})

        with self._turn:
            self._database.write(work)
            self._left = False

    def stay(self) -> None:
        """Say again that this process lives, where it owns nothing; what owns calls `renew`. Raises CrowdedError."""
        with self._turn:
            if not self._left:
                self._database.write(self._beat)

    def _sign_in(self, connection: Connection, *, at_least: float = 0.0) -> None:
        connection.execute(_ONE_ENTERS)
        whom = {
            "me": self.worker,
            "role": self._card["role"],
            "moment": connection.execute(_MOMENT).scalar_one(),
        }
        connection.execute(_WRITE_OFF, whom)
        others = [
            Other(id=row.id, role=row.role, place=row.place, expires_ns=row.expires_ns)
            for row in connection.execute(_KEEP_OUT, whom)
        ]
        if others:
            raise CrowdedError(others)
        given = self._given() | self._card
        connection.execute(_ENTER, given | {"ttl": max(self._ttl_ns, int(at_least * 1e9))})

    def _beat(self, connection: Connection) -> None:
        if not connection.execute(_BEAT, self._given()).rowcount:
            self._sign_in(connection)  # away for so long that it ran out, or that we were forgotten

    def _given(self) -> dict[str, Any]:
        return {"me": self.worker, "ttl": self._ttl_ns, "draining": int(self.draining)}

    def renew(self) -> Mapping[AccountId, int]:
        """Renew everything we hold and return it; what is missing was taken over by another.

        Raises CrowdedError when it had run out and others live by now that we cannot live beside.
        """
        asked = self._clock.monotonic()

        def work(connection: Connection) -> dict[AccountId, int]:
            self._beat(connection)
            rows = connection.execute(_HELD, {"me": self.worker})
            return {AccountId(row.account): row.token for row in rows}

        with self._turn:
            if self._left:
                return {}
            try:
                self._held = self._database.write(work)
            except CrowdedError:
                self._held, self._safe_until = {}, 0.0
                raise
            self.lapses += not self.safe
            self._safe_until = asked + self._stop_at
            return self._held

    def take(
        self, most: int, *, rank_of: Callable[[AccountId], int] = lambda _account: 0
    ) -> Mapping[AccountId, int]:
        """Take over at most so many accounts that nobody owns, those of the lowest rank first, and return them."""
        asked = self._clock.monotonic()

        def work(connection: Connection) -> dict[AccountId, int]:
            connection.execute(_MAKE_ROOM)
            free = {AccountId(row.account): row.token for row in connection.execute(_FREE)}
            wanted = sorted(free, key=lambda account: (rank_of(account), account))[:most]
            given = {"me": self.worker, "wanted": wanted, "tokens": [free[account] for account in wanted]}
            taken = {AccountId(row.account): row.token for row in connection.execute(_TAKE, given)}
            if taken:
                connection.execute(_ABANDON, {"accounts": list(taken), "me": self.worker})
            return taken

        with self._turn:
            taken = self._database.write(work)
            if not self._held:
                self._safe_until = asked + self._stop_at
            self._held = {**self._held, **taken}
            return taken

    def release(self, accounts: Iterable[AccountId]) -> None:
        """Give accounts up, whose feeds have ended and whose writes are done: the next owner need not wait."""
        gone = list(accounts)
        with self._turn:
            self._held = {account: token for account, token in self._held.items() if account not in gone}
            self._write(_RELEASE, accounts=gone)

    def leave(self) -> None:
        """Give everything up and be forgotten, for good unless it enters again."""
        with self._turn:
            self._held, self._safe_until, self._left = {}, 0.0, True
            self._write(_LEAVE)
            self._write(_GONE)

    def report(self, words: str) -> None:
        """Keep what this process says of itself, for the operator's page."""
        self._write(_REPORT, report=words)

    # --- looking ---------------------------------------------------------------------------------------

    def situation(self) -> Situation:
        """Return what there is to own, and who shares it."""
        with self._database.read() as connection:
            row: Any = connection.execute(_SITUATION).one()
        return Situation(accounts=row.accounts, workers=tuple(row.workers), free=row.free)

    def sweep(self) -> None:
        """Forget workers that have been gone for long."""
        self._write(_FORGET, keep=int(KEEP_DEAD * 1e9))

    def _write(self, statement: TextClause, **given: Any) -> None:
        def work(connection: Connection) -> None:
            connection.execute(statement, {"me": self.worker, **given})

        self._database.write(work)


def workers(database: Database) -> list[Worker]:
    """Return every process there is, and those that died lately. Any thread; none on SQLite."""
    if database.dialect != "postgresql":
        return []
    with database.read() as connection:
        rows = connection.execute(_WORKERS).all()
    return [
        Worker(
            id=row.id,
            role=row.role,
            place=row.place,
            version=row.version,
            started_ns=row.started_ns,
            draining=bool(row.draining),
            live=row.live,
            report=row.report,
            owns=row.owns,
        )
        for row in rows
    ]
