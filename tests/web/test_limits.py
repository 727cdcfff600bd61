from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from house import eventually
from orderwire.store.users import Scope
from redis_server import RedisServer
from web.house import House, a_house, csrf


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer().start()
    yield server
    server.close()


@pytest.fixture
def webs(redis: RedisServer, tmp_path: Path) -> Iterator[list[House]]:
    """Two web processes, as far as counting goes."""
    with ExitStack() as ends:
        made = []
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            web = ends.enter_context(a_house(tmp_path / name, limits_at=redis.url))
            web.user("asha")
            made.append(web)
        yield made


def guess(web: House) -> int:
    """Try a wrong password: ten a minute are let through from one address."""
    client = web.client()
    form = {"name": "asha", "password": "wrong", "csrf_token": csrf(client)}
    return client.post("/login", data=form).status_code


def test_processes_count_together(webs):
    codes = [guess(webs[number % 2]) for number in range(14)]

    assert codes == [401] * 10 + [429] * 4


def test_while_redis_is_away_each_counts_for_itself_and_together_again_later(webs, redis):
    redis.kill()

    codes = [[guess(web) for _ in range(12)] for web in webs]

    assert codes == [[401] * 10 + [429] * 2] * 2
    redis.start()
    eventually(lambda: guess(webs[0]) and redis.client.dbsize() > 0, what="it counts in Redis again")


def test_a_redis_that_answers_nobody_holds_requests_up_once(webs, redis):
    redis.freeze()
    try:
        assert [guess(webs[0]) for _ in range(12)] == [401] * 10 + [429] * 2
    finally:
        redis.thaw()


def test_no_key_and_no_password_is_in_redis(webs, redis):
    key = webs[0].services.users.add_key("asha", scope=Scope.READ)[1]
    guess(webs[0])
    webs[0].client().post("/api/v1/orderbook", json={"apikey": key})
    webs[0].client("asha").get("/ui/orders")

    found = [name.decode() for name in redis.client.scan_iter()]

    assert any("api:" in name for name in found)
    assert all(name.startswith("orderwire:limits") for name in found)
    assert not any(key in name or key[:8] in name or "wrong" in name for name in found)


def test_one_process_alone_needs_no_redis(house):
    codes = [guess(house) for _ in range(12)]

    assert codes == [401] * 10 + [429] * 2
