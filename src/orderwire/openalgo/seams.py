"""What the mounted part asks its host: who is logged in, at which broker, and whose an API key is.

The usual answers come from OpenAlgo's own functions, called in its own process (openalgo.md §5); its database is
not read. Another host gives its own `HostSeams`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import session

from orderwire.config import MountSettings
from orderwire.core.hosts import HostLogin, HostState
from orderwire.errors import ConfigurationError

OWN_FEEDS: Final = frozenset({"zerodha"})
"""Brokers of ours whose order feed OpenAlgo has too, unless ORDER_UPDATES_ENABLED=FALSE. Jainam's it lacks."""

OLDEST: Final[Mapping[str, tuple[int, ...]]] = {
    "flask": (2, 3),
    "flask-socketio": (5, 3),
    "python-socketio": (5, 10),
    "msgspec": (0, 18),
}
"""The oldest versions that the mounted part works with; the service itself may live in an environment of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSeams:
    """What a host answers. Everything is called in the host's process, by its own kind of thread."""

    state: Callable[[], HostState]
    """Its user, and the broker logins in force; asked every few seconds, so it should be cheap."""
    who: Callable[[], str | None]
    """Whose the web session of the present request is, None for a stranger's."""
    key_owner: Callable[[str], str | None]
    """Whose an API key is, None for nobody's."""
    repeats: Callable[[], bool] = lambda: False
    """Whether a subscriber of the host's own emits `order_update` for what its bus is told."""


def openalgo_seams(settings: MountSettings) -> HostSeams:
    """Return the answers of OpenAlgo's own functions. Raises ConfigurationError in another application."""
    auth, users = _module("database.auth_db"), _module("database.user_db")
    _must_have(auth, ("get_auth_token", "get_auth_token_dbquery", "verify_api_key"))

    def user() -> str:
        known = None if settings.host_user else users.find_user_by_username()
        return settings.host_user or str(getattr(known, "username", "") or "")

    def state() -> HostState:
        name = user()
        try:
            return HostState(user=name, logins=_logins(auth, name, settings), api_key=_own_key(auth, name))
        finally:
            _release(auth)

    def who() -> str | None:
        return str(session.get("user") or "") or None if session.get("logged_in") else None

    def key_owner(key: str) -> str | None:
        try:
            return auth.verify_api_key(key) or None
        finally:
            _release(auth)

    def repeats() -> bool:
        return hasattr(sys.modules.get("subscribers.socketio_subscriber"), "on_order_update")

    return HostSeams(state=state, who=who, key_owner=key_owner, repeats=repeats)


def _logins(auth: Any, name: str, settings: MountSettings) -> list[HostLogin]:
    row = auth.get_auth_token_dbquery(name) if name else None
    broker = str(getattr(row, "broker", "") or "").lower()
    if not broker:
        return []
    return [
        HostLogin(
            broker=broker,
            token=str(auth.get_auth_token(name) or ""),
            app_key=settings.broker_api_key.get_secret_value(),
            app_secret=settings.broker_api_secret.get_secret_value(),
            addresses=settings.broker_addresses,
        )
    ]


def _own_key(auth: Any, name: str) -> str:
    tell = getattr(auth, "get_api_key_for_tradingview", None)
    return str(tell(name) or "") if tell is not None and name else ""


def _release(auth: Any) -> None:
    """Give the connection of this thread back: no request ends here that would."""
    scoped = getattr(auth, "db_session", None)
    if scoped is not None:
        scoped.remove()


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"This application is not OpenAlgo as orderwire knows it (no {name}: {error}); give init_app its seams."
        ) from error


def _must_have(module: Any, names: tuple[str, ...]) -> None:
    missing = [name for name in names if not hasattr(module, name)]
    if missing:
        raise ConfigurationError(
            f"This OpenAlgo is another than orderwire knows: {module.__name__} has no {', '.join(missing)}."
        )


def version_problems(installed: Callable[[str], str] = importlib.metadata.version) -> list[str]:
    """Name every library of the host that is too old for the mounted part."""
    problems = []
    for name, oldest in OLDEST.items():
        try:
            found = installed(name)
        except importlib.metadata.PackageNotFoundError:
            found = "0"
        if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < oldest:
            wanted = ".".join(str(part) for part in oldest)
            problems.append(
                f"{name} is {'missing' if found == '0' else found}; orderwire needs {wanted} or newer."
            )
    return problems
