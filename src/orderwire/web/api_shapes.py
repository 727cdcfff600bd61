"""What the REST calls take and give, field by field: the source of the OpenAPI document.

Requests ignore what they do not know, as OpenAlgo does; numbers may come as text, as its SDK sends them. Answers
name every field they have, so that a test can hold each one against this.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from orderwire.core.orders import EXCHANGES, ORDER_TYPES, PRODUCTS, SIDES

_Int = Annotated[int, Field(strict=True)]
_Float = Annotated[float, Field(strict=True)]
_WholeFloat = Annotated[float, Field(strict=True, multiple_of=1)]

Whole = Annotated[
    _Int | _WholeFloat | Annotated[str, Field(strict=True, pattern=r"^[0-9]{1,12}(\.0)?$")],
    Field(description="A whole number, or the same as text."),
]
SignedWhole = Annotated[
    _Int | _WholeFloat | Annotated[str, Field(strict=True, pattern=r"^[+-]?[0-9]{1,12}(\.0)?$")],
    Field(description="A whole number with its sign, or the same as text."),
]
Price = Annotated[
    _Int | _Float | Annotated[str, Field(strict=True, pattern=r"^[0-9]{1,10}(\.[0-9]{0,6})?$")],
    Field(description="Rupees: a number, or the same as text."),
]
Text = Annotated[str, Field(strict=True, max_length=400)]
OrderNumber = Annotated[
    str, Field(strict=True, pattern=r"^[A-Za-z0-9_-]{1,40}$", description="The broker's order id.")
]


def _word(words: tuple[str, ...]) -> Any:
    return Field(strict=True, max_length=40, description=f"One of {', '.join(words)}.", examples=[words[0]])


# --- requests ---------------------------------------------------------------------------------------------


class Request(BaseModel):
    """The key, and whose account it is about."""

    model_config = ConfigDict(extra="ignore")

    apikey: Annotated[str, Field(strict=True, max_length=400, description="Your API key.")]
    account: Annotated[
        str,
        Field(
            strict=True,
            max_length=60,
            description="Which of your accounts; needed when you have several and the call acts on one.",
        ),
    ] = ""


class Strategic(Request):
    """A call that names the strategy it comes from, as OpenAlgo's do; nothing depends on it."""

    strategy: Text = ""


class OrderTerms(BaseModel):
    """What an order is about."""

    model_config = ConfigDict(extra="ignore")

    symbol: Annotated[str, Field(strict=True, max_length=40, examples=["INFY"])]
    exchange: Annotated[str, _word(EXCHANGES)]
    action: Annotated[str, _word(SIDES)]
    quantity: Whole
    pricetype: Annotated[str, _word(ORDER_TYPES)] = "MARKET"
    product: Annotated[str, _word(PRODUCTS)] = "MIS"
    price: Price = 0
    trigger_price: Price = 0
    disclosed_quantity: Whole = 0
    validity: Annotated[str, _word(("DAY", "IOC"))] = "DAY"


class PlaceOrder(OrderTerms, Strategic):
    """One new order."""


class PlaceSmartOrder(OrderTerms, Strategic):
    """The position that is wanted; the order that reaches it is worked out from what is held."""

    position_size: SignedWhole
    quantity: Whole = 0


class BasketOrder(Strategic):
    """Several orders, placed one after the other."""

    orders: Annotated[list[OrderTerms], Field(min_length=1, max_length=100)]


class SplitOrder(OrderTerms, Strategic):
    """One quantity, placed as orders of at most `splitsize`."""

    splitsize: Whole


class ModifyOrder(Strategic):
    """The complete new terms of a live order; `symbol`, `exchange` and `action` stay what they are."""

    orderid: OrderNumber
    quantity: Whole
    pricetype: Annotated[str, _word(ORDER_TYPES)]
    product: Annotated[str, _word(PRODUCTS)]
    price: Price = 0
    trigger_price: Price = 0
    disclosed_quantity: Whole = 0
    symbol: Text = ""
    exchange: Text = ""
    action: Text = ""


class OneOrder(Strategic):
    """Which order."""

    orderid: OrderNumber


class ChooseRealtime(Request):
    """Whether you want real-time updates."""

    choice: Annotated[
        Literal["in", "out", "none"], Field(description="In, out, or none: as the pilot decides.")
    ]


class OpenPosition(Strategic):
    """Which position."""

    symbol: Annotated[str, Field(strict=True, max_length=40)]
    exchange: Annotated[str, _word(EXCHANGES)]
    product: Annotated[str, _word(PRODUCTS)]


class Empty(BaseModel):
    """Nothing."""


class ChangesQuery(BaseModel):
    """From where on."""

    model_config = ConfigDict(extra="ignore")

    since: Annotated[
        str,
        Field(max_length=60, description="`cursor` of the answer before; empty for everything there is now."),
    ] = ""
    account: Annotated[str, Field(max_length=60, description="Needed when you have several accounts.")] = ""


class NotificationNumber(Request):
    """Which undelivered notification."""

    id: Annotated[int, Field(strict=True, ge=1, le=2**53)]


# --- answers ----------------------------------------------------------------------------------------------


class Answer(BaseModel):
    """Success."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["success"]


class Failure(BaseModel):
    """What went wrong, and for a request what is wrong with each field."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["error"]
    message: str
    problems: dict[str, str] = {}
    retry_after: Annotated[float | None, Field(description="Seconds to wait (429).")] = None
    submission: Annotated[str | None, Field(description="Our id of the order that was to be placed.")] = None
    state: Annotated[Literal["REFUSED", "UNKNOWN"] | None, Field(description="What became of it.")] = None
    results: Annotated[
        list[dict[str, Any]] | None, Field(description="What became of each order of several.")
    ] = None


class Result(BaseModel):
    """What became of one order of several."""

    model_config = ConfigDict(extra="forbid")

    symbol: str
    status: Literal["success", "error"]
    orderid: str = ""
    message: str = ""
    order_num: int | None = None
    quantity: int | None = None


class Placed(Answer):
    """The broker has the order."""

    orderid: str
    submission: Annotated[str, Field(description="Our id of it, also the tag at the broker.")] = ""
    message: str = ""


class Acted(Answer):
    """The broker has the request."""

    orderid: str


class Results(Answer):
    """What became of each order."""

    results: list[Result]


class SplitResults(Results):
    """What became of each part."""

    split_size: int
    total_quantity: int


class CancelledAll(Answer):
    """Which orders the broker was asked to cancel."""

    message: str
    canceled_orders: list[str]
    failed_cancellations: list[str]


class Closed(Answer):
    """What was done about the positions."""

    message: str
    results: list[Result]


class Freshness(BaseModel):
    """How current what is said about an account is (docs/glossary.md)."""

    model_config = ConfigDict(extra="forbid")

    account: str
    freshness: Literal["LIVE", "RECONCILING", "DEGRADED", "STALE", "AUTH_REQUIRED", "MANUAL"]
    since: Annotated[int, Field(description="Milliseconds since the epoch; 0: never, here and below.")]
    detail: str
    read_at: int
    connected: bool
    next_try: int


class OrderRow(BaseModel):
    """One order: OpenAlgo's fields and ours."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["live"]
    broker: str
    account: str
    orderid: str
    row: Annotated[str, Field(description="Stable key of the order's line, also before it has an order id.")]
    submission: str
    symbol: str
    exchange: str
    action: str
    quantity: int
    price: float
    trigger_price: float
    pricetype: str
    product: str
    order_status: Literal["open", "trigger pending", "complete", "rejected", "cancelled"]
    filled_quantity: int
    pending_quantity: int
    average_price: float
    rejection_reason: str
    status: Annotated[str, Field(description="The finer state of docs/reference/order-states.md.")]
    raw_status: str
    pending_modify: bool
    pending_cancel: bool
    conflict: bool
    checking: bool
    known_symbol: bool
    validity: str
    disclosed_quantity: int
    revision: int
    timestamp: Annotated[str, Field(description="The broker's time in IST, without a zone.")]
    broker_time: int
    first_seen: int
    source: str


class OrderNow(OrderRow):
    """One order, and how current that is."""

    freshness: str
    sequence: Annotated[int, Field(description="Of the account's newest change.")]


class OrderStatusAnswer(Answer):
    """One order."""

    data: OrderNow


class BookStatistics(BaseModel):
    """How many of which."""

    model_config = ConfigDict(extra="forbid")

    total_buy_orders: int
    total_sell_orders: int
    total_completed_orders: int
    total_open_orders: int
    total_rejected_orders: int


class AccountBook(BaseModel):
    """How current one account's part of a book is, and where to continue from."""

    model_config = ConfigDict(extra="forbid")

    account: str
    freshness: str
    sequence: int
    cursor: Annotated[str, Field(description="For `since` of orders/changes.")]


class Orders(BaseModel):
    """The order book."""

    model_config = ConfigDict(extra="forbid")

    orders: list[OrderRow]
    statistics: BookStatistics
    accounts: list[AccountBook]


class OrderBookAnswer(Answer):
    """The orders of the session day, first seen first."""

    data: Orders


class TradeRow(BaseModel):
    """One execution."""

    model_config = ConfigDict(extra="forbid")

    account: str
    broker: str
    orderid: str
    tradeid: str
    symbol: str
    exchange: str
    action: str
    product: str
    quantity: int
    average_price: float
    trade_value: float
    timestamp: str


class TradeBookAnswer(Answer):
    """The executions of the session day."""

    data: list[TradeRow]


class PositionRow(BaseModel):
    """One net position."""

    model_config = ConfigDict(extra="forbid")

    account: str
    symbol: str
    exchange: str
    product: str
    quantity: int
    average_price: Annotated[str, Field(description="Text, as OpenAlgo sends it.")]
    ltp: float
    pnl: float


class PositionBookAnswer(Answer):
    """The net positions, read from the broker now."""

    data: list[PositionRow]
    unreadable: int


class PositionAnswer(Answer):
    """The net quantity."""

    quantity: int


class HoldingRow(BaseModel):
    """Shares in the demat account."""

    model_config = ConfigDict(extra="forbid")

    account: str
    symbol: str
    exchange: str
    product: str
    quantity: int
    average_price: float
    ltp: float
    pnl: float
    pnlpercent: float


class HoldingStatistics(BaseModel):
    """All holdings together."""

    model_config = ConfigDict(extra="forbid")

    totalholdingvalue: float
    totalinvvalue: float
    totalprofitandloss: float
    totalpnlpercentage: float


class Holdings(BaseModel):
    """What the demat accounts hold."""

    model_config = ConfigDict(extra="forbid")

    holdings: list[HoldingRow]
    statistics: HoldingStatistics
    unreadable: int


class HoldingsAnswer(Answer):
    """The holdings, read from the broker now."""

    data: Holdings


class FundsData(BaseModel):
    """Rupees as text with two decimals, as OpenAlgo sends them."""

    model_config = ConfigDict(extra="forbid")

    availablecash: str
    collateral: str
    m2mrealized: str
    m2munrealized: str
    utiliseddebits: str


class FundsAnswer(Answer):
    """The money, read from the broker now; of all your accounts together unless one is named."""

    data: FundsData


class Change(BaseModel):
    """A committed change of an order, a trade or a position: its row, and its place in the account's log."""

    model_config = ConfigDict(extra="allow")

    kind: Literal["order", "trade", "position"]
    account: str
    row: str
    epoch: str
    sequence: int
    event_id: str
    version: int
    source: str


class Snapshot(BaseModel):
    """Everything of an account, as the stream's `snapshot` carries it."""

    model_config = ConfigDict(extra="forbid")

    account: str
    epoch: str
    sequence: int
    version: int
    orders: list[OrderRow]
    trades: list[dict[str, Any]]
    positions: list[dict[str, Any]]
    feed: Freshness | None


class ChangesAnswer(Answer):
    """What came after the cursor, in order and without a gap; or a snapshot, where that cannot be told."""

    account: str
    cursor: Annotated[str, Field(description="For the next call.")]
    changes: list[Change]
    snapshot: Snapshot | None


class FeedsAnswer(Answer):
    """How fresh each of your accounts is."""

    data: list[Freshness]


class Standing(BaseModel):
    """Whether an account is on real-time updates, and why."""

    model_config = ConfigDict(extra="forbid")

    account: str
    enabled: bool
    reason: str
    said: Annotated[str, Field(description="The reason as a sentence.")]


class RealtimeAnswer(Answer):
    """Your choice, and where each of your accounts stands."""

    choice: Literal["in", "out", "none"]
    data: list[Standing]


class NotificationRow(BaseModel):
    """Something you were told, or could not be told."""

    model_config = ConfigDict(extra="forbid")

    id: int
    target: str
    occasion: str
    account: str
    title: str
    text: str
    state: Literal["WAITING", "SENT", "DEAD"]
    attempts: int
    error: str
    queued: Annotated[int, Field(description="Milliseconds since the epoch.")]


class NotificationsAnswer(Answer):
    """Notifications, newest first."""

    data: list[NotificationRow]


class DoneAnswer(Answer):
    """It is done."""
