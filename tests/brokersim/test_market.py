"""One contract's prices and book."""

from decimal import Decimal

from brokersim.instruments import INSTRUMENTS
from brokersim.market import Market, Resting
from brokersim.orders import Side
from sim_orders import order, record


def market():
    return Market(INSTRUMENTS[0])


def test_quotes_stand_one_tick_to_either_side():
    quote = market().quote

    assert (quote.bid, quote.last, quote.ask) == (Decimal("819.9"), 820, Decimal("820.1"))


def test_prices_wander_near_their_anchor_and_on_the_tick():
    contract = market()

    for step in (2, -1, 2, 2) * 50:
        contract.wander(step)

    assert abs(contract.last - 820) <= Decimal("1.64")
    assert contract.last % Decimal("0.1") == 0


def test_the_book_sorts_by_price_then_time_with_market_orders_first():
    side = market().side(Side.BUY)
    placed = [record(price) for price in ("820", "821", "820", None)]
    for number, each in enumerate(placed):
        side.add(Resting(record=each, arrival=number, parts=2))

    ranked = [each.record for each in side.first(9)]

    assert ranked == [placed[3], placed[1], placed[0], placed[2]]
    side.discard(placed[3])
    side.discard(placed[3])
    assert side.best.record is placed[1]


def test_a_taker_pays_the_quote_and_never_more_than_its_limit():
    contract = market()

    assert contract.taken_at(order("825")) == Decimal("820.1")
    assert contract.taken_at(order("819")) == 819
    assert contract.taken_at(order("815", Side.SELL)) == Decimal("819.9")


def test_parts_are_whole_lots():
    option = next(each for each in INSTRUMENTS if each.lot == 65)

    whole = Resting(record=record("265", instrument=option, quantity=65 * 5), arrival=1, parts=3)
    single = Resting(record=record("820", quantity=1), arrival=1, parts=4)

    assert whole.slice == 130
    assert single.slice == 1


def test_only_orders_near_the_market_are_within_reach():
    contract = market()
    for number, price in enumerate(["820", "817.6", "817.5", "800", None]):
        contract.side(Side.BUY).add(Resting(record=record(price), arrival=number, parts=2))
    for number, price in enumerate(["815", "822.4", "822.6"]):
        contract.side(Side.SELL).add(Resting(record=record(price, Side.SELL), arrival=number, parts=2))

    assert contract.within_reach(Side.BUY) == 3
    assert contract.within_reach(Side.SELL) == 2
