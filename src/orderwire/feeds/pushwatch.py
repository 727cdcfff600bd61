"""Compares what the stream told with what the book shows, and so notices a stream that lives and loses."""

from __future__ import annotations

from collections.abc import Sequence

from orderwire.core.orders import OrderId, OrderUpdate
from orderwire.core.recovery import DOUBT_LASTS, PUSH_GRACE

_Fact = tuple[int, bool]
"""Filled quantity, and whether the order has ended: what every stream must tell. Acceptance some brokers never push."""
_NOTHING: _Fact = (0, False)


class PushWatch:
    """What one account's stream has told and its book has shown; on the feed loop, times of that loop."""

    def __init__(self) -> None:
        self.missed = 0
        """Fills and ends that the stream did not tell, since the start."""
        self._told: dict[OrderId, _Fact] = {}
        self._shown: dict[OrderId, _Fact] = {}
        self._suspects: dict[OrderId, float] = {}
        self._doubt_until = 0.0

    def doubted(self, now: float) -> bool:
        """Whether the stream missed something lately and has not proved itself since."""
        return now < self._doubt_until

    def pushed(self, update: OrderUpdate) -> None:
        """Note what the stream told of an order."""
        told = _joined(self._told.get(update.order_id, _NOTHING), _fact(update))
        self._told[update.order_id] = told
        if update.order_id in self._suspects and _covers(told, self._shown[update.order_id]):
            del self._suspects[update.order_id]
            self._doubt_until = 0.0

    def shown(self, rows: Sequence[OrderUpdate], *, now: float, judge: bool) -> None:
        """Note what the book shows. `judge`: the stream has delivered since before the last book was read."""
        for row in rows:
            before, fact = self._shown.get(row.order_id, _NOTHING), _fact(row)
            self._shown[row.order_id] = fact
            if not _covers(before, fact):
                self._weigh(row.order_id, fact, now=now, judge=judge)
        self._convict(now)
        self._forget({row.order_id for row in rows})

    def _weigh(self, order_id: OrderId, fact: _Fact, *, now: float, judge: bool) -> None:
        if _covers(self._told.get(order_id, _NOTHING), fact):
            self._doubt_until = 0.0
        elif judge:
            self._suspects.setdefault(order_id, now)

    def _convict(self, now: float) -> None:
        for order_id, since in list(self._suspects.items()):
            if now - since >= PUSH_GRACE:
                del self._suspects[order_id]
                self.missed += 1
                self._doubt_until = now + DOUBT_LASTS

    def _forget(self, present: set[OrderId]) -> None:
        for kept in (self._shown, self._suspects):
            for gone in kept.keys() - present:
                del kept[gone]
        if len(self._told) > 4 * len(present) + 256:
            self._told = {order_id: fact for order_id, fact in self._told.items() if order_id in present}


def _fact(update: OrderUpdate) -> _Fact:
    return (update.filled_quantity, update.status is not None and update.status.terminal)


def _joined(one: _Fact, other: _Fact) -> _Fact:
    return (max(one[0], other[0]), one[1] or other[1])


def _covers(told: _Fact, fact: _Fact) -> bool:
    return told[0] >= fact[0] and told[1] >= fact[1]
