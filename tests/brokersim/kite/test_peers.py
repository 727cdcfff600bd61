"""The official client, in its own process and environment, takes the simulator for Kite."""

import json
import os
import select
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from brokersim.kite.postbacks import forge
from brokersim.orders import Stage
from brokersim.users import KiteApp
from npm_peers import installed
from orderwire.brokers.zerodha.postbacks import read_postback
from orderwire.errors import ProtocolViolationError
from sim_orders import order

STORY = Path(__file__).with_name("peer_kiteconnect.py")
NODE = Path(__file__).with_name("node")
VECTOR = {
    "order_id": "220303000308932",
    "order_timestamp": "2022-03-03 09:24:25",
    "checksum": "aa389e3f151b51d34809d96299463207da0353105274d9495bad54a38ec227c1",
}
"""Public test vector (kite.md §4.3), for the secret API_SECRET."""


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


def verdicts(bodies, *, secret):
    """What the official JavaScript client's validatePostback says of each body."""
    command = ["node", str(NODE / "validate.js"), secret]
    modules = installed(NODE, name="kite-peer")
    lines = "".join(f"{body}\n" for body in bodies)
    done = subprocess.run(
        command, input=lines, env={**os.environ, "NODE_PATH": str(modules)}, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def app():
    return KiteApp(app_id=1, api_key="demokite", api_secret="the-secret", old_secret="the-old-secret")


def a_filled_order():
    return order(stage=Stage.FILLED, changes={"filled": 10, "value": Decimal(8195)})


@pytest.mark.needs("npm")
@pytest.mark.timeout(240)
def test_the_official_javascript_client_verifies_the_postbacks_and_cannot_tell_forged_ones(app):
    kinds = ("replay", "altered", "shifted", "old_secret", "wrong_secret")
    bodies = {kind: forge(kind, a_filled_order(), "COMPLETE", app, {}).decode() for kind in kinds}
    ours = {}
    for kind, body in bodies.items():
        try:
            read_postback(body.encode(), secrets=["the-secret"])
            ours[kind] = True
        except ProtocolViolationError:
            ours[kind] = False

    theirs = dict(zip(kinds, verdicts(bodies.values(), secret="the-secret"), strict=True))

    assert theirs == {
        "replay": True,
        "altered": True,
        "shifted": True,
        "old_secret": False,
        "wrong_secret": False,
    }
    assert ours == theirs | {"shifted": False}
    assert verdicts([json.dumps(VECTOR)], secret="API_SECRET") == [True]
    assert verdicts([bodies["old_secret"]], secret="the-old-secret") == [True]
