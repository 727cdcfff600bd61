import asyncio
import threading
from datetime import date
from decimal import Decimal
from types import MappingProxyType, SimpleNamespace

import pytest

from orderwire.brokers.adapter import AccountProfile, BrokerAdapter, BrokerSession
from orderwire.brokers.registry import BrokerRegistry
from orderwire.clock import SystemClock
from orderwire.core.books import BookRows, odd_rows
from orderwire.core.events import EventType
from orderwire.core.instruments import Instrument, InstrumentTable
from orderwire.core.lifecycle import SubmissionState
from orderwire.core.orders import (
    AccountId,
    Channel,
    Funds,
    ModifyRequest,
    OrderId,
    OrderRequest,
    OrderStatus,
    OrderUpdate,
    session_date,
)
from orderwire.engine import EventEngine
from orderwire.errors import (
    BrokerUnreachableError,
    InvalidRequestError,
    NotFoundError,
    OrderRefusedError,
    ProtocolViolationError,
    RateLimitedError,
    SessionExpiredError,
)
from orderwire.feeds.desk import Desk, new_tag
from orderwire.feeds.fleet import FeedAccount, Fleet, FleetTools
from orderwire.feeds.loop import FeedLoop
from orderwire.store.book import OrderBook
from orderwire.store.database import Database

ACCOUNT = AccountId("acc")
INFY = Instrument(
    broker="paper",
    exchange="NSE",
    symbol="INFY",
    broker_exchange="NSE",
    broker_symbol="INFY",
    token=1594,
    tick_size=Decimal("0.1"),
)
REQUEST = OrderRequest(
    symbol="INFY",
    exchange="NSE",
    side="BUY",
    quantity=5,
    order_type="LIMIT",
    product="CNC",
    price=Decimal("1500.1"),
)


class PaperBroker(BrokerAdapter):
    """A broker in memory: takes what it is sent, or does what `answer` says."""

    name = "paper"
    title = "Paper"

    def __init__(self, profile, tools):
        super().__init__(profile, tools)
        self.sent = []
        self.answer = lambda request: None
        self.rows = []

    async def login(self, grant):
        return BrokerSession(user_id="U", secrets={})

    def login_url(self, *, state=""):
        return "http://127.0.0.1/login"

    async def place_order(self, request):
        self.sent.append(request)
        order_id = OrderId(f"B{len(self.sent)}")
        self.rows.append(self.row(order_id, request))
        self.answer(request)
        return order_id

    async def modify_order(self, request, *, current=None):
        self.sent.append(request)
        return request.order_id

    async def cancel_order(self, order_id, *, current=None):
        self.sent.append(order_id)
        return order_id

    async def order_book(self):
        return list(self.rows)

    async def order_history(self, order_id):
        return []

    async def trade_book(self):
        return []

    async def positions(self):
        return []

    async def holdings(self):
        return []

    async def funds(self):
        return Funds(account=ACCOUNT)

    async def instruments_of_the_day(self):
        return [INFY]

    def row(self, order_id, request):
        return OrderUpdate(
            account=ACCOUNT,
            broker="paper",
            order_id=order_id,
            channel=Channel.REST,
            trading_date=session_date(self.tools.clock.now()),
            raw_status="OPEN",
            status=OrderStatus.OPEN,
            phase=9,
            symbol=request.symbol,
            exchange=request.exchange,
            side=request.side,
            order_type=request.order_type,
            product=request.product,
            quantity=request.quantity,
            price=request.price,
            tag=request.tag,
            broker_time=self.tools.clock.now().replace(microsecond=0),
        )


class OneAccount:
    def __init__(self, session):
        self.session = session

    def accounts(self):
        return [self.account(ACCOUNT)]

    def account(self, account):
        profile = AccountProfile(account=account, credentials={})
        return FeedAccount(broker="paper", profile=profile, session=self.session)

    def keep_session(self, account, session): ...


class Shelf:
    def load(self, broker):
        return InstrumentTable([INFY])

    def day(self, broker):
        return session_date(SystemClock().now())

    def replace(self, broker, day: date, instruments): ...


class Trading:
    def __init__(self, folder, *, session):
        self.clock = SystemClock()
        self.database = Database(f"sqlite:///{folder}/desk.db", clock=self.clock)
        self.database.migrate()
        self.engine = EventEngine(1)
        self.book = OrderBook(self.database, clock=self.clock)
        self.loop = FeedLoop()
        tools = FleetTools(
            engine=self.engine,
            held=self.book,
            logins=OneAccount(session),
            shelf=Shelf(),
            clock=self.clock,
            chance=lambda: 0.0,
            market_open=lambda segments: True,
            brokers=BrokerRegistry(classes=MappingProxyType({"paper": PaperBroker})),
        )
        self.fleet = Fleet(tools, self.loop)
        self.desk = Desk(fleet=self.fleet, book=self.book, database=self.database, now=self.clock.now)
        self.changes = []
        self.changed = threading.Condition()
        self.book.attach(self.engine)

        self.engine.register(EventType.ORDER_CHANGED, self._note)

    def _note(self, event):
        with self.changed:
            self.changes.append(event.data)
            self.changed.notify_all()

    def await_order(self, wanted):
        """The first committed view of an order that satisfies `wanted`."""
        with self.changed:
            found = self.changed.wait_for(
                lambda: next(
                    (c.order for c in self.changes if c.order is not None and wanted(c.order)), None
                ),
                10,
            )
        assert found, [change.order for change in self.changes]
        return found

    def __enter__(self):
        self.engine.start()
        self.loop.start()
        self.fleet.start()
        self.broker = self.fleet.adapter(ACCOUNT)
        return self

    def __exit__(self, *_):
        self.fleet.stop()
        self.loop.stop()
        self.engine.stop(2)
        self.database.close()


@pytest.fixture
def trading(tmp_path):
    with Trading(tmp_path, session=BrokerSession(user_id="U", secrets={})) as trading:
        yield trading


def test_an_order_is_written_down_before_it_is_sent(trading):
    held = []

    def look(request):
        held.extend(c.order for c in trading.changes if c.order.submission == request.tag)

    trading.broker.answer = look
    made = trading.desk.place(ACCOUNT, REQUEST)

    assert [view.status for view in held] == [OrderStatus.PENDING_NEW]
    assert made.state is SubmissionState.ACCEPTED
    assert made.order_id == "B1"


def test_the_brokers_row_takes_the_place_of_the_submission(trading):
    made = trading.desk.place(ACCOUNT, REQUEST)

    view = trading.await_order(lambda order: order.status is OrderStatus.OPEN)

    assert (view.row, view.submission, view.order_id) == (made.id, made.id, "B1")


def test_a_refused_order_is_shown_with_the_brokers_words(trading):
    def refuse(request):
        trading.broker.rows.clear()
        raise OrderRefusedError("Insufficient funds.")

    trading.broker.answer = refuse
    made = trading.desk.place(ACCOUNT, REQUEST)

    assert (made.state, made.reason) == (SubmissionState.REFUSED, "Insufficient funds.")
    view = trading.await_order(lambda order: order.status is OrderStatus.REJECTED)
    assert (view.row, view.reason, view.order_id) == (made.id, "Insufficient funds.", "")


def test_an_order_in_doubt_is_found_in_the_book_by_its_tag_and_never_sent_again(trading):
    def time_out(request):
        raise BrokerUnreachableError("no answer in 7 s", sent=True)

    trading.broker.answer = time_out
    made = trading.desk.place(ACCOUNT, REQUEST)

    assert made.state is SubmissionState.UNKNOWN
    view = trading.await_order(lambda order: order.status is OrderStatus.OPEN)
    assert (view.row, view.order_id) == (made.id, "B1")
    assert len(trading.broker.sent) == 1


def test_an_order_that_certainly_was_not_sent_is_refused(trading):
    def busy(request):
        trading.broker.rows.clear()
        raise RateLimitedError("10 orders a second", retry_after=1)

    trading.broker.answer = busy

    assert trading.desk.place(ACCOUNT, REQUEST).state is SubmissionState.REFUSED


def test_the_same_idempotency_key_sends_once(trading):
    first = trading.desk.place(ACCOUNT, REQUEST, idempotency_key="key-1")
    second = trading.desk.place(ACCOUNT, REQUEST, idempotency_key="key-1")

    assert second.id == first.id
    assert len(trading.broker.sent) == 1


def test_two_requests_with_one_key_at_the_same_time_send_once(trading):
    barrier, made = threading.Barrier(4), []

    def place():
        barrier.wait()
        made.append(trading.desk.place(ACCOUNT, REQUEST, idempotency_key="key-2").id)

    threads = [threading.Thread(target=place) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(made)) == 1
    assert len(trading.broker.sent) == 1


def test_an_invalid_order_reaches_nobody_and_a_mistyped_symbol_gets_suggestions(trading):
    wrong = OrderRequest(symbol="INFI", exchange="NSE", side="BUY", quantity=0, product="CNC")

    with pytest.raises(InvalidRequestError) as caught:
        trading.desk.place(ACCOUNT, wrong)

    assert "INFY" in caught.value.problems["symbol"]
    assert "quantity" in caught.value.problems
    assert trading.broker.sent == []
    assert trading.changes == []


def test_without_a_broker_session_nothing_is_written_or_sent(tmp_path):
    with Trading(tmp_path, session=None) as trading, pytest.raises(SessionExpiredError, match="Log in"):
        trading.desk.place(ACCOUNT, REQUEST)

    assert trading.changes == []


def test_an_unknown_account_is_named(trading):
    with pytest.raises(NotFoundError, match="nobody"):
        trading.desk.place(AccountId("nobody"), REQUEST)


def test_modify_and_cancel_need_an_order_of_this_account(trading):
    terms = ModifyRequest(
        order_id=OrderId("X"), quantity=1, order_type="LIMIT", product="CNC", price=Decimal(1500)
    )

    with pytest.raises(NotFoundError, match="X"):
        trading.desk.modify(ACCOUNT, terms)
    with pytest.raises(NotFoundError, match="X"):
        trading.desk.cancel(ACCOUNT, OrderId("X"))


def test_modify_and_cancel_reach_the_broker(trading):
    trading.desk.place(ACCOUNT, REQUEST)
    view = trading.await_order(lambda order: order.status is OrderStatus.OPEN)
    terms = ModifyRequest(
        order_id=view.order_id, quantity=7, order_type="LIMIT", product="CNC", price=Decimal("1500.2")
    )

    assert trading.desk.modify(ACCOUNT, terms) == view.order_id
    assert trading.desk.cancel(ACCOUNT, view.order_id) == view.order_id
    assert trading.broker.sent[1:] == [terms, view.order_id]


def test_what_only_the_broker_knows_is_read_from_it(trading):
    assert trading.desk.funds(ACCOUNT) == Funds(account=ACCOUNT)
    assert list(trading.desk.positions(ACCOUNT)) == []
    assert list(trading.desk.holdings(ACCOUNT)) == []
    assert trading.desk.freeze_quantity(ACCOUNT, "NSE", "INFY") == INFY.freeze_quantity
    assert trading.desk.freeze_quantity(ACCOUNT, "NSE", "NOPE") == 0


def test_a_holding_that_cannot_be_read_is_counted_and_logged(trading, monkeypatch):
    async def holdings():
        return BookRows([], odd=[ProtocolViolationError("a row of nothing", raw=b"[]")])

    logged = []
    log = SimpleNamespace(warning=lambda event, **facts: logged.append((event, facts["raw"])))
    monkeypatch.setattr("orderwire.feeds.desk._log", log)
    trading.broker.holdings = holdings

    held = trading.desk.holdings(ACCOUNT)

    assert len(odd_rows(held)) == 1
    assert logged == [("row left out", "[]")]


def test_nothing_is_read_without_a_session(trading):
    trading.broker.session = None

    with pytest.raises(SessionExpiredError):
        trading.desk.funds(ACCOUNT)


def test_tags_fit_both_brokers():
    tags = {new_tag() for _ in range(1000)}

    assert len(tags) == 1000
    assert all(tag.isalnum() and len(tag) == 16 for tag in tags)


def test_the_loop_is_reachable_only_while_it_runs():
    loop = FeedLoop()

    async def answer():
        return asyncio.get_running_loop() is not None

    with pytest.raises(RuntimeError, match="not running"):
        loop.submit(answer())
    loop.start()
    assert loop.submit(answer()).result(5)
    assert loop.stop()
    loop.start()
    assert loop.submit(answer()).result(5)
    assert loop.stop()
