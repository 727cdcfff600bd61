"""Events: what travels through the engine, and the names of ours."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct


class EventType(StrEnum):
    """The event types orderwire itself uses; any other non-empty string is a type too.

    A member is its string (`EventType.TIMER == "eTimer"`), so vn.py's `EVENT_TIMER` and ours are one.
    """

    TIMER = "eTimer"
    ORDER_UPDATE = "eOrderUpdate"
    ORDER_CHANGED = "eOrderChanged"
    TRADE_UPDATE = "eTradeUpdate"
    POSITION_UPDATE = "ePositionUpdate"
    UNREADABLE = "eUnreadable"
    FEED_STATUS = "eFeedStatus"
    ACCOUNT = "eAccountState"
    ALERT = "eAlert"
    LOG = "eLogRecord"
    SUBMISSION = "eSubmission"
    BOOK_READ = "eBookRead"
    BOOK_VERIFIED = "eBookVerified"


class Event(Struct, gc=False):
    """Something that happened: `type` says which handlers get it, `data` is whatever they need.

    vn.py's `Event(type, data)`, positional. `queued` is when the event entered the queue, in seconds
    of the engine's monotonic clock, stamped by `put` (0 before; `EventEngine.queued_ns` gives wall time). Two events are equal when type and data are, whenever they were queued.

    The garbage collector does not look inside (that is worth a tenth of the engine's throughput), so `data` must
    not refer back to its own event, directly or through others: such a ring is never freed.
    """

    type: str
    data: Any = None
    queued: float = 0.0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return self.type == other.type and bool(self.data == other.data)

    def __hash__(self) -> int:
        return hash(self.type)
