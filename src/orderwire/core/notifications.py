"""What is worth telling a trader who is not looking: the occasions, how loud each is, and the words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct

from orderwire.core.lifecycle import OrderChange, OrderView, openalgo_order
from orderwire.core.orders import IST, AccountId, OrderStatus
from orderwire.core.recovery import FeedStatus, Freshness


class Occasion(StrEnum):
    """What happened."""

    REJECTED = "rejected"
    FILLED = "filled"
    PARTIALLY_FILLED = "partially_filled"
    CANCELLED = "cancelled"
    FEED_DOWN = "feed_down"
    LOG_IN_AGAIN = "log_in_again"


class Loudness(StrEnum):
    """How a user wants to be told of an occasion."""

    ON = "on"
    SILENT = "silent"
    """Told without ringing, where the service can do that (Telegram, ntfy, Pushover, Gotify)."""
    OFF = "off"


DEFAULTS: Final[Mapping[Occasion, Loudness]] = MappingProxyType(
    {
        Occasion.REJECTED: Loudness.ON,
        Occasion.FILLED: Loudness.ON,
        Occasion.PARTIALLY_FILLED: Loudness.OFF,
        Occasion.CANCELLED: Loudness.SILENT,
        Occasion.FEED_DOWN: Loudness.ON,
        Occasion.LOG_IN_AGAIN: Loudness.ON,
    }
)

URGENT: Final = frozenset({Occasion.REJECTED, Occasion.FEED_DOWN, Occasion.LOG_IN_AGAIN})
"""What never waits for a digest: somebody has to act."""

NO_NEWS_AFTER: Final = timedelta(minutes=10)
"""An order that ended longer ago than this when it is first seen is history, not news."""

DOWN_AFTER: Final = timedelta(seconds=30)
"""A feed that is away for less is not worth a message."""


class Notification(Struct, frozen=True, kw_only=True):
    """One thing to tell a user."""

    key: str
    """Names the occasion once and for all, so that it is told once: account, day, line, what, how much."""
    occasion: Occasion
    account: AccountId
    at: datetime
    title: str
    text: str
    order: dict[str, Any] = {}
    """OpenAlgo's 16 `order_update` fields, where it is about an order."""


_OCCASIONS: Final[Mapping[OrderStatus, Occasion]] = MappingProxyType(
    {
        OrderStatus.REJECTED: Occasion.REJECTED,
        OrderStatus.FILLED: Occasion.FILLED,
        OrderStatus.PARTIALLY_FILLED: Occasion.PARTIALLY_FILLED,
        OrderStatus.CANCELLED: Occasion.CANCELLED,
        OrderStatus.EXPIRED: Occasion.CANCELLED,
    }
)

_VERBS: Final[Mapping[OrderStatus, str]] = MappingProxyType(
    {
        OrderStatus.REJECTED: "Rejected",
        OrderStatus.FILLED: "Filled",
        OrderStatus.PARTIALLY_FILLED: "Partly filled",
        OrderStatus.CANCELLED: "Cancelled",
        OrderStatus.EXPIRED: "Expired",
    }
)


def of_change(change: OrderChange, *, now: datetime) -> Notification | None:
    """Return what a committed change is worth telling, None when nothing.

    The same order in the same state gives the same key, however often and in whatever company it comes.
    """
    view = change.order
    occasion = _OCCASIONS.get(view.status) if view is not None else None
    if view is None or occasion is None or _is_history(change, view, now):
        return None
    filled = f"/{view.filled_quantity}" if occasion is Occasion.PARTIALLY_FILLED else ""
    return Notification(
        key=f"{view.account}/{view.trading_date}/{view.row}/{occasion}{filled}",
        occasion=occasion,
        account=view.account,
        at=view.broker_time or now,
        title=f"{_VERBS[view.status]}: {view.side} {view.quantity} {view.symbol} {view.exchange}",
        text=_order_text(view),
        order=openalgo_order(view),
    )


def _is_history(change: OrderChange, view: OrderView, now: datetime) -> bool:
    return change.was is None and view.broker_time is not None and now - view.broker_time > NO_NEWS_AFTER


def _order_text(view: OrderView) -> str:
    facts = [view.reason.strip()] if view.reason.strip() else []
    if view.filled_quantity:
        facts.append(f"{view.filled_quantity} of {view.quantity} at {view.average_price:f}")
    facts.append(f"{view.account} {view.order_id or view.row}")
    return " · ".join(facts)


def of_outage(status: FeedStatus, *, down_since: datetime) -> Notification:
    """Return what to tell when an account's feed has been away since `down_since`."""
    what = "out of date" if status.freshness is Freshness.STALE else "polling"
    return Notification(
        key=f"{status.account}/{Occasion.FEED_DOWN}/{down_since.timestamp():.3f}",
        occasion=Occasion.FEED_DOWN,
        account=status.account,
        at=down_since,
        title=f"Order updates of {status.account} are {what}",
        text=f"{status.detail or 'The stream is away.'} Since {_clock(down_since)}.",
    )


def of_dead_login(status: FeedStatus) -> Notification:
    """Return what to tell when the broker no longer accepts an account's login."""
    return Notification(
        key=f"{status.account}/{Occasion.LOG_IN_AGAIN}/{status.since.timestamp():.3f}",
        occasion=Occasion.LOG_IN_AGAIN,
        account=status.account,
        at=status.since,
        title=f"Log in to {status.account} again",
        text=f"{status.detail or 'The session at the broker has ended.'} Since {_clock(status.since)}.",
    )


def digest(notifications: list[tuple[str, str]]) -> tuple[str, str]:
    """Return the title and text of one message for several (title, text), oldest first."""
    if len(notifications) == 1:
        return notifications[0]
    return f"{len(notifications)} order updates", "\n".join(
        f"{title} - {text}" for title, text in notifications
    )


def _clock(at: datetime) -> str:
    return f"{at.astimezone(IST):%H:%M:%S} IST"
