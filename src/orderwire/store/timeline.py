"""What happened on one account, newest first: changes told with their stamps, and what was held or refused.

For the operator, who sees how an account fares and never what is traded: no symbol, side, price or quantity.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from orderwire.core.latency import Stamps
from orderwire.core.lifecycle import OrderChange
from orderwire.core.orders import AccountId
from orderwire.store import schema
from orderwire.store.database import Database
from orderwire.store.encoding import from_ns, loads
from orderwire.store.inbox import Verdict

_ODD = (Verdict.HELD, Verdict.HINT, Verdict.REFUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One line of an account's timeline."""

    at: datetime
    what: str
    """`change`, or what became of an observation: `held`, `hint`, `refused`."""
    order_id: str
    source: str
    note: str = ""
    sequence: int = 0
    event_id: str = ""
    stamps: Stamps


def timeline(database: Database, account: AccountId, *, most: int = 100) -> list[Moment]:
    """Return the last moments of an account. Any thread."""
    log, inbox = schema.outbox, schema.inbox
    changes = select(log.c.change).where(log.c.account == account).order_by(log.c.sequence.desc()).limit(most)
    odd = (
        select(inbox.c.received_ns, inbox.c.verdict, inbox.c.order_id, inbox.c.channel, inbox.c.note)
        .where(inbox.c.account == account, inbox.c.verdict.in_(_ODD))
        .order_by(inbox.c.id.desc())
        .limit(most)
    )
    with database.read() as connection:
        told = [loads(text, OrderChange) for text in connection.execute(changes).scalars()]
        kept = connection.execute(odd).all()
    moments = [_change(change) for change in told]
    moments += [
        Moment(
            at=from_ns(row.received_ns),
            what=row.verdict,
            order_id=row.order_id,
            source=row.channel,
            note=row.note,
            stamps=Stamps(received=row.received_ns),
        )
        for row in kept
    ]
    return sorted(moments, key=lambda moment: moment.at, reverse=True)[:most]


def _change(change: OrderChange) -> Moment:
    thing = change.order or change.trade
    note = f"{change.was or 'new'} → {change.order.status}" if change.order else change.kind
    return Moment(
        at=from_ns(change.stamps.committed or change.stamps.joined),
        what="change",
        order_id=thing.order_id if thing else "",
        source=change.source,
        note=note,
        sequence=change.sequence,
        event_id=change.event_id,
        stamps=change.stamps,
    )
