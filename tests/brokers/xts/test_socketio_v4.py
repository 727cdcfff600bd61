"""Our codec beside the Symphony SDK's own library (python-socketio 4.6, python-engineio 3.14): what one writes the other reads."""

from __future__ import annotations

import json
import random
import subprocess

import pytest

from orderwire.brokers.xts.socketio import (
    SocketPacket,
    SocketType,
    read_payload,
    read_socket_packet,
    write_payload,
    write_socket_packet,
)

pytestmark = pytest.mark.needs("peers")

PEER = """
import json, sys
from engineio_v3 import packet as engine, payload
from socketio_v4 import packet as socket

def told(packet):
    return [packet.packet_type, packet.namespace or "/", packet.id, packet.data]

asked = json.load(sys.stdin)
written = []
for kind, namespace, ack, data in asked["write"]:
    written.append(socket.Packet(kind, data=data, namespace=namespace, id=ack).encode())
bodies = []
for texts in asked["bodies"]:
    packets = [engine.Packet(int(text[0]), data=text[1:]) for text in texts]
    bodies.append([payload.Payload(packets=packets).encode(b64=form).hex() for form in (True, False)])
read = [told(socket.Packet(encoded_packet=text)) for text in asked["read"]]
payloads = []
for body in asked["payloads"]:
    packets = payload.Payload(encoded_payload=bytes.fromhex(body)).packets
    payloads.append([str(each.packet_type) + (each.data if isinstance(each.data, str) else json.dumps(each.data)) for each in packets])
json.dump({"written": written, "bodies": bodies, "read": read, "payloads": payloads}, sys.stdout)
"""
DRAW = random.Random(7)
NAMES = ("order", "trade", "position", "joined", "logout", "x,y", "", "ü\u20b9")


def event():
    argument = json.dumps({"AppOrderID": DRAW.randrange(10**10), "Reason": DRAW.choice(NAMES)})
    return SocketPacket(
        type=SocketType.EVENT,
        namespace=DRAW.choice(("/", "/", "/admin")),
        ack=DRAW.choice((None, None, DRAW.randrange(10**9))),
        data=[DRAW.choice(NAMES), argument, DRAW.choice((1, None, {"a": [1]}))],
    )


def fields(packet):
    return [int(packet.type), packet.namespace, packet.ack, packet.data]


@pytest.fixture(scope="module")
def dialogue(peers):
    events = [event() for _ in range(200)]
    bodies = [
        ["2", "2probe", *(f"4{write_socket_packet(event())}" for _ in range(DRAW.randrange(5)))]
        for _ in range(50)
    ]
    asked = {
        "write": [fields(each) for each in events],
        "read": [write_socket_packet(each) for each in events],
        "bodies": bodies,
        "payloads": [
            write_payload([text for text in body if text.isascii()], revision=3).hex() for body in bodies
        ],
    }
    done = subprocess.run(
        [peers, "-c", PEER], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    return events, bodies, json.loads(done.stdout)


def test_it_reads_the_packets_we_write(dialogue):
    events, _, said = dialogue

    assert said["read"] == [fields(each) for each in events]


def test_we_read_the_packets_it_writes(dialogue):
    events, _, said = dialogue

    assert [read_socket_packet(text) for text in said["written"]] == events


@pytest.mark.parametrize("form", [0, 1], ids=["text", "binary"])
def test_we_read_its_polling_bodies_in_both_forms(dialogue, form):
    _, bodies, said = dialogue
    ascii_only = [body for body in bodies if form or all(text.isascii() for text in body)]
    found = [each[form] for each, body in zip(said["bodies"], bodies, strict=True) if body in ascii_only]

    assert [read_payload(bytes.fromhex(body)) for body in found] == ascii_only


def test_it_reads_the_polling_bodies_we_write(dialogue):
    _, bodies, said = dialogue
    counted = [[text[0] for text in body if text.isascii()] for body in bodies]

    assert [[text[0] for text in body] for body in said["payloads"]] == counted
