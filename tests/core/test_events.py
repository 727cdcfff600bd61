"""Events are vn.py's, with room for a stamp."""

from __future__ import annotations

import pytest

from orderwire.core.events import Event, EventType


def test_an_event_is_made_positionally_like_vnpys():
    event = Event("eTick.", 7)

    assert (event.type, event.data, event.queued) == ("eTick.", 7, 0)


def test_an_event_may_have_no_data():
    assert Event("eTick.").data is None


def test_an_event_needs_a_type():
    with pytest.raises(TypeError):
        Event()


def test_events_are_equal_by_type_and_data_whenever_they_were_queued():
    assert Event("a", [1], queued=5) == Event("a", [1], queued=6)
    assert Event("a", [1]) != Event("a", [2])
    assert Event("a") != Event("b")
    assert Event("a") != "a"


def test_equal_events_hash_alike_even_when_their_data_does_not_hash():
    assert len({Event("a", [1], 5), Event("a", [1], 6), Event("b")}) == 2


def test_a_type_of_ours_is_its_string():
    assert EventType.TIMER == "eTimer"
    assert {EventType.TIMER: "handlers"}["eTimer"] == "handlers"


def test_every_type_of_ours_has_a_string_of_its_own_and_none_of_vnpys():
    ours = [str(kind) for kind in EventType]
    vnpys = {"eTick.", "eTrade.", "eOrder.", "ePosition.", "eAccount.", "eQuote.", "eContract.", "eLog"}

    assert len(set(ours)) == len(ours)
    assert not vnpys & set(ours)
