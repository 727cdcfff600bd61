"""The service as a child process: real processes, a clock that tests move."""

from __future__ import annotations

import sys

import pytest

from house import eventually
from orderwire.config import load_mount
from orderwire.openalgo.child import LASTED, PAUSES, ServiceChild, command

STAYS = [sys.executable, "-c", "import sys; sys.stdin.read()"]
ENDS = [sys.executable, "-c", "raise SystemExit(3)"]


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(tmp_path, clock):
    made = []

    def make(run, **settings):
        child = ServiceChild(load_mount(data_dir=tmp_path, **settings), run=run, now=clock)
        made.append(child)
        return child

    yield make
    for child in made:
        child.stop()


def ended(child):
    return eventually(lambda: child.pid == 0, what="its end")


def test_it_is_started_once_and_leaves_when_its_input_ends(make):
    child = make(STAYS)
    child.ensure()
    first = child.pid
    child.ensure()

    assert first
    assert child.pid == first
    child.stop()
    assert child.pid == 0


def test_one_that_ends_is_started_again_after_growing_pauses_and_says_why(make, clock):
    child = make(ENDS)
    for pause in [*PAUSES, PAUSES[-1]]:
        child.ensure()
        ended(child)
        child.ensure()
        assert child.said == "the service ended with code 3; its own log says why"
        assert child.starts_in == pause
        clock.now += pause


def test_one_that_lasted_is_started_again_at_once_nearly(make, clock):
    child = make(ENDS)
    for _ in PAUSES:
        child.ensure()
        ended(child)
        child.ensure()
        clock.now += child.starts_in
    child.ensure()
    clock.now += LASTED
    ended(child)
    child.ensure()

    assert child.starts_in == PAUSES[0]


def test_one_that_was_killed_says_by_what(make):
    child = make([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    child.ensure()
    ended(child)
    child.ensure()

    assert child.said == "the service was ended by signal 9"


def test_one_that_cannot_be_run_is_said_and_raises_nothing(make):
    child = make(["/no/such/python", "-m", "orderwire"])
    child.ensure()

    assert child.said == "/no/such/python cannot be run: No such file or directory"
    assert child.pid == 0


def test_the_service_may_live_in_an_environment_of_its_own(tmp_path):
    settings = load_mount(data_dir=tmp_path, python=tmp_path / "bin" / "python")

    assert command(settings) == [str(tmp_path / "bin" / "python"), "-m", "orderwire", "serve", "--make"]
    assert command(load_mount())[0] == sys.executable
    assert settings.child_environment()["ORDERWIRE_LEAVE_WITH_PARENT"] == "true"
