"""Reads what people and their browsers type: each field or what is wrong with it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, TypeVar

from orderwire.core.orders import (
    EXCHANGES,
    INDEX_EXCHANGES,
    ORDER_TYPES,
    PRODUCTS,
    SIDES,
    VALIDITIES,
    ModifyRequest,
    OrderId,
    OrderRequest,
)
from orderwire.decoding import decode
from orderwire.errors import UNDECODABLE, InvalidRequestError

T = TypeVar("T")

Fields = Mapping[str, Any]

_PRICED: Final = frozenset({"LIMIT", "SL"})
_TRIGGERED: Final = frozenset({"SL", "SL-M"})
_SYMBOL: Final = re.compile(r"[A-Z0-9][A-Z0-9&._-]{0,39}")
_ORDER_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")
_WHOLE: Final = re.compile(r"[+-]?\d{1,12}")
_MONEY: Final = re.compile(r"[+-]?(\d{1,10}(\.\d{0,6})?|\.\d{1,6})")
_NAMES: Final = MappingProxyType({"side": "action", "order_type": "pricetype"})
"""Our names of fields that OpenAlgo, and so our forms, call otherwise."""

_KEY: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")
_LONGEST: Final = 400


def read_json(body: bytes) -> dict[str, Any]:
    """Read a flat JSON object of texts, numbers and flags. Raises InvalidRequestError for anything else."""
    try:
        return decode(body, dict[str, str | int | float | bool | None])
    except UNDECODABLE:
        raise InvalidRequestError({"": "Send one flat JSON object."}) from None


class Reader:
    """Reads fields one after the other and collects what is wrong, so that all of it is said at once."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self.problems: dict[str, str] = {}

    def text(self, name: str) -> str:
        """Return the field as stripped text; empty when it is missing."""
        value = self._fields.get(name)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return self._wrong(name, "This must be text.", "")
        text = str(value).strip()
        return text if len(text) <= _LONGEST else self._wrong(name, "This is too long.", "")

    def choice(self, name: str, choices: tuple[str, ...], *, default: str = "") -> str:
        """Return one of the choices, in capitals."""
        text = self.text(name).upper() or default
        return text if text in choices else self._wrong(name, f"Choose one of {', '.join(choices)}.", "")

    def matching(self, name: str, pattern: re.Pattern[str], problem: str, *, upper: bool = False) -> str:
        """Return text of a fixed form."""
        text = self.text(name)
        text = text.upper() if upper else text
        return text if pattern.fullmatch(text) else self._wrong(name, problem, "")

    def quantity(self, name: str, *, required: bool = True) -> int:
        """Return a whole number above 0, or 0 when it is missing and need not be there."""
        text = self.text(name)
        if not text:
            return self._wrong(name, "Enter a quantity.", 0) if required else 0
        if not _WHOLE.fullmatch(text.removesuffix(".0")):
            return self._wrong(name, "A quantity is a whole number.", 0)
        number = int(text.removesuffix(".0"))
        if number < 0 or (required and number == 0):
            return self._wrong(name, "A quantity is at least 1.", 0)
        return number

    def money(self, name: str, *, required: bool, what: str) -> Decimal:
        """Return a price above 0, or 0 when it is not asked for."""
        text = self.text(name)
        if not text:
            return self._wrong(name, f"Enter a {what}.", Decimal(0)) if required else Decimal(0)
        if not _MONEY.fullmatch(text):
            return self._wrong(name, f"A {what} is a number such as 1500.25.", Decimal(0))
        number = Decimal(text)
        if number < 0 or (required and number == 0):
            return self._wrong(name, f"A {what} is above 0.", Decimal(0))
        return number

    def done(self, make: Callable[[], T]) -> T:
        """Return what was read. Raises InvalidRequestError with every problem."""
        if self.problems:
            raise InvalidRequestError(self.problems)
        return make()

    def _wrong(self, name: str, problem: str, instead: T) -> T:
        self.problems.setdefault(name, problem)
        return instead


def read_order(fields: Fields) -> OrderRequest:
    """Read a new order. Prices that the order type does not use are left out. Raises InvalidRequestError."""
    reader = Reader(fields)
    pricetype = reader.choice("pricetype", ORDER_TYPES, default="MARKET")
    terms = _terms(reader, pricetype)
    symbol = reader.matching("symbol", _SYMBOL, "Enter a symbol such as INFY.", upper=True)
    exchange = reader.choice("exchange", EXCHANGES + INDEX_EXCHANGES)
    side = reader.choice("action", SIDES)
    return reader.done(lambda: OrderRequest(symbol=symbol, exchange=exchange, side=side, **terms))


def read_modification(fields: Fields) -> ModifyRequest:
    """Read the complete new terms of an order. Raises InvalidRequestError."""
    reader = Reader(fields)
    pricetype = reader.choice("pricetype", ORDER_TYPES)
    terms = _terms(reader, pricetype)
    order_id = read_order_id(reader)
    return reader.done(lambda: ModifyRequest(order_id=order_id, **terms))


def read_cancellation(fields: Fields) -> OrderId:
    """Read which order to cancel. Raises InvalidRequestError."""
    reader = Reader(fields)
    order_id = read_order_id(reader)
    return reader.done(lambda: order_id)


def read_order_id(reader: Reader) -> OrderId:
    """Return the broker's order id."""
    return OrderId(reader.matching("orderid", _ORDER_ID, "This is not an order id."))


def read_idempotency_key(header: str | None) -> str:
    """Read the `Idempotency-Key` header; empty when there is none. Raises InvalidRequestError."""
    if not header:
        return ""
    if not _KEY.fullmatch(header):
        raise InvalidRequestError({"": "An Idempotency-Key has 8 to 64 letters, digits, - or _."})
    return header


def by_form_field(problems: Mapping[str, str]) -> dict[str, str]:
    """Return problems of a request under the names its form has for the fields."""
    return {_NAMES.get(name, name): problem for name, problem in problems.items()}


def safe_target(target: str | None) -> str:
    """Return where to go after a login: a path of ours, never somebody else's site."""
    if not target or not target.startswith("/") or target.startswith(("//", "/\\", "/login", "/logout")):
        return "/"
    return target if target.isprintable() and "\\" not in target else "/"


def _terms(reader: Reader, pricetype: str) -> dict[str, Any]:
    return {
        "order_type": pricetype,
        "product": reader.choice("product", PRODUCTS, default="MIS"),
        "validity": reader.choice("validity", VALIDITIES, default="DAY"),
        "quantity": reader.quantity("quantity"),
        "price": _when(pricetype in _PRICED, reader, "price", "price"),
        "trigger_price": _when(pricetype in _TRIGGERED, reader, "trigger_price", "trigger price"),
        "disclosed_quantity": reader.quantity("disclosed_quantity", required=False),
    }


def _when(used: bool, reader: Reader, name: str, what: str) -> Decimal:
    return reader.money(name, required=True, what=what) if used else Decimal(0)
