from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderwire.core.calendar import WARN_DAYS, expiry_notice, read_calendar
from orderwire.core.orders import IST
from orderwire.errors import ConfigurationError
from orderwire.feeds.market import load_calendar

CALENDAR = load_calendar()


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=IST)


@pytest.mark.parametrize(
    ("now", "segments", "expected"),
    [
        ("2026-08-17 09:00", ["NSE"], True),  # pre-open
        ("2026-08-17 08:59", ["NSE"], False),
        ("2026-08-17 15:59", ["BSE"], True),  # closing session
        ("2026-08-17 16:30", ["NSE", "BSE"], False),
        ("2026-08-17 16:30", ["CDS"], True),
        ("2026-08-17 20:00", ["CDS"], False),
        ("2026-08-17 20:00", ["MCX"], True),  # evening
        ("2026-08-17 23:58", ["MCX"], True),
        ("2026-08-17 23:59", ["MCX"], False),
        ("2026-08-22 12:00", [], False),  # Saturday
        ("2026-11-10 12:00", ["NSE"], False),  # holiday
        ("2026-11-10 12:00", [], False),  # MCX opens in the evening only
        ("2026-11-10 18:00", [], True),
        ("2026-11-10 18:00", ["NSE"], False),
        ("2026-12-25 18:00", [], False),  # holiday everywhere
        ("2026-11-08 14:00", ["NSE"], True),  # muhurat trading on a Sunday
        ("2026-08-26 12:00", ["CDS"], False),  # bank holiday
        ("2026-08-26 12:00", ["NSE"], True),
        ("2027-01-26 12:00", ["NSE"], True),  # not known: better a call too many
        ("2026-08-17 20:00", ["NSE", "MCX"], True),
        ("2026-08-17 20:00", ["ELSEWHERE"], True),  # unknown: as any other
        ("2026-08-22 20:00", ["ELSEWHERE"], False),
    ],
)
def test_each_segment_keeps_its_hours_and_holidays(now, segments, expected):
    assert CALENDAR.is_open(at(now), segments) is expected


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)))  # noqa: DTZ001 - made aware below
def test_the_market_is_open_when_one_of_its_segments_is(moment):
    now = moment.replace(tzinfo=IST)

    assert CALENDAR.is_open(now) is any(CALENDAR.is_open(now, [name]) for name in CALENDAR.segments)


def test_every_holiday_of_the_release_is_a_weekday_of_the_year_it_knows():
    for segment in CALENDAR.segments.values():
        for day in segment.holidays:
            assert day.weekday() < 5
            assert day.year == CALENDAR.known_through.year


@pytest.mark.parametrize(
    ("left", "kind"),
    [
        (WARN_DAYS, None),
        (WARN_DAYS - 1, "market calendar ends"),
        (0, "market calendar ends"),
        (-1, "market calendar ended"),
        (-400, "market calendar ended"),
    ],
)
def test_somebody_is_told_before_the_holidays_are_known_no_longer(left, kind):
    notice = expiry_notice(CALENDAR, CALENDAR.known_through - timedelta(days=left))

    assert (notice.kind if notice else None) == kind
    assert notice is None or "ORDERWIRE_MARKET_CALENDAR" in notice.text


def test_a_list_of_ones_own_is_read():
    own = read_calendar(
        b'{"source":"me","known_through":"2027-12-31","segments":'
        b'{"NSE":{"hours":[["09:15:00","15:30:00"]],"holidays":{"2027-01-26":"Republic Day"}}}}'
    )

    assert own.known_through == date(2027, 12, 31)
    assert not own.is_open(at("2027-01-26 12:00"))
    assert own.is_open(at("2027-01-27 12:00"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "cannot be read"),
        (b"[]", "cannot be read"),
        (b'{"source":"\xbf"}', "cannot be read"),
        (b'{"other":' + b"[" * 20_000, "cannot be read"),
        (b'{"source":"me","known_through":"soon","segments":{}}', "known_through"),
        (b'{"source":"me","known_through":"2027-12-31","segments":{}}', "no segments"),
        (b'{"source":"me","known_through":"2027-12-31","segments":{"NSE":{"hours":[["9","10"]]}}}', "hours"),
        (
            b'{"source":"me","known_through":"2027-12-31","segments":{"NSE":{"hours":[["09:15:00Z","15:30:00Z"]]}}}',
            "hours",
        ),
        (
            b'{"source":"me","known_through":"2027-12-31","segments":{"NSE":{"hours":[["15:30:00","09:15:00"]]}}}',
            "NSE opens at",
        ),
    ],
)
def test_a_list_that_cannot_be_used_says_why(text, why):
    with pytest.raises(ConfigurationError, match=why):
        read_calendar(text)
