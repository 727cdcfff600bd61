from __future__ import annotations

import asyncio
from datetime import date
from decimal import Decimal

import pytest

from orderwire.brokers.adapter import (
    AccountProfile,
    AdapterTools,
    BrokerAdapter,
    BrokerSession,
    Field,
    PostbackRequest,
    plaintext_refusal,
)
from orderwire.clock import SystemClock
from orderwire.core.events import EventType
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import (
    AccountId,
    Channel,
    OrderId,
    OrderStatus,
    OrderUpdate,
    Position,
    Trade,
)
from orderwire.errors import ProtocolViolationError

ACCOUNT = AccountId("acc")
DAY = date(2026, 8, 17)
ORDER = OrderUpdate(
    account=ACCOUNT,
    broker="plain",
    order_id=OrderId("1"),
    channel=Channel.REST,
    trading_date=DAY,
    raw_status="OPEN",
    status=OrderStatus.OPEN,
    phase=1,
    symbol="SBIN",
    exchange="NSE",
    side="BUY",
    order_type="LIMIT",
    product="MIS",
    quantity=1,
)
TRADE = Trade(
    account=ACCOUNT,
    broker="plain",
    order_id=OrderId("1"),
    trade_id="t",
    channel=Channel.REST,
    trading_date=DAY,
    symbol="SBIN",
    exchange="NSE",
    side="BUY",
    product="MIS",
    quantity=1,
    price=Decimal(5),
)
POSITION = Position(
    account=ACCOUNT,
    broker="plain",
    channel=Channel.REST,
    trading_date=DAY,
    symbol="SBIN",
    exchange="NSE",
    product="MIS",
    quantity=-1,
)


class PlainAdapter(BrokerAdapter):
    """A broker with REST alone: what a developer must write, and nothing else."""

    name = "plain"
    title = "Plain"

    async def login(self, grant):
        return BrokerSession(user_id="u", secrets={"token": "SECRET"})

    async def place_order(self, request):
        return OrderId("1")

    async def modify_order(self, request, *, current=None):
        return request.order_id

    async def cancel_order(self, order_id, *, current=None):
        return order_id

    async def order_book(self):
        return [ORDER]

    async def order_history(self, order_id):
        return []

    async def trade_book(self):
        return []

    async def positions(self):
        return []

    async def holdings(self):
        return []

    async def funds(self):
        raise NotImplementedError

    async def instruments_of_the_day(self):
        return []


class Recorder:
    def __init__(self):
        self.events = []

    def put(self, event):
        self.events.append(event)


def adapter(publisher=None):
    profile = AccountProfile(account=ACCOUNT, credentials={"api_secret": "SECRET"})
    tools = AdapterTools(http=None, instruments=InstrumentTable(), clock=SystemClock(), publisher=publisher)
    return PlainAdapter(profile, tools)


@pytest.mark.parametrize(
    ("method", "value", "kind"),
    [
        ("on_order", ORDER, EventType.ORDER_UPDATE),
        ("on_trade", TRADE, EventType.TRADE_UPDATE),
        ("on_position", POSITION, EventType.POSITION_UPDATE),
    ],
)
def test_what_an_adapter_gives_becomes_a_typed_event(method, value, kind):
    recorder = Recorder()

    getattr(adapter(recorder), method)(value)

    (event,) = recorder.events
    assert event.type == kind
    assert event.data is value


@pytest.mark.parametrize(
    ("method", "value"), [("on_order", ORDER), ("on_trade", TRADE), ("on_position", POSITION)]
)
def test_without_a_publisher_nothing_happens(method, value):
    assert getattr(adapter(), method)(value) is None


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("on_order", TRADE),
        ("on_order", {"order_id": "1"}),
        ("on_order", None),
        ("on_trade", ORDER),
        ("on_position", "x"),
    ],
)
@pytest.mark.parametrize("publisher", [None, Recorder()])
def test_a_value_of_another_type_is_a_mistake_with_or_without_a_publisher(method, value, publisher):
    with pytest.raises(TypeError, match="takes a"):
        getattr(adapter(publisher), method)(value)

    assert publisher is None or publisher.events == []


def test_a_value_of_another_type_is_the_same_mistake_when_the_log_tells_of_each_update():
    plain = adapter()
    plain._explains = True

    with pytest.raises(TypeError, match="takes a OrderUpdate"):
        plain.on_order({"order_id": "1"})


def test_a_rest_only_broker_works_unchanged():
    plain = adapter()

    assert asyncio.run(plain.order_book()) == [ORDER]
    assert plain.login_url() is None
    assert asyncio.run(plain.logout()) is None
    assert (plain.has_stream, plain.has_postback, dict(plain.budgets)) == (False, False, {})


def test_a_broker_without_a_stream_or_postbacks_says_so():
    with pytest.raises(NotImplementedError, match="Plain has no stream"):
        asyncio.run(adapter().listen())
    with pytest.raises(NotImplementedError, match="plain sends no postbacks"):
        PlainAdapter.read_postback(PostbackRequest(body=b"", headers={}), secrets=[])


def test_a_class_without_the_required_calls_cannot_be_made():
    class Unfinished(BrokerAdapter):
        name = "unfinished"
        title = "Unfinished"

    with pytest.raises(TypeError, match="abstract"):
        Unfinished(AccountProfile(account=ACCOUNT, credentials={}), None)


def test_the_supervisor_is_told_when_the_stream_begins_and_ends_to_deliver():
    plain, told = adapter(), []
    plain.on_listening = told.append

    for delivers in (False, True, True, False, False):
        plain.listening = delivers

    assert told == [True, False]


def test_a_message_left_out_is_counted_and_told():
    plain, told = adapter(), []
    error = ProtocolViolationError("x")
    plain.note_violation(error)
    plain.on_violation = told.append

    plain.note_violation(error)

    assert (plain.violations, told) == (2, [error])


def test_no_secret_shows_in_a_repr():
    shown = [
        BrokerSession(user_id="u", secrets={"token": "SECRET"}),
        AccountProfile(account=ACCOUNT, credentials={"api_secret": "SECRET"}),
        PostbackRequest(body=b"SECRET", headers={}),
        adapter().profile,
    ]

    assert "SECRET" not in repr(shown)
    assert Field(name="a", label="A").required


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("https://api.kite.trade", True),
        ("wss://ws.kite.trade/?x=1", True),
        ("http://127.0.0.1:8101", True),
        ("ws://localhost:1/x", True),
        ("http://[::1]:8101/", True),
        ("http://127.0.0.1.evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1@evil.example/", False),
        ("ws://10.0.0.5:3000", False),
        ("HTTP://api.kite.trade", False),
        ("api.kite.trade", False),
        ("", False),
    ],
)
def test_plain_text_is_for_the_loopback(address, allowed):
    assert (plaintext_refusal(address, allow_plaintext=False) is None) is allowed


def test_plain_text_can_be_allowed_for_an_account():
    assert plaintext_refusal("http://10.0.0.5", allow_plaintext=True) is None
