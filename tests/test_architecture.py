"""The page about the architecture speaks of what is there."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from orderwire.core import lifecycle
from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import OrderChange
from orderwire.core.orders import AccountId, Channel, OrderId, OrderStatus, OrderUpdate
from orderwire.core.recovery import FeedFacts, Freshness, freshness

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
DIAGRAMS = re.findall(r"^```mermaid\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
ARROWS = set(re.findall(r"^ +(\w+) --> (\w+):", DIAGRAMS[1], flags=re.MULTILINE))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"[\w/]+\.py\b", PAGE))))
def test_every_file_it_names_is_there(name):
    assert (ROOT / "src" / "orderwire" / name).is_file()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", PAGE))))
def test_every_link_leads_somewhere(target):
    assert (ROOT / "docs" / target).exists()


def test_every_event_in_its_table_exists():
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \|", PAGE, flags=re.MULTILINE)
    named = re.findall(r"`([A-Z_]+)`", " ".join(rows))

    assert len(named) == 8
    assert set(named) <= set(EventType.__members__)


def test_the_second_diagram_has_every_freshness_but_the_one_beside_it():
    drawn = {state for arrow in ARROWS for state in arrow}

    assert drawn == {state.value for state in Freshness} - {"MANUAL"}


ALL_FACTS = [
    FeedFacts(
        logged_in=logged_in,
        streams=True,
        delivering=delivering,
        reconciled=reconciled,
        ever_read=ever_read,
        read_age=age,
        failing_for=age,
        open_orders=1,
    )
    for logged_in in (True, False)
    for delivering in (True, False)
    for reconciled in (True, False)
    for ever_read in (True, False)
    for age in (0.0, 16.0)
]


def test_every_freshness_it_draws_is_reached_and_no_other():
    assert {freshness(facts).value for facts in ALL_FACTS} == {state for arrow in ARROWS for state in arrow}


def test_its_example_runs(capsys):
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    room: dict[str, object] = {}

    exec(compile(example, "docs/architecture.md", "exec"), room)
    room["on_change"](Event(EventType.ORDER_CHANGED, _change()))

    assert capsys.readouterr().out == "SBIN FILLED 10\n"


def _change():
    told = OrderUpdate(
        account=AccountId("acc"),
        broker="paisa",
        order_id=OrderId("1"),
        channel=Channel.REST,
        trading_date=date(2026, 8, 17),
        raw_status="DONE",
        status=OrderStatus.FILLED,
        phase=3,
        symbol="SBIN",
        exchange="NSE",
        side="BUY",
        order_type="MARKET",
        product="MIS",
        quantity=10,
        filled_quantity=10,
    )
    state = lifecycle.observe(None, told).state
    return OrderChange(
        account=told.account,
        epoch="e",
        sequence=1,
        event_id="1",
        kind="order",
        order=lifecycle.view(state),
    )
