"""Reads the form of a placing or modifying call and refuses what Kite's own checks refuse at once."""

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Final, TypeVar

from brokersim.exchange import Exchange, FormalFault, formal_fault
from brokersim.instruments import Instrument
from brokersim.kite.errors import KiteError, bad_input, no_protection
from brokersim.orders import OrderType, Side, Terms, Validity

Form = Mapping[str, str]
VARIETIES: Final = ("regular", "amo", "co", "iceberg", "auction", "test")
PRODUCTS: Final = ("CNC", "NRML", "MIS", "MTF", "CO")
MOST_LEGS: Final = 50
FEWEST_LEGS: Final = 2
LONGEST_TAG: Final = 20
_Choice = TypeVar("_Choice", bound=Enum)

_FORMAL: Final[Mapping[FormalFault, Callable[[Instrument], str]]] = {
    FormalFault.INDEX: lambda each: f"{each.symbol} is an index and cannot be traded.",
    FormalFault.QUANTITY: lambda _: "Invalid `quantity`.",
    FormalFault.LOT: lambda each: f"Quantity should be in multiples of lot size ({each.lot}).",
    FormalFault.PRICE: lambda _: "Invalid `price`.",
    FormalFault.TRIGGER: lambda _: "Invalid `trigger_price`.",
    FormalFault.TICK: lambda each: (
        f"Tick size for this script is {each.tick}. "
        "Kindly enter price in the multiple of tick size for this script."
    ),
}


def text(form: Form, name: str) -> str:
    """Read a field that must be there."""
    value = form.get(name, "").strip()
    if not value:
        raise bad_input(f"Missing or empty field `{name}`")
    return value


def whole(form: Form, name: str, default: int | None = None) -> int:
    """Read an integer field; without a default it must be there. Accepts `5.0` as some clients write."""
    value = form.get(name, "").strip()
    if not value and default is not None:
        return default
    found = decimal(form, name)
    if found != found.to_integral_value() or abs(found) > 10**9:
        raise bad_input(f"Invalid `{name}`.")
    return int(found)


def decimal(form: Form, name: str, default: Decimal | None = None) -> Decimal:
    """Read a price field as an exact decimal; without a default it must be there."""
    value = form.get(name, "").strip()
    if not value and default is not None:
        return default
    try:
        found = Decimal(value)
    except InvalidOperation:
        raise bad_input(f"Missing or invalid field `{name}`") from None
    if not found.is_finite() or found < 0 or found > 10**9:
        raise bad_input(f"Invalid `{name}`.")
    return found


def choice(form: Form, name: str, kind: type[_Choice], default: _Choice | None = None) -> _Choice:
    """Read one of a fixed set of words."""
    value = form.get(name, "").strip()
    if not value and default is not None:
        return default
    try:
        return kind(value)
    except ValueError:
        raise bad_input(f"Missing or invalid field `{name}`") from None


def instrument(form: Form, exchange: Exchange) -> Instrument:
    """Find the contract an order names."""
    found = exchange.instrument(f"{text(form, 'exchange')}:{text(form, 'tradingsymbol')}")
    if found is None:
        raise bad_input("The instrument you are placing an order for has either expired or does not exist.")
    return found


def side(form: Form) -> Side:
    """Read the transaction type."""
    return choice(form, "transaction_type", Side)


def product(form: Form) -> str:
    """Read the product."""
    value = text(form, "product")
    if value not in PRODUCTS:
        raise bad_input("Missing or invalid field `product`")
    return value


def tag(form: Form) -> str:
    """Read the user's tag, at most 20 characters of any kind."""
    value = form.get("tag", "")
    if len(value) > LONGEST_TAG:
        raise bad_input("Invalid `tag`. Max length is 20.")
    return value


def new_terms(form: Form) -> Terms:
    """Read the terms of a new order; prices that its type does not have are ignored."""
    kind = choice(form, "order_type", OrderType)
    return Terms(
        type=kind,
        quantity=whole(form, "quantity"),
        price=decimal(form, "price", Decimal(0)) if kind.priced else Decimal(0),
        trigger_price=decimal(form, "trigger_price", Decimal(0)) if kind.stop else Decimal(0),
        validity=choice(form, "validity", Validity, Validity.DAY),
        disclosed=whole(form, "disclosed_quantity", 0),
    )


def changed_terms(form: Form, old: Terms) -> Terms:
    """Read a modification: what is not in the form stays."""
    kind = choice(form, "order_type", OrderType, old.type)
    return Terms(
        type=kind,
        quantity=whole(form, "quantity", old.quantity),
        price=decimal(form, "price", old.price) if kind.priced else Decimal(0),
        trigger_price=decimal(form, "trigger_price", old.trigger_price) if kind.stop else Decimal(0),
        validity=choice(form, "validity", Validity, old.validity),
        disclosed=whole(form, "disclosed_quantity", old.disclosed),
    )


def check_terms(contract: Instrument, terms: Terms) -> None:
    """Refuse terms with a formal fault: lot, tick, missing price, IOC on MCX."""
    fault = formal_fault(contract, terms)
    if fault is not None:
        raise bad_input(_FORMAL[fault](contract))
    if contract.exchange == "MCX" and terms.validity is Validity.IOC:
        raise bad_input("IOC orders are not allowed on MCX.")


def protection(form: Form, terms: Terms, *, needed: bool) -> Decimal:
    """Read market_protection (-1 automatic, up to 100 percent); refuse a market order without, if it is needed."""
    value = form.get("market_protection", "").strip()
    try:
        found = Decimal(value or 0)
    except InvalidOperation:
        raise bad_input("Invalid `market_protection`.") from None
    if not found.is_finite() or found > 100 or (found < 0 and found != -1):
        raise bad_input("Invalid `market_protection`.")
    if needed and found == 0 and not terms.type.priced:
        raise no_protection()
    return found


def legs(form: Form, quantity: int) -> tuple[int, int]:
    """Read an iceberg's number of legs and quantity per leg."""
    count, each = whole(form, "iceberg_legs"), whole(form, "iceberg_quantity")
    if (
        not FEWEST_LEGS <= count <= MOST_LEGS
        or each <= 0
        or not (count - 1) * each < quantity <= count * each
    ):
        raise bad_input("Invalid `iceberg_legs` or `iceberg_quantity`.")
    return count, each


def variety(name: str) -> str:
    """Check the variety in a path."""
    if name not in VARIETIES:
        raise KiteError(400, "InputException", "Invalid `variety`.")
    return name
