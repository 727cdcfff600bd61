"""Logging in and out, and who is asking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import structlog
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    flash,
    jsonify,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter
from flask_login import LoginManager, current_user, login_required, login_user, logout_user

from orderwire.core.events import Event
from orderwire.errors import NotFoundError
from orderwire.store.users import Role, User, Users, session_mark
from orderwire.web.forms import safe_target
from orderwire.web.realtime import Realtime

_log = structlog.get_logger(__name__)

View = Callable[..., ResponseReturnValue]

LOGIN_LIMIT = "10 per minute; 60 per hour"
"""Tries per address; the password check costs 50 ms besides."""

_DEVICE = "device"
_BROWSERS = (
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)
"""The first that is found counts: Edge says that it is Chrome, Android that it is Linux."""

_WRONG = "User name or password is wrong."


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The user of this request, as Flask-Login wants it."""

    user: User

    is_authenticated = True
    is_active = True
    is_anonymous = False

    def get_id(self) -> str:
        """Return what the session keeps."""
        return self.user.name

    @property
    def name(self) -> str:
        return self.user.name

    @property
    def role(self) -> Role:
        return self.user.role


class Doors:
    """The login page, logging out, and who a session belongs to."""

    def __init__(self, users: Users, realtime: Realtime) -> None:
        self._users = users
        self._realtime = realtime
        users.on_ended = self._cut

    def _cut(self, owner: str, mark: str) -> None:
        self._realtime.cut(user=owner, session=mark)

    def on_timer(self, _event: Event) -> None:
        """Cut off clients whose session or key is no longer in force, whoever ended it; on a lane of its own."""
        held = {client.reader.session: client.reader.user for client in self._realtime.audience}
        held.pop("", None)
        for mark in held.keys() - self._users.in_force(held.keys()) if held else ():
            self._realtime.cut(user=held[mark], session=mark)

    def attach(self, app: Flask, limiter: Limiter) -> None:
        """Register the routes, and tell Flask-Login how to find users."""
        manager = LoginManager(app)
        manager.user_loader(self.find)
        manager.unauthorized_handler(send_to_login)
        routes = Blueprint("auth", __name__)
        login = limiter.limit(LOGIN_LIMIT, methods=["POST"])(self.login)
        routes.add_url_rule("/login", "login", login, methods=["GET", "POST"])
        routes.add_url_rule("/logout", "logout", login_required(self.logout), methods=["POST"])
        app.register_blueprint(routes)

    def find(self, name: str) -> LoggedIn | None:
        """Return the user of a session, None when it may not be used any more."""
        try:
            user = self._users.get(name)
        except NotFoundError:
            return None
        return None if user.disabled else LoggedIn(user)

    def login(self) -> ResponseReturnValue:
        """Show the form; on POST let the user in and go where they were."""
        target = safe_target(request.values.get("next"))
        if current_user.is_authenticated:
            return redirect(target)
        if request.method == "GET":
            return render_template("login.html", target=target, name="", first=not self._users.count())
        name = request.form.get("name", "")[:64].strip().lower()
        user = self._users.check(name, request.form.get("password", "")[:1024])
        if user is None:
            _log.warning("login refused", address=request.remote_addr)
            return render_template("login.html", target=target, name=name, problem=_WRONG), 401
        enter(user)
        return redirect(target)

    def logout(self) -> ResponseReturnValue:
        """End this session and its live stream."""
        self._realtime.cut(user=current_user.name, session=session_id())
        logout_user()
        session.clear()
        flash("You are logged out.")
        return redirect(url_for("auth.login"))


def session_id() -> str:
    """Return the id of this request's web session, under which the stream and its owner know it."""
    return session_mark(str(getattr(session, "sid", "")))


def device(content: bytes) -> dict[str, Any]:
    """Return what a stored session knows of the browser it belongs to: agent, address, since."""
    held = msgspec.msgpack.decode(content, type=dict[str, Any]).get(_DEVICE, {})
    return {"agent": held.get("agent", ""), "address": held.get("address", ""), "since": held.get("since", 0)}


def agent_name(agent: str) -> str:
    """Say in two words what browser a User-Agent header stands for."""
    browser = next((word for mark, word in _BROWSERS if mark in agent), "")
    system = next((word for mark, word in _SYSTEMS if mark in agent), "")
    return f"{browser or 'A browser'} on {system}" if system else browser or agent[:40]


def roles(needed: Role) -> Callable[[View], View]:
    """Let a view be seen only by who is logged in with at least this role; others get 403."""

    def guarded(view: View) -> View:
        @wraps(view)
        def only(*args: Any, **kwargs: Any) -> ResponseReturnValue:
            if not current_user.role.may(needed):
                abort(403, f"This needs the role {needed}; yours is {current_user.role}.")
            return view(*args, **kwargs)

        return cast("View", login_required(only))

    return guarded


def wants_json() -> bool:
    """Whether a program or script asks, not a person following a link."""
    return request.path.startswith(("/ui/", "/api/")) or request.accept_mimetypes.best == "application/json"


def enter(user: User) -> None:
    """Log this browser in, under a fresh session id."""
    _app_sessions().regenerate(session)
    session.permanent = True
    session[_DEVICE] = {
        "agent": agent_name(request.headers.get("User-Agent", "")),
        "address": request.remote_addr or "",
        "since": _app_sessions().now_ms(),
    }
    login_user(LoggedIn(user))


def _app_sessions() -> Any:
    from flask import current_app  # noqa: PLC0415

    return current_app.session_interface


def send_to_login() -> ResponseReturnValue:
    """Ask for a login, and lead back to where the user is: a page, or the page whose form was sent."""
    if wants_json():
        return jsonify(status="error", message="Log in first: the session has ended."), 401
    if request.endpoint == "auth.login":
        flash("The page was open for too long. Try again.", "problem")
        return redirect(url_for("auth.login", next=safe_target(request.values.get("next"))))
    address = url_for("auth.login", next=_here())
    if "HX-Request" in request.headers:
        return Response(status=401, headers={"HX-Redirect": address})
    return redirect(address)


def _here() -> str:
    if "HX-Request" in request.headers or request.method != "GET":
        shown = urlsplit(request.headers.get("HX-Current-URL") or request.referrer or "/")
        return safe_target(f"{shown.path}?{shown.query}".rstrip("?"))
    return request.full_path.rstrip("?")
