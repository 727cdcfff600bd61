from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from orderwire.core.orders import AccountId
from orderwire.store.commands import Commands, CommandState
from orderwire.store.database import Database
from orderwire.store.leases import Leases
from store.making import FakeClock
from store.test_leases import add_accounts, run_out

A1 = AccountId("A1")
S = CommandState


class Owner:
    """A worker with its own connections."""

    def __init__(self, database: Database, name: str) -> None:
        self.database = database
        self.leases = Leases(database, name)
        self.leases.enter(role="feeds", place="here:1", version="1")
        self.commands = Commands(database)

    def take(self) -> list[str]:
        taken = self.commands.take(self.leases.worker, list(self.leases.held), most=10)
        return [command.id for command in taken]


@pytest.fixture
def hire(shared: str, clock: FakeClock) -> Iterator[Callable[[str], Owner]]:
    opened: list[Owner] = []

    def open_it(name: str) -> Owner:
        opened.append(Owner(Database(shared, clock=clock), name))
        return opened[-1]

    yield open_it
    for owner in opened:
        owner.database.close()


@pytest.fixture
def owner(hire: Callable[[str], Owner]) -> Owner:
    first = hire("w1")
    add_accounts(first.database, "A1", "A2")
    first.leases.take(2)
    return first


def ask(owner: Owner, name: str = "c1", *, account: str = "A1", seconds: float = 60.0) -> None:
    owner.commands.ask(AccountId(account), command_id=name, kind="Place", body="a secret", seconds=seconds)


def row(owner: Owner, name: str = "c1") -> tuple[str, str, str]:
    with owner.database.read() as connection:
        found = connection.execute(
            text("SELECT state, body, reply FROM commands WHERE id = :id"), {"id": name}
        )
        return tuple(found.one())


def test_a_command_is_taken_by_the_owner_and_answered(owner):
    ask(owner)
    assert owner.commands.waits("w1")

    assert owner.take() == ["c1"]
    owner.commands.answer("c1", "w1", "done so")

    assert owner.commands.outcome("c1").reply == "done so"
    assert owner.commands.outcome("c1").state is S.DONE
    assert row(owner) == ("DONE", "", "done so")  # what it asked for is forgotten


def test_a_command_is_taken_once_however_many_look(owner):
    for number in range(20):
        ask(owner, f"c{number}")

    with ThreadPoolExecutor(4) as pool:
        taken = [one for some in pool.map(lambda _: owner.take(), range(8)) for one in some]

    assert sorted(taken) == sorted(f"c{number}" for number in range(20))


def test_nobody_but_the_owner_takes_a_command(owner, hire):
    other = hire("w2")
    ask(owner)

    assert not other.commands.waits("w2")
    assert other.commands.take("w2", [A1], most=10) == []


def test_an_overtaken_owner_takes_nothing_though_it_does_not_know_yet(owner, hire):
    other = hire("w2")
    ask(owner)
    run_out(owner.leases)
    other.leases.take(2)

    assert owner.take() == []
    assert other.take() == ["c1"]


def test_what_was_begun_is_lost_with_its_owner_and_never_done_again(owner, hire):
    other = hire("w2")
    ask(owner)
    owner.take()
    run_out(owner.leases)

    other.leases.take(2)

    assert owner.commands.outcome("c1").state is S.LOST
    assert other.take() == []
    owner.commands.answer("c1", "w1", "too late")
    assert row(owner) == ("LOST", "", "")


def test_a_command_that_is_taken_back_is_not_taken(owner):
    ask(owner)

    assert owner.commands.withdraw("c1")

    assert owner.take() == []
    assert row(owner) == ("WITHDRAWN", "", "")


def test_a_command_that_was_taken_cannot_be_taken_back(owner):
    ask(owner)
    owner.take()

    assert not owner.commands.withdraw("c1")


def test_a_command_is_not_taken_after_its_deadline(owner):
    ask(owner, seconds=0.0)

    assert owner.take() == []
    assert not owner.commands.outcome("c1").in_time


def test_the_same_id_asks_once(owner):
    ask(owner)
    ask(owner)

    assert owner.take() == ["c1"]
    ask(owner)
    assert owner.take() == []


def test_what_was_asked_of_an_account_that_is_gone_is_lost(owner):
    assert owner.commands.outcome("never there").state is S.LOST
