"""Two ways to tell the operator: a signed HTTP POST for programs, Apprise's services for people."""

from __future__ import annotations

from collections.abc import Sequence

import httpx2

from orderwire.core import webhooks
from orderwire.errors import ConfigurationError, OrderwireError
from orderwire.monitoring.targets import UndeliveredError, tell_person

PATIENCE = 5.0
"""Seconds a receiver gets to answer."""

_PERMANENT = frozenset({400, 401, 403, 404, 405, 410, 413, 415, 422})


class DeliveryError(OrderwireError):
    """The message could not be delivered."""

    def __init__(self, message: str = "", *, permanent: bool = False) -> None:
        """`permanent`: trying the same again is of no use."""
        super().__init__(message)
        self.permanent = permanent


def post(url: str, body: bytes, *, secret: str, message_id: str, at: int, patience: float = PATIENCE) -> None:
    """Send a signed message, once; blocks up to `patience` seconds for each of connecting and answering.

    The same `message_id` for each try lets the receiver drop what it has already. Redirects are not followed.
    Raises DeliveryError.
    """
    headers = webhooks.headers(body, secret=secret, message_id=message_id, at=at)
    try:
        reply = httpx2.post(url, content=body, headers=headers, timeout=patience, trust_env=False)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise DeliveryError(f"the webhook does not answer ({type(error).__name__})") from None
    if not reply.is_success:
        permanent = reply.status_code in _PERMANENT
        raise DeliveryError(f"the webhook answered {reply.status_code}", permanent=permanent)


def notify(addresses: Sequence[str], *, title: str, body: str, urgent: bool = False) -> None:
    """Send a message to people at Apprise addresses, once; blocks until every service has answered.

    The addresses are the operator's own, so they may lead anywhere. Raises DeliveryError, also when Apprise (extra
    `notify`) is not installed or does not know an address.
    """
    for address in addresses:
        try:
            tell_person(address, title, body, silent=False, urgent=urgent, private=True)
        except (UndeliveredError, ConfigurationError) as error:
            raise DeliveryError(str(error)) from None
