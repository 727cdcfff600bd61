"""The Jainam adapter against a broker: the simulator as a process, spoken to as to the real one."""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal
from statistics import quantiles

import pytest

from integration.jainam_desk import Simulator, checklist_of, run, seat, sit
from orderwire.brokers.jainam.adapter import JainamAdapter
from orderwire.core.events import EventType
from orderwire.core.orders import ModifyRequest, OrderId, OrderStatus, Overlay
from orderwire.errors import (
    BrokerUnreachableError,
    OrderRefusedError,
    PermissionRefusedError,
    RateLimitedError,
    SessionExpiredError,
)
from scripted_xts import until
from xts_desk import adapter_of, listening, profile_at

STAGES = {
    "FILLED": OrderStatus.FILLED,
    "CANCELLED": OrderStatus.CANCELLED,
    "REJECTED": OrderStatus.REJECTED,
    "EXPIRED": OrderStatus.EXPIRED,
}


@pytest.fixture(scope="module")
def simulator():
    running = Simulator()
    yield running
    running.stop()


@pytest.fixture
def sim(simulator):
    settings, xts = simulator.ask("GET", "/settings"), simulator.ask("GET", "/xts/settings")
    for key, price in (("NSE:SBIN", "820"), ("NSE:RELIANCE", "1400")):
        simulator.ask("POST", "/market/price", {"key": key, "price": price})
    yield simulator
    simulator.ask("DELETE", "/faults")
    simulator.ask("POST", "/market/thaw", {})
    simulator.ask("PATCH", "/settings", settings)
    simulator.ask("PATCH", "/xts/settings", xts)


# --- an order's life --------------------------------------------------------------------------------------


def test_an_order_is_followed_from_its_placing_to_its_fill(sim):
    async def story(here):
        order_id = await here.place(symbol="RELIANCE", price=Decimal(1390))
        await here.status(order_id, OrderStatus.OPEN)
        await here.adapter.modify_order(
            ModifyRequest(
                order_id=order_id, quantity=20, order_type="LIMIT", product="MIS", price=Decimal("1391.5")
            )
        )
        await until(lambda: "Replaced" in here.words(order_id))
        sim.ask("POST", "/market/fill", {"uid": f"xts:{order_id}", "quantity": 8})
        partly = await here.status(order_id, OrderStatus.PARTIALLY_FILLED)
        sim.ask("POST", "/market/fill", {"uid": f"xts:{order_id}", "quantity": 12})
        filled = await here.status(order_id, OrderStatus.FILLED)
        await until(lambda: len(here.published.of(EventType.TRADE_UPDATE)) == 2)
        return order_id, here, partly, filled, await here.settled(), await here.adapter.trade_book()

    order_id, here, partly, filled, views, trades = sit(sim, story)

    assert here.words(order_id) == [
        "PendingNew",
        "New",
        "PendingReplace",
        "Replaced",
        "PartiallyFilled",
        "Filled",
    ]
    assert (partly.filled_quantity, partly.quantity, partly.tag) == (8, 20, "ow1")
    assert (filled.average_price, filled.price) == (Decimal("1391.50"), Decimal("1391.5"))
    assert (views[order_id].status, views[order_id].filled_quantity) == (OrderStatus.FILLED, 20)
    pushed = {
        (trade.trade_id, trade.quantity, trade.price) for trade in here.published.of(EventType.TRADE_UPDATE)
    }
    assert pushed == {(trade.trade_id, trade.quantity, trade.price) for trade in trades}


def test_a_cancelled_order_keeps_what_was_filled(sim):
    async def story(here):
        order_id = await here.place()
        await here.status(order_id, OrderStatus.OPEN)
        sim.ask("POST", "/market/fill", {"uid": f"xts:{order_id}", "quantity": 4})
        await here.status(order_id, OrderStatus.PARTIALLY_FILLED)
        await here.adapter.cancel_order(order_id)
        cancelled = await here.status(order_id, OrderStatus.CANCELLED)
        return cancelled, here.words(order_id), (await here.settled())[order_id]

    cancelled, words, view = sit(sim, story)

    assert (cancelled.filled_quantity, cancelled.reason) == (4, "")
    assert words[-2:] == ["PendingCancel", "Cancelled"]
    assert (view.status, view.filled_quantity, view.pending_quantity) == (OrderStatus.CANCELLED, 4, 0)


def test_an_unasked_cancellation_says_why(sim):
    async def story(here):
        order_id = await here.place()
        await here.status(order_id, OrderStatus.OPEN)
        sim.ask("POST", "/market/cancel", {"uid": f"xts:{order_id}"})
        return await here.status(order_id, OrderStatus.CANCELLED)

    assert sit(sim, story).reason.startswith("1")


def test_a_stop_order_waits_for_its_trigger(sim):
    async def story(here):
        order_id = await here.place(order_type="SL-M", price=Decimal(0), trigger_price=Decimal(830))
        waiting = await here.status(order_id, OrderStatus.TRIGGER_PENDING)
        sim.ask("POST", "/market/price", {"key": "NSE:SBIN", "price": "831"})
        filled = await here.status(order_id, OrderStatus.FILLED)
        return waiting, filled

    waiting, filled = sit(sim, story)

    assert (waiting.order_type, waiting.trigger_price) == ("SL-M", Decimal(830))
    assert (filled.order_type, filled.trigger_price, filled.filled_quantity) == ("MARKET", Decimal(830), 10)


def test_a_rejection_carries_the_brokers_words_and_no_fill(sim):
    async def story(here):
        order_id = await here.place(quantity=10)
        rejected = await here.status(order_id, OrderStatus.REJECTED)
        return rejected, (await here.settled())[order_id]

    rejected, view = sit(sim, story, credentials=sim.trader(cash=1))

    assert "Margin Exceeds" in rejected.reason
    assert (rejected.filled_quantity, rejected.exchange_order_id) == (0, "")
    assert (view.status, view.pending_quantity) == (OrderStatus.REJECTED, 0)


@pytest.mark.parametrize("refuse", ["refuse_modify", "refuse_cancel"])
def test_a_refused_request_never_rejects_the_order(sim, refuse):
    sim.fault(refuse, params={"message": "17070 : no"})

    async def story(here):
        order_id = await here.place()
        await here.status(order_id, OrderStatus.OPEN)
        if refuse == "refuse_modify":
            change = ModifyRequest(
                order_id=order_id, quantity=5, order_type="LIMIT", product="MIS", price=Decimal(810)
            )
            await here.adapter.modify_order(change)
        else:
            await here.adapter.cancel_order(order_id)
        await until(lambda: any(update.reason for update in here.of(order_id)))
        return here.of(order_id), (await here.settled())[order_id]

    updates, view = sit(sim, story)

    assert {update.overlay for update in updates} & {Overlay.PENDING_MODIFY, Overlay.PENDING_CANCEL}
    assert all(update.status is not OrderStatus.REJECTED for update in updates)
    assert (view.status, view.pending_modify, view.pending_cancel) == (OrderStatus.OPEN, False, False)
    assert view.quantity == 10


def test_an_order_of_the_terminal_arrives_as_well(sim):
    credentials = sim.trader(login_id="TERMINAL")

    async def story(here):
        order = {
            "user": "TERMINAL",
            "exchangeSegment": "NSECM",
            "exchangeInstrumentID": 3045,
            "productType": "MIS",
            "orderType": "MARKET",
            "orderSide": "BUY",
            "timeInForce": "DAY",
            "orderQuantity": 1,
            "disclosedQuantity": 0,
            "limitPrice": 0,
            "stopPrice": 0,
        }
        placed = sim.ask("POST", "/xts/orders", order)
        return await here.status(placed["order_id"], OrderStatus.FILLED)

    update = sit(sim, story, credentials=credentials)

    assert (update.placed_by, update.tag) == ("TWS", "")


def test_a_history_tells_an_orders_states_in_order(sim):
    async def story(here):
        order_id = await here.place(order_type="MARKET")
        await here.status(order_id, OrderStatus.FILLED)
        return await here.adapter.order_history(order_id)

    history = sit(sim, story)

    assert [(update.history_index, update.status) for update in history] == [
        (0, OrderStatus.PENDING_NEW),
        (1, OrderStatus.OPEN),
        (2, OrderStatus.FILLED),
    ]


def test_a_position_by_socket_equals_the_position_by_rest(sim):
    async def story(here):
        await here.place(order_type="MARKET", quantity=30)
        await until(lambda: here.published.of(EventType.POSITION_UPDATE))
        (pushed,) = here.published.of(EventType.POSITION_UPDATE)
        (read,) = await here.adapter.positions()
        return pushed, read, await here.adapter.funds()

    pushed, read, funds = sit(sim, story)

    assert (pushed.symbol, pushed.quantity, pushed.buy_quantity) == (
        read.symbol,
        read.quantity,
        read.buy_quantity,
    )
    assert (pushed.average_price, pushed.buy_value) == (read.average_price, read.buy_value)
    assert funds.utilised > 0


# --- whose orders -----------------------------------------------------------------------------------------


def test_a_dealer_follows_its_client_and_no_other(sim):
    dealer = sim.trader(kind="dealer", login_id="DLL70001", clients=["JD701", "JD702"])

    async def story(here):
        order_id = await here.place(order_type="MARKET")
        await here.status(order_id, OrderStatus.FILLED)
        order = {
            "user": "JD702",
            "exchangeSegment": "NSECM",
            "exchangeInstrumentID": 3045,
            "productType": "MIS",
        }
        order |= {"orderType": "MARKET", "orderSide": "BUY", "timeInForce": "DAY", "orderQuantity": 1}
        order |= {"disclosedQuantity": 0, "limitPrice": 0, "stopPrice": 0}
        other = sim.ask("POST", "/xts/orders", order)["order_id"]
        await until(lambda: here.adapter.foreign >= 4)
        return order_id, other, here.updates, await here.adapter.order_book()

    for books in ("plain", "dealer"):
        order_id, other, updates, book = sit(
            sim, story, credentials={**dealer, "client_id": "JD701"}, addresses={"books": books}
        )

        assert order_id in {update.order_id for update in book}
        assert other not in {update.order_id for update in [*updates, *book]}


def test_a_pro_dealer_is_one_account_in_three_spellings(sim):
    pro = sim.trader(kind="pro", login_id="ZZJ70001", clients=["PRO701"])

    async def story(here):
        order_id = await here.place(order_type="MARKET")
        filled = await here.status(order_id, OrderStatus.FILLED)
        spellings = {
            json.loads(update.raw)["ClientID"] for update in [filled, *await here.adapter.order_book()]
        }
        return (
            here.adapter.foreign,
            spellings,
            await here.adapter.positions(),
            await here.adapter.trade_book(),
        )

    foreign, spellings, positions, trades = sit(sim, story, credentials={**pro, "login_kind": "pro"})

    assert (foreign, spellings) == (0, {"PRO701", "Pro"})
    assert (len(positions), len(trades)) == (1, 1)


def test_a_client_that_is_not_the_dealers_is_refused(sim):
    dealer = sim.trader(kind="dealer", login_id="DLL70002", clients=["JD711"])

    with pytest.raises(OrderRefusedError):
        sit(sim, lambda here: here.place(), credentials={**dealer, "client_id": "JD799"}, listen=False)


# --- logging in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/interactive", "/1interactive", "/2hostlookup"])
@pytest.mark.parametrize("boolean", [False, True])
def test_hostlookup_and_its_connection_string_in_every_form(sim, path, boolean):
    sim.ask("PATCH", "/xts/settings", {"connection_path": path})
    if boolean:
        sim.fault("boolean_type")

    async def story(here):
        order_id = await here.place(order_type="MARKET")
        return await here.status(order_id, OrderStatus.FILLED)

    assert sit(sim, story, addresses={"hostlookup": "{host}/hostlookup"}).filled_quantity == 10


def test_wrong_keys_are_told(sim):
    with pytest.raises(SessionExpiredError):
        sit(sim, lambda here: here.place(), credentials={"app_key": "nosuch", "secret_key": "x"})


def test_a_second_login_ends_the_first_and_one_token_serves_both(sim):
    credentials = sim.trader()

    async def story(first):
        async with seat(sim, credentials=credentials, listen=False) as second:
            with pytest.raises(SessionExpiredError):
                await first.task
            with pytest.raises(SessionExpiredError):
                await first.adapter.order_book()
            first.adapter.session = second.adapter.session
            async with listening(first.adapter):
                await until(lambda: first.adapter.listening)
                order_id = await second.place(order_type="MARKET")
                return await first.status(order_id, OrderStatus.FILLED)

    assert sit(sim, story, credentials=credentials).filled_quantity == 10


def test_a_token_that_dies_ends_the_stream_and_the_reads(sim):
    credentials = sim.trader(login_id="DYING")

    async def story(here):
        sim.ask("POST", "/tokens/kill", {"broker": "xts", "user": "DYING"})
        with pytest.raises(SessionExpiredError):
            await here.task
        with pytest.raises(SessionExpiredError):
            await here.adapter.funds()

    sit(sim, story, credentials=credentials)


@pytest.mark.parametrize("refusal", ["http", "middleware", "event"])
def test_a_stale_token_is_recognised_however_the_socket_refuses_it(sim, refusal):
    sim.ask("PATCH", "/xts/settings", {"token_refusal": refusal})
    credentials = sim.trader(login_id=f"STALE{refusal}")

    async def story(here):
        sim.ask("POST", "/tokens/kill", {"broker": "xts", "user": f"STALE{refusal}"})
        await here.adapter.listen()

    with pytest.raises(SessionExpiredError):
        sit(sim, story, credentials=credentials, listen=False)


def test_logging_out_ends_the_token(sim):
    async def story(here):
        await here.adapter.logout()
        await here.adapter.order_book()

    with pytest.raises(SessionExpiredError):
        sit(sim, story, listen=False)


# --- sockets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.parametrize(
    ("mode", "revision", "attempts"),
    [
        ("sio2", "auto", 1),
        ("sio2", "4", 1),
        ("sio4_allow_eio3", "auto", 1),
        ("sio4_allow_eio3", "4", 1),
        ("sio4_only", "auto", 2),
        ("sio4_only", "4", 1),
    ],
)
def test_every_kind_of_socket_delivers_each_event_once(sim, transport, mode, revision, attempts):
    sim.ask("PATCH", "/xts/settings", {"socket_mode": mode})

    async def story(here):
        for _ in range(attempts - 1):
            with pytest.raises(BrokerUnreachableError):
                await here.adapter.listen()
        async with listening(here.adapter):
            await until(lambda: here.adapter.listening)
            order_id = await here.place(order_type="MARKET")
            await until(lambda: here.published.of(EventType.POSITION_UPDATE))
            return here.of(order_id), here.published.of(EventType.TRADE_UPDATE)

    updates, trades = sit(sim, story, addresses={"transport": transport, "revision": revision}, listen=False)

    # the fill is told by the order event and by the trade event
    assert [update.raw_status for update in updates] == ["PendingNew", "New", "Filled", "Filled"]
    assert len(trades) == 1


def test_a_half_open_socket_is_noticed_within_eight_seconds(sim, gate):
    sim.fault("silence", operation="order.PendingNew")

    async def story(here):
        began = time.monotonic()
        await here.place()
        with pytest.raises(BrokerUnreachableError, match="ping was not answered"):
            await here.task
        return time.monotonic() - began

    seconds = sit(sim, story)

    gate("half-open XTS socket noticed by the adapter", seconds, most=8)


def test_a_handshake_refused_for_other_reasons_is_tried_again(sim):
    sim.fault("refuse_handshake", count=1)

    async def story(here):
        with pytest.raises(BrokerUnreachableError, match="403"):
            await here.adapter.listen()
        async with listening(here.adapter):
            await until(lambda: here.adapter.listening)
            return here.adapter.winner

    assert sit(sim, story, listen=False) == 3


@pytest.mark.parametrize("mode", ["abort", "close"])
def test_a_cut_socket_is_told_at_once_and_works_again(sim, mode):
    credentials = sim.trader(login_id=f"CUT{mode}")

    async def story(here):
        sim.ask("POST", "/sockets/disconnect", {"broker": "xts", "user": f"CUT{mode}", "mode": mode})
        with pytest.raises(BrokerUnreachableError):
            await here.task
        async with listening(here.adapter):
            await until(lambda: here.adapter.listening)
            return await here.status(await here.place(order_type="MARKET"), OrderStatus.FILLED)

    assert sit(sim, story, credentials=credentials).filled_quantity == 10


# --- faults -----------------------------------------------------------------------------------------------

PUSH_FAULTS = [
    ("drop", {"probability": 0.5}),
    ("drop", {"operation": "order"}),
    ("duplicate", {"params": {"times": 3, "gap": 0.01}}),
    ("reorder", {"params": {"wait": 0.05}}),
    ("delay", {"probability": 0.5, "params": {"seconds": 0.1}}),
    ("corrupt", {"probability": 0.4}),
    ("truncate", {"probability": 0.4, "channel": "sio"}),
    ("dict_payload", {}),
    ("missing_fields", {}),
    ("trade_before_order", {}),
    ("stale_open", {}),
    ("clock_skew", {}),
    ("unknown_status", {"probability": 0.4}),
    ("push_before_response", {}),
    ("old_format", {}),
    ("rest_lag", {"count": 2, "params": {"seconds": 0.3}}),
    ("slow", {"params": {"seconds": 0.05}}),
]


@pytest.mark.parametrize(("kind", "fields"), PUSH_FAULTS, ids=str)
def test_under_every_fault_the_state_ends_as_the_brokers_book(sim, kind, fields):
    async def story(here):
        sim.fault(kind, **fields)
        bought = await here.place(order_type="MARKET")
        partly, waiting = await here.place(), await here.place(quantity=7)
        await until(lambda: all(sim.order(each)["stage"] == "OPEN" for each in (partly, waiting)))
        sim.ask("POST", "/market/fill", {"uid": f"xts:{partly}", "quantity": 3})
        await here.adapter.cancel_order(waiting)
        await until(lambda: sim.order(waiting)["stage"] == "CANCELLED")
        await until(lambda: sim.order(bought)["stage"] == "FILLED")
        await asyncio.sleep(0.4)  # the longest delay above, so that late pushes are part of the story
        return (bought, partly, waiting), await here.settled()

    orders, views = sit(sim, story)

    for order_id in orders:
        truth, view = sim.order(order_id), views[order_id]
        expected = STAGES.get(truth["stage"], OrderStatus.PARTIALLY_FILLED)
        assert (view.status, view.filled_quantity) == (expected, truth["filled"])
        assert view.average_price == Decimal(truth["average"]).quantize(Decimal("0.01"))


def test_unreadable_events_are_counted_and_the_stream_stays(sim):
    async def story(here):
        sim.fault("corrupt", operation="order.New")
        order_id = await here.place(order_type="MARKET")
        await here.status(order_id, OrderStatus.FILLED)
        return here.adapter.violations, here.task.done()

    assert sit(sim, story) == (1, False)


@pytest.mark.parametrize("empty", ["error", "success"])
def test_empty_books_are_empty(sim, empty):
    if empty == "success":
        sim.fault("empty_success")

    async def story(here):
        adapter = here.adapter
        return [*await adapter.order_book(), *await adapter.trade_book(), *await adapter.positions()]

    assert sit(sim, story, listen=False) == []


def test_a_history_asked_for_too_early_is_not_an_error_of_ours(sim):
    async def story(here):
        sim.fault("early_history", count=1)
        order_id = await here.place()
        with pytest.raises(BrokerUnreachableError):
            await here.adapter.order_history(order_id)
        return await here.adapter.order_history(order_id)

    assert sit(sim, story, listen=False)


@pytest.mark.parametrize(
    ("kind", "params", "expected"),
    [
        ("rate_limit", {}, RateLimitedError),
        ("html_error", {"status": 502}, BrokerUnreachableError),
        ("html_error", {"status": 404}, BrokerUnreachableError),
        ("server_error", {"status": 500}, BrokerUnreachableError),
        ("unauthorized", {}, SessionExpiredError),
        ("disconnect", {}, BrokerUnreachableError),
        ("truncate", {}, BrokerUnreachableError),
    ],
)
def test_what_a_read_raises_when_the_host_misbehaves(sim, kind, params, expected):
    async def story(here):
        sim.fault(kind, operation="orders", count=1, params=params)
        await here.adapter.order_book()

    with pytest.raises(expected):
        sit(sim, story, listen=False)


@pytest.mark.parametrize(
    ("kind", "params"), [("server_error", {"done": True}), ("disconnect", {"done": True}), ("truncate", {})]
)
def test_a_placement_without_a_clear_answer_may_exist_and_is_found_by_its_tag(sim, kind, params):
    async def story(here):
        sim.fault(kind, operation="orders.place", count=1, params=params)
        with pytest.raises(BrokerUnreachableError) as caught:
            await here.place(tag="owdoubt1")
        return caught.value.sent, [update.tag for update in await here.adapter.order_book()]

    assert sit(sim, story, listen=False) == (True, ["owdoubt1"])


def test_an_order_the_broker_does_not_understand_is_refused_with_its_words(sim):
    async def story(here):
        await here.adapter.cancel_order(OrderId("4040404040"))

    with pytest.raises(OrderRefusedError):
        sit(sim, story, listen=False)


def test_reads_wait_for_their_budget_instead_of_meeting_the_limit(sim):
    async def story(here):
        began = time.monotonic()
        for _ in range(13):
            await here.adapter.order_book()
        return time.monotonic() - began

    assert 2.0 <= sit(sim, story, listen=False) < 6.0


def test_the_instrument_list_may_want_market_data_keys(sim):
    sim.ask("PATCH", "/xts/settings", {"master_needs_token": True})
    keys = sim.trader()

    with pytest.raises(PermissionRefusedError, match="market_app_key"):
        sit(sim, lambda here: here.place(), credentials=keys, listen=False)

    market = {"market_app_key": keys["app_key"], "market_secret_key": keys["secret_key"]}

    async def story(here):
        return here.adapter.tools.instruments.by_symbol("NSE", "SBIN").token

    assert sit(sim, story, credentials={**keys, **market}, listen=False) == 3045


@pytest.mark.parametrize(("mode", "spoken"), [("sio2", 3), ("sio4_only", 4)])
def test_the_first_days_list_passes_and_tells_what_is_spoken(sim, mode, spoken):
    sim.ask("PATCH", "/xts/settings", {"socket_mode": mode})

    async def work():
        async with adapter_of(JainamAdapter, profile_at(sim.url, credentials=sim.trader())) as (adapter, _):
            return await checklist_of(adapter, seconds=0.5)

    found = run(work())

    assert [finding for finding in found if not finding.ok] == []
    assert f"Engine.IO {spoken}" in next(finding.detail for finding in found if finding.name == "stream")


# --- figures ----------------------------------------------------------------------------------------------


def test_the_push_arrives_soon_after_the_placement(sim):
    async def story(here):
        seconds = []
        for number in range(40):
            began = time.time_ns()
            order_id = await here.place(order_type="MARKET", quantity=1, tag=f"owfig{number}")
            filled = await here.status(order_id, OrderStatus.FILLED)
            seconds.append((filled.received_ns - began) / 1e9)
        return seconds

    seconds = sit(sim, story)

    cuts = quantiles(seconds, n=20)
    print(
        f"\nplaced to FILLED received: p50 {cuts[9] * 1000:.0f} ms, p95 {cuts[18] * 1000:.0f} ms, 40 orders"
    )
    assert cuts[18] < 0.5


def test_a_token_of_the_host_is_taken_over_with_the_user_of_its_own_claim(sim):
    async def story(seat):
        own = seat.adapter.session
        taken = await seat.adapter.adopt(own.secrets["token"])
        seat.adapter.session = taken
        assert await seat.adapter.order_book() == []
        refused = []
        for wrong in ("no token", "e30.e30.c2ln", f"{own.secrets['token'][:-4]}AAAA"):
            with pytest.raises(SessionExpiredError) as error:
                await seat.adapter.adopt(wrong)
            refused.append(str(error.value))
        return own, taken, refused

    own, taken, refused = sit(sim, story, listen=False)

    assert taken.user_id.startswith(f"{own.user_id}_")  # the claim names the app key too
    assert taken.secrets == own.secrets
    assert taken.expires_at == own.expires_at
    assert "names no user" in refused[0]
    assert "names no user" in refused[1]
    assert "no longer accepts" in refused[2]
