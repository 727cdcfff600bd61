import json
import socket
import threading

import pytest
from engineio.packet import MESSAGE, Packet

from house import ZERODHA, eventually, running_house
from orderwire.client import OrderStream, StreamRefusedError
from orderwire.errors import OrderwireError


def snapshot(sequence, epoch="e1", orders=()):
    return {"account": "a", "epoch": epoch, "sequence": sequence, "orders": list(orders)}


def change(sequence, epoch="e1"):
    return {"account": "a", "epoch": epoch, "sequence": sequence, "row": "r"}


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


def test_a_new_epoch_begins_anew(stream):
    told(stream, "snapshot", snapshot(50))

    assert told(stream, "order_update", change(1, epoch="e2")) == "order"


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
            stream._client.eio.ws.sock.shutdown(socket.SHUT_RDWR)
            made = house.place(ZERODHA, quantity=3, order_type="MARKET")
            seen = []
            eventually(lambda: take(stream, seen) and filled(seen, made["id"]))


def take(stream, seen):
    event = stream.next(timeout=0.05)
    if event is not None:
        seen.append(event)
    return True


def filled(seen, row):
    orders = [e.fields for e in seen if e.kind == "order"]
    orders += [o for e in seen if e.kind == "snapshot" for o in e.fields["orders"]]
    return any(order["row"] == row and order["status"] == "FILLED" for order in orders)
