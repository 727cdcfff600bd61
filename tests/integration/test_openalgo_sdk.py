"""OpenAlgo's own SDK, unchanged and in its own environment, trades through the service."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from conftest import find_openalgo, find_openalgo2
from house import free_port, running_house

STORY = Path(__file__).with_name("peer_openalgo.py")

SAID = {
    "placed": "success",
    "resting": ["INFY", "BUY", 10, 1400.5, "LIMIT", "open"],
    "modified": True,
    "cancelled": "success",
    "filled": [4, 0, True],
    "position": 4,
    "smart": 2,
    "matched": "Positions Already Matched. No Action needed.",
    "basket": ["success", "error"],
    "split": [[2, 2, 1], 2, 5],
    "cancelled all": True,
    "closed": "All Open Positions Squared Off",
    "book": [True, True],
    "trades": True,
    "positions": True,
    "funds": ["availablecash", "collateral", "m2mrealized", "m2munrealized", "utiliseddebits"],
    "holdings": ["totalholdingvalue", "totalinvvalue", "totalpnlpercentage", "totalprofitandloss"],
    "refused": True,
    "not found": True,
    "wrong key": True,
}
PUSHED = {
    "connected": True,
    "subscribed": True,
    "pushed": [4, "asha", "live"],
    "pushed words": ["cancelled", True],
    "unsubscribed": True,
}


@pytest.fixture
def house(tmp_path):
    with running_house(tmp_path, subscriptions_port=free_port()) as house:
        yield house


def trade(python: Path | None, house, ws: str) -> dict[str, object]:
    command = [str(python), str(STORY), house.url, ws, house.keys["asha"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{done.stdout}\n{house.log()[-4000:]}"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.needs("openalgo")
@pytest.mark.timeout(240)
def test_sdk_1_trades(house):
    assert trade(find_openalgo(), house, house.url.replace("http", "ws", 1)) == SAID


@pytest.mark.needs("openalgo2")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("listener", ["the web server's", "its own"])
def test_sdk_2_trades_and_is_told(house, listener):
    own = f"ws://127.0.0.1:{house.settings.subscriptions_port}"
    ws = own if listener == "its own" else house.url.replace("http", "ws", 1)

    assert trade(find_openalgo2(), house, ws) == SAID | PUSHED
