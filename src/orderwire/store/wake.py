"""Who is told by other processes that something is there to be read: a hint, never the truth.

The truth is in the database, and whoever follows it looks there by itself: the web role at each account's change
log, an owner at the commands for its accounts. A hint only makes them look sooner. So whoever brings it (`bus/`) may
lose, repeat and reorder whatever it likes; it calls the listener from whichever thread or greenlet it has.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from orderwire.core.lifecycle import OrderChange
from orderwire.core.orders import AccountId


class WakeListener(Protocol):
    """Who is told of changes. Every method only notes what it is given and returns at once."""

    def offer(self, changes: Sequence[OrderChange]) -> None:
        """Take committed changes; what is no direct continuation is read from the database instead."""
        ...

    def wake(self, accounts: Collection[AccountId]) -> None:
        """Look at these accounts' change logs now."""
        ...
