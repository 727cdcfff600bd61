"""The service as it is, with faults that only come from inside: a folder says which, while it has files of their names.

`slow` holds every order update up, `late` each by 150 ms, `disk` and `clock` hold the free share of the disk and the seconds our clock is off.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from orderwire import logs
from orderwire.clock import SystemClock
from orderwire.config import Settings, load
from orderwire.core.events import Event, EventType
from orderwire.monitoring.metrics import Disk, Sources
from orderwire.service import Service
from orderwire.serving import serve


class WrongClock(SystemClock):
    """A wall clock that is off by what the folder says."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self._off())

    def time_ns(self) -> int:
        return super().time_ns() + int(self._off() * 1e9)

    def _off(self) -> float:
        return float(self._file.read_text() or 0) if self._file.exists() else 0.0


class Drilled(Service):
    """A service that can be hurt."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.data_dir.parent / "faults"
        super().__init__(settings, clock=WrongClock(self.folder))

    def _sources(self, web: Any) -> Sources:
        return replace(super()._sources(web), disk=self._disk)

    def _disk(self) -> Disk:
        said = self.folder / "disk"
        return Disk(total=100, free=int(said.read_text() or 50) if said.exists() else 50)

    def start(self) -> None:
        super().start()
        self.engine.register(EventType.ORDER_UPDATE, self.hold_up)

    def hold_up(self, event: Event) -> None:
        """Stand in the way until the file is gone."""
        if (self.folder / "late").exists():
            time.sleep(0.15)
        while (self.folder / "slow").exists():
            time.sleep(0.05)


if __name__ == "__main__":
    given = load()
    logs.set_up(level=given.log_level, as_json=given.log_json)
    serve(given, build=Drilled)
