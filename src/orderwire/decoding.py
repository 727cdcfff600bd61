"""Reads what was written as JSON as values of a type, from any number of threads.

msgspec learns a type's shape when it first meets it. A second thread that meets it meanwhile takes the half that is learnt
for the whole, and the process ends with a segmentation fault (msgspec 0.22). So shapes are learnt here, one at a time.
"""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Any, TypeVar, overload

import msgspec

T = TypeVar("T")

_learning = Lock()


@overload
def decode(text: bytes | str, kind: type[T]) -> T: ...
@overload
def decode(text: bytes | str, kind: Any) -> Any: ...
def decode(text: bytes | str, kind: Any) -> Any:
    """Decode JSON as a `kind`. Any thread. Raises one of UNDECODABLE."""
    return _decoder(kind).decode(text)


@overload
def convert(value: Any, kind: type[T], *, strict: bool = True) -> T: ...
@overload
def convert(value: Any, kind: Any, *, strict: bool = True) -> Any: ...
def convert(value: Any, kind: Any, *, strict: bool = True) -> Any:
    """Make a `kind` of plain values; not `strict`: of texts too. Any thread. Raises one of UNDECODABLE."""
    _decoder(kind)
    return msgspec.convert(value, kind, strict=strict)


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    with _learning:
        return msgspec.json.Decoder(kind)
