"""One orderwire feeds a broker account: its seat on this machine, held by a process and gone when that is gone.

A seat is a bound name. On Linux that is an abstract Unix socket: the kernel forgets it with its process, no file is
left, and who asks there is told who holds it. Elsewhere it is a locked file in the temporary folder.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

import structlog

from orderwire.brokers.adapter import AccountProfile, BrokerAdapter
from orderwire.core import seats
from orderwire.core.orders import AccountId
from orderwire.core.seats import MOST_SAID, Holder

_log = structlog.get_logger(__name__)

PREFIX: Final = "orderwire-seat-"

ASK_WAIT: Final = 0.5
"""Seconds a holder may take to say who it is; one that is stopped says nothing, and the kernel knows its process."""


class Seat(Protocol):
    """A name that this process holds."""

    def fileno(self) -> int:
        """Return what becomes readable when somebody asks, -1 where nobody can."""
        ...

    def answer(self) -> None:
        """Tell whoever asks who holds it."""
        ...

    def close(self) -> None:
        """Give it up."""
        ...


class Kind(Protocol):
    """How names are held on this machine; any thread."""

    def hold(self, name: str, holder: Holder) -> Seat | None:
        """Hold a name, None when somebody else does. Raises OSError where names cannot be held at all."""
        ...

    def holder(self, name: str) -> Holder | None:
        """Ask who holds a name, None when nobody does; waits up to `ASK_WAIT`."""
        ...


# --- Linux ----------------------------------------------------------------------------------------------


class _ListeningSeat:
    def __init__(self, listener: socket.socket, holder: Holder) -> None:
        self._listener = listener
        self._said = seats.said(holder)

    def fileno(self) -> int:
        return self._listener.fileno()

    def answer(self) -> None:
        with suppress(OSError):  # whoever asked is gone again
            asked, _ = self._listener.accept()
            with asked:
                asked.setblocking(False)
                asked.send(self._said)

    def close(self) -> None:
        self._listener.close()


class SocketSeats:
    """Names of abstract Unix sockets."""

    def hold(self, name: str, holder: Holder) -> Seat | None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        try:
            listener.bind(f"\0{PREFIX}{name}")
            listener.listen(16)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                return None
            raise
        return _ListeningSeat(listener, holder)

    def holder(self, name: str) -> Holder | None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
                asking.settimeout(ASK_WAIT)
                asking.connect(f"\0{PREFIX}{name}")
                return seats.heard(_read_all(asking), process=_process_of(asking))
        except ConnectionRefusedError:
            return None
        except OSError:  # so many ask that it takes no more, or we have no descriptor left to ask with
            return Holder()


def _read_all(asking: socket.socket) -> bytes:
    text = b""
    with suppress(OSError):  # it says nothing, or no more
        while len(text) < MOST_SAID and (more := asking.recv(MOST_SAID)):
            text += more
    return text


def _process_of(asking: socket.socket) -> int:
    credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])


# --- elsewhere ------------------------------------------------------------------------------------------


class _LockedSeat:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def fileno(self) -> int:
        return -1

    def answer(self) -> None:
        """Nobody asks: who holds it stands in the file."""

    def close(self) -> None:
        with suppress(OSError):  # another user's, or gone
            self._path.unlink()
        os.close(self._descriptor)


class FileSeats:
    """Locked files in a folder; one that a killed process leaves is taken by the next."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir())

    def hold(self, name: str, holder: Holder) -> Seat | None:
        path = self._folder / f"{PREFIX}{name}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        if not _locked(descriptor) or not _is_still(path, descriptor):
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, seats.said(holder))
        return _LockedSeat(path, descriptor)

    def holder(self, name: str) -> Holder | None:
        try:
            descriptor = os.open(self._folder / f"{PREFIX}{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return None if _locked(descriptor) else seats.heard(os.read(descriptor, MOST_SAID))
        finally:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether a file that was locked is the one that others find: its last holder may just have removed it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def of_this_machine() -> Kind:
    """Return how names are held here."""
    return SocketSeats() if sys.platform == "linux" else FileSeats()


# --- what accounts need -----------------------------------------------------------------------------------


def names_of(kind: type[BrokerAdapter], profile: AccountProfile, *, user_id: str) -> tuple[str, ...]:
    """Name the seats an account needs, as far as it is known whose it is; `user_id` of its session, or empty."""
    root = kind.address_fields[:1]
    address = next((profile.addresses.get(field.name) or field.default for field in root), "")
    users = [user_id, profile.credentials.get("user_id", "")]
    return seats.names(
        kind.name,
        address,
        app_key=profile.credentials.get(kind.app_fields[0], "") if kind.one_login_per_app else "",
        user_ids=[kind.login_name(user, profile.credentials) for user in users],
    )


@dataclass(slots=True)
class _Held:
    seat: Seat
    accounts: set[AccountId] = field(default_factory=set)


class Seats:
    """The seats of one service; every method is called on its feed loop."""

    def __init__(
        self, home: str, *, process: int, now: Callable[[], datetime], kind: Kind | None = None
    ) -> None:
        """`home` and `process` say to others which orderwire this is, and what ends it."""
        self.kind = kind or of_this_machine()
        self.process = process
        self._home, self._now = home, now
        self._held: dict[str, _Held] = {}
        self._unguarded = False

    @property
    def held(self) -> Mapping[str, Collection[AccountId]]:
        """The names held, each with the accounts it is held for."""
        return {name: frozenset(held.accounts) for name, held in self._held.items()}

    async def take(self, account: AccountId, names: Collection[str]) -> Holder | None:
        """Hold these names for an account, and no others; returns who holds one of them, then nothing new is held."""
        taken = self._take(account, names)
        if taken is not None:
            return await asyncio.to_thread(self.kind.holder, taken) or Holder()
        for name in names:
            if name in self._held:
                self._held[name].accounts.add(account)
        self._let_go(account, besides=names)
        return None

    def release(self, account: AccountId) -> None:
        """Give up what was held for an account."""
        self._let_go(account, besides=())

    def close(self) -> None:
        """Give everything up."""
        self._give_up(list(self._held))

    def _take(self, account: AccountId, names: Collection[str]) -> str | None:
        """Hold what is not held yet; returns the name that somebody else has, then nothing of it is held."""
        new: list[str] = []
        holder = Holder(home=self._home, process=self.process, account=account, since=self._now())
        for name in names:
            if name in self._held:
                continue
            try:
                seat = self.kind.hold(name, holder)
            except OSError as error:  # better fed unguarded than not at all
                self._say_unguarded(error)
                continue
            if seat is None:
                self._give_up(new)
                return name
            self._keep(name, seat)
            new.append(name)
        return None

    def _keep(self, name: str, seat: Seat) -> None:
        self._held[name] = _Held(seat)
        if seat.fileno() >= 0:
            asyncio.get_running_loop().add_reader(seat.fileno(), seat.answer)

    def _let_go(self, account: AccountId, *, besides: Collection[str]) -> None:
        for name, held in self._held.items():
            if name not in besides:
                held.accounts.discard(account)
        self._give_up([name for name, held in self._held.items() if not held.accounts])

    def _give_up(self, names: Collection[str]) -> None:
        for name in names:
            seat = self._held.pop(name).seat
            if seat.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(seat.fileno())
            seat.close()

    def _say_unguarded(self, error: OSError) -> None:
        if not self._unguarded:
            self._unguarded = True
            _log.warning(
                "another orderwire that feeds the same account would not be noticed", error=str(error)
            )
