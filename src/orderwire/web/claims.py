"""Remembers what postbacks claimed until the broker's book has spoken, and raises the alarm when it says otherwise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Final

import structlog

from orderwire.core.alerts import Notice
from orderwire.core.claims import contradiction
from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import OrderView
from orderwire.core.orders import AccountId, OrderId, OrderUpdate
from orderwire.core.recovery import BookRead

_log = structlog.get_logger(__name__)

MISMATCH: Final = "postback mismatch"

MOST_CLAIMS: Final = 1_000
"""Per account, of those not yet compared; what comes beyond is verified all the same, only not compared."""

_APART_NS: Final = 1_000_000_000
"""The broker's own book may lag its messages: two reads so far apart must contradict a claim (kite.md §8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one postback said of one order; never shown, never applied."""

    account: AccountId
    broker: str
    order_id: OrderId
    received_ns: int
    said: OrderUpdate | None
    """None: it cannot be of this account at all (another client's order, nonsense in a field)."""
    doubted_ns: int = 0
    """When the book contradicted it for the first time."""


@dataclass(slots=True)
class Claims:
    """Compares each claim with the book once that was read after it. `add`: any thread; the rest: dispatcher."""

    current: Callable[[AccountId, OrderId], OrderView | None]
    hint: Callable[[AccountId, OrderId, str], None]
    """Has the book read again; may not block."""
    count: Callable[[str], None]
    _open: dict[AccountId, list[Claim]] = field(default_factory=lambda: defaultdict(list))
    _lock: Lock = field(default_factory=Lock)  # guards `_open`

    def add(self, claim: Claim) -> None:
        """Remember a claim that is going to be verified."""
        with self._lock:
            mine = self._open[claim.account]
            if len(mine) < MOST_CLAIMS:
                mine.append(claim)
                return
        self.count("not compared")

    def on_verified(self, event: Event) -> list[Event]:
        """The book was read and committed: compare what was claimed before, return the alarms."""
        read: BookRead = event.data
        alarms, kept = [], []
        for claim in self._due(read):
            doubted, alarm = self._judge(claim, read)
            kept += [doubted] if doubted else []
            alarms += [alarm] if alarm else []
        self._keep(kept)
        return alarms

    def _due(self, read: BookRead) -> list[Claim]:
        """Take out what the read answers; the later ones wait for the next."""
        with self._lock:
            mine = self._open.pop(read.account, [])
            later = [claim for claim in mine if claim.received_ns > read.asked_ns]
            if later:
                self._open[read.account] = later
        return [claim for claim in mine if claim.received_ns <= read.asked_ns]

    def _keep(self, claims: list[Claim]) -> None:
        with self._lock:
            for claim in claims:
                self._open[claim.account].append(claim)

    def _judge(self, claim: Claim, read: BookRead) -> tuple[Claim | None, Event | None]:
        """Return the claim if it is to be looked at again, and the alarm it is cause for."""
        page = self.current(claim.account, claim.order_id)
        if page is None:
            self.count("unknown to the broker")
            return None, None
        differs = contradiction(claim.said, page) if claim.said is not None else "account"
        if not differs:
            self.count("confirmed")
            return None, None
        doubted_ns = claim.doubted_ns or read.asked_ns
        if (
            read.asked_ns - doubted_ns < _APART_NS
        ):  # a read of another cause may have come before the one asked for
            self.hint(claim.account, claim.order_id, "conflict: a postback claims otherwise")
            return replace(claim, doubted_ns=doubted_ns), None
        return None, self._alarm(claim, differs)

    def _alarm(self, claim: Claim, differs: str) -> Event:
        self.count("contradicted")
        _log.error(MISMATCH, account=claim.account, order=claim.order_id, differs=differs)
        text = (
            f"A postback with a valid checksum contradicts the broker's order book ({differs}). Nothing was "
            "changed. Somebody may be altering postbacks: consider a new API secret and postback address."
        )
        notice = Notice(
            kind=MISMATCH,
            text=text,
            account=claim.account,
            order_id=claim.order_id,
            broker=claim.broker,
        )
        return Event(EventType.ALERT, notice)
