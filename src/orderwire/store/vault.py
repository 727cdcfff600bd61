"""Changes the sealing key: everything that is sealed is opened and sealed again, while the service runs."""

from __future__ import annotations

from pathlib import Path

from orderwire.store import sealing
from orderwire.store.accounts import Accounts
from orderwire.store.notifications import Notifications


class Vault:
    """The key file and everything that is sealed with it."""

    def __init__(self, path: Path, *, accounts: Accounts, notifications: Notifications) -> None:
        self._path = path
        self._accounts = accounts
        self._notifications = notifications

    def rotate(self, *, by: str, forget_old: bool = False) -> tuple[str, int]:
        """Make a new key and seal everything again; return the key's name and how many secrets there were.

        The earlier keys stay in the file, so that a crash half way and a backup can be opened, unless
        `forget_old`. Raises SealError when something does not open: then nothing was sealed with the new key.
        """
        ring = sealing.rotate(self._path)
        count = self._accounts.reseal(ring, by=by) + self._notifications.reseal(ring)
        if forget_old:
            sealing.forget(self._path)
        return ring.newest, count
