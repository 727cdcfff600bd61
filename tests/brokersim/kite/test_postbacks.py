"""Kite's postbacks: what is sent where, once, and what a forger sends."""

import asyncio
import json

import pytest
from aiohttp import web

from brokersim.kite.postbacks import FORGERIES
from brokersim.kite.rows import postback_checksum


class Receiver:
    """An app's postback endpoint."""

    def __init__(self, kite):
        self.kite, self.posts, self.status, self.pause = kite, [], 200, 0.0
        self.arrived = asyncio.Event()
        app = web.Application(client_max_size=1 << 20)
        app.router.add_post("/hook", self.take)
        self.runner = web.AppRunner(app, access_log=None)

    async def start(self):
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}/hook"

    async def take(self, request):
        self.posts.append((request.headers["Content-Type"], await request.read()))
        self.arrived.set()
        await asyncio.sleep(self.pause)
        return web.Response(status=self.status)

    def wait(self, count):
        async def until():
            while len(self.posts) < count:
                self.arrived.clear()
                await asyncio.wait_for(self.arrived.wait(), 5)

        self.kite.run(until())
        return [json.loads(body) for _, body in self.posts]

    def settled(self, count):
        """Wait until the ledger knows the fate of so many postbacks."""
        path = "/ledger/messages?channel=postback"
        found = []
        while len(found) < count:
            found = self.kite.control("GET", path)["data"]
        return found


@pytest.fixture
def hook(kite):
    receiver = Receiver(kite)
    url = kite.run(receiver.start())
    kite.control("PATCH", "/kite/apps/demokite", postback_url=url)
    yield receiver
    kite.run(receiver.runner.cleanup())


def test_a_postback_is_raw_json_with_a_forms_content_type_and_a_true_checksum(kite, hook):
    order_id = kite.place(price=820.5, quantity=1)
    kite.pass_time(3)

    body = hook.wait(1)[0]

    assert hook.posts[0][0] == "application/x-www-form-urlencoded"
    assert (body["status"], body["order_id"], body["user_id"], body["app_id"]) == (
        "COMPLETE",
        order_id,
        "ZD0001",
        1001,
    )
    expected = postback_checksum(order_id, body["order_timestamp"], "demokite-secret")
    assert body["checksum"] == expected


def test_placing_sends_nothing_and_the_other_changes_do(kite, hook):
    order_id = kite.place(price=800, quantity=10)
    kite.pass_time(0.1)
    kite.data("PUT", f"/orders/regular/{order_id}", data={"price": "801"})
    kite.pass_time(0.1)
    assert [body["status"] for body in hook.wait(1)] == ["UPDATE"]
    kite.world.exchange.fill(f"kite:{order_id}", 4)
    kite.pass_time(0.1)
    hook.wait(2)
    kite.data("DELETE", f"/orders/regular/{order_id}")
    kite.pass_time(0.1)

    bodies = hook.wait(3)
    assert [(body["status"], body["filled_quantity"]) for body in bodies] == [
        ("UPDATE", 0),
        ("UPDATE", 4),
        ("CANCELLED", 4),
    ]


def test_the_content_type_can_be_json(kite, hook):
    kite.settings(kite_postback_json_type=True)

    kite.place(price=2000)
    kite.pass_time(0.1)

    assert hook.wait(1)[0]["status"] == "REJECTED"
    assert hook.posts[0][0] == "application/json"


def test_only_the_apps_own_orders_are_posted(kite, hook):
    form = {"user": "ZD0001", "exchange": "NSE", "tradingsymbol": "SBIN", "transaction_type": "BUY"}
    form |= {"quantity": "1", "product": "CNC", "order_type": "LIMIT", "price": "2000"}
    kite.control("POST", "/kite/orders/regular", **form)
    mine = kite.place(price=2000)
    kite.pass_time(0.1)

    assert [body["order_id"] for body in hook.wait(1)] == [mine]
    assert len(hook.settled(1)) == 1


def test_a_receiver_that_fails_is_not_asked_again(kite, hook):
    hook.status = 500

    kite.place(price=2000)
    kite.pass_time(0.1)
    entry = hook.settled(1)[0]
    kite.pass_time(60)

    assert (entry["fate"], entry["detail"]) == ("LOST", "HTTP 500")
    assert len(hook.posts) == 1


def test_a_receiver_that_is_not_there_loses_the_postback(kite, hook):
    kite.control("PATCH", "/kite/apps/demokite", postback_url="http://127.0.0.1:1/hook")

    kite.place(price=2000)
    kite.pass_time(0.1)

    assert hook.settled(1)[0]["fate"] == "LOST"


def test_a_dropped_postback_is_known_to_the_ledger(kite, hook):
    kite.control("POST", "/faults", kind="drop", channel="postback", count=1)

    first, second = kite.place(price=2000), kite.place(price=2000)
    kite.pass_time(0.1)

    assert [body["order_id"] for body in hook.wait(1)] == [second]
    fates = {each["order_id"]: each["fate"] for each in hook.settled(2)}
    assert fates == {first: "DROPPED", second: "SENT"}


def test_an_altered_postback_keeps_its_checksum(kite, hook):
    kite.control("POST", "/faults", kind="postback_altered", params={"fields": {"status": "COMPLETE"}})

    order_id = kite.place(price=2000)
    kite.pass_time(0.1)

    body = hook.wait(1)[0]
    assert body["status"] == "COMPLETE"
    assert kite.order(order_id)["status"] == "REJECTED"
    assert body["checksum"] == postback_checksum(order_id, body["order_timestamp"], "demokite-secret")


def test_a_replayed_postback_is_the_same_body_once_more(kite, hook):
    kite.control("POST", "/faults", kind="postback_replayed", params={"seconds": 0})

    kite.place(price=2000)
    kite.pass_time(0.1)
    hook.wait(2)

    assert hook.posts[0] == hook.posts[1]


@pytest.mark.parametrize("kind", sorted(FORGERIES))
def test_every_forgery_reaches_the_receiver(kite, hook, kind):
    order_id = kite.place(price=800)
    kite.pass_time(0.1)

    answer = kite.control("POST", "/kite/postbacks/forge", order_id=order_id, kind=kind)

    assert answer["data"] == {"answers": [200]}
    assert len(hook.posts) == 1


def test_forgeries_are_what_they_say(kite, hook):
    order_id = kite.place(price=800)
    kite.pass_time(0.1)
    kite.control("PATCH", "/kite/apps/demokite", api_secret="second-secret")
    for kind in ("replay", "shifted", "old_secret", "altered", "oversize", "deep"):
        kite.control("POST", "/kite/postbacks/forge", order_id=order_id, kind=kind, fields={"status": "X"})

    replay, shifted, old, altered, oversize = (json.loads(body) for _, body in hook.posts[:5])
    time = replay["order_timestamp"]
    assert replay["checksum"] == postback_checksum(order_id, time, "second-secret")
    assert (shifted["order_id"], shifted["order_timestamp"]) == (order_id[:-1], order_id[-1] + time)
    assert shifted["checksum"] == replay["checksum"]
    assert old["checksum"] == postback_checksum(order_id, time, "demokite-secret")
    assert (altered["status"], altered["checksum"]) == ("X", replay["checksum"])
    assert len(json.dumps(oversize)) > 64_000
    with pytest.raises(RecursionError):
        json.loads(hook.posts[5][1])


@pytest.mark.parametrize(
    "body", [{"order_id": "1", "kind": "replay"}, {"order_id": None, "kind": "magic"}, {}]
)
def test_a_forgery_needs_an_order_and_a_kind(kite, hook, body):
    body = {key: value or kite.place() for key, value in body.items()}

    assert kite.control("POST", "/kite/postbacks/forge", **body)["status"] == "error"
