"""What the fault switches make of one push: which payloads go out, and how much later."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from brokersim.faults import Fault, FaultKind

PUSH_FAULTS: Final = (
    FaultKind.DROP,
    FaultKind.DUPLICATE,
    FaultKind.REORDER,
    FaultKind.DELAY,
    FaultKind.CORRUPT,
    FaultKind.TRUNCATE,
)
_NOISE: Final = "#~?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One payload to send `delay` seconds after the push is due, and the names of the faults that made it so."""

    payload: str
    delay: float = 0.0
    faults: tuple[str, ...] = ()


def deliveries(payload: str, struck: Iterable[Fault], rng: Random) -> Sequence[Delivery]:
    """Apply the faults that struck to one payload; an empty result means that the push is lost.

    A reordered push waits, so that the next ones overtake it.
    """
    faults = tuple(struck)
    names = tuple(fault.kind.value for fault in faults)
    if any(fault.kind is FaultKind.DROP for fault in faults):
        return ()
    for fault in faults:
        payload = _changed(payload, fault, rng)
    delay = sum(_wait(fault) for fault in faults)
    copies = [Delivery(payload=payload, delay=delay, faults=names)]
    for fault in faults:
        if fault.kind is FaultKind.DUPLICATE:
            gap = float(fault.params.get("gap", 0.0))
            more = range(1, int(fault.params.get("times", 2)))
            copies += [Delivery(payload=payload, delay=delay + gap * copy, faults=names) for copy in more]
    return copies


def _wait(fault: Fault) -> float:
    if fault.kind is FaultKind.DELAY:
        return fault.seconds(1.0)
    if fault.kind is FaultKind.REORDER:
        return float(fault.params.get("wait", 0.25))
    return 0.0


def _changed(payload: str, fault: Fault, rng: Random) -> str:
    if fault.kind is FaultKind.TRUNCATE:
        return payload[: int(len(payload) * float(fault.params.get("keep", 0.5)))]
    if fault.kind is FaultKind.CORRUPT and payload:
        letters = list(payload)
        for _ in range(3):
            letters[rng.randrange(len(letters))] = rng.choice(_NOISE)
        return "".join(letters)
    return payload
