from __future__ import annotations

import threading
from datetime import timedelta

from orderwire.core.lifecycle import SubmissionState, lift, view
from orderwire.core.orders import AccountId
from orderwire.store.book import OrderBook
from orderwire.store.memory import Held, Line, Memory, Shelf, position_key
from store.making import DAY, observed, position, submission, trade, update

A1 = AccountId("A1")
NEXT = DAY + timedelta(days=1)


def held(word: str, *, order: str, day=DAY) -> Held:
    state = lift(update(word, order=order))
    return Held(state=state, view=view(state), last_day=day, seen_day=day)


def test_a_new_day_keeps_what_lives_and_what_it_brought():
    shelf = Shelf(day=DAY)
    for one in (
        held("open", order="lives"),
        held("filled", order="ended"),
        held("filled", order="today", day=NEXT),
    ):
        shelf.put(one)
    for tag, state in (("OWDOUBT", SubmissionState.UNKNOWN), ("OWREFUSED", SubmissionState.REFUSED)):
        shelf.put_line(Line(submission=submission(tag, state=state), trading_date=DAY))
    shelf.refused.add(1)

    shelf.prune(NEXT)

    assert set(shelf.orders) == {"lives", "today"}
    assert set(shelf.lines) == {"OWDOUBT"}
    assert set(shelf.open) == {"lives", "OWDOUBT"}
    assert shelf.refused == set()


def test_an_order_that_ends_is_no_longer_open():
    shelf = Shelf()
    shelf.put(held("open", order="1"))
    shelf.put(held("filled", order="1"))

    assert shelf.open == {}


def test_a_shelf_is_loaded_once_however_many_ask(database, clock):
    book = OrderBook(database, clock=clock)
    for value in (update("open"), trade(), position()):
        book.on_observation(observed(value))
    book.commit()
    memory, reads, real = Memory(database), [], database.read
    database.read = lambda: reads.append(1) or real()
    start = threading.Barrier(6)
    found: list[Shelf] = []

    def ask() -> None:
        start.wait()
        found.append(memory.shelf(A1))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(reads) == 1
    assert len({id(shelf) for shelf in found}) == 1
    assert (len(found[0].orders), len(found[0].trades), len(found[0].positions)) == (1, 1, 1)


def test_what_ended_before_today_is_not_held_any_more():
    shelf = Shelf()
    for day in (DAY - timedelta(days=1), DAY):
        one = position(symbol=f"INFY{day:%d}FUT", trading_date=day)
        shelf.positions[position_key(one)] = one

    shelf.prune(DAY)

    assert [one.trading_date for one in shelf.positions.values()] == [DAY]
