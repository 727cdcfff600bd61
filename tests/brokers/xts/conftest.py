from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from orderwire.brokers.xts import master
from orderwire.brokers.xts.messages import Reading
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import AccountId, Channel

DATA = Path(__file__).resolve().parents[2] / "data" / "xts"


def load(name: str) -> Any:
    return json.loads((DATA / name).read_text())


@pytest.fixture(scope="session")
def instruments() -> InstrumentTable:
    rows = (DATA / "master.txt").read_text().splitlines()
    return InstrumentTable(master.read_master(rows, broker="jainam", count=master.MasterCount()))


@pytest.fixture
def reading(instruments) -> Callable[..., Reading]:
    def make(channel: Channel = Channel.STREAM) -> Reading:
        return Reading(
            account=AccountId("acc"),
            broker="jainam",
            channel=channel,
            trading_date=date(2026, 8, 17),
            received_ns=7,
            instruments=instruments,
        )

    return make


@pytest.fixture
def socket_order() -> dict[str, Any]:
    return load("socket_order.json")


@pytest.fixture
def socket_trade() -> dict[str, Any]:
    return load("socket_trade.json")


@pytest.fixture
def rest_order() -> dict[str, Any]:
    return load("rest_order.json")
