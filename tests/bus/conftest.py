"""A real Redis for each worker, and a database whose changes travel over it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orderwire.bus.link import open_redis
from orderwire.bus.streams import Streams
from orderwire.clock import SystemClock
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from redis_server import RedisServer
from store.making import FakeClock


@pytest.fixture(scope="session")
def one_redis() -> Iterator[RedisServer]:
    server = RedisServer().start()
    yield server
    server.close()


@pytest.fixture
def redis_server(one_redis: RedisServer) -> RedisServer:
    """Empty, shared by the tests that leave it running."""
    one_redis.flush()
    return one_redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """For tests that kill it."""
    server = RedisServer().start()
    yield server
    server.close()


@pytest.fixture
def streams(redis_server: RedisServer) -> Streams:
    return Streams(open_redis(redis_server.url))


@pytest.fixture
def database(tmp_path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'orderwire.db'}", clock=SystemClock())
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def book(database) -> OrderBook:
    return OrderBook(database, clock=FakeClock())
