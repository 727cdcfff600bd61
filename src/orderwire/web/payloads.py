"""What browsers and programs are sent: each value as the fields of docs/decisions/0006-pages.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from orderwire.core import lifecycle
from orderwire.core.instruments import Instrument
from orderwire.core.latency import STAGES, Stamps
from orderwire.core.lifecycle import OrderChange, OrderView, openalgo_order
from orderwire.core.orders import IST, AccountId, OrderId, Position, Trade
from orderwire.core.recovery import FeedStatus

PAYLOAD_VERSION: Final = 1
"""Of the Socket.IO payloads; it changes when a field changes its meaning or goes away."""


class Json:
    """The `json` that Socket.IO packs with: msgspec, which takes Decimal, dates and structs as they are."""

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        return msgspec.json.encode(value).decode()

    @staticmethod
    def loads(text: str | bytes, **_: Any) -> Any:
        return json.loads(text)


def milliseconds(at: datetime | None) -> int:
    """Return the wall time in milliseconds since the epoch, 0 for none."""
    return 0 if at is None else round(at.timestamp() * 1000)


def order_fields(view: OrderView) -> dict[str, Any]:
    """Return one order as a row of the book: OpenAlgo's 16 fields and ours."""
    return openalgo_order(view) | {
        "account": view.account,
        "row": view.row,
        "submission": view.submission,
        "status": view.status.value,
        "raw_status": view.raw_status,
        "pending_modify": view.pending_modify,
        "pending_cancel": view.pending_cancel,
        "conflict": view.conflict,
        "checking": view.checking,
        "known_symbol": view.known_symbol,
        "validity": view.validity,
        "disclosed_quantity": view.disclosed_quantity,
        "revision": view.revision,
        "timestamp": _broker_text(view.broker_time),
        "broker_time": milliseconds(view.broker_time),
        "first_seen": milliseconds(view.first_seen),
        "source": view.source.value,
    }


def trade_fields(trade: Trade) -> dict[str, Any]:
    """Return one execution as a row of the trade book."""
    return {
        "account": trade.account,
        "row": trade_key(trade),
        "broker": trade.broker,
        "orderid": trade.order_id,
        "tradeid": trade.trade_id,
        "symbol": trade.symbol,
        "exchange": trade.exchange,
        "action": trade.side,
        "product": trade.product,
        "quantity": trade.quantity,
        "price": float(trade.price),
        "traded_at": milliseconds(trade.traded_at),
        "timestamp": _broker_text(trade.traded_at),
    }


def position_fields(position: Position) -> dict[str, Any]:
    """Return one net position as a row."""
    return {
        "account": position.account,
        "row": position_key(position),
        "broker": position.broker,
        "symbol": position.symbol,
        "exchange": position.exchange,
        "product": position.product,
        "quantity": position.quantity,
        "average_price": float(position.average_price),
        "last_price": float(position.last_price),
        "pnl": float(position.pnl),
    }


def trade_key(trade: Trade) -> str:
    """Return a trade's identity within its account."""
    return "/".join(str(part) for part in lifecycle.trade_key(trade)[1:])


def position_key(position: Position) -> str:
    """Return a position's identity within its account."""
    return f"{position.exchange}/{position.symbol}/{position.product}"


def check_fields(account: AccountId, *, row: str, order_id: OrderId, checking: bool) -> dict[str, Any]:
    """Return that an order is being checked, or not any more; nothing of what was claimed about it."""
    return {"account": account, "row": row, "orderid": order_id, "checking": checking}


def feed_fields(status: FeedStatus) -> dict[str, Any]:
    """Return what a page says about an account's freshness."""
    return {
        "account": status.account,
        "freshness": status.freshness.value,
        "since": milliseconds(status.since),
        "detail": status.detail,
        "read_at": milliseconds(status.read_at),
        "connected": status.connected,
        "next_try": milliseconds(status.next_try),
    }


def instrument_fields(instrument: Instrument) -> dict[str, Any]:
    """Return what the ticket needs to know of an instrument."""
    return {
        "symbol": instrument.symbol,
        "exchange": instrument.exchange,
        "name": instrument.name,
        "kind": instrument.kind,
        "expiry": instrument.expiry.isoformat() if instrument.expiry else "",
        "strike": float(instrument.strike),
        "lot_size": instrument.lot_size,
        "tick_size": float(instrument.tick_size),
        "freeze_quantity": instrument.freeze_quantity,
    }


def change_event(change: OrderChange) -> str:
    """Return the Socket.IO event that carries this change."""
    return f"{change.kind}_update"


def change_key(change: OrderChange) -> tuple[str, str]:
    """Return the row a change is about: of two changes with one key only the newer needs to be sent."""
    if change.order is not None:
        return change.kind, change.order.row
    if change.trade is not None:
        return change.kind, trade_key(change.trade)
    return change.kind, position_key(change.position) if change.position is not None else ""


def change_fields(change: OrderChange) -> dict[str, Any]:
    """Return a change as its event's payload, but for `previous` and the stamp `emitted`, which are each client's."""
    return _row_fields(change) | {
        "account": change.account,
        "epoch": change.epoch,
        "sequence": change.sequence,
        "version": PAYLOAD_VERSION,
        "event_id": change.event_id,
        "source": str(change.source),
    }


def stamp_fields(stamps: Stamps) -> dict[str, float]:
    """Return the stamps in milliseconds since the epoch (fractions kept), 0 where there is none."""
    return {stage: getattr(stamps, stage) / 1e6 for stage in STAGES if stage != "painted"}


def snapshot_fields(
    account: str,
    *,
    epoch: str,
    sequence: int,
    orders: list[OrderView],
    trades: list[Trade],
    positions: list[Position],
    feed: FeedStatus | None,
) -> Mapping[str, Any]:
    """Return everything a page shows of one account, as of `sequence`."""
    return {
        "account": account,
        "epoch": epoch,
        "sequence": sequence,
        "version": PAYLOAD_VERSION,
        "orders": [order_fields(view) for view in orders],
        "trades": [trade_fields(trade) for trade in trades],
        "positions": [position_fields(position) for position in positions],
        "feed": feed_fields(feed) if feed is not None else None,
    }


def _row_fields(change: OrderChange) -> dict[str, Any]:
    if change.order is not None:
        return order_fields(change.order)
    if change.trade is not None:
        return trade_fields(change.trade)
    return position_fields(change.position) if change.position is not None else {}


def _broker_text(at: datetime | None) -> str:
    """Write a time as OpenAlgo's brokers do: India's, without a zone (openalgo.md §2)."""
    return "" if at is None else f"{at.astimezone(IST):%Y-%m-%d %H:%M:%S}"
