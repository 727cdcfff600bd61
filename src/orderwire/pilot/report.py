"""The evaluation report of the pilot as one value: everything the product owner decides by, made from what was collected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from random import Random
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from orderwire.core import scorecard
from orderwire.core.evidence import COHORTS, Cohort, add_counts, minute_of, percentile_of_counts, share_below
from orderwire.core.latency import STAGES
from orderwire.core.orders import IST
from orderwire.core.rollout import Choice
from orderwire.core.scorecard import Day, day_of, roll_up
from orderwire.core.survey import QUESTIONS, WAVES, broker_demand, opened_waves
from orderwire.core.verdict import CRITERIA, Criteria, Finding, Judgement, Measured, Scorecard, Verdict, judge
from orderwire.errors import InvalidRequestError
from orderwire.store.pilot import PilotRecords, RolloutChange
from orderwire.store.survey import Filled, Incident, Severity, Voices

FAST: Final = 0.1
"""Seconds: the share of updates painted sooner is told beside the percentiles."""

CLAIMED_SECONDS: Final = (1.0, 2.0)
"""What the requirement says the baseline is, without a measurement."""

PLAN: Final = (
    "Deployment and stabilisation",
    "Deployment and stabilisation",
    "Gradual rollout",
    "Gradual rollout",
    "Full rollout and data collection",
    "Full rollout and data collection",
    "Evaluation and decision",
)
"""What each week of the plan is for."""

RE_EVALUATE: Final = timedelta(weeks=4)
MOST_DAYS: Final = 400
WEEKEND: Final = 5


class Cut(Struct, frozen=True, kw_only=True):
    """The figures of one group: a cohort, a broker in it, a week, a day. None or 0 where there is no data."""

    name: str
    days: int = 0
    accounts: int = 0
    latency: Measured | None = None
    """Seconds, placed to painted, p95."""
    latency_p50: float = 0.0
    waits: Mapping[int, int] = field(default_factory=dict)
    """Placed to painted: how many of each whole number of milliseconds."""
    uptime: Measured | None = None
    readable: Measured | None = None
    errors: Measured | None = None
    disconnects_per_hour: float = 0.0
    """Per account, in market hours."""
    calls_per_hour: float = 0.0
    events: int = 0
    updates: int = 0
    """Later changes that were painted."""
    fast: float = 0.0
    """Share of these painted within `FAST` of the broker's word."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Mean seconds of each stage."""


class DayLine(Struct, frozen=True, kw_only=True):
    """One day of the calendar; without data when both cohorts have none."""

    day: date
    realtime: Cut | None = None
    manual: Cut | None = None
    gap_minutes: int = 0
    """Minutes within the day, between its first and last one, that were not collected."""
    crowded: int = 0

    @property
    def missing(self) -> bool:
        """A working day of which nothing was collected: a holiday, or a gap."""
        return self.realtime is None and self.manual is None and self.day.weekday() < WEEKEND


class Week(Struct, frozen=True, kw_only=True):
    """One week of the plan."""

    number: int
    since: date
    until: date
    """Its last day."""
    plan: str
    stage: str
    """What was in force at its end."""
    figures: Cut
    incidents: int


class Wave(Struct, frozen=True, kw_only=True):
    """One wave of the survey."""

    name: str
    opened: bool
    """False: nobody was asked yet, so nobody can have been silent."""
    asked: int
    answered: int
    dismissed: int
    anonymous: int
    means: Mapping[str, float]
    """By question with a scale."""
    counts: Mapping[int, int]
    """Answers to the first question by number."""

    @property
    def silent(self) -> int:
        """Who neither answered nor dismissed it."""
        return max(self.asked - self.answered - self.dismissed, 0)

    @property
    def response(self) -> float:
        """Share of those asked who answered."""
        return min(self.answered / self.asked, 1.0) if self.asked else 0.0


class Report(Struct, frozen=True, kw_only=True):
    """Everything the report shows. Days are Indian ones; `since` and `until` are both included."""

    made_at: datetime
    since: date
    until: date
    title: str
    judgement: Judgement
    card: Scorecard
    cohorts: tuple[Cut, ...]
    """Real-time, on refresh: at the same time."""
    brokers: tuple[Cut, ...]
    before: Cut | None
    after: Cut | None
    ratio: float | None
    """How many times sooner the median order is painted than on refresh, measured; None without both."""
    days: tuple[DayLine, ...]
    weeks: tuple[Week, ...]
    incidents: tuple[Incident, ...]
    waves: tuple[Wave, ...]
    wishes: tuple[str, ...]
    feedback: tuple[str, ...]
    demand: tuple[tuple[str, int], ...]
    opted_out: int
    opted_in: int
    decisions: tuple[RolloutChange, ...]
    caveats: tuple[str, ...]
    recommendation: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """What to do."""
        return self.judgement.verdict


def asked_days(
    records: PilotRecords, since: str | None, until: str | None, *, today: date
) -> tuple[date, date]:
    """Read the days a report is asked for (ISO); by default from the first day with data to today.

    Raises InvalidRequestError, by field, for what is no day, ends before it begins, or spans more than 400 days.
    """
    first = records.first_minute()
    begin = _day(since, "from") or (day_of(first) if first is not None else today)
    end = _day(until, "to") or today
    if end < begin:
        raise InvalidRequestError({"to": f"{end} is before {begin}."})
    if (end - begin).days >= MOST_DAYS:
        raise InvalidRequestError({"from": f"A report spans at most {MOST_DAYS} days."})
    return begin, end


def _day(text: str | None, name: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequestError({name: f"{text!r} is no day; write it as 2026-11-28."}) from error


def make_report(
    records: PilotRecords,
    voices: Voices,
    *,
    since: date,
    until: date,
    owners: int,
    criteria: Criteria = CRITERIA,
    title: str = "",
) -> Report:
    """Make the report of the days from `since` to `until`, both included; the same data give the same figures.

    `owners` is how many users there are to be asked. Reads only.
    """
    days = roll_up(records.minutes(minute_of(_starts(since)), minute_of(_starts(until + timedelta(days=1)))))
    chance = Random(0).random  # noqa: S311 - resampling: the same data shall give the same intervals
    end = _starts(until + timedelta(days=1))
    filled, incidents = voices.filled(), voices.incidents()
    card = scorecard.score(
        days, _said(filled, incidents, voices), until=end, chance=chance, criteria=criteria
    )
    judgement = judge(card, criteria)
    on, off = _of(days, "realtime"), _of(days, "manual")
    first_on = min((d.day for d in on), default=None)
    same_time = [d for d in off if first_on is not None and d.day >= first_on]
    earlier = [d for d in off if first_on is None or d.day < first_on]
    changes = records.history(most=1000)
    stages = [(c.at, c.after.stage) for c in reversed(changes) if c.at < end]
    opened = opened_waves(stages, now=min(end, records.now()))
    waves = tuple(_wave(name, filled, voices, owners=owners, opened=name in opened) for name in WAVES)
    choices = Counter(records.choices().values())
    cohorts = (cut("real-time", on, chance), cut("on refresh", same_time, chance))
    mine = tuple(i for i in incidents if i.opened < end and (i.closed is None or i.closed >= _starts(since)))
    baseline = cut("on refresh, before", earlier, chance) if earlier else None
    draft = Report(
        made_at=records.now(),
        since=since,
        until=until,
        title=title,
        judgement=judgement,
        card=card,
        cohorts=cohorts,
        brokers=tuple(
            cut(f"{broker}, {name}", [d for d in given if d.broker == broker], chance)
            for broker in sorted({d.broker for d in days})
            for name, given in (("real-time", on), ("on refresh", off))
            if any(d.broker == broker for d in given)
        ),
        before=baseline,
        after=cut("real-time, after", on, chance) if on else None,
        ratio=_ratio(cohorts[0], cut("all on refresh", off, chance)),
        days=tuple(_line(since + timedelta(days=n), days) for n in range((until - since).days + 1)),
        weeks=tuple(_weeks(since, until, on=on, changes=changes, incidents=mine, chance=chance)),
        incidents=mine,
        waves=waves,
        wishes=tuple(f.answers.words["wish"] for f in filled if "wish" in f.answers.words),
        feedback=tuple(f.words for f in voices.feedback(most=50)),
        demand=tuple(broker_demand(f.answers for f in filled)),
        opted_out=choices[Choice.OUT],
        opted_in=choices[Choice.IN],
        decisions=tuple(c for c in changes if _starts(since) <= c.at < end),
        caveats=(),
        recommendation=(),
    )
    return _with_words(draft)


def _starts(day: date) -> datetime:
    return datetime.combine(day, time(), IST)


def _of(days: Iterable[Day], cohort: Cohort) -> list[Day]:
    return [d for d in days if d.cohort == cohort]


def _said(filled: Sequence[Filled], incidents: Sequence[Incident], voices: Voices) -> scorecard.Voices:
    def numbers(wave: str, cohorts: Iterable[str]) -> tuple[int, ...]:
        given = (f for f in filled if f.wave == wave and f.cohort in cohorts)
        return tuple(f.answers.scales["satisfaction"] for f in given if "satisfaction" in f.answers.scales)

    def opened(severity: Severity) -> tuple[datetime, ...]:
        return tuple(i.opened for i in incidents if i.severity is severity)

    return scorecard.Voices(
        baseline=numbers("baseline", COHORTS),
        follow_up=numbers("follow-up", ("realtime",)),
        critical=opened(Severity.CRITICAL),
        major=opened(Severity.MAJOR),
        recorded=voices.recorded(),
    )


def cut(name: str, days: Sequence[Day], chance: Callable[[], float] | None = None) -> Cut:
    """Put days of one group together; without `chance` the percentile has no interval of its own."""
    by_day: dict[date, Counter[int]] = {}
    changes: dict[int, int] = {}
    stages: dict[str, tuple[int, int]] = {}
    at_once: Counter[date] = Counter()
    for day in days:
        by_day.setdefault(day.day, Counter()).update(day.placed)
        add_counts(changes, day.changes)
        at_once[day.day] += day.accounts
        for stage, (count, total) in day.stages.items():
            before = stages.get(stage, (0, 0))
            stages[stage] = (before[0] + count, before[1] + total)
    waits: Counter[int] = sum(by_day.values(), Counter())
    market = sum(d.market_minutes for d in days)
    hours = market / 60
    return Cut(
        name=name,
        days=len(by_day),
        accounts=max(at_once.values(), default=0),
        latency=scorecard.latency(by_day.values(), chance=chance) if chance else _single(waits),
        latency_p50=percentile_of_counts(waits, 50) / 1000,
        waits=dict(sorted(waits.items())),
        uptime=scorecard.share(sum(d.live_minutes for d in days), market),
        readable=scorecard.share(sum(d.readable_minutes for d in days), market),
        errors=scorecard.rate(sum(d.errors for d in days), sum(d.events for d in days)),
        disconnects_per_hour=sum(d.disconnects for d in days) / hours if hours else 0.0,
        calls_per_hour=sum(d.calls for d in days) / hours if hours else 0.0,
        events=sum(d.events for d in days),
        updates=sum(changes.values()),
        fast=share_below(changes, FAST),
        stages={
            stage: total / count / 1e6
            for stage, (count, total) in sorted(stages.items(), key=_on_the_way)
            if count
        },
    )


def _on_the_way(stage: tuple[str, object]) -> tuple[int, str]:
    """Sort stages as an update passes them, unknown ones behind."""
    name = stage[0]
    return (STAGES.index(name) if name in STAGES else len(STAGES), name)


def _single(waits: Counter[int]) -> Measured | None:
    if not waits:
        return None
    value = percentile_of_counts(waits, 95) / 1000
    return Measured(value=value, low=value, high=value, count=waits.total())


def _plain(name: str, days: Sequence[Day]) -> Cut | None:
    return cut(name, days) if days else None


def _line(day: date, days: Sequence[Day]) -> DayLine:
    given = [d for d in days if d.day == day]
    return DayLine(
        day=day,
        realtime=_plain("real-time", _of(given, "realtime")),
        manual=_plain("on refresh", _of(given, "manual")),
        gap_minutes=max((d.gaps for d in given), default=0),
        crowded=max((d.crowded for d in given), default=0),
    )


def _weeks(
    since: date,
    until: date,
    *,
    on: Sequence[Day],
    changes: Sequence[RolloutChange],
    incidents: Sequence[Incident],
    chance: Callable[[], float],
) -> Iterable[Week]:
    for number in range((until - since).days // 7 + 1):
        begin = since + timedelta(weeks=number)
        last = min(begin + timedelta(days=6), until)
        ends = _starts(last + timedelta(days=1))
        before = next((c.after for c in changes if c.at < ends), None)
        yield Week(
            number=number + 1,
            since=begin,
            until=last,
            plan=PLAN[number] if number < len(PLAN) else "After the plan",
            stage=before.described() if before else "100 %",
            figures=cut(f"week {number + 1}", [d for d in on if begin <= d.day <= last], chance),
            incidents=sum(_starts(begin) <= i.opened < ends for i in incidents),
        )


def _wave(name: str, filled: Sequence[Filled], voices: Voices, *, owners: int, opened: bool) -> Wave:
    outcomes = voices.outcomes(name)
    opened = opened or bool(outcomes)
    given = [f for f in filled if f.wave == name]
    means = {}
    for question in QUESTIONS:
        numbers = [f.answers.scales[question.name] for f in given if question.name in f.answers.scales]
        if numbers:
            means[question.name] = sum(numbers) / len(numbers)
    return Wave(
        name=name,
        opened=opened,
        asked=max(owners, len(outcomes)) if opened else 0,
        answered=len(given),
        dismissed=sum(outcome == "dismissed" for outcome in outcomes.values()),
        anonymous=sum(f.owner is None for f in given),
        means=means,
        counts=dict(sorted(Counter(f.answers.scales.get("satisfaction", 0) for f in given).items())),
    )


def _ratio(on: Cut, off: Cut) -> float | None:
    return off.latency_p50 / on.latency_p50 if on.latency_p50 and off.latency_p50 else None


# --- what to make of it -----------------------------------------------------------------------------------


def _with_words(report: Report) -> Report:
    return replace(
        report,
        title=report.title or "Evaluation of the real-time order updates",
        caveats=tuple(_caveats(report)),
        recommendation=tuple(_recommendation(report)),
    )


def _caveats(report: Report) -> Iterable[str]:
    missing = [line.day for line in report.days if line.missing]
    if missing:
        yield f"{len(missing)} working days have no data (holidays or gaps): {_listed(missing)}."
    gaps = sum(line.gap_minutes for line in report.days)
    on, off = report.cohorts
    if gaps:
        yield f"{gaps:,} minutes within days were not collected; nothing is assumed of them.{_at_worst(report, on)}"
    yield from _misleading(on)
    if not off.waits and not (report.before and report.before.waits):
        yield "No order on refresh was painted, so there is no measured baseline to compare with."
    elif not off.waits:
        yield "Nobody was on refresh at the same time: the comparison is before against after, and other things changed too."
    if report.opted_in:
        yield f"{report.opted_in} users chose real-time updates themselves: that part of the cohort was not drawn."
    if report.opted_out:
        yield f"{report.opted_out} users opted out; their days on refresh count in the other cohort."
    for wave in report.waves:
        if wave.asked and wave.response < 0.5:
            yield (
                f"{wave.name} wave: {wave.response:.0%} answered; {wave.silent} said nothing and {wave.dismissed} "
                "dismissed it. Who is silent may think differently."
            )
    if report.card.uptime:
        yield (
            "Minutes of one outage are not independent: the interval of uptime is too narrow when outages are few "
            "and long."
        )
    yield "Waits are measured by browsers that acknowledge a paint; a closed or hidden page tells nothing."


def _at_worst(report: Report, on: Cut) -> str:
    """Say what the uptime would be if the minutes that are missing had all been outages in market hours."""
    lost = sum(line.gap_minutes * line.realtime.accounts for line in report.days if line.realtime)
    if not lost or on.uptime is None:
        return ""
    live = on.uptime.value * on.uptime.count / (on.uptime.count + lost)
    return f" Had all of them been outages in market hours, streams would have been live {live:.3%}."


def _misleading(on: Cut) -> Iterable[str]:
    total = sum(on.waits.values())
    told = on.latency
    if not total or told is None:
        return
    mean = sum(wait * count for wait, count in on.waits.items()) / total / 1000
    if mean < CRITERIA.latency_good <= told.value:
        yield (
            f"The mean ({mean * 1000:.0f} ms) would have met the target, the 95th percentile "
            f"({told.value * 1000:.0f} ms) does not: the average hides the slow ones."
        )


def _listed(days: Sequence[date]) -> str:
    shown = ", ".join(day.isoformat() for day in days[:6])
    return f"{shown} and {len(days) - 6} more" if len(days) > 6 else shown


def _recommendation(report: Report) -> Iterable[str]:
    """Say what to do next; docs/evaluation has a handover for each verdict."""
    weak = [f for f in report.judgement.findings if f.decides and f.verdict is not Verdict.EXPAND]
    if report.verdict is Verdict.EXPAND:
        yield "Expand: take real-time updates to the next broker and keep what is on."
        if report.demand:
            ranked = ", ".join(f"{name} ({count})" for name, count in report.demand[:5])
            yield f"Brokers by the users' demand: {ranked}."
        yield "Handover: docs/evaluation/handover-expand.md."
    elif report.verdict is Verdict.REFINE:
        yield "Refine, and keep the stage as it is: " + _areas(weak) + "."
        yield f"Evaluate again by {(report.until + RE_EVALUATE).isoformat()}."
        yield "Handover: docs/evaluation/handover-refine.md."
    elif report.verdict is Verdict.ROLLBACK:
        worst = [f for f in weak if f.verdict is Verdict.ROLLBACK]
        yield "Roll back: `orderwire rollout kill`; everybody reads the book on refresh and loses nothing."
        yield "Because of: " + _areas(worst) + "."
        yield "Checklist and alternatives: docs/evaluation/handover-rollback.md."
    else:
        yield "Decide nothing yet: keep the stage and go on collecting."
        yield "When what is missing above is there, make the report again."


def _areas(findings: Iterable[Finding]) -> str:
    return "; ".join(f"{f.criterion} ({f.reason})" for f in findings)
