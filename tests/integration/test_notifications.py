"""A rejection at the broker reaches a program's webhook, through the whole house."""

from __future__ import annotations

import pytest

from house import ZERODHA, House, eventually
from monitoring.mailbox import receiving
from orderwire.core import webhooks
from orderwire.service import open_records
from orderwire.store.notifications import TargetKind


@pytest.fixture
def receiver():
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def told(tmp_path, monkeypatch, receiver):
    """A running house whose trader asha is told at the receiver; with the secret of the signature."""
    monkeypatch.setenv("ORDERWIRE_PRIVATE_TARGETS", "true")
    house = House(tmp_path)
    records = open_records(house.settings)
    _, secret = records.notifications.add_target("asha", kind=TargetKind.WEBHOOK, address=receiver.url)
    records.database.close()
    try:
        house.start()
        house.log_in()
        yield house, secret
    finally:
        house.close()


def test_a_rejection_is_told_in_the_brokers_words_signed_and_once(told, receiver):
    house, secret = told

    made = house.place(ZERODHA, quantity=90_000_000, product="CNC", order_type="LIMIT", price="1500")
    eventually(lambda: any(body["occasion"] == "rejected" for body in receiver.bodies))

    said = [body for body in receiver.bodies if body["occasion"] == "rejected"]
    headers, raw = receiver.got[receiver.bodies.index(said[0])]
    row = house.book("asha")[made["id"]]
    expected = webhooks.signature(
        raw, secret=secret, message_id=headers[webhooks.ID], at=int(headers[webhooks.TIMESTAMP])
    )
    assert headers[webhooks.SIGNATURE] == expected
    assert row["status"] == "REJECTED"
    assert said[0]["text"].startswith(row["rejection_reason"])
    assert row["rejection_reason"]
    assert len(said) == 1
