"""How fresh an account's page is, when to reconnect and when to read the book."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, time, timedelta
from enum import StrEnum
from math import inf

from msgspec import Struct

from orderwire.core.orders import IST, AccountId


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
    """Why, in words for the trader; empty when LIVE and all is well."""
    read_at: datetime | None = None
    """Last successful read of the order book."""
    connected: bool = False
    """The stream delivers."""
    reconnects: int = 0
    next_try: datetime | None = None


class BookRead(Struct, frozen=True, kw_only=True, gc=False):
    """A broker's order book was read to its end after something about its orders was in doubt.

    As `EventType.BOOK_READ` it follows the rows that were read; as `EventType.BOOK_VERIFIED` they are committed.
    """

    account: AccountId
    asked_ns: int
    """Wall time at which the read began: what was hinted before it, the book has answered."""


class FeedFacts(Struct, frozen=True, kw_only=True):
    """All that decides the freshness of an account; durations in seconds."""

    push: bool = True
    """The user is on real-time updates; False: MANUAL, today's behaviour."""
    logged_in: bool = True
    streams: bool = True
    """The broker has a stream and this account may use it."""
    delivering: bool = False
    """The stream delivers."""
    reconciled: bool = False
    """The book was read, from start to end, after the stream began to deliver (or at all, without a stream)."""
    ever_read: bool = False
    read_age: float = 0.0
    """Since the last successful read; meaningless before `ever_read`."""
    failing_for: float = 0.0
    """Since the first of the reads that failed in a row; 0 when the last one went well."""
    open_orders: int = 0
    market_open: bool = True
    odd_rows: int = 0
    """Rows of the order book that could not be read at the last read: what they would say is not shown."""
    broken: bool = False
    """The adapter was cut off, because it harmed others."""


STALE_AFTER = 15.0
"""Seconds without a successful read, with orders open, after which the page is out of date."""

STALE_AT_NIGHT = 90.0
"""The same while no exchange trades, when the book is read more rarely."""

READS_AFTER_ACTION = (0.0, 0.25, 1.0)
"""Seconds after a place, modify or cancel of ours at which the book is read (placing sends no postback)."""

MANUAL_READS_AFTER_ACTION = (0.5,)
"""The same with push off: the baseline the pilot is compared with."""

HINT_SPACING = 0.2
"""Seconds between two reads of one account that hints caused: what a flood of hints may cost, and no more."""

CONTRADICTED_AFTER, _APART = 1.1, 1.0
"""Seconds after which the book is read again when it contradicts: two reads must be a second apart to count."""

HEALTHY_AFTER = 30.0
"""Seconds a stream must deliver, with one good reconcile, before the back-off starts afresh."""

_OPEN, _IDLE, _POLLING, _DOUBTED, _NIGHT = 4.0, 30.0, 3.0, 1.0, 300.0
_BASE, _CAP_OPEN, _CAP_CLOSED = 0.5, 8.0, 60.0

PUSH_GRACE = 1.5
"""Seconds that the stream has to tell what a read of the book already showed; later counts as missed."""

DOUBT_LASTS = 60.0
"""Seconds after the last missed change for which the stream is doubted, unless it proves itself earlier."""


def freshness(facts: FeedFacts) -> Freshness:
    """Decide what the page may say; the first rule that holds, worst first."""
    if facts.broken:
        return Freshness.STALE
    if not facts.push:
        return Freshness.MANUAL
    if not facts.logged_in:
        return Freshness.AUTH_REQUIRED
    if _is_stale(facts):
        return Freshness.STALE
    return _freshness_of_a_read_book(facts) if facts.ever_read else Freshness.RECONCILING


def _freshness_of_a_read_book(facts: FeedFacts) -> Freshness:
    if not facts.streams or not facts.delivering or facts.odd_rows:
        return Freshness.DEGRADED
    return Freshness.LIVE if facts.reconciled else Freshness.RECONCILING


def _is_stale(facts: FeedFacts) -> bool:
    if facts.open_orders and _unread_for(facts) > _stale_after(facts):
        return True
    return not facts.ever_read and facts.failing_for > STALE_AFTER


def _unread_for(facts: FeedFacts) -> float:
    return facts.read_age if facts.ever_read else facts.failing_for


def _stale_after(facts: FeedFacts) -> float:
    return STALE_AFTER if facts.market_open else STALE_AT_NIGHT


def read_interval(
    state: Freshness,
    *,
    open_orders: int,
    market_open: bool = True,
    doubted: bool = False,
    share: float = 0.0,
) -> float | None:
    """Return the seconds until the next routine read of the book, or None when none is due by itself.

    `doubted`: the stream missed a change lately. `share`: what this account may take of a budget that it shares
    with others, as seconds between reads; no state is worth more than that.
    """
    if state in {Freshness.MANUAL, Freshness.AUTH_REQUIRED}:
        return None
    if not market_open:
        return max(_IDLE if open_orders else _NIGHT, share)
    if state is not Freshness.LIVE:
        return max(_POLLING, share)
    if doubted and open_orders:
        return max(_DOUBTED, share)
    return max(_OPEN if open_orders else _IDLE, share)


def spread(seconds: float, *, chance: float) -> float:
    """Return an interval shortened or stretched by up to a tenth, so that accounts started together drift apart."""
    return seconds * (0.9 + 0.2 * chance)


def reconnect_delay(attempt: int, *, chance: float, market_open: bool = True) -> float:
    """Return the seconds to wait before connect number `attempt` (1, 2, …): full jitter, capped.

    `chance` is uniform in [0, 1). Full jitter spreads the accounts that one outage dropped together.
    """
    cap = _CAP_OPEN if market_open else _CAP_CLOSED
    return chance * min(cap, _BASE * float(2 ** min(attempt, 16)))


def reads_after_action(*, push: bool) -> tuple[float, ...]:
    """Return when the book is read after an action of the user, in seconds."""
    return READS_AFTER_ACTION if push else MANUAL_READS_AFTER_ACTION


def hint_due(
    reason: str, *, now: float, last_hint_read: float | None, planned: Iterable[float] = ()
) -> tuple[float, bool]:
    """Return when the book is read because of a hint (same clock as `now`), and whether that read is `planned` already.

    At once, unless one just was; a contradiction a second later. Contradictions of one read share one read: were each
    to have its own, a book that lags would be read ever more often.
    """
    contradicted = reason.startswith("conflict")
    if contradicted:
        due = now + CONTRADICTED_AFTER
    else:
        due = now if last_hint_read is None else max(now, last_hint_read + HINT_SPACING)
    earliest = now + _APART if contradicted else -inf
    shared = min((read for read in planned if earliest <= read <= due), default=None)
    return (due, False) if shared is None else (max(shared, now), True)


_FIRST_SESSION, _LAST_SESSION = time(9, 0), time(23, 55)
"""Pre-open of the equity segments to the end of the commodity evening session, IST."""


_RENEW_FROM = time(7, 45)
_LAST_MINUTE = timedelta(seconds=90)


def renewal_due(now: datetime, *, ends: datetime | None) -> bool:
    """Say whether a login that ends at `ends` is to be renewed at `now` (both aware), where no user is needed for it.

    Once a day, from 07:45 IST until the first session opens, if it would end before the last one closes; and in its
    last 90 seconds, whenever they are. A session that is in use is not interrupted earlier.
    """
    if ends is None:
        return False
    local = now.astimezone(IST)
    quiet = local.weekday() < 5 and _RENEW_FROM <= local.time() < _FIRST_SESSION
    closes = datetime.combine(local.date(), _LAST_SESSION, IST)
    return now >= ends - _LAST_MINUTE or (quiet and ends < closes)
