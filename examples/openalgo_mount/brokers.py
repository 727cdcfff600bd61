"""How the host reads the order book over REST, as it did before orderwire: on request."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

_WORDS = {
    "COMPLETE": "complete",
    "Filled": "complete",
    "CANCELLED": "cancelled",
    "Cancelled": "cancelled",
    "REJECTED": "rejected",
    "Rejected": "rejected",
    "TRIGGER PENDING": "trigger pending",
}


def orders(broker: str, token: str, addresses: dict[str, str]) -> list[dict[str, Any]]:
    """Read the orders of the day; none when the broker cannot be asked."""
    try:
        return _zerodha(token, addresses) if broker == "zerodha" else _jainam(token, addresses)
    except (urllib.error.URLError, KeyError, ValueError):
        return []


def _zerodha(token: str, addresses: dict[str, str]) -> list[dict[str, Any]]:
    api = addresses.get("api", "https://api.kite.trade")
    answer = _get(f"{api}/orders", {"Authorization": f"token {token}", "X-Kite-Version": "3"})
    return [
        {
            "orderid": row["order_id"],
            "symbol": row["tradingsymbol"],
            "action": row["transaction_type"],
            "quantity": row["quantity"],
            "filled_quantity": row["filled_quantity"],
            "order_status": _WORDS.get(row["status"], "open"),
        }
        for row in answer["data"]
    ]


def _jainam(token: str, addresses: dict[str, str]) -> list[dict[str, Any]]:
    base = addresses.get("base", "https://jtrade.jainam.in:5000")
    answer = _get(f"{base}/interactive/orders", {"Authorization": token})
    return [
        {
            "orderid": str(row["AppOrderID"]),
            "symbol": row["TradingSymbol"],
            "action": row["OrderSide"].upper(),
            "quantity": row["OrderQuantity"],
            "filled_quantity": row["CumulativeQuantity"],
            "order_status": _WORDS.get(row["OrderStatus"], "open"),
        }
        for row in answer["result"]
    ]


def _get(url: str, headers: dict[str, str]) -> Any:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the operator's own address
    with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310 - see above
        return json.load(reply)
