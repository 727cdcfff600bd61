"""The Zerodha adapter against a broker: the simulator as a process, spoken to as to the real one."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from msgspec.structs import replace

from brokers.wire import answer, wire
from integration.zerodha_desk import SOON, Simulator, at_desk, new_terms, order
from orderwire.brokers.adapter import PostbackRequest
from orderwire.brokers.checklist import ask, first_day
from orderwire.clock import SystemClock
from orderwire.core.orders import OrderStatus, Overlay
from orderwire.errors import (
    BrokerUnreachableError,
    InvalidRequestError,
    OrderRefusedError,
    PermissionRefusedError,
    ProtocolViolationError,
    RateLimitedError,
    SessionExpiredError,
)


@pytest.fixture(scope="module")
def simulator():
    running = Simulator()
    yield running
    running.stop()


@pytest.fixture
def sim(simulator):
    settings = simulator.ask("GET", "/settings")
    simulator.ask("POST", "/market/price", {"key": "NSE:SBIN", "price": "820"})
    yield simulator
    simulator.ask("DELETE", "/faults")
    simulator.ask("POST", "/market/thaw", {})
    simulator.ask("PATCH", "/settings", settings)


def test_a_user_logs_in_through_the_login_page(sim):
    async def story():
        async with at_desk(sim, login=False, instruments=False) as seat:
            grant = seat.log_in_at_the_page()
            session = await seat.adapter.login(grant)
            with pytest.raises(SessionExpiredError):
                await seat.adapter.login(grant)
            return grant, session, seat.adapter

    grant, session, adapter = asyncio.run(story())

    assert grant["state"] == "st-42"
    assert session.user_id == adapter.profile.credentials["user_id"]
    assert session.expires_at > SystemClock().now()


def test_the_list_of_instruments_names_what_is_traded(sim):
    async def story():
        async with at_desk(sim) as seat:
            return seat.adapter.tools.instruments

    table = asyncio.run(story())

    assert len(table) == 17
    assert table.by_symbol("NFO", "NIFTY18AUG2624400CE").broker_symbol == "NIFTY2681824400CE"
    assert table.by_symbol("NSE_INDEX", "NIFTY").broker_symbol == "NIFTY 50"


def test_an_order_is_placed_modified_and_cancelled(sim):
    async def story():
        async with at_desk(sim) as seat:
            adapter = seat.adapter
            await seat.listen()
            order_id = await adapter.place_order(order())
            opened = await seat.status(order_id, OrderStatus.OPEN)
            await adapter.modify_order(new_terms(order_id), current=opened)
            modified = await seat.until(lambda update: update.quantity == 12)
            await adapter.cancel_order(order_id, current=modified)
            cancelled = await seat.status(order_id, OrderStatus.CANCELLED)
            return (
                order_id,
                cancelled,
                await adapter.order_history(order_id),
                await adapter.order_book(),
                adapter,
            )

    order_id, cancelled, history, book, adapter = asyncio.run(story())

    (row,) = book
    assert (row.order_id, row.status, row.price, row.tag) == (
        order_id,
        OrderStatus.CANCELLED,
        Decimal("819.1"),
        "OWINTEGRATION",
    )
    assert (cancelled.symbol, cancelled.known_symbol, cancelled.quantity) == ("SBIN", True, 12)
    assert history[0].raw_status == "PUT ORDER REQ RECEIVED"
    assert {Overlay.PENDING_MODIFY, Overlay.PENDING_CANCEL} <= {step.overlay for step in history}
    assert [step.history_index for step in history] == list(range(len(history)))
    assert adapter.violations == 0


def test_a_market_order_fills_and_shows_in_every_book(sim):
    async def story():
        async with at_desk(sim) as seat:
            adapter = seat.adapter
            before = await adapter.funds()
            await seat.listen()
            order_id = await adapter.place_order(order(order_type="MARKET", price=Decimal(0)))
            filled = await seat.status(order_id, OrderStatus.FILLED)
            return (
                filled,
                await adapter.trade_book(),
                await adapter.positions(),
                await adapter.holdings(),
                before,
                await adapter.funds(),
            )

    filled, trades, positions, holdings, before, after = asyncio.run(story())

    assert filled.filled_quantity == 10
    assert sum(trade.quantity for trade in trades) == 10
    assert {trade.order_id for trade in trades} == {filled.order_id}
    assert [(p.symbol, p.quantity, p.product) for p in positions] == [("SBIN", 10, "MIS")]
    assert {h.symbol for h in holdings} == {"SBIN", "INFY"}
    assert after.available < before.available


def test_partial_fills_and_a_trigger_come_by_the_stream(sim):
    async def story():
        async with at_desk(sim) as seat:
            adapter = seat.adapter
            await seat.listen()
            limit = await adapter.place_order(order(price=Decimal(815)))
            await seat.status(limit, OrderStatus.OPEN)
            sim.ask("POST", "/market/fill", {"uid": f"kite:{limit}", "quantity": 4, "price": "815"})
            part = await seat.status(limit, OrderStatus.PARTIALLY_FILLED)
            sim.ask("POST", "/market/fill", {"uid": f"kite:{limit}", "quantity": 6, "price": "815"})
            await seat.status(limit, OrderStatus.FILLED)
            stop = await adapter.place_order(
                order(side="SELL", order_type="SL-M", price=Decimal(0), trigger_price=Decimal(810))
            )
            book = {row.order_id: row for row in await adapter.order_book()}
            while book[stop].status is not OrderStatus.TRIGGER_PENDING:
                book = {row.order_id: row for row in await adapter.order_book()}
            sim.ask("POST", "/market/price", {"key": "NSE:SBIN", "price": "809"})
            return part, await seat.status(stop, OrderStatus.FILLED)

    part, stopped = asyncio.run(story())

    assert (part.filled_quantity, part.quantity, part.average_price) == (4, 10, Decimal(815))
    assert stopped.side == "SELL"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quantity": 1_000_000}, "margin"),
        ({"price": Decimal(2000)}, "price"),
    ],
)
def test_what_the_broker_rejects_is_shown_with_its_reason(sim, changes, reason):
    async def story():
        async with at_desk(sim) as seat:
            await seat.listen()
            order_id = await seat.adapter.place_order(order(**changes))
            return await seat.status(order_id, OrderStatus.REJECTED)

    assert reason in asyncio.run(story()).reason.lower()


def test_what_the_broker_refuses_at_once_never_was_an_order(sim):
    async def story():
        async with at_desk(sim) as seat:
            sim.ask("PATCH", "/settings", {"kite_margin_at_once": True})
            with pytest.raises(OrderRefusedError, match="Insufficient funds") as caught:
                await seat.adapter.place_order(order(quantity=1_000_000))
            with pytest.raises(InvalidRequestError):
                await seat.adapter.place_order(order(symbol="NOSUCH"))
            return caught.value.code, await seat.adapter.order_book()

    assert asyncio.run(story()) == ("MarginException", [])


def test_the_static_ip_rule_is_explained(sim):
    async def story():
        async with at_desk(sim) as seat:
            sim.ask("PATCH", "/settings", {"kite_static_ip": True})
            with pytest.raises(PermissionRefusedError, match=r"static IP.*developers\.kite\.trade"):
                await seat.adapter.place_order(order())
            return await seat.adapter.order_book()

    assert asyncio.run(story()) == []


@pytest.mark.parametrize("html", [False, True])
def test_an_order_whose_answer_was_lost_is_found_by_its_tag(sim, html):
    async def story():
        async with at_desk(sim) as seat:
            sim.fault("server_error", operation="orders", count=1, params={"done": True, "html": html})
            with pytest.raises(BrokerUnreachableError) as caught:
                await seat.adapter.place_order(order(tag="OWLOST"))
            return caught.value.sent, [row.tag for row in await seat.adapter.order_book()]

    assert asyncio.run(story()) == (True, ["OWLOST"])


def test_too_many_requests_are_named_and_waited_for(sim):
    async def story():
        async with at_desk(sim) as seat:
            sim.fault("rate_limit", operation="orders", count=1, params={"retry_after": 1})
            with pytest.raises(RateLimitedError) as caught:
                await seat.adapter.order_book()
            began = asyncio.get_running_loop().time()
            await seat.adapter.order_book()
            return caught.value.retry_after, asyncio.get_running_loop().time() - began

    asked, waited = asyncio.run(story())

    assert asked == 1
    assert waited > 0.9


def test_our_budget_keeps_a_burst_of_reads_below_the_brokers_limit(sim):
    async def story():
        async with at_desk(sim) as seat:
            books = await asyncio.gather(*(seat.adapter.order_book() for _ in range(25)))
            return len(books)

    assert asyncio.run(story()) == 25


def test_a_dead_token_is_told_from_a_plan_without_stream(sim):
    async def dead():
        async with at_desk(sim) as seat:
            sim.ask("POST", "/tokens/kill", {"broker": "kite", "user": seat.adapter.session.user_id})
            with pytest.raises(SessionExpiredError, match="Log in again"):
                await seat.adapter.order_book()
            with pytest.raises(SessionExpiredError, match="Log in again"):
                await seat.adapter.listen()

    async def free():
        async with at_desk(sim, plan="personal") as seat:
            with pytest.raises(PermissionRefusedError, match="free Personal plan"):
                await seat.adapter.listen()
            return await seat.adapter.order_book()

    asyncio.run(dead())
    assert asyncio.run(free()) == []


def test_the_fourth_stream_of_a_key_is_explained(sim):
    async def story():
        async with at_desk(sim) as seat:
            before = len(sim.ask("GET", "/sockets")["kite"])
            streams = [asyncio.create_task(seat.adapter.listen()) for _ in range(3)]
            async with asyncio.timeout(SOON):
                while len((await asyncio.to_thread(sim.ask, "GET", "/sockets"))["kite"]) < before + 3:
                    pass
            with pytest.raises(BrokerUnreachableError, match="three live streams"):
                await seat.adapter.listen()
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)

    asyncio.run(story())


@pytest.mark.parametrize("mode", ["abort", "close"])
def test_a_cut_stream_means_reconnect_and_works_again(sim, mode):
    async def story():
        async with at_desk(sim) as seat:
            await seat.listen()
            sim.ask(
                "POST",
                "/sockets/disconnect",
                {"broker": "kite", "user": seat.adapter.session.user_id, "mode": mode},
            )
            why = await seat.ending()
            await seat.listen()
            order_id = await seat.adapter.place_order(order())
            return why, await seat.status(order_id, OrderStatus.OPEN)

    why, update = asyncio.run(story())

    assert type(why) is BrokerUnreachableError
    assert update.status is OrderStatus.OPEN


def test_a_half_open_stream_is_noticed_within_its_deadline(sim, gate):
    async def story():
        async with at_desk(sim) as seat:
            await seat.listen()
            sim.fault("silence", user=seat.adapter.session.user_id)
            began = asyncio.get_running_loop().time()
            why = await seat.ending()
            return why, asyncio.get_running_loop().time() - began

    why, seconds = asyncio.run(story())

    assert type(why) is BrokerUnreachableError
    assert "silent" in str(why)
    gate("half-open Kite stream noticed by the adapter", seconds, most=5)


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("unknown_frame", {}),
        ("field_variants", {}),
        ("shuffled_book", {}),
        ("double_cancelled", {}),
        ("update_after_complete", {}),
        ("duplicate", {}),
        ("complete_before_open", {}),
        ("push_before_response", {}),
    ],
)
def test_what_kite_does_on_bad_days_still_reads_as_an_order(sim, kind, params):
    async def story():
        async with at_desk(sim) as seat:
            await seat.listen()
            sim.fault(kind, user=seat.adapter.session.user_id, params=params)
            market = await seat.adapter.place_order(order(order_type="MARKET", price=Decimal(0)))
            limit = await seat.adapter.place_order(order())
            await seat.status(market, OrderStatus.FILLED)
            while (await seat.adapter.order_history(limit))[-1].status is not OrderStatus.OPEN:
                pass  # each read waits for its turn in the budget
            await seat.adapter.cancel_order(limit)
            await seat.status(limit, OrderStatus.CANCELLED)
            book = {row.order_id: row.status for row in await seat.adapter.order_book()}
            return book, market, limit, seat.adapter

    book, market, limit, adapter = asyncio.run(story())

    assert book == {market: OrderStatus.FILLED, limit: OrderStatus.CANCELLED}
    assert adapter.listening is False


def test_an_unknown_status_is_passed_on_as_unknown(sim):
    async def story():
        async with at_desk(sim) as seat:
            await seat.listen()
            sim.fault("unknown_status", user=seat.adapter.session.user_id, params={"status": "SUSPENDED"})
            order_id = await seat.adapter.place_order(order())
            return await seat.status(order_id, OrderStatus.UNKNOWN)

    update = asyncio.run(story())

    assert (update.raw_status, update.phase) == ("SUSPENDED", -1)


@pytest.mark.parametrize("kind", ["truncate", "corrupt"])
def test_a_damaged_push_is_counted_and_the_next_one_read(sim, kind):
    async def story():
        async with at_desk(sim) as seat:
            await seat.listen()
            sim.fault(kind, user=seat.adapter.session.user_id, channel="ws", count=1)
            damaged = await seat.adapter.place_order(order())
            while (await seat.adapter.order_history(damaged))[-1].status is not OrderStatus.OPEN:
                pass
            sound = await seat.adapter.place_order(order())
            await seat.status(sound, OrderStatus.OPEN)
            return seat.adapter.violations, seat.listening.done()

    violations, ended = asyncio.run(story())

    assert violations <= 1
    assert violations == 1 or kind == "corrupt"
    assert not ended


def test_postbacks_of_the_broker_verify_and_forged_ones_do_not(sim):
    async def story():
        async with wire(answer()) as hook, at_desk(sim, postback_url=hook.root) as seat:
            order_id = await seat.adapter.place_order(order(order_type="MARKET", price=Decimal(0)))
            async with asyncio.timeout(SOON):
                await hook.asked.wait()
            genuine = [
                PostbackRequest(body=request.body, headers=request.headers) for request in hook.requests
            ]
            hook.requests.clear()
            forgeries = ("shifted", "wrong_secret", "nan", "duplicate_keys", "deep", "oversize", "not_utf8")
            for kind in (*forgeries, "not_json", "array", "truncated"):
                await asyncio.to_thread(
                    sim.ask, "POST", "/kite/postbacks/forge", {"order_id": order_id, "kind": kind}
                )
            forged = [
                PostbackRequest(body=request.body, headers=request.headers) for request in hook.requests
            ]
            secret = seat.adapter.profile.credentials["api_secret"]
            hints = [seat.adapter.read_postback(each, secrets=["older", secret]) for each in genuine]
            for each in forged:
                with pytest.raises(ProtocolViolationError):
                    seat.adapter.read_postback(each, secrets=["older", secret])
            return order_id, hints, forged

    order_id, hints, forged = asyncio.run(story())

    assert {hint.order_id for hint in hints} == {order_id}
    assert len(forged) == 10


def test_logging_out_ends_the_session(sim):
    async def story():
        async with at_desk(sim) as seat:
            await seat.adapter.logout()
            with pytest.raises(SessionExpiredError):
                await seat.adapter.order_book()

    asyncio.run(story())


def test_the_first_days_questions_are_answered(sim):
    async def story():
        async with at_desk(sim) as seat:
            await seat.listen()
            order_id = await seat.adapter.place_order(order())
            await seat.status(order_id, OrderStatus.OPEN)
            return [finding async for finding in first_day(seat.adapter, seconds=2.5)]

    findings = {finding.name: finding for finding in asyncio.run(story())}

    assert [finding for finding in findings.values() if not finding.ok] == []
    assert "statuses OPEN, varieties regular" in findings["order book"].detail
    assert findings["histories"].detail.startswith("PUT ORDER REQ RECEIVED > VALIDATION PENDING > ")
    assert "Log in again" in findings["stale login"].detail
    assert "Log in again" in findings["stale login at the stream"].detail
    assert "heartbeat" in findings["events"].detail


def test_a_status_the_table_does_not_know_is_found_on_the_first_day(sim):
    async def story():
        async with at_desk(sim) as seat:
            odd = replace(await anything(seat), raw_status="SUSPENDED")

            async def odd_book():
                return [odd]

            seat.adapter.order_book = odd_book
            return await ask("order book", seat.adapter.questions()["order book"])

    async def anything(seat):
        await seat.adapter.place_order(order())
        (row,) = await seat.adapter.order_book()
        return row

    finding = asyncio.run(story())

    assert (finding.ok, "SUSPENDED" in finding.detail) == (False, True)


def test_a_token_of_the_host_is_taken_over_once_the_broker_knows_it(sim):
    async def story():
        async with at_desk(sim) as seat:
            token, api_key = (
                seat.adapter.session.secrets["access_token"],
                seat.adapter.profile.credentials["api_key"],
            )
            seat.adapter.session = None
            taken = [await seat.adapter.adopt(given) for given in (token, f"{api_key}:{token}")]
            seat.adapter.session = taken[0]
            assert await seat.adapter.order_book() == []
            refused = []
            for wrong in ("other:token", f"{api_key}:never-given"):
                with pytest.raises(SessionExpiredError) as error:
                    await seat.adapter.adopt(wrong)
                refused.append(str(error.value))
            return taken, refused, seat.adapter.profile.credentials["user_id"]

    taken, (foreign, dead), user = asyncio.run(story())

    assert [session.user_id for session in taken] == [user, user]
    assert all(session.expires_at > SystemClock().now() for session in taken)
    assert "of another app" in foreign
    assert "never-given" not in dead
