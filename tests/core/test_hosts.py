from __future__ import annotations

import pytest

from orderwire.core.hosts import (
    PROTOCOL,
    HostLogin,
    HostState,
    Place,
    app_mark,
    later,
    mark,
    problems_of,
    protocol_problem,
)


def test_equal_states_have_one_mark_and_each_change_another():
    one = HostState(user="a", logins=[HostLogin(broker="jainam", token="t", addresses={"x": "1", "y": "2"})])
    same = HostState(user="a", logins=[HostLogin(broker="jainam", token="t", addresses={"y": "2", "x": "1"})])
    other = HostState(
        user="a", logins=[HostLogin(broker="jainam", token="u", addresses={"x": "1", "y": "2"})]
    )

    assert mark(one) == mark(same)
    assert mark(one) != mark(other)
    assert "secret" not in mark(HostState(user="a", api_key="secret"))


@pytest.mark.parametrize(
    ("a", "b", "is_later"),
    [
        (None, Place("e", 0), True),
        (Place("e", 1), Place("e", 1), False),
        (Place("e", 2), Place("e", 1), False),
        (Place("e", 1), Place("e", 2), True),
        (Place("e", 9), Place("f", 1), True),
    ],
)
def test_a_place_is_later_further_on_or_in_another_log(a, b, is_later):
    assert later(a, b) is is_later


def test_an_app_is_named_whatever_its_keys_case_and_no_app_is_none():
    assert app_mark("jainam", "ABC ") == app_mark("jainam", "abc")
    assert app_mark("jainam", "abc") != app_mark("zerodha", "abc")
    assert app_mark("jainam", " ") == ""


def test_only_another_protocol_is_a_problem():
    assert protocol_problem(ours="1.0", theirs="2.0", protocol=PROTOCOL) == ""
    assert "orderwire 2.0, the service is 1.0" in protocol_problem(
        ours="1.0", theirs="2.0", protocol=PROTOCOL + 1
    )


def test_each_problem_is_told_once():
    assert problems_of(["a", "", "b", "a"]) == ["a", "b"]
