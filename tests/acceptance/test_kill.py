"""`kill -9` of the service while orders move: after the restart every order equals the broker's book."""

import pytest

from house import JAINAM, ZERODHA, House, eventually, running_house

BROKERS = ((ZERODHA, "asha", "kite", "ZD0001"), (JAINAM, "jay", "xts", "JN0001"))

HALF_PAISA = 0.00501
"""Jainam writes averages with two decimals, the simulators' truth has four."""


@pytest.fixture
def house(tmp_path):
    with running_house(tmp_path) as house:
        yield house


def test_after_a_kill_every_order_again_equals_the_brokers_book(house):
    for account, *_ in BROKERS:
        place_a_mixture(house, account)
    eventually(lambda: any_fill(house), what="a first fill")

    house.kill()
    place_at_the_brokers_terminal(house)
    eventually(lambda: settled_count(house) >= 4, what="fills while nobody listened")
    house.start()

    for account, user, broker, owner in BROKERS:
        house.await_freshness(account, "LIVE")
        found: list[str] = []

        def agrees(
            user: str = user, broker: str = broker, owner: str = owner, found: list[str] = found
        ) -> bool:
            found[:] = differences(house, user, broker, owner)
            return found == []

        eventually(agrees, what=f"{user}'s book", last=found)


def place_a_mixture(house: House, account: str) -> None:
    price = {"INFY": "1500", "SBIN": "820"}
    for symbol, last in price.items():
        house.place(account, symbol=symbol, order_type="LIMIT", price=last, quantity=40)
        house.place(account, symbol=symbol, order_type="MARKET", quantity=5)
        house.place(
            account, symbol=symbol, side="SELL", order_type="LIMIT", price=str(int(last) + 40), quantity=7
        )
    house.place(account, order_type="SL", trigger_price="1540", price="1545", quantity=3)


def place_at_the_brokers_terminal(house: House) -> None:
    """An order we did not place and were not there to hear of."""
    terms = {
        "exchange": "NSE",
        "tradingsymbol": "SBIN",
        "transaction_type": "BUY",
        "quantity": 2,
        "product": "MIS",
    }
    more = {"order_type": "LIMIT", "price": 830, "validity": "DAY", "user": "ZD0001"}
    house.sims.ask("POST", "/kite/orders/regular", terms | more)


def any_fill(house: House) -> bool:
    return any(order["filled"] for order in house.sims.ask("GET", "/orders"))


def settled_count(house: House) -> int:
    return sum(order["stage"] == "FILLED" for order in house.sims.ask("GET", "/orders"))


def differences(house: House, user: str, broker: str, owner: str) -> list[str]:
    truth = {o["order_id"]: o for o in house.sims.ask("GET", f"/orders?broker={broker}&user={owner}")}
    ours = {order["orderid"]: order for order in house.book(user).values() if order["orderid"]}
    found = [f"missing: {order_id}" for order_id in truth.keys() ^ ours.keys()]
    for order_id in truth.keys() & ours.keys():
        theirs, mine = truth[order_id], ours[order_id]
        expected = (theirs["stage"], theirs["filled"], theirs["quantity"], float(theirs["average"]))
        shown = (mine["status"], mine["filled_quantity"], mine["quantity"], mine["average_price"])
        if shown[:3] != expected[:3] or abs(shown[3] - expected[3]) > HALF_PAISA:
            found.append(f"{order_id}: we show {shown}, the broker holds {expected}")
    return found
