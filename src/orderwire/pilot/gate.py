"""Decides who is on real-time updates, now: the operators' switches, the users' choices and the flag together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from threading import Lock
from typing import Final

import structlog
from msgspec import Struct

from orderwire.core import rollout as rules
from orderwire.core.evidence import COHORTS, Cohort, Summary, minute_of, summary
from orderwire.core.orders import AccountId
from orderwire.core.rollout import Choice, Decision, GuardAction, Reason, Rollout
from orderwire.errors import FeedsBusyError, InvalidRequestError
from orderwire.pilot.flags import Flag, drawn_by
from orderwire.store.accounts import Account
from orderwire.store.pilot import PilotRecords, RolloutChange

_log = structlog.get_logger(__name__)

GUARD = "guard"
"""Who the history names when the guard acted by itself."""


class _Told(Struct, frozen=True, kw_only=True):
    """What an account was told last."""

    owner: str
    broker: str
    decision: Decision


class RolloutGate:
    """Who is in, and why. Any thread.

    What is in force is held in memory and read again by `reload`; a step taken here counts at once, one taken by
    another process once `reload` has seen it. `on_change` is told after every difference, on the thread that made it,
    and where it raises, again at the next `reload`.
    """

    def __init__(self, records: PilotRecords, flag: Flag, *, master: bool, brokers: Iterable[str]) -> None:
        """`master` is `USE_EVENT_DRIVEN_ORDERS` as it was when the process started."""
        self.records = records
        self.master = master
        self.on_change: Callable[[], None] = _nobody
        self._brokers = tuple(brokers)
        self._flag = flag
        self._lock = Lock()  # guards what follows: it is replaced together
        self._version = (-1, -1)
        self._rollout = Rollout(stage=0)
        self._choices: Mapping[str, Choice] = {}
        self._heard = False
        self._counts: Counter[Reason] = Counter()
        self._told: dict[AccountId, _Told] = {}
        self.reload()
        flag.on_change(self._hear)

    # --- asking ---------------------------------------------------------------------------------------

    @property
    def rollout(self) -> Rollout:
        """What the operators decided last, as far as this process knows."""
        return self._rollout

    def choice(self, owner: str) -> Choice:
        """Return what a user chose last."""
        return self._choices.get(owner, Choice.NONE)

    def decide(self, owner: str, broker: str) -> Decision:
        """Say whether this user's accounts at this broker get real-time updates, and why."""
        return rules.decide(
            master=self.master,
            rollout=self._rollout,
            broker=broker,
            choice=self.choice(owner),
            draw=self._flag.draw(owner, broker),
        )

    def preview(self, stage: int, users: Iterable[tuple[str, str]]) -> list[Decision]:
        """Say what each (owner, broker) would be told at another stage, all else as it is, by our own draw."""
        drawn = drawn_by(rules.at_stage(self._rollout, stage))
        return [
            rules.decide(
                master=self.master,
                rollout=self._rollout,
                broker=broker,
                choice=self.choice(owner),
                draw=drawn(owner),
            )
            for owner, broker in users
        ]

    def admit(self, account: AccountId, *, owner: str, broker: str) -> Decision:
        """Decide for an account and remember it: a change is counted and logged, the first time in is enrolled."""
        decision = self.decide(owner, broker)
        told = _Told(owner=owner, broker=broker, decision=decision)
        if (
            decision.enabled and self._told.get(account) != told
        ):  # first: where that fails, it is new once more
            self.records.enrol(account, broker=broker, owner=owner, reason=decision.reason)
        with self._lock:
            changed = self._told.get(account) != told
            self._told[account] = told
            self._counts[decision.reason] += changed
        if changed:
            _log.info("real-time decided", account=account, enabled=decision.enabled, reason=decision.reason)
        return decision

    def told(self, account: AccountId) -> Decision | None:
        """Return the decision in force for an account, None before the first."""
        known = self._told.get(account)
        return known.decision if known else None

    def place_of(self, account: AccountId) -> tuple[str, Cohort] | None:
        """Return the broker and the cohort of an account, None before its first decision."""
        known = self._told.get(account)
        return (known.broker, "realtime" if known.decision.enabled else "manual") if known else None

    def standing(self, accounts: Iterable[Account]) -> list[Decision]:
        """Say of each of these accounts what it was told; of one that was told nothing here, what it would be."""
        return [self._standing(account) for account in accounts]

    def _standing(self, account: Account) -> Decision:
        known = self._told.get(account.id)
        if known is not None and (known.owner, known.broker) == (account.owner, account.broker):
            return known.decision
        return self.decide(account.owner, account.broker)

    def reasons(self, accounts: Iterable[AccountId]) -> Mapping[Reason, int]:
        """Return how many of these accounts were told each reason."""
        known = (self._told.get(account) for account in accounts)
        return Counter(told.decision.reason for told in known if told is not None)

    def forget(self, account: AccountId) -> None:
        """Forget what an account was told: it was removed, or is another process's now."""
        with self._lock:
            self._told.pop(account, None)

    def keep_only(self, accounts: Iterable[AccountId]) -> None:
        """Forget every other account."""
        kept = set(accounts)
        with self._lock:
            for account in [known for known in self._told if known not in kept]:
                del self._told[account]

    def counts(self) -> Mapping[Reason, int]:
        """Return how often each reason was given to an account, since the start."""
        with self._lock:
            return dict(self._counts)

    # --- changing -------------------------------------------------------------------------------------

    def set_stage(self, stage: int, *, who: str, why: str) -> RolloutChange | None:
        """Let `stage` percent in. Raises InvalidRequestError for a share that is no stage."""
        return self._step(lambda r: rules.at_stage(r, stage), what=f"stage {stage} %", who=who, why=why)

    def kill(self, *, who: str, why: str) -> RolloutChange | None:
        """Stop real-time updates for everybody, now."""
        return self._step(rules.killed, what="stopped", who=who, why=why)

    def resume(self, *, who: str, why: str) -> RolloutChange | None:
        """End a stop; the stage is as before."""
        return self._step(rules.resumed, what="resumed", who=who, why=why)

    def switch_broker(self, broker: str, *, on: bool, who: str, why: str) -> RolloutChange | None:
        """Switch one broker on or off. Raises InvalidRequestError for one that is not installed."""
        return self._step(
            lambda r: rules.with_broker(r, broker, on=on, known=self._brokers),
            what=f"{broker} {'on' if on else 'off'}",
            who=who,
            why=why,
        )

    def choose(self, owner: str, choice: Choice, *, by: str) -> None:
        """Take a user's own choice."""
        self.records.choose(owner, choice, by=by)
        self.reload()

    def guard(self, action: GuardAction, broken: Sequence[str]) -> RolloutChange | None:
        """Let the guard act on what is broken: step down or stop, never up; None when there is nothing to do."""
        if rules.guard(self._rollout, action, broken) == self._rollout:
            return None
        what = "stopped by the guard" if action is GuardAction.KILL else "stepped down by the guard"
        why = "; ".join(broken)
        try:
            return self._step(lambda r: rules.guard(r, action, broken), what=what, who=GUARD, why=why)
        except FeedsBusyError:  # they follow; that it was done has to be told all the same
            return next(iter(self.records.history(most=1)), None)

    def reload(self) -> bool:
        """Read what is in force; True when it differs from before. Blocks for a read. Raises what `on_change` raises."""
        with self._lock:
            version, heard = self.records.version(), self._heard
            if version == self._version and not heard:
                return False
            self._rollout = self.records.rollout()
            self._choices = self.records.choices()
            self._flag.keep(self._rollout)
            self._version, self._heard = version, False
        try:
            self.on_change()
        except Exception:
            self._heard = True
            raise
        return True

    def close(self) -> None:
        """Let the flag's provider go."""
        self._flag.close()

    def _step(
        self, step: Callable[[Rollout], Rollout], *, what: str, who: str, why: str
    ) -> RolloutChange | None:
        if not why.strip():
            raise InvalidRequestError({"why": "Say why, in a few words; the history keeps it."})
        change = self.records.change(step, what=what, who=who, why=why)
        if change is not None:
            _log.warning("rollout changed", what=what, who=who, why=why, now=change.after.described())
        self.reload()
        return change

    def _hear(self) -> None:
        self._heard = True


class RolloutReport(Struct, frozen=True, kw_only=True):
    """What stands beside the decision: what is in force, who is in, what each cohort saw since the last one."""

    rollout: Rollout
    master: bool
    cohorts: Mapping[Cohort, int]
    reasons: Mapping[Reason, int]
    """Accounts now, by reason."""
    since: datetime | None
    """The last decision; None when there was none."""
    seen: Mapping[Cohort, Summary]


MOST_MINUTES: Final = 24 * 60
"""How far back the numbers beside the button reach at most."""


def rollout_report(gate: RolloutGate, accounts: Iterable[Account], *, now_ns: int) -> RolloutReport:
    """Put together what an operator needs to see before the next step; `accounts` are all there are."""
    decisions = gate.standing(accounts)
    enabled = sum(decision.enabled for decision in decisions)
    history = gate.records.history(most=1)
    minute = now_ns // 60_000_000_000
    since = max(minute - MOST_MINUTES, minute_of(history[0].at) if history else 0)
    tallies = gate.records.minutes(since, minute + 1)
    seen: dict[Cohort, Summary] = {
        cohort: summary(t for t in tallies if t.cohort == cohort) for cohort in COHORTS
    }
    return RolloutReport(
        rollout=gate.rollout,
        master=gate.master,
        cohorts={"realtime": enabled, "manual": len(decisions) - enabled},
        reasons=Counter(decision.reason for decision in decisions),
        since=history[0].at if history else None,
        seen=seen,
    )


def _nobody() -> None:
    """Tell nobody: until the service listens."""
