from __future__ import annotations

from types import SimpleNamespace

from orderwire.clock import SystemClock
from orderwire.core.orders import AccountId
from orderwire.feeds.clerk import Clerk
from orderwire.feeds.ownership import Ownership

A1, A2 = AccountId("A1"), AccountId("A2")


class Fleet:
    """Notes which feeds are begun and ended."""

    def __init__(self):
        self.told = []

    def begin(self, account):
        self.told.append(f"+{account}")

    def drop(self, accounts):
        self.told += [f"-{account}" for account in accounts]

    def find(self, account):
        return object() if f"+{account}" in self.told else None

    def since(self):
        told, self.told = self.told, []
        return told


def leases(**held):
    return SimpleNamespace(held=held, lapses=0, safe=False, draining=False, worker="w1")


def owner(fleet, held):
    return Ownership(
        held, database=None, fleet=fleet, book=None, clock=SystemClock(), version="1", place="here"
    )


def test_feeds_follow_what_is_held_and_begin_anew_under_another_token():
    fleet, held = Fleet(), leases(A1=1, A2=1)
    ownership = owner(fleet, held)

    ownership.on_placement(None)
    begun = fleet.since()
    held.held = {A1: 2}
    ownership.on_placement(None)
    moved = fleet.since()
    ownership.on_placement(None)

    assert begun == ["+A1", "+A2"]
    assert moved == ["-A1", "-A2", "+A1"]
    assert fleet.since() == []


def test_feeds_begin_anew_after_a_lapse_that_no_look_fell_into():
    """What came while nothing was ours to act on was refused, and a feed that goes on takes it for told."""
    fleet, held = Fleet(), leases(A1=1)
    ownership = owner(fleet, held)
    ownership.on_placement(None)
    fleet.since()

    held.lapses = 1
    ownership.on_placement(None)
    after = fleet.since()
    ownership.on_placement(None)

    assert after == ["-A1", "+A1"]
    assert fleet.since() == []


def test_commands_of_an_account_whose_feed_has_not_begun_wait():
    taken = []

    class Commands:
        def waits(self, _worker):
            return True

        def take(self, _worker, accounts, *, most):
            taken.append((accounts, most > 0))
            return []

    fleet = Fleet()
    fleet.begin(A2)
    clerk = Clerk(None, leases(A1=1, A2=1), SimpleNamespace(fleet=fleet), clock=SystemClock())
    clerk._commands = Commands()

    clerk._look()

    assert taken == [([A2], True)]
