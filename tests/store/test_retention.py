from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from house import eventually
from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import SubmissionState
from orderwire.core.orders import AccountId, OrderId
from orderwire.engine import EventEngine
from orderwire.errors import InvalidRequestError, StoreBusyError
from orderwire.store import audit, inbox, outbox, retention
from orderwire.store.accounts import Accounts
from orderwire.store.batch import Input
from orderwire.store.book import OrderBook
from orderwire.store.sealing import Keyring
from orderwire.store.users import Users
from store.making import DAY, LIFE, NS, OPENED, ns, observed, position, submission, trade, update

TOMORROW = DAY + timedelta(days=1)
TABLES = ("orders", "submissions", "trades", "positions", "inbox", "outbox", "dead_letters")


def tell(book: OrderBook, *values: object) -> None:
    for value in values:
        if hasattr(value, "request"):
            book.on_submission(Event(EventType.SUBMISSION, Input(value=value)))
        else:
            book.on_observation(observed(value))
    book.commit()


def counts(database, account: str = "A1") -> dict[str, int]:
    with database.read() as connection:
        return {
            name: connection.execute(
                text(f"SELECT count(*) FROM {name} WHERE account = '{account}'")
            ).scalar()
            for name in TABLES
        }


@pytest.fixture
def book(database, clock) -> OrderBook:
    """A day with something in every table, and a bit of the next."""
    book = OrderBook(database, clock=clock)
    refused = submission("OWREFUSED", state=SubmissionState.REFUSED)
    tell(
        book,
        *(update(word) for word in LIFE),
        trade(),
        position(),
        refused,
        update("open", filled_quantity=99),
    )
    tell(book, update("open", order="alive"), submission("OWDOUBT", state=SubmissionState.UNKNOWN))
    clock.advance(24 * 3600)
    tell(book, update("open", order="new", at=OPENED + timedelta(days=1)))
    return book


def test_a_day_goes_and_what_lives_stays(book, database):
    told: list[tuple[str, int]] = []

    gone = retention.forget(database, before=TOMORROW, progress=lambda *piece: told.append(piece), piece=2)

    assert gone == {
        "orders": 1,
        "submissions": 1,
        "trades": 1,
        "positions": 1,
        "inbox": 6,
        "dead_letters": 1,
        "outbox": 9,
    }
    assert counts(database) == {
        "orders": 2,
        "submissions": 1,
        "trades": 0,
        "positions": 0,
        "inbox": 1,
        "outbox": 1,
        "dead_letters": 0,
    }
    assert [rows for name, rows in told if name == "inbox"] == [2, 2, 2]
    held = outbox.snapshot(database, AccountId("A1"))
    assert [view.row for view in held.orders] == ["OWDOUBT", "alive", "new"]
    assert outbox.changes_since(database, AccountId("A1"), epoch=held.epoch, sequence=0, most=99) is None


def test_an_unverified_postback_stays(book, database):
    old = {"account": "A1", "order_id": OrderId("1"), "claimed_time": "t", "raw": b"{}"}
    database.write(lambda c: inbox.record(c, received_ns=ns(OPENED) - 9 * 24 * 3600 * NS, **old))

    retention.forget(database, before=TOMORROW)

    assert len(inbox.timeline(database, AccountId("A1"), OrderId("1"))) == 1


def test_forgetting_twice_forgets_nothing_more(book, database):
    retention.forget(database, before=TOMORROW)

    assert retention.forget(database, before=TOMORROW) == {}


def test_the_housekeeper_forgets_once_a_day_what_is_old_enough(book, database, clock):
    clock.advance(24 * 3600)
    keeper = retention.Housekeeper(database, keep_days=1)
    tick = Event(EventType.TIMER)

    keeper.on_timer(tick)
    assert counts(database)["trades"] == 0
    assert counts(database)["orders"] == 2  # the one of yesterday, and the one that lives
    tell(book, trade("T9"))
    keeper.on_timer(tick)
    assert counts(database)["trades"] == 1

    clock.advance(24 * 3600)
    keeper.on_timer(tick)
    assert counts(database)["trades"] == 0


def test_the_housekeeper_asks_a_busy_database_again(book, database, clock, monkeypatch):
    clock.advance(24 * 3600)
    keeper = retention.Housekeeper(database, keep_days=1)
    write = database.write

    def busy(_work):
        raise StoreBusyError("locked")

    monkeypatch.setattr(database, "write", busy)
    keeper.on_timer(Event(EventType.TIMER))
    assert counts(database)["trades"] == 1
    monkeypatch.setattr(database, "write", write)
    keeper.on_timer(Event(EventType.TIMER))

    assert counts(database)["trades"] == 0


def test_the_housekeeper_works_on_a_lane_of_the_engine_and_not_at_all_when_everything_is_kept(
    book, database, clock
):
    clock.advance(24 * 3600)
    engine = EventEngine(0.02)
    retention.Housekeeper(database, keep_days=0).attach(engine)
    retention.Housekeeper(database, keep_days=1).attach(engine)  # the other made no lane of that name

    engine.start()
    try:
        eventually(lambda: counts(database)["trades"] == 0, what="the old trades gone")
    finally:
        engine.stop()


def test_the_book_goes_on_after_forgetting(book, database):
    before = outbox.snapshot(database, AccountId("A1")).sequence
    retention.forget(database, before=TOMORROW)

    tell(book, update("part", order="alive", at=OPENED + timedelta(days=1)))

    after = outbox.snapshot(database, AccountId("A1"))
    assert after.sequence == before + 1
    assert {view.row: view.filled_quantity for view in after.orders}["alive"] == 4


def test_erasing_leaves_nothing_of_the_account_but_the_audit(book, database):
    tell(book, update("open", account="A2"))

    gone = retention.erase(database, AccountId("A1"), by="asha")

    assert gone > 0
    assert set(counts(database).values()) == {0}
    assert counts(database, "A2")["orders"] == 1
    assert outbox.snapshot(database, AccountId("A1")).epoch == ""
    latest = audit.entries(database, most=1)[0]
    assert (latest.who, latest.what, latest.detail) == ("asha", "account erased", {"account": "A1"})


def test_an_account_that_exists_is_not_erased(book, database, hasher):
    Users(database, hasher=hasher).add("asha", "correct horse")
    Accounts(database, Keyring(keys={"k1": bytes(32)}, newest="k1")).add(
        "A1", broker="x", owner="asha", credentials={}
    )
    before = counts(database)

    with pytest.raises(InvalidRequestError, match="Remove the account A1 first"):
        retention.erase(database, AccountId("A1"), by="asha")

    assert counts(database) == before
