"""What really happens to an order at a broker: lifecycles invented from a seed, told in the broker's own words.

Written from the brokers' protocol alone; it imports nothing of the service, so that it can judge it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal
from random import Random

CENT = Decimal("0.01")
ZERO = Decimal(0)
ENDINGS = frozenset({"FILLED", "CANCELLED", "REJECTED", "EXPIRED"})
STOPS = frozenset({"SL", "SL-M"})
PRICED = frozenset({"LIMIT", "SL"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One trade of an order."""

    trade_id: str
    quantity: int
    price: Decimal
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Where an order stands at the broker from `at` (seconds) on, until its next moment."""

    at: float
    stamp: int
    """The broker's own time of it, whole seconds."""
    status: str
    """The true state; it stays what it was while a request is on its way."""
    word: str
    """The broker's word in its books."""
    push: str
    """Its word in a push, empty when this moment is not pushed."""
    pending: str = ""
    """`modify` or `cancel` while such a request is on its way."""
    quantity: int
    price: Decimal
    trigger: Decimal
    order_type: str
    filled: int = 0
    average: Decimal = ZERO
    exchange_id: str = ""
    reason: str = ""
    execution: Execution | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One order from placing to wherever the world ends."""

    broker: str
    order_id: str
    tag: str
    token: int
    side: str
    product: str
    validity: str
    variety: str
    moments: tuple[Moment, ...]

    def as_of(self, at: float) -> Moment | None:
        """Return where the order stood, None before it was there."""
        return next((moment for moment in reversed(self.moments) if moment.at <= at), None)

    @property
    def last(self) -> Moment:
        return self.moments[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tongue:
    """A broker's words for what happens."""

    accepting: tuple[tuple[str, bool], ...]
    """Before the exchange has it: the word, and whether it is pushed."""
    modifying: tuple[tuple[str, bool], ...]
    modified: str
    """The word for a modification that is done, before the live word is back; empty where there is none."""
    unmodified: str
    cancelling: tuple[tuple[str, bool], ...]
    live: Callable[[Book], str]
    replaced: Callable[[Book], str]
    """The live word right after a modification."""
    update: str
    """What a push says instead of the live word after a change; empty where it says the same."""
    ends: Mapping[str, tuple[str, ...]]
    """The words of each ending, the usual one first."""
    shows_request: bool
    """Whether the row of a requested modification carries the new terms already."""
    filling: str = ""


@dataclass(slots=True, kw_only=True)
class Book:
    """An order while its life is being invented."""

    rng: Random
    tongue: Tongue
    now: float
    skew: float
    idle_stamp: bool
    """Whether fills leave the broker's time of the order as it was."""
    chatty: bool
    quantity: int
    price: Decimal
    trigger: Decimal
    order_type: str
    order_id: str
    filled: int = 0
    value: Decimal = ZERO
    status: str = "PENDING_NEW"
    pending: str = ""
    exchange_id: str = ""
    stamp: int = 0
    last_word: str = ""
    moments: list[Moment] = field(default_factory=list)

    def wait(self) -> None:
        """Let some time pass: often less than a second."""
        longest = self.rng.choice((0.0, 0.05, 0.3, 0.3, 1.2, 3.0, 7.0))
        self.now += self.rng.random() * longest

    def say(
        self,
        word: str,
        *,
        push: str | None = None,
        reason: str = "",
        execution: Execution | None = None,
        terms: Mapping[str, Decimal | int | str] | None = None,
    ) -> None:
        """Write a moment down. `push` None: the same word is pushed; empty: nothing is."""
        self.wait()
        moved = execution is None or not self.idle_stamp or self.status in ENDINGS
        if moved:
            self.stamp = max(self.stamp, int(self.now + self.skew))
        average = (self.value / self.filled).quantize(CENT, ROUND_HALF_UP) if self.filled else ZERO
        moment = Moment(
            at=self.now,
            stamp=self.stamp,
            status=self.status,
            word=word,
            push=word if push is None else push,
            pending=self.pending,
            quantity=self.quantity,
            price=self.price,
            trigger=self.trigger,
            order_type=self.order_type,
            filled=self.filled,
            average=average,
            exchange_id=self.exchange_id,
            reason=reason,
            execution=replace(execution, at=self.now) if execution else None,
        )
        self.moments.append(replace(moment, **terms) if terms else moment)  # type: ignore[arg-type]  # fields of Moment

    @property
    def waits(self) -> bool:
        """Whether it is a stop order that waits for its trigger."""
        return self.status == "TRIGGER_PENDING"

    @property
    def over(self) -> bool:
        return self.status in ENDINGS

    def settle(self) -> None:
        """Return to what the order is when nothing is on its way."""
        self.pending = ""
        if self.filled:
            self.status = "PARTIALLY_FILLED"

    def push_of(self, word: str) -> str:
        return self.tongue.update or word

    def words(self, spoken: tuple[tuple[str, bool], ...], **how: object) -> None:
        for word, pushed in spoken:
            self.say(word, push=word if pushed or self.chatty else "", **how)  # type: ignore[arg-type]  # `say`'s own

    def end(self, status: str, *, reason: str = "", execution: Execution | None = None) -> None:
        usual, *others = self.tongue.ends[status]
        word = self.rng.choice(others) if others and self.rng.random() < 0.05 else usual
        self.status, self.pending = status, ""
        self.say(word, reason=reason, execution=execution)

    def trade(self, quantity: int) -> Execution:
        number = sum(moment.execution is not None for moment in self.moments) + 1
        slip = Decimal(self.rng.randrange(-40, 41)) / 20
        price = (self.price or Decimal(1500)) + slip
        self.filled += quantity
        self.value += price * quantity
        return Execution(trade_id=f"{self.order_id[-6:]}{number:03d}", quantity=quantity, price=price, at=0.0)


# --- what can happen --------------------------------------------------------------------------------------


def accept(book: Book) -> None:
    """The order reaches the exchange, or is refused on the way."""
    words = book.tongue.accepting
    refused_at = book.rng.randrange(len(words)) if book.rng.random() < 0.06 else None
    for number, step in enumerate(words):
        book.words((step,))
        if number == refused_at:
            book.end("REJECTED", reason="16283 : The order is refused")
            return
    book.exchange_id = f"13{book.order_id[-10:]}"
    book.status = "TRIGGER_PENDING" if book.order_type in STOPS else "OPEN"
    word = book.tongue.live(book)
    book.say(word, push="" if word == "TRIGGER PENDING" and not book.chatty else word)


def trigger(book: Book) -> None:
    book.status = "OPEN"
    if not book.tongue.update:  # XTS shows what the stop order became
        book.order_type = {"SL": "LIMIT", "SL-M": "MARKET"}[book.order_type]
    word = book.tongue.live(book)
    book.say(word, push=book.push_of(word))


def fill_some(book: Book) -> None:
    rest = book.quantity - book.filled
    if rest < 2:
        fill_all(book)
        return
    execution = book.trade(book.rng.randrange(1, rest))
    book.settle()
    word = book.tongue.filling or book.tongue.live(book)
    book.say(word, push=book.push_of(word), execution=execution)


def fill_all(book: Book) -> None:
    book.end("FILLED", execution=book.trade(book.quantity - book.filled))


def modify(book: Book) -> None:
    new = _new_terms(book)
    book.pending = "modify"
    shown = {"quantity": new.quantity, "price": new.price, "trigger": new.trigger}
    book.words(book.tongue.modifying, terms=shown if book.tongue.shows_request else None)
    if book.rng.random() < 0.15 and not book.waits:  # filled while the request was on its way
        fill_some(book)
        if book.over:
            return
    if book.rng.random() < 0.25 or book.filled >= new.quantity:
        _refuse(book)
        return
    book.settle()
    if book.tongue.modified:
        book.words(((book.tongue.modified, False),))
    book.quantity, book.price, book.trigger = new.quantity, new.price, new.trigger
    word = book.tongue.replaced(book)
    book.say(word, push=book.push_of(word))


def _refuse(book: Book) -> None:
    book.settle()
    reason = "16346 : Order cannot be modified"
    if book.tongue.unmodified:
        book.say(book.tongue.unmodified, push=None if book.chatty else "", reason=reason)
        book.words(((book.tongue.live(book), True),))
    else:
        book.say(book.tongue.live(book), reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a modification asks for."""

    quantity: int
    price: Decimal
    trigger: Decimal


def _new_terms(book: Book) -> Terms:
    step = Decimal(book.rng.choice((-3, -2, -1, 1, 2, 3)))
    return Terms(
        quantity=max(book.filled + 1, book.quantity + book.rng.choice((-3, 0, 0, 5))),
        price=book.price + step if book.order_type in PRICED else book.price,
        trigger=book.trigger + step if book.trigger else book.trigger,
    )


def cancel(book: Book) -> None:
    book.pending = "cancel"
    book.words(book.tongue.cancelling)
    fate = book.rng.random()
    if fate < 0.15 and not book.waits:
        fill_some(book)
    if book.over:
        return
    if 0.15 <= fate < 0.3:
        _refuse_cancel(book)
        return
    if 0.3 <= fate < 0.4 and not book.waits:  # too late: it is filled
        fill_all(book)
        return
    book.end("CANCELLED")
    if fate > 0.85 and not book.waits and book.filled + 1 < book.quantity and book.exchange_id:
        _fill_late(book)


def _refuse_cancel(book: Book) -> None:
    book.settle()
    word = book.tongue.live(book)
    book.say(word, reason="" if book.tongue.update else "17070 : The order cannot be cancelled")


def _fill_late(book: Book) -> None:
    """An execution that the exchange had made before it took the cancellation is reported after it."""
    rest = book.quantity - book.filled
    execution = book.trade(book.rng.randrange(1, rest))
    book.end("CANCELLED", execution=execution)


def lapse(book: Book) -> None:
    """The exchange cancels what is left, unasked."""
    book.end("CANCELLED", reason="17071 : The order could have resulted in self trade ")


def expire(book: Book) -> None:
    book.end("EXPIRED")


# --- the two brokers' words -------------------------------------------------------------------------------


def _kite_live(book: Book) -> str:
    return "TRIGGER PENDING" if book.waits else "OPEN"


def _xts_live(book: Book) -> str:
    return "PartiallyFilled" if book.filled else "New"


KITE = Tongue(
    accepting=(("PUT ORDER REQ RECEIVED", False), ("VALIDATION PENDING", False), ("OPEN PENDING", False)),
    modifying=(("MODIFY VALIDATION PENDING", False), ("MODIFY PENDING", False)),
    modified="MODIFIED",
    unmodified="NOT MODIFIED",
    cancelling=(("CANCEL PENDING", False),),
    live=_kite_live,
    replaced=_kite_live,
    update="UPDATE",
    ends={
        "FILLED": ("COMPLETE",),
        "CANCELLED": ("CANCELLED", "CANCEL", "CANCELLED AMO"),
        "REJECTED": ("REJECTED",),
    },
    shows_request=False,
)

XTS = Tongue(
    accepting=(("PendingNew", True),),
    modifying=(("PendingReplace", True),),
    modified="",
    unmodified="",
    cancelling=(("PendingCancel", True),),
    live=_xts_live,
    replaced=lambda _book: "Replaced",
    update="",
    ends={
        "FILLED": ("Filled", "FILLED"),
        "CANCELLED": ("Cancelled",),
        "REJECTED": ("Rejected",),
        "EXPIRED": ("Expired",),
    },
    shows_request=True,
    filling="PartiallyFilled",
)

TONGUES = {"zerodha": KITE, "jainam": XTS}

_DEEDS: tuple[tuple[Callable[[Book], None], int], ...] = (
    (fill_some, 30),
    (fill_all, 22),
    (modify, 22),
    (cancel, 18),
    (lapse, 3),
    (expire, 1),
)


def _deeds(book: Book) -> Iterator[Callable[[Book], None]]:
    """Choose what happens next, until the order ended or the world does."""
    for _ in range(book.rng.randrange(1, 9)):
        if book.over:
            return
        if book.waits and book.rng.random() < 0.4:
            yield trigger
            continue
        able = [
            (deed, weight)
            for deed, weight in _DEEDS
            if not (book.waits and deed in {fill_some, fill_all})
            and not (deed is expire and "EXPIRED" not in book.tongue.ends)
        ]
        deeds, weights = zip(*able, strict=True)
        yield book.rng.choices(deeds, weights)[0]


def invent(rng: Random, *, broker: str, number: int, start: float, skew: float, chatty: bool) -> Life:
    """Invent one order's life, beginning `start` seconds into the world."""
    tongue = TONGUES[broker]
    order_type = rng.choices(("LIMIT", "MARKET", "SL", "SL-M"), (55, 20, 15, 10))[0]
    price = Decimal(rng.randrange(20_000, 320_000)) / 100
    stop = order_type in STOPS
    validity = "IOC" if not stop and rng.random() < 0.12 else "DAY"
    amo = broker == "zerodha" and validity == "DAY" and rng.random() < 0.04
    book = Book(
        rng=rng,
        tongue=tongue,
        now=start,
        skew=skew,
        idle_stamp=broker == "zerodha" and rng.random() < 0.15,
        chatty=chatty,
        quantity=rng.choice((1, 2, 10, 50, 75, 300, 1800)),
        price=price if order_type in PRICED else ZERO,
        trigger=price - 2 if stop else ZERO,
        order_type=order_type,
        order_id=_order_id(rng, broker, number),
    )
    side = rng.choice(("BUY", "SELL"))
    if amo:
        book.say("AMO REQ RECEIVED", push="")
    accept(book)
    if validity == "IOC":
        _immediate(book)
    else:
        for deed in _deeds(book):
            deed(book)
    return Life(
        broker=broker,
        order_id=book.order_id,
        tag=f"OWSIM{number:04d}{rng.randrange(10**9):09d}",
        token=rng.choice((1594, 3045, 35001)),
        side=side,
        product=rng.choice(("MIS", "NRML", "CNC")),
        validity=validity,
        variety="amo" if amo else "regular",
        moments=tuple(book.moments),
    )


def _immediate(book: Book) -> None:
    """Immediate or cancel: filled at once, in part or not at all, and the rest cancelled."""
    while not book.over and book.rng.random() < 0.6:
        fill_some(book)
    if not book.over:
        book.end("CANCELLED")


def _order_id(rng: Random, broker: str, number: int) -> str:
    if broker == "jainam":
        return str(1_110_000_000 + rng.randrange(10**6) * 100 + number)
    if rng.random() < 0.3:
        return str(1_877_600_770_887_540_000 + rng.randrange(10**9) * 100 + number)
    return f"260817{rng.randrange(10**7):07d}{number:02d}"
