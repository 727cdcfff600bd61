from __future__ import annotations

import threading
from datetime import date

import pytest
from msgspec.structs import replace

from orderwire.core.orders import AccountId, Channel, OrderId
from orderwire.store import inbox
from orderwire.store.book import OrderBook
from orderwire.store.inbox import MOST_POSTBACKS, Taken, Verdict, digested
from store.making import OPENED, ns, observed, update

A1, ORDER = AccountId("A1"), OrderId("260817000000001")


def keep(
    database,
    body: bytes,
    *,
    order_id: str = ORDER,
    claimed_time: str = "2026-08-17 10:30:00",
    account: str = "A1",
):
    return database.write(
        lambda connection: inbox.record(
            connection,
            account=account,
            order_id=order_id,
            claimed_time=claimed_time,
            received_ns=ns(OPENED),
            raw=body,
        )
    )


def test_a_postback_is_kept_as_it_came_and_waits_to_be_verified(database):
    assert keep(database, b'{"status": "COMPLETE"}\xff') is Taken.STORED

    (entry,) = inbox.timeline(database, A1, ORDER)
    assert (entry.channel, entry.verdict, entry.settled_at) == (Channel.POSTBACK, Verdict.HINT, None)
    assert (entry.raw, entry.observation) == (b'{"status": "COMPLETE"}\xff', None)
    with database.read() as connection:
        assert inbox.open_hints(connection, A1) == {ORDER: ns(OPENED)}
        assert inbox.open_hints(connection, AccountId("A2")) == {}


def test_the_same_body_again_is_a_duplicate(database):
    keep(database, b"{}")

    assert keep(database, b"{}") is Taken.DUPLICATE
    assert keep(database, b"{}", account="A2") is Taken.STORED
    assert len(inbox.timeline(database, A1, ORDER)) == 1


def test_at_most_eight_bodies_for_one_order_and_time(database):
    taken = [keep(database, b"body %d" % number) for number in range(MOST_POSTBACKS + 2)]

    assert taken == [Taken.STORED] * MOST_POSTBACKS + [Taken.FULL] * 2
    assert keep(database, b"body 0") is Taken.DUPLICATE
    assert keep(database, b"x", claimed_time="2026-08-17 10:30:01") is Taken.STORED
    assert keep(database, b"x", order_id="2") is Taken.STORED
    assert keep(database, b"x", account="A2") is Taken.STORED
    assert len(inbox.timeline(database, A1, ORDER)) == MOST_POSTBACKS + 1


def test_the_limit_holds_against_many_threads(database):
    taken: list[Taken] = []
    threads = [
        threading.Thread(target=lambda number=number: taken.append(keep(database, b"body %d" % number)))
        for number in range(MOST_POSTBACKS * 2)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert taken.count(Taken.STORED) == taken.count(Taken.FULL) == MOST_POSTBACKS


def test_the_mark_is_of_what_was_said_and_by_which_channel():
    said = update("open")
    mark, _ = digested(said)

    assert digested(replace(said, received_ns=1, raw=b"other"))[0] == mark
    for other in (
        replace(said, channel=Channel.REST),
        replace(said, status=None),
        replace(said, reason="why"),
        replace(said, history_index=0),
        replace(said, filled_quantity=1),
        replace(said, trading_date=date(2026, 8, 18)),
        replace(said, broker_time=None),
    ):
        assert digested(other)[0] != mark


def test_marks_fit_a_column_of_either_database():
    for number in range(2000):
        assert -(2**63) <= digested(update("open", order=str(number)))[0] < 2**63


def test_observations_come_back_as_they_came_by_day(database, clock):
    book = OrderBook(database, clock=clock)
    said = [update("placed"), update("open"), update("open", order="2", raw=b"\x00\x01")]
    for one in said:
        book.on_observation(observed(one))
    book.commit()
    keep(database, b"a postback is no observation")

    assert list(inbox.observations(database)) == said
    assert list(inbox.observations(database, day=date(2026, 8, 17))) == said
    assert list(inbox.observations(database, day=date(2026, 8, 18))) == []


@pytest.mark.parametrize("word", ["placed", "part"])
def test_the_newest_observation_that_counted_is_found_without_memory(database, clock, word):
    book = OrderBook(database, clock=clock)
    for one in (update(word), update("open", filled_quantity=11)):
        book.on_observation(observed(one))
    book.commit()

    with database.read() as connection:
        assert inbox.last_applied(connection, A1, ORDER) == update(word)
        assert inbox.last_applied(connection, A1, OrderId("none")) is None
    assert OrderBook(database, clock=clock).last_update(A1, ORDER) == update(word)
