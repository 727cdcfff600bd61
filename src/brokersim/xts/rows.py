"""Orders, trades and positions as rows of XTS's REST books and as objects of its socket events.

The two spellings differ in times, sides, numbers and names: XTS protocol document, sections 2.3, 4 and 6. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from brokersim.orders import Trade
from brokersim.portfolio import Position
from brokersim.written import Row
from brokersim.xts.lives import View

ORDER_CODE: Final = 9004
TRADE_CODE: Final = 9005
POSITION_CODE: Final = 9002
CONVERSION_CODE: Final = 9007
API_SOURCE: Final = "TWSAPI"
_API_APPLICATION: Final = 146
_NO_EXPIRY_ISO: Final = "1980-01-01T00:00:00"
_NO_EXPIRY_DMY: Final = "01-01-1980 00:00:00"
_NEWER_REST: Final = frozenset({"IsAMO", "ApiOrderSource", "TradingSymbol", "BoLegDetails", "BoEntryOrderId"})
_NEWER_SOCKET: Final = frozenset({"AlgoID", "AlgoCategory", "MessageSynchronizeUniqueKey", "TradingSymbol"})
_NEWER_POSITION: Final = frozenset({"StatisticsLevel", "IsInterOpPosition", "childPositions"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How rows are spelt: the client's name, clocks that are off, and the formats of other server builds.

    `old` is the format of servers before May 2021 (REST), `bare` leaves out the fields of newer servers.
    """

    client: str
    broker_skew: timedelta = timedelta()
    exchange_skew: timedelta = timedelta()
    old: bool = False
    bare: bool = False


def number(value: Decimal) -> int | float:
    """Write a price as JavaScript would: whole numbers without a point."""
    return int(value) if value == value.to_integral_value() else float(value)


def with_commas(value: Decimal) -> str:
    """Write two decimals and thousands commas; nothing is ever minus nought."""
    return f"{round(value, 2) + 0:,.2f}"


def plain(value: float) -> str:
    """Write a raw number as text, as the socket's positions do."""
    return str(int(value)) if value == int(value) else repr(value)


def dmy(moment: datetime) -> str:
    """Write REST's time: naive Indian wall clock, whole seconds."""
    return moment.strftime("%d-%m-%Y %H:%M:%S")


def iso(moment: datetime) -> str:
    """Write the socket's time: naive, nought to seven digits of a second, no trailing zeros.

    The seventh digit is below our clock's resolution and made up from the sixth.
    """
    digits = f"{moment.microsecond:06}{moment.microsecond * 7 % 10}".rstrip("0")
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{digits}" if digits else "")


def average_text(view: View) -> str:
    """Write OrderAverageTradedPrice: empty while nothing is filled."""
    return with_commas(view.order.average) if view.order.filled else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Times:
    generated: datetime
    exchange: datetime
    updated: datetime
    stamped: bool

    @property
    def exchange_iso(self) -> str:
        if not self.stamped:
            return f"{iso(self.exchange)}+05:30"
        return f"{self.exchange:%Y-%m-%dT%H:%M:%S}+05:30"


def _times(view: View, manner: Manner) -> _Times:
    order = view.order
    stamped = order.exchange_updated_at is not None
    return _Times(
        generated=order.received_at + manner.broker_skew,
        exchange=(order.exchange_updated_at or order.updated_at)
        + (manner.exchange_skew if stamped else manner.broker_skew),
        updated=order.updated_at + manner.broker_skew,
        stamped=stamped,
    )


def _head(view: View, manner: Manner, *, side: str) -> Row:
    order, terms = view.order, view.terms
    return {
        "LoginID": order.request.placed_by,
        "ClientID": manner.client,
        "AppOrderID": int(order.order_id),
        "OrderReferenceID": "",
        "GeneratedBy": API_SOURCE if order.request.app else "TWS",
        "ExchangeOrderID": order.exchange_order_id,
        "OrderCategoryType": "NORMAL",
        "ExchangeSegment": order.instrument.xts_segment,
        "ExchangeInstrumentID": order.instrument.xts_id,
        "OrderSide": side,
        "OrderType": view.type_word,
        "ProductType": order.request.product,
        "TimeInForce": terms.validity.value,
        "OrderPrice": number(terms.price) if terms.type.priced else 0,
        "OrderQuantity": terms.quantity,
        "OrderStopPrice": number(terms.trigger_price) if terms.type.stop else 0,
        "OrderStatus": view.status,
        "OrderAverageTradedPrice": average_text(view),
        "LeavesQuantity": terms.quantity - order.filled,
        "CumulativeQuantity": order.filled,
        "OrderDisclosedQuantity": terms.disclosed,
    }


def _tail(code: int, *, version: int = 4, application: int = 0, sequence: int = 0) -> Row:
    return {
        "MessageCode": code,
        "MessageVersion": version,
        "TokenID": 0,
        "ApplicationType": application,
        "SequenceNumber": sequence,
    }


def _without(row: Row, names: Iterable[str]) -> Row:
    dropped = frozenset(names)
    return {name: value for name, value in row.items() if name not in dropped}


# ---- REST


def rest_order(view: View, manner: Manner, *, history: bool = False, dealer_book: bool = False) -> Row:
    """Write a row of the order book, of an order's history or of a dealer's book."""
    times = _times(view, manner)
    row = {
        **_head(view, manner, side=_rest_side(view, manner)),
        **_rest_times(times, manner),
        "OrderExpiryDate": _NO_EXPIRY_ISO if manner.old else _NO_EXPIRY_DMY,
        **_rest_middle(view),
        "BoLegDetails": 0,
        "BoEntryOrderId": "",
        **_tail(ORDER_CODE, sequence=_old_sequence(view) if manner.old else 0),
        "IsAMO": False,
    }
    dropped = set(_NEWER_REST) if manner.old or manner.bare else set()
    dropped |= {"BoLegDetails", "BoEntryOrderId"} if history else set()
    dropped |= {"GeneratedBy"} if dealer_book else set()
    return _without(row, dropped)


def rest_trade(view: View, trade: Trade, manner: Manner, *, dealer_book: bool = False) -> Row:
    """Write a row of the trade book; the order's columns are those right after the execution."""
    row = {
        **_head(view, manner, side=_rest_side(view, manner)),
        **_rest_times(_times(view, manner), manner),
        **_rest_middle(view),
        **_execution(view, trade, manner, socket=manner.old),
        **_tail(TRADE_CODE, sequence=_old_sequence(view) if manner.old else 0),
    }
    dropped = set(_NEWER_REST) if manner.old or manner.bare else set()
    dropped |= {"GeneratedBy"} if dealer_book else set()
    return _without(row, dropped)


def _rest_side(view: View, manner: Manner) -> str:
    return view.order.side.value.capitalize() if manner.old else view.order.side.value


def _rest_times(times: _Times, manner: Manner) -> Row:
    return {
        "OrderGeneratedDateTime": iso(times.generated) if manner.old else dmy(times.generated),
        "ExchangeTransactTime": times.exchange_iso if manner.old else dmy(times.exchange),
        "LastUpdateDateTime": iso(times.updated) if manner.old else dmy(times.updated),
    }


def _rest_middle(view: View) -> Row:
    return {
        "CancelRejectReason": view.reason,
        "OrderUniqueIdentifier": view.order.request.tag,
        "OrderLegStatus": "SingleOrderLeg",
        "TradingSymbol": view.order.instrument.xts_display,
        "ApiOrderSource": view.order.request.meta.get("apiOrderSource", ""),
        "IsSpread": False,
    }


def _old_sequence(view: View) -> int:
    return 300_000_000_000_000 + int(view.order.order_id) * 10 + view.report


def _execution(view: View, trade: Trade, manner: Manner, *, socket: bool) -> Row:
    at = trade.at + manner.exchange_skew
    return {
        "LastTradedPrice": number(trade.price),
        "LastTradedQuantity": trade.quantity,
        "LastExecutionTransactTime": f"{at:%Y-%m-%dT%H:%M:%S}" if socket else dmy(at),
        "ExecutionID": trade.trade_id,
        "ExecutionReportIndex": view.report,
    }


# ---- socket


def socket_order(view: View, manner: Manner, *, sequence: int) -> Row:
    """Write the object of an `order` event."""
    times, order = _times(view, manner), view.order
    row = {
        **_head(view, manner, side=order.side.value.capitalize()),
        **_socket_times(times),
        "OrderExpiryDate": _NO_EXPIRY_ISO,
        **_socket_middle(view),
        "IsSpread": False,
        "BoLegDetails": 0,
        "BoEntryOrderId": "",
        **_twins(view, times),
        "AlgoID": "",
        "AlgoCategory": 0,
        "MessageSynchronizeUniqueKey": order.request.placed_by,
        **_tail(ORDER_CODE, application=_application(view), sequence=sequence),
        "TradingSymbol": order.instrument.xts_display,
    }
    return _without(row, _NEWER_SOCKET) if manner.bare else row


def socket_trade(view: View, trade: Trade, manner: Manner, *, sequence: int) -> Row:
    """Write the object of a `trade` event."""
    times, order = _times(view, manner), view.order
    row = {
        **_head(view, manner, side=order.side.value.capitalize()),
        **_socket_times(times),
        **_socket_middle(view),
        **_execution(view, trade, manner, socket=True),
        "IsSpread": False,
        **_twins(view, times),
        "LastExecutionTransactTimeAPI": dmy(trade.at + manner.exchange_skew),
        "MessageSynchronizeUniqueKey": manner.client,
        **_tail(TRADE_CODE, application=_application(view), sequence=sequence),
        "TradingSymbol": order.instrument.xts_display,
    }
    return _without(row, _NEWER_SOCKET) if manner.bare else row


def _socket_times(times: _Times) -> Row:
    return {
        "OrderGeneratedDateTime": iso(times.generated),
        "ExchangeTransactTime": times.exchange_iso,
        "LastUpdateDateTime": iso(times.updated),
    }


def _socket_middle(view: View) -> Row:
    return {
        "CancelRejectReason": view.reason,
        "OrderUniqueIdentifier": view.order.request.tag,
        "OrderLegStatus": "SingleOrderLeg",
    }


def _twins(view: View, times: _Times) -> Row:
    order = view.order
    return {
        "OrderAverageTradedPriceAPI": number(round(order.average, 2)) if order.filled else "NaN",
        "OrderSideAPI": order.side.value,
        "OrderGeneratedDateTimeAPI": dmy(times.generated),
        "ExchangeTransactTimeAPI": dmy(times.exchange),
        "LastUpdateDateTimeAPI": dmy(times.updated),
        "OrderExpiryDateAPI": _NO_EXPIRY_DMY,
    }


def _application(view: View) -> int:
    return _API_APPLICATION if view.order.request.app else 0


# ---- positions


def rest_position(position: Position, *, account: str, bare: bool = False) -> Row:
    """Write a row of `positionList`: every business number is text with thousands commas."""
    text = {name: with_commas(value) for name, value in _position_values(position).items()}
    row = {
        "AccountID": account,
        **_position_names(position),
        "ExchangeInstrumentId": str(position.instrument.xts_id),
        "ProductType": position.product,
        "Marketlot": f"{position.instrument.lot:,}",
        "Multiplier": str(position.instrument.multiplier),
        "BuyAveragePrice": text["BuyAveragePrice"],
        "SellAveragePrice": text["SellAveragePrice"],
        "OpenBuyQuantity": f"{position.buy_quantity:,}",
        "OpenSellQuantity": f"{position.sell_quantity:,}",
        "Quantity": f"{position.quantity:,}",
        "BuyAmount": text["Buy"],
        "SellAmount": text["Sell"],
        "NetAmount": text["Net"],
        "UnrealizedMTM": text["UnrealizedMTM"],
        "RealizedMTM": text["RealizedMTM"],
        "MTM": text["MTM"],
        "BEP": text["BEP"],
        "SumOfTradedQuantityAndPriceBuy": text["Buy"],
        "SumOfTradedQuantityAndPriceSell": text["Sell"],
        "StatisticsLevel": "ParentLevel",
        "IsInterOpPosition": False,
        "childPositions": {},
        **_tail(POSITION_CODE, version=1),
    }
    return _without(row, _NEWER_POSITION) if bare else row


def socket_position(position: Position, manner: Manner, *, login: str, kind: str) -> Row:
    """Write the object of a `position` event: raw floats as text; RealizedMTM stays 0.00 as captured."""
    bought, sold = float(position.buy_value), float(position.sell_value)
    row = {
        "LoginID": login,
        "AccountID": manner.client,
        **_position_names(position),
        "ExchangeInstrumentID": str(position.instrument.xts_id),
        "ProductType": position.product,
        "Multiplier": str(position.instrument.multiplier),
        "Marketlot": str(position.instrument.lot),
        "BuyAveragePrice": plain(float(position.buy_average)),
        "SellAveragePrice": plain(float(position.sell_average)),
        "LongPosition": str(position.buy_quantity),
        "ShortPosition": str(position.sell_quantity),
        "NetPosition": str(position.quantity),
        "BuyValue": plain(bought),
        "SellValue": plain(sold),
        "NetValue": plain(sold - bought),
        "UnrealizedMTM": f"{round(position.unrealised, 2) + 0:.2f}",
        "RealizedMTM": "0.00",
        "MTM": f"{round(position.unrealised, 2) + 0:.2f}",
        "BEP": f"{position.average:.2f}",
        "SumOfTradedQuantityAndPriceBuy": plain(bought),
        "SumOfTradedQuantityAndPriceSell": plain(sold),
        "IsDayWiseNetWise": kind,
        "StatisticsLevel": "ParentLevel",
        "IsInterOpPosition": False,
        "childPositions": {},
        **_tail(POSITION_CODE, version=1),
    }
    return _without(row, _NEWER_POSITION) if manner.bare else row


def _position_names(position: Position) -> Row:
    return {
        "TradingSymbol": position.instrument.xts_display,
        "ExchangeSegment": position.instrument.xts_segment,
    }


def _position_values(position: Position) -> Mapping[str, Decimal]:
    return {
        "BuyAveragePrice": position.buy_average,
        "SellAveragePrice": position.sell_average,
        "Buy": position.buy_value,
        "Sell": position.sell_value,
        "Net": position.sell_value - position.buy_value,
        "UnrealizedMTM": position.unrealised,
        "RealizedMTM": position.realised,
        "MTM": position.realised + position.unrealised,
        "BEP": position.average,
    }
