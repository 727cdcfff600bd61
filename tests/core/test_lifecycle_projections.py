from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from core.lifecycles import T0, S, said
from orderwire.core.latency import Stamps
from orderwire.core.lifecycle import (
    OrderChange,
    Submission,
    SubmissionState,
    lift,
    openalgo_order,
    openalgo_status,
    submission_view,
    trade_key,
    traded,
    view,
)
from orderwire.core.orders import AccountId, Channel, OrderId, OrderRequest, OrderStatus, Trade

VIEW = view(lift(said()))
DAY = date(2026, 1, 5)


# --- OpenAlgo's words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (S.PENDING_NEW, "open"),
        (S.TRIGGER_PENDING, "trigger pending"),
        (S.OPEN, "open"),
        (S.PARTIALLY_FILLED, "open"),
        (S.FILLED, "complete"),
        (S.CANCELLED, "cancelled"),
        (S.REJECTED, "rejected"),
        (S.EXPIRED, "cancelled"),
        (S.UNKNOWN, "open"),
    ],
)
def test_each_state_has_one_of_openalgos_five_words(status, word):
    assert openalgo_status(replace(VIEW, status=status)) == word


def test_every_state_has_a_word():
    words = {openalgo_status(replace(VIEW, status=status)) for status in OrderStatus}

    assert words == {"open", "trigger pending", "complete", "cancelled", "rejected"}


def test_an_order_is_told_in_openalgos_sixteen_fields():
    update = said(
        filled_quantity=1,
        quantity=200,
        price=Decimal("1500.00"),
        trigger_price=Decimal("1499.5"),
        average_price=Decimal("1500.05"),
        reason="why",
    )

    fields = openalgo_order(view(lift(update)))

    assert fields == {
        "mode": "live",
        "broker": "zerodha",
        "orderid": "260105000000001",
        "symbol": "INFY",
        "exchange": "NSE",
        "action": "BUY",
        "quantity": 200,
        "price": 1500.0,
        "trigger_price": 1499.5,
        "pricetype": "LIMIT",
        "product": "CNC",
        "order_status": "open",
        "filled_quantity": 1,
        "pending_quantity": 199,
        "average_price": 1500.05,
        "rejection_reason": "why",
    }
    assert {type(fields[name]) for name in ("price", "trigger_price", "average_price")} == {float}


# --- submissions ------------------------------------------------------------------------------------------

REQUEST = OrderRequest(
    symbol="INFY",
    exchange="NSE",
    side="SELL",
    quantity=10,
    order_type="SL",
    product="NRML",
    price=Decimal("1490.00"),
    trigger_price=Decimal("1490.05"),
    disclosed_quantity=5,
    validity="IOC",
    tag="a1b2c3",
)


def submission(state=SubmissionState.SENDING, **changes):
    values = {
        "id": "a1b2c3",
        "account": AccountId("ZA1"),
        "broker": "zerodha",
        "state": state,
        "request": REQUEST,
        "created": T0,
    }
    return Submission(**(values | changes))


def test_a_submission_is_on_the_page_before_the_broker_has_a_row():
    shown = submission_view(submission(), DAY)

    assert asdict(shown) == asdict(VIEW) | {
        "row": "a1b2c3",
        "order_id": "",
        "submission": "a1b2c3",
        "trading_date": DAY,
        "status": S.PENDING_NEW,
        "raw_status": "",
        "side": "SELL",
        "order_type": "SL",
        "product": "NRML",
        "validity": "IOC",
        "pending_quantity": 10,
        "price": Decimal("1490.00"),
        "trigger_price": Decimal("1490.05"),
        "disclosed_quantity": 5,
        "broker_time": None,
        "first_seen": T0,
        "exchange_order_id": "",
        "source": Channel.PLACE,
    }


@pytest.mark.parametrize(
    ("state", "status", "checking", "pending"),
    [
        (SubmissionState.SENDING, S.PENDING_NEW, False, 10),
        (SubmissionState.ACCEPTED, S.PENDING_NEW, False, 10),
        (SubmissionState.REFUSED, S.REJECTED, False, 0),
        (SubmissionState.UNKNOWN, S.PENDING_NEW, True, 10),
    ],
)
def test_what_became_of_a_submission_is_shown(state, status, checking, pending):
    given_back = submission(state, order_id=OrderId("7"), reason="why", decided=T0 + timedelta(seconds=1))

    shown = submission_view(given_back, DAY)

    assert (shown.status, shown.checking, shown.pending_quantity) == (status, checking, pending)
    assert (shown.order_id, shown.reason, shown.row) == ("7", "why", "a1b2c3")


def test_every_state_of_a_submission_can_be_shown():
    assert {submission_view(submission(state), DAY).row for state in SubmissionState} == {"a1b2c3"}


def test_submissions_and_changes_survive_being_written_down():
    change = OrderChange(
        account=AccountId("ZA1"),
        epoch="e",
        sequence=7,
        event_id="e-7",
        kind="order",
        order=VIEW,
        was=S.PENDING_NEW,
        source="submission",
        stamps=Stamps(broker=1, joined=3),
    )

    for value in (change, submission(decided=T0)):
        assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value


def test_a_change_speaks_for_rest_and_carries_no_stamps_unless_said_otherwise():
    change = OrderChange(account=AccountId("ZA1"), epoch="e", sequence=1, event_id="x", kind="trade")

    assert (change.source, change.stamps, change.order, change.was) == (Channel.REST, Stamps(), None, None)


# --- trades -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Execution:
    quantity: int
    price: str
    trade_id: str = "1"
    channel: Channel = Channel.STREAM


def trade(execution, **changes):
    values = {
        "account": AccountId("ZA1"),
        "broker": "zerodha",
        "order_id": OrderId("260105000000001"),
        "trade_id": execution.trade_id,
        "channel": execution.channel,
        "trading_date": DAY,
        "symbol": "INFY",
        "exchange": "NSE",
        "side": "BUY",
        "product": "CNC",
        "quantity": execution.quantity,
        "price": Decimal(execution.price),
    }
    return Trade(**(values | changes))


def test_the_average_of_the_executions_is_exact():
    first, second = Execution(1, "100.10"), Execution(2, "100.25", "2")

    assert traded([trade(first), trade(second)]) == (3, Decimal("100.20"))


def test_an_execution_told_twice_counts_once():
    pushed, read = Execution(3, "100"), Execution(3, "100", channel=Channel.REST)

    assert traded([trade(pushed), trade(read)]) == (3, Decimal(100))


def test_no_execution_has_no_average():
    assert traded([]) == (0, Decimal(0))
    assert traded(iter([trade(Execution(0, "5"))])) == (0, Decimal(0))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("account", AccountId("B")),
        ("trading_date", date(2026, 1, 6)),
        ("exchange", "BSE"),
        ("order_id", OrderId("2")),
        ("trade_id", "2"),
    ],
)
def test_an_execution_is_known_by_all_of_its_identity(field, value):
    one, two = trade(Execution(1, "1")), trade(Execution(1, "1"), **{field: value})

    assert trade_key(one) != trade_key(two)
    assert traded([one, two])[0] == 2


@given(
    st.lists(
        st.builds(Execution, st.integers(1, 99), st.sampled_from(["1.05", "2.10", "3"]), st.uuids().map(str)),
        min_size=1,
    ),
    st.randoms(),
)
def test_executions_unite_in_any_order(executions, random):
    trades = [trade(execution) for execution in executions]
    shuffled = [*trades, random.choice(trades)]
    random.shuffle(shuffled)

    assert traded(shuffled) == traded(trades)
