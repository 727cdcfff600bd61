from __future__ import annotations

import json
import stat

import pytest

from orderwire.errors import ConfigurationError, SealError
from orderwire.store import sealing
from orderwire.store.sealing import Keyring, Sealed

RING = Keyring(keys={"k1": bytes(range(32))}, newest="k1")


def test_what_was_sealed_opens_for_its_own_field():
    sealed = RING.seal("s3cret ₹", account="AB1234", field="api_secret")

    assert RING.open(sealed, account="AB1234", field="api_secret") == "s3cret ₹"
    assert b"s3cret" not in sealed.secret


@pytest.mark.parametrize(
    ("account", "field"), [("AB1235", "api_secret"), ("AB1234", "api_key"), ("AB1234a", "pi_secret")]
)
def test_it_opens_for_no_other_account_or_field(account, field):
    sealed = RING.seal("s3cret", account="AB1234", field="api_secret")

    with pytest.raises(SealError, match="altered, or sealed elsewhere"):
        RING.open(sealed, account=account, field=field)


def test_every_altered_byte_is_noticed():
    sealed = RING.seal("s3cret", account="a", field="f")

    for position in range(len(sealed.secret)):
        altered = bytearray(sealed.secret)
        altered[position] ^= 1
        with pytest.raises(SealError):
            RING.open(Sealed(key_id="k1", secret=bytes(altered)), account="a", field="f")


@pytest.mark.parametrize("secret", [b"", b"short", b"x" * 12])
def test_a_cut_secret_is_refused(secret):
    with pytest.raises(SealError):
        RING.open(Sealed(key_id="k1", secret=secret), account="a", field="f")


def test_a_missing_key_is_named():
    with pytest.raises(SealError, match="key k7"):
        RING.open(Sealed(key_id="k7", secret=b""), account="a", field="f")


def test_sealing_twice_never_gives_the_same_bytes():
    sealed = {RING.seal("same", account="a", field="f").secret for _ in range(50)}

    assert len(sealed) == 50


def test_the_key_file_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "keys.json"

    made = sealing.create(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sealing.load(path).keys == made.keys
    with pytest.raises(ConfigurationError, match="File exists"):
        sealing.create(path)
    assert sealing.load(path).keys == made.keys


def test_a_key_file_others_can_read_is_refused(tmp_path):
    path = tmp_path / "keys.json"
    sealing.create(path)
    path.chmod(0o640)

    with pytest.raises(ConfigurationError, match="chmod 600"):
        sealing.load(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '{"keys": {}, "newest": "k1"}',
        '{"keys": {"k1": "c2hvcnQ="}, "newest": "k1"}',
        '{"keys": {"k1": "?"}, "newest": "k1"}',
    ],
)
def test_a_damaged_key_file_is_refused(tmp_path, content):
    path = tmp_path / "keys.json"
    path.write_text(content)
    path.chmod(0o600)

    with pytest.raises(ConfigurationError, match="damaged"):
        sealing.load(path)


def test_a_missing_key_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigurationError, match="orderwire init"):
        sealing.load(tmp_path / "keys.json")


def test_after_a_rotation_the_old_opens_and_the_new_seals(tmp_path):
    path = tmp_path / "keys.json"
    old = sealing.create(path).seal("s3cret", account="a", field="f")

    ring = sealing.rotate(path)

    assert ring.newest == "k2"
    assert ring.open(old, account="a", field="f") == "s3cret"
    assert ring.seal("x", account="a", field="f").key_id == "k2"
    assert sealing.load(path).keys == ring.keys
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [child.name for child in tmp_path.iterdir()] == ["keys.json"]


def test_keys_do_not_show_in_a_representation(tmp_path):
    ring = sealing.create(tmp_path / "keys.json")
    key = json.loads((tmp_path / "keys.json").read_text())["keys"]["k1"]

    shown = repr(ring) + repr(ring.seal("s3cret", account="a", field="f"))

    assert key not in shown
    assert repr(ring.keys["k1"]) not in shown
