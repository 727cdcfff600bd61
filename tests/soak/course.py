"""Runs a soak: the service and its clients as processes, what they used over time, and what is to be said of it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from house import JAINAM, ZERODHA, House, eventually, free_port
from orderwire.brokers.registry import BrokerRegistry
from orderwire.config import Settings, load
from orderwire.core.alerts import RULES, horizon
from orderwire.core.orders import OrderStatus
from orderwire.errors import OrderwireError
from orderwire.service import make_data_folder, open_records
from orderwire.store.users import Role, Scope
from soak.market import BROKER
from soak.served import Orders
from soak.trend import FEWEST, Line, fit
from soak.vitals import UNITS

HERE = Path(__file__).resolve().parent
USERS, ACCOUNTS_EACH = 10, 2
DAY_EVENTS, DAY_TICKS = 4_300_000, 86_400
"""What 24 hours bring."""

SLACK = {"files": 12, "threads": 4, "tasks": 2, "depth": 64}
"""By how much each may differ between the beginning and the end of what is judged; a reader of the database has three
files, and on a busy machine more of them read at once."""

REAL_MEMORY = 8.0
REAL_MEMORY_A_CHANGE = 256 / 2**20
"""MiB by which memory may rise in a real run, SQLite's aside: a little, and for each change of an order, for the day's
orders are kept until it ends, and what was told of them."""

PAGES_WAVER = "bytes"
"""What of a look is told by the system, by the page."""

PAGES = 70
"""MiB that SQLite may hold."""

RESTING = "1400"
"""A price within the day's band at which nobody sells."""

MODIFICATIONS = 20
"""Of one order, before it is cancelled and the next one placed (Kite allows 25)."""

KEPT_FOR = horizon(RULES) + 20
"""Seconds of real time for which the service keeps what it read of itself, and a little: until then it gathers."""

Show = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked of a soak."""

    days: int = 96
    """Virtual days that share `events` and `ticks` among them; 0: real time."""
    events: int = DAY_EVENTS
    ticks: int = DAY_TICKS
    minutes: float = 0.0
    clients: int = 6
    leak: int = 0
    limit: float = 1.0
    """Bytes of memory an order event may cost for ever."""
    seed: int = 1


@dataclass(slots=True, kw_only=True)
class Course:
    """What happened: a line of vitals for each look, and what the clients found."""

    plan: Plan
    looks: list[dict[str, Any]] = field(default_factory=list)
    clients: dict[str, int] = field(default_factory=dict)
    placed: int = 0
    modified: int = 0
    cancelled: int = 0
    refused: int = 0
    """Actions that the service or the broker would not take."""
    cuts: int = 0
    wrong: list[str] = field(default_factory=list)
    """Orders that did not end as the broker has them, in words."""

    @property
    def last(self) -> dict[str, Any]:
        return self.looks[-1]

    def judged(self) -> list[dict[str, Any]]:
        """Return the looks that count: the nights, or a real run's tidy moments, without the warm-up.

        That is the first quarter, and in a run that is long enough the time in which the service still gathers what
        it keeps by the clock, for days that pass in seconds do not make it forget any sooner.
        """
        some = [
            look
            | {"own": look["held"] and look["held"] - look["pages"], "given": look["bytes"] - look["pages"]}
            for look in self.looks
            if look["kind"] == ("night" if self.plan.days else "tidy")
        ]
        quarter, last = max(len(some) // 4, 1), len(some) * 3 // 4
        full = next((number for number, look in enumerate(some) if look["seconds"] > KEPT_FOR), len(some))
        return some[max(quarter, full) if full <= last else quarter :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that had to hold, and whether it did."""

    name: str
    says: str
    holds: bool
    line: Line | None = None


# --- running ------------------------------------------------------------------------------------------------


def run(plan: Plan, folder: Path, *, show: Show = lambda _look: None) -> Course:
    """Run what the plan asks for in `folder` and return its course; `show` is told of each look."""
    return _virtual(plan, folder, show) if plan.days else _real(plan, folder, show)


def _virtual(plan: Plan, folder: Path, show: Show) -> Course:
    settings = load(
        data_dir=folder / "data", host="127.0.0.1", port=free_port(), market_always_open=True,
        log_level="ERROR", clients=plan.clients * 2,
    )  # fmt: skip
    accounts, keys = _make_people(settings)
    orders = Orders(
        folder=str(folder), leak=plan.leak, days=plan.days, events=-(-plan.events // plan.days),
        ticks=-(-plan.ticks // plan.days), accounts=accounts, seed=plan.seed,
    )  # fmt: skip
    course = Course(plan=plan)
    with _process(_served(orders), folder / "service.log", env=settings.as_environment()) as service:
        eventually(lambda: _healthy(settings.url, service), within=300)
        with _clients(plan, settings.url, keys, folder):
            for look in _looks(orders.vitals, service):
                course.looks.append(look)
                course.clients = _counts(folder)
                show(look)
                if look["kind"] == "failed":
                    raise RuntimeError(look["error"])
                if look["kind"] == "end":
                    break
    course.cuts = course.last.get("cuts", 0)
    course.wrong = [words for look in course.looks for words in look.get("wrong", ())]
    return course


def _real(plan: Plan, folder: Path, show: Show) -> Course:
    orders = Orders(folder=str(folder), leak=plan.leak, every=max(min(plan.minutes * 60 / 120, 30.0), 0.2))
    course = Course(plan=plan)
    house = WatchedHouse(folder, orders)
    over = threading.Event()
    trader = threading.Thread(target=_trade_for_real, args=(house, course, over, plan.seed))
    try:
        house.start()
        house.log_in()
        house.sims.ask("PATCH", "/settings", {"check_margin": False})  # it would be spent in a day
        with _clients(plan, house.url, list(house.keys.values()), folder):
            trader.start()
            ending = time.monotonic() + plan.minutes * 60
            for look in _looks(orders.vitals, house.process):
                course.looks.append(look)
                course.clients = _counts(folder)
                show(look | {"placed": course.placed})
                if time.monotonic() > ending:
                    break
            over.set()
            trader.join()
        course.wrong = _differences(house)
    finally:
        over.set()
        house.close()
    return course


class WatchedHouse(House):
    """The whole house, its service watched from inside."""

    def __init__(self, folder: Path, orders: Orders) -> None:
        self.served = tuple(_served(orders)[1:])
        super().__init__(folder)


def _served(orders: Orders) -> list[str]:
    return [sys.executable, str(HERE / "served.py"), json.dumps(asdict(orders))]


def _make_people(settings: Settings) -> tuple[tuple[str, ...], list[str]]:
    make_data_folder(settings)
    records = open_records(settings, brokers=BrokerRegistry())
    accounts, keys = [], []
    try:
        for number in range(USERS):
            name = records.users.add(f"user{number}", "soak-password", role=Role.TRADER).name
            keys.append(records.users.add_key(name, scope=Scope.TRADE)[1])
            for other in range(ACCOUNTS_EACH):
                account = f"acc{number}-{other}"
                records.accounts.add(account, broker=BROKER, owner=name, credentials={})
                accounts.append(account)
    finally:
        records.database.close()
    return tuple(accounts), keys


@contextlib.contextmanager
def _process(
    command: list[str], log: Path, *, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=env, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def _clients(plan: Plan, url: str, keys: list[str], folder: Path) -> Iterator[None]:
    told = {"url": url, "keys": keys, "folder": str(folder), "count": plan.clients, "seed": plan.seed}
    command = [sys.executable, str(HERE / "clients.py"), json.dumps(told)]
    with _process(command, folder / "clients.log") as process:
        yield
        if process.poll() is not None:
            raise RuntimeError((folder / "clients.log").read_text())


def _counts(folder: Path) -> dict[str, int]:
    try:
        return json.loads((folder / "clients.json").read_text())
    except FileNotFoundError:
        return {}


def _healthy(url: str, service: subprocess.Popen[bytes]) -> bool:
    if service.poll() is not None:
        raise RuntimeError("the service did not start")
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(f"{url}/healthz", timeout=2, trust_env=False).is_success
    return False


def _looks(path: Path, service: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """Yield each look as it is written, for as long as the service lives."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(eventually(lambda: path.exists() and path.open()))
        rest = ""
        while True:
            rest += file.readline()
            if rest.endswith("\n"):
                yield json.loads(rest)
                rest = ""
            elif service.poll() is not None:
                raise RuntimeError(f"the service ended by itself (exit code {service.returncode})")
            else:
                time.sleep(0.1)  # the pace of asking


def _trade_for_real(house: House, course: Course, over: threading.Event, seed: int) -> None:
    """Place, modify again and again, cancel; now and then cut the streams. One action a second."""
    chance = random.Random(seed)
    standing: dict[str, tuple[str, int] | None] = {}
    while not over.wait(1.0):
        account = chance.choice((ZERODHA, JAINAM))
        try:
            standing[account] = _act(house, course, account, standing.get(account), chance)
        except OrderwireError:  # its stream is cut, say: the next action begins anew
            course.refused += 1
            standing[account] = None
        if chance.random() < 1 / 60:
            course.cuts += 1
            house.sims.ask(
                "POST", "/sockets/disconnect", {"broker": chance.choice(("kite", "xts")), "mode": "abort"}
            )


def _act(
    house: House, course: Course, account: str, standing: tuple[str, int] | None, chance: random.Random
) -> tuple[str, int] | None:
    if standing is None:
        house.place(account, order_type="MARKET", quantity=chance.choice((1, 5, 10)))
        made = house.place(account, order_type="LIMIT", price=RESTING)
        course.placed += 2
        return made["order_id"], 0
    order_id, modified = standing
    if modified >= MODIFICATIONS:
        house.command("orders.cancel", account=account, order_id=order_id)
        course.cancelled += 1
        return None
    order = {
        "order_id": order_id,
        "quantity": chance.randrange(10, 60),
        "order_type": "LIMIT",
        "product": "MIS",
        "price": RESTING,
    }
    house.command("orders.modify", account=account, order=order)
    course.modified += 1
    return order_id, modified + 1


def _differences(house: House) -> list[str]:
    """Return which orders the service does not show as the simulators' ledger has them, once both have settled."""
    found: list[str] = []

    def agree() -> bool:
        found[:] = [
            f"{key}: {order['stage']}, {order['filled']} filled, shown as {shown.get(key)}"
            for user, broker in (("asha", "kite"), ("jay", "xts"))
            for shown in [{row["orderid"]: _ended(row) for row in house.book(user).values()}]
            for key, order in house.broker_orders(broker).items()
            if shown.get(key) != (not order["live"], order["filled"])
        ]
        return not found

    with contextlib.suppress(AssertionError):
        eventually(agree)
    return found


def _ended(row: dict[str, Any]) -> tuple[bool, int]:
    return OrderStatus(row["status"]).terminal, row["filled_quantity"]


# --- judging ------------------------------------------------------------------------------------------------


def judge(course: Course) -> list[Finding]:
    """Say of everything that had to hold whether it did."""
    plan = course.plan
    memory = _an_event if plan.days else _over_time
    findings = [
        memory(course, "memory", of="bytes" if plan.days else "given"),
        memory(course, "allocated", of="own"),
        _pages(course),
    ]
    findings += [_flat(course, name) for name in SLACK]
    clients = course.clients
    faults = {name: clients.get(name, 0) for name in ("gaps", "wrong", "late")}
    findings.append(
        Finding(
            name="clients",
            says=f"{clients.get('connected', 0):,} connections, {clients.get('order_update', 0):,} updates, "
            f"{clients.get('snapshot', 0):,} snapshots, {clients.get('compared', 0):,} orders compared; {faults}",
            holds=bool(clients.get("order_update")) and not any(faults.values()),
        )
    )
    findings.append(
        Finding(
            name="orders",
            says=f"{len(course.wrong)} ended wrong {course.wrong[:3] or ''}",
            holds=not course.wrong,
        )
    )
    findings.append(
        Finding(
            name="dead letters",
            says=f"{course.last['dead_lettered']}",
            holds=not course.last["dead_lettered"],
        )
    )
    if plan.days:
        got = course.last
        enough = got["events"] >= plan.events and got["ticks"] >= plan.ticks
        findings.append(
            Finding(
                name="volume", says=f"{got['events']:,} order events, {got['ticks']:,} ticks", holds=enough
            )
        )
        stayed = sum(look.get("stayed", 0) for look in course.looks)
        findings.append(Finding(name="leaving", says=f"{stayed} clients stayed over night", holds=not stayed))
    else:
        findings.append(
            Finding(
                name="trading",
                says=f"{course.placed:,} orders placed, {course.modified:,} modified, {course.cancelled:,} cancelled, "
                f"{course.refused:,} actions refused, streams cut {course.cuts:,} times",
                holds=course.modified > course.placed and course.refused <= course.modified / 10,
            )
        )
    return findings


def _an_event(course: Course, name: str, *, of: str) -> Finding:
    """Judge a slope by its 95 % interval: all of it within the limit, or, for the system's pages, not all beyond it."""
    some = [look for look in course.judged() if look.get(of) is not None]
    if len(some) < FEWEST:
        return Finding(name=name, says=f"{len(some)} nights are too few to tell", holds=False)
    line = fit([look["events"] for look in some], [look[of] for look in some])
    says = (
        f"{line.slope:+.2f} B per order event, 95 % between {line.low:+.2f} and {line.high:+.2f}, "
        f"limit {course.plan.limit:g}; {line.start / 2**20:.0f} MiB"
    )
    decides = line.low if of == PAGES_WAVER else line.high
    return Finding(name=name, says=says, holds=decides <= course.plan.limit, line=line)


def _over_time(course: Course, name: str, *, of: str) -> Finding:
    some = [look for look in course.judged() if look.get(of) is not None]
    if len(some) < FEWEST:
        return Finding(name=name, says=f"{len(some)} looks are too few to tell", holds=False)
    line = fit([look["seconds"] for look in some], [look[of] / 2**20 for look in some])
    changes = some[-1]["events"] - some[0]["events"]
    allowed = REAL_MEMORY + REAL_MEMORY_A_CHANGE * changes
    says = (
        f"{line.growth:+.1f} MiB in {line.span / 60:.1f} minutes from {line.start:.0f} MiB, SQLite's pages aside, "
        f"{allowed:.1f} allowed"
    )
    return Finding(name=name, says=says, holds=not line.rises(by=allowed), line=line)


def _pages(course: Course) -> Finding:
    """SQLite's caches have limits of their own: 32 MiB for who writes, 2 for each who reads, of whom there may be 16."""
    most = max(look["pages"] for look in course.judged()) / 2**20
    return Finding(
        name="pages", says=f"{most:.0f} MiB in SQLite at most, {PAGES} allowed", holds=most <= PAGES
    )


def _flat(course: Course, name: str) -> Finding:
    some = course.judged()
    values = [look[name] for look in some]
    if len(some) < FEWEST:
        return Finding(name=name, says=f"{len(some)} looks are too few to tell", holds=False)
    line = fit([look["seconds"] for look in some], values)
    says = f"{min(values)} to {max(values)} {UNITS[name]}, {line.growth:+.1f} by trend, {SLACK[name]} allowed"
    return Finding(name=name, says=says, holds=not line.rises(by=SLACK[name]), line=line)
