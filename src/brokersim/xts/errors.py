"""XTS's refusals: nearly everything is HTTP 400 with a code and a description.

Codes and texts are those of the XTS protocol document, section 1.6; the ones marked "invented" there stand for
answers nobody has recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class XtsError(Exception):
    """The broker refused a call."""

    def __init__(
        self, code: str, description: str, *, status: int = 400, result: dict[str, Any] | None = None
    ) -> None:
        """Describe the answer."""
        super().__init__(description)
        self.status = status
        self.code = code
        self.description = description
        self.result = result

    def body(self) -> dict[str, Any]:
        """Give the JSON body."""
        body: dict[str, Any] = {"type": "error", "code": self.code, "description": self.description}
        return body if self.result is None else body | {"result": self.result}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """One field that failed validation, with Joi's message and type."""

    field: str
    message: str
    type: str


def bad_request(flaws: Sequence[Flaw], *, location: str = "body") -> XtsError:
    """Refuse fields, in Joi's own words."""
    errors = [
        {"field": [flaw.field], "location": location, "messages": [flaw.message], "types": [flaw.type]}
        for flaw in flaws
    ]
    result = {"status": 400, "statusText": "Bad Request", "errors": errors}
    return XtsError("e-property-validation-failed", "Bad Request", result=result)


def no_token() -> XtsError:
    """Refuse a call without an Authorization header."""
    return XtsError("e-token-0002", "Please Provide token to Authenticate")


def invalid_token() -> XtsError:
    """Refuse a token that is not ours."""
    return XtsError("e-session-0007", "Invalid Token")


def session_over() -> XtsError:
    """Refuse a token that was replaced, logged out or has expired."""
    return XtsError("e-session-0005", "Session is invalid or has expired. Please login again.")


def too_many(user: str) -> XtsError:
    """Refuse a call over a rate limit."""
    return XtsError("e-apirl-0004", f"Rate Limit exceeded for user {user}", status=429)


def empty(book: str) -> XtsError:
    """Say that a book is empty, which XTS does with an error."""
    return XtsError(f"e-{book}-0005", "Data Not Available")


def not_mapped() -> XtsError:
    """Refuse a client that is not the dealer's."""
    return XtsError("e-trade-00002", "Supplied client not mapped under dealer")


def no_order() -> XtsError:
    """Refuse an AppOrderID that is not (or not yet) known."""
    return XtsError("e-orders-0001", "Order not found")


def not_live(status: str) -> XtsError:
    """Refuse a modification or cancellation of an order that does not rest (code and text invented)."""
    return XtsError("e-orders-0004", f"Order can not be modified or cancelled in status {status}")


def no_instrument() -> XtsError:
    """Refuse a contract that is not listed (code and text invented)."""
    return XtsError("e-instrument-0003", "Instrument not found")


def wrong_secret() -> XtsError:
    """Refuse a login with an unknown app key or a wrong secret (code and text invented)."""
    return XtsError("e-user-0001", "Invalid appKey or secretKey")


def wrong_key() -> XtsError:
    """Refuse a login whose uniqueKey did not come from the hostlookup (code and text invented)."""
    return XtsError("e-hostlookup-0002", "Invalid uniqueKey")


def wrong_password() -> XtsError:
    """Refuse a hostlookup with a wrong access password (code and text invented)."""
    return XtsError("e-hostlookup-0001", "Invalid accesspassword")
