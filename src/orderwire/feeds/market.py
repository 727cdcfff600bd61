"""Knows whether the exchanges trade now, and tells when what it knows comes to an end."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta
from importlib.resources import files
from pathlib import Path

from orderwire.clock import Clock
from orderwire.core.calendar import MarketCalendar, expiry_notice, read_calendar
from orderwire.core.events import Event, EventType
from orderwire.core.orders import IST
from orderwire.errors import ConfigurationError


def load_calendar(path: Path | None = None) -> MarketCalendar:
    """Read the calendar from a file, or the one that came with this release. Raises ConfigurationError."""
    if path is None:
        return read_calendar(files("orderwire.core").joinpath("market_calendar.json").read_bytes())
    try:
        return read_calendar(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"The market calendar {path} cannot be read: {error.strerror}.") from error


class Market:
    """The calendar at the present moment."""

    def __init__(self, calendar: MarketCalendar, *, clock: Clock, always_open: bool = False) -> None:
        """`always_open`: whatever the calendar says (simulators)."""
        self.calendar = calendar
        self._clock = clock
        self._always_open = always_open
        self._told: date | None = None

    def is_open(self, segments: Collection[str] = ()) -> bool:
        """Say whether one of the segments (none given: any) may trade now. Any thread."""
        return self._always_open or self.calendar.is_open(self._clock.now(), segments)

    def is_near(self, before: timedelta) -> bool:
        """Say whether any segment may trade now, or will so much later. Any thread."""
        return self.is_open() or self.calendar.is_open(self._clock.now() + before)

    def on_timer(self, _event: Event) -> Event | None:
        """Tell once a day, from shortly before it happens, that the holidays are known no longer."""
        today = self._clock.now().astimezone(IST).date()
        if today == self._told:
            return None
        self._told = today
        notice = expiry_notice(self.calendar, today)
        return Event(EventType.ALERT, notice) if notice is not None else None
