"""Who may live on a shared database: `serve` alone, or any number of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import text

from house import eventually
from orderwire import arrival
from orderwire.errors import ConfigurationError, StoreBusyError, StoreError
from orderwire.store.database import Database
from orderwire.store.leases import FEEDS, NOW, SERVE, TTL, WEB, CrowdedError, Leases, workers
from store.making import FakeClock

Process = Callable[..., Leases]


@pytest.fixture
def process(shared: str, clock: FakeClock) -> Iterator[Process]:
    """A process with connections of its own that has not entered yet."""
    opened: list[Database] = []

    def make(name: str, **options: float) -> Leases:
        database = Database(shared, clock=clock)
        opened.append(database)
        leases = Leases(database, name, **options)
        leases.database = database
        return leases

    yield make
    for database in opened:
        database.close()


def enter(leases: Leases, role: str) -> Leases:
    """Enter, however long the database is busy with others."""
    while True:
        with suppress(StoreBusyError):
            leases.enter(role=role, place="here:1", version="1")
            return leases


def run_out(leases: Leases) -> None:
    over = text("UPDATE workers SET expires_ns = 1 WHERE id = :me")
    leases.database.write(lambda connection: connection.execute(over, {"me": leases.worker}))


@pytest.mark.parametrize(
    ("first", "second"), [(SERVE, SERVE), (SERVE, FEEDS), (SERVE, WEB), (FEEDS, SERVE), (WEB, SERVE)]
)
def test_who_comes_second_is_kept_out_and_told_who_is_there(process, first, second):
    there, comes = enter(process("there"), first), process("comes")

    with pytest.raises(CrowdedError, match=f"in use by {first} there at here:1"):
        enter(comes, second)

    assert [worker.id for worker in workers(there.database)] == ["there"]
    there.leave()
    enter(comes, second)
    assert [worker.id for worker in workers(there.database)] == ["comes"]


def test_feeds_and_web_live_beside_each_other(process):
    for name, role in (("f1", FEEDS), ("f2", FEEDS), ("w1", WEB), ("w2", WEB)):
        last = enter(process(name), role)

    assert [worker.live for worker in workers(last.database)] == [True] * 4


def test_of_those_that_come_at_once_one_kind_lives(process):
    """Again and again, each with connections of its own."""
    those = [(process(f"{role}-{number}"), role) for number in (1, 2) for role in (SERVE, FEEDS, WEB)]

    def try_it(one: tuple[Leases, str]) -> str:
        try:
            return enter(*one)._card["role"]
        except CrowdedError:
            return ""

    with ThreadPoolExecutor(len(those)) as pool:
        for _ in range(20):
            came = sorted(role for role in pool.map(try_it, those) if role)
            assert came in ([SERVE], [FEEDS, FEEDS, WEB, WEB])
            for leases, _role in those:
                leases.leave()


def test_who_slept_through_its_time_finds_the_place_taken_and_owns_nothing(process, clock):
    slept = enter(process("slept"), FEEDS)
    slept.renew()
    run_out(slept)
    enter(process("serve"), SERVE)

    with pytest.raises(CrowdedError, match="in use by serve serve"):
        slept.renew()

    assert (slept.safe, dict(slept.held)) == (False, {})
    with pytest.raises(CrowdedError):
        slept.stay()


def test_who_slept_through_its_time_goes_on_where_nobody_came(process):
    slept = enter(process("slept"), SERVE)
    run_out(slept)

    slept.renew()

    assert [(worker.role, worker.live) for worker in workers(slept.database)] == [(SERVE, True)]


@pytest.mark.parametrize("wakes_first", [True, False])
def test_one_that_wakes_while_another_enters_is_either_there_or_has_to_enter(process, wakes_first):
    """Both at once, held up between their statements in either order: they are never both let in."""
    slept, comes = enter(process("slept"), FEEDS), process("serve")
    run_out(slept)
    held, go_on, done = threading.Event(), threading.Event(), []

    def slowly(leases: Leases, work: Callable[..., None]) -> None:
        def held_up(connection) -> None:
            work(connection)
            held.set()
            assert go_on.wait(60)

        attempt(leases, held_up)

    def attempt(leases: Leases, work: Callable[..., None]) -> None:
        try:
            leases.database.write(work)
            done.append(leases.worker)
        except StoreError:
            pass

    comes._card = {"role": SERVE, "place": "", "version": ""}
    slow, quick = (slept, comes) if wakes_first else (comes, slept)
    work = {"slept": Leases._beat, "serve": Leases._sign_in}
    first = threading.Thread(target=slowly, args=(slow, lambda c: work[slow.worker](slow, c)))
    first.start()
    assert held.wait(60)
    second = threading.Thread(target=attempt, args=(quick, lambda c: work[quick.worker](quick, c)))
    second.start()
    eventually(lambda: not second.is_alive() or waits_for_a_lock(process), what="the second waits")
    go_on.set()
    first.join()
    second.join()

    assert done == [slow.worker]


def test_one_that_said_in_time_that_it_lives_keeps_others_out_though_it_commits_late(process):
    lives, comes = enter(process("lives", ttl=1.0), FEEDS), process("comes")
    said, go_on = threading.Event(), threading.Event()
    lives._ttl_ns = 60 * 10**9

    def late(connection) -> None:
        lives._beat(connection)
        said.set()
        assert go_on.wait(60)

    saying = threading.Thread(target=lambda: lives.database.write(late))
    saying.start()
    assert said.wait(60)
    eventually(
        lambda: not any(worker.live for worker in workers(comes.database)), what="its old word ran out"
    )
    with ThreadPoolExecutor(1) as pool:
        entering = pool.submit(enter, comes, SERVE)
        eventually(lambda: entering.done() or waits_for_a_lock(process), what="the other waits")
        go_on.set()
        saying.join()
        with pytest.raises(CrowdedError):
            entering.result(60)


def waits_for_a_lock(process: Process) -> bool:
    leases = process("looks")
    with leases.database.read() as connection:
        found = connection.execute(
            text(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND database IS NOT NULL OR locktype = 'transactionid' AND NOT granted"
            )
        )
        return bool(found.scalar())


def test_who_left_does_not_come_back_by_a_renewal_that_was_under_way(process):
    left = enter(process("left"), FEEDS)
    left.leave()

    left.renew()
    left.stay()

    assert workers(left.database) == []


# --- arriving -----------------------------------------------------------------------------------------


def test_who_was_killed_is_waited_for_until_it_runs_out(process):
    enter(process("killed", ttl=0.5), SERVE)
    comes = process("again")

    arrival.arrive(comes, role=SERVE, version="1")

    assert [worker.id for worker in workers(comes.database) if worker.live] == ["again"]


def test_who_says_again_that_it_lives_keeps_others_out(process, shared):
    lives, over = enter(process("lives"), FEEDS), threading.Event()

    def live() -> None:
        while not over.wait(0.05):
            lives.renew()

    keeps = threading.Thread(target=live)
    keeps.start()
    try:
        with pytest.raises(
            ConfigurationError, match=r"feeds lives at here:1\..*orderwire feeds.*orderwire web"
        ):
            arrival.arrive(process("comes"), role=SERVE, version="1")
    finally:
        over.set()
        keeps.join()


def test_one_that_arrives_lives_until_it_came_up_but_takes_no_share_yet(process):
    comes = process("comes", ttl=0.01)

    arrival.arrive(comes, role=FEEDS, version="1")

    with comes.database.read() as connection:
        left = connection.execute(text(f"SELECT (expires_ns - {NOW}) / 1e9 FROM workers")).scalar_one()
    assert left > TTL
    assert comes.situation().workers == ()
    enter(process("comes"), FEEDS)
    assert comes.situation().workers == ("comes",)


def test_no_two_have_the_name_of_one_that_is_alone():
    assert arrival.only_name() != arrival.only_name()
