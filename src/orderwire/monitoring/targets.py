"""Reaches the places where users are told: a person through Apprise, a program by a signed POST."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx2
import msgspec

from orderwire.core import webhooks
from orderwire.core.notifications import Notification
from orderwire.errors import ConfigurationError, InvalidRequestError, OrderwireError
from orderwire.store.notifications import Delivery, TargetKind

PATIENCE: Final = httpx2.Timeout(5.0)

_LOCAL: Final = frozenset(
    [
        "dbus",
        "qt",
        "glib",
        "kde",
        "gnome",
        "macosx",
        "windows",
        "syslog",
        "rsyslog",
        "json",
        "jsons",
        "xml",
        "xmls",
        "form",
        "forms",
    ]
)
"""What Apprise can reach that is nobody's phone: this machine's own desktop, or any address by plain POST."""

_SILENT: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "tgram": ("silent", "yes"),
        "ntfy": ("priority", "min"),
        "ntfys": ("priority", "min"),
        "pover": ("priority", "low"),
        "gotify": ("priority", "low"),
        "gotifys": ("priority", "low"),
    }
)
"""How a service is asked not to ring; the others are sent the same either way."""


class UndeliveredError(OrderwireError):
    """The target did not take it."""

    def __init__(self, message: str, *, gone: bool = False) -> None:
        """`gone`: it says that it will never take one again."""
        super().__init__(message)
        self.gone = gone


def check_address(kind: TargetKind, address: str, *, private: bool = False) -> None:
    """Raise InvalidRequestError unless the address can be used; ConfigurationError without Apprise installed.

    `private`: whether an address of this machine or its network may be given, as the operator has set.
    """
    problem = _webhook_problem(address) if kind is TargetKind.WEBHOOK else _apprise_problem(address)
    if not problem and not private and is_private(_host(address)):
        problem = (
            "This address is on the service's own machine or network; the operator has to allow that "
            "(ORDERWIRE_PRIVATE_TARGETS)."
        )
    if problem:
        raise InvalidRequestError({"address": problem})


def is_private(host: str) -> bool:
    """Whether a name leads to this machine or a network of its own; a name that leads nowhere does not."""
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP) if host else []
    except (OSError, UnicodeError):
        return False
    return any(not ipaddress.ip_address(str(one[4][0]).split("%")[0]).is_global for one in found)


def tell_program(
    client: httpx2.Client, address: str, secret: str, delivery: Delivery, *, seconds: int, private: bool
) -> None:
    """POST one notification, signed. Raises UndeliveredError with why. Blocks for some seconds at most."""
    if not private and is_private(_host(address)):  # a name may lead elsewhere than when it was given
        raise UndeliveredError("The address leads to the service's own network.", gone=True)
    body = payload(delivery)
    headers = webhooks.headers(body, secret=secret, message_id=str(delivery.id), at=seconds)
    try:
        with client.stream("POST", address, content=body, headers=headers) as reply:
            code = reply.status_code
    except httpx2.HTTPError as error:
        raise UndeliveredError(f"{type(error).__name__}: {error}") from error
    if not 200 <= code < 300:
        raise UndeliveredError(f"It answered {code}.", gone=code == 410)


def payload(delivery: Delivery) -> bytes:
    """Return what a program is sent."""
    told: Notification = delivery.notification
    return msgspec.json.encode(
        {
            "id": delivery.id,
            "occasion": told.occasion,
            "account": told.account,
            "at": told.at,
            "title": told.title,
            "text": told.text,
            "silent": delivery.silent,
            "order": told.order or None,
        }
    )


def tell_person(address: str, title: str, text: str, *, silent: bool, urgent: bool, private: bool) -> None:
    """Send one message through Apprise. Raises UndeliveredError. Blocks for some seconds at most."""
    if not private and is_private(_host(address)):
        raise UndeliveredError("The address leads to the service's own network.", gone=True)
    apprise = _apprise()
    service = apprise.Apprise.instantiate(quiet(address) if silent else address)
    kind = apprise.NotifyType.WARNING if urgent else apprise.NotifyType.INFO
    if service is None or not service.notify(title=title, body=text, notify_type=kind):
        raise UndeliveredError("The service did not take the message.")


def quiet(address: str) -> str:
    """Return an Apprise address that asks the service not to ring, where it can be asked."""
    parts = urlsplit(address)
    asked = _SILENT.get(parts.scheme.lower())
    if asked is None:
        return address
    query = f"{parts.query}&{urlencode([asked])}" if parts.query else urlencode([asked])
    return urlunsplit(parts._replace(query=query))


def _apprise() -> Any:
    try:
        import apprise  # noqa: PLC0415 - an extra, and 0.3 s
    except ImportError as error:
        raise ConfigurationError(
            "Messages to people need Apprise: install the extra, pip install 'orderwire[notify]'."
        ) from error
    return apprise


def _webhook_problem(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "Give the address of your program: https://…"
    if parts.username or parts.password:
        return "Leave user name and password out: each message is signed, check that."
    return ""


def _apprise_problem(address: str) -> str:
    scheme = address.split(":", 1)[0].lower()
    if scheme in _LOCAL or "://" not in address:
        return "Give an Apprise address of a messenger or of e-mail, such as tgram://token/chat."
    if _apprise().Apprise.instantiate(address, suppress_exceptions=True) is None:
        return "Apprise does not know this address; see its list of services."
    return ""


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
