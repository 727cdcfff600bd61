"""The signature of every webhook we send, to a user's program or to the operator's: Standard Webhooks.

Its headers name the message, the moment and an HMAC-SHA256 over both and the body (standardwebhooks.com), so a
receiver can check who sent it with any library of that name, and drop what is old or came twice.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

ID: Final = "webhook-id"
"""The same for every attempt at one message, so that a receiver can leave out what it has."""

TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"

_PREFIX: Final = "whsec_"


def make_secret(entropy: bytes) -> str:
    """Return a secret in the notation that receivers' libraries take."""
    return _PREFIX + base64.b64encode(entropy).decode()


def signature(body: bytes, *, secret: str, message_id: str, at: int) -> str:
    """Return the `webhook-signature` header's value; `at` is in seconds since the epoch.

    A secret in the notation of `make_secret` stands for the bytes it encodes, any other for its UTF-8.
    """
    signed = f"{message_id}.{at}.".encode() + body
    return f"v1,{base64.b64encode(hmac.new(_key(secret), signed, hashlib.sha256).digest()).decode()}"


def headers(body: bytes, *, secret: str, message_id: str, at: int) -> dict[str, str]:
    """Return the headers of one signed JSON message."""
    return {
        "content-type": "application/json",
        "user-agent": "orderwire",
        ID: message_id,
        TIMESTAMP: str(at),
        SIGNATURE: signature(body, secret=secret, message_id=message_id, at=at),
    }


def _key(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:  # the operator's own words that happen to begin like that
        return secret.encode()
