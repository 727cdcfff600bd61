"""Ways in that work once and not for long: the first administrator's, and a link to set a new password."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from orderwire.errors import NotFoundError
from orderwire.store import audit, schema
from orderwire.store.database import Database
from orderwire.store.encoding import from_ns
from orderwire.store.users import Role, User, Users

RESET_HOURS: Final = 24
FIRST_HOURS: Final = 24 * 7
_HOUR_NS: Final = 3_600_000_000_000


class Purpose(StrEnum):
    """What an invitation lets its bearer do."""

    FIRST = "first"
    """Make the first administrator of an installation that has no user."""
    PASSWORD = "password"  # noqa: S105 - a purpose, no password
    """Set the password of one user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """A way in, without the token that opens it: of that only a digest is kept."""

    purpose: Purpose
    user: str
    """Empty for the first administrator."""
    expires: datetime


class Invitations:
    """The invitations in force. Any thread."""

    def __init__(
        self,
        database: Database,
        users: Users,
        *,
        token: Callable[[], str] = lambda: secrets.token_urlsafe(24),
    ) -> None:
        self._database = database
        self._users = users
        self._token = token

    def first(self) -> str | None:
        """Return a fresh token for making the first administrator, None when there are users already."""
        if self._users.count():
            return None
        return self._make(Purpose.FIRST, "", hours=FIRST_HOURS, by="system")

    def password(self, name: str, *, by: str) -> str:
        """Return a fresh token for setting a user's password; earlier ones end. Raises NotFoundError."""
        self._users.get(name)
        return self._make(Purpose.PASSWORD, name, hours=RESET_HOURS, by=by)

    def find(self, token: str, purpose: Purpose) -> Invitation | None:
        """Return what a token opens, None when it is unknown, used, or too old."""
        table, now = schema.invitations, self._database.clock.time_ns()
        mine = (table.c.digest == _digest(token), table.c.purpose == purpose, table.c.expires_ns > now)
        with self._database.read() as connection:
            row = connection.execute(select(table).where(*mine)).first()
        if row is None or (purpose is Purpose.FIRST and self._users.count()):
            return None
        return Invitation(purpose=Purpose(row.purpose), user=row.owner, expires=from_ns(row.expires_ns))

    def make_first(self, token: str, name: str, password: str) -> User:
        """Make the first administrator. Raises NotFoundError for a token out of force, InvalidRequestError."""
        name = name.strip().lower()
        self._users.check_new(name, password)
        if self.find(token, Purpose.FIRST) is None:
            raise NotFoundError("This link has been used, or is too old.")
        self._spend(token)
        return self._users.add(name, password, role=Role.OWNER, by="first start")

    def set_password(self, token: str, password: str) -> User:
        """Set the password the token is for, and end the user's sessions. Raises as `make_first`."""
        found = self.find(token, Purpose.PASSWORD)
        if found is None:
            raise NotFoundError("This link has been used, or is too old.")
        self._users.check_new(found.user, password)
        self._spend(token)
        self._users.set_password(found.user, password, by=found.user)
        return self._users.get(found.user)

    def _make(self, purpose: Purpose, owner: str, *, hours: int, by: str) -> str:
        plain, table, now = self._token(), schema.invitations, self._database.clock.time_ns()
        row = {"digest": _digest(plain), "purpose": purpose, "owner": owner, "made_by": by}

        def work(connection: Connection) -> None:
            earlier = (table.c.purpose == purpose, table.c.owner == owner)
            connection.execute(delete(table).where(*earlier))
            connection.execute(delete(table).where(table.c.expires_ns <= now))
            connection.execute(insert(table), {**row, "expires_ns": now + hours * _HOUR_NS})
            what = (
                "link for the first administrator made" if purpose is Purpose.FIRST else "password link made"
            )
            audit.record(connection, at_ns=now, who=by, what=what, user=owner)

        self._database.write(work)
        return plain

    def _spend(self, token: str) -> None:
        """Take the token out of force; of two who use it at once, one gets NotFoundError."""
        table = schema.invitations
        spent = delete(table).where(table.c.digest == _digest(token))
        if self._database.write(lambda connection: connection.execute(spent).rowcount) == 0:
            raise NotFoundError("This link has been used, or is too old.")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
