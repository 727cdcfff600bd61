"""Reads the bodies and queries of XTS calls and refuses bad fields in Joi's words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from brokersim.orders import OrderType, Side, Terms, Validity
from brokersim.xts.errors import Flaw, XtsError, bad_request

Fields = Mapping[str, Any]
Check = Callable[[str, Any], Flaw | None]
SEGMENTS: Final = ("NSECM", "NSEFO", "NSECD", "NSECO", "BSECM", "BSEFO", "BSECD", "NCDEX", "MCXFO")
PRODUCTS: Final = ("MIS", "NRML", "CNC", "CO", "BO")
SIDES: Final = ("BUY", "SELL")
VALIDITIES: Final = ("DAY", "IOC")
ORDER_TYPES: Final = {
    "MARKET": OrderType.MARKET,
    "LIMIT": OrderType.LIMIT,
    "STOPLIMIT": OrderType.SL,
    "STOPMARKET": OrderType.SLM,
}


def _one_of(*words: str) -> Check:
    def check(name: str, value: Any) -> Flaw | None:
        if value in words:
            return None
        return Flaw(field=name, message=f'"{name}" must be one of [{", ".join(words)}]', type="any.allowOnly")

    return check


def _number(name: str, value: Any) -> Flaw | None:
    if decimal(value) is None:
        return Flaw(field=name, message=f'"{name}" must be a number', type="number.base")
    return None


def _at_least(least: int) -> Check:
    def check(name: str, value: Any) -> Flaw | None:
        found = decimal(value)
        if found is None:
            return _number(name, value)
        if found != found.to_integral_value():
            return Flaw(field=name, message=f'"{name}" must be an integer', type="number.integer")
        if found < least:
            message = f'"{name}" must be larger than or equal to {least}'
            return Flaw(field=name, message=message, type="number.min")
        return None

    return check


def _price(name: str, value: Any) -> Flaw | None:
    found = decimal(value)
    if found is not None and found < 0:
        return Flaw(field=name, message=f'"{name}" must be larger than or equal to 0', type="number.min")
    return _number(name, value)


def _text(name: str, value: Any) -> Flaw | None:
    if isinstance(value, str):
        return None
    return Flaw(field=name, message=f'"{name}" must be a string', type="string.base")


def _yes_or_no(name: str, value: Any) -> Flaw | None:
    if isinstance(value, bool) or value in {"true", "false"}:
        return None
    return Flaw(field=name, message=f'"{name}" must be a boolean', type="boolean.base")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a call must and may bring."""

    required: Mapping[str, Check]
    optional: Mapping[str, Check]
    location: str = "body"

    def read(self, fields: Fields) -> Fields:
        """Give the fields back, or raise XtsError naming every flaw."""
        flaws = [*self._missing(fields), *self._wrong(fields)]
        if flaws:
            raise bad_request(flaws, location=self.location)
        return fields

    def _missing(self, fields: Fields) -> list[Flaw]:
        return [
            Flaw(field=name, message=f'"{name}" is required', type="any.required")
            for name in self.required
            if fields.get(name) is None
        ]

    def _wrong(self, fields: Fields) -> list[Flaw]:
        checks = {**self.required, **self.optional}
        flaws = (check(name, fields[name]) for name, check in checks.items() if fields.get(name) is not None)
        return [flaw for flaw in flaws if flaw is not None]


_CLIENT: Final[Mapping[str, Check]] = {"clientID": _text}
LOGIN: Final = Form(
    required={"appKey": _text, "secretKey": _text},
    optional={"source": _text, "uniqueKey": _text, "accessToken": _text},
)
HOSTLOOKUP: Final = Form(
    required={"version": _text}, optional={"accesspassword": _text, "AccessPassword": _text}
)
PLACE: Final = Form(
    required={
        "exchangeSegment": _one_of(*SEGMENTS),
        "exchangeInstrumentID": _at_least(1),
        "productType": _one_of(*PRODUCTS),
        "orderType": _one_of(*ORDER_TYPES),
        "orderSide": _one_of(*SIDES),
        "timeInForce": _one_of(*VALIDITIES),
        "disclosedQuantity": _at_least(0),
        "orderQuantity": _at_least(1),
        "limitPrice": _price,
        "stopPrice": _price,
    },
    optional={"orderUniqueIdentifier": _text, "apiOrderSource": _text, **_CLIENT},
)
MODIFY: Final = Form(
    required={
        "appOrderID": _at_least(1),
        "modifiedProductType": _one_of(*PRODUCTS),
        "modifiedOrderType": _one_of(*ORDER_TYPES),
        "modifiedOrderQuantity": _at_least(1),
        "modifiedDisclosedQuantity": _at_least(0),
        "modifiedLimitPrice": _price,
        "modifiedStopPrice": _price,
        "modifiedTimeInForce": _one_of(*VALIDITIES),
    },
    optional={"orderUniqueIdentifier": _text, **_CLIENT},
)
CANCEL: Final = Form(
    required={"appOrderID": _at_least(1)},
    optional={"orderUniqueIdentifier": _text, **_CLIENT},
    location="query",
)
CANCEL_ALL: Final = Form(
    required={"exchangeSegment": _one_of(*SEGMENTS), "exchangeInstrumentID": _at_least(0)}, optional=_CLIENT
)
BOOK: Final = Form(required={}, optional={"appOrderID": _at_least(1), **_CLIENT}, location="query")
POSITIONS: Final = Form(
    required={"dayOrNet": _one_of("DayWise", "NetWise")}, optional=_CLIENT, location="query"
)
SQUARE_OFF: Final = Form(
    required={
        "exchangeSegment": _one_of(*SEGMENTS),
        "exchangeInstrumentID": _at_least(1),
        "productType": _one_of(*PRODUCTS),
        "squareoffMode": _one_of("DayWise", "NetWise"),
        "squareOffQtyValue": _at_least(1),
        "positionSquareOffQuantityType": _one_of("Percentage", "ExactQty"),
    },
    optional=_CLIENT,
)
SQUARE_OFF_ALL: Final = Form(required={"squareoffMode": _one_of("DayWise", "NetWise")}, optional=_CLIENT)
CONVERT: Final = Form(
    required={
        "exchangeSegment": _one_of(*SEGMENTS),
        "exchangeInstrumentID": _at_least(1),
        "oldProductType": _one_of(*PRODUCTS),
        "newProductType": _one_of(*PRODUCTS),
        "isDayWise": _yes_or_no,
        "targetQty": _at_least(1),
    },
    optional=_CLIENT,
)


def decimal(value: Any) -> Decimal | None:
    """Read a number sent as number or text; None when it is none. A boolean is none, as for Joi."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return found if found.is_finite() and abs(found) < 10**12 else None


def amount(fields: Fields, name: str) -> Decimal:
    """Read a number that a form has checked."""
    return decimal(fields[name]) or Decimal(0)


def whole(fields: Fields, name: str) -> int:
    """Read a whole number that a form has checked."""
    return int(amount(fields, name))


def placed_terms(fields: Fields) -> Terms:
    """Read the terms of a place call that its form has checked."""
    return _terms(
        fields, ("orderType", "orderQuantity", "limitPrice", "stopPrice", "timeInForce", "disclosedQuantity")
    )


def modified_terms(fields: Fields) -> Terms:
    """Read the terms of a modify call that its form has checked."""
    return _terms(
        fields,
        (
            "modifiedOrderType",
            "modifiedOrderQuantity",
            "modifiedLimitPrice",
            "modifiedStopPrice",
            "modifiedTimeInForce",
            "modifiedDisclosedQuantity",
        ),
    )


def _terms(fields: Fields, names: Sequence[str]) -> Terms:
    type_, quantity, limit, stop, validity, disclosed = names
    kind = ORDER_TYPES[fields[type_]]
    return Terms(
        type=kind,
        quantity=whole(fields, quantity),
        price=amount(fields, limit) if kind.priced else Decimal(0),
        trigger_price=amount(fields, stop) if kind.stop else Decimal(0),
        validity=Validity(fields[validity]),
        disclosed=whole(fields, disclosed),
    )


def side(fields: Fields) -> Side:
    """Read the side of a place call."""
    return Side(fields["orderSide"])


def unreadable() -> XtsError:
    """Refuse a body that is neither JSON nor a form."""
    return XtsError("e-app-001", "Bad Request")
