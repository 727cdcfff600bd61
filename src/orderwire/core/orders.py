"""Orders, trades and positions as the field speaks of them, and the rules a request must meet.

Values here cross every room of the house, a thousand a second, so they are `msgspec` structs: frozen,
keyword-only, slotted, and ten times cheaper to make than a dataclass (docs/decisions/0003-values.md).
Money is `Decimal`, quantities are whole units, times are aware.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import ROUND_FLOOR, Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NewType

from msgspec import Struct

from orderwire.core.instruments import Instrument

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


class Unreadable(Struct, frozen=True, kw_only=True, gc=False):
    """Something a broker sent that could not be read: kept for a person to look at, and for nothing else."""

    account: AccountId
    broker: str
    reason: str
    received_ns: int = 0
    raw: bytes
    """The broker's bytes, as many as the reader kept."""


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


# --- what a request must meet -----------------------------------------------------------------------------

EXCHANGES: Final = ("NSE", "BSE", "NFO", "BFO", "CDS", "BCD", "MCX", "NCDEX", "NCO")
INDEX_EXCHANGES: Final = ("NSE_INDEX", "BSE_INDEX", "MCX_INDEX", "CDS_INDEX", "GLOBAL_INDEX")
SIDES: Final = ("BUY", "SELL")
ORDER_TYPES: Final = ("MARKET", "LIMIT", "SL", "SL-M")
PRODUCTS: Final = ("CNC", "NRML", "MIS")
VALIDITIES: Final = ("DAY", "IOC")

_WORDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "exchange": EXCHANGES,
        "side": SIDES,
        "order_type": ORDER_TYPES,
        "product": PRODUCTS,
        "validity": VALIDITIES,
    }
)
_PRICED: Final = frozenset({"LIMIT", "SL"})
_TRIGGERED: Final = frozenset({"SL", "SL-M"})
_LONGEST_TAG: Final = 20
_HIGHEST_PRICE: Final = Decimal(10) ** 9


def check_request(request: OrderRequest, instrument: Instrument | None) -> dict[str, str]:
    """Say for each field of a new order what is wrong with it and what to do; empty when all is well.

    `instrument`: what `symbol` and `exchange` name in today's list, None when nothing. A price given for a MARKET
    or SL-M order and a trigger given for a MARKET or LIMIT order are ignored, as OpenAlgo ignores them.
    """
    words = {name: getattr(request, name) for name in _WORDS}
    return (
        _check_stop(request)
        | _check_terms(request, instrument)
        | _check_words(words)
        | _check_instrument(request, instrument)
        | _check_tag(request.tag)
    )


def check_modify(
    request: ModifyRequest, instrument: Instrument | None, *, filled: Quantity = 0
) -> dict[str, str]:
    """Say for each of the new terms what is wrong with it and what to do; empty when all is well.

    `filled`: how much of the order is filled. Without an instrument only what needs none is checked: an order at
    the broker exists, whether we know its symbol or not. The validity is the order's own and is not judged.
    """
    words = {"order_type": request.order_type, "product": request.product}
    return _check_filled(request.quantity, filled) | _check_terms(request, instrument) | _check_words(words)


def _check_words(words: Mapping[str, str]) -> dict[str, str]:
    return {
        name: f"{name} {word!r} is not known: use {', '.join(_WORDS[name])}."
        for name, word in words.items()
        if word not in _WORDS[name]
    }


def _check_instrument(request: OrderRequest, instrument: Instrument | None) -> dict[str, str]:
    if request.exchange in INDEX_EXCHANGES:
        return {"exchange": f"{request.exchange} holds indices, {_USE_DERIVATIVES}"}
    if request.exchange not in EXCHANGES:
        return {}
    if instrument is None:
        return {"symbol": f"{request.symbol!r} is not in today's list of {request.exchange}."}
    return (
        {}
        if instrument.tradable
        else {"symbol": f"{request.symbol} is one of the indices, {_USE_DERIVATIVES}"}
    )


_USE_DERIVATIVES: Final = "which cannot be traded: use a future or an option on it."


def _check_tag(tag: str) -> dict[str, str]:
    if not tag or (tag.isascii() and tag.isalnum() and len(tag) <= _LONGEST_TAG):
        return {}
    return {"tag": f"tag {tag!r} does not fit: use at most {_LONGEST_TAG} letters and digits."}


def _check_terms(request: OrderRequest | ModifyRequest, instrument: Instrument | None) -> dict[str, str]:
    problems = {
        "quantity": _quantity_problem(request.quantity, instrument),
        "disclosed_quantity": _disclosed_problem(request.disclosed_quantity, request.quantity),
    }
    if request.order_type in _PRICED:
        problems["price"] = _price_problem("price", request.price, request.order_type, instrument)
    if request.order_type in _TRIGGERED:
        problems["trigger_price"] = _price_problem(
            "trigger price", request.trigger_price, request.order_type, instrument
        )
    return {name: problem for name, problem in problems.items() if problem}


def _quantity_problem(quantity: Quantity, instrument: Instrument | None) -> str:
    if quantity <= 0:
        return f"The quantity {quantity} must be above 0."
    if instrument is None:
        return ""
    lot, freeze = instrument.lot_size, instrument.freeze_quantity
    if lot > 1 and quantity % lot:
        return (
            f"The quantity {quantity} is not a multiple of the lot size {lot}: use {_around(quantity, lot)}."
        )
    if freeze and quantity > freeze:
        return f"The quantity {quantity} is above {freeze}, the most one order may have: split it."
    return ""


def _disclosed_problem(disclosed: Quantity, quantity: Quantity) -> str:
    if 0 <= disclosed <= max(quantity, 0):
        return ""
    return f"The disclosed quantity {disclosed} must lie between 0 and the quantity."


def _around(value: int, step: int) -> str:
    below = value // step * step
    return f"{below} or {below + step}" if below else f"{step}"


def _price_problem(name: str, price: Money, order_type: str, instrument: Instrument | None) -> str:
    if not price.is_finite() or not 0 <= price < _HIGHEST_PRICE:
        return f"The {name} {price} is not a price."
    if not price:
        return f"A {order_type} order needs a {name} above 0."
    tick = instrument.tick_size if instrument is not None else ZERO
    return _tick_problem(name, price, tick) if tick > 0 else ""


def _tick_problem(name: str, price: Money, tick: Money) -> str:
    if not price % tick:
        return ""
    below = (price / tick).to_integral_value(ROUND_FLOOR) * tick
    advice = f"use {below:f} or {below + tick:f}" if below else f"use {tick:f}"
    if _decimals(price) > _decimals(tick):
        return f"The {name} {price:f} has more decimals than the tick {tick:f} allows: {advice}."
    return f"The {name} {price:f} is not a multiple of the tick {tick:f}: {advice}."


def _decimals(number: Decimal) -> int:
    exponent = number.normalize().as_tuple().exponent
    return max(-exponent, 0) if isinstance(exponent, int) else 0


def _check_stop(request: OrderRequest) -> dict[str, str]:
    prices = (request.price, request.trigger_price)
    if request.order_type != "SL" or not all(price.is_finite() and price for price in prices):
        return {}
    gap = request.price - request.trigger_price
    if request.side == "BUY" and gap < 0:
        return {"trigger_price": "A stop to buy needs a trigger price that is not above its price."}
    if request.side == "SELL" and gap > 0:
        return {"trigger_price": "A stop to sell needs a trigger price that is not below its price."}
    return {}


def _check_filled(quantity: Quantity, filled: Quantity) -> dict[str, str]:
    if quantity > filled:
        return {}
    return {
        "quantity": f"{filled} are filled already: the quantity must be above that. "
        "To give up the rest, cancel the order."
    }
