"""How a process comes to live on a shared database: `serve` alone, or any number of `feeds` and `web`, never both.

Who comes second is refused, with who is there and what to do. One who was killed looks alive until its row runs out:
that is waited for, so that a `serve` that is started again comes back by itself.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from typing import Final

import structlog

from orderwire.errors import ConfigurationError, StoreBusyError
from orderwire.store.leases import SERVE, CrowdedError, Leases

_log = structlog.get_logger(__name__)

LOOK_EVERY: Final = 0.2
"""Seconds between two tries to enter."""

BUSY_FOR: Final = 30.0
"""Seconds for which a database that takes no writes is tried again."""


def default_name() -> str:
    """Return a name that no other process of this machine has at the same time."""
    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().partition(".")[0]).strip("-")[:40]
    return f"{host or 'host'}-{os.getpid()}"


def only_name() -> str:
    """Return a name that nobody ever had: containers on two machines may have one host name and one process id."""
    return f"{default_name()}-{secrets.token_hex(3)}"


def place() -> str:
    """Say where this process is, for people."""
    return f"{socket.gethostname()}:{os.getpid()}"


def arrive(leases: Leases, *, role: str, version: str) -> None:
    """Enter, before anything else is begun; returns once this process lives on the database, without accounts yet.

    Waits for those who may have been killed and have not run out. Raises ConfigurationError when one of them says
    again that it lives.
    """
    seen: dict[str, int] = {}
    gives_up = time.monotonic() + BUSY_FOR
    while True:
        try:
            leases.enter(role=role, place=place(), version=version, arriving=True)
        except CrowdedError as error:
            there = {other.id: other.expires_ns for other in error.others}
            if seen and any(until > seen.get(name, 0) for name, until in there.items()):
                raise ConfigurationError(f"{error} {_advice(role)}") from error
            if not seen:
                _log.warning(
                    "others live on this database; one that was killed runs out by itself, in ten seconds as a rule",
                    others=[str(other) for other in error.others[:3]],
                )
            seen = there
        except StoreBusyError:
            if time.monotonic() > gives_up:
                raise
        else:
            if seen:
                _log.info("they are gone")
            return
        time.sleep(LOOK_EVERY)


def _advice(role: str) -> str:
    if role == SERVE:
        return "`orderwire serve` has it to itself: stop them first, or run `orderwire feeds` and `orderwire web`."
    return (
        "`orderwire serve` has it to itself: stop it first, or leave everything to it. Feeds and web processes live "
        "beside each other, not beside it."
    )
