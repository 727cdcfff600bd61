"""What the person on duty asks at the command line: how are we, what is wrong, keep that one quiet."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

import httpx2
import typer
from rich.table import Table
from rich.text import Text

from orderwire import serving
from orderwire.config import Settings
from orderwire.console import DataDir, out, read_settings
from orderwire.core.orders import IST
from orderwire.core.promrules import rules_file
from orderwire.errors import ConfigurationError, OrderwireError
from orderwire.monitoring.station import rules_of
from orderwire.store.encoding import from_ns
from orderwire.web import operations

alerts_app = typer.Typer(help="Alerts: what was raised, silence, rules for Prometheus.", no_args_is_help=True)

_EXIT = {"ok": 0, "warning": 1, "critical": 2}
_COLOURS = {"ok": "green", "warning": "yellow", "critical": "red"}
_FRESH = {"LIVE": "green", "MANUAL": "dim", "RECONCILING": "cyan", "DEGRADED": "yellow"}
DOWN = 3
"""Exit code of `orderwire status` when no service answers; 0, 1 and 2 are ok, warning and critical."""


def _ask(settings: Settings, command: str, **arguments: Any) -> Any:
    try:
        return operations.ask(serving.control_socket(settings), command, arguments)
    except httpx2.TransportError as error:
        raise ConfigurationError("The service does not run; start it with `orderwire serve`.") from error


def status(
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Say how the running service is doing; exit code 0 ok, 1 warning, 2 critical, 3 not running."""
    try:
        found = _ask(read_settings(data_dir), "status")
    except OrderwireError as error:
        out.print_json(json.dumps({"status": "down"})) if as_json else out.print(str(error), style="red")
        raise SystemExit(DOWN) from error
    if as_json:
        out.print_json(json.dumps(found))
    else:
        _print_status(found)
    raise SystemExit(_EXIT[found["status"]])


def _print_status(found: dict[str, Any]) -> None:
    word = Text(found["status"].upper(), style=f"bold {_COLOURS[found['status']]}")
    ready = "ready" if found["ready"] else f"not ready: {', '.join(found['waiting_for'])}"
    out.print(word, f"· {ready} · up {found['uptime_seconds']:.0f} s · release {found['version']}")
    for alert in found["alerts"]:
        silent = " (silenced)" if alert["silenced"] else ""
        out.print(f"  {alert['text']}{silent}", style=_COLOURS[alert["severity"]], markup=False)
    engine, whole = found["engine"], found["latency_ms"]["received_to_clients"]
    out.print(
        f"queue {engine['queue_depth']} (most {engine['queue_high_water']}) · "
        f"{engine['events_per_second']:g} events/s · received to clients p50 {whole['p50']:g} ms, "
        f"p95 {whole['p95']:g} ms · {found['clients']} clients"
    )
    table = Table("account", "broker", "freshness", "stream", "open orders", "detail", box=None)
    for row in found["accounts"]:
        fresh = row["freshness"] if row["running"] else "NO FEED"
        table.add_row(
            row["account"],
            row["broker"],
            Text(fresh, style=_FRESH.get(fresh, "red")),
            "connected" if row["connected"] else "-",
            str(row["open_orders"]),
            row["detail"],
        )
    out.print(table if found["accounts"] else "no accounts")


@alerts_app.command("list")
def alerts_list(
    most: Annotated[int, typer.Option(help="How many of the newest.")] = 20, data_dir: DataDir = None
) -> None:
    """List the newest alerts and notices, and the silences in force."""
    found = _ask(read_settings(data_dir), "alerts.list", most=most)
    table = Table("raised (IST)", "cleared", "alert", "broker", "severity", "told", "text", box=None)
    for row in found["alerts"]:
        table.add_row(
            _clock(row["raised_at"]),
            _clock(row["cleared_at"]) if row["cleared_at"] else "-",
            row["rule"],
            row["broker"],
            row["severity"],
            row["told"],
            row["text"],
        )
    out.print(table if found["alerts"] else "none")
    for silence in found["silences"]:
        until = from_ns(silence["until_ns"]).astimezone(IST)
        out.print(
            f"silent until {until:%d %b %H:%M}: {silence['rule']} {silence['broker']} "
            f"({silence['by']}: {silence['reason'] or 'no reason given'})"
        )


def _clock(text: str) -> str:
    return f"{datetime.fromisoformat(text).astimezone(IST):%d %b %H:%M:%S}"


@alerts_app.command("silence")
def alerts_silence(
    alert: Annotated[str, typer.Argument(help="Name of the alert, e.g. StreamDisconnected.")],
    hours: Annotated[float, typer.Option(min=0, help="For how long; 0 ends the silence.")] = 1,
    broker: Annotated[str, typer.Option(help="Only this broker's.")] = "",
    reason: Annotated[str, typer.Option(help="Why; kept.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Tell nobody of an alert for a while; it is still shown and written down."""
    _ask(
        read_settings(data_dir),
        "alerts.silence",
        alert=alert,
        hours=hours,
        broker=broker,
        reason=reason,
    )
    out.print(f"{alert} is silent for {hours:g} h." if hours else f"{alert} is heard again.")


@alerts_app.command("rules")
def alerts_rules(
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between evaluations.")] = 5,
    data_dir: DataDir = None,
) -> None:
    """Print the alerts as a Prometheus rule file, with this service's limits."""
    typer.echo(rules_file(rules_of(read_settings(data_dir)), interval=interval), nl=False)
