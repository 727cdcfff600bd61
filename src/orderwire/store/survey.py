"""What people said of the pilot: survey answers, feedback, incidents, and the recorded soft answers."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, insert, select, update

from orderwire.core.evidence import Cohort
from orderwire.core.orders import session_date
from orderwire.core.survey import WAVES, Answers
from orderwire.core.verdict import Answer
from orderwire.errors import InvalidRequestError, NotFoundError
from orderwire.store import audit, schema
from orderwire.store.database import Database
from orderwire.store.encoding import dumps, from_ns, loads, to_ns

SOFT: Final = {"team_comfortable": ("yes", "no"), "maintenance": ("low", "medium", "high")}
"""The questions no machine answers, and their answers (docs/evaluation/criteria.md)."""


class Severity(StrEnum):
    """How bad an incident was."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"


class Filled(Struct, frozen=True, kw_only=True):
    """One answered survey."""

    wave: str
    owner: str | None
    """None: given anonymously."""
    cohort: str
    day: date
    answers: Answers


class Feedback(Struct, frozen=True, kw_only=True):
    """Something a user wrote at any time."""

    at: datetime
    owner: str | None
    words: str


class Incident(Struct, frozen=True, kw_only=True):
    """Something that went wrong during the pilot."""

    id: int
    severity: Severity
    title: str
    opened: datetime
    closed: datetime | None
    who: str


class Voices:
    """What people said. Any thread; nothing is cached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- the survey -----------------------------------------------------------------------------------

    def answer(
        self, wave: str, answers: Answers, *, owner: str, cohort: Cohort, anonymous: bool = False
    ) -> None:
        """Keep an answered survey. Raises InvalidRequestError for an unknown wave or a second answer.

        An anonymous answer carries no name and no time of day; that this user answered is kept apart from it.
        """
        if wave not in WAVES:
            raise InvalidRequestError({"wave": f"There is no wave {wave!r}; there are {', '.join(WAVES)}."})

        def work(connection: Connection) -> None:
            _see(connection, owner, wave, "answered")
            day = session_date(self._database.clock.now())
            row = {"wave": wave, "owner": None if anonymous else owner, "cohort": cohort}
            connection.execute(
                insert(schema.survey_answers), {**row, "day": day.isoformat(), "answers": dumps(answers)}
            )

        self._database.write(work)

    def dismiss(self, wave: str, *, owner: str) -> None:
        """Ask this user no more in this wave. Raises InvalidRequestError when the user answered already."""
        self._database.write(lambda connection: _see(connection, owner, wave, "dismissed"))

    def outcome(self, wave: str, *, owner: str) -> str | None:
        """Return `answered`, `dismissed`, or None when the user is still to be asked."""
        table = schema.survey_seen
        asked = select(table.c.outcome).where(table.c.owner == owner, table.c.wave == wave)
        with self._database.read() as connection:
            return connection.execute(asked).scalar()

    def outcomes(self, wave: str) -> dict[str, str]:
        """Return who answered or dismissed a wave."""
        table = schema.survey_seen
        asked = select(table.c.owner, table.c.outcome).where(table.c.wave == wave)
        with self._database.read() as connection:
            return {row.owner: row.outcome for row in connection.execute(asked)}

    def filled(self, wave: str | None = None) -> list[Filled]:
        """Return the answered surveys, of one wave or of all, oldest first."""
        table = schema.survey_answers
        asked = select(table).order_by(table.c.id)
        if wave is not None:
            asked = asked.where(table.c.wave == wave)
        with self._database.read() as connection:
            rows = connection.execute(asked).all()
        return [
            Filled(
                wave=row.wave,
                owner=row.owner,
                cohort=row.cohort,
                day=date.fromisoformat(row.day),
                answers=loads(row.answers, Answers),
            )
            for row in rows
        ]

    # --- feedback -------------------------------------------------------------------------------------

    def say(self, words: str, *, owner: str | None) -> None:
        """Keep what a user wrote. Raises InvalidRequestError for nothing at all."""
        text = words.strip()[:4000]
        if not text:
            raise InvalidRequestError({"words": "Write a few words."})
        row = {"at_ns": self._database.clock.time_ns(), "owner": owner, "words": text}
        self._database.write(lambda connection: connection.execute(insert(schema.feedback), row))

    def feedback(self, *, most: int = 200) -> list[Feedback]:
        """Return what was written, newest first."""
        table = schema.feedback
        with self._database.read() as connection:
            rows = connection.execute(select(table).order_by(table.c.id.desc()).limit(most)).all()
        return [Feedback(at=from_ns(row.at_ns), owner=row.owner, words=row.words) for row in rows]

    # --- incidents ------------------------------------------------------------------------------------

    def open_incident(
        self, severity: Severity, title: str, *, who: str, at: datetime | None = None
    ) -> Incident:
        """Write an incident down; `at` when it began, now by default. Raises InvalidRequestError without a title."""
        text = title.strip()[:400]
        if not text:
            raise InvalidRequestError({"title": "Say in a few words what went wrong."})
        began = to_ns(at) if at else self._database.clock.time_ns()

        def work(connection: Connection) -> int:
            row = {"severity": severity, "title": text, "opened_ns": began, "closed_ns": None, "who": who}
            made = connection.execute(insert(schema.incidents).values(row)).inserted_primary_key
            now = self._database.clock.time_ns()
            audit.record(
                connection, at_ns=now, who=who, what="incident opened", severity=severity, title=text
            )
            return int(made[0]) if made else 0

        number = self._database.write(work)
        return Incident(id=number, severity=severity, title=text, opened=from_ns(began), closed=None, who=who)

    def close_incident(self, number: int, *, who: str) -> None:
        """End an incident. Raises NotFoundError when there is no open one of this number."""
        table = schema.incidents

        def work(connection: Connection) -> None:
            now = self._database.clock.time_ns()
            ended = connection.execute(
                update(table).where(table.c.id == number, table.c.closed_ns.is_(None)).values(closed_ns=now)
            )
            if ended.rowcount == 0:
                raise NotFoundError(f"There is no open incident {number}.")
            audit.record(connection, at_ns=now, who=who, what="incident closed", incident=str(number))

        self._database.write(work)

    def incidents(self) -> list[Incident]:
        """Return all incidents, newest first."""
        table = schema.incidents
        with self._database.read() as connection:
            rows = connection.execute(
                select(table).order_by(table.c.opened_ns.desc(), table.c.id.desc())
            ).all()
        return [
            Incident(
                id=row.id,
                severity=Severity(row.severity),
                title=row.title,
                opened=from_ns(row.opened_ns),
                closed=from_ns(row.closed_ns) if row.closed_ns is not None else None,
                who=row.who,
            )
            for row in rows
        ]

    # --- soft answers ---------------------------------------------------------------------------------

    def record(self, question: str, value: str, *, author: str) -> None:
        """Keep the answer to a soft criterion. Raises InvalidRequestError for one that is none."""
        allowed = SOFT.get(question, ())
        if value not in allowed:
            known = "; ".join(f"{name}: {', '.join(values)}" for name, values in SOFT.items())
            raise InvalidRequestError({"value": f"The questions and their answers are {known}."})

        def work(connection: Connection) -> None:
            now = self._database.clock.time_ns()
            row = {"at_ns": now, "question": question, "value": value, "author": author}
            connection.execute(insert(schema.soft_answers), row)
            audit.record(connection, at_ns=now, who=author, what=f"answered: {question}", value=value)

        self._database.write(work)

    def recorded(self) -> dict[str, Answer]:
        """Return the newest answer of each soft question that has one."""
        table = schema.soft_answers
        with self._database.read() as connection:
            rows = connection.execute(select(table).order_by(table.c.id)).all()
        return {row.question: Answer(value=row.value, author=row.author) for row in rows}


def _see(connection: Connection, owner: str, wave: str, outcome: str) -> None:
    table = schema.survey_seen
    mine = (table.c.owner == owner, table.c.wave == wave)
    before = connection.execute(select(table.c.outcome).where(*mine)).scalar()
    if before == "answered":
        raise InvalidRequestError({"wave": "You answered this survey already. Thank you."})
    if before is not None:
        connection.execute(update(table).where(*mine).values(outcome=outcome))
    else:
        connection.execute(insert(table), {"owner": owner, "wave": wave, "outcome": outcome})
