"""The official client, in its own process and environment, takes the simulator for Kite."""

import json
import select
import subprocess
import sys
from pathlib import Path

import pytest

STORY = Path(__file__).with_name("peer_kiteconnect.py")


@pytest.fixture
def brokers():
    ports = ("--kite-port", "0", "--xts-port", "0", "--control-port", "0")
    process = subprocess.Popen(
        [sys.executable, "-m", "brokersim", "serve", *ports], stdout=subprocess.PIPE, text=True
    )
    ready, _, _ = select.select([process.stdout], [], [], 20)
    assert ready, "the simulator did not start within 20 s"
    yield json.loads(process.stdout.readline())
    process.terminate()
    process.communicate(timeout=10)


@pytest.mark.needs("peers")
def test_kiteconnect_trades_listens_and_reconnects(peers, brokers):
    command = [str(peers), str(STORY), brokers["kite"], brokers["control"]]

    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)

    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    fills = seen.pop("filled")
    assert fills[0] == "OPEN"
    assert fills[-1] == "COMPLETE"
    assert set(fills[1:-1]) == {"UPDATE"}
    assert seen == {
        "login_time": "datetime",
        "instruments": [17, 5],
        "profile": "ZD0001",
        "margin": 10_000_000,
        "history": ["PUT ORDER REQ RECEIVED", "VALIDATION PENDING", "OPEN PENDING", "OPEN"],
        "traded": 10,
        "book": [["COMPLETE", "peer"]],
        "position": 10,
        "timestamp": "datetime",
        "cancelled": ["CANCELLED", 12, 801, 12],
        "slices": 3,
        "gtt": ["active", 1],
        "ltp": 779521,
        "refusals": [
            ["InputException", 400],
            ["InputException", 400],
            ["InputException", 400],
            ["OrderException", 400],
        ],
        "html": "DataException",
        "limited": ["NetworkException", 429],
        "logged_out": True,
        "dead": ["TokenException", 403],
    }
