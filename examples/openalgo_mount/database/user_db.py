"""The one user."""

from __future__ import annotations

from types import SimpleNamespace

from database import store


def find_user_by_username() -> SimpleNamespace:
    """Return the user of this installation."""
    return SimpleNamespace(username=store.read()["user"])
