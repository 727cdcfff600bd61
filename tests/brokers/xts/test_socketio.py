from __future__ import annotations

import json
import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orderwire.brokers.xts.socketio import (
    Connection,
    Ended,
    Ending,
    Ignored,
    Joined,
    Opened,
    PacketType,
    Received,
    SocketPacket,
    SocketType,
    Timers,
    TransportPing,
    Unreadable,
    handshake_url,
    read_packet,
    read_payload,
    read_socket_packet,
    revision_to_try,
    write_payload,
    write_socket_packet,
)
from orderwire.errors import ConfigurationError, ProtocolViolationError

OPEN = '0{"sid":"abc","upgrades":[],"pingInterval":25000,"pingTimeout":20000}'
OPEN_UPGRADABLE = '0{"sid":"abc","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000}'
OPEN_4 = '0{"sid":"abc","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'


def joined_3(*, opened=OPEN, now=100.0):
    connection = Connection(revision=3, now=now)
    connection.receive(opened, now=now)
    connection.receive("40", now=now)
    return connection


def joined_4(*, now=100.0):
    connection = Connection(revision=4, now=now)
    connection.receive(OPEN_4, now=now)
    connection.frames()
    connection.receive('40{"sid":"xyz"}', now=now)
    return connection


# --- packets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("0", SocketPacket(type=SocketType.CONNECT)),
        ('0{"sid":"x"}', SocketPacket(type=SocketType.CONNECT, data={"sid": "x"})),
        ("0/admin,", SocketPacket(type=SocketType.CONNECT, namespace="/admin")),
        ("1", SocketPacket(type=SocketType.DISCONNECT)),
        ('2["joined","hello"]', SocketPacket(type=SocketType.EVENT, data=["joined", "hello"])),
        ('217["name","x"]', SocketPacket(type=SocketType.EVENT, ack=17, data=["name", "x"])),
        ('2/admin,5["a"]', SocketPacket(type=SocketType.EVENT, namespace="/admin", ack=5, data=["a"])),
        ('317["ok",1]', SocketPacket(type=SocketType.ACK, ack=17, data=["ok", 1])),
        ('4"Invalid Token"', SocketPacket(type=SocketType.ERROR, data="Invalid Token")),
        ('4{"message":"no"}', SocketPacket(type=SocketType.ERROR, data={"message": "no"})),
        ("4not json", SocketPacket(type=SocketType.ERROR, data="not json")),
        ('51-["n",{}]', SocketPacket(type=SocketType.BINARY_EVENT, attachments=1, data=["n", {}])),
        ('61-17["n"]', SocketPacket(type=SocketType.BINARY_ACK, attachments=1, ack=17, data=["n"])),
    ],
)
def test_socket_packets_are_read_as_the_protocol_says(text, packet):
    assert read_socket_packet(text) == packet


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "x",
        "2",
        "2{}",
        "2[]",
        "2[1]",
        '2["a"',
        "2{bad",
        '3"a"',
        '21-["n"]',
        "2" + "[" * 20_000,
        "0" + "1" * 16,
    ],
)
def test_a_malformed_socket_packet_is_a_violation(text):
    with pytest.raises(ProtocolViolationError):
        read_socket_packet(text)


@pytest.mark.parametrize("frame", ["", "7", "9x", "x", " 2", "²"])
def test_an_unknown_engine_packet_is_a_violation(frame):
    with pytest.raises(ProtocolViolationError):
        read_packet(frame)


def test_an_engine_packet_is_split_after_its_digit():
    assert read_packet("2probe") == (PacketType.PING, "probe")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
NAMESPACE = st.just("/") | st.text(string.ascii_letters, min_size=1).map("/{}".format)


@given(
    namespace=NAMESPACE,
    ack=st.none() | st.integers(0, 10**15 - 1),
    name=st.text(),
    arguments=st.lists(JSON, max_size=3),
)
def test_an_event_survives_writing_and_reading(namespace, ack, name, arguments):
    packet = SocketPacket(type=SocketType.EVENT, namespace=namespace, ack=ack, data=[name, *arguments])

    assert read_socket_packet(write_socket_packet(packet)) == packet


@given(text=st.text() | st.from_regex(r"[0-6]([0-9]{0,3}-)?(/[a-z]*,)?[0-9]{0,20}.*", fullmatch=True))
def test_reading_anything_raises_nothing_but_a_violation(text):
    try:
        packet = read_socket_packet(text)
    except ProtocolViolationError:
        return
    assert packet.type in SocketType


# --- polling payloads -------------------------------------------------------------------------------------


def test_a_revision_3_payload_counts_utf16_units():
    body = '5:4"é"2:405:4"😀"'.replace('5:4"é"', '4:4"é"').encode()

    assert read_payload(body) == ['4"é"', "40", '4"😀"']


def test_a_revision_4_payload_is_separated():
    assert read_payload(b"0{}\x1e40\x1e2") == ["0{}", "40", "2"]


def test_a_binary_payload_of_python_clients_is_read_and_its_binary_packets_left_out():
    assert read_payload(b"\x00\x01\xff2\x01\x03\xff\x04ab\x00\x02\xff40") == ["2", "40"]


def test_the_handshake_answer_of_a_socket_io_2_server_is_read():
    body = f"{len(OPEN_UPGRADABLE)}:{OPEN_UPGRADABLE}2:40".encode()

    assert read_payload(body) == [OPEN_UPGRADABLE, "40"]


@pytest.mark.parametrize(
    "body", [b"5:40", b"2:40x", b"2:40:", b"\x00\xff2", b"\x00\x0b\xff2", b"\x00\x05\xff2", b"\x00", b"\xfe"]
)
def test_a_damaged_payload_is_a_violation(body):
    with pytest.raises(ProtocolViolationError):
        read_payload(body)


PACKETS = st.lists(
    st.builds(
        "{}{}".format,
        st.sampled_from("0123456"),
        st.text(st.characters(exclude_characters="\x1e", exclude_categories=["Cs"])),
    ),
    min_size=1,
)


@given(packets=PACKETS, revision=st.sampled_from([3, 4]))
def test_a_payload_survives_writing_and_reading(packets, revision):
    body = write_payload(packets, revision=revision)

    # "4:…" looks like a length; Socket.IO never says that
    assume(revision == 3 or not re.match(rb"[0-9]{1,9}:", body))

    assert read_payload(body) == packets


@given(body=st.binary())
def test_reading_any_body_raises_nothing_but_a_violation(body):
    try:
        packets = read_payload(body)
    except ProtocolViolationError:
        return
    assert all(isinstance(packet, str) for packet in packets)


# --- addresses and revisions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "path", "transport", "begins"),
    [
        (
            "https://h:5000/interactive",
            "interactive/socket.io",
            "websocket",
            "wss://h:5000/interactive/socket.io/?",
        ),
        ("http://h:4202", "socket.io", "websocket", "ws://h:4202/socket.io/?"),
        (
            "http://h:4202/1interactive",
            "/1interactive/socket.io/",
            "polling",
            "http://h:4202/1interactive/socket.io/?",
        ),
    ],
)
def test_the_handshake_goes_beside_the_interactive_api(base, path, transport, begins):
    url = handshake_url(base, path=path, query={"token": "a+b"}, revision=3, transport=transport)

    assert url.startswith(begins)
    assert url.endswith(f"EIO=3&transport={transport}&token=a%2Bb")


def test_an_upgrade_names_its_session():
    url = handshake_url("http://h", path="socket.io", query={}, revision=4, transport="websocket", sid="S1")

    assert url == "ws://h/socket.io/?EIO=4&transport=websocket&sid=S1"


@pytest.mark.parametrize(
    ("setting", "winner", "failures", "revision"),
    [
        ("auto", None, 0, 3),
        ("auto", None, 1, 4),
        ("auto", None, 2, 3),
        ("auto", 4, 0, 4),
        ("auto", 4, 1, 3),
        ("auto", 4, 2, 4),
        ("3", 4, 7, 3),
        ("4", None, 0, 4),
    ],
)
def test_the_next_revision_to_try(setting, winner, failures, revision):
    assert revision_to_try(setting, winner=winner, failures=failures) == revision


def test_an_unknown_revision_setting_is_refused():
    with pytest.raises(ConfigurationError, match="auto"):
        revision_to_try("5")


# --- the connection, revision 3 ---------------------------------------------------------------------------


def test_revision_3_joins_without_sending_anything():
    connection = Connection(revision=3, now=0.0)

    signals = connection.receive(OPEN, now=0.1) + connection.receive("40", now=0.2)

    assert signals == [
        Opened(sid="abc", ping_interval=25.0, ping_timeout=20.0, upgrades=(), raw=OPEN[1:]),
        Joined(revision=3),
    ]
    assert connection.frames() == []
    assert connection.joined


def test_an_event_comes_out_with_its_arguments_untouched():
    frame = '42["order","{\\"AppOrderID\\":1}"]'

    assert joined_3().receive(frame, now=101.0) == [Received(name="order", arguments=('{"AppOrderID":1}',))]


def test_an_event_that_asks_for_an_acknowledgement_gets_one():
    connection = joined_3()

    connection.receive('4217["joined","x"]', now=101.0)

    assert connection.frames() == ["4317[]"]


def test_the_first_ping_goes_after_three_seconds_and_then_every_three():
    connection = joined_3(now=100.0)

    sent = []
    for now in (102.9, 103.0, 105.9, 106.0):
        connection.tick(now)
        sent.append(connection.frames())
        connection.receive("3", now=now)

    assert sent == [[], ["2"], [], ["2"]]


def test_a_half_open_connection_is_noticed_within_eight_seconds():
    connection, now = joined_3(now=100.0), 100.0

    signals = []
    while not signals:
        now = connection.deadline
        signals = connection.tick(now)

    assert signals == [Ended(how=Ending.SILENT, detail="a ping was not answered in time")]
    assert now - 100.0 < 8.0


def test_any_byte_answers_a_ping():
    connection = joined_3(now=100.0)
    connection.tick(103.0)

    connection.heard(107.8)

    assert connection.tick(108.5) == []
    assert connection.joined


@pytest.mark.parametrize(
    ("interval", "timeout", "ping_after", "answer_within"),
    [
        (25_000, 20_000, 3.0, 4.5),
        (2_000, 4_000, 1.0, 4.0),
        (25_000, 1_000, 0.5, 1.0),
        (300, 60_000, 0.15, 4.5),
    ],
)
def test_our_pings_never_go_beyond_the_handshakes_timers(interval, timeout, ping_after, answer_within):
    opened = f'0{{"sid":"a","upgrades":[],"pingInterval":{interval},"pingTimeout":{timeout}}}'
    connection = joined_3(opened=opened, now=0.0)

    assert connection.deadline == pytest.approx(ping_after)
    connection.tick(ping_after)
    ended = [connection.tick(now / 1000) for now in range(int(ping_after * 1000), 46_000, 10)]
    silent_at = next(index for index, signals in enumerate(ended) if signals) / 100 + ping_after
    patience = min(ping_after + answer_within, (interval + timeout) / 1000)
    assert silent_at == pytest.approx(patience, abs=0.03)


def test_a_server_that_pings_in_revision_3_is_answered():
    connection = joined_3()

    connection.receive("2", now=101.0)
    connection.receive("2probe", now=101.0)

    assert connection.frames() == ["3", "3probe"]


@pytest.mark.parametrize(
    ("frame", "ended"),
    [
        ("41", Ended(how=Ending.LEFT, detail="the server left the namespace")),
        ("1", Ended(how=Ending.CLOSED, detail="the server ended the session")),
        ('44"Invalid Token"', Ended(how=Ending.REFUSED, detail="Invalid Token")),
        ('44{"message":"no such token"}', Ended(how=Ending.REFUSED, detail="no such token")),
        ("44", Ended(how=Ending.REFUSED, detail="the server refused the connection")),
    ],
)
def test_endings_end_the_connection_for_good(frame, ended):
    connection = joined_3()

    assert connection.receive(frame, now=101.0) == [ended]
    assert connection.receive('42["order","{}"]', now=102.0) == []
    assert connection.tick(1000.0) == []
    assert connection.deadline is None
    assert connection.frames() == []
    assert not connection.joined


def test_a_refusal_may_come_instead_of_the_join():
    connection = Connection(revision=3, now=0.0)
    connection.receive(OPEN, now=0.0)

    assert connection.receive('44"Invalid Token"', now=0.1) == [
        Ended(how=Ending.REFUSED, detail="Invalid Token")
    ]


@pytest.mark.parametrize(
    "frame", ["40", '42["x"]', "9", "hello", b"\x81\x02", "", "0{}", "0nonsense", '0{"sid":1}']
)
def test_the_first_frame_must_be_an_open_packet(frame):
    connection = Connection(revision=3, now=0.0)

    (ended,) = connection.receive(frame, now=0.1)

    assert ended.how is Ending.MALFORMED


@pytest.mark.parametrize("timers", ['"pingInterval":0,"pingTimeout":5', '"pingInterval":5,"pingTimeout":-1'])
def test_timers_without_sense_are_refused(timers):
    connection = Connection(revision=3, now=0.0)

    (ended,) = connection.receive(f'0{{"sid":"a",{timers}}}', now=0.1)

    assert ended.how is Ending.MALFORMED


@pytest.mark.parametrize("frame", ["42{bad", "9x", "42[]", "4", ""])
def test_a_damaged_frame_is_reported_and_the_connection_goes_on(frame):
    connection = joined_3()

    (signal,) = connection.receive(frame, now=101.0)

    assert isinstance(signal, Unreadable)
    assert connection.receive('42["order","{}"]', now=102.0) == [Received(name="order", arguments=("{}",))]


@pytest.mark.parametrize(
    "frame", [b"\x04\x01", "40", '42/admin,["x"]', '451-["n",{"_placeholder":true,"num":0}]', "431[]", OPEN]
)
def test_what_xts_does_not_use_is_left_out(frame):
    (signal,) = joined_3().receive(frame, now=101.0)

    assert isinstance(signal, Ignored)


@pytest.mark.parametrize("frame", ["3", "6", "5"])
def test_pong_noop_and_upgrade_say_nothing(frame):
    assert joined_3().receive(frame, now=101.0) == []


def test_a_server_that_never_opens_is_given_up():
    connection = Connection(revision=3, now=0.0, timers=Timers(open_within=7.0))

    assert connection.deadline == 7.0
    assert connection.tick(7.0) == [Ended(how=Ending.SILENT, detail="no open packet came in time")]


def test_a_server_that_never_joins_is_given_up_though_it_answers_pings():
    connection, now = Connection(revision=3, now=0.0), 0.0
    connection.receive(OPEN, now=0.0)

    signals = []
    while not signals:
        now = connection.deadline
        signals = connection.tick(now)
        connection.receive("3", now=now)

    assert signals == [Ended(how=Ending.NOT_JOINED, detail="the namespace was not joined in time")]
    assert now == 7.0


# --- the connection, revision 4 ---------------------------------------------------------------------------


def test_revision_4_asks_to_join_a_server_that_says_max_payload():
    connection = Connection(revision=4, now=0.0)

    connection.receive(OPEN_4, now=0.1)

    assert connection.frames() == ["40"]
    assert connection.receive('40{"sid":"xyz"}', now=0.2) == [Joined(revision=4)]


def test_revision_4_goes_on_as_3_when_a_socket_io_2_server_joins_it_unasked():
    connection = Connection(revision=4, now=0.0)
    connection.receive(OPEN, now=0.0)

    assert connection.receive("40", now=0.1) == [Joined(revision=3)]
    connection.tick(3.1)
    assert connection.frames() == ["2"]


def test_revision_4_asks_an_older_socket_io_4_server_after_a_second():
    connection = Connection(revision=4, now=0.0)
    connection.receive(OPEN, now=0.0)

    assert (connection.frames(), connection.deadline) == ([], 1.0)
    connection.tick(1.0)

    assert connection.frames() == ["40"]


def test_a_ping_of_the_server_shows_revision_4_too():
    connection = Connection(revision=4, now=0.0)
    connection.receive(OPEN, now=0.0)

    connection.receive("2", now=0.5)

    assert connection.frames() == ["3", "40"]


def test_revision_4_answers_pings_and_sends_only_transport_pings():
    connection = joined_4(now=100.0)

    connection.receive("2", now=101.0)
    assert connection.frames() == ["3"]
    connection.tick(103.0)
    assert connection.frames() == [TransportPing.PING]


def test_a_half_open_revision_4_connection_is_noticed_as_fast():
    connection, now = joined_4(now=100.0), 100.0

    signals = []
    while not signals:
        now = connection.deadline
        signals = connection.tick(now)

    assert signals[0].how is Ending.SILENT
    assert now - 100.0 < 8.0


# --- polling first ----------------------------------------------------------------------------------------


def test_polling_upgrades_and_releases_what_came_meanwhile():
    connection = Connection(revision=3, now=0.0, polling=True)
    body = write_payload([OPEN_UPGRADABLE, "40", '42["joined","hi"]'], revision=3)

    (opened,) = connection.receive_poll(body, now=0.1)

    assert opened.upgrades == ("websocket",)
    assert not connection.joined
    assert connection.frames() == []
    assert connection.upgrade() == "2probe"
    assert connection.receive("3probe", now=0.2) == [
        Joined(revision=3),
        Received(name="joined", arguments=("hi",)),
    ]
    assert connection.frames() == ["5"]
    assert connection.joined
    assert connection.deadline == pytest.approx(3.2)


def test_polling_in_revision_4_joins_after_the_upgrade():
    connection = Connection(revision=4, now=0.0, polling=True)
    connection.receive_poll(OPEN_4.encode(), now=0.1)

    connection.receive("3probe", now=0.2)

    assert connection.frames() == ["5", "40"]
    assert connection.receive('40{"sid":"x"}', now=0.3) == [Joined(revision=4)]


def test_an_upgrade_that_never_comes_is_given_up():
    connection = Connection(revision=3, now=0.0, polling=True)
    connection.receive_poll(write_payload([OPEN_UPGRADABLE, "40"], revision=3), now=0.0)

    assert connection.deadline == 7.0
    assert connection.tick(7.0)[0].how is Ending.NOT_JOINED


def test_a_polling_answer_that_is_no_payload_ends_the_connection():
    connection = Connection(revision=3, now=0.0, polling=True)

    assert connection.receive_poll(b"<html>", now=0.1)[0].how is Ending.MALFORMED


# --- anything at all --------------------------------------------------------------------------------------

FRAMES = st.one_of(
    st.text(max_size=40),
    st.binary(max_size=20),
    st.sampled_from(
        [OPEN, OPEN_4, "40", "41", "1", "2", "3", "3probe", "6", '44"x"', '42["a","b"]', '421["a"]']
    ),
    st.from_regex(r"4[0-6][0-9/,\-]{0,5}[\[\{\"].{0,10}", fullmatch=True),
)
STEPS = st.lists(st.tuples(st.floats(0, 30), st.none() | FRAMES), max_size=30)


@given(revision=st.sampled_from([3, 4]), polling=st.booleans(), steps=STEPS)
def test_no_order_of_frames_and_times_breaks_the_connection(revision, polling, steps):
    connection, now, ended, joined = Connection(revision=revision, now=0.0, polling=polling), 0.0, False, 0

    for seconds, frame in steps:
        now += seconds
        signals = connection.tick(now)
        if frame is not None:
            signals += connection.receive(frame, now=now)
        assert not (ended and signals)
        ended = ended or any(isinstance(signal, Ended) for signal in signals)
        joined += sum(isinstance(signal, Joined) for signal in signals)
        sent = connection.frames()
        assert not (revision == 3 and "40" in sent)
        assert (connection.deadline is None) == ended
    assert joined <= 1


@given(payload=st.dictionaries(st.text(), st.text() | st.integers(-(2**53), 2**53), max_size=5))
def test_json_inside_json_comes_out_as_it_went_in(payload):
    text = json.dumps(payload)
    frame = "42" + json.dumps(["order", text])

    (received,) = joined_3().receive(frame, now=101.0)

    assert json.loads(received.arguments[0]) == payload
