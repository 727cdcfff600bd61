from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import threading
import time
import traceback
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from orderwire.brokers.adapter import AccountProfile, AdapterTools, BrokerSession
from orderwire.brokers.xts import adapter as adapter_module
from orderwire.brokers.xts.adapter import budgets_of
from orderwire.brokers.xts.socketio import Ending, Received, Timers, write_payload
from orderwire.clock import SystemClock
from orderwire.core.events import EventType
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import AccountId, Channel, ModifyRequest, OrderId, OrderRequest, OrderStatus
from orderwire.errors import (
    BrokerUnreachableError,
    ConfigurationError,
    InvalidRequestError,
    OrderRefusedError,
    PermissionRefusedError,
    ProtocolViolationError,
    RateLimitedError,
    SessionExpiredError,
)
from scripted_xts import (
    JOINED,
    OPEN,
    OPEN_4,
    Reply,
    ScriptedXts,
    error,
    serving,
    stay_connected,
    success,
    until,
    welcome,
)
from xts_desk import TOKEN, DeskXts, adapter_of, listening, logged_in, profile_at

DATA = Path(__file__).resolve().parents[2] / "data" / "xts"
ALIVE = success({"BalanceList": [{"limitObject": {"RMSSubLimits": {}}}]})


def load(name):
    return json.loads((DATA / name).read_text())


@asynccontextmanager
async def desk(host, instruments, *, session=True, **profile):
    """An adapter in front of a scripted host; `session` logs it in as an investor."""
    async with serving(host):
        placed = profile_at(host.url, **profile)
        async with adapter_of(DeskXts, placed, instruments=instruments) as (adapter, published):
            if session:
                investor = "client_id" not in placed.credentials
                adapter.session = logged_in(host.url, investor=investor)
            yield adapter, published


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


def jwt(claims):
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{part}.c2ln"


def login_answer(*, investor=True, token=None, **more):
    return success(
        {
            "token": token or jwt({"userID": "JN0042_KEY", "exp": 1786960800}),
            "userID": "JN0042",
            "isInvestorClient": investor,
            "clientCodes": ["JN0042"],
            **more,
        }
    )


# --- configuration ----------------------------------------------------------------------------------------


def make(*, instruments=None, **profile):
    fields = {
        "account": AccountId("acc"),
        "credentials": {"app_key": "k", "secret_key": "s"},
        "addresses": {"base": "https://h"},
        **profile,
    }
    return DeskXts(
        AccountProfile(**fields), AdapterTools(http=None, instruments=instruments, clock=SystemClock())
    )


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"credentials": {"app_key": "k"}}, "secret_key"),
        ({"addresses": {}}, "base"),
        ({"addresses": {"base": "ftp://h"}}, "not an http"),
        ({"addresses": {"base": "h:5000"}}, "not an http"),
        ({"addresses": {"base": "http://jainam.example:4001"}}, "not encrypted"),
        (
            {"addresses": {"base": "https://h", "hostlookup": "http://jainam.example/hostlookup"}},
            "not encrypted",
        ),
        ({"addresses": {"base": "https://h", "revision": "5"}}, "revision"),
        ({"addresses": {"base": "https://h", "transport": "pigeon"}}, "transport"),
        ({"credentials": {"app_key": "k", "secret_key": "s", "login_kind": "king"}}, "login_kind"),
        ({"credentials": {"app_key": "k", "secret_key": "s", "login_kind": "dealer"}}, "client_id"),
    ],
)
def test_a_profile_that_cannot_work_is_refused_at_once(profile, said):
    with pytest.raises(ConfigurationError, match=said):
        make(**profile)


def test_plain_text_off_loopback_needs_explicit_consent():
    adapter = make(addresses={"base": "http://jainam.example:4001"}, allow_plaintext=True)

    assert adapter.profile.allow_plaintext


def test_order_calls_do_not_wait_and_reads_do():
    buckets = budgets_of("x", {"place": (25, 1.0), "holdings": (1, 10.0)})

    assert (buckets["x.place"].patience, buckets["x.place"].breaks) == (1.0, False)
    assert buckets["x.holdings"].patience > 10.0


# --- logging in -------------------------------------------------------------------------------------------


def test_plain_login_sends_the_keys_and_keeps_the_token_apart(instruments):
    async def story():
        host = ScriptedXts(answers={("POST", "/interactive/user/session"): login_answer()})
        async with desk(host, instruments, session=False) as (adapter, _):
            return host, await adapter.login({})

    host, session = run(story())

    assert host.asked[0].body == {"appKey": "key", "secretKey": "secret", "source": "WEBAPI"}
    assert session.user_id == "JN0042"
    assert session.expires_at == datetime.fromtimestamp(1786960800, UTC)
    assert session.facts["base"] == f"{host.url}/interactive"
    assert session.secrets["token"] not in repr(session)


@pytest.mark.parametrize("envelope", [{"type": True}, {"type": "success"}, {"type": "maybe"}])
@pytest.mark.parametrize("path", ["", "/1interactive", "/2hostlookup"])
def test_hostlookup_leads_to_its_connection_string(instruments, envelope, path):
    base = path.replace("hostlookup", "interactive")

    async def story():
        host = ScriptedXts()
        async with desk(host, instruments, addresses={"hostlookup": "{host}/hostlookup"}, session=False) as (
            adapter,
            _,
        ):
            host.answers = {
                ("POST", "/hostlookup"): success(
                    {"uniqueKey": "U1", "connectionString": f" '{host.url}{path}/' "}, **envelope
                ),
                ("POST", f"{base}/user/session"): login_answer(),
                ("GET", f"{base}/orders"): success([]),
            }
            adapter.session = await adapter.login({})
            await adapter.order_book()
            return host

    host = run(story())

    lookup, login, book = host.asked
    assert lookup.body == {"accesspassword": "2021HostLookUpAccess", "version": "interactive_1.0.1"}
    assert login.body["uniqueKey"] == "U1"
    assert book.path == f"{base}/orders"


def test_a_plain_connection_string_off_loopback_is_refused(instruments):
    async def story():
        host = ScriptedXts(
            answers={
                ("POST", "/hostlookup"): success(
                    {"uniqueKey": "U", "connectionString": "http://c.example:4202"}
                )
            }
        )
        async with desk(host, instruments, addresses={"hostlookup": "{host}/hostlookup"}, session=False) as (
            adapter,
            _,
        ):
            await adapter.login({})

    with pytest.raises(ConfigurationError, match="not encrypted"):
        run(story())


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (error("e-session-0007", "Invalid Token"), SessionExpiredError),
        (error("e-user-0001", "Invalid appKey"), SessionExpiredError),
        (success({}), SessionExpiredError),
        (Reply(status=404, body="<html>nginx</html>"), BrokerUnreachableError),
        (Reply(status=502, body="<html>Bad Gateway</html>"), BrokerUnreachableError),
        (error("e-x", "boom", status=500), BrokerUnreachableError),
        (error("e-apirl-0004", "Rate Limit for JN0042", status=400), RateLimitedError),
    ],
)
def test_a_failed_login_says_whose_fault_it_is(instruments, reply, expected):
    async def story():
        host = ScriptedXts(answers={("POST", "/interactive/user/session"): reply})
        async with desk(host, instruments, session=False) as (adapter, _):
            await adapter.login({})

    with pytest.raises(expected):
        run(story())


def test_a_dealer_must_say_for_whom(instruments):
    async def story():
        host = ScriptedXts(answers={("POST", "/interactive/user/session"): login_answer(investor=False)})
        async with desk(host, instruments, session=False) as (adapter, _):
            await adapter.login({})

    with pytest.raises(ConfigurationError, match="login_kind to pro"):
        run(story())


def test_a_login_page_is_named_where_the_broker_has_one():
    addresses = {"base": "https://h:5000", "return_url": "https://me.example/back?x=1"}

    url = make(addresses=addresses).login_url(state="a&b")

    assert url == (
        "https://h:5000/interactive/thirdparty?appKey=k"
        "&returnURL=https%3A%2F%2Fme.example%2Fback%3Fx%3D1%26state%3Da%2526b"
    )
    assert make().login_url(state="s") is None


@pytest.mark.parametrize("grant", [{"accessToken": "AT"}, {"session": '{"accessToken":"AT","userID":"x"}'}])
def test_what_the_login_page_gave_goes_into_the_login(instruments, grant):
    async def story():
        host = ScriptedXts(answers={("POST", "/interactive/user/session"): login_answer()})
        async with desk(host, instruments, session=False) as (adapter, _):
            await adapter.login(grant)
        return host.asked[0].body["accessToken"]

    assert run(story()) == "AT"


@pytest.mark.parametrize("session", ["", "x", "{}", "[]", '{"accessToken":5}'])
def test_a_login_page_that_gave_nothing_is_no_login(instruments, session):
    async def story():
        async with desk(ScriptedXts(), instruments, session=False) as (adapter, _):
            await adapter.login({"session": session})

    with pytest.raises(SessionExpiredError if session else BrokerUnreachableError):
        run(story())


def test_calls_before_the_login_say_so(instruments):
    async def story():
        async with desk(ScriptedXts(), instruments, session=False) as (adapter, _):
            await adapter.order_book()

    with pytest.raises(SessionExpiredError, match="Log in to Desk XTS"):
        run(story())


def test_logout_ends_the_session_at_the_broker(instruments):
    async def story():
        host = ScriptedXts(answers={("DELETE", "/interactive/user/session"): success({})})
        async with desk(host, instruments, credentials={"client_id": "*****"}) as (adapter, _):
            await adapter.logout()
        return host.asked[0]

    asked = run(story())

    assert (asked.token, asked.query) == (TOKEN, {"clientID": "*****"})


# --- reading ----------------------------------------------------------------------------------------------


def ask(instruments, replies, call, **options):
    """Let the adapter do one call; return what it gave and what the host was asked."""

    async def story():
        host = ScriptedXts(answers=replies)
        async with desk(host, instruments, **options) as (adapter, _):
            return await call(adapter), host.asked

    return run(story())


def test_the_order_book_is_read_with_the_token_alone(instruments, rest_order):
    (update,), (asked,) = ask(
        instruments,
        {("GET", "/interactive/orders"): success([rest_order])},
        lambda adapter: adapter.order_book(),
    )

    assert (asked.token, asked.query) == (TOKEN, {})
    assert (update.order_id, update.channel, update.broker) == ("1210050001", Channel.REST, "deskxts")
    assert json.loads(update.raw)["AppOrderID"] == 1210050001
    assert update.received_ns > 10**18


def test_the_time_at_the_broker_is_known_once_it_has_answered(instruments):
    async def call(adapter):
        before = adapter.broker_now()
        await adapter.order_book()
        return before, adapter.broker_now()

    (before, after), _ = ask(instruments, {("GET", "/interactive/orders"): success([])}, call)

    assert before is None
    assert abs(after - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "reply",
    [
        error("e-orders-0005", "Data Not Available"),
        error("e-portfolio-0005", "Data Not Available"),
        success([]),
        success({}),
    ],
)
@pytest.mark.parametrize("call", ["order_book", "trade_book", "positions", "holdings"])
def test_an_empty_book_is_an_empty_list(instruments, reply, call):
    paths = ("/orders", "/orders/trades", "/portfolio/positions", "/portfolio/holdings")
    replies = {("GET", f"/interactive{path}"): reply for path in paths}

    found, _ = ask(instruments, replies, lambda adapter: getattr(adapter, call)())

    assert list(found) == []


def test_a_history_counts_its_states(instruments, rest_order):
    rows = [{**rest_order, "OrderStatus": word} for word in ("PendingNew", "New", "PartiallyFilled")]

    updates, (asked,) = ask(
        instruments,
        {("GET", "/interactive/orders"): success(rows)},
        lambda adapter: adapter.order_history(OrderId("1210050001")),
    )

    assert asked.query == {"appOrderID": "1210050001"}
    assert [(update.history_index, update.channel) for update in updates] == [
        (0, Channel.HISTORY),
        (1, Channel.HISTORY),
        (2, Channel.HISTORY),
    ]


def test_a_history_that_is_not_there_yet_may_be_asked_again(instruments):
    with pytest.raises(BrokerUnreachableError, match="yet"):
        ask(
            instruments,
            {("GET", "/interactive/orders"): error("e-orders-0001", "Order not found")},
            lambda adapter: adapter.order_history(OrderId("7")),
        )


def test_trades_positions_holdings_and_money_are_read(instruments, socket_trade):
    async def call(adapter):
        return (
            await adapter.trade_book(),
            await adapter.positions(),
            await adapter.holdings(),
            await adapter.funds(),
        )

    replies = {
        ("GET", "/interactive/orders/trades"): success([socket_trade]),
        ("GET", "/interactive/portfolio/positions"): Reply(body=load("rest_positions.json")),
        ("GET", "/interactive/portfolio/holdings"): Reply(body=load("rest_holdings.json")),
        ("GET", "/interactive/user/balance"): Reply(body=load("rest_balance.json")),
    }

    (trades, positions, holdings, funds), asked = ask(instruments, replies, call)

    assert [trade.trade_id for trade in trades] == ["9001177"]
    assert [position.quantity for position in positions] == [-1050, 0]
    assert [holding.symbol for holding in holdings] == ["SBIN", "INE000X00001"]
    assert funds.available == Decimal("7499.50")
    assert asked[1].query == {"dayOrNet": "NetWise"}


@pytest.mark.parametrize("book", ["order_book", "trade_book", "positions"])
@pytest.mark.parametrize(("count", "beside"), [(1, False), (400, True)])
def test_a_big_book_is_read_beside_the_loop_that_all_feeds_share(instruments, rest_order, socket_trade, book, count, beside):  # fmt: skip  # noqa: PLR0917 - fixtures
    class Watched:
        def by_token(self, segment, token):
            readers.add(threading.get_ident())
            return instruments.by_token(segment, token)

    readers: set[int] = set()
    held = load("rest_positions.json")["result"]["positionList"][:1]
    replies = {
        ("GET", "/interactive/orders"): success([rest_order] * count),
        ("GET", "/interactive/orders/trades"): success([socket_trade] * count),
        ("GET", "/interactive/portfolio/positions"): success({"positionList": held * count}),
    }

    rows, _ = ask(Watched(), replies, lambda adapter: getattr(adapter, book)())

    assert len(rows) == count
    assert (readers.isdisjoint({threading.get_ident()}), len(readers)) == (beside, 1)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (error("e-session-0005", "session invalid"), SessionExpiredError),
        (error("e-session-0007", "Invalid Token"), SessionExpiredError),
        (error("e-token-0002", "Please Provide token to Authenticate"), SessionExpiredError),
        (error("", "Invalid Token"), SessionExpiredError),
        (Reply(status=401, body={"type": "error"}), SessionExpiredError),
        (error("e-trade-00002", "Supplied client not mapped under dealer"), PermissionRefusedError),
        (error("e-x", "no", status=403), PermissionRefusedError),
        (error("e-apirl-0004", "Rate Limit", status=429), RateLimitedError),
        (Reply(status=404, body="<html>nginx</html>"), BrokerUnreachableError),
        (Reply(status=500, body="<html>oops</html>"), BrokerUnreachableError),
        (error("e-y", "boom", status=500), BrokerUnreachableError),
        (error("e-y", "strange"), ProtocolViolationError),
        (success({"a": 1}), ProtocolViolationError),
    ],
)
def test_a_failed_read_says_whose_fault_it_is(instruments, reply, expected):
    with pytest.raises(expected):
        ask(instruments, {("GET", "/interactive/orders"): reply}, lambda adapter: adapter.order_book())


@pytest.mark.parametrize("odd", [{"AppOrderID": 1}, 1, None, []])
def test_an_odd_row_of_a_book_leaves_the_others(instruments, rest_order, socket_trade, odd):
    async def call(adapter):
        return [
            await adapter.order_book(),
            await adapter.order_history(OrderId("1210050001")),
            await adapter.trade_book(),
            await adapter.positions(),
        ]

    held = load("rest_positions.json")["result"]["positionList"]
    replies = {
        ("GET", "/interactive/orders"): success([odd, rest_order]),
        ("GET", "/interactive/orders/trades"): success([odd, socket_trade]),
        ("GET", "/interactive/portfolio/positions"): success({"positionList": [*held, odd]}),
    }

    books, _ = ask(instruments, replies, call)

    assert [len(book) for book in books] == [1, 1, 1, len(held)]
    assert [[json.loads(error.raw) for error in book.odd] for book in books] == [[odd]] * 4


def test_a_book_belongs_to_the_day_on_which_it_was_asked_for(instruments, rest_order):
    class Clock(SystemClock):
        """Six o'clock strikes while the book is on its way."""

        def __init__(self):
            self.moments = [datetime(2026, 8, 18, 0, 29, 59, tzinfo=UTC)]

        def now(self):
            return self.moments.pop() if self.moments else datetime(2026, 8, 18, 0, 30, tzinfo=UTC)

    async def call(adapter):
        adapter.tools = replace(adapter.tools, clock=Clock())
        return await adapter.order_book()

    (update,), _ = ask(instruments, {("GET", "/interactive/orders"): success([rest_order])}, call)

    assert update.trading_date == date(2026, 8, 17)


def test_a_call_that_a_new_login_overtook_is_not_the_end_of_that_login(instruments):
    async def story():
        host = ScriptedXts(answers={("GET", "/interactive/orders"): error("e-session-0005", "replaced")})
        async with desk(host, instruments) as (adapter, _):
            reading = asyncio.create_task(adapter.order_book())
            await asyncio.sleep(0)
            adapter.session = logged_in(host.url, token="NEW")
            await reading

    with pytest.raises(BrokerUnreachableError, match="renewed"):
        run(story())


# --- whose orders -----------------------------------------------------------------------------------------


def test_a_pro_dealer_sends_the_literal_on_every_call_and_knows_its_three_spellings(instruments, rest_order):
    rows = [
        {**rest_order, "ClientID": client, "AppOrderID": n}
        for n, client in enumerate(("*****", "Pro", "PRO077", "JD001"), 1)
    ]

    updates, (asked,) = ask(
        instruments,
        {("GET", "/interactive/orders"): success(rows)},
        lambda adapter: adapter.order_book(),
        credentials={"client_id": "*****", "login_kind": "pro"},
    )

    assert asked.query == {"clientID": "*****"}
    assert [update.order_id for update in updates] == ["1", "2", "3"]


def test_a_dealer_sees_its_clients_orders_and_nobody_elses(instruments, rest_order):
    rows = [
        {**rest_order, "ClientID": client, "AppOrderID": n}
        for n, client in enumerate(("JD001", "JD002", "jd001"), 1)
    ]

    updates, (asked,) = ask(
        instruments,
        {("GET", "/interactive/orders/dealerorderbook"): success(rows)},
        lambda adapter: adapter.order_book(),
        credentials={"client_id": "JD001"},
        addresses={"books": "dealer"},
    )

    assert asked.query == {"clientID": "JD001"}
    assert [update.order_id for update in updates] == ["1", "3"]


# --- ordering ---------------------------------------------------------------------------------------------

BUY = OrderRequest(
    symbol="SBIN",
    exchange="NSE",
    side="BUY",
    quantity=10,
    order_type="LIMIT",
    price=Decimal("810.5"),
    tag="ow1",
)


def test_an_order_is_placed_modified_and_cancelled(instruments):
    async def call(adapter):
        change = ModifyRequest(
            order_id=OrderId("77"), quantity=5, order_type="LIMIT", product="MIS", price=Decimal(811)
        )
        return (
            await adapter.place_order(BUY),
            await adapter.modify_order(change),
            await adapter.cancel_order(OrderId("77")),
        )

    sent = {"AppOrderID": 77, "ClientID": "*****"}
    replies = {
        ("POST", "/interactive/orders"): success(sent),
        ("PUT", "/interactive/orders"): success(sent),
        ("DELETE", "/interactive/orders"): success([sent]),
    }

    ids, (place, modify, cancel) = ask(instruments, replies, call, credentials={"client_id": "*****"})

    assert ids == ("77", "77", "77")
    assert (place.body["exchangeInstrumentID"], place.body["limitPrice"]) == (3045, 810.5)
    assert place.body["clientID"] == modify.body["clientID"] == cancel.query["clientID"] == "*****"
    assert modify.body["modifiedLimitPrice"] == 811
    assert cancel.query["appOrderID"] == "77"


JOI = {
    "status": 400,
    "statusText": "Bad Request",
    "errors": [{"field": ["orderSide"], "messages": ['"orderSide" must be one of [BUY, SELL]']}],
}


def test_a_refused_order_repeats_the_brokers_own_words(instruments):
    reply = error("e-property-validation-failed", "Bad Request", result=JOI)

    with pytest.raises(OrderRefusedError, match="must be one of") as caught:
        ask(instruments, {("POST", "/interactive/orders"): reply}, lambda adapter: adapter.place_order(BUY))

    assert caught.value.code == "e-property-validation-failed"


@pytest.mark.parametrize(
    ("reply", "sent"),
    [
        (Reply(status=500, body="<html>oops</html>"), True),
        (Reply(status=502, body={"type": "error"}), True),
        (Reply(status=404, body="<html>nginx</html>"), False),
        (Reply(status=200, body="<html>hello</html>"), True),
        (success({}), True),
    ],
)
def test_an_answer_that_does_not_say_what_became_of_the_order(instruments, reply, sent):
    with pytest.raises(BrokerUnreachableError) as caught:
        ask(instruments, {("POST", "/interactive/orders"): reply}, lambda adapter: adapter.place_order(BUY))

    assert caught.value.sent is sent


@pytest.mark.parametrize(("exchange", "symbol"), [("NSE", "NOSUCH"), ("BSE_INDEX", "SENSEX")])
def test_what_cannot_be_traded_is_refused_before_it_is_sent(instruments, exchange, symbol):
    request = OrderRequest(symbol=symbol, exchange=exchange, side="BUY", quantity=1)

    with pytest.raises(InvalidRequestError) as caught:
        ask(instruments, {}, lambda adapter: adapter.place_order(request))

    assert list(caught.value.problems) == ["symbol"]


# --- instruments ------------------------------------------------------------------------------------------

MARKET = "/apibinarymarketdata"


def test_the_instrument_list_is_loaded_without_a_token(instruments):
    replies = {
        ("POST", f"{MARKET}/instruments/master"): success((DATA / "master.txt").read_text() + "damaged"),
        ("GET", f"{MARKET}/instruments/indexlist"): success({"indexList": ["NIFTY 50_26000"]}),
    }

    async def call(adapter):
        return await adapter.instruments_of_the_day(), adapter.master_count

    (found, counted), asked = ask(instruments, replies, call)

    assert (counted.skipped, counted.rejected) == ({"spread": 1, "spot": 1}, {"too few columns": 1})
    assert {("NSE", "SBIN"), ("NFO", "NIFTY25AUG2624400CE"), ("NSE_INDEX", "NIFTY")} <= {
        (instrument.exchange, instrument.symbol) for instrument in found
    }
    assert asked[0].body == {"exchangeSegmentList": ["NSECM", "NSEFO", "BSECM", "BSEFO"]}
    assert [(call.query, call.token) for call in asked[1:]] == [
        ({"exchangeSegment": "11"}, ""),
        ({"exchangeSegment": "1"}, ""),
    ]


def test_market_data_keys_open_a_list_that_wants_a_token(instruments):
    replies = {
        ("POST", f"{MARKET}/auth/login"): login_answer(token="MARKET"),
        ("GET", f"{MARKET}/instruments/indexlist"): success({"indexList": []}),
        ("POST", f"{MARKET}/instruments/master"): lambda asked: (
            success("") if asked.token else error("e-token-0001", "no", status=401)
        ),
    }

    _, asked = ask(
        instruments,
        replies,
        lambda adapter: adapter.instruments_of_the_day(),
        credentials={"market_app_key": "mk", "market_secret_key": "ms"},
    )

    calls = [(call.path.rpartition("/")[2], call.token) for call in asked]
    assert calls[:3] == [("master", ""), ("login", ""), ("master", "MARKET")]
    assert asked[1].body == {"appKey": "mk", "secretKey": "ms", "source": "WEBAPI"}


def test_a_list_that_is_refused_says_which_keys_are_missing(instruments):
    reply = error("e-token-0002", "Please Provide token", status=400)

    with pytest.raises(PermissionRefusedError, match="market_app_key"):
        ask(
            instruments,
            {("POST", f"{MARKET}/instruments/master"): reply},
            lambda adapter: adapter.instruments_of_the_day(),
        )


# --- the stream -------------------------------------------------------------------------------------------


def hear(instruments, talk, *, enough=lambda seen: seen.published, **options):
    """Let the host talk until it is enough; return what was seen: adapter, published, host."""

    async def story():
        host = ScriptedXts(talk=talk)
        async with desk(host, instruments, **options) as (adapter, published), listening(adapter):
            seen = SimpleNamespace(adapter=adapter, published=published, host=host)
            await until(lambda: enough(seen))
            return adapter, published, host

    return run(story())


def end_of(instruments, talk=stay_connected, *, prepare=None, **options):
    """Let the stream end; return the error it ended with, the adapter and the host."""

    async def story():
        host = ScriptedXts(talk=talk)
        async with desk(host, instruments, **options) as (adapter, _):
            if prepare is not None:
                prepare(host, adapter)
            try:
                await adapter.listen()
            except Exception as error_:  # noqa: BLE001 - the test looks at whatever it is
                return error_, adapter, host
        raise AssertionError("listen returned")

    return run(story())


def test_an_order_event_is_published(instruments, socket_order):
    async def talk(line):
        await welcome(line)
        await line.event("order", socket_order)
        await line.stay()

    before = time.time_ns()
    adapter, published, host = hear(instruments, talk)

    (update,) = published.of(EventType.ORDER_UPDATE)
    assert (update.order_id, update.channel, update.status) == (
        "1110044001",
        Channel.STREAM,
        OrderStatus.PENDING_NEW,
    )
    assert update.received_ns >= before
    assert json.loads(update.raw) == socket_order
    assert adapter.heard_at > 0
    asked = host.asked[0]
    assert asked.path == "/interactive/socket.io/"
    assert asked.query == {
        "EIO": "3",
        "transport": "websocket",
        "token": TOKEN,
        "userID": "JN0042",
        "apiType": "INTERACTIVE",
    }


def test_the_client_sends_pings_and_nothing_else(instruments):
    _, _, host = hear(
        instruments,
        stay_connected,
        enough=lambda seen: seen.host.lines and len(seen.host.lines[0].heard) >= 3,
    )

    assert set(host.lines[0].heard) == {"2"}


@pytest.mark.parametrize("argument", [{"MessageCode": 9007, "Status": "PositionConverted"}, "nonsense"])
def test_a_conversion_has_the_positions_read(instruments, argument):
    async def talk(line):
        await welcome(line)
        await line.event("tradeConversion", argument)
        await line.stay()

    async def story():
        told = []
        async with desk(ScriptedXts(talk=talk), instruments) as (adapter, published):
            adapter.on_positions_moved = lambda: told.append("moved")
            async with listening(adapter):
                await until(lambda: told)
            return told, published, adapter.violations

    told, published, violations = run(story())

    assert (told, len(published), violations) == (["moved"], 0, 0)


def test_a_trade_event_gives_the_order_and_the_execution(instruments, socket_trade):
    async def talk(line):
        await welcome(line)
        await line.event("trade", socket_trade)
        await line.stay()

    _, published, _ = hear(instruments, talk, enough=lambda seen: len(seen.published) == 2)

    assert [event.type for event in published] == [EventType.ORDER_UPDATE, EventType.TRADE_UPDATE]
    assert published.of(EventType.ORDER_UPDATE)[0].filled_quantity == 65


def test_of_the_two_positions_only_the_net_one_is_published(instruments):
    async def talk(line):
        await welcome(line)
        for kind in ("DayWise", "NetWise"):
            await line.event("position", {**load("socket_position.json"), "IsDayWiseNetWise": kind})
        await line.stay()

    _, published, _ = hear(instruments, talk)

    assert [position.quantity for position in published.of(EventType.POSITION_UPDATE)] == [-30]


def test_objects_instead_of_texts_and_unknown_events_are_taken_calmly(instruments, socket_order):
    async def talk(line):
        await welcome(line)
        await line.event("marketStatusUpdate", {"x": 1})
        await line.event("newsOfTheDay", "x")
        await line.event("order", socket_order, as_text=False)
        await line.stay()

    adapter, published, _ = hear(instruments, talk)

    assert len(published.of(EventType.ORDER_UPDATE)) == 1
    assert adapter.violations == 0
    assert adapter.events == {"joined": 1, "marketStatusUpdate": 1, "other": 1, "order": 1}


def test_a_dealers_other_clients_are_left_out_and_counted(instruments, socket_order):
    async def talk(line):
        await welcome(line)
        await line.event("order", {**socket_order, "ClientID": "JD002"})
        await line.event("order", {**socket_order, "ClientID": "JD001"})
        await line.stay()

    adapter, published, _ = hear(instruments, talk, credentials={"client_id": "JD001"})

    assert len(published) == 1
    assert adapter.foreign == 1


def test_a_dealers_event_that_names_no_client_is_nobodys(instruments, socket_order):
    nameless = {name: value for name, value in socket_order.items() if name != "ClientID"}

    async def talk(line):
        await welcome(line)
        await line.event("order", nameless)
        await line.event("order", {**socket_order, "ClientID": "JD001"})
        await line.stay()

    adapter, published, _ = hear(instruments, talk, credentials={"client_id": "JD001"})

    assert len(published) == 1
    assert adapter.violations == 1


def test_an_unreadable_event_is_counted_and_the_stream_goes_on(instruments, socket_order):
    async def talk(line):
        await welcome(line)
        await line.say("42{bad", '42["order","not json"]', '42["order"]')
        await line.event("order", {**socket_order, "OrderQuantity": "many"})
        await line.event("order", socket_order)
        await line.stay()

    adapter, published, _ = hear(instruments, talk)

    assert adapter.violations == 4
    assert len(published) == 1


def test_ten_unreadable_events_in_a_row_end_the_stream(instruments):
    async def talk(line):
        await welcome(line)
        for _ in range(10):
            await line.event("order", "not json")
        await line.stay()

    ended, adapter, _ = end_of(instruments, talk)

    assert isinstance(ended, ProtocolViolationError)
    assert adapter.violations == 10


def test_listening_is_true_between_the_join_and_the_end(instruments):
    told = []

    async def talk(line):
        await line.say(OPEN)
        await line.say("40", "41")
        await line.deaf()

    ended, adapter, _ = end_of(
        instruments, talk, prepare=lambda _, adapter: setattr(adapter, "on_listening", told.append)
    )

    assert told == [True, False]
    assert isinstance(ended, BrokerUnreachableError)
    assert not adapter.listening


def test_a_half_open_stream_is_noticed_by_its_own_pings(instruments):
    async def talk(line):
        await welcome(line)
        await line.deaf()

    def prepare(_, adapter):
        adapter.timers = Timers(ping_every=0.05, answer_within=0.15)

    ended, _, host = end_of(instruments, talk, prepare=prepare)

    assert isinstance(ended, BrokerUnreachableError)
    assert "ping was not answered" in str(ended)
    assert host.lines[0].heard[0] == "2"


def test_cancelling_closes_the_connection_within_a_second(instruments, gate):
    async def story():
        host = ScriptedXts()
        async with desk(host, instruments) as (adapter, _), listening(adapter) as task:
            await until(lambda: adapter.listening)
            began = time.monotonic()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return time.monotonic() - began, adapter.listening

    seconds, still = run(story())

    gate("XTS stream cancelled → closed", seconds, most=1)
    assert not still


def test_the_socket_of_a_path_less_connection_is_at_the_root(instruments):
    def prepare(host, adapter):
        adapter.session = BrokerSession(
            user_id="U", secrets={"token": TOKEN}, facts={"base": host.url, "investor": "yes"}
        )

    async def talk(line):
        await line.say(OPEN, "41")
        await line.deaf()

    _, _, host = end_of(instruments, talk, prepare=prepare)

    assert host.asked[0].path == "/socket.io/"


# --- endings ----------------------------------------------------------------------------------------------


async def evict(line):
    await welcome(line)
    await line.event("logout", "You have been logged out by another user.")
    await line.stay()  # a real host leaves the socket open and dead


def answer_balance(reply):
    return lambda host, _: host.answers.update({("GET", "/interactive/user/balance"): reply})


@pytest.mark.parametrize(
    ("talk", "balance", "expected"),
    [
        (evict, error("e-session-0005", "replaced"), SessionExpiredError),
        (evict, ALIVE, BrokerUnreachableError),
        (evict, success([]), BrokerUnreachableError),
    ],
)
def test_after_a_logout_rest_says_whether_the_token_lives(instruments, talk, balance, expected):
    ended, _, host = end_of(instruments, talk, prepare=answer_balance(balance))

    assert type(ended) is expected
    assert len(host.calls("/interactive/user/balance")) == 1


def test_a_stream_of_an_older_login_ends_even_if_the_server_never_says_so(instruments):
    async def story():
        host = ScriptedXts(talk=stay_connected)
        async with desk(host, instruments) as (adapter, _):
            task = asyncio.create_task(adapter.listen())
            await until(lambda: adapter.listening)
            adapter.session = logged_in(host.url, token="NEW")
            with pytest.raises(BrokerUnreachableError, match="older login"):
                await task
            return host

    assert not run(story()).calls("/interactive/user/balance")


def test_a_logout_after_a_renewal_reconnects_with_the_current_token(instruments):
    async def talk(line):
        await welcome(line)
        await line.hear()
        await line.event("logout", "You have been logged out by another user.")
        await line.stay()

    async def story():
        host = ScriptedXts(talk=talk)
        async with desk(host, instruments) as (adapter, _):
            task = asyncio.create_task(adapter.listen())
            await until(lambda: adapter.listening)
            adapter.session = logged_in(host.url, token="NEW")
            with pytest.raises(BrokerUnreachableError, match="older login"):
                await task
            host.talk = stay_connected
            async with listening(adapter):
                await until(lambda: len(host.lines) == 2)
            return host

    host = run(story())

    assert [line.query["token"] for line in host.lines] == [TOKEN, "NEW"]
    assert not host.calls("/interactive/user/balance")


@pytest.mark.parametrize("words", ['44"Invalid Token"', '44{"message":"e-session-0005"}'])
def test_a_refusal_that_names_the_token_ends_the_login(instruments, words):
    async def talk(line):
        await line.say(OPEN, words)
        await line.deaf()

    ended, adapter, _ = end_of(instruments, talk)

    assert type(ended) is SessionExpiredError
    assert adapter.failures == 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (error("e-session-0005", "gone"), SessionExpiredError),
        (Reply(status=200, body={"x": "Invalid Token"}), SessionExpiredError),
        (Reply(status=401, body="<html>no</html>"), SessionExpiredError),
        (Reply(status=403, body={"code": 4, "message": "Forbidden"}), BrokerUnreachableError),
        (Reply(status=400, body={"code": 0, "message": "Transport unknown"}), BrokerUnreachableError),
        (Reply(status=502, body="<html>session expired</html>"), BrokerUnreachableError),
    ],
)
def test_a_handshake_refused_over_http(instruments, reply, expected):
    def prepare(host, adapter):
        host.handshake = reply
        dead = error("e-session-0005", "gone")
        host.answers["GET", "/interactive/user/balance"] = dead if reply.status == 401 else ALIVE

    ended, _, _ = end_of(instruments, prepare=prepare)

    assert type(ended) is expected


def test_an_error_event_that_tells_of_the_session_asks_rest(instruments):
    async def talk(line):
        await welcome(line)
        await line.event("warning", "market closes soon")
        await line.event("error", "Your session has been expired")
        await line.stay()

    ended, _, _ = end_of(instruments, talk, prepare=answer_balance(error("e-session-0005", "gone")))

    assert type(ended) is SessionExpiredError


def test_a_host_that_is_down_is_no_reason_to_change_the_revision(instruments):
    def prepare(host, adapter):
        adapter.session = BrokerSession(
            user_id="U",
            secrets={"token": TOKEN},
            facts={"base": "http://127.0.0.1:1/interactive", "investor": "yes"},
        )

    ended, adapter, _ = end_of(instruments, prepare=prepare)

    assert type(ended) is BrokerUnreachableError
    assert adapter.failures == 0


def secrets_in(error_):
    chain, texts = [error_], []
    while chain:
        link = chain.pop()
        texts += ["".join(traceback.format_exception(link)), repr(link.__dict__), repr(link.args)]
        chain += [other for other in (link.__cause__, link.__context__) if other is not None]
    return TOKEN in "".join(texts)


@pytest.mark.parametrize(
    "handshake",
    [
        Reply(status=400, body="no"),
        Reply(status=302, body="moved"),
        Reply(status=401, body="no"),
        Reply(status=500, body="no"),
        None,
    ],
)
@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_neither_error_nor_log_carries_the_token(instruments, caplog, handshake, transport):
    caplog.set_level(logging.DEBUG)

    def prepare(host, adapter):
        host.handshake = handshake
        host.polls = [b"nonsense"]
        if handshake is None:
            adapter.session = BrokerSession(
                user_id="U",
                secrets={"token": TOKEN},
                facts={"base": "http://127.0.0.1:1/interactive", "investor": "yes"},
            )

    ended, _, _ = end_of(instruments, prepare=prepare, addresses={"transport": transport})

    assert not secrets_in(ended)
    assert TOKEN not in caplog.text


@pytest.fixture(scope="session")
def self_signed(tmp_path_factory):
    """A TLS host whose certificate nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    day = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = (
        built.serial_number(1)
        .not_valid_before(day - timedelta(days=1))
        .not_valid_after(day + timedelta(days=1))
    )
    certificate = built.add_extension(address, critical=False).sign(key, hashes.SHA256())
    file = tmp_path_factory.mktemp("tls") / "host.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.mark.parametrize("call", ["listen", "order_book"])
def test_a_certificate_nobody_vouches_for_is_refused(instruments, self_signed, call):
    async def story():
        async with (
            serving(ScriptedXts(), tls=self_signed) as host,
            adapter_of(DeskXts, profile_at(host.url), instruments=instruments) as (adapter, _),
        ):
            adapter.session = logged_in(host.url)
            with pytest.raises(BrokerUnreachableError) as caught:
                await getattr(adapter, call)()
            return caught.value, host.asked

    refused, asked = run(story())

    assert asked == []
    assert not secrets_in(refused)


@pytest.mark.parametrize("call", ["listen", "order_book"])
def test_a_kept_login_does_not_outlive_the_consent_to_plain_text(instruments, call):
    adapter = make()
    adapter.session = logged_in("http://jainam.example:4202")

    with pytest.raises(PermissionRefusedError, match="not encrypted"):
        run(getattr(adapter, call)())


# --- anything at all --------------------------------------------------------------------------------------


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["order", "trade", "position", "joined", "error", "logout", "x", ""]),
            st.lists(
                st.none()
                | st.integers()
                | st.text(max_size=20)
                | st.dictionaries(st.sampled_from(["ClientID", "AppOrderID", "OrderStatus"]), st.integers()),
                max_size=2,
            ),
        ),
        max_size=12,
    )
)
def test_no_event_breaks_the_adapter(events):
    adapter = make(instruments=InstrumentTable())
    adapter.session = logged_in("https://h")
    link = adapter_module._Link(session=adapter.session, clients=adapter._clients(), revision=3)

    for name, arguments in events:
        end = adapter._act([Received(name=name, arguments=tuple(arguments))], link)
        if end is not None:
            assert end.doubted or end.how is Ending.MALFORMED
            return


# --- revisions and transports -----------------------------------------------------------------------------


def test_a_failed_first_handshake_tries_the_other_revision_and_remembers_what_works(instruments):
    async def only_4(line):
        if line.query["EIO"] == "3":
            return
        await line.say(OPEN_4)
        assert await line.hear() == "40"
        await line.say('40{"sid":"x"}', JOINED)
        await line.stay()

    async def story():
        host = ScriptedXts(talk=only_4)
        async with desk(host, instruments) as (adapter, _):
            with pytest.raises(BrokerUnreachableError):
                await adapter.listen()
            for _ in range(2):
                async with listening(adapter):
                    await until(lambda: adapter.listening)
            return [line.query["EIO"] for line in host.lines], adapter.winner

    assert run(story()) == (["3", "4", "4"], 4)


def test_polling_first_then_an_upgrade(instruments, socket_order):
    async def talk(line):
        assert line.query["sid"] == "S1"
        assert await line.hear() == "2probe"
        await line.say("3probe")
        assert await line.hear() == "5"
        await line.event("order", socket_order)
        await line.stay()

    async def story():
        host = ScriptedXts(talk=talk, polls=[write_payload([OPEN, "40"], revision=3)])
        polling = {"transport": "polling"}
        async with desk(host, instruments, addresses=polling) as (adapter, published), listening(adapter):
            await until(lambda: published)
            return [asked.query["transport"] for asked in host.asked], published

    transports, published = run(story())

    assert transports == ["polling", "websocket"]
    assert len(published.of(EventType.ORDER_UPDATE)) == 1


def test_a_server_without_upgrade_is_named(instruments):
    def prepare(host, adapter):
        host.polls = [write_payload([OPEN.replace("websocket", "")], revision=3)]

    ended, _, _ = end_of(instruments, prepare=prepare, addresses={"transport": "polling"})

    assert "no upgrade" in str(ended)
