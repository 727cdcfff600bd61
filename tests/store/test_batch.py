from __future__ import annotations

from datetime import date, timedelta

import pytest

from orderwire.core.lifecycle import lift, view
from orderwire.core.orders import Channel
from orderwire.store.batch import Input, letter, trading_day
from orderwire.store.memory import Held
from store.making import DAY, OPENED, submission, trade, update

NEXT = DAY + timedelta(days=1)
TOMORROW = OPENED + timedelta(days=1)


def held(word: str) -> Held:
    state = lift(update(word))
    return Held(state=state, view=view(state), last_day=DAY, seen_day=DAY)


@pytest.mark.parametrize(
    ("before", "now", "day"),
    [
        (None, update("open"), DAY),
        (None, update("open", trading_date=NEXT), NEXT),
        (None, update("filled", trading_date=NEXT), DAY),
        (None, update("filled", trading_date=NEXT, broker_time=None), NEXT),
        ("open", update("filled", at=TOMORROW), DAY),
        ("open", update("open", trading_date=NEXT, broker_time=None), DAY),
        ("filled", update("filled", trading_date=NEXT), DAY),
        ("filled", update("filled", trading_date=NEXT, broker_time=None), DAY),
        ("filled", update("open", at=TOMORROW), NEXT),
        ("open", update("open", at=TOMORROW, symbol="INFY"), NEXT),
        ("open", update("open", at=TOMORROW, side="SELL"), NEXT),
        ("open", update("open", at=TOMORROW, symbol="?", known_symbol=False), DAY),
        ("open", update("open", symbol="INFY"), DAY),
        ("open", update("open", trading_date=DAY - timedelta(days=1)), DAY),
    ],
)
def test_the_session_day_is_fixed_when_the_order_is_first_seen(before, now, day):
    assert trading_day(now, held(before) if before else None) == day


@pytest.mark.parametrize(
    "value",
    [
        update("open", order="a\x00b", reason="\ud800", account="₹"),
        trade(received_ns=2**80),
        submission(broker="\ud800"),
    ],
)
def test_a_dead_letter_fits_any_database(database, value):
    from sqlalchemy import insert

    from orderwire.store import schema

    row = letter(Input(value=value), "why \x00\ud800", at_ns=1)

    database.write(lambda connection: connection.execute(insert(schema.dead_letters), row))

    with database.read() as connection:
        (kept,) = connection.execute(schema.dead_letters.select()).all()
    assert kept.kind == type(value).__name__
    assert kept.reason == "why \\x00\\ud800"


def test_the_day_of_an_observation_does_not_depend_on_its_channel():
    for channel in Channel:
        assert trading_day(update("filled", trading_date=NEXT, channel=channel), None) == date(2026, 8, 17)
