"""From the position somebody wants to the order that gets there, and from one big order to several. Pure."""

from __future__ import annotations

from orderwire.core.orders import Quantity


def order_to_reach(
    wanted: Quantity, *, held: Quantity, action: str, quantity: Quantity
) -> tuple[str, Quantity] | None:
    """Return side and quantity of the order that brings a net position from `held` to `wanted`; None: none needed.

    OpenAlgo's smart order: wanting 0 while holding nothing means "place the order as it is" (`action`, `quantity`),
    and a quantity of 0 then means that there is nothing to do.
    """
    if wanted == held:
        as_it_is = wanted == 0 and quantity > 0
        return (action, quantity) if as_it_is else None
    gap = wanted - held
    return ("BUY" if gap > 0 else "SELL"), abs(gap)


def order_to_close(held: Quantity) -> tuple[str, Quantity]:
    """Return side and quantity of the order that closes a position that is not 0."""
    return ("SELL" if held > 0 else "BUY"), abs(held)


def split(quantity: Quantity, size: Quantity) -> list[Quantity]:
    """Return quantities of at most `size` that add up to `quantity`; both are above 0."""
    whole, rest = divmod(quantity, size)
    return [size] * whole + ([rest] if rest else [])
