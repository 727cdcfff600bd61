"""What an account's owner is asked to do by a process that has no feeds: written down, done at most once, answered.

A command waits until its account's owner takes it, in a transaction that also shows that the account is his. From
then on nobody does it again, whatever dies: the next owner marks it as lost, and who asked has to find out otherwise
what became of it (a submission by its tag in the broker's book). What nobody took by its deadline is withdrawn by who
asked, in the same place: then it is certain that nothing was done.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, text

from orderwire.core.orders import AccountId
from orderwire.store.database import Database
from orderwire.store.leases import NOW


class CommandState(StrEnum):
    """Where a command stands."""

    WAITING = "WAITING"
    TAKEN = "TAKEN"
    """Its owner is at it, or died over it."""
    DONE = "DONE"
    LOST = "LOST"
    """Its owner died or was overtaken after taking it; nobody does it again."""
    WITHDRAWN = "WITHDRAWN"
    """Nobody took it in time; nobody will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command, as its owner gets it."""

    id: str
    account: AccountId
    kind: str
    body: str = field(repr=False)
    left_seconds: float
    """Until its deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Where a command stands, and what it was answered."""

    state: CommandState
    reply: str = field(repr=False)
    in_time: bool


_ASK = text(f"""
    INSERT INTO commands (id, account, kind, body, state, worker, reply, asked_ns, deadline_ns)
    VALUES (:id, :account, :kind, :body, 'WAITING', '', '', {NOW}, {NOW} + :lasts)
    ON CONFLICT (id) DO NOTHING
""")  # noqa: S608 - constants of ours, as in all statements here
_OUTCOME = text(f"SELECT state, reply, deadline_ns > {NOW} AS in_time FROM commands WHERE id = :id")  # noqa: S608
_WITHDRAW = text(
    "UPDATE commands SET state = 'WITHDRAWN', body = '' WHERE id = :id AND state = 'WAITING' RETURNING id"
)
_WAITS = text(f"""
    SELECT 1 FROM commands JOIN leases ON leases.account = commands.account
    WHERE commands.state = 'WAITING' AND leases.worker = :me AND commands.deadline_ns > {NOW} LIMIT 1
""")  # noqa: S608
_TAKE = text(f"""
    UPDATE commands SET state = 'TAKEN', worker = :me WHERE id IN (
        SELECT commands.id FROM commands JOIN leases ON leases.account = commands.account
        WHERE commands.state = 'WAITING' AND commands.deadline_ns > {NOW} AND leases.worker = :me
            AND leases.account = ANY(:accounts)
        ORDER BY commands.asked_ns LIMIT :most FOR UPDATE OF commands SKIP LOCKED FOR SHARE OF leases SKIP LOCKED
    ) RETURNING id, account, kind, body, (deadline_ns - {NOW}) / 1e9 AS left_seconds, asked_ns
""")  # noqa: S608
_ANSWER = text("""
    UPDATE commands SET state = 'DONE', body = '', reply = :reply
    WHERE id = :id AND state = 'TAKEN' AND worker = :me
""")


class Commands:
    """The commands of one shared database. Any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- who asks --------------------------------------------------------------------------------------

    def ask(self, account: AccountId, *, command_id: str, kind: str, body: str, seconds: float) -> None:
        """Write a command down; nobody takes it after so many seconds by the database's clock."""

        def work(connection: Connection) -> None:
            record(connection, account, command_id=command_id, kind=kind, body=body, seconds=seconds)

        self._database.write(work)

    def outcome(self, command_id: str) -> Outcome:
        """Say where a command stands. Raises StoreError."""
        with self._database.read() as connection:
            row: Any = connection.execute(_OUTCOME, {"id": command_id}).first()
        if row is None:  # the account was removed, and everything asked of it
            return Outcome(state=CommandState.LOST, reply="", in_time=False)
        return Outcome(state=CommandState(row.state), reply=row.reply, in_time=row.in_time)

    def withdraw(self, command_id: str) -> bool:
        """Take a command back; False when its owner has taken it already."""

        def work(connection: Connection) -> bool:
            return connection.execute(_WITHDRAW, {"id": command_id}).first() is not None

        return self._database.write(work)

    # --- who does --------------------------------------------------------------------------------------

    def waits(self, worker: str) -> bool:
        """Say whether something waits for this worker."""
        with self._database.read() as connection:
            return connection.execute(_WAITS, {"me": worker}).first() is not None

    def take(self, worker: str, accounts: list[AccountId], *, most: int) -> list[Command]:
        """Take what waits for accounts that are this worker's now, oldest first; it is done once or never."""

        def work(connection: Connection) -> list[Any]:
            given = {"me": worker, "accounts": accounts, "most": most}
            return list(connection.execute(_TAKE, given))

        rows = sorted(self._database.write(work), key=lambda row: int(row.asked_ns))
        return [
            Command(
                id=row.id,
                account=AccountId(row.account),
                kind=row.kind,
                body=row.body,
                left_seconds=float(row.left_seconds),
            )
            for row in rows
        ]

    def answer(self, command_id: str, worker: str, reply: str) -> None:
        """Write the answer down; what it asked for is forgotten, there may be a login in it."""
        given = {"id": command_id, "me": worker, "reply": reply}

        def work(connection: Connection) -> None:
            connection.execute(_ANSWER, given)

        self._database.write(work)


def record(
    connection: Connection, account: AccountId, *, command_id: str, kind: str, body: str, seconds: float
) -> None:
    """Write a command down inside the caller's transaction, as `Commands.ask` does."""
    given = {"id": command_id, "account": account, "kind": kind, "body": body, "lasts": int(seconds * 1e9)}
    connection.execute(_ASK, given)
