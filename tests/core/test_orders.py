from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orderwire.core.instruments import Instrument
from orderwire.core.orders import (
    IST,
    TERMINAL,
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
    Tier,
    Trade,
    check_modify,
    check_request,
    session_date,
)

SBIN = Instrument(
    broker="zerodha",
    exchange="NSE",
    symbol="SBIN",
    broker_exchange="NSE",
    broker_symbol="SBIN",
    token=3045,
    tick_size=Decimal("0.05"),
)
FUTURE = Instrument(
    broker="jainam",
    exchange="NFO",
    symbol="NIFTY25AUG26FUT",
    broker_exchange="NSEFO",
    broker_symbol="NIFTY26AUGFUT",
    token=58072,
    kind="FUT",
    lot_size=65,
    tick_size=Decimal("0.1"),
    freeze_quantity=1800,
)
CURRENCY = msgspec.structs.replace(
    FUTURE, exchange="CDS", symbol="USDINR27AUG26FUT", lot_size=1, tick_size=Decimal("0.0025")
)
INDEX = msgspec.structs.replace(SBIN, symbol="NIFTY", kind="INDEX")


def request(**changes):
    values = {"symbol": "SBIN", "exchange": "NSE", "side": "BUY", "quantity": 10} | changes
    return OrderRequest(**values)


def limit(**changes):
    return request(**({"order_type": "LIMIT", "price": Decimal("820.05")} | changes))


def stop(**changes):
    prices = {"price": Decimal("820.05"), "trigger_price": Decimal("820.00")}
    return request(**({"order_type": "SL"} | prices | changes))


def future(**changes):
    return request(**({"symbol": FUTURE.symbol, "exchange": "NFO", "quantity": 65} | changes))


def terms(**changes):
    values = {
        "order_id": OrderId("260105000000001"),
        "quantity": 10,
        "order_type": "LIMIT",
        "product": "MIS",
        "price": Decimal("820.05"),
    }
    return ModifyRequest(**(values | changes))


@pytest.mark.parametrize(
    ("asked", "instrument"),
    [
        (request(), SBIN),
        (request(quantity=1), SBIN),
        (limit(), SBIN),
        (limit(price=Decimal("0.05")), SBIN),
        (limit(price=Decimal("820.050")), SBIN),
        (limit(validity="IOC", product="CNC", side="SELL"), SBIN),
        (stop(), SBIN),
        (stop(trigger_price=Decimal("820.05")), SBIN),
        (stop(side="SELL", trigger_price=Decimal("820.10")), SBIN),
        (stop(side="SELL", trigger_price=Decimal("820.05")), SBIN),
        (request(order_type="SL-M", trigger_price=Decimal("819.95")), SBIN),
        (future(), FUTURE),
        (future(quantity=1755), FUTURE),
        (limit(exchange="CDS", symbol=CURRENCY.symbol, price=Decimal("86.2475")), CURRENCY),
        (request(disclosed_quantity=10), SBIN),
        (request(tag="a1B2c3D4e5F6g7H8i9J0"), SBIN),
    ],
)
def test_a_sound_request_has_no_problem(asked, instrument):
    assert check_request(asked, instrument) == {}


@pytest.mark.parametrize(
    ("asked", "instrument", "field", "says"),
    [
        (request(symbol="SBINN"), None, "symbol", "'SBINN' is not in today's list of NSE."),
        (
            request(symbol="NIFTY"),
            INDEX,
            "symbol",
            "NIFTY is one of the indices, which cannot be traded: use a future or an option on it.",
        ),
        (
            request(symbol="NIFTY", exchange="NSE_INDEX"),
            INDEX,
            "exchange",
            "NSE_INDEX holds indices, which cannot be traded: use a future or an option on it.",
        ),
        (
            request(exchange="NYSE"),
            None,
            "exchange",
            "exchange 'NYSE' is not known: use NSE, BSE, NFO, BFO, CDS, BCD, MCX, NCDEX, NCO.",
        ),
        (request(side="buy"), SBIN, "side", "side 'buy' is not known: use BUY, SELL."),
        (
            request(order_type="STOP"),
            SBIN,
            "order_type",
            "order_type 'STOP' is not known: use MARKET, LIMIT, SL, SL-M.",
        ),
        (request(product="BO"), SBIN, "product", "product 'BO' is not known: use CNC, NRML, MIS."),
        (request(validity="GTC"), SBIN, "validity", "validity 'GTC' is not known: use DAY, IOC."),
        (request(quantity=0), SBIN, "quantity", "The quantity 0 must be above 0."),
        (request(quantity=-5), SBIN, "quantity", "The quantity -5 must be above 0."),
        (
            future(quantity=100),
            FUTURE,
            "quantity",
            "The quantity 100 is not a multiple of the lot size 65: use 65 or 130.",
        ),
        (
            future(quantity=10),
            FUTURE,
            "quantity",
            "The quantity 10 is not a multiple of the lot size 65: use 65.",
        ),
        (
            future(quantity=1820),
            FUTURE,
            "quantity",
            "The quantity 1820 is above 1800, the most one order may have: split it.",
        ),
        (limit(price=Decimal(0)), SBIN, "price", "A LIMIT order needs a price above 0."),
        (stop(price=Decimal(0)), SBIN, "price", "A SL order needs a price above 0."),
        (stop(trigger_price=Decimal(0)), SBIN, "trigger_price", "A SL order needs a trigger price above 0."),
        (request(order_type="SL-M"), SBIN, "trigger_price", "A SL-M order needs a trigger price above 0."),
        (limit(price=Decimal(-1)), SBIN, "price", "The price -1 is not a price."),
        (limit(price=Decimal("NaN")), SBIN, "price", "The price NaN is not a price."),
        (limit(price=Decimal("Infinity")), SBIN, "price", "The price Infinity is not a price."),
        (limit(price=Decimal("1E+9")), SBIN, "price", "The price 1E+9 is not a price."),
        (
            stop(trigger_price=Decimal("NaN")),
            SBIN,
            "trigger_price",
            "The trigger price NaN is not a price.",
        ),
        (
            limit(price=Decimal("820.03")),
            SBIN,
            "price",
            "The price 820.03 is not a multiple of the tick 0.05: use 820.00 or 820.05.",
        ),
        (
            limit(price=Decimal("820.051")),
            SBIN,
            "price",
            "The price 820.051 has more decimals than the tick 0.05 allows: use 820.05 or 820.10.",
        ),
        (
            limit(price=Decimal("0.03")),
            SBIN,
            "price",
            "The price 0.03 is not a multiple of the tick 0.05: use 0.05.",
        ),
        (
            stop(trigger_price=Decimal("819.99")),
            SBIN,
            "trigger_price",
            "The trigger price 819.99 is not a multiple of the tick 0.05: use 819.95 or 820.00.",
        ),
        (
            stop(trigger_price=Decimal("820.10")),
            SBIN,
            "trigger_price",
            "A stop to buy needs a trigger price that is not above its price.",
        ),
        (
            stop(side="SELL"),
            SBIN,
            "trigger_price",
            "A stop to sell needs a trigger price that is not below its price.",
        ),
        (
            request(disclosed_quantity=11),
            SBIN,
            "disclosed_quantity",
            "The disclosed quantity 11 must lie between 0 and the quantity.",
        ),
        (
            request(disclosed_quantity=-1),
            SBIN,
            "disclosed_quantity",
            "The disclosed quantity -1 must lie between 0 and the quantity.",
        ),
        (
            request(tag="a-b"),
            SBIN,
            "tag",
            "tag 'a-b' does not fit: use at most 20 letters and digits.",
        ),
        (
            request(tag="a" * 21),
            SBIN,
            "tag",
            f"tag '{'a' * 21}' does not fit: use at most 20 letters and digits.",
        ),
        (
            request(tag="é"),
            SBIN,
            "tag",
            "tag 'é' does not fit: use at most 20 letters and digits.",
        ),
    ],
)
def test_a_problem_names_its_field_and_what_to_do(asked, instrument, field, says):
    assert check_request(asked, instrument) == {field: says}


def test_several_problems_are_told_at_once():
    asked = limit(side="LONG", quantity=0, price=Decimal("1.01"), symbol="?")

    assert set(check_request(asked, None)) == {"side", "quantity", "symbol"}
    assert set(check_request(asked, SBIN)) == {"side", "quantity", "price"}


@pytest.mark.parametrize("order_type", ["MARKET", "SL-M"])
def test_a_price_that_is_not_used_is_ignored(order_type):
    asked = request(order_type=order_type, price=Decimal("-0.01"), trigger_price=Decimal("1.05"))

    assert check_request(asked, SBIN) == {}


@pytest.mark.parametrize("order_type", ["MARKET", "LIMIT"])
def test_a_trigger_that_is_not_used_is_ignored(order_type):
    assert check_request(limit(order_type=order_type, trigger_price=Decimal("NaN")), SBIN) == {}


@pytest.mark.parametrize("lot_size", [0, 1])
def test_no_lot_and_no_freeze_limit_nothing(lot_size):
    assert check_request(request(quantity=7), msgspec.structs.replace(SBIN, lot_size=lot_size)) == {}


def test_a_tick_of_zero_limits_nothing():
    free = msgspec.structs.replace(SBIN, tick_size=Decimal(0))

    assert check_request(limit(price=Decimal("1.2345")), free) == {}


@given(
    price=st.decimals(min_value="0.01", max_value="99999", places=4),
    tick=st.sampled_from(["0.05", "0.01", "0.0025", "0.1", "1", "5"]),
)
def test_the_price_that_is_advised_is_accepted(price, tick):
    instrument = msgspec.structs.replace(SBIN, tick_size=Decimal(tick))
    problem = check_request(limit(price=price), instrument).get("price", "")
    assume(problem)
    advised = problem.rpartition("use ")[2].removesuffix(".").split(" or ")

    assert all(check_request(limit(price=Decimal(text)), instrument) == {} for text in advised)
    assert min(abs(price - Decimal(text)) for text in advised) < Decimal(tick)


@pytest.mark.parametrize(
    ("asked", "instrument", "filled", "problems"),
    [
        (terms(), SBIN, 0, {}),
        (terms(), SBIN, 9, {}),
        (terms(), None, 0, {}),
        (terms(price=Decimal("1.2345")), None, 0, {}),
        (terms(order_type="MARKET", price=Decimal(0)), SBIN, 0, {}),
        (terms(validity="TTL"), SBIN, 0, {}),
        (terms(quantity=0), SBIN, 0, {"quantity": "The quantity 0 must be above 0."}),
        (
            terms(),
            SBIN,
            10,
            {
                "quantity": "10 are filled already: the quantity must be above that. "
                "To give up the rest, cancel the order."
            },
        ),
        (
            terms(product="BO", order_type="SL-L"),
            SBIN,
            0,
            {
                "product": "product 'BO' is not known: use CNC, NRML, MIS.",
                "order_type": "order_type 'SL-L' is not known: use MARKET, LIMIT, SL, SL-M.",
            },
        ),
        (terms(price=Decimal(0)), SBIN, 0, {"price": "A LIMIT order needs a price above 0."}),
        (
            terms(order_type="SL"),
            SBIN,
            0,
            {"trigger_price": "A SL order needs a trigger price above 0."},
        ),
    ],
)
def test_new_terms_are_judged(asked, instrument, filled, problems):
    assert check_modify(asked, instrument, filled=filled) == problems


def test_terminal_states_are_the_four_that_nothing_follows():
    assert {status for status in OrderStatus if status.terminal} == TERMINAL
    assert {status.value for status in TERMINAL} == {"FILLED", "CANCELLED", "REJECTED", "EXPIRED"}


def test_only_our_own_reads_are_tier_a():
    tiers = {channel.value: channel.tier for channel in Channel}

    assert tiers == {
        "rest": Tier.A,
        "history": Tier.A,
        "place": Tier.A,
        "stream": Tier.B,
        "postback": Tier.C,
    }


@pytest.mark.parametrize(
    ("now", "day"),
    [
        (datetime(2026, 1, 5, 6, 0, tzinfo=IST), date(2026, 1, 5)),
        (datetime(2026, 1, 5, 5, 59, 59, tzinfo=IST), date(2026, 1, 4)),
        (datetime(2026, 1, 5, 23, 59, tzinfo=IST), date(2026, 1, 5)),
        (datetime(2026, 1, 5, 0, 29, tzinfo=UTC), date(2026, 1, 4)),
        (datetime(2026, 1, 5, 0, 30, tzinfo=UTC), date(2026, 1, 5)),
        (datetime(2026, 1, 4, 20, 0, tzinfo=UTC), date(2026, 1, 4)),
    ],
)
def test_a_session_day_begins_at_six_in_india(now, day):
    assert session_date(now) == day


def test_india_is_five_and_a_half_hours_ahead():
    assert IST.utcoffset(None) == timedelta(hours=5, minutes=30)


@pytest.mark.parametrize("exchange", ["NSE_INDEX", "BSE_INDEX", "MCX_INDEX", "CDS_INDEX", "GLOBAL_INDEX"])
def test_no_index_exchange_takes_orders(exchange):
    problems = check_request(request(symbol="X", exchange=exchange), None)

    assert problems == {
        "exchange": f"{exchange} holds indices, which cannot be traded: use a future or an option on it."
    }


@pytest.mark.parametrize("exchange", ["NSE", "BSE", "NFO", "BFO", "CDS", "BCD", "MCX", "NCDEX", "NCO"])
def test_every_exchange_of_openalgo_takes_orders(exchange):
    assert check_request(request(exchange=exchange), SBIN) == {}


def test_an_order_may_be_as_large_as_the_freeze_quantity():
    full = msgspec.structs.replace(FUTURE, freeze_quantity=130)

    assert check_request(future(quantity=130), full) == {}
    assert set(check_request(future(quantity=195), full)) == {"quantity"}


def test_a_tick_of_whole_rupees_allows_no_decimals():
    coarse = msgspec.structs.replace(SBIN, tick_size=Decimal(5))

    assert check_request(limit(price=Decimal("7.5")), coarse) == {
        "price": "The price 7.5 has more decimals than the tick 5 allows: use 5 or 10."
    }
    assert check_request(limit(price=Decimal(7)), coarse) == {
        "price": "The price 7 is not a multiple of the tick 5: use 5 or 10."
    }


def test_nothing_is_disclosed_of_no_quantity():
    assert set(check_request(request(quantity=-3, disclosed_quantity=1), SBIN)) == {
        "quantity",
        "disclosed_quantity",
    }
    assert set(check_request(request(quantity=-3), SBIN)) == {"quantity"}


def test_new_terms_keep_the_rules_of_their_instrument():
    problems = check_modify(terms(quantity=66, price=Decimal("100.05"), disclosed_quantity=67), FUTURE)

    assert problems == {
        "quantity": "The quantity 66 is not a multiple of the lot size 65: use 65 or 130.",
        "price": "The price 100.05 has more decimals than the tick 0.1 allows: use 100.0 or 100.1.",
        "disclosed_quantity": "The disclosed quantity 67 must lie between 0 and the quantity.",
    }
    assert check_modify(terms(quantity=1), SBIN) == {}


def test_a_refused_quantity_of_zero_is_told_as_such_before_what_is_filled():
    assert check_modify(terms(quantity=-1), SBIN, filled=5) == {
        "quantity": "The quantity -1 must be above 0."
    }


# --- what is not said -------------------------------------------------------------------------------------

NOTHING_SAID = {"reason": "", "tag": "", "exchange_order_id": "", "parent_order_id": "", "placed_by": ""}


def test_an_observation_says_nothing_it_was_not_told():
    bare = OrderUpdate(
        **WHO, order_id="1", raw_status="OPEN", status=None, phase=1, order_type="LIMIT", quantity=1, **WHAT
    )

    defaults = msgspec.structs.asdict(bare).items() - (WHO | WHAT).items()

    assert dict(defaults) == NOTHING_SAID | {
        "order_id": "1",
        "raw_status": "OPEN",
        "status": None,
        "phase": 1,
        "order_type": "LIMIT",
        "quantity": 1,
        "overlay": Overlay.NONE,
        "known_symbol": True,
        "validity": "",
        "filled_quantity": 0,
        "price": 0,
        "trigger_price": 0,
        "average_price": 0,
        "disclosed_quantity": 0,
        "broker_time": None,
        "history_index": -1,
        "received_ns": 0,
        "raw": b"",
    }
    assert bare.tier is Tier.B


WHO = {"account": "A", "broker": "b", "channel": Channel.STREAM, "trading_date": date(2026, 1, 5)}
WHAT = {"symbol": "INFY", "exchange": "NSE", "side": "BUY", "product": "CNC"}


def test_an_execution_says_nothing_it_was_not_told():
    bare = Trade(**WHO, **WHAT, order_id="1", trade_id="2", quantity=3, price=Decimal(4))

    assert (bare.known_symbol, bare.traded_at, bare.exchange_order_id) == (True, None, "")
    assert (bare.received_ns, bare.raw) == (0, b"")


def test_a_position_says_nothing_it_was_not_told():
    what = {name: value for name, value in WHAT.items() if name != "side"}
    bare = Position(**WHO, **what, quantity=-3)

    assert bare.known_symbol is True
    assert (bare.buy_quantity, bare.sell_quantity, bare.received_ns, bare.raw) == (0, 0, 0, b"")
    prices = (bare.average_price, bare.last_price, bare.buy_value, bare.sell_value, bare.pnl)
    assert prices == (Decimal(0),) * 5


def test_a_holding_is_held_for_good_and_funds_begin_at_nothing():
    holding = Holding(account="A", symbol="INFY", exchange="NSE", quantity=1)
    funds = Funds(account="A")

    assert (holding.product, holding.average_price, holding.last_price, holding.pnl) == ("CNC", 0, 0, 0)
    assert set(msgspec.structs.astuple(funds)[1:]) == {Decimal(0)}


def test_a_request_is_a_market_order_of_the_day_unless_said_otherwise():
    bare = OrderRequest(symbol="INFY", exchange="NSE", side="BUY", quantity=1)
    new = ModifyRequest(order_id="1", quantity=1, order_type="LIMIT", product="MIS")

    assert (bare.order_type, bare.product, bare.validity, bare.tag) == ("MARKET", "MIS", "DAY", "")
    assert (bare.price, bare.trigger_price, bare.disclosed_quantity) == (0, 0, 0)
    assert (new.validity, new.tag, new.price, new.trigger_price, new.disclosed_quantity) == (
        "DAY",
        "",
        0,
        0,
        0,
    )
