from __future__ import annotations

import asyncio
import threading

import pytest
from structlog.testing import capture_logs

from orderwire.feeds import loop as feed_loop
from orderwire.feeds.loop import FeedLoop, spawn_loop


@pytest.fixture
def loop(monkeypatch):
    monkeypatch.setattr(feed_loop, "AGAIN_AFTER", 0.0)
    loop = FeedLoop()
    loop.start()
    yield loop
    loop.stop()


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
def test_what_runs_for_good_begins_again_after_an_error_which_is_logged(loop, kind):
    begun, third = [], threading.Event()

    def work():
        begun.append(1)
        if len(begun) < 3:
            raise ZeroDivisionError
        third.set()

    async def coroutine():
        work()

    with capture_logs() as logs:
        if kind == "thread":
            spawn_loop("counting", work)
        else:
            loop.keep("counting", coroutine)
        assert third.wait(10)

    assert [(line["log_level"], line["task"]) for line in logs] == [("error", "counting")] * 2


def test_what_ends_by_itself_is_not_begun_again(loop):
    begun = []

    async def coroutine():
        begun.append("coroutine")

    loop.keep("once", coroutine)
    spawn_loop("once", lambda: begun.append("thread")).join(10)
    for _ in range(3):  # the loop has its turns
        loop.submit(asyncio.sleep(0)).result(10)

    assert sorted(begun) == ["coroutine", "thread"]
