import pytest

from feed_desk import order
from orderwire.core.orders import OrderStatus
from orderwire.feeds.pushwatch import PushWatch


@pytest.fixture
def watch():
    watch = PushWatch()
    watch.shown([order()], now=0, judge=False)
    return watch


def test_a_fill_only_the_book_told_is_missed_once(watch):
    for now in (4, 8, 12):
        watch.shown([order(filled=5)], now=now, judge=True)

    assert watch.missed == 1
    assert watch.doubted(12)
    assert not watch.doubted(8 + 61)


@pytest.mark.parametrize("first", [True, False])
def test_a_fill_the_stream_told_is_not_missed(watch, first):
    if first:
        watch.pushed(order(filled=5))
    watch.shown([order(filled=5)], now=4, judge=True)
    if not first:
        watch.pushed(order(filled=5))
    watch.shown([order(filled=5)], now=8, judge=True)

    assert (watch.missed, watch.doubted(8)) == (0, False)


def test_the_stream_that_tells_less_than_the_book_has_missed_the_rest(watch):
    watch.pushed(order(filled=3))
    watch.shown([order(filled=5)], now=4, judge=True)
    watch.shown([order(filled=5)], now=8, judge=True)

    assert watch.missed == 1


def test_an_end_must_be_told_acceptance_need_not(watch):
    watch.shown([order(), order("2")], now=4, judge=True)
    watch.shown([order(status=OrderStatus.CANCELLED), order("2")], now=8, judge=True)
    watch.shown([order(status=OrderStatus.CANCELLED), order("2")], now=12, judge=True)

    assert watch.missed == 1


def test_what_is_not_to_be_judged_is_taken_as_known(watch):
    watch.shown([order(filled=5)], now=4, judge=False)
    watch.shown([order(filled=5)], now=8, judge=True)

    assert watch.missed == 0


def test_a_stream_that_tells_first_again_is_doubted_no_longer(watch):
    watch.shown([order(filled=5)], now=4, judge=True)
    watch.shown([order(filled=5)], now=8, judge=True)
    doubted = watch.doubted(9)
    watch.pushed(order(filled=6))
    watch.shown([order(filled=6)], now=10, judge=True)

    assert (doubted, watch.doubted(10)) == (True, False)


def test_orders_that_left_the_book_are_forgotten(watch):
    for day in range(50):
        rows = [order(str(1000 * day + number), filled=1) for number in range(100)]
        for row in rows:
            watch.pushed(row)
        watch.shown(rows, now=4 * day, judge=True)

    assert watch.missed == 0
    assert len(watch._told) <= 4 * 100 + 256 + 100
