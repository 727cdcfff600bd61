import asyncio
import itertools
from datetime import timedelta

import pytest

from feed_desk import SESSION, Desk, order, trade
from orderwire.brokers.adapter import BrokerSession
from orderwire.core.books import BookRows
from orderwire.core.events import EventType
from orderwire.core.orders import OrderId, OrderStatus
from orderwire.core.recovery import Freshness
from orderwire.errors import (
    BrokerUnreachableError,
    PermissionRefusedError,
    ProtocolViolationError,
    RateLimitedError,
    SessionExpiredError,
)
from orderwire.feeds.supervisor import ConnectLimiter
from virtual_time import START, VirtualClock, run_virtually


def test_the_page_is_live_only_after_the_book_was_read_on_a_delivering_stream():
    async def story(desk):
        await asyncio.sleep(1)
        assert desk.feed.status.freshness is Freshness.LIVE

    desk = Desk()
    desk.run(story)

    assert desk.freshness()[-1] is Freshness.LIVE
    assert Freshness.RECONCILING in desk.freshness()
    assert desk.broker.read_times[-1] >= desk.broker.connect_times[0]


def test_a_live_feed_reads_every_four_seconds_while_orders_are_open_and_rarely_when_not():
    async def story(desk):
        desk.held.open = 1
        await asyncio.sleep(20.5)
        desk.held.open = 0
        await asyncio.sleep(60)

    desk = Desk()
    desk.run(story)

    busy = [t for t in desk.broker.read_times if 1 < t <= 20.5]
    idle = [t for t in desk.broker.read_times if t > 25]
    assert busy == [4, 8, 12, 16, 20]
    assert len(idle) == 1 + 1


def test_a_look_that_fails_is_counted_and_named_and_the_next_one_is_taken():
    async def story(desk):
        desk.feed.tick = lambda: 1 / 0
        for _ in range(3):
            desk.feed.look()
        del desk.feed.tick

    desk = Desk()
    desk.run(story)

    assert desk.feed.counters.faults["ZeroDivisionError"] == 3
    assert desk.alerts() == ["adapter fault: ZeroDivisionError"]


def test_the_health_of_a_feed_says_how_long_its_stream_lived_and_has_been_down():
    async def story(desk):
        broker = desk.broker

        async def refuse():
            raise BrokerUnreachableError("gone")

        async def drop_after_five_seconds():
            broker.listening = True
            await asyncio.sleep(1)
            broker.heard_at = desk.clock.monotonic()
            await asyncio.sleep(2)
            seen.append(desk.feed.health())
            await asyncio.sleep(2)
            broker.stream = refuse
            raise BrokerUnreachableError("gone")

        broker.stream = drop_after_five_seconds
        await asyncio.sleep(25)
        seen.append(desk.feed.health())

    seen = []
    Desk().run(story)

    up, down = seen
    assert (up.connected, up.streams, up.down_seconds) == (True, True, 0)
    assert (up.connected_seconds, up.heartbeat_age) == (pytest.approx(3), pytest.approx(2))
    assert (down.connected, down.streams, down.heartbeat_age) == (False, True, None)
    assert down.connected_seconds == pytest.approx(5)
    assert down.down_seconds == pytest.approx(20)
    assert down.counts["reconnects"] > 1


def test_a_stream_that_nobody_wants_is_not_down():
    async def story(desk):
        await asyncio.sleep(30)
        assert desk.feed.health().streams is False
        assert desk.feed.health().down_seconds == 0

    Desk(push=False).run(story)
    Desk().run(story, logged_in=False)


def test_a_lost_stream_is_polled_at_once_and_every_three_seconds_until_it_is_back():
    async def story(desk):
        broker = desk.broker

        async def refuse():
            raise BrokerUnreachableError("gone")

        async def drop_after_a_second():
            broker.listening = True
            await asyncio.sleep(1)
            broker.stream = refuse
            raise BrokerUnreachableError("gone")

        broker.stream = drop_after_a_second
        await asyncio.sleep(9)
        assert desk.feed.status.freshness is Freshness.DEGRADED
        broker.stream = broker.stay_connected
        await asyncio.sleep(5)
        assert desk.feed.status.freshness is Freshness.LIVE

    desk = Desk()
    desk.run(story)

    assert [t for t in desk.broker.read_times if 1 <= t < 9] == [1, 4, 7]
    back = desk.broker.connect_times[-1]
    assert back in desk.broker.read_times
    assert desk.freshness()[-2:] == [Freshness.RECONCILING, Freshness.LIVE]


def test_the_delays_between_connects_double_with_jitter_up_to_eight_seconds():
    async def refuse():
        raise BrokerUnreachableError("no")

    async def story(desk):
        desk.broker.stream = refuse
        await asyncio.sleep(40)

    desk = Desk()
    desk.broker.stream = refuse
    desk.run(story)

    times = desk.broker.connect_times
    gaps = [round(b - a, 6) for a, b in itertools.pairwise(times)]
    assert gaps[:6] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_a_dead_token_stops_everything_until_the_user_logs_in():
    async def story(desk):
        desk.broker.read_error = SessionExpiredError("Token is invalid")
        await asyncio.sleep(30)
        assert desk.feed.status.freshness is Freshness.AUTH_REQUIRED
        reads = len(desk.broker.read_times)
        await asyncio.sleep(600)
        assert len(desk.broker.read_times) == reads
        desk.broker.read_error = None
        desk.feed.log_in(SESSION)
        await asyncio.sleep(1)
        assert desk.feed.status.freshness is Freshness.LIVE

    Desk().run(story)


def test_a_broker_that_needs_no_user_is_logged_in_again_by_itself():
    async def story(desk):
        await asyncio.sleep(1)
        assert desk.feed.status.freshness is Freshness.LIVE

    desk = Desk(renew=SESSION)
    desk.run(story, logged_in=False)

    assert desk.renewals == 1


def test_two_processes_that_evict_each_other_do_not_ping_pong():
    async def story(desk):
        desk.broker.read_error = SessionExpiredError("logged out by another user")
        await asyncio.sleep(3600)

    desk = Desk(renew=SESSION)
    desk.run(story)

    assert 1 < desk.renewals <= 15


def test_unread_for_fifteen_seconds_with_orders_open_is_stale_and_says_why():
    async def story(desk):
        desk.held.open = 1
        await asyncio.sleep(1)
        desk.broker.read_error = BrokerUnreachableError("the broker answers 502")
        for _ in range(20):
            await asyncio.sleep(1)
            desk.feed.tick()
        assert desk.feed.status.freshness is Freshness.STALE
        assert "502" in desk.feed.status.detail

    Desk().run(story)


def test_a_rate_limit_is_honoured():
    async def story(desk):
        desk.held.open = 1
        await asyncio.sleep(1)
        desk.broker.read_error = RateLimitedError("slow down", retry_after=60)
        await asyncio.sleep(60)

    desk = Desk()
    desk.run(story)

    assert len([t for t in desk.broker.read_times if 1 < t < 60]) == 1


def test_a_login_tries_the_stream_again_for_an_account_that_was_refused_it():
    async def forbidden():
        raise PermissionRefusedError("a free app has no stream")

    async def story(desk):
        await asyncio.sleep(10)
        assert desk.feed.status.freshness is Freshness.DEGRADED
        desk.broker.stream = desk.broker.stay_connected
        desk.feed.log_in(SESSION)
        await asyncio.sleep(10)
        assert desk.feed.status.freshness is Freshness.LIVE

    desk = Desk()
    desk.broker.stream = forbidden
    desk.run(story)


def test_an_account_without_a_stream_polls_and_does_not_hammer():
    async def forbidden():
        raise PermissionRefusedError("a free app has no stream")

    async def story(desk):
        await asyncio.sleep(3500)
        assert desk.feed.status.freshness is Freshness.DEGRADED
        assert "free app" in desk.feed.status.detail

    desk = Desk()
    desk.broker.stream = forbidden
    desk.run(story)

    assert desk.broker.connect_times == [0, 60, 180, 420, 900, 1800, 2700]


def test_a_refusal_of_the_stream_that_passes_costs_a_minute_not_the_day():
    async def forbidden():
        raise PermissionRefusedError("refused although the login is valid")

    async def story(desk):
        await asyncio.sleep(30)
        assert desk.feed.status.freshness is Freshness.DEGRADED
        desk.broker.stream = desk.broker.stay_connected
        await asyncio.sleep(31)
        assert desk.feed.status.freshness is Freshness.LIVE

    desk = Desk()
    desk.broker.stream = forbidden
    desk.run(story)


def test_an_adapter_that_raises_is_counted_and_reconnected():
    async def odd():
        raise ValueError("nonsense")

    async def story(desk):
        await asyncio.sleep(30)

    desk = Desk()
    desk.broker.stream = odd
    desk.run(story)

    assert desk.feed.counters.faults == {"ValueError": len(desk.broker.connect_times)}
    assert len(desk.broker.connect_times) > 3


def test_after_an_action_the_book_is_read_at_once_and_twice_more():
    async def story(desk):
        await asyncio.sleep(1)
        desk.feed.after_action()
        await asyncio.sleep(2)

    desk = Desk()
    desk.run(story)

    assert [t for t in desk.broker.read_times if t >= 1] == [1.0, 1.25, 2.0]


def test_with_push_off_no_stream_is_opened_and_the_book_waits_for_the_user():
    async def story(desk):
        await asyncio.sleep(100)
        assert desk.feed.status.freshness is Freshness.MANUAL
        desk.feed.after_action()
        await asyncio.sleep(100)

    desk = Desk(push=False)
    desk.run(story)

    assert desk.broker.connect_times == []
    assert desk.broker.read_times == [0.0, 100.5]


def test_a_tie_asks_for_the_orders_history():
    async def story(desk):
        await asyncio.sleep(1)
        desk.feed.hint(OrderId("7"), "tie")
        await asyncio.sleep(1)

    desk = Desk()
    desk.run(story)

    assert desk.broker.history == ["7"]
    assert desk.feed.health().counts["histories"] == 1


def test_unchanged_rows_that_agree_with_what_we_hold_are_published_once():
    async def story(desk):
        desk.held.open = 1
        desk.held.current = lambda account, order_id: FakeView
        await asyncio.sleep(30)

    desk = Desk()
    desk.broker.book = [order()]
    desk.run(story)

    assert len(desk.orders()) == 1


class FakeView:
    filled_quantity = 0
    quantity = 10
    price = trigger_price = 0
    status = OrderStatus.OPEN
    pending_modify = pending_cancel = conflict = checking = False


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("quantity", 9),
        ("price", 1),
        ("trigger_price", 1),
        ("filled_quantity", 1),
        ("status", OrderStatus.CANCELLED),
        ("conflict", True),
        ("checking", True),
        ("pending_modify", True),
        ("pending_cancel", True),
    ],
)
def test_a_row_that_contradicts_what_we_hold_is_published_at_every_read_until_it_is_settled(name, other):
    async def story(desk):
        desk.held.open = 1
        desk.held.current = lambda account, order_id: type("Held", (FakeView,), {name: other})
        await asyncio.sleep(9)

    desk = Desk()
    desk.broker.book = [order()]
    desk.run(story)

    assert len(desk.orders()) == len(desk.broker.read_times) > 1


def test_a_row_we_do_not_hold_is_published_again_at_every_read():
    async def story(desk):
        desk.held.open = 1
        await asyncio.sleep(9)

    desk = Desk()
    desk.broker.book = [order()]
    desk.run(story)

    assert len(desk.orders()) == len(desk.broker.read_times)


def test_two_hundred_accounts_dropped_together_connect_at_most_ten_in_a_hundred_milliseconds():
    clock = VirtualClock()
    times = []

    async def play():
        limiter = ConnectLimiter()

        async def connect():
            await limiter.take()
            times.append(asyncio.get_running_loop().time())

        await asyncio.gather(*(connect() for _ in range(200)))

    run_virtually(play(), clock)

    assert max(sum(1 for t in times if start <= t < start + 0.1) for start in times) <= 5
    assert max(sum(1 for t in times if start <= t < start + 1.0) for start in times) <= 46
    assert times[-1] < 4.5


def test_a_stream_message_that_was_left_out_has_the_book_read():
    async def story(desk):
        await asyncio.sleep(1)
        desk.broker.note_violation(ProtocolViolationError("odd"))
        await asyncio.sleep(1)

    desk = Desk()
    desk.run(story)

    assert desk.feed.counters.violations == 1
    assert 1.0 in desk.broker.read_times


def test_a_flood_of_hints_costs_five_reads_a_second_and_the_first_is_answered_at_once():
    async def story(desk):
        await asyncio.sleep(2)
        before = len(desk.broker.read_times)
        began = asyncio.get_running_loop().time()
        for _ in range(1000):
            desk.feed.hint(OrderId("1"), "hint: a postback came")
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.3)
        desk.flood = [at - began for at in desk.broker.read_times[before:]]

    desk = Desk()
    desk.run(story)

    assert desk.flood[0] == 0
    assert len(desk.flood) <= 7
    assert min(b - a for a, b in itertools.pairwise(desk.flood)) >= 0.2


def test_orders_that_a_lagging_book_contradicts_share_one_read_after_a_second():
    """Found by seed 64393 of 100,000: each had a read of its own, and each read contradicted all of them again."""

    async def story(desk):
        async def lagging():
            for number in range(5):
                desk.feed.hint(OrderId(str(number)), "conflict: the order book says otherwise")
                await asyncio.sleep(0.002)
            return await read()

        await asyncio.sleep(2)
        read, desk.broker.order_book = desk.broker.order_book, lagging
        before = len(desk.broker.read_times)
        desk.feed.request_read()
        await asyncio.sleep(10)
        desk.reads = desk.broker.read_times[before:]

    desk = Desk()
    desk.run(story)

    assert 8 <= len(desk.reads) <= 12
    assert min(b - a for a, b in itertools.pairwise(desk.reads)) >= 1.0


def test_a_hint_during_a_read_has_the_book_read_again():
    async def story(desk):
        await asyncio.sleep(2)
        began, release = asyncio.Event(), asyncio.Event()
        read = desk.broker.order_book

        async def slow_book():
            began.set()
            await release.wait()
            return await read()

        desk.broker.order_book = slow_book
        desk.feed.request_read()
        await began.wait()
        desk.hinted_ns = desk.clock.time_ns()
        await asyncio.sleep(0.01)
        desk.feed.hint(OrderId("1"), "hint: a postback came")
        hinted = desk.clock.time_ns()
        release.set()
        await asyncio.sleep(1)
        desk.after = [event.data.asked_ns for event in desk.events if event.type == EventType.BOOK_READ][1:]
        assert desk.after
        assert all(asked >= hinted for asked in desk.after)

    Desk().run(story)


def test_a_read_that_comes_before_a_contradiction_is_due_does_not_answer_it_for_good():
    async def story(desk):
        await asyncio.sleep(2)
        desk.feed.hint(OrderId("1"), "conflict: a postback claims otherwise")
        began = desk.clock.time_ns()
        await asyncio.sleep(0.3)
        desk.feed.request_read()
        await asyncio.sleep(30)
        asked = [event.data.asked_ns - began for event in desk.events if event.type == EventType.BOOK_READ][
            1:
        ]
        assert [round(late / 1e9, 1) for late in asked] == [0.3, 1.1]

    Desk().run(story)


def test_the_first_read_answers_what_an_earlier_process_was_hinted_and_routine_reads_say_nothing():
    async def story(desk):
        desk.held.open = 1
        await asyncio.sleep(60)

    desk = Desk()
    desk.run(story)

    assert len(desk.broker.read_times) > 10
    assert len([event for event in desk.events if event.type == EventType.BOOK_READ]) == 1


def test_a_hint_that_a_failed_read_did_not_answer_is_answered_by_the_next():
    async def story(desk):
        await asyncio.sleep(2)
        desk.broker.read_error = BrokerUnreachableError("gone")
        desk.feed.hint(OrderId("1"), "hint: a postback came")
        await asyncio.sleep(1)
        desk.broker.read_error = None
        await asyncio.sleep(40)
        assert len([event for event in desk.events if event.type == EventType.BOOK_READ]) == 2

    Desk().run(story)


def test_what_cannot_be_read_is_published_with_its_bytes_whatever_channel_it_came_by():
    async def story(desk):
        await asyncio.sleep(1)
        desk.broker.note_violation(ProtocolViolationError("odd", raw=b"{"))
        desk.broker.note_violation(ProtocolViolationError("said by nobody"))
        desk.broker.read_error = ProtocolViolationError("a book that is no list", raw=b"[[")
        desk.feed.request_read()
        await asyncio.sleep(1)

    desk = Desk()
    desk.run(story)

    kept = [event.data for event in desk.events if event.type == EventType.UNREADABLE]
    assert [(one.reason, one.raw) for one in kept] == [("odd", b"{"), ("a book that is no list", b"[[")]
    assert {one.account for one in kept} == {desk.feed.account}


def odd(raw=b"{}"):
    return ProtocolViolationError("a row without order_id", raw=raw)


def test_an_odd_row_leaves_the_account_polling_with_the_reason_and_never_stale():
    async def story(desk):
        desk.held.open = 1
        await asyncio.sleep(1)
        desk.broker.book = BookRows([order()], odd=[odd()])
        await asyncio.sleep(120)
        assert desk.feed.status.freshness is Freshness.DEGRADED
        assert "1 of the order book" in desk.feed.status.detail
        assert desk.feed.status.connected
        desk.broker.book = BookRows([order()])
        await asyncio.sleep(5)
        assert desk.feed.status.freshness is Freshness.LIVE
        assert desk.feed.status.detail == ""

    desk = Desk()
    desk.run(story)

    assert Freshness.STALE not in desk.freshness()
    assert desk.feed.counters.failed_reads == 0
    assert [event.data.order_id for event in desk.events if event.type == EventType.ORDER_UPDATE][:1] == ["1"]


def test_an_odd_row_is_counted_and_kept_once_a_session_day_however_often_it_is_read():
    async def story(desk):
        desk.held.open = 1
        desk.broker.book = BookRows(odd=[odd(b"a"), odd(b"b")])
        await asyncio.sleep(60)
        assert desk.feed.counters.violations == 2
        await asyncio.sleep(24 * 3600)

    desk = Desk()
    desk.run(story)

    kept = [event.data.raw for event in desk.events if event.type == EventType.UNREADABLE]
    assert kept == [b"a", b"b"] * 2
    assert desk.feed.counters.violations == 4


def test_odd_rows_of_the_side_books_and_of_a_history_are_told_and_hide_nothing():
    async def story(desk):
        async def trade_book():
            return BookRows(odd=[odd(b"trade")])

        async def positions():
            return BookRows(odd=[odd(b"position")])

        async def order_history(_order_id):
            return BookRows([order("7")], odd=[odd(b"step")])

        desk.broker.trade_book, desk.broker.positions = trade_book, positions
        desk.broker.order_history = order_history
        desk.feed.hint(OrderId("7"), "tie")
        await asyncio.sleep(5)
        assert desk.feed.status.freshness is Freshness.LIVE
        assert "1 of the trade book" in desk.feed.status.detail

    desk = Desk()
    desk.run(story)

    kept = {event.data.raw for event in desk.events if event.type == EventType.UNREADABLE}
    assert kept == {b"trade", b"position", b"step"}
    assert [event.data.order_id for event in desk.events if event.type == EventType.ORDER_UPDATE] == ["7"]


def test_a_book_with_an_odd_row_answers_no_hint_for_the_order_may_be_the_odd_one():
    async def story(desk):
        await asyncio.sleep(1)
        desk.broker.book = BookRows([order()], odd=[odd()])
        before = len(answers(desk))
        desk.feed.hint(OrderId("9"), "hint")
        await asyncio.sleep(30)
        assert len(answers(desk)) == before
        desk.broker.book = BookRows([order()])
        await asyncio.sleep(10)
        assert len(answers(desk)) == before + 1

    Desk().run(story)


def answers(desk):
    return [event for event in desk.events if event.type == EventType.BOOK_READ]


def test_a_read_that_was_under_way_does_not_hide_why_the_session_ended():
    async def story(desk):
        asked = asyncio.Event()

        async def order_book():
            asked.set()
            await asyncio.sleep(1)
            raise SessionExpiredError("Log in to Fake first.")

        await asyncio.sleep(1)
        desk.broker.order_book = order_book
        desk.feed.request_read()
        await asked.wait()
        desk.feed.log_out("The host is logged out at the broker.")
        await asyncio.sleep(5)
        assert desk.feed.status.freshness is Freshness.AUTH_REQUIRED
        assert desk.feed.status.detail == "The host is logged out at the broker."

    Desk().run(story)


def test_positions_that_moved_without_an_execution_are_read():
    async def story(desk):
        reads = []

        async def positions():
            reads.append(1)
            return []

        desk.broker.positions = positions
        await asyncio.sleep(20)
        assert len(reads) == 1
        desk.broker.note_positions_moved()
        await asyncio.sleep(0.1)
        assert len(reads) == 2

    Desk().run(story)


def ends_after(seconds):
    return BrokerSession(user_id="U", secrets={"token": "t"}, expires_at=START + timedelta(seconds=seconds))


def test_a_login_that_keys_suffice_for_is_renewed_before_it_ends():
    async def story(desk):
        desk.broker.session = ends_after(600)
        await asyncio.sleep(700)

    desk = Desk(renew=ends_after(86_400))
    desk.run(story)

    assert desk.renewals == 1
    assert desk.freshness()[-1] is Freshness.LIVE
    assert Freshness.AUTH_REQUIRED not in desk.freshness()


def test_a_login_that_needs_its_user_is_left_until_it_ends():
    async def story(desk):
        desk.broker.login_url = lambda *, state="": "https://broker.example/login"
        desk.broker.session = ends_after(600)
        await asyncio.sleep(599)

    desk = Desk(renew=ends_after(86_400))
    desk.run(story)

    assert desk.renewals == 0


def test_a_renewal_that_fails_is_tried_again():
    async def refuse(_account):
        desk.renewals += 1
        if desk.renewals < 3:
            raise BrokerUnreachableError("the broker is away")
        return ends_after(86_400)

    async def story(desk):
        desk.broker.session = ends_after(600)
        await asyncio.sleep(900)

    desk = Desk()
    desk.renew = refuse
    desk.run(story)

    assert desk.renewals == 3


def test_positions_are_read_at_once_and_then_once_a_second_however_often_they_move():
    async def story(desk):
        async def positions():
            read.append(asyncio.get_running_loop().time())
            return []

        await asyncio.sleep(10)
        desk.broker.positions = positions
        for _ in range(23):
            desk.broker.on_positions_moved()
            await asyncio.sleep(0.2)
        await asyncio.sleep(10)

    read = []
    Desk().run(story)

    assert read == pytest.approx([10, 11, 12, 13, 14, 15])


def test_after_a_reconnect_the_positions_are_read_though_nothing_filled():
    async def story(desk):
        async def positions():
            read.append(1)
            return []

        desk.broker.stream = stream_of(10)
        await asyncio.sleep(5)
        desk.broker.positions = positions
        desk.broker.stream = desk.broker.stay_connected
        await asyncio.sleep(30)

    def stream_of(seconds):
        async def stream():
            desk.broker.listening = True
            await asyncio.sleep(seconds)
            raise BrokerUnreachableError("the line is cut")

        return stream

    read = []
    desk = Desk()
    desk.run(story)

    assert len(desk.broker.connect_times) == 2
    assert read == [1]


@pytest.mark.parametrize(("takes", "apart"), [(0.1, 1.1), (0.5, 2.5), (2.0, 7.0)])
def test_positions_that_take_long_to_read_are_read_less_often(takes, apart):
    async def story(desk):
        async def positions():
            read.append(asyncio.get_running_loop().time())
            await asyncio.sleep(takes)
            return []

        await asyncio.sleep(10)
        desk.broker.positions = positions
        for _ in range(100):
            desk.broker.on_positions_moved()
            await asyncio.sleep(0.2)

    read = []
    Desk().run(story)

    assert [later - earlier for earlier, later in itertools.pairwise(read)] == pytest.approx(
        [apart] * (len(read) - 1)
    )
    assert len(read) > 2


@pytest.mark.parametrize("book", ["trade_book", "positions"])
def test_trades_and_positions_that_could_not_be_read_are_read_again_though_nothing_moves_any_more(book):
    async def story(desk):
        async def refuse():
            read.append(desk.clock.monotonic())
            if len(read) < 3:
                raise BrokerUnreachableError("429")
            return []

        setattr(desk.broker, book, refuse)
        await asyncio.sleep(300)

    read = []
    Desk().run(story)

    assert len(read) == 3


@pytest.mark.parametrize(("told", "asked"), [(True, 0), (False, 1)])
def test_the_trade_book_is_not_read_for_what_the_stream_told_but_the_positions_are(told, asked):
    async def story(desk):
        def answer(book):
            async def give():
                read.append(book)
                return []

            return give

        await asyncio.sleep(10)
        desk.broker.trade_book, desk.broker.positions = answer("trades"), answer("positions")
        if told:
            desk.broker.on_trade(trade())
        desk.broker.book = [order(status=OrderStatus.FILLED, filled=10)]
        desk.feed.request_read()
        await asyncio.sleep(10)

    read = []
    Desk().run(story)

    assert (read.count("trades"), read.count("positions")) == (asked, 1)


def test_trades_that_the_broker_refuses_for_good_are_not_asked_for_with_every_book():
    async def story(desk):
        async def refuse():
            read.append(1)
            raise PermissionRefusedError("not for you")

        desk.broker.trade_book = refuse
        await asyncio.sleep(300)

    read = []
    Desk().run(story)

    assert len(read) == 1
