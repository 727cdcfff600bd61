"""What was raised and cleared, when, who was told, and who asked for silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from orderwire.core.alerts import RULES, Alert, Notice, Silence
from orderwire.errors import InvalidRequestError, NotFoundError
from orderwire.store import audit, schema
from orderwire.store.database import Database
from orderwire.store.encoding import from_ns

_TABLE = schema.alerts
_SILENCES = schema.alert_silences

NOTICE = "notice"
"""The severity under which a `Notice` is kept: it is raised and never cleared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertEntry:
    """One line of the history."""

    id: int
    rule: str
    """The rule's name, or a notice's kind."""
    severity: str
    broker: str
    account: str
    text: str
    raised_at: datetime
    cleared_at: datetime | None
    """None while it is raised; a notice is never cleared."""
    told: str
    """Which channels delivered it, or why one could not."""


def keep_raised(connection: Connection, alert: Alert, at_ns: int) -> None:
    """Note inside the caller's transaction that an alert was raised."""
    _insert(
        connection,
        rule=alert.rule,
        severity=alert.severity,
        broker=alert.broker,
        text=alert.text,
        at_ns=at_ns,
    )


def keep_notice(connection: Connection, notice: Notice, at_ns: int) -> None:
    """Note inside the caller's transaction something that somebody should look at."""
    _insert(
        connection,
        rule=notice.kind,
        severity=NOTICE,
        broker=notice.broker,
        account=notice.account,
        text=f"{notice.text} (order {notice.order_id})" if notice.order_id else notice.text,
        at_ns=at_ns,
        cleared_ns=at_ns,
    )


def keep_cleared(connection: Connection, alert: Alert, at_ns: int) -> None:
    """Note inside the caller's transaction that an alert was cleared."""
    mine = (_TABLE.c.rule == alert.rule, _TABLE.c.broker == alert.broker, _TABLE.c.cleared_ns.is_(None))
    connection.execute(update(_TABLE).where(*mine).values(cleared_ns=at_ns))


def keep_told(connection: Connection, alerts: Sequence[Alert], what: str) -> None:
    """Note inside the caller's transaction what became of telling people of these alerts."""
    for alert in alerts:
        mine = (_TABLE.c.rule == alert.rule, _TABLE.c.broker == alert.broker)
        newest = select(_TABLE.c.id).where(*mine).order_by(_TABLE.c.id.desc()).limit(1).scalar_subquery()
        connection.execute(update(_TABLE).where(_TABLE.c.id == newest).values(told=what))


def close_open(connection: Connection, at_ns: int) -> int:
    """Clear what the last process left raised: this one raises anew what is still so. Return how many."""
    left = update(_TABLE).where(_TABLE.c.cleared_ns.is_(None)).values(cleared_ns=at_ns)
    return connection.execute(left).rowcount


def history(database: Database, *, most: int = 100, skip: int = 0) -> list[AlertEntry]:
    """Return the newest entries first, after `skip` of them. Any thread."""
    wanted = select(_TABLE).order_by(_TABLE.c.id.desc()).limit(most).offset(skip)
    with database.read() as connection:
        return [_entry(row) for row in connection.execute(wanted)]


# --- silence ----------------------------------------------------------------------------------------------


def silence(database: Database, silence: Silence) -> None:
    """Keep people from being told of a rule's alerts for a while; audited. Raises NotFoundError for no rule."""
    if silence.rule not in {rule.name for rule in RULES}:
        raise NotFoundError(f"There is no alert {silence.rule}.")
    now = database.clock.time_ns()
    if silence.until_ns <= now:
        raise InvalidRequestError({"until": "A silence ends in the future."})

    def work(connection: Connection) -> None:
        _end(connection, silence.rule, silence.broker)
        row = {
            "rule": silence.rule,
            "broker": silence.broker,
            "until_ns": silence.until_ns,
            "who": silence.by,
            "reason": silence.reason,
        }
        connection.execute(insert(_SILENCES), row)
        until = from_ns(silence.until_ns).isoformat()
        audit.record(
            connection,
            at_ns=now,
            who=silence.by,
            what="alert silenced",
            alert=silence.rule,
            broker=silence.broker,
            until=until,
            reason=silence.reason,
        )

    database.write(work)


def unsilence(database: Database, rule: str, *, broker: str = "", by: str) -> bool:
    """End a silence; audited. False when there was none."""

    def work(connection: Connection) -> bool:
        ended = _end(connection, rule, broker)
        if ended:
            at_ns = database.clock.time_ns()
            audit.record(
                connection, at_ns=at_ns, who=by, what="alert silence ended", alert=rule, broker=broker
            )
        return bool(ended)

    return database.write(work)


def silences(database: Database) -> list[Silence]:
    """Return the silences in force. Any thread."""
    with database.read() as connection:
        rows = connection.execute(select(_SILENCES).where(_SILENCES.c.until_ns > database.clock.time_ns()))
        return [
            Silence(rule=row.rule, broker=row.broker, until_ns=row.until_ns, by=row.who, reason=row.reason)
            for row in rows
        ]


def _end(connection: Connection, rule: str, broker: str) -> int:
    mine = (_SILENCES.c.rule == rule, _SILENCES.c.broker == broker)
    return connection.execute(delete(_SILENCES).where(*mine)).rowcount


def _insert(connection: Connection, *, at_ns: int, **columns: Any) -> None:
    row = {"account": "", "cleared_ns": None, "told": "", **columns, "raised_ns": at_ns}
    connection.execute(insert(_TABLE), row)


def _entry(row: Row[Any]) -> AlertEntry:
    return AlertEntry(
        id=row.id,
        rule=row.rule,
        severity=row.severity,
        broker=row.broker,
        account=row.account,
        text=row.text,
        raised_at=from_ns(row.raised_ns),
        cleared_at=from_ns(row.cleared_ns) if row.cleared_ns is not None else None,
        told=row.told,
    )
