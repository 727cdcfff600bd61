from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderwire.brokers.xts.answers import (
    PRO,
    clients,
    connection_base,
    is_dead_token,
    login_error,
    order_error,
    read_answer,
    read_error,
    read_login,
    read_lookup,
    socket_path,
    token_expiry,
)
from orderwire.errors import BrokerError, BrokerUnreachableError, ConfigurationError


def answer(status=200, **envelope):
    return read_answer(status, json.dumps(envelope).encode())


def jwt(claims):
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{part}.c2ln"


# --- envelopes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "type_", "ok"),
    [
        (200, "success", True),
        (200, "Success", True),
        (200, True, True),
        (200, "error", False),
        (200, False, False),
        (200, None, False),
        (400, "success", False),
        (400, "error", False),
    ],
)
def test_success_is_what_the_type_says(status, type_, ok):
    assert answer(status, type=type_, code="e-anything", result=[]).ok is ok


@pytest.mark.parametrize(
    "body", [b"", b"<html></html>", b"[", b"[]", b'"x"', b"5", b"null", b"\xff", b"[" * 20_000]
)
def test_what_is_no_envelope_is_unreadable_and_not_ok(body):
    read = read_answer(200, body)

    assert (read.ok, read.readable) == (False, False)


@pytest.mark.parametrize("words", [b'"\xbf"', b"5", b"[" * 20_000], ids=["no UTF-8", "a number", "nested"])
def test_a_validation_error_whose_words_cannot_be_read_keeps_its_own_description(words):
    body = (
        b'{"type":"error","code":"e","description":"Bad Request","result":{"errors":[{"messages":['
        + words
        + b"]}]}}"
    )

    assert read_answer(400, body).description in {"Bad Request", ""}
    assert isinstance(order_error(read_answer(400, body)), BrokerError)


@pytest.mark.parametrize("body", [b"{}", b'{"code": "s-orders-0001"}', b'{"type": null}', b'{"data": {}}'])
def test_a_success_that_says_neither_success_nor_error_leaves_an_order_in_doubt(body):
    error = order_error(read_answer(200, body))

    assert isinstance(error, BrokerUnreachableError)
    assert error.sent


def test_an_error_wrapped_under_data_is_unwrapped():
    read = answer(429, data={"type": "error", "code": "e-apirl-0004", "description": "Rate Limit"})

    assert (read.code, read.status) == ("e-apirl-0004", 429)


@pytest.mark.parametrize("description", ["Data Not Available", "data not available "])
def test_an_empty_book_is_an_error_that_is_none(description):
    assert answer(400, type="error", code="e-orders-0005", description=description).empty
    assert not answer(200, type="success", description=description).empty


def test_a_validation_error_says_what_is_wrong_with_which_field():
    errors = [{"field": ["a"], "messages": ['"a" is required']}, {"messages": ['"b" must be a number']}, {}]

    read = answer(400, type="error", description="Bad Request", result={"errors": errors})

    assert read.description == '"a" is required; "b" must be a number'


@pytest.mark.parametrize("result", [None, [], "x", {"errors": "x"}, {"errors": [{"messages": 3}]}])
def test_a_validation_error_without_messages_stays_a_bad_request(result):
    assert answer(400, type="error", description="Bad Request", result=result).description == "Bad Request"


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        ("Invalid Token", True),
        ("e-session-0005", True),
        ("e-token-0002 Please Provide token", True),
        ("Your session has been expired", True),
        ("You have been logged out by another user.", True),
        ("Data Not Available", False),
        ("Session joined", False),
        ("", False),
    ],
)
def test_words_that_mean_the_end_of_a_token(text, dead):
    assert is_dead_token(text) is dead


BODIES = st.one_of(
    st.binary(),
    st.dictionaries(
        st.sampled_from(["type", "code", "description", "result", "data", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.sampled_from(["errors", "messages", "token", "type"]), inner, max_size=2)
            ),
            max_leaves=6,
        ),
    ).map(lambda value: json.dumps(value).encode()),
)


@given(status=st.integers(100, 599), body=BODIES)
def test_any_answer_can_be_judged(status, body):
    read = read_answer(status, body)

    for judge in (read_error, order_error, login_error):
        assert isinstance(judge(read), BrokerError)
    for login in (read_lookup, read_login):
        try:
            login(read)
        except BrokerError:
            continue


# --- logins -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("http://ctrade.example:4202", "http://ctrade.example:4202"),
        (" 'https://h:1/interactive/' ", "https://h:1/interactive"),
        ("`https://h/1interactive`", "https://h/1interactive"),
        ('"https://h/2hostlookup"', "https://h/2interactive"),
        ("https://h/hostlookup", "https://h/interactive"),
        ("ftp://h", ""),
        ("h:4202", ""),
        ("", ""),
        ("http://", ""),
        ("http://h:99999", ""),
        ("http://[::1", ""),
    ],
)
def test_a_connection_string_is_cleaned_or_refused(text, base):
    assert connection_base(text) == base


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("https://h/interactive", "interactive/socket.io"),
        ("https://h/1interactive", "1interactive/socket.io"),
        ("https://h:4202", "socket.io"),
        ("https://h/a/b", "a/socket.io"),
    ],
)
def test_the_socket_lies_behind_the_first_segment(base, path):
    assert socket_path(base) == path


def test_a_login_is_read_whole():
    token = jwt({"exp": 1786960800})
    result = {"token": token, "userID": "L1", "isInvestorClient": False, "clientCodes": ["A", "B"]}

    login = read_login(answer(type="success", result=result))

    assert (login.user_id, login.investor, login.client_codes) == ("L1", False, ("A", "B"))
    assert login.expires_at == datetime.fromtimestamp(1786960800, UTC)
    assert token not in repr(login)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b.c",
        "a.!!.c",
        jwt({}),
        jwt({"exp": "soon"}),
        jwt({"exp": 10**30}),
        jwt([1]),
        "e30.W1s.x",
        "a.YQ.c",
    ],
)
def test_a_token_that_does_not_say_when_it_ends(token):
    assert token_expiry(token) is None


@given(token=st.text() | st.binary().map(lambda raw: f"e30.{base64.urlsafe_b64encode(raw).decode()}.x"))
def test_any_token_is_read_without_error(token):
    assert token_expiry(token) is None or token_expiry(token).tzinfo is UTC


# --- whose orders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "sent", "owned", "foreign"),
    [
        ({"kind": "auto", "client_id": "", "investor": True}, "", ["JN1", "anything", ""], []),
        ({"kind": "investor", "client_id": "JN1", "investor": False}, "JN1", ["JN1"], []),
        (
            {"kind": "dealer", "client_id": "JD001", "investor": False},
            "JD001",
            ["JD001", "jd001", ""],
            ["JD002", "Pro"],
        ),
        ({"kind": "auto", "client_id": "JD001", "investor": False}, "JD001", ["JD001"], ["JD002"]),
        (
            {"kind": "pro", "client_id": "", "investor": False},
            PRO,
            [PRO, "Pro", "PRO077", " pro077 "],
            ["JD001"],
        ),
        ({"kind": "auto", "client_id": PRO, "investor": False}, PRO, [PRO, "Pro", "PRO1"], ["JD001"]),
        (
            {"kind": "pro", "client_id": "ZZJ1", "investor": False},
            "ZZJ1",
            ["ZZJ1", "Pro", PRO, "PRO1"],
            ["JD001"],
        ),
        (
            {"kind": "dealer", "client_id": "JD001", "investor": False, "alias": "X9"},
            "JD001",
            ["JD001", "x9"],
            ["X8"],
        ),
    ],
)
def test_whose_rows_are_ours(given_, sent, owned, foreign):
    whose = clients(**given_)

    assert whose.client_id == sent
    assert [code for code in [*owned, *foreign] if whose.owns(code)] == owned


def test_a_dealer_without_a_client_is_never_taken_for_a_pro_account():
    with pytest.raises(ConfigurationError, match="client_id"):
        clients(kind="auto", client_id="", investor=False)
