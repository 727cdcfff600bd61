"""vn.py's own MainEngine, OmsEngine and gateway classes run on this engine without a change, and do the same.

`python bench/_vnpy_env.py` makes the environment these tests need (`.venv-vnpy`: vn.py without its GUI).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import orderwire
from orderwire.engine import EventEngine

pytestmark = pytest.mark.needs("vnpy")

STORY = '''
import sys, threading, time
from datetime import datetime

from vnpy.event import Event, EVENT_TIMER
from vnpy.event import EventEngine as VnpyEngine
from vnpy.trader.constant import Direction, Exchange, Interval, Offset, OrderType, Product, Status
from vnpy.trader.engine import BaseEngine, LogEngine, MainEngine, OmsEngine
from vnpy.trader.event import EVENT_LOG, EVENT_ORDER, EVENT_TRADE
from vnpy.trader.gateway import BaseGateway
from vnpy.trader.object import (
    AccountData, CancelRequest, ContractData, OrderData, OrderRequest, PositionData, SubscribeRequest, TickData,
    TradeData,
)
from vnpy.trader.setting import SETTINGS

from orderwire.engine import EventEngine as OurEngine

SETTINGS["log.console"] = SETTINGS["log.file"] = False
event_engine = {"ours": OurEngine, "vnpy": VnpyEngine}[sys.argv[1]](1)


class DeskGateway(BaseGateway):
    """Fills every limit order in two parts from a thread of its own."""

    default_name = "DESK"
    default_setting = {}
    exchanges = [Exchange.NSE] if hasattr(Exchange, "NSE") else [Exchange.SMART]

    def __init__(self, event_engine, gateway_name):
        super().__init__(event_engine, gateway_name)
        self.count = 0
        self.open = {}

    def connect(self, setting):
        exchange = self.exchanges[0]
        self.on_contract(ContractData(
            symbol="INFY", exchange=exchange, name="INFY", product=Product.EQUITY, size=1, pricetick=0.05,
            gateway_name=self.gateway_name,
        ))
        self.on_account(AccountData(accountid="ZX1", balance=1e6, gateway_name=self.gateway_name))
        self.write_log("connected")

    def close(self):
        self.write_log("closed")  # vn.py closes gateways after the event engine has stopped

    def subscribe(self, req):
        self.on_tick(TickData(
            symbol=req.symbol, exchange=req.exchange, datetime=datetime.now(), last_price=1500,
            gateway_name=self.gateway_name,
        ))

    def send_order(self, req):
        self.count += 1
        order = req.create_order_data(str(self.count), self.gateway_name)
        self.open[order.orderid] = order
        self.on_order(order)
        if self.count % 3:
            thread = threading.Thread(target=self.fill, args=(order,))
            thread.start()
            thread.join()
        return order.vt_orderid

    def fill(self, order):
        for part, status in ((4, Status.PARTTRADED), (10, Status.ALLTRADED)):
            filled = OrderData(**{**order.__dict__, "traded": part, "status": status} | {})
            self.on_order(filled)
            self.on_trade(TradeData(
                symbol=order.symbol, exchange=order.exchange, orderid=order.orderid,
                tradeid=f"{order.orderid}.{part}", direction=order.direction, offset=order.offset, price=order.price,
                volume=part, datetime=datetime.now(), gateway_name=self.gateway_name,
            ))

    def cancel_order(self, req):
        order = self.open[req.orderid]
        self.on_order(OrderData(**{**order.__dict__, "status": Status.CANCELLED}))

    def query_account(self):
        pass

    def query_position(self):
        pass


def data_of(order):
    names = ("symbol", "exchange", "orderid", "type", "direction", "offset", "price", "volume", "traded", "status",
             "gateway_name")
    return {name: getattr(order, name) for name in names}


OrderDataMade = OrderData
def OrderData(**values):
    values = {name: value for name, value in values.items() if not name.startswith("vt_")}
    return OrderDataMade(**values)


logs, ticks, trace = [], threading.Event(), []
main = MainEngine(event_engine)
assert isinstance(main.get_engine("oms"), OmsEngine) and isinstance(main.get_engine("log"), LogEngine)
event_engine.register(EVENT_LOG, lambda event: logs.append(event.data.msg))
event_engine.register(EVENT_TIMER, lambda event: ticks.set())
event_engine.register(EVENT_ORDER, lambda event: trace.append((event.data.vt_orderid, event.data.status.name)))
event_engine.register(EVENT_ORDER + "DESK.2", lambda event: trace.append("the one order"))
gateway = main.add_gateway(DeskGateway)
main.connect({}, "DESK")
exchange = gateway.exchanges[0]
main.subscribe(SubscribeRequest("INFY", exchange), "DESK")
for number in range(9):
    sent = main.send_order(
        OrderRequest("INFY", exchange, Direction.LONG, OrderType.LIMIT, 10, 1500.0 + number, Offset.OPEN), "DESK")
for order in (3, 6):
    main.cancel_order(CancelRequest(str(order), "INFY", exchange), "DESK")
done = threading.Event()
event_engine.register("eDone", lambda event: done.set())
event_engine.put(Event("eDone"))
assert done.wait(20) and ticks.wait(20)
for order in sorted(main.get_all_orders(), key=lambda order: order.vt_orderid):
    print({name: str(value) for name, value in data_of(order).items()})
print(sorted(order.vt_orderid for order in main.get_all_active_orders()))
print(len(main.get_all_trades()), main.get_contract(f"INFY.{exchange.value}").name, main.get_account("DESK.ZX1").balance)
print(main.get_tick(f"INFY.{exchange.value}").last_price)
print(trace)
main.close()
print([message for message in logs if message in ("connected", "closed")])
'''


def tell(engine, *, python, home):
    """Run the story in vn.py's environment on the named engine; return what it printed."""
    (home / ".vntrader").mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [python, "-c", STORY, engine],
        env={**os.environ, "HOME": str(home), "PYTHONPATH": str(Path(orderwire.__file__).parents[1])},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if " | " not in line]


def test_main_engine_and_oms_engine_do_on_ours_what_they_do_on_vnpys(vnpy, tmp_path):
    ours = tell("ours", python=vnpy, home=tmp_path / "ours")
    theirs = tell("vnpy", python=vnpy, home=tmp_path / "vnpy")

    assert ours == theirs
    assert len(ours) == 14
    assert "DESK.9" in ours[9]
    assert ours[-1] == "['connected']"


SCRIPT = """
import sys, threading
from vnpy.event import EVENT_TIMER, Event, EventEngine


class Momentum:
    def __init__(self, engine):
        self.engine, self.prices, self.ticks, self.over = engine, [], 0, threading.Event()
        engine.register(EVENT_TIMER, self.on_timer)
        engine.register("eTick.", self.on_tick)
        engine.register("eTick.INFY", self.on_tick)
        engine.register("eOrder.", self.on_order)
        engine.register_general(self.on_any)
        self.seen = []

    def on_tick(self, event):
        self.prices.append(event.data)
        if len(self.prices) >= 3 and self.prices[-1] > self.prices[-3]:
            self.engine.put(Event("eOrder.", {"side": "BUY", "price": event.data}))
        return len(self.prices)

    def on_order(self, event: Event) -> None:
        self.engine.unregister("eTick.INFY", self.on_tick)
        self.engine.unregister("eTick.INFY", self.on_tick)

    def on_timer(self, event):
        self.ticks += 1
        if self.ticks == 2:
            self.engine.unregister(EVENT_TIMER, self.on_timer)
            self.over.set()

    def on_any(self, event):
        if event.type != EVENT_TIMER:
            self.seen.append((event.type, str(event.data)))


engine = EventEngine(interval=0.05)
script = Momentum(engine)
for price in (100, 99, 101, 102, 103):
    engine.put(Event(type="eTick.INFY", data=price))
engine.start()
assert script.over.wait(20)
done = threading.Event()
engine.register("eDone", lambda event: done.set())
engine.put(Event("eDone"))
assert done.wait(20)
engine.unregister_general(script.on_any)
engine.stop()
print(script.prices, script.seen[:8], script.ticks)
"""


def test_a_user_s_script_runs_with_its_import_line_changed(vnpy):
    """A handler that puts, one that returns a number, unregistering twice and inside a handler, keyword arguments."""

    def printed(script):
        done = subprocess.run(
            [vnpy, "-c", script],
            env={**os.environ, "PYTHONPATH": str(Path(orderwire.__file__).parents[1])},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    ours = printed(SCRIPT.replace("from vnpy.event import", "from orderwire.engine import"))

    assert ours == printed(SCRIPT)
    assert ours.startswith("[100, 99, 101, 102, 103] [('eTick.INFY', '100')")


def test_the_whole_public_surface_of_vnpys_engine_is_here(vnpy):
    listed = subprocess.run(
        [vnpy, "-c", "from vnpy.event import EventEngine as E; print(*[n for n in dir(E) if n[0] != '_'])"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert set(listed.stdout.split()) <= set(dir(EventEngine))
