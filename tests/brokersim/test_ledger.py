"""The oracle's memory."""

import hashlib

from brokersim.ledger import Fate, Ledger
from brokersim.orders import ExchangeEvent
from sim_orders import order, trade


def filled_ledger():
    ledger = Ledger(messages_kept=3)
    ledger.witness(ExchangeEvent(order=order()), at=1.0)
    ledger.witness(ExchangeEvent(order=order(user="ZD0002"), trade=trade()), at=2.0)
    for number, fate in enumerate([Fate.SENT, Fate.LOST, Fate.DROPPED, Fate.SENT]):
        ledger.message(
            f"text {number}",
            at=float(number),
            broker="kite",
            channel="ws",
            user="ZD0001",
            what="UPDATE",
            fate=fate,
            order_id=str(number),
        )
    return ledger


def test_truths_are_numbered_and_found_by_user():
    ledger = filled_ledger()

    assert [(each.number, each.order.user) for each in ledger.truths()] == [(1, "ZD0001"), (2, "ZD0002")]
    assert [each.number for each in ledger.truths(user="ZD0002")] == [2]
    assert [each.number for each in ledger.truths(after=1)] == [2]
    assert list(ledger.truths(broker="xts")) == []


def test_a_message_is_known_by_the_hash_of_its_bytes():
    found = list(filled_ledger().messages(order_id="3"))

    assert [each.sha256 for each in found] == [hashlib.sha256(b"text 3").hexdigest()]
    assert found[0].size == 6


def test_the_oldest_messages_go_first_and_stay_counted():
    ledger = filled_ledger()

    assert [each.number for each in ledger.messages()] == [2, 3, 4]
    assert ledger.totals() == {
        "truths": 2,
        "messages": 4,
        "kite.ws.LOST": 1,
        "kite.ws.DROPPED": 1,
        "kite.ws.SENT": 1,
    }


def test_messages_are_found_by_fate_and_number():
    ledger = filled_ledger()

    assert [each.order_id for each in ledger.messages(fate="DROPPED")] == ["2"]
    assert [each.number for each in ledger.messages(after=3, channel="ws")] == [4]
