"""The commands an operator types to look after what is kept, on a real database, as they are typed."""

from __future__ import annotations

import json
import shutil
import sqlite3
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orderwire import service
from orderwire.cli import app
from orderwire.clock import SystemClock
from orderwire.config import load
from orderwire.core.events import Event, EventType
from orderwire.core.orders import AccountId
from orderwire.errors import OrderwireError
from orderwire.store import audit, outbox
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from store.making import LIFE, trade, update

PASSWORD = "long-enough-password"
NAME = "zerodha-asha"


@pytest.fixture
def run(tmp_path):
    return partial(typed, tmp_path / "data")


def typed(folder: Path, *words: str, fails: bool = False) -> str:
    """Return what a command says."""
    done = CliRunner().invoke(app, [*words, "--data-dir", str(folder)])
    if fails:
        assert isinstance(done.exception, OrderwireError | SystemExit), done.output
        return done.output + str(done.exception)
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done.output


@pytest.fixture
def settings(tmp_path):
    return load(data_dir=tmp_path / "data")


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A data folder with an account and a day of it; made once, for a password takes its time."""
    folder = tmp_path_factory.mktemp("kept") / "data"
    typed(folder, "init", "--password", PASSWORD)
    records = service.open_records(load(data_dir=folder))
    records.accounts.add(
        NAME, broker="zerodha", owner="admin", credentials={"api_key": "a", "api_secret": "b"}
    )
    book = OrderBook(records.database, clock=records.database.clock)
    for word in LIFE:
        take(book, EventType.ORDER_UPDATE, update(word, account=NAME, raw=b"SECRETORDER"))
    take(book, EventType.TRADE_UPDATE, trade(account=NAME))
    take(book, EventType.ORDER_UPDATE, update("open", account=NAME, order="9", filled_quantity=77))
    records.database.close()
    return folder


@pytest.fixture
def kept(run, template, tmp_path):
    shutil.copytree(template, tmp_path / "data")
    return run


def opened(settings) -> Database:
    return Database(settings.database, clock=SystemClock())


def take(book: OrderBook, kind: EventType, value: object) -> None:
    book.on_observation(Event(kind, value))
    book.commit()


def test_migrate_says_what_it_did_and_then_that_there_is_nothing_to_do(run, tmp_path, settings):
    service.make_data_folder(settings)

    assert "Migrated from nothing" in run("migrate")
    assert "Nothing to do" in run("migrate")


def test_every_command_needs_a_data_folder(run):
    for words in (("migrate",), ("backup", "b"), ("export", "orders", "o.csv"), ("refused",)):
        assert "orderwire init" in run(*words, fails=True)


def test_a_backup_is_restored_with_a_new_epoch_and_without_what_came_later(kept, tmp_path, settings):
    said = kept("backup", str(tmp_path / "b.db"))
    assert "b.db" in said
    assert "key file" in said
    database = opened(settings)
    before = outbox.snapshot(database, AccountId(NAME))
    take(OrderBook(database, clock=database.clock), EventType.ORDER_UPDATE, update(order="2", account=NAME))
    database.close()

    assert "new epoch" in kept("restore", str(tmp_path / "b.db"), "--yes")

    database = opened(settings)
    after = outbox.snapshot(database, AccountId(NAME))
    deeds = [entry.what for entry in audit.entries(database)]
    database.close()
    assert [order.order_id for order in after.orders] == [order.order_id for order in before.orders]
    assert after.epoch != before.epoch
    assert "database restored" in deeds


def test_a_backup_goes_on_beside_a_running_service(kept, tmp_path, settings):
    owner = opened(settings)

    kept("backup", str(tmp_path / "b.db"))

    owner.close()
    with sqlite3.connect(tmp_path / "b.db") as copy:
        assert copy.execute("SELECT count(*) FROM orders").fetchone() == (1,)
    copy.close()


def test_nothing_is_restored_under_a_running_service(kept, tmp_path, settings):
    kept("backup", str(tmp_path / "b.db"))
    owner = opened(settings)

    assert "in use by process" in kept("restore", str(tmp_path / "b.db"), "--yes", fails=True)

    owner.close()


def test_restore_asks_first(kept, tmp_path):
    kept("backup", str(tmp_path / "b.db"))
    done = CliRunner().invoke(
        app, ["restore", str(tmp_path / "b.db"), "--data-dir", str(tmp_path / "data")], input="n\n"
    )

    assert done.exit_code == 1
    assert "Name the backup" in kept("restore", "--yes", fails=True)


def test_erasing_needs_the_account_removed_and_leaves_no_byte_but_the_audit(kept, tmp_path, settings):
    assert "Remove the account" in kept("erase", NAME, "--yes", fails=True)
    kept("accounts", "remove", NAME, "--yes")

    said = kept("erase", NAME, "--yes")

    assert "rows" in said
    files = b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir() if path.is_file())
    assert b"SECRETORDER" not in files
    database = opened(settings)
    newest = audit.entries(database)[0]
    database.close()
    assert (newest.what, newest.detail["account"]) == ("account erased", NAME)
    assert "Nothing is kept" in kept("erase", NAME, "--yes", fails=True)


def test_an_erased_account_is_gone_from_the_running_book_too(kept, settings):
    records = service.open_records(settings)
    book = OrderBook(records.database, clock=records.database.clock)
    assert book.last_update(AccountId(NAME), "260817000000001") is not None
    records.accounts.remove(NAME)

    records.accounts.erase(AccountId(NAME))
    book.forget(AccountId(NAME))

    assert book.last_update(AccountId(NAME), "260817000000001") is None
    records.database.close()


@pytest.mark.parametrize("name", ["o.csv", "o.jsonl", "o.parquet"])
def test_export_knows_the_form_by_the_name(kept, tmp_path, name):
    assert "Wrote 1 rows" in kept("export", "orders", str(tmp_path / name), "--account", NAME)
    assert (tmp_path / name).stat().st_size > 100


def test_export_selects_days(kept, tmp_path):
    after = (update().trading_date + timedelta(days=1)).isoformat()

    assert "Wrote 0 rows" in kept("export", "orders", str(tmp_path / "a.jsonl"), "--since", after)
    kept("export", "orders", str(tmp_path / "b.jsonl"), "--until", after)
    assert json.loads((tmp_path / "b.jsonl").read_text())["status"] == "FILLED"


def test_export_in_an_unknown_form_says_which_there_are(kept, tmp_path):
    assert ".parquet" in kept("export", "orders", str(tmp_path / "a.xlsx"), fails=True)


def test_what_was_refused_is_listed_and_shown_with_its_bytes(kept):
    listed = kept("refused")
    number = listed.split()[0]

    assert "filled 77 is above any quantity seen" in listed
    shown = kept("refused", "--show", number)
    assert '{"order_id": "9", "status": "OPEN"}' in shown
    assert "none" in kept("refused", "--account", "nobody")
    assert "no letter" in kept("refused", "--show", "999", fails=True)
