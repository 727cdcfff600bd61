"""Web sessions kept in our own table: the browser holds a random token, the database its digest and content."""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
from flask import Flask
from flask_session.base import ServerSideSession, ServerSideSessionInterface

from orderwire.clock import Clock
from orderwire.store.users import Users

USER_KEY: Final = "_user_id"
"""Where Flask-Login keeps who is logged in."""


_KEY_FILE: Final = "web.key"


def web_key(folder: Path) -> bytes:
    """Return the key that signs CSRF tokens; made once, so that open pages outlive a restart."""
    path = folder / _KEY_FILE
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
    except FileExistsError:
        pass
    return path.read_bytes()


class StoredSessions(ServerSideSessionInterface):  # type: ignore[misc]  # the library ships no types
    """Flask-Session over `store.users`; ended when the user's password or role changes. Any thread."""

    ttl = True

    def __init__(self, app: Flask, *, users: Users, clock: Clock) -> None:
        super().__init__(app, key_prefix="", permanent=True, sid_length=32)
        self._users = users
        self._clock = clock

    def now_ms(self) -> int:
        """Return the time by the service's clock, in milliseconds since the epoch."""
        return self._clock.time_ns() // 1_000_000

    def _retrieve_session_data(self, store_id: str) -> dict[str, Any] | None:
        content = self._users.load_session(store_id)
        return None if content is None else msgspec.msgpack.decode(content, type=dict[str, Any])

    def _delete_session(self, store_id: str) -> None:
        self._users.end_session(store_id)

    def _upsert_session(self, session_lifetime: timedelta, session: ServerSideSession, store_id: str) -> None:
        expires_ns = self._clock.time_ns() + int(session_lifetime.total_seconds() * 1e9)
        content = msgspec.msgpack.encode(dict(session))
        self._users.save_session(store_id, content, owner=session.get(USER_KEY), expires_ns=expires_ns)
