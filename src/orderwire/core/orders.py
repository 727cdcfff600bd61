"""Orders, trades and positions as the field speaks of them, and the rules a request must meet.

Values here cross every room of the house, a thousand a second, so they are `msgspec` structs: frozen,
keyword-only, slotted, and ten times cheaper to make than a dataclass (docs/decisions/0003-values.md).
Money is `Decimal`, quantities are whole units, times are aware.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import NewType

from msgspec import Struct

AccountId = NewType("AccountId", str)
OrderId = NewType("OrderId", str)
Money = Decimal
Quantity = int

IST = timezone(timedelta(hours=5, minutes=30), "IST")
ZERO = Decimal(0)

_SESSION_STARTS = timedelta(hours=6)
"""A broker's book is emptied, and its token dies, at 06:00 IST (kite.md §1), not at midnight."""


class OrderStatus(StrEnum):
    """Where an order stands; FIX words."""

    PENDING_NEW = "PENDING_NEW"
    TRIGGER_PENDING = "TRIGGER_PENDING"
    OPEN = "OPEN"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    UNKNOWN = "UNKNOWN"

    @property
    def terminal(self) -> bool:
        """Whether nothing more can happen to the order."""
        return self in TERMINAL


TERMINAL = frozenset({OrderStatus.FILLED, OrderStatus.CANCELLED, OrderStatus.REJECTED, OrderStatus.EXPIRED})


class Overlay(StrEnum):
    """A request that is on its way while the order stays what it is."""

    NONE = ""
    PENDING_MODIFY = "pending_modify"
    PENDING_CANCEL = "pending_cancel"


class Tier(StrEnum):
    """How far a source is trusted (docs/glossary.md)."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"


class Channel(StrEnum):
    """How an observation reached us."""

    REST = "rest"
    HISTORY = "history"
    STREAM = "stream"
    POSTBACK = "postback"
    PLACE = "place"

    @property
    def tier(self) -> Tier:
        """How far this channel is trusted."""
        return _TIERS[self]


_TIERS = {
    Channel.REST: Tier.A,
    Channel.HISTORY: Tier.A,
    Channel.STREAM: Tier.B,
    Channel.POSTBACK: Tier.C,
    Channel.PLACE: Tier.A,
}


class OrderUpdate(Struct, frozen=True, kw_only=True, gc=False):
    """An observation: what a broker said about one order at one moment, whatever the channel.

    Text fields hold OpenAlgo's words (side BUY/SELL; order_type MARKET/LIMIT/SL/SL-M; product CNC/NRML/MIS)
    or, when the broker's word is not known, that word as it came. `status` None means that the observation
    bears no state: it only says that `overlay` is pending, or has ended. `phase` is the rank of `raw_status`
    in its broker's table; an unknown status has status UNKNOWN and phase -1.
    """

    account: AccountId
    broker: str
    order_id: OrderId
    channel: Channel
    trading_date: date
    """Session day whose book held the order when this was read; see `session_date`."""
    raw_status: str
    status: OrderStatus | None
    phase: int
    overlay: Overlay = Overlay.NONE
    symbol: str
    exchange: str
    known_symbol: bool = True
    """False: `symbol` is the broker's own spelling, because no instrument matched."""
    side: str
    order_type: str
    product: str
    validity: str = ""
    quantity: Quantity
    filled_quantity: Quantity = 0
    """Cumulative."""
    price: Money = ZERO
    trigger_price: Money = ZERO
    average_price: Money = ZERO
    """0 while nothing is filled."""
    disclosed_quantity: Quantity = 0
    broker_time: datetime | None = None
    """The broker's own time of the last event, cut to whole seconds."""
    history_index: int = -1
    """Position in the broker's history of the order; -1 where the channel has none."""
    reason: str = ""
    """The broker's own words for a rejection, cancellation or refusal."""
    tag: str = ""
    """The correlation tag given at placing, if the broker echoes it."""
    exchange_order_id: str = ""
    parent_order_id: str = ""
    placed_by: str = ""
    received_ns: int = 0
    """Wall time in ns at which the bytes were read."""
    raw: bytes = b""
    """The broker's bytes for this order, as received."""

    @property
    def tier(self) -> Tier:
        """How far this observation is trusted."""
        return self.channel.tier


class Trade(Struct, frozen=True, kw_only=True, gc=False):
    """One execution. Identity: (account, trading_date, exchange, order_id, trade_id)."""

    account: AccountId
    broker: str
    order_id: OrderId
    trade_id: str
    channel: Channel
    trading_date: date
    symbol: str
    exchange: str
    known_symbol: bool = True
    side: str
    product: str
    quantity: Quantity
    price: Money
    traded_at: datetime | None = None
    exchange_order_id: str = ""
    received_ns: int = 0
    raw: bytes = b""


class Position(Struct, frozen=True, kw_only=True, gc=False):
    """A net position. Identity: (account, exchange, symbol, product)."""

    account: AccountId
    broker: str
    channel: Channel
    trading_date: date
    symbol: str
    exchange: str
    known_symbol: bool = True
    product: str
    quantity: Quantity
    """Signed."""
    average_price: Money = ZERO
    last_price: Money = ZERO
    """0 where the broker's position carries none (XTS)."""
    buy_quantity: Quantity = 0
    sell_quantity: Quantity = 0
    buy_value: Money = ZERO
    sell_value: Money = ZERO
    pnl: Money = ZERO
    received_ns: int = 0
    raw: bytes = b""


class Holding(Struct, frozen=True, kw_only=True, gc=False):
    """Shares held in the demat account."""

    account: AccountId
    symbol: str
    exchange: str
    quantity: Quantity
    average_price: Money = ZERO
    last_price: Money = ZERO
    product: str = "CNC"
    pnl: Money = ZERO


class Funds(Struct, frozen=True, kw_only=True, gc=False):
    """Money of an account, in rupees."""

    account: AccountId
    available: Money = ZERO
    utilised: Money = ZERO
    collateral: Money = ZERO
    m2m_realised: Money = ZERO
    m2m_unrealised: Money = ZERO


class OrderRequest(Struct, frozen=True, kw_only=True, gc=False):
    """What a user asks to have placed, in OpenAlgo's words."""

    symbol: str
    exchange: str
    side: str
    quantity: Quantity
    order_type: str = "MARKET"
    product: str = "MIS"
    price: Money = ZERO
    trigger_price: Money = ZERO
    disclosed_quantity: Quantity = 0
    validity: str = "DAY"
    tag: str = ""
    """Our own correlation tag, at most 20 letters and digits; the submission's id."""


class ModifyRequest(Struct, frozen=True, kw_only=True, gc=False):
    """The complete new terms of a live order."""

    order_id: OrderId
    quantity: Quantity
    order_type: str
    product: str
    price: Money = ZERO
    trigger_price: Money = ZERO
    disclosed_quantity: Quantity = 0
    validity: str = "DAY"
    tag: str = ""


def session_date(now: datetime) -> date:
    """Return the session day that `now` (aware) falls in: a day runs from 06:00 IST to 06:00 IST."""
    return (now.astimezone(IST) - _SESSION_STARTS).date()
