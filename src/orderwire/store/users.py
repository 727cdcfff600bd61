"""People and their programs: users with a role, API keys with a scope, web sessions."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from orderwire.errors import InvalidRequestError, NotFoundError
from orderwire.logs import conceal
from orderwire.store import audit, schema
from orderwire.store.database import Database

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_SHORTEST_PASSWORD = 8
_SHORTEST_KEY = 32
_MARK = 12
"""Characters of a session's digest that name it."""


class Role(StrEnum):
    """What a user may do; each one may do what the one before it may."""

    TRADER = "trader"
    OPERATOR = "operator"
    OWNER = "owner"

    def may(self, needed: Role) -> bool:
        """Whether this role suffices where `needed` is asked for."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class Scope(StrEnum):
    """What a program with an API key may do."""

    READ = "read"
    TRADE = "trade"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who may log in."""

    name: str
    role: Role
    disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A program's way in, on behalf of its owner; the key itself is shown once and never kept."""

    id: str
    owner: str
    scope: Scope
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSession:
    """One web session in force; `id` names it without opening it."""

    id: str
    content: bytes
    expires_ns: int


def session_mark(token: str) -> str:
    """Return the id under which a session is listed, ended and known to the live stream."""
    return _digest(token)[:_MARK] if token else ""


def key_mark(key: ApiKey) -> str:
    """Return the id under which the live stream knows a program that came with this key."""
    return f"key {key.id}"


def _nobody_listens(_owner: str, _mark: str) -> None:
    pass


class Users:
    """The users, their passwords and their programs' keys. Any thread; nothing is cached, a change counts at once."""

    def __init__(
        self,
        database: Database,
        *,
        hasher: PasswordHash | None = None,
        token: Callable[[], str] = lambda: f"k{secrets.token_urlsafe(32)}",
    ) -> None:
        """`hasher` defaults to Argon2id with the library's recommended cost (some 50 ms and 64 MB a check).

        `token` makes a program's key: by default one that no command line takes for an option.
        """
        self.on_ended: Callable[[str, str], None] = _nobody_listens
        """Told the owner and the mark of a session or key that ended; an empty mark means all of theirs."""
        self._database = database
        self._hasher = hasher or PasswordHash((Argon2Hasher(),))
        self._token = token
        self._nobody = self._hasher.hash(token())

    # --- users ----------------------------------------------------------------------------------------

    def add(self, name: str, password: str, *, role: Role = Role.TRADER, by: str = "cli") -> User:
        """Make a user. Raises InvalidRequestError for a bad or taken name, or a short password."""
        name = name.strip().lower()
        self.check_new(name, password)
        hashed = self._hasher.hash(password)

        def work(connection: Connection) -> User:
            if _user(connection, name) is not None:
                raise InvalidRequestError({"name": f"There is a user {name} already."})
            now = self._database.clock.time_ns()
            row = {"name": name, "password": hashed, "role": role, "disabled": 0, "created_ns": now}
            connection.execute(insert(schema.users), row)
            audit.record(connection, at_ns=now, who=by, what="user added", user=name, role=role)
            return User(name=name, role=role)

        return self._database.write(work)

    def check_new(self, name: str, password: str) -> None:
        """Raise InvalidRequestError when a name or a new password does not keep the rules."""
        problems = _problems(name, password)
        if problems:
            raise InvalidRequestError(problems)

    def check(self, name: str, password: str) -> User | None:
        """Return the user when the password is right and the user may log in; takes as long when there is none."""
        with self._database.read() as connection:
            row = _user(connection, name.strip().lower())
        matches = self._hasher.verify(password, row.password if row else self._nobody)
        return User(name=row.name, role=Role(row.role)) if row and matches and not row.disabled else None

    def get(self, name: str) -> User:
        """Return one user. Raises NotFoundError."""
        with self._database.read() as connection:
            row = _user(connection, name)
        if row is None:
            raise NotFoundError(f"There is no user {name}.")
        return User(name=row.name, role=Role(row.role), disabled=bool(row.disabled))

    def all(self) -> list[User]:
        """Return all users by name."""
        return self.page(first=0, most=None)

    def page(self, *, first: int, most: int | None) -> list[User]:
        """Return `most` users by name, after the first `first`."""
        wanted = select(schema.users).order_by(schema.users.c.name).offset(first).limit(most)
        with self._database.read() as connection:
            rows = connection.execute(wanted).all()
        return [User(name=row.name, role=Role(row.role), disabled=bool(row.disabled)) for row in rows]

    def set_password(self, name: str, password: str, *, by: str = "cli") -> None:
        """Change a password and end the user's web sessions. Raises NotFoundError, InvalidRequestError."""
        self.check_new(name, password)
        self._change(name, by=by, what="password changed", password=self._hasher.hash(password))

    def set_role(self, name: str, role: Role, *, by: str = "cli") -> None:
        """Change what a user may do. Raises NotFoundError, InvalidRequestError for the last owner."""
        self._change(name, by=by, what=f"role set to {role}", role=role)

    def disable(self, name: str, *, by: str = "cli") -> None:
        """Lock a user out: no login, no API key, no web session. Raises NotFoundError, InvalidRequestError."""
        self._change(name, by=by, what="user disabled", disabled=1)

    def enable(self, name: str, *, by: str = "cli") -> None:
        """Let a user in again. Raises NotFoundError."""
        self._change(name, by=by, what="user enabled", disabled=0)

    def _change(self, name: str, *, by: str, what: str, **values: object) -> None:
        def work(connection: Connection) -> None:
            had = _owners(connection)
            changed = connection.execute(
                update(schema.users).where(schema.users.c.name == name).values(**values)
            )
            if changed.rowcount == 0:
                raise NotFoundError(f"There is no user {name}.")
            _must_leave_an_owner(connection, had)
            connection.execute(delete(schema.web_sessions).where(schema.web_sessions.c.owner == name))
            audit.record(connection, at_ns=self._database.clock.time_ns(), who=by, what=what, user=name)

        self._database.write(work)
        self.on_ended(name, "")

    # --- API keys -------------------------------------------------------------------------------------

    def add_key(
        self, owner: str, *, scope: Scope = Scope.READ, label: str = "", by: str = "cli"
    ) -> tuple[ApiKey, str]:
        """Make an API key and return it with its plain text, which is not kept. Raises NotFoundError."""
        plain = self._token()
        conceal([plain])
        digest = _digest(plain)
        key = ApiKey(id=digest[:12], owner=owner, scope=scope, label=label)

        def work(connection: Connection) -> None:
            if _user(connection, owner) is None:
                raise NotFoundError(f"There is no user {owner}.")
            now = self._database.clock.time_ns()
            row = {"id": key.id, "owner": owner, "digest": digest, "scope": scope, "label": label}
            connection.execute(insert(schema.api_keys), {**row, "created_ns": now})
            audit.record(
                connection, at_ns=now, who=by, what="API key added", user=owner, key=key.id, scope=scope
            )

        self._database.write(work)
        return key, plain

    def adopt_key(self, owner: str, plain: str, *, label: str, by: str) -> None:
        """Let a key that another application made in too, with the scope `trade`, in place of its earlier ones.

        One that was revoked here stays revoked. Raises InvalidRequestError for a key that could be guessed,
        NotFoundError for an unknown owner.
        """
        if len(plain) < _SHORTEST_KEY:
            raise InvalidRequestError({"api_key": "The host's API key is too short to be let in."})
        conceal([plain])
        digest, table = _digest(plain), schema.api_keys
        with self._database.read() as connection:
            if connection.execute(select(table.c.id).where(table.c.digest == digest)).first() is not None:
                return
        for key in self.keys(owner):
            if key.label == label:
                self.revoke_key(key.id, owner=owner, by=by)

        def work(connection: Connection) -> None:
            if _user(connection, owner) is None:
                raise NotFoundError(f"There is no user {owner}.")
            now = self._database.clock.time_ns()
            row = {"id": digest[:12], "owner": owner, "digest": digest, "scope": Scope.TRADE, "label": label}
            connection.execute(insert(table), {**row, "created_ns": now})
            audit.record(
                connection,
                at_ns=now,
                who=by,
                what="API key added",
                user=owner,
                key=digest[:12],
                scope=Scope.TRADE,
            )

        self._database.write(work)

    def key(self, plain: str) -> ApiKey | None:
        """Return the API key of this plain text, None when it is unknown, revoked, or its owner locked out."""
        keys, users = schema.api_keys, schema.users
        found = (
            select(keys)
            .join(users, users.c.name == keys.c.owner)
            .where(keys.c.digest == _digest(plain), keys.c.revoked_ns.is_(None), users.c.disabled == 0)
        )
        with self._database.read() as connection:
            row = connection.execute(found).first()
        return ApiKey(id=row.id, owner=row.owner, scope=Scope(row.scope), label=row.label) if row else None

    def keys(self, owner: str) -> list[ApiKey]:
        """Return a user's API keys that are not revoked, oldest first."""
        table = schema.api_keys
        mine = select(table).where(table.c.owner == owner, table.c.revoked_ns.is_(None))
        with self._database.read() as connection:
            rows = connection.execute(mine.order_by(table.c.created_ns)).all()
        return [ApiKey(id=r.id, owner=r.owner, scope=Scope(r.scope), label=r.label) for r in rows]

    def revoke_key(self, key_id: str, *, owner: str, by: str = "cli") -> None:
        """End an API key at once. Raises NotFoundError when this owner has no such key in force."""
        table = schema.api_keys

        def work(connection: Connection) -> None:
            now = self._database.clock.time_ns()
            mine = (table.c.id == key_id, table.c.owner == owner, table.c.revoked_ns.is_(None))
            ended = connection.execute(update(table).where(*mine).values(revoked_ns=now))
            if ended.rowcount == 0:
                raise NotFoundError(f"{owner} has no API key {key_id}.")
            audit.record(connection, at_ns=now, who=by, what="API key revoked", user=owner, key=key_id)

        self._database.write(work)
        self.on_ended(owner, f"key {key_id}")

    # --- web sessions ---------------------------------------------------------------------------------

    def save_session(self, token: str, content: bytes, *, owner: str | None, expires_ns: int) -> None:
        """Keep a web session's content under its token, of which only a digest is stored."""
        table = schema.web_sessions
        row = {"digest": _digest(token), "owner": owner, "content": content, "expires_ns": expires_ns}

        def work(connection: Connection) -> None:
            connection.execute(delete(table).where(table.c.digest == row["digest"]))
            connection.execute(insert(table), row)

        self._database.write(work)

    def load_session(self, token: str) -> bytes | None:
        """Return a web session's content, None when it is unknown or has expired."""
        table = schema.web_sessions
        now = self._database.clock.time_ns()
        mine = select(table.c.content).where(table.c.digest == _digest(token), table.c.expires_ns > now)
        with self._database.read() as connection:
            return connection.execute(mine).scalar()

    def sessions(self, owner: str) -> list[WebSession]:
        """Return a user's web sessions in force."""
        table, now = schema.web_sessions, self._database.clock.time_ns()
        mine = select(table).where(table.c.owner == owner, table.c.expires_ns > now)
        with self._database.read() as connection:
            rows = connection.execute(mine).all()
        return [
            WebSession(id=row.digest[:_MARK], content=row.content, expires_ns=row.expires_ns) for row in rows
        ]

    def sessions_by_owner(self) -> dict[str, int]:
        """Count the web sessions in force, by user."""
        table, now = schema.web_sessions, self._database.clock.time_ns()
        counted = select(table.c.owner, func.count()).where(
            table.c.owner.is_not(None), table.c.expires_ns > now
        )
        with self._database.read() as connection:
            rows = connection.execute(counted.group_by(table.c.owner)).all()
        return {str(owner): count for owner, count in rows}

    def end_session_of(self, owner: str, mark: str, *, by: str = "cli") -> None:
        """End one web session of a user by its id; harmless when it has ended."""
        table = schema.web_sessions

        def work(connection: Connection) -> None:
            mine = (table.c.owner == owner, table.c.digest.startswith(mark, autoescape=True))
            ended = connection.execute(delete(table).where(*mine)).rowcount
            if ended:
                now = self._database.clock.time_ns()
                audit.record(connection, at_ns=now, who=by, what="session ended", user=owner, session=mark)

        self._database.write(work)
        self.on_ended(owner, mark)

    def in_force(self, marks: Collection[str]) -> set[str]:
        """Return which of these sessions and keys still open something: not ended, expired, revoked or locked out."""
        sessions, keys, users = schema.web_sessions, schema.api_keys, schema.users
        now = self._database.clock.time_ns()
        prefix = func.substr(sessions.c.digest, 1, _MARK)
        alive = select(prefix).where(prefix.in_([m for m in marks if not m.startswith("key ")]))
        ids = [mark.removeprefix("key ") for mark in marks if mark.startswith("key ")]
        valid = select(keys.c.id).join(users, users.c.name == keys.c.owner)
        valid = valid.where(keys.c.id.in_(ids), keys.c.revoked_ns.is_(None), users.c.disabled == 0)
        with self._database.read() as connection:
            found = set(connection.execute(alive.where(sessions.c.expires_ns > now)).scalars())
            return found | {f"key {key}" for key in connection.execute(valid).scalars()}

    def end_session(self, token: str) -> None:
        """Forget a web session."""
        table = schema.web_sessions
        self._database.write(lambda c: c.execute(delete(table).where(table.c.digest == _digest(token))))

    def purge_sessions(self) -> int:
        """Delete the web sessions that have expired and return how many there were."""
        table = schema.web_sessions
        now = self._database.clock.time_ns()

        def work(connection: Connection) -> int:
            return connection.execute(delete(table).where(table.c.expires_ns <= now)).rowcount

        return self._database.write(work)

    def count(self) -> int:
        """Return how many users there are; 0 means that nobody has set the service up."""
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(schema.users)).scalar() or 0


def _owners(connection: Connection) -> int:
    users = schema.users
    counted = select(func.count()).select_from(users).where(users.c.role == Role.OWNER, users.c.disabled == 0)
    return connection.execute(counted).scalar() or 0


def _must_leave_an_owner(connection: Connection, had: int) -> None:
    if had and not _owners(connection):
        raise InvalidRequestError({"role": "This is the last owner; make somebody else an owner first."})


def _user(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(schema.users).where(schema.users.c.name == name)).first()


def _digest(token: str) -> str:
    """A plain digest is enough: the token has 256 bits of chance, there is nothing to guess."""
    return hashlib.sha256(token.encode()).hexdigest()


def _problems(name: str, password: str) -> dict[str, str]:
    problems = {}
    if not _NAME.fullmatch(name):
        problems["name"] = "A user name has 1 to 64 small letters, digits, dots, @, hyphens or underscores."
    if len(password) < _SHORTEST_PASSWORD:
        problems["password"] = f"A password has at least {_SHORTEST_PASSWORD} characters."
    return problems
