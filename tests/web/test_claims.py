from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from core.test_claims import FILLED, OPEN, claim, page
from orderwire.core.events import Event, EventType
from orderwire.core.orders import AccountId
from orderwire.core.recovery import BookRead
from orderwire.web import claims
from orderwire.web.claims import MISMATCH, Claim, Claims

ACC = AccountId("acc")
ORDER = page(OPEN).order_id
S = 10**9


class Stand:
    """Claims over a book of one order."""

    def __init__(self) -> None:
        self.page: Any = page(OPEN)
        self.hints: list[str] = []
        self.counts: Counter[str] = Counter()
        self.claims = Claims(
            current=lambda _account, _order: self.page,
            hint=lambda _account, _order, reason: self.hints.append(reason),
            count=lambda what: self.counts.update([what]),
        )

    def claim(self, facts: Any, *, at: float = 0.0) -> None:
        said = claim(facts) if facts is not None else None
        self.claims.add(
            Claim(account=ACC, broker="zerodha", order_id=ORDER, received_ns=int(at * S), said=said)
        )

    def read(self, at: float) -> list[str]:
        read = BookRead(account=ACC, asked_ns=int(at * S))
        return [event.data.kind for event in self.claims.on_verified(Event(EventType.BOOK_VERIFIED, read))]


@pytest.fixture
def stand() -> Stand:
    return Stand()


def test_a_claim_the_book_confirms_is_forgotten(stand):
    stand.claim(OPEN, at=1)

    assert stand.read(2) == stand.read(9) == []
    assert stand.counts == {"confirmed": 1}


def test_a_claim_is_compared_only_with_a_read_that_began_after_it(stand):
    stand.claim(FILLED, at=5)

    assert stand.read(4) == []
    assert (stand.hints, stand.counts) == ([], {})


def test_one_contradiction_has_the_book_read_again_and_the_second_raises_the_alarm(stand):
    stand.claim(FILLED, at=1)

    assert stand.read(2) == []
    assert stand.hints == ["conflict: a postback claims otherwise"]
    assert stand.read(2.5) == []
    assert len(stand.hints) == 2, "the read that was asked for may have been spent on another hint"
    assert stand.read(3.1) == [MISMATCH]
    assert stand.read(9) == []
    assert stand.counts == {"contradicted": 1}


def test_a_book_that_was_only_late_raises_no_alarm(stand):
    stand.claim(FILLED, at=1)
    stand.read(2)
    stand.page = page(FILLED)

    assert stand.read(3.1) == []
    assert stand.counts == {"confirmed": 1}


def test_a_claim_about_another_account_is_a_contradiction(stand):
    stand.claim(None, at=1)

    assert stand.read(2) + stand.read(4) == [MISMATCH]


def test_an_order_the_broker_does_not_know_is_counted(stand):
    stand.page = None
    stand.claim(FILLED, at=1)

    assert stand.read(2) == []
    assert stand.counts == {"unknown to the broker": 1}


def test_claims_that_nobody_verifies_do_not_pile_up(stand, monkeypatch):
    monkeypatch.setattr(claims, "MOST_CLAIMS", 3)
    for _ in range(5):
        stand.claim(FILLED, at=9)

    stand.read(1)

    assert stand.counts == {"not compared": 2}
