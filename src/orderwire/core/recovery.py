"""How fresh an account's page is, when to reconnect and when to read the book."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from orderwire.core.orders import AccountId


class Freshness(StrEnum):
    """How current what we show of an account is (docs/glossary.md)."""

    LIVE = "LIVE"
    RECONCILING = "RECONCILING"
    DEGRADED = "DEGRADED"
    STALE = "STALE"
    AUTH_REQUIRED = "AUTH_REQUIRED"
    MANUAL = "MANUAL"


class FeedStatus(Struct, frozen=True, kw_only=True):
    """What keeps an account's observations coming, right now."""

    account: AccountId
    freshness: Freshness
    since: datetime
    """When this freshness began."""
    detail: str = ""
    """Why, in words for the trader; empty when LIVE."""
    read_at: datetime | None = None
    """Last successful read of the order book."""
    connected: bool = False
    """The stream delivers."""
    reconnects: int = 0
    next_try: datetime | None = None
