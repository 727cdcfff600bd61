"""Writes the reference pages that come from the code: `python docs/generate.py`; a test proves them current."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from orderwire.brokers.xts import messages as xts
from orderwire.brokers.zerodha import messages as kite
from orderwire.config import Settings, variable
from orderwire.core.alerts import RULES, Rule
from orderwire.core.lifecycle import ENDINGS, OPENALGO_STATUS, TRANSITIONS
from orderwire.core.orders import OrderStatus, Overlay
from orderwire.core.promrules import duration, measure, rules_file
from orderwire.monitoring.metrics import CATALOGUE

REFERENCE = Path(__file__).resolve().parent / "reference"


def settings_page() -> str:
    """Return the page of all settings, as Markdown."""
    rows = [
        f"| `{variable(name)}` | {_default(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            "Environment variables, or lines of a `.env` file in the working folder. All mistakes are listed at start.",
            "Generated from `config.py` by `docs/generate.py`.",
            "",
            "| variable | default | meaning |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _default(value: object) -> str:
    return "(empty)" if str(value) in {"", "()"} else f"`{value}`"


# --- order states -----------------------------------------------------------------------------------------

_INTRODUCTION = """\
# Order states

What an order can be, which changes surprise nobody, and how the words of each broker are ranked.
Generated from `core/lifecycle.py` and the brokers' `messages.py` by `docs/generate.py`. Why it is done this way:
[The join](../decisions/0004-the-join.md).
"""

_STATES = {
    OrderStatus.PENDING_NEW: "sent; the exchange has not taken it yet",
    OrderStatus.TRIGGER_PENDING: "a stop order that waits for its trigger",
    OrderStatus.OPEN: "at the exchange, nothing filled",
    OrderStatus.PARTIALLY_FILLED: "some of it filled, the rest still live",
    OrderStatus.FILLED: "the broker says complete",
    OrderStatus.CANCELLED: "ended by the user, the exchange or its validity; it may be filled in part",
    OrderStatus.REJECTED: "refused; nothing can come of it",
    OrderStatus.EXPIRED: "ended with the day; it may be filled in part",
    OrderStatus.UNKNOWN: "only a word nobody knows was said of it so far; shown as the broker wrote it",
}

_DIAGRAM = """\
## Expected changes

A change that is not in this picture is counted as *surprising* and asks for nobody's leave: it is shown all the same.
Left out of the picture, not of the table: an order first seen later in its life (we were not listening), and an order
whose unknown word was followed by a known one.
"""

_OVERLAYS = """\
## Overlays

They stand beside the state and end with the order.

| overlay | meaning | set by | cleared by |
|---|---|---|---|
| `pending_modify` | a modification is on its way; the old terms hold | a push or REST | a later row read by REST, the end of the order |
| `pending_cancel` | a cancellation is on its way; fills may still come | a push or REST | a later row read by REST, the end of the order |
| `checking` | a hint came (a postback, or a push that waits for REST) | the store | the next row read by REST |
| `conflict` | two order-book reads agree with each other, not with what we hold, and are older | the store | a row that agrees, or a correction |
"""

_RANKS = """\
## Ranks

Of two statements with the same broker time (whole seconds), neither or both final, and the same filled quantity, the
one with the higher rank counts. An ending counts whatever came after it; of two endings the stronger counts:
{endings}. A word that is in no table has rank -1 and changes no state.
"""

_XTS_FILLS = """\
Case and spaces do not count. `new`, `open` and `replaced` with fills: PARTIALLY_FILLED; without, for a stop order:
TRIGGER_PENDING.
"""


class _Word(Protocol):
    @property
    def status(self) -> OrderStatus | None: ...
    @property
    def phase(self) -> int: ...
    @property
    def overlay(self) -> Overlay: ...


def order_states_page() -> str:
    """Return the page of order states, as Markdown with a Mermaid diagram."""
    endings = " < ".join(ENDINGS)
    parts = [
        _INTRODUCTION,
        _table("state | meaning | OpenAlgo's word", [_state_row(status) for status in OrderStatus]),
        _DIAGRAM,
        _diagram(),
        _table("from | to | because", [_transition_row(*changed) for changed in TRANSITIONS.items()]),
        _OVERLAYS,
        _RANKS.format(endings=endings),
        "### Kite\n",
        _ranks(kite.STATUSES),
        "`OPEN` and `UPDATE` with fills: PARTIALLY_FILLED.\n",
        "### XTS\n",
        _ranks(xts.STATUSES),
        _XTS_FILLS,
    ]
    return "\n".join(parts)


def _table(head: str, rows: list[str]) -> str:
    columns = head.count("|") + 1
    return "\n".join([f"| {head} |", "|---" * columns + "|", *rows, ""])


def _state_row(status: OrderStatus) -> str:
    return f"| {status} | {_STATES[status]} | `{OPENALGO_STATUS[status]}` |"


def _transition_row(change: tuple[OrderStatus | None, OrderStatus], because: str) -> str:
    was, now = change
    return f"| {was or '(not seen)'} | {now} | {because} |"


def _diagram() -> str:
    lines = [
        f"    {was or '[*]'} --> {now}: {because}"
        for (was, now), because in TRANSITIONS.items()
        if because not in {"first seen later", "understood"}
    ]
    ends = [f"    {status} --> [*]" for status in ENDINGS]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, *ends, "```", ""])


def _ranks(words: Mapping[str, _Word]) -> str:
    rows = [
        f"| `{word}` | {means.phase} | {means.status or 'none'} | {means.overlay or ''} |"
        for word, means in words.items()
    ]
    return _table("the broker's word | rank | state | overlay", rows)


# --- metrics and alerts -----------------------------------------------------------------------------------

_METRICS = """\
# Metrics and alerts

What Prometheus reads at `/metrics`: on the port `ORDERWIRE_METRICS_PORT` without a login, on the web port with an
operator's API key (`Authorization: Bearer …`). Names and labels are stable. Durations are seconds; histograms have a
bucket for each power of two from 1 µs to 32 s. Accounts and orders are never labels: their page, `/status.json` and
`orderwire status` tell of them. Generated from `monitoring/metrics.py` and `core/alerts.py` by `docs/generate.py`.
"""

_ALERTS = """\
## Alerts

One table, evaluated by the service itself and written out for Prometheus (`ops/prometheus/orderwire.rules.yml`, or with
limits of your own `orderwire alerts rules`). An alert is raised when its measure has been beyond its limit for *holds*,
and cleared when it has not been for *keeps*. `ORDERWIRE_ALERT_LIMITS=QueueBacklog=2000,SlowProcessing=0.2` sets other
limits. What to do: [the runbook](../runbook.md).
"""


def metrics_page() -> str:
    """Return the page of metrics and alerts, as Markdown."""
    rows = [
        f"| `{m.name}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels)} | {m.help} |"
        for m in CATALOGUE
    ]
    return "\n".join(
        [
            _METRICS,
            _table("metric | kind | labels | meaning", rows),
            "Besides these, `process_*` of the Prometheus client: memory, CPU, open files, start time.\n",
            _ALERTS,
            _table(
                "alert | how grave | measure | limit | holds | keeps | looked at",
                [_alert_row(r) for r in RULES],
            ),
        ]
    )


def _alert_row(rule: Rule) -> str:
    sign = "below" if rule.below else "above"
    where = (
        "by Prometheus alone"
        if rule.outside
        else {
            "always": "always",
            "market": "in market hours",
            "morning": "from 30 min before a market opens",
        }[rule.hours]
    )
    return (
        f"| [{rule.name}](../runbook.md#{rule.name.lower()}) | {rule.severity} | `{measure(rule)}` | "
        f"{sign} {rule.limit:g} {rule.unit} | {duration(rule.hold)} | {duration(rule.keep)} | {where} |"
    )


OPS = REFERENCE.parent.parent / "ops"

PAGES = {
    REFERENCE / "settings.md": settings_page,
    REFERENCE / "order-states.md": order_states_page,
    REFERENCE / "metrics.md": metrics_page,
    OPS / "prometheus" / "orderwire.rules.yml": rules_file,
}


def main() -> None:
    """Write every page."""
    REFERENCE.mkdir(exist_ok=True)
    for path, page in PAGES.items():
        path.write_text(page())


if __name__ == "__main__":
    main()
