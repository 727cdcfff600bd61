"""Plays a whole pilot in compressed time, through the code that collects a real one, in worlds whose truth is known.

The orders are drawn and played on brokersim's exchange (`pilot/exchange.py`): what became of each, when, in how many
updates. How long lines and browsers take, what breaks and what people say is drawn from a world's parameters. Who is
let in, what is counted, what is written down and what is judged is the service's own code. The truth of a world is
computed from its parameters alone (`truth`), with the requirement's limits, and never from what was collected.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from math import erf, exp, log, sqrt
from multiprocessing import get_context
from random import Random
from types import MappingProxyType
from typing import Final

import structlog
from msgspec import Struct, field

from orderwire.core.alerts import Notice
from orderwire.core.events import Event, EventType
from orderwire.core.evidence import PLACED, RECEIVED
from orderwire.core.health import FeedHealth, FleetHealth
from orderwire.core.orders import IST, AccountId
from orderwire.core.recovery import Freshness
from orderwire.core.rollout import Choice
from orderwire.core.survey import Answers
from orderwire.core.verdict import Verdict
from orderwire.errors import InvalidRequestError
from orderwire.pilot import exchange
from orderwire.pilot.evidence import Evidence
from orderwire.pilot.exchange import PlannedDay, Step
from orderwire.pilot.flags import DatabaseProvider, Flag
from orderwire.pilot.gate import RolloutGate
from orderwire.pilot.report import Report, make_report
from orderwire.store.database import Database
from orderwire.store.pilot import PilotRecords
from orderwire.store.survey import Severity, Voices

START: Final = date(2026, 10, 5)
"""A Monday."""

STAGES: Final = (0, 10, 25, 50, 100, 100, 100)
"""What is in force in each week of the plan; the last one goes on."""

OPENS: Final = time(9, 15)
FULL_DAY: Final = 375
"""Minutes of a market day, 09:15 to 15:30."""

EVENTS_AN_ORDER: Final = (2.0, 3.5)
"""Updates that the exchange tells of an order, on average: between these, whatever the day."""

BROKERS: Final = ("first", "second")
WISHES: Final = ("Upstox", "Angel One", "Dhan", "Fyers", "Groww")
STAGE_NAMES: Final = ("received", "queued", "joined", "committed", "emitted")
"""Stages that every painted update is given a share of."""


class Wait(Struct, frozen=True, kw_only=True):
    """A part of the orders, whose waits are lognormal: share of all, median in seconds, sigma."""

    share: float = 1.0
    median: float
    sigma: float = 0.35


class World(Struct, frozen=True, kw_only=True):
    """Everything that is drawn from. Rates are per event, per account-minute or per user."""

    name: str
    waits: tuple[Wait, ...] = (Wait(median=0.11),)
    """Placed to painted, real-time."""
    day_sigma: float = 0.03
    """How much days differ from each other: the sigma of a factor that a day's waits share."""
    bad_days: float = 0.0
    """Share of days on which every wait is five times as long."""
    refresh: Wait = Wait(median=4.0, sigma=0.6)
    """Placed to painted, on refresh."""
    uptime: float = 0.9999
    outage_minutes: float = 4.0
    """Mean."""
    error_rate: float = 0.00003
    orders: float = 45.0
    """Placed by a user on a whole day."""
    before: float = 2.8
    """Satisfaction of the baseline wave: the mean of a normal that is rounded to 1 to 5."""
    after: float = 3.9
    spread: float = 0.8
    """Sigma of both."""
    response: float = 0.6
    opt_out: float = 0.04
    critical: int = 0
    major: int = 0
    comfortable: str | None = "yes"
    maintenance: str | None = "low"
    weeks: int | None = None
    """Ends sooner than asked for."""
    holidays: tuple[int, ...] = (12, 26)
    """Trading days, counted from 0, on which nothing happens."""


GOOD: Final = World(name="good")

WORLDS: Final[Mapping[str, World]] = MappingProxyType(
    {
        world.name: world
        for world in (
            GOOD,
            World(name="slow", waits=(Wait(median=1.1),)),
            World(name="flaky", uptime=0.97, outage_minutes=3),
            World(name="too little data", weeks=3),
            World(name="few answers", response=0.03),
            World(
                name="misleading average",
                waits=(Wait(share=0.9, median=0.08), Wait(share=0.1, median=1.8, sigma=0.2)),
            ),
            World(name="unsteady days", bad_days=0.3, waits=(Wait(median=0.059, sigma=0.4),), day_sigma=0.02),
            World(name="latency just met", waits=(Wait(median=0.205),)),
            World(name="latency just missed", waits=(Wait(median=0.30),)),
            World(name="latency just bearable", waits=(Wait(median=0.53),)),
            World(name="latency just unbearable", waits=(Wait(median=0.60),)),
            World(name="uptime just met", uptime=0.9998),
            World(name="uptime just missed", uptime=0.9975),
            World(name="uptime just bearable", uptime=0.9945, outage_minutes=10),
            World(name="uptime just unbearable", uptime=0.9820, outage_minutes=10),
            World(name="errors just met", error_rate=0.0002),
            World(name="errors just missed", error_rate=0.0016),
            World(name="errors just bearable", error_rate=0.0080),
            World(name="errors just unbearable", error_rate=0.0125),
            World(name="satisfaction just met", before=3.0, after=3.6, spread=0.5, response=0.9),
            World(name="satisfaction modest", before=3.0, after=3.3, spread=0.5, response=0.9),
            World(name="satisfaction unchanged", before=3.0, after=2.95, spread=0.5, response=0.9),
            World(name="major incident", major=1),
            World(name="critical incident", critical=1),
            World(name="team not comfortable", comfortable="no"),
            World(name="maintenance medium", maintenance="medium"),
            World(name="maintenance high", maintenance="high"),
            World(name="nobody asked the team", comfortable=None),
        )
    }
)
"""Worlds whose right answer is known, and one on each side of every boundary.

A world at a boundary is as far from it as the data of a played pilot can tell: by three standard deviations or more of
what twelve minutes a day of 400 users give (docs/evaluation/report.md has the distances).
"""


# --- the truth --------------------------------------------------------------------------------------------


def true_p95(world: World) -> float:
    """Return the 95th percentile of the waits, in seconds, by bisection of their distribution."""
    low, high = 1e-4, 1e3
    for _ in range(80):
        middle = sqrt(low * high)
        if _below(world, middle) < 0.95:
            low = middle
        else:
            high = middle
    return low


def _below(world: World, seconds: float) -> float:
    return sum(
        share
        * wait.share
        * _normal(log(seconds / (wait.median * factor)) / sqrt(wait.sigma**2 + world.day_sigma**2))
        for share, factor in ((1 - world.bad_days, 1.0), (world.bad_days, 5.0))
        for wait in world.waits
        if share
    )


def _normal(z: float) -> float:
    return (1 + erf(z / sqrt(2))) / 2


def true_satisfaction(latent: float, *, sigma: float) -> float:
    """Return the mean of a normal of this mean, rounded to 1 to 5."""
    return 1 + sum(1 - _normal((edge - latent) / sigma) for edge in (1.5, 2.5, 3.5, 4.5))


def true_gain(world: World) -> float:
    """Return the satisfaction of the last wave against the first one, relative."""
    after, before = (true_satisfaction(latent, sigma=world.spread) for latent in (world.after, world.before))
    return after / before - 1


def true_error_rate(world: World, *, events_an_order: float = sum(EVENTS_AN_ORDER) / 2) -> float:
    """Return errors per event: dead letters, and streams that broke."""
    broke = (1 - world.uptime) / world.outage_minutes  # per account-minute, as outages begin
    events = world.orders * events_an_order / FULL_DAY
    return world.error_rate + broke / events


def truth(world: World) -> Verdict:
    """Say which verdict is right in this world, by the requirement's limits; the worst one wins.

    Raises ValueError when it depends on how many updates an order has: such a world has no known answer.
    """
    few, many = (_truth(world, true_error_rate(world, events_an_order=each)) for each in EVENTS_AN_ORDER)
    if few is not many:
        raise ValueError(f"{world.name}: {few} or {many}, by the number of updates")
    return few


def _truth(world: World, errors: float) -> Verdict:
    p95 = true_p95(world)
    gain = true_gain(world)
    if (
        p95 > 1.0
        or world.uptime < 0.99
        or errors > 0.01
        or gain < 0.05
        or world.critical
        or world.maintenance == "high"
    ):
        return Verdict.ROLLBACK
    if world.weeks or world.response < 0.1 or world.comfortable is None or world.maintenance is None:
        return Verdict.NOT_ENOUGH_DATA
    if (
        p95 >= 0.5
        or world.bad_days > 0.05
        or world.uptime <= 0.999
        or errors >= 0.001
        or gain < 0.15
        or world.major
        or world.comfortable == "no"
        or world.maintenance == "medium"
    ):
        return Verdict.REFINE
    return Verdict.EXPAND


# --- playing it -------------------------------------------------------------------------------------------


class CompressedClock:
    """Shows the time of the pilot that is played."""

    def __init__(self, moment: datetime) -> None:
        self._moment = moment
        self._ticks = 0.0

    def now(self) -> datetime:
        return self._moment

    def time_ns(self) -> int:
        return int(self._moment.timestamp() * 1e9)

    def monotonic(self) -> float:
        return self._ticks

    def move_to(self, moment: datetime) -> None:
        """Go on to a later moment."""
        self._ticks += max((moment - self._moment).total_seconds(), 0.0)
        self._moment = moment


class _Named(Struct, frozen=True):
    """An observation, as far as the evidence looks at it."""

    account: AccountId


class _User(Struct, kw_only=True):
    name: str
    account: AccountId
    broker: str
    breaks: int = 0
    reads: int = 0
    down: int = 0
    """Minutes until the stream is back."""
    opens: dict[int, int] = field(default_factory=dict)
    """Orders live today, by minute."""
    news: dict[int, list[bool]] = field(default_factory=dict)
    """Updates of today by minute; True: the first of an order."""
    health: FeedHealth | None = None
    """As it was last told; the same again while nothing differs."""


class Played(Struct, frozen=True, kw_only=True):
    """A pilot that was played."""

    world: World
    seed: int
    expected: Verdict
    report: Report
    raw: tuple[float, ...]
    """Every wait of the real-time cohort in seconds, as it was drawn: what the report is checked against."""


def world_of(name: str) -> World:
    """Return a world by its name. Raises InvalidRequestError with the names there are."""
    if name not in WORLDS:
        raise InvalidRequestError({"world": f"There is no world {name!r}; there are {', '.join(WORLDS)}."})
    return WORLDS[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """How large a pilot is: `minutes` are played of each market day, with their share of its orders."""

    weeks: int = 7
    users: int = 400
    minutes: int = FULL_DAY

    def __post_init__(self) -> None:
        """Raise InvalidRequestError for fewer than one week or two users."""
        if self.weeks < 1 or self.users < 2 or not 1 <= self.minutes <= FULL_DAY:
            raise InvalidRequestError(
                {"weeks": "A pilot has a week or more, two users or more, a minute a day or more."}
            )


class Market(Struct, frozen=True, kw_only=True):
    """The orders of a pilot's days, and what became of them on the exchange."""

    plans: tuple[PlannedDay, ...]
    steps: tuple[tuple[Step, ...], ...]


def play(
    world: World,
    *,
    weeks: int = 7,
    users: int = 400,
    seed: int,
    minutes: int = FULL_DAY,
    market: Market | None = None,
) -> Played:
    """Play the pilot of a world; `market`, of the same size and seed, spares playing the exchange once more.

    Raises InvalidRequestError for fewer than one week or two users.
    """
    pilot = Pilot(weeks=min(weeks, world.weeks or weeks), users=users, minutes=minutes)
    clock = CompressedClock(_at(START, time(9)))
    database = Database("sqlite://", clock=clock)
    database.migrate()
    try:
        game = _Play(world, pilot, seed, clock=clock, database=database)
        if market is not None:
            return game.play(market.plans, iter(market.steps))
        plans = plan(world, pilot, seed=seed)
        with exchange.played(plans, seed=seed) as steps:
            return game.play(plans, steps)
    finally:
        database.close()


def play_market(world: World, pilot: Pilot, *, seed: int) -> Market:
    """Play the exchange alone, for worlds whose users place as many orders on the same days."""
    plans = plan(world, pilot, seed=seed)
    with exchange.played(plans, seed=seed) as steps:
        return Market(plans=plans, steps=tuple(steps))


def plan(world: World, pilot: Pilot, *, seed: int) -> tuple[PlannedDay, ...]:
    """Draw the orders of every trading day; a shorter pilot has the same first days."""
    draw, seconds = Random(f"{seed}/orders"), pilot.minutes * 60  # noqa: S311 - a game
    mean = world.orders * pilot.minutes / FULL_DAY

    def day(opening: datetime) -> PlannedDay:
        orders = [
            exchange.draw_order(draw, at=draw.random() * seconds, user=name)
            for name in _names(pilot.users)
            for _ in range(_poisson(draw, mean))
        ]
        return exchange.plan_day(opening, seconds=seconds, orders=orders)

    return tuple(day(_at(date_, OPENS)) for date_ in trading_days(world, pilot.weeks))


def trading_days(world: World, weeks: int) -> list[date]:
    """List the days on which the market of a world is open."""
    working = [(week * 5 + weekday, week * 7 + weekday) for week in range(weeks) for weekday in range(5)]
    return [START + timedelta(days=away) for number, away in working if number not in world.holidays]


def _names(users: int) -> list[str]:
    return [f"user-{n:03}" for n in range(users)]


def _at(day: date, hour: time) -> datetime:
    return datetime.combine(day, hour, IST).astimezone(UTC)


class _Play:
    """One pilot, from its first Monday to its report."""

    def __init__(
        self,
        world: World,
        pilot: Pilot,
        seed: int,
        *,
        clock: CompressedClock,
        database: Database,
    ) -> None:
        self._world = world
        self._weeks = pilot.weeks
        self._minutes = pilot.minutes
        self._seed = seed
        self._random = Random(f"{seed}/{world.name}")  # noqa: S311 - a game
        self._clock = clock
        self._users = [
            _User(name=name, account=AccountId(f"account-{n:03}"), broker=BROKERS[n % len(BROKERS)])
            for n, name in enumerate(_names(pilot.users))
        ]
        self._records = PilotRecords(database)
        self._voices = Voices(database)
        self._gate = RolloutGate(self._records, Flag(DatabaseProvider()), master=True, brokers=BROKERS)
        self._health = FleetHealth()
        self._evidence = Evidence(
            self._records,
            clock=clock,
            place_of=self._gate.place_of,
            health=lambda: self._health,
            depth=lambda: 0,
            longest_tick=60.0,
        )
        self._raw: list[float] = []

    def play(self, plans: Sequence[PlannedDay], steps: Iterator[Sequence[Step]]) -> Played:
        days = dict(zip(trading_days(self._world, self._weeks), plans, strict=False))
        for week in range(self._weeks):
            self._begin_week(week)
            for day in (START + timedelta(days=week * 7 + weekday) for weekday in range(5)):
                if day in days:
                    self._play_day(day, days[day], next(steps))
        self._evidence.flush(everything=True)
        self._speak()
        self._gate.close()
        report = make_report(
            self._records,
            self._voices,
            since=START,
            until=START + timedelta(days=self._weeks * 7 - 1),
            owners=len(self._users),
            title=f"Simulated pilot: {self._world.name} (seed {self._seed})",
        )
        return Played(
            world=self._world,
            seed=self._seed,
            expected=truth(self._world),
            report=report,
            raw=tuple(self._raw),
        )

    def _begin_week(self, week: int) -> None:
        self._clock.move_to(_at(START + timedelta(days=week * 7), time(9)))
        stage = STAGES[min(week, len(STAGES) - 1)]
        self._gate.set_stage(stage, who="owner", why=f"the plan, week {week + 1}")
        if week == 1:
            for user in self._users:
                if self._random.random() < self._world.opt_out:
                    self._gate.choose(user.name, Choice.OUT, by=user.name)
        for user in self._users:
            self._gate.admit(user.account, owner=user.name, broker=user.broker)
        if week == 0:
            self._ask("baseline", self._world.before)
        if week == self._weeks - 1 and week:
            self._ask("follow-up", self._world.after)

    def _ask(self, wave: str, latent: float) -> None:
        draw = self._random
        for user in self._users:
            if draw.random() >= self._world.response:
                if draw.random() < 0.5:
                    self._voices.dismiss(wave, owner=user.name)
                continue
            place = self._gate.place_of(user.account)
            scales = {
                name: min(max(round(draw.gauss(latent, self._world.spread)), 1), 5)
                for name in ("satisfaction", "speed", "trust")
            }
            words = {"next_broker": draw.choices(WISHES, (5, 4, 3, 2, 1))[0]} if draw.random() < 0.4 else {}
            self._voices.answer(
                wave,
                Answers(scales=scales, words=words),
                owner=user.name,
                cohort=place[1] if place else "manual",
                anonymous=draw.random() < 0.3,
            )

    def _speak(self) -> None:
        """Write down what people say at the end: incidents of the last week, the soft answers."""
        world, at = self._world, self._clock.now() - timedelta(days=3)
        for severity, count in ((Severity.CRITICAL, world.critical), (Severity.MAJOR, world.major)):
            for number in range(count):
                made = self._voices.open_incident(
                    severity, f"Simulated {severity} {number + 1}", who="ops", at=at
                )
                self._voices.close_incident(made.id, who="ops")
        for question, value in (("team_comfortable", world.comfortable), ("maintenance", world.maintenance)):
            if value is not None:
                self._voices.record(question, value, author="team lead")

    def _play_day(self, day: date, given: PlannedDay, steps: Iterable[Step]) -> None:
        draw, world = self._random, self._world
        factor = exp(draw.gauss(0, world.day_sigma)) * (5.0 if draw.random() < world.bad_days else 1.0)
        self._hand_out(given, steps)
        opening = _at(day, OPENS)
        self._clock.move_to(opening)
        self._evidence.on_timer(_TIMER)  # the night's minute, closed; the night itself is no market time
        for minute in range(self._minutes):
            self._play_minute(minute, factor)
            self._clock.move_to(opening + timedelta(minutes=minute, seconds=59))
            self._health = FleetHealth(feeds=tuple(self._feed(user, minute) for user in self._users))
            self._evidence.on_timer(_TIMER)
        self._health = FleetHealth()
        self._clock.move_to(opening + timedelta(minutes=self._minutes))
        self._evidence.on_timer(_TIMER)

    def _hand_out(self, given: PlannedDay, steps: Iterable[Step]) -> None:
        """Give each user the updates of the day's orders, and the minutes in which they were live."""
        owners = {user.name: user for user in self._users}
        began: dict[int, int] = {}
        for user in self._users:
            user.opens, user.news = {}, {}
        for step in steps:
            if step.stage not in exchange.TOLD:
                continue
            user = owners[given.orders[step.order].user]
            minute = min(int(step.at // 60), self._minutes - 1)
            user.news.setdefault(minute, []).append(step.order not in began)
            first = began.setdefault(step.order, minute)
            if step.stage in exchange.ENDS:
                for live in range(first, minute + 1):
                    user.opens[live] = user.opens.get(live, 0) + 1

    def _play_minute(self, minute: int, factor: float) -> None:
        broken = (1 / self._world.uptime - 1) / self._world.outage_minutes
        for user in self._users:
            if user.down:
                user.down -= 1
            elif self._random.random() < broken:
                user.down = _geometric(self._random, self._world.outage_minutes)
                user.breaks += self._is_on(user)
            for first in user.news.get(minute, ()):
                self._update(user, factor, first=first)

    def _is_on(self, user: _User) -> bool:
        place = self._gate.place_of(user.account)
        return place is not None and place[1] == "realtime"

    def _update(self, user: _User, factor: float, *, first: bool) -> None:
        """The broker tells a step of an order, and the page shows it: the first one after a wait of the world."""
        draw, world, on = self._random, self._world, self._is_on(user)
        self._evidence.on_update(Event(EventType.ORDER_UPDATE, _Named(user.account)))
        if draw.random() < world.error_rate:
            notice = Notice(kind="dead letter", text="simulated", account=user.account)
            self._evidence.on_alert(Event(EventType.ALERT, notice))
        wait = draw.choices(world.waits, [w.share for w in world.waits])[0] if on else world.refresh
        seconds = draw.lognormvariate(log(wait.median), wait.sigma) * (factor if on else 1.0)
        if not first:
            seconds = seconds * draw.uniform(0.15, 0.6) if on else draw.uniform(1, 30)
        elif on:
            self._raw.append(seconds)
        else:
            user.reads += 2
        kind = PLACED if first else RECEIVED
        self._evidence.paint(user.account, {kind: int(seconds * 1e9), **_stages(seconds)})

    def _feed(self, user: _User, minute: int) -> FeedHealth:
        on = self._is_on(user)
        freshness = Freshness.MANUAL if not on else Freshness.DEGRADED if user.down else Freshness.LIVE
        user.reads += 12 if on and user.down else 0
        live, before = user.opens.get(minute, 0), user.health
        counts = {"reconnects": user.breaks, "reads": user.reads}
        if before is not None and (before.freshness, before.open_orders, before.counts) == (
            freshness,
            live,
            counts,
        ):
            return before
        user.health = FeedHealth(
            account=user.account,
            broker=user.broker,
            freshness=freshness,
            since=self._clock.now(),
            open_orders=live,
            counts=counts,
        )
        return user.health


_TIMER: Final = Event(EventType.TIMER)


def _stages(seconds: float) -> dict[str, int]:
    shares = (0.05, 0.05, 0.1, 0.35, 0.45)
    return {name: int(seconds * share * 1e9) for name, share in zip(STAGE_NAMES, shares, strict=True)}


def _poisson(draw: Random, mean: float) -> int:
    limit, product, count = exp(-mean), draw.random(), 0
    while product > limit:
        product *= draw.random()
        count += 1
    return count


def _geometric(draw: Random, mean: float) -> int:
    """Return a whole number of minutes, at least 1, of this mean."""
    if mean <= 1:
        return 1
    return 1 + int(log(1 - draw.random()) / log(1 - 1 / mean))


# --- many of them -----------------------------------------------------------------------------------------


class Outcome(Struct, frozen=True, kw_only=True):
    """What one world was told over several seeds."""

    world: World
    expected: Verdict
    given: Mapping[Verdict, int]
    wrong_seeds: tuple[int, ...]

    @property
    def right(self) -> int:
        """How many times the right verdict was given."""
        return self.given.get(self.expected, 0)


def judge_worlds(
    worlds: Sequence[World], seeds: Iterable[int], pilot: Pilot, *, jobs: int = 1
) -> Iterator[tuple[int, Mapping[str, Verdict]]]:
    """Play every world once with each seed, on the same exchange days; gives each seed's verdicts by world.

    `jobs` processes share the seeds; they come in order all the same. Raises InvalidRequestError when the worlds'
    days or orders differ.
    """
    if len({(world.orders, world.holidays) for world in worlds}) > 1:
        raise InvalidRequestError({"world": "Worlds that differ in orders or holidays share no exchange."})
    told = partial(_judge_seed, worlds, pilot)
    if jobs == 1:
        yield from map(told, seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_hush) as processes:
        yield from processes.map(told, seeds)


def _hush() -> None:
    """Leave out the log lines of a rollout that is only played."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def _judge_seed(worlds: Sequence[World], pilot: Pilot, seed: int) -> tuple[int, Mapping[str, Verdict]]:
    market = play_market(worlds[0], pilot, seed=seed)
    return seed, {world.name: _verdict(world, pilot, seed, market) for world in worlds}


def _verdict(world: World, pilot: Pilot, seed: int, market: Market) -> Verdict:
    size = {"weeks": pilot.weeks, "users": pilot.users, "minutes": pilot.minutes}
    return play(world, seed=seed, market=market, **size).report.verdict


def outcomes(worlds: Sequence[World], verdicts: Iterable[tuple[int, Mapping[str, Verdict]]]) -> list[Outcome]:
    """Count the verdicts of each world over the seeds."""
    given = list(verdicts)
    return [
        Outcome(
            world=world,
            expected=truth(world),
            given=_counted(told[world.name] for _, told in given),
            wrong_seeds=tuple(seed for seed, told in given if told[world.name] is not truth(world)),
        )
        for world in worlds
    ]


def _counted(verdicts: Iterable[Verdict]) -> dict[Verdict, int]:
    given: dict[Verdict, int] = {}
    for verdict in verdicts:
        given[verdict] = given.get(verdict, 0) + 1
    return given
