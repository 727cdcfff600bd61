"""Kite's refusals: HTTP code, error_type and message, as its clients see them."""

from typing import Any, Final

STATIC_IP_LINK: Final = (
    "https://support.zerodha.com/category/trading-and-markets/general-kite/kite-api/articles/static-ip"
)


class KiteError(Exception):
    """The broker refused a call."""

    def __init__(self, status: int, error_type: str, message: str, *, data: bool = False) -> None:
        """Describe the answer; with `data` the body also has a `data` of null."""
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message
        self.data = data

    def body(self) -> dict[str, Any]:
        """Give the JSON body."""
        body: dict[str, Any] = {"status": "error", "message": self.message}
        if self.data:
            body["data"] = None
        return body | {"error_type": self.error_type}


def bad_token() -> KiteError:
    """Refuse a wrong or dead token."""
    return KiteError(403, "TokenException", "Incorrect `api_key` or `access_token`.", data=True)


def bad_request_token() -> KiteError:
    """Refuse a request_token that is unknown, used or too old."""
    return KiteError(400, "TokenException", "Token is invalid or has expired.", data=True)


def bad_checksum() -> KiteError:
    """Refuse a wrong checksum of the token exchange."""
    return KiteError(403, "TokenException", "Invalid `checksum`.")


def too_many() -> KiteError:
    """Refuse a call over a rate limit."""
    return KiteError(429, "NetworkException", "Too many requests")


def bad_input(message: str) -> KiteError:
    """Refuse a parameter."""
    return KiteError(400, "InputException", message)


def no_order(order_id: str) -> KiteError:
    """Refuse an order id that this user has no order under."""
    return KiteError(400, "OrderException", f"The order for ID ({order_id}) does not exist")


def no_protection() -> KiteError:
    """Refuse a market order without market protection (rule of April 2026)."""
    return bad_input(
        "Market orders without market protection are not allowed via API. "
        "Please set market protection or use a Limit order."
    )


def wrong_address(address: str, *, configured: bool) -> KiteError:
    """Refuse an order from an address that is not on the app's list (rule of April 2026)."""
    text = (
        f"IP ({address}) is not allowed to place orders for this app. "
        f"Update allowed IPs on the Kite developer console. Learn more - {STATIC_IP_LINK}"
        if configured
        else "No IPs configured for this app. Add allowed IPs on the Kite developer console."
    )
    return KiteError(403, "PermissionException", text)


def no_permission() -> KiteError:
    """Refuse what the app's plan does not include."""
    return KiteError(403, "PermissionException", "Insufficient permission for that call.")


def shortfall(message: str) -> KiteError:
    """Refuse an order for lack of margin, before anything is booked."""
    return KiteError(400, "MarginException", message, data=True)
