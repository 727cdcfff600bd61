"""Our own requests: written down before they are sent, and never sent twice."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Connection, select

from orderwire.core.lifecycle import Submission, SubmissionState
from orderwire.core.orders import AccountId
from orderwire.errors import StoreError
from orderwire.store import schema
from orderwire.store.database import Database
from orderwire.store.encoding import dumps, loads

_S = SubmissionState

_FOLLOWS: Final[Mapping[SubmissionState | None, frozenset[SubmissionState]]] = MappingProxyType(
    {
        None: frozenset(_S),
        _S.SENDING: frozenset({_S.ACCEPTED, _S.REFUSED, _S.UNKNOWN}),
        _S.UNKNOWN: frozenset({_S.ACCEPTED, _S.REFUSED}),
        _S.ACCEPTED: frozenset[SubmissionState](),
        _S.REFUSED: frozenset[SubmissionState](),
    }
)


class AlreadySubmittedError(StoreError):
    """An order was submitted under this idempotency key before; nothing was sent again."""

    def __init__(self, submission: Submission) -> None:
        """`submission`: the one that has the key."""
        self.submission = submission
        super().__init__()


def follows(held: Submission | None, said: Submission) -> bool:
    """Whether `said` tells something new about a submission; what was decided is never undone. Pure.

    An ACCEPTED one learns its order id once: by the broker's reply or by the tag in the book, whichever comes
    first, and the reply is right where they differ.
    """
    if said.state in _FOLLOWS[held.state if held else None]:
        return True
    accepted = held is not None and held.state is _S.ACCEPTED and said.state is _S.ACCEPTED
    return accepted and held is not None and bool(said.order_id) and said.order_id != held.order_id


def row(submission: Submission, trading_date: date) -> dict[str, Any]:
    """Return the submission as its table's row, without the sequence."""
    return {
        "id": submission.id,
        "account": submission.account,
        "trading_date": trading_date.isoformat(),
        "state": submission.state,
        "order_id": submission.order_id,
        "idempotency_key": submission.idempotency_key or None,
        "body": dumps(submission),
    }


def open_submissions(database: Database, account: AccountId | None = None) -> list[Submission]:
    """Return the submissions of which nobody knows what became of them: SENDING and UNKNOWN, oldest first."""
    table = schema.submissions
    undecided = select(table.c.body).where(table.c.state.in_(("SENDING", "UNKNOWN")))
    if account is not None:
        undecided = undecided.where(table.c.account == account)
    with database.read() as connection:
        found = [loads(body, Submission) for body in connection.execute(undecided).scalars()]
    return sorted(found, key=lambda submission: (submission.created, submission.id))


def submission_for_key(database: Database, account: AccountId, idempotency_key: str) -> Submission | None:
    """Return the account's submission made under this idempotency key, None when it is new. Any thread."""
    with database.read() as connection:
        return find_by_key(connection, account, idempotency_key)


def submission_of(database: Database, submission_id: str) -> Submission | None:
    """Return a submission as it is written down now, None when there is none of this id. Any thread."""
    table = schema.submissions
    with database.read() as connection:
        body = connection.execute(select(table.c.body).where(table.c.id == submission_id)).scalar()
    return loads(body, Submission) if body is not None else None


def find_by_key(connection: Connection, account: AccountId, idempotency_key: str) -> Submission | None:
    """As `submission_for_key`, on the caller's connection."""
    table = schema.submissions
    mine = (table.c.account == account, table.c.idempotency_key == idempotency_key)
    body = connection.execute(select(table.c.body).where(*mine)).scalar()
    return loads(body, Submission) if body is not None else None
