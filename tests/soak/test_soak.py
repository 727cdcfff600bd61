"""The soak at the size of a test run; `make soak` is the real one."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from soak.course import Course, Finding, Plan, judge, run
from soak.vitals import threads

SMALL = Plan(days=12, events=6_000, ticks=120, clients=2, limit=2_000)
"""Twelve virtual days in seconds: memory that still warms up is told from a leak of a few kilobytes only."""

pytestmark = pytest.mark.timeout(600)


def failing(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.says for finding in findings if not finding.holds}


def test_virtual_days_end_right_and_nothing_grows(tmp_path):
    course = run(SMALL, tmp_path)

    assert failing(judge(course)) == {}
    nights = [look for look in course.looks if look["kind"] == "night"]
    assert [night["day"] for night in nights] == list(range(1, 13))
    assert all(night["forgotten"] > 300 for night in nights[1:])
    assert all(night["clients"] == 0 for night in nights)
    assert course.clients["compared"] > 100


def test_a_leak_fails_the_same_check_and_no_other(tmp_path):
    course = run(replace(SMALL, leak=5_000), tmp_path)

    assert "allocated" in failing(judge(course))
    assert failing(judge(course)).keys() <= {"memory", "allocated", "files"}  # readers come with the load


def test_the_whole_house_runs_in_real_time(tmp_path):
    course = run(Plan(days=0, minutes=0.5), tmp_path)

    assert failing(judge(course)) == {}
    assert course.last["events"] > course.placed + course.modified > 0


def course_of(days: int, **grows: Any) -> Course:
    """Make a course on which all is well but for what grows with each look."""
    usual = {"files": 40, "threads": 20, "tasks": 100, "depth": 0, "memory": 200.0}
    looks = []
    for number in range(40):
        look = {name: value + grows.get(name, 0) * number for name, value in usual.items()}
        kind = "night" if days else "tidy"
        facts = {"kind": kind, "seconds": 60.0 * number, "events": 1000 * number, "ticks": 20 * number}
        looks.append(
            look
            | facts
            | {
                "bytes": look["memory"] * 2**20,
                "held": 1e8,
                "pages": 1e6,
                "disk": 1e8,
                "dead_lettered": 0,
                "stayed": 0,
            }
        )
    plan = Plan(days=days, events=39_000, ticks=780)
    return Course(
        plan=plan,
        looks=looks,
        clients={"order_update": 1, "connected": 1},
        placed=20,
        modified=200,
        cancelled=10,
    )


@pytest.mark.parametrize("days", [40, 0], ids=["virtual", "real"])
@pytest.mark.parametrize("name", ["files", "threads", "tasks", "depth", "memory"])
def test_a_trend_of_anything_fails(name, days):
    by = {"depth": 10, "memory": 5.0}.get(name, 1)

    assert failing(judge(course_of(days))) == {}
    assert list(failing(judge(course_of(days, **{name: by})))) == [name]


def test_what_is_allocated_is_judged_besides_what_the_system_gives():
    course = course_of(40)
    for number, look in enumerate(course.looks):
        look["held"] += 1500 * number

    assert list(failing(judge(course))) == ["allocated"]


@pytest.mark.parametrize(("seconds", "first"), [(60, 10), (40, 15), (25, 24), (20, 10), (1, 10)])
def test_the_warm_up_lasts_until_what_is_kept_by_the_clock_is_full(seconds, first):
    course = course_of(40)
    for number, look in enumerate(course.looks, 1):
        look["seconds"] = number * seconds

    assert len(course.looks) - len(course.judged()) == first


@pytest.mark.parametrize("spoil", [{"modified": 0}, {"refused": 21}])
def test_a_real_run_whose_orders_are_refused_shows_nothing_and_fails(spoil):
    course = course_of(0)
    for name, count in spoil.items():
        setattr(course, name, count)

    assert list(failing(judge(course))) == ["trading"]


@pytest.mark.parametrize("fault", ["gaps", "wrong", "late"])
def test_a_client_that_was_told_wrong_fails(fault):
    course = course_of(40)
    course.clients[fault] = 1

    assert list(failing(judge(course))) == ["clients"]


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda course: course.wrong.append("an order"), "orders"),
        (lambda course: course.last.update(dead_lettered=1), "dead letters"),
        (lambda course: course.last.update(events=1), "volume"),
        (lambda course: course.last.update(ticks=1), "volume"),
        (lambda course: course.looks[3].update(stayed=1), "leaving"),
        (lambda course: course.last.update(pages=1e9), "pages"),
    ],
)
def test_what_else_went_wrong_fails(spoil, name):
    course = course_of(40)
    spoil(course)

    assert name in failing(judge(course))


def test_too_few_nights_say_nothing_and_fail():
    course = course_of(40)
    del course.looks[9:]

    assert {"memory", "allocated", "files", "threads", "tasks", "depth"} <= failing(judge(course)).keys()


def test_a_thread_that_waits_to_ping_a_client_counts_once_it_should_have_ended(monkeypatch):
    ended = threading.Event()
    waiting = threading.Thread(target=ended.wait, name="Thread-1 (_send_ping)")
    before = threads()
    waiting.start()
    try:
        young = threads()
        monkeypatch.setattr("soak.vitals.PING_EVERY", -3600.0)
        old = threads()
    finally:
        ended.set()
        waiting.join()

    assert (young - before, old - before) == (0, 1)
