"""The examples, as their readers run them; and the stop's decision, against every order of events."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from house import ZERODHA, eventually, running_house
from orderwire.client import Order, Orders

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


stop_loss = load("stop_loss")

PLAN = stop_loss.Plan(
    name="t", symbol="INFY", exchange="NSE", action="BUY", quantity=20, product="MIS", price=1500.0,
    stop_percent=1.0, tick=0.1,
)  # fmt: skip


class Broker:
    """Takes orders as the service does: one for each key, new terms at once or never."""

    def __init__(self):
        self.lines = {}
        self.keys = {}

    def place(self, *, idempotency_key, action, quantity, **terms):
        row = self.keys.setdefault(idempotency_key, f"OW{len(self.keys)}")
        if row not in self.lines:
            self.set(row, action=action, quantity=quantity, **terms)
        return self.lines[row].orderid, row

    def set(self, row, **facts):
        known = {
            "account": "acc", "broker": "wired", "row": row, "orderid": f"id-{row}", "submission": row,
            "symbol": "INFY", "exchange": "NSE", "action": "SELL", "quantity": 0, "price": 0.0,
            "trigger_price": 0.0, "pricetype": "LIMIT", "product": "MIS", "order_status": "open",
            "status": "OPEN", "filled_quantity": 0, "pending_quantity": 0, "average_price": 1500.0,
            "rejection_reason": "", "first_seen": len(self.lines),
        }  # fmt: skip
        before = self.lines.get(row)
        held = {f: getattr(before, f) for f in known} if before else known
        made = held | facts
        if made["filled_quantity"] >= made["quantity"]:
            made["order_status"] = "complete"
        self.lines[row] = Order(**made)

    def modify(self, orderid, *, quantity, **_):
        self.set(orderid.removeprefix("id-"), quantity=quantity)

    def cancel(self, orderid):
        self.set(orderid.removeprefix("id-"), order_status="cancelled")

    def fill(self, row, quantity):
        line = self.lines.get(row)
        if line is not None and line.live:
            filled = min(line.quantity, line.filled_quantity + quantity)
            self.set(row, filled_quantity=filled)


def started(broker):
    trade = stop_loss.StopLoss(PLAN, broker)
    trade.enter()
    return trade


def settle(trade, broker):
    """Tell how all orders stand, again and again, until there is nothing to do."""
    for _ in range(10):
        trade.lines = dict(broker.lines)
        trade.asked.clear()
        before = (dict(broker.lines), list(trade.stop_rows))
        trade.act()
        if (broker.lines, trade.stop_rows) == before:
            return
    raise AssertionError("it never comes to rest")


EVENTS = some.one_of(
    some.tuples(some.just("entry"), some.integers(1, 8)),
    some.tuples(some.just("exit"), some.integers(1, 8)),
    some.tuples(some.just("stop"), some.integers(1, 8)),
    some.tuples(some.sampled_from(["again", "restart", "entry cancelled"]), some.just(0)),
)


@given(events=some.lists(EVENTS, max_size=25))
@settings(max_examples=300, deadline=None)
def test_what_is_open_is_always_behind_a_stop_and_never_more(events):
    broker = Broker()
    trade = started(broker)
    broker.set("mine", quantity=1000, first_seen=99)
    for what, quantity in events:
        bare = open_quantity(broker, trade)
        if what == "entry":
            broker.fill(trade.entry_row, quantity)
        elif what == "exit" and bare > 0:
            broker.fill("mine", min(quantity, bare))
        elif what == "stop" and trade.stop_rows:
            broker.fill(trade.stop_rows[-1], min(quantity, bare))
        elif what == "entry cancelled":
            broker.set(trade.entry_row, order_status="cancelled")
        elif what == "restart":
            trade = started(broker)
        settle(trade, broker)

        stops = [broker.lines[row] for row in trade.stop_rows if broker.lines[row].live]
        assert sum(s.quantity - s.filled_quantity for s in stops) == open_quantity(broker, trade)
        assert len(stops) <= 1
    assert sum(key.endswith("entry") for key in broker.keys) == 1


def open_quantity(broker, trade):
    entry = broker.lines[trade.entry_row]
    gone = sum(o.filled_quantity for row, o in broker.lines.items() if row != trade.entry_row)
    return entry.filled_quantity - gone


def test_a_trade_is_over_when_the_entry_is_and_nothing_is_left_open():
    broker = Broker()
    trade = started(broker)
    broker.set("mine", quantity=1000, first_seen=99)
    broker.fill(trade.entry_row, 20)
    settle(trade, broker)
    assert not stop_loss.finished(trade.lines, trade.entry_row, trade.stop_rows)

    broker.fill("mine", 20)
    settle(trade, broker)

    assert broker.lines[trade.stop_rows[0]].order_status == "cancelled"
    assert stop_loss.finished(broker.lines, trade.entry_row, trade.stop_rows)


def test_what_was_asked_a_moment_ago_is_not_asked_again():
    broker = Broker()
    trade = started(broker)
    broker.fill(trade.entry_row, 5)
    settle(trade, broker)
    asked = []
    broker.modify = lambda orderid, **terms: asked.append(terms["quantity"])
    broker.fill(trade.entry_row, 3)

    for _ in range(5):
        trade.lines = dict(broker.lines)
        trade.act()

    assert asked == [8]


@contextmanager
def example(name, *words):
    """Run an example; kill it at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with running_house(tmp_path_factory.mktemp("examples")) as house:
        yield house


@pytest.fixture(scope="module")
def desk(house):
    with Orders(house.url, apikey=house.keys["asha"]) as desk:
        yield desk


def test_a_stop_follows_every_partial_fill_survives_a_kill_and_goes_with_the_exit(house, desk):
    words = ("--url", house.url, "--apikey", house.keys["asha"], "--symbol", "INFY", "--quantity", "10")
    words += ("--price", "1450", "--name", "story")

    def stop():
        stops = [order for order in desk.book() if order.pricetype == "SL-M"]
        return stops[0] if len(stops) == 1 else None

    def fill(orderid, quantity):
        house.sims.ask(
            "POST", "/market/fill", {"uid": f"kite:{orderid}", "quantity": quantity, "price": "1450"}
        )

    with example("stop_loss", *words):
        entry = eventually(lambda: next((o for o in desk.book() if o.pricetype == "LIMIT" and o.live), None))
        fill(entry.orderid, 3)
        eventually(lambda: stop() and stop().quantity == 3)
        fill(entry.orderid, 4)
        eventually(lambda: stop().quantity == 7)
    with example("stop_loss", *words) as again:
        fill(entry.orderid, 3)
        eventually(lambda: stop().quantity == 10)
        desk.place(symbol="INFY", exchange="NSE", product="MIS", action="SELL", quantity=10)
        said, _ = again.communicate(timeout=60)

    assert again.returncode == 0, said
    assert said.endswith("over\n")
    assert stop().order_status == "cancelled"
    assert stop().trigger_price == pytest.approx(1435.5)
    assert sum((order.action, order.quantity) == ("BUY", 10) for order in desk.book()) == 1


@pytest.mark.parametrize("way", ["iterator", "async", "callbacks"])
def test_orders_are_watched_in_each_way(house, way):
    words = ("--url", house.url, "--apikey", house.keys["asha"], "--with", way)
    with example("watch_orders", *words) as watching:
        made = house.place(ZERODHA, quantity=2, order_type="MARKET")
        orderid = made["order_id"]
        seen = []
        for line in watching.stdout:
            seen.append(line)
            if orderid in line and " complete " in line:
                break
        watching.send_signal(signal.SIGINT)
        watching.wait(20)

    assert f"{orderid} INFY BUY 2/2 complete" in seen[-1]


def test_a_wrong_key_is_one_clear_line(house):
    with example("watch_orders", "--url", house.url, "--apikey", "guess") as refused:
        said, _ = refused.communicate(timeout=30)

    assert refused.returncode == 1
    assert said == "watch_orders: The service does not let this API key follow orders.\n"
