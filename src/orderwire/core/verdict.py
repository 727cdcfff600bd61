"""The go/no-go rule: what a scorecard of the pilot means, criterion by criterion, and why.

The words of the requirement are numbers here (`CRITERIA`); docs/evaluation/criteria.md says the same, a test compares.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from msgspec import Struct


class Verdict(StrEnum):
    """What to do with the pilot; the later one outweighs those before it."""

    EXPAND = "EXPAND"
    REFINE = "REFINE"
    NOT_ENOUGH_DATA = "NOT ENOUGH DATA"
    """It outweighs REFINE, because what is not known may be worse; it never hides a ROLLBACK that is known."""
    ROLLBACK = "ROLLBACK"


class Measured(Struct, frozen=True, kw_only=True):
    """A figure with its 95 % interval and what it rests on."""

    value: float
    low: float
    high: float
    count: int
    """Observations: paints, account-minutes, events, answers."""


class Answer(Struct, frozen=True, kw_only=True):
    """A soft criterion: what somebody said, and who."""

    value: str
    author: str


class Criteria(Struct, frozen=True, kw_only=True):
    """What the words mean. A change is a new version, and reports name the one they used."""

    version: str = "2"
    latency_good: float = 0.5
    """Seconds, placed to painted, p95 of the pilot: below, the target is met."""
    latency_bad: float = 1.0
    """Above, there is no improvement."""
    consistent_days: float = 0.95
    """*Consistently*: the share of full days whose own p95 is below `latency_good`."""
    full_day: int = 20
    """Orders painted on a day for it to be a full one: of fewer, the 95th percentile is the slowest one."""
    uptime_good: float = 0.999
    uptime_bad: float = 0.99
    """*Frequent disconnections*: below this share of account-minutes; *occasional*: between the two."""
    errors_good: float = 0.001
    errors_bad: float = 0.01
    satisfaction_good: float = 0.15
    """Relative to the baseline wave; the target is +20 %, *modest* about +10 %: whichever is nearer."""
    satisfaction_bad: float = 0.05
    """Below: unchanged or worse."""
    calls_target: float = -0.5
    satisfaction_target: float = 0.2
    adoption_target: float = 0.5
    least_days: int = 20
    """Trading days with data that a verdict rests on (one month)."""
    least_full_days: int = 10
    """Full days that *consistently* rests on."""
    least_paints: int = 1000
    least_minutes: int = 10_000
    """Account-minutes in market hours."""
    least_events: int = 10_000
    least_answers: int = 30
    """In each wave of the survey."""


CRITERIA: Final = Criteria()


class Scorecard(Struct, frozen=True, kw_only=True):
    """Everything the verdict rests on; None where nothing was collected."""

    days: int
    """Trading days with data of the real-time cohort."""
    latency: Measured | None = None
    """Seconds, placed to painted, p95."""
    full_days: int = 0
    """Those of them with enough paints to have a p95 of their own."""
    good_days: float = 0.0
    """Share of the full days whose own p95 was below the target."""
    uptime: Measured | None = None
    """Share of account-minutes in market hours with a live stream and no crowded queue."""
    baseline_uptime: Measured | None = None
    """Share of the REST cohort's account-minutes in which the book could be read."""
    readable: Measured | None = None
    """The same share of the real-time cohort: *not degraded* compares the two."""
    errors: Measured | None = None
    """Errors per event."""
    satisfaction: Measured | None = None
    """Follow-up against baseline wave, relative; `count` is the smaller wave's answers."""
    calls: Measured | None = None
    """Order-status reads, relative to polling once a second while orders are open."""
    adoption: Measured | None = None
    critical_bugs: int = 0
    """Incidents of severity critical in the last month."""
    major_bugs: int = 0
    team_comfortable: Answer | None = None
    """`yes` or `no`."""
    maintenance: Answer | None = None
    """`low`, `medium` or `high`."""


class Finding(Struct, frozen=True, kw_only=True):
    """What one criterion says."""

    criterion: str
    verdict: Verdict
    reason: str
    decides: bool = True
    """False: a secondary measure, shown beside the verdict and part of no rule."""


class Judgement(Struct, frozen=True, kw_only=True):
    """The verdict, with the finding of each criterion."""

    verdict: Verdict
    findings: tuple[Finding, ...]
    criteria: Criteria

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the verdict is no better: what the deciding criteria said that is as bad."""
        return tuple(f.reason for f in self.findings if f.decides and f.verdict is self.verdict)


_ORDER: Final = tuple(Verdict)


def judge(card: Scorecard, criteria: Criteria = CRITERIA) -> Judgement:
    """Judge the pilot: every criterion speaks, the worst verdict of a deciding one wins.

    EXPAND has to be proven: where the interval of a figure reaches beyond its limit, the criterion says REFINE.
    ROLLBACK follows the figure itself.
    """
    findings = tuple(rule(card, criteria) for rule in _RULES)
    worst = max((f.verdict for f in findings if f.decides), key=_ORDER.index)
    return Judgement(verdict=worst, findings=findings, criteria=criteria)


def _unknown(criterion: str, why: str) -> Finding:
    return Finding(criterion=criterion, verdict=Verdict.NOT_ENOUGH_DATA, reason=why)


def _graded(criterion: str, *, bad: bool, good: bool, words: str, unsure: bool = False) -> Finding:
    if bad:
        return Finding(criterion=criterion, verdict=Verdict.ROLLBACK, reason=words)
    if good and not unsure:
        return Finding(criterion=criterion, verdict=Verdict.EXPAND, reason=words)
    doubt = "; within its interval the target is not certain" if good else ""
    return Finding(criterion=criterion, verdict=Verdict.REFINE, reason=words + doubt)


def _duration(card: Scorecard, criteria: Criteria) -> Finding:
    if card.days < criteria.least_days:
        return _unknown("duration", f"{_days(card.days)} with data; a verdict needs {criteria.least_days}")
    return Finding(criterion="duration", verdict=Verdict.EXPAND, reason=f"{_days(card.days)} with data")


def _days(count: int) -> str:
    return f"{count} trading day{'' if count == 1 else 's'}"


def _latency(card: Scorecard, criteria: Criteria) -> Finding:
    name, told = "latency", card.latency
    if told is None or told.count < criteria.least_paints:
        seen = told.count if told else 0
        return _unknown(name, f"{seen:,} orders painted; a verdict needs {criteria.least_paints:,}")
    words = f"placed to painted p95 {told.value * 1000:.0f} ms ({told.low * 1000:.0f}-{told.high * 1000:.0f})"
    if told.value < criteria.latency_good:
        if card.full_days < criteria.least_full_days:
            full = f"{_days(card.full_days)} with {criteria.full_day} orders painted or more"
            return _unknown(name, f"{words}, but {full}; a verdict needs {criteria.least_full_days}")
        if card.good_days < criteria.consistent_days:
            limit = f"{criteria.latency_good * 1000:.0f} ms"
            steady = f"{words}, but only {card.good_days:.0%} of the days below {limit}"
            return Finding(criterion=name, verdict=Verdict.REFINE, reason=steady)
    return _graded(
        name,
        bad=told.value > criteria.latency_bad,
        good=told.value < criteria.latency_good,
        unsure=told.high >= criteria.latency_good,
        words=words,
    )


def _stability(card: Scorecard, criteria: Criteria) -> Finding:
    name, told = "stability", card.uptime
    if told is None or told.count < criteria.least_minutes:
        seen = told.count if told else 0
        return _unknown(name, f"{seen:,} account-minutes; a verdict needs {criteria.least_minutes:,}")
    words = f"streams live {told.value:.3%} of account-minutes in market hours"
    ours, theirs = card.readable, card.baseline_uptime
    degraded = ours is not None and theirs is not None and ours.high < theirs.low
    if ours and theirs and degraded:
        words += f"; books readable {ours.value:.3%}, on refresh {theirs.value:.3%}"
    return _graded(
        name,
        bad=told.value < criteria.uptime_bad,
        good=told.value > criteria.uptime_good and not degraded,
        unsure=told.low <= criteria.uptime_good,
        words=words,
    )


def _errors(card: Scorecard, criteria: Criteria) -> Finding:
    name, told = "errors", card.errors
    if told is None or told.count < criteria.least_events:
        seen = told.count if told else 0
        return _unknown(name, f"{seen:,} events; a verdict needs {criteria.least_events:,}")
    return _graded(
        name,
        bad=told.value > criteria.errors_bad,
        good=told.value < criteria.errors_good,
        unsure=told.high >= criteria.errors_good,
        words=f"{told.value:.3%} of events were errors",
    )


def _satisfaction(card: Scorecard, criteria: Criteria) -> Finding:
    name, told = "satisfaction", card.satisfaction
    if told is None or told.count < criteria.least_answers:
        seen = told.count if told else 0
        return _unknown(name, f"{seen} answers in the smaller wave; a verdict needs {criteria.least_answers}")
    return _graded(
        name,
        bad=told.value < criteria.satisfaction_bad,
        good=told.value >= criteria.satisfaction_good,
        unsure=told.low <= 0,
        words=f"satisfaction {told.value:+.0%} against the baseline ({told.low:+.0%} to {told.high:+.0%})",
    )


def _bugs(card: Scorecard, _criteria: Criteria) -> Finding:
    words = f"{card.critical_bugs} critical and {card.major_bugs} major incidents in the last month"
    return _graded("bugs", bad=card.critical_bugs > 0, good=card.major_bugs == 0, words=words)


def _team(card: Scorecard, _criteria: Criteria) -> Finding:
    told = card.team_comfortable
    if told is None:
        return _unknown("team", "nobody answered whether the team is comfortable with event-driven patterns")
    words = f"team comfortable: {told.value} (says {told.author})"
    return _graded("team", bad=False, good=told.value == "yes", words=words)


def _maintenance(card: Scorecard, _criteria: Criteria) -> Finding:
    told = card.maintenance
    if told is None:
        return _unknown("maintenance", "nobody answered how high the maintenance burden is")
    words = f"maintenance burden: {told.value} (says {told.author})"
    return _graded("maintenance", bad=told.value == "high", good=told.value == "low", words=words)


def _secondary(criterion: str, told: Measured | None, *, met: Callable[[float], bool], words: str) -> Finding:
    if told is None:
        return Finding(
            criterion=criterion,
            verdict=Verdict.NOT_ENOUGH_DATA,
            reason=f"{criterion}: no data",
            decides=False,
        )
    verdict = Verdict.EXPAND if met(told.value) else Verdict.REFINE
    return Finding(criterion=criterion, verdict=verdict, reason=words.format(value=told.value), decides=False)


def _calls(card: Scorecard, criteria: Criteria) -> Finding:
    return _secondary(
        "API calls",
        card.calls,
        met=lambda value: value <= criteria.calls_target,
        words="order-status calls {value:+.0%} against polling once a second",
    )


def _adoption(card: Scorecard, criteria: Criteria) -> Finding:
    return _secondary(
        "adoption",
        card.adoption,
        met=lambda value: value > criteria.adoption_target,
        words="{value:.0%} of the users on real-time updates",
    )


_RULES: Final[tuple[Callable[[Scorecard, Criteria], Finding], ...]] = (
    _duration,
    _latency,
    _stability,
    _errors,
    _satisfaction,
    _bugs,
    _team,
    _maintenance,
    _calls,
    _adoption,
)
