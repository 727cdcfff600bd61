"""What a host application and the service tell each other: logins one way, changes of orders the other. Pure values.

The same two messages go over the control socket (the host asks) and as signed webhooks (the service tells), so a
host needs one way to understand them (docs/howto/openalgo.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

PROTOCOL: Final = 1
"""Both sides say theirs; another one is refused with both named."""

MOST_TOLD: Final = 100
"""Changes in one message: a host's bus drops callbacks when too many wait."""

WAIT: Final = 2.0
"""Seconds the service lets a host's question wait for something to tell; also the pace of webhooks without news."""

GONE_AFTER: Final = 8.0
"""Seconds without a word after which the other side counts as gone."""


class HostLogin(Struct, frozen=True, kw_only=True):
    """One broker login of the host's user. Its secrets are sealed at rest and never logged."""

    broker: str
    token: str = ""
    """As the host keeps it (openalgo.md §5); empty: logged out."""
    app_key: str = ""
    app_secret: str = ""
    addresses: dict[str, str] = {}
    """Addresses of the broker that differ from the usual, by the names of its adapter."""

    def __repr__(self) -> str:
        return f"HostLogin(broker={self.broker!r}, token={'…' if self.token else 'none'})"


class HostState(Struct, frozen=True, kw_only=True):
    """Everything the host hands over. `api_key` is its user's own key, so that scripts only change the host."""

    user: str
    logins: list[HostLogin] = []
    api_key: str = ""

    def __repr__(self) -> str:
        return f"HostState(user={self.user!r}, logins={self.logins!r})"


class Place(Struct, frozen=True, array_like=True):
    """How far an account's log was taken."""

    epoch: str
    sequence: int


class FromHost(Struct, frozen=True, kw_only=True):
    """The host's side: who it is, how far it has come, and its logins where the service does not hold them yet."""

    protocol: int
    version: str
    host: str
    """What it calls itself, for messages."""
    instance: str
    """This process of it, for messages and to tell two apart."""
    user: str
    state_mark: str
    """`mark` of its state now."""
    state: HostState | None = None
    places: dict[str, Place] = {}
    """Where it stands; empty: as far as it was when it was last heard."""
    wait: float = WAIT


class Told(Struct, frozen=True, kw_only=True):
    """One event for the host: the name of a Socket.IO event and its payload (docs/decisions/0006-pages.md)."""

    name: str
    data: dict[str, Any]


class ToHost(Struct, frozen=True, kw_only=True):
    """The service's side."""

    protocol: int
    version: str
    service: str
    """This process of the service."""
    home: str = ""
    """Which service, in words: the same for each of its processes, another's differs."""
    process: int = 0
    """What ends it."""
    number: int = 0
    """Grows with every webhook of this process: an older one that is sent again is refused."""
    state_mark: str = ""
    """Of the state the service holds; the host sends its own when it differs."""
    events: list[Told] = []
    places: dict[str, Place] = {}
    """Where the host stands once it has taken `events`."""
    accounts: list[dict[str, Any]] = []
    """What is told of each account, with its freshness and where its postbacks go."""
    problems: list[str] = []
    """What keeps it from working, in words for the operator."""
    url: str = ""
    """Where scripts reach the service."""


def mark(state: HostState) -> str:
    """Name a state without giving its secrets away; equal for equal states."""
    return hashlib.sha256(msgspec.json.encode(state, order="deterministic")).hexdigest()[:16]


def app_mark(broker: str, app_key: str) -> str:
    """Name a broker app without keeping its key in the clear; empty for none."""
    key = app_key.strip().lower()
    return hashlib.sha256(f"{broker}\n{key}".encode()).hexdigest() if key else ""


def protocol_problem(*, ours: str, theirs: str, protocol: int) -> str:
    """Say that the two sides do not fit together, empty when they do."""
    if protocol == PROTOCOL:
        return ""
    return (
        f"The part in the host is orderwire {theirs}, the service is {ours}: they speak different protocols "
        f"({protocol}, {PROTOCOL}). Install the same version for both and restart them."
    )


def taken(told: ToHost, *, first: str, process: int) -> str:
    """Say to a service that the host is another's."""
    ends = f", process {process}" if process else ""
    return (
        f"This host is followed by {first}{ends} already; {told.home or 'another orderwire'} is given no login of it. "
        "One host has one orderwire: stop that one, and this one takes over by itself, or stop this one."
    )


def later(a: Place | None, b: Place) -> bool:
    """Whether `b` is further than `a`, or of another log."""
    return a is None or a.epoch != b.epoch or b.sequence > a.sequence


def problems_of(texts: Sequence[str]) -> list[str]:
    """Return each problem once, as first told."""
    return list(dict.fromkeys(text for text in texts if text))
