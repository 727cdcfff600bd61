"""Takes brokers' HTTP callbacks: hints, never believed by themselves, in the inbox before they are answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

import structlog
from flask import Blueprint, Flask, request
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter
from flask_wtf.csrf import CSRFProtect
from sqlalchemy import Connection

from orderwire.brokers.adapter import BrokerAdapter, PostbackHint, PostbackRequest
from orderwire.brokers.registry import BrokerRegistry
from orderwire.clock import Clock
from orderwire.core.events import Event, EventType
from orderwire.core.orders import Channel, OrderId, OrderUpdate, session_date
from orderwire.engine import EventEngine
from orderwire.errors import ProtocolViolationError, SealError, StoreError
from orderwire.feeds.fleet import Fleet
from orderwire.store import inbox
from orderwire.store.accounts import Account, Accounts
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from orderwire.store.inbox import Taken

_log = structlog.get_logger(__name__)

MOST_BYTES: Final = 65_536
LIMIT: Final = "200 per second; 3000 per minute"
"""Per address. Brokers post from few, and a bad body costs a checksum."""

_OK: Final = ("", 200)
_UNKNOWN: Final = ("", 404)
_BAD: Final = ("", 400)
_TOO_LARGE: Final = ("", 413)
_TOO_MANY: Final = ("", 429)
"""What strangers get to read: nothing. A 429 asks the sender to try again, where it does."""


@dataclass(slots=True)
class PostbackCounts:
    """What became of the callbacks so far, by word. Any thread."""

    counts: Counter[str] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)  # guards `counts`

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


class Postbacks:
    """`POST /postback/<broker>/<segment>`: verify, keep, answer; then ask the broker whether it is so."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        brokers: BrokerRegistry,
        database: Database,
        engine: EventEngine,
        book: OrderBook,
        fleet: Fleet,
        clock: Clock,
    ) -> None:
        self.counts = PostbackCounts()
        self._accounts = accounts
        self._brokers = brokers
        self._database = database
        self._engine = engine
        self._book = book
        self._fleet = fleet
        self._clock = clock

    def attach(self, app: Flask, *, limiter: Limiter, csrf: CSRFProtect) -> None:
        """Register the route. It has no session: the unguessable segment and the checksum are its keys."""
        routes = Blueprint("postbacks", __name__)
        view = limiter.limit(LIMIT)(self.take)
        routes.add_url_rule("/postback/<broker>/<segment>", "take", view, methods=["POST"])
        csrf.exempt(routes)
        app.register_blueprint(routes)

    def take(self, broker: str, segment: str) -> ResponseReturnValue:
        """Answer 200 for what is in the inbox now, 404, 400, 413 or 429 for everything else; never a 5xx."""
        kind = self._brokers.classes.get(broker)
        try:
            mine = self._accounts.of_postback(segment)
            if kind is None or not kind.has_postback or not mine or mine[0].broker != broker:
                return self._answer("unknown", _UNKNOWN)
            body = _body()
            if body is None:
                return self._answer("too large", _TOO_LARGE)
            hint = kind.read_postback(_asked(body), secrets=self._secrets(kind, mine))
            return self._keep(self._holders(mine, hint.order_id), hint, body)
        except ProtocolViolationError as error:
            _log.warning("postback refused", broker=broker, reason=str(error))
            return self._answer("refused", _BAD)
        except (StoreError, SealError) as error:
            _log.warning("postback not kept", broker=broker, error=type(error).__name__)
            return self._answer("not kept", _TOO_MANY)

    def _holders(self, mine: Sequence[Account], order_id: OrderId) -> Sequence[Account]:
        """Return whose order it is, from our own record; an order nobody knows yet may be anybody's.

        What the body says of its user is not covered by the checksum and counts for nothing (kite.md §4.4).
        """
        known = [account for account in mine if self._book.current(account.id, order_id) is not None]
        return known or mine

    def _keep(self, holders: Sequence[Account], hint: PostbackHint, body: bytes) -> ResponseReturnValue:
        received_ns = self._clock.time_ns()

        def work(connection: Connection) -> list[Taken]:
            return [
                inbox.record(
                    connection,
                    account=account.id,
                    order_id=hint.order_id,
                    claimed_time=hint.broker_time,
                    received_ns=received_ns,
                    raw=body,
                )
                for account in holders
            ]

        results = self._database.write(work)
        for account, taken in zip(holders, results, strict=True):
            if taken is Taken.STORED:
                self._tell(account, hint, received_ns)
        best = min(results, key=list(Taken).index)
        return self._answer(best.value, _TOO_MANY if best is Taken.FULL else _OK)

    def _tell(self, account: Account, hint: PostbackHint, received_ns: int) -> None:
        """Say that the order is being checked, and have it checked."""
        self._engine.put(Event(EventType.ORDER_UPDATE, self._claim(account, hint, received_ns)))
        self._fleet.hint(account.id, hint.order_id, "hint: a postback came")

    def _claim(self, account: Account, hint: PostbackHint, received_ns: int) -> OrderUpdate:
        """Return the tier C observation: which order, and nothing of what the postback claims about it."""
        return OrderUpdate(
            account=account.id,
            broker=account.broker,
            order_id=hint.order_id,
            channel=Channel.POSTBACK,
            trading_date=session_date(self._clock.now()),
            raw_status="",
            status=None,
            phase=-1,
            symbol="",
            exchange="",
            side="",
            order_type="",
            product="",
            quantity=0,
            received_ns=received_ns,
        )

    def _secrets(self, kind: type[BrokerAdapter], mine: Sequence[Account]) -> list[str]:
        """Return the app's secrets: accounts that share a segment share the app, but one may be newer."""
        names = [field.name for field in kind.credential_fields if field.secret]
        held = [self._accounts.credentials(account.id) for account in mine]
        return list(dict.fromkeys(secret for one in held for name in names if (secret := one.get(name))))

    def _answer(self, what: str, answer: ResponseReturnValue) -> ResponseReturnValue:
        self.counts.count(what)
        return answer


def _body() -> bytes | None:
    """Read the raw body whatever its Content-Type (kite.md §4); None when it is larger than allowed."""
    if (request.content_length or 0) > MOST_BYTES:
        return None
    request.max_content_length = (
        MOST_BYTES + 1
    )  # the app's own limit would cut a body without a length silently
    body = request.stream.read(MOST_BYTES + 1)
    return None if len(body) > MOST_BYTES else body


def _asked(body: bytes) -> PostbackRequest:
    return PostbackRequest(
        body=body, headers={name.lower(): value for name, value in request.headers.items()}
    )
