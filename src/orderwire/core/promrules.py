"""The table of alerts as Prometheus rules: the same measures, limits and durations in PromQL."""

from __future__ import annotations

from collections.abc import Iterable

from orderwire.core.alerts import (
    MARKET_NEAR,
    MARKET_OPEN,
    RULES,
    Hours,
    Increase,
    Level,
    Quantile,
    Rule,
    Share,
)

RUNBOOK = "https://github.com/orderwire/orderwire/blob/main/docs/runbook.md"

_HEAD = """\
# Written by `orderwire alerts rules` from the table in core/alerts.py: change the table, not this file.
# keep_firing_for needs Prometheus 2.42 or newer.
groups:
  - name: orderwire
    interval: {interval}
    rules:
"""


def rules_file(rules: Iterable[Rule] = RULES, *, interval: float = 5, job: str = "orderwire") -> str:
    """Return a Prometheus rule file, YAML, evaluated every `interval` seconds."""
    return _HEAD.format(interval=duration(interval)) + "".join(_entry(rule, job) for rule in rules)


def _entry(rule: Rule, job: str) -> str:
    lines = [f"      - alert: {rule.name}", f"        expr: {condition(rule, job=job)}"]
    if rule.hold:
        lines.append(f"        for: {duration(rule.hold)}")
    if rule.keep:
        lines.append(f"        keep_firing_for: {duration(rule.keep)}")
    hours = "always" if rule.hours is Hours.ALWAYS else "market"
    lines += [
        "        labels:",
        f"          severity: {rule.severity}",
        f"          hours: {hours}",
        "        annotations:",
        f'          summary: "{rule.summary}"',
        f'          value: "{{{{ $value }}}} {rule.unit}"',
        f"          runbook_url: {RUNBOOK}#{rule.name.lower()}",
    ]
    return "\n".join(lines) + "\n"


def condition(rule: Rule, *, job: str = "orderwire") -> str:
    """Return when the rule is true, in PromQL."""
    text = f"{measure(rule, job=job)} {'<' if rule.below else '>'} {rule.limit:g}"
    if rule.hours is Hours.ALWAYS:
        return text
    metric = MARKET_OPEN if rule.hours is Hours.MARKET else MARKET_NEAR
    return f"{text} and on() max({metric}) == 1"


def measure(rule: Rule, *, job: str = "orderwire") -> str:
    """Return what the rule measures, in PromQL."""
    by = f" by ({', '.join(rule.by)})" if rule.by else ""
    match rule.measure:
        case Level(metric="up"):
            return f'up{{job="{job}"}}'
        case Level(metric=metric):
            return f"{'min' if rule.below else 'max'}{by}({metric})"
        case Increase(metric=metric, seconds=seconds):
            return f"sum{by}(increase({metric}[{duration(seconds)}]))"
        case Share(part=part, whole=whole, seconds=seconds):
            window = duration(seconds)
            return f"sum{by}(increase({part}[{window}])) / sum{by}(increase({whole}[{window}]))"
        case Quantile(share=share, metric=metric, seconds=seconds):
            return f"histogram_quantile({share:g}, sum by (le)(rate({metric}_bucket[{duration(seconds)}])))"


def duration(seconds: float) -> str:
    """Return seconds as Prometheus writes them, to the millisecond."""
    whole = round(seconds * 1000)
    return f"{whole // 1000}s" if whole % 1000 == 0 else f"{whole}ms"
