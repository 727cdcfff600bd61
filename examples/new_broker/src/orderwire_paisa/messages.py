"""Reads and writes Paisa's messages; pure: bytes in, values out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct
from orderwire.brokers.adapter import BrokerSession
from orderwire.core.instruments import Instrument, InstrumentLookup
from orderwire.core.orders import (
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
    Position,
    Trade,
)
from orderwire.errors import (
    BrokerError,
    BrokerUnreachableError,
    OrderRefusedError,
    PermissionRefusedError,
    ProtocolViolationError,
    SessionExpiredError,
)

NAME = "paisa"

# --- what Paisa's words mean: tables; a word that is not in them stays what it is -------------------------

STATES: Mapping[str, tuple[OrderStatus, int]] = MappingProxyType(
    {
        "RECEIVED": (OrderStatus.PENDING_NEW, 0),
        "WAITING": (OrderStatus.TRIGGER_PENDING, 1),
        "WORKING": (OrderStatus.OPEN, 2),
        "DONE": (OrderStatus.FILLED, 3),
        "CANCELLED": (OrderStatus.CANCELLED, 3),
        "REFUSED": (OrderStatus.REJECTED, 3),
        "LAPSED": (OrderStatus.EXPIRED, 3),
    }
)
"""Our status, and the word's rank: of two words at the same second the higher one is the newer."""
UNKNOWN = (OrderStatus.UNKNOWN, -1)

SIDES: Mapping[str, str] = MappingProxyType({"B": "BUY", "S": "SELL"})
KINDS: Mapping[str, str] = MappingProxyType({"M": "MARKET", "L": "LIMIT", "SL": "SL", "SM": "SL-M"})
PRODUCTS: Mapping[str, str] = MappingProxyType({"D": "CNC", "N": "NRML", "I": "MIS"})

_ERRORS: Mapping[str, type[BrokerError]] = MappingProxyType(
    {
        "E-SESSION": SessionExpiredError,
        "E-DENIED": PermissionRefusedError,
        "E-REFUSED": OrderRefusedError,
    }
)

# --- what Paisa sends; msgspec checks every type and bound ------------------------------------------------

_Count = Annotated[int, Meta(ge=0, le=10**9)]
_Signed = Annotated[int, Meta(ge=-(10**9), le=10**9)]
_Moment = Annotated[datetime, Meta(tz=True)]
_Word = Annotated[str, Meta(min_length=1, max_length=200)]


class _Order(Struct):
    no: _Word
    seg: _Word
    scrip: _Word
    side: _Word
    kind: _Word
    prod: _Word
    qty: _Count
    state: _Word
    at: _Moment
    done: _Count = 0
    limit: Decimal = ZERO
    trigger: Decimal = ZERO
    avg: Decimal = ZERO
    ref: str = ""
    why: str = ""


class _Trade(Struct):
    id: _Word
    no: _Word
    seg: _Word
    scrip: _Word
    side: _Word
    prod: _Word
    qty: _Count
    price: Decimal
    at: _Moment


class _Position(Struct):
    seg: _Word
    scrip: _Word
    prod: _Word
    net: _Signed
    avg: Decimal = ZERO


class _Holding(Struct):
    seg: _Word
    scrip: _Word
    qty: _Count
    avg: Decimal = ZERO


class _Funds(Struct):
    free: Decimal
    used: Decimal


class _Scrip(Struct):
    seg: _Word
    scrip: _Word
    symbol: _Word
    token: _Count
    lot: Annotated[int, Meta(ge=1)] = 1
    tick: Decimal = Decimal("0.05")


class _Login(Struct):
    client: _Word
    token: _Word
    valid_till: _Moment


class _Placed(Struct):
    no: _Word


class _Failure(Struct):
    code: str = ""
    text: str = ""


_ABSENT = Raw()


class _Envelope(Struct):
    ok: Raw = _ABSENT
    error: _Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What every value carries besides what the broker says."""

    account: AccountId
    channel: Channel
    trading_date: date
    received_ns: int
    instruments: InstrumentLookup


T = TypeVar("T")


def decode(text: bytes | str | Raw, kind: type[T]) -> T:
    """Read JSON as that type. Raises ProtocolViolationError, and nothing else, whatever comes."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError) as error:
        raw = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
        raise ProtocolViolationError(f"Paisa's message cannot be read: {error}", raw=raw[:500]) from None


def read_reply(body: bytes, *, status: int) -> Raw:
    """Return what a successful reply holds; raise what a failed one means.

    A fault of Paisa's leaves open whether an order was placed: BrokerUnreachableError(sent=True).
    """
    try:
        envelope = decode(body, _Envelope)
    except ProtocolViolationError:
        if status < 500:
            raise
        envelope = _Envelope(error=_Failure(text=f"HTTP {status}"))
    if envelope.ok and status < 400:
        return envelope.ok
    if envelope.error is None:
        raise ProtocolViolationError("Paisa's reply says neither ok nor error", raw=body[:500])
    kind = _ERRORS.get(envelope.error.code)
    if kind is None:
        raise BrokerUnreachableError(f"Paisa is out of order: {envelope.error.text[:300]}", sent=True)
    raise kind(envelope.error.text[:300])


def read_login(data: Raw) -> BrokerSession:
    login = decode(data, _Login)
    return BrokerSession(user_id=login.client, secrets={"token": login.token}, expires_at=login.valid_till)


def read_placed(data: Raw) -> OrderId:
    return OrderId(decode(data, _Placed).no)


def rows(data: Raw) -> list[Raw]:
    """Take a list apart, so that each value keeps its own bytes."""
    return decode(data, list[Raw])


# --- our values -------------------------------------------------------------------------------------------


def order_update(raw: Raw, reading: Reading, *, history_index: int = -1) -> OrderUpdate:
    row = decode(raw, _Order)
    status, phase = STATES.get(row.state, UNKNOWN)
    if status is OrderStatus.OPEN and row.done:
        status = OrderStatus.PARTIALLY_FILLED
    return OrderUpdate(
        **_common(row.seg, row.scrip, raw, reading),
        order_id=OrderId(row.no),
        raw_status=row.state,
        status=status,
        phase=phase,
        side=SIDES.get(row.side, row.side),
        order_type=KINDS.get(row.kind, row.kind),
        product=PRODUCTS.get(row.prod, row.prod),
        quantity=row.qty,
        filled_quantity=row.done,
        price=_money(row.limit),
        trigger_price=_money(row.trigger),
        average_price=_money(row.avg),
        broker_time=row.at.replace(microsecond=0),
        history_index=history_index,
        reason=row.why[:300],
        tag=row.ref,
    )


def trade(raw: Raw, reading: Reading) -> Trade:
    row = decode(raw, _Trade)
    return Trade(
        **_common(row.seg, row.scrip, raw, reading),
        order_id=OrderId(row.no),
        trade_id=row.id,
        side=SIDES.get(row.side, row.side),
        product=PRODUCTS.get(row.prod, row.prod),
        quantity=row.qty,
        price=_money(row.price),
        traded_at=row.at,
    )


def position(raw: Raw, reading: Reading) -> Position:
    row = decode(raw, _Position)
    return Position(
        **_common(row.seg, row.scrip, raw, reading),
        product=PRODUCTS.get(row.prod, row.prod),
        quantity=row.net,
        average_price=_money(row.avg),
    )


def holding(raw: Raw, reading: Reading) -> Holding:
    row = decode(raw, _Holding)
    known = reading.instruments.by_broker_symbol(row.seg, row.scrip)
    return Holding(
        account=reading.account,
        symbol=known.symbol if known else row.scrip,
        exchange=known.exchange if known else row.seg,
        quantity=row.qty,
        average_price=_money(row.avg),
    )


def funds(data: Raw, account: AccountId) -> Funds:
    money = decode(data, _Funds)
    return Funds(account=account, available=_money(money.free), utilised=_money(money.used))


def instrument(raw: Raw) -> Instrument:
    row = decode(raw, _Scrip)
    return Instrument(
        broker=NAME,
        exchange=row.seg,
        symbol=row.symbol,
        broker_exchange=row.seg,
        broker_symbol=row.scrip,
        token=row.token,
        lot_size=row.lot,
        tick_size=_money(row.tick),
    )


def _common(seg: str, scrip: str, raw: Raw, reading: Reading) -> dict[str, Any]:
    """What orders, trades and positions share; an instrument that is not listed keeps Paisa's spelling."""
    known = reading.instruments.by_broker_symbol(seg, scrip)
    return {
        "account": reading.account,
        "broker": NAME,
        "channel": reading.channel,
        "trading_date": reading.trading_date,
        "received_ns": reading.received_ns,
        "symbol": known.symbol if known else scrip,
        "exchange": known.exchange if known else seg,
        "known_symbol": known is not None,
        "raw": bytes(raw),
    }


def _money(amount: Decimal) -> Decimal:
    if not amount.is_finite() or abs(amount) > 10**12:
        raise ProtocolViolationError(f"{amount} is no amount of money")
    return amount


# --- what we send -----------------------------------------------------------------------------------------


def place_body(request: OrderRequest, listed: Instrument) -> dict[str, Any]:
    terms = {
        "seg": listed.broker_exchange,
        "scrip": listed.broker_symbol,
        "side": _paisas(SIDES, request.side),
        "prod": _paisas(PRODUCTS, request.product),
        "ref": request.tag,
    }
    return terms | _terms(request)


def modify_body(request: ModifyRequest) -> dict[str, Any]:
    return _terms(request)


def _terms(request: OrderRequest | ModifyRequest) -> dict[str, Any]:
    return {
        "kind": _paisas(KINDS, request.order_type),
        "qty": request.quantity,
        "limit": str(request.price),
        "trigger": str(request.trigger_price),
    }


def _paisas(table: Mapping[str, str], word: str) -> str:
    """Return Paisa's word for one of ours."""
    return {ours: paisas for paisas, ours in table.items()}.get(word, word)
