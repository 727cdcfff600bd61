"""What every command of the command line shares: its settings, its way to the service, how it prints."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer
from rich.console import Console
from rich.table import Table

from orderwire import logs, service, serving
from orderwire.config import Settings, load
from orderwire.web import operations

out = Console()
err = Console(stderr=True, highlight=False, soft_wrap=True)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The data folder (ORDERWIRE_DATA_DIR).")]


def read_settings(data_dir: Path | None = None, **more: Any) -> Settings:
    """Read the settings and set the log up as they say. Raises ConfigurationError."""
    settings = load(data_dir=data_dir, **more)
    logs.set_up(level=settings.log_level, as_json=settings.log_json)
    return settings


def operate(settings: Settings, command: str, **arguments: Any) -> Any:
    """Carry out an operator's command (`web/operations.py`) and return its plain result.

    The running service does it; where none runs, the records are opened and it is done here. An argument of None
    is left out. The audit is told who asked (`who`). Raises OrderwireError.
    """
    given = {"by": who()} | {name: value for name, value in arguments.items() if value is not None}
    path = serving.control_socket(settings)
    if path.exists():
        try:
            return operations.ask(path, command, given)
        except httpx2.ConnectError:
            pass  # left over by a service that was killed: nobody listens, so the records are free
    records = service.open_records(settings)
    try:
        return operations.perform(records.office(), command, given)
    finally:
        records.database.close()


def who() -> str:
    """Name whoever sits at this command line: by the login of the terminal, which sudo keeps, else by the process."""
    try:
        name = os.getlogin()
    except OSError:  # no terminal: a timer, a container
        name = _name_of(os.geteuid())
    return f"cli:{name}"


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def print_table(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Print rows as a table, or that there are none."""
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    out.print(table if rows else "none")


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
