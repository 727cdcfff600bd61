"""XTS logins: tokens, one session per app key, and which client a call speaks for.

Rules: XTS protocol document, sections 1.1 to 1.5. Time is an argument; nothing here waits.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from brokersim.users import Users, XtsKind, XtsLogin
from brokersim.xts.errors import (
    Flaw,
    bad_request,
    invalid_token,
    no_token,
    not_mapped,
    session_over,
    wrong_key,
    wrong_password,
    wrong_secret,
)

TOKEN_LIFE: Final = 86_400
ACCESS_PASSWORD: Final = "2021HostLookUpAccess"  # noqa: S105 - the public constant of the official SDK
PRO_CLIENT: Final = "*****"
PRO_IN_BOOKS: Final = "Pro"


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """One login. `over` says why the token no longer counts; empty while it does."""

    token: str
    login: XtsLogin
    expires: int
    over: str = ""

    @property
    def user_id(self) -> str:
        """The userID of the login's answer."""
        return self.login.login_id

    def alive(self, now: float) -> bool:
        """Whether the token counts."""
        return not self.over and now < self.expires


class Sessions:
    """Every login of the interactive API (or of the market data API, which has its own)."""

    def __init__(self, users: Users, rng: Random, *, interactive: bool = True) -> None:
        self._users = users
        self._rng = rng
        self._interactive = interactive
        self._secret = rng.randbytes(32)
        self._sessions: dict[str, Session] = {}
        self._current: dict[str, Session] = {}
        self._issued: dict[str, int] = {}
        self._unique_keys: set[str] = set()

    def look_up_host(self, password: str) -> str:
        """Give a new uniqueKey. Raises XtsError on a wrong password."""
        if password != ACCESS_PASSWORD:
            raise wrong_password()
        key = base64.urlsafe_b64encode(self._rng.randbytes(24)).decode()
        self._unique_keys.add(key)
        return key

    def log_in(
        self, app_key: str, secret: str, *, now: float, unique_key: str | None, key_needed: bool
    ) -> tuple[Session, Session | None]:
        """Begin a session; give it and the one of the same app key that it ends, if any. Raises XtsError."""
        login = self._users.xts_logins.get(app_key)
        if login is None or not hmac.compare_digest(login.secret_key.encode(), secret.encode()):
            raise wrong_secret()
        if (unique_key or key_needed) and unique_key not in self._unique_keys:
            raise wrong_key()
        session = self._begin(login, now)
        replaced = self._current.get(app_key)
        self._sessions[session.token] = self._current[app_key] = session
        if replaced is not None and replaced.alive(now):
            replaced.over = "replaced"
            return session, replaced
        return session, None

    def find(self, token: str | None, *, now: float) -> Session:
        """Give the living session of a token. Raises XtsError."""
        if not token:
            raise no_token()
        session = self._sessions.get(token)
        if session is None:
            raise invalid_token()
        if not session.alive(now):
            raise session_over()
        return session

    def living(self, now: float) -> Iterator[Session]:
        """Give the sessions whose token counts."""
        return (each for each in self._current.values() if each.alive(now))

    def _begin(self, login: XtsLogin, now: float) -> Session:
        # Two logins within a second would otherwise get the same token.
        issued = max(int(now), self._issued.get(login.app_key, 0) + 1)
        self._issued[login.app_key] = issued
        claims: dict[str, Any] = {
            "userID": f"{login.login_id}_{login.app_key.upper()}",
            "publicKey": login.app_key,
            **({"isInteractive": True} if self._interactive else {}),
            "iat": issued,
            "exp": issued + TOKEN_LIFE,
        }
        return Session(token=self._sign(claims), login=login, expires=issued + TOKEN_LIFE)

    def _sign(self, claims: dict[str, Any]) -> str:
        parts = [_encode({"alg": "HS256", "typ": "JWT"}), _encode(claims)]
        signature = hmac.new(self._secret, ".".join(parts).encode(), hashlib.sha256).digest()
        return ".".join([*parts, _base64(signature)])


def _encode(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """For which of its clients a login makes a call, and how that client is spelt in answers and rows."""

    client: str
    in_answer: str
    in_books: str


def speaker(login: XtsLogin, client_id: str | None) -> Speaker:
    """Decide who a call is for. Raises XtsError: a dealer must name one of its clients, a pro dealer `*****`."""
    own = login.clients[0]
    if login.kind is XtsKind.INVESTOR:
        if client_id not in {None, "", own}:
            raise not_mapped()
        return Speaker(client=own, in_answer=own, in_books=own)
    if not client_id:
        raise bad_request([Flaw(field="clientID", message='"clientID" is required', type="any.required")])
    if login.kind is XtsKind.PRO:
        if client_id != PRO_CLIENT:
            raise not_mapped()
        return Speaker(client=own, in_answer=PRO_CLIENT, in_books=PRO_IN_BOOKS)
    if client_id not in login.clients:
        raise not_mapped()
    return Speaker(client=client_id, in_answer=client_id, in_books=client_id)


def dealer_speakers(login: XtsLogin, client_id: str | None) -> list[Speaker]:
    """Decide whose rows a dealer's book shows: the named client's, or all. Raises XtsError."""
    if client_id:
        return [speaker(login, client_id)]
    if login.kind is XtsKind.PRO:
        return [speaker(login, PRO_CLIENT)]
    return [Speaker(client=each, in_answer=each, in_books=each) for each in login.clients]


@dataclass(slots=True)
class SocketLogin:
    """Who is behind a socket. `deaf` sockets stay open and get nothing more."""

    session: Session
    deaf: bool = False
    delivered: int = field(default=0)
