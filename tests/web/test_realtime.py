from __future__ import annotations

import gc
import json
import socket as sockets
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from types import SimpleNamespace

import pytest
import socketio
from msgspec.structs import replace
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_raw

from house import eventually
from orderwire.clock import SystemClock
from orderwire.core.events import Event, EventType
from orderwire.core.orders import AccountId, OrderStatus
from orderwire.core.recovery import Freshness
from orderwire.store.batch import CHECKING
from orderwire.store.users import Role, Scope, Users, session_mark
from orderwire.web import realtime
from orderwire.web.outbox import Cursor
from orderwire.web.paints import MOST_REMEMBERED
from orderwire.web.realtime import Painted, Realtime, paint_time, read_cursors
from orderwire.web.realtime import Reader as ReaderOf
from web.house import House, MemoryLog, cookie_of, csrf, order, settle

ACC = AccountId("acc")
WAIT = 5.0


class Reader:
    """A program on the stream: keeps what it is given, acknowledges it like a browser."""

    def __init__(self, house: House, *, key: str = "", cookie: str = "", origin: str = "") -> None:
        self.events: list[tuple[str, dict]] = []
        self.news = threading.Condition()
        self.client = socketio.Client(
            reconnection=False, websocket_extra_options={"origin": origin} if origin else {}
        )
        for name in (
            "snapshot",
            "order_update",
            "trade_update",
            "position_update",
            "feed_status",
            "order_checking",
        ):
            self.client.on(name, self._keeper(name))
        headers = {"Cookie": cookie} if cookie else {}
        auth = {"apikey": key} if key else None
        self.client.connect(
            house.url, headers=headers, auth=auth, transports=["websocket"], wait_timeout=WAIT
        )

    def _keeper(self, name: str) -> Callable[[dict], dict]:
        def keep(payload: dict) -> dict:
            with self.news:
                self.events.append((name, payload))
                self.news.notify_all()
            return {"painted": 1.0, "hidden": False}

        return keep

    def follow(self, cursors: dict | None = None) -> None:
        self.client.emit("follow", {"cursors": cursors or {}})

    def wait(self, name: str, number: int = 1) -> list[dict]:
        with self.news:
            arrived = self.news.wait_for(lambda: len(self.of(name)) >= number, WAIT)
        assert arrived, f"{len(self.of(name))} of {number} {name}"
        return self.of(name)

    def of(self, name: str) -> list[dict]:
        return [payload for event, payload in self.events if event == name]

    def close(self) -> None:
        """Go without a farewell, as browsers do; the library's own takes three seconds."""
        ws = self.client.eio.ws or self.ws
        if ws is not None and ws.sock is not None:
            with suppress(OSError):
                ws.sock.shutdown(sockets.SHUT_RDWR)
            self.client.disconnect()
            ws.shutdown()


def raw_socket(house: House) -> ClientConnection:
    url = house.url.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket"
    return connect_raw(url, max_size=None, compression=None, close_timeout=0)


@contextmanager
def reading(house: House, **how: str) -> Iterator[Reader]:
    reader = Reader(house, **how)
    try:
        yield reader
    finally:
        reader.close()


def key_of(house: House, user: str = "asha") -> str:
    return house.services.users.add_key(user, scope=Scope.READ)[1]


def test_a_client_is_given_a_snapshot_and_then_every_change(server):
    server.log.change(order(number=1))
    with reading(server, key=key_of(server)) as reader:
        reader.follow()
        (snapshot,) = reader.wait("snapshot")
        server.publish(order(number=2, status=OrderStatus.FILLED))
        (update,) = reader.wait("order_update")

    assert [row["row"] for row in snapshot["orders"]] == ["r1"]
    assert snapshot["sequence"] == 1
    assert snapshot["feed"]["freshness"] == "LIVE"
    assert (update["sequence"], update["previous"], update["status"]) == (2, 1, "FILLED")


def test_an_update_carries_openalgos_fields_and_ours(server):
    with reading(server, key=key_of(server)) as reader:
        reader.follow()
        reader.wait("snapshot")
        server.publish(order(filled_quantity=3, average_price=Decimal("1500.25")))
        (update,) = reader.wait("order_update")

    openalgo = {
        "mode", "broker", "orderid", "symbol", "exchange", "action", "quantity", "price", "trigger_price",
        "pricetype", "product", "order_status", "filled_quantity", "pending_quantity", "average_price",
        "rejection_reason",
    }  # fmt: skip
    ours = {
        "account", "epoch", "sequence", "previous", "version", "event_id", "source", "stamps", "row",
        "submission", "status", "raw_status", "pending_modify", "pending_cancel", "conflict", "checking",
        "timestamp",
    }  # fmt: skip
    assert openalgo | ours <= update.keys()
    assert update["average_price"] == 1500.25
    assert update["timestamp"] == "2026-11-24 15:00:00"
    assert update["stamps"]["emitted"] >= update["stamps"]["committed"] > 1e12


def test_a_client_that_comes_back_is_given_what_it_missed_and_no_snapshot(server):
    for number in range(5):
        server.log.change(order(number=number))
    with reading(server, key=key_of(server)) as reader:
        reader.follow({"acc": {"epoch": "e1", "sequence": 3}})
        updates = reader.wait("order_update", 2)

    assert [(one["previous"], one["sequence"]) for one in updates] == [(3, 4), (4, 5)]
    assert reader.of("snapshot") == []


@pytest.mark.parametrize(
    "cursor",
    [
        {"epoch": "other", "sequence": 1},
        {"epoch": "e1", "sequence": 99},
        {"epoch": "e1", "sequence": -1},
        {"epoch": "e1", "sequence": "1"},
        {"epoch": None, "sequence": True},
        "nonsense",
    ],
)
def test_a_cursor_that_cannot_be_continued_costs_a_snapshot(server, cursor):
    server.log.change(order(number=1))
    with reading(server, key=key_of(server)) as reader:
        reader.follow({"acc": cursor})

        assert reader.wait("snapshot")[0]["sequence"] == 1


@pytest.mark.parametrize("auth", ["", "{}", '{"apikey":"not-a-key"}', '{"apikey":7}', "[]"])
def test_an_anonymous_client_is_refused(server, auth):
    with raw_socket(server) as socket:
        socket.recv(WAIT)
        socket.send(f"40{auth}")

        assert socket.recv(WAIT) == '44{"message":"login"}'
    assert len(server.web.realtime.audience) == 0


def test_a_browser_is_known_by_its_session(server):
    with reading(server, cookie=cookie_of(server, "asha")) as reader:
        reader.follow()

        assert reader.wait("snapshot")[0]["account"] == "acc"


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:1", "null"])
def test_a_page_of_another_origin_is_refused(server, origin):
    cookie = cookie_of(server, "asha")

    with pytest.raises(socketio.exceptions.ConnectionError):
        Reader(server, cookie=cookie, origin=origin)


def test_a_page_of_our_own_origin_is_let_in(server):
    with reading(server, cookie=cookie_of(server, "asha"), origin=server.url) as reader:
        answer = reader.client.call("follow", {}, timeout=WAIT)

    assert answer == {"version": "test", "accounts": ["acc"]}


def test_no_client_gets_another_users_orders(server):
    server.user("ravi")
    server.account("other", "ravi")
    with (
        reading(server, key=key_of(server, "asha")) as asha,
        reading(server, key=key_of(server, "ravi")) as ravi,
    ):
        asha.follow({"other": {"epoch": "e1", "sequence": 0}})
        ravi.follow({"acc": {"epoch": "e1", "sequence": 0}})
        asha.wait("snapshot")
        ravi.wait("snapshot")
        for number in range(50):
            server.publish(order("acc", number), order("other", number))
        asha.wait("order_update", 50)
        ravi.wait("order_update", 50)

    assert {payload["account"] for _, payload in asha.events if "account" in payload} == {"acc"}
    assert {payload["account"] for _, payload in ravi.events if "account" in payload} == {"other"}


def test_freshness_is_told_when_it_changes(server):
    with reading(server, key=key_of(server)) as reader:
        reader.follow()
        reader.wait("snapshot")
        status = server.fleet.show(ACC, Freshness.DEGRADED, detail="The stream is down.")
        server.services.engine.put(Event(EventType.FEED_STATUS, status))
        (told,) = reader.wait("feed_status")

    assert (told["freshness"], told["detail"], told["connected"]) == (
        "DEGRADED",
        "The stream is down.",
        False,
    )


def test_the_age_of_the_data_is_told_once_a_second_at_most(server):
    with reading(server, key=key_of(server)) as reader:
        reader.follow()
        reader.wait("snapshot")
        server.fleet.show(ACC)
        for _ in range(3):
            server.services.engine.put(Event(EventType.TIMER))
        server.publish(order())
        reader.wait("order_update")

    assert len(reader.of("feed_status")) == 1


def test_the_clock_answers_with_the_servers_time(server):
    with reading(server, key=key_of(server)) as reader:
        answer = reader.client.call("clock", {"t0": 1}, timeout=WAIT)

    assert answer["t1"] == pytest.approx(server.services.clock.time_ns() / 1e6, abs=5000)


def test_a_paint_is_reported_with_every_stamp(server):
    painted: list[Painted] = []
    done = threading.Event()
    server.web.realtime.on_painted = lambda one: (painted.append(one), done.set())
    reader = Reader(server, key=key_of(server))
    now = server.services.clock.time_ns() / 1e6
    reader.client.on("order_update", lambda _: {"painted": now, "hidden": True})
    reader.follow()
    reader.wait("snapshot")
    server.publish(order())

    assert done.wait(WAIT)
    reader.close()
    assert painted[0].hidden
    assert painted[0].stamps.painted == pytest.approx(now * 1e6, abs=1e3)
    assert painted[0].stamps.emitted > 0


def test_one_user_cannot_take_every_place(server, monkeypatch):
    monkeypatch.setattr(realtime, "MOST_PER_USER", 2)
    server.user("ravi")
    key = key_of(server)
    with reading(server, key=key), reading(server, key=key):
        with raw_socket(server) as socket:
            socket.recv(WAIT)
            socket.send("40" + json.dumps({"apikey": key}))

            assert socket.recv(WAIT) == '44{"message":"busy"}'
        with reading(server, key=key_of(server, "ravi")) as other:
            assert other.client.connected


def test_a_websocket_is_never_compressed(server):
    url = server.url.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket"
    with connect_raw(url, compression="deflate", close_timeout=0) as socket:
        assert "Sec-WebSocket-Extensions" in socket.request.headers
        assert "Sec-WebSocket-Extensions" not in socket.response.headers


@pytest.mark.parametrize(
    "said",
    [None, 7, {}, {"painted": "soon"}, {"painted": True}, {"painted": float("nan")}, {"painted": 5.0}],
)
def test_an_unbelievable_paint_is_ignored(said):
    assert paint_time(said, now_ms=1.7e12) is None


def test_cursors_are_read_strictly():
    read = read_cursors({"cursors": {"a": {"epoch": "e", "sequence": 4}, "b": {"epoch": 1, "sequence": 4}}})

    assert read == {"a": Cursor(epoch="e", sequence=4)}
    assert read_cursors([1, 2]) == read_cursors({"cursors": 3}) == {}


def test_logging_out_ends_the_live_stream_of_that_session_only(server):
    leaving, staying = cookie_of(server, "asha"), cookie_of(server, "asha")
    gone = threading.Event()
    with reading(server, cookie=staying) as other, reading(server, cookie=leaving) as reader:
        reader.client.on("disconnect", gone.set)
        client = server.app.test_client()
        client.set_cookie("orderwire", leaving.split("=", 1)[1], domain="localhost")
        answer = client.post("/logout", data={"csrf_token": csrf(client, "/")})

        assert answer.status_code == 302
        assert gone.wait(WAIT)
        assert other.client.connected


def revoke_everything(server, cookie, key_id):
    """Every way to take access away, by whoever does it, in this process or in another."""
    users = server.services.users
    mark = session_mark(cookie.split("=", 1)[1])
    elsewhere = Users(server.services.database)
    return {
        "the owner ends the session": (lambda: users.end_session_of("asha", mark), "session"),
        "a new password": (lambda: users.set_password("asha", "brass kettle"), "session"),
        "another role": (lambda: users.set_role("asha", Role.OPERATOR), "session"),
        "locked out": (lambda: users.disable("asha"), "both"),
        "the key is revoked": (lambda: users.revoke_key(key_id, owner="asha"), "key"),
        "another process ends the session": (lambda: elsewhere.end_session_of("asha", mark), "session"),
        "another process revokes the key": (lambda: elsewhere.revoke_key(key_id, owner="asha"), "key"),
        "another process locks out": (lambda: elsewhere.disable("asha"), "both"),
    }


@pytest.mark.parametrize(
    "way",
    [
        "the owner ends the session",
        "a new password",
        "another role",
        "locked out",
        "the key is revoked",
        "another process ends the session",
        "another process revokes the key",
        "another process locks out",
    ],
)
def test_access_that_ends_cuts_the_live_sockets_off(server, way):
    cookie = cookie_of(server, "asha")
    key, plain = server.services.users.add_key("asha", scope=Scope.READ)
    gone = {"session": threading.Event(), "key": threading.Event()}
    with reading(server, cookie=cookie) as browser, reading(server, key=plain) as program:
        browser.client.on("disconnect", gone["session"].set)
        program.client.on("disconnect", gone["key"].set)
        act, whose = revoke_everything(server, cookie, key.id)[way]

        act()
        if way.startswith("another process"):
            server.services.engine.put(Event(EventType.TIMER))

        for name, event in gone.items():
            if whose in {name, "both"}:
                assert event.wait(WAIT), name
        if whose == "session" and way != "a new password" and "role" not in way:
            assert program.client.connected


def test_the_watch_leaves_alone_what_is_in_force(server):
    users = server.services.users
    mark = session_mark(cookie_of(server, "asha").split("=", 1)[1])
    key, _ = users.add_key("asha", scope=Scope.READ)

    assert users.in_force([mark, f"key {key.id}", "000000000000", "key nothing"]) == {mark, f"key {key.id}"}
    assert users.in_force([]) == set()


def test_an_account_that_had_no_log_yet_goes_live_with_its_first_change(server):
    server.log.epoch = ""
    with reading(server, key=key_of(server)) as reader:
        reader.follow()
        assert reader.wait("snapshot")[0]["orders"] == []
        server.log.epoch = "e1"
        server.publish(order())

        assert [row["row"] for row in reader.wait("snapshot", 2)[1]["orders"]] == ["r1"]


def test_changes_during_the_read_of_the_log_are_neither_lost_nor_doubled(server):
    server.log.change(order(number=0))

    def meanwhile() -> None:
        server.log.before_read = lambda: None
        server.publish(order(number=1), order(number=2))
        settle(server)

    server.log.before_read = meanwhile
    with reading(server, key=key_of(server)) as reader:
        reader.follow()
        (snapshot,) = reader.wait("snapshot")
        server.publish(order(number=3))
        reader.wait("order_update")

    rows = [row["row"] for row in snapshot["orders"]] + [one["row"] for one in reader.of("order_update")]
    assert rows == ["r0", "r1", "r2", "r3"]


def test_after_random_disconnects_the_client_holds_what_the_server_holds(server):
    rows: dict[str, dict] = {}
    cursor: dict = {}
    key = key_of(server)
    for round_ in range(12):
        for number in range(round_, round_ + 7):
            server.publish(order(number=number % 9, filled_quantity=round_))
        with reading(server, key=key) as reader:
            reader.follow(cursor)
            goal = server.log.heads[ACC]
            with reader.news:
                assert reader.news.wait_for(lambda: last_sequence(reader) >= goal, WAIT)  # noqa: B023
        for name, payload in reader.events:
            if name == "snapshot":
                rows = {row["row"]: row for row in payload["orders"]}
            elif name == "order_update":
                assert payload["previous"] == cursor["acc"]["sequence"]
                rows[payload["row"]] = payload
            else:
                continue
            cursor = {"acc": {"epoch": payload["epoch"], "sequence": payload["sequence"]}}

    held = {change.order.row: change.order.filled_quantity for change in server.log.rows[ACC].values()}
    assert {name: row["filled_quantity"] for name, row in rows.items()} == held
    assert len(reader.of("snapshot")) == 0


def last_sequence(reader: Reader) -> int:
    return max((payload["sequence"] for _, payload in reader.events if "sequence" in payload), default=0)


class Mute:
    """A browser on a bare socket that can stop acknowledging, or stop reading altogether."""

    def __init__(self, socket: ClientConnection, key: str, *, patience: float = WAIT) -> None:
        self.socket, self.patience = socket, patience
        assert self.socket.recv(patience).startswith("0")
        self.socket.send("40" + json.dumps({"apikey": key}))
        self.until("40")

    def until(self, prefix: str) -> str:
        while not (frame := self.socket.recv(self.patience)).startswith(prefix):
            self.pong(frame)
        return frame

    def pong(self, frame: str) -> None:
        if frame == "2":
            self.socket.send("3")

    def event(self) -> tuple[int, str, dict]:
        """Return the acknowledgement number, name and payload of the next event."""
        while True:
            frame = self.socket.recv(self.patience)
            self.pong(frame)
            if frame.startswith("42"):
                number, _, rest = frame[2:].partition("[")
                name, payload = json.loads("[" + rest)
                return int(number or -1), name, payload

    def acknowledge(self, number: int) -> None:
        self.socket.send(f'43{number}[{{"painted":1,"hidden":false}}]')

    def follow(self) -> None:
        self.ask({})

    def ask(self, cursors: dict) -> None:
        self.socket.send(f'42["follow",{json.dumps({"cursors": cursors})}]')


def flood(house: House, updates: int, *, rows: int) -> None:
    for number in range(updates):
        house.publish(order(number=number % rows, filled_quantity=number))
    settle(house)


def held_bytes(house: House) -> int:
    """Return what Python's objects occupy now, the engine's measurements counted up; only while tracemalloc traces."""
    house.services.engine.statistics()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@contextmanager
def mute_browser(house: House) -> Iterator[Mute]:
    """Connect one that follows, and has been given its snapshot."""
    with raw_socket(house) as socket:
        mute = Mute(socket, key_of(house))
        mute.follow()
        number, name, _ = mute.event()
        assert name == "snapshot"
        mute.acknowledge(number)
        yield mute


@pytest.fixture
def patient(server: House) -> House:
    """A server that does not give up a client that answers no ping."""
    server.web.socketio.server.eio.ping_timeout = 3600
    return server


@pytest.mark.parametrize("rows", [500, 5000], ids=["conflated", "behind"])
@pytest.mark.usefixtures("traced")
def test_a_browser_that_stops_acknowledging_costs_bounded_memory_and_is_resynced(patient, rows):
    with mute_browser(patient) as mute:
        (client,) = patient.web.realtime.audience
        flood(patient, MOST_REMEMBERED, rows=rows)  # what the page keeps of every change is full now
        unread = [mute.event() for _ in range(128)]
        before = held_bytes(patient)

        flood(patient, 6000, rows=rows)

        grown = held_bytes(patient) - before

        assert client.outbox.outstanding == 128
        assert len(client.outbox) <= 2048
        assert grown < 500_000
        for number, _, _ in unread:
            mute.acknowledge(number)
        assert last_word(mute, patient) == {
            row.order.row: row.order.filled_quantity for row in patient.log.rows[ACC].values()
        }


UPDATES = 60_000
"""What docs/reference/figures.md promises a client may miss."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rows", [500, 5000], ids=["conflated", "behind"])
@pytest.mark.usefixtures("traced")
def test_a_browser_that_stops_reading_costs_bounded_memory_over_60_000_updates_and_is_resynced(
    patient, rows, record_property
):
    with mute_browser(patient) as mute:
        (client,) = patient.web.realtime.audience
        flood(patient, MOST_REMEMBERED, rows=rows)  # it reads nothing from here on, not even its socket
        before = held_bytes(patient)

        flood(patient, UPDATES, rows=rows)

        grown = held_bytes(patient) - before
        waits = len(client.outbox)
        assert (client.outbox.outstanding, patient.web.realtime.audience.get(client.sid)) == (128, client)
        assert waits <= 2048
        assert grown < 500_000
        assert last_word(mute, patient) == {
            row.order.row: row.order.filled_quantity for row in patient.log.rows[ACC].values()
        }
    record_property(
        "figure",
        f"a browser that reads nothing for {UPDATES:,} updates of {rows:,} orders: {grown / 1024:+.0f} KiB",
    )


def test_a_browser_that_answers_no_ping_is_given_up_and_comes_back_to_the_truth(server):
    server.web.socketio.server.eio.ping_interval = 0.1
    server.web.socketio.server.eio.ping_timeout = 0.1
    with mute_browser(server) as mute:
        eventually(lambda: not len(server.web.realtime.audience))
        flood(server, 3000, rows=20)
        mute.socket.close()

    with reading(server, key=key_of(server)) as reader:
        reader.follow()
        (shown,) = reader.wait("snapshot")
    assert {row["row"]: row["filled_quantity"] for row in shown["orders"]} == {
        row.order.row: row.order.filled_quantity for row in server.log.rows[ACC].values()
    }


def last_word(mute: Mute, house: House) -> dict[str, int]:
    """Read and acknowledge until the log's head has arrived; return each row's filled quantity."""
    held: dict[str, int] = {}
    sequence = 0
    while sequence < house.log.heads[ACC]:
        number, name, payload = mute.event()
        mute.acknowledge(number)
        if name == "snapshot":
            held = {row["row"]: row["filled_quantity"] for row in payload["orders"]}
        else:
            held[payload["row"]] = payload["filled_quantity"]
        sequence = payload["sequence"]
    return held


def test_a_browser_that_stops_reading_its_socket_does_not_hold_up_the_others(server):
    with mute_browser(server), reading(server, key=key_of(server)) as reader:
        reader.follow()
        reader.wait("snapshot")
        flood(server, 3000, rows=10)  # the first browser reads none of it, not even its socket
        goal = server.log.heads[ACC]
        with reader.news:
            assert reader.news.wait_for(lambda: last_sequence(reader) >= goal, WAIT)

        held = [client.outbox.outstanding for client in server.web.realtime.audience]
    assert max(held) == 128


def test_a_client_that_missed_more_than_may_wait_for_it_is_given_a_snapshot_at_once():
    """Nothing is on its way to it, so no acknowledgement of its own would ever say that it is behind."""
    log, sent = MemoryLog(), []
    wire = SimpleNamespace(
        server=SimpleNamespace(emit=lambda name, payload, **_: sent.append((name, payload)))
    )
    realtime = Realtime(wire, log=log, feeds=tuple, clock=SystemClock(), most=2)
    realtime.connect("c1", ReaderOf(user="asha", accounts=(ACC,)))
    for number in range(4):
        log.change(order(number=number))

    realtime.follow("c1", {"cursors": {ACC: {"epoch": log.epoch, "sequence": 1}}})

    assert [(name, payload["sequence"]) for name, payload in sent] == [("snapshot", 4)]


def check_put(house: House, page) -> None:
    house.services.engine.put(Event(CHECKING, page))


def test_a_page_is_told_what_is_being_checked_and_a_program_is_not(server):
    page = order(number=1)
    server.log.change(page)
    with (
        reading(server, cookie=cookie_of(server, "asha"), origin=server.url) as browser,
        reading(server, key=key_of(server)) as program,
    ):
        for reader in (browser, program):
            reader.follow()
            reader.wait("snapshot")
        check_put(server, replace(page, checking=True))
        check_put(server, page)
        server.publish(order(number=2))
        told = browser.wait("order_checking", 2)
        program.wait("order_update")
        (update,) = browser.wait("order_update")

    assert told == [
        {"account": "acc", "row": "r1", "orderid": page.order_id, "checking": checking}
        for checking in (True, False)
    ]
    assert program.of("order_checking") == []
    assert update["sequence"] == 2


def test_a_page_that_comes_while_something_is_being_checked_sees_it(server):
    page = order(number=1)
    server.log.change(page)
    server.services.book.checked = [replace(page, checking=True)]
    with reading(server, cookie=cookie_of(server, "asha"), origin=server.url) as browser:
        browser.follow()
        (told,) = browser.wait("order_checking")

    assert (told["orderid"], told["checking"]) == (page.order_id, True)
