"""Everything a broker told us, as it came: nothing is answered, joined or refused before it is here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, Row, func, insert, select

from orderwire.core.orders import AccountId, Channel, OrderId, OrderUpdate, session_date
from orderwire.store import schema
from orderwire.store.database import Database
from orderwire.store.encoding import dumps, from_ns, loads

MOST_POSTBACKS = 8
"""Postbacks kept for one order and broker time; a broker sends one, a replayer sends many (kite.md §4.4)."""

_TABLE = schema.inbox


class Verdict(StrEnum):
    """What became of an observation."""

    APPLIED = "applied"
    SAME = "same"
    HELD = "held"
    HINT = "hint"
    REFUSED = "refused"


class Taken(StrEnum):
    """What became of a postback."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of an order's timeline."""

    received_at: datetime
    channel: Channel
    verdict: Verdict
    note: str
    """Why it was held or refused, or what was odd about it."""
    settled_at: datetime | None
    """When the broker's book had the last word on it; None while that is open."""
    observation: OrderUpdate | None
    """None for a postback: what it claims is only in `raw`."""
    raw: bytes = field(repr=False)


# --- observations -------------------------------------------------------------------------------------


def digested(update: OrderUpdate) -> tuple[int, str]:
    """Return the dedupe mark of an observation and its text: what was said and how, not when or in which bytes."""
    text = dumps(replace(update, received_ns=0, raw=b""))
    return digest(text.encode()), text


def row(
    update: OrderUpdate, *, digest: int, text: str, verdict: Verdict, note: str = "", settled_ns: int | None
) -> dict[str, Any]:
    """Return an observation as the inbox keeps it; committed together with the state it made."""
    return {
        "account": update.account,
        "order_id": update.order_id,
        "digest": digest,
        "trading_date": update.trading_date.isoformat(),
        "channel": update.channel,
        "verdict": verdict,
        "note": note,
        "claimed_time": "",
        "received_ns": update.received_ns,
        "settled_ns": settled_ns,
        "observation": text,
        "raw": update.raw,
    }


# --- postbacks ----------------------------------------------------------------------------------------


def record(
    connection: Connection,
    *,
    account: AccountId,
    order_id: OrderId,
    claimed_time: str,
    received_ns: int,
    raw: bytes,
    note: str = "",
) -> Taken:
    """Keep a postback with a valid checksum inside the caller's transaction, before it is answered with 2xx.

    `claimed_time` is the broker's own text. The same body again is a DUPLICATE; beyond `MOST_POSTBACKS` bodies
    for one order and time nothing is kept and the answer is FULL (429).
    """
    mark = digest(b"postback\n" + raw)
    mine = (_TABLE.c.account == account, _TABLE.c.order_id == order_id)
    if connection.execute(select(_TABLE.c.id).where(*mine, _TABLE.c.digest == mark)).first():
        return Taken.DUPLICATE
    same_time = (_TABLE.c.channel == Channel.POSTBACK, _TABLE.c.claimed_time == claimed_time)
    held = connection.execute(select(func.count()).select_from(_TABLE).where(*mine, *same_time)).scalar() or 0
    if held >= MOST_POSTBACKS:
        return Taken.FULL
    connection.execute(
        insert(_TABLE),
        {
            "account": account,
            "order_id": order_id,
            "digest": mark,
            "trading_date": session_date(from_ns(received_ns)).isoformat(),
            "channel": Channel.POSTBACK,
            "verdict": Verdict.HINT,
            "note": note,
            "claimed_time": claimed_time,
            "received_ns": received_ns,
            "settled_ns": None,
            "observation": "",
            "raw": raw,
        },
    )
    return Taken.STORED


def open_hints(connection: Connection, account: AccountId) -> dict[OrderId, int]:
    """Return the account's orders with something unverified, and when the last of it was received (ns)."""
    mine = (_TABLE.c.account == account, _TABLE.c.settled_ns.is_(None))
    latest = func.max(_TABLE.c.received_ns).label("latest")
    found = select(_TABLE.c.order_id, latest).where(*mine).group_by(_TABLE.c.order_id)
    return {OrderId(row.order_id): row.latest for row in connection.execute(found)}


# --- reading ------------------------------------------------------------------------------------------


def timeline(database: Database, account: AccountId, order_id: OrderId) -> list[Entry]:
    """Return everything that was said about an order, in the order it was written down. Any thread."""
    mine = (_TABLE.c.account == account, _TABLE.c.order_id == order_id)
    with database.read() as connection:
        return [_entry(row) for row in connection.execute(select(_TABLE).where(*mine).order_by(_TABLE.c.id))]


def observations(
    database: Database, *, account: AccountId | None = None, day: date | None = None
) -> Iterator[OrderUpdate]:
    """Give back what was observed, of one account or all, on one session day or all, oldest first, as it came.

    Taking any of it in again is harmless.
    """
    kept = select(_TABLE).where(_TABLE.c.observation != "").order_by(_TABLE.c.id)
    if account is not None:
        kept = kept.where(_TABLE.c.account == account)
    if day is not None:
        kept = kept.where(_TABLE.c.trading_date == day.isoformat())
    with database.read() as connection:
        for row in connection.execution_options(yield_per=1000).execute(kept):
            yield _observation(row)


def last_applied(connection: Connection, account: AccountId, order_id: OrderId) -> OrderUpdate | None:
    """Return the newest observation that told something new."""
    mine = (_TABLE.c.account == account, _TABLE.c.order_id == order_id)
    counted = _TABLE.c.verdict == Verdict.APPLIED
    newest = select(_TABLE).where(*mine, counted).order_by(_TABLE.c.id.desc()).limit(1)
    row = connection.execute(newest).first()
    return _observation(row) if row else None


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        received_at=from_ns(row.received_ns),
        channel=Channel(row.channel),
        verdict=Verdict(row.verdict),
        note=row.note,
        settled_at=None if row.settled_ns is None else from_ns(row.settled_ns),
        observation=_observation(row) if row.observation else None,
        raw=row.raw,
    )


def _observation(row: Row[Any]) -> OrderUpdate:
    return replace(loads(row.observation, OrderUpdate), received_ns=row.received_ns, raw=row.raw)


def digest(content: bytes) -> int:
    """Return a dedupe mark."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big", signed=True)
