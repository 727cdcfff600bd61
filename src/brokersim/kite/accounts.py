"""Kite's answers about a user: profile, margins, holdings and quotes. Pure functions over the world."""

from decimal import Decimal
from typing import Any

from brokersim.instruments import Instrument
from brokersim.kite.rows import number, stamp
from brokersim.kite.sessions import Session
from brokersim.users import KiteUser
from brokersim.world import World

_EXCHANGES = ["NSE", "NFO", "BFO", "CDS", "BSE", "MCX", "BCD", "MF"]
_PRODUCTS = ["CNC", "NRML", "MIS", "CO"]
_ORDER_TYPES = ["MARKET", "LIMIT", "SL", "SL-M"]
_NOT_MODELLED = (
    "exposure",
    "m2m_unrealised",
    "option_premium",
    "payout",
    "span",
    "holding_sales",
    "turnover",
    "liquid_collateral",
    "stock_collateral",
    "delivery",
)


def profile(user: KiteUser) -> dict[str, Any]:
    """Answer GET /user/profile."""
    return {
        "user_id": user.user_id,
        "user_type": "individual",
        "email": f"{user.user_id.lower()}@example.com",
        "user_name": user.name,
        "user_shortname": user.name.split(" ", maxsplit=1)[0],
        "broker": "ZERODHA",
        "exchanges": _EXCHANGES,
        "products": _PRODUCTS,
        "order_types": _ORDER_TYPES,
        "avatar_url": None,
        "meta": {"demat_consent": "physical"},
    }


def session(user: KiteUser, opened: Session) -> dict[str, Any]:
    """Answer POST /session/token."""
    return profile(user) | {
        "avatar_url": "",
        "api_key": opened.api_key,
        "access_token": opened.access_token,
        "public_token": opened.access_token[::-1],
        "enctoken": "",
        "refresh_token": "",
        "silo": "",
        "login_time": stamp(opened.login_time),
    }


def margins(world: World, user: str) -> dict[str, Any]:
    """Answer GET /user/margins: all money is in equity, and commodity shows the same purse."""
    account = world.users.account("kite", user)
    segment = {
        "enabled": True,
        "net": number(account.available),
        "available": {
            "adhoc_margin": 0,
            "cash": number(account.cash),
            "opening_balance": number(account.cash),
            "live_balance": number(account.available),
            "collateral": 0,
            "intraday_payin": 0,
        },
        "utilised": {"debits": number(account.cash - account.available), "m2m_realised": 0}
        | dict.fromkeys(_NOT_MODELLED, 0),
    }
    return {"equity": segment, "commodity": segment}


def holdings(world: World, user: str) -> list[dict[str, Any]]:
    """Answer GET /portfolio/holdings."""
    account = world.users.account("kite", user)
    found = ((world.exchange.instrument(key), held) for key, held in account.holdings.items())
    return [_holding(each, *held, world.last_price(each.key)) for each, held in found if each]


def _holding(instrument: Instrument, quantity: int, average: Decimal, last: Decimal) -> dict[str, Any]:
    close = instrument.price
    return {
        "tradingsymbol": instrument.symbol,
        "exchange": instrument.exchange,
        "instrument_token": instrument.kite_token,
        "isin": instrument.isin,
        "product": "CNC",
        "price": 0,
        "quantity": quantity,
        "used_quantity": 0,
        "t1_quantity": 0,
        "realised_quantity": quantity,
        "authorised_quantity": 0,
        "authorised_date": "2026-08-17 00:00:00",
        "authorisation": {},
        "opening_quantity": quantity,
        "short_quantity": 0,
        "collateral_quantity": 0,
        "collateral_type": "",
        "discrepancy": False,
        "average_price": number(average),
        "last_price": number(last),
        "close_price": number(close),
        "pnl": number((last - average) * quantity),
        "day_change": number(last - close),
        "day_change_percentage": number(round((last - close) / close * 100, 4)),
    }


def quotes(world: World, keys: list[str], *, full: bool) -> dict[str, Any]:
    """Answer the quote calls for `EXCHANGE:SYMBOL` keys; unknown ones are left out."""
    found = [each for key in keys if (each := world.exchange.instrument(key))]
    return {each.key: _quote(world, each, full=full) for each in found}


def _quote(world: World, instrument: Instrument, *, full: bool) -> dict[str, Any]:
    quote = world.exchange.quote(instrument.key)
    row: dict[str, Any] = {"instrument_token": instrument.kite_token, "last_price": number(quote.last)}
    if not full:
        return row
    reference, (low, high) = number(instrument.price), instrument.band
    return row | {
        "timestamp": stamp(world.timeline.date),
        "ohlc": {"open": reference, "high": reference, "low": reference, "close": reference},
        "lower_circuit_limit": number(low),
        "upper_circuit_limit": number(high),
        "depth": {
            "buy": [{"price": number(quote.bid), "quantity": 0, "orders": 0}],
            "sell": [{"price": number(quote.ask), "quantity": 0, "orders": 0}],
        },
    }
