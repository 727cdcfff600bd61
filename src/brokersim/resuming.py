"""What a remembered order still waits for: the requests that were under way when its exchange stopped."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from brokersim.orders import Cause, OrderRecord, OrderSnapshot, Stage, Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one contract's market remembers: its prices, and whether they or the matching were stopped by hand."""

    last: Decimal
    anchor: Decimal
    held: bool
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Everything an exchange remembers.

    `records` are by uid in the order received; `queued` gives the arrival and the number of parts of each order
    that rests in a book; `stops` are the uids of those that wait for a trigger. `prices` are by contract key,
    `trade_numbers` by exchange.
    """

    records: Mapping[str, OrderRecord]
    queued: Mapping[str, tuple[int, int]]
    stops: tuple[str, ...]
    prices: Mapping[str, Price]
    trade_numbers: Mapping[str, int]
    order_numbers: int
    arrivals: int
    closed: bool


@dataclass(slots=True, kw_only=True)
class UnderWay:
    """Modifications that are being validated and those at the exchange, oldest first; cancellations asked for."""

    validating: list[Terms] = field(default_factory=list)
    sent: list[Terms] = field(default_factory=list)
    cancellations: int = 0


def under_way(history: Iterable[OrderSnapshot]) -> UnderWay:
    """Find the requests without an outcome; a fill may have hidden them from the present stage.

    Raises ValueError if the history cannot have happened.
    """
    found = UnderWay()
    for order in history:
        _take(found, order)
    return found


def _take(found: UnderWay, order: OrderSnapshot) -> None:
    step = order.stage, order.cause
    if step == (Stage.MODIFY_VALIDATING, Cause.MODIFY):
        found.validating += [_requested(order)]
    elif step == (Stage.MODIFY_SENT, Cause.MODIFY):
        found.sent.append(_next(found.validating, order))
    elif order.stage in {Stage.MODIFIED, Stage.MODIFY_REFUSED}:
        _next(found.sent, order)
    elif step == (Stage.CANCEL_SENT, Cause.CANCEL):
        found.cancellations += 1
    elif order.stage is Stage.CANCEL_REFUSED:
        found.cancellations -= 1


def _requested(order: OrderSnapshot) -> Terms:
    if order.requested is None:
        raise ValueError(f"{order.uid}: a modification without terms")
    return order.requested


def _next(waiting: list[Terms], order: OrderSnapshot) -> Terms:
    if not waiting:
        raise ValueError(f"{order.uid}: {order.stage} came out of nowhere")
    return waiting.pop(0)
