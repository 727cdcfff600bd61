"""Plays whole market days on the exchange in compressed time: orders come as lines, what became of them goes as lines."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from random import Random
from typing import Any, Final

from brokersim.exchange import Exchange, Pace
from brokersim.orders import ExchangeEvent, OrderRequest, OrderSnapshot, OrderType, Side, Terms
from brokersim.timeline import Timeline

_BROKER: Final = "play"
_STEP: Final = 15.0
"""Seconds between two steps of the prices: a day of half seconds would be steps and nothing else."""
LONGEST: Final = 86_400.0


class LineError(ValueError):
    """A line that is no day of orders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """An order of the day: `at` so many seconds after the opening, `offset` percent from the price then.

    Without an offset it is a market order. `cancel_after` asks for its cancellation so many seconds later.
    """

    at: float
    user: str
    key: str
    side: Side
    quantity: int
    offset: Decimal | None = None
    cancel_after: float | None = None


def play(lines: Iterable[str], *, seed: int) -> Iterator[str]:
    """Play one day a line, each when it is asked for; docs/brokersim.md describes both lines. Raises LineError.

    The prices of a day go on from those of the day before. The same lines and seed give the same days.
    """
    prices: dict[str, Decimal] = {}
    for number, line in enumerate(lines):
        opening, seconds, orders = read_day(line)
        day = _Day(opening, Random(f"{seed}/{number}"), prices)  # noqa: S311 - a market, not a secret
        yield json.dumps({"events": day.play(orders, seconds)}, separators=(",", ":"))
        prices = day.prices()


def read_day(line: str) -> tuple[float, float, list[Planned]]:
    """Read a line: the opening (epoch seconds), how long the market is open, the orders. Raises LineError."""
    try:
        given = json.loads(line)
        orders = [_planned(each) for each in given["orders"]]
        opening, seconds = float(given["opening"]), float(given["seconds"])
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise LineError(f"no day of orders: {type(error).__name__}: {error}") from error
    if not 0 < seconds <= LONGEST or any(not 0 <= order.at <= seconds for order in orders):
        raise LineError("a day lasts up to 86400 seconds, and its orders come within it")
    return opening, seconds, orders


def _planned(given: Mapping[str, Any]) -> Planned:
    offset, cancel = given.get("offset"), given.get("cancel_after")
    return Planned(
        at=float(given["at"]),
        user=str(given["user"]),
        key=str(given["key"]),
        side=Side(given["side"]),
        quantity=int(given["quantity"]),
        offset=None if offset is None else Decimal(str(offset)),
        cancel_after=None if cancel is None else float(cancel),
    )


class _Day:
    """One day's exchange, and every step of its orders."""

    def __init__(self, opening: float, rng: Random, prices: Mapping[str, Decimal]) -> None:
        self._opening = opening
        self._timeline = Timeline(opening)
        self._exchange = Exchange(self._timeline, rng, pace=Pace(walk=_STEP))
        for key, price in prices.items():
            self._exchange.set_price(key, price, hold=False)
        self._steps: list[list[Any]] = []
        self._exchange.subscribe(self._follow)

    def play(self, orders: Iterable[Planned], seconds: float) -> list[list[Any]]:
        for number, order in enumerate(orders):
            if self._exchange.instrument(order.key) is None:
                raise LineError(f"there is no contract {order.key}")
            self._timeline.after(order.at, partial(self._submit, number, order))
        self._timeline.advance(self._opening + seconds)
        self._exchange.end_day()
        return self._steps

    def prices(self) -> dict[str, Decimal]:
        return {each.key: self._exchange.quote(each.key).last for each in self._exchange.instruments}

    def _submit(self, number: int, order: Planned) -> None:
        contract = self._exchange.instrument(order.key)
        if contract is None:
            raise LineError(f"there is no contract {order.key}")
        terms = Terms(type=OrderType.MARKET, quantity=order.quantity)
        if order.offset is not None:
            last = self._exchange.quote(order.key).last
            ticks = (last * (1 + order.offset / 100) / contract.tick).to_integral_value()
            terms = Terms(type=OrderType.LIMIT, quantity=order.quantity, price=ticks * contract.tick)
        taken = self._exchange.submit(
            OrderRequest(
                broker=_BROKER,
                order_id=str(number),
                user=order.user,
                placed_by=order.user,
                app="",
                instrument=contract,
                side=order.side,
                product="MIS",
                terms=terms,
            )
        )
        if order.cancel_after is not None:
            self._timeline.after(order.cancel_after, partial(self._cancel, taken))

    def _cancel(self, order: OrderSnapshot) -> None:
        if self._exchange.order(order.uid).live:
            self._exchange.cancel(order.uid)

    def _follow(self, event: ExchangeEvent) -> None:
        order, at = event.order, round(self._timeline.now - self._opening, 3)
        self._steps.append([int(order.order_id), at, order.stage.value, order.filled])
