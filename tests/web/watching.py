"""The small web of house.py with a station: what it sees is `house.feeds`, `house.free` and what a test changes."""

from __future__ import annotations

from pathlib import Path

from monitoring.watched import feed
from orderwire.config import Settings
from orderwire.core.health import FleetHealth, WebHealth
from orderwire.monitoring.metrics import Disk, Sources
from orderwire.monitoring.station import Station
from orderwire.store.users import Role
from orderwire.web.monitor import Monitor
from web.house import House


class QuietBook:
    """A book whose commits all succeed."""

    blocked_seconds = 0.0
    held_back = stale_writes = 0

    def counts(self) -> dict[tuple[str, str], int]:
        return {}


def watch(house: House, folder: Path, *, metrics_port: int = 0) -> House:
    """Attach a station and its routes to a house; before its first request. Makes the operator `ops`."""
    services = house.services
    house.feeds = [feed("acc", connected=True, heartbeat_age=1.0, counts={"reconnects": 2})]
    house.free = 9
    house.station = Station(
        Sources(
            engine=services.engine,
            database=services.database,
            book=QuietBook(),
            fleet=lambda: FleetHealth(feeds=tuple(house.feeds)),
            web=WebHealth,
            market_open=lambda: True,
            market_near=lambda: True,
            disk=lambda: Disk(total=10, free=house.free),
            clock=services.clock,
            brokers=("wired",),
        ),
        settings=Settings(data_dir=folder),
    )
    Monitor(
        station=house.station,
        database=services.database,
        accounts=services.accounts,
        users=services.users,
        metrics_port=metrics_port,
    ).attach(house.app)
    house.user("ops", Role.OPERATOR)
    return house
