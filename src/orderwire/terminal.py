"""Shows orders in the terminal as they move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orderwire.client import OrderStream, StreamEvent

_STYLES = {
    "FILLED": "green",
    "PARTIALLY_FILLED": "yellow",
    "OPEN": "cyan",
    "REJECTED": "red",
    "CANCELLED": "dim",
    "EXPIRED": "dim",
    "UNKNOWN": "magenta",
}
_FRESHNESS = {
    "LIVE": "green",
    "RECONCILING": "yellow",
    "DEGRADED": "yellow",
    "STALE": "red",
    "AUTH_REQUIRED": "red",
}


class OrdersOnScreen:
    """What the terminal shows: the newest orders of every account, and how fresh each account is."""

    def __init__(self, *, most: int = 30) -> None:
        self._most = most
        self._orders: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._feeds: dict[str, Mapping[str, Any]] = {}

    def take(self, event: StreamEvent) -> None:
        """Apply one event of the stream."""
        if event.kind == "snapshot":
            self._replace(event)
        elif event.kind == "order":
            self._put(event)
        elif event.kind == "feed":
            self._feeds[event.account] = event.fields

    def rows(self) -> list[Mapping[str, Any]]:
        """Return the newest orders, newest first."""
        newest = sorted(self._orders.values(), key=lambda order: order["first_seen"], reverse=True)
        return newest[: self._most]

    def render(self) -> Group:
        """Return what `rich` draws."""
        return Group(self._feed_line(), order_table(self.rows()))

    def _put(self, event: StreamEvent) -> None:
        """A line known by its order id gives way to the same order's line under its submission."""
        order = event.fields
        if order["row"] != order["orderid"]:
            self._orders.pop((event.account, order["orderid"]), None)
        self._orders[event.account, order["row"]] = order

    def _replace(self, event: StreamEvent) -> None:
        self._orders = {key: order for key, order in self._orders.items() if key[0] != event.account}
        for order in event.fields["orders"]:
            self._orders[event.account, order["row"]] = order
        if event.fields.get("feed"):
            self._feeds[event.account] = event.fields["feed"]

    def _feed_line(self) -> Text:
        line = Text()
        for account, feed in sorted(self._feeds.items()):
            line.append(f" {account} ", style="bold")
            line.append(f"{feed['freshness']}", style=_FRESHNESS.get(feed["freshness"], ""))
            line.append(f" {feed['detail']}  ", style="dim")
        return line


def order_table(orders: Iterable[Mapping[str, Any]]) -> Table:
    """Return what `rich` draws of orders, in the order given."""
    table = Table(
        "time", "account", "order", "symbol", "side", "type", "filled", "price", "average", "status"
    )
    for order in orders:
        table.add_row(*_cells(order), Text(_status(order), style=_STYLES.get(order["status"], "")))
    return table


def watch_orders(stream: OrderStream, *, console: Console) -> None:
    """Follow the stream in a live table until Ctrl-C."""
    screen = OrdersOnScreen()
    try:
        with stream, Live(screen.render(), console=console, auto_refresh=False) as live:
            while (event := stream.next()) is not None:
                screen.take(event)
                live.update(screen.render(), refresh=True)
    except KeyboardInterrupt:
        console.print("Stopped.")


def _cells(order: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(order["timestamp"])[-8:],
        order["account"],
        order["orderid"] or "…",
        f"{order['exchange']} {order['symbol']}",
        order["action"],
        order["pricetype"],
        f"{order['filled_quantity']}/{order['quantity']}",
        f"{order['price']:.2f}",
        f"{order['average_price']:.2f}",
    )


def _status(order: Mapping[str, Any]) -> str:
    words = [order["status"].replace("_", " ")]
    words += [word for word in ("pending_modify", "pending_cancel", "conflict", "checking") if order[word]]
    return " · ".join(words)
