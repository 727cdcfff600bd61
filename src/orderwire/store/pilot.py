"""What the pilot remembers: the operators' decisions, the users' choices, who was enrolled, what each minute told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, Row, and_, bindparam, delete, func, insert, select

from orderwire.core.evidence import Tally, merged
from orderwire.core.orders import AccountId
from orderwire.core.rollout import Choice, Reason, Rollout
from orderwire.store import audit, schema
from orderwire.store.database import Database
from orderwire.store.encoding import dumps, from_ns, loads
from orderwire.store.statements import build

_MINUTES = schema.pilot_minutes.c
_THIS_MINUTE = and_(
    _MINUTES.minute == bindparam("of_minute"),
    _MINUTES.broker == bindparam("of_broker"),
    _MINUTES.cohort == bindparam("of_cohort"),
)
_KEPT_MINUTE = select(_MINUTES.tally).where(_THIS_MINUTE)
_FORGET_MINUTE = delete(schema.pilot_minutes).where(_THIS_MINUTE)
_KEEP_MINUTE = insert(schema.pilot_minutes).values(
    minute=bindparam("of_minute"),
    broker=bindparam("of_broker"),
    cohort=bindparam("of_cohort"),
    tally=bindparam("of_tally"),
)


class RolloutChange(Struct, frozen=True, kw_only=True):
    """One decision about the rollout: who, when, from what to what, and why."""

    at: datetime
    who: str
    what: str
    """A few words: `stage 25 %`, `stopped`, `resumed`, a broker `off`."""
    why: str
    before: Rollout
    after: Rollout


class Enrolment(Struct, frozen=True, kw_only=True):
    """The moment an account first came onto real-time updates."""

    account: AccountId
    broker: str
    owner: str
    reason: Reason
    at: datetime


class PilotRecords:
    """The pilot's memory. Any thread; nothing is cached."""

    def __init__(self, database: Database, *, shared: bool = False) -> None:
        """`shared`: several processes tell of the same minutes; what each tells is added up."""
        self._database = database
        self._shared = shared

    def now_ns(self) -> int:
        """Return the time by which rows are stamped."""
        return self._database.clock.time_ns()

    def now(self) -> datetime:
        """Return the same time as a moment."""
        return self._database.clock.now()

    # --- the rollout ----------------------------------------------------------------------------------

    def version(self) -> tuple[int, int]:
        """Return a value that differs once a decision or a choice was written, by whichever process."""
        changes, choices = schema.rollout_changes.c.id, schema.pilot_choices.c.id
        newest = select(
            select(func.coalesce(func.max(changes), 0)).scalar_subquery(),
            select(func.coalesce(func.max(choices), 0)).scalar_subquery(),
        )
        with self._database.read() as connection:
            change, choice = connection.execute(newest).one()
        return change, choice

    def rollout(self) -> Rollout:
        """Return what is in force; everybody is in where no operator ever decided anything."""
        with self._database.read() as connection:
            return _in_force(connection)

    def change(
        self, step: Callable[[Rollout], Rollout], *, what: str, who: str, why: str
    ) -> RolloutChange | None:
        """Write a step down and return it, None when it changes nothing.

        `step` gets what is in force inside the transaction, so two operators' steps never undo each other unseen;
        what it raises is raised here and nothing is written.
        """

        def work(connection: Connection) -> RolloutChange | None:
            before = _in_force(connection)
            after = step(before)
            if after == before:
                return None
            now = self._database.clock.time_ns()
            row = {"at_ns": now, "who": who, "what": what, "why": why, "state": dumps(after)}
            connection.execute(insert(schema.rollout_changes), row)
            said = {"from": before.described(), "to": after.described(), "why": why}
            audit.record(connection, at_ns=now, who=who, what=f"rollout: {what}", **said)
            return RolloutChange(at=from_ns(now), who=who, what=what, why=why, before=before, after=after)

        return self._database.write(work)

    def history(self, *, most: int = 100) -> list[RolloutChange]:
        """Return the decisions, newest first."""
        table = schema.rollout_changes
        with self._database.read() as connection:
            rows = connection.execute(select(table).order_by(table.c.id.desc()).limit(most + 1)).all()
        states = [loads(row.state, Rollout) for row in rows]
        befores = [*states, Rollout()][1:]
        return [
            RolloutChange(
                at=from_ns(row.at_ns), who=row.who, what=row.what, why=row.why, before=before, after=after
            )
            for row, after, before in zip(rows, states, befores, strict=True)
        ][:most]

    # --- the users ------------------------------------------------------------------------------------

    def choices(self) -> dict[str, Choice]:
        """Return what each user chose last; who never chose anything is left out."""
        table = schema.pilot_choices
        newest = select(func.max(table.c.id)).group_by(table.c.owner)
        with self._database.read() as connection:
            rows = connection.execute(
                select(table.c.owner, table.c.choice).where(table.c.id.in_(newest))
            ).all()
        return {owner: Choice(choice) for owner, choice in rows}

    def choose(self, owner: str, choice: Choice, *, by: str) -> None:
        """Write a user's choice down."""

        def work(connection: Connection) -> None:
            now = self._database.clock.time_ns()
            connection.execute(insert(schema.pilot_choices), {"at_ns": now, "owner": owner, "choice": choice})
            audit.record(connection, at_ns=now, who=by, what="real-time choice", user=owner, choice=choice)

        self._database.write(work)

    def enrol(self, account: AccountId, *, broker: str, owner: str, reason: Reason) -> bool:
        """Remember that an account came onto real-time updates; False when it had before."""

        def work(connection: Connection) -> bool:
            row = {"account": account, "broker": broker, "owner": owner, "reason": reason}
            insert = build(connection.dialect.name).enrol
            made = connection.execute(insert, {**row, "at_ns": self._database.clock.time_ns()})
            return made.first() is not None

        return self._database.write(work)

    def enrolments(self) -> list[Enrolment]:
        """Return who was ever on real-time updates, oldest first."""
        table = schema.enrolments
        with self._database.read() as connection:
            rows = connection.execute(select(table).order_by(table.c.at_ns)).all()
        return [_enrolment(row) for row in rows]

    # --- the minutes ----------------------------------------------------------------------------------

    def keep(self, tallies: Iterable[Tally]) -> None:
        """Write minutes down; one that is there already is replaced, or added to where several tell of it."""
        given = list(tallies)

        def work(connection: Connection) -> None:
            if self._shared:
                connection.exec_driver_sql("LOCK TABLE pilot_minutes IN SHARE ROW EXCLUSIVE MODE")
            whole: dict[tuple[int, str, str], Tally] = {}
            for tally in given:
                key = (tally.minute, tally.broker, tally.cohort)
                kept = (whole.get(key) or _kept_minute(connection, key)) if self._shared else None
                whole[key] = _added(kept, tally) if kept else tally
            connection.execute(_FORGET_MINUTE, [_named(key) for key in whole])
            rows = [{**_named(key), "of_tally": dumps(tally)} for key, tally in whole.items()]
            connection.execute(_KEEP_MINUTE, rows)

        if given:
            self._database.write(work)

    def minutes(self, since: int, until: int) -> list[Tally]:
        """Return the minutes from `since` (included) to `until` (not), in minutes since the epoch, in order."""
        table = schema.pilot_minutes
        asked = select(table.c.tally).where(table.c.minute >= since, table.c.minute < until)
        with self._database.read() as connection:
            rows = connection.execute(
                asked.order_by(table.c.minute, table.c.broker, table.c.cohort)
            ).scalars()
            return [loads(text, Tally) for text in rows]

    def first_minute(self) -> int | None:
        """Return the first minute that was written down; None before any was."""
        with self._database.read() as connection:
            return connection.execute(select(func.min(schema.pilot_minutes.c.minute))).scalar()


def _named(key: tuple[int, str, str]) -> dict[str, Any]:
    return dict(zip(("of_minute", "of_broker", "of_cohort"), key, strict=True))


def _kept_minute(connection: Connection, key: tuple[int, str, str]) -> Tally | None:
    kept = connection.execute(_KEPT_MINUTE, _named(key)).scalar()
    return loads(kept, Tally) if kept else None


def _added(kept: Tally, told: Tally) -> Tally:
    """Return what two processes told of the same minute; each has accounts of its own."""
    whole = merged([kept, told], minute=told.minute, broker=told.broker, cohort=told.cohort)
    return replace(whole, accounts=kept.accounts + told.accounts)


def _in_force(connection: Connection) -> Rollout:
    table = schema.rollout_changes
    state = connection.execute(select(table.c.state).order_by(table.c.id.desc()).limit(1)).scalar()
    return loads(state, Rollout) if state else Rollout()


def _enrolment(row: Row[Any]) -> Enrolment:
    return Enrolment(
        account=AccountId(row.account),
        broker=row.broker,
        owner=row.owner,
        reason=Reason(row.reason),
        at=from_ns(row.at_ns),
    )
