"""The rows of the REST answers, in OpenAlgo's words (openalgo.md §1) with ours beside them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from orderwire.core.lifecycle import OrderView, openalgo_status
from orderwire.core.orders import Funds, Holding, Position, Trade
from orderwire.store.notifications import Delivery
from orderwire.web import payloads


def statistics(views: Sequence[OrderView]) -> dict[str, int]:
    """Count the orders of a book, by side and by what became of them."""
    words = [openalgo_status(view) for view in views]
    return {
        "total_buy_orders": sum(view.side == "BUY" for view in views),
        "total_sell_orders": sum(view.side == "SELL" for view in views),
        "total_completed_orders": words.count("complete"),
        "total_open_orders": words.count("open") + words.count("trigger pending"),
        "total_rejected_orders": words.count("rejected"),
    }


def trade_row(trade: Trade) -> dict[str, Any]:
    """Return one execution."""
    fields = payloads.trade_fields(trade)
    wanted = (
        "account",
        "broker",
        "orderid",
        "tradeid",
        "symbol",
        "exchange",
        "action",
        "product",
        "quantity",
    )
    return {name: fields[name] for name in wanted} | {
        "average_price": fields["price"],
        "trade_value": float(trade.price * trade.quantity),
        "timestamp": fields["timestamp"],
    }


def position_row(position: Position) -> dict[str, Any]:
    """Return one net position."""
    return {
        "account": position.account,
        "symbol": position.symbol,
        "exchange": position.exchange,
        "product": position.product,
        "quantity": position.quantity,
        "average_price": f"{position.average_price:.2f}",
        "ltp": float(position.last_price),
        "pnl": float(position.pnl),
    }


def holding_row(holding: Holding) -> dict[str, Any]:
    """Return one holding."""
    cost = holding.average_price * holding.quantity
    return {
        "account": holding.account,
        "symbol": holding.symbol,
        "exchange": holding.exchange,
        "product": holding.product,
        "quantity": holding.quantity,
        "average_price": float(holding.average_price),
        "ltp": float(holding.last_price),
        "pnl": float(holding.pnl),
        "pnlpercent": _percent(holding.pnl, cost),
    }


def worth(holdings: Sequence[Holding]) -> dict[str, float]:
    """Return what all holdings together are worth."""
    value = sum((one.last_price * one.quantity for one in holdings), Decimal(0))
    cost = sum((one.average_price * one.quantity for one in holdings), Decimal(0))
    gain = sum((one.pnl for one in holdings), Decimal(0))
    return {
        "totalholdingvalue": float(value),
        "totalinvvalue": float(cost),
        "totalprofitandloss": float(gain),
        "totalpnlpercentage": _percent(gain, cost),
    }


def _percent(part: Decimal, whole: Decimal) -> float:
    return round(float(part / whole * 100), 2) if whole else 0.0


def money(funds: Sequence[Funds]) -> dict[str, str]:
    """Return the money of several accounts together."""

    def total(name: str) -> str:
        return f"{sum((getattr(one, name) for one in funds), Decimal(0)):.2f}"

    return {
        "availablecash": total("available"),
        "collateral": total("collateral"),
        "m2mrealized": total("m2m_realised"),
        "m2munrealized": total("m2m_unrealised"),
        "utiliseddebits": total("utilised"),
    }


def notification_row(delivery: Delivery) -> dict[str, Any]:
    """Return one notification on its way, or past it."""
    return {
        "id": delivery.id,
        "target": delivery.target,
        "occasion": delivery.notification.occasion,
        "account": delivery.notification.account,
        "title": delivery.notification.title,
        "text": delivery.notification.text,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "error": delivery.error,
        "queued": payloads.milliseconds(delivery.queued),
    }
