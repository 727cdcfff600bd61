"""Fault switches as data, and the pure decision which of them strike in a situation.

A fault says what goes wrong, for whom, on which channel, how often. The brokers describe each situation they
are in (a call, a push, a handshake) and carry out what `FaultBoard.strike` gives back.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any


class FaultKind(StrEnum):
    """Everything that can be switched on. In brackets: the parameters read from `Fault.params`."""

    # single pushes, any channel
    DROP = "drop"
    DUPLICATE = "duplicate"  # times=2, gap=0.0 seconds
    REORDER = "reorder"  # the push waits for the next one of that user and goes after it; wait=1.0 at most
    DELAY = "delay"  # seconds=1.0
    CORRUPT = "corrupt"  # a few characters are replaced
    TRUNCATE = "truncate"  # keep=0.5 of the payload
    # connections
    SILENCE = "silence"  # half-open: stays connected, sends nothing, not even heartbeats or pongs
    DISCONNECT = "disconnect"  # mode=abort | close
    REFUSE_HANDSHAKE = "refuse_handshake"  # status=403
    TOKEN_DEATH = "token_death"  # noqa: S105 - a fault name; the token dies with this call
    # on the wire, at a proxy (`proxy.py`): channel `wire`, operation `connect`, `GET /path`, `upgrade /path`,
    # `frame text`, `frame binary`; there DELAY, TRUNCATE, CORRUPT, DUPLICATE, UNAUTHORIZED, RATE_LIMIT and
    # SERVER_ERROR work on requests too
    BLACK_HOLE = "black_hole"  # done=false: taken and never answered; a stream is half-open from then on
    RESET = "reset"  # done=false: the connection ends with RST
    SLOW_LORIS = "slow_loris"  # rate=10 bytes a second, until it is switched off
    # REST answers
    UNAUTHORIZED = "unauthorized"  # status=403
    RATE_LIMIT = "rate_limit"  # retry_after=seconds, absent by default
    SERVER_ERROR = (
        "server_error"  # status=503, done=false (whether the call took effect all the same), html=false
    )
    TIMEOUT = "timeout"  # seconds=30, done=false: no answer in time, then the connection is cut
    SLOW = "slow"  # seconds=2.0
    REST_LAG = "rest_lag"  # seconds=1.0: books show the state of so long ago
    HTML_ERROR = "html_error"  # status=502
    # the order's life
    REJECT_RISK = "reject_risk"  # message=...
    REJECT_EXCHANGE = "reject_exchange"  # message=...
    REFUSE_MODIFY = "refuse_modify"  # message=...
    REFUSE_CANCEL = "refuse_cancel"  # message=...
    # pushes against answers and books, both brokers
    PUSH_BEFORE_RESPONSE = "push_before_response"  # seconds=0.3: the answer to a place waits for the push
    STALE_OPEN = "stale_open"  # after a terminal push, an earlier state is pushed again
    # Kite
    POSTBACK_ALTERED = "postback_altered"  # fields={...}: values replaced, the checksum stays
    POSTBACK_REPLAYED = "postback_replayed"  # seconds=1.0: the same body once more
    DOUBLE_CANCELLED = "double_cancelled"
    UPDATE_AFTER_COMPLETE = "update_after_complete"
    COMPLETE_BEFORE_OPEN = "complete_before_open"  # OPEN waits for COMPLETE
    SHUFFLED_BOOK = "shuffled_book"
    UNKNOWN_STATUS = "unknown_status"  # status="SUSPENDED"
    UNKNOWN_FRAME = "unknown_frame"  # an unknown frame type and a text that is not JSON before the push
    FIELD_VARIANTS = "field_variants"  # tags absent, "" instead of null, cancelled_quantity 0
    # XTS
    EARLY_HISTORY = "early_history"  # e-orders-0001 on a history asked for too early
    CLOCK_SKEW = "clock_skew"  # broker=0.9, exchange=-2.0 seconds
    OLD_FORMAT = "old_format"  # REST rows with ISO times and Buy/Sell
    MISSING_FIELDS = "missing_fields"  # the optional fields of newer servers are absent
    DICT_PAYLOAD = "dict_payload"  # an object instead of a JSON string
    TRADE_BEFORE_ORDER = "trade_before_order"
    BOOLEAN_TYPE = "boolean_type"  # hostlookup answers type=true
    EMPTY_SUCCESS = "empty_success"  # an empty book is a success


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One switch. Empty selectors fit everything.

    `operation` fits an operation that begins with it (a Kite path like `orders`, an XTS event name, a push's
    status). It strikes with `probability` each time it fits, at most `count` times (None: no limit).
    """

    id: int
    kind: FaultKind
    broker: str = ""
    channel: str = ""
    user: str = ""
    order_id: str = ""
    operation: str = ""
    probability: float = 1.0
    count: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    def seconds(self, default: float) -> float:
        """Give the parameter `seconds`."""
        return float(self.params.get("seconds", default))


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Where a broker is: which channel (rest, ws, sio, postback, handshake, exchange), for whom, doing what."""

    broker: str
    channel: str
    user: str = ""
    order_id: str = ""
    operation: str = ""


def fits(fault: Fault, situation: Situation) -> bool:
    """Say whether a fault's selectors fit a situation."""
    pairs = (
        (fault.broker, situation.broker),
        (fault.channel, situation.channel),
        (fault.user, situation.user),
        (fault.order_id, situation.order_id),
    )
    return all(not wanted or wanted == found for wanted, found in pairs) and situation.operation.startswith(
        fault.operation
    )


def decide(
    faults: Iterable[Fault],
    situation: Situation,
    *,
    kinds: frozenset[FaultKind],
    used: Mapping[int, int],
    draw: Callable[[], float],
) -> tuple[Fault, ...]:
    """Choose the faults that strike: those of the asked kinds that fit, are not used up and win their draw.

    `used` says how often each fault struck before; `draw` gives chances in [0, 1) and is called once per fault
    with a probability below 1 that fits. Pure but for `draw`.
    """
    return tuple(
        fault
        for fault in faults
        if fault.kind in kinds
        and fits(fault, situation)
        and (fault.count is None or used.get(fault.id, 0) < fault.count)
        and (fault.probability >= 1 or draw() < fault.probability)
    )


class FaultBoard:
    """The switches that are on, and how often each has struck."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._faults: dict[int, Fault] = {}
        self._used: dict[int, int] = {}
        self._next = 1

    def add(self, kind: FaultKind | str, **selectors: Any) -> Fault:
        """Switch a fault on; keywords are the fields of `Fault`.

        Raises ValueError for an unknown kind, TypeError for an unknown field.
        """
        fault = Fault(id=self._next, kind=FaultKind(kind), **selectors)
        self._next += 1
        self._faults[fault.id] = fault
        return fault

    def remove(self, fault_id: int) -> bool:
        """Switch one off; False if it was not on."""
        return self._faults.pop(fault_id, None) is not None

    def clear(self) -> None:
        """Switch everything off."""
        self._faults.clear()

    def is_on(self, fault_id: int) -> bool:
        """Say whether a fault is still switched on; one whose count is used up is."""
        return fault_id in self._faults

    def listing(self) -> list[tuple[Fault, int]]:
        """Give every fault that is on, with the number of times it struck."""
        return [(fault, self._used.get(fault.id, 0)) for fault in self._faults.values()]

    def strike(self, situation: Situation, *kinds: FaultKind) -> tuple[Fault, ...]:
        """Give the faults of these kinds that strike now, in the order they were switched on, and count them."""
        if not self._faults:
            return ()
        struck = decide(
            self._faults.values(),
            situation,
            kinds=frozenset(kinds),
            used=self._used,
            draw=self._rng.random,
        )
        for fault in struck:
            self._used[fault.id] = self._used.get(fault.id, 0) + 1
        return struck

    def first(self, situation: Situation, *kinds: FaultKind) -> Fault | None:
        """Give the first of the faults that strike; the others are not counted."""
        for kind in kinds:
            for fault in self._faults.values():
                if fault.kind is kind and self._strikes(fault, situation):
                    self._used[fault.id] = self._used.get(fault.id, 0) + 1
                    return fault
        return None

    def _strikes(self, fault: Fault, situation: Situation) -> bool:
        return bool(
            decide((fault,), situation, kinds=frozenset({fault.kind}), used=self._used, draw=self._rng.random)
        )
