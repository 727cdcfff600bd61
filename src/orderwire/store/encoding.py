"""How values become columns: exact decimal text inside JSON, times as whole nanoseconds, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec

from orderwire.decoding import decode
from orderwire.errors import UNDECODABLE, StoreError

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_ns(moment: datetime) -> int:
    """Return an aware moment as nanoseconds since the epoch, exactly."""
    return (moment - _EPOCH) // _MICROSECOND * 1000


def from_ns(ns: int) -> datetime:
    """Return the moment (UTC, whole microseconds) of `ns` nanoseconds since the epoch."""
    return _EPOCH + timedelta(microseconds=ns // 1000)


def dumps(value: Any) -> str:
    """Encode a value of ours as JSON text; decimals keep every digit."""
    return msgspec.json.encode(value).decode()


def loads(text: str, kind: type[T]) -> T:
    """Decode what `dumps` wrote. Raises StoreError when the column does not hold a `kind`."""
    try:
        return decode(text, kind)
    except UNDECODABLE as error:
        raise StoreError(f"A stored {kind.__name__} cannot be read: {error}.") from error


def dump_mapping(mapping: Mapping[str, str]) -> str:
    """Encode names and texts as JSON, sorted, so that equal mappings are equal columns."""
    return json.dumps(dict(mapping), sort_keys=True)
