"""One contract's market: its moving price, its synthetic quotes and the users' orders resting in its book."""

import math
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Final

from brokersim.instruments import Instrument
from brokersim.orders import OrderRecord, OrderSnapshot, Side

# How far prices wander from the reference, and how near to the market an order must rest to be filled by
# synthetic counterparties: a fraction of the price, but at least so many ticks.
_WANDER: Final = (Decimal("0.002"), 3)
_REACH: Final = (Decimal("0.003"), 5)
_LOTS_IN_DEPTH: Final = 500
_Rank = tuple[int, Decimal, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Last traded price and the synthetic best bid and ask, one tick to either side of it."""

    last: Decimal
    bid: Decimal
    ask: Decimal


@dataclass(slots=True, eq=False)
class Resting:
    """An order in the book, with its place in time and the number of parts synthetic sides take it in."""

    record: OrderRecord
    arrival: int
    parts: int

    @property
    def aggressive(self) -> bool:
        """Whether it takes liquidity quickly: no limit price, or asked for."""
        order = self.record.last
        return order.request.aggressive or not order.terms.type.priced

    @property
    def slice(self) -> int:
        """How much one synthetic counterparty takes: an equal part, in whole lots."""
        order = self.record.last
        if self.aggressive:
            return order.terms.quantity
        lot = max(order.instrument.lot, 1)
        lots = order.terms.quantity // lot or 1
        return max(-(-lots // self.parts), 1) * lot


class Pull(Enum):
    """Whether a synthetic counterparty is on its way to one side of a book, and how fast."""

    NONE = 0
    SLOW = 1
    FAST = 2


def _rank_of(entry: tuple[_Rank, Resting]) -> _Rank:
    return entry[0]


@dataclass(slots=True)
class BookSide:
    """The resting orders of one side, best price first, earliest first at one price."""

    side: Side
    expecting: Pull = Pull.NONE
    visits: int = 0
    _queue: list[tuple[_Rank, Resting]] = field(default_factory=list)
    _ranks: dict[int, _Rank] = field(default_factory=dict)

    @property
    def best(self) -> Resting | None:
        """The first in the queue."""
        return self._queue[0][1] if self._queue else None

    def add(self, resting: Resting) -> None:
        """Queue an order behind all that are as good."""
        rank = self._ranks[id(resting.record)] = self._rank(resting)
        insort(self._queue, (rank, resting), key=_rank_of)

    def discard(self, record: OrderRecord) -> None:
        """Take an order out, if it is in."""
        rank = self._ranks.pop(id(record), None)
        if rank is not None:
            del self._queue[bisect_left(self._queue, rank, key=_rank_of)]

    def first(self, count: int) -> list[Resting]:
        """Give the first so many."""
        return [entry[1] for entry in self._queue[:count]]

    def count_to(self, price: Decimal) -> int:
        """Count the orders whose limit is `price` or better, and those without a limit."""
        worst = -price if self.side is Side.BUY else price
        return bisect_right(self._queue, (1, worst, math.inf), key=_rank_of)

    def _rank(self, resting: Resting) -> _Rank:
        terms = resting.record.last.terms
        if not terms.type.priced:
            return 0, Decimal(0), resting.arrival
        return 1, -terms.price if self.side is Side.BUY else terms.price, resting.arrival


class Market:
    """Price and book of one contract. Prices stay on the tick and inside the band."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.last = instrument.price
        self.held = False
        self.paused = False
        self.stops: list[OrderRecord] = []
        self.depth = max(instrument.lot, 1) * _LOTS_IN_DEPTH
        self.anchor = instrument.price
        self._sides = {side: BookSide(side) for side in Side}

    @property
    def quote(self) -> Quote:
        """The present prices."""
        low, high = self.instrument.band
        tick = self.instrument.tick
        return Quote(last=self.last, bid=max(self.last - tick, low), ask=min(self.last + tick, high))

    def side(self, side: Side) -> BookSide:
        """Give one side of the book."""
        return self._sides[side]

    def move(self, price: Decimal) -> None:
        """Set the last price; wandering goes on round it."""
        self.last = self.anchor = price

    def traded(self, price: Decimal) -> None:
        """Let a trade make the price, unless the price is held."""
        if not self.held and abs(price - self.anchor) <= self._width(_WANDER):
            self.last = price

    def wander(self, ticks: int) -> None:
        """Move by so many ticks, not farther from the anchor than allowed."""
        price = self.last + ticks * self.instrument.tick
        low, high = self.instrument.band
        if abs(price - self.anchor) <= self._width(_WANDER) and low <= price <= high:
            self.last = price

    def fires(self, order: OrderSnapshot) -> bool:
        """Whether the last price has reached a stop order's trigger."""
        trigger = order.terms.trigger_price
        return self.last >= trigger if order.side is Side.BUY else self.last <= trigger

    def within_reach(self, side: Side) -> int:
        """Count the resting orders near enough to the market for a synthetic counterparty."""
        width = self._width(_REACH)
        return self._sides[side].count_to(self.last - width if side is Side.BUY else self.last + width)

    def reaches(self, order: OrderSnapshot) -> bool:
        """Whether the order's price is as good as the synthetic quote on the other side."""
        if not order.terms.type.priced:
            return True
        quote, price = self.quote, order.terms.price
        return price >= quote.ask if order.side is Side.BUY else price <= quote.bid

    def taken_at(self, order: OrderSnapshot) -> Decimal:
        """Give the price a synthetic counterparty pays: the quote, or the order's limit if that is worse."""
        touch = self.quote.ask if order.side is Side.BUY else self.quote.bid
        if not order.terms.type.priced or self.reaches(order):
            return touch
        return order.terms.price

    def best_against(self, order: OrderSnapshot, *, synthetic: bool) -> Resting | None:
        """Find the resting order that `order` must trade with first, if their prices meet.

        With `synthetic` a user whose price is worse than the synthetic quote does not come first.
        """
        best = self._sides[order.side.other].best
        if best is None or not self._meets(order, self.price_of(best)):
            return None
        if synthetic and not self._beats_quote(best):
            return None
        return best

    def price_of(self, resting: Resting) -> Decimal:
        """Give the price a resting order trades at: its limit, or the last price if it has none."""
        terms = resting.record.last.terms
        return terms.price if terms.type.priced else self.last

    def _meets(self, order: OrderSnapshot, price: Decimal) -> bool:
        if not order.terms.type.priced:
            return True
        return price <= order.terms.price if order.side is Side.BUY else price >= order.terms.price

    def _beats_quote(self, resting: Resting) -> bool:
        price, quote = self.price_of(resting), self.quote
        return price >= quote.bid if resting.record.last.side is Side.BUY else price <= quote.ask

    def _width(self, rule: tuple[Decimal, int]) -> Decimal:
        fraction, ticks = rule
        return max(self.last * fraction, ticks * self.instrument.tick)
