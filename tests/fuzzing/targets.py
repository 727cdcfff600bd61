"""What is fuzzed: each target takes any bytes, and raises only when a parser broke its word.

The seeds are what the parsers are there for, so that a fuzzer starts where real messages are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec

from orderwire.brokers.xts import answers, master, messages, socketio
from orderwire.brokers.xts.socketio import Connection, Ended, Joined
from orderwire.brokers.zerodha import instruments as kite_instruments
from orderwire.brokers.zerodha import messages as kite
from orderwire.brokers.zerodha import postbacks
from orderwire.core import calendar, seats
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import AccountId, Channel
from orderwire.errors import (
    BrokerError,
    ConfigurationError,
    InvalidRequestError,
    OrderwireError,
    ProtocolViolationError,
    StoreError,
)
from orderwire.feeds import requests
from orderwire.web import forms

DATA = Path(__file__).resolve().parents[1] / "data"
ACCOUNT, DAY = AccountId("fuzz"), date(2026, 8, 17)
XTS = messages.Reading(
    account=ACCOUNT,
    broker="xts",
    channel=Channel.STREAM,
    trading_date=DAY,
    received_ns=1,
    instruments=InstrumentTable(),
)
KITE = kite.Reading(
    account=ACCOUNT, channel=Channel.STREAM, trading_date=DAY, received_ns=1, instruments=InstrumentTable()
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing to fuzz, and where to begin."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def files(folder: str) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted((DATA / folder).glob("*.json")))


# --- the socket -------------------------------------------------------------------------------------------

OPEN = '0{"sid":"S","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000}'
DIALOGUES = (
    (
        OPEN,
        "40",
        '42["joined","Socket joined successfully!"]',
        "3",
        '42["order","{\\"AppOrderID\\":1}"]',
        "41",
    ),
    (
        OPEN.replace("}", ',"maxPayload":1000000}'),
        '40{"sid":"x"}',
        "2",
        '4217["a","b"]',
        '44{"message":"no"}',
    ),
    (OPEN, '44"Invalid Token"'),
    (OPEN, "3probe", "6", '451-["a",{"_placeholder":true,"num":0}]', "\x04abc", "40/admin,", "1"),
)


def frames(data: bytes) -> None:
    """A dialogue: the first byte says how it was dialled, a zero byte ends a frame, 0x01 lets time pass."""
    if not data:
        return
    revision, polling = 3 + (data[0] & 1), bool(data[0] & 2)
    connection, now = Connection(revision=revision, now=0.0, polling=polling), 0.0
    ended, joined = False, 0
    for piece in data[1:].split(b"\x00"):
        now += 4.0 if piece.startswith(b"\x01") else 0.1
        frame: str | bytes = piece.decode("utf-8", "surrogateescape") if data[0] & 4 else piece
        if isinstance(frame, bytes):
            frame = piece.decode("utf-8", "replace")
        signals = connection.tick(now) + connection.receive(frame, now=now)
        assert not (ended and signals), "something was said after the end"
        ended = ended or any(isinstance(signal, Ended) for signal in signals)
        joined += sum(isinstance(signal, Joined) for signal in signals)
        sent = connection.frames()
        assert not (revision == 3 and "40" in sent), "revision 3 must not ask to join"
        assert (connection.deadline is None) == ended, "a connection has a deadline until it ends"
    assert joined <= 1, "joined twice"


def polling(data: bytes) -> None:
    """A polling body: what can be read comes back the same from our own writing of it."""
    try:
        packets = socketio.read_payload(data)
    except ProtocolViolationError:
        return
    text = [packet for packet in packets if packet.isascii() and "\x1e" not in packet]
    assert socketio.read_payload(socketio.write_payload(text, revision=3)) == text if text else True


def packets(data: bytes) -> None:
    """A Socket.IO packet: what can be read means the same once written and read again."""
    try:
        packet = socketio.read_socket_packet(data.decode("utf-8", "replace"))
    except ProtocolViolationError:
        return
    if not isinstance(packet.data, int | float):  # a bare number cannot be told from an acknowledgement's
        assert socketio.read_socket_packet(socketio.write_socket_packet(packet)) == packet


# --- XTS --------------------------------------------------------------------------------------------------


def rows(data: bytes) -> None:
    """A row, wherever it may come: an order, a trade, a position; and every book."""
    for reader in (messages.list_rows, messages.position_rows):
        only(ProtocolViolationError, reader, data)
    only(ProtocolViolationError, messages.holdings, data, XTS)
    only(ProtocolViolationError, lambda: messages.funds(data, account=ACCOUNT))
    only(ProtocolViolationError, messages.placed_order_id, data)
    for row in found_rows(data):
        for read in (messages.order_update, messages.trade, messages.position):
            value = only(ProtocolViolationError, lambda read=read, row=row: read(row, XTS, raw=data))
            assert value is None or value.account == ACCOUNT
        update = only(ProtocolViolationError, lambda row=row: messages.order_update(row, XTS, raw=data))
        assert update is None or (update.quantity > 0 and update.filled_quantity >= 0)


def found_rows(data: bytes) -> Iterable[messages.Row]:
    text = data.decode("utf-8", "replace")
    return [row for row, _ in only(ProtocolViolationError, messages.event_rows, text) or ()]


def envelopes(data: bytes) -> None:
    """An answer of HTTP: always judged, and whatever is asked of it is an error of ours or a value."""
    for status in (200, 400, 502):
        answer = answers.read_answer(status, data)
        assert not (answer.ok and (answer.empty or answer.dead_token))
        assert isinstance(answers.read_error(answer), BrokerError)
        assert isinstance(answers.order_error(answer), BrokerError)
        only(OrderwireError, answers.read_login, answer)
        only(OrderwireError, answers.read_lookup, answer)
    answers.token_expiry(data.decode("utf-8", "replace"))


def xts_lists(data: bytes) -> None:
    """A master and a list of indices: a bad row is counted, what is no list is a violation."""
    count = master.MasterCount()
    rows = only(ProtocolViolationError, master.master_rows, data) or ()
    read = list(master.read_master(rows, broker="xts", count=count))
    assert len(read) + sum(count.skipped.values()) + sum(count.rejected.values()) <= len(rows)
    only(ProtocolViolationError, lambda: master.read_index_list(data, broker="xts", segment="NSECM"))


# --- Kite -------------------------------------------------------------------------------------------------


def kite_replies(data: bytes) -> None:
    """An answer of Kite and all that may be in it, and a frame of its stream."""
    only(OrderwireError, lambda: kite.read_frame(data))
    for status in (200, 400, 503):
        body = only(OrderwireError, lambda status=status: kite.read_reply(data, status=status))
        if body is None:
            continue
        for read in (
            kite.read_orders,
            kite.read_history,
            kite.read_trades,
            kite.read_positions,
            kite.read_holdings,
        ):
            only(ProtocolViolationError, read, body, KITE)
        only(ProtocolViolationError, kite.read_funds, body, ACCOUNT)
        only(OrderwireError, kite.read_placed, body)
        only(OrderwireError, kite.read_session, body)


def kite_orders(data: bytes) -> None:
    """One order of Kite."""
    update = only(ProtocolViolationError, kite.read_order, data, KITE)
    assert update is None or (update.quantity >= 0 and update.filled_quantity >= 0)


def kite_postbacks(data: bytes) -> None:
    """A postback: the fuzzer does not know the secret, so it is refused, whatever it is."""
    assert only(ProtocolViolationError, lambda: postbacks.read_postback(data, secrets=["s3cret"])) is None


def kite_lists(data: bytes) -> None:
    """Kite's list of instruments."""
    only(ProtocolViolationError, kite_instruments.read_instruments, data)


# --- others -----------------------------------------------------------------------------------------------


def programs(data: bytes) -> None:
    """What other programs say and people write: a form, a command, a calendar, who has a seat."""
    only(InvalidRequestError, forms.read_json, data)
    only(StoreError, requests.unpacked, data.decode("utf-8", "replace"))
    only(StoreError, requests.opened, data.decode("utf-8", "replace"), requests.Refresh())
    only(ConfigurationError, calendar.read_calendar, data)
    assert seats.heard(data).words.isprintable()


def only(error: type[Exception], work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what the work returns, None when it raises that error; any other exception is the find."""
    try:
        return work(*arguments)
    except error:
        return None


def planted(data: bytes) -> None:
    """A parser that breaks its word, to see that the fuzzer would find one."""
    assert not (data[:1] == b"4" and data[1:2] == b"2" and data[2:3] == b"["), "found"


def _rows_of(folder: str) -> tuple[bytes, ...]:
    found = [json.loads(text) for text in files(folder)]
    inner = [row.get("data", row) if isinstance(row, dict) else row for row in found]
    flat = [row for rows in inner for row in (rows if isinstance(rows, list) else [rows])]
    return tuple(msgspec.json.encode(row) for row in flat)


TARGETS: Mapping[str, Target] = {
    "xts-frames": Target(
        run=frames,
        seeds=tuple(
            bytes([how]) + b"\x00".join(frame.encode() for frame in dialogue)
            for dialogue in DIALOGUES
            for how in (0, 1, 2, 3)
        ),
    ),
    "xts-polling": Target(
        run=polling,
        seeds=(
            f"{len(OPEN)}:{OPEN}2:40".encode(),
            f"{OPEN}\x1e40".encode(),
            b"\x00\x01\xff2\x01\x01\xff4",
            b'42:42["joined","Socket joined successfully!"]',
        ),
    ),
    "xts-packets": Target(
        run=packets,
        seeds=tuple(frame[1:].encode() for dialogue in DIALOGUES for frame in dialogue if frame[0] == "4"),
    ),
    "xts-rows": Target(run=rows, seeds=files("xts")),
    "xts-answers": Target(
        run=envelopes,
        seeds=(
            b'{"type":"success","code":"s","description":"d","result":{"token":"a.e30.c","userID":"U","clientCodes":["C"]}}',
            b'{"type":true,"code":"hostlookup","result":{"uniqueKey":"k","connectionString":"http://h:1/2hostlookup"}}',
            b'{"type":"error","code":"e-session-0007","description":"Invalid Token"}',
            b'{"type":"error","code":"e-orders-0005","description":"Data Not Available"}',
            b'{"type":"error","code":"e","description":"Bad Request","result":{"errors":[{"messages":["no"]}]}}',
            b'{"data":{"type":"error","code":"e-apirl-0004"}}',
            b"<html>",
        ),
    ),
    "xts-lists": Target(
        run=xts_lists,
        seeds=(
            *map(msgspec.json.encode, (DATA / "xts" / "master.txt").read_text().splitlines()),
            b'{"indexList":["NIFTY 50_26000","INDIA VIX_26002"]}',
        ),
    ),
    "kite-replies": Target(run=kite_replies, seeds=files("kite")),
    "kite-orders": Target(run=kite_orders, seeds=_rows_of("kite")),
    "kite-postbacks": Target(run=kite_postbacks, seeds=((DATA / "kite" / "postback.json").read_bytes(),)),
    "kite-instruments": Target(
        run=kite_lists, seeds=((DATA / "kite" / "instruments.csv").read_bytes()[:2000],)
    ),
    "programs": Target(
        run=programs,
        seeds=(
            seats.said(
                seats.Holder(
                    home="/srv/orderwire", process=7, account="mine", since=datetime(2026, 8, 17, tzinfo=UTC)
                )
            ),
            requests.packed(requests.Refresh()).encode(),
            requests.answered(None).encode(),
            b'{"symbol":"INFY","quantity":1}',
            b'{"source":"me","known_through":"2027-12-31","segments":{"NSE":{"hours":[["09:15:00","15:30:00"]]}}}',
        ),
    ),
}
"""By the name that the command takes."""


def everything(data: bytes) -> None:
    """All targets in one process, for a short run: the first byte says which."""
    if data:
        list(TARGETS.values())[data[0] % len(TARGETS)].run(data[1:])


def target(name: str) -> Target:
    """Return a target by its name; `all` and `planted` are in no list."""
    if name == "planted":
        return Target(run=planted, seeds=())
    if name == "all":
        seeds = (bytes([number]) + seed for number, one in enumerate(TARGETS.values()) for seed in one.seeds)
        return Target(run=everything, seeds=tuple(seeds))
    return TARGETS[name]
