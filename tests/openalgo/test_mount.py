"""The mounted part in a small Flask application: what a host sees when something is wrong, and when nothing is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from flask import Flask, session
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_socketio import SocketIO
from flask_wtf.csrf import CSRFProtect

from house import eventually
from openalgo.service_stub import a_stub_service, to_host
from orderwire.core import webhooks
from orderwire.core.hosts import PROTOCOL, FromHost, HostLogin, HostState, mark
from orderwire.openalgo import HostSeams, init_app

SECRET = "a secret of the host and the service"
LOGIN = HostLogin(broker="zerodha", token="k:t", app_key="k", app_secret="s")


@dataclass
class Bus:
    events: list[Any] = field(default_factory=list)

    def publish(self, event: Any) -> None:
        self.events.append(event)


class Host:
    """A host as its developers write it."""

    def __init__(self, folder):
        self.folder = folder
        self.app = Flask("a-host")
        self.app.config["SECRET_KEY"] = "x" * 32
        CSRFProtect(self.app)
        Limiter(get_remote_address, app=self.app, storage_uri="memory://")
        self.socketio = SocketIO(self.app, async_mode="threading")
        self.bus = Bus()
        self.state = HostState(user="trader", logins=[LOGIN])
        self.seams = HostSeams(
            state=lambda: self.state,
            who=lambda: session.get("user"),
            key_owner=lambda key: "trader" if key == "the key" else None,
        )
        self.app.add_url_rule("/login", "login", self._log_in)
        self.app.add_url_rule("/postback/<broker>", "own", self._own_postback, methods=["POST"])
        self.app.extensions["csrf"].exempt(self._own_postback)

    def _log_in(self):
        session["user"] = "trader"
        return "welcome"

    @staticmethod
    def _own_postback(broker):
        return f"own {broker}"

    def mount(self, **settings):
        bus, socketio = settings.pop("bus", self.bus), settings.pop("socketio", self.socketio)
        given = {"data_dir": self.folder, "mount": "beside", "order_updates_enabled": "FALSE"} | settings
        self.mounted = init_app(self.app, socketio, bus, seams=self.seams, **given)
        return self.mounted

    def status(self):
        client = self.app.test_client()
        assert client.get("/login").text == "welcome"
        return client.get("/orderwire/status").get_json()

    def await_state(self, wanted):
        return eventually(lambda: (s := self.status())["state"] == wanted and s, what=f"the state {wanted}")


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    yield host
    if hasattr(host, "mounted"):
        host.mounted.stop()


# --- what is wrong is said, and the host starts ------------------------------------------------------------


class NoPublish:
    pass


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"bus": NoPublish()}, "The event bus has no publish(event)."),
        ({"socketio": SocketIO()}, "init_app(app, socketio, bus) comes after socketio.init_app(app)."),
        ({"mount": "sideways"}, "ORDERWIRE_MOUNT: Input should be 'inside' or 'beside'"),
        ({"broker_addresses": "nonsense"}, "write name=value, separated by commas"),
        ({"host_secret": "short"}, "ORDERWIRE_HOST_SECRET is shorter than 16 characters."),
    ],
)
def test_a_wrong_set_up_is_said_at_start_and_the_host_starts_anyway(host, caplog, wrong, says):
    mounted = host.mount(**wrong)

    assert mounted.standing.state == "off"
    assert says in host.status()["detail"]
    assert says in caplog.text
    assert host.app.test_client().post("/postback/zerodha").text == "own zerodha"


def test_a_host_that_is_no_openalgo_is_told_to_give_its_seams(host, caplog):
    mounted = init_app(host.app, host.socketio, host.bus, data_dir=host.folder)

    assert mounted.standing.state == "off"
    assert "not OpenAlgo as orderwire knows it (no database.auth_db" in caplog.text
    assert "give init_app its seams" in caplog.text


def test_a_library_of_the_host_that_is_too_old_is_named(host, monkeypatch):
    monkeypatch.setattr(
        "orderwire.openalgo.mount.version_problems", lambda: ["flask-socketio is 4.3; too old."]
    )
    host.mount()

    assert host.status()["detail"] == "flask-socketio is 4.3; too old."


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (to_host(protocol=PROTOCOL + 1, version="9.0"), "the service is 9.0: they speak different protocols"),
        (
            "The accounts of trader are told to openalgo (process 1) already",
            "told to openalgo (process 1) already",
        ),
        ({"surprise": 1}, "the service speaks another protocol"),
        (b"<html>not a service</html>", "the service answered 200"),
    ],
)
def test_what_the_service_refuses_is_said_in_its_words(host, answer, says):
    with a_stub_service(host.folder, answer):
        host.mount()

        assert says in host.await_state("refused")["detail"]


def test_without_a_service_the_host_says_so_and_works_as_before(host):
    host.mount(take_over="zerodha")

    assert "nobody answers at" in host.await_state("away")["detail"]
    assert host.app.test_client().post("/postback/zerodha").text == "own zerodha"


def test_a_fault_of_the_hosts_own_part_is_counted_and_does_not_end_it(host):
    def broken():
        raise RuntimeError("the host's database is away")

    with a_stub_service(host.folder):
        working = host.seams
        host.seams = HostSeams(state=broken, who=working.who, key_owner=working.key_owner)
        mounted = host.mount()
        away = host.await_state("away")
        mounted.seams = working

        assert "the host failed: RuntimeError: the host's database is away" in away["detail"]
        assert host.await_state("live")["faults"]["RuntimeError"] >= 1


def test_a_login_that_the_hosts_own_feed_follows_is_not_handed_over(host):
    with a_stub_service(host.folder) as service:
        host.mount(order_updates_enabled="TRUE")
        status = host.await_state("live")

    assert "Set ORDER_UPDATES_ENABLED=FALSE" in status["detail"]
    assert service.asked[0]["state"]["logins"] == []


def test_jainam_is_handed_over_whatever_the_variable_says_for_the_host_has_no_feed_of_it(host):
    host.state = HostState(user="trader", logins=[HostLogin(broker="jainam", token="a.b.c")])
    with a_stub_service(host.folder) as service:
        host.mount(order_updates_enabled="TRUE")
        host.await_state("live")

    assert [login["broker"] for login in service.asked[0]["state"]["logins"]] == ["jainam"]


# --- what is right -----------------------------------------------------------------------------------------


def an_event(sequence, **given):
    data = {
        "account": "acc",
        "epoch": "e",
        "sequence": sequence,
        "broker": "jainam",
        "orderid": str(sequence),
    }
    return {"name": "order_update", "data": data | given}


def an_account(**given):
    return {"account": "acc", "broker": "jainam", "freshness": "LIVE", "postback_path": ""} | given


def news(*sequences):
    events = [an_event(sequence) for sequence in sequences]
    return to_host(events=events, places={"acc": ["e", sequences[-1]]}, accounts=[an_account()])


def test_state_is_handed_over_once_and_again_when_the_service_does_not_hold_it(host):
    held = to_host(state_mark=mark(host.state))
    with a_stub_service(host.folder, held, held, to_host(), held) as service:
        host.mount()
        eventually(lambda: len(service.asked) >= 5)

    assert [asked["state"] is not None for asked in service.asked[:5]] == [True, False, False, True, False]


def test_each_change_is_told_once_however_often_it_comes(host):
    with a_stub_service(host.folder, news(1, 2), news(1, 2), to_host(places={"acc": ["e", 2]})) as service:
        host.mount()
        eventually(lambda: len(service.asked) >= 4)

    assert [event.orderid for event in host.bus.events] == ["1", "2"]
    assert service.asked[1]["places"] == {"acc": ["e", 2]}


def test_a_page_that_is_logged_in_hears_what_a_stranger_does_not(host):
    with a_stub_service(host.folder, to_host(accounts=[an_account()])) as service:
        host.mount()
        host.await_state("live")
        known = host.app.test_client()
        known.get("/login")
        page = host.socketio.test_client(host.app, flask_test_client=known)
        stranger = host.socketio.test_client(host.app)
        program = host.socketio.test_client(host.app, namespace="/orderwire", auth={"apikey": "the key"})
        guess = host.socketio.test_client(host.app, namespace="/orderwire", auth={"apikey": "a guess"})
        service.answers = [news(1)]
        eventually(lambda: "order_update" in names_of(program.get_received("/orderwire")))
        heard, unheard = names_of(page.get_received()), stranger.get_received()

    assert heard.count("order_update") == 1
    assert unheard == []
    assert not guess.is_connected("/orderwire")


def test_a_page_that_comes_while_the_last_one_leaves_is_not_forgotten_with_its_room(host):
    with a_stub_service(host.folder, to_host(accounts=[an_account()])) as service:
        host.mount()
        host.await_state("live")
        manager, key = host.socketio.server.manager, {"apikey": "the key"}
        first = host.socketio.test_client(host.app, namespace="/orderwire", auth=key)
        held = manager.rooms["/orderwire"]["orderwire"]
        first.disconnect(namespace="/orderwire")

        assert manager.rooms["/orderwire"]["orderwire"] is held  # who looked it up a moment ago is in it

        second = host.socketio.test_client(host.app, namespace="/orderwire", auth=key)
        service.answers = [news(1)]
        eventually(lambda: "order_update" in names_of(second.get_received("/orderwire")))


def names_of(received):
    return [said["name"] for said in received]


def test_the_hosts_own_connect_handler_still_decides_whenever_it_was_registered(host):
    with a_stub_service(host.folder):
        host.mount()
        asked = []

        @host.socketio.on("connect")
        def connect():
            asked.append(1)
            return False

        def is_ours():
            handler = host.socketio.server.handlers["/"]["connect"]
            return getattr(handler, "of_orderwire", None) is host.mounted

        eventually(is_ours)
        client = host.socketio.test_client(host.app)

    assert not client.is_connected()
    assert asked


def test_a_host_that_repeats_its_bus_by_itself_is_not_told_twice_on_its_stream(host):
    host.seams = HostSeams(
        state=host.seams.state, who=host.seams.who, key_owner=host.seams.key_owner, repeats=lambda: True
    )
    with a_stub_service(host.folder, to_host(accounts=[an_account()])) as service:
        host.mount()
        host.await_state("live")
        known = host.app.test_client()
        known.get("/login")
        page = host.socketio.test_client(host.app, flask_test_client=known)
        ours = host.socketio.test_client(host.app, flask_test_client=known, namespace="/orderwire")
        service.answers = [news(1)]
        eventually(lambda: "order_update" in names_of(ours.get_received("/orderwire")))

    assert "order_update" not in names_of(page.get_received())
    assert [event.orderid for event in host.bus.events] == ["1"]


def test_postbacks_that_were_taken_over_go_to_the_service_as_they_came(host):
    path = "/postback/zerodha/segment"
    account = an_account(broker="zerodha", postback_path=path)
    with a_stub_service(host.folder, to_host(accounts=[account])) as service:
        host.mount(take_over="zerodha")
        host.await_state("live")
        client = host.app.test_client()
        taken = client.post("/postback/zerodha", data=b'{"order_id": "1"}')
        ours = client.post("/orderwire/postback/zerodha", data=b"{}")
        other = client.post("/postback/other", data=b"{}")
        large = client.post("/postback/zerodha", data=b"x" * 65_537)
        service.postback_status = 400
        forged = client.post("/postback/zerodha", data=b"forged")

    assert (taken.status_code, ours.status_code, large.status_code, forged.status_code) == (
        200,
        200,
        413,
        400,
    )
    assert other.text == "own other"
    assert service.postbacks == [(path, b'{"order_id": "1"}'), (path, b"{}"), (path, b"forged")]


def test_a_flood_of_postbacks_meets_the_hosts_limiter(host, monkeypatch):
    monkeypatch.setattr("orderwire.openalgo.mount.POSTBACK_LIMIT", "3 per hour")
    host.mount()
    client = host.app.test_client()

    codes = [client.post("/orderwire/postback/zerodha", data=b"{}").status_code for _ in range(4)]

    assert codes == [503, 503, 503, 429]


# --- a service that posts ----------------------------------------------------------------------------------


def post(host, message, *, secret=SECRET, at=None, message_id="m1"):
    body = message if isinstance(message, bytes) else msgspec.json.encode(message)
    moment = int(time.time()) if at is None else at
    headers = webhooks.headers(body, secret=secret, message_id=message_id, at=moment)
    return host.app.test_client().post("/orderwire/exchange", data=body, headers=headers)


@pytest.fixture
def posted_to(host):
    host.mount(host_secret=SECRET)
    return host


def test_a_signed_message_is_told_and_answered_with_what_the_service_does_not_hold(posted_to):
    first = post(posted_to, news(1))
    answer = msgspec.json.decode(first.data, type=FromHost)
    second = post(posted_to, to_host(number=2, state_mark=mark(posted_to.state), places={"acc": ["e", 1]}))

    assert [event.orderid for event in posted_to.bus.events] == ["1"]
    assert answer.state == posted_to.state
    assert answer.places["acc"].sequence == 1
    assert msgspec.json.decode(second.data, type=FromHost).state is None
    assert posted_to.status()["state"] == "live"


@pytest.mark.parametrize("body", [b"", b"[]", b'{"service": "\xbf"}', b'{"a": ' + b"[" * 20_000])
def test_a_signed_message_that_is_none_is_refused(posted_to, body):
    assert post(posted_to, body).status_code == 400


@pytest.mark.parametrize(
    ("how", "code"), [({}, 200), ({"secret": "another secret of 16"}, 403), ({"at": 1_000_000}, 403)]
)
def test_only_who_shares_the_secret_is_heard(posted_to, how, code):
    assert post(posted_to, to_host(), **how).status_code == code


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        (SECRET, "somebody posts with another ORDERWIRE_HOST_SECRET than ours, or its clock differs"),
        ("", "somebody posts with ORDERWIRE_HOST_SECRET, and we have none"),
    ],
)
def test_a_service_with_another_secret_is_told_of_where_the_host_says_that_its_own_is_away(
    host, monkeypatch, ours, said
):
    monkeypatch.setattr("orderwire.openalgo.mount.GONE_AFTER", 3600.0)
    host.mount(host_secret=ours)

    assert post(host, to_host(), secret="another secret of 16").status_code == 403
    monkeypatch.setattr(host.mounted, "_heard_at", time.monotonic() - 3601)
    assert eventually(lambda: (s := host.status())["state"] == "away" and said in s["detail"], what=said)


ONE = {"service": "s1", "home": "orderwire at /data/one on a", "process": 11}
TWO = {"service": "s2", "home": "orderwire at /data/two on b", "process": 22}


def test_a_second_service_gets_no_login_and_is_told_which_the_first_is(posted_to):
    first = post(posted_to, to_host(**ONE))
    refused = post(posted_to, to_host(**TWO, number=5, events=news(1)["events"]))
    again = post(posted_to, to_host(**ONE, number=2))

    assert (first.status_code, refused.status_code, again.status_code) == (200, 409, 200)
    assert refused.get_json()["taken"] is True
    assert refused.get_json()["message"].startswith(
        "This host is followed by orderwire at /data/one on a, process 11 already; orderwire at /data/two on b is given"
    )
    assert posted_to.bus.events == []
    assert posted_to.status()["state"] == "live"


def test_a_service_that_starts_again_goes_on_at_once(posted_to):
    post(posted_to, to_host(**ONE))

    assert post(posted_to, to_host(**ONE | {"service": "s3", "process": 12})).status_code == 200


def test_the_second_service_takes_over_when_the_first_has_gone(posted_to, monkeypatch):
    monkeypatch.setattr("orderwire.openalgo.mount.GONE_AFTER", -1.0)
    post(posted_to, to_host(**ONE))

    assert post(posted_to, to_host(**TWO)).status_code == 200


def test_what_was_said_before_is_refused(posted_to):
    assert post(posted_to, to_host(number=5)).status_code == 200
    assert post(posted_to, to_host(number=5)).status_code == 409
    assert post(posted_to, to_host(number=4)).status_code == 409
    assert post(posted_to, to_host(number=1, service="a new process")).status_code == 200


def test_a_message_of_another_protocol_or_none_is_refused(posted_to):
    assert "different protocols" in post(posted_to, to_host(protocol=9, version="9")).get_json()["message"]
    assert post(posted_to, {"number": "nine"}).status_code == 400


def test_nobody_posts_where_the_host_asks(host):
    host.mount()

    assert post(host, to_host()).status_code == 403


def test_a_service_that_falls_silent_is_away(posted_to, monkeypatch):
    post(posted_to, news(1))
    posted_to.await_state("live")
    monkeypatch.setattr("orderwire.openalgo.mount.GONE_AFTER", 0.0)

    status = posted_to.await_state("away")

    assert "has not been heard" in status["detail"]
    assert [account["freshness"] for account in status["accounts"]] == ["MANUAL"]
