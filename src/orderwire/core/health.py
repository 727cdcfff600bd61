"""How every feed is doing, as values: what metrics, status and the operator's page are made of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct, field

from orderwire.core.latency import HistogramSnapshot
from orderwire.core.orders import AccountId
from orderwire.core.recovery import Freshness

FEED_COUNTS = (
    "reconnects",
    "reads",
    "histories",
    "failed_reads",
    "violations",
    "faults",
    "missed_by_push",
)
"""What is counted of each feed, by broker; the counts only grow."""


class FeedHealth(Struct, frozen=True, kw_only=True):
    """One account's feed at one moment; durations in seconds."""

    account: AccountId
    broker: str
    freshness: Freshness
    since: datetime
    detail: str = ""
    read_at: datetime | None = None
    streams: bool = False
    """A stream is wanted: the broker has one, the account is logged in and on real-time updates."""
    connected: bool = False
    connected_seconds: float = 0.0
    """How long the stream has been delivering in all, since the start."""
    down_seconds: float = 0.0
    """How long a wanted stream has been down; 0 while it delivers or none is wanted."""
    heartbeat_age: float | None = None
    """Since the last byte of a stream that delivers."""
    clock_offset: float | None = None
    """Our clock minus the broker's, as its last answer told, to the second."""
    open_orders: int = 0
    running: bool = True
    """Something of ours runs the feed."""
    market_open: bool = True
    """A market of the account's is open."""
    counts: Mapping[str, int] = field(default_factory=dict)


class FleetHealth(Struct, frozen=True, kw_only=True):
    """Every feed of this process, and what they had done together."""

    feeds: tuple[FeedHealth, ...] = ()
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By broker and one of FEED_COUNTS; accounts that were removed included."""
    calls: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """REST calls sent, by broker and purpose."""
    limited: Mapping[str, int] = field(default_factory=dict)
    """Calls refused by the broker with 429, by broker."""
    unanswered: Mapping[str, int] = field(default_factory=dict)
    """Calls that brought no answer, by broker."""


class WebHealth(Struct, frozen=True, kw_only=True):
    """What the web counted."""

    clients: int = 0
    waiting: int = 0
    """Changes that wait for the client that is farthest behind."""
    faults: int = 0
    """Errors that got as far as the airlock."""
    paints: Mapping[str, HistogramSnapshot] = field(default_factory=dict)
    """Durations until a change is on a screen, by stage."""
    postbacks: Mapping[str, int] = field(default_factory=dict)
    """What became of postbacks, by word."""
