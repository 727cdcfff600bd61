from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from orderwire.core.events import Event, EventType
from orderwire.core.orders import AccountId
from orderwire.store import outbox
from orderwire.store.batch import Input
from orderwire.store.book import OrderBook
from store.making import DAY, LIFE, OPENED, observed, submission, trade, update

A1 = AccountId("A1")


@pytest.fixture
def book(database, clock) -> OrderBook:
    epochs = (f"epoch{number}" for number in range(100))
    return OrderBook(database, clock=clock, epoch=lambda: next(epochs))


def tell(book: OrderBook, *values: object) -> list:
    for value in values:
        book.on_observation(observed(value))
    return [event.data for event in book.commit() or [] if event.type == EventType.ORDER_CHANGED]


def since(database, sequence: int, *, epoch: str = "epoch0", most: int = 100) -> list[int] | None:
    changes = outbox.changes_since(database, A1, epoch=epoch, sequence=sequence, most=most)
    return None if changes is None else [change.sequence for change in changes]


def test_an_account_without_changes_has_an_empty_page_and_no_epoch(database):
    held = outbox.snapshot(database, A1)

    assert (held.account, held.epoch, held.sequence) == ("A1", "", 0)
    assert (held.orders, held.trades, held.positions) == ([], [], [])
    assert since(database, 0, epoch="") is None


def test_the_head_is_where_the_log_stands(book, database):
    assert outbox.head(database, "A1") == ("", 0)
    tell(book, update("open"), update("part"))

    assert outbox.head(database, "A1") == ("epoch0", 2)


def test_a_cursor_is_continued_without_gap_or_repetition(book, database):
    tell(book, *(update(word) for word in LIFE), trade())

    assert since(database, 0) == [1, 2, 3, 4, 5]
    assert since(database, 3) == [4, 5]
    assert since(database, 5) == []


@pytest.mark.parametrize(
    ("sequence", "epoch", "most"),
    [(6, "epoch0", 100), (0, "other", 100), (-1, "epoch0", 100), (0, "epoch0", 4), (2**40, "epoch0", 100)],
)
def test_a_cursor_that_cannot_be_continued_asks_for_a_snapshot(book, database, sequence, epoch, most):
    tell(book, *(update(word) for word in LIFE), trade())

    assert since(database, sequence, epoch=epoch, most=most) is None


def test_exactly_as_many_changes_as_allowed_are_replayed(book, database):
    tell(book, *(update(word) for word in LIFE))

    assert since(database, 0, most=4) == [1, 2, 3, 4]


def test_the_snapshot_and_its_cursor_are_of_one_moment(book, database):
    tell(book, update("open"))
    real = database.read
    reads = []

    def read():
        reads.append(1)
        return real()

    database.read = read
    held = outbox.snapshot(database, A1)

    assert len(reads) == 1
    assert (held.sequence, held.orders[0].status) == (1, "OPEN")


def test_a_client_that_replays_ends_where_the_snapshot_is(book, database):
    tell(book, update("open"), update("open", order="2"))
    held = outbox.snapshot(database, A1)
    page = {view.row: view for view in held.orders}
    tell(book, update("part"), update("open", order="3"), update("filled"))

    for change in outbox.changes_since(database, A1, epoch=held.epoch, sequence=held.sequence, most=10):
        page[change.order.row] = change.order

    assert page == {view.row: view for view in outbox.snapshot(database, A1).orders}


def test_lines_come_first_seen_first(book, database):
    earlier = submission("OWB", created=OPENED - timedelta(seconds=9))
    tell(book, update("open", order="2"), update("placed", order="3"))
    book.on_submission(Event(EventType.SUBMISSION, Input(value=earlier)))
    book.commit()

    assert [view.row for view in outbox.snapshot(database, A1).orders] == ["OWB", "3", "2"]


def test_a_refused_submission_is_on_its_days_page_only_and_one_in_doubt_stays(book, database, clock):
    for tag, state in (("OWA", "REFUSED"), ("OWB", "UNKNOWN")):
        book.on_submission(Event(EventType.SUBMISSION, Input(value=submission(tag, state=state))))
    book.commit()
    assert [view.row for view in outbox.snapshot(database, A1).orders] == ["OWA", "OWB"]

    clock.advance(24 * 3600)

    assert [view.row for view in outbox.snapshot(database, A1).orders] == ["OWB"]


def test_compaction_forgets_whole_days_and_sends_old_cursors_to_the_snapshot(book, database, clock):
    tell(book, *(update(word) for word in LIFE))
    clock.advance(24 * 3600)
    tell(book, update("open", order="9", at=OPENED + timedelta(days=1)))

    gone = database.write(lambda connection: outbox.compact(connection, A1, before=DAY + timedelta(days=1)))

    assert gone == 4
    assert since(database, 3) is None
    assert since(database, 4) == [5]
    assert outbox.snapshot(database, A1).sequence == 5
    assert database.write(lambda connection: outbox.compact(connection, A1, before=DAY)) == 0
    assert [change.sequence for change in tell(book, update("part", order="9"))] == [6]


def test_compaction_of_everything_keeps_counting(book, database):
    tell(book, update("open"))

    database.write(lambda connection: outbox.compact(connection, A1, before=DAY + timedelta(days=9)))

    assert (since(database, 0), since(database, 1)) == (None, [])
    assert [change.sequence for change in tell(book, update("part"))] == [2]


def test_a_log_begun_anew_has_another_epoch_and_no_old_cursor_is_good(book, database):
    tell(book, update("open"), update("open", account="A2"))

    count = database.write(lambda connection: outbox.renew(connection, epoch=lambda: "restored"))

    assert count == 2
    assert since(database, 1) is None
    held = outbox.snapshot(database, A1)
    assert (held.epoch, held.sequence, len(held.orders)) == ("restored", 0, 1)
    (change,) = tell(book, update("part"))
    assert (change.epoch, change.sequence) == ("restored", 1)


def test_a_number_is_given_once_whatever_the_rest_of_the_transaction_does(book, database):
    tell(book, update("open"))

    def fails(connection):
        ledgers = outbox.open_ledgers(connection, ["A1"])
        ledgers["A1"].next()
        outbox.advance(connection, ledgers, statements=book._around.statements)
        raise ValueError("undone")

    with pytest.raises(ValueError, match="undone"):
        database.write(fails)

    assert [change.sequence for change in tell(book, update("part"))] == [2]
    with database.read() as connection:
        stored = connection.execute(text("SELECT sequence FROM outbox ORDER BY id")).scalars().all()
    assert stored == [1, 2]


def test_an_opened_ledger_keeps_its_epoch(database):
    open_it = lambda connection: outbox.open_ledgers(connection, ["A1"], epoch=lambda: "first")["A1"].epoch  # noqa: E731

    assert database.write(open_it) == "first"
    assert (
        database.write(lambda c: outbox.open_ledgers(c, ["A1"], epoch=lambda: "second")["A1"].epoch)
        == "first"
    )


def test_epochs_do_not_repeat():
    assert len({outbox.new_epoch() for _ in range(1000)}) == 1000
