"""Trades with OpenAlgo's own SDK, as its users do; prints what it was answered. Runs in the SDK's environment."""

import json
import sys
import time

from openalgo import api

REST, ROOT, KEY = sys.argv[1:4]
client = api(api_key=KEY, host=REST, ws_url=ROOT)
INFY = {"strategy": "peer", "symbol": "INFY", "exchange": "NSE", "product": "MIS"}
said = {}
pushed = []


def until(check, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise SystemExit(
        f"never: {check.__name__ if hasattr(check, '__name__') else check}; pushed {pushed}; said {said}"
    )


def status_of(order_id):
    return client.orderstatus(order_id=order_id, strategy="peer").get("data", {})


def stands(order_id, word):
    return until(lambda: (s := status_of(order_id)) and s["order_status"] == word and s)


SUBSCRIBES = hasattr(client, "subscribe_orders")
if SUBSCRIBES:
    said["connected"] = client.connect()
    said["subscribed"] = client.subscribe_orders(on_order_update=pushed.append)

limit = client.placeorder(**INFY, action="BUY", price_type="LIMIT", quantity=10, price=1400.5)
said["placed"] = limit["status"]
resting = stands(limit["orderid"], "open")
said["resting"] = [
    resting[name] for name in ("symbol", "action", "quantity", "price", "pricetype", "order_status")
]
modified = client.modifyorder(
    **INFY, order_id=limit["orderid"], action="BUY", price_type="LIMIT", quantity=5, price=1401
)
said["modified"] = modified == {"status": "success", "orderid": limit["orderid"]}
until(lambda: status_of(limit["orderid"])["quantity"] == 5)
said["cancelled"] = client.cancelorder(order_id=limit["orderid"], strategy="peer")["status"]
stands(limit["orderid"], "cancelled")

market = client.placeorder(**INFY, action="BUY", price_type="MARKET", quantity="4")
filled = stands(market["orderid"], "complete")
said["filled"] = [filled["filled_quantity"], filled["pending_quantity"], filled["average_price"] > 0]
where = {name: INFY[name] for name in ("symbol", "exchange", "product")}
said["position"] = until(lambda: int(client.openposition(strategy="peer", **where)["quantity"]))
smart = client.placesmartorder(**INFY, action="BUY", price_type="MARKET", quantity=1, position_size=6)
stands(smart["orderid"], "complete")
said["smart"] = status_of(smart["orderid"])["quantity"]
matched = until(
    lambda: (
        (a := client.placesmartorder(**INFY, action="BUY", price_type="MARKET", quantity=1, position_size=6))
        and a.get("status") == "success"
        and a
    )
)
said["matched"] = matched["message"]

orders = [
    {
        "symbol": symbol,
        "exchange": "NSE",
        "action": "BUY",
        "quantity": 1,
        "pricetype": "MARKET",
        "product": "MIS",
    }
    for symbol in ("INFY", "NOSUCH")
]
said["basket"] = [one["status"] for one in client.basketorder(strategy="peer", orders=orders)["results"]]
split = client.splitorder(**INFY, action="SELL", quantity=5, splitsize=2, price_type="LIMIT", price=1599)
said["split"] = [[one["quantity"] for one in split["results"]], split["split_size"], split["total_quantity"]]
for one in split["results"]:
    stands(one["orderid"], "open")
gone = client.cancelallorder(strategy="peer")
said["cancelled all"] = sorted(gone["canceled_orders"]) == sorted(one["orderid"] for one in split["results"])
said["closed"] = client.closeposition(strategy="peer")["message"]
until(lambda: int(client.openposition(strategy="peer", **where)["quantity"]) == 0)

book = client.orderbook()["data"]
said["book"] = [len(book["orders"]) >= 8, book["statistics"]["total_completed_orders"] >= 4]
said["trades"] = set(client.tradebook()["data"][0]) >= {
    "action", "average_price", "exchange", "orderid", "product", "quantity", "symbol", "timestamp", "trade_value",
}  # fmt: skip
said["positions"] = [row["symbol"] for row in client.positionbook()["data"]] == ["INFY"]
said["funds"] = sorted(client.funds()["data"])
said["holdings"] = sorted(client.holdings()["data"]["statistics"])
said["refused"] = "NOSUCH" in client.placeorder(**(INFY | {"symbol": "NOSUCH"}), action="BUY")["message"]
said["not found"] = "Order 1 not found" in client.orderstatus(order_id="1", strategy="peer")["message"]
said["wrong key"] = (
    "Invalid openalgo apikey" in api(api_key="guess", host=REST, ws_url=ROOT).funds()["message"]
)

if SUBSCRIBES:
    ends = until(
        lambda: [m for m in pushed if m["orderid"] == market["orderid"] and m["order_status"] == "complete"]
    )
    said["pushed"] = [ends[-1]["filled_quantity"], ends[-1]["user_id"], ends[-1]["mode"]]
    words = [m["order_status"] for m in pushed if m["orderid"] == limit["orderid"]]
    said["pushed words"] = [words[-1], set(words) <= {"open", "cancelled"}]
    said["unsubscribed"] = client.unsubscribe_orders()
    client.disconnect()
print(json.dumps(said))
