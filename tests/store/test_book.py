from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace
from sqlalchemy import event, text

from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import OrderChange, OrderView, SubmissionState
from orderwire.core.orders import Channel, OrderStatus, OrderUpdate
from orderwire.core.recovery import BookRead
from orderwire.engine import EventEngine
from orderwire.errors import StoreBusyError, StoreError
from orderwire.store import audit, inbox, outbox
from orderwire.store.batch import CHECKING, Input
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from orderwire.store.inbox import Verdict
from orderwire.store.submissions import AlreadySubmittedError, open_submissions, submission_for_key
from store.making import (
    DAY,
    LIFE,
    NS,
    OPENED,
    hint,
    ns,
    observed,
    position,
    read,
    submission,
    trade,
    update,
)

ORDER = "260817000000001"
S = SubmissionState


@dataclass
class Desk:
    """A book, driven by hand: what the engine would do, one batch at a time."""

    book: OrderBook
    database: Database
    events: list[Event] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.book.on_verify = lambda *asked: self.asked.append(asked)
        self.book.on_broken = lambda *broken: self.broken.append(broken)

    def stage(self, *values: object) -> None:
        for value in values:
            self.book.on_observation(observed(value))

    def commit(self) -> list[Event]:
        events = self.book.commit() or []
        self.events += events
        return events

    def take(self, *values: object) -> list[OrderChange]:
        self.stage(*values)
        return changes(self.commit())

    def submit(self, said) -> Future[OrderChange]:
        future: Future[OrderChange] = Future()
        self.book.on_submission(Event(EventType.SUBMISSION, Input(value=said, future=future)))
        return future

    def snapshot(self, account: str = "A1") -> outbox.Snapshot:
        return outbox.snapshot(self.database, account)

    def orders(self, account: str = "A1") -> list[OrderView]:
        return self.snapshot(account).orders

    def alerts(self) -> list[str]:
        return [event.data.kind for event in self.events if event.type == EventType.ALERT]

    def checks(self) -> list[bool]:
        return [event.data.checking for event in self.events if event.type == CHECKING]

    def count(self, table: str) -> int:
        with self.database.read() as connection:
            return connection.execute(text(f"SELECT count(*) FROM {table}")).scalar()


def changes(events: list[Event] | None) -> list[OrderChange]:
    return [event.data for event in events or [] if event.type == EventType.ORDER_CHANGED]


@pytest.fixture
def desk(database, clock) -> Desk:
    return Desk(OrderBook(database, clock=clock), database)


@pytest.fixture
def reopened(desk, clock) -> Callable[[], Desk]:
    """The book as a new process finds it."""
    return lambda: Desk(OrderBook(desk.database, clock=clock), desk.database)


# --- one observation ----------------------------------------------------------------------------------


def test_an_observation_is_told_once_it_is_committed(desk):
    desk.stage(update("open"))
    assert desk.orders() == []
    assert desk.book.current("A1", ORDER) is None

    (change,) = changes(desk.commit())

    assert (change.account, change.sequence, change.kind, change.was) == ("A1", 1, "order", None)
    assert change.order.status is OrderStatus.OPEN
    assert change.event_id == f"A1.{change.epoch}.1"
    assert desk.orders() == [change.order]
    assert desk.book.current("A1", ORDER) == change.order
    assert desk.book.last_update("A1", ORDER) == replace(update("open"), raw=b"")
    assert desk.book.open_orders("A1") == 1


def test_a_life_in_one_batch_is_one_commit_and_every_step_is_told(desk):
    before = desk.database.counts().commits

    told = desk.take(*(update(word) for word in LIFE))

    assert desk.database.counts().commits == before + 1
    assert [change.sequence for change in told] == [1, 2, 3, 4]
    assert [change.was for change in told] == [None, "PENDING_NEW", "OPEN", "PARTIALLY_FILLED"]
    assert [change.order.status for change in told] == ["PENDING_NEW", "OPEN", "PARTIALLY_FILLED", "FILLED"]
    assert desk.orders() == [told[-1].order]
    assert desk.book.open_orders("A1") == 0


def test_accounts_have_sequences_and_epochs_of_their_own(desk):
    told = desk.take(
        update("open"), update("open", account="A2"), update("part"), update("part", account="A2")
    )

    assert [(change.account, change.sequence) for change in told] == [
        ("A1", 1),
        ("A2", 1),
        ("A1", 2),
        ("A2", 2),
    ]
    assert len({change.epoch for change in told}) == 2
    assert desk.snapshot("A1").epoch != desk.snapshot("A2").epoch


def test_nothing_staged_commits_nothing(desk):
    before = desk.database.counts().commits

    assert desk.book.commit() is None
    assert desk.database.counts().commits == before


def test_stamps_tell_when_each_stage_was_passed(desk, clock):
    (change,) = desk.take(update("open"))

    stamps = change.stamps
    assert stamps.broker == ns(OPENED) + NS
    assert stamps.received == ns(OPENED) + NS + 20_000_000
    assert stamps.joined == stamps.committed == clock.time_ns()


def test_what_is_stored_decodes_to_what_was_told(desk):
    told = desk.take(update("open"), update("part", price=Decimal("0.050"), average_price=Decimal("1E-7")))

    cursor = {"epoch": told[0].epoch, "sequence": 0, "most": 10}
    replayed = outbox.changes_since(desk.database, "A1", **cursor)

    assert [replace(change, stamps=change.stamps.at(committed=0)) for change in told] == replayed
    assert str(replayed[1].order.average_price) == "1E-7"


# --- again, and by another channel --------------------------------------------------------------------


def test_a_duplicate_changes_nothing_and_is_kept_once(desk):
    desk.take(update("open"))

    assert desk.take(update("open", received_ns=ns(OPENED) + 9 * NS)) == []
    assert desk.count("inbox") == 1
    assert desk.snapshot().sequence == 1


def test_a_duplicate_after_a_restart_is_kept_once_too(desk, reopened):
    desk.take(update("open"))

    assert reopened().take(update("open"), update("open")) == []
    assert desk.count("inbox") == 1


def test_the_book_confirming_the_stream_tells_nothing_and_is_on_the_timeline(desk):
    desk.take(update("open"))

    assert desk.take(read("open")) == []

    entries = inbox.timeline(desk.database, "A1", ORDER)
    assert [(entry.channel, entry.verdict) for entry in entries] == [
        (Channel.STREAM, Verdict.APPLIED),
        (Channel.REST, Verdict.APPLIED),
    ]
    assert desk.take(read("open")) == []
    assert desk.count("inbox") == 2


def test_the_timeline_keeps_the_brokers_bytes(desk):
    said = update("open", raw=b'\x00\xff{"order_id": 1}')

    desk.take(said)

    (entry,) = inbox.timeline(desk.database, "A1", ORDER)
    assert entry.raw == said.raw
    assert entry.observation == said
    assert entry.settled_at is not None


def test_an_old_observation_is_kept_and_tells_nothing(desk):
    desk.take(update("filled"))

    assert desk.take(update("open")) == []
    assert desk.orders()[0].status is OrderStatus.FILLED
    assert desk.book.last_update("A1", ORDER).raw_status == "COMPLETE"
    assert [entry.verdict for entry in inbox.timeline(desk.database, "A1", ORDER)][-1] is Verdict.SAME


# --- refused, held, hinted ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "poison",
    [
        {"filled_quantity": 11},
        {"filled_quantity": -1},
        {"price": Decimal("NaN")},
        {"quantity": 10**15},
        {"average_price": Decimal(-1)},
    ],
)
def test_poison_is_a_dead_letter_and_changes_nothing(desk, poison):
    desk.take(update("open"))

    assert desk.take(update("part", **poison), update("open", order="2")) != []

    assert desk.book.current("A1", ORDER).status is OrderStatus.OPEN
    assert desk.book.current("A1", "2") is not None
    assert desk.count("dead_letters") == 1
    assert desk.alerts() == ["refused"]
    entry = inbox.timeline(desk.database, "A1", ORDER)[-1]
    assert entry.verdict is Verdict.REFUSED
    assert entry.note
    assert entry.raw == update("part").raw


def test_poison_that_is_repeated_is_reported_once(desk):
    bad = read("part", filled_quantity=11)

    desk.take(bad, bad)
    desk.take(bad)

    assert (desk.count("dead_letters"), desk.alerts()) == (1, ["refused"])


def test_text_that_cannot_be_encoded_is_a_dead_letter_and_the_rest_goes_on(desk):
    told = desk.take(update("open"), update("open", order="2", reason="\ud800"), update("open", order="3"))

    assert [change.order.order_id for change in told] == [ORDER, "3"]
    assert desk.count("dead_letters") == 1
    assert desk.broken[0][0] == "A1"


def test_a_rejection_of_a_live_order_waits_for_the_book(desk):
    desk.take(update("open"))

    assert desk.take(update("rejected")) == []
    assert desk.book.current("A1", ORDER).status is OrderStatus.OPEN
    assert desk.book.current("A1", ORDER).checking
    assert desk.asked == [("A1", ORDER, "held: REJECTED for an order known to be live")]

    (change,) = desk.take(read("rejected", received_ns=ns(OPENED) + 5 * NS))
    assert change.order.status is OrderStatus.REJECTED
    assert not desk.book.current("A1", ORDER).checking
    verdicts = [
        (entry.verdict, entry.settled_at is None) for entry in inbox.timeline(desk.database, "A1", ORDER)
    ]
    assert verdicts == [(Verdict.APPLIED, False), (Verdict.HELD, False), (Verdict.APPLIED, False)]


def test_a_postback_changes_nothing_spends_no_sequence_and_has_the_book_read(desk):
    desk.take(update("open"))

    assert desk.take(hint()) == []

    shown = desk.book.current("A1", ORDER)
    assert (shown.status, shown.filled_quantity, shown.checking) == (OrderStatus.OPEN, 0, True)
    assert desk.checks() == [True]
    assert desk.asked == [("A1", ORDER, "hint: a postback came")]
    assert desk.snapshot().sequence == 1
    assert desk.orders()[0].checking is False


def test_a_postback_is_settled_by_a_later_read_of_the_book_only(desk, clock):
    came = OPENED + timedelta(seconds=5)
    desk.take(update("open"))
    keep = {"account": "A1", "order_id": ORDER, "claimed_time": "t", "raw": b"{}", "received_ns": ns(came)}
    desk.database.write(lambda connection: inbox.record(connection, **keep))
    desk.take(hint(received=came))

    desk.take(update("part"), read("open", received_ns=ns(came) - 1))
    assert desk.book.current("A1", ORDER).checking

    desk.take(read("part", received_ns=ns(came)))
    assert not desk.book.current("A1", ORDER).checking
    assert desk.checks() == [True, False]
    settled = [entry.settled_at is not None for entry in inbox.timeline(desk.database, "A1", ORDER)]
    assert all(settled)


def book_read(at) -> BookRead:
    return BookRead(account="A1", asked_ns=ns(at))


def test_a_hint_about_an_order_the_broker_has_not_is_answered_by_the_next_read_of_the_book(desk):
    keep = {"account": "A1", "order_id": "9", "claimed_time": "t", "raw": b"{}", "received_ns": ns(OPENED)}
    desk.database.write(lambda connection: inbox.record(connection, **keep))
    desk.take(hint(order="9"))

    desk.take(book_read(OPENED + timedelta(seconds=1)))

    (entry,) = inbox.timeline(desk.database, "A1", "9")
    assert entry.settled_at is not None
    assert desk.book.checking("A1") == []


def test_an_order_of_yesterday_is_not_checked_for_ever(desk):
    desk.take(update("open"))
    desk.take(hint())
    assert [page.order_id for page in desk.book.checking("A1")] == [ORDER]

    desk.take(book_read(OPENED - timedelta(seconds=1)))
    assert desk.book.current("A1", ORDER).checking

    desk.take(book_read(OPENED + timedelta(seconds=1)))
    assert not desk.book.current("A1", ORDER).checking
    assert desk.checks() == [True, False]
    assert desk.book.checking("A1") == []


def test_that_a_book_was_verified_is_told_after_what_it_changed(desk):
    desk.stage(read("open"), book_read(OPENED))

    kinds = [event.type for event in desk.commit()]

    assert kinds == [EventType.ORDER_CHANGED, EventType.BOOK_VERIFIED]


def test_a_postback_not_yet_verified_is_remembered_by_the_next_process(desk, reopened):
    desk.take(update("open"))
    keep = {"account": "A1", "order_id": ORDER, "claimed_time": "t", "raw": b"{}", "received_ns": ns(OPENED)}
    desk.database.write(lambda connection: inbox.record(connection, **keep))

    again = reopened()

    assert again.book.current("A1", ORDER).checking
    again.take(read("open"))
    assert not again.book.current("A1", ORDER).checking
    assert not reopened().book.current("A1", ORDER).checking


def test_a_postback_about_an_order_nobody_knows_shows_nothing(desk):
    assert desk.take(hint(order="unknown")) == []

    assert desk.orders() == []
    assert desk.asked == [("A1", "unknown", "hint: a postback came")]


# --- corrections --------------------------------------------------------------------------------------


def later(seconds: float) -> int:
    return ns(OPENED) + int(seconds * NS)


def test_two_agreeing_reads_correct_what_was_wrong_and_it_is_audited(desk):
    desk.take(update("filled"))
    first = read("cancelled", received_ns=later(10))

    assert {change.order.status for change in desk.take(first)} <= {OrderStatus.FILLED}
    (change,) = desk.take(replace(first, received_ns=later(11.1)))

    assert (change.order.status, change.order.revision, change.was) == ("CANCELLED", 1, "FILLED")
    assert desk.book.current("A1", ORDER).filled_quantity == 4
    assert desk.alerts() == ["corrected"]
    deed = audit.entries(desk.database, most=1)[0]
    assert (deed.who, deed.detail["order"], deed.detail["revision"]) == ("system", ORDER, "1")
    assert desk.asked[0][2].startswith("conflict")


def test_two_reads_too_close_together_correct_nothing_and_a_third_does(desk):
    desk.take(update("filled"))
    row = read("cancelled", received_ns=later(10))

    early = desk.take(row, replace(row, received_ns=later(10.5)))
    (change,) = desk.take(replace(row, received_ns=later(11)))

    assert {change.order.status for change in early} <= {OrderStatus.FILLED}
    assert change.order.status is OrderStatus.CANCELLED


def test_a_read_older_than_what_is_held_shows_a_conflict_and_corrects_nothing(desk):
    desk.take(update("filled"))
    stale = read("open", received_ns=later(10))

    desk.take(stale)
    (change,) = desk.take(replace(stale, received_ns=later(11.1)))

    assert (change.order.status, change.order.conflict) == ("FILLED", True)
    (change,) = desk.take(read("filled", received_ns=later(12)))
    assert change.order.conflict is False


def test_a_conflict_shown_is_still_shown_after_a_restart(desk, reopened):
    desk.take(update("filled"))
    stale = read("open", received_ns=later(10))
    desk.take(stale, replace(stale, received_ns=later(11.1)))

    assert reopened().book.current("A1", ORDER).conflict is True


# --- the session day ----------------------------------------------------------------------------------


def test_an_order_placed_after_hours_keeps_its_day_and_is_on_the_next_days_page(desk, clock, reopened):
    desk.take(update("placed"))
    clock.advance(24 * 3600)
    tomorrow = OPENED + timedelta(days=1)

    (change,) = desk.take(read("filled", at=tomorrow))

    assert change.order.trading_date == DAY
    assert [view.status for view in desk.orders()] == ["FILLED"]
    assert reopened().book.current("A1", ORDER) == change.order
    clock.advance(24 * 3600)
    assert desk.orders() == []


def test_an_order_that_ended_yesterday_read_before_the_broker_empties_its_book_stays_yesterdays(
    desk, clock, reopened
):
    desk.take(*(update(word) for word in LIFE))
    clock.advance(20 * 3600)
    again = read("filled", trading_date=DAY + timedelta(days=1))
    fresh = reopened()

    assert fresh.take(again) == []
    assert fresh.orders() == []
    assert desk.take(again) == []
    assert desk.count("orders") == 1


def test_an_old_order_first_seen_the_morning_after_is_recorded_under_its_own_day(desk, clock):
    clock.advance(20 * 3600)

    (change,) = desk.take(read("filled", trading_date=DAY + timedelta(days=1)))

    assert change.order.trading_date == DAY
    assert desk.orders() == []


@pytest.mark.parametrize("ended", [True, False])
def test_a_number_used_again_is_another_order(desk, clock, ended):
    desk.take(update("filled" if ended else "open"))
    clock.advance(24 * 3600)
    tomorrow = OPENED + timedelta(days=1)

    (change,) = desk.take(update("open", at=tomorrow, symbol="SBIN" if ended else "INFY"))

    assert (change.order.trading_date, change.was) == (DAY + timedelta(days=1), None)
    assert desk.book.current("A1", ORDER) == change.order
    assert desk.count("orders") == 2


def test_what_ended_on_an_earlier_day_is_let_go_and_what_lives_stays(desk, clock):
    desk.take(update("filled"), update("open", order="2"))
    assert desk.book.open_orders("A1") == 1

    clock.advance(24 * 3600)
    desk.commit()

    assert desk.book.current("A1", ORDER) is None
    assert desk.book.current("A1", "2") is not None
    assert desk.book.open_orders("A1") == 0, "the new day's book has not shown it yet"
    desk.take(read("open", order="2", trading_date=DAY + timedelta(days=1)))
    assert desk.book.open_orders("A1") == 1
    assert [view.order_id for view in desk.orders()] == ["2"]


# --- trades and positions -----------------------------------------------------------------------------


def test_an_execution_is_told_once(desk, reopened):
    (change,) = desk.take(trade(channel=Channel.STREAM))

    assert (change.kind, change.sequence, change.trade.quantity) == ("trade", 1, 4)
    assert desk.take(trade(), trade(received_ns=7, raw=b"again")) == []
    assert reopened().take(trade()) == []
    assert desk.snapshot().trades == [replace(trade(channel=Channel.STREAM), raw=b"")]


def test_executions_are_listed_in_the_order_they_were_told(desk):
    desk.take(trade("T2"), trade("T1"), trade("T3"))

    assert [held.trade_id for held in desk.snapshot().trades] == ["T2", "T1", "T3"]


def test_the_book_corrects_an_execution_and_the_stream_does_not(desk):
    desk.take(trade())

    assert desk.take(trade(quantity=5, channel=Channel.STREAM)) == []
    (change,) = desk.take(trade(quantity=3))

    assert change.trade.quantity == 3
    assert [held.quantity for held in desk.snapshot().trades] == [3]


def test_an_execution_read_again_the_morning_after_is_the_same_one(desk, clock, reopened):
    desk.take(trade())
    clock.advance(20 * 3600)

    again = trade(trading_date=DAY + timedelta(days=1))

    assert reopened().take(again) == []
    assert desk.snapshot().trades == []


@pytest.mark.parametrize(
    "given", [{"quantity": 0}, {"price": Decimal("NaN")}, {"price": Decimal(-1)}, {"order": ""}]
)
def test_an_impossible_execution_is_a_dead_letter(desk, given):
    assert desk.take(trade(**given)) == []

    assert (desk.count("trades"), desk.count("dead_letters"), desk.alerts()) == (0, 1, ["dead letter"])


def test_a_position_is_told_when_something_was_traded(desk, clock):
    (change,) = desk.take(position())

    assert (change.kind, change.position.quantity) == ("position", 4)
    assert desk.take(position(last_price=Decimal(900), pnl=Decimal(5))) == []
    (change,) = desk.take(position(quantity=0, sell_quantity=4))
    assert change.sequence == 2
    assert [held.quantity for held in desk.snapshot().positions] == [0]
    clock.advance(24 * 3600)
    assert desk.snapshot().positions == []
    assert desk.take(position(trading_date=DAY + timedelta(days=1), quantity=0, sell_quantity=4)) != []


def test_a_position_with_an_impossible_amount_is_a_dead_letter(desk):
    assert desk.take(position(pnl=Decimal("Infinity"))) == []

    assert (desk.count("positions"), desk.count("dead_letters")) == (0, 1)


# --- submissions --------------------------------------------------------------------------------------


def test_a_submission_is_on_the_page_before_the_broker_knows_it(desk):
    future = desk.submit(submission())
    assert not future.done()

    (change,) = changes(desk.commit())

    assert future.result(0) == change
    assert (change.source, change.order.row, change.order.order_id) == ("submission", "OWTAG1", "")
    assert change.order.status is OrderStatus.PENDING_NEW
    assert desk.orders() == [change.order]
    assert desk.book.open_orders("A1") == 1
    assert open_submissions(desk.database) == [submission()]


def test_an_accepted_one_becomes_the_line_of_its_order(desk):
    desk.submit(submission())
    desk.commit()

    accepted = desk.submit(submission(state=S.ACCEPTED, order_id=ORDER))
    (change,) = changes(desk.commit())
    (opened,) = desk.take(update("open"))

    assert accepted.result(0) == change
    assert (change.order.row, change.order.order_id, change.order.status) == ("OWTAG1", ORDER, "PENDING_NEW")
    assert (opened.order.row, opened.order.submission, opened.was) == ("OWTAG1", "OWTAG1", "PENDING_NEW")
    assert opened.order.first_seen == submission().created
    assert desk.orders() == [opened.order]
    assert desk.book.open_orders("A1") == 1
    assert open_submissions(desk.database) == []


def test_a_refused_one_stays_on_the_page_with_its_reason(desk):
    desk.submit(submission())
    desk.commit()

    desk.submit(submission(state=S.REFUSED, reason="Margin is short by Rs. 100."))
    (change,) = changes(desk.commit())

    assert (change.order.status, change.order.reason, change.was) == (
        "REJECTED",
        "Margin is short by Rs. 100.",
        "PENDING_NEW",
    )
    assert desk.orders() == [change.order]
    assert desk.book.open_orders("A1") == 0


def test_one_in_doubt_is_found_by_its_tag(desk):
    desk.submit(submission())
    desk.submit(submission(state=S.UNKNOWN, reason="No answer."))
    doubt = changes(desk.commit())[-1]
    assert (doubt.order.status, doubt.order.checking) == ("PENDING_NEW", True)

    (change,) = desk.take(read("open", tag="OWTAG1"))

    assert (change.order.row, change.order.order_id, change.was) == ("OWTAG1", ORDER, "PENDING_NEW")
    assert desk.orders() == [change.order]
    assert open_submissions(desk.database) == []


def test_the_stream_may_be_faster_than_the_reply(desk):
    desk.submit(submission())
    desk.commit()
    (first,) = desk.take(update("open", tag="OWTAG1"))

    reply = desk.submit(submission(state=S.ACCEPTED, order_id=ORDER))

    assert changes(desk.commit()) == []
    assert first.order.row == "OWTAG1"
    assert (reply.result(0).sequence, reply.result(0).order) == (0, first.order)


def test_a_reply_names_an_order_that_came_without_a_tag(desk):
    desk.submit(submission())
    desk.commit()
    (alone,) = desk.take(update("part"))
    assert alone.order.row == ORDER

    desk.submit(submission(state=S.ACCEPTED, order_id=ORDER))
    (change,) = changes(desk.commit())

    assert (change.order.row, change.order.filled_quantity, change.was) == ("OWTAG1", 4, "PARTIALLY_FILLED")
    assert desk.orders() == [change.order]


@pytest.mark.parametrize("late", [S.UNKNOWN, S.REFUSED])
def test_what_the_book_showed_is_not_undone_by_a_late_failure(desk, late):
    desk.submit(submission())
    desk.take(update("open", tag="OWTAG1"))

    answer = desk.submit(submission(state=late, reason="timed out"))
    desk.commit()

    assert answer.result(0).order.status is OrderStatus.OPEN
    assert [view.status for view in desk.orders()] == ["OPEN"]


def test_an_order_refused_to_us_that_exists_all_the_same_is_shown_and_alerted(desk):
    desk.submit(submission())
    desk.submit(submission(state=S.REFUSED, reason="no"))
    desk.commit()

    desk.take(read("open", tag="OWTAG1"))

    assert [(view.row, view.status) for view in desk.orders()] == [("OWTAG1", "OPEN")]
    assert desk.alerts() == ["contradiction"]


def test_one_tag_on_several_orders_is_the_first_ones(desk):
    desk.submit(submission())

    told = desk.take(update("open", tag="OWTAG1"), update("open", order="2", tag="OWTAG1"))

    assert [change.order.row for change in told[1:]] == ["OWTAG1", "2"]


def test_the_reply_is_right_where_the_tag_named_another_order(desk):
    desk.submit(submission())
    desk.take(update("open", order="2", tag="OWTAG1"))

    desk.submit(submission(state=S.ACCEPTED, order_id=ORDER))
    desk.commit()

    assert sorted((view.row, view.order_id) for view in desk.orders()) == [("2", "2"), ("OWTAG1", ORDER)]


def test_the_tag_of_another_account_names_nothing(desk):
    desk.submit(submission())

    (own, other) = desk.take(update("open", account="A2", tag="OWTAG1"))

    assert (own.account, other.account, other.order.row) == ("A1", "A2", ORDER)


def test_fills_above_the_quantity_stated_are_believed_up_to_what_we_asked_for(desk):
    desk.submit(submission())
    desk.take(update("open", quantity=3, tag="OWTAG1"))

    (change,) = desk.take(update("filled", quantity=3))

    assert change.order.filled_quantity == 10


def test_a_used_idempotency_key_names_the_first_submission(desk, reopened, clock):
    first = submission(idempotency_key="key-1")
    desk.submit(first)
    same_batch = desk.submit(submission("OWTAG2", idempotency_key="key-1"))
    desk.commit()
    next_batch = desk.submit(submission("OWTAG3", idempotency_key="key-1"))
    other_account = desk.submit(submission("OWTAG4", account="A2", idempotency_key="key-1"))
    desk.commit()
    clock.advance(3 * 24 * 3600)
    much_later = reopened().submit(submission("OWTAG5", idempotency_key="key-1"))

    for refused in (same_batch, next_batch, much_later):
        with pytest.raises(AlreadySubmittedError) as refusal:
            refused.result(0)
        assert refusal.value.submission == first
    assert other_account.result(0).order.row == "OWTAG4"
    assert submission_for_key(desk.database, "A1", "key-1") == first
    assert submission_for_key(desk.database, "A1", "key-2") is None


def test_what_was_on_its_way_when_the_process_died_is_in_doubt_until_the_book_is_read(desk, reopened):
    desk.submit(submission())
    desk.commit()
    again = reopened()

    again.book.recover()

    (line,) = again.orders()
    assert (line.row, line.checking, line.status) == ("OWTAG1", True, "PENDING_NEW")
    assert again.snapshot().sequence == 2
    assert again.book.open_orders("A1") == 1
    (change,) = again.take(read("part", tag="OWTAG1"))
    assert (change.order.row, change.order.filled_quantity) == ("OWTAG1", 4)
    again.book.recover()
    assert again.snapshot().sequence == 3


def test_a_submission_given_up_before_its_commit_is_not_written(desk):
    future = desk.submit(submission())
    kept = desk.submit(submission("OWTAG2"))

    assert future.cancel()
    desk.commit()

    assert [view.row for view in desk.orders()] == ["OWTAG2"]
    assert kept.done()


def test_a_submission_given_up_during_its_commit_ends_refused(desk):
    future = desk.submit(submission())
    write = desk.database.write

    def slow(work):
        result = write(work)
        future.cancel()
        return result

    desk.database.write = slow
    desk.commit()
    desk.database.write = write
    desk.commit()

    (line,) = desk.orders()
    assert (line.status, line.reason) == (
        "REJECTED",
        "It could not be written down in time, so it was not sent.",
    )


# --- restarts -----------------------------------------------------------------------------------------


def shelf_of(desk: Desk, account: str):
    shelf = desk.book._memory.shelf(account)
    orders = {key: (held.state, held.view, held.last_day) for key, held in shelf.orders.items()}
    positions = {key: replace(held, raw=b"") for key, held in shelf.positions.items()}
    return orders, shelf.lines, shelf.trades, positions, shelf.open, shelf.hints


def test_a_book_loaded_from_disk_equals_the_one_in_memory(desk, reopened):
    desk.submit(submission())
    desk.submit(submission("OWTAG2"))
    desk.submit(submission("OWTAG3"))
    desk.submit(submission("OWTAG3", state=S.REFUSED, reason="no"))
    desk.take(*(update(word, tag="OWTAG1") for word in LIFE))
    desk.take(update("open", order="2"), update("part", order="3"), read("part", order="3"))
    desk.take(trade(), trade("T2", order="3"), position(), position(symbol="INFY"))
    desk.take(update("rejected", order="2"))

    again = reopened()

    assert shelf_of(again, "A1") == shelf_of(desk, "A1")
    for order in (ORDER, "2", "3"):
        assert again.book.current("A1", order) == desk.book.current("A1", order)
        assert replace(again.book.last_update("A1", order), raw=b"") == desk.book.last_update("A1", order)


def test_a_restart_continues_the_sequence(desk, reopened):
    (first,) = desk.take(update("open"))

    (second,) = reopened().take(update("part"))

    assert (second.epoch, second.sequence) == (first.epoch, 2)


def test_the_inbox_replayed_changes_nothing(desk, reopened):
    desk.submit(submission())
    desk.take(*(update(word, tag="OWTAG1") for word in LIFE), read("filled"))
    desk.take(update("open", order="2"), update("rejected", order="2"), read("cancelled", order="2"))
    before = (desk.snapshot(), desk.count("inbox"))

    kept = list(inbox.observations(desk.database))
    again = reopened()
    assert again.take(*kept) == []
    assert again.take(*reversed(kept)) == []

    assert len(kept) == before[1]
    assert (again.snapshot(), again.count("inbox")) == before


# --- when a commit fails ------------------------------------------------------------------------------


class Failing:
    """The database, as it is when it takes nothing."""

    def __init__(self, database: Database, error: Exception) -> None:
        self.error = error
        self.tries = 0
        self.real = database.write
        self.database = database
        database.write = self

    def __call__(self, work):
        self.tries += 1
        raise self.error

    def mend(self) -> None:
        self.database.write = self.real


def test_a_busy_database_holds_everything_back_and_loses_nothing(desk, clock):
    desk.take(update("placed"))
    failing = Failing(desk.database, StoreBusyError("database is locked"))
    accepted = desk.submit(submission())

    assert desk.take(update("open")) == []
    assert desk.alerts() == ["held"]
    assert desk.book.current("A1", ORDER).status is OrderStatus.PENDING_NEW
    assert desk.book.held_back == 2
    assert not accepted.done()

    assert desk.take(update("part")) == []
    assert failing.tries == 1, "it is left alone for a while"
    clock.advance(0.3)
    assert desk.commit() == []
    assert failing.tries == 2
    failing.mend()
    clock.advance(0.3)
    assert desk.commit() == []
    clock.advance(0.3)

    told = changes(desk.commit())
    assert [change.sequence for change in told] == [2, 3, 4]
    assert [change.order.status for change in told] == ["PENDING_NEW", "OPEN", "PARTIALLY_FILLED"]
    assert desk.alerts() == ["held", "released"]
    assert desk.book.held_back == 0
    assert accepted.result(0).sequence == 2


def test_a_submission_given_up_while_the_database_is_busy_is_never_sent_nor_written(desk, clock):
    failing = Failing(desk.database, StoreBusyError("locked"))
    future = desk.submit(submission())
    desk.take(update("open"))

    future.cancel()
    failing.mend()
    clock.advance(5)

    assert [change.order.row for change in changes(desk.commit())] == [ORDER]


def test_a_lock_from_outside_is_survived(url, clock, open_database):
    database = Database(url, clock=clock, busy_wait=0.02)
    desk = Desk(OrderBook(database, clock=clock), database)
    desk.take(update("placed"))

    from store.test_database import locked_by_another

    with locked_by_another(url, "inbox"):
        assert desk.take(update("open")) == []
    clock.advance(1)

    assert [change.order.status for change in changes(desk.commit())] == ["OPEN"]
    database.close()


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size`: what a full disk does to a writer, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_holds_everything_back_until_there_is_room(tmp_path, sqlite_file, clock):
    path = tmp_path / "a.db"
    path.write_bytes(sqlite_file)
    database = Database(f"sqlite:///{path}", clock=clock)
    desk = Desk(OrderBook(database, clock=clock), database)
    desk.take(update("placed"))
    log = path.with_name("a.db-wal")

    with files_end_at(log.stat().st_size + 8192):
        assert desk.take(*(update("open", order=str(number)) for number in range(100))) == []
        clock.advance(1)
        assert desk.take(update("open")) == []
        assert desk.orders()[0].status is OrderStatus.PENDING_NEW
    clock.advance(1)
    told = changes(desk.commit())

    assert [change.sequence for change in told] == list(range(2, 103))
    assert desk.alerts() == ["held", "released"]
    assert len(desk.orders()) == 101
    database.close()


def impossible(order: str = "2") -> OrderUpdate:
    """A row that our code takes and no database does: its time does not fit."""
    return update("part", order=order, received_ns=2**70)


def test_the_one_bad_row_is_found_and_the_rest_is_committed_in_order(desk):
    orders = [str(number) for number in range(2, 9)]
    desk.take(*(update("open", order=order) for order in orders))
    future = desk.submit(submission())

    told = desk.take(
        *(impossible(order) if order == "5" else update("part", order=order) for order in orders)
    )

    assert [change.order.order_id for change in told if change.order.order_id] == [
        "2",
        "3",
        "4",
        "6",
        "7",
        "8",
    ]
    assert [change.sequence for change in told] == list(range(8, 15))
    assert desk.book.current("A1", "5").status is OrderStatus.OPEN
    assert desk.count("dead_letters") == 1
    assert desk.alerts() == ["dead letter"]
    assert [account for account, _ in desk.broken] == ["A1"]
    assert future.result(0).order.row == "OWTAG1"


def test_what_came_after_the_bad_row_does_not_carry_it(desk):
    desk.take(update("open", order="2"))

    told = desk.take(impossible(), update("filled", order="2"))

    assert [(change.was, change.order.status) for change in told] == [("OPEN", "FILLED")]
    assert [entry.verdict for entry in inbox.timeline(desk.database, "A1", "2")] == [Verdict.APPLIED] * 2


def test_a_database_that_turns_busy_while_the_bad_row_is_sought_holds_the_rest(desk, clock):
    orders = [str(number) for number in range(2, 6)]
    desk.take(*(update("open", order=order) for order in orders))
    desk.stage(impossible("2"), *(update("part", order=order) for order in orders[1:]))
    real, tries = desk.database.write, []

    def flaky(work):
        tries.append(work)
        if len(tries) == 3:
            raise StoreBusyError("locked")
        return real(work)

    desk.database.write = flaky
    assert changes(desk.commit()) == []
    clock.advance(1)
    told = changes(desk.commit())

    assert [change.order.order_id for change in told] == ["3", "4", "5"]
    assert desk.count("dead_letters") == 1


def test_a_submission_no_database_takes_fails_for_its_caller_alone(desk):
    bad = submission("OWTAG2", order_id="x" * 8, state=S.ACCEPTED)
    bad = replace(bad, created=bad.created, broker="\ud800")
    future, good = desk.submit(bad), desk.submit(submission())

    desk.commit()

    with pytest.raises((StoreError, ValueError)):
        future.result(0)
    assert good.result(0).order.row == "OWTAG1"


def test_null_bytes_in_an_order_id_stop_nobody_else(desk):
    told = desk.take(update("open", order="a\x00b"), update("open"))

    kept = desk.database.dialect == "sqlite"
    assert [change.order.order_id for change in told] == (["a\x00b", ORDER] if kept else [ORDER])
    assert desk.count("dead_letters") == (0 if kept else 1)


def test_dead_letters_of_every_kind_survive_a_bad_row_beside_them(desk):
    desk.take(update("open", order="2"))

    told = desk.take(
        update("open", order="3", reason="\ud800"),
        trade(price=Decimal("NaN")),
        update("open", filled_quantity=99),
        impossible(),
        update("open", order="4"),
    )

    assert [change.order.order_id for change in told] == ["4"]
    assert desk.count("dead_letters") == 4
    assert sorted(desk.alerts()) == ["dead letter", "dead letter", "dead letter", "refused"]
    assert [entry.verdict for entry in inbox.timeline(desk.database, "A1", ORDER)] == [Verdict.REFUSED]


def test_a_busy_database_reports_what_was_refused_once_it_writes_again(desk, clock):
    failing = Failing(desk.database, StoreBusyError("locked"))
    desk.take(update("open", filled_quantity=99), update("open", order="2"))
    assert desk.alerts() == ["held"]

    failing.mend()
    clock.advance(1)
    desk.commit()

    assert desk.alerts() == ["held", "refused", "released"]
    assert desk.count("dead_letters") == 1


def test_the_book_counts_what_was_odd(desk):
    desk.take(update("open"), update("open"), update("open", filled_quantity=99), hint())
    desk.take(update("filled"), update("rejected", order="2"), trade(price=Decimal("NaN")))

    assert desk.book.tallies() == {
        "observations": 5,
        "duplicates": 1,
        "refused": 1,
        "hints": 1,
        "dead letters": 2,
    }
    assert sum(number for (_, name), number in desk.book.counts().items() if name == "duplicates") == 1


def test_nothing_overtakes_what_could_not_be_looked_up(desk, clock, reopened):
    desk.take(update("placed"))
    again = reopened()
    real = again.database.read

    def down():
        raise StoreBusyError("connection refused")

    again.database.read = down
    assert again.take(update("open"), update("part")) == []
    assert again.book.held_back == 2
    again.database.read = real

    assert [change.order.status for change in again.take(update("filled"))] == [
        "OPEN",
        "PARTIALLY_FILLED",
        "FILLED",
    ]


# --- with the engine ----------------------------------------------------------------------------------


def test_through_the_engine_everything_told_is_on_disk_when_it_is_told(database, clock):
    engine, book = EventEngine(1), OrderBook(database, clock=clock)
    told: list[tuple[int, int]] = []
    done = threading.Event()
    orders, accounts = 20, 3

    def follow(event: Event) -> None:
        change: OrderChange = event.data
        stored = outbox.snapshot(database, change.account)
        told.append((change.sequence, stored.sequence))
        if len(told) == orders * accounts * len(LIFE):
            done.set()

    book.attach(engine)
    engine.register(EventType.ORDER_CHANGED, follow)
    engine.start()
    for word in LIFE:
        for order in range(orders):
            for account in range(accounts):
                engine.put(
                    Event(EventType.ORDER_UPDATE, update(word, order=str(order), account=f"A{account}"))
                )
    assert done.wait(30)
    engine.stop()

    assert all(sequence <= stored for sequence, stored in told)
    for account in range(accounts):
        stored = outbox.snapshot(database, f"A{account}")
        assert (stored.sequence, {view.status for view in stored.orders}) == (
            orders * len(LIFE),
            {OrderStatus.FILLED},
        )


def test_submissions_from_many_threads_are_each_answered(database, clock):
    engine, book = EventEngine(1), OrderBook(database, clock=clock)
    book.attach(engine)
    engine.start()
    answers: dict[str, OrderChange] = {}

    def place(name: int) -> None:
        for number in range(5):
            tag = f"OW{name}X{number}"
            answers[tag] = book.submit(submission(tag)).result(20)
            book.submit(submission(tag, state=S.ACCEPTED, order_id=tag.lower())).result(20)

    threads = [threading.Thread(target=place, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.stop()

    assert {tag: change.order.row for tag, change in answers.items()} == {tag: tag for tag in answers}
    assert len(answers) == 20
    stored = outbox.snapshot(database, "A1")
    assert (stored.sequence, len(stored.orders)) == (40, 20)


def test_a_book_without_an_engine_takes_no_submission(desk):
    with pytest.raises(RuntimeError, match="attach"):
        desk.book.submit(submission())


def test_one_batch_is_one_sync(tmp_path, clock):
    database = Database(f"sqlite:///{tmp_path / 'a.db'}", clock=clock)
    database.migrate()
    commits: list[object] = []
    event.listen(database._writing, "commit", commits.append)
    desk = Desk(OrderBook(database, clock=clock), database)

    desk.take(*(update("open", order=str(number)) for number in range(256)))

    assert len(commits) == 1
    database.close()


def test_the_books_day_is_the_session_day_not_the_calendar_day(desk, clock):
    after_midnight = OPENED + timedelta(hours=15)  # 01:30 IST, the session of the 17th
    clock.advance(15 * 3600)

    (change,) = desk.take(update("open", at=after_midnight))

    assert change.order.trading_date == date(2026, 8, 17)
