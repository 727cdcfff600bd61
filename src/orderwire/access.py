"""The commands about ways in: the first administrator, a forgotten password, roles, and the sealing keys."""

from __future__ import annotations

from typing import Annotated

import typer

from orderwire.console import DataDir, err, operate, out, read_settings
from orderwire.store.users import Role

keys_app = typer.Typer(help="The keys that seal the brokers' secrets.", no_args_is_help=True)


def first(data_dir: DataDir = None) -> None:
    """Print the link by which the first administrator is made in the browser."""
    settings = read_settings(data_dir)
    out.print(operate(settings, "users.first")["link"], soft_wrap=True, highlight=False)
    err.print("It works once, while there is no user. The one printed before does not work any more.")


def reset(name: str, data_dir: DataDir = None) -> None:
    """Print a link by which a user sets a new password."""
    made = operate(read_settings(data_dir), "users.reset", name=name)
    out.print(made["link"], soft_wrap=True, highlight=False)
    err.print(f"Give it to {name}. It works once, for {made['hours']} hours.")


def role(
    name: str, role: Annotated[Role, typer.Argument(help="What the user may do.")], data_dir: DataDir = None
) -> None:
    """Change what a user may do; the user's sessions end."""
    operate(read_settings(data_dir), "users.role", name=name, role=role)
    out.print(f"{name} is {role} now and has to log in again.")


@keys_app.command("rotate")
def rotate(
    forget_old: Annotated[
        bool,
        typer.Option("--forget-old", help="Remove the earlier keys; backups sealed with them stay shut."),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Make a new key and seal every secret again with it. The service may run."""
    made = operate(read_settings(data_dir), "keys.rotate", forget_old=forget_old)
    out.print(f"Sealed {made['secrets']} secrets again with key [bold]{made['key']}[/].")
    kept = "Earlier keys were removed." if forget_old else "Earlier keys are kept for backups."
    out.print(f"{kept} Keep a copy of the key file: the one you had does not open what is sealed now.")
