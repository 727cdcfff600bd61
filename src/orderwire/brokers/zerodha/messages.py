"""Reads and writes the messages of Kite Connect v3; pure: bytes in, values out (kite.md)."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from orderwire.core.books import BookRows, TradeRows, read_rows
from orderwire.core.instruments import Instrument, InstrumentLookup
from orderwire.core.orders import (
    IST,
    ZERO,
    AccountId,
    Channel,
    Funds,
    Holding,
    ModifyRequest,
    Money,
    OrderId,
    OrderRequest,
    OrderStatus,
    OrderUpdate,
    Overlay,
    Position,
    Trade,
)
from orderwire.errors import (
    UNDECODABLE,
    BrokerUnreachableError,
    OrderRefusedError,
    OrderwireError,
    PermissionRefusedError,
    ProtocolViolationError,
    SessionExpiredError,
)

NAME = "zerodha"

# --- what Kite's words mean -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one Kite status says: our state (None: none), a pending request, its rank among statuses."""

    status: OrderStatus | None
    phase: int
    overlay: Overlay = Overlay.NONE


STATUSES: Mapping[str, Meaning] = MappingProxyType(
    {
        "PUT ORDER REQ RECEIVED": Meaning(OrderStatus.PENDING_NEW, 0),
        "AMO REQ RECEIVED": Meaning(OrderStatus.PENDING_NEW, 0),
        "VALIDATION PENDING": Meaning(OrderStatus.PENDING_NEW, 1),
        "OPEN PENDING": Meaning(OrderStatus.PENDING_NEW, 2),
        "MODIFY VALIDATION PENDING": Meaning(None, 3, Overlay.PENDING_MODIFY),
        "MODIFY PENDING": Meaning(None, 4, Overlay.PENDING_MODIFY),
        "CANCEL PENDING": Meaning(None, 5, Overlay.PENDING_CANCEL),
        "MODIFIED": Meaning(None, 6),
        "NOT MODIFIED": Meaning(None, 6),
        "TRIGGER PENDING": Meaning(OrderStatus.TRIGGER_PENDING, 7),
        "OPEN": Meaning(OrderStatus.OPEN, 8),
        "UPDATE": Meaning(OrderStatus.OPEN, 8),
        "COMPLETE": Meaning(OrderStatus.FILLED, 9),
        "CANCELLED": Meaning(OrderStatus.CANCELLED, 9),
        "CANCEL": Meaning(OrderStatus.CANCELLED, 9),
        "CANCELED": Meaning(OrderStatus.CANCELLED, 9),
        "REJECTED": Meaning(OrderStatus.REJECTED, 9),
    }
)
"""Kite's statuses (kite.md §3.5), ranked as design.md §6 ranks them. OPEN and UPDATE with fills: PARTIALLY_FILLED."""

UNKNOWN_STATUS = Meaning(OrderStatus.UNKNOWN, -1)

_REMARKS = (
    ("is not allowed to place orders", "static-ip"),
    ("No IPs configured", "static-ip"),
    ("Market orders without market protection", "market-protection"),
    ("Maximum allowed order modifications", "modifications"),
    ("Maximum allowed order requests", "requests"),
    ("Insufficient permission for that call", "plan"),
    ("being processed", "busy"),
    ("Invalid `checksum`", "secret"),
)
_ADVICE = {
    "static-ip": (
        "Zerodha takes orders only from a static IP address registered for your app: add this server's public "
        "address (IPv6 too, if it has one) under developers.kite.trade, Profile, IP whitelist. Order updates "
        "work without it."
    ),
    "market-protection": "Use a LIMIT order, or let orderwire send the market protection.",
    "modifications": "Zerodha allows 25 modifications of an order: cancel it and place a new one.",
    "requests": "Zerodha's limit of orders for this day or minute is reached.",
    "plan": "This Kite Connect app's plan does not include it; the paid Connect plan does.",
    "secret": "The API secret kept for this account is wrong.",
    "busy": "The order is just changing at the exchange: look at it again before you repeat this.",
}

_CERTAIN = frozenset({"InputException", "MarginException", "HoldingException"})
"""Kite's own risk checks: the order was never made (kite.md §2.7)."""
_REFUSALS = frozenset({"OrderException", "GeneralException"})
"""Refusals when the code says so too; with a 5xx code they leave open what happened."""
_ENDED = frozenset({"TokenException", "TwoFAException"})
_NOT_ALLOWED = frozenset({"PermissionException", "UserException"})
_LONGEST_TEXT = 500


def meaning(raw_status: str) -> Meaning:
    """Look a Kite status up; one the table does not know is UNKNOWN, never the nearest.

    `CANCELLED AMO` and other things that follow the word CANCELLED are cancellations (kite.md §3.1).
    """
    word = raw_status.strip().upper()
    if word.startswith("CANCELLED "):
        word = "CANCELLED"
    return STATUSES.get(word, UNKNOWN_STATUS)


def explain(message: str) -> str:
    """Add to one of Kite's error messages what the user can do about it."""
    text = message.strip()[:_LONGEST_TEXT]
    advice = next((_ADVICE[key] for part, key in _REMARKS if part.lower() in text.lower()), "")
    return f"{text} {advice}".strip()


# --- envelopes --------------------------------------------------------------------------------------------


_NOTHING = Raw(b"null")


class _Envelope(Struct):
    status: str = ""
    data: Raw = _NOTHING
    message: str | None = None
    error_type: str | None = None


T = TypeVar("T")

_envelope = msgspec.json.Decoder(_Envelope)
_rows = msgspec.json.Decoder(list[Raw])


def read_reply(body: bytes, *, status: int) -> Raw:
    """Return the `data` of a successful reply.

    Raises what `reply_error` makes of an error reply (decided by `error_type`, not by the HTTP code; kite.md
    §2.7). A reply that is not Kite's JSON is BrokerUnreachableError(sent=True) with a 5xx code, for a gateway
    answered in its stead, and ProtocolViolationError otherwise.
    """
    envelope = _read_envelope(body, status)
    if envelope.status == "success" and status < 400:
        return envelope.data
    if envelope.status != "error" and status < 400:
        raise ProtocolViolationError(
            "Zerodha's reply says neither success nor error", raw=body[:_LONGEST_TEXT]
        )
    raise reply_error(envelope.error_type or "", envelope.message or "", status=status)


def _read_envelope(body: bytes, status: int) -> _Envelope:
    try:
        return decode(_envelope, body)
    except ProtocolViolationError:
        if status >= 500:
            raise BrokerUnreachableError(f"Zerodha is out of order (HTTP {status})", sent=True) from None
        raise


def reply_error(error_type: str, message: str, *, status: int) -> OrderwireError:
    """Turn Kite's error into ours, in words a trader can act on.

    NetworkException, DataException, GeneralException and anything else of the 5xx class leave open whether an
    order was placed (kite.md §2.8): BrokerUnreachableError(sent=True).
    """
    text = explain(message) or f"HTTP {status}"
    if error_type in _ENDED:
        return SessionExpiredError(f"Zerodha does not accept this login any more ({text}). Log in again.")
    if error_type in _NOT_ALLOWED:
        return PermissionRefusedError(text)
    if error_type in _CERTAIN or (status < 500 and error_type in _REFUSALS):
        return OrderRefusedError(text, code=error_type)
    return BrokerUnreachableError(f"Zerodha is out of order: {text}", sent=True)


def decode(decoder: msgspec.json.Decoder[T], text: bytes | str | Raw) -> T:
    """Decode JSON, or raise ProtocolViolationError with the text; no other error, whatever comes."""
    try:
        return decoder.decode(text)
    except (*UNDECODABLE, OverflowError) as error:
        raw = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
        raise ProtocolViolationError(f"Zerodha sent what its API does not allow: {error}", raw=raw) from None


# --- orders, trades, positions ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Whose messages are read, how and when they came, and which instruments the day has."""

    account: AccountId
    channel: Channel
    trading_date: date
    received_ns: int
    instruments: InstrumentLookup
    owner: str = ""
    """The client id a pushed order must name, if it names one."""


class _Order(Struct):
    order_id: str
    status: str
    exchange: str | None = None
    tradingsymbol: str | None = None
    transaction_type: str | None = None
    order_type: str | None = None
    product: str | None = None
    validity: str | None = None
    variety: str | None = None
    quantity: Decimal | None = None
    filled_quantity: Decimal | None = None
    disclosed_quantity: Decimal | None = None
    price: Decimal | None = None
    trigger_price: Decimal | None = None
    average_price: Decimal | None = None
    order_timestamp: str | None = None
    status_message: Any = None
    status_message_raw: Any = None
    exchange_order_id: Any = None
    parent_order_id: Any = None
    placed_by: Any = None
    account_id: Any = None
    user_id: Any = None
    tag: Any = None
    tags: Any = None


class _Trade(Struct):
    trade_id: str
    order_id: str
    exchange: str = ""
    tradingsymbol: str = ""
    transaction_type: str = ""
    product: str = ""
    quantity: Decimal = ZERO
    average_price: Decimal = ZERO
    fill_timestamp: str | None = None
    exchange_timestamp: str | None = None
    exchange_order_id: Any = None


class _Position(Struct):
    tradingsymbol: str
    exchange: str
    product: str
    quantity: Decimal
    average_price: Decimal | None = None
    last_price: Decimal | None = None
    buy_quantity: Decimal | None = None
    sell_quantity: Decimal | None = None
    buy_value: Decimal | None = None
    sell_value: Decimal | None = None
    pnl: Decimal | None = None


class _Positions(Struct):
    net: list[Raw]


class _Holding(Struct):
    tradingsymbol: str
    exchange: str
    quantity: Decimal
    t1_quantity: Decimal | None = None
    product: str | None = None
    average_price: Decimal | None = None
    last_price: Decimal | None = None
    pnl: Decimal | None = None


class _Available(Struct):
    collateral: Decimal | None = None


class _Utilised(Struct):
    debits: Decimal | None = None
    m2m_realised: Decimal | None = None
    m2m_unrealised: Decimal | None = None


class _Segment(Struct):
    net: Decimal | None = None
    available: _Available | None = None
    utilised: _Utilised | None = None


_order = msgspec.json.Decoder(_Order)
_trade = msgspec.json.Decoder(_Trade)
_position = msgspec.json.Decoder(_Position)
_positions = msgspec.json.Decoder(_Positions)
_holding = msgspec.json.Decoder(_Holding)
_segments = msgspec.json.Decoder(dict[str, _Segment | None])


def read_orders(data: Raw, reading: Reading) -> BookRows[OrderUpdate]:
    """Read the rows of `GET /orders`, in the order they came; ProtocolViolationError if it is no list of rows."""
    return read_rows(_list(data), lambda row: read_order(row, reading))


def read_history(data: Raw, reading: Reading) -> BookRows[OrderUpdate]:
    """Read the rows of `GET /orders/{id}`, oldest first, numbered from 0; one that is left out keeps its number."""
    index = itertools.count()
    return read_rows(_list(data), lambda row: read_order(row, reading, history_index=next(index)))


def read_order(data: Raw | bytes, reading: Reading, *, history_index: int = -1) -> OrderUpdate:
    """Read one order as Kite writes it in books, histories and pushes.

    Only `order_id` and `status` must be there. `pending_quantity`, `cancelled_quantity` and
    `unfilled_quantity` are never used: Kite leaves them wrong (kite.md §3.4).
    """
    row = decode(_order, data)
    if reading.owner and (_text(row.account_id) or _text(row.user_id) or reading.owner) != reading.owner:
        raise ProtocolViolationError("Zerodha sent another account's order", raw=bytes(data))
    means = meaning(row.status)
    filled = _quantity(row.filled_quantity, data)
    exchange, symbol, known = _name(row.exchange or "", row.tradingsymbol or "", reading.instruments)
    return OrderUpdate(
        account=reading.account,
        broker=NAME,
        order_id=_order_id(row.order_id, data),
        channel=reading.channel,
        trading_date=reading.trading_date,
        raw_status=row.status,
        status=_with_fills(means.status, filled),
        phase=means.phase,
        overlay=means.overlay,
        symbol=symbol,
        exchange=exchange,
        known_symbol=known,
        side=row.transaction_type or "",
        order_type=row.order_type or "",
        product=row.product or "",
        validity=row.validity or "",
        quantity=_quantity(row.quantity, data),
        filled_quantity=filled,
        price=_money(row.price, data),
        trigger_price=_money(row.trigger_price, data),
        average_price=_money(row.average_price, data),
        disclosed_quantity=_quantity(row.disclosed_quantity, data),
        broker_time=_broker_time(row.order_timestamp, data),
        history_index=history_index,
        reason=_text(row.status_message) or _text(row.status_message_raw),
        tag=_user_tag(row),
        exchange_order_id=_text(row.exchange_order_id),
        parent_order_id=_text(row.parent_order_id) or _slice_parent(row),
        placed_by=_text(row.placed_by),
        received_ns=reading.received_ns,
        raw=bytes(data),
    )


def read_trades(data: Raw, reading: Reading, *, seen: TradeRows | None = None) -> BookRows[Trade]:
    """Read the rows of `GET /trades` or `GET /orders/{id}/trades`; those `seen` before need not be read again."""
    rows = seen or TradeRows()
    return rows.read(_list(data), lambda row: _read_trade(row, reading), day=reading.trading_date)


def _read_trade(data: Raw, reading: Reading) -> Trade:
    row = decode(_trade, data)
    exchange, symbol, known = _name(row.exchange, row.tradingsymbol, reading.instruments)
    return Trade(
        account=reading.account,
        broker=NAME,
        order_id=_order_id(row.order_id, data),
        trade_id=row.trade_id,
        channel=reading.channel,
        trading_date=reading.trading_date,
        symbol=symbol,
        exchange=exchange,
        known_symbol=known,
        side=row.transaction_type,
        product=row.product,
        quantity=_quantity(row.quantity, data),
        price=_money(row.average_price, data),
        traded_at=_broker_time(row.fill_timestamp or row.exchange_timestamp, data),
        exchange_order_id=_text(row.exchange_order_id),
        received_ns=reading.received_ns,
        raw=bytes(data),
    )


def read_positions(data: Raw, reading: Reading) -> BookRows[Position]:
    """Read the net positions of `GET /portfolio/positions`."""
    return read_rows(decode(_positions, data).net, lambda row: _read_position(row, reading))


def _read_position(data: Raw, reading: Reading) -> Position:
    row = decode(_position, data)
    exchange, symbol, known = _name(row.exchange, row.tradingsymbol, reading.instruments)
    return Position(
        account=reading.account,
        broker=NAME,
        channel=reading.channel,
        trading_date=reading.trading_date,
        symbol=symbol,
        exchange=exchange,
        known_symbol=known,
        product=row.product,
        quantity=_quantity(row.quantity, data),
        average_price=_money(row.average_price, data),
        last_price=_money(row.last_price, data),
        buy_quantity=_quantity(row.buy_quantity, data),
        sell_quantity=_quantity(row.sell_quantity, data),
        buy_value=_money(row.buy_value, data),
        sell_value=_money(row.sell_value, data),
        pnl=_money(row.pnl, data),
        received_ns=reading.received_ns,
        raw=bytes(data),
    )


def read_holdings(data: Raw, reading: Reading) -> BookRows[Holding]:
    """Read `GET /portfolio/holdings`; shares on their way into the account (T1) count as held."""
    return read_rows(_list(data), lambda row: _read_holding(row, reading))


def _read_holding(data: Raw, reading: Reading) -> Holding:
    row = decode(_holding, data)
    exchange, symbol, _ = _name(row.exchange, row.tradingsymbol, reading.instruments)
    return Holding(
        account=reading.account,
        symbol=symbol,
        exchange=exchange,
        quantity=_quantity(row.quantity, data) + _quantity(row.t1_quantity, data),
        average_price=_money(row.average_price, data),
        last_price=_money(row.last_price, data),
        product=row.product or "CNC",
        pnl=_money(row.pnl, data),
    )


def read_funds(data: Raw, account: AccountId) -> Funds:
    """Read `GET /user/margins`: the sums over the equity and commodity segments."""
    segments = [segment for segment in decode(_segments, data).values() if segment is not None]
    held = [segment.available or _Available() for segment in segments]
    used = [segment.utilised or _Utilised() for segment in segments]
    return Funds(
        account=account,
        available=_sum((segment.net for segment in segments), data),
        utilised=_sum((one.debits for one in used), data),
        collateral=_sum((one.collateral for one in held), data),
        m2m_realised=_sum((one.m2m_realised for one in used), data),
        m2m_unrealised=_sum((one.m2m_unrealised for one in used), data),
    )


def variety_of(current: OrderUpdate | None) -> str:
    """Return the variety under which an order is changed; `regular` where its last row does not say.

    An after-market order keeps `amo` in its row, but once it is past its AMO state it must be changed as
    `regular`, or the call times out (kite.md §3.2).
    """
    row = _last_row(current)
    variety = (row.variety if row is not None else None) or "regular"
    if not re.fullmatch(r"[a-z]{1,20}", variety):
        return "regular"
    released = variety == "amo" and row is not None and row.status.strip().upper() != "AMO REQ RECEIVED"
    return "regular" if released else variety


def _last_row(current: OrderUpdate | None) -> _Order | None:
    try:
        return decode(_order, current.raw) if current is not None and current.raw else None
    except ProtocolViolationError:  # what we hold did not come from a row
        return None


def _list(data: Raw) -> list[Raw]:
    return [] if bytes(data) == b"null" else decode(_rows, data)


def _with_fills(status: OrderStatus | None, filled: int) -> OrderStatus | None:
    return OrderStatus.PARTIALLY_FILLED if status is OrderStatus.OPEN and filled > 0 else status


def _name(exchange: str, symbol: str, instruments: InstrumentLookup) -> tuple[str, str, bool]:
    found = instruments.by_broker_symbol(exchange, symbol)
    return (exchange, symbol, False) if found is None else (found.exchange, found.symbol, True)


def _text(value: object) -> str:
    return "" if value is None else str(value)[:_LONGEST_TEXT]


_SYSTEM_TAG = re.compile(r"(mktp|autoslice)(:.*)?", re.DOTALL)


def _user_tag(row: _Order) -> str:
    mine = (tag for tag in _tags(row) if not _SYSTEM_TAG.fullmatch(tag))
    return _text(row.tag) or next(mine, "")


def _slice_parent(row: _Order) -> str:
    parents = (tag.partition(":")[2] for tag in _tags(row) if tag.startswith("autoslice:"))
    return next(parents, "")


def _tags(row: _Order) -> list[str]:
    return [str(tag) for tag in row.tags] if isinstance(row.tags, list) else []


_ORDER_ID = re.compile(r"[0-9A-Za-z_-]{1,40}", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
_MOST_DIGITS = 15


def _order_id(text: str, raw: Raw | bytes) -> OrderId:
    if not _ORDER_ID.fullmatch(text):
        raise ProtocolViolationError("an order id holds characters that no order id has", raw=bytes(raw))
    return OrderId(text)


def _quantity(value: Decimal | None, raw: Raw | bytes) -> int:
    number = _money(value, raw)
    if number != number.to_integral_value():
        raise ProtocolViolationError(f"{number} is not a whole quantity", raw=bytes(raw))
    return int(number)


def _money(value: Decimal | None, raw: Raw | bytes) -> Money:
    if value is None:
        return ZERO
    if not value.is_finite() or value.adjusted() > _MOST_DIGITS or len(value.as_tuple().digits) > 40:
        raise ProtocolViolationError("a number is out of all bounds", raw=bytes(raw))
    return value


def _broker_time(text: str | None, raw: Raw | bytes) -> datetime | None:
    if not text:
        return None
    try:
        return moment(text)
    except ValueError:
        raise ProtocolViolationError(f"{text[:40]!r} is not Kite's form of a time", raw=bytes(raw)) from None


def _sum(numbers: Iterable[Decimal | None], raw: Raw) -> Money:
    return sum((_money(number, raw) for number in numbers), ZERO)


def moment(text: str) -> datetime:
    """Read Kite's `YYYY-MM-DD HH:MM:SS`, which is Indian time, as an aware time; else ValueError."""
    if not _MOMENT.fullmatch(text):
        raise ValueError("not YYYY-MM-DD HH:MM:SS")
    return datetime.fromisoformat(text).replace(tzinfo=IST)


# --- what we send -----------------------------------------------------------------------------------------

_PRICED = frozenset({"LIMIT", "SL"})
_TRIGGERED = frozenset({"SL", "SL-M"})
_PROTECTED = frozenset({"MARKET", "SL-M"})


def place_form(request: OrderRequest, instrument: Instrument) -> dict[str, str]:
    """Write the form fields of `POST /orders/regular`, within the rules of 2026 (kite.md §6.2).

    MARKET and SL-M carry `market_protection=-1`, Kite's automatic protection, without which they are refused.
    """
    return {
        "exchange": instrument.broker_exchange,
        "tradingsymbol": instrument.broker_symbol,
        "transaction_type": request.side,
        **_terms(request),
        "product": request.product,
        **({"tag": request.tag} if request.tag else {}),
    }


def modify_form(request: ModifyRequest) -> dict[str, str]:
    """Write the form fields of `PUT /orders/{variety}/{order_id}`."""
    return _terms(request)


def _terms(request: OrderRequest | ModifyRequest) -> dict[str, str]:
    kind = request.order_type
    form = {"order_type": kind, "quantity": str(request.quantity), "validity": request.validity}
    if kind in _PRICED:
        form["price"] = _plain(request.price)
    if kind in _TRIGGERED:
        form["trigger_price"] = _plain(request.trigger_price)
    if request.disclosed_quantity:
        form["disclosed_quantity"] = str(request.disclosed_quantity)
    if kind in _PROTECTED:
        form["market_protection"] = "-1"
    return form


def _plain(price: Money) -> str:
    text = f"{price:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One part of an order that Kite cut up: its id, or why it was refused."""

    order_id: OrderId | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What Kite answered to a placement: the order's id and, for an autosliced one, its parts."""

    order_id: OrderId
    slices: tuple[Slice, ...] = ()


class _SliceError(Struct):
    message: str | None = None


class _Placed(Struct):
    order_id: str | None = None
    children: list[_Placed] | None = None
    error: _SliceError | None = None


_placed = msgspec.json.Decoder(_Placed | list[_Placed])


def read_placed(data: Raw) -> Placed:
    """Read the answer to a placement, modification or cancellation, in both shapes of autoslice (kite.md §7).

    The older shape is a bare list, its first accepted item standing for the order. Raises OrderRefusedError
    when every slice was refused.
    """
    answer = decode(_placed, data)
    if isinstance(answer, list):
        slices = [_slice(item, data) for item in answer]
        first = next((part.order_id for part in slices if part.order_id), None)
        return Placed(order_id=_accepted(first, slices, data), slices=tuple(slices))
    slices = [_slice(item, data) for item in answer.children or ()]
    parent = _order_id(answer.order_id, data) if answer.order_id else None
    return Placed(order_id=_accepted(parent, slices, data), slices=tuple(slices))


def _slice(item: _Placed, raw: Raw) -> Slice:
    order_id = _order_id(item.order_id, raw) if item.order_id else None
    return Slice(order_id=order_id, reason=explain(item.error.message or "") if item.error else "")


def _accepted(order_id: OrderId | None, slices: Sequence[Slice], raw: Raw) -> OrderId:
    if order_id is not None:
        return order_id
    reasons = [part.reason for part in slices if part.reason]
    if reasons:
        raise OrderRefusedError(reasons[0], code="slices")
    raise ProtocolViolationError("Zerodha's answer names no order", raw=bytes(raw))


# --- logging in -------------------------------------------------------------------------------------------

_TOKEN_DIES = time(6, tzinfo=IST)


class _Session(Struct):
    access_token: str
    user_id: str = ""
    user_name: str | None = None
    broker: str | None = None
    login_time: str | None = None


_session = msgspec.json.Decoder(_Session)


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What `POST /session/token` grants."""

    user_id: str
    access_token: str = field(repr=False)
    user_name: str = ""


def read_session(data: Raw) -> Granted:
    """Read the answer of `POST /session/token`; the error of a wrong shape does not quote it."""
    try:
        session = decode(_session, data)
    except ProtocolViolationError:
        raise ProtocolViolationError("Zerodha granted a session of an unknown shape") from None
    if not session.access_token:
        raise ProtocolViolationError("Zerodha granted a session without an access_token")
    return Granted(
        user_id=session.user_id, access_token=session.access_token, user_name=session.user_name or ""
    )


class _Profile(Struct):
    user_id: str
    user_name: str | None = None


_profile = msgspec.json.Decoder(_Profile)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Whose token it is."""

    user_id: str
    user_name: str = ""


def read_profile(data: Raw) -> Client:
    """Read the answer of `GET /user/profile` (kite.md §1)."""
    profile = decode(_profile, data)
    return Client(user_id=profile.user_id, user_name=profile.user_name or "")


def token_dies(now: datetime) -> datetime:
    """Return the next 06:00 IST after `now` (aware): when Kite ends every token (kite.md §1)."""
    edge = datetime.combine(now.astimezone(IST).date(), _TOKEN_DIES)
    return edge if now < edge else edge + timedelta(days=1)


def session_checksum(*, api_key: str, request_token: str, api_secret: str) -> str:
    """Return the checksum that `POST /session/token` wants."""
    return sha256_hex(api_key + request_token + api_secret)


def sha256_hex(text: str) -> str:
    """Return the hash both of Kite's checksums use, in lower-case hex."""
    return hashlib.sha256(text.encode()).hexdigest()


# --- the stream -------------------------------------------------------------------------------------------


FRAME_KINDS = frozenset({"order", "error", "message"})
"""What text frames are known to say; others are left out (kite.md §5.2)."""


class _Frame(Struct):
    type: str = ""
    data: Raw = _NOTHING


_frame = msgspec.json.Decoder(_Frame)
_words = msgspec.json.Decoder(str)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFrame:
    """A text frame: its kind (`order`, `error`, `message`, or whatever Kite invents) and what it carries."""

    kind: str
    data: Raw


def read_frame(text: str | bytes) -> StreamFrame:
    """Read a text frame of the WebSocket; ProtocolViolationError when it is not a JSON object."""
    frame = decode(_frame, text)
    return StreamFrame(kind=frame.type, data=frame.data)


def read_words(data: Raw) -> str:
    """Read the text of an `error` or `message` frame, whatever its type, for a log line."""
    try:
        return decode(_words, data)[:_LONGEST_TEXT]
    except ProtocolViolationError:
        return bytes(data)[:_LONGEST_TEXT].decode("utf-8", "replace")
