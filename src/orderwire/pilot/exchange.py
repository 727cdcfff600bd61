"""Has a simulated pilot's orders played on brokersim's exchange: another program, whose time is driven, not waited for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from random import Random
from tempfile import TemporaryFile
from typing import IO, Final

from msgspec import Struct, json

from orderwire.decoding import decode
from orderwire.errors import UNDECODABLE, OrderwireError

SYMBOLS: Final = ("NSE:SBIN", "NSE:RELIANCE", "NSE:INFY")
"""Contracts that the exchange lists."""

TOLD: Final = frozenset(
    {"OPEN", "TRIGGER_PENDING", "PARTIALLY_FILLED", "FILLED", "CANCELLED", "REJECTED", "EXPIRED"}
)
"""The steps of an order that brokers tell; the others are their own business."""

ENDS: Final = frozenset({"FILLED", "CANCELLED", "REJECTED", "EXPIRED"})

_MARKET, _NEAR = 0.5, 0.35
"""Shares of the orders: at the market, and near it (taken in parts); the rest waits away from it and is cancelled."""


class PlannedOrder(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An order as `brokersim play` takes it: `at` seconds after the opening, `offset` percent from the price then."""

    at: float
    user: str
    key: str
    side: str
    quantity: int
    offset: float | None = None
    cancel_after: float | None = None


class PlannedDay(Struct, frozen=True, kw_only=True):
    """A market day's orders: when it opens (epoch seconds), and for how long."""

    opening: float
    seconds: float
    orders: tuple[PlannedOrder, ...]


class Step(Struct, frozen=True, array_like=True):
    """One step of an order on the exchange."""

    order: int
    at: float
    """Seconds after the opening."""
    stage: str
    filled: int


class _PlayedDay(Struct, frozen=True):
    events: tuple[Step, ...]


def draw_order(draw: Random, *, at: float, user: str) -> PlannedOrder:
    """Draw an order of a user's day."""
    kind, side = draw.random(), draw.choice(("BUY", "SELL"))
    away = 1 if side == "SELL" else -1
    offset, cancel = None, None
    if kind >= _MARKET:
        offset = away * (0.05 if kind < _MARKET + _NEAR else 1.0)
    if kind >= _MARKET + _NEAR:
        cancel = round(draw.uniform(60, 600), 3)
    return PlannedOrder(
        at=round(at, 3),
        user=user,
        key=draw.choice(SYMBOLS),
        side=side,
        quantity=draw.randrange(1, 60),
        offset=offset,
        cancel_after=cancel,
    )


def plan_day(opening: datetime, *, seconds: float, orders: Iterable[PlannedOrder]) -> PlannedDay:
    """Put a day's orders into their order in time."""
    return PlannedDay(
        opening=opening.timestamp(),
        seconds=seconds,
        orders=tuple(sorted(orders, key=lambda order: (order.at, order.user))),
    )


@contextmanager
def played(days: Sequence[PlannedDay], *, seed: int) -> Iterator[Iterator[tuple[Step, ...]]]:
    """Play days on the exchange; gives each one's steps in their order, as far ahead as the pipe holds.

    The same days and seed give the same steps. Raises OrderwireError when the exchange does not play them.
    """
    command = [sys.executable, "-m", "brokersim", "play", "--seed", str(seed)]
    with TemporaryFile() as plan, TemporaryFile() as said:
        plan.writelines(json.encode(day) + b"\n" for day in days)
        plan.seek(0)
        child = subprocess.Popen(command, stdin=plan, stdout=subprocess.PIPE, stderr=said)  # noqa: S603 - our own words
        try:
            yield _days(child, said, count=len(days))
        finally:
            child.kill()  # it keeps nothing
            if child.stdout is not None:
                child.stdout.close()
            child.wait()


def _days(child: subprocess.Popen[bytes], said: IO[bytes], *, count: int) -> Iterator[tuple[Step, ...]]:
    told = child.stdout or ()
    number = 0
    for number, line in enumerate(told, 1):  # noqa: B007 - counted for what follows
        try:
            yield decode(line, _PlayedDay).events
        except UNDECODABLE as error:
            raise OrderwireError(f"The simulated exchange says nonsense: {error}") from error
    if number < count:
        said.seek(0)
        words = said.read().decode(errors="replace").strip().rpartition("\n")[2] or "it said nothing"
        raise OrderwireError(
            f"The simulated exchange did not play the orders: {words}. It is part of orderwire[sim]."
        )
