"""One schedule: orders live, messages about them are lost, doubled and delayed, and the service must still be right.

A discrete-event simulation. Clock, chance and transport are given; everything between the broker's bytes and the
client's screen is the service's own code, but for the feed's timetable, which follows design §8 here.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from random import Random
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, delete

from orderwire.brokers.zerodha import postbacks
from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import OrderChange, OrderView, Submission, SubmissionState
from orderwire.core.orders import (
    AccountId,
    Channel,
    OrderId,
    OrderRequest,
    OrderUpdate,
    Trade,
    session_date,
)
from orderwire.core.recovery import hint_due
from orderwire.errors import StoreBusyError
from orderwire.feeds.poller import BookPoller
from orderwire.store import inbox, outbox, schema
from orderwire.web import payloads
from simulation import truth, weather
from simulation.house import Parser, Service, WorldClock, WorldDatabase, finished
from simulation.rivals import Rival, all_rivals
from simulation.truth import Life, Moment
from simulation.weather import Weather
from simulation.wording import SECRET, WRITERS, KiteWriter

PATIENCE = 25.0
"""Seconds after the last read of the book during which late messages may still come, and be answered."""

MOST_READS = 60
"""Reads a quiet world may ask for before it counts as never quiet."""

FIELDS = ("status", "filled", "average", "quantity", "terms")


@dataclass(slots=True)
class Outcome:
    """What became of one schedule."""

    seed: int
    digest: str = ""
    lives: int = 0
    arrivals: int = 0
    changes: int = 0
    wrong: dict[str, Counter[str]] = field(default_factory=dict)
    """By whom ("orderwire", or a rival's name), how often each field of an order was wrong at the end."""
    regressions: Counter[str] = field(default_factory=Counter)
    """By whom: filled fell, or a terminal state revived, where somebody could see it."""
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    """What must never be, in words."""
    story: list[str] = field(default_factory=list)


class Screen:
    """A client as the pages and `OrderStream` are: it applies what follows on, and asks anew where something misses."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self.number = number
        self.sid = ""
        self.cursor: tuple[str, int] | None = None
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.flight: deque[tuple[str, Any, Callable[..., None]]] = deque()
        self.acks: deque[Callable[..., None]] = deque()
        self.lag = 0.0
        self.stale = False

    def connect(self, sid: str) -> None:
        self.sid = sid
        self.flight.clear()
        self.acks.clear()

    def cursors(self, account: str) -> dict[str, Any]:
        if self.cursor is None:
            return {}
        epoch, sequence = self.cursor
        return {"cursors": {account: {"epoch": epoch, "sequence": sequence}}}

    def take(self) -> bool:
        """Take the next delivery off the wire; False when it does not follow on from what came before."""
        name, payload, acknowledge = self.flight.popleft()
        self.acks.append(acknowledge)
        if name == "snapshot":
            self.cursor = (payload["epoch"], payload["sequence"])
            fresh = {("order", row["row"]): row for row in payload["orders"]}
            for key, row in fresh.items():
                self._world.seen(self.rows.get(key), row)
            self.rows = fresh | {("trade", row["row"]): row for row in payload["trades"]}
            return True
        if name == "feed_status":
            return True
        return self._apply(name.removesuffix("_update"), payload)

    def _apply(self, kind: str, payload: Any) -> bool:
        if self.cursor is None or self.cursor[0] != payload["epoch"]:
            return False
        if payload["sequence"] <= self.cursor[1]:
            return True
        if payload["previous"] != self.cursor[1]:
            return False
        self.cursor = (payload["epoch"], payload["sequence"])
        if kind == "order":
            self._world.seen(self.rows.get((kind, payload["row"])), payload)
        self.rows[kind, payload["row"]] = payload
        return True


class Feed:
    """An account's broker as the poller sees it, and the timetable of its reads."""

    def __init__(self, world: World, service: Service) -> None:
        self._world = world
        self._service = service
        self.parser = Parser(broker=world.broker, account=world.account, clock=world.clock)
        self.poller = BookPoller(self, held=service.book)  # type: ignore[arg-type]  # the part of an adapter that it uses
        self.histories: set[OrderId] = set()
        self.requests: list[tuple[float, float]] = []
        """When reads are due, and when each is to begin."""
        self._hint_read_at: float | None = None
        service.book.on_verify = self.verify

    # what an adapter does

    def on_order(self, update: OrderUpdate) -> None:
        self._service.engine.put(Event(EventType.ORDER_UPDATE, update))

    def on_trade(self, trade: Trade) -> None:
        self._service.engine.put(Event(EventType.TRADE_UPDATE, trade))

    async def order_book(self) -> list[OrderUpdate]:
        rows = self.parser.orders(self._world.order_book())
        self._world.heard(rows)
        return rows

    async def order_history(self, order_id: OrderId) -> list[OrderUpdate]:
        rows = self.parser.history(self._world.order_history(order_id))
        self._world.heard(rows)
        return rows

    async def trade_book(self) -> list[Trade]:
        return self.parser.trades(self._world.trade_book())

    # the timetable

    def verify(self, _account: AccountId, order_id: OrderId, reason: str) -> None:
        if reason.startswith("tie"):
            self.histories.add(order_id)
        now = self._world.clock.seconds
        due, planned = hint_due(
            reason, now=now, last_hint_read=self._hint_read_at, planned=(due for due, _ in self.requests)
        )
        if not planned:
            self.request(after=due - now)
        self._world.note(f"verify {order_id}: {reason}")

    def request(self, *, after: float = 0.0) -> None:
        if not self._world.weather.reads:
            return
        due = self._world.clock.seconds + after
        begins = due + self._world.transit()
        self.requests.append((due, begins))
        self._world.at(begins, self.read_if_due)

    def read_if_due(self) -> None:
        now = self._world.clock.seconds
        if not any(begins <= now for _, begins in self.requests) or not self._current():
            return
        self.requests = [request for request in self.requests if request[0] > now]
        if self._world.read_fails():
            self.request(after=0.5)
            return
        self._hint_read_at = now
        self.read()

    def read(self) -> None:
        """Read the books, as the supervisor does: orders, then histories asked for, then trades that are missing."""
        self._world.count("reads")
        self._world.note("read of the order book")
        finished(self.poller.read_orders())
        for order_id in sorted(self.histories):
            finished(self.poller.read_history(order_id))
            self._world.count("history reads")
        self.histories.clear()
        if self.poller.lacks_trades:
            finished(self.poller.read_trades())
        self._world.step()

    def _current(self) -> bool:
        return self._world.feed is self


class World:
    """One seed's schedule, and its run."""

    def __init__(
        self, seed: int, database: WorldDatabase, *, given: Weather | None = None, story: bool
    ) -> None:
        self.outcome = Outcome(seed=seed)
        self.account = AccountId(f"S{seed}")
        self.clock: WorldClock = database.clock  # type: ignore[assignment]  # `open_database` gave it
        self._database = database
        self._rng = Random(f"{seed}/transit")
        self._hash = hashlib.blake2b(digest_size=16)
        self._story = story
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._made = 0
        self._sids = 0
        self._service: Service | None = None
        self.feed: Feed | None = None
        self._rivals: dict[str, Rival] = all_rivals()
        self._told: dict[str, dict[str, Any]] = {}
        self._calm_from = float("inf")
        self._crashed = False
        self._settle(seed, given)

    def _settle(self, seed: int, given: Weather | None) -> None:
        rng = Random(f"{seed}/truth")
        self.broker = rng.choice(("zerodha", "jainam"))
        self._writer = WRITERS[self.broker]
        skew, chatty = rng.uniform(-1.5, 1.5), rng.random() < 0.3
        self.lives: dict[str, Life] = {}
        for number in range(rng.choices((1, 2, 3), (60, 28, 12))[0]):
            life = truth.invent(
                rng, broker=self.broker, number=number, start=3 + rng.random() * 4, skew=skew, chatty=chatty
            )
            self.lives[life.order_id] = life
        self.outcome.lives = len(self.lives)
        self.end = max(life.last.at for life in self.lives.values()) + 0.2 + rng.random() * 2
        self.weather = given or weather.draw(Random(f"{seed}/weather"), end=self.end)
        self._screens = [Screen(self, number) for number in range(rng.choice((1, 1, 2)))]

    # --- time -----------------------------------------------------------------------------------------

    def at(self, seconds: float, act: Callable[..., None], *given: Any) -> None:
        self._made += 1
        heapq.heappush(self._heap, (seconds, self._made, act, given))

    def transit(self) -> float:
        return 0.01 + self._rng.random() * 0.2

    def note(self, text: str) -> None:
        line = f"{self.clock.seconds:9.3f} {text}"
        self._hash.update(line.encode())
        if self._story:
            self.outcome.story.append(line)

    def count(self, what: str, number: int = 1) -> None:
        self.outcome.counts[what] += number

    def fault(self, text: str) -> None:
        self.note(f"FAULT {text}")
        self.outcome.faults.append(text)

    # --- the run --------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Let the world go by, then judge it."""
        self.clock.seconds = 0.0
        self._database.busy = self._is_busy
        try:
            self._plan()
            while self._heap:
                seconds, _, act, given = heapq.heappop(self._heap)
                self.clock.seconds = max(self.clock.seconds, seconds)
                act(*given)
            self._judge()
        finally:
            self._database.busy = bool
            self._wipe()
        self.outcome.digest = self._hash.hexdigest()
        return self.outcome

    def _is_busy(self) -> bool:
        return self._service is not None and self.weather.is_busy(self.clock.seconds)

    def _plan(self) -> None:
        self._start()
        for life in self.lives.values():
            self._plan_placing(life)
            for moment in life.moments:
                self._plan_moment(life, moment)
        self._plan_feed()
        for screen in self._screens:
            self.at(self._rng.random() * 5, self._join, screen)
        self.at(self.end, self._last_read)
        self.at(self.end + PATIENCE, self._close)

    def _plan_feed(self) -> None:
        seconds = self.weather.read_every * self._rng.random()
        while self.weather.reads and self.weather.read_every and seconds < self.end:
            self.at(seconds, self._routine)
            seconds += self.weather.read_every
        for _, up in self.weather.outages:
            self.at(up + self.transit(), self._routine)
        for goes, back, crash in self.weather.restarts:
            if back < self.end:
                self.at(goes, self._stop, crash)
                self.at(back, self._start)
        if self.weather.busy:
            for second in range(int(self.end) + 8):
                self.at(second + 0.5, self._tick)

    def _routine(self) -> None:
        if self.feed is not None and self.weather.reads and self.clock.seconds < self.end:
            self.feed.request()

    def _tick(self) -> None:
        if self._service is not None:
            self._service.engine.put(Event(EventType.TIMER))
            self.step()

    def _start(self) -> None:
        self.note("the service starts")
        self.count("starts")
        self._service = Service(
            self._database,
            self.clock,
            epoch=f"e{self.outcome.seed}",
            emit=self._emit,
            most=self._rng.choice((1, 3, 50)),
        )
        self._service.engine.register(EventType.ORDER_CHANGED, self._changed)
        self._service.engine.register(EventType.ALERT, self._alerted)
        self.feed = Feed(self, self._service)
        self.feed.request()

    def _stop(self, crash: bool) -> None:
        service, self._service, self.feed = self._service, None, None
        if service is None:
            return
        self.note("the service is killed" if crash else "the service stops")
        if crash:
            self.count("crashes")
            service.engine.lose()
        else:
            service.engine.step()
        self._look_inside(service)
        for screen in self._screens:
            if screen.sid:
                self._part(screen, screen.sid)

    def _look_inside(self, service: Service) -> None:
        for letter in service.engine.dead_letters:
            self.fault(f"{letter.handler} raised {letter.error!r}")

    def step(self) -> None:
        if self._service is not None:
            self._service.engine.step()

    # --- what the broker sends ------------------------------------------------------------------------

    def _plan_moment(self, life: Life, moment: Moment) -> None:
        if not moment.push:
            return
        told = self._writer.push(life, moment)
        self._rng.shuffle(told)
        for kind, text in told:
            for at in self._copies(moment.at):
                self.at(at, self._arrive, life.order_id, kind, text)
        if self.broker == "zerodha" and self._rng.random() < self.weather.hints and moment.push != "OPEN":
            self._plan_postback(life, moment)

    def _copies(self, sent: float) -> Iterable[float]:
        """Return when a message arrives: not at all, once or several times, on time or late."""
        rng, weather_ = self._rng, self.weather
        times = []
        if rng.random() >= weather_.drop:
            times.append(sent + self.transit() + self._lateness())
        while rng.random() < weather_.twice and len(times) < 4:
            times.append(sent + self.transit() + rng.random() * weather_.delay)
        return [at for at in times if not weather_.is_down(at)]

    def _lateness(self) -> float:
        late = self._rng.random() < self.weather.late
        return self._rng.random() * self.weather.delay if late else 0.0

    def _arrive(self, order_id: str, kind: str, text: bytes) -> None:
        if self._service is None or self.feed is None:
            self.count("arrived at nobody")
            return
        self.outcome.arrivals += 1
        said = self.feed.parser.push(kind, text)
        self.heard(one for one in said if isinstance(one, OrderUpdate))
        for one in said:
            if isinstance(one, OrderUpdate):
                self.note(f"stream {order_id} {kind} {one.raw_status} filled {one.filled_quantity}")
                self.feed.on_order(one)
            else:
                self.feed.poller.heard(one)
                self.feed.on_trade(one)
        self._step_perhaps()

    def _step_perhaps(self) -> None:
        if self._rng.random() >= self.weather.patient:
            self.step()
        else:
            self.at(self.clock.seconds + self._rng.random() * 0.3, self.step)

    def heard(self, updates: Iterable[OrderUpdate]) -> None:
        """Let the rivals hear what the service hears."""
        for update in updates:
            for rival in self._rivals.values():
                rival.hear(update)

    # --- postbacks ------------------------------------------------------------------------------------

    def _plan_postback(self, life: Life, moment: Moment) -> None:
        writer = KiteWriter()
        body = writer.postback(life, moment)
        for at in self._copies(moment.at):
            self.at(at, self._hint, body)
        if self._rng.random() < self.weather.altered:
            lies = self._rng.choice(
                (
                    {"status": "COMPLETE", "filled_quantity": moment.quantity, "average_price": 1},
                    {"status": "REJECTED"},
                    {"status": "CANCELLED", "quantity": 1},
                    {"filled_quantity": 0, "status": "OPEN"},
                    {},
                )
            )
            self.at(moment.at + self._rng.random() * 10, self._hint, writer.altered(body, lies))
            self.count("altered or repeated postbacks")

    def _hint(self, body: bytes) -> None:
        """Take a postback as `web/postbacks.py` does: verified, in the inbox, then a claim of tier C."""
        if self._service is None or self.feed is None:
            return
        hint = postbacks.read_postback(body, secrets=[SECRET])
        received = self.clock.time_ns()

        def work(connection: Connection) -> inbox.Taken:
            return inbox.record(
                connection,
                account=self.account,
                order_id=hint.order_id,
                claimed_time=hint.broker_time,
                received_ns=received,
                raw=body,
            )

        try:
            taken = self._database.write(work)
        except StoreBusyError:
            return
        self.note(f"postback {hint.order_id} {taken}")
        if taken is inbox.Taken.STORED:
            self.count("postbacks")
            self._service.engine.put(Event(EventType.ORDER_UPDATE, self._claim(hint.order_id, received)))
            self.feed.verify(self.account, hint.order_id, "hint: a postback came")
            self._step_perhaps()

    def _claim(self, order_id: OrderId, received: int) -> OrderUpdate:
        return OrderUpdate(
            account=self.account,
            broker=self.broker,
            order_id=order_id,
            channel=Channel.POSTBACK,
            trading_date=session_date(self.clock.now()),
            raw_status="",
            status=None,
            phase=-1,
            symbol="",
            exchange="",
            side="",
            order_type="",
            product="",
            quantity=0,
            received_ns=received,
        )

    # --- what the broker answers ----------------------------------------------------------------------

    def _as_of(self) -> float:
        """Return the moment a read shows: the past, when the broker's books lag behind its stream."""
        now = self.clock.seconds
        return now if now >= self._calm_from else now - self._rng.random() * self.weather.lag

    def read_fails(self) -> bool:
        return self.clock.seconds < self._calm_from and self._rng.random() < self.weather.failing

    def order_book(self) -> bytes:
        at = self._as_of()
        rows = [(life, moment) for life in self.lives.values() if (moment := life.as_of(at)) is not None]
        self._rng.shuffle(rows)
        for life, moment in rows:
            self.note(f"  row {life.order_id} {moment.word} filled {moment.filled}")
        return self._writer.book(rows)

    def order_history(self, order_id: str) -> bytes:
        at = self._as_of()
        life = self.lives[order_id]
        return self._writer.history(life, [moment for moment in life.moments if moment.at <= at])

    def trade_book(self) -> bytes:
        at = self._as_of()
        return self._writer.trades(
            (life, moment, moment.execution)
            for life in self.lives.values()
            for moment in life.moments
            if moment.at <= at and moment.execution is not None
        )

    # --- our own orders -------------------------------------------------------------------------------

    def _plan_placing(self, life: Life) -> None:
        if self._rng.random() >= 0.5:
            return
        first = life.moments[0]
        sent = first.at - 0.05
        request = OrderRequest(
            symbol="INFY",
            exchange="NSE",
            side=life.side,
            quantity=first.quantity,
            order_type=first.order_type,
            price=first.price,
            trigger_price=first.trigger,
            tag=life.tag,
        )
        self.at(sent, self._submit, life, request)

    def _submit(self, life: Life, request: OrderRequest) -> None:
        service = self._service
        if service is None or self._is_busy() or service.book.held_back:
            return
        submission = Submission(
            id=life.tag,
            account=self.account,
            broker=self.broker,
            state=SubmissionState.SENDING,
            request=request,
            created=self.clock.now(),
        )
        written: Future[OrderChange] = service.book.submit(submission)
        service.engine.step()
        written.result(0)
        self.count("submissions")
        answers = self._rng.random()
        known = SubmissionState.UNKNOWN if answers < 0.2 else SubmissionState.ACCEPTED
        self.at(life.moments[0].at + self._rng.random() * 2, self._answered, service, submission, life, known)

    def _answered(self, service: Service, submission: Submission, life: Life, state: SubmissionState) -> None:
        if service is not self._service:
            return  # the process that waited for the answer is gone
        accepted = state is SubmissionState.ACCEPTED
        decided = replace(
            submission,
            state=state,
            order_id=OrderId(life.order_id if accepted else ""),
            reason="" if accepted else "no answer in time",
            decided=self.clock.now(),
        )
        self.note(f"place answered {state} {life.order_id}")
        service.book.submit(decided)
        self._step_perhaps()

    # --- what everybody sees --------------------------------------------------------------------------

    def _changed(self, event: Event) -> None:
        change: OrderChange = event.data
        self.outcome.changes += 1
        if change.order is None:
            return
        row = payloads.order_fields(change.order)
        self.note(
            f"told #{change.sequence} {row['orderid']} {row['status']} {row['filled_quantity']}"
            f" @{row['average_price']} of {row['quantity']} at {row['price']} r{row['revision']}"
        )
        if change.source == Channel.POSTBACK:
            self.count("changes by a postback")
            self.fault(f"{row['orderid']} was changed by a postback")
        self._ahead_of_truth(change.order)
        self.seen(self._told.get(row["row"]), row)
        self._told[row["row"]] = row

    def _ahead_of_truth(self, shown: OrderView) -> None:
        life = self.lives.get(shown.order_id)
        if life is None:
            return
        moment = life.as_of(self.clock.seconds)
        ended = moment is not None and moment.status in truth.ENDINGS
        if (shown.status.terminal and not ended) or shown.filled_quantity > (moment.filled if moment else 0):
            self.fault(f"{shown.order_id} is shown {shown.status} {shown.filled_quantity} before it was so")

    def _alerted(self, event: Event) -> None:
        kind = event.data.kind
        self.count(f"alert: {kind}")
        if kind not in {"held", "released", "corrected"}:
            self.fault(f"alert: {kind}: {event.data.text}")

    def seen(self, before: dict[str, Any] | None, now: dict[str, Any]) -> None:
        """Compare what is shown of a row with what was shown before it; no correction excuses, for nothing goes back here."""
        if before is None:
            return
        fell = now["filled_quantity"] < before["filled_quantity"]
        revived = before["status"] in truth.ENDINGS and now["status"] not in truth.ENDINGS
        if fell or revived:
            self.outcome.regressions["orderwire"] += 1
            self.fault(f"{now['orderid']} went from {before['status']} {before['filled_quantity']} back")

    # --- clients --------------------------------------------------------------------------------------

    def _join(self, screen: Screen) -> None:
        """Connect a client, and decide when it is cut off again."""
        if self._service is None:
            self.at(self.clock.seconds + 0.3, self._join, screen)
            return
        self._sids += 1
        sid = f"c{self._sids}"
        screen.connect(sid)
        screen.lag = self._rng.choice((0.0, 0.02, 0.5, 3.0))
        self._service.connect(sid, self.account)
        self.count("connections")
        self._follow(screen, sid)
        if self.clock.seconds < self.end + 5:
            self.at(self.clock.seconds + self._rng.random() * 12, self._cut, screen, sid)

    def _follow(self, screen: Screen, sid: str) -> None:
        if self._service is not None and screen.sid == sid:
            self._service.realtime.follow(sid, screen.cursors(self.account))

    def _emit(self, sid: str, name: str, payload: Any, acknowledge: Callable[..., None]) -> None:
        for screen in self._screens:
            if screen.sid == sid:
                screen.flight.append((name, payload, acknowledge))
                self.at(self.clock.seconds + self._rng.random() * screen.lag, self._deliver, screen, sid)

    def _deliver(self, screen: Screen, sid: str) -> None:
        if screen.sid != sid or not screen.flight:
            return
        if not screen.take():
            self.count("gaps")
            self.at(self.clock.seconds + screen.lag, self._follow, screen, sid)
        self.at(self.clock.seconds + self._rng.random() * screen.lag, self._acknowledge, screen, sid)

    def _acknowledge(self, screen: Screen, sid: str) -> None:
        if screen.sid == sid and screen.acks and self._service is not None:
            screen.acks.popleft()({})

    def _cut(self, screen: Screen, sid: str) -> None:
        if screen.sid != sid:
            return
        if self._rng.random() < 0.3:
            self._compare(screen)
        self._part(screen, sid)
        self.at(self.clock.seconds + self._rng.random() * 3, self._join, screen)

    def _part(self, screen: Screen, sid: str) -> None:
        """Lose what is on the wire; the server notices sooner or later."""
        screen.sid = ""
        self.count("disconnections")
        service = self._service
        if service is not None:
            self.at(self.clock.seconds + self._rng.random() * 2, service.realtime.disconnect, sid)
        else:
            self.at(self.clock.seconds + self._rng.random(), self._join, screen)

    def _compare(self, screen: Screen) -> None:
        """Let the wire run empty, and compare the screen with the server's snapshot."""
        service = self._service
        if service is None or not screen.sid or self._is_busy():
            return
        service.engine.step()
        if service.book.held_back:
            return
        for _ in range(10_000):
            if screen.flight:
                if not screen.take():
                    self.count("gaps")
                    self._follow(screen, screen.sid)
            elif screen.acks:
                screen.acks.popleft()({})
            else:
                break
        held = service.log.snapshot(self.account)
        rows = {("order", row["row"]): row for row in map(payloads.order_fields, held.orders)}
        rows |= {("trade", row["row"]): row for row in map(payloads.trade_fields, held.trades)}
        self.count("comparisons")
        if _bare(screen.rows) != _bare(rows):
            self.count("differences")
            self.fault(f"client {screen.number} shows something else than the server's snapshot")

    # --- the end --------------------------------------------------------------------------------------

    def _last_read(self) -> None:
        """The one read of the order book that must repair everything."""
        if not self.weather.reads or self.feed is None:
            return
        self._calm_from = self.clock.seconds
        self.note("the last read")
        self.feed.read()
        self._mark_first_answer()
        self.outcome.counts["reads before the last"] = self.outcome.counts["reads"]

    def _mark_first_answer(self) -> None:
        """Count what one read alone had not repaired: ties that only the history decides."""
        if self._service is None or self._service.book.held_back:
            return
        shown = self._shown()
        for life in self.lives.values():
            if any(_mistakes(life, shown).values()):
                self.count("settled by the read it asked for")

    def _close(self) -> None:
        for screen in self._screens:
            if not screen.sid:
                self._join(screen)
            self._compare(screen)
            screen.sid = ""

    def _judge(self) -> None:
        service = self._service
        if service is None:
            self.fault("the service is down at the end")
            return
        self._look_inside(service)
        asked = self.outcome.counts["reads"] - self.outcome.counts["reads before the last"]
        if asked > MOST_READS:
            self.fault(f"{asked} reads after the last one: it is never content")
        shown = self._shown()
        for life in self.lives.values():
            for name, wrong in _mistakes(life, shown).items():
                self._blame("orderwire", name, wrong)
            self._judge_rivals(life)
        for name, rival in self._rivals.items():
            self.outcome.regressions[name] += rival.regressions
        if self.weather.reads:
            self._judge_trades()
        for name, number in service.book.tallies().items():
            self.count(f"book: {name}", number)

    def _blame(self, who: str, field_name: str, wrong: str) -> None:
        tally = self.outcome.wrong.setdefault(who, Counter())
        tally["orders"] += field_name == "status"
        if wrong:
            tally[field_name] += 1
            if who == "orderwire" and self.weather.reads:
                self.fault(wrong)

    def _shown(self) -> dict[str, OrderView]:
        return {view.order_id: view for view in outbox.snapshot(self._database, self.account).orders}

    def _judge_rivals(self, life: Life) -> None:
        right = _truth_of(life)
        for name, rival in self._rivals.items():
            kept = rival.orders.get(life.order_id)
            found: dict[str, object] = dict.fromkeys(FIELDS)
            if kept is not None:
                terms = (kept.price, kept.trigger)
                values = (kept.status.value, kept.filled, kept.average, kept.quantity, terms)
                found = dict(zip(FIELDS, values, strict=True))
            for field_name in FIELDS:
                self._blame(name, field_name, "" if found[field_name] == right[field_name] else "wrong")

    def _judge_trades(self) -> None:
        held = outbox.snapshot(self._database, self.account).trades
        shown = sorted((trade.order_id, trade.trade_id, trade.quantity, trade.price) for trade in held)
        made = sorted(
            (life.order_id, moment.execution.trade_id, moment.execution.quantity, moment.execution.price)
            for life in self.lives.values()
            for moment in life.moments
            if moment.execution is not None
        )
        self.count("executions", len(made))
        if shown != made:
            self.fault("the trade book is not the broker's")

    def _wipe(self) -> None:
        def work(connection: Connection) -> None:
            for table in (
                schema.inbox,
                schema.orders,
                schema.submissions,
                schema.trades,
                schema.outbox,
                schema.ledgers,
                schema.dead_letters,
            ):
                connection.execute(delete(table))

        self._service = None
        self._database.write(work)


def _mistakes(life: Life, page: Mapping[str, OrderView]) -> dict[str, str]:
    """Return for each field of an order what is wrong with it on the server's page."""
    shown = page.get(life.order_id)
    if shown is None:
        return dict.fromkeys(FIELDS, f"{life.order_id} is not there")
    values = (
        shown.status.value,
        shown.filled_quantity,
        shown.average_price,
        shown.quantity,
        (shown.price, shown.trigger_price),
    )
    found = dict(zip(FIELDS, values, strict=True))
    return {
        name: "" if found[name] == right else f"{life.order_id}: {name} is {found[name]}, not {right}"
        for name, right in _truth_of(life).items()
    }


def _truth_of(life: Life) -> dict[str, object]:
    last = life.last
    terms = (last.price, last.trigger)
    return dict(zip(FIELDS, (last.status, last.filled, last.average, last.quantity, terms), strict=True))


def _bare(rows: dict[tuple[str, str], dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return rows without what belongs to the delivery, and without `checking`, which spends no sequence."""
    return {key: {name: row[name] for name in row if name not in _DELIVERY} for key, row in rows.items()}


_DELIVERY = frozenset(
    {"epoch", "sequence", "version", "event_id", "previous", "stamps", "checking", "source"}
)


def run(seed: int, database: WorldDatabase, *, given: Weather | None = None, story: bool = False) -> Outcome:
    """Run one seed's schedule; the database is left empty. The same seed gives the same digest."""
    return World(seed, database, given=given, story=story).run()
