"""Alerts: what somebody should look at, when it is raised and cleared, who is told; decided without a clock.

The rules are one table, `RULES`. Here it is evaluated over readings of our own metrics; `core/promrules.py` writes
the same table as Prometheus rules. Both read the same metrics with the same meaning, so they cannot differ.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from math import isnan, nan

from msgspec import Struct
from msgspec.structs import replace

from orderwire.core.orders import AccountId, OrderId

Labels = tuple[tuple[str, str], ...]
"""Names and values, sorted by name."""


class Notice(Struct, frozen=True, kw_only=True):
    """Something that somebody should look at; the data of an `EventType.ALERT`."""

    kind: str
    """A few lower-case words, the same each time (`held`, `dead letter`, `corrected` …): counted by them."""
    text: str
    """One sentence for a person, without secrets."""
    account: AccountId = AccountId("")
    order_id: OrderId = OrderId("")
    broker: str = ""


class Severity(StrEnum):
    """How soon somebody must look: at once, whatever the hour, or at the next opportunity."""

    CRITICAL = "critical"
    WARNING = "warning"


class Hours(StrEnum):
    """When a rule is looked at."""

    ALWAYS = "always"
    MARKET = "market"
    """While a market of ours trades."""
    MORNING = "morning"
    """From half an hour before a market opens until it closes."""


# --- what is measured -------------------------------------------------------------------------------------


class Level(Struct, frozen=True):
    """The value of a gauge now; of several the greatest (the smallest in a rule that asks for `below`)."""

    metric: str


class Increase(Struct, frozen=True):
    """How much a counter grew in the last `seconds`."""

    metric: str
    seconds: float


class Share(Struct, frozen=True):
    """What part of the growth of `whole` the growth of `part` is, in the last `seconds`; nothing without growth."""

    part: str
    whole: str
    seconds: float


class Quantile(Struct, frozen=True):
    """The duration that this share (0 to 1) of those counted in the last `seconds` did not exceed, in seconds."""

    share: float
    metric: str
    seconds: float


Measure = Level | Increase | Share | Quantile


class Rule(Struct, frozen=True, kw_only=True):
    """When an alert is raised: `measure` is above (or below) `limit` for `hold` seconds.

    It is cleared once that has not been so for `keep` seconds: what flaps is one alert.
    """

    name: str
    """Also the heading in docs/runbook.md."""
    severity: Severity
    measure: Measure
    limit: float
    unit: str
    below: bool = False
    hold: float = 0.0
    keep: float = 0.0
    hours: Hours = Hours.ALWAYS
    by: tuple[str, ...] = ()
    """Labels that make alerts of their own, at most the broker: accounts are in the database, not in labels."""
    summary: str
    """One sentence for the person on duty."""
    outside: bool = False
    """Only somebody outside can notice (we are down): a Prometheus rule, not evaluated here."""


MARKET_OPEN = "orderwire_market_open"
MARKET_NEAR = "orderwire_market_near"

RULES: tuple[Rule, ...] = (
    Rule(
        name="ServiceDown",
        severity=Severity.CRITICAL,
        measure=Level("up"),
        limit=1,
        unit="",
        below=True,
        hold=30,
        summary="The service does not answer.",
        outside=True,
    ),
    Rule(
        name="DispatcherStalled",
        severity=Severity.CRITICAL,
        measure=Level("orderwire_engine_tick_age_seconds"),
        limit=5,
        unit="s",
        keep=10,
        summary="The dispatcher has delivered nothing, not even its timer: a handler holds it up.",
    ),
    Rule(
        name="QueueBacklog",
        severity=Severity.CRITICAL,
        measure=Level("orderwire_queue_depth"),
        limit=1000,
        unit="events",
        hold=2,
        keep=30,
        summary="Events wait in the queue faster than they are handled.",
    ),
    Rule(
        name="SlowProcessing",
        severity=Severity.WARNING,
        measure=Quantile(0.95, "orderwire_processing_seconds", 60),
        limit=0.1,
        unit="s",
        hold=10,
        keep=60,
        summary="Updates take long from the broker's bytes to the clients' queue (95th percentile).",
    ),
    Rule(
        name="StreamDisconnected",
        severity=Severity.CRITICAL,
        measure=Level("orderwire_stream_down_seconds"),
        limit=10,
        unit="s",
        keep=15,
        hours=Hours.MARKET,
        by=("broker",),
        summary="An account's live stream has been down while its market is open; its book is polled.",
    ),
    Rule(
        name="ErrorRate",
        severity=Severity.WARNING,
        measure=Share("orderwire_errors_total", "orderwire_events_total", 300),
        limit=0.001,
        unit="of all events",
        keep=60,
        summary="Too many of the events end in an error.",
    ),
    Rule(
        name="StaleAccount",
        severity=Severity.CRITICAL,
        measure=Level("orderwire_stale_accounts"),
        limit=0,
        unit="accounts",
        keep=15,
        hours=Hours.MARKET,
        by=("broker",),
        summary="An account has open orders and its broker does not answer: what its owner sees may be wrong.",
    ),
    Rule(
        name="LoginRequired",
        severity=Severity.WARNING,
        measure=Level("orderwire_login_required_accounts"),
        limit=0,
        unit="accounts",
        keep=5,
        hours=Hours.MORNING,
        by=("broker",),
        summary="An account must log in to its broker again before it sees anything.",
    ),
    Rule(
        name="PostbackMismatch",
        severity=Severity.CRITICAL,
        measure=Increase("orderwire_postbacks_mismatched_total", 600),
        limit=0,
        unit="postbacks",
        by=("broker",),
        summary="A postback with a valid checksum claimed what the broker's book denies: somebody may be forging.",
    ),
    Rule(
        name="DeadLetters",
        severity=Severity.CRITICAL,
        measure=Increase("orderwire_dead_letters_total", 600),
        limit=0,
        unit="letters",
        summary="Something could not be taken in or delivered and was put aside.",
    ),
    Rule(
        name="CommitFailing",
        severity=Severity.CRITICAL,
        measure=Level("orderwire_commit_blocked_seconds"),
        limit=2,
        unit="s",
        keep=10,
        summary="The database takes no writes: changes are held back and nothing new is shown.",
    ),
    Rule(
        name="DiskNearlyFull",
        severity=Severity.CRITICAL,
        measure=Level("orderwire_disk_free_ratio"),
        limit=0.1,
        unit="of the disk",
        below=True,
        keep=60,
        summary="The disk that holds the database is nearly full.",
    ),
    Rule(
        name="ClockOffset",
        severity=Severity.WARNING,
        measure=Level("orderwire_clock_offset_seconds"),
        limit=3,
        unit="s",
        hold=10,
        keep=30,
        by=("broker",),
        summary="Our clock and the broker's disagree: session days and latencies are wrong.",
    ),
    Rule(
        name="FeedWithoutOwner",
        severity=Severity.CRITICAL,
        measure=Level("orderwire_feeds_without_owner"),
        limit=0,
        unit="accounts",
        hold=5,
        keep=10,
        by=("broker",),
        summary="An account has a login and nothing runs its feed.",
    ),
)
"""Every alert there is. A threshold is changed by `ORDERWIRE_ALERT_LIMITS`, durations by `ORDERWIRE_ALERT_PACE`."""


def tuned(
    rules: Iterable[Rule] = RULES, *, limits: Mapping[str, float] | None = None, pace: float = 1.0
) -> tuple[Rule, ...]:
    """Return the rules with other limits, by name, and with every duration multiplied by `pace`.

    Raises ValueError for a limit of a rule that does not exist.
    """
    table, given = tuple(rules), dict(limits or {})
    if unknown := given.keys() - {rule.name for rule in table}:
        raise ValueError(f"there is no alert {', '.join(sorted(unknown))}")
    return tuple(_tuned(rule, given.get(rule.name, rule.limit), pace) for rule in table)


def _tuned(rule: Rule, limit: float, pace: float) -> Rule:
    measure = rule.measure
    if not isinstance(measure, Level):
        measure = replace(measure, seconds=measure.seconds * pace)
    return replace(rule, limit=limit, measure=measure, hold=rule.hold * pace, keep=rule.keep * pace)


# --- what was read ----------------------------------------------------------------------------------------

Buckets = tuple[tuple[float, float], ...]
"""Upper bound in seconds and how many were not above it, rising; the last bound is infinite."""


class Readings(Struct, frozen=True, kw_only=True):
    """Metrics as they stood at `at`, in seconds of a clock that never goes back."""

    at: float
    values: Mapping[str, Mapping[Labels, float]]
    """By metric and labels."""
    buckets: Mapping[str, Mapping[Labels, Buckets]]


def metrics_of(rules: Iterable[Rule]) -> frozenset[str]:
    """Return the names of the metrics that the rules look at."""
    names = {MARKET_OPEN, MARKET_NEAR}
    for rule in rules:
        match rule.measure:
            case Share(part=part, whole=whole):
                names |= {part, whole}
            case measure:
                names.add(measure.metric)
    return frozenset(names)


def horizon(rules: Iterable[Rule]) -> float:
    """Return for how many seconds readings must be kept."""
    return max((getattr(rule.measure, "seconds", 0.0) for rule in rules), default=0.0)


# --- raising and clearing ---------------------------------------------------------------------------------


class Alert(Struct, frozen=True, kw_only=True):
    """One alert that is, or was, raised."""

    rule: str
    severity: Severity
    labels: Labels
    value: float
    """What was measured when it was last true."""
    limit: float
    unit: str
    summary: str

    @property
    def key(self) -> tuple[str, Labels]:
        """What makes it the same alert."""
        return self.rule, self.labels

    @property
    def broker(self) -> str:
        """Whose broker it is about; empty when about none."""
        return dict(self.labels).get("broker", "")

    @property
    def text(self) -> str:
        """What to tell a person."""
        where = f" [{self.broker}]" if self.broker else ""
        return (
            f"{self.rule}{where}: {self.summary} {shown(self.value)} {self.unit} (limit {shown(self.limit)})."
        )


def shown(value: float) -> str:
    """Return a number as a person reads it."""
    return f"{value:.0f}" if value == int(value) else f"{value:.3g}"


class Standing(Struct, frozen=True, kw_only=True):
    """How one alert stands between two evaluations."""

    alert: Alert
    since: float
    """When the condition became true."""
    raised: bool = False
    quiet_since: float | None = None
    """When the condition ceased, while it is kept raised."""


class Watch(Struct, frozen=True, kw_only=True):
    """What evaluation remembers: recent readings, oldest first, and the alerts that are pending or raised."""

    recent: tuple[Readings, ...] = ()
    standings: tuple[Standing, ...] = ()

    @property
    def raised(self) -> tuple[Alert, ...]:
        """The alerts raised now."""
        return tuple(standing.alert for standing in self.standings if standing.raised)


class Evaluation(Struct, frozen=True, kw_only=True):
    """What one look at the readings decided."""

    watch: Watch
    raised: tuple[Alert, ...]
    cleared: tuple[Alert, ...]


def evaluate(rules: Sequence[Rule], watch: Watch, readings: Readings) -> Evaluation:
    """Look at new readings and say which alerts are raised and which are cleared by them. Pure.

    Keep `watch` of the result for the next call. Readings come in the order of their time.
    """
    oldest = readings.at - horizon(rules)
    recent = (*watch.recent[_first_at(watch.recent, oldest) :], readings)
    before = {standing.alert.key: standing for standing in watch.standings}
    true = {alert.key: alert for rule in rules if not rule.outside for alert in _true(rule, recent)}
    timing = {rule.name: rule for rule in rules}
    standings: list[Standing] = []
    raised: list[Alert] = []
    cleared: list[Alert] = []
    for key in (*true, *(key for key in before if key not in true)):
        rule = timing.get(key[0])
        was = before.get(key)
        now = _next(rule, was, true.get(key), readings.at) if rule else None
        if now is not None:
            standings.append(now)
        if now is not None and now.raised and not (was and was.raised):
            raised.append(now.alert)
        if was is not None and was.raised and not (now and now.raised):
            cleared.append(was.alert)
    return Evaluation(
        watch=Watch(recent=recent, standings=tuple(standings)), raised=tuple(raised), cleared=tuple(cleared)
    )


def _next(rule: Rule, was: Standing | None, alert: Alert | None, at: float) -> Standing | None:
    if alert is not None:
        since = was.since if was else at
        raised = (was is not None and was.raised) or at - since >= rule.hold
        return Standing(alert=alert, since=since, raised=raised)
    if was is None or not was.raised:
        return None
    quiet = at if was.quiet_since is None else was.quiet_since
    return replace(was, quiet_since=quiet) if at - quiet < rule.keep else None


def _true(rule: Rule, recent: Sequence[Readings]) -> list[Alert]:
    """Return the rule's alerts whose condition holds now."""
    if not _in_hours(rule.hours, recent[-1]):
        return []
    found = measured(rule, recent)
    return [
        Alert(
            rule=rule.name,
            severity=rule.severity,
            labels=labels,
            value=value,
            limit=rule.limit,
            unit=rule.unit,
            summary=rule.summary,
        )
        for labels, value in sorted(found.items())
        if not isnan(value) and (value < rule.limit if rule.below else value > rule.limit)
    ]


def _in_hours(hours: Hours, now: Readings) -> bool:
    if hours is Hours.ALWAYS:
        return True
    metric = MARKET_OPEN if hours is Hours.MARKET else MARKET_NEAR
    return max(now.values.get(metric, {}).values(), default=0.0) == 1


def measured(rule: Rule, recent: Sequence[Readings]) -> dict[Labels, float]:
    """Return what the rule's measure is now, by the labels the rule keeps apart."""
    now = recent[-1]
    match rule.measure:
        case Level(metric=metric):
            return _extreme(now.values.get(metric, {}), rule)
        case Increase(metric=metric, seconds=seconds):
            return _growth(metric, rule.by, _since(recent, seconds), now)
        case Share(part=part, whole=whole, seconds=seconds):
            then = _since(recent, seconds)
            wholes = _growth(whole, rule.by, then, now)
            parts = _growth(part, rule.by, then, now)
            return {labels: parts.get(labels, 0.0) / grown for labels, grown in wholes.items() if grown > 0}
        case Quantile(share=share, metric=metric, seconds=seconds):
            then = _since(recent, seconds)
            return {(): quantile(share, _counted(metric, then, now))}


def _extreme(values: Mapping[Labels, float], rule: Rule) -> dict[Labels, float]:
    pick = min if rule.below else max
    found: dict[Labels, float] = {}
    for labels, value in values.items():
        key = _kept(labels, rule.by)
        found[key] = pick(found[key], value) if key in found else value
    return found


def _kept(labels: Labels, by: tuple[str, ...]) -> Labels:
    return tuple(label for label in labels if label[0] in by)


def _since(recent: Sequence[Readings], seconds: float) -> Readings:
    return recent[_first_at(recent, recent[-1].at - seconds)]


def _first_at(recent: Sequence[Readings], moment: float) -> int:
    """Return the index of the first reading not before `moment`."""
    return bisect_left(recent, moment, key=lambda readings: readings.at)


def _growth(metric: str, by: tuple[str, ...], then: Readings, now: Readings) -> dict[Labels, float]:
    before = then.values.get(metric, {})
    grown: dict[Labels, float] = {}
    for labels, value in now.values.get(metric, {}).items():
        key = _kept(labels, by)
        grown[key] = grown.get(key, 0.0) + max(value - before.get(labels, 0.0), 0.0)
    return grown


def _counted(metric: str, then: Readings, now: Readings) -> Buckets:
    totals: dict[float, float] = {}
    before = then.buckets.get(metric, {})
    for labels, buckets in now.buckets.get(metric, {}).items():
        was = dict(before.get(labels, ()))
        for bound, count in buckets:
            totals[bound] = totals.get(bound, 0.0) + count - was.get(bound, 0.0)
    return tuple(sorted(totals.items()))


def quantile(share: float, buckets: Buckets) -> float:
    """Return the quantile of cumulative buckets as Prometheus' histogram_quantile does; NaN without any."""
    if len(buckets) < 2 or buckets[-1][1] <= 0:
        return nan
    rank = share * buckets[-1][1]
    index = next(number for number, (_, count) in enumerate(buckets) if count >= rank)
    if index == len(buckets) - 1:
        return buckets[-2][0]
    low, below = buckets[index - 1] if index else (0.0, 0.0)
    high, upto = buckets[index]
    return low + (high - low) * (rank - below) / (upto - below) if upto > below else high


# --- who is told ------------------------------------------------------------------------------------------


class Silence(Struct, frozen=True, kw_only=True):
    """Nobody is told of this rule's alerts (of one broker, or of all) until `until`, in wall-clock nanoseconds."""

    rule: str
    broker: str = ""
    until_ns: int
    by: str
    reason: str = ""

    def covers(self, alert: Alert, now_ns: int) -> bool:
        """Say whether it keeps an alert quiet now."""
        return self.rule == alert.rule and self.broker in {"", alert.broker} and now_ns < self.until_ns


class Told(Struct, frozen=True, kw_only=True):
    """What waits to be told together, and what people were told: grouping, silence and reminders. Pure."""

    due: float | None = None
    """When the group that is gathering is told."""
    raised: tuple[Alert, ...] = ()
    cleared: tuple[Alert, ...] = ()
    known: tuple[tuple[Alert, float], ...] = ()
    """Alerts people know to be raised, and when they were last told."""


class Message(Struct, frozen=True, kw_only=True):
    """One delivery: everything that was raised, is still raised (a reminder), or was cleared since the last."""

    raised: tuple[Alert, ...] = ()
    reminded: tuple[Alert, ...] = ()
    cleared: tuple[Alert, ...] = ()

    @property
    def severity(self) -> Severity:
        """The gravest of what is raised."""
        grave = any(alert.severity is Severity.CRITICAL for alert in (*self.raised, *self.reminded))
        return Severity.CRITICAL if grave else Severity.WARNING

    @property
    def title(self) -> str:
        """One line: what changed."""
        parts = (
            ("raised", self.raised),
            ("still raised", self.reminded),
            ("cleared", self.cleared),
        )
        return "orderwire: " + ", ".join(
            f"{' '.join(_names(alerts))} {word}" for word, alerts in parts if alerts
        )

    @property
    def body(self) -> str:
        """A line for each alert."""
        lines = [alert.text for alert in (*self.raised, *self.reminded)]
        lines += [f"{alert.text} It is over." for alert in self.cleared]
        return "\n".join(lines)


def _names(alerts: Iterable[Alert]) -> list[str]:
    return list(dict.fromkeys(alert.rule for alert in alerts))


def tell(
    told: Told,
    evaluation: Evaluation,
    *,
    at: float,
    now_ns: int,
    silences: Sequence[Silence] = (),
    gather: float = 2.0,
    remind: float = 14_400.0,
) -> tuple[Told, Message | None]:
    """Decide whether a message leaves now: changes gather for `gather` seconds, reminders come every `remind`.

    A silenced alert is told when its silence ends, if it is still raised; of a cleared one only those hear who
    heard of it. Pure.
    """

    def quiet(alert: Alert) -> bool:
        return any(silence.covers(alert, now_ns) for silence in silences)

    known = dict(told.known)
    heard = {alert.key: when for alert, when in known.items()}
    standing = [alert for alert in evaluation.watch.raised if not quiet(alert)]
    raised = {alert.key: alert for alert in (*told.raised, *standing) if alert.key not in heard}
    raised = {key: alert for key, alert in raised.items() if not quiet(alert)}
    cleared = (*told.cleared, *(alert for alert in evaluation.cleared if alert.key in heard))
    reminded = tuple(alert for alert in standing if at - heard.get(alert.key, at) >= remind)
    changed = bool(raised or cleared or reminded)
    due = told.due if told.due is not None else (at + gather if changed else None)
    if due is None or at < due:
        return replace(told, due=due, raised=tuple(raised.values()), cleared=cleared), None
    gone = {alert.key for alert in cleared}
    again = {alert.key for alert in reminded}
    kept = [
        (alert, at if alert.key in again else when) for alert, when in told.known if alert.key not in gone
    ]
    still = {alert.key for alert in evaluation.watch.raised}
    kept += [(alert, at) for key, alert in raised.items() if key in still]
    message = Message(raised=tuple(raised.values()), reminded=reminded, cleared=cleared)
    return Told(known=tuple(kept)), message if changed else None
