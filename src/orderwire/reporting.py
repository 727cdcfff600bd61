"""The commands of the evaluation: `orderwire report`, `pilot …`, `survey …`, `incidents …`."""

from __future__ import annotations

import csv
import io
import random
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from orderwire.console import DataDir, err, operate, out, print_table, read_settings
from orderwire.core.survey import QUESTIONS
from orderwire.decoding import convert
from orderwire.errors import InvalidRequestError, OrderwireError
from orderwire.pilot import rendering, simulation
from orderwire.pilot.days import COLUMNS, in_columns
from orderwire.pilot.report import Report
from orderwire.store.survey import Severity

app = typer.Typer(help="What the pilot was worth.")
pilot_app = typer.Typer(help="The pilot as a whole: simulated worlds.", no_args_is_help=True)
survey_app = typer.Typer(help="What users answered.", no_args_is_help=True)
incidents_app = typer.Typer(help="What went wrong during the pilot.", no_args_is_help=True)
app.add_typer(pilot_app, name="pilot")
app.add_typer(survey_app, name="survey")
app.add_typer(incidents_app, name="incidents")

Out = Annotated[Path | None, typer.Option("--out", help="Where to write; the standard output when left out.")]
Html = Annotated[bool, typer.Option("--html", help="A page that needs nothing else.")]
Md = Annotated[bool, typer.Option("--md", help="Markdown (the default).")]
Pdf = Annotated[bool, typer.Option("--pdf", help="Printed by Chromium.")]
Json = Annotated[bool, typer.Option("--json", help="Every value.")]


@app.command("report")
def report(  # noqa: PLR0917 - options by name
    since: Annotated[str | None, typer.Option("--from", help="First day; the first one with data.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Last day; today.")] = None,
    html: Html = False,
    md: Md = False,
    pdf: Pdf = False,
    as_json: Json = False,
    to: Out = None,
    data_dir: DataDir = None,
) -> None:
    """Make the evaluation report: verdict, scorecard, cohorts, incidents, survey, caveats, recommendation."""
    told = operate(read_settings(data_dir), "report.make", since=since, until=until)
    _write(convert(told, Report, strict=False), _format(html=html, md=md, pdf=pdf, json=as_json), to)


def _format(**asked: bool) -> str:
    chosen = [name for name, wanted in asked.items() if wanted]
    if len(chosen) > 1:
        raise InvalidRequestError({"format": f"Choose one of --{', --'.join(chosen)}."})
    return chosen[0] if chosen else "md"


def _write(made: Report, kind: str, to: Path | None) -> None:
    content = rendering.FORMATS[kind](made)
    if to is None:
        sys.stdout.buffer.write(content)
        return
    try:
        to.write_bytes(content)
    except OSError as error:
        raise OrderwireError(f"Cannot write {to}: {error.strerror}.") from error
    err.print(f"{made.verdict.value}: {to}", markup=False)


@pilot_app.command("simulate")
def simulate(  # noqa: PLR0917 - options by name
    world: Annotated[str, typer.Option(help="Name of the world; `worlds` lists them.")] = "good",
    weeks: Annotated[int, typer.Option(min=1, max=52)] = 7,
    users: Annotated[int, typer.Option(min=2, max=5000)] = 400,
    seed: Annotated[int | None, typer.Option(help="Drawn anew and printed when left out.")] = None,
    minutes: Annotated[
        int, typer.Option(min=1, max=simulation.FULL_DAY, help="Minutes played of each market day.")
    ] = simulation.FULL_DAY,
    html: Html = False,
    md: Md = False,
    pdf: Pdf = False,
    as_json: Json = False,
    to: Out = None,
) -> None:
    """Play a whole pilot in compressed time through the code that collects a real one, and show its report."""
    kind = _format(html=html, md=md, pdf=pdf, json=as_json)
    drawn = _drawn() if seed is None else seed
    _quiet()
    err.print(f"Playing {weeks} weeks of {users} users in the world {world!r}, seed {drawn} …", markup=False)
    played = simulation.play(
        simulation.world_of(world), weeks=weeks, users=users, seed=drawn, minutes=minutes
    )
    err.print(f"Right in this world: {played.expected}. Given: {played.report.verdict}.", markup=False)
    _write(played.report, kind, to)


@pilot_app.command("days")
def pilot_days(
    since: Annotated[str | None, typer.Option("--from", help="First day; the first one with data.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Last day; today.")] = None,
    to: Out = None,
    data_dir: DataDir = None,
) -> None:
    """Write what each day brought, by broker and cohort, as CSV; a working day without data is a row that says so."""
    rows = in_columns(operate(read_settings(data_dir), "pilot.days", since=since, until=until))
    _write_rows(rows, COLUMNS, to, what="days")


@pilot_app.command("worlds")
def worlds() -> None:
    """List the simulated worlds and the verdict that is right in each, computed from its parameters."""
    rows = [
        {
            "world": world.name,
            "right": simulation.truth(world).value,
            "p95": f"{simulation.true_p95(world) * 1000:.0f} ms",
            "uptime": f"{world.uptime:.2%}",
            "errors": f"{simulation.true_error_rate(world):.3%}",
            "satisfaction": f"{simulation.true_gain(world):+.1%}",
        }
        for world in simulation.WORLDS.values()
    ]
    print_table(("world", "right", "p95", "uptime", "errors", "satisfaction"), rows)


@pilot_app.command("verdicts")
def verdicts(
    seeds: Annotated[int, typer.Option(min=1, help="How many pilots of each world.")] = 50,
    users: Annotated[int, typer.Option(min=2)] = 400,
    minutes: Annotated[int, typer.Option(min=1, max=simulation.FULL_DAY)] = 12,
    world: Annotated[list[str] | None, typer.Option(help="Only these worlds; may be repeated.")] = None,
    least: Annotated[float, typer.Option(help="Share of right verdicts that a world needs.")] = 0.9,
    *,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the seeds.")] = 1,
) -> None:
    """Play each world with many seeds, drawn anew, and compare the verdicts with the right ones."""
    _quiet()
    chosen = [simulation.world_of(name) for name in world] if world else list(simulation.WORLDS.values())
    first = _drawn()
    size = simulation.Pilot(users=users, minutes=minutes)
    out.print(f"Seeds {first} to {first + seeds - 1}, {users} users, {minutes} minutes a day.")
    given = []
    for seed, told in simulation.judge_worlds(chosen, range(first, first + seeds), size, jobs=jobs):
        wrong = [
            name for name, verdict in told.items() if verdict is not simulation.truth(simulation.WORLDS[name])
        ]
        words = f"not as it should be: {', '.join(wrong)}" if wrong else "all as it should be"
        typer.echo(f"seed {seed}: {words}")
        given.append((seed, told))
    failed = []
    for each in simulation.outcomes(chosen, given):
        counts = ", ".join(f"{verdict.value} {count}" for verdict, count in sorted(each.given.items()))
        others = f"; others with seeds {', '.join(map(str, each.wrong_seeds))}" if each.wrong_seeds else ""
        typer.echo(f"{each.world.name:26} right: {each.expected.value:16} given: {counts}{others}")
        if each.right < least * seeds:
            failed.append(each.world.name)
    if failed:
        raise OrderwireError(f"Fewer than {least:.0%} right verdicts in: {', '.join(failed)}.")


def _drawn() -> int:
    return random.SystemRandom().randrange(1_000_000)


def _quiet() -> None:
    """Leave out the log lines of a rollout that is only played."""
    read_settings(log_level="ERROR")


@survey_app.command("export")
def survey_export(to: Out = None, data_dir: DataDir = None) -> None:
    """Write every answer as CSV: a row an answer; anonymous ones carry no name."""
    rows: list[dict[str, Any]] = operate(read_settings(data_dir), "survey.export")
    names = ["wave", "day", "user", "cohort", *(question.name for question in QUESTIONS)]
    _write_rows(rows, names, to, what="answers")


def _write_rows(rows: Sequence[dict[str, Any]], names: Sequence[str], to: Path | None, *, what: str) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in row.items()} for row in rows)
    if to is None:
        sys.stdout.write(text.getvalue())
        return
    try:
        to.write_text(text.getvalue(), encoding="utf-8")
    except OSError as error:
        raise OrderwireError(f"Cannot write {to}: {error.strerror}.") from error
    err.print(f"{len(rows)} {what}: {to}", markup=False)


def _inert(value: Any) -> Any:
    """Keep a spreadsheet from taking what somebody wrote for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")) else value


@survey_app.command("record")
def survey_record(
    question: Annotated[str, typer.Argument(help="team_comfortable or maintenance.")],
    value: Annotated[str, typer.Argument(help="yes, no; or low, medium, high.")],
    data_dir: DataDir = None,
) -> None:
    """Record the answer to a question that no machine answers; the author is the user of this machine."""
    operate(read_settings(data_dir), "survey.record", question=question, value=value)
    out.print(f"{question}: {value}.")


@survey_app.command("feedback")
def survey_feedback(data_dir: DataDir = None) -> None:
    """Show what users wrote, newest first."""
    print_table(("at", "user", "words"), operate(read_settings(data_dir), "survey.feedback"))


@incidents_app.command("open")
def incident_open(
    severity: Severity,
    title: str,
    at: Annotated[
        str | None, typer.Option(help="When it began, 2026-11-28T10:15+05:30; now when left out.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Write an incident down."""
    if at is not None:
        try:
            began = datetime.fromisoformat(at)
        except ValueError as error:
            raise InvalidRequestError({"at": f"{at!r} is no time; write 2026-11-28T10:15+05:30."}) from error
        at = began.astimezone().isoformat()
    made = operate(read_settings(data_dir), "incidents.open", severity=severity, title=title, at=at)
    out.print(f"Incident {made['id']} is open.")


@incidents_app.command("close")
def incident_close(number: int, data_dir: DataDir = None) -> None:
    """End an incident."""
    operate(read_settings(data_dir), "incidents.close", number=number)
    out.print(f"Incident {number} is closed.")


@incidents_app.command("list")
def incident_list(data_dir: DataDir = None) -> None:
    """List the incidents, newest first."""
    rows = operate(read_settings(data_dir), "incidents.list")
    print_table(("id", "severity", "title", "opened", "closed", "who"), rows)
