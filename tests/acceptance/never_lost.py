"""Never wrong, never lost, as several processes: two feeds workers, two web workers, a real PostgreSQL and a real Redis.

The rows of that table that mean something there, judged by the simulators' ledger. `make never-lost` runs it, in full size
(hours) or with SIZE=small (minutes); it is no part of `make test`. Kills at every boundary of a commit are in tests/store/test_kills.py, deaths under load in test_chaos.py, a former
owner's writes and how fast another takes over in tests/integration/test_roles.py.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from acceptance.test_postbacks import bombarded
from cluster import PATIENCE
from faulty_accounts import told, weathered
from house import JAINAM, ZERODHA, eventually
from integration.test_jainam_faults import ALL as JAINAMS
from integration.test_jainam_faults import JainamTrader
from integration.test_zerodha_faults import ALL as ZERODHAS
from integration.test_zerodha_faults import ZerodhaTrader
from orderwire.client import OrderStream
from orderwire.errors import BrokerUnreachableError, OrderwireError
from orderwire.service import open_records
from orderwire.store.users import Scope
from web.follower import Follower
from wide_house import FEEDS, running_wide_house

FULL = os.environ.get("ORDERWIRE_NEVER_LOST", "") == "full"
DISCONNECTS = 10_000 if FULL else 60
DELIVERIES = 100_000 if FULL else 500
FORGED = 10_000 if FULL else 200
CUTS = 50 if FULL else 2
TOGGLES = 20 if FULL else 1
OPEN_PAGES = 20

SOME = {"drop half", "half-open", "cut", "placed, answer lost"}
"""The weathers of the small size, at Jainam; the full one has all, at both brokers."""

pytestmark = [
    pytest.mark.timeout(7200 if FULL else 900),
    # a client whose server is killed while it connects leaves its socket to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with running_wide_house(tmp_path_factory.mktemp("wide"), reply_ms=5, push_ms=5) as house:
        house.sims.ask("PATCH", "/settings", {"check_margin": False})
        yield house


@pytest.fixture(autouse=True)
def calm(house):
    """Everything a test broke is whole again for the next one."""
    yield
    house.sims.ask("DELETE", "/faults")
    house.whole_again(ZERODHA, JAINAM)


# --- the load: orders that rest at the broker and are filled there ---------------------------------------


class Load:
    """Fills resting orders of the two accounts, one share at a time, until the block ends."""

    def __init__(self, house, *, orders: int = 4, rate: float = 60) -> None:
        self._house, self._rate = house, rate
        self.uids = {account: [rest(house, account) for _ in range(orders)] for account in (ZERODHA, JAINAM)}
        self.filled: Counter[str] = Counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        chance, every = Random(5), [uid for uids in self.uids.values() for uid in uids]
        while not self._over.wait(1 / self._rate):
            uid = chance.choice(every)
            self._house.sims.ask("POST", "/market/fill", {"uid": uid, "quantity": 1})
            self.filled[uid] += 1

    def goes_on(self, fills: int = 10) -> None:
        """Wait until so many more fills were made."""
        target = self.filled.total() + fills
        eventually(lambda: self.filled.total() >= target, within=PATIENCE, what="fills")


def rest(house, account: str) -> str:
    order = eventually(lambda: placed(house, account), within=PATIENCE, what="an order that is placed")
    broker = "kite" if account == ZERODHA else "xts"
    uid = f"{broker}:{order['order_id']}"
    eventually(lambda: truth(house)[uid][0] == "OPEN", what="an order that rests")
    return uid


def placed(house, account: str):
    """Place an order unless the account is changing hands just now: then nothing was sent."""
    with contextlib.suppress(BrokerUnreachableError):
        return house.place(account, symbol="SBIN", order_type="LIMIT", price="780", quantity=50_000)
    return None


def truth(house):
    """The brokers' orders: stage and filled quantity."""
    return {
        f"{o['broker']}:{o['order_id']}": (o["stage"], o["filled"]) for o in house.sims.ask("GET", "/orders")
    }


def shown(house, url):
    """The same as the pages of one web process show them."""
    rows = [("kite", row) for row in house.book("asha", url).values()]
    rows += [("xts", row) for row in house.book("jay", url).values()]
    return {f"{broker}:{row['orderid']}": (row["status"], row["filled_quantity"]) for broker, row in rows}


def await_truth(house, uids) -> None:
    """Wait until every web process shows these orders as the brokers hold them."""
    for url in house.urls:
        eventually(
            lambda url=url: (mine := shown(house, url)) and all(mine.get(u) == truth(house)[u] for u in uids),
            within=PATIENCE,
            what=f"the brokers' truth at {url}",
        )


def log_of_changes(house):
    """Numbers without gap or repetition, each execution once, no filled quantity that falls; returns how many changes."""
    rows = house.workers.ask("SELECT account, sequence, change::json FROM outbox ORDER BY account, sequence")
    numbers: dict[str, list[int]] = {}
    trades: Counter[tuple[str, str]] = Counter()
    filled: Counter[tuple[str, str]] = Counter()
    for account, sequence, change in rows:
        numbers.setdefault(account, []).append(sequence)
        if change["kind"] == "trade":
            trades[account, change["trade"]["trade_id"]] += 1
        elif change["kind"] == "order" and change["order"]["order_id"]:
            key = (account, change["order"]["order_id"])
            assert change["order"]["filled_quantity"] >= filled[key], f"{key} fell at {sequence}"
            filled[key] = change["order"]["filled_quantity"]
    assert all(later == earlier + 1 for told in numbers.values() for earlier, later in pairwise(told))
    assert [key for key, count in trades.items() if count > 1] == []
    return len(rows)


# --- what is read ---------------------------------------------------------------------------------------


def test_after_any_disconnects_a_client_that_comes_back_elsewhere_holds_the_snapshot(house, record_property):
    chance = Random(1)
    with Load(house) as load:
        follower = Follower(house.urls, house.keys["jay"], JAINAM, chance)
        for round_ in range(DISCONNECTS):
            follower.live_a_while(events=chance.randrange(4))
            if round_ % 97 == 0:
                follower.cursor = {}  # a program that kept nothing

    await_truth(house, load.uids[JAINAM])
    last = house.workers.ask("SELECT max(sequence) FROM outbox WHERE account = %s", JAINAM)[0][0]
    follower.catch_up(last)
    fields = ("status", "filled_quantity", "pending_quantity", "order_status")
    mine = {row: [line[f] for f in fields] for row, line in follower.rows.items()}
    for url in house.urls:
        held = house.book("jay", url)
        assert mine == {row: [line[f] for f in fields] for row, line in held.items()}
    record_property(
        "figure",
        f"several processes: {DISCONNECTS} disconnects, coming back to either web process, {follower.taken} "
        f"deliveries taken, {follower.snapshots} snapshots: the client's view equals the snapshot of both",
    )


def test_nobody_is_told_a_strangers_order_and_nobody_unknown_anything_at_any_web_process(
    house, record_property
):
    owns = {"asha": ZERODHA, "jay": JAINAM}
    heard: Counter[tuple[str, str]] = Counter()
    with contextlib.ExitStack() as opened:
        load = Load(house, rate=200 if FULL else 60)
        streams = [
            (user, opened.enter_context(OrderStream(url, apikey=house.keys[user])))
            for user in owns
            for url in house.urls
            for _ in range(2)
        ]
        opened.enter_context(load)
        while heard.total() < DELIVERIES:
            for user, stream in streams:
                while (event := stream.next(timeout=0.001)) is not None:
                    heard[user, event.fields["account"]] += 1

    refused = 0
    for url in house.urls:
        for key in ("", "wrong", house.keys["jay"][:-1] + "x"):
            with pytest.raises(OrderwireError), OrderStream(url, apikey=key) as stream:
                stream.next(timeout=5)
            refused += 1
    assert {pair for pair in heard if owns[pair[0]] != pair[1]} == set()
    assert {account for _, account in heard} == {ZERODHA, JAINAM}
    record_property(
        "figure",
        f"several processes: {heard.total()} deliveries to 8 clients of 2 users at 2 web processes, 0 to the wrong "
        f"account; {refused} clients without a valid key, 0 served",
    )


# --- what is claimed ------------------------------------------------------------------------------------


def test_forged_postbacks_change_nothing_at_any_web_process(house, record_property):
    path = house.postback_url.removeprefix(house.url)

    codes, reads, seconds = bombarded(house, [f"{url}{path}" for url in house.urls], FORGED)

    record_property(
        "figure",
        f"several processes: {FORGED} forged postbacks to 2 web processes: 0 orders changed, answered {dict(codes)}, "
        f"{reads} reads in {seconds:.0f} s",
    )


# --- what goes wrong ------------------------------------------------------------------------------------


def test_under_faults_and_while_workers_die_every_page_comes_to_equal_the_brokers_book(
    house, record_property
):
    house.sims.ask("POST", "/market/price", {"key": "NSE:SBIN", "price": "820"})
    weathers = {"jay": (JainamTrader, [each for each in JAINAMS if FULL or each.name in SOME])}
    if FULL:
        weathers["asha"] = (ZerodhaTrader, list(ZERODHAS))
    died: list[str] = []
    for user, (kind, conditions) in weathers.items():
        traders = [kind(house, number, each) for number, each in enumerate(conditions, 1)]
        with house.dying(every=25) as gone:
            seconds = weathered(house, user, traders)
        died += gone
        record_property("figure", told(f"several processes, {len(gone)} killed meanwhile, {user}", seconds))
        house.sims.ask("DELETE", "/faults")

    assert set(died) & {*FEEDS}
    changes = log_of_changes(house)
    record_property("figure", f"several processes: {changes} changes, none twice, no gap, nothing fell")


def test_streams_that_are_cut_come_back_live_and_whole(house, record_property):
    took = []
    with Load(house) as load:
        for _ in range(CUTS):
            before, began = sockets(house), time.monotonic()
            for broker in ("kite", "xts"):
                assert house.sims.ask("POST", "/sockets/disconnect", {"broker": broker})["cut"]
            eventually(lambda before=before: came_back(house, before), within=PATIENCE, what="other streams")
            house.whole_again(ZERODHA, JAINAM)
            took.append(time.monotonic() - began)
            load.goes_on()

    await_truth(house, [uid for uids in load.uids.values() for uid in uids])
    took.sort()
    record_property(
        "figure",
        f"several processes: cut → LIVE and reconciled, {CUTS} times: p50 {took[len(took) // 2]:.1f}, "
        f"worst {took[-1]:.1f} s",
    )


def sockets(house):
    """The accounts' connections at both brokers now; XTS names each."""
    found = house.sims.ask("GET", "/sockets")
    return len(found["kite"]), {one["sid"] for one in found["xts"]}


def came_back(house, before) -> bool:
    kite, xts = sockets(house)
    return kite >= before[0] and len(xts) >= len(before[1]) and xts.isdisjoint(before[1])


def test_real_time_switched_off_under_load_by_another_process_loses_nothing(house, record_property):
    stopped = []
    with Load(house) as load:
        for _ in range(TOGGLES):
            load.goes_on()
            began = time.monotonic()
            house.command("rollout.kill", why="a drill")
            eventually(lambda: not any(house.sims.ask("GET", "/sockets").values()), what="no stream left")
            stopped.append(time.monotonic() - began)
            load.goes_on()
            house.command("rollout.resume", why="the drill is over")
            for account in (ZERODHA, JAINAM):
                house.await_freshness(account, "LIVE")

    await_truth(house, [uid for uids in load.uids.values() for uid in uids])
    log_of_changes(house)
    record_property(
        "figure",
        f"several processes: switched off by another process under load → no stream left at either broker, worst of "
        f"{TOGGLES}: {max(stopped):.2f} s; 0 lost, 0 twice",
    )


# --- what ends ------------------------------------------------------------------------------------------


def test_workers_end_in_order_under_open_pages_and_the_pages_go_on_elsewhere(house, record_property):
    took = {}
    with Load(house) as load, contextlib.ExitStack() as pages:
        for _ in range(OPEN_PAGES):
            stream = pages.enter_context(OrderStream(house.urls[0], apikey=house.keys["jay"]))
            assert stream.next(timeout=PATIENCE) is not None
        for name in ("w1", "f1"):
            began = time.monotonic()
            assert house.workers.stop(name) == 0
            took[name] = time.monotonic() - began
            load.goes_on()

    last = [uid for uids in load.uids.values() for uid in uids]
    eventually(
        lambda: (mine := shown(house, house.urls[1])) and all(mine[uid] == truth(house)[uid] for uid in last),
        within=PATIENCE,
        what="the truth at the web process that is left",
    )
    log_of_changes(house)
    record_property(
        "figure",
        f"several processes: ended with {OPEN_PAGES} open pages under load: web {took['w1']:.1f}, "
        f"feeds {took['f1']:.1f} s",
    )


def test_no_secret_is_in_a_log_or_in_redis(house):
    """After all of the above; this file's tests run in any order, so after whatever came before."""
    records = open_records(house.settings)
    try:
        secrets = set(house.keys.values())
        for account in (ZERODHA, JAINAM):
            held = records.accounts.credentials(account)
            secrets |= {held[name] for name in {"api_secret", "secret_key"} & held.keys()}
            secrets |= set(records.accounts.login(account).secrets.values())
    finally:
        records.database.close()
    secrets.add(records_key(house))

    places = {name: house.workers.log(name).encode() for name in house.workers.ports}
    for key in house.redis.client.scan_iter(count=1000):
        places[f"Redis {key!r}"] = house.redis.client.dump(key) or b""
    assert len(places) > len(house.workers.ports)
    assert [(where) for where, held in places.items() for secret in secrets if secret.encode() in held] == []


def records_key(house) -> str:
    """A key that was just made and used, of the kind no log may have."""
    records = open_records(house.settings)
    key = records.users.add_key("ops", scope=Scope.READ)[1]
    records.database.close()
    return key
