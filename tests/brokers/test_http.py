from __future__ import annotations

import asyncio
import gzip
import logging
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.wire import START, FakeClock, answer, self_signed, wire
from orderwire.brokers.http import (
    BrokerHttp,
    Bucket,
    Budget,
    Budgets,
    CircuitBreaker,
    http_date,
    open_client,
    retry_after_seconds,
)
from orderwire.errors import (
    BrokerUnreachableError,
    ConfigurationError,
    ProtocolViolationError,
    RateLimitedError,
)


@asynccontextmanager
async def http_over(*script, budgets=None, clock=None):
    clock = clock or FakeClock()
    async with wire(*script) as served, open_client() as client:
        yield BrokerHttp(client, clock=clock, budgets=budgets or {}, sleep=clock.sleep), served, clock


def run(story):
    return asyncio.run(story())


# --- a request and its reply ------------------------------------------------------------------------------


def test_a_reply_is_handed_over_as_it_came():
    async def story():
        head = "Date: Mon, 17 Aug 2026 04:31:00 GMT\r\nContent-Type: Application/JSON; charset=utf-8\r\nX-A: b\r\n"
        async with http_over(answer(b'{"a":1}', headers=head)) as (http, _, clock):
            return await http.request(
                "GET", "http://x".replace("http://x", _.root), purpose="order_book"
            ), clock

    reply, clock = run(story)

    assert (reply.status, reply.body, reply.content_type) == (200, b'{"a":1}', "application/json")
    assert reply.headers["x-a"] == "b"
    assert reply.date == datetime(2026, 8, 17, 4, 31, tzinfo=UTC)
    assert reply.received_ns == clock.time_ns()
    assert '{"a":1}' not in repr(reply)


def test_the_parts_of_a_request_arrive():
    async def story():
        async with http_over(answer()) as (http, served, _):
            await http.request(
                "GET", f"{served.root}/a", purpose="p", params={"q": "M&M"}, headers={"X-K": "3"}
            )
            await http.request("POST", f"{served.root}/b", purpose="p", data={"s": "M&M"})
            await http.request("POST", f"{served.root}/c", purpose="p", json={"n": 1})
            await http.request("DELETE", f"{served.root}/d?k=v", purpose="p")
        return served.requests

    get, form, json, delete = run(story)

    assert (get.line, get.headers["x-k"]) == ("GET /a?q=M%26M HTTP/1.1", "3")
    assert (form.body, form.headers["content-type"]) == (b"s=M%26M", "application/x-www-form-urlencoded")
    assert json.body == b'{"n":1}'
    assert delete.line == "DELETE /d?k=v HTTP/1.1"


@pytest.mark.parametrize(
    "status", ["400 Bad", "403 No", "404 Gone", "500 Oops", "503 Later", "302 Elsewhere"]
)
def test_a_reply_of_another_status_is_a_reply_too(status):
    async def story():
        async with http_over(answer(b"x", status=status, headers="Location: http://127.0.0.1:1/\r\n")) as (
            http,
            served,
            _,
        ):
            return await http.request("GET", served.root, purpose="p"), len(served.requests)

    reply, requests = run(story)

    assert (reply.status, requests) == (int(status[:3]), 1)


def test_a_compressed_body_is_opened():
    async def story():
        body = gzip.compress(b"a" * 1000, mtime=0)
        async with http_over(answer(body, headers="Content-Encoding: gzip\r\n")) as (http, served, _):
            return await http.request("GET", served.root, purpose="p")

    assert run(story).body == b"a" * 1000


@pytest.mark.parametrize(
    ("body", "headers", "why"),
    [
        (b"a" * 1001, "", "larger than 1000"),
        (gzip.compress(b"a" * 1001, mtime=0), "Content-Encoding: gzip\r\n", "larger than 1000"),
        (b"not gzip", "Content-Encoding: gzip\r\n", "decompressed"),
    ],
)
def test_a_body_above_its_cap_or_broken_is_refused(body, headers, why):
    async def story():
        async with http_over(answer(body, headers=headers)) as (http, served, _):
            await http.request("GET", served.root, purpose="p", most_bytes=1000)

    with pytest.raises(ProtocolViolationError, match=why):
        run(story)


def test_the_brokers_time_is_known_from_its_last_date():
    async def story():
        script = (answer(), answer(headers="Date: Mon, 17 Aug 2026 04:31:00 GMT\r\n"), answer())
        async with http_over(*script) as (http, served, clock):
            known = []
            for _ in script:
                await http.request("GET", f"{served.root}/a?b=c", purpose="p")
                known.append(http.broker_time(served.root))
            clock.seconds += 5
            return [*known, http.broker_time(f"{served.root}/other"), http.broker_time("http://127.0.0.1:1")]

    minute = START + timedelta(seconds=60.5)  # a full second was told: half of it is the best guess

    assert run(story) == [None, minute, minute, minute + timedelta(seconds=5), None]


def test_calls_are_counted_by_purpose():
    async def story():
        async with http_over(answer()) as (http, served, _):
            for purpose in ("order_book", "place", "order_book"):
                await http.request("GET", served.root, purpose=purpose)
            return http.counts()

    assert run(story) == {"order_book": 2, "place": 1}


def test_no_cookie_of_one_account_reaches_another():
    async def story():
        async with http_over(answer(headers="Set-Cookie: session=of-alice; Path=/\r\n")) as (http, served, _):
            for _ in range(2):
                await http.request("GET", served.root, purpose="p")
        return served.requests

    assert all("cookie" not in request.headers for request in run(story))


def test_no_log_line_holds_a_query_or_a_header(caplog):
    caplog.set_level(logging.DEBUG)

    async def story():
        async with http_over(answer()) as (http, served, _):
            await http.request(
                "GET", f"{served.root}/a?token=SECRET1", purpose="p", headers={"Authorization": "SECRET2"}
            )
            await http.request("GET", f"{served.root}/a", purpose="p", params={"token": "SECRET3"})

    run(story)

    assert "HTTP Request" in caplog.text
    assert "SECRET" not in caplog.text


# --- what a broken call means -----------------------------------------------------------------------------


async def _hang_up(_request, writer):
    writer.transport.abort()


async def _half(_request, writer):
    writer.write(answer(b"a" * 100)[:-50])
    await writer.drain()


async def _garbage(_request, writer):
    writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    await writer.drain()


async def _silence(_request, writer):
    await asyncio.sleep(30)


async def _drip(_request, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("fault", [_hang_up, _half, _garbage, _silence, _drip])
def test_a_request_that_left_may_have_arrived(fault):
    async def story():
        async with http_over(fault) as (http, served, _):
            await http.request("POST", f"{served.root}?token=SECRET", purpose="place", timeout=0.25)

    with pytest.raises(BrokerUnreachableError) as caught:
        run(story)

    assert caught.value.sent is True
    assert "SECRET" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_request_that_found_nobody_did_not_arrive():
    async def story():
        async with wire(answer()) as served:
            closed = served.root
        async with open_client() as client:
            await BrokerHttp(client, clock=FakeClock(), budgets={}).request("POST", closed, purpose="place")

    with pytest.raises(BrokerUnreachableError, match="cannot be reached") as caught:
        run(story)

    assert caught.value.sent is False


def test_a_certificate_nobody_vouches_for_is_no_broker(tmp_path):
    async def story():
        async with wire(answer(), tls=self_signed(tmp_path)) as served, open_client() as client:
            with pytest.raises(BrokerUnreachableError, match="certificate") as caught:
                await BrokerHttp(client, clock=FakeClock(), budgets={}).request(
                    "GET", served.root, purpose="p"
                )
            return caught.value.sent, served.requests

    assert run(story) == (False, [])


@pytest.mark.parametrize("url", ["http://[broken", "http://x:99999999/", "ftp://127.0.0.1/", "no address"])
def test_an_address_that_is_none_names_the_setting(url):
    async def story():
        async with open_client() as client:
            await BrokerHttp(client, clock=FakeClock(), budgets={}).request("GET", url, purpose="p")

    with pytest.raises((ConfigurationError, BrokerUnreachableError)):
        run(story)


def test_a_credential_that_http_cannot_carry_is_named_without_being_shown():
    async def story():
        async with http_over(answer()) as (http, served, _):
            await http.request("GET", served.root, purpose="p", headers={"Authorization": "SECRET\u20b9"})

    with pytest.raises(ConfigurationError) as caught:
        run(story)

    assert "SECRET" not in str(caught.value)


def test_a_line_break_in_a_header_is_not_sent_and_not_shown():
    async def story():
        async with http_over(answer()) as (http, served, _):
            with pytest.raises(BrokerUnreachableError) as caught:
                await http.request(
                    "GET", served.root, purpose="p", headers={"Authorization": "SECRET\r\nX: y"}
                )
            return str(caught.value), len(served.requests)

    message, requests = run(story)

    assert "SECRET" not in message
    assert requests == 0


def test_cancelling_a_call_ends_it_at_once():
    async def story():
        async with http_over(_silence) as (http, served, _):
            call = asyncio.create_task(http.request("GET", served.root, purpose="p"))
            await served.asked.wait()
            began = asyncio.get_running_loop().time()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            return asyncio.get_running_loop().time() - began

    assert run(story) < 1


# --- budgets ----------------------------------------------------------------------------------------------

TWO = Budget(rate=2, scope="api_key")
PATIENT = {"reads": Bucket(budgets=(TWO,), patience=60)}


def test_a_read_waits_for_its_turn():
    async def story():
        async with http_over(answer(), budgets=PATIENT) as (http, served, clock):
            for _ in range(5):
                await http.request("GET", served.root, purpose="p", bucket="reads", keys={"api_key": "k"})
            return clock

    clock = run(story)

    assert clock.slept == pytest.approx([1.05, 1.05])


def test_an_order_is_refused_rather_than_sent_late():
    budgets = {"orders": Bucket(budgets=(Budget(rate=1, per_seconds=60),), patience=1)}

    async def story():
        async with http_over(answer(), budgets=budgets) as (http, served, clock):
            await http.request("POST", served.root, purpose="place", bucket="orders")
            with pytest.raises(RateLimitedError) as caught:
                await http.request("POST", served.root, purpose="place", bucket="orders")
            return caught.value, len(served.requests), clock.slept, http.counts()

    error, requests, slept, counts = run(story)

    assert (error.sent, requests, slept, counts) == (False, 1, [], {"place": 1})
    assert error.retry_after == pytest.approx(60.05)


def test_calls_are_counted_by_broker_and_purpose_and_so_are_those_that_failed():
    budgets = {"wired.reads": Bucket(), "other.reads": Bucket()}

    async def story():
        async with http_over(answer(), answer(status=429), budgets=budgets) as (http, served, _):
            await http.request("GET", served.root, purpose="order_book", bucket="wired.reads")
            with pytest.raises(RateLimitedError):
                await http.request("GET", served.root, purpose="order_book", bucket="wired.reads")
            with pytest.raises(BrokerUnreachableError):
                await http.request("GET", "http://127.0.0.1:1/", purpose="funds", bucket="other.reads")
            return http.calls(), http.limited(), http.unanswered()

    calls, limited, unanswered = run(story)

    assert calls == {("wired", "order_book"): 2, ("other", "funds"): 1}
    assert (limited, unanswered) == ({"wired": 1}, {"other": 1})


def test_an_unknown_bucket_is_a_mistake_of_the_program():
    async def story():
        async with http_over(answer()) as (http, served, _):
            await http.request("GET", served.root, purpose="p", bucket="nonsense")

    with pytest.raises(KeyError):
        run(story)


def test_too_many_requests_closes_the_bucket_for_as_long_as_the_broker_says():
    script = (answer(b"{}", status="429 Slow", headers="Retry-After: 7\r\n"), answer())

    async def story():
        async with http_over(*script, budgets=PATIENT) as (http, served, clock):
            with pytest.raises(RateLimitedError) as caught:
                await http.request("GET", served.root, purpose="p", bucket="reads")
            await http.request("GET", served.root, purpose="p", bucket="reads")
            return caught.value, clock.slept

    error, slept = run(story)

    assert (error.sent, error.retry_after) == (False, 7.0)
    assert slept == [7.0]


def test_too_many_requests_without_a_word_closes_the_bucket_for_a_second():
    async def story():
        async with http_over(answer(status="429 Slow")) as (http, served, _):
            await http.request("GET", served.root, purpose="p")

    with pytest.raises(RateLimitedError) as caught:
        run(story)

    assert caught.value.retry_after == 1.0


def spend(bucket, *moments, keys=None):
    budgets = Budgets()
    left = []
    for now in moments:
        try:
            left.append(now + budgets.reserve(bucket, keys=keys or {}, now=now))
        except RateLimitedError:
            left.append(None)
    return left


@given(
    st.lists(st.floats(0, 20), max_size=60).map(sorted),
    st.integers(1, 5),
    st.integers(1, 30),
)
def test_no_window_ever_holds_more_calls_than_the_broker_allows(moments, per_second, per_minute):
    bucket = Bucket(
        budgets=(Budget(rate=per_second), Budget(rate=per_minute, per_seconds=10.0)), patience=1e9
    )

    left = spend(bucket, *moments)

    assert all(later - first > -1e-6 for first, later in pairwise(left))
    for rate, seconds in ((per_second, 1.0), (per_minute, 10.0)):
        assert all(later - first > seconds - 1e-6 for first, later in zip(left, left[rate:], strict=False))


def test_a_refused_call_costs_nothing():
    bucket = Bucket(budgets=(Budget(rate=1, per_seconds=10),), patience=1)

    assert spend(bucket, 0, 1, 2, 10.1) == [0, None, None, 10.1]


def test_a_budget_is_shared_by_buckets_that_name_it_and_split_by_key():
    shared = Budget(rate=1, name="all", scope="api_key")
    one, two = Bucket(budgets=(shared,), patience=0), Bucket(budgets=(shared,), patience=0)
    budgets = Budgets()

    budgets.reserve(one, keys={"api_key": "a"}, now=0)
    budgets.reserve(one, keys={"api_key": "b"}, now=0)

    with pytest.raises(RateLimitedError):
        budgets.reserve(two, keys={"api_key": "a"}, now=0)


# --- the circuit breaker ----------------------------------------------------------------------------------


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_try():
    breaker = CircuitBreaker(failures=2, pause=2)

    breaker.failed("a", now=0)
    assert breaker.refuse_seconds("a", now=0) == 0
    breaker.failed("a", now=0)

    assert breaker.refuse_seconds("a", now=1) == 1
    assert breaker.refuse_seconds("b", now=1) == 0
    assert breaker.refuse_seconds("a", now=2) == 0
    assert breaker.refuse_seconds("a", now=2) == 2
    breaker.heard("a")
    assert breaker.refuse_seconds("a", now=2) == 0


def test_a_success_in_between_starts_the_count_again():
    breaker = CircuitBreaker(failures=2)

    breaker.failed("a", now=0)
    breaker.heard("a")
    breaker.failed("a", now=0)

    assert breaker.refuse_seconds("a", now=0) == 0


def test_reads_stay_away_from_a_broken_address_and_orders_try_it():
    budgets = {"orders": Bucket(breaks=False)}

    async def story():
        async with http_over(*[answer(status="503 Down")] * 5, answer(), budgets=budgets) as (
            http,
            served,
            _,
        ):
            for _ in range(5):
                await http.request("GET", served.root, purpose="read")
            with pytest.raises(BrokerUnreachableError, match="next try") as caught:
                await http.request("GET", served.root, purpose="read")
            order = await http.request("POST", served.root, purpose="place", bucket="orders")
            read = await http.request("GET", served.root, purpose="read")
            return caught.value, order.status, read.status, http.counts()

    error, order, read, counts = run(story)

    assert (error.sent, error.retry_after, order, read) == (False, 2.0, 200, 200)
    assert counts == {"read": 6, "place": 1}


# --- headers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 12 ", 12.0),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("1e9", None),
        ("9" * 400, 999999.0),
        ("\u0667", None),
        ("Mon, 17 Aug 2026 04:30:30 GMT", 30.0),
        ("Mon, 17 Aug 2026 04:29:30 GMT", 0.0),
    ],
)
def test_retry_after_is_read_in_both_forms(text, seconds):
    assert retry_after_seconds(text, now=START) == seconds


@pytest.mark.parametrize(
    "text", ["", "yesterday", "Mon, 99 Aug 2026 04:30:30 GMT", "1 2 3", "Mon, 17 Aug 99999999 04:30:30 GMT"]
)
def test_a_date_that_is_none_is_none(text):
    assert http_date(text) is None


def test_a_date_is_aware_whatever_its_zone_says():
    for text in (
        "Mon, 17 Aug 2026 04:30:30 GMT",
        "Mon, 17 Aug 2026 04:30:30 -0000",
        "Mon, 17 Aug 2026 10:00:30 +0530",
    ):
        assert http_date(text) - START == timedelta(seconds=30)


@given(st.text(max_size=60))
def test_no_header_makes_reading_a_date_fail(text):
    found = retry_after_seconds(text, now=START)

    assert found is None or found >= 0


def test_accounts_that_share_a_budget_each_get_their_part_of_it():
    shared = Bucket(budgets=(Budget(rate=10, scope="api_key", name="reads"),))
    own = Bucket(budgets=(Budget(rate=10, scope="account", name="orders"),))
    budgets = Budgets()
    for number in range(120):
        keys = {"account": f"a{number}", "api_key": "one key"}
        budgets.reserve(Bucket(budgets=shared.budgets, patience=1e9), keys=keys, now=0.0)
        budgets.reserve(own, keys=keys, now=0.0)

    mine = {"account": "a1", "api_key": "one key"}

    assert budgets.share(shared, keys=mine, now=1.0) == pytest.approx(120 / 10 / 0.6)
    assert budgets.share(own, keys=mine, now=1.0) == 0.0
    assert budgets.share(shared, keys={"account": "x", "api_key": "another"}, now=1.0) == 0.0
    assert budgets.share(shared, keys=mine, now=62.0) == 0.0  # they are gone


def test_calls_are_counted_by_broker_and_by_what_became_of_them():
    script = (answer(), answer(status="503 Away"), answer(status="429 Too Many"), answer())

    async def story():
        buckets = {"one.reads": Bucket(budgets=(Budget(rate=3, per_seconds=60),), patience=0.0)}
        async with http_over(*script, budgets=buckets) as (http, served, _):
            for _ in script:
                with suppress(BrokerUnreachableError):
                    await http.request("GET", served.root, purpose="order_book", bucket="one.reads")
            return http.calls(), http.outcomes()

    calls, outcomes = run(story)

    assert calls == {("one", "order_book"): 3}
    assert outcomes == {("one", "2xx"): 1, ("one", "5xx"): 1, ("one", "429"): 1, ("one", "refused"): 1}


def test_an_address_that_does_not_answer_is_counted_so():
    async def story():
        async with http_over() as (http, _, __):
            with pytest.raises(BrokerUnreachableError):
                await http.request("GET", "http://127.0.0.1:1", purpose="p")
            return http.outcomes()

    assert run(story) == {("", "unanswered"): 1}


def test_the_offset_of_a_brokers_clock_is_known_with_its_error():
    async def story():
        date = "Date: Mon, 17 Aug 2026 04:31:00 GMT\r\n"
        async with http_over(answer(headers=date)) as (http, served, _):
            await http.request("GET", served.root, purpose="p")
            return http.offsets()[served.root]

    offset = run(story)

    assert (offset.seconds, offset.error) == (60.5, 0.5)
