"""One word follows an update through the log, from the broker's bytes to the screen; secrets never get in."""

from __future__ import annotations

import json

import pytest

from house import JAINAM, ZERODHA, House, eventually
from orderwire.client import OrderStream
from orderwire.config import load

SECRETS = ("demokite-secret", "demoxts-secret")


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    given = house.settings.model_dump() | {"log_level": "DEBUG", "log_json": True}
    house.settings = load(**given)
    house.start()
    house.log_in()
    yield house
    house.close()


def lines(house):
    found = [line for line in house.log().splitlines() if line.startswith("{")]
    return [json.loads(line) for line in found]


def the_change(house, order):
    """The line of the change that the broker's first word on the order made."""
    mine = [line for line in lines(house) if line["event"] == "change told" and line["order"] == order]
    return next((line for line in mine if line["status"] == "OPEN"), None)


def test_one_word_leads_from_the_frame_to_the_screen_and_no_secret_is_said(house):
    with OrderStream(house.url, apikey=house.keys["asha"]) as page:
        page.next(timeout=10)
        order = house.place(ZERODHA, order_type="LIMIT", price="1400")["order_id"]
        house.place(JAINAM, order_type="MARKET")
        told = eventually(lambda: the_change(house, order), what="the order in the log")
    received = [line for line in lines(house) if line["event"] == "order received"]

    assert order in {line["order"] for line in received if line["trace"] == told["trace"]}
    text = house.log()
    assert not [secret for secret in SECRETS if secret in text]
