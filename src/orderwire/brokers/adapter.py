"""What a broker-integration developer subclasses: REST calls that must exist, events that may be given."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import ClassVar, Final, Protocol

import structlog

from orderwire.brokers import checklist
from orderwire.brokers.http import BrokerHttp, Bucket
from orderwire.clock import Clock
from orderwire.core.events import Event, EventType
from orderwire.core.instruments import Instrument, InstrumentLookup
from orderwire.core.latency import trace
from orderwire.core.orders import (
    AccountId,
    Funds,
    Holding,
    ModifyRequest,
    OrderId,
    OrderRequest,
    OrderUpdate,
    Position,
    Trade,
)
from orderwire.errors import ConfigurationError, ProtocolViolationError
from orderwire.logs import follows_updates

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One thing an account needs from its user: a credential or an address."""

    name: str
    label: str
    secret: bool = False
    default: str = ""
    required: bool = True
    choices: tuple[str, ...] = ()


FOLLOWS: Final = "host"
SESSION_FIELD: Final = Field(
    name="session",
    label="Whose login it uses: its own, or that of the host application (OpenAlgo)",
    default="own",
    required=False,
    choices=("own", FOLLOWS),
)
"""A credential of brokers whose token can be taken over from the application orderwire is at home in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSession:
    """A login that a broker granted. `secrets` is sealed at rest and never logged."""

    user_id: str
    secrets: Mapping[str, str] = field(repr=False)
    expires_at: datetime | None = None
    """Aware; the moment after which the broker refuses it (06:00 IST, 24 h …)."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the broker said about the account besides, not secret (client code, dealer …)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostbackRequest:
    """An HTTP callback as it came: raw body, headers in lower case, nothing decoded."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PostbackHint:
    """What a postback with a valid checksum claims: a reason to read the book, nothing more (tier C)."""

    order_id: OrderId
    broker_time: str
    """The broker's own timestamp text, covered by the checksum."""
    claims: Mapping[str, str]
    """Status, filled and the like as text, for the security comparison with REST and the operator's eyes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountProfile:
    """One user at one broker, as an adapter sees it."""

    account: AccountId
    credentials: Mapping[str, str] = field(repr=False)
    addresses: Mapping[str, str] = field(default_factory=dict)
    allow_plaintext: bool = False
    """Plain http/ws off loopback was explicitly allowed for this account."""

    @property
    def follows_host(self) -> bool:
        """Whether it uses its host application's login and never makes one of its own: that would end the host's."""
        return self.credentials.get("session") == FOLLOWS


class Publisher(Protocol):
    """Where an adapter's events go; the engine."""

    def put(self, event: Event) -> None:
        """Queue the event; never blocks, never raises."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTools:
    """What an adapter works with; all of it is given, nothing is global."""

    http: BrokerHttp
    instruments: InstrumentLookup
    clock: Clock
    publisher: Publisher | None = None


class BrokerAdapter(ABC):
    """Speaks one broker's language for one account.

    All `async` methods run on the feed loop. An adapter holds no retry, thread, back-off or flag: it raises
    an error of `orderwire.errors` and the supervisor decides. Every observation it returns or publishes
    carries this account's id, the channel it came by and the time its bytes were read.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    credential_fields: ClassVar[tuple[Field, ...]] = ()
    address_fields: ClassVar[tuple[Field, ...]] = ()
    app_fields: ClassVar[tuple[str, str]] = ("", "")
    """The credentials that are the broker app's key and its secret."""
    one_login_per_app: ClassVar[bool] = False
    """Whether a login with an app's key ends the one before: then nobody else may log in with it."""
    has_stream: ClassVar[bool] = False
    has_postback: ClassVar[bool] = False
    budgets: ClassVar[Mapping[str, Bucket]] = MappingProxyType({})
    """What the broker allows, by bucket name. Names begin with the broker's (`zerodha.orders`), for
    `BrokerHttp` holds those of all brokers."""
    api_version: ClassVar[str] = ""
    """The broker API version that is sent and pinned; shown by `orderwire doctor`."""

    def __init__(self, profile: AccountProfile, tools: AdapterTools) -> None:
        self.profile = profile
        self.tools = tools
        self.session: BrokerSession | None = None
        """Set by the owner of the account's login before any call that needs it."""
        self.segments: Collection[str] = ()
        """Where this account trades, in the words of the market calendar (`NSE`, `CDS`, `MCX` …); empty: anywhere.
        While all of them are closed, its books are read rarely."""
        self.heard_at = 0.0
        """Monotonic seconds of the last inbound byte of the stream; written by `listen`."""
        self.on_listening: Callable[[bool], None] | None = None
        """Told when the stream begins and ceases to deliver; set by the supervisor, called on the feed loop."""
        self.violations = 0
        """Messages of the stream that could not be read and were left out; the stream went on."""
        self.on_violation: Callable[[ProtocolViolationError], None] | None = None
        """Told of each of them, so that the book is read; set by the supervisor, called on the feed loop."""
        self.on_positions_moved: Callable[[], None] | None = None
        """Told when positions moved without an execution, so that they are read; set by the supervisor."""
        self._listening = False
        self._explains = follows_updates()

    @property
    def listening(self) -> bool:
        """True from the moment the stream delivers until it ends; written by `listen`."""
        return self._listening

    @listening.setter
    def listening(self, delivers: bool) -> None:
        changed, self._listening = delivers is not self._listening, delivers
        if changed and self.on_listening is not None:
            self.on_listening(delivers)

    # --- logging in -----------------------------------------------------------------------------------

    def login_url(self, *, state: str = "") -> str | None:  # noqa: ARG002 - part of the contract
        """Return where to send the user's browser to log in, or None when keys alone suffice.

        `state` comes back unchanged on our redirect, so that the reply can be matched to the user.
        """
        return None

    @abstractmethod
    async def login(self, grant: Mapping[str, str]) -> BrokerSession:
        """Turn the redirect's query parameters (or, with keys alone, an empty mapping) into a session.

        Raises SessionExpiredError when the broker refuses the grant, BrokerUnreachableError when it is away.
        """

    async def adopt(self, token: str) -> BrokerSession:
        """Make a session of a token that the host application obtained (openalgo.md §5), once the broker takes it.

        Raises SessionExpiredError when it does not, or the token is of another user or app; BrokerUnreachableError
        when it is away; ConfigurationError where tokens cannot be taken over.
        """
        del token
        raise ConfigurationError(f"A {self.title} login cannot be taken over from another program.")

    @classmethod
    def login_name(cls, user_id: str, credentials: Mapping[str, str]) -> str:  # noqa: ARG003 - part of the contract
        """Return whose login it is, the same for each of the user's sessions whatever app it came by.

        `user_id` is a session's; two programs that feed the same one are told apart by it.
        """
        return user_id

    async def logout(self) -> None:  # noqa: B027 - empty on purpose: not every broker has the call
        """End the broker session, where the broker has such a call."""

    def broker_now(self) -> datetime | None:
        """Return what time it is at the broker, as far as it has said; None before. Any thread."""
        return None

    def book_share(self) -> float:
        """Return the seconds between reads of the order book that are this account's part of a shared budget.

        `BrokerHttp.share` tells it; 0 when the account shares none. On the feed loop.
        """
        return 0.0

    # --- must: REST -----------------------------------------------------------------------------------

    @abstractmethod
    async def place_order(self, request: OrderRequest) -> OrderId:
        """Send one order, once.

        Raises OrderRefusedError when the broker says no (there is no order then), and BrokerUnreachableError
        with `sent=True` when the order may exist: find it by its tag.
        """

    @abstractmethod
    async def modify_order(self, request: ModifyRequest, *, current: OrderUpdate | None = None) -> OrderId:
        """Ask for new terms. `current` is the last observation, for brokers that want the old terms too."""

    @abstractmethod
    async def cancel_order(self, order_id: OrderId, *, current: OrderUpdate | None = None) -> OrderId:
        """Ask for the cancellation of one order."""

    @abstractmethod
    async def order_book(self) -> Sequence[OrderUpdate]:
        """Read every order of the session day; an empty book is an empty list. Channel REST."""

    @abstractmethod
    async def order_history(self, order_id: OrderId) -> Sequence[OrderUpdate]:
        """Read one order's states, oldest first, `history_index` counting from 0. Channel HISTORY."""

    @abstractmethod
    async def trade_book(self) -> Sequence[Trade]:
        """Read every execution of the session day."""

    @abstractmethod
    async def positions(self) -> Sequence[Position]:
        """Read the net positions."""

    @abstractmethod
    async def holdings(self) -> Sequence[Holding]:
        """Read the holdings."""

    @abstractmethod
    async def funds(self) -> Funds:
        """Read the money."""

    @abstractmethod
    async def instruments_of_the_day(self) -> Sequence[Instrument]:
        """Download the broker's own list of instruments (instruments.md)."""

    # --- may: events ----------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Run the stream until it ends, publishing what arrives; only when `has_stream`.

        Sets `listening` once updates can arrive and `heard_at` on every inbound byte. Always ends by raising:
        BrokerUnreachableError (reconnect), SessionExpiredError (stop until login), PermissionRefusedError
        (this account has no stream: poll), ProtocolViolationError (count, reconnect, alert).
        Cancelling it closes the connection within a second.
        """
        raise NotImplementedError(f"{self.title} has no stream")

    @classmethod
    def read_postback(cls, request: PostbackRequest, *, secrets: Sequence[str]) -> PostbackHint:
        """Verify and read a postback; pure. Raises ProtocolViolationError for anything not perfect.

        `secrets`: the app's current and previous secret; compared in constant time.
        """
        raise NotImplementedError(f"{cls.name} sends no postbacks")

    def read_claim(self, request: PostbackRequest) -> OrderUpdate:
        """Say in our words what a verified postback claims, to be compared with the book and nothing else.

        Channel POSTBACK. Raises ProtocolViolationError when it cannot be about an order of this account.
        """
        raise NotImplementedError(f"{self.title} sends no postbacks")

    # --- may: the first day ---------------------------------------------------------------------------

    def questions(self) -> Mapping[str, checklist.Question]:
        """Return what `orderwire doctor <broker>` asks the broker besides logging in and listening.

        An adapter adds what its documents leave open, or tells more of an answer by taking a usual name.
        """
        return checklist.usual_questions(self)

    def stream_facts(self) -> str:
        """Say in an operator's words what the latest stream told of itself (protocol, timers); no secret."""
        return ""

    def stream_counts(self) -> Mapping[str, int]:
        """Return how many messages of each kind the stream brought so far."""
        return {}

    # --- gives: events --------------------------------------------------------------------------------

    def on_order(self, update: OrderUpdate) -> None:
        """Publish an observation of an order; does nothing when no publisher is attached."""
        _check(EventType.ORDER_UPDATE, update, OrderUpdate)
        if self._explains:
            _log.debug(
                "order received",
                trace=trace(update.account, update.received_ns),
                account=update.account,
                order=update.order_id,
                channel=update.channel,
                status=update.raw_status,
            )
        self._publish(EventType.ORDER_UPDATE, update, OrderUpdate)

    def on_trade(self, trade: Trade) -> None:
        """Publish an execution; does nothing when no publisher is attached."""
        self._publish(EventType.TRADE_UPDATE, trade, Trade)

    def on_position(self, position: Position) -> None:
        """Publish a position; does nothing when no publisher is attached."""
        self._publish(EventType.POSITION_UPDATE, position, Position)

    def note_violation(self, error: ProtocolViolationError) -> None:
        """Count a message of the stream that was left out, and tell the supervisor."""
        self.violations += 1
        if self.on_violation is not None:
            self.on_violation(error)

    def note_positions_moved(self) -> None:
        """Tell the supervisor that positions moved without an execution (a conversion). On the feed loop."""
        if self.on_positions_moved is not None:
            self.on_positions_moved()

    def _publish(self, kind: EventType, value: object, expected: type) -> None:
        _check(kind, value, expected)
        if self.tools.publisher is not None:
            self.tools.publisher.put(Event(kind, value))


def _check(kind: EventType, value: object, expected: type) -> None:
    if not isinstance(value, expected):
        raise TypeError(f"{kind.name} takes a {expected.__name__}, not {type(value).__name__}")


_LOOPBACK = re.compile(r"^[a-z]+://(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:\d+)?(/|$)")


def plaintext_refusal(address: str, *, allow_plaintext: bool) -> str | None:
    """Say why a broker address may not be used, or None when it may.

    Plain http/ws is for loopback, or for an account that allows it explicitly (design: tier B).
    """
    if address.startswith(("https://", "wss://")) or _LOOPBACK.match(address) or allow_plaintext:
        return None
    return (
        f"{address} is not encrypted: orders and tokens could be read and changed on the way. "
        "Use https/wss, or allow plain text for this account explicitly (--allow-plaintext)."
    )
