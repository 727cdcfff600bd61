"""Many threads at once: nothing is lost, each producer's order is kept, and a simple model agrees."""

from __future__ import annotations

import random
import sys
import threading
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from orderwire import engine as engine_module
from orderwire.core.events import Event
from orderwire.engine import EventEngine

PATIENCE = 60


@pytest.fixture(autouse=True)
def _switching_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(params=["eventfd", "lock", "crowd"])
def engine(request, monkeypatch):
    if request.param == "lock":
        monkeypatch.setattr(engine_module, "_make_bell", engine_module._LockBell)
    if request.param == "crowd":
        monkeypatch.setattr(engine_module, "_CROWD", 1)
    engine = EventEngine(0.001)
    yield engine
    engine.stop(PATIENCE)


def together(*targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def by_producer(seen):
    produced = {}
    for producer, number in seen:
        produced.setdefault(producer, []).append(number)
    return produced


def test_producers_and_registering_threads_do_not_disturb_each_other(engine):
    seen, passing = [], []
    engine.register("a", lambda event: seen.append(event.data))
    engine.add_lane("slow", capacity=8)
    finished = threading.Event()

    def produce(producer):
        for number in range(3000):
            engine.put(Event("a", (producer, number)))

    def come_and_go():
        def typed(event):
            passing.append(event)

        def general(event):
            passing.append(event)

        while not finished.is_set():
            engine.register("a", typed)
            engine.register("b", typed, lane="slow")
            engine.register_general(general)
            engine.register_batch_end(typed_hook)
            engine.unregister_batch_end(typed_hook)
            engine.unregister_general(general)
            engine.unregister("b", typed)
            engine.unregister("a", typed)
            engine.statistics()

    def typed_hook():
        return None

    engine.start()
    churn = [threading.Thread(target=come_and_go) for _ in range(2)]
    for thread in churn:
        thread.start()
    together(*(lambda producer=producer: produce(producer) for producer in range(4)))
    finished.set()
    for thread in churn:
        thread.join(PATIENCE)

    assert engine.stop(PATIENCE) == 0
    assert by_producer(seen) == {producer: list(range(3000)) for producer in range(4)}
    assert engine.dead_letters == ()


def test_starting_and_stopping_under_load_loses_and_reorders_nothing(engine):
    seen, chance = [], random.Random(7)
    engine.register("a", lambda event: seen.append(event.data))

    def produce(producer):
        for number in range(3000):
            engine.put(Event("a", (producer, number)))

    def restart():
        for _ in range(60):
            engine.start()
            engine.stop(chance.choice([None, 0, 0.001]))

    together(restart, *(lambda producer=producer: produce(producer) for producer in range(3)))
    engine.start()
    assert engine.stop(PATIENCE) == 0
    assert by_producer(seen) == {producer: list(range(3000)) for producer in range(3)}


def test_a_stop_ends_while_others_never_stop_putting(engine):
    seen, finished = [], threading.Event()
    engine.register("a", lambda event: seen.append(event.data))

    def produce():
        number = 0
        while not finished.is_set():
            engine.put(Event("a", ("endless", number)))
            number += 1

    engine.start()
    producer = threading.Thread(target=produce)
    producer.start()
    engine.stop()
    delivered = len(seen)
    finished.set()
    producer.join(PATIENCE)
    engine.start()

    assert engine.stop(PATIENCE) == 0
    assert len(seen) >= delivered
    assert by_producer(seen) == {"endless": list(range(len(seen)))}


def test_a_stop_ends_though_each_event_delivered_makes_another_thread_put_one(engine):
    delivered, handled, put = [], threading.Semaphore(0), threading.Semaphore(0)
    busy = threading.Event()

    def handler(event):
        delivered.append(event.data)
        if len(delivered) == 100:
            busy.set()
        handled.release()
        assert put.acquire(timeout=PATIENCE)

    def outside():
        while handled.acquire(timeout=PATIENCE) and (number := len(delivered)):
            engine.put(Event("a", number))
            put.release()

    engine.register("a", handler)
    engine.put(Event("a", 0))
    engine.start()
    threading.Thread(target=outside, daemon=True).start()
    assert busy.wait(PATIENCE)
    begun = time.monotonic()
    left = engine.stop(30)

    assert time.monotonic() - begun < 30  # it ended; its time did not run out
    assert left == 1
    assert delivered == list(range(len(delivered)))
    delivered.clear()
    handled.release()


@pytest.mark.parametrize("bell", ["_EventfdBell", "_LockBell"])
def test_no_wake_up_is_missed(bell, monkeypatch):
    """Each event is put as the last one's handler ends, when the dispatcher lies down; no timer wakes it."""
    monkeypatch.setattr(engine_module, "_make_bell", getattr(engine_module, bell))
    engine, turn, chance = EventEngine(3600), threading.Semaphore(0), random.Random(5)

    def handler(event):
        turn.release()
        for _ in range(event.data):  # let the other thread come at any moment of what follows
            pass

    engine.register("a", handler)
    engine.start()

    for number in range(10_000):
        engine.put(Event("a", chance.randrange(1500)))
        assert turn.acquire(timeout=PATIENCE), f"event {number} was slept through"

    assert engine.stop(PATIENCE) == 0


def test_exceptions_everywhere_lose_nothing(engine):
    chance, seen = random.Random(3), []
    engine.add_lane("slow", capacity=4)
    engine.add_lane("merging", capacity=4, when_full="conflate", key=lambda event: 1 / (event.data[1] % 3))

    def moody(event):
        seen.append(event.data)
        if event.data[1] % 5 == 0:
            raise ValueError
        return [Event("b", event.data), None]

    def moody_hook():
        if chance.random() < 0.3:
            raise OSError
        return Event("c") if chance.random() < 0.3 else None

    second = []
    engine.register("a", moody)
    engine.register("a", lambda event: 1 / 0, lane="slow")
    engine.register("a", lambda event: next(iter(())), lane="merging")
    engine.register("b", lambda event: second.append(event.data))
    engine.register("c", lambda event: {}["c"])
    engine.register("eTimer", lambda event: 1 / 0)
    engine.register_batch_end(moody_hook)
    engine.on_dead_letter(lambda letter: 1 / 0)
    engine._log = None  # not even a log

    def produce(producer):
        for number in range(1000):
            engine.put(Event("a", (producer, number)))

    engine.start()
    together(*(lambda producer=producer: produce(producer) for producer in range(3)))
    assert engine.stop(PATIENCE) == 0

    assert by_producer(seen) == {producer: list(range(1000)) for producer in range(3)}
    assert by_producer(second) == {producer: [n for n in range(1000) if n % 5] for producer in range(3)}
    statistics = engine.statistics()
    assert statistics.dead_lettered == statistics.callback_errors > 3000 + 600


def test_the_timer_ticks_under_load_and_lets_the_load_through(engine):
    seen, ticks, enough, room = [], [], threading.Event(), threading.Semaphore(2000)

    def tick(event):
        ticks.append(event)
        if len(ticks) == 20:
            enough.set()

    engine.register("eTimer", tick)
    engine.register("a", lambda event: seen.append(event.data) or room.release())
    put = 0
    engine.start()
    while not enough.is_set():
        assert room.acquire(timeout=PATIENCE)
        engine.put(Event("a", put))
        put += 1

    assert engine.stop(PATIENCE) == 0
    assert seen == list(range(put))
    statistics = engine.statistics()
    assert statistics.ticks - statistics.ticks_skipped == len(ticks)


class Model(RuleBasedStateMachine):
    """Drives an engine and a list side by side; the engine's thread runs for real."""

    TYPES = st.sampled_from(["a", "b", "eTimer"])
    NAMES = st.sampled_from(["one", "two", "raising"])

    def __init__(self):
        super().__init__()
        self.engine = EventEngine(3600)
        self.seen, self.expected, self.queued = [], [], []
        self.handlers = {"a": [], "b": [], "eTimer": []}
        self.general = []
        self.hooks = 0
        self.running = False
        self.number = 0
        self.known = {name: self.make(name) for name in ("one", "two", "raising")}

    def make(self, name):
        def handler(event):
            self.seen.append((name, event.type, event.data))
            if name == "raising":
                raise ValueError
            return Event("b", f"{event.data}+") if event.type == "a" and name == "two" else None

        return handler

    def model(self, kind, data):
        follow = [(kind, data)]
        while follow:
            kind, data = follow.pop(0)
            for name in (*self.handlers[kind], *self.general):
                self.expected.append((name, kind, data))
                if kind == "a" and name == "two":
                    follow.append(("b", f"{data}+"))

    def settle(self):
        """Bring the engine to rest, so that what is registered next cannot reach what was put before."""
        if self.running:
            assert self.engine.stop(PATIENCE) == 0
            self.engine.start()

    @rule(kind=TYPES)
    def put(self, kind):
        self.number += 1
        self.engine.put(Event(kind, str(self.number)))
        if self.running:
            self.model(kind, str(self.number))
        else:
            self.queued.append((kind, str(self.number)))

    @rule(kind=TYPES, name=NAMES)
    def register(self, kind, name):
        self.settle()
        self.engine.register(kind, self.known[name])
        if name not in self.handlers[kind]:
            self.handlers[kind].append(name)

    @rule(kind=TYPES, name=NAMES)
    def unregister(self, kind, name):
        self.settle()
        self.engine.unregister(kind, self.known[name])
        if name in self.handlers[kind]:
            self.handlers[kind].remove(name)

    @rule(name=NAMES)
    def register_general(self, name):
        self.settle()
        self.engine.register_general(self.known[name])
        if name not in self.general:
            self.general.append(name)

    @rule(name=NAMES)
    def unregister_general(self, name):
        self.settle()
        self.engine.unregister_general(self.known[name])
        if name in self.general:
            self.general.remove(name)

    @rule()
    def start(self):
        self.engine.start()
        self.running = True
        for kind, data in self.queued:
            self.model(kind, data)
        self.queued.clear()

    @rule()
    def stop(self):
        assert self.engine.stop(PATIENCE) == len(self.queued)
        self.running = False
        assert self.seen == self.expected

    @invariant()
    def nothing_unexpected_was_seen(self):
        assert self.seen == self.expected[: len(self.seen)]

    def teardown(self):
        self.start()
        assert self.engine.stop(PATIENCE) == 0
        assert self.seen == self.expected
        raised = [entry for entry in self.expected if entry[0] == "raising"]
        assert len(self.engine.dead_letters) == len(raised)
        assert self.engine.statistics().depth == 0


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
