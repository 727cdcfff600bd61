"""The commands of the pilot: `orderwire rollout …`."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from orderwire.config import Settings
from orderwire.console import DataDir, operate, out, print_table, read_settings
from orderwire.core.rollout import Choice

rollout_app = typer.Typer(help="Who is on real-time updates: stages, stop, brokers.", no_args_is_help=True)

Why = Annotated[str, typer.Option("--why", help="Why, in a few words; asked for when left out.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


@rollout_app.command("show")
def rollout_show(data_dir: DataDir = None) -> None:
    """Say what is in force, who is in, and what each cohort saw since the last decision."""
    _show(operate(read_settings(data_dir), "rollout.show"))


@rollout_app.command("set")
def rollout_set(
    stage: Annotated[int, typer.Argument(help="Percent of the users: 0, 10, 25, 50 or 100.")],
    why: Why = "",
    yes: Yes = False,
    data_dir: DataDir = None,
) -> None:
    """Let a share of the users in. Who is in at a stage is in at every higher one."""
    _step(read_settings(data_dir), f"Let {stage} % of the users in", "rollout.set", why, yes=yes, stage=stage)


@rollout_app.command("kill")
def rollout_kill(why: Why = "", yes: Yes = False, data_dir: DataDir = None) -> None:
    """Stop real-time updates for everybody within a second; everybody is on refresh, nothing is lost."""
    _step(read_settings(data_dir), "Stop real-time updates for everybody", "rollout.kill", why, yes=yes)


@rollout_app.command("resume")
def rollout_resume(why: Why = "", yes: Yes = False, data_dir: DataDir = None) -> None:
    """End a stop; the stage is as before."""
    _step(read_settings(data_dir), "End the stop", "rollout.resume", why, yes=yes)


@rollout_app.command("broker")
def rollout_broker(
    broker: Annotated[str, typer.Argument(help="Name of an installed broker.")],
    switch: Annotated[Switch, typer.Argument(help="on or off.")],
    why: Why = "",
    yes: Yes = False,
    data_dir: DataDir = None,
) -> None:
    """Switch one broker's real-time updates on or off."""
    question = f"Switch {broker} {switch}"
    on = switch is Switch.ON
    _step(read_settings(data_dir), question, "rollout.broker", why, yes=yes, broker=broker, on=on)


@rollout_app.command("history")
def rollout_history(
    most: Annotated[int, typer.Option(min=1, max=1000, help="How many decisions.")] = 50,
    data_dir: DataDir = None,
) -> None:
    """List the decisions, newest first: who, when, from what to what, why."""
    rows = operate(read_settings(data_dir), "rollout.history", most=most)
    print_table(("at", "who", "what", "from", "to", "why"), rows)


@rollout_app.command("choose")
def rollout_choose(
    user: str,
    choice: Annotated[Choice, typer.Argument(help="in, out, or none for the pilot's draw.")],
    data_dir: DataDir = None,
) -> None:
    """Opt a user in or out on the user's behalf."""
    operate(read_settings(data_dir), "rollout.choose", owner=user, choice=choice)
    out.print(f"{user}: {choice}.")


def _step(settings: Settings, question: str, command: str, why: str, *, yes: bool, **arguments: Any) -> None:
    """Show where things are, ask, act, say what is in force now."""
    if not yes:
        _show(operate(settings, "rollout.show"))
        reason = why or typer.prompt("Why")
        typer.confirm(f"{question}?", abort=True)
    else:
        reason = why
    told = operate(settings, command, why=reason, **arguments)
    out.print(f"{'Done' if told['changed'] else 'Nothing to change'}. In force: [bold]{told['now']}[/].")


def _show(report: dict[str, Any]) -> None:
    rollout, cohorts = report["rollout"], report["cohorts"]
    state = "stopped" if rollout["killed"] else f"{rollout['stage']} %"
    out.print(f"Stage [bold]{state}[/] (set to {rollout['stage']} %)")
    if not report["master"]:
        out.print("[red]USE_EVENT_DRIVEN_ORDERS is false: nobody is in, whatever the stage.[/]")
    if rollout["brokers_off"]:
        out.print(f"Switched off: {', '.join(rollout['brokers_off'])}")
    for reason, count in report["reasons"].items():
        out.print(f"  {count} account{'s' if count != 1 else ''}: {reason}")
    since = report["since"] or "the start"
    table = Table("since " + str(since), "real-time", "on refresh", box=None)
    seen = report["seen"]
    for words, show in _ROWS:
        table.add_row(words, *(show(seen[cohort]) for cohort in ("realtime", "manual")))
    table.add_row("accounts now", str(cohorts["realtime"]), str(cohorts["manual"]))
    out.print(table)


_ROWS: Final[tuple[tuple[str, Callable[[dict[str, Any]], str]], ...]] = (
    ("placed → painted p50", lambda s: _seconds(s, "latency_p50")),
    ("placed → painted p95", lambda s: _seconds(s, "latency_p95")),
    ("paints", lambda s: f"{s['paints']:,}"),
    ("errors / events", lambda s: f"{s['errors']:,} / {s['events']:,}"),
    ("disconnections per account and hour", lambda s: f"{s['disconnects_per_hour']:.2f}"),
    ("order-book reads per account and hour", lambda s: f"{s['calls_per_hour']:.0f}"),
)


def _seconds(summary: dict[str, Any], name: str) -> str:
    return f"{summary[name] * 1000:.0f} ms" if summary["paints"] else "-"
