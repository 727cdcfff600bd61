from __future__ import annotations

import threading

import pytest

from house import eventually
from orderwire.bus.wake import RedisWake
from orderwire.clock import SystemClock
from orderwire.core.events import EventType
from orderwire.feeds.loop import spawn
from store.making import LIFE, observed, update
from telling_bus import ACCOUNTS, Listening, tell


class House:
    """The bus as one process has it; `close` waits until its loops have ended."""

    def __init__(self, url, database) -> None:
        self.threads: list[threading.Thread] = []
        self.wake = RedisWake(url, database, clock=SystemClock(), spawn=self._spawn)

    def _spawn(self, name, function):
        self.threads.append(spawn(name, function))
        return self.threads[-1]

    def close(self) -> None:
        self.wake.close()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def houses(redis_server, database):
    made = []

    def make(url: str = "") -> House:
        made.append(House(url or redis_server.url, database))
        return made[-1]

    yield make
    for house in made:
        house.close()


def committed(book, *words, account=ACCOUNTS[0], order="1"):
    for word in words:
        book.on_observation(observed(update(word, account=account, order=order)))
    return [event.data for event in book.commit() if event.type == EventType.ORDER_CHANGED]


def started(house: House) -> None:
    eventually(lambda: all(one.started.is_set() for one in house.wake.followers), what="the follower's start")


def test_what_one_process_commits_reaches_the_others_once_and_in_order(houses, book):
    feeds, webs = houses(), [houses(), houses()]
    listeners = [Listening(), Listening()]
    for web, listening in zip(webs, listeners, strict=True):
        web.wake.subscribe(listening)
        started(web)
    done = 0

    for word in LIFE:
        for account in ACCOUNTS:
            feeds.wake.changed(committed(book, word, account=account))
            done += 1
    eventually(lambda: all(len(one.told) >= done for one in listeners), what="all changes")

    assert all(one.in_order_and_once(len(LIFE)) for one in listeners)


def test_a_command_wakes_the_owners_and_nobody_who_only_follows(houses):
    web, feeds, told, listening = houses(), houses(), [], Listening()
    feeds.wake.subscribe(listening)
    assert not feeds.wake.hears
    feeds.wake.on_commanded(told.extend)
    eventually(lambda: feeds.wake.hears, what="the subscription")

    def said_and_heard() -> bool:  # said again, because a notice may be lost
        web.wake.commanded([ACCOUNTS[1], ACCOUNTS[0]])
        return len(told) >= 2

    eventually(said_and_heard, what="the command")
    assert set(told) == set(ACCOUNTS[:2])
    assert listening.woken == []


def test_who_asks_waits_for_no_redis(houses, own_redis):
    """It accepts connections and answers nobody: the worst that it can do to one who asks."""
    web, feeds, told = houses(own_redis.url), houses(own_redis.url), []
    feeds.wake.on_commanded(told.extend)
    eventually(lambda: feeds.wake.hears, what="the subscription")
    own_redis.freeze()
    try:
        for _ in range(100):
            web.wake.commanded(ACCOUNTS)
        assert [thread.name for thread in web.threads] == ["bus-crier"]
        assert told == []
    finally:
        own_redis.thaw()

    eventually(lambda: set(told) == set(ACCOUNTS), what="what was said meanwhile is heard, or said again")


def test_it_starts_nothing_before_it_is_needed(houses, book):
    house = houses()
    wake = house.wake

    wake.changed([])
    wake.commanded([])
    assert house.threads == []

    wake.changed(committed(book, "open"))
    wake.changed(committed(book, "part"))
    assert [thread.name for thread in house.threads] == ["bus-relay"]


def test_without_redis_nothing_raises_and_the_database_is_followed(houses, book, own_redis):
    house, listening = houses(own_redis.url), Listening()
    own_redis.kill()
    house.wake.subscribe(listening)
    started(house)

    tell(book)
    house.wake.changed(committed(book, "open", order="2"))
    house.wake.commanded(ACCOUNTS)

    eventually(lambda: len(listening.told) >= len(LIFE) * len(ACCOUNTS) + 1, what="the changes")
    assert listening.in_order_and_once(len(LIFE), accounts=ACCOUNTS[1:])
    eventually(lambda: house.wake.wire.counts.unsaid >= 1, what="the command could not be said")
