"""An order's life as XTS tells it: the exchange's steps folded into XTS statuses, and which of them show.

Statuses and transitions are those of the XTS protocol document, section 3. Pure but for `Book`, which listens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from brokersim.orders import (
    UNCONFIRMED,
    Cause,
    ExchangeEvent,
    OrderSnapshot,
    OrderType,
    Reason,
    Stage,
    Terms,
    Trade,
)

BROKER: Final = "xts"
_TYPE_WORDS: Final = {
    OrderType.MARKET: "Market",
    OrderType.LIMIT: "Limit",
    OrderType.SL: "StopLimit",
    OrderType.SLM: "StopMarket",
}
_TRIGGERED_WORDS: Final = {OrderType.SL: "Limit", OrderType.SLM: "Market"}
_ENDS: Final = {
    Stage.FILLED: "Filled",
    Stage.CANCELLED: "Cancelled",
    Stage.REJECTED: "Rejected",
    Stage.EXPIRED: "Expired",
}
_PENDING: Final = {
    **dict.fromkeys(UNCONFIRMED, "PendingNew"),
    Stage.MODIFY_VALIDATING: "PendingReplace",
    Stage.MODIFY_SENT: "PendingReplace",
    Stage.MODIFIED: "PendingReplace",
    Stage.CANCEL_SENT: "PendingCancel",
}
_REFUSALS: Final = frozenset({Stage.MODIFY_REFUSED, Stage.CANCEL_REFUSED})
_SYSTEM_CANCEL: Final = "16388 : Order cancelled by the system"
_SHORTFALL: Final = re.compile(
    r"RMS:Margin Exceeds,Required:(?P<needed>-?[\d.]+), Available:(?P<there>-?[\d.]+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One state of an order in XTS's words.

    `base` is the status it falls back to when a modification or cancellation is refused. `terms` are the new ones
    as soon as a modification is pending. `report` counts the visible states, from 1.
    """

    order: OrderSnapshot
    status: str
    base: str
    terms: Terms
    reason: str = ""
    report: int = 1
    trade: Trade | None = None

    @property
    def type_word(self) -> str:
        """The OrderType column: a stop order becomes what it was triggered into."""
        words = _TRIGGERED_WORDS if self.order.triggered and self.terms.type.stop else _TYPE_WORDS
        return words[self.terms.type]

    @property
    def updated_at(self) -> datetime:
        """When the order came into this state."""
        return self.order.updated_at

    def shows(self, since: View) -> bool:
        """Whether a client could tell this state from an earlier one."""
        return self._visible != since._visible

    @property
    def _visible(self) -> tuple[object, ...]:
        return self.status, self.terms, self.type_word, self.reason, self.order.filled


def first_view(order: OrderSnapshot) -> View:
    """Begin an order's life."""
    return View(order=order, status="PendingNew", base="New", terms=order.terms)


def next_view(before: View, order: OrderSnapshot, trade: Trade | None = None) -> View:
    """Fold one more step of the exchange into what XTS says."""
    status = _status(before, order)
    base = status if order.stage not in _PENDING and order.live else before.base
    view = replace(
        before,
        order=order,
        status=status,
        base=base,
        terms=(order.requested or order.terms) if status == "PendingReplace" else order.terms,
        reason=_reason(before, order),
        trade=trade,
    )
    return replace(view, report=before.report + 1) if view.shows(before) else view


def _status(before: View, order: OrderSnapshot) -> str:
    if fixed := _PENDING.get(order.stage) or _ENDS.get(order.stage):
        return fixed
    if order.cause is Cause.FILL:
        return "PartiallyFilled"
    if before.order.stage is Stage.MODIFIED:
        return "Replaced"
    return before.base


def _reason(before: View, order: OrderSnapshot) -> str:
    if (
        before.order.stage in _REFUSALS
        and order.cause in {Cause.MODIFY, Cause.CANCEL}
        and order.reason is None
    ):
        return before.reason if order.stage not in _PENDING and order.live else ""
    if order.reason is not None:
        return cancel_reject_reason(order.reason, client=order.user)
    return _SYSTEM_CANCEL if order.stage is Stage.CANCELLED and order.cause is Cause.IOC else ""


def cancel_reject_reason(reason: Reason, *, client: str) -> str:
    """Write a refusal as XTS's order management does; the margin text is the captured one."""
    found = _SHORTFALL.match(reason.raw)
    if found is None:
        return reason.raw
    needed, there = float(found["needed"]), float(found["there"])
    return (
        f"OEMS:RMS : Margin Exceeds :  - Set Limit:[0] Total Required Margin:[{needed:g}] "
        f"Available Margin[{max(there, 0):g}] Margin Shortfall[{needed - max(there, 0):g}] "
        f"for entity [Client]-[{client}] across [ALL|ALL|ALL]"
    )


@dataclass(slots=True)
class Life:
    """The visible states of one order, oldest first, and the present one whether it shows or not."""

    views: list[View]
    now: View

    def take(self, event: ExchangeEvent) -> View | None:
        """Add a step; give the new state if it shows."""
        before, self.now = self.now, next_view(self.now, event.order, event.trade)
        if not self.now.shows(before):
            return None
        self.views.append(self.now)
        return self.now

    def as_of(self, moment: datetime | None) -> list[View]:
        """Give the states that had shown by then; all of them without a moment."""
        return [each for each in self.views if moment is None or each.updated_at <= moment]


@dataclass(slots=True)
class Book:
    """Every XTS order of the day, by AppOrderID."""

    lives: dict[str, Life] = field(default_factory=dict)

    def take(self, event: ExchangeEvent) -> View | None:
        """Add a step of the exchange; give the state if a client can see it. Other brokers' steps are not ours."""
        if event.order.broker != BROKER:
            return None
        life = self.lives.get(event.order.order_id)
        if life is not None:
            return life.take(event)
        view = first_view(event.order)
        self.lives[event.order.order_id] = Life([view], view)
        return view

    def of(self, clients: tuple[str, ...]) -> Iterator[Life]:
        """Give the lives of these clients' orders, in the order they were placed."""
        return (life for life in self.lives.values() if life.now.order.user in clients)
