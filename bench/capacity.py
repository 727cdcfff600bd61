"""Calculates what so many accounts need, and checks the calculation against 20,000 accounts played on paper.

    python bench/capacity.py                    # the table of docs/explanation/scale.md, and what breaks first
    python bench/capacity.py --play 20000       # an opening, second by second and commit by commit; a worker dies in it

The costs are measured (where, stands beside each); the habits of traders are assumptions, and say so. `plan` is the
calculation. `play` shares none of its formulas: it draws every account's updates, queues them at the worker that owns
the account, commits them in batches, and has every web process read every change. Its busiest seconds, its utilisations
and what is waited for are compared with the plan; a difference of more than a quarter fails.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import re
import sys
from collections import Counter, defaultdict, deque
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orderwire.store.shards import SHARDS, shard_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What one of each costs; processor time in microseconds. Measured on two cores of a 2020s server, Python 3.11.

    Much of an update's cost is its commit's, which several share when there is much to do: bench/scale.py measures both.
    """

    worker_us: float = 160
    """Feed worker, an update: parsed value → joined, encoded, written (bench/scale.py)."""
    worker_commit_us: float = 2_000
    """Feed worker, a commit, with its relaying (bench/scale.py)."""
    commit_ms: float = 8.0
    """How long a commit takes, all in all, with nothing else going on (bench/scale.py)."""
    postgres_us: float = 175
    """PostgreSQL, an update, all its processes (bench/scale.py)."""
    postgres_commit_us: float = 1_100
    """PostgreSQL, a commit (bench/scale.py)."""
    redis_us: float = 7
    """Redis, an update added to its stream (bench/scale.py)."""
    redis_reader_us: float = 4
    """Redis, the same handed to one follower (bench/scale.py)."""
    redis_commit_us: float = 120
    """Redis, what a commit adds, together (bench/scale.py)."""
    redis_read_us: float = 100
    """Redis, a follower's question about 64 streams (bench/scale.py)."""
    follower_us: float = 20
    """Web process, an update followed, whether somebody looks or not (bench/scale.py)."""
    follower_read_us: float = 400
    """Web process, a question about 64 streams and its answer (bench/scale.py)."""
    push_us: float = 44
    """Web process, a change sent to a browser and acknowledged (bench/browsers.py)."""
    idle_account_us: float = 230
    """Feed worker, a second of an account with nothing going on: heartbeats, reads of the book (make bench-feeds)."""
    state_us: float = 13
    """PostgreSQL, a second of an account: how its feed does is told 0.15 times a second, at 88 µs."""
    web_state_us: float = 4
    """Web process, a second of an account: how every feed does is read four times a second, what changed of it."""
    account_kib: float = 64
    """Feed worker's memory (make bench-feeds)."""
    browser_kib: float = 66
    """Web process' memory (bench/browsers.py)."""
    wal_bytes: float = 5_000
    """Written ahead, an update (bench/scale.py)."""
    table_bytes: float = 4_200
    """Kept, an update: inbox with the broker's bytes, outbox, orders, their indexes (bench/scale.py)."""
    entry_bytes: float = 1_300
    """An update on the wire to a follower."""
    rows: float = 2.25
    """Rows an update adds: inbox, outbox, a quarter of an order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """What traders do: assumptions, to be replaced by a platform's own numbers."""

    active: float = 0.30
    """Share of the accounts that trade on a day."""
    updates: float = 100
    """Updates of an active account in a session: 20 orders of 5."""
    opening_share: float = 0.15
    """Share of a day's updates that comes in the first `opening_seconds`."""
    opening_seconds: float = 300
    watching: float = 0.20
    """Browsers open at the busiest moment, per account."""
    keep_days: float = 90
    session_days: float = 21
    """In a month."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How full things may be, and how large one of each may get."""

    busy: float = 0.6
    """Of a core, at the busiest moment."""
    web_browsers: int = 1_000
    """In one web process (figures.md)."""
    feed_accounts: int = 3_000
    """In one feed worker: all connected within a minute at 50 connects a second."""
    postgres_cores: int = 32
    wal_per_second: float = 200e6
    redis_network: float = 1.25e9
    """Bytes a second: 10 Gbit/s."""
    connections: int = 8
    """To PostgreSQL, a process; more only for moments."""
    postgres_connections: int = 500
    """Beyond it a transaction pooler stands in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Dollars a month, as large clouds ask without a contract; assumptions."""

    core: float = 28
    """With 4 GB."""
    disk_gb: float = 0.12
    egress_gb: float = 0.08


PAGE = Path(__file__).resolve().parent.parent / "docs" / "explanation" / "scale.md"

HANDLES_IN = 0.0033
"""Seconds a follower takes for an answer."""

COSTS, HABITS, LIMITS, PRICES = Costs(), Habits(), Limits(), Prices()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What so many accounts need."""

    accounts: int
    day: float
    """Updates of a day."""
    peak: float
    """Updates a second at the opening."""
    browsers: int
    feeds: int
    worker_busy: float
    """Of a feed worker's core, at the opening."""
    webs: int
    commits: float
    """Commits a second, at the opening."""
    postgres_cores: float
    redis_cores: float
    """One Redis has one."""
    redis_network: float
    follower_share: float
    """Of a web process' core, spent on following changes that mostly nobody there looks at."""
    connections: int
    rows: float
    gb_day: float
    gb_kept: float
    wal: float
    dollars: float

    @property
    def per_account(self) -> float:
        return self.dollars / self.accounts


def commits_of(rate: float, costs: Costs) -> float:
    """Return how many commits a second a worker makes at a rate of updates: one each, until they begin to share."""
    return min(rate, 1e3 / costs.commit_ms)


def reads_of(commits: float) -> float:
    """Return how many questions a second a follower asks: it is deaf while it handles an answer, which then holds more."""
    return commits / (1 + commits * HANDLES_IN)


def _feeds(accounts: int, peak: float, costs: Costs, limits: Limits) -> int:
    """Return how many feed workers keep below `busy` of a core each."""
    feeds = max(2, math.ceil(accounts / limits.feed_accounts))
    while feeds * limits.busy < _worker_load(accounts, peak, feeds, costs):
        feeds += 1
    return feeds


def _worker_load(accounts: int, peak: float, feeds: int, costs: Costs) -> float:
    """Return how many cores all feed workers use."""
    commits = feeds * commits_of(peak / feeds, costs)
    return (
        accounts * costs.idle_account_us + peak * costs.worker_us + commits * costs.worker_commit_us
    ) / 1e6


def plan(accounts: int, *, costs: Costs = COSTS, habits: Habits = HABITS, limits: Limits = LIMITS) -> Plan:
    """Calculate."""
    day = accounts * habits.active * habits.updates
    peak = day * habits.opening_share / habits.opening_seconds
    browsers = math.ceil(accounts * habits.watching)
    feeds = _feeds(accounts, peak, costs, limits)
    commits = feeds * commits_of(peak / feeds, costs)
    reads = reads_of(commits)
    follower_share = (
        peak * costs.follower_us + reads * costs.follower_read_us + accounts * costs.web_state_us
    ) / 1e6
    watched = min(1.0, habits.watching / habits.active)
    pushes = peak * watched * costs.push_us / 1e6
    webs = max(2, math.ceil(browsers / limits.web_browsers))
    while (
        webs < 100_000 and follower_share + pushes / webs > limits.busy and pushes / webs > limits.busy / 10
    ):
        webs += 1
    postgres = peak * costs.postgres_us + commits * costs.postgres_commit_us + accounts * costs.state_us
    added = peak * costs.redis_us + commits * costs.redis_commit_us
    redis = added + webs * (peak * costs.redis_reader_us + reads * costs.redis_read_us)
    gb_day = day * costs.table_bytes / 1e9
    gb_kept = gb_day * habits.keep_days
    cores = sum(
        max(least, math.ceil(cores / limits.busy)) for least, cores in ((2, postgres / 1e6), (1, redis / 1e6))
    )
    pushed_gb = day * watched * 1_000 / 1e9 * habits.session_days
    dollars = (
        (cores + feeds + webs + 2) * PRICES.core + gb_kept * PRICES.disk_gb * 2 + pushed_gb * PRICES.egress_gb
    )
    return Plan(
        accounts=accounts,
        day=day,
        peak=peak,
        browsers=browsers,
        feeds=feeds,
        worker_busy=_worker_load(accounts, peak, feeds, costs) / feeds,
        webs=webs,
        commits=commits,
        postgres_cores=postgres / 1e6,
        redis_cores=redis / 1e6,
        redis_network=peak * webs * costs.entry_bytes,
        follower_share=follower_share,
        connections=(feeds + webs) * limits.connections,
        rows=day * costs.rows,
        gb_day=gb_day,
        gb_kept=gb_kept,
        wal=peak * costs.wal_bytes,
        dollars=dollars,
    )


def strains(one: Plan, limits: Limits = LIMITS) -> dict[str, float]:
    """Return how near each part is to what it can take: 1 is the limit."""
    return {
        "connections to PostgreSQL without a pooler": one.connections / limits.postgres_connections,
        "one Redis' core: every web process asks for everything": one.redis_cores / limits.busy,
        "one Redis' network": one.redis_network / limits.redis_network,
        "more feed workers than shards: commits wait for each other": one.feeds / SHARDS,
        "a web process' core: it follows every change and every feed's state": one.follower_share
        / limits.busy,
        "PostgreSQL's cores": one.postgres_cores / (limits.postgres_cores * limits.busy),
        "PostgreSQL's log": one.wal / limits.wal_per_second,
    }


def breaking_points(costs: Costs = COSTS) -> list[tuple[int, str]]:
    """Return from how many accounts on each part is too small, the first one first."""
    found: dict[str, int] = {}
    accounts = 1_000
    while accounts <= 20_000_000:
        for what, strain in strains(plan(accounts, costs=costs)).items():
            if strain > 1:
                found.setdefault(what, accounts)
        accounts = math.ceil(accounts * 1.02)
    return sorted((accounts, what) for what, accounts in found.items())


# --- on paper ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What happened on paper."""

    accounts: int
    updates: int
    busiest_second: int
    peak: float
    """Updates a second over the opening."""
    worker_busy: float
    """Of the busiest worker's core, over the opening, with what idle accounts cost."""
    follower_busy: float
    waits_p50: float
    """Milliseconds from the update to its commit."""
    waits_p99: float
    per_commit: float
    moved: int
    """Accounts whose worker died."""
    stale_p50: float
    """Seconds until such an account was LIVE again."""
    stale_worst: float


def play(
    accounts: int,
    *,
    workers: int,
    costs: Costs = COSTS,
    habits: Habits = HABITS,
    seed: int = 1,
    seconds: float = 0,
) -> Played:
    """Play the opening: each account by itself, each commit by itself; half-way through one worker dies."""
    chance = random.Random(seed)
    seconds = seconds or habits.opening_seconds
    owner = [shard_of(f"S{number}") * workers // SHARDS for number in range(accounts)]
    mean = habits.updates * habits.opening_share * seconds / habits.opening_seconds
    arrivals: list[tuple[float, int]] = []
    for account in range(accounts):
        if chance.random() < habits.active:
            arrivals += ((at, account) for at in _lives(chance, mean, seconds))
    arrivals.sort()
    queues: list[deque[float]] = [deque() for _ in range(workers)]
    free_at = [0.0] * workers
    spent = [0.0] * workers
    waits: list[float] = []
    committed: list[float] = []
    by_second: Counter[int] = Counter()
    # An idle account takes its share of the core, so an update's work takes longer than its own time.
    owned = Counter(owner)
    slow = [1 / max(1 - owned[number] * costs.idle_account_us / 1e6, 0.05) for number in range(workers)]

    def commit_until(worker: int, now: float) -> None:
        queue = queues[worker]
        while queue and max(free_at[worker], queue[0]) < now:
            start = max(free_at[worker], queue[0])
            batch = []
            while queue and queue[0] <= start and len(batch) < 256:
                batch.append(queue.popleft())
            work = (costs.worker_commit_us + len(batch) * costs.worker_us) / 1e6
            more = (len(batch) - 1) * (costs.worker_us * slow[worker] + costs.postgres_us) / 1e6
            done = start + costs.commit_ms / 1e3 * slow[worker] + more
            committed.append(done)
            spent[worker] += work
            free_at[worker] = done
            waits.extend(done - at for at in batch)

    for at, account in arrivals:
        worker = owner[account]
        commit_until(worker, at)
        queues[worker].append(at)
        by_second[int(at)] += 1
    for worker in range(workers):
        commit_until(worker, math.inf)
    waits.sort()
    stale = _take_over(chance, [account for account in range(accounts) if owner[account] == 0], workers - 1)
    return Played(
        accounts=accounts,
        updates=len(arrivals),
        busiest_second=max(by_second.values(), default=0),
        peak=len(arrivals) / seconds,
        worker_busy=max(
            spent[number] / seconds + owned[number] * costs.idle_account_us / 1e6 for number in range(workers)
        ),
        follower_busy=(len(arrivals) * costs.follower_us + _asked(committed) * costs.follower_read_us)
        / 1e6
        / seconds
        + accounts * costs.web_state_us / 1e6,
        waits_p50=1e3 * waits[len(waits) // 2] if waits else 0,
        waits_p99=1e3 * waits[len(waits) * 99 // 100] if waits else 0,
        per_commit=len(arrivals) / max(len(committed), 1),
        moved=len(stale),
        stale_p50=stale[len(stale) // 2] if stale else 0,
        stale_worst=stale[-1] if stale else 0,
    )


def _asked(committed: list[float]) -> int:
    """Count the questions of a follower: it asks again as soon as it has handled an answer."""
    asked, free_at = 0, 0.0
    for at in sorted(committed):
        if at >= free_at:
            asked, free_at = asked + 1, at + HANDLES_IN
    return asked


def _lives(chance: random.Random, mean: float, seconds: float) -> list[float]:
    """Draw an account's updates: whole orders of five updates, within two seconds each; orders come at random."""
    moments: list[float] = []
    for _ in range(_poisson(chance, mean / 5)):
        begun = chance.random() * seconds
        moments += [at for at in (begun + chance.random() * 2 for _ in range(5)) if at < seconds]
    return moments


def _poisson(chance: random.Random, mean: float) -> int:
    limit, product, count = math.exp(-mean), chance.random(), 0
    while product > limit:
        product *= chance.random()
        count += 1
    return count


def _take_over(chance: random.Random, orphans: list[int], left: int) -> list[float]:
    """Return after how many seconds each account of a dead worker is LIVE at another one."""
    expiry = 10 - chance.random() * 3  # it renewed up to three seconds before it died
    looks = [(expiry + chance.random() * 2, worker) for worker in range(max(left, 1))]
    heapq.heapify(looks)
    connects: dict[int, float] = defaultdict(float)
    stale = []
    for _ in orphans:
        at, worker = heapq.heappop(looks)
        connects[worker] = max(connects[worker], at) + 1 / 50  # 50 connects a second in each process
        stale.append(connects[worker] + 0.3 + chance.random() * 1.2)  # log-in kept, connected, book read
        heapq.heappush(looks, (connects[worker], worker))
    return sorted(stale)


# --- telling ----------------------------------------------------------------------------------------------

SIZES = (1_000, 20_000, 100_000, 1_000_000)


def _rounded(number: float) -> str:
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 1 else f"{number:.2f}"


def table() -> str:
    """Return the plans as Markdown, one column a size."""
    plans = [plan(size) for size in SIZES]
    rows = [
        ("updates a day", [f"{p.day:,.0f}" for p in plans]),
        ("updates a second, opening", [_rounded(p.peak) for p in plans]),
        ("browsers open", [f"{p.browsers:,}" for p in plans]),
        ("feed workers", [f"{p.feeds:,}" for p in plans]),
        ("web processes", [f"{p.webs:,}" for p in plans]),
        ("… of a core spent on following", [_rounded(p.follower_share) for p in plans]),
        ("PostgreSQL, cores busy", [_rounded(p.postgres_cores) for p in plans]),
        ("Redis, cores busy", [_rounded(p.redis_cores) for p in plans]),
        ("Redis → web processes, MB/s", [_rounded(p.redis_network / 1e6) for p in plans]),
        ("connections to PostgreSQL", [f"{p.connections:,}" for p in plans]),
        ("rows a day", [f"{p.rows:,.0f}" for p in plans]),
        ("GB a day / kept for 90 days", [f"{_rounded(p.gb_day)} / {_rounded(p.gb_kept)}" for p in plans]),
        ("write-ahead log, MB/s, opening", [_rounded(p.wal / 1e6) for p in plans]),
        ("dollars a month / an account", [f"{p.dollars:,.0f} / {p.per_account:.3f}" for p in plans]),
    ]
    head = f"| accounts | {' | '.join(f'{size:,}' for size in SIZES)} |\n|---|{'---:|' * len(SIZES)}\n"
    return head + "".join(f"| {name} | {' | '.join(values)} |\n" for name, values in rows)


def cost_table() -> str:
    """Return what was measured, as Markdown."""
    source = Path(__file__).read_text()
    lines = []
    for name, value in asdict(COSTS).items():
        words = re.search(rf'    {name}: float = [\d_.]+\n    """(.*?)"""', source, re.DOTALL)
        unit = name.rsplit("_", 1)[-1]
        shown = {"us": "µs", "ms": "ms", "kib": "KiB", "bytes": "B"}.get(unit, "")
        lines.append(
            f"| {words[1].rstrip('.') if words else name} | {value:,.4g} {shown} |".replace(" |", " |")
        )
    return "| one of | costs |\n|---|---:|\n" + "\n".join(lines) + "\n"


def breaks() -> str:
    """Return what breaks first, as Markdown."""
    lines = [f"| {accounts:,} | {what} |" for accounts, what in breaking_points()]
    return "| from accounts | too small |\n|---:|---|\n" + "\n".join(lines) + "\n"


def compare(accounts: int, *, seed: int = 1) -> tuple[str, bool]:
    """Play what was planned; return both as Markdown, and whether they agree."""
    planned = plan(accounts)
    played = play(accounts, workers=planned.feeds, seed=seed)
    pairs = [
        ("updates a second over the opening", planned.peak, played.peak),
        ("busiest worker, of a core", planned.worker_busy, played.worker_busy),
        ("a web process following, of a core", planned.follower_share, played.follower_busy),
    ]
    agree = all(abs(on_paper / calculated - 1) <= 0.25 for _, calculated, on_paper in pairs)
    lines = [f"| {name} | {_rounded(a)} | {_rounded(b)} |" for name, a, b in pairs]
    lines += [
        f"| busiest second, updates | | {played.busiest_second:,} |",
        f"| update → committed, p50 / p99 | | {played.waits_p50:.1f} / {played.waits_p99:.1f} ms |",
        f"| updates a commit | | {played.per_commit:.2f} |",
        f"| a worker dies: accounts moved | | {played.moved:,} |",
        f"| … LIVE again after, p50 / worst | | {played.stale_p50:.1f} / {played.stale_worst:.1f} s |",
    ]
    head = f"| {accounts:,} accounts, {planned.feeds} feed workers | calculated | played |\n|---|---:|---:|\n"
    return head + "\n".join(lines) + "\n", agree


def blocks() -> dict[str, str]:
    """Return what docs/explanation/scale.md shows, by the name of its place there."""
    return {"costs": cost_table(), "plans": table(), "breaks": breaks(), "played": compare(20_000)[0]}


def written(page: str) -> str:
    """Return the page with each block in its place."""
    for name, text in blocks().items():
        page = re.sub(
            rf"<!-- {name} -->\n.*?<!-- /{name} -->",
            lambda _, name=name, text=text: f"<!-- {name} -->\n{text}<!-- /{name} -->",
            page,
            flags=re.DOTALL,
        )
    return page


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--play", type=int, metavar="ACCOUNTS", help="play an opening of so many accounts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--double", metavar="COST", help="say what a doubled cost changes, e.g. follower_us")
    parser.add_argument("--write", action="store_true", help=f"bring {PAGE.name} up to date")
    asked = parser.parse_args()
    if asked.write:
        PAGE.write_text(written(PAGE.read_text()))
    if asked.play:
        text, agree = compare(asked.play, seed=asked.seed)
        print(text)
        return int(not agree)
    print(table())
    print(breaks())
    if asked.double:
        doubled = replace(COSTS, **{asked.double: 2 * getattr(COSTS, asked.double)})
        print([f"{size:,}: {plan(size, costs=doubled).dollars:,.0f} $" for size in SIZES])
        print(breaking_points(doubled))
    return 0


if __name__ == "__main__":
    sys.exit(main())
