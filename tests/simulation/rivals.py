"""What others do with the same observations: last arrival wins, last broker time wins, a guard of transitions.

The rules of vn.py, ib_async, Hummingbot, LEAN and OpenAlgo's pages (last arrival), of careful scripts (broker time),
and of clients that forbid a status to go back (guard), each given more than it usually has: the parsed values, every
channel, and no loss at a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from orderwire.core.orders import OrderStatus, OrderUpdate


@dataclass(slots=True)
class Kept:
    """What a rival shows of an order."""

    status: OrderStatus = OrderStatus.UNKNOWN
    filled: int = 0
    average: Decimal = Decimal(0)
    quantity: int = 0
    price: Decimal = Decimal(0)
    trigger: Decimal = Decimal(0)
    time: float = -1.0


_RANKS: Mapping[OrderStatus, int] = {
    OrderStatus.UNKNOWN: 0,
    OrderStatus.PENDING_NEW: 1,
    OrderStatus.TRIGGER_PENDING: 2,
    OrderStatus.OPEN: 3,
    OrderStatus.PARTIALLY_FILLED: 4,
}
_LAST = 5


def _arrived(_kept: Kept, _update: OrderUpdate) -> bool:
    return True


def _timed(kept: Kept, update: OrderUpdate) -> bool:
    return update.broker_time is None or update.broker_time.timestamp() >= kept.time


def _guarded(kept: Kept, update: OrderUpdate) -> bool:
    if kept.status.terminal:
        return False
    return update.status is None or _RANKS.get(update.status, _LAST) >= _RANKS.get(kept.status, _LAST)


RULES: Mapping[str, Callable[[Kept, OrderUpdate], bool]] = {
    "last arrival wins": _arrived,
    "last broker time wins": _timed,
    "transition guard": _guarded,
}


@dataclass(slots=True)
class Rival:
    """One rule at work on one world's orders."""

    accepts: Callable[[Kept, OrderUpdate], bool]
    orders: dict[str, Kept] = field(default_factory=dict)
    regressions: int = 0

    def hear(self, update: OrderUpdate) -> None:
        """Take an observation, or leave it."""
        kept = self.orders.setdefault(update.order_id, Kept())
        if not self.accepts(kept, update):
            return
        status = kept.status if update.status is None else update.status
        revived = kept.status.terminal and not status.terminal
        self.regressions += revived or update.filled_quantity < kept.filled
        self.orders[update.order_id] = Kept(
            status=status,
            filled=update.filled_quantity,
            average=update.average_price,
            quantity=update.quantity,
            price=update.price,
            trigger=update.trigger_price,
            time=update.broker_time.timestamp() if update.broker_time else kept.time,
        )


def all_rivals() -> dict[str, Rival]:
    """Return one of each, new."""
    return {name: Rival(rule) for name, rule in RULES.items()}
