"""Forged, replayed, shifted and altered postbacks at the running service: nothing changes, and the alarm sounds."""

import time

import pytest

from forgery import bombard, forged, genuine
from house import ZERODHA, eventually, running_house
from orderwire.core.recovery import HINT_SPACING
from orderwire.web.claims import MISMATCH

COUNT = 500
ROUTINE_READS_A_SECOND = 0.5


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with running_house(tmp_path_factory.mktemp("house")) as house:
        yield house


def an_order_of_each_kind(house):
    """Orders that rest, are partly filled, filled and cancelled; their ids."""
    price = house.sims.ask("GET", "/market")["NSE:INFY"]["last"]
    low = str(round(float(price) - 40))
    ids = [house.place(ZERODHA, order_type="LIMIT", price=low, quantity=100)["order_id"] for _ in range(3)]
    ids.append(house.place(ZERODHA, order_type="MARKET", quantity=7)["order_id"])
    eventually(lambda: states(house, ids[:3]) == {"OPEN"}, what="open orders")
    house.sims.ask("POST", "/market/fill", {"uid": f"kite:{ids[1]}", "quantity": 40, "price": low})
    house.sims.ask("POST", "/market/cancel", {"uid": f"kite:{ids[2]}"})
    eventually(
        lambda: [state(house, one) for one in ids] == ["OPEN", "PARTIALLY_FILLED", "CANCELLED", "FILLED"],
        what="an order of each kind",
    )
    return ids


def state(house, order_id):
    return next(order["status"] for order in house.book("asha").values() if order["orderid"] == order_id)


def states(house, order_ids):
    return {state(house, order_id) for order_id in order_ids}


def test_nothing_that_is_forged_changes_anything_and_the_broker_is_asked_within_the_budget(
    house, record_property
):
    ids = an_order_of_each_kind(house)
    bodies = genuine(house, ids)
    before = house.book("asha")
    reads = house.sims.ask(
        "POST", "/faults", {"kind": "slow", "operation": "orders", "params": {"seconds": 0}}
    )
    began = time.monotonic()

    codes = bombard(house.postback_url, [body for _, body in forged(bodies, count=COUNT)])

    eventually(lambda: MISMATCH in house.log(), what="the alarm")
    seconds = time.monotonic() - began
    (board,) = [fault for fault in house.sims.ask("GET", "/faults") if fault["id"] == reads["id"]]
    record_property(
        "figure", f"{COUNT} forged postbacks: {dict(codes)}, {board['struck']} reads in {seconds:.1f} s"
    )
    assert house.book("asha") == before
    assert sum(codes.values()) == COUNT
    assert not any(code >= 500 for code in codes)
    assert codes[400] > COUNT / 2
    assert board["struck"] <= seconds * (1 / HINT_SPACING + ROUTINE_READS_A_SECOND) + 3
    assert "Traceback" not in house.log()
