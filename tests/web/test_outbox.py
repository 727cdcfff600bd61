from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderwire.core.lifecycle import OrderChange
from orderwire.core.orders import AccountId, OrderId
from orderwire.core.recovery import FeedStatus
from orderwire.web.outbox import (
    ChangeDelivery,
    CheckDelivery,
    ClientOutbox,
    Cursor,
    Delivery,
    FeedDelivery,
    SnapshotDelivery,
)
from orderwire.web.payloads import change_key
from web.house import MemoryLog, order

ACC = AccountId("acc")


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


def following(log: MemoryLog, **limits: int) -> ClientOutbox:
    outbox = ClientOutbox(**limits)
    outbox.begin(ACC)
    outbox.replay(ACC, Cursor(epoch=log.epoch, sequence=log.heads[ACC]), [])
    return outbox


def sequences(deliveries: list[Delivery]) -> list[tuple[int, int]]:
    return [(one.previous, one.change.sequence) for one in deliveries if isinstance(one, ChangeDelivery)]


def test_nothing_of_an_account_leaves_before_it_is_followed(log):
    outbox = ClientOutbox()

    outbox.offer(log.change(order(number=1)))

    assert list(outbox.take()) == []


def test_changes_leave_in_order_and_each_names_the_one_before(log):
    outbox = following(log)

    for number in (1, 2, 3):
        outbox.offer(log.change(order(number=number)))

    assert sequences(list(outbox.take())) == [(0, 1), (1, 2), (2, 3)]


def test_of_two_waiting_changes_of_one_row_the_newer_leaves_in_its_own_place(log):
    outbox = following(log, window=1)
    outbox.offer(log.change(order(number=9)))
    first = list(outbox.take())
    for number in (1, 2, 1):
        outbox.offer(log.change(order(number=number)))

    outbox.acknowledged(first[0])
    second = list(outbox.take())
    outbox.acknowledged(second[0])

    assert sequences([*first, *second, *outbox.take()]) == [(0, 1), (1, 3), (3, 4)]
    assert outbox.conflated == 1


def test_no_more_than_the_window_is_ever_unacknowledged(log):
    outbox = following(log, window=2)
    for number in range(5):
        outbox.offer(log.change(order(number=number)))

    taken = list(outbox.take())

    assert len(taken) == 2
    assert list(outbox.take()) == []
    outbox.acknowledged(taken[0])
    assert len(list(outbox.take())) == 1


def test_a_client_that_does_not_read_costs_a_bounded_number_of_rows_and_is_then_behind(log):
    outbox = following(log, window=2, most=10)

    for number in range(60):
        outbox.offer(log.change(order(number=number)))
        list(outbox.take())

    assert len(outbox) <= 10
    assert outbox.overflows == 1
    assert outbox.behind() == []  # it does not read: nothing is read for it


def test_a_client_that_fell_behind_is_read_for_again_once_it_reads(log):
    outbox = following(log, window=2, most=4)
    outbox.offer(log.change(order(number=100)))
    taken = list(outbox.take())
    for number in range(9):
        outbox.offer(log.change(order(number=number)))
        taken += outbox.take()

    for one in taken:
        outbox.acknowledged(one)

    assert outbox.behind() == [ACC]


def test_what_comes_while_the_log_is_read_follows_the_snapshot_once(log):
    outbox = ClientOutbox()
    outbox.begin(ACC)
    covered, later = log.change(order(number=1)), log.change(order(number=2))
    outbox.offer(covered)
    outbox.offer(later)
    assert list(outbox.take()) == []

    outbox.snapshot(ACC, Cursor(epoch=log.epoch, sequence=1), {"orders": []})

    taken = list(outbox.take())
    assert isinstance(taken[0], SnapshotDelivery)
    assert sequences(taken) == [(1, 2)]


def test_a_replay_comes_before_what_came_meanwhile_and_nothing_comes_twice(log):
    outbox = ClientOutbox()
    outbox.begin(ACC)
    changes = [log.change(order(number=number)) for number in range(4)]
    outbox.offer(changes[2])
    outbox.offer(changes[3])

    outbox.replay(ACC, Cursor(epoch=log.epoch, sequence=0), changes[:3])
    outbox.offer(changes[1])  # delivered late by the dispatcher: the replay held it already

    assert sequences(list(outbox.take())) == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_a_second_snapshot_waits_until_the_first_is_acknowledged(log):
    outbox = ClientOutbox()
    outbox.begin(ACC)
    outbox.snapshot(ACC, Cursor(epoch=log.epoch, sequence=0), {})
    (first,) = outbox.take()

    begun = outbox.begin(ACC)

    assert not begun
    assert outbox.behind() == []
    outbox.acknowledged(first)
    assert outbox.behind() == [ACC]


def test_another_epoch_puts_the_client_behind(log):
    outbox = following(log)
    log.epoch = "e2"

    outbox.offer(log.change(order(number=1)))

    assert list(outbox.take()) == []
    assert outbox.behind() == [ACC]


def test_of_an_accounts_freshness_only_the_newest_waits(log, a_status):
    outbox = following(log, window=1)
    outbox.offer(log.change(order(number=1)))
    list(outbox.take())

    for detail in ("first", "second"):
        outbox.offer_feed(a_status(detail))

    assert len(outbox) == 1


def test_what_left_is_forgotten_when_the_account_is_left(log):
    outbox = following(log)
    outbox.offer(log.change(order(number=1)))

    outbox.leave(ACC)

    assert list(outbox.take()) == []
    assert outbox.accounts == ()


@pytest.fixture
def a_status():
    from datetime import UTC, datetime

    from orderwire.core.recovery import Freshness

    def make(detail: str) -> FeedStatus:
        return FeedStatus(
            account=ACC, freshness=Freshness.LIVE, since=datetime(2026, 1, 1, tzinfo=UTC), detail=detail
        )

    return make


def test_freshness_of_accounts_that_are_not_followed_is_ignored(log, a_status):
    outbox = ClientOutbox()

    outbox.offer_feed(a_status(""))

    assert not [one for one in outbox.take() if isinstance(one, FeedDelivery)]


class Client:
    """A client as the contract describes it: keeps a row per key, checks every `previous`."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], OrderChange] = {}
        self.at = -1
        self.gaps = 0

    def take(self, delivery: Delivery) -> None:
        if isinstance(delivery, SnapshotDelivery):
            self.rows = dict(delivery.payload["rows"])
            self.at = delivery.payload["sequence"]
        elif isinstance(delivery, ChangeDelivery):
            if delivery.previous != self.at or delivery.change.sequence <= self.at:
                self.gaps += 1
            self.rows[change_key(delivery.change)] = delivery.change
            self.at = delivery.change.sequence


class Story:
    """A log, a client and what is between them, moved on one step at a time."""

    def __init__(self, window: int, most: int) -> None:
        self.log = MemoryLog()
        self.client = Client()
        self.limits = {"window": window, "most": most}
        self.reconnect()

    def step(self, what: int | str) -> None:
        if isinstance(what, int):
            self.change(what)
        else:
            getattr(self, what)()

    def reconnect(self) -> None:
        self.outbox = ClientOutbox(**self.limits)
        self.sent: list[Delivery] = []
        self.held: dict | None = None
        self.snapshot()

    def snapshot(self) -> None:
        """Begin to read the log; `finish` comes some steps later."""
        if self.outbox.begin(ACC):
            self.held = {"rows": self.log.rows[ACC].copy(), "sequence": self.log.heads[ACC]}

    def finish(self) -> None:
        if self.held is not None:
            held, self.held = self.held, None
            self.outbox.snapshot(ACC, Cursor(epoch=self.log.epoch, sequence=held["sequence"]), held)

    def read(self) -> None:
        for one in self.outbox.take():
            self.client.take(one)
            self.sent.append(one)

    def acknowledge(self) -> None:
        if self.sent:
            self.outbox.acknowledged(self.sent.pop(0))
        self.catch_up()

    def change(self, row: int) -> None:
        self.outbox.offer(self.log.change(order(number=row)))
        assert len(self.outbox) <= self.limits["most"] + 1
        self.catch_up()

    def catch_up(self) -> None:
        if self.held is None and self.outbox.behind():
            self.snapshot()


STEPS = st.lists(
    st.one_of(st.integers(0, 7), st.sampled_from(["read", "finish", "acknowledge", "reconnect"])),
    max_size=120,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(1, 4), st.integers(1, 6))
def test_after_any_pace_of_reading_the_client_holds_what_the_log_holds(steps, window, most):
    story = Story(window, most)

    for step in steps:
        story.step(step)
    for _ in range(200):
        story.finish()
        story.read()
        story.acknowledge()

    assert story.client.rows == story.log.rows[ACC]
    assert story.client.gaps == 0


def checks(deliveries: list[Delivery]) -> list[tuple[str, bool]]:
    return [(one.row, one.checking) for one in deliveries if isinstance(one, CheckDelivery)]


def a_check(row: str, *, checking: bool = True) -> CheckDelivery:
    return CheckDelivery(account=ACC, row=row, order_id=OrderId(row), checking=checking)


def test_of_several_words_about_one_check_the_last_leaves_and_spends_no_sequence(log):
    outbox = following(log, window=1)
    outbox.offer(log.change(order(number=1)))
    first = list(outbox.take())
    outbox.offer_check(a_check("r1"))
    outbox.offer_check(a_check("r2"))
    outbox.offer_check(a_check("r1", checking=False))
    left: list[Delivery] = []
    outbox.acknowledged(first[0])
    while taken := list(outbox.take()):
        left += taken
        outbox.acknowledged(taken[0])

    assert checks(left) == [("r2", True), ("r1", False)]


def test_a_check_that_ends_while_a_snapshot_is_read_leaves_after_it(log):
    outbox = ClientOutbox()
    outbox.begin(ACC)
    outbox.offer_check(a_check("r1"))
    outbox.offer_check(a_check("r1", checking=False))

    outbox.snapshot(ACC, Cursor(epoch=log.epoch, sequence=0), {})

    taken = list(outbox.take())
    assert [type(one) for one in taken] == [SnapshotDelivery, CheckDelivery]
    assert checks(taken) == [("r1", False)]


def test_checks_of_an_account_nobody_follows_do_not_wait(log):
    outbox = ClientOutbox()

    outbox.offer_check(a_check("r1"))

    assert len(outbox) == 0


def test_a_client_that_stops_reading_has_no_endless_queue_of_checks(log):
    outbox = following(log, window=1, most=10)

    for number in range(1000):
        outbox.offer_check(a_check(f"r{number}"))

    assert len(outbox) <= 10
