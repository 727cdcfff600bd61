"""What a user of the official Python client does, start to end; prints what it saw as one JSON object.

Run by the Python that has kiteconnect: `python peer_kiteconnect.py http://host:kite-port http://host:control-port`.
Twisted's reactor cannot be started twice, so each run is one story.
"""

import json
import sys
import threading
from urllib.parse import parse_qs, urlsplit

import requests
from kiteconnect import KiteConnect, KiteTicker
from kiteconnect import exceptions as errors

ROOT, CONTROL = sys.argv[1:3]
APP = {"api_key": "demokite", "user_id": "ZD0001"}


class Updates:
    """Collects the ticker's callbacks and lets the story wait for them."""

    def __init__(self):
        self.rows, self.errors, self.codes = [], [], []
        self.changed = threading.Condition()
        self.connected = threading.Event()
        self.again = threading.Event()

    def on_connect(self, _ws, _response):
        (self.again if self.connected.is_set() else self.connected).set()

    def on_order(self, _ws, row):
        with self.changed:
            self.rows.append(row)
            self.changed.notify_all()

    def on_error(self, _ws, code, reason):
        with self.changed:
            self.errors.append([code, reason])
            self.changed.notify_all()

    def wait(self, met, seconds=15):
        with self.changed:
            assert self.changed.wait_for(met, seconds), (self.rows, self.errors)

    def of(self, order_id):
        return [row for row in self.rows if row["order_id"] == order_id]

    def wait_for(self, order_id, status):
        self.wait(lambda: any(row["status"] == status for row in self.of(order_id)))


def control(path, **body):
    answer = requests.post(CONTROL + path, json=body, timeout=5).json()
    assert answer["status"] == "ok", answer
    return answer["data"]


def log_in(kite):
    page = requests.get(f"{ROOT}/connect/login?v=3&api_key=demokite", timeout=5)
    assert "<form" in page.text
    form = APP | {"password": "demo"}
    answer = requests.post(f"{ROOT}/connect/login", data=form, allow_redirects=False, timeout=5)
    query = parse_qs(urlsplit(answer.headers["Location"]).query)
    session = kite.generate_session(query["request_token"][0], api_secret="demokite-secret")
    kite.set_access_token(session["access_token"])
    return session


def connect(kite, updates):
    ticker = KiteTicker("demokite", kite.access_token, root=ROOT.replace("http", "ws"))
    ticker.on_order_update = updates.on_order
    ticker.on_connect = updates.on_connect
    ticker.on_error = updates.on_error
    ticker.connect(threaded=True)
    assert updates.connected.wait(15)
    return ticker


def refused(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except errors.KiteException as error:
        return [type(error).__name__, error.code, str(error)]
    return None


def buy(kite, **changes):
    order = {
        "variety": "regular",
        "exchange": "NSE",
        "tradingsymbol": "SBIN",
        "transaction_type": "BUY",
        "quantity": 10,
        "product": "CNC",
        "order_type": "LIMIT",
        "price": 800,
    } | changes
    return kite.place_order(**order)


def story():
    kite, updates, seen = KiteConnect("demokite", root=ROOT), Updates(), {}
    requests.patch(CONTROL + "/settings", json={"rate_limits": False}, timeout=5)
    session = log_in(kite)
    seen["login_time"] = type(session["login_time"]).__name__
    ticker = connect(kite, updates)
    seen["instruments"] = [len(kite.instruments()), len(kite.instruments("NFO"))]
    seen["profile"] = kite.profile()["user_id"]
    seen["margin"] = kite.margins("equity")["net"]

    filled = buy(kite, price=820.5, tag="peer")
    updates.wait_for(filled, "COMPLETE")
    seen["filled"] = [row["status"] for row in updates.of(filled)]
    seen["history"] = [row["status"] for row in kite.order_history(filled)][:4]
    seen["traded"] = sum(row["quantity"] for row in kite.order_trades(filled))
    seen["book"] = [[row["status"], row["tag"]] for row in kite.orders()]
    seen["position"] = kite.positions()["net"][0]["quantity"]
    seen["timestamp"] = type(kite.orders()[0]["order_timestamp"]).__name__

    protected = buy(kite, order_type="MARKET", price=None, market_protection=-1)
    updates.wait_for(protected, "COMPLETE")

    resting = buy(kite)
    updates.wait_for(resting, "OPEN")
    kite.modify_order("regular", resting, quantity=12, price=801)
    updates.wait_for(resting, "UPDATE")
    kite.cancel_order("regular", resting)
    updates.wait_for(resting, "CANCELLED")
    row = next(row for row in kite.orders() if row["order_id"] == resting)
    seen["cancelled"] = [row["status"], row["quantity"], row["price"], row["pending_quantity"]]

    seen["slices"] = len(
        kite.place_autoslice_order(
            "regular", "NFO", "NIFTY26AUG24400CE", "BUY", 65 * 60, "NRML", "LIMIT", price=200
        )["children"]
    )
    leg = {"exchange": "NSE", "tradingsymbol": "INFY", "transaction_type": "BUY", "quantity": 1}
    leg |= {"order_type": "LIMIT", "product": "CNC", "price": 1400}
    trigger = kite.place_gtt("single", "INFY", "NSE", [1400.0], 1500, [leg])["trigger_id"]
    seen["gtt"] = [kite.get_gtt(trigger)["status"], len(kite.get_gtts())]
    seen["ltp"] = kite.ltp("NSE:SBIN")["NSE:SBIN"]["instrument_token"]

    seen["refusals"] = [
        refused(buy, kite, quantity=0)[:2],
        refused(buy, kite, order_type="MARKET", price=None)[:2],
        refused(kite.cancel_order, "regular", filled)[:2],
        refused(kite.order_history, "1")[:2],
    ]
    control("/faults", kind="html_error", operation="orders.book", count=1)
    seen["html"] = refused(kite.orders)[0]
    control("/faults", kind="rate_limit", operation="orders.book", count=1)
    seen["limited"] = refused(kite.orders)[:2]

    control("/kite/frames", user="ZD0001", text='{"type":"error","data":"broken"}')
    updates.wait(lambda: [0, "broken"] in updates.errors)
    control("/sockets/disconnect", broker="kite", user="ZD0001", mode="abort")
    assert updates.again.wait(15), "no reconnect"
    last = buy(kite, price=820.5, quantity=1)
    updates.wait_for(last, "COMPLETE")

    seen["logged_out"] = kite.invalidate_access_token()
    seen["dead"] = refused(kite.orders)[:2]
    ticker.stop_retry()
    ticker.close()
    return seen


print(json.dumps(story()))
