"""An order's story as its page tells it, step by step, newest first. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from orderwire.core.latency import Stamps
from orderwire.core.lifecycle import OrderChange, Submission, SubmissionState
from orderwire.core.orders import Channel, OrderStatus, OrderUpdate
from orderwire.store.encoding import from_ns, to_ns
from orderwire.store.inbox import Entry, Verdict
from orderwire.store.story import Story

_LONGEST_RAW: Final = 4000

SOURCES: Final = MappingProxyType(
    {
        Channel.STREAM: "broker's stream",
        Channel.REST: "order book",
        Channel.HISTORY: "order history",
        Channel.POSTBACK: "postback",
        Channel.PLACE: "answer to placing",
    }
)

VERDICTS: Final = MappingProxyType(
    {
        Verdict.APPLIED: ("new", "good"),
        Verdict.SAME: ("nothing new", "calm"),
        Verdict.HELD: ("held until the order book confirms it", "wait"),
        Verdict.HINT: ("not believed before the order book confirms it", "wait"),
        Verdict.REFUSED: ("refused", "bad"),
    }
)
"""What became of an observation, in words and a tone."""

STAGES: Final = MappingProxyType(
    {
        "received": "from the broker",
        "queued": "read and queued",
        "joined": "joined",
        "committed": "committed",
        "emitted": "sent to the page",
        "painted": "on the screen",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """How long one stage of a change took."""

    name: str
    word: str
    milliseconds: float
    across_clocks: bool
    """Between the broker's clock, which counts whole seconds, and ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One change that pages and programs were told of."""

    sequence: int
    kind: str
    status: OrderStatus | None
    text: str
    stages: list[Stage]
    total: float | None
    """Milliseconds from its arrival here to the screen, or to where it got."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One moment of the story."""

    at: datetime
    title: str
    source: str = ""
    tier: str = ""
    verdict: str = ""
    tone: str = "calm"
    note: str = ""
    broker_time: datetime | None = None
    settled_at: datetime | None = None
    effects: list[Effect] = field(default_factory=list)
    raw: str = ""


def steps(story: Story, stamps: Callable[[OrderChange], Stamps]) -> list[Step]:
    """Return the steps, newest first; `stamps` tells how far a change got."""
    effects = [(change, _effect(change, stamps(change))) for change in story.changes]
    told: list[Step] = []
    used: set[int] = set()
    for entry in story.said:
        mine = [
            (change, effect)
            for change, effect in effects
            if change.sequence not in used and _caused(entry, change)
        ]
        used.update(change.sequence for change, _ in mine)
        told.append(_said(entry, [effect for _, effect in mine]))
    told += [_done(change, effect) for change, effect in effects if change.sequence not in used]
    told += _asked(story.submission) if story.submission else []
    return sorted(told, key=lambda step: step.at, reverse=True)


def first_painted(story: Story, stamps: Callable[[OrderChange], Stamps]) -> float | None:
    """Return the milliseconds from our placing to the first paint of a state the broker confirmed."""
    if story.submission is None:
        return None
    placed = to_ns(story.submission.created)
    paints = (
        stamps(change).painted - placed
        for change in story.changes
        if change.order is not None and change.order.status is not OrderStatus.PENDING_NEW
        if stamps(change).painted
    )
    first = next(paints, None)
    return first / 1e6 if first is not None else None


def money(value: Decimal) -> str:
    """Write an amount as a page shows it: grouped, two decimals, more where they count."""
    text = f"{value:,.4f}".rstrip("0")
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction:0<2}"


def _caused(entry: Entry, change: OrderChange) -> bool:
    if change.source != entry.channel or not change.stamps.received:
        return False
    return from_ns(change.stamps.received) == entry.received_at


def _said(entry: Entry, effects: list[Effect]) -> Step:
    verdict, tone = VERDICTS[entry.verdict]
    seen = entry.observation
    return Step(
        at=entry.received_at,
        title=_sentence(seen) if seen else "The broker says that something changed",
        source=SOURCES[entry.channel],
        tier=entry.channel.tier.value,
        verdict=verdict,
        tone=tone,
        note=entry.note or (seen.reason if seen else ""),
        broker_time=seen.broker_time if seen else None,
        settled_at=entry.settled_at,
        effects=effects,
        raw=entry.raw.decode("utf-8", "replace")[:_LONGEST_RAW],
    )


def _sentence(seen: OrderUpdate) -> str:
    filled = f", {seen.filled_quantity:,} of {seen.quantity:,} filled" if seen.filled_quantity else ""
    average = f" at {money(seen.average_price)}" if seen.filled_quantity and seen.average_price else ""
    return f"{seen.raw_status or 'The broker answered'}{filled}{average}"


def _done(change: OrderChange, effect: Effect) -> Step:
    at = next((stamp for stamp in (change.stamps.received, change.stamps.joined) if stamp), 0)
    ours = change.source == "submission"
    source = "orderwire" if ours else SOURCES.get(Channel(change.source), change.source)
    title = "Written down here" if ours else effect.text
    return Step(at=from_ns(at), title=title, source=source, effects=[effect])


def _asked(submission: Submission) -> Iterable[Step]:
    request = submission.request
    terms = f"{request.side.capitalize()} {request.quantity:,} {request.symbol}, {request.order_type}"
    price = f" at {money(request.price)}" if request.price else ""
    yield Step(at=submission.created, title=f"You asked: {terms}{price}", source="orderwire", tone="work")
    if submission.decided is None:
        return
    words = {
        SubmissionState.ACCEPTED: (f"The broker took it as order {submission.order_id}", "good"),
        SubmissionState.REFUSED: ("The broker refused it", "bad"),
        SubmissionState.UNKNOWN: ("Nobody knows whether the broker took it", "wait"),
        SubmissionState.SENDING: ("On its way", "wait"),
    }
    title, tone = words[submission.state]
    yield Step(at=submission.decided, title=title, source="orderwire", tone=tone, note=submission.reason)


def _effect(change: OrderChange, stamps: Stamps) -> Effect:
    order, trade = change.order, change.trade
    if order is not None:
        text = f"{order.filled_quantity:,} of {order.quantity:,} filled" if order.filled_quantity else ""
    elif trade is not None:
        text = f"Trade {trade.trade_id}: {trade.quantity:,} at {money(trade.price)}"
    else:
        text = ""
    begun = stamps.received or stamps.queued
    reached = max(stamps.joined, stamps.committed, stamps.emitted, stamps.painted)
    return Effect(
        sequence=change.sequence,
        kind=change.kind,
        status=order.status if order is not None else None,
        text=text,
        stages=_stages(stamps),
        total=(reached - begun) / 1e6 if begun and reached else None,
    )


def _stages(stamps: Stamps) -> list[Stage]:
    return [
        Stage(
            name=name,
            word=STAGES[name],
            milliseconds=nanoseconds / 1e6,
            across_clocks=name == "received",
        )
        for name, nanoseconds in stamps.stages().items()
        if name in STAGES
        and nanoseconds >= 0  # our own answer is stamped when it is parsed, after it was queued
    ]
