"""The join: which of two statements about an order wins, and what a trader sees of the result."""

from __future__ import annotations

from datetime import date, datetime

from msgspec import Struct

from orderwire.core.orders import ZERO, AccountId, Channel, Money, OrderId, OrderStatus, Quantity


class OrderView(Struct, frozen=True, kw_only=True, gc=False):
    """What a trader, a program or the database sees of one order: the visible side of its state."""

    account: AccountId
    broker: str
    row: str
    """Stable key of the order's line on a page: our submission's id when we placed it, else the order id."""
    order_id: OrderId
    """Empty while the broker has given none (a submission on its way, in doubt, or refused)."""
    submission: str = ""
    """Id of our own submission, if it was ours; also the tag the broker was given."""
    trading_date: date
    status: OrderStatus
    raw_status: str = ""
    pending_modify: bool = False
    pending_cancel: bool = False
    conflict: bool = False
    """REST contradicts what we hold, and is not yet confirmed."""
    checking: bool = False
    """A hint came that has not been verified."""
    symbol: str
    exchange: str
    known_symbol: bool = True
    side: str
    order_type: str
    product: str
    validity: str = ""
    quantity: Quantity
    filled_quantity: Quantity = 0
    pending_quantity: Quantity = 0
    """What may still be filled: 0 when the order is terminal."""
    price: Money = ZERO
    trigger_price: Money = ZERO
    average_price: Money = ZERO
    disclosed_quantity: Quantity = 0
    reason: str = ""
    broker_time: datetime | None = None
    first_seen: datetime | None = None
    exchange_order_id: str = ""
    parent_order_id: str = ""
    revision: int = 0
    source: Channel = Channel.REST
    """Channel of the observation that made the latest change."""
