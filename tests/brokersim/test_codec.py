"""Values come back from JSON as they were, and what does not fit its declared type is refused."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokersim.codec import decode, encode, read_fields
from brokersim.instruments import INSTRUMENTS, Instrument
from brokersim.orders import Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    side: Side
    contract: Instrument
    at: datetime | None
    prices: tuple[Decimal, ...]
    holdings: Mapping[str, tuple[int, Decimal]]
    flags: list[bool]
    more: dict[str, Any]


parcels = st.builds(
    Parcel,
    side=st.sampled_from(Side),
    contract=st.sampled_from(INSTRUMENTS),
    at=st.none() | st.datetimes(min_value=datetime(1990, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
    prices=st.lists(st.decimals(allow_nan=False, allow_infinity=False)).map(tuple),
    holdings=st.dictionaries(
        st.text(), st.tuples(st.integers(), st.decimals(allow_nan=False, allow_infinity=False))
    ),
    flags=st.lists(st.booleans()),
    more=st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text())),
)


@given(parcels)
def test_every_value_comes_back_as_it_was(parcel):
    text = json.dumps(encode(parcel))

    assert decode(Parcel, json.loads(text)) == parcel


@pytest.mark.parametrize("text", ["1", "1.0", "1.00", "-0", "1E+3"])
def test_amounts_keep_their_spelling(text):
    assert str(decode(Decimal, encode(Decimal(text)))) == text


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (int, "1"),
        (int, True),
        (bool, 1),
        (str, None),
        (Decimal, 1.5),
        (Decimal, "one"),
        (Decimal, "Infinity"),
        (datetime, "2026-08-17T12:00:00"),
        (datetime, "yesterday"),
        (Side, "HOLD"),
        (Instrument, "NSE:NONE"),
        (tuple[int, str], [1]),
        (tuple[int, ...], {"a": 1}),
        (list[int], "12"),
        (Mapping[str, int], [1]),
    ],
)
def test_what_does_not_fit_is_refused(kind, data):
    with pytest.raises((ValueError, LookupError)):
        decode(kind, data)


def test_fields_must_be_those_of_the_class():
    assert read_fields(Parcel, {"side": "BUY"}, partly=True) == {"side": Side.BUY}
    with pytest.raises(ValueError, match="contract"):
        read_fields(Parcel, {"side": "BUY"})
    with pytest.raises(ValueError, match="colour"):
        read_fields(Parcel, {"side": "BUY", "colour": "red"}, partly=True)


def test_an_unknown_kind_of_value_is_a_mistake_of_the_program():
    with pytest.raises(TypeError, match="cannot write a set"):
        encode({1})
    with pytest.raises(TypeError, match="cannot read"):
        decode(set, [])
