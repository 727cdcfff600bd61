from __future__ import annotations

import threading
from collections import defaultdict

import pytest

from orderwire.core.orders import AccountId
from orderwire.errors import StoreBusyError
from orderwire.store import outbox, shards
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from orderwire.store.shards import SHARDS, Head, shard_of
from orderwire.store.statements import build
from store.making import LIFE, FakeClock, observed, update


def take(database, *accounts, generation=shards.new_generation):
    statements = build(database.dialect)
    return database.write(
        lambda connection: shards.take_places(
            connection, accounts, statements=statements, generation=generation
        )
    )


def heads(database):
    with database.read() as connection:
        return shards.heads(connection)


def tail(database, after, *, most=100):
    with database.read() as connection:
        return shards.tail(connection, after, most=most)


def two_accounts_of_one_shard() -> tuple[str, str]:
    seen: dict[int, str] = {}
    for number in range(10_000):
        name = f"A{number}"
        other = seen.setdefault(shard_of(name), name)
        if other != name:
            return other, name
    raise AssertionError("no two accounts share a shard")


def test_an_accounts_shard_is_the_same_for_ever():
    assert [shard_of(name) for name in ("zerodha-asha", "jainam-jay", "Ünïcode")] == [23, 40, 60]
    assert {shard_of(f"A{number}") for number in range(10_000)} == set(range(SHARDS))


def test_positions_have_no_gap_and_follow_the_order_of_the_changes(database):
    one, two = two_accounts_of_one_shard()
    shard = shard_of(one)

    assert [place.position for place in take(database, one, two, one)] == [1, 2, 3]
    assert [(place.shard, place.position) for place in take(database, two)] == [(shard, 4)]
    assert heads(database)[shard].position == 4


def test_a_transaction_that_fails_gives_its_positions_back(database):
    take(database, "A1")

    def fails(connection):
        shards.take_places(connection, ["A1"], statements=build(database.dialect))
        raise ValueError("undone")

    with pytest.raises(ValueError, match="undone"):
        database.write(fails)

    assert [place.position for place in take(database, "A1")] == [2]


def test_every_change_the_book_commits_stands_in_its_shard(database, clock):
    book = OrderBook(database, clock=clock)
    for word in LIFE:
        for account in ("A1", "A2"):
            book.on_observation(observed(update(word, account=AccountId(account))))
        book.commit()

    rows = tail(database, dict.fromkeys(range(SHARDS), 0))

    by_shard = defaultdict(list)
    for row in rows:
        by_shard[row.shard].append(row.position)
        assert shard_of(row.account) == row.shard
    assert {shard: head.position for shard, head in heads(database).items() if head.position} == {
        shard: len(found) for shard, found in by_shard.items()
    }
    assert all(found == list(range(1, len(found) + 1)) for found in by_shard.values())
    assert len(rows) == 2 * len(LIFE)


@pytest.mark.parametrize("count", [1, 2, 3, 5, SHARDS])
def test_the_tail_is_what_follows_in_each_shard_asked_for(database, clock, count):
    book = OrderBook(database, clock=clock)
    accounts = [f"A{number}" for number in range(200)]
    for account in accounts:
        book.on_observation(observed(update("open", account=AccountId(account))))
    book.commit()
    asked = sorted({shard_of(account) for account in accounts})[:count]

    rows = tail(database, dict.fromkeys(asked, 1), most=1000)

    expected = sorted(shard_of(account) for account in accounts if shard_of(account) in asked)
    assert [row.shard for row in rows] == [shard for shard in asked for _ in range(expected.count(shard) - 1)]
    assert all(row.position > 1 for row in rows)
    assert len(tail(database, dict.fromkeys(asked, 0), most=1)) == 1


def test_the_heads_of_some_shards_are_those_of_all(database):
    take(database, "A1", "A2", "A3")
    every = heads(database)

    with database.read() as connection:
        some = shards.heads(connection, [shard_of("A1"), shard_of("A2")])

    assert some == {shard: every[shard] for shard in (shard_of("A1"), shard_of("A2"))}


def test_nobody_asked_for_gives_nothing(database):
    assert tail(database, {}) == []


def test_a_restore_begins_other_generations(database):
    take(database, "A1", generation=lambda: "first")
    before = heads(database)

    database.write(outbox.renew)
    take(database, "A1", generation=lambda: "second")

    others = dict.fromkeys(set(range(SHARDS)) - {shard_of("A1")}, 0)
    for heads_then, generation in ((before, "first"), (heads(database), "second")):
        assert heads_then == {
            shard: Head(position, generation) for shard, position in {**others, shard_of("A1"): 1}.items()
        }


def test_a_new_generation_is_begun_once_and_goes_on_where_the_shard_stands(database):
    take(database, "A1", generation=lambda: "first")
    shard = shard_of("A1")

    begun = [
        database.write(lambda connection: shards.begin_generation(connection, shard, instead_of="first"))
        for _ in range(2)
    ]

    assert begun == [True, False]
    assert heads(database)[shard].position == 1
    assert heads(database)[shard].generation != "first"


def test_a_reader_of_positions_misses_no_change_that_commits_later(postgres):
    """Two writers of one shard; whatever a reader has seen the end of, nothing is put before it."""
    one, two = two_accounts_of_one_shard()
    shard, rounds = shard_of(one), 60
    writers = [Database(postgres.url, clock=FakeClock()) for _ in range(2)]
    reader = Database(postgres.url, clock=FakeClock(), read_only=True)
    problems: list[BaseException] = []

    def write(database, account):
        statements = build(database.dialect)

        def work(connection):
            (place,) = shards.take_places(connection, [account], statements=statements)
            row = {"account": account, "epoch": "e", "sequence": place.position, "trading_date": "2026-08-17"}
            connection.execute(statements.outbox, [{**row, "change": account, **place._asdict()}])

        try:
            done = 0
            while done < rounds:
                try:
                    database.write(work)
                except StoreBusyError:  # the machine is slow, the other one held the shard for too long
                    continue
                done += 1
        except BaseException as error:  # noqa: BLE001 - shown by the test
            problems.append(error)

    threads = [threading.Thread(target=write, args=pair) for pair in zip(writers, (one, two), strict=True)]
    try:
        for thread in threads:
            thread.start()
        seen: list[int] = []
        while len(seen) < 2 * rounds and not problems:
            seen += [row.position for row in tail(reader, {shard: seen[-1] if seen else 0})]
        for thread in threads:
            thread.join()
    finally:
        for database in (*writers, reader):
            database.close()
        postgres.empty()

    assert not problems
    assert seen == list(range(1, 2 * rounds + 1))
