"""Writes values as plain JSON data and reads them back by their declared types, refusing whatever does not fit."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from brokersim.instruments import INSTRUMENTS, Instrument
from brokersim.timeline import IST

_INSTRUMENTS: Final = {each.key: each for each in INSTRUMENTS}


def encode(value: Any) -> Any:
    """Give data that `json` can write. Raises TypeError for a kind of value that is not known."""
    if value is None or isinstance(value, bool | int | float | str):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Instrument):
        return value.key
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    return _encode_more(value)


def _encode_more(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): encode(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [encode(each) for each in value]
    raise TypeError(f"cannot write a {type(value).__name__}")


def decode(kind: Any, data: Any) -> Any:
    """Read what `encode` gave for a value declared as `kind`. Raises ValueError or LookupError if it does not fit."""
    return _reader(kind)(data)


def read_fields(kind: Any, data: Any, *, partly: bool = False) -> dict[str, Any]:
    """Read the fields of a dataclass; all of them, or with `partly` those that are there.

    Raises ValueError for fields that are missing or not known.
    """
    readers = _field_readers(kind)
    given = _plain(dict, data)
    if not (given.keys() <= readers.keys() if partly else given.keys() == readers.keys()):
        odd = ", ".join(sorted(given.keys() ^ readers.keys()))
        raise ValueError(f"{kind.__name__} does not have just these fields: {odd}")
    return {name: readers[name](each) for name, each in given.items()}


@cache
def _field_readers(kind: Any) -> dict[str, Callable[[Any], Any]]:
    hints = get_type_hints(kind)
    return {field.name: _reader(hints[field.name]) for field in fields(kind)}


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    origin = get_origin(kind)
    if kind is Any:
        return lambda data: data
    if origin in _CONTAINERS:
        return _CONTAINERS[origin](get_args(kind))
    if kind in _SCALARS:
        return _SCALARS[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind
    if is_dataclass(kind) and isinstance(kind, type):
        return lambda data: kind(**read_fields(kind, data))
    raise TypeError(f"cannot read a {kind}")


def _plain(kind: type[Any], data: Any) -> Any:
    if type(data) is not kind:
        raise ValueError(f"{str(data)[:40]!r} is no {kind.__name__}")
    return data


def _decimal(data: Any) -> Decimal:
    try:
        found = Decimal(_plain(str, data))
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite():
        raise ValueError(f"{data[:40]!r} is no amount")
    return found


def _moment(data: Any) -> datetime:
    found = datetime.fromisoformat(_plain(str, data))
    if found.tzinfo is None:
        raise ValueError(f"{data!r} has no offset")
    return found.astimezone(IST)


def _instrument(data: Any) -> Instrument:
    key = _plain(str, data)
    if key not in _INSTRUMENTS:
        raise ValueError(f"there is no contract {key[:40]!r}")
    return _INSTRUMENTS[key]


def _optional(arguments: tuple[Any, ...]) -> Callable[[Any], Any]:
    (kind,) = (each for each in arguments if each is not NoneType)
    read = _reader(kind)
    return lambda data: None if data is None else read(data)


def _tuple(arguments: tuple[Any, ...]) -> Callable[[Any], Any]:
    if arguments[-1] is Ellipsis:
        read = _reader(arguments[0])
        return lambda data: tuple(read(each) for each in _plain(list, data))
    readers = [_reader(each) for each in arguments]
    return lambda data: tuple(read(each) for read, each in zip(readers, _plain(list, data), strict=True))


def _list(arguments: tuple[Any, ...]) -> Callable[[Any], Any]:
    read = _reader(arguments[0])
    return lambda data: [read(each) for each in _plain(list, data)]


def _mapping(arguments: tuple[Any, ...]) -> Callable[[Any], Any]:
    read = _reader(arguments[1])
    return lambda data: {key: read(each) for key, each in _plain(dict, data).items()}


_SCALARS: Final[dict[Any, Callable[[Any], Any]]] = {
    str: lambda data: _plain(str, data),
    int: lambda data: _plain(int, data),
    bool: lambda data: _plain(bool, data),
    Decimal: _decimal,
    datetime: _moment,
    Instrument: _instrument,
}
_CONTAINERS: Final[dict[Any, Callable[[tuple[Any, ...]], Callable[[Any], Any]]]] = {
    Union: _optional,
    UnionType: _optional,
    tuple: _tuple,
    list: _list,
    dict: _mapping,
    Mapping: _mapping,
}
