"""The commands that look after what is kept: migrate, backup, restore, erase, export, refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from orderwire.clock import SystemClock
from orderwire.config import Settings
from orderwire.console import DataDir, err, operate, out, read_settings, who
from orderwire.core.orders import IST, AccountId
from orderwire.errors import ConfigurationError
from orderwire.store import backup as copies
from orderwire.store import export as exports
from orderwire.store import letters
from orderwire.store.database import Database
from orderwire.store.export import Form, Selection, Subject

app = typer.Typer()
Account = Annotated[str, typer.Option("--account", help="Of this account alone.")]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="A session day, e.g. 2026-01-05.")]
SUFFIXES = {".csv": Form.CSV, ".jsonl": Form.JSONL, ".parquet": Form.PARQUET}


@app.command()
def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to the form of this release, all of it or nothing; the service does so by itself."""
    _migrate(read_settings(data_dir))


@app.command()
def backup(target: Annotated[Path, typer.Argument(help="The new file.")], data_dir: DataDir = None) -> None:
    """Copy the database as it is at one moment, while the service goes on."""
    _backup(read_settings(data_dir), target)


@app.command()
def restore(
    source: Annotated[Path | None, typer.Argument(help="A backup; none after pg_restore.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Put a backup in the database's place; every change log begins a new epoch. The service must not run."""
    _restore(read_settings(data_dir), source, sure=yes)


@app.command()
def erase(
    account_id: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Delete everything kept of an account that was removed: orders, trades, what its broker said. Audited."""
    if not yes:
        typer.confirm(f"Delete everything kept of {account_id}, for good?", abort=True)
    with err.status(f"Erasing {account_id} …"):
        gone = operate(read_settings(data_dir), "accounts.erase", id=account_id)
    out.print(f"Erased {account_id}: {gone['rows']:,} rows. The audit says so.")


@app.command()
def export(
    subject: Annotated[Subject, typer.Argument(help="What to write.")],
    target: Annotated[Path, typer.Argument(help="The new file; .csv, .jsonl or .parquet says how.")],
    account: Account = "",
    since: Day = None,
    until: Day = None,
    data_dir: DataDir = None,
) -> None:
    """Write orders, trades, positions or observations into a file, beside a running service if there is one."""
    only = Selection(
        account=AccountId(account) if account else None,
        since=since.date() if since else None,
        until=until.date() if until else None,
    )
    _export(read_settings(data_dir), subject, target, only)


@app.command()
def refused(
    account: Account = "",
    show: Annotated[int | None, typer.Option(help="Show this one whole, with the broker's bytes.")] = None,
    most: Annotated[int, typer.Option(min=1, help="How many to list, newest first.")] = 50,
    data_dir: DataDir = None,
) -> None:
    """List what brokers said that could not be believed or read, or could not be kept; the bytes are there."""
    _refused(read_settings(data_dir), AccountId(account), show, most)


# --- what they do ---------------------------------------------------------------------------------------


@contextmanager
def _opened(settings: Settings, *, read_only: bool = False) -> Iterator[Database]:
    if not settings.data_dir.is_dir():
        raise ConfigurationError(f"There is no data folder {settings.data_dir}; run `orderwire init` first.")
    database = Database(settings.database, clock=SystemClock(), read_only=read_only)
    try:
        yield database
    finally:
        database.close()


def _migrate(settings: Settings) -> None:
    with _opened(settings) as database, err.status("Migrating …"):
        before = database.revision()
        done = database.migrate()
        now = database.revision()
    out.print(f"Migrated from {before or 'nothing'} to {now}." if done else f"Nothing to do: it is at {now}.")


def _backup(settings: Settings, target: Path) -> None:
    with _opened(settings, read_only=True) as database, _bar("Copying", "pages") as told:
        size = copies.backup(database, target, progress=told)
    out.print(f"Wrote {target} ({size / 1e6:,.1f} MB).")
    err.print("The key file is not in it: keep a copy of that apart.")


def _restore(settings: Settings, source: Path | None, *, sure: bool) -> None:
    database = settings.database
    on_sqlite = database.startswith("sqlite")
    if on_sqlite and source is None:
        raise ConfigurationError("Name the backup to restore.")
    if not on_sqlite and source is not None:
        raise ConfigurationError(
            "Restore a PostgreSQL database with pg_restore, then run this without a file."
        )
    if not sure:
        typer.confirm(f"Put {source or 'what pg_restore brought'} in the place of what is there?", abort=True)
    clock = SystemClock()
    with err.status("Restoring …"):
        if source is not None:
            copies.restore(source, Path(database.removeprefix("sqlite:///")), clock=clock, by=who())
        else:
            with _opened(settings) as opened:
                copies.begin_anew(opened, source="pg_restore", by=who())
    out.print("Restored. Every change log has a new epoch: clients take a snapshot.")


def _export(settings: Settings, subject: Subject, target: Path, only: Selection) -> None:
    form = SUFFIXES.get(target.suffix.lower())
    if form is None:
        raise ConfigurationError(f"{target}: let the name end in {', '.join(SUFFIXES)}.")
    with _opened(settings, read_only=True) as database, _bar("Writing", "rows") as told:
        rows = exports.export(database, subject, target, form=form, only=only, progress=told)
    out.print(f"Wrote {rows:,} rows to {target}.")


def _refused(settings: Settings, account: AccountId, show: int | None, most: int) -> None:
    with _opened(settings, read_only=True) as database:
        if show is None:
            found = letters.newest(database, account=account or None, most=most)
        else:
            found = [letters.one(database, show)]
    if show is not None:
        _print_whole(found[0])
        return
    for letter in found:
        when = f"{letter.at.astimezone(IST):%Y-%m-%d %H:%M:%S}"
        line = f"{letter.id:>6}  {when}  {letter.account}  {letter.order_id or '-'}  {letter.kind}: {letter.reason}"
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    if not found:
        out.print("none")


def _print_whole(letter: letters.Letter) -> None:
    for name in ("account", "order_id", "kind", "reason", "observation"):
        out.print(f"{name}: {getattr(letter, name)}", markup=False, highlight=False, soft_wrap=True)
    out.print(letter.raw.decode("utf-8", "backslashreplace"), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _bar(what: str, units: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far a piece of work is, on the terminal's error side; give what is told of it."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(units),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(what, total=None)

        def told(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield told
