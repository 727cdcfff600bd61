from math import inf, isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.alert_weather import BAD_FROM, BAD_UNTIL, Day
from orderwire.core.alerts import (
    MARKET_OPEN,
    RULES,
    Evaluation,
    Hours,
    Increase,
    Level,
    Readings,
    Rule,
    Severity,
    Silence,
    Told,
    Watch,
    evaluate,
    horizon,
    metrics_of,
    quantile,
    tell,
    tuned,
)

OURS = [rule for rule in RULES if not rule.outside]
BACKLOG = next(rule for rule in RULES if rule.name == "QueueBacklog")
DEPTH = "orderwire_queue_depth"


def named(rule):
    return rule.name


def at(second, value, metric=DEPTH, labels=()):
    return Readings(at=float(second), values={metric: {labels: value}}, buckets={})


def run(rule, values):
    """Evaluate a gauge's values, one a second; what was raised and cleared, as (second, name)."""
    watch, raised, cleared = Watch(), [], []
    for second, value in enumerate(values):
        result = evaluate((rule,), watch, at(second, value))
        watch = result.watch
        raised += [second for _ in result.raised]
        cleared += [second for _ in result.cleared]
    return raised, cleared


@pytest.mark.parametrize("rule", OURS, ids=named)
def test_each_rule_is_raised_while_its_condition_holds_and_cleared_after(rule):
    raised = Day(rule, bad=True).raised()

    assert True in raised
    assert raised.index(True) >= BAD_FROM + rule.hold
    assert not raised[-1]
    assert raised[BAD_UNTIL - 1]


@pytest.mark.parametrize("rule", OURS, ids=named)
def test_no_rule_is_raised_at_its_limit(rule):
    assert not any(Day(rule, bad=False).raised())


@pytest.mark.parametrize("rule", OURS, ids=named)
def test_rules_of_the_market_are_quiet_while_it_is_closed(rule):
    raised = any(Day(rule, bad=True, market=False).raised())

    assert raised is (rule.hours is Hours.ALWAYS)


def test_a_condition_must_hold_before_the_alert_is_raised():
    rule = Rule(
        name="R",
        severity=Severity.WARNING,
        measure=Level(DEPTH),
        limit=10,
        unit="",
        hold=3,
        keep=0,
        summary="",
    )

    assert run(rule, [20, 20, 20, 0, 0]) == ([], [])
    assert run(rule, [20, 20, 20, 20, 0]) == ([3], [4])


def test_what_flaps_is_one_alert():
    rule = Rule(
        name="R", severity=Severity.WARNING, measure=Level(DEPTH), limit=10, unit="", keep=3, summary=""
    )

    assert run(rule, [20, 0, 0, 20, 0, 0, 20, 0, 0, 0, 0, 0]) == ([0], [10])


def test_brokers_are_alerts_of_their_own_and_accounts_are_not():
    rule = next(rule for rule in RULES if rule.name == "StreamDisconnected")
    values = {
        MARKET_OPEN: {(): 1.0},
        "orderwire_stream_down_seconds": {
            (("account", "a"), ("broker", "one")): 20.0,
            (("account", "b"), ("broker", "one")): 30.0,
            (("account", "c"), ("broker", "two")): 11.0,
            (("account", "d"), ("broker", "three")): 0.0,
        },
    }

    raised = evaluate((rule,), Watch(), Readings(at=0.0, values=values, buckets={})).raised

    assert [(alert.broker, alert.value) for alert in raised] == [("one", 30.0), ("two", 11.0)]


def test_a_metric_that_is_not_there_raises_nothing():
    assert evaluate(RULES, Watch(), Readings(at=0.0, values={}, buckets={})).raised == ()


def test_only_as_much_is_remembered_as_the_rules_look_back():
    rule = Rule(name="R", severity=Severity.WARNING, measure=Increase("m", 5), limit=0, unit="", summary="")
    watch = Watch()
    for second in range(100):
        watch = evaluate((rule,), watch, at(second, 0.0, "m")).watch

    assert len(watch.recent) == 6
    assert horizon(RULES) == 600


def test_limits_and_pace_are_the_operators():
    rules = {rule.name: rule for rule in tuned(limits={"QueueBacklog": 5}, pace=0.1)}

    assert rules["QueueBacklog"].limit == 5
    assert rules["QueueBacklog"].keep == pytest.approx(3)
    assert rules["ErrorRate"].measure.seconds == pytest.approx(30)
    with pytest.raises(ValueError, match="no alert Nonsense"):
        tuned(limits={"Nonsense": 1})


def test_every_rule_has_a_name_of_its_own_and_metrics_of_ours():
    names = [rule.name for rule in RULES]

    assert len(set(names)) == len(names)
    assert all(name.startswith("orderwire_") for name in metrics_of(OURS))


@given(
    counts=st.lists(st.integers(0, 50), min_size=2, max_size=8),
    share=st.floats(0.01, 1),
)
def test_a_quantile_lies_between_the_bounds_of_its_bucket(counts, share):
    bounds = [float(2**n) for n in range(len(counts) - 1)] + [inf]
    totals = [sum(counts[: n + 1]) for n in range(len(counts))]
    found = quantile(share, tuple(zip(bounds, map(float, totals), strict=True)))

    if not totals[-1]:
        assert isnan(found)
    else:
        assert 0 <= found <= bounds[-2]


# --- who is told ---------------------------------------------------------------------------------------


def alert_of(rule=BACKLOG, value=2000.0):
    return evaluate((tuned([rule], pace=0)[0],), Watch(), at(0, value)).raised[0]


class Office:
    """Tells what an evaluation decided, second by second."""

    def __init__(self, *silences, remind=100.0):
        self.told, self.silences, self.remind, self.messages = Told(), silences, remind, []
        self.standing = ()

    def second(self, at, *standing):
        before = {alert.key for alert in self.standing}
        now = {alert.key for alert in standing}
        evaluation = Evaluation(
            watch=Watch(standings=tuple(_standing(alert) for alert in standing)),
            raised=tuple(alert for alert in standing if alert.key not in before),
            cleared=tuple(alert for alert in self.standing if alert.key not in now),
        )
        self.standing = standing
        self.told, message = tell(
            self.told,
            evaluation,
            at=float(at),
            now_ns=at * 10**9,
            silences=self.silences,
            gather=2.0,
            remind=self.remind,
        )
        if message:
            self.messages.append((at, names(message)))


def _standing(alert):
    from orderwire.core.alerts import Standing

    return Standing(alert=alert, since=0.0, raised=True)


def names(message):
    return [
        [alert.rule for alert in alerts] for alerts in (message.raised, message.reminded, message.cleared)
    ]


FIRST = alert_of()
OTHER = FIRST.__class__(
    **{name: getattr(FIRST, name) for name in FIRST.__struct_fields__} | {"rule": "Other"}
)


def test_what_comes_together_is_told_together():
    office = Office()
    office.second(0, FIRST)
    office.second(1, FIRST, OTHER)
    for second in range(2, 10):
        office.second(second, FIRST, OTHER)

    assert office.messages == [(2, [["QueueBacklog", "Other"], [], []])]


def test_the_end_is_told_once_to_those_who_heard_of_the_beginning():
    office = Office()
    for second in range(5):
        office.second(second, FIRST)
    for second in range(5, 12):
        office.second(second)

    assert office.messages == [(2, [["QueueBacklog"], [], []]), (7, [[], [], ["QueueBacklog"]])]


def test_an_alert_that_came_and_went_while_the_group_gathered_is_still_told():
    office = Office()
    office.second(0, FIRST)
    for second in range(1, 8):
        office.second(second)

    assert office.messages == [(2, [["QueueBacklog"], [], []])]


def test_what_stays_raised_is_recalled():
    office = Office(remind=20.0)
    for second in range(50):
        office.second(second, FIRST)

    assert [at for at, _ in office.messages] == [2, 24, 46]
    assert office.messages[1][1] == [[], ["QueueBacklog"], []]


def test_a_silenced_alert_is_told_when_the_silence_ends():
    office = Office(Silence(rule="QueueBacklog", until_ns=10 * 10**9, by="ops"))
    for second in range(20):
        office.second(second, FIRST)

    assert office.messages == [(12, [["QueueBacklog"], [], []])]


def test_a_silence_of_one_broker_leaves_the_others_alone():
    silence = Silence(rule="StreamDisconnected", broker="one", until_ns=10, by="ops")
    rule = next(rule for rule in RULES if rule.name == "StreamDisconnected")
    values = {
        MARKET_OPEN: {(): 1.0},
        rule.measure.metric: {(("broker", "one"),): 99.0, (("broker", "two"),): 99.0},
    }
    one, two = evaluate((rule,), Watch(), Readings(at=0.0, values=values, buckets={})).raised

    assert silence.covers(one, 5)
    assert not silence.covers(one, 10)
    assert not silence.covers(two, 5)


def test_a_message_says_what_to_look_at_first():
    office = Office()
    office.second(0, FIRST)
    told, message = tell(
        office.told,
        Evaluation(watch=Watch(standings=(_standing(FIRST),)), raised=(), cleared=()),
        at=5.0,
        now_ns=0,
    )

    assert message.severity is Severity.CRITICAL
    assert message.title == "orderwire: QueueBacklog raised"
    assert "2000 events (limit 1000)" in message.body
    assert told.known[0][0] == FIRST
