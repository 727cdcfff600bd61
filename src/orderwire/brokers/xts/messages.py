"""Turns what XTS says about orders, trades, positions and money into our values, and our requests into its bodies.

Pure. The rules are xts.md §2-§4 and §6. Every reader raises ProtocolViolationError and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from orderwire.core.books import BookRows, read_rows
from orderwire.core.instruments import MONTHS, Instrument, InstrumentLookup
from orderwire.core.orders import (
    IST,
    ZERO,
    AccountId,
    Channel,
    Funds,
    Holding,
    ModifyRequest,
    OrderId,
    OrderRequest,
    OrderStatus,
    OrderUpdate,
    Overlay,
    Position,
    Quantity,
    Trade,
)
from orderwire.decoding import decode
from orderwire.errors import UNDECODABLE, InvalidRequestError, ProtocolViolationError

Row = Mapping[str, Any]

EXCHANGES: Final[Mapping[str, str]] = {
    "NSECM": "NSE",
    "NSEFO": "NFO",
    "NSECD": "CDS",
    "NSECO": "NCO",
    "BSECM": "BSE",
    "BSEFO": "BFO",
    "BSECD": "BCD",
    "NCDEX": "NCDEX",
    "MCXFO": "MCX",
}
"""OpenAlgo's exchange of each XTS segment (instruments.md §2.2)."""


# --- numbers, times and JSON ------------------------------------------------------------------------------

MOST_KEPT: Final = 8000
"""Bytes of something unreadable that are kept for a person; a row has less than 2,000."""

_MOST_DIGITS = 18
_NOTHING = frozenset({"", "nan", "null", "none", "-"})
_ISO = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[T ](\d{2}):(\d{2}):(\d{2})(?:\.\d*)?(Z|[+-]\d{2}:?\d{2})?", re.ASCII
)
_DAY_FIRST = re.compile(r"(\d{1,2})[-/](\d{1,2})[-/](\d{4}) ?(\d{1,2}):(\d{2}):(\d{2})", re.ASCII)
_NAMED_DAY_FIRST = re.compile(r"(\d{1,2})-([A-Za-z]{3})-(\d{4}) (\d{1,2}):(\d{2}):(\d{2})", re.ASCII)
_NAMED_MONTH_FIRST = re.compile(r"([A-Za-z]{3}) +(\d{1,2}) (\d{4}) +(\d{1,2}):(\d{2}):(\d{2})", re.ASCII)
_PLACEHOLDER_YEARS = frozenset({1, 1900, 1970, 1980})

_json = msgspec.json.Decoder(float_hook=Decimal)


def decode_json(text: str | bytes) -> Any:
    """Decode JSON with decimals kept exact. Raises ProtocolViolationError."""
    try:
        return _json.decode(text)
    except (*UNDECODABLE, InvalidOperation):
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
        raise ProtocolViolationError("what came is not JSON", raw=raw[:MOST_KEPT]) from None


def number(value: Any) -> Decimal | None:
    """Read any spelling of a number (xts.md §4.2): 1, 1.5, "2,853.50"; None for "", "NaN" and null."""
    if isinstance(value, bool):
        raise ProtocolViolationError(f"{value} is not a number")
    if isinstance(value, Decimal):
        return _bounded(value)
    if isinstance(value, int):
        return _bounded(Decimal(value))
    if value is None:
        return None
    if isinstance(value, float):
        value = str(value)
    if not isinstance(value, str):
        raise ProtocolViolationError(f"a {type(value).__name__} is not a number")
    text = value.strip().replace(",", "")
    return None if text.lower() in _NOTHING else _bounded(_decimal(text))


def money(value: Any) -> Decimal:
    """Read a price or an amount; 0 where there is none."""
    return number(value) or ZERO


def units(value: Any) -> Quantity:
    """Read a quantity; 0 where there is none. Raises when it is not whole."""
    amount = money(value)
    if amount != amount.to_integral_value():
        raise ProtocolViolationError(f"{amount} is not a whole quantity")
    return int(amount)


def broker_time(value: Any) -> datetime | None:
    """Read any time format of xts.md §4.1 as IST, cut to whole seconds; None for placeholders and for nothing.

    Raises ProtocolViolationError for a text in no known format: a wrong time would decide what counts as newer.
    """
    text = value.strip() if isinstance(value, str) else ""
    if text.lower() in _NOTHING:
        return None
    for pattern, read in _TIME_FORMATS:
        found = pattern.fullmatch(text)
        if found is not None:
            try:
                moment = read(found)
            except (ValueError, OverflowError):
                break
            return None if moment.year in _PLACEHOLDER_YEARS else moment
    raise ProtocolViolationError(f"a time in no known format: {text[:40]!r}")


def _iso(found: re.Match[str]) -> datetime:
    moment = datetime(*(int(found[part]) for part in range(1, 7)), tzinfo=IST)  # type: ignore[misc,arg-type]  # six ints
    zone = found[7]
    if zone in {None, "+05:30", "+0530"} or moment.year in _PLACEHOLDER_YEARS:
        return moment
    return datetime.fromisoformat(f"{moment:%Y-%m-%dT%H:%M:%S}{zone}").astimezone(IST)


def _day_first(found: re.Match[str]) -> datetime:
    day, month, year, *clock = (int(part) for part in found.groups())
    return datetime(year, month, day, *clock, tzinfo=IST)  # type: ignore[misc,arg-type]  # three ints


def _named_month(month: str, day: str, year: str, clock: Iterable[str]) -> datetime:
    number_of_month = MONTHS.index(month.upper()) + 1
    return datetime(int(year), number_of_month, int(day), *map(int, clock), tzinfo=IST)  # type: ignore[misc,arg-type]  # three ints


_TIME_FORMATS: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], datetime]], ...]] = (
    (_ISO, _iso),
    (_DAY_FIRST, _day_first),
    (_NAMED_DAY_FIRST, lambda found: _named_month(found[2], found[1], found[3], found.groups()[3:])),
    (_NAMED_MONTH_FIRST, lambda found: _named_month(found[1], found[2], found[3], found.groups()[3:])),
)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ProtocolViolationError(f"{text[:40]!r} is not a number") from None


def _bounded(value: Decimal) -> Decimal | None:
    if value.is_nan():
        return None
    if value and (value.is_infinite() or abs(value.adjusted()) > _MOST_DIGITS):
        raise ProtocolViolationError("a number beyond all reason")
    return value


# --- statuses ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRule:
    """What one XTS status word means. `status` None: the order stays what it is, only `overlay` is said."""

    status: OrderStatus | None
    phase: int
    overlay: Overlay = Overlay.NONE


_RESTING = StatusRule(status=OrderStatus.OPEN, phase=3)

STATUSES: Final[Mapping[str, StatusRule]] = {
    "pendingnew": StatusRule(status=OrderStatus.PENDING_NEW, phase=0),
    "pendingreplace": StatusRule(status=None, phase=1, overlay=Overlay.PENDING_MODIFY),
    "pendingcancel": StatusRule(status=None, phase=2, overlay=Overlay.PENDING_CANCEL),
    "new": _RESTING,
    "open": _RESTING,
    "replaced": _RESTING,
    "partiallyfilled": StatusRule(status=OrderStatus.PARTIALLY_FILLED, phase=3),
    "filled": StatusRule(status=OrderStatus.FILLED, phase=4),
    "cancelled": StatusRule(status=OrderStatus.CANCELLED, phase=4),
    "rejected": StatusRule(status=OrderStatus.REJECTED, phase=4),
    "expired": StatusRule(status=OrderStatus.EXPIRED, phase=4),
}
"""XTS's words, in lower case without spaces (xts.md §3.2), with the phase ranks of design §6."""

UNKNOWN_STATUS: Final = StatusRule(status=OrderStatus.UNKNOWN, phase=-1)


def status_rule(word: str, *, filled: Quantity, order_type: str) -> StatusRule:
    """Return what a status word means for an order of that type with that much filled (xts.md §3.2, §3.3)."""
    rule = STATUSES.get(word.replace(" ", "").lower(), UNKNOWN_STATUS)
    if rule is _RESTING:
        return StatusRule(status=resting_status(filled=filled, order_type=order_type), phase=rule.phase)
    return rule


def resting_status(*, filled: Quantity, order_type: str) -> OrderStatus:
    """Return where an order at the exchange stands; TRIGGER_PENDING is inferred from its type (xts.md §3.3).

    After its trigger a stop order is shown as a Market or Limit order that keeps its stop price.
    """
    if filled > 0:
        return OrderStatus.PARTIALLY_FILLED
    return OrderStatus.TRIGGER_PENDING if order_type in {"SL", "SL-M"} else OrderStatus.OPEN


# --- orders, trades, positions ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Where and when bytes were read: what every value made of them carries besides."""

    account: AccountId
    broker: str
    channel: Channel
    trading_date: date
    received_ns: int
    instruments: InstrumentLookup


_ORDER_TYPES: Final = {"limit": "LIMIT", "market": "MARKET", "stoplimit": "SL", "stopmarket": "SL-M"}
_SIDES: Final = {"buy": "BUY", "sell": "SELL"}


def event_rows(argument: Any) -> list[tuple[Row, bytes]]:
    """Read an event's argument: JSON in a string, as XTS sends it, or an object or list itself.

    Each row comes with the bytes to keep of it.
    """
    value = decode_json(argument) if isinstance(argument, str) else argument
    if isinstance(value, list):
        return [(_row(row), _encoded(row)) for row in value]
    raw = argument.encode("utf-8", "replace") if isinstance(argument, str) else _encoded(value)
    return [(_row(value), raw)]


def read_row(raw: bytes) -> Row:
    """Decode one row of a REST list."""
    return _row(decode_json(raw))


def _encoded(value: Any) -> bytes:
    return msgspec.json.Encoder(decimal_format="number").encode(value)


def client_of(row: Row) -> str:
    """Return whose row it is: ClientID, or AccountID in positions. Never LoginID: that is the dealer's."""
    return _text(row, "ClientID") or _text(row, "AccountID")


def order_update(row: Row, reading: Reading, *, raw: bytes, history_index: int = -1) -> OrderUpdate:
    """Read an order: a row of the book or history, an `order` event, or the order's side of a `trade` event.

    Filled is CumulativeQuantity and never LeavesQuantity, which cancelled and rejected orders do not clear.
    """
    quantity = units(row.get("OrderQuantity"))
    filled = units(row.get("CumulativeQuantity"))
    if quantity <= 0 or filled < 0:
        raise _bad_row("an order without a quantity", raw)
    raw_status = _needed(row, "OrderStatus", raw)
    order_type = _word(_ORDER_TYPES, _text(row, "OrderType"))
    rule = status_rule(raw_status, filled=filled, order_type=order_type)
    named = _named(row, reading)
    return OrderUpdate(
        account=reading.account,
        broker=reading.broker,
        order_id=OrderId(_needed(row, "AppOrderID", raw)),
        channel=reading.channel,
        trading_date=reading.trading_date,
        raw_status=raw_status,
        status=rule.status,
        phase=rule.phase,
        overlay=rule.overlay,
        symbol=named.symbol,
        exchange=named.exchange,
        known_symbol=named.known,
        side=_side(row),
        order_type=order_type,
        product=_text(row, "ProductType"),
        validity=_text(row, "TimeInForce"),
        quantity=quantity,
        filled_quantity=filled,
        price=money(row.get("OrderPrice")),
        trigger_price=money(row.get("OrderStopPrice")),
        average_price=_average_price(row) if filled else ZERO,
        disclosed_quantity=units(row.get("OrderDisclosedQuantity")),
        broker_time=_either_time(row, "LastUpdateDateTime"),
        history_index=history_index,
        reason=_text(row, "CancelRejectReason"),
        tag=_text(row, "OrderUniqueIdentifier"),
        exchange_order_id=_text(row, "ExchangeOrderID"),
        parent_order_id=_text(row, "BoEntryOrderId"),
        placed_by=_text(row, "GeneratedBy"),
        received_ns=reading.received_ns,
        raw=raw,
    )


def trade(row: Row, reading: Reading, *, raw: bytes) -> Trade:
    """Read one execution; its identity is ExecutionID within the order."""
    quantity = units(row.get("LastTradedQuantity"))
    if quantity <= 0:
        raise _bad_row("a trade without a quantity", raw)
    named = _named(row, reading)
    return Trade(
        account=reading.account,
        broker=reading.broker,
        order_id=OrderId(_needed(row, "AppOrderID", raw)),
        trade_id=_needed(row, "ExecutionID", raw),
        channel=reading.channel,
        trading_date=reading.trading_date,
        symbol=named.symbol,
        exchange=named.exchange,
        known_symbol=named.known,
        side=_side(row),
        product=_text(row, "ProductType"),
        quantity=quantity,
        price=money(row.get("LastTradedPrice")),
        traded_at=_either_time(row, "LastExecutionTransactTime"),
        exchange_order_id=_text(row, "ExchangeOrderID"),
        received_ns=reading.received_ns,
        raw=raw,
    )


def is_net_position(row: Row) -> bool:
    """Whether a socket position is the net one; the day-wise twin that comes besides is not ours to show."""
    return _text(row, "IsDayWiseNetWise") == "NetWise"


def position(row: Row, reading: Reading, *, raw: bytes) -> Position:
    """Read a position, in REST's names or in the socket's (xts.md §4.2).

    `pnl` is sold minus bought once the position is flat (the broker's RealizedMTM stays 0 then), else its MTM.
    """
    quantity = units(_first(row, "NetPosition", "Quantity"))
    bought, sold = money(_first(row, "BuyValue", "BuyAmount")), money(_first(row, "SellValue", "SellAmount"))
    average = "BuyAveragePrice" if quantity > 0 else "SellAveragePrice"
    named = _named(row, reading)
    if not named.symbol:
        raise _bad_row("a position without an instrument", raw)
    return Position(
        account=reading.account,
        broker=reading.broker,
        channel=reading.channel,
        trading_date=reading.trading_date,
        symbol=named.symbol,
        exchange=named.exchange,
        known_symbol=named.known,
        product=_text(row, "ProductType"),
        quantity=quantity,
        average_price=money(row.get(average)) if quantity else ZERO,
        buy_quantity=units(_first(row, "LongPosition", "OpenBuyQuantity")),
        sell_quantity=units(_first(row, "ShortPosition", "OpenSellQuantity")),
        buy_value=bought,
        sell_value=sold,
        pnl=money(row.get("MTM")) if quantity else sold - bought,
        received_ns=reading.received_ns,
        raw=raw,
    )


def holdings(result: bytes, reading: Reading) -> BookRows[Holding]:
    """Read `RMSHoldings.Holdings{ISIN: {...}}`; the older form is a list, `RMSHoldingList` (M)."""
    whole = _row({} if result.strip() in _EMPTY else decode_json(result))
    held = whole.get("RMSHoldings") or {}
    rows = held.get("Holdings") if isinstance(held, Mapping) else held
    if isinstance(rows, Mapping):
        rows = [{"ISIN": isin, **row} if isinstance(row, Mapping) else row for isin, row in rows.items()]
    rows = rows or whole.get("RMSHoldingList") or []
    if not isinstance(rows, list):
        raise ProtocolViolationError("holdings that are no list", raw=result[:MOST_KEPT])
    return read_rows(map(_encoded, rows), lambda raw: _holding(read_row(raw), reading))


def _holding(row: Row, reading: Reading) -> Holding:
    places = (("NSECM", "ExchangeNSEInstrumentId"), ("BSECM", "ExchangeBSEInstrumentId"))
    held = next(((place, number_) for place, key in places if (number_ := units(row.get(key))) > 0), None)
    found = reading.instruments.by_token(*held) if held else None
    return Holding(
        account=reading.account,
        symbol=found.symbol if found else _text(row, "ISIN"),
        exchange=found.exchange if found else EXCHANGES[held[0] if held else "NSECM"],
        quantity=units(row.get("HoldingQuantity")),
        average_price=money(row.get("BuyAvgPrice")),
    )


def funds(result: bytes, *, account: AccountId) -> Funds:
    """Read the first balance; its values are strings and may be "nan" (xts.md §2.2)."""
    balances = _row(decode_json(result)).get("BalanceList") or [{}]
    if not isinstance(balances, list):
        raise ProtocolViolationError("a balance that is no list", raw=result[:MOST_KEPT])
    limits = _row(_row(_row(balances[0]).get("limitObject") or {}).get("RMSSubLimits") or {})
    return Funds(
        account=account,
        available=_first_money(limits, "netMarginAvailable", "cashAvailable"),
        utilised=money(limits.get("marginUtilized")),
        collateral=money(limits.get("collateral")),
        m2m_realised=money(limits.get("RealizedMTM")),
        m2m_unrealised=money(limits.get("UnrealizedMTM")),
    )


def _first_money(row: Row, *names: str) -> Decimal:
    """The first of these that is a number; "nan" is none."""
    return next((amount for name in names if (amount := number(row.get(name))) is not None), ZERO)


def position_rows(result: bytes) -> list[bytes]:
    """Return the rows of `result.positionList`, each as its own bytes; nothing at all counts as empty."""
    if result.strip() in _EMPTY:
        return []
    try:
        return [bytes(row) for row in decode(result, _PositionList).positionList]
    except UNDECODABLE:
        raise ProtocolViolationError("positions without a list", raw=result[:MOST_KEPT]) from None


def list_rows(result: bytes) -> list[bytes]:
    """Return the rows of a `result` that is a list, each as its own bytes; {} and nothing count as empty."""
    if result.strip() in _EMPTY:
        return []
    try:
        return [bytes(row) for row in decode(result, list[msgspec.Raw])]
    except UNDECODABLE:
        raise ProtocolViolationError("a book that is no list", raw=result[:MOST_KEPT]) from None


_EMPTY: Final = frozenset({b"", b"{}", b"[]", b"null"})


class _PositionList(msgspec.Struct):
    positionList: list[msgspec.Raw] = msgspec.field(default_factory=list)  # noqa: N815 - XTS's own spelling


@dataclass(frozen=True, slots=True)
class _Named:
    symbol: str
    exchange: str
    known: bool


def _named(row: Row, reading: Reading) -> _Named:
    segment = _text(row, "ExchangeSegment")
    token = units(_first(row, "ExchangeInstrumentID", "ExchangeInstrumentId"))
    found = reading.instruments.by_token(segment, token)
    if found is not None:
        return _Named(found.symbol, found.exchange, known=True)
    own = _text(row, "TradingSymbol") or (str(token) if token else "")
    return _Named(own, EXCHANGES.get(segment, segment), known=False)


def _side(row: Row) -> str:
    return _word(_SIDES, _text(row, "OrderSide") or _text(row, "OrderSideAPI"))


def _word(words: Mapping[str, str], text: str) -> str:
    """Our word for the broker's, or the broker's own as it came."""
    return words.get(text.replace(" ", "").lower(), text)


def _average_price(row: Row) -> Decimal:
    average = number(row.get("OrderAverageTradedPrice"))
    return money(row.get("OrderAverageTradedPriceAPI")) if average is None else average


def _either_time(row: Row, field: str) -> datetime | None:
    return broker_time(row.get(field)) or broker_time(row.get(f"{field}API"))


def _first(row: Row, *names: str) -> Any:
    return next((row[name] for name in names if name in row), None)


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    return value.strip() if isinstance(value, str) else "" if value is None else str(value)


def _needed(row: Row, name: str, raw: bytes) -> str:
    text = _text(row, name)
    if not text or len(text) > 64:
        raise _bad_row(f"a row without {name}", raw)
    return text


def _row(value: Any) -> Row:
    if not isinstance(value, Mapping):
        raise ProtocolViolationError(f"a {type(value).__name__} where an object belongs")
    return value


def _bad_row(what: str, raw: bytes) -> ProtocolViolationError:
    return ProtocolViolationError(what, raw=raw[:MOST_KEPT])


# --- requests ---------------------------------------------------------------------------------------------

_REQUEST_TYPES: Final = {"MARKET": "MARKET", "LIMIT": "LIMIT", "SL": "STOPLIMIT", "SL-M": "STOPMARKET"}
_REQUEST_PRODUCTS: Final = frozenset({"CNC", "NRML", "MIS"})
_LONGEST_TAG = 20


def place_body(request: OrderRequest, instrument: Instrument, *, client_id: str = "") -> dict[str, Any]:
    """Return the body of POST /orders; quantities are units, not lots. `client_id` is sent when not empty."""
    _check_terms(request.order_type, request.product)
    if len(request.tag) > _LONGEST_TAG:
        raise InvalidRequestError({"tag": f"the tag has more than {_LONGEST_TAG} characters"})
    return {
        "exchangeSegment": instrument.broker_exchange,
        "exchangeInstrumentID": instrument.token,
        "productType": request.product,
        "orderType": _REQUEST_TYPES[request.order_type],
        "orderSide": request.side,
        "timeInForce": request.validity,
        "disclosedQuantity": request.disclosed_quantity,
        "orderQuantity": request.quantity,
        "limitPrice": _price(request.price, wanted=request.order_type in {"LIMIT", "SL"}),
        "stopPrice": _price(request.trigger_price, wanted=request.order_type in {"SL", "SL-M"}),
        "orderUniqueIdentifier": request.tag,
        **_client(client_id),
    }


def modify_body(request: ModifyRequest, *, tag: str = "", client_id: str = "") -> dict[str, Any]:
    """Return the body of PUT /orders: every `modified*` field is mandatory (xts.md §2). `tag`: the order's own."""
    _check_terms(request.order_type, request.product)
    return {
        "appOrderID": app_order_id(request.order_id),
        "modifiedProductType": request.product,
        "modifiedOrderType": _REQUEST_TYPES[request.order_type],
        "modifiedOrderQuantity": request.quantity,
        "modifiedDisclosedQuantity": request.disclosed_quantity,
        "modifiedLimitPrice": _price(request.price, wanted=request.order_type in {"LIMIT", "SL"}),
        "modifiedStopPrice": _price(request.trigger_price, wanted=request.order_type in {"SL", "SL-M"}),
        "modifiedTimeInForce": request.validity,
        "orderUniqueIdentifier": request.tag or tag,
        **_client(client_id),
    }


def cancel_query(order_id: OrderId, *, client_id: str = "") -> dict[str, str]:
    """Return the query of DELETE /orders."""
    return {"appOrderID": str(app_order_id(order_id)), **_client(client_id)}


def app_order_id(order_id: OrderId) -> int:
    """Return XTS's number of an order. Raises InvalidRequestError when it cannot be one."""
    if not _is_order_number(order_id):
        raise InvalidRequestError({"order_id": f"{order_id[:40]!r} is not an XTS order number"})
    return int(order_id)


def placed_order_id(result: bytes) -> OrderId:
    """Read the order number out of an answer to place, modify or cancel: an object, or a list of one."""
    value = decode_json(result)
    row = _row(value[0] if isinstance(value, list) and value else value)
    text = _needed(row, "AppOrderID", result)
    if not _is_order_number(text):
        raise _bad_row("an answer whose AppOrderID is no number", result)
    return OrderId(text)


def _is_order_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and int(text) > 0


def _check_terms(order_type: str, product: str) -> None:
    problems = {}
    if order_type not in _REQUEST_TYPES:
        problems["order_type"] = f"the order type is {' | '.join(_REQUEST_TYPES)}, not {order_type!r}"
    if product not in _REQUEST_PRODUCTS:
        problems["product"] = f"the product is CNC | NRML | MIS, not {product!r}"
    if problems:
        raise InvalidRequestError(problems)


def _price(value: Decimal, *, wanted: bool) -> int | float:
    """A JSON number: whole ones as integers, others as the shortest float, which prints as the decimal was."""
    if not wanted:
        return 0
    return int(value) if value == value.to_integral_value() else float(value)


def _client(client_id: str) -> dict[str, str]:
    return {"clientID": client_id} if client_id else {}
