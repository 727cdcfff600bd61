"""Takes brokers' HTTP callbacks: hints, never believed by themselves, in the inbox before they are answered."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import Connection

from orderwire.brokers.adapter import BrokerAdapter, PostbackHint, PostbackRequest
from orderwire.brokers.registry import BrokerRegistry
from orderwire.clock import Clock
from orderwire.core.events import Event, EventType
from orderwire.core.orders import AccountId, Channel, OrderId, OrderUpdate, session_date
from orderwire.errors import ProtocolViolationError, SealError, StoreError
from orderwire.feeds.fleet import Fleet
from orderwire.store import inbox
from orderwire.store.accounts import Account, Accounts
from orderwire.store.database import Database
from orderwire.store.inbox import Taken
from orderwire.web.claims import Claim, Claims
from orderwire.web.ports import Book, Events

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = structlog.get_logger(__name__)

PATH: Final = "/postback/"
MOST_BYTES: Final = 65_536

MOST_ASKED: Final = 8
"""Accounts whose books are read for one order that none of them is known to have."""

MOST_REMEMBERED: Final = 4_096
"""Bodies whose repetition is answered without the database."""

APPS_ARE_FRESH: Final = 1.0
"""Seconds for which accounts and secrets are not read from the database again, whoever knocks."""

HandOver = Callable[[Connection, AccountId, PostbackHint, PostbackRequest, int], None]
"""Writes down, in the inbox's transaction, that an account's owner is to verify a postback."""

_LENGTH: Final = re.compile(r"[0-9]{1,18}", re.ASCII)

_OK: Final = "200 OK"
_BAD: Final = "400 Bad Request"
_UNKNOWN: Final = "404 Not Found"
_NOT_ALLOWED: Final = "405 Method Not Allowed"
_TOO_LARGE: Final = "413 Content Too Large"
_TOO_MANY: Final = "429 Too Many Requests"
"""What strangers get to read, and nothing more. A 429 asks the sender to try again, where it does."""


@dataclass(slots=True)
class PostbackCounts:
    """What became of the callbacks so far, by word. Any thread."""

    counts: Counter[str] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)  # guards `counts`

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PostbackApp:
    """One broker app that posts here: its accounts, and its secrets in force (two while one is replaced)."""

    kind: type[BrokerAdapter]
    accounts: Sequence[Account]
    secrets: Sequence[str] = field(repr=False)


class PostbackApps:
    """The apps by the unguessable segment of their path; a stranger's guess costs a look into a dictionary."""

    def __init__(self, *, accounts: Accounts, brokers: BrokerRegistry, clock: Clock) -> None:
        self._accounts = accounts
        self._brokers = brokers
        self._clock = clock
        self._lock = Lock()  # guards the three below
        self._paths: Mapping[tuple[str, str], list[Account]] = {}
        self._apps: dict[tuple[str, str], PostbackApp] = {}
        self._stale_at = 0.0

    def find(self, broker: str, segment: str) -> PostbackApp | None:
        """Return the app that posts there, as it was a second ago at most. Raises StoreError, SealError."""
        path = (broker, segment)
        with self._lock:
            now = self._clock.monotonic()
            if now >= self._stale_at:
                self._paths, self._apps = self._load(), {}
                self._stale_at = now + APPS_ARE_FRESH
            if path in self._paths and path not in self._apps:
                self._apps[path] = self._app(self._brokers.classes[broker], self._paths[path])
            return self._apps.get(path)

    def _load(self) -> Mapping[tuple[str, str], list[Account]]:
        paths = defaultdict(list)
        for account in self._accounts.all():
            kind = self._brokers.classes.get(account.broker)
            if kind is not None and kind.has_postback:
                paths[account.broker, account.postback_segment].append(account)
        return dict(paths)

    def _app(self, kind: type[BrokerAdapter], mine: Sequence[Account]) -> PostbackApp:
        """Accounts that share a segment share the app, but one may know a newer secret than another."""
        names = [field.name for field in kind.credential_fields if field.secret]
        held = self._accounts.verifying([account.id for account in mine])
        secrets = dict.fromkeys(secret for one in held for name in names if (secret := one.get(name)))
        return PostbackApp(kind=kind, accounts=mine, secrets=list(secrets))


class _Answered:
    """Remembers the bodies that are in the inbox, so that a replayer costs a hash. Any thread."""

    def __init__(self) -> None:
        self._lock = Lock()  # guards `_bodies`
        self._bodies: OrderedDict[bytes, Taken] = OrderedDict()

    def get(self, digest: bytes) -> Taken | None:
        with self._lock:
            return self._bodies.get(digest)

    def put(self, digest: bytes, taken: Taken) -> None:
        with self._lock:
            self._bodies[digest] = taken
            while len(self._bodies) > MOST_REMEMBERED:
                self._bodies.popitem(last=False)


class Sparing:
    """Says when something that strangers can cause may be logged: ten times a second, then it is only counted."""

    def __init__(self, clock: Clock, *, most: int = 10) -> None:
        self._clock = clock
        self._most = most
        self._lock = Lock()  # guards the three below
        self._ends_at = 0.0
        self._said = 0
        self._unsaid = 0

    def take(self) -> int | None:
        """Return how many were kept quiet since the last one that was not, or None to keep quiet about this one."""
        now = self._clock.monotonic()
        with self._lock:
            if now >= self._ends_at:
                self._ends_at, self._said = now + 1.0, 0
            if self._said >= self._most:
                self._unsaid += 1
                return None
            self._said += 1
            unsaid, self._unsaid = self._unsaid, 0
            return unsaid


class Postbacks:
    """`POST /postback/<broker>/<segment>`: verify, keep, answer; then ask the broker whether it is so.

    It stands before the web framework: a callback needs no session, no form and no template, and a flood of forged
    ones must cost the pages as little as possible. The unguessable segment and the checksum are its keys.
    """

    def __init__(
        self,
        *,
        accounts: Accounts,
        brokers: BrokerRegistry,
        database: Database,
        engine: Events,
        book: Book,
        fleet: Fleet | None,
        clock: Clock,
        hand_over: HandOver | None = None,
        handed_over: Callable[[list[AccountId]], None] = lambda _accounts: None,
    ) -> None:
        """Without a `fleet` nothing is verified here: `hand_over` writes down what the account's owner is told.

        `handed_over` is told whose owners may look: it is committed.
        """
        self.counts = PostbackCounts()
        self._accounts = accounts
        self._apps = PostbackApps(accounts=accounts, brokers=brokers, clock=clock)
        self._answered = _Answered()
        self._refusals = Sparing(clock)
        self._claims = Claims(current=book.current, hint=self._hint, count=self.counts.count)
        self._hand_over = hand_over
        self._handed_over = handed_over
        self._database = database
        self._engine = engine
        self._book = book
        self._fleet = fleet
        self._clock = clock

    def attach(self, engine: Events) -> None:
        """Register with the engine: what is claimed is compared with what the book says."""
        engine.register(EventType.BOOK_VERIFIED, self._claims.on_verified)

    def take(self, environ: WSGIEnvironment) -> str:
        """Return 200 for what is in the inbox now, 4xx for everything else; never a 5xx."""
        broker, _, segment = environ["PATH_INFO"].removeprefix(PATH).partition("/")
        try:
            return self._take(broker, segment, environ)
        except ProtocolViolationError as error:
            if (unsaid := self._refusals.take()) is not None:
                _log.warning("postback refused", broker=broker[:20], reason=str(error), unsaid=unsaid)
            return self._answer("refused", _BAD)
        except (StoreError, SealError) as error:
            _log.warning("postback not kept", broker=broker[:20], error=type(error).__name__)
            return self._answer("not kept", _TOO_MANY)
        except OSError:  # the sender went away, or sent no HTTP
            return self._answer("broken off", _BAD)

    def _take(self, broker: str, segment: str, environ: WSGIEnvironment) -> str:
        app = self._apps.find(broker, segment)
        if app is None:
            return self._answer("unknown", _UNKNOWN)
        if environ.get("REQUEST_METHOD") != "POST":
            return self._answer("not posted", _NOT_ALLOWED)
        body = _body(environ)
        if body is None:
            return self._answer("too large", _TOO_LARGE)
        digest = hashlib.blake2b(body, digest_size=16, key=segment.encode()[:64]).digest()
        before = self._answered.get(digest)
        if before is not None:
            return self._reply(before)
        asked = PostbackRequest(body=body, headers=_headers(environ))
        hint = app.kind.read_postback(asked, secrets=app.secrets)
        taken = self._keep(self._holders(app.accounts, hint.order_id), hint, asked)
        self._answered.put(digest, Taken.FULL if taken is Taken.FULL else Taken.DUPLICATE)
        return self._reply(taken)

    def _reply(self, taken: Taken) -> str:
        return self._answer(taken.value, _TOO_MANY if taken is Taken.FULL else _OK)

    def _holders(self, mine: Sequence[Account], order_id: OrderId) -> Sequence[Account]:
        """Return whose order it is by our own record; of one nobody knows yet, whoever has an order in flight.

        What the body says of its user is not covered by the checksum and counts for nothing (kite.md §4.4). Where
        nothing is in flight it was placed elsewhere: then every account is asked, if they are few.
        """
        known = [account for account in mine if self._book.current(account.id, order_id) is not None]
        if known:
            return known
        waiting = [account for account in mine if self._book.open_orders(account.id)]
        return (waiting or mine)[:MOST_ASKED]

    def _keep(self, holders: Sequence[Account], hint: PostbackHint, asked: PostbackRequest) -> Taken:
        received_ns = self._clock.time_ns()

        def record(connection: Connection, account: Account) -> Taken:
            taken = inbox.record(
                connection,
                account=account.id,
                order_id=hint.order_id,
                claimed_time=hint.broker_time,
                received_ns=received_ns,
                raw=asked.body,
            )
            if taken is Taken.STORED and self._hand_over is not None:
                self._hand_over(connection, account.id, hint, asked, received_ns)
            return taken

        def work(connection: Connection) -> list[Taken]:
            return [record(connection, account) for account in holders]

        results = self._database.write(work)
        stored = [one for one, taken in zip(holders, results, strict=True) if taken is Taken.STORED]
        if self._hand_over is not None:
            self._handed_over([account.id for account in stored])
        for account in stored if self._hand_over is None else ():
            self._tell(account, hint, asked, received_ns)
        return min(results, key=list(Taken).index)

    def verify(
        self, account: AccountId, hint: PostbackHint, asked: PostbackRequest, received_ns: int
    ) -> None:
        """Have a postback checked that another process has written into the inbox. Any thread."""
        self._tell(self._accounts.get(account), hint, asked, received_ns)

    def _hint(self, account: AccountId, order_id: OrderId, reason: str) -> None:
        if self._fleet is not None:
            self._fleet.hint(account, order_id, reason)

    def _tell(self, account: Account, hint: PostbackHint, asked: PostbackRequest, received_ns: int) -> None:
        """Say that the order is being checked, and have it checked."""
        self._remember(account, hint, asked, received_ns)
        self._engine.put(Event(EventType.ORDER_UPDATE, self._bare(account, hint, received_ns)))
        self._hint(account.id, hint.order_id, "hint: a postback came")

    def _remember(
        self, account: Account, hint: PostbackHint, asked: PostbackRequest, received_ns: int
    ) -> None:
        """Keep what is claimed for the comparison with the book; without a feed nothing is going to be read."""
        adapter = self._fleet.find(account.id) if self._fleet is not None else None
        if adapter is None:
            return
        try:
            said = adapter.read_claim(asked)
        except ProtocolViolationError:
            said = None
        claim = Claim(
            account=account.id,
            broker=account.broker,
            order_id=hint.order_id,
            received_ns=received_ns,
            said=said,
        )
        self._claims.add(claim)

    def _bare(self, account: Account, hint: PostbackHint, received_ns: int) -> OrderUpdate:
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

    def _answer(self, what: str, answer: str) -> str:
        self.counts.count(what)
        return answer


@dataclass(frozen=True, slots=True)
class PostbacksFirst:
    """Takes callbacks, and hands everything else on to the application."""

    postbacks: Postbacks
    app: WSGIApplication

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environ.get("PATH_INFO", "").startswith(PATH):
            return self.app(environ, start_response)
        start_response(self.postbacks.take(environ), [("Content-Length", "0"), ("Cache-Control", "no-store")])
        return []


def _body(environ: WSGIEnvironment) -> bytes | None:
    """Read the raw body whatever its Content-Type (kite.md §4); None when it is larger than allowed."""
    length = environ.get("CONTENT_LENGTH") or ""
    if length and not _LENGTH.fullmatch(length):
        raise ProtocolViolationError("the postback's length is no number")
    if length and int(length) > MOST_BYTES:
        return None
    # without a length, only a server that marks the end of a chunked body lets us read as far as that
    unmeasured = MOST_BYTES + 1 if environ.get("wsgi.input_terminated") else 0
    body: bytes = environ["wsgi.input"].read(int(length) if length else unmeasured)
    return None if len(body) > MOST_BYTES else body


def _headers(environ: WSGIEnvironment) -> dict[str, str]:
    return {
        name[5:].lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("HTTP_") and isinstance(value, str)
    }
