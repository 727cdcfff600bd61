from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx2
import pytest

from monitoring.mailbox import receiving
from orderwire.core.notifications import Notification, Occasion
from orderwire.core.webhooks import signature
from orderwire.errors import InvalidRequestError
from orderwire.monitoring import targets
from orderwire.monitoring.targets import UndeliveredError, check_address, tell_person, tell_program
from orderwire.store.notifications import Delivery, State, TargetKind

AT = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def delivery(**facts):
    told = Notification(
        key="k",
        occasion=Occasion.REJECTED,
        account="acc",
        at=AT,
        title="Rejected: SELL 10 INFY NSE",
        text="Insufficient funds",
        order={"orderid": "1"},
    )
    known = {
        "id": 7,
        "owner": "asha",
        "target": "ab",
        "notification": told,
        "silent": False,
        "state": State.WAITING,
        "attempts": 0,
        "queued": AT,
        "due": AT,
        "error": "",
    }
    return Delivery(**(known | facts))


@pytest.fixture
def receiver():
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def client():
    with httpx2.Client(timeout=5, trust_env=False) as client:
        yield client


def post(client, receiver, *, secret="s3cret", private=True):
    tell_program(client, receiver.url, secret, delivery(), seconds=1_790_000_000, private=private)


def test_a_program_checks_the_signature_with_its_secret(client, receiver):
    post(client, receiver)

    headers, body = receiver.got[0]
    assert headers["webhook-id"] == "7"
    assert headers["webhook-timestamp"] == "1790000000"
    assert headers["webhook-signature"] == signature(body, secret="s3cret", message_id="7", at=1_790_000_000)


def test_a_program_is_told_everything_in_fields(client, receiver):
    post(client, receiver)

    assert json.loads(receiver.got[0][1]) == {
        "id": 7,
        "occasion": "rejected",
        "account": "acc",
        "at": "2026-11-24T09:30:00Z",
        "title": "Rejected: SELL 10 INFY NSE",
        "text": "Insufficient funds",
        "silent": False,
        "order": {"orderid": "1"},
    }


@pytest.mark.parametrize(("code", "gone"), [(500, False), (404, False), (302, False), (410, True)])
def test_anything_but_a_yes_is_a_no(client, receiver, code, gone):
    receiver.codes, receiver.location = [code], receiver.url

    with pytest.raises(UndeliveredError, match=str(code)) as refused:
        post(client, receiver)

    assert refused.value.gone is gone
    assert len(receiver.got) == 1  # a redirect is not followed


def test_a_program_that_is_not_there_is_a_failure(client, receiver):
    receiver.port = 9

    with pytest.raises(UndeliveredError):
        post(client, receiver)


def test_nothing_is_sent_into_the_services_own_network(client, receiver):
    with pytest.raises(UndeliveredError, match="own network"):
        post(client, receiver, private=False)

    assert receiver.got == []


def test_a_person_is_told_through_apprise(receiver):
    tell_person(receiver.ntfy, "Filled", "10 of 10", silent=False, urgent=False, private=True)
    tell_person(receiver.ntfy, "Cancelled", "…", silent=True, urgent=False, private=True)

    loud, silent = receiver.bodies
    assert (loud["title"], loud["message"], loud["topic"]) == ("Filled", "10 of 10", "orders")
    assert silent["title"] == "Cancelled"
    assert ["min" in headers.values() for headers, _ in receiver.got] == [False, True]


def test_a_service_that_does_not_take_a_message_is_a_failure(receiver):
    receiver.codes = [500]

    with pytest.raises(UndeliveredError):
        tell_person(receiver.ntfy, "Filled", "10 of 10", silent=False, urgent=False, private=True)


@pytest.mark.parametrize(
    ("address", "quiet"),
    [
        ("tgram://1:t/2/", "tgram://1:t/2/?silent=yes"),
        ("pover://u@t?sound=x", "pover://u@t?sound=x&priority=low"),
        ("mailto://u:p@example.com", "mailto://u:p@example.com"),
    ],
)
def test_services_are_asked_not_to_ring_where_they_can_be(address, quiet):
    assert targets.quiet(address) == quiet


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        (TargetKind.WEBHOOK, "ftp://algo.example/x"),
        (TargetKind.WEBHOOK, "algo.example"),
        (TargetKind.WEBHOOK, "https://user:pass@algo.example/"),
        (TargetKind.WEBHOOK, "http://127.0.0.1:5080/api/v1/feeds"),
        (TargetKind.WEBHOOK, "http://[::1]/"),
        (TargetKind.WEBHOOK, "http://169.254.169.254/latest/meta-data"),
        (TargetKind.WEBHOOK, "http://localhost/"),
        (TargetKind.APPRISE, "json://algo.example/x"),
        (TargetKind.APPRISE, "syslog://"),
        (TargetKind.APPRISE, "nosuch://token"),
        (TargetKind.APPRISE, "hello"),
        (TargetKind.APPRISE, "ntfy://127.0.0.1/orders"),
    ],
)
def test_an_address_that_cannot_or_must_not_be_used_is_refused_by_its_field(kind, address):
    with pytest.raises(InvalidRequestError) as refused:
        check_address(kind, address)

    assert set(refused.value.problems) == {"address"}


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        (TargetKind.WEBHOOK, "https://192.0.43.8/hook"),
        (TargetKind.APPRISE, "tgram://123456789:abcdefg_hijklmnop/12315544/"),
    ],
)
def test_an_address_of_the_world_is_taken(kind, address):
    check_address(kind, address)


def test_the_operator_may_allow_this_machine():
    check_address(TargetKind.WEBHOOK, "http://127.0.0.1:9000/hook", private=True)
