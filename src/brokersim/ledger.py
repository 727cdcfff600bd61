"""The record of every truth and every message: the oracle that all loss figures are measured against.

A truth is a step an order really took at the exchange. A message is anything a broker sent, or did not send,
to somebody outside. Whoever asks what a receiver should have learnt compares the two.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from brokersim.orders import ExchangeEvent, OrderSnapshot, Trade

_MESSAGES_KEPT: Final = 500_000


class Fate(StrEnum):
    """What became of a message.

    LOST: nobody was connected or the receiver refused or failed. DROPPED: a fault switch took it.
    """

    SENT = "SENT"
    LOST = "LOST"
    DROPPED = "DROPPED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """One step of one order, numbered from 1 in the order they happened; `at` is epoch seconds."""

    number: int
    at: float
    order: OrderSnapshot
    trade: Trade | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message at the border. `sha256` is of the exact bytes or text; `faults` names the switches at work."""

    number: int
    at: float
    broker: str
    channel: str
    user: str
    order_id: str
    what: str
    fate: Fate
    sha256: str
    size: int
    faults: tuple[str, ...] = ()
    detail: str = ""


class Ledger:
    """Truths and messages, appended by the simulators' one thread. The oldest messages go first."""

    def __init__(self, *, messages_kept: int = _MESSAGES_KEPT) -> None:
        self._truths: list[Truth] = []
        self._messages: deque[Message] = deque(maxlen=messages_kept)
        self._message_count = 0

    def witness(self, event: ExchangeEvent, *, at: float) -> Truth:
        """Record a step of an order."""
        truth = Truth(number=len(self._truths) + 1, at=at, order=event.order, trade=event.trade)
        self._truths.append(truth)
        return truth

    def message(
        self,
        payload: bytes | str,
        *,
        at: float,
        broker: str,
        channel: str,
        user: str,
        what: str,
        fate: Fate = Fate.SENT,
        order_id: str = "",
        faults: Iterable[str] = (),
        detail: str = "",
    ) -> Message:
        """Record a message: `channel` is rest, ws, sio or postback; `what` the operation, event or status."""
        data = payload.encode() if isinstance(payload, str) else payload
        self._message_count += 1
        entry = Message(
            number=self._message_count,
            at=at,
            broker=broker,
            channel=channel,
            user=user,
            order_id=order_id,
            what=what,
            fate=fate,
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            faults=tuple(faults),
            detail=detail,
        )
        self._messages.append(entry)
        return entry

    def truths(
        self,
        *,
        after: int = 0,
        broker: str | None = None,
        user: str | None = None,
        order_id: str | None = None,
    ) -> Iterator[Truth]:
        """Give the matching truths numbered above `after`, oldest first."""
        for truth in self._truths[after:]:
            order = truth.order
            if _fits((broker, order.broker), (user, order.user), (order_id, order.order_id)):
                yield truth

    def messages(
        self,
        *,
        after: int = 0,
        broker: str | None = None,
        channel: str | None = None,
        user: str | None = None,
        order_id: str | None = None,
        fate: str | None = None,
    ) -> Iterator[Message]:
        """Give the matching messages numbered above `after`, oldest first."""
        for each in self._messages:
            if each.number > after and _fits(
                (broker, each.broker),
                (channel, each.channel),
                (user, each.user),
                (order_id, each.order_id),
                (fate, each.fate.value),
            ):
                yield each

    def totals(self) -> dict[str, int]:
        """Count truths, and messages by channel and fate; messages that were let go are not in the parts."""
        counts = {"truths": len(self._truths), "messages": self._message_count}
        for each in self._messages:
            key = f"{each.broker}.{each.channel}.{each.fate.value}"
            counts[key] = counts.get(key, 0) + 1
        return counts


def _fits(*pairs: tuple[str | None, str]) -> bool:
    return all(wanted is None or wanted == found for wanted, found in pairs)
