from __future__ import annotations

from collections.abc import Iterator

import pytest

from house import eventually
from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import OrderChange
from orderwire.core.orders import AccountId
from orderwire.errors import StoreError
from orderwire.feeds.loop import spawn
from orderwire.store.batch import CHECKING
from orderwire.web.follow import Follow
from web.house import order

ACC = AccountId("acc")


def change(sequence: int, account: str = "acc") -> OrderChange:
    return OrderChange(
        account=AccountId(account),
        epoch="e",
        sequence=sequence,
        event_id=str(sequence),
        kind="order",
        order=order(),
    )


@pytest.fixture
def follow() -> Iterator[Follow]:
    made = Follow()
    thread = spawn("follow", made.run)
    yield made
    made.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_changes_are_handed_on_in_order(follow):
    heard: list[int] = []
    follow.register(EventType.ORDER_CHANGED, lambda event: heard.append(event.data.sequence))

    for number in range(0, 300, 3):
        follow.offer([change(number), change(number + 1), change(number + 2)])

    eventually(lambda: len(heard) == 300)
    assert heard == list(range(300))


def test_a_handler_that_fails_is_counted_and_the_rest_goes_on(follow):
    faults: list[str] = []
    heard: list[int] = []
    follow.fault = lambda error: faults.append(str(error))

    def fails(event: Event) -> None:
        raise ValueError(f"cannot take {event.data.sequence}")

    follow.register(EventType.ORDER_CHANGED, fails)
    follow.register(EventType.ORDER_CHANGED, lambda event: heard.append(event.data.sequence))
    follow.offer([change(1), change(2)])

    eventually(lambda: heard == [1, 2])
    assert faults == ["cannot take 1", "cannot take 2"]


def test_an_account_that_is_to_be_looked_at_is_resynced_in_its_turn(follow):
    done: list[object] = []
    follow.register(EventType.ORDER_CHANGED, lambda event: done.append(event.data.sequence))
    follow.resync = done.append

    follow.offer([change(1)])
    follow.wake([ACC])
    follow.offer([change(2)])

    eventually(lambda: len(done) == 3)
    assert done == [1, ACC, 2]


def test_a_handlers_answer_is_delivered_as_an_event(follow):
    heard: list[object] = []
    follow.register(EventType.ALERT, lambda event: heard.append(event.data))
    follow.register(EventType.ORDER_CHANGED, lambda _event: [Event(EventType.ALERT, "look")])

    follow.offer([change(1)])

    eventually(lambda: heard == ["look"])


def test_what_is_being_checked_is_told_when_it_begins_and_when_it_ends():
    hinted: set[tuple[AccountId, str]] = {(ACC, "1")}
    told: list[tuple[str, bool]] = []
    follow = Follow(
        hinted=lambda accounts: hinted if ACC in accounts else set(),
        view=lambda _account, _order_id: order(),
        watched=lambda: [ACC],
    )
    follow.register(CHECKING, lambda event: told.append((event.data.account, event.data.checking)))
    thread = spawn("ticks", follow.tick)
    try:
        eventually(lambda: told == [(ACC, True)])
        hinted.clear()
        eventually(lambda: told == [(ACC, True), (ACC, False)])
    finally:
        follow.stop()
        thread.join(10)


def test_a_database_that_is_away_for_a_moment_stops_nothing():
    ticks: list[int] = []

    def away(_accounts):
        raise StoreError("away")

    follow = Follow(hinted=away, watched=lambda: [ACC])
    follow.register(EventType.TIMER, lambda _event: ticks.append(1))
    thread = spawn("ticks", follow.tick)
    try:
        eventually(lambda: len(ticks) >= 2)
    finally:
        follow.stop()
        thread.join(10)
