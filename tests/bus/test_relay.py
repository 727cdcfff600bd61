from __future__ import annotations

import threading

import pytest
from sqlalchemy import delete, func, select, update

from orderwire.bus.relay import MOST, MOST_KEPT, Relay, trim_points
from orderwire.bus.streams import ABSENT, StreamKey, Streams
from orderwire.clock import SystemClock
from orderwire.store import schema, shards
from telling_bus import ACCOUNTS, tell


def make_relay(database, streams) -> Relay:
    relay = Relay(database, streams, clock=SystemClock())
    relay._trim_at = float("inf")  # nobody follows here, so everything would go
    return relay


@pytest.fixture
def relay(database, streams) -> Relay:
    return make_relay(database, streams)


def keys(database) -> dict[StreamKey, int]:
    """The streams there should be, and where the database stands in each."""
    with database.read() as connection:
        heads = shards.heads(connection)
    return {
        StreamKey(shard, head.generation): head.position for shard, head in heads.items() if head.position
    }


def entries(streams: Streams, database) -> list[tuple[int, int, str]]:
    found = streams.read(dict.fromkeys(keys(database), 0), most=10_000, wait_ms=1)
    return [
        (key.shard, entry.position, entry.account.decode()) for key, part in found.items() for entry in part
    ]


def expected(database) -> list[tuple[int, int, str]]:
    with database.read() as connection:
        rows = shards.tail(connection, dict.fromkeys(range(shards.SHARDS), 0), most=100_000)
    return [(row.shard, row.position, row.account) for row in rows]


def test_what_is_committed_after_the_start_is_on_the_streams_once_and_in_order(
    relay, book, database, streams
):
    relay.round()
    made = tell(book, 2)

    relay.wake(ACCOUNTS)
    relay.round(relay._take())

    assert sorted(entries(streams, database)) == expected(database)
    assert (relay.counts.published, relay.counts.failures) == (made, 0)


def test_more_than_fits_in_one_go_is_published_in_several(relay, book, database, streams):
    relay.round()
    made = tell(book, 6)
    assert made > MOST

    relay.round(range(shards.SHARDS))

    assert sorted(entries(streams, database)) == expected(database)


def test_a_relay_that_begins_again_publishes_nothing_twice(relay, book, database, streams):
    relay.round()
    tell(book)
    relay.round()
    before = entries(streams, database)

    for _ in range(3):
        again = make_relay(database, streams)
        again.round()
        again.round(range(shards.SHARDS))
        assert again.counts.published == 0

    assert sorted(entries(streams, database)) == sorted(before) == expected(database)


def test_a_relay_that_died_between_the_commit_and_the_stream_is_made_up_for_by_any_other(
    relay, book, database, streams
):
    other = make_relay(database, streams)
    relay.round()
    other.round()
    tell(book)  # nobody is woken

    other.round()

    assert sorted(entries(streams, database)) == expected(database)


def test_relays_that_race_publish_each_change_once_and_in_order(book, database, streams):
    relays = [make_relay(database, streams) for _ in range(3)]
    for relay in relays:
        relay.round()
    stop = threading.Event()

    def publish(relay):
        while not stop.is_set():
            relay.round(range(shards.SHARDS))

    threads = [threading.Thread(target=publish, args=(relay,)) for relay in relays]
    for thread in threads:
        thread.start()
    tell(book, 4)
    stop.set()
    for thread in threads:
        thread.join()
    relays[0].round()

    assert sum(relay.counts.failures for relay in relays) == 0
    assert sorted(entries(streams, database)) == expected(database)


def test_a_stream_that_was_flushed_goes_on_with_what_is_new(relay, book, database, streams, redis_server):
    relay.round()
    tell(book)
    relay.round()
    redis_server.flush()
    before = keys(database)
    tell(book, start=1)

    relay.round(range(shards.SHARDS))

    assert streams.tops(keys(database)) == keys(database)
    upto = {key.shard: position for key, position in before.items()}
    assert sorted(entries(streams, database)) == [row for row in expected(database) if row[1] > upto[row[0]]]


def test_a_flushed_stream_is_fed_again_whoever_looks_first(book, database, streams, redis_server):
    relays = [make_relay(database, streams) for _ in range(2)]
    for number in range(3):
        for relay in relays:
            relay.round()
        redis_server.flush()
        tell(book, start=number)
        for relay in reversed(relays):
            relay.round(range(shards.SHARDS))
            relay.round()

    assert streams.tops(keys(database)) == keys(database)


def test_without_redis_it_keeps_trying_and_loses_nothing(book, database, own_redis):
    from orderwire.bus.link import open_redis

    streams = Streams(open_redis(own_redis.url))
    relay = make_relay(database, streams)
    relay.round()
    own_redis.kill()
    tell(book)

    relay.round()
    assert relay.counts.failures == 1
    own_redis.start()
    relay.round()
    tell(book, start=1)
    relay.round()

    assert streams.tops(keys(database)) == keys(database)


def test_a_database_that_lost_commits_begins_another_generation(relay, book, database, streams):
    relay.round()
    tell(book)
    relay.round()
    shard = shards.shard_of(ACCOUNTS[0])
    before = keys(database)

    def forget_the_last(connection):
        log, table = schema.outbox.c, schema.shards
        last = connection.execute(select(func.max(log.position)).where(log.shard == shard)).scalar()
        connection.execute(delete(schema.outbox).where(log.shard == shard, log.position == last))
        connection.execute(update(table).where(table.c.shard == shard).values(position=last - 1))

    database.write(forget_the_last)

    relay.round()
    relay.round()

    (old,) = [key for key in before if key.shard == shard]
    assert relay.counts.renewed == 1
    assert old not in keys(database)
    assert {key.shard for key in keys(database)} == {key.shard for key in before}


def test_a_stream_is_forgotten_up_to_its_slowest_follower():
    one, two, three = (StreamKey(number, "g") for number in range(3))

    points = trim_points({one: 100, two: 100, three: 3 * MOST_KEPT}, {one: 40, three: 10})

    assert points == {one: 40, two: 100, three: 2 * MOST_KEPT}


def test_what_every_follower_has_is_trimmed_and_the_rest_stays(relay, book, database, streams):
    relay.round()
    tell(book)
    relay.round()
    tops = keys(database)
    fast, slow = tops, {key: min(3, top) for key, top in tops.items()}
    streams.check_in("fast", fast)
    streams.check_in("slow", slow)
    relay._trim_at = 0.0

    relay.round()

    left = entries(streams, database)
    assert sorted(left) == [row for row in expected(database) if row[1] > 3]
    assert streams.tops(tops) == tops

    streams.check_out("slow")
    relay._trim_at = 0.0
    relay.round()
    assert entries(streams, database) == []
    assert streams.tops(tops) == tops


def test_a_follower_that_said_nothing_for_long_holds_nothing_back(
    relay, book, database, streams, redis_server
):
    relay.round()
    tell(book)
    relay.round()
    streams.check_in("gone", dict.fromkeys(keys(database), 0))
    redis_server.client.delete("orderwire:follower:gone")
    relay._trim_at = 0.0

    relay.round()

    assert entries(streams, database) == []
    assert redis_server.client.smembers("orderwire:followers") == set()


def test_a_stream_that_is_not_there_is_absent(streams):
    key = StreamKey(1, "nobody")

    assert streams.tops([key]) == {key: ABSENT}
    assert streams.read({key: 0}, most=1, wait_ms=1) == {}
