"""The way to Redis: one place that knows the library, what may go wrong with it, and how connections are made."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final

from orderwire.errors import ConfigurationError, OrderwireError

if TYPE_CHECKING:
    from redis import Redis

PREFIX: Final = "orderwire"
"""Begins every key of ours."""

ANSWER_WITHIN: Final = 5.0
"""Seconds Redis may take for an answer, on top of what it was asked to wait; then the connection is given up."""

CONNECT_WITHIN: Final = 2.0


class BusDownError(OrderwireError):
    """Redis cannot be reached or does not answer; everything in it is in the database too."""


def open_redis(
    url: str, *, answer_within: float = ANSWER_WITHIN, connect_within: float = CONNECT_WITHIN
) -> Redis:
    """Return a client for `url` (redis://, rediss:// or unix://); it connects when it is used. Times are in seconds.

    Raises ConfigurationError when the extra is not installed or the address cannot be one.
    """
    try:
        import redis  # noqa: PLC0415 - an extra
        from redis.backoff import NoBackoff  # noqa: PLC0415 - see above
        from redis.retry import Retry  # noqa: PLC0415 - see above
    except ImportError:
        raise ConfigurationError(
            "REDIS_URL is set, but the Redis client is not installed: pip install 'orderwire[redis]'."
        ) from None
    over_tcp = {} if url.startswith("unix:") else {"socket_keepalive": True}
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=answer_within,
            socket_connect_timeout=connect_within,
            **over_tcp,
            retry=Retry(NoBackoff(), 0),  # what could not be done is done again from the database
        )
    except ValueError as error:
        raise ConfigurationError(f"REDIS_URL cannot be used: {error}.") from error


class Guarded:
    """As a context: turns what Redis' client raises into BusDownError."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is not None and _is_redis(error):
            raise BusDownError(f"Redis: {error}") from error


def _is_redis(error: BaseException) -> bool:
    from redis import RedisError  # noqa: PLC0415 - an extra

    return isinstance(error, RedisError | OSError)
