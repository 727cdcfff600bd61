from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest

from orderwire.core.seats import Holder, heard, names, said

SINCE = datetime(2026, 8, 17, 4, 30, tzinfo=UTC)
HOLDER = Holder(home="orderwire at /data/one", process=123, account="jainam-jay", since=SINCE)


def test_one_login_has_one_name_however_its_address_and_user_are_spelt():
    one = names("zerodha", "https://api.kite.trade", user_ids=["AB1234"])

    assert names("zerodha", " https://API.kite.trade/ ", user_ids=["ab1234 ", "AB1234", ""]) == one
    assert len(one) == 1


def test_another_user_app_broker_or_address_is_another_seat():
    found = {
        *names("a", "https://one", app_key="K", user_ids=["K"]),
        *names("b", "https://one", app_key="K", user_ids=["K"]),
        *names("a", "https://two", app_key="K", user_ids=["K"]),
        *names("a", "https://one", app_key="L", user_ids=["L"]),
    }

    assert len(found) == 8
    assert names("a", "https://one", app_key=" ", user_ids=["", " "]) == ()


def test_a_name_gives_nobody_away():
    for name in names("zerodha", "https://api.kite.trade", app_key="kitekey", user_ids=["AB1234"]):
        assert re.fullmatch("[0-9a-f]{40}", name)


def test_a_holder_is_told_with_its_folder_its_process_since_when_and_how_to_end_it():
    words = heard(said(HOLDER)).words

    assert "Fed by orderwire at /data/one, process 123, since 17 August 10:00 IST (as jainam-jay)" in words
    assert "Stop that one (kill 123)" in words


def test_what_a_strange_program_says_is_not_repeated():
    assert heard(b"HTTP/1.0 200 OK", process=7) == Holder(process=7)
    assert heard(b"", process=7).words.startswith("Fed by another program, process 7;")
    assert heard(said(Holder(home="a\x1b[2Jb\n"))).home == "a[2Jb"
    assert len(heard(said(Holder(home="x" * 1_900))).home) == 200


@pytest.mark.parametrize(
    "since",
    ["0001-01-01T00:00:00", "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59Z", "2026-08-17T10:00:00"],
)
def test_a_time_that_is_none_is_not_told(since):
    assert "since" not in heard(json.dumps({"home": "one", "since": since}).encode()).words
