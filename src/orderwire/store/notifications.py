"""What each user wants to be told and where, what is still to be told, and what could not be.

Addresses carry tokens and passwords, so they are sealed. A notification is one row for each target, written
before it is sent: a crash forgets none, and its key makes sure that none is written twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from orderwire.core.notifications import DEFAULTS, Loudness, Notification, Occasion
from orderwire.core.webhooks import make_secret
from orderwire.errors import InvalidRequestError, NotFoundError
from orderwire.logs import conceal
from orderwire.store import audit, schema
from orderwire.store.database import Database
from orderwire.store.encoding import dumps, from_ns, loads, to_ns
from orderwire.store.sealing import Keyring, Sealed

MOST_TARGETS: Final = 10
"""Places one user may be told at."""

MOST_DIGEST_SECONDS: Final = 3600
MOST_PER_MINUTE: Final = 60


class TargetKind(StrEnum):
    """How a target is reached."""

    APPRISE = "apprise"
    """A person, by one of Apprise's services; the address is Apprise's."""
    WEBHOOK = "webhook"
    """A program, by a signed HTTP POST; the address is a URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A place where a user is told; its address stays sealed."""

    id: str
    owner: str
    kind: TargetKind
    label: str
    service: str
    """The address's scheme (`tgram`, `https` …), which says what it is without telling a secret."""
    created: datetime


class State(StrEnum):
    """Where a notification stands."""

    WAITING = "WAITING"
    SENT = "SENT"
    DEAD = "DEAD"


class Preferences(Struct, frozen=True, kw_only=True):
    """How a user wants messages to come; programs' webhooks are told each thing at once whatever this says."""

    digest_seconds: int = 0
    """Collect for so long and send one message; 0: each at once. What is urgent never waits."""
    per_minute: int = 20
    """Messages a minute; what comes above that is gathered into the next one, never dropped."""
    market_hours: bool = False
    """Outside market hours, hold everything back until the market opens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One notification on its way to one target."""

    id: int
    owner: str
    target: str
    notification: Notification
    silent: bool
    state: State
    attempts: int
    queued: datetime
    due: datetime
    error: str
    """Why the last attempt failed."""


class Notifications:
    """Rules, targets and deliveries of all users. Any thread; nothing is cached, a change counts at once."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        *,
        token: Callable[[], str] = lambda: make_secret(secrets.token_bytes(32)),
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._token = token

    # --- what and how -----------------------------------------------------------------------------------

    def rules(self, owner: str) -> dict[Occasion, Loudness]:
        """Return how loud each occasion is for a user; what they never set is as `DEFAULTS` says."""
        table = schema.notification_rules
        with self._database.read() as connection:
            rows = connection.execute(select(table).where(table.c.owner == owner)).all()
        return {**DEFAULTS, **{Occasion(row.occasion): Loudness(row.loudness) for row in rows}}

    def set_rules(self, owner: str, rules: Mapping[Occasion, Loudness]) -> None:
        """Set how loud these occasions are; the others stay as they are. Raises NotFoundError for no such user."""
        table = schema.notification_rules

        def work(connection: Connection) -> None:
            _must_know(connection, owner)
            for occasion, loudness in rules.items():
                mine = (table.c.owner == owner, table.c.occasion == occasion)
                connection.execute(delete(table).where(*mine))
                row = {"owner": owner, "occasion": occasion, "loudness": loudness}
                connection.execute(insert(table), row)

        self._database.write(work)

    def preferences(self, owner: str) -> Preferences:
        """Return how messages come to a user."""
        table = schema.notification_preferences
        with self._database.read() as connection:
            body = connection.execute(select(table.c.body).where(table.c.owner == owner)).scalar()
        return loads(body, Preferences) if body else Preferences()

    def set_preferences(self, owner: str, preferences: Preferences) -> None:
        """Set how messages come. Raises InvalidRequestError naming each field, NotFoundError for no such user."""
        problems = _preference_problems(preferences)
        if problems:
            raise InvalidRequestError(problems)
        table = schema.notification_preferences

        def work(connection: Connection) -> None:
            _must_know(connection, owner)
            connection.execute(delete(table).where(table.c.owner == owner))
            connection.execute(insert(table), {"owner": owner, "body": dumps(preferences)})

        self._database.write(work)

    # --- where ------------------------------------------------------------------------------------------

    def targets(self, owner: str) -> list[Target]:
        """Return a user's targets, oldest first."""
        table = schema.notification_targets
        mine = select(table).where(table.c.owner == owner).order_by(table.c.created_ns, table.c.id)
        with self._database.read() as connection:
            return [_target(row) for row in connection.execute(mine)]

    def add_target(
        self, owner: str, *, kind: TargetKind, address: str, label: str = "", by: str = "cli"
    ) -> tuple[Target, str]:
        """Add a target and return it with the secret its webhooks are signed with (empty for a person's).

        The address's form is the caller's to check (`monitoring.targets.check_address`). Raises InvalidRequestError
        when the user has too many, NotFoundError for no such user.
        """
        secret = self._token() if kind is TargetKind.WEBHOOK else ""
        target = Target(
            id=secrets.token_hex(6),
            owner=owner,
            kind=kind,
            label=label.strip()[:100],
            service=address.split(":", 1)[0].lower(),
            created=self._database.clock.now(),
        )
        table = schema.notification_targets

        def work(connection: Connection) -> None:
            _must_know(connection, owner)
            held = select(func.count()).select_from(table).where(table.c.owner == owner)
            if (connection.execute(held).scalar() or 0) >= MOST_TARGETS:
                raise InvalidRequestError(
                    {"address": f"There are {MOST_TARGETS} targets already; remove one."}
                )
            conceal([address, secret])
            sealed = self._keyring.seal(dumps([address, secret]), **_bound_to(owner, target.id))
            row = {
                "id": target.id,
                "owner": owner,
                "kind": kind,
                "label": target.label,
                "service": target.service,
                "key_id": sealed.key_id,
                "secret": sealed.secret,
                "created_ns": to_ns(target.created),
            }
            connection.execute(insert(table), row)
            self._record(connection, by, "notification target added", owner, target)

        self._database.write(work)
        return target, secret

    def remove_target(self, target_id: str, *, owner: str, by: str = "cli") -> None:
        """Remove a target and what was on its way to it. Raises NotFoundError unless this owner has it."""
        table = schema.notification_targets

        def work(connection: Connection) -> None:
            target = _target(_must_find(connection, target_id, owner))
            connection.execute(delete(schema.notifications).where(schema.notifications.c.target == target_id))
            connection.execute(delete(table).where(table.c.id == target_id))
            self._record(connection, by, "notification target removed", owner, target)

        self._database.write(work)

    def address(self, target_id: str, *, owner: str) -> tuple[str, str]:
        """Return a target's address and signing secret, opened. Raises NotFoundError, SealError."""
        with self._database.read() as connection:
            row = _must_find(connection, target_id, owner)
        opened = self._keyring.open(
            Sealed(key_id=row.key_id, secret=row.secret), **_bound_to(owner, target_id)
        )
        address, secret = loads(opened, tuple[str, str])
        conceal([address, secret])
        return address, secret

    def reseal(self, keyring: Keyring) -> int:
        """Seal every address again with the newest key of `keyring`, all or none; return how many."""
        table = schema.notification_targets

        def work(connection: Connection) -> int:
            rows = connection.execute(select(table)).all()
            for row in rows:
                bound = _bound_to(row.owner, row.id)
                plain = keyring.open(Sealed(key_id=row.key_id, secret=row.secret), **bound)
                fresh = keyring.seal(plain, **bound)
                values = {"key_id": fresh.key_id, "secret": fresh.secret}
                connection.execute(update(table).where(table.c.id == row.id).values(**values))
            return len(rows)

        count = self._database.write(work)
        self._keyring = keyring
        return count

    # --- what is on its way -----------------------------------------------------------------------------

    def queue(self, owner: str, notification: Notification) -> int:
        """Write a notification down for each of the user's targets, by their rule; return how many are new.

        The same key is written once for each target, whoever asks again and whenever.
        """
        loudness = self.rules(owner)[notification.occasion]
        if loudness is Loudness.OFF:
            return 0
        table, now = schema.notifications, self._database.clock.time_ns()
        body = dumps(notification)

        def work(connection: Connection) -> int:
            targets = schema.notification_targets
            known = select(table.c.target).where(table.c.key == notification.key)
            wanted = select(targets.c.id).where(targets.c.owner == owner, targets.c.id.not_in(known))
            rows = [
                {
                    "key": notification.key,
                    "target": target,
                    "owner": owner,
                    "state": State.WAITING,
                    "silent": int(loudness is Loudness.SILENT),
                    "attempts": 0,
                    "queued_ns": now,
                    "due_ns": now,
                    "error": "",
                    "body": body,
                }
                for target in connection.execute(wanted).scalars()
            ]
            if rows:
                connection.execute(insert(table), rows)
            return len(rows)

        return self._database.write(work)

    def waiting(self, *, most: int = 1000) -> list[Delivery]:
        """Return what is still to be sent, due or not, oldest first."""
        table = schema.notifications
        return self._deliveries(table.c.state == State.WAITING, order=table.c.id, most=most)

    def sent(self, deliveries: Iterable[Delivery]) -> None:
        """Note that these reached their target."""
        self._settle(deliveries, state=State.SENT, error="")

    def attempt(self, deliveries: Iterable[Delivery], *, again: datetime) -> None:
        """Count an attempt, before it is made: what becomes of it, or of us, it comes again then at the latest."""
        attempts = schema.notifications.c.attempts + 1
        self._settle(deliveries, attempts=attempts, due_ns=to_ns(again), error="There was no answer.")

    def failed(self, deliveries: Iterable[Delivery], *, error: str, dead: bool = False) -> None:
        """Note why an attempt failed; `dead` makes them dead letters, shown to their owner."""
        self._settle(deliveries, error=error[:500], state=State.DEAD if dead else State.WAITING)

    def dead(self, owner: str, *, most: int = 100) -> list[Delivery]:
        """Return what could not be told a user, newest first."""
        table = schema.notifications
        mine = (table.c.state == State.DEAD, table.c.owner == owner)
        return self._deliveries(*mine, order=table.c.id.desc(), most=most)

    def recent(self, owner: str, *, most: int = 100) -> list[Delivery]:
        """Return what a user was told or is to be told, newest first."""
        table = schema.notifications
        return self._deliveries(table.c.owner == owner, order=table.c.id.desc(), most=most)

    def retry(self, delivery_id: int, *, owner: str) -> None:
        """Try a dead letter anew, from the first attempt. Raises NotFoundError unless this owner has it."""
        now = self._database.clock.time_ns()
        values = {"state": State.WAITING, "attempts": 0, "due_ns": now, "error": ""}
        self._change_dead(update(schema.notifications).values(**values), delivery_id, owner)

    def discard(self, delivery_id: int, *, owner: str) -> None:
        """Forget a dead letter. Raises NotFoundError unless this owner has it."""
        self._change_dead(delete(schema.notifications), delivery_id, owner)

    # --- inside -----------------------------------------------------------------------------------------

    def _change_dead(self, statement: Any, delivery_id: int, owner: str) -> None:
        table = schema.notifications
        this = (table.c.id == delivery_id, table.c.owner == owner, table.c.state == State.DEAD)

        def work(connection: Connection) -> None:
            if connection.execute(statement.where(*this)).rowcount == 0:
                raise NotFoundError(f"There is no undelivered notification {delivery_id}.")

        self._database.write(work)

    def _settle(self, deliveries: Iterable[Delivery], **values: Any) -> None:
        table = schema.notifications
        these = [delivery.id for delivery in deliveries]
        self._database.write(
            lambda connection: connection.execute(update(table).where(table.c.id.in_(these)).values(**values))
        )

    def _deliveries(self, *conditions: Any, order: Any, most: int) -> list[Delivery]:
        table = schema.notifications
        wanted = select(table).where(*conditions).order_by(order).limit(most)
        with self._database.read() as connection:
            return [_delivery(row) for row in connection.execute(wanted)]

    def _record(self, connection: Connection, by: str, what: str, owner: str, target: Target) -> None:
        audit.record(
            connection,
            at_ns=self._database.clock.time_ns(),
            who=by,
            what=what,
            user=owner,
            target=target.id,
            service=target.service,
        )


def _preference_problems(preferences: Preferences) -> dict[str, str]:
    problems = {}
    if not 0 <= preferences.digest_seconds <= MOST_DIGEST_SECONDS:
        problems["digest_seconds"] = f"A digest collects for 0 to {MOST_DIGEST_SECONDS} seconds."
    if not 1 <= preferences.per_minute <= MOST_PER_MINUTE:
        problems["per_minute"] = f"Choose 1 to {MOST_PER_MINUTE} messages a minute."
    return problems


def _bound_to(owner: str, target_id: str) -> dict[str, str]:
    return {"account": f"user {owner}", "field": f"notification target {target_id}"}


def _must_know(connection: Connection, owner: str) -> None:
    if connection.execute(select(schema.users.c.name).where(schema.users.c.name == owner)).first() is None:
        raise NotFoundError(f"There is no user {owner}.")


def _must_find(connection: Connection, target_id: str, owner: str) -> Row[Any]:
    table = schema.notification_targets
    row = connection.execute(select(table).where(table.c.id == target_id, table.c.owner == owner)).first()
    if row is None:
        raise NotFoundError(f"There is no notification target {target_id}.")
    return row


def _target(row: Row[Any]) -> Target:
    return Target(
        id=row.id,
        owner=row.owner,
        kind=TargetKind(row.kind),
        label=row.label,
        service=row.service,
        created=from_ns(row.created_ns),
    )


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        owner=row.owner,
        target=row.target,
        notification=loads(row.body, Notification),
        silent=bool(row.silent),
        state=State(row.state),
        attempts=row.attempts,
        queued=from_ns(row.queued_ns),
        due=from_ns(row.due_ns),
        error=row.error,
    )
