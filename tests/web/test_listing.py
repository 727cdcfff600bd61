from __future__ import annotations

import pytest
from flask import Flask

from orderwire.web.listing import asked_page, offset, page


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("", 1),
        ("page=3", 3),
        ("page=0", 1),
        ("page=-1", 1),
        ("page=x", 1),
        ("page=99999999999", 1),
        ("page=²", 1),
    ],
)
def test_a_page_that_is_none_is_the_first(query, number):
    with Flask(__name__).test_request_context(f"/audit?{query}"):
        assert asked_page() == number


def test_the_row_beyond_the_page_says_only_that_there_are_more():
    made = page(list(range(51)), 1)

    assert (len(made.rows), made.more, offset(3)) == (50, True, 100)
    assert not page(list(range(50)), 1).more


def test_the_neighbours_keep_the_filter():
    with Flask(__name__).test_request_context("/audit?who=asha+b&page=2"):
        assert page([], 2).address(3) == "/audit?who=asha+b&page=3"
