from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import LargeBinary, Text, text

from orderwire.core.orders import AccountId
from orderwire.errors import InvalidRequestError, NotFoundError, SealError
from orderwire.store import audit, outbox, retention, schema
from orderwire.store.accounts import Accounts, Login
from orderwire.store.notifications import Notifications, TargetKind
from orderwire.store.sealing import Keyring
from orderwire.store.users import Users

RING = Keyring(keys={"k1": bytes(range(32))}, newest="k1")
NEWER = Keyring(keys={"k1": bytes(range(32)), "k2": bytes(range(1, 33))}, newest="k2")
KEYS = {"api_key": "kitekey", "api_secret": "CANARY-api-secret"}
SESSION = Login(
    user_id="AB1234",
    secrets={"access_token": "CANARY-token"},
    expires_at=datetime(2026, 8, 18, 0, 30, tzinfo=UTC),
    facts={"user_name": "Asha"},
)


@pytest.fixture
def accounts(database, hasher) -> Accounts:
    users = Users(database, hasher=hasher)
    users.add("asha", "correct horse")
    users.add("ravi", "correct horse")
    accounts = Accounts(database, RING)
    accounts.add("A1", broker="zerodha", owner="asha", credentials=KEYS, addresses={"root": "https://x"})
    return accounts


def test_an_account_comes_back_as_it_was_made(accounts):
    account = accounts.get("A1")

    assert (account.id, account.broker, account.title, account.owner) == ("A1", "zerodha", "A1", "asha")
    assert account.addresses == {"root": "https://x"}
    assert accounts.credentials("A1") == KEYS
    assert accounts.login("A1") is None


def test_an_account_has_a_change_log_from_the_start(accounts, database):
    held = outbox.snapshot(database, AccountId("A1"))

    assert held.epoch
    assert outbox.changes_since(database, AccountId("A1"), epoch=held.epoch, sequence=0, most=1) == []


def test_no_secret_is_in_the_database_in_the_clear(accounts, database):
    accounts.set_login("A1", SESSION)

    with database.read() as connection:
        everything = [
            repr(connection.execute(text(f"SELECT * FROM {table}")).all())
            for table in ("accounts", "sealed", "audit")
        ]

    assert "CANARY" not in "".join(everything)
    assert "CANARY" not in repr(accounts.login("A1"))


def test_a_session_is_kept_replaced_and_cleared(accounts):
    accounts.set_login("A1", Login(user_id="AB1234", secrets={"old": "x"}))
    accounts.set_login("A1", SESSION)

    assert accounts.login("A1") == SESSION
    assert accounts.get("A1").session_user == "AB1234"
    assert accounts.get("A1").session_expires == SESSION.expires_at
    accounts.clear_login("A1")
    assert accounts.login("A1") is None
    assert accounts.get("A1").session_user == ""
    assert accounts.credentials("A1") == KEYS


def test_a_secret_moved_to_another_account_does_not_open(accounts, database):
    accounts.add("A2", broker="zerodha", owner="ravi", credentials={"api_key": "other", "api_secret": "y"})
    steal = (
        "UPDATE sealed SET secret = (SELECT secret FROM sealed WHERE account = 'A1' AND field = 'credential.api_secret')"
        " WHERE account = 'A2' AND field = 'credential.api_secret'"
    )
    database.write(lambda connection: connection.execute(text(steal)))

    with pytest.raises(SealError):
        accounts.credentials("A2")


@pytest.mark.parametrize("account_id", ["", "a b", "x" * 41, "-a", "ä"])
def test_a_bad_id_is_refused(accounts, account_id):
    with pytest.raises(InvalidRequestError):
        accounts.add(account_id, broker="zerodha", owner="asha", credentials={})


def test_a_taken_id_and_an_unknown_owner_are_refused(accounts):
    with pytest.raises(InvalidRequestError, match="already"):
        accounts.add("A1", broker="zerodha", owner="ravi", credentials={})
    with pytest.raises(NotFoundError, match="no user nobody"):
        accounts.add("A9", broker="zerodha", owner="nobody", credentials={})

    assert [account.id for account in accounts.all()] == ["A1"]


def _row(table, account):
    """A row of the table, whatever it means, that names the account."""
    made = {column.name: _value(column, account) for column in table.columns if not column.nullable}
    return made | ({"key": f"{account}/d/1/filled", "target": "t1"} if table.name == "notifications" else {})


def _value(column, account):
    if column.name == "account":
        return account
    if isinstance(column.type, Text):
        return "x"
    return b"x" if isinstance(column.type, LargeBinary) else 1


GO_AT_ONCE = {"commands", "feed_states", "leases"}
"""Kept for a running account alone: gone with it, so that its owner writes nothing more."""


@pytest.mark.parametrize("name", sorted(GO_AT_ONCE))
def test_what_only_a_running_account_needs_goes_with_it(accounts, database, name):
    table = schema.metadata.tables[name]
    database.write(lambda connection: connection.execute(table.insert(), _row(table, "A1")))

    accounts.remove("A1")

    with database.read() as connection:
        assert connection.execute(table.select()).all() == []
    assert accounts.add("A1", broker="zerodha", owner="ravi", credentials={}).owner == "ravi"


@pytest.mark.parametrize(
    "name", [table.name for table, _ in retention.of_account("A1") if table.name not in GO_AT_ONCE]
)
def test_an_id_with_data_of_another_owner_is_not_given_away_until_it_is_erased(accounts, database, name):
    if name == "notifications":
        Notifications(database, RING, token=lambda: "t").add_target(
            "asha", kind=TargetKind.APPRISE, address="tgram://1:T/9/"
        )
        database.write(
            lambda connection: connection.execute(text("UPDATE notification_targets SET id = 't1'"))
        )
    table = schema.metadata.tables[name]
    database.write(lambda connection: connection.execute(table.insert(), _row(table, "A1")))
    accounts.remove("A1")

    with pytest.raises(InvalidRequestError, match=r"erase it first .orderwire erase A1.*another id"):
        accounts.add("A1", broker="zerodha", owner="ravi", credentials={})
    assert accounts.all() == []
    accounts.add("A1", broker="zerodha", owner="asha", credentials={})
    accounts.remove("A1")
    accounts.erase(AccountId("A1"))

    assert accounts.add("A1", broker="zerodha", owner="ravi", credentials={}).owner == "ravi"


def test_an_id_under_which_nothing_was_kept_is_free_for_anybody(accounts):
    accounts.remove("A1")

    assert accounts.add("A1", broker="zerodha", owner="ravi", credentials={}).owner == "ravi"
    accounts.remove("A1")
    assert accounts.add("A1", broker="zerodha", owner="asha", credentials={}).owner == "asha"


def test_accounts_of_one_app_share_the_postback_segment_and_others_do_not(accounts):
    same = accounts.add("A2", broker="zerodha", owner="ravi", credentials={**KEYS})
    other = accounts.add("A3", broker="zerodha", owner="ravi", credentials={"api_key": "another"})
    keyless = [accounts.add(name, broker="jainam", owner="ravi", credentials={}) for name in ("A4", "A5")]

    segment = accounts.get("A1").postback_segment
    assert same.postback_segment == segment
    assert len({segment, other.postback_segment, *(a.postback_segment for a in keyless)}) == 4
    assert len(segment) >= 32
    assert [account.id for account in accounts.of_postback(segment)] == ["A1", "A2"]
    assert accounts.of_postback("guess") == []


def test_accounts_are_listed_by_owner(accounts):
    accounts.add("A2", broker="jainam", owner="ravi", credentials={})

    assert [account.id for account in accounts.of_owner("ravi")] == ["A2"]
    assert [account.id for account in accounts.all()] == ["A1", "A2"]


def test_a_removed_account_leaves_no_secret(accounts, database):
    accounts.set_login("A1", SESSION)

    accounts.remove("A1", by="asha")

    with database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM sealed")).scalar() == 0
    assert audit.entries(database, most=1)[0].what == "account removed"
    for act in (
        accounts.get,
        accounts.credentials,
        accounts.login,
        accounts.remove,
        accounts.clear_login,
    ):
        with pytest.raises(NotFoundError):
            act("A1")


def test_new_credentials_replace_all_old_ones_and_end_the_session(accounts):
    accounts.set_login("A1", SESSION)
    before = accounts.get("A1").postback_segment

    after = accounts.change("A1", credentials={"api_key": "fresh"}, title="Main", allow_plaintext=True)

    assert (after.title, after.allow_plaintext, after.session_user) == ("Main", True, "")
    assert after.addresses == {"root": "https://x"}
    assert after.postback_segment != before
    assert accounts.credentials("A1") == {"api_key": "fresh"}
    assert accounts.login("A1") is None


def test_changing_nothing_of_the_app_keeps_segment_and_session(accounts):
    accounts.set_login("A1", SESSION)
    before = accounts.get("A1")

    after = accounts.change("A1", addresses={})

    assert after.addresses == {}
    assert after.postback_segment == before.postback_segment
    assert accounts.login("A1") == SESSION


def test_after_resealing_the_old_key_is_no_longer_needed(accounts, database):
    accounts.set_login("A1", SESSION)

    assert accounts.reseal(NEWER) == 3

    only_new = Keyring(keys={"k2": NEWER.keys["k2"]}, newest="k2")
    assert Accounts(database, only_new).credentials("A1") == KEYS
    assert Accounts(database, only_new).login("A1") == SESSION
    assert accounts.credentials("A1") == KEYS


def test_resealing_stops_at_a_secret_that_does_not_open(accounts, database):
    database.write(lambda c: c.execute(text("UPDATE sealed SET key_id = 'k9' WHERE field LIKE '%secret'")))

    with pytest.raises(SealError, match="k9"):
        accounts.reseal(NEWER)

    with database.read() as connection:
        keys = connection.execute(text("SELECT key_id FROM sealed ORDER BY field")).scalars().all()
    assert keys == ["k1", "k9"]


def secrets_of(accounts, *account_ids):
    return [one["api_secret"] for one in accounts.verifying(account_ids) if "api_secret" in one]


def test_a_secret_that_was_replaced_verifies_for_a_day(accounts, clock):
    accounts.change("A1", credentials=KEYS | {"api_secret": "second"})
    accounts.change("A1", credentials=KEYS | {"api_secret": "second", "user_id": "AB1234"})

    assert secrets_of(accounts, "A1") == ["second", "CANARY-api-secret"]
    assert accounts.credentials("A1")["api_secret"] == "second"
    clock.advance(24 * 3600 + 1)
    assert secrets_of(accounts, "A1") == ["second"]


def test_the_secret_of_another_app_verifies_nothing(accounts):
    accounts.change("A1", credentials={"api_key": "another", "api_secret": "its own"})

    assert secrets_of(accounts, "A1") == ["its own"]


def test_accounts_of_one_app_are_asked_together(accounts):
    accounts.add("A2", broker="zerodha", owner="asha", credentials=KEYS | {"api_secret": "second"})

    assert secrets_of(accounts, "A1", "A2") == ["CANARY-api-secret", "second"]
    assert secrets_of(accounts, "nobody") == []
