"""Kite's logins: request tokens that work once, access tokens that die at 06:00 Indian time."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from brokersim.kite.errors import bad_checksum, bad_input, bad_request_token, bad_token
from brokersim.kite.rows import session_checksum
from brokersim.users import KiteApp, Users

REQUEST_TOKEN_LIFE: Final = timedelta(minutes=5)
_DAY_BREAK_HOUR: Final = 6
_SHORTEST_KEY: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One user logged in through one app until `expires`."""

    api_key: str
    user: str
    access_token: str
    login_time: datetime
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grant:
    api_key: str
    user: str
    expires: datetime


def next_day_break(moment: datetime) -> datetime:
    """Give the next 06:00 after a moment, in its own zone."""
    edge = moment.replace(hour=_DAY_BREAK_HOUR, minute=0, second=0, microsecond=0)
    return edge if edge > moment else edge + timedelta(days=1)


class Sessions:
    """Who is logged in. Times are handed in, aware and in Indian time."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self._grants: dict[str, _Grant] = {}
        self._sessions: dict[str, Session] = {}

    def log_in(self, api_key: str, user_id: str, password: str, now: datetime) -> str | None:
        """Check the login page's form; give a request token, or None if anything is wrong."""
        user = self._users.kite_users.get(user_id)
        if api_key not in self._users.kite_apps or user is None or user.password != password:
            return None
        return self.grant(api_key, user_id, now)

    def grant(self, api_key: str, user_id: str, now: datetime) -> str:
        """Make a request token for a user and an app."""
        token = secrets.token_hex(16)
        self._grants[token] = _Grant(api_key=api_key, user=user_id, expires=now + REQUEST_TOKEN_LIFE)
        return token

    def exchange(self, api_key: str, request_token: str, checksum: str, now: datetime) -> Session:
        """Turn a request token into a session; the same one again if the user still has one.

        Raises KiteError for a short or unknown api_key, a wrong checksum, and a used or old request token.
        """
        app = self._app(api_key)
        grant = self._grants.get(request_token)
        if grant is None or grant.api_key != api_key or grant.expires < now:
            raise bad_request_token()
        if checksum != session_checksum(api_key, request_token, app.api_secret):
            raise bad_checksum()
        del self._grants[request_token]
        return self.open(api_key, grant.user, now)

    def open(self, api_key: str, user: str, now: datetime) -> Session:
        """Give a user's session, opening one if there is none alive."""
        for session in self._sessions.values():
            if (session.api_key, session.user) == (api_key, user) and session.expires > now:
                return session
        session = Session(
            api_key=api_key,
            user=user,
            access_token=secrets.token_hex(16),
            login_time=now,
            expires=next_day_break(now),
        )
        self._sessions[session.access_token] = session
        return session

    def check(self, api_key: str, access_token: str, now: datetime) -> Session:
        """Find the session of a call or handshake. Raises KiteError if it does not exist or is over."""
        session = self._sessions.get(access_token)
        if session is None or session.api_key != api_key or session.expires <= now:
            raise bad_token()
        return session

    def close(self, access_token: str) -> bool:
        """End one session; False if there was none."""
        return self._sessions.pop(access_token, None) is not None

    def kill(self, user: str = "") -> int:
        """End every session of a user, or of everybody; return how many."""
        doomed = [token for token, each in self._sessions.items() if user in {"", each.user}]
        for token in doomed:
            del self._sessions[token]
        return len(doomed)

    def _app(self, api_key: str) -> KiteApp:
        if len(api_key) < _SHORTEST_KEY:
            raise bad_input("Missing or invalid field `api_key`. Min length is 6.")
        app = self._users.kite_apps.get(api_key)
        if app is None:
            raise bad_token()
        return app
