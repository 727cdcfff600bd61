"""What a process without feeds asks of an account's owner: each request as a value that knows how it is carried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final, Generic, TypeVar

import msgspec
from msgspec import Struct

from orderwire.brokers.adapter import PostbackHint, PostbackRequest
from orderwire.brokers.checklist import Finding
from orderwire.core.books import BookRows, odd_rows
from orderwire.core.lifecycle import Submission
from orderwire.core.orders import (
    AccountId,
    Funds,
    Holding,
    ModifyRequest,
    OrderId,
    OrderRequest,
    Position,
)
from orderwire.decoding import decode
from orderwire.errors import (
    UNDECODABLE,
    BrokerError,
    BrokerUnreachableError,
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    OrderRefusedError,
    OrderwireError,
    PermissionRefusedError,
    ProtocolViolationError,
    RateLimitedError,
    SessionExpiredError,
    StoreBusyError,
    StoreError,
)
from orderwire.feeds.desk import Desk
from orderwire.feeds.fleet import Fleet

V = TypeVar("V")

TakePostback = Callable[[AccountId, PostbackHint, PostbackRequest, int], None]


@dataclass(slots=True, kw_only=True)
class Counter:
    """What a request is carried out with."""

    desk: Desk
    fleet: Fleet
    take_postback: TakePostback | None = None


class LoggedIn(Struct, frozen=True, kw_only=True):
    """What a login brought, without its secrets."""

    user_id: str
    expires_at: datetime | None


class Request(Struct, frozen=True, kw_only=True, tag_field="what", tag=True):
    """Something to be done for one account."""

    ANSWER: ClassVar[Any] = None
    """The type of its answer."""
    sends: ClassVar[bool] = False
    """It may send something to the broker that must not be sent twice."""

    def perform(self, counter: Counter, account: AccountId, command_id: str) -> Any:
        """Do it and return the answer. Raises OrderwireError. A web thread's work: it may wait for the broker."""
        raise NotImplementedError


class Place(Request, frozen=True, kw_only=True):
    """Place an order, under the command's id as its tag."""

    ANSWER: ClassVar[Any] = Submission
    sends: ClassVar[bool] = True
    order: OrderRequest
    key: str = ""

    def perform(self, counter: Counter, account: AccountId, command_id: str) -> Any:
        return counter.desk.place(account, self.order, idempotency_key=self.key, tag=command_id)


class Modify(Request, frozen=True, kw_only=True):
    """Ask for new terms of an order."""

    ANSWER: ClassVar[Any] = OrderId
    sends: ClassVar[bool] = True
    terms: ModifyRequest

    def perform(self, counter: Counter, account: AccountId, command_id: str) -> Any:  # noqa: ARG002
        return counter.desk.modify(account, self.terms)


class Cancel(Request, frozen=True, kw_only=True):
    """Ask for an order's cancellation."""

    ANSWER: ClassVar[Any] = OrderId
    sends: ClassVar[bool] = True
    order_id: str

    def perform(self, counter: Counter, account: AccountId, command_id: str) -> Any:  # noqa: ARG002
        return counter.desk.cancel(account, OrderId(self.order_id))


class Rows(Struct, Generic[V], frozen=True, kw_only=True):
    """The rows of a book, and of those that could not be read why not."""

    rows: list[V]
    odd: list[str]

    @classmethod
    def of(cls, book: Sequence[V]) -> Rows[V]:
        """Return what an adapter read, to be sent."""
        return Rows(rows=list(book), odd=[str(error) for error in odd_rows(book)])

    def book(self) -> BookRows[V]:
        """Return it as the adapter read it."""
        return BookRows(self.rows, odd=[ProtocolViolationError(why) for why in self.odd])


class ReadPositions(Request, frozen=True, kw_only=True):
    """Read the net positions."""

    ANSWER: ClassVar[Any] = Rows[Position]

    def perform(self, counter: Counter, account: AccountId, command_id: str) -> Any:  # noqa: ARG002
        return Rows.of(counter.desk.positions(account))


class ReadHoldings(Request, frozen=True, kw_only=True):
    """Read what the demat account holds."""

    ANSWER: ClassVar[Any] = Rows[Holding]

    def perform(self, counter: Counter, account: AccountId, command_id: str) -> Any:  # noqa: ARG002
        return Rows.of(counter.desk.holdings(account))


class ReadFunds(Request, frozen=True, kw_only=True):
    """Read the account's money."""

    ANSWER: ClassVar[Any] = Funds

    def perform(self, counter: Counter, account: AccountId, command_id: str) -> Any:  # noqa: ARG002
        return counter.desk.funds(account)


class ReadFreeze(Request, frozen=True, kw_only=True):
    """Say how much one order may have."""

    ANSWER: ClassVar[Any] = int
    exchange: str
    symbol: str

    def perform(self, counter: Counter, account: AccountId, command_id: str) -> Any:  # noqa: ARG002
        return counter.desk.freeze_quantity(account, self.exchange, self.symbol)


class LoginUrl(Request, frozen=True, kw_only=True):
    """Say where the user logs in."""

    ANSWER: ClassVar[Any] = str | None
    state: str

    def perform(self, counter: Counter, account: AccountId, command_id: str) -> Any:  # noqa: ARG002
        return counter.fleet.login_url(account, state=self.state)


class LogIn(Request, frozen=True, kw_only=True):
    """Log the account in."""

    ANSWER: ClassVar[Any] = LoggedIn
    sends: ClassVar[bool] = True
    grant: dict[str, str]

    def perform(self, counter: Counter, account: AccountId, command_id: str) -> Any:  # noqa: ARG002
        session = counter.fleet.login(account, self.grant)
        return LoggedIn(user_id=session.user_id, expires_at=session.expires_at)


class Refresh(Request, frozen=True, kw_only=True):
    """Read the order book now."""

    ANSWER: ClassVar[Any] = None

    def perform(self, counter: Counter, account: AccountId, command_id: str) -> Any:  # noqa: ARG002
        counter.fleet.refresh(account)


class Restart(Request, frozen=True, kw_only=True):
    """Start the feed anew, with the settings the account has now."""

    ANSWER: ClassVar[Any] = None

    def perform(self, counter: Counter, account: AccountId, command_id: str) -> Any:  # noqa: ARG002
        counter.fleet.add(account)


class CheckUp(Request, frozen=True, kw_only=True):
    """Ask the broker its first-day questions."""

    ANSWER: ClassVar[Any] = list[Finding]
    seconds: float

    def perform(self, counter: Counter, account: AccountId, command_id: str) -> Any:  # noqa: ARG002
        return counter.fleet.check_up(account, seconds=self.seconds)


class TakePostbackRequest(Request, frozen=True, kw_only=True):
    """Take a postback that another process has verified and written into the inbox."""

    ANSWER: ClassVar[Any] = None
    order_id: str
    broker_time: str
    claims: dict[str, str]
    body: bytes
    headers: dict[str, str]
    received_ns: int

    def perform(self, counter: Counter, account: AccountId, command_id: str) -> Any:  # noqa: ARG002
        if counter.take_postback is not None:
            hint = PostbackHint(
                order_id=OrderId(self.order_id), broker_time=self.broker_time, claims=self.claims
            )
            asked = PostbackRequest(body=self.body, headers=self.headers)
            counter.take_postback(account, hint, asked, self.received_ns)


_ANY: Final = (
    Place
    | Modify
    | Cancel
    | ReadPositions
    | ReadHoldings
    | ReadFunds
    | ReadFreeze
    | LoginUrl
    | LogIn
    | Refresh
    | Restart
    | CheckUp
    | TakePostbackRequest
)


def packed(request: Request) -> str:
    """Return a request as its command's body."""
    return msgspec.json.encode(request).decode()


def unpacked(body: str) -> Request:
    """Return the request of a command. Raises StoreError for one that this release does not know."""
    try:
        request: Request = decode(body, _ANY)
    except UNDECODABLE as error:
        raise StoreError(f"A command cannot be read: {error}.") from error
    return request


# --- answers ------------------------------------------------------------------------------------------

_ERRORS: Final[Sequence[type[OrderwireError]]] = (
    RateLimitedError,
    BrokerUnreachableError,
    SessionExpiredError,
    PermissionRefusedError,
    ProtocolViolationError,
    OrderRefusedError,
    BrokerError,
    InvalidRequestError,
    NotFoundError,
    ConfigurationError,
    StoreBusyError,
    StoreError,
    OrderwireError,
)
"""What an owner may answer with, the most particular first; whatever else it raises is the first that covers it."""


class Reply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a command is answered."""

    answer: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    """The class of the error it ended in; empty when it went well."""
    message: str = ""
    problems: dict[str, str] = {}
    sent: bool = False
    code: str = ""


def answered(answer: Any) -> str:
    """Return an answer as its command's reply."""
    return msgspec.json.encode(Reply(answer=msgspec.Raw(msgspec.json.encode(answer)))).decode()


def failed(error: OrderwireError) -> str:
    """Return an error as its command's reply."""
    kind = next(kind for kind in _ERRORS if isinstance(error, kind))
    reply = Reply(
        error=kind.__name__,
        message=str(error),
        problems=error.problems if isinstance(error, InvalidRequestError) else {},
        sent=error.sent if isinstance(error, BrokerUnreachableError) else False,
        code=error.code if isinstance(error, OrderRefusedError) else "",
    )
    return msgspec.json.encode(reply).decode()


def opened(reply: str, request: Request) -> Any:
    """Return the answer, or raise the error, that a reply holds; StoreError for one that this release cannot read."""
    try:
        given = decode(reply, Reply)
        if not given.error:
            return decode(bytes(given.answer), request.ANSWER)
    except UNDECODABLE as error:
        raise StoreError(f"The answer to a command cannot be read: {error}.") from error
    raise _error(given)


def _error(given: Reply) -> OrderwireError:
    kind = next((kind for kind in _ERRORS if kind.__name__ == given.error), OrderwireError)
    if issubclass(kind, InvalidRequestError):
        return kind(dict(given.problems))
    if issubclass(kind, BrokerUnreachableError):
        return kind(given.message, sent=given.sent)
    if issubclass(kind, OrderRefusedError):
        return kind(given.message, code=given.code)
    return kind(given.message)
