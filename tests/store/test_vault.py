from __future__ import annotations

import pytest

from orderwire.errors import SealError
from orderwire.store import sealing
from orderwire.store.accounts import Accounts
from orderwire.store.notifications import Notifications, TargetKind
from orderwire.store.users import Users
from orderwire.store.vault import Vault

TARGET = "tgram://a-bot-token/chat"


@pytest.fixture
def rooms(database, hasher, tmp_path):
    path = tmp_path / "sealing-key.json"
    ring = sealing.create(path)
    Users(database, hasher=hasher).add("asha", "long enough")
    accounts, notifications = Accounts(database, ring), Notifications(database, ring)
    accounts.add("acc", broker="wired", owner="asha", credentials={"api_key": "k", "api_secret": "s3cret"})
    notifications.add_target("asha", kind=TargetKind.APPRISE, address=TARGET)
    return path, accounts, notifications


def test_after_a_rotation_everything_opens_with_the_new_key_alone(rooms, database):
    path, accounts, notifications = rooms

    key, count = Vault(path, accounts=accounts, notifications=notifications).rotate(by="cli", forget_old=True)

    alone = sealing.load(path)
    assert (key, list(alone.keys), count) == ("k2", ["k2"], 3)
    assert Accounts(database, alone).credentials("acc")["api_secret"] == "s3cret"
    (target,) = notifications.targets("asha")
    assert Notifications(database, alone).address(target.id, owner="asha") == (TARGET, "")


def test_earlier_keys_are_kept_for_backups_unless_asked_otherwise(rooms):
    path, accounts, notifications = rooms

    Vault(path, accounts=accounts, notifications=notifications).rotate(by="cli")

    assert list(sealing.load(path).keys) == ["k1", "k2"]
    assert accounts.credentials("acc")["api_secret"] == "s3cret"


def test_a_secret_that_does_not_open_stops_the_rotation_and_no_key_is_lost(rooms, database):
    path, accounts, notifications = rooms
    database.write(lambda c: c.exec_driver_sql("UPDATE sealed SET account = account, key_id = 'k9'"))

    with pytest.raises(SealError):
        Vault(path, accounts=accounts, notifications=notifications).rotate(by="cli", forget_old=True)

    assert list(sealing.load(path).keys) == ["k1", "k2"]
