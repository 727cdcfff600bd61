"""The same days, judged by the real Prometheus and by us."""

import json
import re
import subprocess

import pytest

from core.alert_weather import Day
from orderwire.core.alerts import RULES, Hours
from orderwire.core.promrules import RUNBOOK, rules_file

OURS = [rule for rule in RULES if not rule.outside]


def without_values(text):
    """The rules as they are, but for the annotation with the measured number, which promtool compares as text."""
    return re.sub(r"\n +value: .*", "", text)


def promtool(*arguments, cwd):
    return subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def expectation(rule, second, *, raised, labels):
    alerts = [
        {
            "exp_labels": {"severity": str(rule.severity), "hours": hours_of(rule), **labels},
            "exp_annotations": {
                "summary": rule.summary,
                "runbook_url": f"{RUNBOOK}#{rule.name.lower()}",
            },
        }
    ]
    return {"eval_time": f"{second}s", "alertname": rule.name, "exp_alerts": alerts if raised else []}


def hours_of(rule):
    return "always" if rule.hours is Hours.ALWAYS else "market"


def moments(raised):
    """Both sides of every change, and the ends."""
    changes = [second for second in range(1, len(raised)) if raised[second] != raised[second - 1]]
    near = {0, len(raised) - 1, *changes, *(second - 1 for second in changes)}
    return sorted(near)


def story(day):
    raised = day.raised()
    return {
        "interval": "1s",
        "name": f"{day.rule.name} bad={day.bad} market={day.market}",
        "input_series": [
            {"series": series, "values": " ".join(f"{value:g}" for value in values)}
            for series, values in day.series().items()
        ],
        "alert_rule_test": [
            expectation(day.rule, second, raised=raised[second], labels=dict(day.labels))
            for second in moments(raised)
        ],
    }


def judge(folder, stories):
    (folder / "rules.yml").write_text(without_values(rules_file(interval=1)))
    body = {"rule_files": ["rules.yml"], "evaluation_interval": "1s", "tests": stories}
    (folder / "test.yml").write_text(json.dumps(body))
    return promtool("test", "rules", "test.yml", cwd=folder)


@pytest.mark.needs("promtool")
def test_prometheus_takes_the_rules(tmp_path):
    (tmp_path / "rules.yml").write_text(rules_file())

    checked = promtool("check", "rules", "rules.yml", cwd=tmp_path)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(RULES)} rules found" in checked.stdout


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("rule", OURS, ids=lambda rule: rule.name)
def test_prometheus_raises_and_clears_each_alert_in_the_same_second_as_we_do(rule, tmp_path):
    days = [Day(rule, bad=bad, market=market) for bad, market in ((True, True), (False, True), (True, False))]

    judged = judge(tmp_path, [story(day) for day in days])

    assert any(days[0].raised())
    assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.mark.needs("promtool")
def test_a_service_that_is_gone_is_noticed_by_prometheus_alone(tmp_path):
    rule = next(rule for rule in RULES if rule.outside)
    series = 'up{job="orderwire",instance="i"}'
    labels = {"job": "orderwire", "instance": "i"}
    test = {
        "interval": "1s",
        "input_series": [{"series": series, "values": "1x30 0x60 1x10"}],
        "alert_rule_test": [
            expectation(rule, second, raised=raised, labels=labels)
            for second, raised in ((29, False), (60, False), (61, True), (92, False))
        ],
    }

    judged = judge(tmp_path, [test])

    assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.mark.needs("promtool")
def test_the_judge_notices_a_difference_of_one_second(tmp_path):
    day = Day(OURS[1], bad=True)
    told = story(day)
    for wrong in told["alert_rule_test"]:
        second = int(wrong["eval_time"][:-1])
        wrong["eval_time"] = f"{second + 1}s"

    assert judge(tmp_path, [told]).returncode != 0
