"""What brokers must not say, in their own bytes, through the readers into the book: never believed, always kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from orderwire.brokers.xts import messages as xts
from orderwire.brokers.zerodha import messages as kite
from orderwire.core.instruments import InstrumentTable
from orderwire.core.orders import AccountId, Channel, OrderStatus, Unreadable
from orderwire.errors import ProtocolViolationError
from orderwire.store import inbox, letters
from orderwire.store.book import OrderBook
from orderwire.store.inbox import Verdict
from store.making import DAY, OPENED, ns, observed

ACCOUNT = AccountId("A1")
ORDER = {"zerodha": "260817000000001", "jainam": "1110037999"}
BROKERS = tuple(ORDER)

KITE = {
    "order_id": ORDER["zerodha"],
    "status": "OPEN",
    "exchange": "NSE",
    "tradingsymbol": "SBIN",
    "transaction_type": "BUY",
    "order_type": "LIMIT",
    "product": "MIS",
    "quantity": 10,
    "filled_quantity": 0,
    "price": 800.1,
    "average_price": 0,
    "order_timestamp": "2026-08-17 10:30:01",
}
XTS = {
    "AppOrderID": int(ORDER["jainam"]),
    "OrderStatus": "New",
    "ExchangeSegment": "NSECM",
    "ExchangeInstrumentID": 3045,
    "TradingSymbol": "SBIN",
    "OrderSide": "BUY",
    "OrderType": "Limit",
    "ProductType": "MIS",
    "TimeInForce": "DAY",
    "OrderQuantity": 10,
    "CumulativeQuantity": 0,
    "OrderPrice": 800.1,
    "OrderAverageTradedPrice": "",
    "LastUpdateDateTime": "17-08-2026 10:30:01",
}
NAMES = {
    "status": ("status", "OrderStatus"),
    "filled": ("filled_quantity", "CumulativeQuantity"),
    "quantity": ("quantity", "OrderQuantity"),
    "price": ("price", "OrderPrice"),
    "time": ("order_timestamp", "LastUpdateDateTime"),
    "id": ("order_id", "AppOrderID"),
}


@pytest.fixture
def url(tmp_path: Path, sqlite_file: bytes) -> str:
    """SQLite alone: what is tried here are readers, join and book, and the other tests try the databases."""
    path = tmp_path / "orderwire.db"
    path.write_bytes(sqlite_file)
    return f"sqlite:///{path}"


@dataclass
class Floor:
    """A book that hears one broker's bytes as the feed hands them over."""

    book: OrderBook
    broker: str

    def says(self, *, channel: Channel = Channel.STREAM, **fields: object) -> bytes:
        row = dict(KITE if self.broker == "zerodha" else XTS)
        column = BROKERS.index(self.broker)
        row |= {NAMES[name][column]: value for name, value in fields.items()}
        text = json.dumps(row).encode()
        self.hears(text, channel=channel)
        return text

    def hears(self, text: bytes, *, channel: Channel = Channel.STREAM) -> None:
        try:
            one: object = self._read(text, channel)
        except ProtocolViolationError as error:  # as the supervisor does
            one = Unreadable(account=ACCOUNT, broker=self.broker, reason=str(error), raw=error.raw)
        self.book.on_observation(observed(one))
        self.book.commit()

    def _read(self, text: bytes, channel: Channel) -> object:
        common = {
            "account": ACCOUNT,
            "channel": channel,
            "trading_date": DAY,
            "received_ns": ns(OPENED) + 10**9,
            "instruments": InstrumentTable(()),
        }
        if self.broker == "zerodha":
            return kite.read_order(text, kite.Reading(**common))
        row, raw = xts.read_row(text), text
        return xts.order_update(row, xts.Reading(broker="jainam", **common), raw=raw)

    def shown(self) -> tuple[OrderStatus, int, int] | None:
        view = self.book.current(ACCOUNT, ORDER[self.broker])
        return (view.status, view.filled_quantity, view.quantity) if view else None

    def verdicts(self) -> list[Verdict]:
        return [entry.verdict for entry in inbox.timeline(self.book._database, ACCOUNT, ORDER[self.broker])]

    def letters(self) -> list[letters.Letter]:
        return letters.newest(self.book._database)


@pytest.fixture(params=BROKERS)
def floor(request, database, clock) -> Floor:
    book = OrderBook(database, clock=clock, broker_now=lambda _account: OPENED)
    floor = Floor(book, request.param)
    floor.says()
    assert floor.shown() == (OrderStatus.OPEN, 0, 10)
    return floor


def refused(floor: Floor, raw: bytes, why: str) -> None:
    """The page shows what it showed, and a person finds the bytes."""
    assert floor.shown() == (OrderStatus.OPEN, 0, 10)
    (letter,) = floor.letters()
    assert letter.raw == raw
    assert why in letter.reason


@pytest.mark.parametrize("channel", [Channel.STREAM, Channel.REST])
def test_filled_above_any_quantity_is_refused_by_whatever_channel(floor, channel):
    refused(floor, floor.says(filled=11, channel=channel), "above any quantity")


def test_a_number_below_zero_is_refused(floor):
    refused(floor, floor.says(filled=-3), "")


def test_a_time_to_come_is_refused_from_a_push(floor):
    time = {"zerodha": "2026-08-17 10:36:00", "jainam": "17-08-2026 10:36:00"}[floor.broker]

    refused(floor, floor.says(filled=4, time=time), "5 minutes ahead")


def test_a_time_to_come_counts_from_rest_and_is_marked(floor):
    time = {"zerodha": "2026-08-17 10:36:00", "jainam": "17-08-2026 10:36:00"}[floor.broker]

    floor.says(filled=4, time=time, channel=Channel.REST)

    assert floor.shown() == (OrderStatus.PARTIALLY_FILLED, 4, 10)
    entries = inbox.timeline(floor.book._database, ACCOUNT, ORDER[floor.broker])
    assert "5 minutes ahead" in entries[-1].note


def test_a_filled_quantity_that_falls_is_kept_and_does_not_count(floor):
    floor.says(filled=6)
    raw = floor.says(filled=4)

    assert floor.shown() == (OrderStatus.PARTIALLY_FILLED, 6, 10)
    last = inbox.timeline(floor.book._database, ACCOUNT, ORDER[floor.broker])[-1]
    assert (last.raw, last.verdict) == (raw, Verdict.SAME)


def test_an_unknown_status_is_kept_and_shown_as_it_came_and_changes_nothing(floor):
    raw = floor.says(status="SOMETHING NEW", time=None)

    assert floor.shown() == (OrderStatus.OPEN, 0, 10)
    last = inbox.timeline(floor.book._database, ACCOUNT, ORDER[floor.broker])[-1]
    assert last.raw == raw
    assert last.observation.status is OrderStatus.UNKNOWN
    assert last.observation.raw_status == "SOMETHING NEW"


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param(lambda text: text[:-20], id="cut short"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: b"null", id="null"),
        pytest.param(lambda _: b"[]", id="a list"),
        pytest.param(lambda _: b"[" * 20_000, id="deep"),
        pytest.param(lambda text: text.replace(b": 10,", b": NaN,"), id="NaN as JSON has none"),
        pytest.param(lambda text: text.replace(b": 10,", b": 1e400,"), id="a number beyond all reason"),
        pytest.param(lambda text: text.replace(b": 10,", b": 10.5,"), id="half a share"),
        pytest.param(lambda text: text.replace(b": 10,", b": {},"), id="an object for a number"),
        pytest.param(lambda text: text.replace(b"SBIN", b"\xff\xfe"), id="not UTF-8"),
        pytest.param(lambda text: text.replace(b"10:30:01", b"25:61:61"), id="no time of day"),
        pytest.param(lambda text: text.replace(b"2026", b"20269"), id="no year"),
    ],
)
def test_what_cannot_be_read_is_kept_as_it_came_and_changes_nothing(floor, spoilt):
    text = spoilt(json.dumps(KITE if floor.broker == "zerodha" else XTS).encode())

    floor.hears(text)

    assert floor.shown() == (OrderStatus.OPEN, 0, 10)
    assert floor.verdicts() == [Verdict.APPLIED]
    found = floor.letters()
    assert len(found) == (1 if text else len(found))
    assert all(text.startswith(letter.raw) and letter.kind == "Unreadable" for letter in found)


@pytest.mark.parametrize(
    ("broker", "text", "quantity"),
    [("jainam", "1,250", 1250), ("jainam", " 25 ", 25), ("zerodha", "1,250", None)],
)
def test_a_number_with_commas_is_read_where_the_broker_writes_so_and_refused_elsewhere(
    database, clock, broker, text, quantity
):
    floor = Floor(OrderBook(database, clock=clock), broker)

    raw = floor.says(quantity=text)

    if quantity is None:
        assert floor.shown() is None
        assert floor.letters()[0].raw == raw
    else:
        assert floor.shown() == (OrderStatus.OPEN, 0, quantity)


@pytest.mark.parametrize("number", [9223372036854775807, 1234567890123456789])
def test_a_19_digit_id_keeps_every_digit(database, clock, number):
    for broker, value in (("zerodha", str(number)), ("jainam", number), ("jainam", str(number))):
        floor = Floor(OrderBook(database, clock=clock), broker)

        floor.says(id=value)

        assert floor.book.current(ACCOUNT, str(number)).order_id == str(number)


def test_of_a_key_that_comes_twice_the_bytes_are_kept_and_the_page_is_right_after_a_read(floor):
    """JSON does not say which of the two counts; we take the last, the book has the last word."""
    name = NAMES["filled"][BROKERS.index(floor.broker)].encode()
    text = json.dumps(KITE if floor.broker == "zerodha" else XTS).encode()
    twice = text.replace(b"{", b'{"' + name + b'": 99, ', 1)

    floor.hears(twice)

    assert floor.shown() == (OrderStatus.OPEN, 0, 10)
    entries = inbox.timeline(floor.book._database, ACCOUNT, ORDER[floor.broker])
    assert text in {entry.raw for entry in entries}


def test_the_same_nonsense_again_is_counted_and_reported_once_a_day(floor, clock):
    for _ in range(50):
        floor.hears(b"{")
    assert len(floor.letters()) == 1
    assert floor.book.tallies()["unreadable"] == 50

    clock.advance(24 * 3600)
    floor.book.commit()
    floor.hears(b"{")

    assert len(floor.letters()) == 2


def test_a_flood_of_different_nonsense_fills_no_disk(floor, monkeypatch):
    monkeypatch.setattr("orderwire.store.batch.MOST_LETTERS", 20)
    for number in range(60):
        floor.hears(f"{{{number}".encode())

    assert len(floor.letters()) == 20
    assert floor.book.tallies()["unreadable"] == 60
