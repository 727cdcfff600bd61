from __future__ import annotations

from decimal import Decimal

import pytest

from orderwire.core.books import BookRows, odd_rows
from orderwire.core.orders import AccountId, Holding, ModifyRequest, OrderRequest
from orderwire.errors import (
    BrokerUnreachableError,
    InvalidRequestError,
    OrderRefusedError,
    OrderwireError,
    ProtocolViolationError,
    RateLimitedError,
    SessionExpiredError,
    StoreError,
)
from orderwire.feeds import requests

ORDER = OrderRequest(
    symbol="INFY", exchange="NSE", side="BUY", quantity=10, product="MIS", price=Decimal("1400.05")
)

EVERY = [
    requests.Place(order=ORDER, key="k"),
    requests.Modify(
        terms=ModifyRequest(order_id="1", quantity=5, product="MIS", order_type="LIMIT", price=Decimal("1.5"))
    ),
    requests.Cancel(order_id="1"),
    requests.ReadPositions(),
    requests.ReadHoldings(),
    requests.ReadFunds(),
    requests.ReadFreeze(exchange="NSE", symbol="INFY"),
    requests.LoginUrl(state="s"),
    requests.LogIn(grant={"request_token": "t"}),
    requests.Refresh(),
    requests.Restart(),
    requests.CheckUp(seconds=3.0),
    requests.TakePostbackRequest(
        order_id="1", broker_time="t", claims={"a": "b"}, body=b"\x00\xff", headers={"h": "v"}, received_ns=5
    ),
]


@pytest.mark.parametrize("request_", EVERY, ids=lambda request: type(request).__name__)
def test_a_request_arrives_as_it_was_sent(request_):
    assert requests.unpacked(requests.packed(request_)) == request_


def test_every_request_is_tried_here():
    assert {type(request) for request in EVERY} == set(requests.Request.__subclasses__())


def test_a_request_of_another_release_is_an_error_and_not_guessed():
    with pytest.raises(StoreError, match="cannot be read"):
        requests.unpacked('{"what": "Dance"}')


@pytest.mark.parametrize("reply", ["", "5", '{"answer": "many"}', '{"error": 5}'])
def test_an_answer_of_another_release_is_an_error_too(reply):
    with pytest.raises(StoreError, match="cannot be read"):
        requests.opened(reply, requests.ReadFreeze(exchange="NSE", symbol="INFY"))


@pytest.mark.parametrize(
    "error",
    [
        SessionExpiredError("log in"),
        RateLimitedError("slowly"),
        BrokerUnreachableError("away", sent=True),
        OrderRefusedError("no margin", code="16"),
        InvalidRequestError({"price": "is no multiple"}),
        StoreError("disk"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_it_was_raised(error):
    with pytest.raises(type(error)) as caught:
        requests.opened(requests.failed(error), requests.Refresh())

    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    for name in ("sent", "code", "problems"):
        assert getattr(caught.value, name, None) == getattr(error, name, None)


def test_an_error_of_ours_that_is_none_of_the_known_ones_arrives_as_the_nearest():
    class OddError(OrderwireError):
        pass

    with pytest.raises(OrderwireError, match="odd"):
        requests.opened(requests.failed(OddError("odd")), requests.Refresh())


def test_an_answer_arrives_with_its_type():
    assert requests.opened(requests.answered(7), requests.ReadFreeze(exchange="NSE", symbol="INFY")) == 7
    assert requests.opened(requests.answered(None), requests.LoginUrl(state="s")) is None


def test_holdings_arrive_with_what_could_not_be_read_of_them():
    held = Holding(account=AccountId("a"), symbol="TCS", exchange="NSE", quantity=1)
    read = BookRows([held], odd=[ProtocolViolationError("a row without a quantity", raw=b"{}")])
    answer = requests.Rows.of(read)

    book = requests.opened(requests.answered(answer), requests.ReadHoldings()).book()

    assert list(book) == [held]
    assert [str(error) for error in odd_rows(book)] == ["a row without a quantity"]
