from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderwire.core.orders import ModifyRequest, OrderRequest
from orderwire.errors import InvalidRequestError
from orderwire.web import forms

GOOD = {
    "symbol": "INFY",
    "exchange": "NSE",
    "action": "BUY",
    "quantity": "10",
    "pricetype": "LIMIT",
    "price": "1500.5",
}


def problems_of(fields: dict) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as refused:
        forms.read_order(fields)
    return refused.value.problems


def test_an_order_is_read_from_text():
    assert forms.read_order(GOOD) == OrderRequest(
        symbol="INFY", exchange="NSE", side="BUY", quantity=10, order_type="LIMIT", price=Decimal("1500.5")
    )


def test_numbers_are_read_as_they_are_written():
    assert forms.read_order(GOOD | {"quantity": 10, "price": 1500.1}).price == Decimal("1500.1")


def test_small_letters_and_spaces_do_not_matter():
    assert (
        forms.read_order(GOOD | {"symbol": " infy ", "action": "buy", "pricetype": "limit"}).symbol == "INFY"
    )


def test_prices_that_the_type_does_not_use_are_left_out():
    request = forms.read_order(GOOD | {"pricetype": "MARKET", "price": "-1", "trigger_price": "junk"})

    assert (request.price, request.trigger_price) == (0, 0)


def test_everything_that_is_wrong_is_said_at_once():
    assert problems_of({}).keys() == {"symbol", "exchange", "action", "quantity"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quantity", ""),
        ("quantity", "0"),
        ("quantity", "-5"),
        ("quantity", "1.5"),
        ("quantity", "ten"),
        ("quantity", "9" * 30),
        ("quantity", True),
        ("quantity", None),
        ("price", ""),
        ("price", "0"),
        ("price", "-1"),
        ("price", "1e5"),
        ("price", "NaN"),
        ("price", "1,500"),
        ("symbol", ""),
        ("symbol", "IN FY"),
        ("symbol", "<script>"),
        ("symbol", "A" * 500),
        ("exchange", "LSE"),
        ("action", "HOLD"),
        ("product", "XXX"),
        ("pricetype", "ICEBERG"),
        ("validity", "FOREVER"),
        ("disclosed_quantity", "-1"),
    ],
)
def test_a_bad_field_is_named(field, value):
    problems = problems_of(GOOD | {field: value})

    assert list(problems) == [field]
    assert problems[field].endswith(".")


@pytest.mark.parametrize("pricetype", ["SL", "SL-M"])
def test_a_stop_needs_a_trigger_price(pricetype):
    assert list(problems_of(GOOD | {"pricetype": pricetype})) == ["trigger_price"]


@given(
    st.dictionaries(
        st.sampled_from([*GOOD, "product", "trigger_price"]),
        st.one_of(st.text(max_size=30), st.integers(), st.floats(), st.booleans(), st.none()),
    )
)
def test_no_fields_whatever_raise_anything_else(fields):
    with suppress(InvalidRequestError):
        assert forms.read_order(GOOD | fields).quantity > 0


def test_a_modification_holds_the_complete_terms():
    terms = {
        "orderid": "261124000000001",
        "quantity": "5",
        "pricetype": "SL",
        "product": "CNC",
        "price": "10",
        "trigger_price": "9.5",
    }

    assert forms.read_modification(terms) == ModifyRequest(
        order_id="261124000000001",
        quantity=5,
        order_type="SL",
        product="CNC",
        price=Decimal(10),
        trigger_price=Decimal("9.5"),
    )


@pytest.mark.parametrize("orderid", ["", "1 or 1=1", "../x", "x" * 60, None])
def test_a_cancellation_names_an_order(orderid):
    with pytest.raises(InvalidRequestError) as refused:
        forms.read_cancellation({"orderid": orderid})

    assert list(refused.value.problems) == ["orderid"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"a": {"b": 1}}',
        b'{"a": [1]}',
        b"\xff",
        b'"x"',
        b"[" * 60_000,
        b'{"a":' * 9000,
    ],
)
def test_a_body_that_is_no_flat_object_is_refused(body):
    with pytest.raises(InvalidRequestError):
        forms.read_json(body)


def test_a_flat_object_is_read():
    assert forms.read_json(json.dumps(GOOD).encode()) == GOOD


@pytest.mark.parametrize("key", ["short", "x" * 65, "spaces are not", "ünïcödé-key"])
def test_an_idempotency_key_of_another_form_is_refused(key):
    with pytest.raises(InvalidRequestError):
        forms.read_idempotency_key(key)


def test_an_idempotency_key_may_be_left_out():
    assert forms.read_idempotency_key(None) == ""
    assert forms.read_idempotency_key("3f6c-11ee_AB12") == "3f6c-11ee_AB12"


@pytest.mark.parametrize(
    ("target", "safe"),
    [
        (None, "/"),
        ("", "/"),
        ("/accounts", "/accounts"),
        ("/?tab=trades", "/?tab=trades"),
        ("https://evil.example", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/a\\b", "/"),
        ("/a\nb", "/"),
        ("/login?next=/", "/"),
        ("/logout", "/"),
    ],
)
def test_after_a_login_one_only_goes_to_our_own_pages(target, safe):
    assert forms.safe_target(target) == safe


def test_problems_are_named_as_the_form_names_its_fields():
    told = forms.by_form_field({"side": "a", "order_type": "b", "quantity": "c"})

    assert told == {"action": "a", "pricetype": "b", "quantity": "c"}
