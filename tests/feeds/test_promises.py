"""What a feed keeps when its adapter, its stream or its surroundings do not."""

import asyncio
import itertools
from contextlib import suppress
from datetime import timedelta

import pytest

from feed_desk import ACCOUNT, SESSION, Desk, order
from orderwire.brokers.adapter import BrokerSession
from orderwire.core.events import EventType
from orderwire.core.orders import AccountId, Channel, OrderId, OrderStatus
from orderwire.core.recovery import Freshness
from orderwire.errors import BrokerUnreachableError, PermissionRefusedError, ProtocolViolationError
from virtual_time import START


def streamed(**fields):
    return order(**{"channel": Channel.STREAM, **fields})


class Line:
    """A stream as the brokers' adapters run it: it says itself when it begins and ends."""

    def __init__(self, desk):
        self.broker = desk.broker
        self.ends = asyncio.Event()
        self.closed_at = None
        self.broker.stream = self.run

    async def run(self):
        self.ends.clear()
        self.broker.listening = True
        try:
            await self.ends.wait()
            raise BrokerUnreachableError("the line broke")
        finally:
            self.closed_at = asyncio.get_running_loop().time()
            self.broker.listening = False


# --- reconnecting -----------------------------------------------------------------------------------------


def test_a_stream_that_was_healthy_is_dialled_again_without_the_long_pauses_of_before():
    async def refuse():
        raise BrokerUnreachableError("no")

    async def story(desk):
        desk.broker.stream = refuse
        await desk.seconds(30)
        line = Line(desk)
        await desk.seconds(60)
        line.ends.set()
        await desk.seconds(3)

    desk = Desk()
    desk.run(story)

    last, again = desk.broker.connect_times[-2:]
    assert again - last > 30
    times = desk.broker.connect_times
    assert max(b - a for a, b in itertools.pairwise(times[:-2])) == 4.0  # it had backed off before
    assert desk.feed.counters.reconnects > 5


def test_a_stream_that_dies_young_keeps_backing_off():
    async def story(desk):
        line = Line(desk)
        for _ in range(6):
            await desk.seconds(10)
            line.ends.set()
        await desk.seconds(10)

    desk = Desk()
    desk.run(story)

    dials = desk.broker.connect_times
    pauses = [next(t for t in dials if t > ended) - ended for ended in (10, 20, 30, 40, 50, 60)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_a_stream_that_never_delivers_is_ended_and_named():
    async def story(desk):
        desk.broker.stream = asyncio.Event().wait
        await desk.seconds(25)
        assert desk.feed.status.freshness is Freshness.DEGRADED
        assert "did not begin to deliver" in desk.feed.status.detail
        await desk.seconds(30)

    desk = Desk()
    desk.broker.stream = asyncio.Event().wait
    desk.run(story)

    assert len(desk.broker.connect_times) == 3


def test_a_stream_that_falls_silent_unnoticed_by_its_adapter_is_ended_here():
    async def story(desk):
        Line(desk)
        await desk.seconds(2)
        for _ in range(10):
            desk.broker.heard_at = desk.clock.monotonic()
            await desk.seconds(5)
        before = len(desk.broker.connect_times)
        await desk.seconds(35)
        assert len(desk.broker.connect_times) == before + 1

    desk = Desk()
    desk.run(story)


# --- reading ----------------------------------------------------------------------------------------------


def test_an_order_that_opens_in_an_idle_account_quickens_the_reads_at_once():
    async def story(desk):
        await desk.seconds(3)
        desk.held.open = 1
        await desk.seconds(12)

    desk = Desk()
    desk.run(story)

    assert [t for t in desk.broker.read_times if t >= 3] == [4, 8, 12]


def test_accounts_that_start_together_do_not_read_in_step():
    async def story(desk):
        desk.held.open = 1
        await desk.seconds(60)

    slow, quick = Desk(chance=0.999), Desk(chance=0.0)
    slow.run(story)
    quick.run(story)

    assert [t for t in quick.broker.read_times if t > 1][:2] == pytest.approx([3.6, 7.2])
    assert max(b - a for a, b in itertools.pairwise(slow.broker.read_times)) < 4.5


def test_a_stream_that_loses_a_fill_has_the_book_read_every_second_until_it_tells_again():
    async def story(desk):
        desk.held.open = 1
        desk.broker.book = [order(filled=0), order("2")]
        Line(desk)
        await desk.seconds(6)
        desk.broker.book = [order(filled=5), order("2")]  # the stream says nothing of it
        await desk.seconds(14)
        assert desk.feed.watch.missed == 1
        assert desk.feed.status.freshness is Freshness.LIVE
        assert "missed" in desk.feed.status.detail
        desk.broker.on_order(streamed(order_id="2", filled=3))
        desk.broker.book = [order(filled=5), order("2", filled=3)]
        await desk.seconds(20)
        assert desk.feed.status.detail == ""

    desk = Desk()
    desk.run(story)

    gaps = [b - a for a, b in itertools.pairwise(t for t in desk.broker.read_times if 13 <= t <= 19)]
    assert set(gaps) == {1.0}
    assert [b - a for a, b in itertools.pairwise(desk.broker.read_times)][-1] == 4.0


def test_a_push_that_is_merely_slower_than_the_book_is_not_missed():
    async def story(desk):
        desk.held.open = 1
        desk.broker.book = [order()]
        Line(desk)
        await desk.seconds(6)
        desk.broker.book = [order(filled=5)]
        await asyncio.sleep(2.1)
        desk.broker.on_order(streamed(filled=5))
        await desk.seconds(20)

    desk = Desk()
    desk.run(story)

    assert desk.feed.watch.missed == 0
    assert {b - a for a, b in itertools.pairwise(t for t in desk.broker.read_times if t > 8)} == {4.0}


def test_what_happened_while_the_stream_was_down_was_not_missed_by_it():
    async def story(desk):
        desk.held.open = 1
        desk.broker.book = [order()]
        line = Line(desk)
        await desk.seconds(6)
        line.ends.set()
        desk.broker.book = [order(filled=5)]
        await desk.seconds(30)

    desk = Desk()
    desk.run(story)

    assert desk.feed.watch.missed == 0


def test_a_shared_budget_that_is_short_stretches_the_reads_and_the_page_says_so():
    async def story(desk):
        desk.held.open = 1
        desk.broker.book_share = lambda: 10.0
        await desk.seconds(60)
        assert desk.feed.status.freshness is Freshness.LIVE
        assert "every 10 s" in desk.feed.status.detail

    desk = Desk()
    desk.run(story)

    assert {b - a for a, b in itertools.pairwise(t for t in desk.broker.read_times if t > 1)} == {10.0}


def test_at_night_nothing_hammers():
    async def story(desk):
        desk.market_is_open = False
        desk.broker.stream = refuse
        await desk.seconds(3600)

    async def refuse():
        raise BrokerUnreachableError("closed for the night")

    desk = Desk()
    desk.market_is_open = False
    desk.broker.stream = refuse
    desk.run(story)

    assert len(desk.broker.read_times) <= 3600 / 300 + 2
    assert len(desk.broker.connect_times) <= 3600 / 30 + 10


def test_at_the_opening_everybody_comes_back_at_once_but_not_at_the_same_moment():
    async def refuse():
        raise BrokerUnreachableError("closed for the night")

    async def forbidden():
        raise PermissionRefusedError("no stream for this account")

    def night(stream, chance):
        async def story(desk):
            desk.market_is_open = False
            await desk.seconds(1000)
            desk.market_is_open = True
            desk.broker.stream = desk.broker.stay_connected
            await desk.seconds(5)
            return desk

        desk = Desk(chance=chance)
        desk.market_is_open = False
        desk.broker.stream = stream
        desk.run(story)
        return desk

    dialled = night(refuse, 0.99).broker.connect_times[-1]
    polled = [next(t for t in night(forbidden, c).broker.read_times if t > 1000) for c in (0.1, 0.5, 0.9)]

    assert dialled == 1001  # its pause would have lasted a minute
    assert polled == pytest.approx([1001.3, 1002.5, 1003.7])


def test_an_order_left_open_overnight_does_not_make_the_page_stale():
    async def story(desk):
        desk.held.open = 1
        desk.market_is_open = False
        await desk.seconds(600)

    desk = Desk()
    desk.market_is_open = False
    desk.run(story)

    assert Freshness.STALE not in desk.freshness()


# --- real-time on and off ---------------------------------------------------------------------------------


def test_switched_off_the_stream_is_gone_within_a_second_and_the_book_is_read_once_more():
    async def story(desk):
        line = Line(desk)
        await desk.seconds(10)
        desk.feed.set_push(False)
        desk.broker.on_order(streamed(filled=1))  # still on its way when the switch fell
        assert desk.orders() == []
        await asyncio.sleep(1)
        assert line.closed_at <= 11
        assert desk.feed.status.freshness is Freshness.MANUAL
        await desk.seconds(300)

    desk = Desk()
    desk.run(story)

    assert [t for t in desk.broker.read_times if t >= 10] == [10]
    assert len(desk.broker.connect_times) == 1
    assert desk.feed.valve.held_back == 1


def test_switched_on_again_the_stream_comes_at_once_and_the_book_is_read_behind_it():
    async def story(desk):
        Line(desk)
        await desk.seconds(100)
        desk.feed.set_push(True)
        await asyncio.sleep(0.5)
        assert desk.feed.status.freshness is Freshness.LIVE
        desk.broker.on_order(streamed(filled=1))
        assert [update.filled_quantity for update in desk.orders()] == [1]

    desk = Desk(push=False)
    desk.run(story)

    assert [t for t in desk.broker.connect_times if t >= 100] == [100]


def test_switching_on_does_not_wait_for_a_pause_from_before():
    async def refuse():
        raise BrokerUnreachableError("no")

    async def story(desk):
        desk.broker.stream = refuse
        await desk.seconds(30)
        desk.feed.set_push(False)
        await asyncio.sleep(0.1)
        desk.broker.stream = desk.broker.stay_connected
        desk.feed.set_push(True)
        await asyncio.sleep(0.1)
        assert desk.feed.status.freshness is Freshness.LIVE

    Desk().run(story)


def test_a_change_over_in_the_middle_of_everything_loses_nothing():
    """An exchange that fills one lot every 50 ms; the switch falls at every phase of it, in both directions."""

    async def story(desk):
        filled = 0
        desk.held.open = 1

        async def trade():
            nonlocal filled
            while True:
                await asyncio.sleep(0.05)
                filled += 1
                desk.broker.book = [order(filled=filled)]
                if desk.broker.listening:
                    desk.broker.on_order(streamed(filled=filled))

        trading = asyncio.create_task(trade())
        for turn in range(40):
            on = bool(turn % 2)
            await asyncio.sleep(2.0 + 0.013 * turn)
            before = filled
            desk.feed.set_push(on)
            await asyncio.sleep(0.001)
            assert max(update.filled_quantity for update in desk.orders()) >= before
        trading.cancel()

    desk = Desk()
    desk.broker.book = [order()]
    desk.run(story)

    seen = [update.filled_quantity for update in desk.orders() if update.channel is Channel.STREAM]
    assert len(seen) > 300


def test_with_push_off_a_callback_is_no_reason_to_read_but_a_doubt_of_our_own_is():
    async def story(desk):
        await desk.seconds(10)
        desk.feed.hint(OrderId("1"), "hint: a postback came")
        await desk.seconds(10)
        desk.feed.hint(OrderId("1"), "conflict")
        await desk.seconds(10)

    desk = Desk(push=False)
    desk.run(story)

    assert desk.broker.read_times == [0, 21.1]


# --- sessions ---------------------------------------------------------------------------------------------


def test_a_session_ends_at_its_hour_and_nothing_is_sent_with_it_afterwards():
    async def story(desk):
        line = Line(desk)
        desk.held.open = 1
        desk.feed.log_in(
            BrokerSession(user_id="U", secrets={"token": "t"}, expires_at=START + timedelta(seconds=60))
        )
        await desk.seconds(62)
        assert desk.feed.status.freshness is Freshness.AUTH_REQUIRED
        assert "10:01" in desk.feed.status.detail
        assert desk.alerts() == ["login needed"]
        assert line.closed_at <= 61
        await desk.seconds(600)

    desk = Desk()
    desk.run(story)

    assert max(desk.broker.read_times) <= 61
    assert len(desk.broker.connect_times) == 1


def test_a_new_login_has_the_stream_dialled_with_its_token():
    async def story(desk):
        Line(desk)
        await desk.seconds(5)
        desk.feed.log_in(BrokerSession(user_id="U", secrets={"token": "t"}))
        await desk.seconds(5)
        assert len(desk.broker.connect_times) == 1  # the same token
        desk.feed.log_in(BrokerSession(user_id="U", secrets={"token": "other"}))
        await desk.seconds(5)
        assert desk.feed.status.freshness is Freshness.LIVE

    desk = Desk()
    desk.run(story)

    assert len(desk.broker.connect_times) == 2


# --- adapters that do harm --------------------------------------------------------------------------------


def test_a_read_that_never_ends_is_ended_named_and_tried_again():
    async def story(desk):
        desk.held.open = 1
        await desk.seconds(5)
        desk.broker.order_book = asyncio.Event().wait
        await desk.seconds(40)
        assert desk.feed.status.freshness is Freshness.STALE
        assert "read" in desk.feed.status.detail
        assert "30 s" in desk.feed.status.detail
        del desk.broker.order_book
        await desk.seconds(40)
        assert desk.feed.status.freshness is Freshness.LIVE

    desk = Desk()
    desk.run(story)

    assert desk.feed.counters.faults["TimeoutError"] >= 1
    assert "adapter fault: TimeoutError" in desk.alerts()


@pytest.mark.parametrize("nonsense", [None, 7, [None], [{"order_id": "1"}], ["x"]])
def test_nonsense_in_place_of_a_book_is_named_and_harms_nothing_else(nonsense):
    async def answer():
        return nonsense

    async def story(desk):
        desk.held.open = 1
        desk.broker.order_book = answer
        await desk.seconds(20)
        assert desk.feed.status.freshness is Freshness.STALE
        assert "Fake adapter failed at the read" in desk.feed.status.detail
        del desk.broker.order_book
        await desk.seconds(5)
        assert desk.feed.status.freshness is Freshness.LIVE

    desk = Desk()
    desk.broker.order_book = answer
    desk.run(story)


def test_another_accounts_order_reaches_nobody_and_is_named():
    async def story(desk):
        desk.broker.book = [order(account=AccountId("somebody else"))]
        await desk.seconds(3)
        desk.broker.on_order(order(account=AccountId("somebody else")))
        desk.broker.read_error = BrokerUnreachableError("away")
        desk.held.open = 1

    desk = Desk()
    desk.run(story)

    assert desk.orders() == []
    assert desk.feed.valve.foreign >= 2
    assert desk.feed.counters.faults["another account's"] >= 2


def test_a_stream_that_cannot_be_ended_is_not_heard_and_no_other_is_dialled_until_it_is_gone():
    over = asyncio.Event()

    async def deaf():
        desk.broker.listening = True
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    async def story(desk):
        await desk.seconds(5)
        desk.feed.set_push(False)
        await desk.seconds(3)
        desk.feed.set_push(True)
        desk.broker.on_order(streamed(filled=3))
        await desk.seconds(30)
        assert desk.feed.status.freshness is Freshness.DEGRADED
        assert "did not let go" in desk.feed.status.detail
        assert len(desk.broker.connect_times) == 1
        desk.broker.stream = desk.broker.stay_connected
        over.set()
        await desk.seconds(10)
        assert desk.feed.status.freshness is Freshness.LIVE

    desk = Desk()
    desk.broker.stream = deaf
    desk.run(story)

    assert desk.orders() == []


def test_an_adapter_that_blocks_everybody_is_named_and_cut_off_when_it_goes_on():
    async def story(desk):
        desk.held.open = 1
        await desk.seconds(2)

        async def block():
            desk.clock.seconds += 3.0  # a time.sleep(3) in the middle of a coroutine
            return []

        desk.broker.order_book = block
        await desk.seconds(5)
        assert desk.alerts() == ["adapter blocked"]
        await desk.seconds(10)
        assert desk.feed.status.freshness is Freshness.STALE
        assert "cut off" in desk.feed.status.detail
        reads = desk.feed.counters.reads
        await desk.seconds(300)
        assert desk.feed.counters.reads == reads

    desk = Desk()
    desk.run(story)

    assert desk.feed.counters.blocked == 6.0
    assert not desk.feed.valve.open


def test_a_stream_that_has_become_unreadable_leaves_the_account_polling_with_an_alert():
    async def odd():
        desk.broker.listening = True
        raise ProtocolViolationError("no order id in an order")

    async def story(desk):
        desk.held.open = 1
        await desk.seconds(60)
        assert desk.feed.status.freshness is Freshness.DEGRADED
        assert "incompatible" in desk.feed.status.detail
        assert len(desk.broker.connect_times) == 3
        desk.broker.stream = desk.broker.stay_connected
        await desk.seconds(60)
        assert len(desk.broker.connect_times) == 3
        desk.feed.log_in(SESSION)
        await desk.seconds(3)
        assert desk.feed.status.freshness is Freshness.LIVE

    desk = Desk()
    desk.broker.stream = odd
    desk.run(story)

    assert desk.alerts() == ["unreadable stream", "incompatible stream"]
    assert len([t for t in desk.broker.read_times if 10 < t < 60]) >= 16


def test_a_stream_that_tells_orders_between_two_bad_ends_is_not_given_up():
    async def now_and_then():
        desk.broker.listening = True
        desk.broker.on_order(streamed(filled=1))
        raise ProtocolViolationError("odd")

    async def story(desk):
        await desk.seconds(60)

    desk = Desk()
    desk.broker.stream = now_and_then
    desk.run(story)

    assert len(desk.broker.connect_times) > 5


def test_a_book_that_cannot_be_read_any_more_raises_one_alert_and_no_guess():
    async def story(desk):
        desk.held.open = 1
        await desk.seconds(3)
        desk.broker.read_error = ProtocolViolationError("no status in an order")
        await desk.seconds(60)
        assert desk.feed.status.freshness is Freshness.STALE

    desk = Desk()
    desk.run(story)

    assert desk.alerts() == ["unreadable answer"]


def test_a_feed_whose_own_work_breaks_goes_on_and_says_so():
    async def story(desk):
        await desk.seconds(5)
        real, desk.held.current = desk.held.open_orders, desk.held.current
        calls = itertools.count()

        def once(account):
            if next(calls) == 0:
                raise ZeroDivisionError("a mistake of ours")
            return real(account)

        desk.held.open_orders = once
        desk.feed.request_read()
        await asyncio.sleep(20)
        assert desk.feed.status.freshness is Freshness.LIVE

    desk = Desk()
    desk.run(story)

    assert any(kind.startswith("adapter fault") for kind in desk.alerts())
    assert max(desk.broker.read_times) >= 10


def test_instruments_that_never_come_delay_the_first_read_and_no_more():
    async def never(account):
        assert account == ACCOUNT
        await asyncio.Event().wait()

    async def story(desk):
        await desk.seconds(20)
        assert desk.feed.status.freshness is Freshness.LIVE

    desk = Desk()
    desk.instruments = never
    desk.run(story)

    assert desk.broker.read_times[0] == 15


def test_a_feed_that_was_ended_says_nothing_more():
    async def story(desk):
        await desk.seconds(3)
        desk.feed.close()
        desk.broker.on_order(order(filled=1))
        desk.broker.on_order(streamed(filled=1))

    desk = Desk()
    desk.run(story)

    assert [event for event in desk.events if event.type == EventType.ORDER_UPDATE] == []


def test_the_status_is_an_event_of_its_own_whenever_it_changes():
    async def story(desk):
        await desk.seconds(5)
        desk.feed.set_push(False)
        desk.feed.set_push(True)
        await desk.seconds(5)

    desk = Desk()
    desk.run(story)

    assert desk.freshness()[-3:] == [Freshness.MANUAL, Freshness.DEGRADED, Freshness.LIVE] or (
        desk.freshness()[-1] is Freshness.LIVE and Freshness.MANUAL in desk.freshness()
    )


def test_terminal_orders_are_facts_the_stream_must_tell_too():
    async def story(desk):
        desk.held.open = 1
        desk.broker.book = [order()]
        Line(desk)
        await desk.seconds(6)
        desk.broker.book = [order(status=OrderStatus.CANCELLED)]
        await desk.seconds(14)

    desk = Desk()
    desk.run(story)

    assert desk.feed.watch.missed == 1
