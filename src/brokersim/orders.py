"""What an order is at the exchange: its terms, its stages, its snapshots and its trades, for either broker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from brokersim.instruments import Instrument


class Side(StrEnum):
    """Which side of the book."""

    BUY = "BUY"
    SELL = "SELL"

    @property
    def other(self) -> "Side":
        """The counterparty's side."""
        return Side.SELL if self is Side.BUY else Side.BUY


class OrderType(StrEnum):
    """The four order types, in Kite's spelling (XTS: MARKET, LIMIT, STOPLIMIT, STOPMARKET)."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"
    SL = "SL"
    SLM = "SL-M"

    @property
    def stop(self) -> bool:
        """Whether it waits for a trigger price."""
        return self in {OrderType.SL, OrderType.SLM}

    @property
    def priced(self) -> bool:
        """Whether it has a limit price."""
        return self in {OrderType.LIMIT, OrderType.SL}


class Validity(StrEnum):
    """How long an order lives."""

    DAY = "DAY"
    IOC = "IOC"
    TTL = "TTL"


class Stage(StrEnum):
    """One step in an order's life. Every step an order takes is one event and one row of its history.

    MODIFIED and MODIFY_REFUSED, CANCEL_REFUSED are always followed at once by the stage the order rests in
    (OPEN, PARTIALLY_FILLED or TRIGGER_PENDING). In MODIFIED the terms are still the old ones and `requested`
    holds the new; the resting stage after it has the new terms. Fills may come in any MODIFY_ or CANCEL_ stage.
    """

    AMO_RECEIVED = "AMO_RECEIVED"
    RECEIVED = "RECEIVED"
    VALIDATING = "VALIDATING"
    SENT = "SENT"
    OPEN = "OPEN"
    TRIGGER_PENDING = "TRIGGER_PENDING"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    MODIFY_VALIDATING = "MODIFY_VALIDATING"
    MODIFY_SENT = "MODIFY_SENT"
    MODIFIED = "MODIFIED"
    MODIFY_REFUSED = "MODIFY_REFUSED"
    CANCEL_SENT = "CANCEL_SENT"
    CANCEL_REFUSED = "CANCEL_REFUSED"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"


TERMINAL: Final = frozenset({Stage.FILLED, Stage.CANCELLED, Stage.REJECTED, Stage.EXPIRED})
RESTING: Final = frozenset({Stage.OPEN, Stage.TRIGGER_PENDING, Stage.PARTIALLY_FILLED})
UNCONFIRMED: Final = frozenset({Stage.AMO_RECEIVED, Stage.RECEIVED, Stage.VALIDATING, Stage.SENT})


class Cause(StrEnum):
    """Why an order took its latest step."""

    PLACED = "PLACED"
    RISK = "RISK"
    EXCHANGE = "EXCHANGE"
    FILL = "FILL"
    TRIGGER = "TRIGGER"
    MODIFY = "MODIFY"
    CANCEL = "CANCEL"
    SELF_TRADE = "SELF_TRADE"
    IOC = "IOC"
    DAY_END = "DAY_END"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why something was refused: the text for people and the raw text of the order management system."""

    text: str
    raw: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a modification can change. Prices are 0 where the type has none."""

    type: OrderType
    quantity: int
    price: Decimal = Decimal(0)
    trigger_price: Decimal = Decimal(0)
    validity: Validity = Validity.DAY
    disclosed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRequest:
    """An order as a broker's front end hands it over; none of this ever changes.

    `order_id` is the broker's id (Kite order_id, XTS AppOrderID as text) and unique per broker. `user` owns the
    order (Kite user id, XTS client code), `placed_by` is who logged in, `app` the api or app key it came with
    ("" from the broker's own terminal). `aggressive` makes a priced order take liquidity as fast as a market
    order. `meta` is the front end's own and not looked at here.
    """

    broker: str
    order_id: str
    user: str
    placed_by: str
    app: str
    instrument: Instrument
    side: Side
    product: str
    terms: Terms
    variety: str = "regular"
    tag: str = ""
    parent_id: str = ""
    ttl_minutes: int = 0
    amo: bool = False
    aggressive: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSnapshot:
    """One order at one moment: a row of its history.

    `number` counts its history from 0. `received_at` is when the broker took it, `updated_at` the time of this
    step, `registered_at` when the exchange registered it (again after a modification), `exchange_updated_at` the
    exchange's last word; the last two are None while the exchange has not spoken. `value` is the sum of price
    times quantity of all fills.
    """

    request: OrderRequest
    number: int
    stage: Stage
    cause: Cause
    terms: Terms
    received_at: datetime
    updated_at: datetime
    requested: Terms | None = None
    filled: int = 0
    value: Decimal = Decimal(0)
    triggered: bool = False
    exchange_order_id: str = ""
    registered_at: datetime | None = None
    exchange_updated_at: datetime | None = None
    modifications: int = 0
    reason: Reason | None = None

    @property
    def uid(self) -> str:
        """broker:order_id, this program's identity of an order."""
        return f"{self.request.broker}:{self.request.order_id}"

    @property
    def order_id(self) -> str:
        """The broker's id."""
        return self.request.order_id

    @property
    def broker(self) -> str:
        """The broker's name, kite or xts."""
        return self.request.broker

    @property
    def user(self) -> str:
        """Whose order it is."""
        return self.request.user

    @property
    def instrument(self) -> Instrument:
        """The contract."""
        return self.request.instrument

    @property
    def side(self) -> Side:
        """BUY or SELL."""
        return self.request.side

    @property
    def average(self) -> Decimal:
        """The average price of the fills, to four decimals; 0 when there is none."""
        return round(self.value / self.filled, 4) if self.filled else Decimal(0)

    @property
    def remaining(self) -> int:
        """Ordered minus filled, whatever the stage."""
        return self.terms.quantity - self.filled

    @property
    def live(self) -> bool:
        """Whether anything can still happen to it."""
        return self.stage not in TERMINAL

    @property
    def resting_stage(self) -> Stage:
        """The stage it has when nothing is pending."""
        if self.terms.type.stop and not self.triggered:
            return Stage.TRIGGER_PENDING
        return Stage.PARTIALLY_FILLED if self.filled else Stage.OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """One execution of one order. `trade_id` is unique per exchange, both sides of a match share it."""

    trade_id: str
    order: OrderRequest
    exchange_order_id: str
    quantity: int
    price: Decimal
    at: datetime

    @property
    def uid(self) -> str:
        """The order's broker:order_id."""
        return f"{self.order.broker}:{self.order.order_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeEvent:
    """A step of one order: the snapshot after it, and the trade that caused it (fills only)."""

    order: OrderSnapshot
    trade: Trade | None = None


@dataclass(slots=True, eq=False)
class OrderRecord:
    """One order's whole history, oldest first, and its trades."""

    history: list[OrderSnapshot] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)

    @property
    def last(self) -> OrderSnapshot:
        """The order as it is now."""
        return self.history[-1]
