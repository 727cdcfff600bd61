"""The commands of somebody who trades from the terminal: watch, orders, place, cancel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orderwire.config import Settings
from orderwire.console import DataDir, err, operate, out, read_settings
from orderwire.errors import ConfigurationError
from orderwire.store.users import Scope

if TYPE_CHECKING:
    from orderwire.client import Orders

app = typer.Typer()

UrlOption = Annotated[str, typer.Option("--url", help="Address of the service.")]
KeyOption = Annotated[
    str,
    typer.Option(
        "--apikey",
        help="API key (apikeys add); with none, one is made for --user.",
        envvar="ORDERWIRE_APIKEY",
    ),
]
UserOption = Annotated[str, typer.Option("--user", help="As whom, when no key is given, on this machine.")]
AccountOption = Annotated[str, typer.Option("--account", help="Of this account; needed with several.")]


@app.command()
def watch(
    url: UrlOption = "",
    apikey: KeyOption = "",
    user: UserOption = "",
    data_dir: DataDir = None,
) -> None:
    """Follow orders in a live table."""
    from orderwire.client import OrderStream  # noqa: PLC0415 - 0.3 s that other commands need not wait
    from orderwire.terminal import watch_orders  # noqa: PLC0415 - see above

    settings = read_settings(data_dir)
    with _key(settings, apikey, user, scope=Scope.READ) as key:
        watch_orders(OrderStream(url or settings.url, apikey=key), console=out)


@app.command("orders")
def list_orders(
    url: UrlOption = "",
    apikey: KeyOption = "",
    user: UserOption = "",
    account: AccountOption = "",
    open_only: Annotated[
        bool, typer.Option("--open", help="Only those something can still happen to.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """List the session day's orders."""
    from orderwire.terminal import order_table  # noqa: PLC0415 - see watch

    with _desk(url, apikey, user, account, data_dir=data_dir, scope=Scope.READ) as desk:
        data = desk.call("orderbook")["data"]
    rows = [
        row for row in data["orders"] if not open_only or row["order_status"] in {"open", "trigger pending"}
    ]
    if not out.is_terminal:
        out.width = 200  # into a pipe or a file: whole order ids
    out.print(order_table(rows) if rows else "none")
    for one in data["accounts"]:
        if one["freshness"] != "LIVE":
            err.print(f"{one['account']} is {one['freshness']}: this may be out of date.", style="yellow")


@app.command()
def place(
    action: Annotated[str, typer.Argument(help="BUY or SELL.")],
    quantity: Annotated[int, typer.Argument(min=1)],
    symbol: str,
    price: Annotated[str, typer.Option(help="Limit price; left out: at market.")] = "",
    trigger: Annotated[str, typer.Option(help="Trigger price of a stop order.")] = "",
    exchange: Annotated[str, typer.Option(help="NSE, NFO, BSE, MCX …")] = "NSE",
    product: Annotated[str, typer.Option(help="MIS, CNC or NRML.")] = "MIS",
    validity: Annotated[str, typer.Option(help="DAY or IOC.")] = "DAY",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    idempotency_key: Annotated[
        str, typer.Option("--key", help="Placed once, however often it is asked with this key.")
    ] = "",
    url: UrlOption = "",
    apikey: KeyOption = "",
    user: UserOption = "",
    account: AccountOption = "",
    data_dir: DataDir = None,
) -> None:
    """Place one order: orderwire place BUY 10 INFY --price 1500.5."""
    pricetype = {(False, False): "MARKET", (True, False): "LIMIT", (False, True): "SL-M", (True, True): "SL"}
    order: dict[str, Any] = {
        "action": action.upper(),
        "quantity": quantity,
        "symbol": symbol.upper(),
        "exchange": exchange.upper(),
        "product": product.upper(),
        "validity": validity.upper(),
        "pricetype": pricetype[bool(price), bool(trigger)],
        "price": price or "0",
        "trigger_price": trigger or "0",
    }
    if not yes:
        typer.confirm(_described(order), abort=True)
    with _desk(url, apikey, user, account, data_dir=data_dir, scope=Scope.TRADE) as desk:
        orderid, _ = desk.place(idempotency_key=idempotency_key, **order)
    out.print(f"Placed: order [bold]{orderid}[/].", highlight=False)


@app.command()
def cancel(
    orderids: Annotated[list[str] | None, typer.Argument(help="Order ids.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every order something can still happen to.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: UrlOption = "",
    apikey: KeyOption = "",
    user: UserOption = "",
    account: AccountOption = "",
    data_dir: DataDir = None,
) -> None:
    """Cancel orders."""
    if bool(orderids) is every:
        raise ConfigurationError("Give order ids, or --all.")
    if every and not yes:
        typer.confirm("Cancel every live order?", abort=True)
    with _desk(url, apikey, user, account, data_dir=data_dir, scope=Scope.TRADE) as desk:
        if every:
            out.print(desk.call("cancelallorder")["message"], highlight=False)
        for orderid in orderids or []:
            desk.cancel(orderid)
            out.print(f"Cancellation of [bold]{orderid}[/] is on its way.", highlight=False)


def _described(order: dict[str, Any]) -> str:
    terms = {
        "MARKET": "at market",
        "LIMIT": f"at {order['price']}",
        "SL-M": f"at market once {order['trigger_price']} is reached",
        "SL": f"at {order['price']} once {order['trigger_price']} is reached",
    }[order["pricetype"]]
    return f"{order['action']} {order['quantity']} {order['symbol']} {order['exchange']} {terms}, {order['product']}?"


@contextmanager
def _desk(url: str, apikey: str, user: str, account: str, *, data_dir: Any, scope: Scope) -> Iterator[Orders]:
    from orderwire.client import Orders  # noqa: PLC0415 - see watch

    settings = read_settings(data_dir)
    with (
        _key(settings, apikey, user, scope=scope) as key,
        Orders(url or settings.url, apikey=key, account=account) as desk,
    ):
        yield desk


@contextmanager
def _key(settings: Settings, apikey: str, user: str, *, scope: Scope) -> Iterator[str]:
    """Give the key, or make one for as long as the command runs."""
    if apikey:
        yield apikey
        return
    if not user:
        raise ConfigurationError("Give an API key (--apikey), or --user to act as somebody on this machine.")
    made = operate(settings, "apikeys.add", owner=user, scope=scope, label="orderwire, in a terminal")
    try:
        yield made["key"]
    finally:
        operate(settings, "apikeys.revoke", owner=user, id=made["id"])
