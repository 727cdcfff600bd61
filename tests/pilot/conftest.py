from __future__ import annotations

import pytest

from orderwire.pilot.flags import DatabaseProvider, Flag
from orderwire.pilot.gate import RolloutGate
from orderwire.store.database import Database
from orderwire.store.pilot import PilotRecords
from store.making import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def database(clock):
    database = Database("sqlite://", clock=clock)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def records(database) -> PilotRecords:
    return PilotRecords(database)


@pytest.fixture
def a_gate(records):
    made = []

    def make(provider=None, *, master=True):
        gate = RolloutGate(
            records, Flag(provider or DatabaseProvider()), master=master, brokers=["paisa", "wired"]
        )
        made.append(gate)
        return gate

    yield make
    for gate in made:
        gate.close()


@pytest.fixture
def gate(a_gate) -> RolloutGate:
    return a_gate()
