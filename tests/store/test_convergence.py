"""Whatever arrives how often, in which order, in which batches and over which restarts: the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import text

from orderwire.core.orders import AccountId, OrderUpdate, Trade
from orderwire.store import inbox, outbox
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from store.making import LIFE, FakeClock, observed, read, trade, update

WORDS = (*LIFE, "cancelled")
OBSERVATIONS: tuple[OrderUpdate | Trade, ...] = (
    *(update(word, order=order) for word in WORDS for order in ("1", "2")),
    *(read(word, order=order) for word in WORDS for order in ("1", "2")),
    trade("T1", order="1"),
    trade("T2", order="1"),
    trade("T1", order="2"),
)
LAST = (read("filled", order="1"), read("filled", order="2"))

STEPS = st.lists(
    st.tuples(st.sampled_from(range(len(OBSERVATIONS))), st.sampled_from(["go on", "commit", "restart"])),
    min_size=1,
    max_size=40,
)


@pytest.fixture(scope="module")
def memory() -> Iterator[Database]:
    database = Database("sqlite://", clock=FakeClock())
    database.migrate()
    yield database
    database.close()


NAMES = count()


class Run:
    """One account's life under one schedule."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.account = AccountId(f"P{next(NAMES)}")
        self.book = OrderBook(database, clock=database.clock)

    def take(self, value: OrderUpdate | Trade, then: str = "go on") -> None:
        self.book.on_observation(observed(replace(value, account=self.account)))
        if then != "go on":
            self.book.commit()
        if then == "restart":
            self.book = OrderBook(self.database, clock=self.database.clock)

    def rows(self) -> list[tuple[str, ...]]:
        self.book.commit()
        orders = text(
            "SELECT order_id, trading_date, status, live, last_day, state FROM orders WHERE account = :a"
        )
        trades = text("SELECT order_id, trade_id, trading_date FROM trades WHERE account = :a")
        with self.database.read() as connection:
            found = [
                tuple(row)
                for query in (orders, trades)
                for row in connection.execute(query, {"a": self.account})
            ]
        return sorted(tuple(str(value).replace(self.account, "") for value in row) for row in found)

    def sequences(self) -> list[int]:
        held = outbox.snapshot(self.database, self.account)
        changes = outbox.changes_since(self.database, self.account, epoch=held.epoch, sequence=0, most=10_000)
        return [change.sequence for change in changes or []]


CALMLY = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
quickly = settings(max_examples=100, **CALMLY)


@quickly
@given(steps=STEPS, again=STEPS)
def test_the_same_observations_in_any_order_make_the_same_rows(memory, steps, again):
    said = {index for index, _ in steps}
    one, other = Run(memory), Run(memory)

    for index, then in steps:
        one.take(OBSERVATIONS[index], then)
    for index, then in again:
        if index in said:
            other.take(OBSERVATIONS[index], then)
    for index in sorted(said, reverse=True):
        other.take(OBSERVATIONS[index])

    assert one.rows() == other.rows()


@quickly
@given(steps=STEPS)
def test_one_read_of_the_broker_s_book_repairs_any_loss(memory, steps):
    run = Run(memory)

    for index, then in steps:
        value = OBSERVATIONS[index]
        if not (isinstance(value, OrderUpdate) and value.raw_status == "CANCELLED"):
            run.take(value, then)
    for row in LAST:
        run.take(row)
    run.book.commit()

    shown = {
        view.order_id: (view.status, view.filled_quantity)
        for view in outbox.snapshot(memory, run.account).orders
    }
    assert shown == {"1": ("FILLED", 10), "2": ("FILLED", 10)}


@quickly
@given(steps=STEPS)
def test_sequences_have_no_gap_and_the_log_ends_at_the_snapshot(memory, steps):
    run = Run(memory)

    for index, then in steps:
        run.take(OBSERVATIONS[index], then)
    run.book.commit()

    held = outbox.snapshot(memory, run.account)
    assert run.sequences() == list(range(1, held.sequence + 1))
    changes = outbox.changes_since(memory, run.account, epoch=held.epoch, sequence=0, most=10_000)
    page = {change.order.row: change.order for change in changes if change.order}
    assert sorted(page.values(), key=str) == sorted(held.orders, key=str)
    assert {change.trade.trade_id for change in changes if change.trade} == {
        one.trade_id for one in held.trades
    }


@quickly
@given(steps=STEPS, replayed=st.lists(st.integers(0, 30), max_size=20))
def test_replaying_anything_from_the_inbox_changes_nothing(memory, steps, replayed):
    run = Run(memory)
    for index, then in steps:
        run.take(OBSERVATIONS[index], then)
    before = (run.rows(), run.sequences())
    kept = list(inbox.observations(memory, account=run.account))

    for number in replayed:
        run.take(kept[number % len(kept)] if kept else OBSERVATIONS[steps[0][0]], "restart")

    assert (run.rows(), run.sequences()) == before


@settings(max_examples=15, **CALMLY)
@given(steps=STEPS)
def test_both_databases_keep_the_same(memory, database, steps):
    one, other = Run(memory), Run(database)
    for index, then in steps:
        one.take(OBSERVATIONS[index], then)
        other.take(OBSERVATIONS[index], then)

    assert one.rows() == other.rows()
    assert one.sequences() == other.sequences()
