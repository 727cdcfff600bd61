"""One client's outbox: what it is still to be sent, bounded and conflated however slowly it reads. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

from orderwire.core.lifecycle import OrderChange
from orderwire.core.orders import AccountId, OrderId
from orderwire.core.recovery import FeedStatus
from orderwire.web.payloads import change_key

WINDOW: Final = 128
"""Deliveries a client may have unacknowledged; beyond that the outbox waits, and conflates."""

MOST_WAITING: Final = 2_048
"""Rows that may wait for one client; beyond that it is given a snapshot once it reads again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """How far a client has got in an account's log."""

    epoch: str
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeDelivery:
    """A change to send; `previous` is the sequence this client was given before it."""

    change: OrderChange
    previous: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotDelivery:
    """Everything of one account, to send as it is."""

    account: AccountId
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedDelivery:
    """An account's freshness, to send; it spends no sequence."""

    status: FeedStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckDelivery:
    """An order is being checked with the broker, or is not any more; for pages, it spends no sequence."""

    account: AccountId
    row: str
    order_id: OrderId
    checking: bool


Delivery = ChangeDelivery | SnapshotDelivery | FeedDelivery | CheckDelivery
_Waiting = OrderChange | SnapshotDelivery | FeedDelivery | CheckDelivery


class _Phase(Enum):
    READING = auto()
    """The log is being read for this client; changes wait."""
    FLOWING = auto()
    """The client stands at a known place; changes go out as it acknowledges."""
    BEHIND = auto()
    """Too much waited: nothing is kept any more, the log must be read anew."""


_Key = tuple[str, ...]


@dataclass(slots=True)
class _Follow:
    phase: _Phase = _Phase.READING
    meanwhile: OrderedDict[_Key, OrderChange] = field(default_factory=OrderedDict)
    """What came while the log is being read."""
    checks: OrderedDict[str, CheckDelivery] = field(default_factory=OrderedDict)
    """The same of what is being checked, by row: what the log's reader saw may be older."""
    epoch: str = ""
    given: int = -1
    """Sequence last sent."""
    queued: int = -1
    """Greatest sequence that was sent or waits."""
    snapshot_out: bool = False
    """A snapshot was sent and is not yet acknowledged; there is never a second one."""


class ClientOutbox:
    """Decides what one client gets next. Not locked: its owner serialises the calls.

    Order: the deliveries of one account leave in the order of their sequence. Of several waiting changes of one
    row only the newest leaves. No change leaves twice between two calls of `begin`; none is left out unless a
    newer one of its row, or a snapshot, stands for it. At most `window` deliveries are unacknowledged, of which
    one snapshot per account, and at most `most` rows wait.
    """

    def __init__(self, *, window: int = WINDOW, most: int = MOST_WAITING) -> None:
        self._window = window
        self._most = most
        self._follows: dict[AccountId, _Follow] = {}
        self._waiting: OrderedDict[_Key, _Waiting] = OrderedDict()
        self.outstanding = 0
        self.conflated = 0
        self.overflows = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def accounts(self) -> tuple[AccountId, ...]:
        """The accounts this client follows."""
        return tuple(self._follows)

    # --- following an account --------------------------------------------------------------------------

    def begin(self, account: AccountId) -> bool:
        """Start (again) to follow: changes wait until `replay` or `snapshot` says where the client stands.

        False when a snapshot is still on its way to the client: the account is `behind` until that arrives.
        """
        follow = self._follows.setdefault(account, _Follow())
        self._forget(account)
        follow.meanwhile.clear()
        follow.checks.clear()
        follow.phase = _Phase.BEHIND if follow.snapshot_out else _Phase.READING
        return not follow.snapshot_out

    def replay(self, account: AccountId, cursor: Cursor, changes: Iterable[OrderChange]) -> None:
        """Queue what the client missed since `cursor`, ahead of what came meanwhile."""
        if self._follows[account].phase is _Phase.READING:
            meanwhile = self._settle(account, cursor)
            self._offer_all(account, [*changes, *meanwhile])

    def snapshot(self, account: AccountId, cursor: Cursor, payload: Mapping[str, Any]) -> None:
        """Queue a snapshot as of `cursor`, ahead of what came meanwhile."""
        if self._follows[account].phase is _Phase.READING:
            meanwhile = self._settle(account, cursor)
            self._waiting[account, "snapshot"] = SnapshotDelivery(account=account, payload=payload)
            self._offer_all(account, meanwhile)

    def leave(self, account: AccountId) -> None:
        """Stop to follow; nothing more of the account leaves."""
        self._forget(account)
        self._follows.pop(account, None)

    def behind(self) -> list[AccountId]:
        """Return the accounts to `begin` again: they fell behind, and the client reads again."""
        if self.outstanding > self._window // 2:
            return []
        return [
            account
            for account, follow in self._follows.items()
            if follow.phase is _Phase.BEHIND and not follow.snapshot_out
        ]

    def place(self, account: AccountId) -> Cursor | None:
        """Return how far the client was told, or None while that is being found out."""
        follow = self._follows.get(account)
        if follow is None or follow.phase is not _Phase.FLOWING:
            return None
        return Cursor(epoch=follow.epoch, sequence=follow.queued)

    # --- what goes in ----------------------------------------------------------------------------------

    def offer(self, change: OrderChange) -> None:
        """Take a change; ignored when the account is not followed, or the client has it already."""
        follow = self._follows.get(change.account)
        if follow is None or follow.phase is _Phase.BEHIND:
            return
        if follow.phase is _Phase.READING:
            self._line_up(follow, follow.meanwhile, change)
        elif self._is_next(follow, change):
            self._line_up(follow, self._waiting, change)

    def offer_feed(self, status: FeedStatus) -> None:
        """Take an account's freshness; only the newest leaves."""
        if status.account in self._follows:
            self._waiting[status.account, "feed"] = FeedDelivery(status=status)

    def offer_check(self, check: CheckDelivery) -> None:
        """Take word of an order being checked; only the newest of each order leaves, after changes told before."""
        follow = self._follows.get(check.account)
        if follow is None or follow.phase is _Phase.BEHIND:
            return
        if follow.phase is _Phase.READING:
            follow.checks.pop(check.row, None)
            follow.checks[check.row] = check
            return
        key = (check.account, "check", check.row)
        self._waiting.pop(key, None)
        self._waiting[key] = check
        if len(self._waiting) > self._most:
            self._fall_behind(check.account, follow)

    # --- what goes out ---------------------------------------------------------------------------------

    def take(self) -> Iterator[Delivery]:
        """Hand out what may be sent now; each counts as outstanding until `acknowledged`."""
        while self._waiting and self.outstanding < self._window:
            _, item = self._waiting.popitem(last=False)
            self.outstanding += 1
            yield self._deliver(item)

    def acknowledged(self, delivery: Delivery) -> None:
        """Note that the client has taken a delivery."""
        self.outstanding -= 1
        if isinstance(delivery, SnapshotDelivery) and delivery.account in self._follows:
            self._follows[delivery.account].snapshot_out = False

    def _deliver(self, item: _Waiting) -> Delivery:
        if isinstance(item, FeedDelivery | CheckDelivery):
            return item
        follow = self._follows[item.account]
        if isinstance(item, SnapshotDelivery):
            follow.snapshot_out = True
            return item
        previous, follow.given = follow.given, item.sequence
        return ChangeDelivery(change=item, previous=previous)

    def _is_next(self, follow: _Follow, change: OrderChange) -> bool:
        if change.epoch != follow.epoch:
            self._fall_behind(change.account, follow)
            return False
        if change.sequence <= follow.queued:
            return False
        follow.queued = change.sequence
        return True

    def _line_up(self, follow: _Follow, queue: OrderedDict[_Key, Any], change: OrderChange) -> None:
        """Put a change last; an older one of its row is not needed any more."""
        key = (change.account, *change_key(change))
        self.conflated += queue.pop(key, None) is not None
        queue[key] = change
        if len(queue) > self._most:
            self._fall_behind(change.account, follow)

    def _settle(self, account: AccountId, cursor: Cursor) -> list[OrderChange]:
        """Say where the client stands, and return what came meanwhile, so that `offer` decides what is news."""
        self._forget(account)
        follow = self._follows[account]
        meanwhile = list(follow.meanwhile.values())
        follow.meanwhile.clear()
        follow.phase, follow.epoch = _Phase.FLOWING, cursor.epoch
        follow.given = follow.queued = cursor.sequence
        return meanwhile

    def _offer_all(self, account: AccountId, changes: Iterable[OrderChange]) -> None:
        for change in changes:
            self.offer(change)
        checks, self._follows[account].checks = self._follows[account].checks, OrderedDict()
        for check in checks.values():
            self.offer_check(check)

    def _fall_behind(self, account: AccountId, follow: _Follow) -> None:
        self.overflows += 1
        self._forget(account)
        follow.meanwhile.clear()
        follow.checks.clear()
        follow.phase = _Phase.BEHIND

    def _forget(self, account: AccountId) -> None:
        for key in [key for key in self._waiting if key[0] == account]:
            del self._waiting[key]
