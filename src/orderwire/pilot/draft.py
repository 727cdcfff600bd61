"""Writes a draft of the evaluation report once a week, so that the decision never starts from an empty page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import structlog

from orderwire.clock import Clock
from orderwire.core.events import Event, EventType
from orderwire.core.orders import IST
from orderwire.core.scorecard import day_of
from orderwire.engine import EventEngine
from orderwire.errors import StoreError
from orderwire.pilot.rendering import as_html, as_markdown
from orderwire.pilot.report import MOST_DAYS, make_report
from orderwire.store.pilot import PilotRecords
from orderwire.store.survey import Voices

_log = structlog.get_logger(__name__)

LANE: Final = "report"
FOLDER: Final = "reports"


class WeeklyDraft:
    """Writes the week that is over into the data folder, on a lane of its own; once, however often it starts."""

    def __init__(
        self,
        records: PilotRecords,
        voices: Voices,
        *,
        folder: Path,
        owners: Callable[[], int],
        clock: Clock,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """`folder` is the data folder; `owners` says how many users there are to be asked.

        `leads`: whether it is this process of several that writes.
        """
        self._leads = leads
        self._records = records
        self._voices = voices
        self._folder = folder / FOLDER
        self._owners = owners
        self._clock = clock
        self._looked: date | None = None

    def attach(self, engine: EventEngine) -> None:
        """Register with the engine, before it starts."""
        engine.add_lane(LANE, capacity=2, when_full="conflate", key=lambda event: event.type)
        engine.register(EventType.TIMER, self.on_timer, lane=LANE)

    def on_timer(self, _event: Event) -> None:
        """Look once a day whether a week is over that has no draft."""
        today = self._clock.now().astimezone(IST).date()
        if today == self._looked or not self._leads():
            return
        try:
            self.write(today)
        except (OSError, StoreError) as error:  # the next day looks again
            _log.warning("weekly draft not written", error=str(error))
        self._looked = today

    def write(self, today: date) -> Path | None:
        """Write the report up to last Sunday and return where; None when it is there, or there is no data yet."""
        sunday = today - timedelta(days=today.isoweekday())
        page = self._folder / f"draft-{sunday.isoformat()}.html"
        first = self._records.first_minute()
        if first is None or day_of(first) > sunday or page.exists():
            return None
        since = max(day_of(first), sunday - timedelta(days=MOST_DAYS - 1))
        made = make_report(
            self._records,
            self._voices,
            since=since,
            until=sunday,
            owners=self._owners(),
            title=f"Draft of the evaluation, week to {sunday}",
        )
        self._folder.mkdir(mode=0o700, exist_ok=True)
        page.with_suffix(".md").write_text(as_markdown(made), encoding="utf-8")
        unfinished = page.with_suffix(".part")
        unfinished.write_text(as_html(made), encoding="utf-8")
        unfinished.replace(page)
        _log.info("weekly draft written", path=str(page), verdict=made.verdict)
        return page
