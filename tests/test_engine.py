"""The engine keeps vn.py's meaning for vn.py's users, and its own promises."""

from __future__ import annotations

import pytest

from orderwire.core.events import Event, EventType
from orderwire.engine import EventEngine


@pytest.fixture
def engine():
    engine = EventEngine(3600)
    yield engine
    engine.stop(10)


def test_events_are_delivered_by_type_in_the_order_put(engine):
    seen = []
    engine.register("a", seen.append)
    engine.start()

    for number in range(1000):
        engine.put(Event("a", number))
        engine.put(Event("b", number))

    assert engine.stop(10) == 0
    assert [event.data for event in seen] == list(range(1000))


def test_a_raising_handler_is_dead_lettered_and_dispatch_goes_on(engine):
    seen = []

    def fragile(event):
        if event.data == 10:
            raise RuntimeError("ten")
        seen.append(event.data)

    engine.register("a", fragile)
    engine.start()
    for number in range(1000):
        engine.put(Event("a", number))

    assert engine.stop(10) == 0
    assert len(seen) == 999
    (letter,) = engine.dead_letters
    assert (letter.event, str(letter.error)) == (Event("a", 10), "ten")
    assert letter.handler.endswith("fragile")


def test_the_timer_ticks():
    import threading

    ticked = threading.Event()
    engine = EventEngine(0.001)
    engine.register(EventType.TIMER, lambda event: ticked.set())
    engine.start()

    assert ticked.wait(10)
    assert engine.stop(10) == 0
