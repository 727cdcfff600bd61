"""Looks at the pilot once a minute and, when it hurts for too long, steps it down or stops it. Never up."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from orderwire.clock import Clock
from orderwire.core.alerts import Notice
from orderwire.core.events import Event, EventType
from orderwire.core.evidence import minute_of
from orderwire.core.rollout import GuardAction, GuardLimits, breaches
from orderwire.engine import EventEngine
from orderwire.errors import StoreError
from orderwire.pilot.evidence import LANE, cohort_minutes
from orderwire.pilot.gate import GUARD, RolloutGate

_log = structlog.get_logger(__name__)


class Guard:
    """The guard of the rollout; on the pilot's lane, where waiting for the database delays nobody."""

    def __init__(
        self,
        gate: RolloutGate,
        *,
        action: GuardAction,
        limits: GuardLimits,
        clock: Clock,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """With `GuardAction.OFF` it looks at nothing. `leads`: whether it is this process of several that guards."""
        self._leads = leads
        self._gate = gate
        self._action = action
        self._limits = limits
        self._clock = clock
        self._looked = minute_of(clock.now())
        self._started = self._looked

    def attach(self, engine: EventEngine) -> None:
        """Register behind the evidence, whose lane it shares."""
        if self._action is not GuardAction.OFF:
            engine.register(EventType.TIMER, self.on_timer, lane=LANE)

    def on_timer(self, _event: Event) -> list[Event]:
        """Look, when a minute is over; the alert of what was done is the answer."""
        minute = minute_of(self._clock.now())
        if minute == self._looked:
            return []
        self._looked = minute
        if not self._leads():
            return []
        try:
            return self._look(minute)
        except StoreError as error:  # the next minute looks again
            _log.warning("guard could not look", error=str(error))
            return []

    def _look(self, minute: int) -> list[Event]:
        back = max(self._limits.minutes, self._limits.disconnect_minutes)
        known = self._gate.records.minutes(max(minute - back, self._since()), minute)
        change = self._gate.guard(self._action, breaches(cohort_minutes(known), self._limits, now=minute))
        if change is None:
            return []
        text = f"The rollout was {change.what} ({change.after.described()}): {change.why}."
        return [Event(EventType.ALERT, Notice(kind="rollout guard", text=text))]

    def _since(self) -> int:
        """Minutes before the last change of the rollout are not held against what is in force now.

        Nor is the one in which somebody changed it; the guard itself acts when a minute begins.
        """
        for change in self._gate.records.history(most=1):
            return max(self._started, minute_of(change.at) + (change.who != GUARD))
        return self._started
