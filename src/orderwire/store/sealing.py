"""Seals secrets for the database: AES-256-GCM, bound to the account and field they belong to.

The keys live in one file beside the database, never in it. The newest key seals; older ones still open what
they sealed until everything was sealed again (`Accounts.reseal`).
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from orderwire.errors import ConfigurationError, SealError
from orderwire.logs import conceal

Chance = Callable[[int], bytes]
"""Returns so many bytes nobody can predict."""

_NONCE = 12
_KEY = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A secret as the database keeps it; `key_id` names the key that opens it."""

    key_id: str
    secret: bytes = field(repr=False)
    """Nonce, ciphertext and tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The sealing keys of one installation. Any thread."""

    keys: Mapping[str, bytes] = field(repr=False)
    newest: str
    chance: Chance = field(default=os.urandom, repr=False)

    def seal(self, plain: str, *, account: str, field: str) -> Sealed:
        """Seal one field of one account with the newest key; it opens for no other field or account."""
        conceal([plain])
        nonce = self.chance(_NONCE)
        box = AESGCM(self.keys[self.newest])
        return Sealed(
            key_id=self.newest,
            secret=nonce + box.encrypt(nonce, plain.encode(), _bound_to(account, field)),
        )

    def open(self, sealed: Sealed, *, account: str, field: str) -> str:
        """Return the plain secret. Raises SealError for a wrong key, account or field, or an altered byte."""
        key = self.keys.get(sealed.key_id)
        if key is None:
            raise SealError(
                f"{account}/{field} was sealed with key {sealed.key_id}, which is not in the key file."
            )
        nonce, ciphertext = sealed.secret[:_NONCE], sealed.secret[_NONCE:]
        try:
            plain = AESGCM(key).decrypt(nonce, ciphertext, _bound_to(account, field)).decode()
        except (InvalidTag, ValueError) as error:
            raise SealError(
                f"{account}/{field} cannot be opened: it was altered, or sealed elsewhere."
            ) from error
        conceal([plain])
        return plain


def create(path: Path, *, chance: Chance = os.urandom) -> Keyring:
    """Make the key file, readable by its owner alone. Raises ConfigurationError when there is one already."""
    ring = Keyring(keys={"k1": chance(_KEY)}, newest="k1", chance=chance)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigurationError(f"Cannot make the key file {path}: {error.strerror}.") from error
    _write(descriptor, ring)
    return ring


def load(path: Path, *, chance: Chance = os.urandom) -> Keyring:
    """Read the key file. Raises ConfigurationError when it is missing, damaged, or readable by others."""
    try:
        others = path.stat().st_mode & 0o077
        content = json.loads(path.read_text("ascii"))
        keys = {name: base64.b64decode(key, validate=True) for name, key in content["keys"].items()}
        newest = content["newest"]
    except OSError as error:
        raise ConfigurationError(
            f"Cannot read the key file {path}: {error.strerror}. Run `orderwire init`."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"The key file {path} is damaged; restore it from a backup.") from error
    if others:
        raise ConfigurationError(f"The key file {path} can be read by others; run: chmod 600 {path}")
    if newest not in keys or any(len(key) != _KEY for key in keys.values()):
        raise ConfigurationError(f"The key file {path} is damaged; restore it from a backup.")
    return Keyring(keys=keys, newest=newest, chance=chance)


def rotate(path: Path, *, chance: Chance = os.urandom) -> Keyring:
    """Add a new key to the file and return the ring that seals with it; then `Accounts.reseal`.

    The file is replaced whole: a crash leaves the old one or the new one.
    """
    ring = load(path, chance=chance)
    name = f"k{1 + max(int(key[1:]) for key in ring.keys)}"
    rotated = Keyring(keys={**ring.keys, name: chance(_KEY)}, newest=name, chance=chance)
    _replace(path, rotated)
    return rotated


def forget(path: Path, *, chance: Chance = os.urandom) -> Keyring:
    """Keep only the newest key in the file. Whatever an earlier one sealed is shut for good."""
    ring = load(path, chance=chance)
    kept = Keyring(keys={ring.newest: ring.keys[ring.newest]}, newest=ring.newest, chance=chance)
    _replace(path, kept)
    return kept


def _replace(path: Path, ring: Keyring) -> None:
    """Put a new file in the place of the old one; a crash leaves either."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    _write(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), ring)
    beside.replace(path)


def _write(descriptor: int, ring: Keyring) -> None:
    keys = {name: base64.b64encode(key).decode() for name, key in ring.keys.items()}
    with open(descriptor, "w", encoding="ascii") as file:
        json.dump({"keys": keys, "newest": ring.newest}, file)
        file.flush()
        os.fsync(file.fileno())


def _bound_to(account: str, field: str) -> bytes:
    return json.dumps([account, field]).encode()
