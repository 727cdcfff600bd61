"""Whether what an unverified message claimed can be true, now that the broker's book has spoken."""

from __future__ import annotations

from decimal import Decimal

from orderwire.core.lifecycle import OrderView
from orderwire.core.orders import OrderStatus, OrderUpdate

_PAISA = Decimal("0.01")


def contradiction(claim: OrderUpdate, page: OrderView) -> str:
    """Name what a claim contradicts in an order read from the broker's book after the claim came; "" for nothing.

    An order moves on, so what was true is not what is: only what could never have been is a contradiction. That is
    another instrument or side, more filled than there is, an end that did not come, or other terms of that end.
    """
    found = [
        ("side", claim.side not in {"", page.side}),
        ("instrument", _other_instrument(claim, page)),
        ("filled quantity", claim.filled_quantity > page.filled_quantity),
        *(_of_the_end(claim, page) if claim.status is not None and claim.status.terminal else ()),
    ]
    return ", ".join(name for name, differs in found if differs)


def _other_instrument(claim: OrderUpdate, page: OrderView) -> bool:
    named = claim.known_symbol and page.known_symbol
    return named and (claim.exchange, claim.symbol) != (page.exchange, page.symbol)


def _of_the_end(claim: OrderUpdate, page: OrderView) -> list[tuple[str, bool]]:
    if claim.status is not page.status:
        return [("status", True)]
    filled = claim.status is OrderStatus.FILLED
    priced = claim.price > 0 and page.price > 0 and claim.order_type == page.order_type
    return [
        ("quantity", claim.quantity not in {0, page.quantity}),
        ("filled quantity", filled and claim.filled_quantity < page.filled_quantity),
        ("average price", filled and abs(claim.average_price - page.average_price) > _PAISA),
        ("price", priced and claim.price != page.price),
    ]
