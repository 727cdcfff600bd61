"""Which broker account is meant, whoever feeds it: one orderwire on a machine has its seat. Pure.

A seat's name is a hash: neither who logs in nor the key of an app can be read in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from orderwire.core.orders import IST
from orderwire.errors import UNDECODABLE

MOST_SAID: Final = 2_000
"""Bytes that a holder may say of itself; it may be anybody's program."""

UNKNOWN: Final = "another program"
_YEARS: Final = range(2000, 3000)
"""In which a holder may have begun; a time at the calendar's edge is in no zone of ours."""


class Holder(Struct, frozen=True, kw_only=True):
    """Who has a seat, in its own words; what it does not say is empty."""

    home: str = UNKNOWN
    """Which orderwire: where its data is."""
    process: int = 0
    account: str = ""
    """What the account is called there."""
    since: Annotated[datetime, Meta(tz=True)] | None = None

    @property
    def words(self) -> str:
        """Say to the trader who feeds the account, and how to end one of the two."""
        process = f", process {self.process}" if self.process else ""
        since = f", since {self.since.astimezone(IST):%d %B %H:%M} IST" if self.since else ""
        there = f" (as {self.account})" if self.account else ""
        stop = f" (kill {self.process})" if self.process else ""
        return (
            f"Fed by {self.home}{process}{since}{there}; nothing is read or told of it here, for one broker account "
            f"has one orderwire. Stop that one{stop} or remove the account there, and it goes on here by itself; or "
            "remove it here."
        )


_holder: Final = msgspec.json.Decoder(Holder)


def said(holder: Holder) -> bytes:
    """Return what a holder answers who asks."""
    return msgspec.json.encode(holder)


def heard(text: bytes, *, process: int = 0) -> Holder:
    """Read what a holder said; `process` is what the system knows of it. What cannot be read is another program's."""
    try:
        holder = _holder.decode(text)
    except UNDECODABLE:
        return Holder(process=process)
    plain = {
        "home": _plain(holder.home) or UNKNOWN,
        "account": _plain(holder.account),
        "process": holder.process or process,
        "since": holder.since if holder.since is not None and holder.since.year in _YEARS else None,
    }
    return msgspec.structs.replace(holder, **plain)


def names(broker: str, address: str, *, app_key: str = "", user_ids: Sequence[str] = ()) -> tuple[str, ...]:
    """Name the seats that an account needs at a broker's address.

    `app_key`: where a login with it ends the one before; `user_ids`: whose logins they are, as far as it is known.
    """
    at = address.strip().rstrip("/").lower()
    wanted = [("app", app_key), *(("user", user) for user in user_ids)]
    return tuple(
        dict.fromkeys(
            hashlib.sha256("\n".join((broker, at, kind, who.strip().upper())).encode()).hexdigest()[:40]
            for kind, who in wanted
            if who.strip()
        )
    )


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:200]
