"""What a process without feeds asks of an account's owner: over a real PostgreSQL, with Redis and without."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster import new_database, postgres_server
from house import eventually
from orderwire.bus.wake import RedisWake
from orderwire.clock import SystemClock
from orderwire.core.orders import AccountId
from orderwire.feeds import clerk as clerks
from orderwire.feeds.clerk import Clerk
from orderwire.feeds.loop import spawn
from orderwire.feeds.remote import Errands
from orderwire.feeds.requests import Counter, ReadFreeze
from orderwire.store.accounts import Accounts
from orderwire.store.database import Database
from orderwire.store.leases import FEEDS, Leases
from orderwire.store.sealing import Keyring
from redis_server import RedisServer

ACCOUNT = AccountId("jainam-1")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres_server() as server:
        yield new_database(server, "commands")


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer().start()
    yield server
    server.close()


@dataclass
class Sides:
    """Who asks and who does, each with connections of its own."""

    clerk: Clerk
    errands: Errands
    owner: RedisWake | None
    asker: RedisWake | None

    def ask(self) -> int:
        asked = ReadFreeze(exchange="NFO", symbol="NIFTY")
        return int(self.errands.run(ACCOUNT, asked, seconds=60))


@pytest.fixture
def open_sides(database: str) -> Iterator[Callable[[str], Sides]]:
    with ExitStack() as ends:

        def opened() -> Database:
            found = Database(database, clock=SystemClock())
            ends.callback(found.close)
            return found

        def make(url: str) -> Sides:
            mine, theirs = opened(), opened()
            mine.migrate()
            add_account(mine)
            leases = Leases(mine, "owner")
            leases.enter(role=FEEDS, place="", version="")
            leases.renew()
            leases.take(1)
            ends.callback(leases.leave)
            desk = SimpleNamespace(freeze_quantity=lambda *_: 1800)
            fleet = SimpleNamespace(find=lambda _account: desk)
            clerk = Clerk(
                mine, leases, Counter(desk=cast("Any", desk), fleet=cast("Any", fleet)), clock=mine.clock
            )
            owner, asker = (
                [RedisWake(url, each, clock=each.clock, spawn=spawn) for each in (mine, theirs)]
                if url
                else (None, None)
            )
            if owner is not None:
                clerk.is_told = lambda: owner.hears
                owner.on_commanded(clerk.wake)
            for each in (owner, asker):
                if each is not None:
                    ends.callback(each.close)
            clerk.start()
            ends.callback(clerk.stop)
            wake = asker.commanded if asker is not None else lambda _accounts: None
            return Sides(clerk, Errands(theirs, clock=theirs.clock, taken_within=60, wake=wake), owner, asker)

        yield make


def add_account(database: Database) -> None:
    accounts = Accounts(database, cast("Keyring", None))
    if not accounts.all():
        database.write(
            lambda connection: connection.exec_driver_sql(
                "INSERT INTO users (name, password, role, disabled, created_ns) VALUES ('asha', '', 'trader', 0, 0);"
                "INSERT INTO accounts (id, broker, title, owner, addresses, allow_plaintext, app, postback_segment,"
                f" created_ns) VALUES ('{ACCOUNT}', 'jainam', '', 'asha', '{{}}', 0, '', 'x', 0)"
            )
        )


def test_without_redis_an_owner_looks_by_itself(open_sides):
    sides = open_sides("")

    assert sides.ask() == 1800


def test_with_redis_an_owner_looks_when_it_is_told(open_sides, redis, monkeypatch):
    monkeypatch.setattr(clerks, "LOOK_RARELY", 3600.0)
    sides = open_sides(redis.url)
    eventually(lambda: sides.owner.hears, what="the owner hears")
    eventually(lambda: settled(sides.clerk), what="it looks by itself no more")
    before = sides.clerk.looks

    assert sides.ask() == 1800

    assert sides.clerk.looks > before
    eventually(lambda: settled(sides.clerk), what="it has nothing more to look for")
    sides.clerk.wake(["another's"])
    assert settled(sides.clerk)


def settled(clerk: Clerk) -> bool:
    """Whether it has not looked for far longer than it waits between two looks by itself."""
    before, until = clerk.looks, time.monotonic() + 20 * clerks.LOOK_EVERY
    while time.monotonic() < until:
        if clerk.looks != before:
            return False
        time.sleep(0.01)  # the pace of watching
    return True


def test_when_redis_goes_an_owner_looks_by_itself_again(open_sides, redis):
    sides = open_sides(redis.url)
    eventually(lambda: sides.owner.hears, what="the owner hears")
    assert sides.ask() == 1800

    redis.kill()
    eventually(lambda: not sides.owner.hears, what="it notices")

    assert sides.ask() == 1800
    redis.start()
    eventually(lambda: sides.owner.hears, what="it hears again")
    assert sides.ask() == 1800


def test_how_long_a_command_takes_is_measured(open_sides, redis, record_property):
    """No limit is judged: a number for docs/reference/figures.md."""
    found = []
    for url in ("", redis.url):
        sides = open_sides(url)
        eventually(lambda: not url or sides.owner.hears, what="the owner hears")  # noqa: B023 - called at once
        took = []
        for _ in range(50):
            began = time.perf_counter()
            sides.ask()
            took.append(time.perf_counter() - began)
        found.append(median(took) * 1e3)
        sides.clerk.stop()
    record_property("figure", "a command, asked to answered: {:.0f} ms, with Redis {:.0f} ms".format(*found))
