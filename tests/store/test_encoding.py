from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderwire.core.lifecycle import OrderView, lift, view
from orderwire.core.orders import OrderUpdate
from orderwire.errors import StoreError
from orderwire.store.encoding import dump_mapping, dumps, from_ns, loads, to_ns
from store.making import DAY, OPENED, update

MONEY = st.decimals(allow_nan=False, allow_infinity=False)
TIMES = st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@settings(deadline=None, derandomize=True, database=None)
@given(price=MONEY)
def test_money_keeps_every_digit(price):
    back = loads(dumps(update("open", price=price)), OrderUpdate)

    assert back.price.as_tuple() == price.as_tuple()


@settings(deadline=None, derandomize=True, database=None)
@given(moment=TIMES)
def test_times_are_exact_to_the_microsecond(moment):
    assert from_ns(to_ns(moment)) == moment


def test_a_time_is_the_same_in_every_zone():
    assert to_ns(OPENED) == to_ns(OPENED.astimezone(UTC))
    assert to_ns(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=1)) == 1000


def test_a_view_comes_back_equal():
    page = view(lift(update("part", average_price=Decimal("0.10"))), first_seen=OPENED)

    back = loads(dumps(page), OrderView)

    assert back == page
    assert (back.trading_date, str(back.average_price)) == (DAY, "0.10")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"account": 1}'])
def test_a_column_that_holds_something_else_is_an_error_of_the_store(text):
    with pytest.raises(StoreError, match="A stored OrderView cannot be read"):
        loads(text, OrderView)


def test_equal_mappings_are_equal_text():
    assert dump_mapping({"b": "1", "a": "2"}) == dump_mapping({"a": "2", "b": "1"})
    assert msgspec.json.decode(dump_mapping({"a": "₹"})) == {"a": "₹"}
