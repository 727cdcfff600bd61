"""The engine keeps vn.py's meaning for vn.py's users, and the promises it adds."""

from __future__ import annotations

import gc
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderwire import engine as engine_module
from orderwire import meters
from orderwire.core.events import Event, EventType
from orderwire.engine import EventEngine, UndeliverableError, next_tick
from orderwire.meters import BATCH_END, OTHER, UNTOLD

PATIENCE = 30


@pytest.fixture(params=["eventfd", "lock", "crowd"])
def engine(request, monkeypatch):
    if request.param == "lock":
        monkeypatch.setattr(engine_module, "_make_bell", engine_module._LockBell)
    if request.param == "crowd":
        monkeypatch.setattr(engine_module, "_CROWD", 1)
    engine = EventEngine(3600)
    yield engine
    engine.stop(PATIENCE)


class Gate:
    """A handler that holds the dispatcher until it is opened."""

    def __init__(self):
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, event):
        self.entered.set()
        assert self.opened.wait(PATIENCE)


class WatchedClock:
    """A monotonic clock that wakes whoever waits for something whenever it is read."""

    def __init__(self, clock):
        self._clock = clock
        self._read = threading.Condition()

    def __call__(self):
        with self._read:
            self._read.notify_all()
        return self._clock()

    def until(self, predicate):
        with self._read:
            return self._read.wait_for(predicate, PATIENCE)


def drained(engine):
    """Start, deliver everything, stop."""
    engine.start()
    assert engine.stop(PATIENCE) == 0


def types_of(engine):
    return {row.type: row for row in engine.statistics().types}


def handlers_of(engine):
    return {row.handler.rpartition(".")[2]: row for row in engine.statistics().handlers}


# vn.py's surface


def test_events_are_delivered_by_type_in_the_order_put(engine):
    seen = []
    engine.register("a", seen.append)
    engine.start()
    for number in range(1000):
        engine.put(Event("a", number))
        engine.put(Event("b", number))

    assert engine.stop(PATIENCE) == 0
    assert seen == [Event("a", number) for number in range(1000)]


def test_a_handler_is_called_once_per_type_however_often_registered(engine):
    seen = []
    for _ in range(3):
        engine.register("a", seen.append)
        engine.register("b", seen.append)
    engine.put(Event("a"))
    engine.put(Event("b"))

    drained(engine)
    assert seen == [Event("a"), Event("b")]


def test_a_type_s_handlers_come_before_the_general_ones_each_in_the_order_registered(engine):
    seen = []
    engine.register_general(lambda event: seen.append("general 1"))
    engine.register("a", lambda event: seen.append("typed 1"))
    engine.register_general(lambda event: seen.append("general 2"))
    engine.register("a", lambda event: seen.append("typed 2"))
    engine.put(Event("a"))

    drained(engine)
    assert seen == ["typed 1", "typed 2", "general 1", "general 2"]


def test_a_handler_both_typed_and_general_gets_the_event_twice_as_in_vnpy(engine):
    seen = []
    engine.register("a", seen.append)
    engine.register_general(seen.append)
    engine.register_general(seen.append)
    engine.put(Event("a"))

    drained(engine)
    assert len(seen) == 2


def test_general_handlers_get_every_type_also_ones_nobody_registered(engine):
    seen = []
    engine.register_general(seen.append)
    for number in range(2000):
        engine.put(Event(f"eOrder.{number}"))

    drained(engine)
    assert seen == [Event(f"eOrder.{number}") for number in range(2000)]


def test_an_unregistered_handler_is_called_no_more(engine):
    seen, kept = [], []
    engine.register("a", seen.append)
    engine.register("a", kept.append)
    engine.register_general(seen.append)
    engine.unregister("a", seen.append)
    engine.unregister_general(seen.append)
    engine.put(Event("a"))

    drained(engine)
    assert (seen, kept) == ([], [Event("a")])


def test_unregistering_what_is_not_there_has_no_effect(engine):
    engine.register("a", print)
    engine.unregister("a", repr)
    engine.unregister("never", print)
    engine.unregister_general(print)
    engine.unregister_batch_end(print)
    engine.unregister("a", print)
    engine.unregister("a", print)


@pytest.mark.parametrize("handler", [None, 7, "print"])
def test_only_what_can_be_called_is_registered(engine, handler):
    with pytest.raises(TypeError, match="cannot be called"):
        engine.register("a", handler)
    with pytest.raises(TypeError, match="cannot be called"):
        engine.register_general(handler)
    with pytest.raises(TypeError, match="cannot be called"):
        engine.register_batch_end(handler)
    with pytest.raises(TypeError, match="cannot be called"):
        engine.on_dead_letter(handler)


def test_a_type_to_register_for_is_a_string_that_is_not_empty(engine):
    with pytest.raises(TypeError, match="string"):
        engine.register(None, print)
    with pytest.raises(ValueError, match="empty"):
        engine.register("", print)


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_the_interval_is_a_positive_number_of_seconds(interval):
    with pytest.raises(ValueError, match="positive"):
        EventEngine(interval)


def test_registering_inside_a_handler_takes_effect_with_the_next_event(engine):
    late, seen = [], []

    def first(event):
        engine.register("a", late.append)
        engine.unregister("a", second)

    def second(event):
        seen.append(event.data)

    engine.register("a", first)
    engine.register("a", second)
    for number in range(3):
        engine.put(Event("a", number))

    drained(engine)
    assert seen == [0]
    assert [event.data for event in late] == [1, 2]


def test_vnpy_s_own_kind_of_event_is_delivered_and_measured(engine):
    class Foreign:
        def __init__(self, type, data=None):  # noqa: A002 - vn.py's name
            self.type = type
            self.data = data

    seen = []
    engine.register("a", seen.append)
    event = Foreign("a", 1)
    engine.put(event)

    drained(engine)
    assert seen == [event]
    assert types_of(engine)["a"].count == 1


def test_an_event_that_takes_no_stamp_is_delivered_all_the_same(engine):
    class Sealed:
        __slots__ = ()
        type = "a"

    seen = []
    engine.register("a", seen.append)
    engine.register_general(seen.append)
    event, other = Sealed(), type("Other", (Sealed,), {"__slots__": (), "type": "b"})()
    engine.put(event)
    engine.put(other)

    drained(engine)
    assert seen == [event, event, other]


# Isolation


def test_a_raising_handler_is_dead_lettered_and_dispatch_goes_on(engine):
    seen, others = [], []

    def fragile(event):
        if event.data == 10:
            raise RuntimeError("ten")
        seen.append(event.data)

    engine.register("a", fragile)
    engine.register("a", others.append)
    for number in range(1000):
        engine.put(Event("a", number))

    drained(engine)
    assert (len(seen), len(others)) == (999, 1000)
    (letter,) = engine.dead_letters
    assert (letter.event, str(letter.error)) == (Event("a", 10), "ten")
    assert letter.handler.endswith("fragile")
    assert letter.at.utcoffset().total_seconds() == 0
    row = handlers_of(engine)["fragile"]
    assert (row.count, row.errors) == (1000, 1)
    assert types_of(engine)["a"].errors == engine.statistics().dead_lettered == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration()])
def test_not_even_an_exit_ends_dispatch(engine, error):
    seen = []

    def leaving(event):
        raise error

    engine.register("a", leaving)
    engine.register("a", seen.append)
    engine.put(Event("a", 1))
    engine.put(Event("a", 2))

    drained(engine)
    assert len(seen) == 2
    assert [letter.error for letter in engine.dead_letters] == [error, error]


def test_a_dead_letter_s_traceback_begins_in_the_handler(engine):
    def broken(event):
        raise ValueError

    engine.register("a", broken)
    engine.put(Event("a"))

    drained(engine)
    traceback = engine.dead_letters[0].error.__traceback__
    assert traceback.tb_frame.f_code is broken.__code__


@pytest.mark.parametrize("stranger", [None, 7, Event(None), Event(""), Event(7), Event([]), Event(b"a")])
def test_an_event_without_a_type_is_dead_lettered_not_raised(engine, stranger):
    seen = []
    engine.register_general(seen.append)
    engine.put(stranger)
    engine.put(Event("a"))

    drained(engine)
    assert seen == [Event("a")]
    (letter,) = engine.dead_letters
    assert letter.event is stranger
    assert isinstance(letter.error, UndeliverableError)


def test_an_event_that_raises_when_looked_at_is_dead_lettered(engine):
    class Hostile:
        @property
        def type(self):
            raise RuntimeError("do not look")

    seen = []
    engine.register_general(seen.append)
    engine.put(Hostile())
    engine.put(Event("a"))

    drained(engine)
    assert seen == [Event("a")]
    assert str(engine.dead_letters[0].error) == "do not look"


def test_dead_letters_are_told_to_callbacks_whose_own_errors_only_count(engine):
    told = []

    def failing(letter):
        raise RuntimeError

    engine.on_dead_letter(failing)
    engine.on_dead_letter(told.append)
    engine.on_dead_letter(told.append)
    engine.register("a", lambda event: 1 / 0)
    engine.put(Event("a"))

    drained(engine)
    assert told == list(engine.dead_letters)
    assert len(told) == 1
    assert engine.statistics().callback_errors == 1


def test_the_last_thousand_dead_letters_are_kept(engine):
    engine.register("a", lambda event: 1 / 0)
    for number in range(1500):
        engine.put(Event("a", number))

    drained(engine)
    assert [letter.event.data for letter in engine.dead_letters] == list(range(500, 1500))
    assert engine.statistics().dead_lettered == 1500


def test_a_failing_handler_is_logged_at_powers_of_two_and_a_log_that_fails_stops_nothing(engine):
    logged = []

    class Log:
        def error(self, message, **facts):
            logged.append((message, facts["times"]))
            raise OSError("the disk is full")

    engine._log = Log()
    engine.register("a", lambda event: 1 / 0)
    for _ in range(20):
        engine.put(Event("a"))

    drained(engine)
    assert logged == [("handler failed", times) for times in (1, 2, 4, 8, 16)]
    assert engine.statistics().delivered == 20


def test_a_fault_of_the_engine_s_own_does_not_end_the_dispatcher(engine, monkeypatch):
    seen = []
    failing = iter([MemoryError()])
    adopt = EventEngine._adopt

    def adopt_or_fail(self, *arguments):
        for error in failing:
            raise error
        adopt(self, *arguments)

    monkeypatch.setattr(EventEngine, "_adopt", adopt_or_fail)
    engine.register("a", lambda event: seen.append(event.data) or "something")
    for number in range(3):
        engine.put(Event("a", number))

    drained(engine)
    assert seen == [0, 1, 2]
    assert isinstance(engine.dead_letters[0].error, MemoryError)


# Starting and stopping


def test_what_is_put_before_the_start_is_kept_and_delivered(engine):
    seen = []
    engine.register("a", seen.append)
    engine.put(Event("a", 1))

    assert engine.stop() == 1
    drained(engine)
    assert seen == [Event("a", 1)]


def test_what_is_put_after_a_stop_is_delivered_after_the_next_start(engine):
    seen = []
    engine.register("a", seen.append)
    drained(engine)
    engine.put(Event("a", 1))

    assert (seen, engine.stop()) == ([], 1)
    drained(engine)
    assert seen == [Event("a", 1)]


def test_stop_delivers_what_is_queued(engine):
    gate, seen = Gate(), []
    engine.register("gate", gate)
    engine.register("a", seen.append)
    engine.put(Event("gate"))
    engine.start()
    assert gate.entered.wait(PATIENCE)
    for number in range(3000):
        engine.put(Event("a", number))
    threading.Thread(target=gate.opened.set).start()

    assert engine.stop(PATIENCE) == 0
    assert len(seen) == 3000


def test_starting_twice_and_stopping_twice_has_no_effect(engine):
    engine.start()
    engine.start()

    names = [thread.name for thread in threading.enumerate()]
    assert names.count("event-dispatcher") == names.count("event-timer") == 1
    assert engine.stop(PATIENCE) == 0
    assert engine.stop(PATIENCE) == 0


def test_threads_are_daemons_and_none_is_left_after_a_stop(engine):
    engine.add_lane("slow", capacity=1)
    engine.start()
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("event-")]
    engine.stop(PATIENCE)
    for thread in ours:
        thread.join(PATIENCE)

    assert sorted(thread.name for thread in ours) == ["event-dispatcher", "event-lane-slow", "event-timer"]
    assert all(thread.daemon and not thread.is_alive() for thread in ours)


def test_a_stop_whose_time_runs_out_says_what_is_left_and_the_next_start_delivers_it(engine):
    gate, seen = Gate(), []
    engine.register("gate", gate)
    engine.register("a", seen.append)
    engine.put(Event("gate"))
    engine.start()
    assert gate.entered.wait(PATIENCE)
    for number in range(5):
        engine.put(Event("a", number))

    assert engine.stop(0.01) == 5
    engine.put(Event("a", 5))
    assert engine.stop(0) == 6
    engine.start()
    engine.put(Event("a", 6))
    assert seen == []
    gate.opened.set()
    assert engine.stop(PATIENCE) == 0
    assert [event.data for event in seen] == list(range(7))


def test_a_second_start_behind_a_held_up_stop_can_be_stopped_too(engine):
    gate, seen = Gate(), []
    engine.register("gate", gate)
    engine.register("a", seen.append)
    engine.put(Event("gate"))
    engine.start()
    assert gate.entered.wait(PATIENCE)
    engine.put(Event("a", 0))

    for number in range(1, 4):
        assert engine.stop(0) == number
        engine.start()
        engine.put(Event("a", number))
    gate.opened.set()
    assert engine.stop(PATIENCE) == 0
    assert [event.data for event in seen] == list(range(4))


def test_stop_inside_a_handler_does_not_wait_for_itself_and_the_queue_is_delivered_after_it(engine):
    seen, left = [], []
    engine.register("stop", lambda event: left.append(engine.stop()))
    engine.register("a", seen.append)
    engine.put(Event("stop"))
    for number in range(3):
        engine.put(Event("a", number))
    engine.start()

    assert engine.stop(PATIENCE) == 0
    assert left == [3]
    assert len(seen) == 3


def test_what_handlers_put_while_the_queue_drains_is_delivered_and_what_others_put_waits(engine):
    gate, seen, left = Gate(), [], []
    engine.register("gate", gate)
    engine.register("gate", lambda event: engine.put(Event("a", "from a handler")))
    engine.register("a", seen.append)
    engine.put(Event("gate"))
    engine.start()
    assert gate.entered.wait(PATIENCE)
    stopping = engine._run.timer_stop
    stopper = threading.Thread(target=lambda: left.append(engine.stop(PATIENCE)))
    stopper.start()
    assert stopping.wait(PATIENCE)
    engine.put(Event("a", "from outside"))
    gate.opened.set()
    stopper.join(PATIENCE)

    assert (seen, left) == ([Event("a", "from a handler")], [1])
    drained(engine)
    assert seen[-1] == Event("a", "from outside")


def test_a_start_without_threads_to_be_had_raises_and_leaves_the_engine_as_it_was(engine, monkeypatch):
    seen = []
    engine.register("a", seen.append)
    engine.add_lane("slow", capacity=1)
    make = engine_module._thread

    def refuse(name, target, *arguments):
        thread = make(name, target, *arguments)
        if name == "event-dispatcher":
            monkeypatch.setattr(thread, "start", partial(pytest.raises, 1))
        return thread

    monkeypatch.setattr(engine_module, "_thread", refuse)
    with pytest.raises(TypeError):
        engine.start()
    monkeypatch.setattr(engine_module, "_thread", make)

    engine.put(Event("a"))
    assert engine.stop() == 1
    drained(engine)
    assert seen == [Event("a")]


def collect():
    for thread in threading.enumerate():
        if thread.name.startswith("event-"):
            thread.join(PATIENCE)
    gc.collect()


def test_no_descriptor_is_left_open_by_engines_that_are_gone():
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("needs /proc/self/fd")
    collect()
    before = len(list(descriptors.iterdir()))
    for _ in range(20):
        drained(EventEngine(3600))

    collect()
    assert len(list(descriptors.iterdir())) <= before


# Follow-up events


def test_follow_ups_are_delivered_before_the_next_queued_event_in_the_order_returned(engine):
    seen = []
    engine.register_general(lambda event: seen.append(event.data))
    engine.register("a", lambda event: [Event("b", f"{event.data}.1"), Event("b", f"{event.data}.2")])
    engine.register("b", lambda event: Event("c", f"{event.data} again") if "." in event.data else None)
    engine.put(Event("a", "1"))
    engine.put(Event("a", "2"))

    drained(engine)
    assert seen == ["1", "1.1", "1.2", "1.1 again", "1.2 again", "2", "2.1", "2.2", "2.1 again", "2.2 again"]
    assert engine.statistics().follow_ups == 8


@pytest.mark.parametrize("anything", [True, 7, "text", [1, 2], (Event("b"),), {"b": Event("b")}, [None]])
def test_anything_else_a_handler_returns_is_ignored(engine, anything):
    seen = []
    engine.register("a", lambda event: anything)
    engine.register("b", seen.append)
    engine.put(Event("a"))

    drained(engine)
    assert (seen, engine.dead_letters) == ([], ())


def test_events_in_a_list_of_anything_are_follow_ups(engine):
    seen = []
    engine.register("a", lambda event: ["text", Event("b", 1), None])
    engine.register("b", seen.append)
    engine.put(Event("a"))

    drained(engine)
    assert seen == [Event("b", 1)]


def test_a_handler_that_returns_its_own_event_does_not_run_in_circles(engine):
    seen = []
    engine.register("a", lambda event: seen.append(event) or event)
    engine.put(Event("a"))

    drained(engine)
    assert len(seen) == 1


def test_a_follow_up_that_nobody_can_deliver_is_dead_lettered(engine):
    engine.register("a", lambda event: Event(None))
    engine.put(Event("a"))

    drained(engine)
    assert [letter.event.type for letter in engine.dead_letters] == [None]


def test_endless_follow_ups_do_not_starve_the_queue(engine, monkeypatch):
    monkeypatch.setattr(engine_module, "_FOLLOW_UPS_PER_BATCH", 100)
    others = threading.Event()
    engine.register("again", lambda event: None if others.is_set() else Event("again"))
    engine.register("other", lambda event: others.set())
    engine.put(Event("again"))
    engine.start()
    engine.put(Event("other"))

    assert others.wait(PATIENCE)
    assert engine.stop(PATIENCE) == 0


def test_follow_ups_beyond_the_limit_of_a_batch_go_to_the_end_of_the_queue(engine, monkeypatch):
    monkeypatch.setattr(engine_module, "_FOLLOW_UPS_PER_BATCH", 2)
    seen = []
    engine.register("a", lambda event: [Event("b", number) for number in range(4)])
    engine.register_general(lambda event: seen.append((event.type, event.data)))
    engine.put(Event("a"))
    engine.put(Event("c"))

    drained(engine)
    assert seen == [("a", None), ("b", 0), ("b", 1), ("c", None), ("b", 2), ("b", 3)]
    assert engine.statistics().postponed == 2


# Batches


def test_a_hook_is_called_after_each_batch_of_at_most_256(engine):
    seen = []
    engine.register("a", lambda event: seen.append(event.data))
    engine.register_batch_end(lambda: seen.append("end"))
    for number in range(600):
        engine.put(Event("a", number))

    drained(engine)
    assert [number for number in seen if number != "end"] == list(range(600))
    assert (seen[256], seen[513], seen[-1], seen.count("end")) == ("end", "end", "end", 3)


def test_a_batch_ends_after_20_ms():
    clock = iter([0.0, 0.001, 0.002, 0.003, 0.010, 0.024, *[0.025] * 100])
    engine = EventEngine(3600, now=lambda: next(clock))
    seen = []
    engine.register("a", lambda event: seen.append(event.data))
    engine.register_batch_end(lambda: seen.append("end"))
    for number in range(3):
        engine.put(Event("a", number))

    engine._batch()
    engine._batch()
    assert seen == [0, 1, "end", 2, "end"]


def test_no_hook_without_a_batch(engine):
    seen = []
    engine.register_batch_end(lambda: seen.append("end"))

    drained(engine)
    assert seen == []


def test_what_a_hook_returns_is_delivered_before_the_next_batch_and_ends_with_the_hook(engine):
    seen, staged = [], []

    def commit():
        changes, staged[:] = [Event("changed", data) for data in staged], []
        return changes

    engine.register("update", lambda event: staged.append(event.data))
    engine.register("changed", lambda event: seen.append(event.data))
    engine.register("changed", lambda event: staged.append("late") if event.data == 0 else None)
    engine.register_batch_end(commit)
    for number in range(257):
        engine.put(Event("update", number))
    engine.register("update", lambda event: seen.append("second batch") if event.data == 256 else None)

    drained(engine)
    assert seen == [*range(256), "late", "second batch", 256]


def test_a_hook_may_return_a_single_event_and_may_be_unregistered(engine):
    seen = []

    def once():
        engine.unregister_batch_end(once)
        return Event("b")

    engine.register("b", seen.append)
    engine.register_batch_end(once)
    engine.register_batch_end(once)
    engine.put(Event("a"))

    drained(engine)
    assert seen == [Event("b")]


def test_a_hook_that_always_returns_something_is_called_16_times_and_no_more(engine):
    seen = []
    engine.register("b", seen.append)
    engine.register_batch_end(lambda: Event("b"))
    engine.put(Event("a"))

    drained(engine)
    assert len(seen) == 16


def test_a_raising_hook_is_dead_lettered_without_an_event_and_the_others_run(engine):
    seen = []

    def broken():
        raise RuntimeError("disk full")

    engine.register_batch_end(broken)
    engine.register_batch_end(lambda: seen.append("end"))
    engine.put(Event("a"))

    drained(engine)
    (letter,) = engine.dead_letters
    assert (letter.event, str(letter.error), seen) == (None, "disk full", ["end"])
    row = handlers_of(engine)["broken"]
    assert (row.count, row.errors) == (1, 1)


def test_hooks_run_in_the_dispatcher_s_thread(engine):
    names = []
    engine.register_batch_end(lambda: names.append(threading.current_thread().name))
    engine.put(Event("a"))

    drained(engine)
    assert names == ["event-dispatcher"]


# The timer


def test_the_timer_ticks_in_the_dispatcher_s_thread():
    names, ticked = [], threading.Event()
    engine = EventEngine(0.001)
    engine.register(EventType.TIMER, lambda event: names.append(threading.current_thread().name))
    engine.register("eTimer", lambda event: ticked.set())
    engine.start()

    assert ticked.wait(PATIENCE)
    assert engine.stop(PATIENCE) == 0
    assert names[0] == "event-dispatcher"
    assert engine.statistics().ticks >= 1


def test_ticks_do_not_pile_up_behind_a_slow_handler():
    clock = WatchedClock(time.monotonic)
    gate, ticks = Gate(), []
    engine = EventEngine(0.001, now=clock)
    engine.register("gate", gate)
    engine.register(EventType.TIMER, ticks.append)
    engine.put(Event("gate"))
    engine.start()
    assert gate.entered.wait(PATIENCE)

    assert clock.until(lambda: engine.statistics().ticks_skipped >= 5)
    assert engine.statistics().depth <= 1
    gate.opened.set()
    assert clock.until(lambda: len(ticks) >= 2)
    assert engine.stop(PATIENCE) == 0


@given(
    since=st.integers(0, 10**6),
    passed=st.integers(0, 10**6),
    interval=st.sampled_from([0.001, 0.05, 1.0, 3.0, 60.0]),
)
def test_the_next_tick_lies_on_the_grid_within_one_interval(since, passed, interval):
    now = since + passed / 1000

    found = next_tick(since=since, now=now, interval=interval)

    assert now < found + 1e-6 <= now + interval + 2e-6
    assert (found - since) / interval == pytest.approx(round((found - since) / interval), abs=1e-3)


def test_the_timer_keeps_the_grid_when_it_wakes_late():
    assert next_tick(since=0, now=1.0, interval=1) == 2
    assert next_tick(since=0, now=1.4, interval=1) == 2
    assert next_tick(since=0, now=7.9, interval=1) == 8


# Measurements


def test_every_event_and_call_is_counted_and_timed(engine):
    engine.register("a", print_nothing)
    engine.register("b", print_nothing)
    engine.register_general(ignore)
    for _ in range(100):
        engine.put(Event("a"))
        engine.put(Event("b"))
    engine.put(Event("c"))

    drained(engine)
    types, handlers = types_of(engine), handlers_of(engine)
    assert (types["a"].count, types["b"].count, types["c"].count) == (100, 100, 1)
    assert types["a"].handler_time.count == 200
    assert (handlers["print_nothing"].count, handlers["ignore"].count) == (200, 201)
    assert handlers["print_nothing"].queue_wait.count == 200
    assert 0 < types["a"].queue_wait.p50 <= types["a"].queue_wait.p99 <= types["a"].queue_wait.max
    assert engine.statistics().delivered == 201


def print_nothing(event):
    return None


def ignore(event):
    return None


def test_times_are_those_of_the_clock():
    moment = 100.0

    def now():
        return moment

    def slow(event):
        nonlocal moment
        moment += 2.0

    engine = EventEngine(3600, now=now)
    engine.register("a", slow)
    engine.put(Event("a"))
    engine.put(Event("a"))
    moment += 1.0
    engine._batch()
    engine._batch()

    row = types_of(engine)["a"]
    assert (row.queue_wait.max, row.queue_wait.total) == (3_000_000_000, 4_000_000_000)
    assert (row.handler_time.max, row.handler_time.mean) == (2_000_000_000, 2_000_000_000)
    assert engine.statistics().slowest(1)[0].handler.endswith("slow")


def test_a_crowd_is_counted_in_full_though_not_timed_in_full(engine):
    def raising(event):
        if event.data % 100 == 0:
            raise ValueError

    engine.register("a", print_nothing)
    engine.register("a", raising)
    engine.register("b", print_nothing)
    engine.register_general(ignore)
    for number in range(5000):
        engine.put(Event("a", number))
        engine.put(Event("b", number))
        engine.put(Event("c", number))

    drained(engine)
    types, handlers = types_of(engine), handlers_of(engine)
    assert {kind: types[kind].count for kind in "abc"} == {"a": 5000, "b": 5000, "c": 5000}
    assert {row: handlers[row].count for row in ("print_nothing", "raising", "ignore")} == {
        "print_nothing": 10_000,
        "raising": 5000,
        "ignore": 15_000,
    }
    assert (handlers["raising"].errors, types["a"].errors, len(engine.dead_letters)) == (50, 50, 50)
    for row in handlers.values():
        assert sum(row.handler_time.buckets) == row.handler_time.count


def test_a_crowd_keeps_follow_ups_before_the_next_event(engine):
    seen = []
    engine.register("a", lambda event: Event("b", event.data) if event.data % 3 == 0 else None)
    engine.register_general(lambda event: seen.append((event.type, event.data)))
    for number in range(2000):
        engine.put(Event("a", number))

    drained(engine)
    assert seen == [(kind, n) for n in range(2000) for kind in ("a", "b") if kind == "a" or n % 3 == 0]


def test_a_crowd_of_strangers_is_judged_one_by_one(engine):
    class Hostile:
        type = "a"

        @property
        def queued(self):
            raise RuntimeError("do not look")

    seen = []
    engine.register("a", seen.append)
    strangers = [Hostile() for _ in range(1000)]
    for stranger in strangers:
        engine.put(stranger)
        engine.put(None)
    drained(engine)

    assert seen == strangers
    assert len(engine.dead_letters) == 1000
    assert types_of(engine)["a"].count == 1000


def test_registering_in_a_crowd_takes_effect_with_the_next_event(engine):
    early, late = [], []

    def first(event):
        early.append(event.data)
        if event.data == 700:
            engine.register("a", late.append)
            engine.unregister("a", first)

    engine.register("a", first)
    for number in range(2000):
        engine.put(Event("a", number))
    drained(engine)

    assert early == list(range(701))
    assert [event.data for event in late] == list(range(701, 2000))
    rows = handlers_of(engine)
    assert (rows["first"].count, rows["append"].count) == (701, 1299)


def test_a_slow_call_in_a_crowd_is_shown_and_makes_the_next_batches_timed_throughout():
    moment = 0.0

    def sometimes_slow(event):
        nonlocal moment
        moment += 5.0 if event.data in {5, 300} else 1e-6

    engine = EventEngine(3600, now=lambda: moment)
    engine.register("a", sometimes_slow)
    for number in range(1000):
        engine.put(Event("a", number))
    while engine._queue:
        engine._batch()

    untold = next(row for row in engine.statistics().handlers if row.handler == UNTOLD)
    assert untold.handler_time.max == pytest.approx(5e9, rel=0.01)
    assert handlers_of(engine)["sometimes_slow"].handler_time.max == pytest.approx(5e9, rel=0.01)
    assert handlers_of(engine)["sometimes_slow"].count == 1000


def test_tallies_stay_bounded_when_registrations_come_and_go(engine):
    engine.register_general(ignore)
    for _ in range(2000):
        engine.register("a", print_nothing)
        engine.unregister("a", print_nothing)
    engine.put(Event("a"))
    drained(engine)

    tallies = [len(meter.tallies) for meter in engine._meters._all()]
    assert max(tallies) < 20


def test_depth_and_high_water_count_what_waits(engine):
    for _ in range(10):
        engine.put(Event("a"))

    assert (engine.statistics().depth, engine.statistics().high_water, engine.statistics().running) == (
        10,
        10,
        False,
    )
    drained(engine)
    assert (engine.statistics().depth, engine.statistics().high_water) == (0, 10)


def test_the_rate_is_that_of_the_running_engine():
    moment = 0.0
    engine = EventEngine(3600, now=lambda: moment)
    engine.start()
    delivered = threading.Event()
    engine.register("a", lambda event: delivered.set() if event.data == 99 else None)
    engine.register_batch_end(lambda: delivered.is_set() and ended.set())
    ended = threading.Event()
    for number in range(100):
        engine.put(Event("a", number))
    assert ended.wait(PATIENCE)

    moment = 4.0
    assert engine.statistics().rate == 25.0
    engine.stop(PATIENCE)
    assert engine.statistics().rate == 0.0


def test_statistics_stay_bounded_when_types_do_not(engine):
    engine.register("eOrder.", print_nothing)
    engine.register_general(ignore)
    for number in range(5000):
        engine.put(Event(f"eOrder.{number}"))
        engine.put(Event("eOrder."))

    drained(engine)
    types = types_of(engine)
    assert len(types) < 200
    assert types["eOrder."].count == 5000
    assert sum(row.count for row in types.values()) == 10_000
    assert types[OTHER].count > 4000
    assert len(engine._routes) < 200
    assert handlers_of(engine)["ignore"].count == 10_000


def test_statistics_stay_bounded_when_registrations_do_not(engine):
    def handle(number, event):
        seen.append(number)

    seen = []
    for number in range(3000):
        handler = partial(handle, number)
        engine.register(f"eOrder.{number}", handler)
        engine.put(Event(f"eOrder.{number}"))
    drained(engine)

    assert seen == list(range(3000))
    assert len(engine.statistics().types) < 600
    assert handlers_of(engine)["handle"].count == 3000


def test_handler_names_beyond_the_table_are_counted_together(engine, monkeypatch):
    monkeypatch.setattr(meters, "_MAX_METERS", 5)
    for number in range(20):

        def handler(event):
            return None

        handler.__qualname__ = f"handler_{number}"
        engine.register("a", handler)
    engine.put(Event("a"))

    drained(engine)
    rows = handlers_of(engine)
    assert (
        rows[OTHER].count + sum(rows[f"handler_{n}"].count for n in range(20) if f"handler_{n}" in rows) == 20
    )


def test_measurements_do_not_pile_up_uncounted(engine):
    engine.register("a", print_nothing)
    for _ in range(30_000):
        engine.put(Event("a"))

    drained(engine)
    raw = [len(meter._raw) for meter in (*engine._meters.waits.values(), *engine._meters.times.values())]
    assert max(raw) <= engine_module._FOLD_EVERY + engine_module._BATCH_EVENTS


def test_handlers_are_named_whatever_they_are(engine):
    class Callable:
        def __call__(self, event):
            return None

        def method(self, event):
            return None

    for handler in (Callable(), Callable().method, partial(partial(ignore)), [].append):
        engine.register("a", handler)
    engine.put(Event("a"))

    drained(engine)
    assert {"Callable", "method", "ignore", "append"} <= set(handlers_of(engine))


def test_when_an_event_was_queued_is_known_in_wall_time(monkeypatch):
    moment = 50.0
    engine = EventEngine(3600, now=lambda: moment)
    monkeypatch.setattr(engine_module.time, "time_ns", lambda: 1_000_000_000_000)
    event = Event("a")
    engine.put(event)
    moment = 52.5

    assert engine.queued_ns(event) == 997_500_000_000
    assert engine.queued_ns(Event("never put")) == 0


def test_batch_end_hooks_are_shown_among_the_handlers_but_are_no_type(engine):
    engine.register_batch_end(lambda: None)
    engine.put(Event("a"))

    drained(engine)
    assert BATCH_END not in types_of(engine)
    assert sum(row.count for row in engine.statistics().handlers) == 1
