"""The broker accounts: who owns them, where the broker is, and their sealed credentials and logins."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from orderwire.core.orders import AccountId
from orderwire.errors import InvalidRequestError, NotFoundError
from orderwire.store import audit, outbox, retention, schema
from orderwire.store.database import Database
from orderwire.store.encoding import dump_mapping, dumps, from_ns, loads, to_ns
from orderwire.store.sealing import Keyring, Sealed

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_CREDENTIAL = "credential."
_SESSION = "session."
_FORMER = "former."

FORMER_COUNTS_FOR = timedelta(hours=24)
"""How long a credential that was replaced still verifies postbacks: brokers change over when they do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A session the broker granted; `secrets` is sealed at rest (`BrokerSession` in the brokers' room)."""

    user_id: str
    secrets: Mapping[str, str] = field(repr=False)
    expires_at: datetime | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One user at one broker, without the secrets."""

    id: AccountId
    broker: str
    title: str
    owner: str
    """Name of the user whose account it is."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    allow_plaintext: bool = False
    postback_segment: str = field(repr=False)
    """Unguessable part of the postback's path; accounts of one broker app share it, as they share the app."""
    session_user: str = ""
    """The broker's id of the logged-in user; empty while logged out."""
    session_expires: datetime | None = None


class Accounts:
    """The accounts and their secrets. Any thread; nothing is cached."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        *,
        segment: Callable[[], str] = lambda: secrets.token_urlsafe(24),
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._segment = segment

    # --- accounts -------------------------------------------------------------------------------------

    def add(
        self,
        account_id: str,
        *,
        broker: str,
        owner: str,
        credentials: Mapping[str, str],
        title: str = "",
        addresses: Mapping[str, str] | None = None,
        allow_plaintext: bool = False,
        by: str = "cli",
    ) -> Account:
        """Make an account. Raises InvalidRequestError for a bad or taken id, NotFoundError for an unknown owner.

        The id of an account that was removed is taken as long as data of another owner is kept under it; its own
        owner may take it up again.
        """
        if not _ID.fullmatch(account_id):
            raise InvalidRequestError(
                {"id": "An account id has 1 to 40 letters, digits, hyphens or underscores."}
            )

        def work(connection: Connection) -> Account:
            self._must_be_new(connection, account_id, owner)
            now = self._database.clock.time_ns()
            app = _app(broker, credentials)
            row = {
                "id": account_id,
                "broker": broker,
                "title": title or account_id,
                "owner": owner,
                "addresses": dump_mapping(addresses or {}),
                "allow_plaintext": int(allow_plaintext),
                "app": app,
                "postback_segment": self._segment_of(connection, app),
                "created_ns": now,
            }
            connection.execute(insert(schema.accounts), row)
            self._seal(connection, account_id, _CREDENTIAL, credentials)
            outbox.own(connection, account_id, owner)
            audit.record(
                connection, at_ns=now, who=by, what="account added", account=account_id, broker=broker
            )
            return _account(_must_find(connection, account_id))

        return self._database.write(work)

    def get(self, account_id: str) -> Account:
        """Return one account. Raises NotFoundError."""
        with self._database.read() as connection:
            return _account(_must_find(connection, account_id))

    def all(self) -> list[Account]:
        """Return every account by id."""
        return self._where()

    def of_owner(self, owner: str) -> list[Account]:
        """Return a user's accounts by id."""
        return self._where(schema.accounts.c.owner == owner)

    def of_postback(self, segment: str) -> list[Account]:
        """Return the accounts whose broker app posts to this path segment; empty for any other."""
        return self._where(schema.accounts.c.postback_segment == segment)

    def remove(self, account_id: str, *, by: str = "cli") -> None:
        """Forget an account and its secrets; its orders stay until erased, and its owner's. Raises NotFoundError."""

        def work(connection: Connection) -> None:
            if (
                connection.dialect.name == "postgresql"
            ):  # its owner may be writing, and holds its lease meanwhile
                connection.exec_driver_sql("SET LOCAL lock_timeout = 5000")
            _must_find(connection, account_id)
            connection.execute(delete(schema.sealed).where(schema.sealed.c.account == account_id))
            connection.execute(delete(schema.accounts).where(schema.accounts.c.id == account_id))
            for table in (
                schema.leases,
                schema.feed_states,
                schema.commands,
            ):  # its owner writes nothing more
                connection.execute(delete(table).where(table.c.account == account_id))
            now = self._database.clock.time_ns()
            audit.record(connection, at_ns=now, who=by, what="account removed", account=account_id)

        self._database.write(work)

    def erase(self, account_id: AccountId, *, by: str = "cli") -> int:
        """Delete everything kept of an account that was removed; return the rows gone (see `retention.erase`)."""
        return retention.erase(self._database, account_id, by=by)

    def change(
        self,
        account_id: str,
        *,
        credentials: Mapping[str, str] | None = None,
        addresses: Mapping[str, str] | None = None,
        allow_plaintext: bool | None = None,
        title: str | None = None,
        by: str = "cli",
    ) -> Account:
        """Change what is given and leave the rest; new credentials replace all old ones and end the login.

        Raises NotFoundError.
        """
        values: dict[str, Any] = {}
        if addresses is not None:
            values["addresses"] = dump_mapping(addresses)
        if allow_plaintext is not None:
            values["allow_plaintext"] = int(allow_plaintext)
        if title is not None:
            values["title"] = title

        def work(connection: Connection) -> Account:
            row = _must_find(connection, account_id)
            if credentials is not None:
                app = _app(row.broker, credentials)
                values.update(_LOGGED_OUT, app=app, postback_segment=self._segment_of(connection, app))
                self._seal(connection, account_id, _SESSION, {})
                former = self._former_of(connection, account_id, credentials) if app == row.app else {}
                self._seal(connection, account_id, _FORMER, former)
                self._seal(connection, account_id, _CREDENTIAL, credentials)
            if values:
                _set(connection, account_id, **values)
            now = self._database.clock.time_ns()
            changed = ", ".join(sorted(values) + ["credentials"] * (credentials is not None))
            audit.record(
                connection, at_ns=now, who=by, what="account changed", account=account_id, changed=changed
            )
            return _account(_must_find(connection, account_id))

        return self._database.write(work)

    # --- secrets --------------------------------------------------------------------------------------

    def credentials(self, account_id: str) -> dict[str, str]:
        """Return what the broker's app was given. Raises NotFoundError, SealError."""
        with self._database.read() as connection:
            _must_find(connection, account_id)
            return self._open(connection, account_id, _CREDENTIAL)

    def verifying(self, account_ids: Sequence[str]) -> list[dict[str, str]]:
        """Return what callbacks of these accounts' app may be signed with: their credentials, then former ones.

        A value that was replaced counts for `FORMER_COUNTS_FOR`. Raises SealError.
        """
        table = schema.sealed
        wanted = select(table).where(table.c.account.in_(account_ids)).order_by(table.c.account)
        with self._database.read() as connection:
            rows = connection.execute(wanted).all()
        now_ns = self._database.clock.time_ns()
        held: dict[tuple[str, str], dict[str, str]] = {}
        for row in rows:
            kind, _, name = row.field.partition(".")
            if f"{kind}." not in {_CREDENTIAL, _FORMER}:
                continue
            value = self._keyring.open(
                Sealed(key_id=row.key_id, secret=row.secret), account=row.account, field=row.field
            )
            until_ns, _, former = value.partition(" ")
            if f"{kind}." == _CREDENTIAL:
                held.setdefault((kind, row.account), {})[name] = value
            elif int(until_ns) > now_ns:
                held.setdefault((kind, row.account), {})[name] = former
        return [held[key] for key in sorted(held)]

    def login(self, account_id: str) -> Login | None:
        """Return the broker session, None while logged out; an expired one is returned as it is.

        Raises NotFoundError, SealError.
        """
        with self._database.read() as connection:
            row = _must_find(connection, account_id)
            if row.session_user is None:
                return None
            return Login(
                user_id=row.session_user,
                secrets=self._open(connection, account_id, _SESSION),
                expires_at=_moment(row.session_expires_ns),
                facts=loads(row.session_facts, dict[str, str]),
            )

    def set_login(self, account_id: str, login: Login, *, by: str = "system") -> None:
        """Keep a broker session, in place of any other. Raises NotFoundError."""

        def work(connection: Connection) -> None:
            _must_find(connection, account_id)
            self._seal(connection, account_id, _SESSION, login.secrets)
            _set(
                connection,
                account_id,
                session_user=login.user_id,
                session_facts=dumps(dict(login.facts)),
                session_expires_ns=None if login.expires_at is None else to_ns(login.expires_at),
            )
            now = self._database.clock.time_ns()
            audit.record(connection, at_ns=now, who=by, what="logged in to the broker", account=account_id)

        self._database.write(work)

    def clear_login(self, account_id: str, *, by: str = "system") -> None:
        """Forget the broker session. Raises NotFoundError."""

        def work(connection: Connection) -> None:
            _must_find(connection, account_id)
            self._seal(connection, account_id, _SESSION, {})
            _set(connection, account_id, **_LOGGED_OUT)
            now = self._database.clock.time_ns()
            audit.record(connection, at_ns=now, who=by, what="broker session ended", account=account_id)

        self._database.write(work)

    def count_by_owner(self) -> dict[str, int]:
        """Count the accounts, by user."""
        table = schema.accounts
        with self._database.read() as connection:
            rows = connection.execute(select(table.c.owner, func.count()).group_by(table.c.owner)).all()
        return {str(owner): count for owner, count in rows}

    def reseal(self, keyring: Keyring, *, by: str = "cli") -> int:
        """Seal every secret again with the newest key of `keyring`, all or none; return how many.

        Raises SealError when one of them does not open: then nothing was changed.
        """
        table = schema.sealed

        def work(connection: Connection) -> int:
            rows = connection.execute(select(table)).all()
            for row in rows:
                held = Sealed(key_id=row.key_id, secret=row.secret)
                plain = keyring.open(held, account=row.account, field=row.field)
                fresh = keyring.seal(plain, account=row.account, field=row.field)
                here = (table.c.account == row.account, table.c.field == row.field)
                connection.execute(
                    update(table).where(*here).values(key_id=fresh.key_id, secret=fresh.secret)
                )
            now = self._database.clock.time_ns()
            audit.record(connection, at_ns=now, who=by, what="secrets sealed again", key=keyring.newest)
            return len(rows)

        count = self._database.write(work)
        self._keyring = keyring
        return count

    # --- inside ---------------------------------------------------------------------------------------

    def _where(self, *conditions: Any) -> list[Account]:
        found = select(schema.accounts).where(*conditions).order_by(schema.accounts.c.id)
        with self._database.read() as connection:
            return [_account(row) for row in connection.execute(found)]

    def _must_be_new(self, connection: Connection, account_id: str, owner: str) -> None:
        if _find(connection, account_id) is not None:
            raise InvalidRequestError({"id": f"There is an account {account_id} already."})
        if (
            connection.execute(select(schema.users.c.name).where(schema.users.c.name == owner)).first()
            is None
        ):
            raise NotFoundError(f"There is no user {owner}.")
        if outbox.owner_of(connection, account_id) != owner and retention.keeps(connection, account_id):
            raise InvalidRequestError(
                {
                    "id": f"Data of an earlier account {account_id} is still kept, and it was not {owner}'s (or is just "
                    f"being erased): erase it first (orderwire erase {account_id}), or choose another id."
                }
            )

    def _segment_of(self, connection: Connection, app: str) -> str:
        table = schema.accounts
        shared = connection.execute(select(table.c.postback_segment).where(table.c.app == app)).scalar()
        return shared or self._segment()

    def _seal(self, connection: Connection, account_id: str, prefix: str, plain: Mapping[str, str]) -> None:
        """Replace the secrets of one kind."""
        table = schema.sealed
        old = (table.c.account == account_id, table.c.field.startswith(prefix, autoescape=True))
        connection.execute(delete(table).where(*old))
        for name, value in plain.items():
            sealed = self._keyring.seal(value, account=account_id, field=prefix + name)
            row = {"account": account_id, "field": prefix + name}
            connection.execute(insert(table), {**row, "key_id": sealed.key_id, "secret": sealed.secret})

    def _former_of(self, connection: Connection, account_id: str, new: Mapping[str, str]) -> dict[str, str]:
        """Return what is replaced, each with the moment (ns) until which it still counts."""
        held = self._open(connection, account_id, _CREDENTIAL)
        before = self._open(connection, account_id, _FORMER)
        until = self._database.clock.time_ns() + int(FORMER_COUNTS_FOR.total_seconds() * 1e9)
        replaced = {
            name: f"{until} {value}" for name, value in held.items() if value not in {"", new.get(name)}
        }
        return before | replaced

    def _open(self, connection: Connection, account_id: str, prefix: str) -> dict[str, str]:
        table = schema.sealed
        mine = (table.c.account == account_id, table.c.field.startswith(prefix, autoescape=True))
        rows = connection.execute(select(table).where(*mine).order_by(table.c.field)).all()
        return {
            row.field.removeprefix(prefix): self._keyring.open(
                Sealed(key_id=row.key_id, secret=row.secret), account=account_id, field=row.field
            )
            for row in rows
        }


_LOGGED_OUT: Mapping[str, None] = {"session_user": None, "session_facts": None, "session_expires_ns": None}


def _find(connection: Connection, account_id: str) -> Row[Any] | None:
    return connection.execute(select(schema.accounts).where(schema.accounts.c.id == account_id)).first()


def _must_find(connection: Connection, account_id: str) -> Row[Any]:
    row = _find(connection, account_id)
    if row is None:
        raise NotFoundError(f"There is no account {account_id}.")
    return row


def _set(connection: Connection, account_id: str, **values: Any) -> None:
    connection.execute(update(schema.accounts).where(schema.accounts.c.id == account_id).values(**values))


def _account(row: Row[Any]) -> Account:
    return Account(
        id=AccountId(row.id),
        broker=row.broker,
        title=row.title,
        owner=row.owner,
        addresses=loads(row.addresses, dict[str, str]),
        allow_plaintext=bool(row.allow_plaintext),
        postback_segment=row.postback_segment,
        session_user=row.session_user or "",
        session_expires=_moment(row.session_expires_ns),
    )


def _moment(ns: int | None) -> datetime | None:
    return None if ns is None else from_ns(ns)


def _app(broker: str, credentials: Mapping[str, str]) -> str:
    """Tell accounts of one broker app from others, without keeping the app's key in the clear."""
    named = credentials.get("api_key") or secrets.token_hex(16)
    return hashlib.sha256(f"{broker}\n{named}".encode()).hexdigest()
