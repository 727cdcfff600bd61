"""The commands that start one of several processes: `feeds` keeps a share of the accounts, `web` serves pages."""

from __future__ import annotations

import os
import re
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from typing import Annotated

import structlog
import typer

from orderwire import arrival, service, serving
from orderwire.clock import SystemClock
from orderwire.config import Settings
from orderwire.console import DataDir, read_settings
from orderwire.errors import ConfigurationError
from orderwire.store.database import Database
from orderwire.store.leases import WEB, Leases, must_share

_log = structlog.get_logger(__name__)

app = typer.Typer()

TRY_AGAIN = 2.0
"""Seconds between two looks for a database that is away when a process starts."""


@app.command()
def feeds(
    name: Annotated[
        str,
        typer.Option(help="Name of this worker, of letters, digits and dashes; <host>-<pid> when left out."),
    ] = "",
    metrics_port: Annotated[
        int | None, typer.Option(help="Port for Prometheus and probes (ORDERWIRE_METRICS_PORT).")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Keep a fair share of the accounts' feeds, beside any number of others; TERM hands them over."""
    settings = read_settings(data_dir, metrics_port=metrics_port)
    worker = name or arrival.default_name()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,59}", worker):
        raise ConfigurationError(
            f"A worker's name has letters, digits, dots and dashes; {worker!r} does not do."
        )
    await_database(settings)
    serving.serve(settings, worker=worker)


@app.command()
def web(
    host: Annotated[str | None, typer.Option(help="Address to listen on (ORDERWIRE_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the web server (ORDERWIRE_PORT).")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port for Prometheus and probes (ORDERWIRE_METRICS_PORT).")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of this worker; <host>-<pid> when left out.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Serve pages, programs and postbacks, beside any number of others; needs feeds workers to do what is asked."""
    settings = read_settings(data_dir, host=host, port=port, metrics_port=metrics_port)
    if find_spec("gevent") is None:
        raise ConfigurationError("The web role needs gevent: pip install 'orderwire[web]'.")
    await_database(settings)
    listeners = [serving.open_listener(settings)]
    for number, option in (
        (settings.metrics_port, "ORDERWIRE_METRICS_PORT"),
        (settings.subscriptions_port, "ORDERWIRE_SUBSCRIPTIONS_PORT"),
    ):
        if number:
            listeners.append(serving.open_listener(settings, port=number, option=option))
    worker = name or arrival.default_name()
    database = service.open_records(settings).database
    arrival.arrive(Leases(database, worker), role=WEB, version=version("orderwire"))
    database.close()
    arguments = ["-m", "orderwire.webprocess", worker]
    arguments += [str(listener.fileno()) for listener in listeners]
    os.execve(sys.executable, [sys.executable, *arguments], settings.as_environment())  # noqa: S606 - ourselves


def await_database(settings: Settings) -> None:
    """Return once the shared database answers, however long that takes; say so when it does not.

    Raises ConfigurationError when it is one that several processes cannot share.
    """
    told = False
    while True:
        try:
            database = Database(settings.database, clock=SystemClock())
        except ConfigurationError as error:
            if not settings.database.startswith("postgres"):
                raise
            if not told:
                _log.error("the database is away; trying again until it is there", error=str(error))
            told = True
            time.sleep(TRY_AGAIN)
            continue
        try:
            must_share(database)
        finally:
            database.close()
        if told:
            _log.info("the database is there")
        return
