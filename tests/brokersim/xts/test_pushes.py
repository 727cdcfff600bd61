import asyncio
import json

import pytest

from brokersim.faults import FaultKind
from brokersim.world import Settings
from xts_harness import ended, events_until, next_event, nothing_more, serving, story


async def listening(desk, token):
    socket = await desk.socket(token)
    assert (await next_event(socket))[0] == "joined"
    return socket


def told(events):
    return [(name, row.get("OrderStatus") or row.get("IsDayWiseNetWise")) for name, row in events]


async def take(socket, count):
    return [await next_event(socket) for _ in range(count)]


@story
async def test_a_fill_is_told_by_order_trade_and_both_positions():
    async with serving() as desk:
        token = await desk.log_in()
        socket = await listening(desk, token)
        order_id = await desk.place(token)
        desk.pass_time()
        await take(socket, 2)

        desk.world.exchange.fill(f"xts:{order_id}", 20)

        events = await take(socket, 4)
        assert told(events) == [
            ("order", "PartiallyFilled"),
            ("trade", "PartiallyFilled"),
            ("position", "DayWise"),
            ("position", "NetWise"),
        ]
        order, trade = events[0][1], events[1][1]
        assert (order["CumulativeQuantity"], order["LeavesQuantity"]) == (20, 30)
        assert (trade["LastTradedQuantity"], trade["ExecutionReportIndex"]) == (20, 3)
        assert (events[2][1]["NetPosition"], events[2][1]["LoginID"]) == ("20", "JN0001")


@story
async def test_arguments_are_json_strings():
    async with serving() as desk:
        token = await desk.log_in()
        socket = await listening(desk, token)
        await desk.place(token)

        name, argument = json.loads((await socket.recv())[2:])

        assert name == "order"
        assert isinstance(argument, str)
        assert argument.isascii()


@story
async def test_modify_and_cancel_are_told_step_by_step():
    async with serving() as desk:
        token = await desk.log_in()
        socket = await listening(desk, token)
        order_id = await desk.place(token)
        desk.pass_time()
        desk.world.exchange.cancel(f"xts:{order_id}")
        desk.pass_time()

        assert [status for _, status in told(await take(socket, 4))] == [
            "PendingNew",
            "New",
            "PendingCancel",
            "Cancelled",
        ]


@story
async def test_sequence_numbers_are_unique():
    async with serving() as desk:
        token = await desk.log_in()
        socket = await listening(desk, token)
        order_id = await desk.place(token)
        desk.pass_time()
        desk.world.exchange.fill(f"xts:{order_id}", 50)

        numbers = [row["SequenceNumber"] for _, row in await take(socket, 4)]

        assert len(set(numbers)) == 4
        assert {len(str(each)) for each in numbers} == {16}


@story
async def test_there_is_no_replay_and_the_ledger_knows_what_was_lost():
    async with serving() as desk:
        token = await desk.log_in()
        order_id = await desk.place(token)

        socket = await listening(desk, token)
        desk.pass_time()

        assert told(await take(socket, 1)) == [("order", "New")]
        fates = [(each.what, each.fate) for each in desk.world.ledger.messages(channel="sio")]
        assert fates == [("order.PendingNew", "LOST"), ("order.New", "SENT")]
        assert desk.world.ledger.truths(order_id=str(order_id))


@story
async def test_pushes_are_delayed_but_keep_their_order():
    async with serving(settings=Settings(reply_delay=0, push_delay=0.05)) as desk:
        token = await desk.log_in()
        socket = await listening(desk, token)
        started = asyncio.get_running_loop().time()
        order_id = await desk.place(token)
        desk.pass_time()
        desk.world.exchange.fill(f"xts:{order_id}", 50)

        events = await take(socket, 6)

        assert told(events)[:3] == [("order", "PendingNew"), ("order", "New"), ("order", "Filled")]
        assert asyncio.get_running_loop().time() - started >= 0.05


@pytest.mark.parametrize(
    ("kind", "selectors", "seen"),
    [
        (FaultKind.DROP, {"operation": "order.New"}, ["PendingNew", "Filled"]),
        (FaultKind.DUPLICATE, {"operation": "order.New"}, ["PendingNew", "New", "New", "Filled"]),
        (FaultKind.REORDER, {"operation": "order.New"}, ["PendingNew", "Filled", "New"]),
        (
            FaultKind.DELAY,
            {"operation": "order.New", "params": {"seconds": 0.05}},
            ["PendingNew", "Filled", "New"],
        ),
        (FaultKind.STALE_OPEN, {"params": {"seconds": 0.01}}, ["PendingNew", "New", "Filled", "New"]),
        (
            FaultKind.UNKNOWN_STATUS,
            {"operation": "order.New", "params": {"status": "Suspended"}},
            ["PendingNew", "Suspended", "Filled"],
        ),
    ],
)
@story
async def test_faults_of_single_pushes(kind, selectors, seen):
    async with serving() as desk:
        token = await desk.log_in()
        socket = await listening(desk, token)
        desk.world.faults.add(kind, count=1, **selectors)
        order_id = await desk.place(token)
        desk.pass_time()
        desk.world.exchange.fill(f"xts:{order_id}", 50)

        statuses = []
        while len(statuses) < len(seen):
            name, row = await next_event(socket)
            statuses += [row["OrderStatus"]] if name == "order" else []

        assert statuses == seen


@story
async def test_dropped_pushes_are_in_the_ledger_with_the_fault():
    async with serving() as desk:
        token = await desk.log_in()
        socket = await listening(desk, token)
        desk.world.faults.add(FaultKind.DROP, count=1)
        await desk.place(token)
        desk.pass_time()
        await take(socket, 1)

        first = next(desk.world.ledger.messages(channel="sio"))

        assert (first.what, first.fate, first.faults) == ("order.PendingNew", "DROPPED", ("drop",))


@story
async def test_held_push_does_not_wait_for_ever():
    async with serving() as desk:
        token = await desk.log_in()
        socket = await listening(desk, token)
        desk.world.faults.add(FaultKind.REORDER, count=1, params={"wait": 0.02})

        await desk.place(token)

        assert told(await take(socket, 1)) == [("order", "PendingNew")]


@story
async def test_trade_before_order():
    async with serving() as desk:
        token = await desk.log_in()
        socket = await listening(desk, token)
        desk.world.faults.add(FaultKind.TRADE_BEFORE_ORDER)
        order_id = await desk.place(token)
        desk.pass_time()
        desk.world.exchange.fill(f"xts:{order_id}", 50)

        assert [name for name, _ in (await take(socket, 4))[2:]] == ["trade", "order"]


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (FaultKind.DICT_PAYLOAD, lambda argument: argument["OrderStatus"] == "PendingNew"),
        (FaultKind.CORRUPT, lambda argument: "#!?#" in argument),
        (FaultKind.TRUNCATE, lambda argument: not argument.endswith("}")),
        (FaultKind.MISSING_FIELDS, lambda argument: "TradingSymbol" not in argument),
        (FaultKind.CLOCK_SKEW, lambda argument: "10:00:01.15" in argument),
    ],
)
@story
async def test_faults_of_the_payload(kind, check):
    async with serving() as desk:
        token = await desk.log_in()
        socket = await listening(desk, token)
        desk.world.faults.add(kind, channel="sio", count=1)
        await desk.place(token)

        _, argument = json.loads((await socket.recv())[2:])

        assert check(argument)


@story
async def test_half_open_socket():
    async with serving() as desk:
        token = await desk.log_in()
        socket = await listening(desk, token)
        desk.world.faults.add(FaultKind.SILENCE, count=1)
        await desk.place(token)
        await socket.send("2")

        await nothing_more(socket)

        assert [each.fate for each in desk.world.ledger.messages(channel="sio")] == ["LOST"]
        assert desk.front.sockets()[0]["frozen"]


@pytest.mark.parametrize(("mode", "code"), [("abort", 1006), ("close", 1005)])
@story
async def test_disconnect(mode, code):
    async with serving() as desk:
        token = await desk.log_in()
        socket = await listening(desk, token)
        desk.world.faults.add(FaultKind.DISCONNECT, channel="sio", count=1, params={"mode": mode})

        await desk.place(token)

        assert await ended(socket) == code
        await listening(desk, token)


@story
async def test_token_death_with_a_push():
    async with serving() as desk:
        token = await desk.log_in()
        socket = await listening(desk, token)
        desk.world.faults.add(FaultKind.TOKEN_DEATH, channel="sio", count=1)
        await desk.place(token)

        assert (await next_event(socket))[0] == "logout"
        await nothing_more(socket)
        assert (await desk.refused("GET", "/orders", token=token))[1] == "e-session-0005"


@pytest.mark.parametrize("early", [True, False])
@story
async def test_push_before_the_response(early):
    async with serving(settings=Settings(reply_delay=0, push_delay=0.03)) as desk:
        token = await desk.log_in()
        socket = await listening(desk, token)
        if early:
            desk.world.faults.add(FaultKind.PUSH_BEFORE_RESPONSE)
        push = asyncio.create_task(next_event(socket))

        await desk.place(token)

        assert push.done() is early
        await push


@story
async def test_both_sockets_of_one_token_hear_everything():
    async with serving() as desk:
        token = await desk.log_in()
        first, second = await listening(desk, token), await listening(desk, token)
        await desk.place(token)

        for socket in (first, second):
            assert (await events_until(socket, "order", "PendingNew"))[0][1]["OrderQuantity"] == 50
