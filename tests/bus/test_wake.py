from __future__ import annotations

import threading

import pytest

from house import eventually
from orderwire.bus.wake import RedisWake
from orderwire.clock import SystemClock
from orderwire.core.events import EventType
from orderwire.feeds.loop import spawn
from orderwire.store.wake import Wake
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


def test_a_command_wakes_whoever_listens(houses):
    web, feeds, listening = houses(), houses(), Listening()
    feeds.wake.subscribe(listening)
    eventually(feeds.wake.wire.subscribed.is_set, what="the subscription")

    def said_and_heard() -> bool:  # said again, because a notice may be lost
        web.wake.commanded([ACCOUNTS[1], ACCOUNTS[0]])
        return len(listening.woken) >= 2

    eventually(said_and_heard, what="the command")
    assert listening.woken[:2] == sorted(ACCOUNTS[:2])


def test_it_is_a_wake_and_starts_nothing_before_it_is_needed(houses, book):
    house = houses()
    wake: Wake = house.wake

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
    assert house.wake.wire.counts.unsaid >= 1
