import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokersim.engineio import (
    Dialogue,
    Happening,
    MalformedPacketError,
    Mode,
    Send,
    SocketPacket,
    Timers,
    decode_payload,
    encode_payload,
    event_packet,
    parse_socket_packet,
)


def dialogue(mode=Mode.SIO2, revision=3, refusal=None):
    return Dialogue(sid="abc", mode=mode, revision=revision, timers=Timers(), refusal=refusal)


def joined(mode=Mode.SIO2, revision=3):
    conversation = dialogue(mode, revision)
    conversation.welcome() if revision == 3 else conversation.receive("40")
    return conversation


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("0", SocketPacket(kind=0)),
        ("0/admin,", SocketPacket(kind=0, namespace="/admin")),
        ("0/admin?token=1", SocketPacket(kind=0, namespace="/admin")),
        ("1", SocketPacket(kind=1)),
        ('2["order","{}"]', SocketPacket(kind=2, data=["order", "{}"])),
        ('217["name","x"]', SocketPacket(kind=2, ack=17, data=["name", "x"])),
        ('2/admin,17["x"]', SocketPacket(kind=2, namespace="/admin", ack=17, data=["x"])),
        ('317["ok",1]', SocketPacket(kind=3, ack=17, data=["ok", 1])),
        (
            '51-["n",{"_placeholder":true}]',
            SocketPacket(kind=5, attachments=1, data=["n", {"_placeholder": True}]),
        ),
        ('0{"token":"t"}', SocketPacket(kind=0, data={"token": "t"})),
    ],
)
def test_reads_socket_packets(text, packet):
    assert parse_socket_packet(text) == packet


@pytest.mark.parametrize(
    "text", ["", "9", "x", "2{bad", '2"no array"', "2", "5[]", '5x-["n"]', "2[" + "[" * 9999]
)
def test_refuses_what_is_no_socket_packet(text):
    with pytest.raises(MalformedPacketError):
        parse_socket_packet(text)


def test_writes_an_event_with_its_argument_as_a_string():
    assert event_packet("order", '{"AppOrderID":1}') == r'42["order","{\"AppOrderID\":1}"]'


def test_payload_of_the_protocol_document():
    opening = (
        '0{"sid":"2Rd3UXwETkpM1Nc5AAAD","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000}'
    )

    assert encode_payload([opening, "40"], 3) == f"97:{opening}2:40"
    assert decode_payload(b"1:2", 3) == ["2"]


def test_payload_length_counts_utf16_units():
    assert encode_payload(["4\N{GRINNING FACE}"], 3) == "3:4\N{GRINNING FACE}"


def test_reads_the_binary_framing_of_python_engineio_3():
    assert decode_payload(b"\x00\x01\xff2", 3) == ["2"]
    assert decode_payload(b"\x00\x01\xff2\x01\x01\x02\xff" + b"\x04" * 12, 3) == ["2", b"\x04" * 12]


def test_reads_base64_packets_as_bytes():
    assert decode_payload(b"6:b4BAEC", 3) == [b"\x04\x01\x02"]
    assert decode_payload(b"bAQI=\x1e2", 4) == [b"\x01\x02", "2"]


@pytest.mark.parametrize(
    "body", [b"5:42", b"x:2", b"12", b"\x00\xff2", b"\x00\x05\xff2", b"\x00\x01", b"\xfe:2", b"3:b4!"]
)
def test_refuses_a_malformed_payload(body):
    with pytest.raises(MalformedPacketError):
        decode_payload(body, 3)


packets = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x1e"), min_size=1).map("4".__add__),
    min_size=1,
)


@given(packets, st.sampled_from([3, 4]))
def test_payload_survives_the_round_trip(sent, revision):
    assert decode_payload(encode_payload(sent, revision).encode(), revision) == sent


@given(st.binary(max_size=60), st.sampled_from([3, 4]))
def test_any_payload_is_read_or_refused(body, revision):
    try:
        assert isinstance(decode_payload(body, revision), list)
    except MalformedPacketError:
        assert body


@given(st.text(max_size=30))
def test_any_packet_gets_an_answer(text):
    assert isinstance(joined().receive(text), tuple)


def test_open_packet_of_a_socketio_2_server():
    packet = dialogue().open_packet([])

    assert packet == '0{"sid":"abc","upgrades":[],"pingInterval":25000,"pingTimeout":20000}'


@pytest.mark.parametrize("mode", [Mode.SIO4_ALLOW_EIO3, Mode.SIO4_ONLY])
def test_open_packet_of_a_socketio_4_server_has_max_payload(mode):
    assert json.loads(dialogue(mode, 4).open_packet(["websocket"])[1:])["maxPayload"] == 1_000_000


@pytest.mark.parametrize(
    ("mode", "eio", "revision"),
    [
        (Mode.SIO2, "3", 3),
        (Mode.SIO2, "4", 3),
        (Mode.SIO2, "", 3),
        (Mode.SIO4_ALLOW_EIO3, "3", 3),
        (Mode.SIO4_ALLOW_EIO3, "4", 4),
        (Mode.SIO4_ALLOW_EIO3, "", 3),
        (Mode.SIO4_ONLY, "3", None),
        (Mode.SIO4_ONLY, "4", 4),
        (Mode.SIO4_ONLY, "", None),
    ],
)
def test_revision_spoken_in_each_mode(mode, eio, revision):
    assert mode.revision(eio) == revision


def test_revision_3_joins_unasked():
    assert dialogue().welcome() == (Send("40"), Happening.JOINED)


def test_revision_4_joins_when_asked_and_tells_a_sid():
    conversation = dialogue(Mode.SIO4_ONLY, 4)

    assert conversation.welcome() == ()
    assert conversation.receive('40{"token":"x"}') == (Send('40{"sid":"cba"}'), Happening.JOINED)


@pytest.mark.parametrize(
    ("mode", "revision", "answer"), [(Mode.SIO2, 3, '44"no"'), (Mode.SIO4_ONLY, 4, '44{"message":"no"}')]
)
def test_middleware_refusal_replaces_the_join(mode, revision, answer):
    conversation = dialogue(mode, revision, refusal="no")

    outputs = conversation.welcome() if revision == 3 else conversation.receive("40")

    assert outputs == (Send(answer),)
    assert conversation.event("order") == ()


def test_second_connect_doubles_events_on_socketio_2():
    conversation = joined()

    assert conversation.receive("40") == (Happening.JOINED,)
    assert conversation.event("x", 1) == ('42["x",1]',) * 2


@pytest.mark.parametrize("revision", [3, 4])
def test_second_connect_drops_the_connection_on_socketio_4(revision):
    assert joined(Mode.SIO4_ALLOW_EIO3, revision).receive("40") == (Happening.DROP,)


@pytest.mark.parametrize(
    ("mode", "revision", "packet", "outputs"),
    [
        (Mode.SIO2, 3, "2", (Send("3"),)),
        (Mode.SIO2, 3, "2probe", (Send("3probe"),)),
        (Mode.SIO2, 3, "3", ()),
        (Mode.SIO4_ALLOW_EIO3, 3, "3", (Happening.DROP,)),
        (Mode.SIO4_ONLY, 4, "3", ()),
        (Mode.SIO4_ONLY, 4, "2", (Happening.DROP,)),
        (Mode.SIO2, 3, "9x", (Happening.DROP,)),
        (Mode.SIO2, 3, "", (Happening.DROP,)),
        (Mode.SIO2, 3, "42{bad", (Happening.DROP,)),
        (Mode.SIO2, 3, "1", ()),
        (Mode.SIO2, 3, "5", ()),
        (Mode.SIO2, 3, '42["hello"]', ()),
        (Mode.SIO2, 3, "41/admin,", ()),
        (Mode.SIO2, 3, "40/admin,", (Send('44/admin,"Invalid namespace"'),)),
        (Mode.SIO4_ONLY, 4, "40/admin,", (Send('44/admin,{"message":"Invalid namespace"}'),)),
    ],
)
def test_answers(mode, revision, packet, outputs):
    assert joined(mode, revision).receive(packet) == outputs


def test_close_packet_counts_on_polling_only():
    assert joined().receive("1", polling=True) == (Happening.CLOSED,)


def test_client_that_left_gets_no_events_but_pongs():
    conversation = joined()

    assert conversation.receive("41") == (Happening.LEFT,)
    assert conversation.event("order", "{}") == ()
    assert conversation.receive("2") == (Send("3"),)


def test_server_side_disconnect_says_41():
    conversation = joined()

    assert conversation.leave() == (Send("41"),)
    assert conversation.event("order", "{}") == ()
