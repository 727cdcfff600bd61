from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest
from sqlalchemy import delete, update

from house import eventually
from orderwire.bus.follower import KIND, Follower
from orderwire.bus.link import open_redis
from orderwire.bus.relay import Relay
from orderwire.bus.streams import StreamKey, Streams
from orderwire.clock import SystemClock
from orderwire.store import letters, schema, shards
from store.making import LIFE
from telling_bus import ACCOUNTS, Listening, tell


@pytest.fixture
def relay(database, streams) -> Relay:
    return Relay(database, streams, clock=SystemClock())


@pytest.fixture
def listening() -> Listening:
    return Listening()


def follower(database, streams, listening) -> Follower:
    return Follower(database, streams, listening, clock=SystemClock())


@contextmanager
def running(*loops):
    threads = [threading.Thread(target=loop.run) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        for loop in loops:
            if isinstance(loop, Follower):
                eventually(loop.started.is_set, what="the follower's start")
        yield
    finally:
        for loop in loops:
            loop.stop()
        for thread in threads:
            thread.join()


def test_every_change_arrives_once_and_in_order_from_the_streams(database, streams, book, relay, listening):
    tell(book)  # before: nobody follows yet
    with running(follower(database, streams, listening), relay):
        for number in range(1, 4):
            tell(book, start=number)
            relay.wake(ACCOUNTS)
        eventually(lambda: len(listening.told) >= 3 * 4 * len(ACCOUNTS), what="all changes")

    assert listening.in_order_and_once(3 * len(LIFE), first=len(LIFE) + 1)
    assert relay.counts.failures == 0


def test_without_streams_every_change_arrives_once_and_in_order_from_the_database(database, book, listening):
    following = follower(database, None, listening)
    with running(following):
        tell(book, 3)
        eventually(lambda: len(listening.told) >= 3 * 4 * len(ACCOUNTS), what="all changes")

    assert listening.in_order_and_once(3 * len(LIFE))
    assert following.counts.from_streams == 0


def test_a_relay_that_is_gone_costs_a_look_and_no_change(database, streams, book, listening):
    tell(book)
    following = follower(database, streams, listening)
    with running(following):
        tell(book, start=1)
        eventually(lambda: len(listening.told) >= 4 * len(ACCOUNTS), what="all changes")

    assert listening.in_order_and_once(len(LIFE), first=len(LIFE) + 1)
    assert (following.counts.from_streams, following.counts.from_database) == (0, 4 * len(ACCOUNTS))


def test_a_flush_in_between_loses_and_repeats_nothing(database, streams, book, relay, redis_server):
    tell(book)
    listening = Listening()
    with running(follower(database, streams, listening), relay):
        for number in range(1, 9):
            tell(book, start=number)
            relay.wake(ACCOUNTS)
            if number % 2:
                redis_server.flush()
        eventually(lambda: len(listening.told) >= 8 * 4 * len(ACCOUNTS), what="all changes")

    assert listening.in_order_and_once(8 * len(LIFE), first=len(LIFE) + 1)


def test_a_redis_that_is_killed_and_comes_back_empty_loses_and_repeats_nothing(
    database, book, listening, own_redis
):
    tell(book)
    streams = Streams(open_redis(own_redis.url))
    relay = Relay(database, streams, clock=SystemClock())
    following = follower(database, streams, listening)
    with running(following, relay):
        eventually(lambda: following._streaming, what="following the streams")
        tell(book, start=1)
        relay.wake(ACCOUNTS)
        own_redis.kill()
        tell(book, start=2)
        relay.wake(ACCOUNTS)
        eventually(lambda: len(listening.told) >= 2 * 4 * len(ACCOUNTS), what="changes while Redis is away")
        own_redis.start()
        eventually(lambda: following._streaming, what="following the streams again")
        before = following.counts.from_streams
        number = 3
        while following.counts.from_streams == before:
            tell(book, start=number)
            relay.wake(ACCOUNTS)
            number += 1
            eventually(
                lambda number=number: len(listening.told) >= (number - 1) * 4 * len(ACCOUNTS),
                what="changes after Redis came back",
            )

    assert listening.in_order_and_once((number - 1) * len(LIFE), first=len(LIFE) + 1)


def test_entries_known_already_are_passed_over_and_a_gap_is_read_from_the_database(
    database, streams, book, relay, listening
):
    relay.round()
    following = follower(database, streams, listening)
    following.round()
    tell(book)
    relay.round()
    key, top = next((key, top) for key, top in streams.tops(keys(database)).items() if top >= 4)
    following._heads = {shard: shards.Head(0, head.generation) for shard, head in heads(database).items()}
    entries = streams.read({key: 0}, most=100, wait_ms=1)[key]

    following._take(key, entries[2:])
    following._take(key, entries)

    mine = [account for account in ACCOUNTS if shards.shard_of(account) == key.shard]
    assert listening.in_order_and_once(len(LIFE), accounts=mine)
    assert len(listening.told) == top
    assert (following.counts.gaps, following.counts.repeated) == (1, top)


def heads(database):
    with database.read() as connection:
        return shards.heads(connection)


def keys(database):
    return [StreamKey(shard, head.generation) for shard, head in heads(database).items()]


def test_what_nobody_can_read_is_parked_once_its_account_read_anew_and_the_rest_goes_on(
    database, streams, book, relay, redis_server
):
    tell(book)
    relay.round()
    listeners = [Listening(), Listening()]
    followers = [follower(database, streams, listening) for listening in listeners]
    for following in followers:
        following.round()
    tell(book, start=1)
    account = ACCOUNTS[7]
    table = schema.outbox
    third = len(LIFE) + 3
    database.write(
        lambda connection: connection.execute(
            update(table).where(table.c.account == account, table.c.sequence == third).values(change="{no")
        )
    )
    with running(relay, *followers):
        eventually(
            lambda: all(len(listening.told) >= 4 * len(ACCOUNTS) - 1 for listening in listeners),
            what="all others",
        )
        eventually(lambda: all(listening.woken for listening in listeners), what="the account being read")
        eventually(lambda: letters.newest(database), what="the dead letter")
        eventually(lambda: not any(following._parked for following in followers), what="parking")

    others = [name for name in ACCOUNTS if name != account]
    for listening in listeners:
        assert listening.in_order_and_once(len(LIFE), first=len(LIFE) + 1, accounts=others)
        assert listening.of(account) == [5, 6, 8]
        assert listening.woken == [account]
    (letter,) = letters.newest(database)
    assert (letter.kind, letter.account, letter.raw) == (KIND, account, b"{no")


def test_a_listener_that_fails_costs_its_accounts_a_look_and_the_follower_nothing(
    database, streams, book, relay
):
    class Failing(Listening):
        def offer(self, changes):
            if any(change.account == ACCOUNTS[0] for change in changes):
                raise ValueError("no")
            super().offer(changes)

    tell(book)
    relay.round()
    listening = Failing()
    following = follower(database, streams, listening)
    with running(following, relay):
        tell(book, start=1)
        relay.wake(ACCOUNTS)
        safe = [name for name in ACCOUNTS if shards.shard_of(name) != shards.shard_of(ACCOUNTS[0])]
        eventually(lambda: listening.in_order_and_once(4, first=5, accounts=safe), what="the others' changes")
        eventually(lambda: ACCOUNTS[0] in listening.woken, what="the account being read")


def test_a_restored_database_begins_anew_and_its_accounts_are_read(database, streams, book, relay, listening):
    from orderwire.store import outbox

    tell(book)
    relay.round()
    following = follower(database, streams, listening)
    following.round()
    database.write(outbox.renew)
    tell(book, start=1)

    following.look()

    assert following.counts.renewed > 0
    assert set(listening.woken) == set(ACCOUNTS)
    tell(book, start=2)
    with running(following, relay):
        eventually(lambda: len(listening.told) >= 4 * len(ACCOUNTS), what="what came after")
    assert all(listening.of(account)[-4:] == [5, 6, 7, 8] for account in ACCOUNTS)


def test_changes_erased_before_they_were_followed_are_passed_over(database, book, listening):
    following = follower(database, None, listening)
    tell(book)
    following.round()
    tell(book, start=1)
    gone = ACCOUNTS[3]
    database.write(
        lambda connection: connection.execute(delete(schema.outbox).where(schema.outbox.c.account == gone))
    )
    with running(following):
        eventually(lambda: len(listening.told) >= 4 * (len(ACCOUNTS) - 1), what="all others")
        tell(book, start=2)
        eventually(lambda: len(listening.of(gone)) == 4, what="what came after")

    assert listening.of(gone) == [9, 10, 11, 12]
    assert listening.in_order_and_once(8, first=5, accounts=[name for name in ACCOUNTS if name != gone])
