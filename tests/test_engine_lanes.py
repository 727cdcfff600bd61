"""Lanes keep slow handlers off the core path, in order, and lose nothing that counts."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderwire.core.events import Event
from orderwire.engine import EventEngine

PATIENCE = 30


@pytest.fixture
def engine():
    engine = EventEngine(3600)
    yield engine
    engine.stop(PATIENCE)


class Gate:
    """A handler that holds its thread until it is opened, at the first event only."""

    def __init__(self):
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.seen = []

    def __call__(self, event):
        self.entered.set()
        assert self.opened.wait(PATIENCE)
        self.seen.append(event.data)


def lane_of(engine, name="slow"):
    return next(lane for lane in engine.statistics().lanes if lane.name == name)


def drained(engine):
    engine.start()
    assert engine.stop(PATIENCE) == 0


def order_of(event):
    return event.data[0]


def test_a_slow_lane_does_not_delay_the_core_path(engine):
    gate, core = Gate(), threading.Event()
    engine.add_lane("slow", capacity=10)
    engine.register("a", gate, lane="slow")
    engine.register("a", lambda event: core.set() if event.data == 4 else None)
    engine.start()
    for number in range(5):
        engine.put(Event("a", number))

    assert core.wait(PATIENCE)
    assert gate.seen == []
    gate.opened.set()
    assert engine.stop(PATIENCE) == 0
    assert gate.seen == [0, 1, 2, 3, 4]


def test_a_lane_has_a_thread_of_its_own(engine):
    names = []
    engine.add_lane("slow", capacity=10)
    engine.register("a", lambda event: names.append(threading.current_thread().name), lane="slow")
    engine.register("a", lambda event: names.append(threading.current_thread().name))
    engine.put(Event("a"))

    drained(engine)
    assert sorted(names) == ["event-dispatcher", "event-lane-slow"]


def test_core_handlers_come_before_the_hand_over_to_lanes(engine):
    seen = []
    engine.add_lane("slow", capacity=1)
    engine.register("a", lambda event: seen.append("lane"), lane="slow")
    engine.register_general(lambda event: seen.append("general"))
    engine.register("a", lambda event: seen.append("core"))
    engine.put(Event("a"))

    drained(engine)
    assert seen == ["core", "general", "lane"]


def test_several_handlers_of_a_lane_get_each_event_in_turn(engine):
    seen = []
    engine.add_lane("slow", capacity=1)
    engine.register("a", lambda event: seen.append((1, event.data)), lane="slow")
    engine.register("a", lambda event: seen.append((2, event.data)), lane="slow")
    engine.put(Event("a", "x"))
    engine.put(Event("a", "y"))

    drained(engine)
    assert seen == [(1, "x"), (2, "x"), (1, "y"), (2, "y")]
    assert lane_of(engine).count == 2


def test_a_handler_registered_on_another_lane_again_stays_where_it_is(engine):
    names = []
    engine.add_lane("slow", capacity=1)

    def handler(event):
        names.append(threading.current_thread().name)

    engine.register("a", handler)
    engine.register("a", handler, lane="slow")
    engine.put(Event("a"))

    drained(engine)
    assert names == ["event-dispatcher"]


def test_a_handler_is_unregistered_from_its_lane(engine):
    seen = []
    engine.add_lane("slow", capacity=1)
    engine.register("a", seen.append, lane="slow")
    engine.unregister("a", seen.append)
    engine.put(Event("a"))

    drained(engine)
    assert seen == []


def test_an_event_already_on_the_lane_is_not_given_to_a_handler_unregistered_since(engine):
    gate, seen = Gate(), []
    engine.add_lane("slow", capacity=10)
    engine.register("gate", gate, lane="slow")
    engine.register("a", seen.append, lane="slow")
    engine.put(Event("gate"))
    engine.put(Event("a"))
    engine.start()
    assert gate.entered.wait(PATIENCE)
    engine.unregister("a", seen.append)
    gate.opened.set()

    assert engine.stop(PATIENCE) == 0
    assert seen == []


def test_a_raising_lane_handler_is_dead_lettered_and_the_lane_goes_on(engine):
    seen = []
    engine.add_lane("slow", capacity=10)
    engine.register("a", lambda event: 1 / 0, lane="slow")
    engine.register("a", seen.append, lane="slow")
    engine.put(Event("a", 1))
    engine.put(Event("a", 2))

    drained(engine)
    assert len(seen) == len(engine.dead_letters) == 2
    row = next(row for row in engine.statistics().handlers if row.errors)
    assert (row.lane, row.count, row.errors) == ("slow", 2, 2)


def test_what_a_lane_s_handler_returns_is_put(engine):
    names = []
    engine.add_lane("slow", capacity=10)
    engine.register("a", lambda event: [Event("b"), event, 7], lane="slow")
    engine.register("b", lambda event: names.append(threading.current_thread().name))
    engine.put(Event("a"))

    drained(engine)
    assert names == ["event-dispatcher"]


def test_a_stop_waits_for_chains_between_lanes_and_core(engine):
    seen = []
    engine.add_lane("one", capacity=1)
    engine.add_lane("two", capacity=1)
    engine.register("a", lambda event: Event("b", event.data), lane="one")
    engine.register("b", lambda event: Event("c", event.data), lane="two")
    engine.register("c", lambda event: Event("a", event.data - 1) if event.data else None)
    engine.register("c", lambda event: seen.append(event.data))
    engine.put(Event("a", 5))

    drained(engine)
    assert seen == [5, 4, 3, 2, 1, 0]


def test_a_full_blocking_lane_makes_the_dispatcher_wait_and_loses_nothing(engine):
    gate = Gate()
    engine.add_lane("slow", capacity=2)
    engine.register("a", gate, lane="slow")
    engine.start()
    for number in range(50):
        engine.put(Event("a", number))
    assert gate.entered.wait(PATIENCE)
    gate.opened.set()

    assert engine.stop(PATIENCE) == 0
    assert gate.seen == list(range(50))
    lane = lane_of(engine)
    assert (lane.high_water, lane.depth, lane.count, lane.overflowed) == (2, 0, 50, 0)
    assert lane.blocked > 0
    assert lane.hand_over.count == 50


def test_a_full_conflating_lane_keeps_the_newest_of_each_key_in_its_place(engine):
    gate, reached = Gate(), threading.Event()
    engine.add_lane("slow", capacity=2, when_full="conflate", key=order_of)
    engine.register("a", gate, lane="slow")
    engine.register("a", lambda event: reached.set() if event.data == ("y", 9) else None)
    engine.put(Event("a", ("x", 0)))
    engine.start()
    assert gate.entered.wait(PATIENCE)
    for number in range(1, 10):
        engine.put(Event("a", ("x", number)))
        engine.put(Event("a", ("y", number)))
    assert reached.wait(PATIENCE)
    engine.put(Event("a", ("z", 1)))
    gate.opened.set()

    assert engine.stop(PATIENCE) == 0
    assert gate.seen == [("x", 0), ("x", 9), ("y", 9), ("z", 1)]
    lane = lane_of(engine)
    assert (lane.conflated, lane.count) == (16, 4)


def test_a_key_not_waiting_exceeds_the_capacity_and_is_counted(engine):
    gate, reached = Gate(), threading.Event()
    engine.add_lane("slow", capacity=1, when_full="conflate", key=order_of)
    engine.register("a", gate, lane="slow")
    engine.register("a", lambda event: reached.set() if event.data == ("d", 0) else None)
    engine.put(Event("a", ("first", 0)))
    engine.start()
    assert gate.entered.wait(PATIENCE)
    for key in "abcd":
        engine.put(Event("a", (key, 0)))
    assert reached.wait(PATIENCE)
    gate.opened.set()

    assert engine.stop(PATIENCE) == 0
    assert gate.seen == [("first", 0), ("a", 0), ("b", 0), ("c", 0), ("d", 0)]
    lane = lane_of(engine)
    assert (lane.overflowed, lane.conflated, lane.high_water) == (3, 0, 4)


def test_what_has_no_key_is_never_merged(engine):
    gate, reached = Gate(), threading.Event()
    engine.add_lane("slow", capacity=1, when_full="conflate", key=lambda event: None)
    engine.register("a", gate, lane="slow")
    engine.register("a", lambda event: reached.set() if event.data == 5 else None)
    engine.put(Event("a", 0))
    engine.start()
    assert gate.entered.wait(PATIENCE)
    for number in range(1, 6):
        engine.put(Event("a", number))
    assert reached.wait(PATIENCE)
    gate.opened.set()

    assert engine.stop(PATIENCE) == 0
    assert gate.seen == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("key", [lambda event: 1 / 0, lambda event: []])
def test_a_key_that_fails_is_dead_lettered_and_the_event_still_delivered(engine, key):
    seen = []
    engine.add_lane("slow", capacity=1, when_full="conflate", key=key)
    engine.register("a", seen.append, lane="slow")
    engine.put(Event("a"))

    drained(engine)
    assert (seen, len(engine.dead_letters)) == ([Event("a")], 1)


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 99)), max_size=60), st.integers(1, 5))
def test_a_conflating_lane_delivers_each_key_in_order_and_always_its_last(updates, capacity):
    engine = EventEngine(3600)
    gate, last = Gate(), threading.Event()
    engine.add_lane("slow", capacity=capacity, when_full="conflate", key=order_of)
    engine.register("a", gate, lane="slow")
    engine.register("end", lambda event: last.set())
    numbered = [(key, (place, value)) for place, (key, value) in enumerate(updates)]
    for update in numbered:
        engine.put(Event("a", update))
    engine.put(Event("end"))
    engine.start()
    assert last.wait(PATIENCE)
    gate.opened.set()
    assert engine.stop(PATIENCE) == 0

    lane = lane_of(engine)
    assert lane.conflated + len(gate.seen) == len(numbered)
    assert lane.high_water <= capacity + 3
    for key in "xyz":
        sent = [update for update in numbered if update[0] == key]
        seen = [update for update in gate.seen if update[0] == key]
        assert seen == sorted(seen)
        assert seen[-1:] == sent[-1:]


def test_a_lane_added_while_running_works_at_once(engine):
    done = threading.Event()
    engine.start()
    engine.add_lane("slow", capacity=1)
    engine.register("a", lambda event: done.set(), lane="slow")
    engine.put(Event("a"))

    assert done.wait(PATIENCE)


def test_a_stop_that_finds_a_lane_held_up_keeps_its_events_for_the_next_start(engine):
    gate = Gate()
    engine.add_lane("slow", capacity=2)
    engine.register("a", gate, lane="slow")
    engine.start()
    for number in range(10):
        engine.put(Event("a", number))
    assert gate.entered.wait(PATIENCE)

    assert engine.stop(0.01) == 9
    engine.start()
    gate.opened.set()
    assert engine.stop(PATIENCE) == 0
    assert gate.seen == list(range(10))


def test_stop_inside_a_lane_s_handler_does_not_wait_for_itself(engine):
    seen = []
    engine.add_lane("slow", capacity=1)
    engine.register("a", lambda event: seen.append(engine.stop()), lane="slow")
    engine.register("b", seen.append, lane="slow")
    engine.put(Event("a"))
    engine.put(Event("b"))
    engine.put(Event("b"))
    engine.start()

    assert engine.stop(PATIENCE) == 0
    assert seen[1:] == [Event("b"), Event("b")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "", "capacity": 1},
        {"name": "x", "capacity": 0},
        {"name": "x", "capacity": 1, "when_full": "drop"},
        {"name": "x", "capacity": 1, "when_full": "conflate"},
        {"name": "x", "capacity": 1, "key": order_of},
        {"name": "taken", "capacity": 1},
    ],
)
def test_a_lane_that_makes_no_sense_is_refused(engine, wrong):
    engine.add_lane("taken", capacity=1)

    with pytest.raises(ValueError, match="lane"):
        engine.add_lane(**wrong)


def test_a_lane_nobody_made_is_refused(engine):
    with pytest.raises(ValueError, match="no lane 'slow'"):
        engine.register("a", print, lane="slow")
