"""What the exchange promises: priority, conserved quantities, an orderly life for every order."""

from collections import defaultdict
from decimal import Decimal
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokersim.exchange import Exchange, FormalFault, Moment, UnknownOrderError, formal_fault
from brokersim.instruments import INSTRUMENTS
from brokersim.orders import (
    RESTING,
    TERMINAL,
    Cause,
    OrderRequest,
    OrderType,
    Reason,
    Side,
    Stage,
    Terms,
    Validity,
)
from brokersim.timeline import Timeline

START = 1_787_000_000.0
SBIN = INSTRUMENTS[0]
NIFTY_OPTION = next(each for each in INSTRUMENTS if each.symbol == "NIFTY26AUG24400CE")
LIVES = (Stage.RECEIVED, Stage.VALIDATING, Stage.SENT, Stage.OPEN)


class Market:
    """An exchange with hands to place and look."""

    def __init__(self, seed=1, **options):
        self.timeline = Timeline(START)
        self.exchange = Exchange(self.timeline, Random(seed), **({"walking": False} | options))
        self.events = []
        self.exchange.subscribe(self.events.append)
        self.count = 0

    def place(self, side=Side.BUY, price="820", quantity=10, *, kind=OrderType.LIMIT, **more):
        self.count += 1
        terms = Terms(
            type=kind,
            quantity=quantity,
            price=Decimal(price),
            trigger_price=Decimal(more.pop("trigger", "0")),
            validity=more.pop("validity", Validity.DAY),
        )
        request = OrderRequest(
            broker="kite",
            order_id=str(self.count),
            user=more.pop("user", f"U{self.count}"),
            placed_by="x",
            app="a",
            instrument=more.pop("instrument", SBIN),
            side=side,
            product="CNC",
            terms=terms,
            **more,
        )
        return self.exchange.submit(request).uid

    def wait(self, seconds):
        self.timeline.advance_by(seconds)

    def stages(self, uid):
        return tuple(each.stage for each in self.exchange.history(uid))


def quiet():
    return Market(liquidity=False)


def limit(price, quantity=10):
    return Terms(type=OrderType.LIMIT, quantity=quantity, price=Decimal(price))


def test_an_order_walks_through_its_stages_one_by_one():
    market = quiet()

    uid = market.place()
    assert market.stages(uid) == LIVES[:1]
    market.wait(0.1)

    assert market.stages(uid) == LIVES
    assert [each.number for each in market.exchange.history(uid)] == [0, 1, 2, 3]


def test_the_exchange_speaks_only_from_open_on():
    market = quiet()

    uid = market.place()
    market.wait(0.1)

    history = market.exchange.history(uid)
    assert [bool(each.exchange_order_id) for each in history] == [False, False, False, True]
    assert [each.registered_at is not None for each in history] == [False, False, False, True]


def test_every_step_is_told_to_listeners_in_order_with_the_snapshot_of_that_step():
    market = quiet()

    uid = market.place()
    market.wait(0.1)

    assert tuple(event.order for event in market.events) == tuple(market.exchange.history(uid))


def test_a_step_caused_by_a_listener_is_told_after_the_present_one():
    market = quiet()
    seen = []

    def cancel_when_open(event):
        if event.order.stage is Stage.OPEN:
            market.exchange.cancel(event.order.uid)

    market.exchange.subscribe(cancel_when_open)
    market.exchange.subscribe(lambda event: seen.append(event.order.stage))
    market.place()
    market.wait(1)

    assert seen == [*LIVES, Stage.CANCEL_SENT, Stage.CANCELLED]


@pytest.mark.parametrize("seed", range(20))
def test_a_limit_order_near_the_market_fills_in_a_few_parts_within_seconds(seed):
    market = Market(seed, walking=True)

    uid = market.place(quantity=100, price="819.8")
    market.wait(4)

    history = market.exchange.history(uid)
    fills = market.exchange.trades_of(uid)
    spent = (history[-1].updated_at - history[0].updated_at).total_seconds()
    assert history[-1].stage is Stage.FILLED
    assert 2 <= len(fills) <= 4
    assert 0.5 <= spent <= 3.5


def test_an_order_far_from_the_market_rests():
    market = Market(walking=True)

    uid = market.place(price="800")
    market.wait(600)

    assert market.exchange.order(uid).stage is Stage.OPEN


def test_a_market_order_fills_at_once_even_behind_a_slow_one():
    market = Market()

    slow = market.place(price="820")
    market.wait(0.1)
    fast = market.place(kind=OrderType.MARKET, price="0")
    market.wait(0.1)

    assert market.exchange.order(fast).stage is Stage.FILLED
    assert market.exchange.order(slow).stage is Stage.OPEN


def test_the_same_seed_gives_the_same_day():
    def day():
        market = Market(5, walking=True)
        for number in range(20):
            market.place(side=list(Side)[number % 2], price="820", quantity=30 + number)
            market.wait(0.3)
        return [(e.order.uid, e.order.stage, e.order.filled, e.order.value) for e in market.events]

    assert day() == day()


def test_a_modification_shows_its_terms_only_after_it_took():
    market = quiet()
    uid = market.place(price="800")
    market.wait(0.1)

    market.exchange.modify(uid, limit("801", 20))
    market.wait(0.1)

    steps = [(each.stage, each.terms.price) for each in market.exchange.history(uid)][4:]
    assert steps == [
        (Stage.MODIFY_VALIDATING, 800),
        (Stage.MODIFY_SENT, 800),
        (Stage.MODIFIED, 800),
        (Stage.OPEN, 801),
    ]
    assert market.exchange.order(uid).modifications == 1


def test_a_refused_modification_leaves_the_order_as_it_was():
    market = quiet()
    uid = market.place(price="800")
    market.wait(0.1)

    market.exchange.modify(uid, limit("2000"))
    market.wait(0.1)

    last = market.exchange.order(uid)
    assert market.stages(uid)[-2:] == (Stage.MODIFY_REFUSED, Stage.OPEN)
    assert (last.terms.price, last.requested, last.modifications) == (800, None, 0)


def test_a_fill_during_a_modification_counts_and_too_small_a_quantity_is_refused():
    market = quiet()
    uid = market.place(price="800", quantity=10)
    market.wait(0.1)

    market.exchange.modify(uid, limit("800", 4))
    market.exchange.fill(uid, 5)
    market.wait(0.1)

    assert market.stages(uid)[-2:] == (Stage.MODIFY_REFUSED, Stage.PARTIALLY_FILLED)
    assert market.exchange.order(uid).filled == 5


def test_a_cancelled_order_keeps_its_fills():
    market = quiet()
    uid = market.place(quantity=10)
    market.wait(0.1)

    market.exchange.fill(uid, 4)
    market.exchange.cancel(uid)
    market.wait(0.1)

    last = market.exchange.order(uid)
    assert (last.stage, last.filled, last.remaining) == (Stage.CANCELLED, 4, 6)


def test_a_fill_beats_a_cancellation_on_its_way():
    market = quiet()
    uid = market.place(quantity=10)
    market.wait(0.1)

    market.exchange.cancel(uid)
    market.exchange.fill(uid, 10)
    market.wait(0.1)

    assert market.stages(uid)[-2:] == (Stage.CANCEL_SENT, Stage.FILLED)


def test_nothing_can_be_asked_of_an_order_that_is_not_resting():
    market = quiet()

    uid = market.place()

    assert market.exchange.cancel(uid).stage is Stage.RECEIVED
    assert market.exchange.modify(uid, limit("801")).stage is Stage.RECEIVED
    with pytest.raises(ValueError, match="nothing to fill"):
        market.exchange.fill(uid, 1)


@pytest.mark.parametrize("moment", list(Moment))
def test_a_judge_can_refuse_at_every_moment(moment):
    market = quiet()
    no = Reason(text="no", raw="NO")
    market.exchange.judge = lambda asked, order: no if asked is moment else None

    uid = market.place(price="800")
    market.wait(0.1)
    market.exchange.modify(uid, limit("801"))
    market.wait(0.1)
    market.exchange.cancel(uid)
    market.wait(0.1)

    expected = {
        Moment.RISK: (Stage.REJECTED,),
        Moment.EXCHANGE: (Stage.SENT, Stage.REJECTED),
        Moment.MODIFY: (Stage.MODIFY_REFUSED, Stage.OPEN, Stage.CANCEL_SENT, Stage.CANCELLED),
        Moment.CANCEL: (Stage.CANCEL_SENT, Stage.CANCEL_REFUSED, Stage.OPEN),
    }[moment]
    assert market.stages(uid)[-len(expected) :] == expected
    refusal = next(each for each in market.exchange.history(uid) if each.reason)
    assert refusal.reason == no


@pytest.mark.parametrize(
    ("price", "quantity", "word"), [("1000", 10, "band"), ("700", 10, "band"), ("820", 90_001, "freeze")]
)
def test_the_exchange_rejects_what_is_outside_its_limits(price, quantity, word):
    market = quiet()

    uid = market.place(price=price, quantity=quantity)
    market.wait(0.1)

    last = market.exchange.order(uid)
    assert (last.stage, last.cause, last.exchange_order_id) == (Stage.REJECTED, Cause.EXCHANGE, "")
    assert word in last.reason.text


def test_a_closed_market_rejects_and_an_amo_waits_for_the_opening():
    market = quiet()
    market.exchange.close()

    refused = market.place()
    waiting = market.place(amo=True)
    market.wait(60)
    assert market.exchange.order(refused).stage is Stage.REJECTED
    assert market.exchange.order(waiting).stage is Stage.AMO_RECEIVED
    market.exchange.open()
    market.wait(0.1)

    assert market.stages(waiting) == (Stage.AMO_RECEIVED, *LIVES)


def test_a_waiting_amo_is_modified_and_cancelled_at_once():
    market = quiet()
    uid = market.place(amo=True, price="800")

    market.exchange.modify(uid, limit("801"))
    market.exchange.cancel(uid)
    market.wait(10)

    assert market.stages(uid) == (Stage.AMO_RECEIVED, Stage.AMO_RECEIVED, Stage.CANCELLED)
    assert market.exchange.order(uid).terms.price == 801


@pytest.mark.parametrize(
    ("side", "kind", "trigger", "price"),
    [
        (Side.BUY, OrderType.SLM, "822", "0"),
        (Side.BUY, OrderType.SL, "822", "823"),
        (Side.SELL, OrderType.SLM, "818", "0"),
        (Side.SELL, OrderType.SL, "818", "817"),
    ],
)
def test_a_stop_order_waits_for_its_trigger(side, kind, trigger, price):
    market = Market()

    uid = market.place(side, price=price, kind=kind, trigger=trigger)
    market.wait(5)
    assert market.exchange.order(uid).stage is Stage.TRIGGER_PENDING
    market.exchange.set_price("NSE:SBIN", Decimal(trigger))
    market.wait(5)

    stages = market.stages(uid)
    assert stages[3:5] == (Stage.TRIGGER_PENDING, Stage.OPEN)
    assert stages[-1] is Stage.FILLED
    assert market.exchange.history(uid)[4].cause is Cause.TRIGGER


def test_an_ioc_order_takes_what_is_there_and_cancels_the_rest():
    market = Market()

    uid = market.place(price="821", quantity=800, validity=Validity.IOC)
    away = market.place(price="810", quantity=10, validity=Validity.IOC)
    market.wait(0.1)

    assert market.stages(uid)[3:] == (Stage.OPEN, Stage.PARTIALLY_FILLED, Stage.CANCELLED)
    assert market.exchange.order(uid).filled == 500
    assert market.stages(away)[3:] == (Stage.OPEN, Stage.CANCELLED)


def test_a_ttl_order_is_cancelled_after_its_minutes():
    market = quiet()

    uid = market.place(price="800", validity=Validity.TTL, ttl_minutes=2)
    market.wait(119)
    assert market.exchange.order(uid).live
    market.wait(2)

    assert market.exchange.order(uid).stage is Stage.CANCELLED


def test_an_order_that_would_trade_with_its_owner_is_cancelled():
    market = quiet()
    other = market.place(Side.SELL, "820", 4, user="B")
    mine = market.place(Side.SELL, "820", 10, user="A")
    market.wait(0.1)

    uid = market.place(Side.BUY, "820", 10, user="A")
    market.wait(0.1)

    last = market.exchange.order(uid)
    assert (last.stage, last.filled, last.cause) == (Stage.CANCELLED, 4, Cause.SELF_TRADE)
    assert last.reason.raw == "17071 : The order could have resulted in self trade "
    assert market.exchange.order(other).stage is Stage.FILLED
    assert market.exchange.order(mine).stage is Stage.OPEN


def test_a_paused_contract_does_not_match_until_resumed():
    market = Market()
    market.exchange.pause("NSE:SBIN")

    uid = market.place(kind=OrderType.MARKET, price="0")
    market.wait(10)
    assert market.exchange.order(uid).stage is Stage.OPEN
    market.exchange.resume("NSE:SBIN")
    market.wait(1)

    assert market.exchange.order(uid).stage is Stage.FILLED


def test_a_frozen_stage_keeps_orders_until_they_are_let_go():
    market = quiet()
    market.exchange.freeze([Stage.SENT], user="A")

    stuck = market.place(user="A")
    free = market.place(user="B")
    market.wait(60)
    assert market.exchange.order(stuck).stage is Stage.SENT
    assert market.exchange.order(free).stage is Stage.OPEN
    market.exchange.thaw()

    assert market.exchange.order(stuck).stage is Stage.OPEN


def test_a_fill_by_hand_triggers_a_stop_order_first():
    market = quiet()
    uid = market.place(kind=OrderType.SL, price="830", trigger="829")
    market.wait(0.1)

    market.exchange.fill(uid, 4, Decimal("829.5"))

    last = market.exchange.order(uid)
    assert (last.stage, last.filled, last.average) == (Stage.PARTIALLY_FILLED, 4, Decimal("829.5"))


def test_a_modification_that_worsens_or_grows_an_order_loses_its_place_and_shrinking_keeps_it():
    market = quiet()
    first = market.place(Side.SELL, "820", 10)
    second = market.place(Side.SELL, "820", 10)
    third = market.place(Side.SELL, "820", 10)
    market.wait(0.1)

    market.exchange.modify(first, limit("820", 11))
    market.exchange.modify(second, limit("820", 9))
    market.wait(0.1)
    market.place(Side.BUY, "820", 9)
    market.wait(0.1)

    assert market.exchange.order(second).stage is Stage.FILLED
    assert market.exchange.order(first).filled == market.exchange.order(third).filled == 0


def test_the_days_end_expires_what_is_live():
    market = quiet()
    open_one, done = market.place(price="800"), market.place(price="801")
    market.wait(0.1)
    market.exchange.cancel(done)
    market.wait(0.1)

    assert market.exchange.end_day() == 1
    assert market.exchange.order(open_one).stage is Stage.EXPIRED


def test_unknown_orders_and_repeated_ids_are_refused():
    market = quiet()
    market.place()
    market.count = 0

    with pytest.raises(ValueError, match="kite:1"):
        market.place()
    with pytest.raises(UnknownOrderError):
        market.exchange.order("kite:77")


@pytest.mark.parametrize(
    ("instrument", "terms", "fault"),
    [
        (SBIN, limit("820.1"), None),
        (SBIN, limit("820.15"), FormalFault.TICK),
        (SBIN, limit("0"), FormalFault.PRICE),
        (SBIN, limit("820", 0), FormalFault.QUANTITY),
        (SBIN, limit("820", -5), FormalFault.QUANTITY),
        (NIFTY_OPTION, limit("265", 64), FormalFault.LOT),
        (NIFTY_OPTION, limit("265", 130), None),
        (SBIN, Terms(type=OrderType.SLM, quantity=1), FormalFault.TRIGGER),
        (INSTRUMENTS[7], limit("24000", 1), FormalFault.INDEX),
    ],
)
def test_formal_faults_are_found_before_anything_is_booked(instrument, terms, fault):
    assert formal_fault(instrument, terms) is fault


# --- properties ------------------------------------------------------------------------------------------

orders = st.lists(
    st.tuples(st.sampled_from(list(Side)), st.integers(8190, 8210), st.integers(1, 50)),
    min_size=1,
    max_size=40,
)


def reference(placed):
    """Match limit orders the slow and obvious way: best price first, then earliest."""
    book, filled = [], defaultdict(int)
    for number, (side, price, quantity) in enumerate(placed, start=1):
        better = [
            other
            for other in book
            if other[1] is not side and (other[2] <= price if side is Side.BUY else other[2] >= price)
        ]
        better.sort(key=lambda other: (other[2] if side is Side.BUY else -other[2], other[0]))
        for other in better:
            traded = min(quantity - filled[number], other[3] - filled[other[0]])
            filled[number] += traded
            filled[other[0]] += traded
        book.append((number, side, price, quantity))
        book = [each for each in book if filled[each[0]] < each[3]]
    return filled


@settings(max_examples=150, deadline=None)
@given(orders)
def test_price_then_time_decides_who_trades(placed):
    market = quiet()

    for side, price, quantity in placed:
        market.place(side, str(Decimal(price) / 10), quantity)
        market.wait(0.1)

    expected = reference(placed)
    for number in range(1, len(placed) + 1):
        assert market.exchange.order(f"kite:{number}").filled == expected[number]


actions = st.lists(
    st.one_of(
        st.tuples(
            st.just("place"),
            st.sampled_from(list(Side)),
            st.integers(8180, 8220),
            st.integers(1, 2_000),
            st.sampled_from(list(OrderType)),
            st.sampled_from([Validity.DAY, Validity.IOC]),
        ),
        st.tuples(st.just("modify"), st.integers(1, 30), st.integers(8180, 8220), st.integers(1, 2_000)),
        st.tuples(st.just("cancel"), st.integers(1, 30)),
        st.tuples(st.just("fill"), st.integers(1, 30), st.integers(1, 100)),
        st.tuples(st.just("price"), st.integers(8100, 8300)),
        st.tuples(st.just("wait"), st.floats(0, 3)),
    ),
    max_size=40,
)


def act(market, action):
    word, *rest = action
    if word == "place":
        side, price, quantity, kind, validity = rest
        at = Decimal(price) / 10
        user = f"U{market.count % 3}"
        market.place(side, at, quantity, kind=kind, trigger=at, user=user, validity=validity)
    elif word == "wait":
        market.wait(rest[0])
    elif word == "price":
        market.exchange.set_price("NSE:SBIN", Decimal(rest[0]) / 10, hold=False)
    elif rest[0] <= market.count:
        uid = f"kite:{rest[0]}"
        if word == "modify":
            market.exchange.modify(uid, limit(str(Decimal(rest[1]) / 10), rest[2]))
        elif word == "cancel":
            market.exchange.cancel(uid)
        elif market.exchange.order(uid).stage in RESTING:
            market.exchange.fill(uid, rest[1])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 5), actions)
def test_whatever_is_done_every_history_is_orderly(seed, done):
    market = Market(seed, walking=True)

    for action in done:
        act(market, action)
    market.wait(5)

    for order in market.exchange.orders():
        history = market.exchange.history(order.uid)
        trades = market.exchange.trades_of(order.uid)
        assert all(a.filled <= b.filled and a.updated_at <= b.updated_at for a, b in pairwise(history))
        assert all(each.stage not in TERMINAL for each in history[:-1])
        assert sum(each.quantity for each in trades) == order.filled <= order.terms.quantity
        assert sum(each.quantity * each.price for each in trades) == order.value
        assert (order.stage is Stage.FILLED) == (order.filled == order.terms.quantity)


@settings(max_examples=60, deadline=None)
@given(orders)
def test_what_is_bought_is_sold(placed):
    market = quiet()

    for side, price, quantity in placed:
        market.place(side, str(Decimal(price) / 10), quantity)
    market.wait(1)

    bought = sum(each.filled for each in market.exchange.orders() if each.side is Side.BUY)
    sold = sum(each.filled for each in market.exchange.orders() if each.side is Side.SELL)
    assert bought == sold
    by_id = defaultdict(list)
    for trade in market.exchange.trades:
        by_id[trade.trade_id].append(trade.quantity)
    assert all(len(pair) == 2 and pair[0] == pair[1] for pair in by_id.values())
