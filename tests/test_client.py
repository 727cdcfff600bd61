import asyncio
import errno
import json
import socket
import threading

import pytest
import socketio
from engineio.packet import MESSAGE, Packet
from werkzeug.serving import make_server

from house import ZERODHA, eventually, running_house
from orderwire.client import Orders, OrderStream, RequestRefusedError, StreamRefusedError
from orderwire.errors import OrderwireError


def snapshot(sequence, epoch="e1", orders=()):
    return {"account": "a", "epoch": epoch, "sequence": sequence, "orders": list(orders)}


def change(sequence, epoch="e1", previous=None):
    before = sequence - 1 if previous is None else previous
    return {"account": "a", "epoch": epoch, "sequence": sequence, "previous": before, "row": "r"}


@pytest.fixture
def stream():
    return OrderStream("http://127.0.0.1:9", apikey="k")


def told(stream, name, fields):
    stream._taker(name)(fields)
    event = stream.next(timeout=0)
    return event.kind if event else None


def test_the_same_change_is_never_told_twice(stream):
    assert told(stream, "snapshot", snapshot(5)) == "snapshot"
    assert told(stream, "order_update", change(5)) is None
    assert told(stream, "order_update", change(6)) == "order"
    assert told(stream, "order_update", change(6)) is None


@pytest.fixture
def asked(stream, monkeypatch):
    """How often the stream asked to be brought up to date."""
    asked = []
    monkeypatch.setattr(stream, "_follow", lambda: asked.append(stream.cursors))
    return asked


@pytest.mark.parametrize("odd", [change(7, previous=6), change(1, epoch="e2"), change(6) | {"account": "b"}])
def test_what_does_not_continue_what_is_known_is_asked_about_and_not_told(stream, asked, odd):
    told(stream, "snapshot", snapshot(5))

    assert told(stream, "order_update", odd) is None
    assert asked == [{"a": ("e1", 5)}]


def test_conflation_by_the_service_is_no_gap(stream, asked):
    told(stream, "snapshot", snapshot(5))

    assert told(stream, "order_update", change(9, previous=5)) == "order"
    assert told(stream, "order_update", change(12, previous=9)) == "order"
    assert asked == []


def test_a_kept_cursor_goes_on_where_it_was():
    stream = OrderStream("http://127.0.0.1:9", apikey="k", cursors={"a": ("e1", 5)})

    assert told(stream, "order_update", change(5)) is None
    assert told(stream, "order_update", change(6)) == "order"
    assert stream.cursors == {"a": ("e1", 6)}


def test_a_snapshot_is_always_told(stream):
    told(stream, "snapshot", snapshot(5))

    assert told(stream, "snapshot", snapshot(5)) == "snapshot"


def test_changes_are_taken_in_the_order_they_came(stream, monkeypatch):
    """The library would start a thread for each, and those may overtake: all are taken where they are read."""
    threads = set()
    monkeypatch.setattr(stream, "_is_new", lambda *_: threads.add(threading.get_ident()) or True)
    stream._client.namespaces["/"] = "sid"

    for number in range(100):
        frame = "2" + json.dumps(["order_update", change(number)])
        stream._client.eio._receive_packet(Packet(MESSAGE, frame))

    assert [stream.next(timeout=1).fields["sequence"] for _ in range(100)] == list(range(100))
    assert threads == {threading.get_ident()}


def test_a_busy_service_may_take_more_than_a_second_to_let_a_stream_in():
    """It was left after one and asked again at once, by every client there is: a busy service never got rid of them."""
    patience = threading.Timer(1.3, lambda: None)  # more than the second that the library waits
    greeted = []
    server = socketio.Server(async_mode="threading")

    @server.on("connect")
    def let_in(_sid, _environ, _auth):
        patience.join()
        greeted.append(1)

    listening = make_server("127.0.0.1", 0, socketio.WSGIApp(server), threaded=True)
    serving = threading.Thread(target=listening.serve_forever)
    serving.start()
    patience.start()
    try:
        with OrderStream(f"http://127.0.0.1:{listening.server_port}", apikey="k"):
            assert greeted == [1]
    finally:
        listening.shutdown()
        serving.join()
        listening.server_close()
        server.shutdown()


def test_a_service_that_is_not_there_is_named(stream):
    with pytest.raises(OrderwireError, match=r"127\.0\.0\.1:9"):
        stream.connect()


class TestAgainstTheService:
    @pytest.fixture(scope="class")
    @classmethod
    def house(cls, tmp_path_factory):
        with running_house(tmp_path_factory.mktemp("house")) as house:
            yield house

    def test_a_wrong_key_is_refused(self, house):
        with pytest.raises(StreamRefusedError):
            OrderStream(house.url, apikey="wrong").connect()

    def test_an_order_is_followed_from_its_snapshot_to_its_fill_in_sequence(self, house):
        with OrderStream(house.url, apikey=house.keys["asha"]) as stream:
            first = stream.next(timeout=10)
            made = house.place(ZERODHA, quantity=2, order_type="MARKET")
            seen = []
            eventually(lambda: take(stream, seen) and filled(seen, made["id"]))

        sequences = [event.fields["sequence"] for event in seen if event.kind != "feed"]
        assert first.kind == "snapshot"
        assert sequences == sorted(set(sequences))

    def test_async_for_follows_orders_to_their_fill(self, house):
        made = {}

        async def until_filled():
            async for event in OrderStream(house.url, apikey=house.keys["asha"]):
                if event.kind == "snapshot":
                    made.update(
                        await asyncio.to_thread(house.place, ZERODHA, quantity=2, order_type="MARKET")
                    )
                if any(order.row == made.get("id") and order.status == "FILLED" for order in event.orders):
                    return event.order
            return None

        order = asyncio.run(asyncio.wait_for(until_filled(), 60))

        assert (order.filled_quantity, order.pending_quantity, order.order_status) == (2, 0, "complete")

    def test_callbacks_are_called_for_the_snapshot_and_each_change(self, house):
        stream = OrderStream(house.url, apikey=house.keys["asha"])
        seen, feeds = [], []

        def look(order):
            seen.append(order)
            if order.row == made["id"] and not order.live:
                stream.close()

        made = house.place(ZERODHA, quantity=3, order_type="MARKET")
        stream.on_order(look)
        stream.on(feeds.append, "feed")
        stream.run()

        assert seen[-1].filled_quantity == 3
        assert all(event.feed.account == ZERODHA for event in feeds)

    def test_a_stream_of_yesterday_goes_on_without_a_snapshot(self, house):
        with OrderStream(house.url, apikey=house.keys["asha"]) as stream:
            stream.next(timeout=10)
            cursors = stream.cursors
        made = house.place(ZERODHA, quantity=2, order_type="MARKET")

        with OrderStream(house.url, apikey=house.keys["asha"], cursors=cursors) as stream:
            seen = []
            eventually(lambda: take(stream, seen) and filled(seen, made["id"]))

        assert "snapshot" not in {event.kind for event in seen}

    def test_a_connection_that_breaks_is_closed_and_another_goes_on(self, house, monkeypatch):
        with OrderStream(house.url, apikey=house.keys["asha"]) as stream:
            stream.next(timeout=10)
            broken = stream._client.eio.ws
            line = broken.sock

            def reset():
                raise ConnectionResetError(errno.ECONNRESET, "by the test")

            monkeypatch.setattr(broken, "recv", reset)
            made = house.place(ZERODHA, quantity=2, order_type="MARKET")
            seen = []
            eventually(lambda: take(stream, seen) and filled(seen, made["id"]))
            again = stream._client.eio.ws

        assert line.fileno() == -1
        assert again is not broken

    def test_orders_are_placed_once_changed_and_cancelled(self, house):
        with Orders(house.url, apikey=house.keys["asha"]) as desk:
            terms = {"symbol": "INFY", "exchange": "NSE", "action": "BUY", "quantity": 5, "product": "MIS"}
            limit = {"pricetype": "LIMIT", "price": 1400.5}
            placed = desk.place(idempotency_key="test-client-1", **terms, **limit)
            again = desk.place(idempotency_key="test-client-1", **terms, **limit)
            assert placed == again
            orderid, row = placed
            eventually(lambda: [o for o in desk.book() if o.row == row and o.live])
            desk.cancel(orderid)
            eventually(lambda: [o for o in desk.book() if o.row == row and o.order_status == "cancelled"])
            with pytest.raises(RequestRefusedError) as refused:
                desk.place(**(terms | {"symbol": "NOSUCH"}))

        assert set(refused.value.problems) == {"symbol"}

    def test_nothing_of_another_users_account_is_told(self, house):
        with OrderStream(house.url, apikey=house.keys["jay"]) as stream:
            house.place(ZERODHA, quantity=2, order_type="MARKET")
            jays = house.place("jainam-jay", quantity=2, order_type="MARKET")
            seen = []
            eventually(lambda: take(stream, seen) and filled(seen, jays["id"]))

        assert {event.account for event in seen} == {"jainam-jay"}

    def test_what_happened_during_a_break_is_told_afterwards(self, house):
        with OrderStream(house.url, apikey=house.keys["asha"]) as stream:
            stream.next(timeout=10)
            broken = stream._client.eio.ws.sock
            broken.shutdown(socket.SHUT_RDWR)
            made = house.place(ZERODHA, quantity=3, order_type="MARKET")
            seen = []
            eventually(lambda: take(stream, seen) and filled(seen, made["id"]))
        broken.close()  # the library leaves a broken one behind


def take(stream, seen):
    event = stream.next(timeout=0.05)
    if event is not None:
        seen.append(event)
    return True


def filled(seen, row):
    orders = [e.fields for e in seen if e.kind == "order"]
    orders += [o for e in seen if e.kind == "snapshot" for o in e.fields["orders"]]
    return any(order["row"] == row and order["status"] == "FILLED" for order in orders)
