"""The join: which of two statements about an order wins, and what a trader sees of the result.

Everything a broker says about an order, over whatever channel and in whatever order it arrives, is lifted to an
`OrderState` and joined. The join takes the greater of each component, so it is commutative, associative and
idempotent: duplicates, reordering and losses later repaired all end in the same state (docs/decisions/0004-the-join.md,
docs/reference/order-states.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from orderwire.core.latency import Stamps
from orderwire.core.orders import (
    IST,
    ZERO,
    AccountId,
    Channel,
    Money,
    OrderId,
    OrderRequest,
    OrderStatus,
    OrderUpdate,
    Overlay,
    Position,
    Quantity,
    Tier,
    Trade,
)

# --- what is seen -----------------------------------------------------------------------------------------


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


# --- what is held -----------------------------------------------------------------------------------------

Moment: TypeAlias = tuple[int, bool, Quantity, int, int]
"""The key K before the content: broker time, terminal?, filled, phase rank, history index."""

ENDINGS: Final = (OrderStatus.REJECTED, OrderStatus.EXPIRED, OrderStatus.CANCELLED, OrderStatus.FILLED)
"""The terminal states, the weaker before the stronger."""

_RANKS: Final[Mapping[OrderStatus, int]] = MappingProxyType({status: n for n, status in enumerate(ENDINGS)})
_NO_TIME: Final = -1
_UNKNOWN: Final = OrderStatus.UNKNOWN


class Statement(Struct, frozen=True, order=True, array_like=True, gc=False):
    """What one observation said. The order of its fields is the order K puts statements in."""

    time: int
    """The broker's time, seconds since the epoch; -1 without one."""
    terminal: bool
    filled: Quantity
    phase: int
    history_index: int
    status: OrderStatus
    """UNKNOWN where the statement bears no state."""
    quantity: Quantity
    price: Money
    trigger_price: Money
    order_type: str
    raw_status: str
    overlay: Overlay
    reason: str
    product: str
    validity: str
    disclosed_quantity: Quantity

    @property
    def moment(self) -> Moment:
        """The key before the content."""
        return (self.time, self.terminal, self.filled, self.phase, self.history_index)


class Ending(Struct, frozen=True, order=True, array_like=True, gc=False):
    """An explicit final word of the broker; the greater rank wins."""

    rank: int
    time: int
    raw_status: str
    reason: str

    @property
    def status(self) -> OrderStatus:
        """The terminal state it stands for."""
        return ENDINGS[self.rank]


class Fill(Struct, frozen=True, order=True, array_like=True, gc=False):
    """The greatest cumulative filled quantity, with its average price.

    A stated price wins over none, REST's over a push's, a later one over an earlier.
    """

    filled: Quantity = 0
    priced: bool = False
    read: bool = False
    time: int = _NO_TIME
    average_price: Money = ZERO


class Facts(Struct, frozen=True, array_like=True, gc=False):
    """What does not change during an order's life; each field is as the most telling observation gave it."""

    instrument: tuple[bool, str, str]
    """Known to our instrument list?, exchange, symbol: a known name is greater than a broker's spelling."""
    side: str
    tag: str = ""
    exchange_order_id: str = ""
    parent_order_id: str = ""
    most_quantity: Quantity = 0
    """The greatest ordered quantity ever stated; nothing above it can have been filled."""


class OrderState(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """All that was ever said about one order, joined: S of the design, with the order's identity and facts."""

    account: AccountId
    broker: str
    order_id: OrderId
    trading_date: date
    facts: Facts
    revision: int = 0
    """R: raised by a correction alone."""
    floor: Moment | None = None
    """After a correction: what the correcting read said when; older statements do not count any more."""
    ending: Ending | None = None
    """T: none, or the greatest terminal word."""
    fill: Fill = Fill()
    """F."""
    terms: Statement | None = None
    """A: the greatest statement that bears a state."""
    request: Statement | None = None
    """O: the greatest that says a modification or cancellation is pending."""
    remark: Statement | None = None
    """The greatest of the others: a word nobody knows, or the end of a request. It changes no state."""
    read: Moment | None = None
    """V: the greatest moment read by REST with no request pending."""


_PENDING: Final = frozenset({Overlay.PENDING_MODIFY, Overlay.PENDING_CANCEL})
_BOOKS: Final = frozenset({Channel.REST, Channel.HISTORY})


def lift(update: OrderUpdate, *, revision: int = 0) -> OrderState:
    """Return what one observation says as a state of its own; pure, whatever the channel."""
    said = _statement(update)
    bears = update.status is not None and update.status is not _UNKNOWN
    pending = update.overlay in _PENDING
    clears = not pending and update.channel in _BOOKS and update.status is not _UNKNOWN
    return OrderState(
        account=update.account,
        broker=update.broker,
        order_id=update.order_id,
        trading_date=update.trading_date,
        facts=_facts(update),
        revision=revision,
        ending=_ending(said) if said.terminal else None,
        fill=_fill(update, said.time),
        terms=said if bears else None,
        request=said if pending else None,
        remark=None if bears or pending else said,
        read=said.moment if clears else None,
    )


def _facts(update: OrderUpdate) -> Facts:
    return Facts(
        (update.known_symbol, update.exchange, update.symbol),
        update.side,
        update.tag,
        update.exchange_order_id,
        update.parent_order_id,
        update.quantity,
    )


def _statement(update: OrderUpdate) -> Statement:
    status = _UNKNOWN if update.status is None else update.status
    return Statement(
        _seconds(update.broker_time),
        status in _RANKS,
        update.filled_quantity,
        update.phase,
        update.history_index,
        status,
        update.quantity,
        update.price,
        update.trigger_price,
        update.order_type,
        update.raw_status,
        update.overlay,
        update.reason,
        update.product,
        update.validity,
        update.disclosed_quantity,
    )


def _seconds(time: datetime | None) -> int:
    return _NO_TIME if time is None else int(time.timestamp())


def _ending(said: Statement) -> Ending:
    return Ending(_RANKS[said.status], said.time, said.raw_status, said.reason)


def _fill(update: OrderUpdate, time: int) -> Fill:
    if not update.filled_quantity:
        return _NOTHING_FILLED
    average = update.average_price
    return Fill(update.filled_quantity, average > 0, update.channel in _BOOKS, time, average)


_NOTHING_FILLED: Final = Fill()


_Part = TypeVar("_Part", Ending, Statement, Moment)


# --- the join ---------------------------------------------------------------------------------------------


def join(a: OrderState, b: OrderState) -> OrderState:
    """Return the least state that both are part of: commutative, associative, idempotent; `a` itself if it is.

    The higher revision wins; within one revision each component takes its maximum. Facts unite whatever the
    revision. Raises ValueError when the two are not states of one order.
    """
    if (a.order_id, a.account, a.trading_date, a.broker) != (b.order_id, b.account, b.trading_date, b.broker):
        raise ValueError(f"{a.broker} order {a.order_id} cannot be joined with {b.broker} order {b.order_id}")
    facts = _unite(a.facts, b.facts)
    if a.revision != b.revision:
        winner = a if a.revision > b.revision else b
        return winner if facts is winner.facts else replace(winner, facts=facts)
    return _join_components(a, b, facts)


def _unite(a: Facts, b: Facts) -> Facts:
    if a == b:
        return a
    united = Facts(
        max(a.instrument, b.instrument),
        max(a.side, b.side),
        max(a.tag, b.tag),
        max(a.exchange_order_id, b.exchange_order_id),
        max(a.parent_order_id, b.parent_order_id),
        max(a.most_quantity, b.most_quantity),
    )
    return a if united == a else united


def _join_components(a: OrderState, b: OrderState, facts: Facts) -> OrderState:
    ending = _greater(a.ending, b.ending)
    fill = max(a.fill, b.fill)
    terms = _greater(a.terms, b.terms)
    request = _greater(a.request, b.request)
    remark = _greater(a.remark, b.remark)
    read = _greater(a.read, b.read)
    floor = _greater(a.floor, b.floor)
    now = (facts, ending, fill, terms, request, remark, read, floor)
    if now == (a.facts, a.ending, a.fill, a.terms, a.request, a.remark, a.read, a.floor):
        return a
    return OrderState(
        account=a.account,
        broker=a.broker,
        order_id=a.order_id,
        trading_date=a.trading_date,
        facts=facts,
        revision=a.revision,
        floor=floor,
        ending=ending,
        fill=fill,
        terms=terms,
        request=request,
        remark=remark,
        read=read,
    )


def _greater(a: _Part | None, b: _Part | None) -> _Part | None:
    if b is None or a is b:
        return a
    return b if a is None or b > a else a


# --- observing --------------------------------------------------------------------------------------------


class Outcome(Struct, frozen=True, kw_only=True, gc=False):
    """What an observation did."""

    state: OrderState | None
    """The state afterwards; None when nothing that counts was ever said about the order."""
    changed: bool = False
    """What is visible of the order differs from before."""
    surprising: bool = False
    """The change is not one of `EXPECTED`; it counts all the same."""
    tie: bool = False
    """Two statements of one moment differ: the order's history decides."""
    verify: str = ""
    """Why the book should be read; begins with `tie` when the history is wanted too, with `conflict` when REST
    disagrees with what we hold."""
    held: str = ""
    """Why the observation waits for REST; it did not count."""
    refused: str = ""
    """Why the observation was refused as poisoned; it did not count."""
    conflict: bool = False
    """A REST row contradicts the state: keep it, and offer it to `correct` with the next."""
    flag: str = ""
    """What is odd about an observation that counted nevertheless."""


_AHEAD: Final = timedelta(minutes=5)
_ABSURD: Final = 10**12
_LIVE: Final = frozenset({OrderStatus.TRIGGER_PENDING, OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED})
_TRIGGERED: Final = frozenset({OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED})
_STOPS: Final = frozenset({"SL", "SL-M"})


def observe(
    state: OrderState | None,
    update: OrderUpdate,
    *,
    quantity_seen: Quantity = 0,
    broker_now: datetime | None = None,
) -> Outcome:
    """Take one observation into the state of its order; pure, any thread, a few microseconds.

    `quantity_seen`: a quantity known from elsewhere (our own submission) that fills may reach. `broker_now`: the
    broker's own time from its last HTTP `Date`, aware. Raises ValueError when `update` is of another order.
    """
    tier = update.tier
    if tier is not Tier.A and tier is not Tier.B:
        return Outcome(state=state, verify="hint: a postback came")
    most = quantity_seen if state is None else max(quantity_seen, state.facts.most_quantity)
    refused = poison(update, most_quantity=most)
    ahead = _ahead(update, broker_now)
    if refused or (ahead and tier is not Tier.A):
        return Outcome(state=state, refused=refused or ahead)
    held = "" if tier is Tier.A else _held(state, update)
    if held:
        return Outcome(state=state, held=held, verify=f"held: {held}")
    if state is None:
        return _first(lift(update), update, flag=ahead)
    return _next(state, update, flag=ahead)


def poison(update: OrderUpdate, *, most_quantity: Quantity = 0) -> str:
    """Say why an observation cannot be true of any order ordered up to `most_quantity`, or "" when it can."""
    price, trigger, average = update.price, update.trigger_price, update.average_price
    quantity, filled = update.quantity, update.filled_quantity
    if not update.order_id:
        return "it names no order"
    if not (price.is_finite() and trigger.is_finite() and average.is_finite()):
        return "a price is not a number"
    if price < 0 or trigger < 0 or average < 0 or quantity < 0 or filled < 0 or update.disclosed_quantity < 0:
        return "a number is negative"
    if quantity > _ABSURD:
        return "a quantity is beyond any order"
    if filled > quantity and filled > most_quantity:
        return f"filled {filled} is above any quantity seen"
    return ""


def _ahead(update: OrderUpdate, broker_now: datetime | None) -> str:
    if broker_now is None or update.broker_time is None or update.broker_time - broker_now <= _AHEAD:
        return ""
    return "its time is more than 5 minutes ahead of the broker's clock"


def _rejected_alive(state: OrderState | None, update: OrderUpdate) -> str:  # noqa: ARG001 - one shape for all doubts
    alive = state is not None and state.ending is None and status_of(state) in _LIVE
    return "REJECTED for an order known to be live" if alive else ""


def _filled_short(state: OrderState | None, update: OrderUpdate) -> str:
    known = state is not None and status_of(state) is OrderStatus.FILLED
    return (
        "" if known or update.filled_quantity >= update.quantity else "complete with less filled than ordered"
    )


def _perhaps_untriggered(state: OrderState | None, update: OrderUpdate) -> str:
    if update.order_type not in _STOPS or update.filled_quantity:
        return ""
    triggered = state is not None and (state.ending is not None or status_of(state) in _TRIGGERED)
    return "" if triggered else "a stop order that triggered, or one that was modified"


_DOUBTS: Final[Mapping[OrderStatus | None, Callable[[OrderState | None, OrderUpdate], str]]] = (
    MappingProxyType(
        {
            OrderStatus.REJECTED: _rejected_alive,
            OrderStatus.FILLED: _filled_short,
            OrderStatus.OPEN: _perhaps_untriggered,
        }
    )
)
"""What a push cannot say for certain: a push of that status waits for REST when the answer is a reason."""


def _held(state: OrderState | None, update: OrderUpdate) -> str:
    doubt = _DOUBTS.get(update.status)
    return doubt(state, update) if doubt is not None else ""


def _first(state: OrderState, update: OrderUpdate, *, flag: str) -> Outcome:
    return Outcome(
        state=state,
        changed=True,
        surprising=bool(flag) or status_of(state) not in EXPECTED[None],
        verify=_why_verify(state, update, tie=False),
        flag=flag,
    )


def _next(state: OrderState, update: OrderUpdate, *, flag: str) -> Outcome:
    lifted = lift(update, revision=state.revision)
    if state.floor is not None and _below_floor(lifted, state.floor, trusted=update.channel in _BOOKS):
        lifted = replace(lifted, revision=-1)  # only its facts count
    joined = join(state, lifted)
    tie = _tie(state.terms, lifted.terms)
    changed = joined is not state and _looks_different(state, joined)
    verify = _why_verify(joined, update, tie=tie)
    conflict = update.channel is Channel.REST and contradicts(joined, update)
    return Outcome(
        state=joined,
        changed=changed,
        surprising=bool(flag) or (changed and _surprising(state, joined)),
        tie=tie,
        verify="conflict: the order book says otherwise" if conflict and not tie else verify,
        conflict=conflict,
        flag=flag,
    )


def _looks_different(before: OrderState, after: OrderState) -> bool:
    if after.fill.filled != before.fill.filled or status_of(after) is not status_of(before):
        return True  # by far the most frequent change, and a view costs more than the join
    if _parts(after) == _parts(before):  # a REST row that only confirms
        return overlay_of(after) is not overlay_of(before)
    return view(after) != view(before)


def _parts(state: OrderState) -> tuple[object, ...]:
    fill = state.fill
    said = (state.ending, state.terms, state.request, state.remark)
    return (said, fill.filled, fill.average_price, state.facts)


def _below_floor(lifted: OrderState, floor: Moment, *, trusted: bool) -> bool:
    said = _spoken(lifted).moment[:4]
    return said < floor[:4] or (said == floor[:4] and not trusted)


def _tie(held: Statement | None, said: Statement | None) -> bool:
    if held is None or said is None or held.moment[:4] != said.moment[:4]:
        return False
    indexed = held.history_index >= 0 and said.history_index >= 0
    if indexed and held.history_index != said.history_index:
        return False
    return _content(held) != _content(said)


def _content(said: Statement) -> tuple[OrderStatus, Quantity, Money, Money, str]:
    return (said.status, said.quantity, said.price, said.trigger_price, said.order_type)


def _why_verify(state: OrderState, update: OrderUpdate, *, tie: bool) -> str:
    if tie:
        return "tie: two statements of one second differ"
    if state.ending is not None:
        return ""
    if _baseless(state) and not state.fill.filled:
        return "tie: first seen with a request pending"
    return "" if update.tier is Tier.A else _why_confirm(update)


def _why_confirm(update: OrderUpdate) -> str:
    if update.status is OrderStatus.UNKNOWN:
        return "unknown status"
    if update.status is None and update.overlay is Overlay.NONE:
        return "a request ended"
    full = update.filled_quantity and update.filled_quantity >= update.quantity
    return "filled in full without a final status" if full else ""


def _baseless(state: OrderState) -> bool:
    based = state.terms is not None and state.terms.time > _NO_TIME
    return not based and _under_request(state) is not None


def _surprising(before: OrderState, after: OrderState) -> bool:
    was, now = status_of(before), status_of(after)
    if was is now:
        return was.terminal and after.fill.filled != before.fill.filled
    return now not in EXPECTED[was]


# --- corrections ------------------------------------------------------------------------------------------


def contradicts(state: OrderState, update: OrderUpdate) -> bool:
    """Whether a REST row says something else than the state does, after it was joined."""
    if update.filled_quantity != state.fill.filled:
        return True
    if update.status is None or update.status is OrderStatus.UNKNOWN:
        return state.ending is not None
    terms = state.terms
    if status_of(state) is not _with_fills(update.status, update.filled_quantity) or terms is None:
        return True
    return (terms.quantity, terms.price, terms.trigger_price) != (
        update.quantity,
        update.price,
        update.trigger_price,
    )


def agree(first: OrderUpdate, second: OrderUpdate, *, seconds_apart: float) -> bool:
    """Whether two REST rows of one order, at least 1 s apart, say the same."""
    both_read = first.channel is Channel.REST and second.channel is Channel.REST
    return both_read and seconds_apart >= 1.0 and _gist(first) == _gist(second)


def _gist(row: OrderUpdate) -> tuple[object, ...]:
    said = _statement(row)
    return (row.account, row.order_id, said.filled, row.average_price, said.overlay, _content(said))


def correct(
    state: OrderState, first: OrderUpdate, second: OrderUpdate, *, seconds_apart: float
) -> OrderState | None:
    """Return the state of the next revision, which is what two REST rows agree on; None when they do not suffice.

    They suffice when they agree, are at least 1 s apart, both contradict `state`, and neither is older than what
    it holds: REST can lag behind the socket. When they agree and are refused all the same, show `conflict`.
    """
    if second.status is None or second.status is OrderStatus.UNKNOWN:
        return None
    if not agree(first, second, seconds_apart=seconds_apart):
        return None
    if not all(contradicts(state, row) and not _older(state, row) for row in (first, second)):
        return None
    corrected = lift(second, revision=state.revision + 1)
    return join(state, replace(corrected, floor=_statement(second).moment))


def _older(state: OrderState, row: OrderUpdate) -> bool:
    said, terms, fill = _statement(row), state.terms, state.fill
    if terms is not None and said.moment[:4] < terms.moment[:4]:
        return True
    return (
        said.filled < fill.filled and said.time <= fill.time
    )  # a pending request told the fill, and no terms


# --- the visible side -------------------------------------------------------------------------------------


def status_of(state: OrderState) -> OrderStatus:
    """Return the visible status: terminal only by an explicit word, partially filled as soon as anything is."""
    if state.ending is not None:
        return state.ending.status
    terms = state.terms
    if _baseless(state):
        return _base_status(state)
    return OrderStatus.UNKNOWN if terms is None else _with_fills(terms.status, state.fill.filled)


def _with_fills(status: OrderStatus, filled: Quantity) -> OrderStatus:
    return OrderStatus.PARTIALLY_FILLED if filled and not status.terminal else status


def _under_request(state: OrderState) -> Statement | None:
    """Return the statement that proves the order reached the exchange though it bears no state."""
    if state.request is not None:
        return state.request
    return state.remark if state.remark is not None and state.remark.phase >= 0 else None


def _base_status(state: OrderState) -> OrderStatus:
    if state.fill.filled:
        return OrderStatus.PARTIALLY_FILLED
    if not state.facts.exchange_order_id:
        return OrderStatus.PENDING_NEW
    said = _under_request(state)
    stop = said is not None and said.order_type in _STOPS
    return OrderStatus.TRIGGER_PENDING if stop else OrderStatus.OPEN


def overlay_of(state: OrderState) -> Overlay:
    """Return the request that is on its way: none once the order ended or a later REST row shows none."""
    request = state.request
    if request is None or state.ending is not None:
        return Overlay.NONE
    return request.overlay if state.read is None or request.moment > state.read else Overlay.NONE


def view(
    state: OrderState,
    *,
    submission: str = "",
    checking: bool = False,
    conflict: bool = False,
    first_seen: datetime | None = None,
    source: Channel = Channel.REST,
) -> OrderView:
    """Return what is visible of a state. `submission`: our submission's id if we placed the order."""
    status = status_of(state)
    overlay = overlay_of(state)
    said = _spoken(state)
    filled = state.fill.filled
    known, exchange, symbol = state.facts.instrument
    latest = _latest_time(state)
    return OrderView(
        account=state.account,
        broker=state.broker,
        row=submission or state.order_id,
        order_id=state.order_id,
        submission=submission,
        trading_date=state.trading_date,
        status=status,
        raw_status=_raw_status(state, overlay),
        pending_modify=overlay is Overlay.PENDING_MODIFY,
        pending_cancel=overlay is Overlay.PENDING_CANCEL,
        conflict=conflict,
        checking=checking,
        symbol=symbol,
        exchange=exchange,
        known_symbol=known,
        side=state.facts.side,
        order_type=said.order_type,
        product=said.product,
        validity=said.validity,
        quantity=said.quantity,
        filled_quantity=filled,
        pending_quantity=0 if state.ending is not None else max(said.quantity - filled, 0),
        price=said.price,
        trigger_price=said.trigger_price,
        average_price=state.fill.average_price,
        disclosed_quantity=said.disclosed_quantity,
        reason=_reason(state),
        broker_time=datetime.fromtimestamp(latest, IST) if latest > _NO_TIME else None,
        first_seen=first_seen,
        exchange_order_id=state.facts.exchange_order_id,
        parent_order_id=state.facts.parent_order_id,
        revision=state.revision,
        source=source,
    )


def _spoken(state: OrderState) -> Statement:
    """Return the statement whose terms hold: our own place response gives way to whatever the broker says."""
    terms = state.terms
    placed_only = terms is not None and terms.time == _NO_TIME
    said = (state.request if placed_only else None) or terms or state.request or state.remark
    assert said is not None  # noqa: S101 - whatever is lifted fills one of the three
    return said


def _raw_status(state: OrderState, overlay: Overlay) -> str:
    if state.ending is not None:
        return state.ending.raw_status
    said = _spoken(state)
    if state.request is not None and overlay is not Overlay.NONE:
        said = state.request
    remark = state.remark
    unknown = remark is not None and remark.phase < 0 and remark > said
    return remark.raw_status if remark is not None and unknown else said.raw_status


def _reason(state: OrderState) -> str:
    if state.ending is not None:
        return state.ending.reason
    said, remark = _spoken(state), state.remark
    if remark is None or not remark.reason or (state.request is not None and state.request > remark):
        return said.reason
    stands = said.time <= remark.time or _content(said)[1:] == _content(remark)[1:]
    return remark.reason if stands else said.reason


def _latest_time(state: OrderState) -> int:
    spoken = (state.terms, state.request, state.remark, state.ending)
    return max(said.time for said in spoken if said is not None)


# --- the expected course ----------------------------------------------------------------------------------

_S = OrderStatus
TRANSITIONS: Final[Mapping[tuple[OrderStatus | None, OrderStatus], str]] = MappingProxyType(
    {
        (None, _S.PENDING_NEW): "placed",
        (None, _S.TRIGGER_PENDING): "first seen later",
        (None, _S.OPEN): "first seen later",
        (None, _S.PARTIALLY_FILLED): "first seen later",
        (None, _S.FILLED): "first seen later",
        (None, _S.CANCELLED): "first seen later",
        (None, _S.REJECTED): "refused by the broker's checks",
        (None, _S.EXPIRED): "first seen later",
        (_S.PENDING_NEW, _S.TRIGGER_PENDING): "stop order taken",
        (_S.PENDING_NEW, _S.OPEN): "taken by the exchange",
        (_S.PENDING_NEW, _S.PARTIALLY_FILLED): "filled in part before it was seen open",
        (_S.PENDING_NEW, _S.FILLED): "filled before it was seen open",
        (_S.PENDING_NEW, _S.CANCELLED): "cancelled before it was seen open",
        (_S.PENDING_NEW, _S.REJECTED): "refused by the broker's checks or the exchange",
        (_S.PENDING_NEW, _S.EXPIRED): "day ended before the exchange took it",
        (_S.TRIGGER_PENDING, _S.OPEN): "triggered, or modified into a plain order",
        (_S.TRIGGER_PENDING, _S.PARTIALLY_FILLED): "triggered and filled in part",
        (_S.TRIGGER_PENDING, _S.FILLED): "triggered and filled",
        (_S.TRIGGER_PENDING, _S.CANCELLED): "cancelled",
        (_S.TRIGGER_PENDING, _S.EXPIRED): "day ended",
        (_S.OPEN, _S.TRIGGER_PENDING): "modified into a stop order",
        (_S.OPEN, _S.PARTIALLY_FILLED): "first fill",
        (_S.OPEN, _S.FILLED): "filled",
        (_S.OPEN, _S.CANCELLED): "cancelled by the user, the exchange or its validity",
        (_S.OPEN, _S.EXPIRED): "day ended",
        (_S.PARTIALLY_FILLED, _S.FILLED): "filled",
        (_S.PARTIALLY_FILLED, _S.CANCELLED): "rest cancelled",
        (_S.PARTIALLY_FILLED, _S.EXPIRED): "day ended",
        (_S.UNKNOWN, _S.PENDING_NEW): "understood",
        (_S.UNKNOWN, _S.TRIGGER_PENDING): "understood",
        (_S.UNKNOWN, _S.OPEN): "understood",
        (_S.UNKNOWN, _S.PARTIALLY_FILLED): "understood",
        (_S.UNKNOWN, _S.FILLED): "understood",
        (_S.UNKNOWN, _S.CANCELLED): "understood",
        (_S.UNKNOWN, _S.REJECTED): "understood",
        (_S.UNKNOWN, _S.EXPIRED): "understood",
    }
)
"""The transitions that surprise nobody, and what they mean. No change is ever refused for not being here."""

EXPECTED: Final[Mapping[OrderStatus | None, frozenset[OrderStatus]]] = MappingProxyType(
    {was: frozenset(now for before, now in TRANSITIONS if before == was) for was in (None, *OrderStatus)}
)


# --- trades -----------------------------------------------------------------------------------------------


def trade_key(trade: Trade) -> tuple[AccountId, date, str, OrderId, str]:
    """Return the identity of an execution: X is the set of these, and sets unite whatever the order."""
    return (trade.account, trade.trading_date, trade.exchange, trade.order_id, trade.trade_id)


def traded(trades: Iterable[Trade]) -> tuple[Quantity, Money]:
    """Return the quantity and the exact average price of an order's executions, each counted once."""
    once = {trade_key(trade): trade for trade in trades}.values()
    quantity = sum(trade.quantity for trade in once)
    value = sum((trade.price * trade.quantity for trade in once), ZERO)
    return quantity, value / quantity if quantity else ZERO


# --- our own submissions ----------------------------------------------------------------------------------


class SubmissionState(StrEnum):
    """What became of a request of ours."""

    SENDING = "SENDING"
    ACCEPTED = "ACCEPTED"
    REFUSED = "REFUSED"
    UNKNOWN = "UNKNOWN"


class Submission(Struct, frozen=True, kw_only=True, gc=False):
    """Our own request to place an order, from before it is sent."""

    id: str
    """At most 20 letters and digits; the tag the broker is given, and the key of the order's line."""
    account: AccountId
    broker: str
    state: SubmissionState
    request: OrderRequest
    order_id: OrderId = OrderId("")
    """The broker's, once ACCEPTED."""
    reason: str = ""
    """The broker's words when REFUSED, ours when UNKNOWN."""
    created: datetime
    decided: datetime | None = None
    """When it left SENDING."""
    idempotency_key: str = ""


_SUBMISSION_STATUS: Final[Mapping[SubmissionState, OrderStatus]] = MappingProxyType(
    {
        SubmissionState.SENDING: OrderStatus.PENDING_NEW,
        SubmissionState.ACCEPTED: OrderStatus.PENDING_NEW,
        SubmissionState.REFUSED: OrderStatus.REJECTED,
        SubmissionState.UNKNOWN: OrderStatus.PENDING_NEW,
    }
)


def submission_view(submission: Submission, trading_date: date) -> OrderView:
    """Return the line of a submission that the broker has no row for yet, or never will (REFUSED)."""
    request = submission.request
    status = _SUBMISSION_STATUS[submission.state]
    return OrderView(
        account=submission.account,
        broker=submission.broker,
        row=submission.id,
        order_id=submission.order_id,
        submission=submission.id,
        trading_date=trading_date,
        status=status,
        checking=submission.state is SubmissionState.UNKNOWN,
        symbol=request.symbol,
        exchange=request.exchange,
        side=request.side,
        order_type=request.order_type,
        product=request.product,
        validity=request.validity,
        quantity=request.quantity,
        pending_quantity=0 if status.terminal else request.quantity,
        price=request.price,
        trigger_price=request.trigger_price,
        disclosed_quantity=request.disclosed_quantity,
        reason=submission.reason,
        first_seen=submission.created,
        source=Channel.PLACE,
    )


# --- changes ----------------------------------------------------------------------------------------------


class OrderChange(Struct, frozen=True, kw_only=True, gc=False):
    """A committed difference, with its number in the account's gap-free sequence."""

    account: AccountId
    epoch: str
    sequence: int
    event_id: str
    kind: Literal["order", "trade", "position"]
    order: OrderView | None = None
    trade: Trade | None = None
    position: Position | None = None
    was: OrderStatus | None = None
    """The order's status before."""
    source: str = Channel.REST
    """A `Channel`, or `submission` for what we did ourselves."""
    stamps: Stamps = Stamps()


# --- OpenAlgo's words -------------------------------------------------------------------------------------

OPENALGO_STATUS: Final[Mapping[OrderStatus, str]] = MappingProxyType(
    {
        OrderStatus.PENDING_NEW: "open",
        OrderStatus.TRIGGER_PENDING: "trigger pending",
        OrderStatus.OPEN: "open",
        OrderStatus.PARTIALLY_FILLED: "open",
        OrderStatus.FILLED: "complete",
        OrderStatus.CANCELLED: "cancelled",
        OrderStatus.REJECTED: "rejected",
        OrderStatus.EXPIRED: "cancelled",
        OrderStatus.UNKNOWN: "open",
    }
)
"""OpenAlgo has five words (openalgo.md §2). What is not known to have ended is `open`: it may still trade."""


def openalgo_status(view: OrderView) -> str:
    """Return OpenAlgo's word for where the order stands."""
    return OPENALGO_STATUS[view.status]


def openalgo_order(view: OrderView) -> dict[str, Any]:
    """Return OpenAlgo's 16 `order_update` fields (openalgo.md §3, §4): prices as floats, quantities as integers."""
    return {
        "mode": "live",
        "broker": view.broker,
        "orderid": view.order_id,
        "symbol": view.symbol,
        "exchange": view.exchange,
        "action": view.side,
        "quantity": view.quantity,
        "price": float(view.price),
        "trigger_price": float(view.trigger_price),
        "pricetype": view.order_type,
        "product": view.product,
        "order_status": openalgo_status(view),
        "filled_quantity": view.filled_quantity,
        "pending_quantity": view.pending_quantity,
        "average_price": float(view.average_price),
        "rejection_reason": view.reason,
    }
