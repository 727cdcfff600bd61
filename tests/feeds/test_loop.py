from __future__ import annotations

import threading

import pytest
from structlog.testing import capture_logs

from orderwire.feeds import loop as feed_loop
from orderwire.feeds.loop import FeedLoop


@pytest.fixture
def loop(monkeypatch):
    monkeypatch.setattr(feed_loop, "AGAIN_AFTER", 0.0)
    loop = FeedLoop()
    loop.start()
    yield loop
    loop.stop()


def test_what_is_kept_begins_again_after_an_error_which_is_logged(loop):
    begun, third = [], threading.Event()

    async def work():
        begun.append(1)
        if len(begun) < 3:
            raise ZeroDivisionError
        third.set()

    with capture_logs() as logs:
        loop.keep("counting", work)
        assert third.wait(10)

    assert [(line["log_level"], line["task"]) for line in logs] == [("error", "counting")] * 2


def test_what_is_kept_and_ends_by_itself_is_not_begun_again(loop):
    begun = []

    async def work():
        begun.append(1)

    loop.keep("once", work)
    for _ in range(3):
        loop.submit(work()).result(10)

    assert len(begun) == 4
