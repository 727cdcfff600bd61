from __future__ import annotations

from types import SimpleNamespace

import pytest

from house import eventually
from orderwire.config import load
from orderwire.core.orders import AccountId
from orderwire.errors import FeedsBusyError
from orderwire.feeds.loop import FeedLoop
from orderwire.pilot import conduct
from orderwire.pilot.conduct import Pilot
from orderwire.pilot.gate import RolloutGate

ACCOUNT = SimpleNamespace(id=AccountId("a"), owner="asha", broker="paisa")


class BusyFeeds:
    """Too busy for the first `times` switches; then they do as they are told."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.asked: list[bool] = []

    def set_push(self, wanted):
        self.asked.append(wanted[ACCOUNT.id])
        if len(self.asked) <= self.times:
            raise FeedsBusyError


@pytest.fixture
def follow(tmp_path, database, clock):
    """Make a pilot that conducts these feeds, its look every 10 ms, until the test is over."""
    loop = FeedLoop()
    loop.start()
    made: list[Pilot] = []

    def make(feeds: BusyFeeds) -> Pilot:
        pilot = Pilot(
            load(data_dir=tmp_path), database=database, brokers=SimpleNamespace(classes={"paisa": object}),
            accounts=lambda: [ACCOUNT], feeds=lambda: feeds, depth=lambda: 0, clock=clock,
        )  # fmt: skip
        made.append(pilot)
        return pilot

    yield SimpleNamespace(make=make, loop=loop)
    loop.stop()
    for pilot in made:
        pilot.close()


@pytest.mark.parametrize("times", [1, 3])
def test_a_stop_reaches_feeds_that_were_too_busy_and_so_does_the_next_step(
    follow, a_gate, monkeypatch, times
):
    monkeypatch.setattr(conduct, "LOOK_EVERY", 0.01)
    feeds = BusyFeeds(times)
    operator: RolloutGate = a_gate()
    follow.loop.keep("rollout", follow.make(feeds).watch)

    operator.kill(who="ops", why="a drill")
    eventually(lambda: feeds.asked == [False] * (times + 1))
    operator.resume(who="ops", why="over")
    eventually(lambda: feeds.asked == [False] * (times + 1) + [True])
