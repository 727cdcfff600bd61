"""Broker tokens and API keys, by the names under which OpenAlgo's own functions are known."""

from __future__ import annotations

import hmac
from types import SimpleNamespace

from database import store


def get_auth_token_dbquery(name: str) -> SimpleNamespace | None:
    """Return the user's broker login, None when it was revoked."""
    held = store.read()
    if held["user"] != name or not held.get("broker"):
        return None
    return SimpleNamespace(name=name, broker=held["broker"], auth=held.get("token", ""))


def get_auth_token(name: str) -> str | None:
    """Return the token as the broker's login left it: Zerodha's as `api_key:access_token`."""
    login = get_auth_token_dbquery(name)
    return login.auth or None if login else None


def verify_api_key(key: str) -> str | None:
    """Return whose key it is."""
    held = store.read()
    return held["user"] if hmac.compare_digest(key, held["api_key"]) else None


def get_api_key_for_tradingview(name: str) -> str | None:
    """Return the user's API key."""
    held = store.read()
    return held["api_key"] if held["user"] == name else None


def upsert_auth(broker: str, token: str) -> None:
    """Keep the token of a login; an empty one is a logout."""
    store.write(broker=broker, token=token)
