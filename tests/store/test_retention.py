from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from house import eventually
from orderwire.core.alerts import Notice
from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import SubmissionState
from orderwire.core.notifications import Notification, Occasion
from orderwire.core.orders import AccountId, OrderId
from orderwire.core.rollout import Reason
from orderwire.engine import EventEngine
from orderwire.errors import InvalidRequestError, StoreBusyError
from orderwire.store import alerts, audit, inbox, outbox, retention, schema
from orderwire.store.accounts import Accounts
from orderwire.store.batch import Input
from orderwire.store.book import OrderBook
from orderwire.store.notifications import Notifications, TargetKind
from orderwire.store.pilot import PilotRecords
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


RING = Keyring(keys={"k1": bytes(32)}, newest="k1")


def make(database, hasher, account_id: str = "A1", owner: str = "asha") -> None:
    """Add an account, and its owner where there is none yet."""
    users = Users(database, hasher=hasher)
    if owner not in {user.name for user in users.all()}:
        users.add(owner, "correct horse")
    Accounts(database, RING).add(account_id, broker="x", owner=owner, credentials={})


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


def test_an_account_that_exists_is_not_erased(database, clock, hasher):
    make(database, hasher)
    tell(OrderBook(database, clock=clock), update("open"))
    before = counts(database)

    with pytest.raises(InvalidRequestError, match="Remove the account A1 first"):
        retention.erase(database, AccountId("A1"), by="asha")

    assert counts(database) == before


def test_erasing_takes_what_the_pilot_the_alerts_and_the_messages_say_of_the_account(database, hasher):
    make(database, hasher)
    for account in ("A1", "A1x"):
        told = Notice(
            kind="mismatch", broker="x", account=AccountId(account), text="odd", order_id=OrderId("7")
        )
        database.write(lambda connection, told=told: alerts.keep_notice(connection, told, 1))
        PilotRecords(database).enrol(AccountId(account), broker="x", owner="asha", reason=Reason.IN_STAGE)
    kept = Notifications(database, RING)
    kept.add_target("asha", kind=TargetKind.APPRISE, address="tgram://1:T/9/")
    for account in ("A1", "A1x"):
        filled = Notification(
            key=f"{account}/d/1/filled",
            occasion=Occasion.FILLED,
            account=account,
            at=OPENED,
            title="t",
            text="t",
        )
        assert kept.queue("asha", filled) == 1
    Accounts(database, RING).remove("A1")

    assert retention.erase(database, AccountId("A1"), by="asha") == 3

    assert [one.account for one in PilotRecords(database).enrolments()] == ["A1x"]
    assert [entry.account for entry in alerts.history(database)] == ["A1x"]
    with database.read() as connection:
        assert connection.execute(text("SELECT key FROM notifications")).scalars().all() == ["A1x/d/1/filled"]


def test_an_erasure_cut_short_is_done_again_and_nobody_takes_the_id_before(book, database, hasher):
    def cut(_table, _rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retention.erase(database, AccountId("A1"), by="asha", progress=cut)
    with pytest.raises(InvalidRequestError, match="erase it first"):
        make(database, hasher)

    retention.erase(database, AccountId("A1"), by="asha")

    assert set(counts(database).values()) == {0}
    make(database, hasher)


def test_every_table_that_names_an_account_is_erased():
    naming = {table.name for table in schema.metadata.tables.values() if "account" in table.c}
    left = {"sealed", "ledgers"}  # the one goes with the account, the other at the end of erasing

    assert {table.name for table, _ in retention.of_account("A1")} >= naming - left
