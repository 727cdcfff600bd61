"""The one exchange behind both simulated brokers: it walks orders through their stages and matches them.

Deterministic: time comes from a `Timeline`, chance from a `random.Random`, nothing else moves it. One thread.
The values it speaks in are in `orders.py`; prices and books are in `market.py`.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import partial
from random import Random
from typing import Any, Final

from brokersim.instruments import INSTRUMENTS, Instrument
from brokersim.market import Market, Pull, Quote, Resting
from brokersim.orders import (
    RESTING,
    TERMINAL,
    UNCONFIRMED,
    Cause,
    ExchangeEvent,
    OrderRecord,
    OrderRequest,
    OrderSnapshot,
    OrderType,
    Reason,
    Side,
    Stage,
    Terms,
    Trade,
    Validity,
)
from brokersim.resuming import Books, Price, under_way
from brokersim.timeline import Timeline

Listener = Callable[[ExchangeEvent], None]
SELF_TRADE: Final = Reason(
    text="17071 : The order could have resulted in self trade ",
    raw="17071 : The order could have resulted in self trade ",
)


class Moment(StrEnum):
    """When somebody is asked whether an order may go on."""

    RISK = "RISK"
    EXCHANGE = "EXCHANGE"
    MODIFY = "MODIFY"
    CANCEL = "CANCEL"


Judge = Callable[[Moment, OrderSnapshot], Reason | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things take, in seconds.

    `walk` is the interval of price steps; `flow` the shortest and longest pause between two synthetic
    counterparties at one side of one book; `aggressive` the pause between two parts of an order that takes.
    """

    validate: float = 0.004
    send: float = 0.004
    acknowledge: float = 0.012
    modify: float = 0.010
    cancel: float = 0.015
    amo_hold: float = 3.0
    walk: float = 0.5
    flow: tuple[float, float] = (0.35, 0.8)
    aggressive: float = 0.03


class UnknownOrderError(LookupError):
    """There is no such order."""


class Exchange:
    """Instruments, prices, books and every order of the day.

    Listeners get every step of every order, in the order they happen, each with a full snapshot; a step that a
    listener causes is delivered after the present one. `judge` is asked at each `Moment` and refuses with a
    `Reason`; set it before the first order.
    """

    def __init__(
        self,
        timeline: Timeline,
        rng: Random,
        *,
        instruments: Iterable[Instrument] = INSTRUMENTS,
        pace: Pace | None = None,
        liquidity: bool = True,
        walking: bool = True,
    ) -> None:
        """Open the market.

        Without `liquidity` users trade only with each other; without `walking` prices stand still.
        """
        self.timeline = timeline
        self.pace = pace or Pace()
        self.liquidity = liquidity
        self.judge: Judge = lambda _moment, _order: None
        self.closed = False
        self._rng = rng
        self._markets = {each.key: Market(each) for each in instruments}
        self._records: dict[str, OrderRecord] = {}
        self._by_user: dict[tuple[str, str], list[OrderRecord]] = {}
        self._listeners: list[Listener] = []
        self._events: deque[ExchangeEvent] = deque()
        self._delivering = False
        self._frozen: dict[str, frozenset[Stage]] = {}
        self._held: list[tuple[OrderRecord, Callable[[], None]]] = []
        self._waiting_amo: list[OrderRecord] = []
        self._order_numbers = 0
        self._trade_numbers: dict[str, int] = {}
        self._arrivals = 0
        self.trades: list[Trade] = []
        if walking:
            timeline.after(self.pace.walk, self._walk)

    # --- reading -----------------------------------------------------------------------------------------

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """Every contract listed."""
        return tuple(market.instrument for market in self._markets.values())

    def instrument(self, key: str) -> Instrument | None:
        """Find a contract by EXCHANGE:SYMBOL."""
        market = self._markets.get(key)
        return market.instrument if market else None

    def quote(self, key: str) -> Quote:
        """Give the last price and the synthetic bid and ask of a contract. Raises KeyError if unknown."""
        return self._markets[key].quote

    def order(self, uid: str) -> OrderSnapshot:
        """Give the order `broker:order_id` as it is now. Raises UnknownOrderError."""
        return self._record(uid).last

    def history(self, uid: str) -> Sequence[OrderSnapshot]:
        """Give every snapshot of an order, oldest first. Raises UnknownOrderError."""
        return tuple(self._record(uid).history)

    def orders(self, *, broker: str | None = None, user: str | None = None) -> list[OrderSnapshot]:
        """Give the current snapshot of each matching order, in the order they were received."""
        if broker is not None and user is not None:
            return [record.last for record in self._by_user.get((broker, user), ())]
        rows = (record.last for record in self._records.values())
        return [row for row in rows if broker in {None, row.broker} and user in {None, row.user}]

    def trades_of(self, uid: str) -> Sequence[Trade]:
        """Give an order's trades, oldest first. Raises UnknownOrderError."""
        return tuple(self._record(uid).trades)

    def trades_by(self, *, broker: str, user: str) -> list[Trade]:
        """Give a user's trades, oldest first."""
        records = self._by_user.get((broker, user), ())
        return sorted((each for record in records for each in record.trades), key=_traded_at)

    def subscribe(self, listener: Listener) -> None:
        """Have `listener` called with every event from now on."""
        self._listeners.append(listener)

    # --- what brokers do ---------------------------------------------------------------------------------

    def submit(self, request: OrderRequest) -> OrderSnapshot:
        """Take a new order; everything further happens as time passes. Returns its first snapshot.

        Raises ValueError if the broker used the id before, KeyError if the contract is not listed.
        """
        uid = f"{request.broker}:{request.order_id}"
        if uid in self._records:
            raise ValueError(uid)
        if request.instrument.key not in self._markets:
            raise KeyError(request.instrument.key)
        record = self._records[uid] = OrderRecord()
        self._by_user.setdefault((request.broker, request.user), []).append(record)
        now = self.timeline.date
        record.history.append(
            OrderSnapshot(
                request=request,
                number=0,
                stage=Stage.AMO_RECEIVED if request.amo else Stage.RECEIVED,
                cause=Cause.PLACED,
                terms=request.terms,
                received_at=now,
                updated_at=now,
            )
        )
        self._emit(ExchangeEvent(order=record.last))
        if request.amo:
            self._waiting_amo.append(record)
            self._later(record, self.pace.amo_hold, partial(self._release_amo, record))
        else:
            self._later(record, self.pace.validate, partial(self._validate, record))
        return record.last

    def modify(self, uid: str, terms: Terms) -> OrderSnapshot:
        """Ask for new terms. Returns the order in MODIFY_VALIDATING, or unchanged if it is not resting.

        The outcome comes later: MODIFIED and the resting stage with the new terms, or MODIFY_REFUSED.
        An AMO that waits for the market has the new terms at once. Raises UnknownOrderError.
        """
        record = self._record(uid)
        if record.last.stage is Stage.AMO_RECEIVED:
            self._step(record, Stage.AMO_RECEIVED, Cause.MODIFY, terms=terms)
        elif record.last.stage in RESTING:
            self._step(record, Stage.MODIFY_VALIDATING, Cause.MODIFY, requested=terms)
            self._later(record, self.pace.modify, partial(self._send_modification, record, terms))
        return record.last

    def cancel(self, uid: str) -> OrderSnapshot:
        """Ask for cancellation. Returns the order in CANCEL_SENT, or unchanged if it is not resting.

        An AMO that waits for the market is cancelled at once. Raises UnknownOrderError.
        """
        record = self._record(uid)
        if record.last.stage is Stage.AMO_RECEIVED:
            self._step(record, Stage.CANCELLED, Cause.CANCEL)
        elif record.last.stage in RESTING:
            self._step(record, Stage.CANCEL_SENT, Cause.CANCEL)
            self._later(record, self.pace.cancel, partial(self._finish_cancel, record))
        return record.last

    # --- what the control API does -----------------------------------------------------------------------

    def set_price(self, key: str, price: Decimal, *, hold: bool = True) -> None:
        """Move a contract's last price; with `hold` it stays there until it is set with hold=False.

        Triggers and fills follow as if the market had moved. Raises KeyError if the contract is unknown.
        """
        market = self._markets[key]
        market.held = hold
        market.move(price)
        self._after_price(market)

    def pause(self, key: str | None = None) -> None:
        """Stop matching in one contract, or in all; orders are still taken, modified and cancelled."""
        for market in self._some(key):
            market.paused = True

    def resume(self, key: str | None = None) -> None:
        """Match again, and match what is due."""
        for market in self._some(key):
            market.paused = False
            self._after_price(market)

    def fill(self, uid: str, quantity: int, price: Decimal | None = None) -> OrderSnapshot:
        """Fill so much of a resting order now, at `price` or its own, though matching is paused.

        More than what remains fills what remains. Raises UnknownOrderError, ValueError if it does not rest.
        """
        record = self._record(uid)
        order = record.last
        if order.stage in UNCONFIRMED | TERMINAL or quantity <= 0:
            raise ValueError(f"{uid} is {order.stage}: nothing to fill")
        market = self._market_of(record)
        at = price or (order.terms.price if order.terms.type.priced else market.last)
        waited = record in market.stops
        if waited:
            market.stops.remove(record)
            self._triggered(record)
        self._trade(market, [(record, min(quantity, order.remaining))], at)
        if waited and record.last.live:
            self._work(record)
        return record.last

    def cancel_by_exchange(self, uid: str, reason: Reason = SELF_TRADE) -> OrderSnapshot:
        """Cancel a live order unasked, keeping its fills. Raises UnknownOrderError."""
        record = self._record(uid)
        if record.last.live:
            self._step(record, Stage.CANCELLED, Cause.SELF_TRADE, reason=reason)
        return record.last

    def freeze(self, stages: Iterable[Stage], *, user: str = "") -> None:
        """Keep every order (of `user`, if given) that is in one of the stages from leaving it by itself.

        No stages at all, or `thaw`, lets them go on.
        """
        self._frozen[user] = frozenset(stages)
        self._go_on()

    def thaw(self) -> None:
        """Let every held order go on."""
        self._frozen.clear()
        self._go_on()

    def close(self) -> None:
        """Close the market: new orders are rejected by the exchange, nothing matches, AMOs wait."""
        self.closed = True

    def open(self) -> None:
        """Open the market; waiting AMOs are released."""
        self.closed = False
        waiting, self._waiting_amo = self._waiting_amo, []
        for record in waiting:
            self._release_amo(record)
        for market in self._markets.values():
            self._after_price(market)

    def end_day(self) -> int:
        """Expire every live order, as the exchange does after the close; return how many."""
        live = [record for record in self._records.values() if record.last.live]
        for record in live:
            self._step(record, Stage.EXPIRED, Cause.DAY_END)
        return len(live)

    # --- remembering -------------------------------------------------------------------------------------

    def books(self) -> Books:
        """Give everything there is to remember. The records are the exchange's own and go on growing."""
        markets = self._markets.values()
        most = len(self._records)
        queued = (each for market in markets for side in Side for each in market.side(side).first(most))
        return Books(
            records=self._records,
            queued={each.record.last.uid: (each.arrival, each.parts) for each in queued},
            stops=tuple(record.last.uid for market in markets for record in market.stops),
            prices={key: _price(market) for key, market in self._markets.items()},
            trade_numbers=self._trade_numbers,
            order_numbers=self._order_numbers,
            arrivals=self._arrivals,
            closed=self.closed,
        )

    def restore(self, books: Books) -> None:
        """Go on where the exchange that gave `books` stopped. For a new one; listeners hear of nothing remembered.

        Raises ValueError or LookupError if the books contradict themselves.
        """
        self._order_numbers, self._arrivals = books.order_numbers, books.arrivals
        self._trade_numbers = dict(books.trade_numbers)
        self.closed = books.closed
        for uid, record in books.records.items():
            self._records[uid] = record
            self._by_user.setdefault(_owner(record), []).append(record)
        self.trades = sorted(
            (each for record in self._records.values() for each in record.trades), key=_traded_at
        )
        for uid in books.stops:
            self._market_of(self._record(uid)).stops.append(self._record(uid))
        for record in self._records.values():
            if record.last.live:
                self._resume(record, books)
        for key, price in books.prices.items():
            self._resume_market(self._markets[key], price)

    def _resume_market(self, market: Market, price: Price) -> None:
        market.last, market.anchor = price.last, price.anchor
        market.held, market.paused = price.held, price.paused
        self.timeline.after(0, partial(self._after_price, market))

    def _resume(self, record: OrderRecord, books: Books) -> None:
        order = record.last
        if order.stage in UNCONFIRMED:
            self._resume_unconfirmed(record)
            return
        if place := books.queued.get(order.uid):
            arrival, parts = place
            book = self._market_of(record).side(order.side)
            book.add(Resting(record=record, arrival=arrival, parts=parts))
        elif order.uid not in books.stops:
            raise ValueError(f"{order.uid} is live but in no book")
        self._resume_requests(record)
        self._resume_expiry(record)

    def _resume_unconfirmed(self, record: OrderRecord) -> None:
        pace = self.pace
        steps = {
            Stage.AMO_RECEIVED: (pace.amo_hold, self._release_amo),
            Stage.RECEIVED: (pace.validate, self._validate),
            Stage.VALIDATING: (pace.validate, self._send),
            Stage.SENT: (pace.send + pace.acknowledge, self._register),
        }
        delay, step = steps[record.last.stage]
        if record.last.stage is Stage.AMO_RECEIVED:
            self._waiting_amo.append(record)
        self._later(record, delay, partial(step, record))

    def _resume_requests(self, record: OrderRecord) -> None:
        waiting = under_way(record.history)
        for terms in waiting.sent:
            self._later(record, self.pace.modify, partial(self._finish_modification, record, terms))
        for terms in waiting.validating:
            self._later(record, self.pace.modify, partial(self._send_modification, record, terms))
        for _ in range(waiting.cancellations):
            self._later(record, self.pace.cancel, partial(self._finish_cancel, record))

    def _resume_expiry(self, record: OrderRecord) -> None:
        request = record.last.request
        if request.ttl_minutes and record.last.terms.validity is Validity.TTL:
            registered = next(each.registered_at for each in record.history if each.registered_at)
            age = (self.timeline.date - registered).total_seconds()
            self.timeline.after(request.ttl_minutes * 60 - age, partial(self._expire, record))

    # --- stages ------------------------------------------------------------------------------------------

    def _release_amo(self, record: OrderRecord) -> None:
        if record.last.stage is Stage.AMO_RECEIVED and not self.closed:
            self._waiting_amo = [each for each in self._waiting_amo if each is not record]
            self._step(record, Stage.RECEIVED, Cause.PLACED)
            self._later(record, self.pace.validate, partial(self._validate, record))

    def _validate(self, record: OrderRecord) -> None:
        self._step(record, Stage.VALIDATING, Cause.PLACED)
        self._later(record, self.pace.validate, partial(self._send, record))

    def _send(self, record: OrderRecord) -> None:
        if reason := self.judge(Moment.RISK, record.last):
            self._step(record, Stage.REJECTED, Cause.RISK, reason=reason)
            return
        self._step(record, Stage.SENT, Cause.PLACED)
        self._later(record, self.pace.send + self.pace.acknowledge, partial(self._register, record))

    def _register(self, record: OrderRecord) -> None:
        order = record.last
        if reason := self._exchange_refusal(order):
            self._step(record, Stage.REJECTED, Cause.EXCHANGE, reason=reason)
            return
        self._order_numbers += 1
        prefix = _EXCHANGE_DIGITS.get(order.instrument.exchange, "19")
        now = self.timeline.date
        self._step(
            record,
            order.resting_stage,
            Cause.PLACED,
            exchange_order_id=f"{prefix}{self._order_numbers:014}",
            registered_at=now,
            exchange_updated_at=now,
        )
        if order.request.ttl_minutes and order.terms.validity is Validity.TTL:
            self.timeline.after(order.request.ttl_minutes * 60, partial(self._expire, record))
        self._work(record)

    def _exchange_refusal(self, order: OrderSnapshot) -> Reason | None:
        return self.judge(Moment.EXCHANGE, order) or exchange_refusal(order, closed=self.closed)

    def _expire(self, record: OrderRecord) -> None:
        if record.last.live:
            self._remove(record)
            self._step(record, Stage.CANCELLED, Cause.IOC)

    def _send_modification(self, record: OrderRecord, terms: Terms) -> None:
        if record.last.live:
            self._step(record, Stage.MODIFY_SENT, Cause.MODIFY)
            self._later(record, self.pace.modify, partial(self._finish_modification, record, terms))

    def _finish_modification(self, record: OrderRecord, terms: Terms) -> None:
        order = record.last
        if not order.live:
            return
        if reason := self._modification_refusal(order, terms):
            self._step(record, Stage.MODIFY_REFUSED, Cause.MODIFY, reason=reason)
            self._step(record, order.resting_stage, Cause.MODIFY, requested=None, reason=None)
            return
        now = self.timeline.date
        self._step(record, Stage.MODIFIED, Cause.MODIFY, registered_at=now, exchange_updated_at=now)
        changed = replace(order, terms=terms)
        self._step(
            record,
            changed.resting_stage,
            Cause.MODIFY,
            terms=terms,
            requested=None,
            modifications=order.modifications + 1,
        )
        self._requeue(record, order.terms, terms)

    def _modification_refusal(self, order: OrderSnapshot, terms: Terms) -> Reason | None:
        if terms.quantity <= order.filled:
            text = "16346 : Order cannot be modified"
            return Reason(text=text, raw=text)
        return self.judge(Moment.MODIFY, replace(order, terms=terms)) or exchange_refusal(
            replace(order, terms=terms), closed=self.closed
        )

    def _finish_cancel(self, record: OrderRecord) -> None:
        order = record.last
        if not order.live:
            return
        if reason := self.judge(Moment.CANCEL, order):
            self._step(record, Stage.CANCEL_REFUSED, Cause.CANCEL, reason=reason)
            self._step(record, order.resting_stage, Cause.CANCEL, reason=None)
            return
        self._remove(record)
        self._step(record, Stage.CANCELLED, Cause.CANCEL, exchange_updated_at=self.timeline.date)

    # --- matching ----------------------------------------------------------------------------------------

    def _work(self, record: OrderRecord) -> None:
        market, order = self._market_of(record), record.last
        if order.resting_stage is Stage.TRIGGER_PENDING:
            market.stops.append(record)
            self._fire_stops(market)
            return
        self._match(market, record)
        if record.last.live and order.terms.validity is Validity.IOC:
            self._fill_or_kill(market, record)
        elif record.last.live:
            self._rest(market, record)

    def _rest(self, market: Market, record: OrderRecord) -> None:
        self._arrivals += 1
        order = record.last
        parts = self._rng.randint(2, 4)
        market.side(order.side).add(Resting(record=record, arrival=self._arrivals, parts=parts))
        self._wake(market, order.side)

    def _requeue(self, record: OrderRecord, old: Terms, new: Terms) -> None:
        keeps_place = new.quantity <= old.quantity and replace(new, quantity=old.quantity) == old
        if not keeps_place:
            self._remove(record)
            self._work(record)

    def _match(self, market: Market, record: OrderRecord) -> None:
        """Trade an order with the other users' resting orders: best price first, then the earliest."""
        while record.last.live and not (market.paused or self.closed):
            against = market.best_against(record.last, synthetic=self.liquidity)
            if against is None:
                return
            if _owner(against.record) == _owner(record):
                self._remove(record)
                self._step(record, Stage.CANCELLED, Cause.SELF_TRADE, reason=SELF_TRADE)
                return
            quantity = min(record.last.remaining, against.record.last.remaining)
            self._trade(market, [(against.record, quantity), (record, quantity)], market.price_of(against))

    def _fill_or_kill(self, market: Market, record: OrderRecord) -> None:
        order = record.last
        if self._synthetic(market) and market.reaches(order):
            self._trade(market, [(record, min(order.remaining, market.depth))], market.taken_at(order))
        if record.last.live:
            self._step(record, Stage.CANCELLED, Cause.IOC, exchange_updated_at=self.timeline.date)

    def _wake(self, market: Market, side: Side) -> None:
        """Have the next synthetic counterparty come to one side of a book, unless one is on the way.

        For an aggressive order at the head of the queue another comes sooner and the slow one stays away.
        """
        book = market.side(side)
        best = book.best
        urgent = best is not None and best.aggressive
        if not self._synthetic(market) or book.expecting == (Pull.FAST if urgent else Pull.SLOW):
            return
        waiting = market.within_reach(side)
        if waiting and book.expecting is not Pull.FAST:
            book.expecting = Pull.FAST if urgent else Pull.SLOW
            book.visits += 1
            gap = self.pace.aggressive if urgent else self._rng.uniform(*self.pace.flow) / waiting
            self.timeline.after(gap, partial(self._flow, market, side, book.visits))

    def _flow(self, market: Market, side: Side, visit: int) -> None:
        """Let one synthetic counterparty trade with the first order in the queue."""
        book = market.side(side)
        if visit != book.visits:
            return
        book.expecting = Pull.NONE
        if not self._synthetic(market) or not market.within_reach(side):
            return
        if (best := book.best) is not None:
            self._match(market, best.record)
            if best.record.last.live:
                quantity = min(best.slice, best.record.last.remaining, market.depth)
                self._trade(market, [(best.record, quantity)], market.taken_at(best.record.last))
        self._wake(market, side)

    def _synthetic(self, market: Market) -> bool:
        return self.liquidity and not market.paused and not self.closed

    def _trade(self, market: Market, fills: Sequence[tuple[OrderRecord, int]], price: Decimal) -> None:
        number = self._trade_numbers.get(market.instrument.exchange, 0) + 1
        self._trade_numbers[market.instrument.exchange] = number
        for record, quantity in fills:
            self._fill(record, quantity, price, f"{number + 10_000_000}")
        market.traded(price)
        self._fire_stops(market)

    def _fill(self, record: OrderRecord, quantity: int, price: Decimal, trade_id: str) -> None:
        order = record.last
        trade = Trade(
            trade_id=trade_id,
            order=order.request,
            exchange_order_id=order.exchange_order_id,
            quantity=quantity,
            price=price,
            at=self.timeline.date,
        )
        record.trades.append(trade)
        self.trades.append(trade)
        done = quantity == order.remaining
        if done:
            self._remove(record)
        self._step(
            record,
            Stage.FILLED if done else Stage.PARTIALLY_FILLED,
            Cause.FILL,
            trade=trade,
            filled=order.filled + quantity,
            value=order.value + quantity * price,
            triggered=True if order.terms.type.stop else order.triggered,
            exchange_updated_at=self.timeline.date,
        )

    # --- prices ------------------------------------------------------------------------------------------

    def _walk(self) -> None:
        for market in self._markets.values():
            step = self._rng.randint(-2, 2)
            if not (market.held or self.closed):
                market.wander(step)
                self._after_price(market)
        self.timeline.after(self.pace.walk, self._walk)

    def _after_price(self, market: Market) -> None:
        self._fire_stops(market)
        for side in Side:
            self._wake(market, side)

    def _fire_stops(self, market: Market) -> None:
        if self.closed or market.paused:
            return
        for record in [each for each in market.stops if market.fires(each.last)]:
            if record not in market.stops:
                continue
            market.stops.remove(record)
            self._triggered(record)
            self._work(record)

    def _triggered(self, record: OrderRecord) -> None:
        order = replace(record.last, triggered=True)
        stage = order.resting_stage if record.last.stage in RESTING else record.last.stage
        self._step(
            record,
            stage,
            Cause.TRIGGER,
            triggered=True,
            exchange_updated_at=self.timeline.date,
        )

    # --- the machinery -----------------------------------------------------------------------------------

    def _record(self, uid: str) -> OrderRecord:
        try:
            return self._records[uid]
        except KeyError:
            raise UnknownOrderError(uid) from None

    def _market_of(self, record: OrderRecord) -> Market:
        return self._markets[record.last.instrument.key]

    def _some(self, key: str | None) -> list[Market]:
        return list(self._markets.values()) if key is None else [self._markets[key]]

    def _remove(self, record: OrderRecord) -> None:
        market = self._market_of(record)
        if record in market.stops:
            market.stops.remove(record)
        market.side(record.last.side).discard(record)

    def _step(
        self, record: OrderRecord, stage: Stage, cause: Cause, *, trade: Trade | None = None, **changes: Any
    ) -> None:
        last = record.last
        if stage in TERMINAL:
            self._remove(record)
        record.history.append(
            replace(
                last,
                number=last.number + 1,
                stage=stage,
                cause=cause,
                updated_at=self.timeline.date,
                **changes,
            )
        )
        self._emit(ExchangeEvent(order=record.last, trade=trade))

    def _emit(self, event: ExchangeEvent) -> None:
        self._events.append(event)
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._events:
                event = self._events.popleft()
                for listener in self._listeners:
                    listener(event)
        finally:
            self._delivering = False

    def _later(self, record: OrderRecord, delay: float, action: Callable[[], None]) -> None:
        self.timeline.after(delay, partial(self._unless_frozen, record, action))

    def _unless_frozen(self, record: OrderRecord, action: Callable[[], None]) -> None:
        if self._is_frozen(record.last):
            self._held.append((record, action))
        else:
            action()

    def _is_frozen(self, order: OrderSnapshot) -> bool:
        return any(order.stage in self._frozen.get(user, ()) for user in ("", order.user))

    def _go_on(self) -> None:
        held, self._held = self._held, []
        for record, action in held:
            self._unless_frozen(record, action)


_EXCHANGE_DIGITS: Final = {"NSE": "11", "BSE": "12", "NFO": "13", "BFO": "14", "CDS": "15", "MCX": "16"}


def _price(market: Market) -> Price:
    return Price(last=market.last, anchor=market.anchor, held=market.held, paused=market.paused)


def _traded_at(trade: Trade) -> datetime:
    return trade.at


def _owner(record: OrderRecord) -> tuple[str, str]:
    return record.last.broker, record.last.user


def exchange_refusal(order: OrderSnapshot, *, closed: bool = False) -> Reason | None:
    """Say why the exchange rejects an order: market closed, quantity over the freeze limit, outside the band."""
    low, high = order.instrument.band
    terms = order.terms
    prices = [terms.price] if terms.type.priced else []
    prices += [terms.trigger_price] if terms.type.stop else []
    if closed:
        return Reason(text="Market is closed.", raw="16387 : Security is not allowed to trade in this market")
    if terms.quantity > order.instrument.freeze:
        text = f"Quantity {terms.quantity} exceeds the freeze limit {order.instrument.freeze}."
        return Reason(text=text, raw="17070 : The quantity is above the freeze limit")
    if any(not low <= price <= high for price in prices):
        text = f"Price is outside today's price band {low} - {high}."
        return Reason(text=text, raw=f"17080 : Order price is out of the day's price range ({low} - {high})")
    return None


class FormalFault(StrEnum):
    """What is formally wrong with an order before anything is done with it."""

    INDEX = "the contract is an index"
    QUANTITY = "the quantity is not positive"
    LOT = "the quantity is not a multiple of the lot"
    PRICE = "the price is missing"
    TRIGGER = "the trigger price is missing"
    TICK = "the price is not a multiple of the tick"


def formal_fault(instrument: Instrument, terms: Terms) -> FormalFault | None:
    """Find the first formal fault of an order's terms; brokers refuse those before they book anything."""
    checks = (
        (FormalFault.INDEX, instrument.tradable),
        (FormalFault.QUANTITY, terms.quantity > 0),
        (FormalFault.LOT, not instrument.tradable or terms.quantity % instrument.lot == 0),
        (FormalFault.PRICE, not terms.type.priced or terms.price > 0),
        (FormalFault.TRIGGER, not terms.type.stop or terms.trigger_price > 0),
        (FormalFault.TICK, not instrument.tradable or _on_tick(instrument, terms)),
    )
    return next((fault for fault, fine in checks if not fine), None)


def _on_tick(instrument: Instrument, terms: Terms) -> bool:
    prices = (terms.price if terms.type is not OrderType.MARKET else Decimal(0), terms.trigger_price)
    return all(price % instrument.tick == 0 for price in prices)
