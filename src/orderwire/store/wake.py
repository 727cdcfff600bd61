"""Where one process tells the others that something is there to be read: a hint, never the truth.

The truth is in the database, and whoever follows it looks there by itself: the web role at each account's change
log, an owner at the commands for its accounts. A `Wake` only makes them look sooner. So it may lose, repeat and
reorder whatever it likes; an implementation (Redis Streams, say) is given to `Service` and `WebService`, publishes
after a commit and calls its listener from whichever thread or greenlet it has. Without one, `Still` is used.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from orderwire.core.lifecycle import OrderChange
from orderwire.core.orders import AccountId


class WakeListener(Protocol):
    """Who is told. Every method only notes what it is given and returns at once."""

    def offer(self, changes: Sequence[OrderChange]) -> None:
        """Take committed changes; what is no direct continuation is read from the database instead."""
        ...

    def wake(self, accounts: Collection[AccountId]) -> None:
        """Look at these accounts' change logs now."""
        ...


class Wake(Protocol):
    """A way to other processes; any thread. Nothing here raises or waits: it is best effort."""

    def changed(self, changes: Sequence[OrderChange]) -> None:
        """Say that these changes were committed."""
        ...

    def commanded(self, accounts: Collection[AccountId]) -> None:
        """Say that a command waits for the owners of these accounts, or was answered."""
        ...

    def subscribe(self, listener: WakeListener) -> None:
        """Tell `listener` of changes from now on."""
        ...


class Still:
    """Wakes nobody: everybody looks at their own pace."""

    def changed(self, changes: Sequence[OrderChange]) -> None:
        """Do nothing."""

    def commanded(self, accounts: Collection[AccountId]) -> None:
        """Do nothing."""

    def subscribe(self, listener: WakeListener) -> None:
        """Do nothing."""
