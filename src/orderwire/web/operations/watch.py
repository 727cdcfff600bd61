"""How the service is doing, and its alerts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from orderwire.core.alerts import Silence
from orderwire.store import alerts as kept_alerts
from orderwire.web.operations.office import Command, Office


class Status(Command):
    """Say how the service is doing."""

    def perform(self, office: Office) -> Any:
        return office.running_station().status()


class ListAlerts(Command):
    """List the newest alerts and notices, and the silences in force."""

    most: int = 20

    def perform(self, office: Office) -> Any:
        database = office.running_station().sources.database
        return {
            "alerts": [asdict(entry) for entry in kept_alerts.history(database, most=self.most)],
            "silences": kept_alerts.silences(database),
        }


class SilenceAlert(Command):
    """Keep people from being told of an alert for a while; `hours` 0 ends the silence."""

    alert: str
    broker: str = ""
    hours: float = 1.0
    reason: str = ""

    def perform(self, office: Office) -> Any:
        database = office.running_station().sources.database
        if self.hours <= 0:
            return kept_alerts.unsilence(database, self.alert, broker=self.broker, by=self.by)
        until_ns = database.clock.time_ns() + int(self.hours * 3600e9)
        kept_alerts.silence(
            database,
            Silence(rule=self.alert, broker=self.broker, until_ns=until_ns, by=self.by, reason=self.reason),
        )
        return True


COMMANDS: Mapping[str, type[Command]] = {
    "status": Status,
    "alerts.list": ListAlerts,
    "alerts.silence": SilenceAlert,
}
