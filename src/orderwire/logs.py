"""Writes the log: constant messages, facts as fields, never a secret."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, WrappedLogger

_SECRET_KEY = re.compile(
    r"secret|password|token|api_?key|app_?key|checksum|authorization|cookie|credential", re.IGNORECASE
)
_SECRET_QUERY = re.compile(
    r"((?:access_token|token|api_key|apikey|request_token|checksum|secret\w*)=)[^&\s\"']+"
)
REDACTED = "[redacted]"


class _Stderr:
    """The standard error of the moment of writing: loggers are kept for good, the stream may be replaced."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class Redaction:
    """A structlog processor that blanks secrets: by field name, in query strings, and by registered value.

    `register` may be called from any thread; values shorter than 6 characters are not registered, because they
    would blank ordinary words.
    """

    def __init__(self) -> None:
        self._values: frozenset[str] = frozenset()

    def register(self, values: Iterable[str]) -> None:
        """Never let these values through again."""
        self._values |= {value for value in values if len(value) >= 6}

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        return {
            key: REDACTED if _SECRET_KEY.search(key) else self._clean(value) for key, value in event.items()
        }

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            text = _SECRET_QUERY.sub(rf"\1{REDACTED}", value)
            for secret in self._values:
                text = text.replace(secret, REDACTED)
            return text
        if isinstance(value, dict):
            return {k: REDACTED if _SECRET_KEY.search(str(k)) else self._clean(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(item) for item in value]
        return value


def conceal(values: Iterable[str]) -> None:
    """Never let these values into the log from now on. Any thread; without effect before `set_up`."""
    for processor in structlog.get_config()["processors"]:
        if isinstance(processor, Redaction):
            processor.register(values)


def follows_updates() -> bool:
    """Say whether the log, as it was set up, has lines for single updates (DEBUG). Ask once, not for each."""
    return structlog.is_configured() and bool(structlog.get_logger().is_enabled_for(logging.DEBUG))


def set_up(*, level: str = "INFO", as_json: bool = False) -> Redaction:
    """Configure structlog and the standard library's loggers; returns the redaction in force."""
    redaction, stream = Redaction(), _Stderr()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redaction,
    ]
    last = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", stream)),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logging.basicConfig(
        handlers=[handler], level=max(logging.WARNING, logging.getLevelNamesMapping()[level]), force=True
    )
    return redaction
