"""Writes an order's moments as the brokers do: Kite's rows, pushes and postbacks, XTS's rows and events.

From the protocol documents alone, with the standard library alone; the service's own parsers read it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from simulation.truth import Execution, Life, Moment

SECRET = "simulated-secret"
OPENING = datetime(2026, 8, 17, 10, 0, 0)  # noqa: DTZ001 - the brokers write India's time without a zone
NAMES = {1594: "INFY", 3045: "SBIN", 35001: "NIFTY26AUGFUT"}
DERIVATIVES = frozenset({35001})


class Writer(Protocol):
    """How one broker writes."""

    def push(self, life: Life, moment: Moment) -> list[tuple[str, bytes]]:
        """Return what the stream carries of a moment: (kind, text)."""
        ...

    def book(self, rows: Iterable[tuple[Life, Moment]]) -> bytes:
        """Return the reply to a read of the order book."""
        ...

    def history(self, life: Life, moments: Iterable[Moment]) -> bytes:
        """Return the reply to a read of one order's history, oldest first."""
        ...

    def trades(self, made: Iterable[tuple[Life, Moment, Execution]]) -> bytes:
        """Return the reply to a read of the trade book."""
        ...


def _at(stamp: float) -> datetime:
    return OPENING + timedelta(seconds=stamp)


def _figure(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


# --- Kite -------------------------------------------------------------------------------------------------


class KiteWriter:
    """Kite Connect v3 (kite.md §2.4, §4.2, §5.3)."""

    def push(self, life: Life, moment: Moment) -> list[tuple[str, bytes]]:
        row = self._row(life, moment, moment.push)
        data = row | {"account_id": "ZS0001", "checksum": "", "unfilled_quantity": 0}
        return [("order", json.dumps({"type": "order", "id": "", "data": data}).encode())]

    def book(self, rows: Iterable[tuple[Life, Moment]]) -> bytes:
        return self._reply([self._row(life, moment, moment.word) for life, moment in rows])

    def history(self, life: Life, moments: Iterable[Moment]) -> bytes:
        left_out = ("status_message_raw", "exchange_update_timestamp", "market_protection", "meta", "guid")
        rows = [self._row(life, moment, moment.word) for moment in moments]
        return self._reply([{key: row[key] for key in row if key not in left_out} for row in rows])

    def trades(self, made: Iterable[tuple[Life, Moment, Execution]]) -> bytes:
        return self._reply([self._trade(life, moment, execution) for life, moment, execution in made])

    def postback(self, life: Life, moment: Moment) -> bytes:
        """Return a postback's body, with a checksum that verifies."""
        row = self._row(life, moment, moment.push)
        text = f"{row['order_id']}{row['order_timestamp']}{SECRET}"
        sealed = hashlib.sha256(text.encode()).hexdigest()
        return json.dumps(row | {"user_id": "ZS0001", "app_id": 1, "checksum": sealed}).encode()

    def altered(self, body: bytes, claims: dict[str, Any]) -> bytes:
        """Return the postback with other claims: the checksum covers none of them."""
        return json.dumps(json.loads(body) | claims).encode()

    def _reply(self, data: list[dict[str, Any]]) -> bytes:
        return json.dumps({"status": "success", "data": data}).encode()

    def _row(self, life: Life, moment: Moment, word: str) -> dict[str, Any]:
        text = f"{_at(moment.stamp):%Y-%m-%d %H:%M:%S}"
        reached = bool(moment.exchange_id)
        return {
            "placed_by": "ZS0001",
            "order_id": life.order_id,
            "exchange_order_id": moment.exchange_id or None,
            "parent_order_id": None,
            "status": word,
            "status_message": moment.reason or None,
            "status_message_raw": moment.reason or None,
            "order_timestamp": text,
            "exchange_update_timestamp": text if reached else None,
            "exchange_timestamp": text if reached else None,
            "variety": life.variety,
            "modified": False,
            "exchange": "NFO" if life.token in DERIVATIVES else "NSE",
            "tradingsymbol": NAMES[life.token],
            "instrument_token": life.token * 256 + 1,
            "order_type": moment.order_type,
            "transaction_type": life.side,
            "validity": life.validity,
            "product": life.product,
            "quantity": moment.quantity,
            "disclosed_quantity": 0,
            "price": _figure(moment.price),
            "trigger_price": _figure(moment.trigger),
            "average_price": _figure(moment.average),
            "filled_quantity": moment.filled,
            "pending_quantity": moment.quantity - moment.filled,
            "cancelled_quantity": 0,
            "market_protection": 0,
            "meta": {},
            "tag": life.tag,
            "guid": "01Xsimulated",
        }

    def _trade(self, life: Life, moment: Moment, execution: Execution) -> dict[str, Any]:
        at = _at(int(execution.at))
        return {
            "trade_id": execution.trade_id,
            "order_id": life.order_id,
            "exchange": "NFO" if life.token in DERIVATIVES else "NSE",
            "tradingsymbol": NAMES[life.token],
            "instrument_token": life.token * 256 + 1,
            "product": life.product,
            "average_price": _figure(execution.price),
            "quantity": execution.quantity,
            "exchange_order_id": moment.exchange_id,
            "transaction_type": life.side,
            "fill_timestamp": f"{at:%Y-%m-%d %H:%M:%S}",
            "order_timestamp": f"{at:%H:%M:%S}",
            "exchange_timestamp": f"{at:%Y-%m-%d %H:%M:%S}",
        }


# --- XTS --------------------------------------------------------------------------------------------------

_TYPES = {"LIMIT": "Limit", "MARKET": "Market", "SL": "StopLimit", "SL-M": "StopMarket"}


class XtsWriter:
    """Symphony XTS (xts.md §2.3, §4, §6)."""

    def push(self, life: Life, moment: Moment) -> list[tuple[str, bytes]]:
        order = self._event(life, moment)
        told = [("order", json.dumps(order).encode())]
        if moment.execution is not None:
            told.append(("trade", json.dumps(order | self._execution(moment.execution)).encode()))
        return told

    def book(self, rows: Iterable[tuple[Life, Moment]]) -> bytes:
        return self._reply([self._row(life, moment) for life, moment in rows])

    def history(self, life: Life, moments: Iterable[Moment]) -> bytes:
        return self._reply([self._row(life, moment) for moment in moments])

    def trades(self, made: Iterable[tuple[Life, Moment, Execution]]) -> bytes:
        rows = []
        for life, moment, execution in made:
            at = f"{_at(int(execution.at)):%d-%m-%Y %H:%M:%S}"
            part = self._execution(execution) | {"LastExecutionTransactTime": at}
            rows.append(self._row(life, moment) | part)
        return self._reply(rows)

    def _reply(self, result: list[dict[str, Any]]) -> bytes:
        envelope = {"type": "success", "code": "s-orders-0001", "description": "Success", "result": result}
        return json.dumps(envelope).encode()

    def _base(self, life: Life, moment: Moment) -> dict[str, Any]:
        return {
            "LoginID": "DLL01234",
            "ClientID": "PRO012",
            "AppOrderID": int(life.order_id),
            "OrderReferenceID": "",
            "GeneratedBy": "TWSAPI",
            "ExchangeOrderID": moment.exchange_id,
            "OrderCategoryType": "NORMAL",
            "ExchangeSegment": "NSEFO" if life.token in DERIVATIVES else "NSECM",
            "ExchangeInstrumentID": life.token,
            "OrderType": _TYPES[moment.order_type],
            "ProductType": life.product,
            "TimeInForce": life.validity,
            "OrderPrice": _figure(moment.price),
            "OrderQuantity": moment.quantity,
            "OrderStopPrice": _figure(moment.trigger),
            "OrderStatus": moment.word,
            "OrderAverageTradedPrice": f"{moment.average:,.2f}" if moment.filled else "",
            "LeavesQuantity": moment.quantity - moment.filled,
            "CumulativeQuantity": moment.filled,
            "OrderDisclosedQuantity": 0,
            "CancelRejectReason": moment.reason,
            "OrderUniqueIdentifier": life.tag,
            "OrderLegStatus": "SingleOrderLeg",
            "IsSpread": False,
            "MessageCode": 9004,
            "MessageVersion": 4,
            "TokenID": 0,
        }

    def _row(self, life: Life, moment: Moment) -> dict[str, Any]:
        text = f"{_at(moment.stamp):%d-%m-%Y %H:%M:%S}"
        return self._base(life, moment) | {
            "OrderSide": life.side,
            "OrderGeneratedDateTime": text,
            "ExchangeTransactTime": text,
            "LastUpdateDateTime": text,
            "OrderExpiryDate": "01-01-1980 00:00:00",
            "ApplicationType": 0,
            "SequenceNumber": 0,
        }

    def _event(self, life: Life, moment: Moment) -> dict[str, Any]:
        fraction = f"{moment.at % 1:.7f}"[1:]
        at = _at(moment.stamp)
        iso, day_first = f"{at:%Y-%m-%dT%H:%M:%S}", f"{at:%d-%m-%Y %H:%M:%S}"
        return self._base(life, moment) | {
            "OrderSide": life.side.capitalize(),
            "OrderSideAPI": life.side,
            "OrderAverageTradedPriceAPI": float(moment.average) if moment.filled else "NaN",
            "OrderGeneratedDateTime": iso + fraction,
            "ExchangeTransactTime": iso + "+05:30",
            "LastUpdateDateTime": iso + fraction,
            "LastUpdateDateTimeAPI": day_first,
            "OrderExpiryDate": "1980-01-01T00:00:00",
            "ApplicationType": 146,
            "SequenceNumber": 1_578_799_396_700_001,
        }

    def _execution(self, execution: Execution) -> dict[str, Any]:
        return {
            "LastTradedPrice": _figure(execution.price),
            "LastTradedQuantity": execution.quantity,
            "LastExecutionTransactTime": f"{_at(int(execution.at)):%Y-%m-%dT%H:%M:%S}",
            "ExecutionID": execution.trade_id,
            "ExecutionReportIndex": 3,
            "MessageCode": 9005,
        }


WRITERS: dict[str, Writer] = {"zerodha": KiteWriter(), "jainam": XtsWriter()}
