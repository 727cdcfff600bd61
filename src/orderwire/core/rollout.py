"""Who is on real-time updates, and why: the order of the reasons, the stages, and what the guard does.

The share of users that a stage lets in is drawn by the flag (flagd's fraction); here is only what outranks what.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from orderwire.errors import InvalidRequestError

STAGES: Final = (0, 10, 25, 50, 100)
"""Percent of the pilot's users on real-time updates, in the order a pilot takes them."""

FLAG: Final = "event-driven-orders"
"""The one flag the code asks; its name is part of every user's draw, so it never changes."""


class Reason(StrEnum):
    """Why somebody is, or is not, on real-time updates; the first that applies, in this order."""

    MASTER_OFF = "master switch off"
    KILLED = "stopped by the operator"
    BROKER_OFF = "switched off for this broker"
    OPTED_OUT = "switched off by you"
    NO_ANSWER = "flag not readable"
    """The flag's provider failed. Off: whoever cannot hear *stop* must not go on."""
    OPTED_IN = "switched on by you"
    IN_STAGE = "in the pilot"
    NOT_IN_STAGE = "not in the pilot yet"


class Choice(StrEnum):
    """What a user chose for themselves."""

    NONE = "none"
    IN = "in"
    OUT = "out"


class Draw(StrEnum):
    """What the flag answered for one user."""

    IN = "in"
    OUT = "out"
    FAILED = "failed"


class Decision(Struct, frozen=True):
    """Whether one user's account gets real-time updates, and why."""

    enabled: bool
    reason: Reason


class Rollout(Struct, frozen=True, kw_only=True):
    """What the operators decided, at one moment."""

    stage: int = 100
    killed: bool = False
    brokers_off: tuple[str, ...] = ()
    """Sorted."""

    def described(self) -> str:
        """Say it in one line, for the history and the audit."""
        parts = [f"{self.stage} %", *(["stopped"] if self.killed else [])]
        return ", ".join([*parts, *(f"{broker} off" for broker in self.brokers_off)])


def decide(*, master: bool, rollout: Rollout, broker: str, choice: Choice, draw: Draw) -> Decision:
    """Decide for one user at one broker; the first reason that applies wins.

    `master` is the switch of the process's start, which wins over everything when it is off.
    """
    off = (
        (not master, Reason.MASTER_OFF),
        (rollout.killed, Reason.KILLED),
        (broker in rollout.brokers_off, Reason.BROKER_OFF),
        (choice is Choice.OUT, Reason.OPTED_OUT),
        (draw is Draw.FAILED, Reason.NO_ANSWER),
    )
    for applies, reason in off:
        if applies:
            return Decision(enabled=False, reason=reason)
    if choice is Choice.IN:
        return Decision(enabled=True, reason=Reason.OPTED_IN)
    if draw is Draw.IN:
        return Decision(enabled=True, reason=Reason.IN_STAGE)
    return Decision(enabled=False, reason=Reason.NOT_IN_STAGE)


def flags(rollout: Rollout) -> dict[str, Any]:
    """Return the flag as flagd reads it: a fraction by the user's name, the share that is on first.

    Who is on at one stage is on at every higher one, because *on* begins at the same end of the draw.
    """
    share = [["on", rollout.stage], ["off", 100 - rollout.stage]]
    flag = {
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": "off",
        "targeting": {"fractional": share},
    }
    return {"$schema": "https://flagd.dev/schema/v0/flags.json", "flags": {FLAG: flag}}


# --- what operators may do ----------------------------------------------------------------------------


def at_stage(rollout: Rollout, stage: int) -> Rollout:
    """Let `stage` percent of the users in. Raises InvalidRequestError for a share that is no stage of the pilot."""
    if stage not in STAGES:
        raise InvalidRequestError(
            {"stage": f"The stages are {', '.join(map(str, STAGES))} percent, not {stage}."}
        )
    return replace(rollout, stage=stage)


def killed(rollout: Rollout) -> Rollout:
    """Stop real-time updates for everybody; the stage is kept for `resumed`."""
    return replace(rollout, killed=True)


def resumed(rollout: Rollout) -> Rollout:
    """End a stop; the stage and the brokers' switches are as before."""
    return replace(rollout, killed=False)


def with_broker(rollout: Rollout, broker: str, *, on: bool, known: Iterable[str]) -> Rollout:
    """Switch one broker on or off. Raises InvalidRequestError for a broker that is not installed."""
    names = sorted(known)
    if broker not in names:
        raise InvalidRequestError(
            {"broker": f"There is no broker {broker!r}; installed are {', '.join(names)}."}
        )
    off = {*rollout.brokers_off} - {broker} if on else {*rollout.brokers_off, broker}
    return replace(rollout, brokers_off=tuple(sorted(off)))


def lower_stage(stage: int) -> int:
    """Return the stage below `stage`; 0 is its own."""
    return max((known for known in STAGES if known < stage), default=0)


# --- the guard ----------------------------------------------------------------------------------------


class GuardAction(StrEnum):
    """What the guard does when the pilot hurts."""

    OFF = "off"
    STEP_DOWN = "step down"
    KILL = "kill"


class GuardLimits(Struct, frozen=True, kw_only=True):
    """When the pilot hurts: the roll-back criteria of the evaluation, over a sustained window."""

    latency_p95: float = 1.0
    """Seconds from placing to paint."""
    error_rate: float = 0.01
    """Errors per event processed."""
    disconnects_per_hour: float = 6.0
    """Per account on real-time updates, over `disconnect_minutes`."""
    minutes: int = 5
    """How many whole minutes in a row must be too slow, or err too often."""
    disconnect_minutes: int = 30
    least_paints: int = 5
    """A minute with fewer paints says nothing of latency."""
    least_events: int = 20
    """A minute with fewer events says nothing of errors."""


class CohortMinute(Struct, frozen=True, kw_only=True):
    """What one minute told of the accounts on real-time updates, whatever their broker."""

    minute: int
    """Minutes since the epoch."""
    accounts: int = 0
    paints: int = 0
    latency_p95: float = 0.0
    """Seconds, placed to painted; meaningless without paints."""
    events: int = 0
    errors: int = 0
    disconnects: int = 0


def breaches(minutes: Iterable[CohortMinute], limits: GuardLimits, *, now: int) -> list[str]:
    """Say which limits were broken for as long as they must be, up to the whole minute before `now`.

    `now` is the running minute, which is not judged. A minute that is missing, or has too little in it, breaks
    nothing: the guard acts on what it knows.
    """
    known = {minute.minute: minute for minute in minutes}
    latest = [known.get(now - back) for back in range(1, limits.minutes + 1)]
    rules = {
        f"placed to painted p95 above {limits.latency_p95:g} s": all(_slow(m, limits) for m in latest),
        f"error rate above {limits.error_rate:.1%}": all(_erring(m, limits) for m in latest),
        f"more than {limits.disconnects_per_hour:g} disconnections an hour and account": _dropping(
            [known[at] for at in range(now - limits.disconnect_minutes, now) if at in known], limits
        ),
    }
    return [words for words, broken in rules.items() if broken]


def guard(rollout: Rollout, action: GuardAction, broken: Sequence[str]) -> Rollout:
    """Return what the guard makes of the rollout: lower or stopped, never higher."""
    if not broken or action is GuardAction.OFF or rollout.killed:
        return rollout
    if action is GuardAction.KILL:
        return killed(rollout)
    return replace(rollout, stage=lower_stage(rollout.stage))


def _slow(minute: CohortMinute | None, limits: GuardLimits) -> bool:
    return (
        minute is not None
        and minute.paints >= limits.least_paints
        and minute.latency_p95 > limits.latency_p95
    )


def _erring(minute: CohortMinute | None, limits: GuardLimits) -> bool:
    return (
        minute is not None
        and minute.events >= limits.least_events
        and minute.errors > limits.error_rate * minute.events
    )


def _dropping(minutes: Sequence[CohortMinute], limits: GuardLimits) -> bool:
    accounts = max((minute.accounts for minute in minutes), default=0)
    allowed = limits.disconnects_per_hour * accounts * limits.disconnect_minutes / 60
    return accounts > 0 and sum(minute.disconnects for minute in minutes) > allowed
