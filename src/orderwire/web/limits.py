"""How often one may ask: counted here, or in Redis for all web processes together.

While Redis is away each process counts for itself, so that limits are looser then and never gone; the library looks
whether it is back, ever more rarely. Under what is counted there is who asks and what: a user's name, an address, a key's
digest, never a key.
"""

from __future__ import annotations

from typing import Any, Final, cast

from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

from orderwire.bus.link import PREFIX, open_redis

ANSWER_WITHIN: Final = 0.25
"""Seconds a request waits for Redis to count it; then it is counted here, and so are those that come after."""


def make_limiter(app: Flask, *, redis_url: str = "") -> Limiter:
    """Return what counts requests; in Redis when `redis_url` is given, whether it is there or not."""
    if not redis_url:
        return Limiter(get_remote_address, app=app, storage_uri="memory://")
    redis = open_redis(redis_url, answer_within=ANSWER_WITHIN, connect_within=ANSWER_WITHIN)
    options: dict[str, Any] = {
        "connection_pool": redis.connection_pool,
        "key_prefix": f"{PREFIX}:limits",
    }
    return Limiter(
        get_remote_address,
        app=app,
        storage_uri="redis://",  # only names the kind: the connections are ours
        storage_options=cast("dict[str, str | int]", options),
        in_memory_fallback_enabled=True,
    )
