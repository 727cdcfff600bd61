"""Kite's WebSocket: who gets in, what comes out, and how it fails."""

import json
import struct

import aiohttp
import pytest

PLACED = ("OPEN", "UPDATE", "COMPLETE")


def statuses(frames):
    return [frame["status"] for frame in frames]


def test_an_orders_life_comes_as_order_frames_without_subscribing(kite):
    socket = kite.socket()

    order_id = kite.place(quantity=10, price=820.5, tag="mine")
    kite.pass_time(0.1)
    first = socket.orders(1)[0]
    kite.pass_time(4)
    rest = socket.orders(len(kite.data("GET", f"/orders/{order_id}/trades")))

    assert first["status"] == "OPEN"
    assert first["account_id"] == "ZD0001"
    assert first["checksum"] == ""
    assert first["tags"] == ["mine"]
    assert "user_id" not in first
    assert set(statuses(rest[:-1])) == {"UPDATE"}
    assert (rest[-1]["status"], rest[-1]["filled_quantity"]) == ("COMPLETE", 10)


def test_the_frame_has_kites_envelope(kite):
    socket = kite.socket()

    kite.place()
    kite.pass_time(0.1)
    message = socket.next_but_binary()

    assert set(json.loads(message.data)) == {"type", "id", "data"}
    assert json.loads(message.data)["id"] == ""


def test_heartbeats_are_single_bytes_and_ticks_can_be_mixed_in(kite):
    kite.settings(kite_heartbeat=0.01, kite_tick_noise=True)
    socket = kite.socket()

    beat, tick = socket.next(), socket.next()

    assert beat.data == b"\x00"
    count, length, token, paise = struct.unpack(">HHII", tick.data)
    assert (count, length, token, paise) == (1, 8, 779521, 82_000)


@pytest.mark.parametrize(
    ("api_key", "user_token", "status"), [("demokite", "wrong", 403), ("other", None, 403)]
)
def test_a_handshake_needs_the_right_token(kite, api_key, user_token, status):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        kite.socket(token=user_token or kite.token, api_key=api_key)

    assert refused.value.status == status


def test_the_free_plan_has_no_socket(kite):
    token = kite.log_in("ZD0001", "demofree")

    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        kite.socket(token, "demofree")

    assert refused.value.status == 403


def test_the_fourth_connection_is_one_too_many(kite):
    sockets = [kite.socket() for _ in range(3)]

    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        kite.socket()

    assert refused.value.status == 429
    assert len(kite.control("GET", "/sockets")["data"]["kite"]) == len(sockets)


def test_every_connection_of_the_user_gets_every_update_and_nobody_else(kite):
    mine = [kite.socket(), kite.socket()]
    other = kite.socket(kite.log_in("ZD0002"))

    kite.place()
    kite.pass_time(0.1)
    found = [socket.orders(1)[0]["order_id"] for socket in mine]
    kite.control("POST", "/kite/frames", user="ZD0002", text='{"type":"message","data":"only this"}')

    assert found[0] == found[1]
    assert other.orders(1) == ["only this"]


def test_orders_from_elsewhere_come_as_well(kite):
    socket = kite.socket()

    form = {"user": "ZD0001", "exchange": "NSE", "tradingsymbol": "SBIN", "transaction_type": "BUY"}
    form |= {"quantity": "1", "product": "CNC", "order_type": "LIMIT", "price": "800"}
    placed = kite.control("POST", "/kite/orders/regular", **form)
    kite.pass_time(0.1)

    assert socket.orders(1)[0]["order_id"] == placed["data"]["order_id"]


def test_what_happens_while_nobody_listens_is_lost_for_good(kite):
    kite.place()
    kite.pass_time(0.1)

    socket = kite.socket()
    kite.control("POST", "/kite/frames", text='{"type":"message","data":"first"}')

    assert socket.orders(1) == ["first"]
    lost = kite.control("GET", "/ledger/messages?channel=ws")["data"]
    assert [(each["what"], each["fate"]) for each in lost] == [("OPEN", "LOST")]


def test_a_dead_token_does_not_close_an_open_socket_but_keeps_new_ones_out(kite):
    socket = kite.socket()
    kite.place()

    kite.control("POST", "/tokens/kill", broker="kite", user="ZD0001")
    kite.pass_time(0.1)

    assert statuses(socket.orders(1)) == ["OPEN"]
    with pytest.raises(aiohttp.WSServerHandshakeError):
        kite.socket()


@pytest.mark.parametrize(
    ("mode", "ends"),
    [("abort", {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}), ("close", {aiohttp.WSMsgType.CLOSE})],
)
def test_a_connection_can_be_cut_in_two_ways(kite, mode, ends):
    socket = kite.socket()

    kite.control("POST", "/sockets/disconnect", broker="kite", mode=mode)
    message = socket.next_but_binary()

    assert message.type in ends
    if mode == "close":
        assert message.data == 1000


def test_a_silent_connection_stays_open_and_says_nothing(kite):
    kite.settings(kite_heartbeat=0.01)
    kite.control("POST", "/faults", kind="silence", channel="ws", count=1)
    silent, normal = kite.socket(), kite.socket()

    kite.place()
    kite.pass_time(0.1)
    normal.orders(1)

    with pytest.raises(TimeoutError):
        kite.run(silent.ws.receive(timeout=0.1))
    fates = [each["fate"] for each in kite.control("GET", "/ledger/messages?channel=ws")["data"]]
    assert sorted(fates) == ["LOST", "SENT"]


def test_a_refused_handshake_by_switch(kite):
    kite.control("POST", "/faults", kind="refuse_handshake", count=1, params={"status": 429})

    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        kite.socket()

    assert refused.value.status == 429
    assert kite.socket()


def test_a_push_can_be_dropped(kite):
    socket = kite.socket()
    kite.control("POST", "/faults", kind="drop", channel="ws", operation="OPEN")

    kite.place(price=820.5)
    kite.pass_time(4)

    assert "OPEN" not in statuses(socket.orders(2))
    fates = kite.control("GET", "/ledger/messages?channel=ws&fate=DROPPED")["data"]
    assert [(each["what"], each["faults"]) for each in fates] == [("OPEN", ["drop"])]


def test_pushes_can_be_doubled_delayed_and_reordered(kite):
    socket = kite.socket()
    kite.control("POST", "/faults", kind="duplicate", channel="ws", operation="OPEN")
    kite.control("POST", "/faults", kind="reorder", channel="ws", operation="COMPLETE", params={"wait": 3})

    kite.place(price=820.5, quantity=1)
    kite.pass_time(1)
    kite.place(price=800)
    kite.pass_time(5)

    assert statuses(socket.orders(5)) == ["OPEN", "OPEN", "OPEN", "OPEN", "COMPLETE"]


def test_a_push_can_be_cut_short(kite):
    socket = kite.socket()
    kite.control("POST", "/faults", kind="truncate", channel="ws", params={"keep": 0.5})

    kite.place()
    kite.pass_time(0.1)
    message = socket.next_but_binary()

    with pytest.raises(json.JSONDecodeError):
        json.loads(message.data)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("complete_before_open", ["COMPLETE", "OPEN"]),
        ("stale_open", ["OPEN", "COMPLETE", "OPEN"]),
        ("unknown_status", ["SUSPENDED", "SUSPENDED"]),
    ],
)
def test_kites_irregular_stories(kite, kind, expected):
    socket = kite.socket()
    kite.control("POST", "/faults", kind=kind, channel="ws")

    kite.place(price=820.5, quantity=1)
    kite.pass_time(5)

    assert statuses(socket.orders(len(expected))) == expected


def test_an_update_can_follow_complete_and_cancelled_come_twice(kite):
    socket = kite.socket()
    kite.control("POST", "/faults", kind="update_after_complete", channel="ws")
    kite.control("POST", "/faults", kind="double_cancelled", channel="ws")

    order_id = kite.place(price=800, quantity=10)
    kite.pass_time(0.1)
    kite.world.exchange.fill(f"kite:{order_id}", 4)
    kite.world.exchange.fill(f"kite:{order_id}", 6)
    kite.pass_time(0.1)
    assert statuses(socket.orders(4)) == ["OPEN", "UPDATE", "COMPLETE", "UPDATE"]
    other = kite.place(price=800)
    kite.pass_time(0.1)
    kite.data("DELETE", f"/orders/regular/{other}")
    kite.pass_time(0.2)

    assert statuses(socket.orders(3)) == ["OPEN", "CANCELLED", "CANCELLED"]


def test_fields_can_be_spelt_the_other_way(kite):
    socket = kite.socket()
    kite.control("POST", "/faults", kind="field_variants", channel="ws")

    kite.place(tag="mine")
    kite.pass_time(0.1)

    frame = socket.orders(1)[0]
    assert frame["parent_order_id"] == frame["status_message"] == ""
    assert "tags" not in frame


def test_unknown_frames_and_text_that_is_no_json_come_before_a_push(kite):
    socket = kite.socket()
    kite.control("POST", "/faults", kind="unknown_frame", channel="ws", count=1)

    kite.place()
    kite.pass_time(0.1)
    texts = [socket.next_but_binary().data for _ in range(3)]

    assert json.loads(texts[0])["type"] == "weather"
    assert texts[1] == "this is not JSON"
    assert json.loads(texts[2])["type"] == "order"


def test_a_push_can_cut_the_connection_instead(kite):
    socket = kite.socket()
    kite.control("POST", "/faults", kind="disconnect", channel="ws", operation="OPEN")

    kite.place()
    kite.pass_time(0.1)
    message = socket.next_but_binary()

    assert message.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
    assert kite.control("GET", "/ledger/messages?channel=ws")["data"][0]["fate"] == "LOST"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("kite_ws_sends_open", "REJECTED"), ("kite_pushes_risk_rejections", "OPEN")],
)
def test_pushes_that_are_not_certain_can_be_switched_off(kite, setting, expected):
    kite.settings(**{setting: False})
    socket = kite.socket()

    kite.place(price=800)
    kite.place(price=820, quantity=50_000)
    kite.pass_time(0.1)

    assert socket.orders(1)[0]["status"] == expected
    sent = kite.control("GET", "/ledger/messages?channel=ws")["data"]
    assert [each["what"] for each in sent] == [expected]


def test_client_pings_are_answered(kite):
    socket = kite.socket()

    async def ping():
        await socket.ws.ping(b"hello")
        while True:
            message = await socket.ws.receive(timeout=5)
            if message.type is aiohttp.WSMsgType.PONG:
                return message.data

    socket.ws._autoping = False

    assert kite.run(ping()) == b"hello"
