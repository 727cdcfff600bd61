"""Shows a report: as a page that needs nothing else, as Markdown, as JSON, and printed by Chromium as PDF."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from orderwire.core.survey import QUESTIONS
from orderwire.core.verdict import Measured, Verdict
from orderwire.errors import ConfigurationError, OrderwireError
from orderwire.pilot import plots
from orderwire.pilot.report import CLAIMED_SECONDS, Cut, Report

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PRINTING: Final = 120.0
"""Seconds a print may take."""

TONES: Final[Mapping[Verdict, str]] = {
    Verdict.EXPAND: "good",
    Verdict.REFINE: "warn",
    Verdict.NOT_ENOUGH_DATA: "calm",
    Verdict.ROLLBACK: "bad",
}

_HEADLINES: Final[Mapping[Verdict, str]] = {
    Verdict.EXPAND: "Every deciding criterion is met, and proven.",
    Verdict.REFINE: "It works, and not everything is as good as it has to be.",
    Verdict.NOT_ENOUGH_DATA: "Something that decides is not known yet.",
    Verdict.ROLLBACK: "At least one criterion says that it does harm.",
}


def _ms(seconds: float | None) -> str:
    return "no data" if not seconds else f"{seconds * 1000:,.0f} ms"


def _latency(told: Measured | None) -> str:
    if told is None:
        return "no data"
    if told.low == told.high == told.value:
        return _ms(told.value)
    return f"{told.value * 1000:,.0f} ms ({told.low * 1000:,.0f} to {told.high * 1000:,.0f})"


def _share(told: Measured | None, digits: int = 2) -> str:
    if told is None:
        return "no data"
    return f"{told.value:.{digits}%} ({told.low:.{digits}%} to {told.high:.{digits}%})"


def _change(told: Measured | None) -> str:
    if told is None:
        return "no data"
    if told.low == told.high:
        return f"{told.value:+.0%}"
    return f"{told.value:+.0%} ({told.low:+.0%} to {told.high:+.0%})"


ROWS: Final[tuple[tuple[str, Callable[[Cut], str]], ...]] = (
    ("Days with data", lambda c: f"{c.days}"),
    ("Accounts, most at once", lambda c: f"{c.accounts}"),
    ("Orders painted", lambda c: f"{sum(c.waits.values()):,}"),
    ("Placed to painted, median", lambda c: _ms(c.latency_p50)),
    ("Placed to painted, p95", lambda c: _latency(c.latency)),
    ("Updates painted within 100 ms", lambda c: f"{c.fast:.1%} of {c.updates:,}" if c.updates else "no data"),
    ("Stream live", lambda c: _share(c.uptime) if "real-time" in c.name else "no stream"),
    ("Book readable", lambda c: _share(c.readable)),
    ("Errors of events", lambda c: f"{_share(c.errors, 3)}" if c.events else "no data"),
    ("Disconnections per account and hour", lambda c: f"{c.disconnects_per_hour:.3f}"),
    ("Order-status reads per account and hour", lambda c: f"{c.calls_per_hour:,.1f}"),
)
"""What is told of a group: a name, and how it is shown."""


def body(report: Report) -> Markup:
    """Return the report's content, to be put into a page that has `style()`."""
    return Markup(_environment().get_template("report_body.html").render(_context(report)))  # noqa: S704 - escaped


def style() -> str:
    """Return the report's style sheet."""
    return _environment().get_template("report.css").render()


def as_html(report: Report) -> str:
    """Return a page that needs nothing else: no script, no other file."""
    return _environment().get_template("report.html").render(report=report, body=body(report), style=style())


def as_markdown(report: Report) -> str:
    """Return the report as Markdown, without its plots."""
    return _environment().get_template("report.md").render(_context(report))


def as_json(report: Report) -> bytes:
    """Return every value of the report."""
    told = {"verdict": report.verdict, **msgspec.to_builtins(report)}
    return msgspec.json.format(msgspec.json.encode(told), indent=1)


def as_pdf(report: Report) -> bytes:
    """Print the report. Raises ConfigurationError without a Chromium, OrderwireError when it fails."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise ConfigurationError(
            "A PDF is printed by Chromium, and none was found (apt-get install chromium). "
            "--html makes a page that any browser prints."
        )
    with TemporaryDirectory(prefix="orderwire-report-") as folder:
        page, printed = Path(folder, "report.html"), Path(folder, "report.pdf")
        page.write_text(as_html(report), encoding="utf-8")
        _print(browser, page, printed)
        return printed.read_bytes()


FORMATS: Final[Mapping[str, Callable[[Report], bytes]]] = {
    "html": lambda report: as_html(report).encode(),
    "md": lambda report: as_markdown(report).encode(),
    "pdf": as_pdf,
    "json": as_json,
}
"""By the name that commands and addresses call them."""


def _print(browser: str, page: Path, printed: Path) -> None:
    command = [
        browser,
        "--headless",
        "--disable-gpu",
        "--disable-extensions",
        "--no-first-run",
        "--no-pdf-header-footer",
        f"--user-data-dir={page.parent / 'profile'}",
        f"--print-to-pdf={printed}",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),  # it refuses root otherwise; the page is our own
        page.as_uri(),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=PRINTING)  # noqa: S603 - our own words
    except (OSError, subprocess.SubprocessError) as error:
        raise OrderwireError(f"Chromium did not print the report: {error}") from error
    if not printed.exists():
        raise OrderwireError("Chromium printed nothing.")


def _context(report: Report) -> dict[str, object]:
    criteria = report.judgement.criteria
    return {
        "report": report,
        "headline": _HEADLINES[report.verdict],
        "tone": TONES[report.verdict],
        "tones": TONES,
        "rows": ROWS,
        "claimed": CLAIMED_SECONDS,
        "questions": [question for question in QUESTIONS if question.scale],
        "latency_plot": plots.latency_by_day(
            report.days, good=criteria.latency_good, bad=criteria.latency_bad
        ),
        "waits_plot": plots.waits(
            (("on", report.cohorts[0]), ("off", _compared(report))), good=criteria.latency_good
        ),
        "uptime_plot": plots.uptime_by_day(report.days, good=criteria.uptime_good, bad=criteria.uptime_bad),
        "survey_plot": plots.satisfaction(report.waves),
    }


def _compared(report: Report) -> Cut:
    """Return the baseline: those on refresh at the same time, else those before."""
    same_time = report.cohorts[1]
    return same_time if same_time.waits or report.before is None else report.before


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("orderwire.pilot"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(ms=_ms, latency=_latency, share=_share, change=_change, cell=_cell)
    return made


def _cell(text: object) -> str:
    """Keep what somebody wrote inside its cell of a Markdown table."""
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").split())
