from __future__ import annotations

import pytest

from orderwire.core.orders import AccountId
from orderwire.errors import NotFoundError
from orderwire.store import letters
from orderwire.store.book import OrderBook
from store.making import observed, update


@pytest.fixture
def refusing(database, clock):
    book = OrderBook(database, clock=clock)
    for account in ("A1", "A2", "A1"):
        poisoned = update("open", order=f"{account}-9", account=account, filled_quantity=99, raw=b"\xff{")
        book.on_observation(observed(poisoned))
        book.commit()
    book.on_observation(observed(update("open", order="8", quantity=-1)))
    book.commit()
    return database


def test_letters_are_listed_newest_first_each_once(refusing):
    found = letters.newest(refusing)

    assert [letter.order_id for letter in found] == ["8", "A2-9", "A1-9"]
    assert found[0].reason == "a number is negative"
    assert found[1].reason == "filled 99 is above any quantity seen"


def test_letters_of_one_account(refusing):
    assert [one.account for one in letters.newest(refusing, account=AccountId("A2"))] == ["A2"]
    assert len(letters.newest(refusing, most=1)) == 1


def test_one_letter_has_the_brokers_bytes_as_they_came(refusing):
    number = letters.newest(refusing)[-1].id

    letter = letters.one(refusing, number)

    assert letter.raw == b"\xff{"
    assert letter.kind == "OrderUpdate"
    assert "filled_quantity=99" in letter.observation


def test_a_letter_that_is_not_there(database):
    with pytest.raises(NotFoundError, match="no letter 7"):
        letters.one(database, 7)
