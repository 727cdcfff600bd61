"""Forged, replayed, shifted and altered postbacks at the running service: nothing changes, and the alarm sounds."""

import time
from collections import Counter

import httpx2
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
    codes, reads, seconds = bombarded(house, [house.postback_url], COUNT)

    record_property("figure", f"{COUNT} forged postbacks: {dict(codes)}, {reads} reads in {seconds:.1f} s")
    assert reads <= seconds * (1 / HINT_SPACING + ROUTINE_READS_A_SECOND) + 3


def bombarded(house, urls, count):
    """Send forgeries to each of these addresses; nothing may change. How it was answered, reads, seconds."""
    ids = an_order_of_each_kind(house)
    bodies = genuine(house, ids)
    before = house.book("asha")
    reads = house.sims.ask(
        "POST", "/faults", {"kind": "slow", "operation": "orders", "params": {"seconds": 0}}
    )
    began = time.monotonic()
    sent = [body for _, body in forged(bodies, count=count)]

    codes = sum((bombard(url, sent[place :: len(urls)]) for place, url in enumerate(urls)), Counter())

    eventually(lambda: MISMATCH in house.log(), what="the alarm")
    seconds = time.monotonic() - began
    (board,) = [fault for fault in house.sims.ask("GET", "/faults") if fault["id"] == reads["id"]]
    for url in house.urls:
        assert house.book("asha", url) == before
    assert sum(codes.values()) == count
    assert not any(code >= 500 for code in codes)
    assert codes[400] > count / 2
    assert "Traceback" not in house.log()
    return codes, board["struck"], seconds


def told_by_both(house, order_id, count):
    """Whether that many changes of an order went out on the WebSocket and as postbacks that were answered 200."""
    said = house.sims.ask("GET", f"/ledger/messages?broker=kite&order_id={order_id}")
    sent = [message for message in said if message["fate"] == "SENT"]
    pushes = [message["what"] for message in sent if message["channel"] == "ws" and message["what"] != "OPEN"]
    hooks = [message["what"] for message in sent if message["channel"] == "postback"]
    return len(pushes) == len(hooks) == count and pushes == hooks


def log_since(house, cursor=None):
    """What a program reads that asks for the log of changes, and the cursor after it."""
    reply = httpx2.get(
        f"{house.url}/api/v1/orders/changes",
        params={"since": cursor} if cursor else {},
        headers={"X-API-KEY": house.keys["asha"]},
        trust_env=False,
        timeout=20,
    )
    assert reply.is_success, reply.text
    return reply.json()


def test_a_change_that_comes_over_both_channels_is_one_change(house):
    price = house.sims.ask("GET", "/market")["NSE:INFY"]["last"]
    terms = {"order_type": "LIMIT", "price": str(round(float(price) - 40)), "quantity": 10}
    before = log_since(house)["cursor"]

    order_id = house.place(ZERODHA, **terms)["order_id"]
    eventually(lambda: state(house, order_id) == "OPEN", what="a live order")
    for count, quantity in enumerate((3, 7), 1):
        house.sims.ask("POST", "/market/fill", {"uid": f"kite:{order_id}", "quantity": quantity})
        eventually(lambda told=count: told_by_both(house, order_id, told), what="both channels")
    after = house.place(ZERODHA, order_type="MARKET", quantity=1)["order_id"]
    eventually(lambda: state(house, after) == "FILLED", what="an order after them")
    eventually(lambda: state(house, order_id) == "FILLED", what="the last fill")

    told = [change for change in log_since(house, before)["changes"] if change["kind"] == "order"]
    mine = [order["filled_quantity"] for order in told if order["orderid"] == order_id]
    assert [filled for filled in mine if filled] == [3, 10]
