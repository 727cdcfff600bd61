"""When the exchanges trade: hours, holidays and special sessions per segment, as data that can be replaced."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date, datetime, time
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from orderwire.core.alerts import Notice
from orderwire.core.orders import IST
from orderwire.errors import UNDECODABLE, ConfigurationError

WARN_DAYS = 45
"""How long before the end of the data somebody is told: the exchanges publish next year's list in December."""


class Hours(Struct, frozen=True, array_like=True):
    """One session of a day, IST: open from `begins` until before `ends`."""

    begins: Annotated[time, Meta(tz=False)]
    ends: Annotated[time, Meta(tz=False)]


class Segment(Struct, frozen=True, kw_only=True):
    """When one segment trades."""

    hours: tuple[Hours, ...]
    """On an ordinary day, Monday to Friday."""
    holidays: Mapping[date, str] = {}
    """Closed all day, and why."""
    special: Mapping[date, tuple[Hours, ...]] = {}
    """Days with hours of their own: an evening only, a Sunday with muhurat trading. They win over `holidays`."""


class MarketCalendar(Struct, frozen=True, kw_only=True):
    """Every segment's days and hours; `source` says where the holidays come from."""

    source: str
    known_through: date
    """The last day whose holidays are known; after it every weekday counts as a trading day."""
    segments: Mapping[str, Segment]

    def is_open(self, now: datetime, segments: Collection[str] = ()) -> bool:
        """Say whether one of the segments (none given: any) may trade at `now` (aware).

        A segment that the calendar does not know counts as open as long as any other is: being wrong about a
        holiday costs calls, never an update.
        """
        asked = [self.segments[name] for name in segments if name in self.segments]
        return any(_is_open(segment, now.astimezone(IST)) for segment in asked or self.segments.values())

    def days_left(self, today: date) -> int:
        """Return for how many days after today the holidays are known; negative once they are not."""
        return (self.known_through - today).days


_calendar: Final = msgspec.json.Decoder(MarketCalendar)


def _is_open(segment: Segment, local: datetime) -> bool:
    return any(hours.begins <= local.time() < hours.ends for hours in _hours(segment, local.date()))


def _hours(segment: Segment, day: date) -> tuple[Hours, ...]:
    if day in segment.special:
        return segment.special[day]
    return () if day.weekday() >= 5 or day in segment.holidays else segment.hours


def expiry_notice(calendar: MarketCalendar, today: date) -> Notice | None:
    """Return what to tell the operator when the holidays are known for less than `WARN_DAYS` more days."""
    left = calendar.days_left(today)
    if left >= WARN_DAYS:
        return None
    known = f"The market calendar knows no holidays after {calendar.known_through:%d %B %Y}"
    ending = f" ({left} days from now)" if left >= 0 else ""
    return Notice(
        kind="market calendar ends" if left >= 0 else "market calendar ended",
        text=f"{known}{ending}: on later holidays brokers are read as on trading days. "
        "Put the exchanges' new list into a file and name it in ORDERWIRE_MARKET_CALENDAR.",
    )


def read_calendar(text: bytes) -> MarketCalendar:
    """Read a calendar from JSON. Raises ConfigurationError that says what is wrong, and where."""
    try:
        calendar = _calendar.decode(text)
    except UNDECODABLE as error:
        raise ConfigurationError(f"The market calendar cannot be read: {error}") from error
    if not calendar.segments:
        raise ConfigurationError("The market calendar has no segments.")
    for name, segment in calendar.segments.items():
        for hours in (*segment.hours, *(each for day in segment.special.values() for each in day)):
            if hours.begins >= hours.ends:
                raise ConfigurationError(
                    f"The market calendar's {name} opens at {hours.begins} and closes at {hours.ends}."
                )
    return calendar
