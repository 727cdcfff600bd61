"""Changes to send over the bus, and somebody who listens at its end."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

from orderwire.core.lifecycle import OrderChange
from orderwire.core.orders import AccountId
from orderwire.store.book import OrderBook
from store.making import LIFE, observed, update

ACCOUNTS = tuple(AccountId(f"A{number}") for number in range(40))


def tell(
    book: OrderBook, rounds: int = 1, *, start: int = 0, accounts: Sequence[AccountId] = ACCOUNTS
) -> int:
    """Have the life of an order in each account committed, step by step, `rounds` times; returns the changes made."""
    made = 0
    for number in range(start, start + rounds):
        for word in LIFE:
            for account in accounts:
                book.on_observation(observed(update(word, account=account, order=f"{account}-{number}")))
            made += len([event for event in book.commit() or [] if event.type == "eOrderChanged"])
    return made


class Listening:
    """Keeps what it is told, and checks the order of it."""

    def __init__(self) -> None:
        self.told: list[tuple[AccountId, int]] = []
        self.woken: list[AccountId] = []
        self.lock = threading.Lock()
        self.fail_at: int | None = None

    def offer(self, changes: Sequence[OrderChange]) -> None:
        with self.lock:
            self.told += [(change.account, change.sequence) for change in changes]

    def wake(self, accounts: Collection[AccountId]) -> None:
        with self.lock:
            self.woken += accounts

    def of(self, account: AccountId) -> list[int]:
        return [sequence for whose, sequence in self.told if whose == account]

    def in_order_and_once(
        self, each: int, *, first: int = 1, accounts: Sequence[AccountId] = ACCOUNTS
    ) -> bool:
        return all(self.of(account) == list(range(first, first + each)) for account in accounts)
