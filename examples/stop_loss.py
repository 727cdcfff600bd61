"""Buys (or sells) and keeps a stop behind what is filled: follows every partial fill, goes when the exit fills.

    python examples/stop_loss.py --apikey … --symbol INFY --quantity 100 --price 1500 --stop-percent 1

What to do is worked out anew from the state of all orders after each event, and every order has an idempotency key
made of the trade's name. So an event that comes twice, one that never came, a lost answer or a restart in the middle
change nothing: start it again with the same --name and it goes on where it was.

The exit is yours: any order of the other side in the same symbol and product that you place, on the page or from
another program. As it fills the stop shrinks, and when nothing is left it is cancelled.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from orderwire.client import InDoubtError, Order, Orders, OrderStream, RequestRefusedError, StreamEvent
from orderwire.errors import OrderwireError

OTHER_SIDE = {"BUY": "SELL", "SELL": "BUY"}
ASK_AGAIN = 2.0
"""Seconds after which a change that has not shown is asked for again."""


@dataclass(frozen=True)
class Plan:
    """The trade: one entry, and how far behind its average price the stop stands."""

    name: str
    symbol: str
    exchange: str
    action: str
    quantity: int
    product: str
    price: float
    stop_percent: float
    tick: float

    def trigger(self, average: float) -> float:
        """Where the stop stands, on the tick."""
        away = average * self.stop_percent / 100
        return round(round((average + (away if self.action == "SELL" else -away)) / self.tick) * self.tick, 2)


@dataclass(frozen=True)
class Place:
    """A new stop is needed for so much."""

    quantity: int


@dataclass(frozen=True)
class Resize:
    """The live stop has to be as big as this, its filled part included."""

    stop: Order
    quantity: int


@dataclass(frozen=True)
class Cancel:
    """The stop has nothing to protect any more."""

    stop: Order


def decide(
    orders: Mapping[str, Order], entry_row: str, stop_rows: list[str]
) -> Place | Resize | Cancel | None:
    """Say what is to be done about the stop, from how all orders stand. Pure: the same orders, the same answer."""
    entry = orders.get(entry_row)
    if entry is None or any(row not in orders for row in stop_rows):
        return None  # placed a moment ago: its line comes with the next event
    stops = [orders[row] for row in stop_rows]
    live = [stop for stop in stops if stop.live]
    exits = sum(order.filled_quantity for order in _exits(orders, entry, stop_rows))
    bare = entry.filled_quantity - exits - sum(stop.filled_quantity for stop in stops)
    if not live:
        return Place(bare) if bare > 0 else None
    (stop,) = live
    if not stop.orderid or stop.pending_modify or stop.pending_cancel:
        return None  # the broker is at it
    if bare <= 0:
        return Cancel(stop)
    wanted = stop.filled_quantity + bare
    return Resize(stop, wanted) if stop.quantity != wanted else None


def finished(orders: Mapping[str, Order], entry_row: str, stop_rows: list[str]) -> bool:
    """Whether the entry is over and nothing of it is left open."""
    entry = orders.get(entry_row)
    over = entry is not None and not entry.live and decide(orders, entry_row, stop_rows) is None
    return over and all(row in orders and not orders[row].live for row in stop_rows)


def _exits(orders: Mapping[str, Order], entry: Order, stop_rows: list[str]) -> list[Order]:
    return [
        order
        for row, order in orders.items()
        if row not in stop_rows
        and order.action == OTHER_SIDE[entry.action]
        and (order.account, order.symbol, order.exchange, order.product)
        == (entry.account, entry.symbol, entry.exchange, entry.product)
        and order.first_seen >= entry.first_seen
    ]


@dataclass
class StopLoss:
    """Carries the decisions out. One thread."""

    plan: Plan
    orders: Orders
    lines: dict[str, Order] = field(default_factory=dict)
    entry_row: str = ""
    stop_rows: list[str] = field(default_factory=list)
    asked: dict[str, tuple[object, float]] = field(default_factory=dict)

    def enter(self) -> None:
        """Place the entry; the same name never places a second one."""
        priced = (
            {"pricetype": "LIMIT", "price": self.plan.price} if self.plan.price else {"pricetype": "MARKET"}
        )
        self.entry_row = self._place("entry", self.plan.action, self.plan.quantity, **priced)
        print(f"entry {self.entry_row}", flush=True)

    def take(self, event: StreamEvent) -> None:
        """Take in how orders stand; a snapshot is all there is of its account."""
        if event.kind == "snapshot":
            self.lines = {row: line for row, line in self.lines.items() if line.account != event.account}
        for order in event.orders:
            if order.row != order.orderid:
                self.lines.pop(order.orderid, None)  # found to be ours: the same order under its submission
            self.lines[order.row] = order

    def act(self) -> bool:
        """Do what is to be done now; False when all is over."""
        wanted = decide(self.lines, self.entry_row, self.stop_rows)
        if isinstance(wanted, Place):
            self._place_stop(wanted.quantity)
        elif wanted is not None and self._is_due(wanted):
            self._change(wanted)
        return not finished(self.lines, self.entry_row, self.stop_rows)

    def _is_due(self, wanted: Resize | Cancel) -> bool:
        """Not what was asked for a moment ago: its effect may be on its way."""
        what = wanted.quantity if isinstance(wanted, Resize) else "cancel"
        before = self.asked.get(wanted.stop.row)
        now = time.monotonic()
        if before is not None and before[0] == what and now - before[1] < ASK_AGAIN:
            return False
        self.asked[wanted.stop.row] = (what, now)
        return True

    def _place_stop(self, quantity: int) -> None:
        number = len(self.stop_rows) + 1
        trigger = self.plan.trigger(self.lines[self.entry_row].average_price)
        row = self._place(
            f"stop-{number}",
            OTHER_SIDE[self.plan.action],
            quantity,
            pricetype="SL-M",
            trigger_price=trigger,
        )
        self.stop_rows.append(row)
        print(f"stop {row}: {quantity} at {trigger}", flush=True)

    def _place(self, what: str, action: str, quantity: int, **terms: object) -> str:
        plan = self.plan
        try:
            _, row = self.orders.place(
                idempotency_key=f"{plan.name}-{what}",
                symbol=plan.symbol,
                exchange=plan.exchange,
                product=plan.product,
                action=action,
                quantity=quantity,
                **terms,
            )
        except InDoubtError as error:
            return error.submission  # its line says what becomes of it
        return row

    def _change(self, wanted: Resize | Cancel) -> None:
        stop = wanted.stop
        try:
            if isinstance(wanted, Cancel):
                self.orders.cancel(stop.orderid)
                print(f"stop {stop.row}: cancelled", flush=True)
            else:
                self.orders.modify(
                    stop.orderid,
                    quantity=wanted.quantity,
                    pricetype=stop.pricetype,
                    product=stop.product,
                    price=stop.price,
                    trigger_price=stop.trigger_price,
                )
                print(f"stop {stop.row}: {wanted.quantity}", flush=True)
        except (
            RequestRefusedError
        ) as error:  # it filled meanwhile, say: the next event tells, and we look again
            print(f"stop {stop.row}: {error}", flush=True)


def follow(stop_loss: StopLoss, stream: OrderStream) -> None:
    """Follow the orders until the trade is over."""
    seen_whole = False
    going = True
    while going:
        event = stream.next(timeout=1.0)  # a change that does not show is asked for again
        if event is not None:
            seen_whole = seen_whole or event.kind == "snapshot"
            stop_loss.take(event)
        if seen_whole:
            going = stop_loss.act()
    print("over", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:5080")
    parser.add_argument("--apikey", required=True)
    parser.add_argument("--account", default="", help="needed when the key has several")
    parser.add_argument("--name", default="", help="of this trade; the same name goes on with it")
    parser.add_argument("--symbol", required=True)
    parser.add_argument("--exchange", default="NSE")
    parser.add_argument("--product", default="MIS")
    parser.add_argument("--action", choices=("BUY", "SELL"), default="BUY")
    parser.add_argument("--quantity", type=int, required=True)
    parser.add_argument("--price", type=float, default=0.0, help="of the entry; left out: at market")
    parser.add_argument("--stop-percent", type=float, default=1.0)
    parser.add_argument("--tick", type=float, default=0.1)
    asked = parser.parse_args()
    plan = Plan(
        name=asked.name or f"{asked.symbol}-{asked.action}-{date.today():%Y%m%d}",  # noqa: DTZ011 - the user's own day
        symbol=asked.symbol,
        exchange=asked.exchange,
        action=asked.action,
        quantity=asked.quantity,
        product=asked.product,
        price=asked.price,
        stop_percent=asked.stop_percent,
        tick=asked.tick,
    )
    try:
        with (
            Orders(asked.url, apikey=asked.apikey, account=asked.account) as orders,
            OrderStream(asked.url, apikey=asked.apikey) as stream,
        ):
            stop_loss = StopLoss(plan, orders)
            stop_loss.enter()
            follow(stop_loss, stream)
    except OrderwireError as error:
        sys.exit(f"stop_loss: {error}")


if __name__ == "__main__":
    main()
