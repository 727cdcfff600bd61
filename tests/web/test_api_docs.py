from __future__ import annotations

import re

import pytest

from orderwire.web import api_docs
from orderwire.web.api import CALLS


def test_the_page_explains_every_call_and_needs_nothing_from_elsewhere(house):
    page = house.app.test_client().get("/api/v1/docs")

    assert page.status_code == 200
    assert re.findall(r'<section class="mt-8 min-w-0" id="(\w+)"', page.text) == [
        operation["operationId"] for path in house.app.spec["paths"].values() for operation in path.values()
    ]
    assert {call.name.replace("/", "_") for call in CALLS} <= set(re.findall(r'id="(\w+)"', page.text))
    assert not re.search(r'(src|href)="https?://', page.text)
    assert "style=" not in page.text


@pytest.mark.parametrize(
    ("schema", "form"),
    [
        ({"type": "string"}, "string"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "string"}]}, "integer or string"),
        ({"type": "array", "items": {"$ref": "#/components/schemas/OrderBook.OrderRow"}}, "list of OrderRow"),
        ({"enum": ["a", "b"]}, "a | b"),
        ({"const": "success"}, "success"),
        ({}, "any"),
    ],
)
def test_forms_are_named_in_a_word_or_two(schema, form):
    assert api_docs.form_of(schema) == form
