"""Which pushes one step of an order gives rise to, with Kite's own irregularities switched in: pure decisions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from brokersim.faults import Fault, FaultKind
from brokersim.kite.rows import STATUS, push_status
from brokersim.orders import TERMINAL, UNCONFIRMED, Cause, OrderSnapshot, Stage
from brokersim.world import Settings
from brokersim.written import Row

STORY_FAULTS: Final = (
    FaultKind.DOUBLE_CANCELLED,
    FaultKind.UPDATE_AFTER_COMPLETE,
    FaultKind.COMPLETE_BEFORE_OPEN,
    FaultKind.STALE_OPEN,
    FaultKind.UNKNOWN_STATUS,
    FaultKind.FIELD_VARIANTS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One push of one order: the snapshot it shows, the status it says, and how much later it goes."""

    order: OrderSnapshot
    status: str
    delay: float = 0.0
    variants: bool = False


def first_push(history: Sequence[OrderSnapshot], settings: Settings, channel: str) -> Push | None:
    """Say what the latest step of an order is pushed as on a channel (ws or postback), if at all."""
    order = history[-1]
    status = push_status(order, history[-2] if len(history) > 1 else None)
    if status is None:
        return None
    sends_open = settings.kite_ws_sends_open if channel == "ws" else settings.kite_postback_sends_open
    if status == "OPEN" and not sends_open:
        return None
    if order.cause is Cause.RISK and not settings.kite_pushes_risk_rejections:
        return None
    return Push(order=order, status=status)


def told(push: Push, history: Sequence[OrderSnapshot], struck: Iterable[Fault]) -> list[Push]:
    """Tell a push the way the switches want it: changed, later, twice, or followed by something stale."""
    pushes = [push]
    for fault in struck:
        pushes = _TELL[fault.kind](pushes, history, fault)
    return pushes


def _double_cancelled(pushes: list[Push], _: Sequence[OrderSnapshot], fault: Fault) -> list[Push]:
    again = [replace(each, delay=fault.seconds(0.05)) for each in pushes if each.status == "CANCELLED"]
    return pushes + again


def _update_after_complete(pushes: list[Push], history: Sequence[OrderSnapshot], fault: Fault) -> list[Push]:
    if pushes[0].status != "COMPLETE":
        return pushes
    return pushes + _earlier(history, "UPDATE", fault, partly=True)


def _stale_open(pushes: list[Push], history: Sequence[OrderSnapshot], fault: Fault) -> list[Push]:
    if pushes[0].order.stage not in TERMINAL:
        return pushes
    return pushes + _earlier(history, "OPEN", fault, partly=False)


def _earlier(history: Sequence[OrderSnapshot], status: str, fault: Fault, *, partly: bool) -> list[Push]:
    stages = TERMINAL | UNCONFIRMED
    found = [each for each in history if each.stage not in stages and (each.filled > 0 or not partly)]
    if not found:
        return []
    return [Push(order=found[-1 if partly else 0], status=status, delay=fault.seconds(0.05))]


def _complete_before_open(pushes: list[Push], _: Sequence[OrderSnapshot], fault: Fault) -> list[Push]:
    return [replace(each, delay=fault.seconds(2.0)) if each.status == "OPEN" else each for each in pushes]


def _unknown_status(pushes: list[Push], _: Sequence[OrderSnapshot], fault: Fault) -> list[Push]:
    return [replace(each, status=str(fault.params.get("status", "SUSPENDED"))) for each in pushes]


def _field_variants(pushes: list[Push], _: Sequence[OrderSnapshot], __: Fault) -> list[Push]:
    return [replace(each, variants=True) for each in pushes]


_TELL: Final = {
    FaultKind.DOUBLE_CANCELLED: _double_cancelled,
    FaultKind.UPDATE_AFTER_COMPLETE: _update_after_complete,
    FaultKind.COMPLETE_BEFORE_OPEN: _complete_before_open,
    FaultKind.STALE_OPEN: _stale_open,
    FaultKind.UNKNOWN_STATUS: _unknown_status,
    FaultKind.FIELD_VARIANTS: _field_variants,
}


def with_variants(row: Row) -> Row:
    """Spell a push the other way that was seen: "" for null, no tags, cancelled_quantity 0."""
    changed: dict[str, Any] = {
        key: "" if value is None and key in {"parent_order_id", "status_message", "tag"} else value
        for key, value in row.items()
        if key != "tags"
    }
    if row["status"] == STATUS[Stage.CANCELLED]:
        changed["cancelled_quantity"] = 0
    return changed
