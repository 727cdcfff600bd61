"""Everything the simulated brokers share: exchange, users, ledger, faults, time, chance and settings.

All of it belongs to one asyncio loop and one thread. `run` keeps the exchange's time on the wall clock; every
broker front end calls `sync` before it reads or changes anything, so that what is due has happened.
"""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any, Final, Protocol

from brokersim.exchange import Exchange, Moment, Pace
from brokersim.faults import FaultBoard, FaultKind, Situation
from brokersim.ledger import Ledger
from brokersim.orders import ExchangeEvent, OrderSnapshot, Reason
from brokersim.timeline import Timeline
from brokersim.users import Users, demo_users, required

_LONGEST_SLEEP: Final = 60.0
_PLANNED_REFUSALS: Final = {
    Moment.RISK: (FaultKind.REJECT_RISK, "RMS:Rule: Check holdings including BTST/T1"),
    Moment.EXCHANGE: (FaultKind.REJECT_EXCHANGE, "16283 : The exchange refused the order"),
    Moment.MODIFY: (FaultKind.REFUSE_MODIFY, "16346 : Order cannot be modified"),
    Moment.CANCEL: (FaultKind.REFUSE_CANCEL, "16115 : Order cannot be cancelled"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What both brokers read; the Kite-only ones start with `kite_`. Delays in seconds.

    Replaced as a whole (`world.settings = dataclasses.replace(...)`), never changed in place.
    """

    reply_delay: float = 0.030
    push_delay: float = 0.020
    rate_limits: bool = True
    check_margin: bool = True
    kite_market_protection: bool = True
    kite_market_as_limit: bool = True
    kite_static_ip: bool = False
    kite_margin_at_once: bool = False
    kite_order_ids: str = "19"
    kite_autoslice_array: bool = False
    kite_ws_sends_open: bool = True
    kite_postback_sends_open: bool = False
    kite_pushes_risk_rejections: bool = True
    kite_tick_noise: bool = False
    kite_postback_json_type: bool = False
    kite_heartbeat: float = 1.0
    kite_limits_per_key: bool = False
    kite_echo_protection: bool = False
    second_day: bool = False


class BrokerControls(Protocol):
    """What the control API asks of a broker's front end. An empty user means everybody."""

    async def disconnect(self, user: str, *, abort: bool) -> int:
        """Cut the sockets, abruptly or with a proper close; return how many."""

    def kill_tokens(self, user: str) -> int:
        """Let the tokens die as at the day's end; open sockets are the broker's rule. Return how many."""

    def sockets(self) -> list[dict[str, Any]]:
        """Describe the sockets that are connected now."""


class World:
    """The shared object that every front end is built on."""

    def __init__(
        self,
        *,
        seed: int = 1,
        settings: Settings | None = None,
        users: Users | None = None,
        start: float | None = None,
        pace: Pace | None = None,
        liquidity: bool = True,
        walking: bool = True,
    ) -> None:
        """Create a market, its users and an empty ledger.

        `start` fixes the time (epoch seconds) for tests that advance `timeline` by hand; without it the time is
        the wall clock's as soon as `sync` or `run` is called.
        """
        self.rng = Random(seed)  # noqa: S311 - a market, not a secret
        self.settings = settings or Settings()
        self.users = users or demo_users()
        self.ledger = Ledger()
        self.faults = FaultBoard(Random(seed + 1))  # noqa: S311 - same
        self._real_time = start is None
        self._epoch = time.time() - time.monotonic()
        self.timeline = Timeline(time.time() if start is None else start)
        self.exchange = Exchange(
            self.timeline,
            Random(seed + 2),  # noqa: S311 - same
            pace=pace,
            liquidity=liquidity,
            walking=walking,
        )
        self.exchange.judge = self._judge
        self.exchange.subscribe(self._witness)
        self.controls: dict[str, BrokerControls] = {}
        self._earlier = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    def sync(self) -> None:
        """Bring the exchange's time up to the wall clock; without effect when the time is fixed."""
        if self._real_time:
            self.timeline.advance(time.monotonic() + self._epoch)

    async def run(self) -> None:
        """Keep time flowing until cancelled, running each action when it is due.

        A fixed time does not flow: whoever fixed it advances `timeline`.
        """
        if not self._real_time:
            await asyncio.Event().wait()
        self.timeline.on_earlier = self._earlier.set
        while True:
            self.sync()
            self._earlier.clear()
            due = self.timeline.next_due
            wait = _LONGEST_SLEEP if due is None else due - (time.monotonic() + self._epoch)
            await self._sleep(wait)

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._earlier.wait()
        except TimeoutError:
            return

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in the background; it is cancelled by `shut_down`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def shut_down(self) -> None:
        """Cancel what `spawn` started and wait for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def reply_delay(self) -> None:
        """Wait as long as a broker takes to answer."""
        if self.settings.reply_delay > 0:
            await asyncio.sleep(self.settings.reply_delay)

    async def push_delay(self) -> None:
        """Wait as long as a push takes from the order management system to the socket."""
        if self.settings.push_delay > 0:
            await asyncio.sleep(self.settings.push_delay)

    def later(self, seconds: float, work: Coroutine[Any, Any, None]) -> None:
        """Run something in the background after so many real seconds."""
        self.spawn(_after(seconds, work))

    def last_price(self, key: str) -> Decimal:
        """Give a contract's last price."""
        return self.exchange.quote(key).last

    def _witness(self, event: ExchangeEvent) -> None:
        self.ledger.witness(event, at=self.timeline.now)
        order = event.order
        account = self.users.accounts.get((order.broker, order.user))
        if account is None:
            return
        if event.trade is not None:
            account.book(order, quantity=event.trade.quantity, price=event.trade.price)
        checked = order.broker == "kite" and self.settings.kite_margin_at_once
        account.follow(order, self.last_price(order.instrument.key), checked=checked)

    def _judge(self, moment: Moment, order: OrderSnapshot) -> Reason | None:
        kind, text = _PLANNED_REFUSALS[moment]
        situation = Situation(
            broker=order.broker, channel="exchange", user=order.user, order_id=order.order_id
        )
        if fault := self.faults.first(situation, kind):
            message = str(fault.params.get("message", text))
            return Reason(text=message, raw=message)
        return self.margin_shortfall(order) if moment is Moment.RISK else None

    def margin_shortfall(self, order: OrderSnapshot) -> Reason | None:
        """Say which margin an order lacks; what the order itself has blocked counts as available."""
        account = self.users.accounts.get((order.broker, order.user))
        if account is None or not self.settings.check_margin:
            return None
        needed = required(order, price=self.last_price(order.instrument.key))
        available = account.available + account.blocked.get(order.uid, Decimal(0))
        if needed <= available:
            return None
        return Reason(
            text=f"Insufficient funds. Required margin is {needed:.2f} but available margin is {available:.2f}.",
            raw=f"RMS:Margin Exceeds,Required:{needed:.2f}, Available:{available:.2f} for entity "
            f"account-{order.user} across exchange across segment across product ",
        )


async def _after(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        work.close()
        raise
    await work
