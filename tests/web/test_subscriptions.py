from __future__ import annotations

import json
import socket
from contextlib import ExitStack, contextmanager

import pytest
import websocket

from house import eventually
from orderwire.core.events import Event, EventType
from orderwire.core.orders import OrderStatus
from orderwire.store.users import Scope
from orderwire.web import subscriptions
from orderwire.web.subscriptions import MOST_PER_USER, MOST_WAITING, Subscriptions
from web.house import order, settle
from web.making import position, trade


@contextmanager
def program(server, path="", *, key=None, owner="asha"):
    """A connection that said who it is; `key` "" says nothing."""
    address = f"{server.url.replace('http', 'ws', 1)}{path}"
    if key is None:
        key = server.services.users.add_key(owner, scope=Scope.READ)[1]
    wire = websocket.create_connection(address, timeout=20)
    try:
        if key:
            send(wire, action="authenticate", api_key=key)
        yield wire
    finally:
        wire.close()
        wire.shutdown()  # closes the socket, also where the other end closed first


def send(wire, **fields):
    wire.send(json.dumps(fields))


def told(wire):
    return json.loads(wire.recv())


@pytest.fixture
def followed(server):
    with program(server) as wire:
        told(wire)
        send(wire, action="subscribe_orders")
        told(wire)
        yield wire


@pytest.mark.parametrize("path", ["", "/", "/ws"])
def test_a_program_is_let_in_by_its_key_in_openalgos_words(server, path):
    with program(server, path) as wire:
        welcome = told(wire)
        send(wire, action="subscribe_orders")
        subscribed = told(wire)

    assert welcome == {
        "type": "auth",
        "status": "success",
        "message": "Authentication successful",
        "broker": "wired",
        "user_id": "asha",
        "supported_features": {"ltp": False, "quote": False, "depth": False, "orders": True},
    }
    assert subscribed == {
        "type": "subscribe_orders",
        "status": "success",
        "message": "Subscribed to order updates",
    }


@pytest.mark.parametrize(
    "said", ['{"action":"authenticate","api_key":"guess"}', '{"action":"subscribe_orders"}', "[]", "hello"]
)
def test_a_stranger_is_told_so_and_let_go(server, said):
    with program(server, key="") as wire:
        wire.send(said)
        answer = told(wire)
        closed = wire.recv()

    assert (answer["type"], answer["status"]) == ("auth", "error")
    assert closed == ""


def test_who_says_nothing_is_let_go(server, monkeypatch):
    monkeypatch.setattr(subscriptions, "LOG_IN_WITHIN", 0.1)

    with program(server, key="") as wire:
        assert told(wire)["status"] == "error"
        assert wire.recv() == ""


def test_an_update_has_openalgos_fields_and_its_place_in_the_log(server, followed):
    server.publish(order(status=OrderStatus.PARTIALLY_FILLED, filled_quantity=4, pending_quantity=6))

    assert told(followed) == {
        "type": "order_update",
        "user_id": "asha",
        "mode": "live",
        "broker": "wired",
        "orderid": "261124000000001",
        "symbol": "INFY",
        "exchange": "NSE",
        "action": "BUY",
        "quantity": 10,
        "price": 1500.5,
        "trigger_price": 0.0,
        "pricetype": "LIMIT",
        "product": "MIS",
        "order_status": "open",
        "filled_quantity": 4,
        "pending_quantity": 6,
        "average_price": 0.0,
        "rejection_reason": "",
        "account": "acc",
        "epoch": "e1",
        "sequence": 1,
    }


def test_trades_positions_and_strangers_orders_are_not_told(server, followed):
    server.user("ravi")
    server.account("his", "ravi")

    server.publish(trade(), position(), order("his", 5), order(number=9))

    assert told(followed)["orderid"] == "261124000000009"


def test_nothing_comes_before_subscribing_nor_after_unsubscribing(server, followed):
    send(followed, action="unsubscribe_orders")
    assert told(followed)["message"] == "Unsubscribed from order updates"
    server.publish(order(number=1))
    settle(server)
    send(followed, action="subscribe_orders")
    told(followed)
    server.publish(order(number=2))

    assert told(followed)["orderid"] == "261124000000002"


def test_market_data_is_declined(followed):
    send(followed, action="subscribe", symbol="INFY", mode=1)

    answer = told(followed)
    assert (answer["type"], answer["status"]) == ("subscribe", "error")


def test_a_revoked_key_ends_the_connection(server, monkeypatch):
    monkeypatch.setattr(subscriptions, "LOOK_AGAIN", 0.05)
    with program(server) as wire:
        told(wire)
        (key,) = server.services.users.keys("asha")

        server.services.users.revoke_key(key.id, owner="asha")

        assert wire.recv() == ""


def test_a_user_has_so_many_connections_and_gets_back_what_they_close(server):
    key = server.services.users.add_key("asha", scope=Scope.READ)[1]
    with ExitStack() as opened:
        for _ in range(MOST_PER_USER):
            assert told(opened.enter_context(program(server, key=key)))["status"] == "success"

        with program(server, key=key) as wire:
            assert "Too many" in told(wire)["message"]

    eventually(lambda: len(server.web.subscriptions) == 0)


def test_the_service_lets_programs_go_when_it_stops(server, followed):
    server.web.subscriptions.close()

    assert followed.recv() == ""


def test_a_page_is_still_a_page(server):
    assert server.app.test_client().get("/").status_code in {200, 302}


def test_on_a_port_of_its_own_nothing_else_is_served():
    seen = []
    app = subscriptions.SubscriptionsFirst(
        Subscriptions(None), lambda *_: seen.append("app") or [b"page"], 8765
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        environ = {"PATH_INFO": "/login", "werkzeug.socket": listener}
        own = subscriptions.SubscriptionsFirst(Subscriptions(None), app.app, port)

        refused = own(environ, lambda status, _: seen.append(status))
        served = app(environ, None)

    assert b"Only order subscriptions" in refused[0]
    assert served == [b"page"]
    assert seen == ["404 Not Found", "app"]


class TestASlowProgram:
    """What waits for one that takes nothing."""

    @pytest.fixture
    def waiting(self, house):
        inside = Subscriptions(None)
        one = subscriptions._Program(owner="asha", accounts=frozenset({"acc"}), subscribed=True)
        inside._replace(joined=one)
        return house, inside, one

    def offer(self, waiting, *views):
        house, inside, _ = waiting
        for view in views:
            inside.on_change(Event(EventType.ORDER_CHANGED, house.log.change(view)))

    def test_only_the_newest_of_each_order_waits(self, waiting):
        self.offer(waiting, order(number=1), order(number=2), order(number=1, status=OrderStatus.FILLED))

        told = waiting[2].take()
        assert [(c.order.order_id[-1], c.order.status) for c in told] == [("2", "OPEN"), ("1", "FILLED")]

    def test_more_than_can_wait_ends_the_connection_instead_of_losing_any(self, waiting):
        self.offer(waiting, *(order(number=number) for number in range(MOST_WAITING + 1)))

        assert waiting[2].doomed == 1013
        assert waiting[2].take() == []
