"""How Kite spells orders, trades and positions: pure functions from snapshots to JSON objects.

Names, types, nulls and oddities as in the protocol document; what is only assumed is said in docs/brokersim.md.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from brokersim.orders import Cause, OrderSnapshot, Stage, Trade
from brokersim.portfolio import Position
from brokersim.users import KiteApp
from brokersim.written import Row

# A stage without a status of its own makes no row.
STATUS: Final[Mapping[Stage, str | None]] = {
    Stage.AMO_RECEIVED: "AMO REQ RECEIVED",
    Stage.RECEIVED: "PUT ORDER REQ RECEIVED",
    Stage.VALIDATING: "VALIDATION PENDING",
    Stage.SENT: "OPEN PENDING",
    Stage.OPEN: "OPEN",
    Stage.PARTIALLY_FILLED: "OPEN",
    Stage.TRIGGER_PENDING: "TRIGGER PENDING",
    Stage.MODIFY_VALIDATING: "MODIFY VALIDATION PENDING",
    Stage.MODIFY_SENT: "MODIFY PENDING",
    Stage.MODIFIED: "MODIFIED",
    Stage.MODIFY_REFUSED: "NOT MODIFIED",
    Stage.CANCEL_SENT: "CANCEL PENDING",
    Stage.CANCEL_REFUSED: None,
    Stage.FILLED: "COMPLETE",
    Stage.CANCELLED: "CANCELLED",
    Stage.REJECTED: "REJECTED",
    Stage.EXPIRED: "CANCELLED",
}
_HISTORY_LACKS: Final = (
    "status_message_raw",
    "exchange_update_timestamp",
    "market_protection",
    "meta",
    "tag",
    "tags",
    "guid",
    "account_id",
    "modified",
)
_PUSH_LACKS: Final = ("modified", "account_id", "validity_ttl")


def number(value: Decimal) -> int | float:
    """Write a price as Kite does: a whole number without a point, else a float."""
    return int(value) if value == value.to_integral_value() else float(value)


def stamp(moment: datetime | None) -> str | None:
    """Write a time as Kite does: Indian time, whole seconds, no offset."""
    return moment.strftime("%Y-%m-%d %H:%M:%S") if moment else None


def order_row(order: OrderSnapshot) -> Row:
    """Write one row of the order book."""
    request, terms = order.request, order.terms
    pending, cancelled = _quantities(order)
    row: Row = {
        "account_id": order.user,
        "placed_by": request.placed_by,
        "order_id": order.order_id,
        "exchange_order_id": order.exchange_order_id or None,
        "parent_order_id": request.parent_id or None,
        "status": STATUS[order.stage] or STATUS[order.resting_stage],
        "status_message": order.reason.text if order.reason else None,
        "status_message_raw": order.reason.raw if order.reason else None,
        "order_timestamp": stamp(order.updated_at),
        "exchange_update_timestamp": stamp(order.exchange_updated_at),
        "exchange_timestamp": stamp(order.registered_at),
        "variety": request.variety,
        "modified": False,
        "exchange": order.instrument.exchange,
        "tradingsymbol": order.instrument.symbol,
        "instrument_token": order.instrument.kite_token,
        "order_type": terms.type.value,
        "transaction_type": order.side.value,
        "validity": terms.validity.value,
        "validity_ttl": request.ttl_minutes,
        "product": request.product,
        "quantity": terms.quantity,
        "disclosed_quantity": terms.disclosed,
        "price": number(terms.price),
        "trigger_price": number(terms.trigger_price),
        "average_price": number(order.average),
        "filled_quantity": order.filled,
        "pending_quantity": pending,
        "cancelled_quantity": cancelled,
        "market_protection": request.meta.get("market_protection", 0),
        "meta": request.meta.get("meta", {}),
        "tag": request.tag or None,
        "guid": request.meta.get("guid"),
    }
    tags = ([request.tag] if request.tag else []) + list(request.meta.get("tags", ()))
    return row | ({"tags": tags} if tags else {})


def _quantities(order: OrderSnapshot) -> tuple[int, int]:
    """Give pending and cancelled; after CANCELLED the pending quantity is not set to zero."""
    if order.stage in {Stage.REJECTED, Stage.FILLED}:
        return 0, 0
    done = order.stage in {Stage.CANCELLED, Stage.EXPIRED}
    return order.remaining, order.remaining if done else 0


def history_rows(history: Iterable[OrderSnapshot]) -> list[Row]:
    """Write an order's history, oldest first; the first row has the wrong instrument_token 1, as Kite's has."""
    rows = [_history_row(each) for each in history if STATUS[each.stage] is not None]
    return [row | {"instrument_token": 1} if _is_first(row) else row for row in rows]


def _history_row(order: OrderSnapshot) -> Row:
    return {key: value for key, value in order_row(order).items() if key not in _HISTORY_LACKS}


def _is_first(row: Row) -> bool:
    return bool(row["status"] == "PUT ORDER REQ RECEIVED")


def trade_row(trade: Trade) -> Row:
    """Write one row of the trade book; its order_timestamp is the time of day alone."""
    order, instrument = trade.order, trade.order.instrument
    return {
        "trade_id": trade.trade_id,
        "order_id": order.order_id,
        "exchange": instrument.exchange,
        "tradingsymbol": instrument.symbol,
        "instrument_token": instrument.kite_token,
        "product": order.product,
        "average_price": number(trade.price),
        "quantity": trade.quantity,
        "exchange_order_id": trade.exchange_order_id,
        "transaction_type": order.side.value,
        "fill_timestamp": stamp(trade.at),
        "order_timestamp": trade.at.strftime("%H:%M:%S"),
        "exchange_timestamp": stamp(trade.at),
    }


def position_row(position: Position) -> Row:
    """Write one row of the positions."""
    multiplier = position.instrument.multiplier
    buys = _leg("buy", position.buy_quantity, position.buy_value * multiplier, position.buy_average)
    sells = _leg("sell", position.sell_quantity, position.sell_value * multiplier, position.sell_average)
    profit = position.realised + position.unrealised
    return {
        "tradingsymbol": position.instrument.symbol,
        "exchange": position.instrument.exchange,
        "instrument_token": position.instrument.kite_token,
        "product": position.product,
        "quantity": position.quantity,
        "overnight_quantity": 0,
        "multiplier": multiplier,
        "average_price": number(position.average),
        "close_price": 0,
        "last_price": number(position.last),
        "value": number((position.sell_value - position.buy_value) * multiplier),
        "pnl": number(profit),
        "m2m": number(profit),
        "unrealised": number(position.unrealised),
        "realised": number(position.realised),
        **buys,
        **sells,
    }


def _leg(side: str, quantity: int, value: Decimal, average: Decimal) -> Row:
    return {
        f"{side}_quantity": quantity,
        f"{side}_price": number(average),
        f"{side}_value": number(value),
        f"{side}_m2m": number(value),
        f"day_{side}_quantity": quantity,
        f"day_{side}_price": number(average),
        f"day_{side}_value": number(value),
    }


def push_status(order: OrderSnapshot, before: OrderSnapshot | None) -> str | None:
    """Say which status a step is pushed with; None if it is not pushed at all.

    UPDATE stands for a partial fill, a modification that took or failed, a failed cancellation and a trigger.
    """
    if order.stage in {Stage.FILLED, Stage.CANCELLED, Stage.REJECTED, Stage.EXPIRED}:
        return STATUS[order.stage]
    if order.stage is Stage.OPEN and order.cause is Cause.PLACED:
        return "OPEN"
    if order.stage is Stage.PARTIALLY_FILLED and order.cause is Cause.FILL:
        return "UPDATE"
    if order.cause is Cause.TRIGGER:
        return "UPDATE"
    settled = before is not None and before.stage in {
        Stage.MODIFIED,
        Stage.MODIFY_REFUSED,
        Stage.CANCEL_REFUSED,
    }
    return "UPDATE" if settled else None


def push_row(order: OrderSnapshot, status: str) -> Row:
    """Write what both kinds of push carry; `unfilled_quantity` is a legacy field that is always 0."""
    row = {key: value for key, value in order_row(order).items() if key not in _PUSH_LACKS}
    return {"unfilled_quantity": 0, "checksum": ""} | row | {"status": status}


def socket_data(order: OrderSnapshot, status: str) -> Row:
    """Write the `data` of a WebSocket order frame: an account_id, an empty checksum, no app_id."""
    return {"account_id": order.user} | push_row(order, status)


def postback_body(order: OrderSnapshot, status: str, app: KiteApp) -> Row:
    """Write the body of a postback, with its checksum."""
    row = push_row(order, status)
    checksum = postback_checksum(order.order_id, row["order_timestamp"], app.api_secret)
    return {"user_id": order.user, "app_id": app.app_id} | row | {"checksum": checksum}


def postback_checksum(order_id: str, order_timestamp: str, api_secret: str) -> str:
    """Compute a postback's checksum: SHA-256 over order id, time and secret, without separators, as hex."""
    return hashlib.sha256(f"{order_id}{order_timestamp}{api_secret}".encode()).hexdigest()


def session_checksum(api_key: str, request_token: str, api_secret: str) -> str:
    """Compute the checksum of the token exchange."""
    return hashlib.sha256(f"{api_key}{request_token}{api_secret}".encode()).hexdigest()


def visible(history: Sequence[OrderSnapshot], until: datetime) -> list[OrderSnapshot]:
    """Keep what a lagging book shows: the steps taken until then."""
    return [each for each in history if each.updated_at <= until]
