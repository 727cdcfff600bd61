from __future__ import annotations

import csv
import json
from datetime import date, timedelta
from decimal import Decimal

import pyarrow.parquet as pq
import pytest

from orderwire.core.orders import AccountId
from orderwire.errors import ConfigurationError
from orderwire.store.book import OrderBook
from orderwire.store.export import Form, Selection, Subject, export
from store.making import DAY, LIFE, OPENED, observed, position, trade, update


@pytest.fixture
def filled(database, clock):
    book = OrderBook(database, clock=clock)
    for one in (
        *(update(word, order="1") for word in LIFE),
        update("open", order="2", symbol='A "B", C', at=OPENED + timedelta(days=1)),
        update("open", order="3", account="A2"),
        trade(order="1"),
        position(),
    ):
        book.on_observation(observed(one))
    book.commit()
    return database


def rows_of(path, form):
    if form is Form.CSV:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if form is Form.JSONL:
        return [json.loads(line, parse_float=str) for line in path.read_text().splitlines()]
    return pq.read_table(path).to_pylist()


@pytest.mark.parametrize("form", Form)
def test_orders_are_written_with_every_digit_in_every_form(filled, tmp_path, form):
    path = tmp_path / f"orders.{form}"
    told = []

    count = export(
        filled, Subject.ORDERS, path, form=form, progress=lambda done, total: told.append((done, total))
    )

    rows = rows_of(path, form)
    assert count == len(rows) == 3
    assert [(row["account"], row["order_id"]) for row in rows] == [("A1", "1"), ("A1", "2"), ("A2", "3")]
    assert rows[1]["symbol"] == 'A "B", C'
    assert Decimal(rows[0]["average_price"]) == update("filled").average_price
    assert str(rows[0]["filled_quantity"]) == "10"
    assert str(rows[0]["trading_date"]) == "2026-08-17"
    assert (told[0], told[-1]) == ((0, 3), (3, 3))


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize(("subject", "count"), [("trades", 1), ("positions", 1), ("observations", 6)])
def test_everything_else_is_written_too(filled, tmp_path, form, subject, count):
    path = tmp_path / "out"

    assert export(filled, Subject(subject), path, form=form) == count
    assert len(rows_of(path, form)) == count


def test_parquet_knows_numbers_days_and_moments(filled, tmp_path):
    export(filled, Subject.ORDERS, tmp_path / "a", form=Form.PARQUET)

    types = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "a")}

    assert types["price"] == "decimal128(38, 12)"
    assert types["quantity"] == "int64"
    assert types["trading_date"] == "date32[day]"
    assert types["broker_time"] == "timestamp[us, tz=UTC]"
    assert types["known_symbol"] == "bool"
    assert types["status"] == "string"


def test_observations_carry_the_brokers_bytes(filled, tmp_path):
    book = OrderBook(filled, clock=filled.clock)
    book.on_observation(observed(update("open", order="9", raw=b'{"a": "\xff"}')))
    book.commit()

    export(filled, Subject.OBSERVATIONS, tmp_path / "a", form=Form.JSONL)

    last = rows_of(tmp_path / "a", Form.JSONL)[-1]
    assert last["raw"] == '{"a": "\\xff"}'
    assert last["verdict"] == "applied"


@pytest.mark.parametrize(
    ("only", "orders"),
    [
        (Selection(account=AccountId("A1")), ["1", "2"]),
        (Selection(since=DAY + timedelta(days=1)), ["2"]),
        (Selection(until=DAY), ["1", "3"]),
        (Selection(account=AccountId("A2"), since=DAY, until=DAY), ["3"]),
        (Selection(since=date(2030, 1, 1)), []),
    ],
)
def test_a_selection_is_of_an_account_and_of_session_days(filled, tmp_path, only, orders):
    export(filled, Subject.ORDERS, tmp_path / "a", form=Form.JSONL, only=only)

    assert [row["order_id"] for row in rows_of(tmp_path / "a", Form.JSONL)] == orders


def test_nothing_is_overwritten(filled, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("precious")

    with pytest.raises(ConfigurationError, match="exists already"):
        export(filled, Subject.ORDERS, path, form=Form.CSV)

    assert path.read_text() == "precious"


def test_what_cannot_be_written_is_explained_and_leaves_nothing(filled, tmp_path):
    with pytest.raises(ConfigurationError, match="could not be written"):
        export(filled, Subject.ORDERS, tmp_path / "nowhere" / "a.csv", form=Form.CSV)

    assert list(tmp_path.glob("*.part")) == []


def test_a_reader_that_fails_midway_leaves_no_half_file(filled, tmp_path):
    def stop(done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(filled, Subject.ORDERS, tmp_path / "a.csv", form=Form.CSV, progress=stop)

    assert not (tmp_path / "a.csv").exists()
    assert not (tmp_path / "a.csv.part").exists()
