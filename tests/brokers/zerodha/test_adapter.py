from __future__ import annotations

import asyncio
import json
import logging
import threading
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from msgspec.structs import replace
from websockets.asyncio.server import serve

from brokers.wire import FakeClock, answer, self_signed, wire
from orderwire.brokers.adapter import AccountProfile, AdapterTools, BrokerSession, PostbackRequest
from orderwire.brokers.http import BrokerHttp, open_client
from orderwire.brokers.zerodha.adapter import ZerodhaAdapter
from orderwire.brokers.zerodha.instruments import read_instruments
from orderwire.brokers.zerodha.messages import session_checksum
from orderwire.core.events import EventType
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import (
    IST,
    AccountId,
    Channel,
    ModifyRequest,
    OrderId,
    OrderRequest,
    OrderStatus,
)
from orderwire.errors import (
    BrokerError,
    BrokerUnreachableError,
    ConfigurationError,
    InvalidRequestError,
    OrderRefusedError,
    PermissionRefusedError,
    ProtocolViolationError,
    RateLimitedError,
    SessionExpiredError,
)

DATA = Path(__file__).resolve().parents[2] / "data" / "kite"
TABLE = InstrumentTable(read_instruments((DATA / "instruments.csv").read_bytes()).instruments)
SECRET, TOKEN = "very-secret-key", "very-secret-token"
CREDENTIALS = {"api_key": "demokey1", "api_secret": SECRET}
FRAME = (DATA / "stream_order.json").read_text()


class Recorder:
    def __init__(self):
        self.events = []
        self.came = asyncio.Event()

    def put(self, event):
        self.events.append(event)
        self.came.set()


def adapter_for(
    addresses, *, http=None, publisher=None, session=True, clock=None, instruments=TABLE, **profile
):
    facts = {"account": AccountId("acc"), "credentials": CREDENTIALS, "addresses": addresses, **profile}
    tools = AdapterTools(http=http, instruments=instruments, clock=clock or FakeClock(), publisher=publisher)
    adapter = ZerodhaAdapter(AccountProfile(**facts), tools)
    if session:
        adapter.session = BrokerSession(user_id="OW1234", secrets={"access_token": TOKEN})
    return adapter


@asynccontextmanager
async def rest(*script, **facts):
    clock = FakeClock()
    async with wire(*script) as served, open_client() as client:
        http = BrokerHttp(client, clock=clock, budgets=ZerodhaAdapter.budgets, sleep=clock.sleep)
        yield adapter_for({"api": served.root}, http=http, clock=clock, **facts), served


def talk(story, *script, **facts):
    """Run one call against scripted replies; return its result and the requests that were sent."""

    async def run():
        async with rest(*script, **facts) as (adapter, served):
            return await story(adapter), served.requests

    return asyncio.run(run())


def file(name):
    return answer((DATA / name).read_bytes(), headers="Content-Type: application/json\r\n")


def error(error_type, message="no", status="400 Bad Request"):
    body = json.dumps({"status": "error", "message": message, "error_type": error_type})
    return answer(body.encode(), status=status, headers="Content-Type: application/json\r\n")


def form(request):
    return {name: values[0] for name, values in parse_qs(request.body.decode()).items()}


LIMIT = OrderRequest(
    symbol="SBIN",
    exchange="NSE",
    side="BUY",
    quantity=10,
    order_type="LIMIT",
    price=Decimal("812.3"),
    tag="OWAAAABBBBCCCC22",
)


# --- the account ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["api_key", "api_secret"])
def test_a_missing_credential_is_named(missing):
    with pytest.raises(ConfigurationError, match=missing):
        adapter_for({}, credentials={**CREDENTIALS, missing: ""})


@pytest.mark.parametrize("address", ["http://kite.example", "ws://kite.example", "kite.example"])
@pytest.mark.parametrize("name", ["api", "stream", "login"])
def test_no_address_off_the_loopback_is_plain_text(name, address):
    with pytest.raises(ConfigurationError, match="not encrypted"):
        adapter_for({name: address})

    assert adapter_for({name: address}, allow_plaintext=True)


def test_the_addresses_are_zerodhas_unless_configured():
    assert adapter_for({}).login_url() == "https://kite.zerodha.com/connect/login?v=3&api_key=demokey1"


def test_the_login_page_brings_our_state_back():
    url = adapter_for({"login": "http://127.0.0.1:8101/connect/login"}).login_url(state="a&b=c")

    query = parse_qs(urlsplit(url).query)
    assert url.startswith("http://127.0.0.1:8101/connect/login?")
    assert parse_qs(query["redirect_params"][0]) == {"state": ["a&b=c"]}


def test_a_login_exchanges_the_request_token():
    session, (request,) = talk(
        lambda a: a.login({"request_token": "rt"}), file("session.json"), session=False
    )

    assert request.line == "POST /session/token HTTP/1.1"
    assert form(request) == {
        "api_key": "demokey1",
        "request_token": "rt",
        "checksum": session_checksum(api_key="demokey1", request_token="rt", api_secret=SECRET),
    }
    assert "authorization" not in request.headers
    assert request.headers["x-kite-version"] == "3"
    assert (session.user_id, session.secrets) == ("OW1234", {"access_token": "not-a-real-token"})
    assert session.expires_at == datetime(2026, 8, 18, 6, 0, tzinfo=IST)


def test_a_login_of_another_client_is_refused():
    credentials = {**CREDENTIALS, "user_id": "AB0001"}

    with pytest.raises(
        SessionExpiredError, match="logged in to Zerodha as OW1234, but this account is AB0001"
    ):
        talk(lambda a: a.login({"request_token": "rt"}), file("session.json"), credentials=credentials)


@pytest.mark.parametrize(
    ("grant", "reply", "failure"),
    [
        ({}, file("session.json"), SessionExpiredError),
        ({"request_token": ""}, file("session.json"), SessionExpiredError),
        (
            {"request_token": "x"},
            error("TokenException", "Token is invalid or has expired."),
            SessionExpiredError,
        ),
        (
            {"request_token": "x"},
            error("TokenException", "Invalid `checksum`.", "403 No"),
            SessionExpiredError,
        ),
        (
            {"request_token": "x"},
            error("InputException", "Missing or invalid field `api_key`."),
            SessionExpiredError,
        ),
        ({"request_token": "x"}, error("NetworkException", "oms", "503 Down"), BrokerUnreachableError),
        ({"request_token": "x"}, answer(b"{}"), ProtocolViolationError),
    ],
)
def test_a_login_that_fails_says_whether_to_log_in_again(grant, reply, failure):
    with pytest.raises(failure) as caught:
        talk(lambda a: a.login(grant), reply)

    assert type(caught.value) is failure
    assert SECRET not in str(caught.value)


def test_logging_out_ends_the_token():
    _, (request,) = talk(lambda a: a.logout(), answer(b'{"status":"success","data":true}'))

    assert request.line == f"DELETE /session/token?api_key=demokey1&access_token={TOKEN} HTTP/1.1"


# --- orders -----------------------------------------------------------------------------------------------


def test_a_placement_is_sent_once_and_signed():
    order_id, (request,) = talk(lambda a: a.place_order(LIMIT), file("placed.json"))

    assert order_id == "1957000000000000001"
    assert request.line == "POST /orders/regular HTTP/1.1"
    assert request.headers["authorization"] == f"token demokey1:{TOKEN}"
    assert form(request)["tag"] == "OWAAAABBBBCCCC22"


def test_an_autosliced_order_is_known_by_its_parent():
    order_id, _ = talk(lambda a: a.place_order(LIMIT), file("autoslice_object.json"))

    assert order_id == "1957000000000000000"


@pytest.mark.parametrize(("symbol", "exchange"), [("SBI", "NSE"), ("NIFTY", "NSE_INDEX")])
def test_what_cannot_be_traded_is_not_sent(symbol, exchange):
    async def story():
        async with rest(file("placed.json")) as (adapter, served):
            with pytest.raises(InvalidRequestError) as caught:
                await adapter.place_order(replace(LIMIT, symbol=symbol, exchange=exchange))
            return caught.value.problems, served.requests

    problems, requests = asyncio.run(story())

    assert list(problems) == ["symbol"]
    assert requests == []


@pytest.mark.parametrize(
    ("reply", "failure", "sent"),
    [
        (error("MarginException", "Insufficient funds."), OrderRefusedError, None),
        (error("InputException"), OrderRefusedError, None),
        (
            error("PermissionException", "No IPs configured for this app.", "403 No"),
            PermissionRefusedError,
            None,
        ),
        (error("TokenException", "Incorrect", "403 No"), SessionExpiredError, None),
        (error("NetworkException", "Too many requests", "429 Slow"), RateLimitedError, False),
        (error("NetworkException", "oms", "503 Down"), BrokerUnreachableError, True),
        (error("OrderException", "oms", "500 Oops"), BrokerUnreachableError, True),
        (answer(b"<html>", status="502 Bad"), BrokerUnreachableError, True),
        (answer(b"<html>"), ProtocolViolationError, None),
        (answer(b'{"status":"success","data":{}}'), ProtocolViolationError, None),
    ],
)
def test_a_placement_that_fails_is_never_repeated(reply, failure, sent):
    async def story():
        async with rest(reply) as (adapter, served):
            with pytest.raises(failure) as caught:
                await adapter.place_order(LIMIT)
            return caught.value, len(served.requests)

    caught, requests = asyncio.run(story())

    assert (type(caught), getattr(caught, "sent", None), requests) == (failure, sent, 1)


def test_an_order_never_waits_much_longer_than_a_second_for_its_budget():
    async def story():
        async with rest(file("placed.json")) as (adapter, served):
            for _ in range(400):
                await adapter.place_order(LIMIT)
            with pytest.raises(RateLimitedError) as caught:
                await adapter.place_order(LIMIT)
            return len(served.requests), adapter.tools.clock.slept, caught.value.sent

    requests, slept, sent = asyncio.run(story())

    assert (requests, sent) == (400, False)
    assert 1.0 < max(slept) <= 1.1


def held(variety="regular", status="OPEN", **facts):
    raw = json.dumps({"order_id": "7", "status": status, "variety": variety}).encode()
    book, _ = talk(lambda a: a.order_book(), answer(b'{"status":"success","data":[' + raw + b"]}"))
    return replace(book[0], **facts)


@pytest.mark.parametrize(
    ("current", "path"),
    [
        (None, "/orders/regular/7"),
        (held("iceberg"), "/orders/iceberg/7"),
        (held("amo", "AMO REQ RECEIVED"), "/orders/amo/7"),
        (held("amo", "OPEN"), "/orders/regular/7"),
        (held("iceberg", parent_order_id="6"), "/orders/iceberg/7"),
        (held("co", parent_order_id="6"), "/orders/co/7?parent_order_id=6"),
    ],
)
def test_a_cancellation_names_variety_and_id(current, path):
    order_id, (request,) = talk(lambda a: a.cancel_order(OrderId("7"), current=current), file("placed.json"))

    assert request.line == f"DELETE {path} HTTP/1.1"
    assert order_id == "1957000000000000001"


def test_a_modification_carries_the_new_terms():
    change = ModifyRequest(
        order_id=OrderId("7"), quantity=3, order_type="LIMIT", product="MIS", price=Decimal("812.35")
    )

    current = held()

    _, (request,) = talk(lambda a: a.modify_order(change, current=current), file("placed.json"))

    assert request.line == "PUT /orders/regular/7 HTTP/1.1"
    assert form(request) == {"order_type": "LIMIT", "quantity": "3", "validity": "DAY", "price": "812.35"}


def test_an_order_id_cannot_lead_elsewhere():
    _, (request,) = talk(lambda a: a.cancel_order(OrderId("../../session/token?x=")), file("placed.json"))

    assert request.line == "DELETE /orders/regular/..%2F..%2Fsession%2Ftoken%3Fx%3D HTTP/1.1"


# --- books ------------------------------------------------------------------------------------------------


def test_the_book_is_read_as_of_its_session_day():
    book, (request,) = talk(lambda a: a.order_book(), file("orders.json"))

    assert request.line == "GET /orders HTTP/1.1"
    assert len(book) == 13
    assert {row.channel for row in book} == {Channel.REST}
    assert {row.trading_date.isoformat() for row in book} == {"2026-08-17"}
    assert all(row.received_ns for row in book)


def test_a_history_is_read_and_numbered():
    history, (request,) = talk(lambda a: a.order_history(OrderId("260817000000020")), file("history.json"))

    assert request.line == "GET /orders/260817000000020 HTTP/1.1"
    assert [row.history_index for row in history] == list(range(8))
    assert {row.channel for row in history} == {Channel.HISTORY}


def test_an_order_zerodha_does_not_know_has_no_history():
    history, _ = talk(lambda a: a.order_history(OrderId("7")), error("OrderException", "does not exist"))

    assert history == []


@pytest.mark.parametrize(
    ("call", "path", "name", "count"),
    [
        ("trade_book", "/trades", "trades.json", 2),
        ("positions", "/portfolio/positions", "positions.json", 2),
        ("holdings", "/portfolio/holdings", "holdings.json", 1),
    ],
)
def test_the_other_books_are_read(call, path, name, count):
    rows, (request,) = talk(lambda a: getattr(a, call)(), file(name))

    assert (request.line, len(rows)) == (f"GET {path} HTTP/1.1", count)


@pytest.mark.parametrize("book", ["order_book", "order_history", "trade_book"])
@pytest.mark.parametrize(("count", "beside"), [(1, False), (400, True)])
def test_a_big_book_is_read_beside_the_loop_that_all_feeds_share(book, count, beside):
    class Watched:
        def by_broker_symbol(self, exchange, symbol):
            readers.add(threading.get_ident())
            return TABLE.by_broker_symbol(exchange, symbol)

    readers: set[int] = set()
    order = [OrderId("260817000000020")] if book == "order_history" else []
    row = json.loads((DATA / ("trades.json" if book == "trade_book" else "orders.json")).read_text())["data"][
        0
    ]
    body = json.dumps({"status": "success", "data": [row] * count}).encode()
    script = answer(body, headers="Content-Type: application/json\r\n")

    rows, _ = talk(lambda adapter: getattr(adapter, book)(*order), script, instruments=Watched())

    assert len(rows) == count
    assert (readers.isdisjoint({threading.get_ident()}), len(readers)) == (beside, 1)


def test_the_money_is_read():
    funds, (request,) = talk(lambda a: a.funds(), file("margins.json"))

    assert (request.line, funds.available) == ("GET /user/margins HTTP/1.1", Decimal("99825.5"))


def test_without_a_session_nothing_is_sent():
    async def story():
        async with rest(file("orders.json"), session=False) as (adapter, served):
            for call in (
                adapter.order_book(),
                adapter.place_order(LIMIT),
                adapter.listen(),
                adapter.logout(),
            ):
                with pytest.raises(SessionExpiredError, match="Log in"):
                    await call
            return served.requests

    assert asyncio.run(story()) == []


def test_the_instruments_are_downloaded():
    csv = answer((DATA / "instruments.csv").read_bytes(), headers="Content-Type: text/csv\r\n")

    found, (request,) = talk(lambda a: a.instruments_of_the_day(), csv)

    assert request.line == "GET /instruments HTTP/1.1"
    assert len(found) == 19


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (error("TokenException", "Incorrect", "403 No"), SessionExpiredError),
        (answer(b"<html>", status="502 Bad"), BrokerUnreachableError),
        (answer(b"<html>"), ProtocolViolationError),
        (
            answer(b'{"status":"success","data":[]}', headers="Content-Type: application/json\r\n"),
            ProtocolViolationError,
        ),
    ],
)
def test_an_answer_that_is_no_list_of_instruments_is_an_error(reply, failure):
    with pytest.raises(failure):
        talk(lambda a: a.instruments_of_the_day(), reply)


def test_the_time_at_zerodha_is_known_once_it_has_answered():
    async def story():
        reply = answer(b'{"status":"success","data":[]}', headers="Date: Mon, 17 Aug 2026 04:31:00 GMT\r\n")
        async with rest(reply) as (adapter, _):
            before = adapter.broker_now()
            await adapter.order_book()
            return before, adapter.broker_now()

    assert asyncio.run(story()) == (None, datetime(2026, 8, 17, 10, 1, 0, 500_000, tzinfo=IST))


def test_calls_are_counted_by_what_they_are_for():
    async def story():
        async with rest(file("orders.json")) as (adapter, _):
            await adapter.order_book()
            await adapter.order_book()
            return adapter.tools.http.counts()

    assert asyncio.run(story()) == {"order_book": 2}


# --- the stream -------------------------------------------------------------------------------------------


@asynccontextmanager
async def streaming(behave, *, rest_reply=None, silence=5.0, process_request=None, tls=None):
    """A real WebSocket server that behaves as told, and an adapter that is to listen to it."""
    clock, recorder = FakeClock(), Recorder()
    async with (
        wire(rest_reply or file("orders.json")) as served,
        open_client() as client,
        serve(behave, "127.0.0.1", 0, process_request=process_request, ssl=tls, close_timeout=0.1) as server,
    ):
        port = server.sockets[0].getsockname()[1]
        http = BrokerHttp(client, clock=clock, budgets=ZerodhaAdapter.budgets, sleep=clock.sleep)
        addresses = {"api": served.root, "stream": f"ws{'s' if tls else ''}://127.0.0.1:{port}"}
        adapter = adapter_for(addresses, http=http, publisher=recorder, clock=clock)
        adapter.silence = silence
        yield adapter, recorder


def listen(behave, **facts):
    """Listen until it ends; return the error, the adapter and what was published."""

    async def run():
        async with streaming(behave, **facts) as (adapter, recorder):
            told = []
            adapter.on_listening = told.append
            try:
                await adapter.listen()
            except BrokerError as error:
                return error, adapter, recorder.events, told
            raise AssertionError("listen() returned")

    return asyncio.run(run())


def sends(*messages, code=1000):
    async def behave(stream):
        for message in messages:
            await stream.send(message)
        await stream.close(code)

    return behave


def test_order_frames_are_published_and_all_else_is_only_a_sign_of_life():
    noise = (
        b"\x00",
        b"\x00\x01\x00\x08" + bytes(8),
        '{"type":"message","data":"hello"}',
        '{"type":"new","data":1}',
    )

    error, adapter, events, told = listen(sends(*noise, FRAME, *noise))

    assert isinstance(error, BrokerUnreachableError)
    (event,) = events
    assert event.type == EventType.ORDER_UPDATE
    assert (event.data.order_id, event.data.status) == ("260817000000001", OrderStatus.PARTIALLY_FILLED)
    assert (event.data.channel, event.data.tier) == (Channel.STREAM, "B")
    assert told == [True, False]
    assert adapter.violations == 0


def test_the_handshake_carries_key_token_and_version():
    seen = []

    async def behave(stream):
        seen.append((stream.request.path, stream.request.headers["X-Kite-Version"]))
        await stream.send(b"\x00")

    listen(behave)

    assert seen == [(f"/?api_key=demokey1&access_token={TOKEN}", "3")]


def test_nothing_is_ever_sent_to_the_stream():
    heard = []

    async def behave(stream):
        await stream.send(FRAME)
        heard.extend([message async for message in stream])

    listen(behave, silence=0.2)

    assert heard == []


@pytest.mark.parametrize(
    "bad",
    [
        "not json",
        "[]",
        '{"type":"order"}',
        '{"type":"order","data":{"order_id":1}}',
        '{"type":"order","data":' + "[" * 5000,
        '{"type":"error","data":"something"}',
        FRAME.replace("OW1234", "XX9999"),
    ],
)
def test_a_frame_that_cannot_be_read_is_counted_and_harms_nothing(bad):
    error, adapter, events, _ = listen(sends(bad, FRAME))

    assert isinstance(error, BrokerUnreachableError)
    assert adapter.violations == 1
    assert len(events) == 1


def test_a_stream_that_cannot_be_read_any_more_is_given_up():
    error, adapter, events, told = listen(sends(*['{"type":"order","data":{}}'] * 12))

    assert isinstance(error, ProtocolViolationError)
    assert (adapter.violations, events, told) == (10, [], [True, False])


def test_silence_ends_the_stream_within_its_deadline():
    async def behave(stream):
        await stream.wait_closed()

    async def run():
        async with streaming(behave, silence=0.3) as (adapter, _):
            began = asyncio.get_running_loop().time()
            with pytest.raises(BrokerUnreachableError, match=r"silent for 0\.3 s"):
                await adapter.listen()
            return asyncio.get_running_loop().time() - began

    assert 0.3 <= asyncio.run(run()) < 1.2


def test_the_deadline_is_five_seconds_unless_told():
    assert ZerodhaAdapter.silence == 4.5


def test_any_byte_even_of_an_unfinished_frame_is_a_sign_of_life():
    async def behave(stream):
        for piece in (b"\x82\x0a", *[b"\x00"] * 9):
            stream.transport.write(piece)
            await asyncio.sleep(0.1)
        await stream.wait_closed()

    async def run():
        async with streaming(behave, silence=0.5) as (adapter, _):
            began = asyncio.get_running_loop().time()
            with pytest.raises(BrokerUnreachableError, match="silent"):
                await adapter.listen()
            return asyncio.get_running_loop().time() - began

    assert asyncio.run(run()) > 1.2


def test_a_half_open_connection_is_noticed_and_left_quickly(gate):
    async def behave(stream):
        stream.transport.pause_reading()
        await stream.wait_closed()

    async def run():
        async with streaming(behave, silence=0.2) as (adapter, _):
            began = asyncio.get_running_loop().time()
            with pytest.raises(BrokerUnreachableError, match="silent"):
                await adapter.listen()
            return asyncio.get_running_loop().time() - began

    gate("a line silent for 0.2 s → left", asyncio.run(run()), most=1.2)


def test_cancelling_closes_the_connection_within_a_second(gate):
    gone = asyncio.Event()

    async def behave(stream):
        await stream.send(FRAME)
        await stream.wait_closed()
        gone.set()

    async def run():
        async with streaming(behave) as (adapter, recorder):
            listening = asyncio.create_task(adapter.listen())
            await recorder.came.wait()
            began = asyncio.get_running_loop().time()
            listening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await listening
            await gone.wait()
            return asyncio.get_running_loop().time() - began, adapter.listening

    seconds, listening = asyncio.run(run())

    gate("Kite stream cancelled → closed", seconds, most=1)
    assert listening is False


@pytest.mark.parametrize("code", [1000, 1001, 1011, 4000])
def test_every_way_to_close_means_reconnect(code):
    error, _, _, _ = listen(sends(b"\x00", code=code))

    assert type(error) is BrokerUnreachableError
    assert str(code) in str(error)


def test_an_abrupt_end_means_reconnect():
    async def behave(stream):
        stream.transport.abort()
        await asyncio.sleep(0)

    error, _, _, _ = listen(behave)

    assert type(error) is BrokerUnreachableError


@pytest.mark.parametrize(
    "junk", [b"\xff\xff\xff\xff", b"\x81\x02\xff\xfe", b"\x82\x7f\x00\x00\x00\x00\xff\xff\xff\xff"]
)
def test_bytes_that_are_no_websocket_are_a_violation(junk):
    async def behave(stream):
        stream.transport.write(junk)
        await stream.wait_closed()

    error, _, _, _ = listen(behave)

    assert isinstance(error, ProtocolViolationError)


def refuses(status, headers=()):
    def refuse(connection, _request):
        response = connection.respond(status, "no\n")
        for name, value in headers:
            response.headers[name] = value
        return response

    return refuse


@pytest.mark.parametrize(
    ("status", "rest_reply", "failure", "words"),
    [
        (403, error("TokenException", "Incorrect", "403 No"), SessionExpiredError, "Log in again"),
        (403, file("orders.json"), PermissionRefusedError, "free Personal plan"),
        (403, answer(b"<html>", status="502 Bad"), BrokerUnreachableError, "502"),
        (429, file("orders.json"), BrokerUnreachableError, "three live streams"),
        (503, file("orders.json"), BrokerUnreachableError, "HTTP 503"),
        (404, file("orders.json"), BrokerUnreachableError, "HTTP 404"),
    ],
)
def test_a_refused_handshake_is_explained(status, rest_reply, failure, words):
    error, adapter, _, told = listen(sends(), process_request=refuses(status), rest_reply=rest_reply)

    assert type(error) is failure
    assert words in str(error)
    assert told == []
    assert not adapter.listening


def test_the_streams_retry_after_is_passed_on():
    error, _, _, _ = listen(sends(), process_request=refuses(429, [("Retry-After", "9")]))

    assert error.retry_after == 9.0


def test_a_redirect_is_not_followed_for_it_would_take_the_token_along():
    followed = []

    def redirect(connection, request):
        followed.append(request.path)
        response = connection.respond(302, "")
        response.headers["Location"] = "/elsewhere"
        return response

    error, _, _, _ = listen(sends(), process_request=redirect)

    assert type(error) is BrokerUnreachableError
    assert len(followed) == 1


def test_a_stream_that_is_not_there_means_reconnect():
    async def run():
        async with wire(answer()) as served:
            root = served.root.replace("http", "ws")
        with pytest.raises(BrokerUnreachableError, match="cannot be reached"):
            await adapter_for({"stream": root}).listen()

    asyncio.run(run())


def test_a_stream_with_a_certificate_nobody_vouches_for_is_not_listened_to(tmp_path):
    error, _, events, told = listen(sends(FRAME), tls=self_signed(tmp_path))

    assert type(error) is BrokerUnreachableError
    assert (events, told) == ([], [])


def test_no_error_and_no_log_line_holds_the_token(caplog):
    caplog.set_level(logging.DEBUG)
    endings = [
        listen(sends(FRAME)),
        listen(sends(), process_request=refuses(403)),
        listen(
            sends(), process_request=refuses(403), rest_reply=error("TokenException", "Incorrect", "403 No")
        ),
        listen(sends("x" * 2**21)),
    ]

    async def nowhere():
        with pytest.raises(ConfigurationError) as caught:
            await adapter_for({"stream": "https://not-a-websocket.example"}).listen()
        return caught.value

    texts = [repr(ending[0]) + str(ending[0]) for ending in endings] + [repr(asyncio.run(nowhere()))]
    client_log = "\n".join(r.getMessage() for r in caplog.records if r.name != "websockets.server")

    assert TOKEN not in "".join(texts)
    assert TOKEN not in client_log
    assert SECRET not in client_log


# --- postbacks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", ""])
def test_a_postback_is_read_whatever_its_content_type(content_type):
    request = PostbackRequest(
        body=(DATA / "postback.json").read_bytes(), headers={"content-type": content_type}
    )

    hint = ZerodhaAdapter.read_postback(request, secrets=["rotated", "API_SECRET"])

    assert hint.order_id == "220303000308932"
