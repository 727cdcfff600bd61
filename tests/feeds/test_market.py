from datetime import timedelta

import pytest

from orderwire.core.events import Event, EventType
from orderwire.errors import ConfigurationError
from orderwire.feeds.market import Market, load_calendar
from orderwire.testing import FakeClock

TICK = Event(EventType.TIMER)
DAY = 86_400


def test_the_calendar_decides_unless_the_market_is_always_open():
    clock = FakeClock()
    market = Market(load_calendar(), clock=clock)
    simulated = Market(load_calendar(), clock=clock, always_open=True)

    by_day = market.is_open(), simulated.is_open()
    clock.advance(14.5 * 3600)  # half past midnight
    by_night = market.is_open(), simulated.is_open(["NSE"])

    assert by_day == (True, True)
    assert by_night == (False, True)


def test_the_end_of_the_data_is_told_once_a_day_and_not_before_its_time():
    clock = FakeClock()
    calendar = load_calendar()
    market = Market(calendar, clock=clock)
    told = []

    for _ in range(200):
        told.append([event.data.kind for event in (market.on_timer(TICK), market.on_timer(TICK)) if event])
        clock.advance(DAY)

    first = next(day for day, kinds in enumerate(told) if kinds)
    assert FakeClock().now().date() + timedelta(days=first) > calendar.known_through - timedelta(days=46)
    assert all(len(kinds) == 1 for kinds in told[first:])
    assert {kinds[0] for kinds in told[first:]} == {"market calendar ends", "market calendar ended"}


def test_a_file_replaces_the_list_of_the_release(tmp_path):
    path = tmp_path / "calendar.json"
    path.write_text('{"source":"me","known_through":"2030-01-01","segments":{"X":{"hours":[]}}}')

    assert load_calendar(path).source == "me"


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="absent"):
        load_calendar(tmp_path / "absent.json")
