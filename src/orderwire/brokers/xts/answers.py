"""Judges XTS's HTTP answers and logins: what succeeded, what is merely empty, and whose fault the rest is (xts.md §1).

Pure. Nearly everything bad comes as HTTP 400, a dead token and an empty book included, so the status decides little.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from orderwire.brokers.xts.messages import decode_json
from orderwire.decoding import decode
from orderwire.errors import (
    UNDECODABLE,
    BrokerError,
    BrokerUnreachableError,
    ConfigurationError,
    OrderRefusedError,
    PermissionRefusedError,
    ProtocolViolationError,
    RateLimitedError,
    SessionExpiredError,
)

PRO: Final = "*****"
"""The client id of a dealer's own account (xts.md §1.5)."""

_DEAD_TOKEN = re.compile(r"e-session-|e-token-|invalid token|session.{0,40}expired|logged out", re.IGNORECASE)
_TOO_EARLY = "e-orders-0001"
_RATE_LIMIT = "e-apirl-"
_NOT_OURS = "e-trade-00002"
_EMPTY = "data not available"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer, taken apart. `ok` follows the envelope's `type`, never its `code`."""

    status: int
    ok: bool
    code: str = ""
    description: str = ""
    result: bytes = b""
    """The envelope's `result`, as its own JSON bytes."""
    readable: bool = True
    """False: no envelope at all; an HTML page, a cut body, a success without a `type`, of which nothing is known."""

    @property
    def empty(self) -> bool:
        """Whether a book has nothing in it, which XTS reports as an error (xts.md §1.6)."""
        return not self.ok and self.description.strip().lower() == _EMPTY

    @property
    def dead_token(self) -> bool:
        """Whether the broker no longer accepts the token."""
        return not self.ok and (self.status == 401 or is_dead_token(f"{self.code} {self.description}"))


class _Envelope(msgspec.Struct):
    type: Any = None
    code: Any = ""
    description: Any = ""
    result: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


def read_answer(status: int, body: bytes) -> Answer:
    """Take an answer apart; whatever cannot be read becomes an unreadable one, never an error."""
    try:
        envelope = decode(body, _Envelope)
    except UNDECODABLE:
        return Answer(status=status, ok=False, readable=False)
    if envelope.type is None and envelope.data:
        return read_answer(status, bytes(envelope.data))
    return Answer(
        status=status,
        ok=200 <= status < 300 and (envelope.type is True or str(envelope.type).lower() == "success"),
        code=str(envelope.code or ""),
        description=_describe(envelope),
        result=bytes(envelope.result),
        readable=envelope.type is not None or status >= 300,
    )


def is_dead_token(text: str) -> bool:
    """Whether a text of the broker, wherever it came, says that the token is finished (xts.md §5.7, §6.4)."""
    return _DEAD_TOKEN.search(text) is not None


def read_error(answer: Answer) -> BrokerError:
    """Return the error that a failed read raises."""
    common = _common_error(answer)
    if common is not None:
        return common
    if answer.code == _TOO_EARLY:
        return BrokerUnreachableError("the broker has no history of that order yet", retry_after=1.0)
    if answer.code == _NOT_OURS or answer.status == 403:
        return PermissionRefusedError(_words(answer))
    if not answer.readable or answer.status >= 500:
        return BrokerUnreachableError(_words(answer))
    return ProtocolViolationError(f"the broker refused to be read: {_words(answer)}")


def order_error(answer: Answer) -> BrokerError:
    """Return the error that a failed place, modify or cancel raises; unclear ones may have arrived."""
    common = _common_error(answer)
    if common is not None:
        return common
    if not answer.readable or answer.status >= 500:
        return BrokerUnreachableError(_words(answer), sent=answer.status >= 500 or answer.status < 300)
    return OrderRefusedError(_words(answer), code=answer.code)


def login_error(answer: Answer) -> BrokerError:
    """Return the error that a failed login raises: whatever is not a fault of the server is a refusal."""
    if answer.code.startswith(_RATE_LIMIT) or answer.status == 429:
        return RateLimitedError(_words(answer))
    if not answer.readable or answer.status >= 500:
        return BrokerUnreachableError(_words(answer))
    return SessionExpiredError(f"the broker refused the login: {_words(answer)}")


def _common_error(answer: Answer) -> BrokerError | None:
    if answer.dead_token:
        return SessionExpiredError(f"the broker no longer accepts this login: {_words(answer)}")
    if answer.code.startswith(_RATE_LIMIT) or answer.status == 429:
        return RateLimitedError(_words(answer), retry_after=1.0)
    return None


def _words(answer: Answer) -> str:
    if not answer.readable:
        return f"HTTP {answer.status} without an XTS answer"
    words = answer.description or f"HTTP {answer.status}"
    return f"{words} ({answer.code})" if answer.code else words


def _describe(envelope: _Envelope) -> str:
    """The description; of a validation error the messages of its fields, which say what is wrong."""
    description = str(envelope.description or "").strip()
    if description.lower() != "bad request":
        return description[:500]
    return ("; ".join(_validation_messages(bytes(envelope.result))) or description)[:500]


def _validation_messages(result: bytes) -> list[str]:
    try:
        errors = decode(result, _Validation).errors
    except UNDECODABLE:
        return []
    return [message for error in errors for message in error.messages]


class _FieldErrors(msgspec.Struct):
    messages: list[str] = msgspec.field(default_factory=list)


class _Validation(msgspec.Struct):
    errors: list[_FieldErrors] = msgspec.field(default_factory=list)


# --- logins -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """Where a hostlookup sends us, and the key that the login there wants."""

    connection: str
    unique_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a login granted."""

    token: str = field(repr=False)
    user_id: str
    investor: bool
    client_codes: tuple[str, ...]
    expires_at: datetime | None
    """Aware; what the token itself says."""


def read_lookup(answer: Answer) -> Lookup:
    """Read a hostlookup's answer; only the presence of connectionString counts (xts.md §1.2).

    Raises what a failed login raises.
    """
    result = _result(answer)
    connection = connection_base(str(result.get("connectionString") or ""))
    if not connection:
        raise login_error(answer)
    return Lookup(connection=connection, unique_key=str(result.get("uniqueKey") or ""))


def connection_base(text: str) -> str:
    """Clean a connectionString: no quotes, blanks or trailing slash; `/2hostlookup` becomes `/2interactive` (M).

    Empty when it is no http(s) address.
    """
    text = text.strip(" \t\r\n\"'`").rstrip("/")
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return ""
    return re.sub(r"/(\d*)hostlookup$", r"/\1interactive", text, flags=re.IGNORECASE) if usable else ""


def socket_path(base: str) -> str:
    """Return the Socket.IO path behind a base address: its first segment, or none (xts.md §5.1)."""
    segment = urlsplit(base).path.strip("/").partition("/")[0]
    return f"{segment}/socket.io" if segment else "socket.io"


def read_login(answer: Answer) -> Login:
    """Read a login's answer. Raises SessionExpiredError when it was refused."""
    result = _result(answer)
    token = result.get("token")
    if not answer.ok or not isinstance(token, str) or not token:
        raise login_error(answer)
    codes = result.get("clientCodes")
    return Login(
        token=token,
        user_id=str(result.get("userID") or ""),
        investor=result.get("isInvestorClient") is True,
        client_codes=tuple(str(code) for code in codes) if isinstance(codes, list) else (),
        expires_at=token_expiry(token),
    )


def access_token(grant: Mapping[str, str]) -> dict[str, str]:
    """Return what a third-party login page adds to a login: `accessToken`, or nothing (xts.md §1.1).

    Raises SessionExpiredError for a `session` that does not hold it.
    """
    given = grant.get("accessToken", "")
    if given or not grant.get("session"):
        return {"accessToken": given} if given else {}
    try:
        session = decode_json(grant["session"])
    except ProtocolViolationError:
        session = None
    token = session.get("accessToken") if isinstance(session, Mapping) else None
    if not isinstance(token, str) or not token:
        raise SessionExpiredError("The broker's login page returned without an access token. Log in again.")
    return {"accessToken": token}


def token_expiry(token: str) -> datetime | None:
    """Return when a JWT says it expires; None when it does not say. The signature is the broker's to check."""
    try:
        return datetime.fromtimestamp(int(token_claims(token)["exp"]), UTC)
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return None


def token_claims(token: str) -> Mapping[str, Any]:
    """Return what a JWT says of itself (xts.md §1.3); empty for anything that is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except UNDECODABLE:
        return {}
    return claims if isinstance(claims, dict) else {}


def _result(answer: Answer) -> Mapping[str, Any]:
    try:
        result = decode_json(answer.result)
    except ProtocolViolationError:
        return {}
    return result if isinstance(result, Mapping) else {}


# --- whose orders -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Which client an account speaks for: what to send, and whose rows and events are its own (xts.md §1.5)."""

    client_id: str = ""
    """Sent on every call; empty for an investor."""
    own: frozenset[str] = frozenset()
    """The codes, in upper case, of rows that are ours; empty: all are."""
    pro: bool = False
    """The dealer's own account, which the socket spells `PRO###`."""

    def owns(self, code: str) -> bool:
        """Whether a row with this ClientID or AccountID is this account's. Rows without one are."""
        code = code.strip().upper()
        if not self.own or not code or code in self.own:
            return True
        return self.pro and code.startswith("PRO")


KINDS: Final = ("auto", "investor", "dealer", "pro")


def clients(*, kind: str, client_id: str, investor: bool, alias: str = "") -> Clients:
    """Decide whom a login speaks for.

    `kind` is one of `KINDS`; auto asks the login itself, which cannot tell a dealer from a pro dealer. `alias` is
    the code by which the socket names a pro account. Raises ConfigurationError when a dealer is not told for whom.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"login_kind is {' | '.join(KINDS)}, not {kind!r}")
    if kind == "investor" or (kind == "auto" and investor):
        return Clients(client_id=client_id)
    pro = kind == "pro" or client_id == PRO
    if not pro and not client_id:
        raise ConfigurationError(
            "this is a dealer's login: set client_id to the client's code, "
            "or login_kind to pro for the dealer's own account"
        )
    own = {client_id.upper(), alias.upper(), *({PRO, "PRO"} if pro else ())} - {""}
    return Clients(client_id=client_id or PRO, own=frozenset(own), pro=pro)
