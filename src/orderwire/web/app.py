"""Assembles the web: pages, JSON calls, the live stream, and the airlock that no request's fault gets through."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import structlog
from apiflask import APIFlask
from flask import Flask, Response, jsonify, redirect, render_template, request
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter
from flask_login import current_user
from flask_socketio import ConnectionRefusedError as StreamRefusedError
from flask_socketio import SocketIO
from flask_talisman import Talisman
from flask_wtf.csrf import CSRFError, CSRFProtect
from sqlalchemy import text
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from orderwire.brokers.registry import BrokerRegistry
from orderwire.bus.members import Members
from orderwire.clock import Clock
from orderwire.config import Settings
from orderwire.core.events import EventType
from orderwire.core.health import WebHealth
from orderwire.core.lifecycle import OrderChange
from orderwire.core.orders import AccountId
from orderwire.errors import (
    BrokerUnreachableError,
    ConfigurationError,
    FedElsewhereError,
    FeedsBusyError,
    InvalidRequestError,
    NotFoundError,
    OrderRefusedError,
    OrderwireError,
    PermissionRefusedError,
    ProtocolViolationError,
    RateLimitedError,
    SessionExpiredError,
    StoreError,
)
from orderwire.feeds.fleet import Fleet
from orderwire.pilot.conduct import Pilot
from orderwire.store import outbox
from orderwire.store.accounts import Accounts
from orderwire.store.database import Database
from orderwire.store.notifications import Notifications
from orderwire.store.survey import Voices
from orderwire.store.users import Users, key_mark
from orderwire.web import api_docs, rooms
from orderwire.web.api import Api, ApiTools, Application
from orderwire.web.assets import Assets, load_assets
from orderwire.web.auth import Doors, send_to_login, session_id, wants_json
from orderwire.web.evaluation import EvaluationPages
from orderwire.web.limits import make_limiter
from orderwire.web.lines import browsers_line
from orderwire.web.mine import ids, my_accounts
from orderwire.web.monitor import PROBES
from orderwire.web.navigation import links
from orderwire.web.outbox import Cursor
from orderwire.web.pages import Pages
from orderwire.web.paints import PaintTimes
from orderwire.web.payloads import Json, milliseconds
from orderwire.web.ports import Book, Events, Feeds, OrderDesk
from orderwire.web.postbacks import HandOver, PostbackCounts, Postbacks, PostbacksFirst
from orderwire.web.realtime import Log, Reader, Realtime, TextPacket
from orderwire.web.rollout import RolloutPages
from orderwire.web.sessions import StoredSessions, web_key
from orderwire.web.stories import money
from orderwire.web.subscriptions import Guests, Subscriptions, SubscriptionsFirst
from orderwire.web.ui import PageCalls

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = structlog.get_logger(__name__)

MOST_REQUEST_BYTES: Final = 65_536
SESSION_HOURS: Final = 24

PING_EVERY: Final = 5
PING_WAIT: Final = 5
"""Seconds. A page learns within ten that its connection is dead, and says so."""

CSP: Final = MappingProxyType(
    {
        "default-src": "'self'",
        "img-src": "'self' data:",
        "object-src": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
)

HTMX: Final = MappingProxyType(
    {
        "allowEval": False,
        "includeIndicatorStyles": False,
        "selfRequestsOnly": True,
        "historyCacheSize": 0,  # it would keep pages, secrets among them, in the browser's storage
        "refreshOnHistoryMiss": True,
        "scrollIntoViewOnBoost": False,
        "responseHandling": [{"code": "204", "swap": False}, {"code": "...", "swap": True}],
    }
)
"""How htmx behaves here: nothing that the CSP forbids, and a refused form is shown like any answer."""

_STATUS: Final[tuple[tuple[type[OrderwireError], int], ...]] = (
    (InvalidRequestError, 400),
    (FeedsBusyError, 503),
    (NotFoundError, 404),
    (SessionExpiredError, 409),
    (PermissionRefusedError, 409),
    (FedElsewhereError, 409),
    (OrderRefusedError, 422),
    (RateLimitedError, 429),
    (BrokerUnreachableError, 503),
    (StoreError, 503),
    (ProtocolViolationError, 502),
    (ConfigurationError, 503),
)
"""What our own errors mean to a caller; the first match counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the web works with; all of it is made and started by `service.py`."""

    settings: Settings
    clock: Clock
    engine: Events
    database: Database
    book: Book
    fleet: Feeds
    desk: OrderDesk
    users: Users
    accounts: Accounts
    brokers: BrokerRegistry
    notifications: Notifications
    pilot: Pilot
    verifies: Fleet | None = None
    """Where postbacks are verified; None: `hand_over` tells their accounts' owners."""
    hand_over: HandOver | None = None
    handed_over: Callable[[Collection[AccountId]], None] = lambda _accounts: None
    """Told whose owners may look for what `hand_over` wrote down."""
    greenlets: bool = False
    """Run under gevent, one of several processes of this role."""
    limits_at: str = ""
    """The Redis in which requests are counted for all processes of this role; empty: counted here."""
    switchboard: Any = None
    """Socket.IO's queue between those processes; None: each knows its own clients alone."""


@dataclass(slots=True)
class Faults:
    """What got as far as the airlock, by name. Any thread."""

    counts: Counter[str] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)  # guards `counts`

    def count(self, error: BaseException) -> str:
        """Count a fault and return the number under which it is logged."""
        number = secrets.token_hex(4)
        with self._lock:
            self.counts[type(error).__name__] += 1
        _log.error("fault in the web", fault=number, error=type(error).__name__, exc_info=error)
        return number


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """The parts of the web that others reach: `app.extensions["orderwire"]`."""

    realtime: Realtime
    socketio: SocketIO
    faults: Faults
    assets: Assets
    paints: PaintTimes
    """How long changes take to the screen, stage by stage."""
    postbacks: PostbackCounts
    subscriptions: Subscriptions
    verifier: Postbacks

    def health(self) -> WebHealth:
        """Say what was counted. Any thread."""
        return WebHealth(
            clients=len(self.realtime.audience),
            waiting=self.realtime.behind(),
            faults=sum(self.faults.counts.copy().values()),
            paints=self.paints.snapshot(),
            postbacks=self.postbacks.counts.copy(),
        )


@dataclass(frozen=True, slots=True)
class _StoredLog:
    """The stream's log, read from the database."""

    database: Database

    def snapshot(self, account: AccountId) -> outbox.Snapshot:
        return outbox.snapshot(self.database, account)

    def head(self, account: AccountId) -> Cursor:
        epoch, sequence = outbox.head(self.database, account)
        return Cursor(epoch=epoch, sequence=sequence)

    def changes_since(self, account: AccountId, cursor: Cursor, *, most: int) -> list[OrderChange] | None:
        return outbox.changes_since(
            self.database, account, epoch=cursor.epoch, sequence=cursor.sequence, most=most
        )


def create_app(services: Services, *, assets: Assets | None = None, log: Log | None = None) -> APIFlask:
    """Build the web application. Raises ConfigurationError when the pages are not built.

    `log` is where the stream reads snapshots and what was missed; by default the database's outbox.
    The Socket.IO server is `app.extensions["socketio"]`, the live stream `app.extensions["orderwire"].realtime`;
    it is registered with the engine here.
    """
    built = assets or load_assets()
    app = Application(
        __name__,
        title="orderwire",
        version="1",
        spec_path="/api/v1/openapi.json",
        docs_path=None,
        json_errors=False,
        static_folder="static",
        template_folder="templates",
    )
    Api.describe(app)
    _configure(app, services)
    limiter = make_limiter(app, redis_url=services.limits_at)
    CSRFProtect(app)
    socketio = _socketio(app, services)
    held = log or _StoredLog(services.database)
    realtime = Realtime(
        socketio,
        log=held,
        feeds=services.fleet.statuses,
        clock=services.clock,
        checks=services.book.checking,
        version=built.version,
    )
    paints = realtime.on_painted = PaintTimes(services.pilot.evidence.paint)
    faults = Faults()
    postbacks = _postbacks(services)
    _attach_rooms(app, services, realtime=realtime, limiter=limiter)
    Api(_api_tools(services, realtime=realtime, log=held, faults=faults)).attach(app, limiter)
    api_docs.attach(app)
    rooms.attach(app, services, limiter=limiter, paints=paints)
    subscriptions = Subscriptions(_guests(services))
    app.extensions["orderwire"] = Web(
        realtime=realtime,
        socketio=socketio,
        faults=faults,
        assets=built,
        paints=paints,
        postbacks=postbacks.counts,
        subscriptions=subscriptions,
        verifier=postbacks,
    )
    _attach_stream(socketio, services, realtime)
    _attach_templates(app, built)
    _attach_airlock(app, faults)
    inside = SubscriptionsFirst(subscriptions, app.wsgi_app, services.settings.subscriptions_port)
    app.wsgi_app = PostbacksFirst(postbacks, Uncompressed(inside))  # type: ignore[method-assign]
    _trust_proxies(app, services.settings.trusted_proxies)
    realtime.attach(services.engine)
    subscriptions.attach(services.engine)
    postbacks.attach(services.engine)
    return app


def origins(settings: Settings) -> list[str]:
    """Return the web origins whose pages may open the stream: our own, and those the operator named."""
    own = urlsplit(settings.url)
    names = [own.hostname or ""]
    if names[0] in {"127.0.0.1", "localhost", "::1"}:
        names = ["127.0.0.1", "localhost", "[::1]"]
    port = f":{own.port}" if own.port else ""
    return [f"{own.scheme}://{name}{port}" for name in names] + list(settings.allowed_origins)


def _configure(app: Flask, services: Services) -> None:
    https = services.settings.url.startswith("https://")
    app.config.update(
        SECRET_KEY=web_key(services.settings.data_dir),
        MAX_CONTENT_LENGTH=MOST_REQUEST_BYTES,
        PERMANENT_SESSION_LIFETIME=timedelta(hours=SESSION_HOURS),
        SESSION_COOKIE_NAME="orderwire",
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_REFRESH_EACH_REQUEST=False,
        SEND_FILE_MAX_AGE_DEFAULT=timedelta(days=365),
        WTF_CSRF_TIME_LIMIT=None,
        RATELIMIT_HEADERS_ENABLED=True,
    )
    app.session_interface = StoredSessions(app, users=services.users, clock=services.clock)
    Talisman(
        app,
        content_security_policy=dict(CSP),
        force_https=False,  # ours below leaves the health check and the control socket alone
        strict_transport_security=https,
        session_cookie_secure=https,
        referrer_policy="same-origin",
    )
    if https:
        app.before_request(_redirect_to_https)
    app.after_request(_keep_private)


def _redirect_to_https() -> ResponseReturnValue | None:
    """Send browsers that came by plain HTTP to where cookies are safe; local programs have no address or no cookie."""
    forwarded = request.headers.get("X-Forwarded-Proto", "") == "https"
    if request.is_secure or forwarded or not request.remote_addr or request.endpoint in PROBES:
        return None
    return redirect(request.url.replace("http://", "https://", 1), 308)


def _keep_private(response: Response) -> Response:
    """Nothing but built files may be kept by a browser or a proxy."""
    if not request.path.startswith("/static/"):
        response.headers["Cache-Control"] = "no-store"
    return response


def _socketio(app: Flask, services: Services) -> SocketIO:
    made = SocketIO(
        app,
        client_manager=Members() if services.switchboard is None else services.switchboard,
        async_mode="gevent" if services.greenlets else "threading",
        json=Json,
        serializer=TextPacket,
        cors_allowed_origins=origins(services.settings),
        manage_session=False,
        async_handlers=False,  # a client's requests are answered in order, on its own thread
        ping_interval=PING_EVERY,
        ping_timeout=PING_WAIT,
        max_http_buffer_size=MOST_REQUEST_BYTES,
        serve_client=False,
    )
    lines = made.server.eio
    driver = browsers_line(lines._async["websocket"], most_bytes=MOST_REQUEST_BYTES)  # noqa: SLF001 - no other way in
    lines._async = {**lines._async, "websocket": driver}  # noqa: SLF001 - see above
    return made


def _postbacks(services: Services) -> Postbacks:
    return Postbacks(
        accounts=services.accounts,
        brokers=services.brokers,
        database=services.database,
        engine=services.engine,
        book=services.book,
        fleet=services.verifies,
        clock=services.clock,
        hand_over=services.hand_over,
        handed_over=services.handed_over,
    )


def _attach_rooms(app: Flask, services: Services, *, realtime: Realtime, limiter: Limiter) -> None:
    doors = Doors(services.users, realtime)
    doors.attach(app, limiter)
    services.engine.add_lane("sessions", capacity=8, when_full="conflate", key=lambda _: "check")
    services.engine.register(EventType.TIMER, doors.on_timer, lane="sessions")
    pages = Pages(
        accounts=services.accounts, brokers=services.brokers, fleet=services.fleet, realtime=realtime
    )
    pages.attach(app, limiter)
    calls = PageCalls(
        accounts=services.accounts,
        database=services.database,
        desk=services.desk,
        fleet=services.fleet,
        realtime=realtime,
    )
    calls.attach(app, limiter)

    rollout = RolloutPages(
        services.pilot.gate,
        accounts=services.accounts,
        titles={name: kind.title for name, kind in services.brokers.classes.items()},
        clock=services.clock,
    )
    rollout.attach(app, limiter)
    evaluation = EvaluationPages(
        services.pilot.gate, Voices(services.database), accounts=services.accounts, clock=services.clock
    )
    evaluation.attach(app, limiter)

    def healthz() -> ResponseReturnValue:
        with services.database.read() as connection:
            connection.execute(text("SELECT 1"))
        return jsonify(status="ok")

    app.add_url_rule("/healthz", "healthz", healthz)


def _api_tools(services: Services, *, realtime: Realtime, log: Log, faults: Faults) -> ApiTools:
    return ApiTools(
        users=services.users,
        accounts=services.accounts,
        database=services.database,
        notifications=services.notifications,
        book=services.book,
        log=log,
        snapshot=realtime.snapshot,
        desk=services.desk,
        fleet=services.fleet,
        gate=services.pilot.gate,
        count_fault=faults.count,
    )


def _guests(services: Services) -> Guests:
    def accounts(owner: str) -> dict[AccountId, str]:
        return {account.id: account.broker for account in services.accounts.of_owner(owner)}

    return Guests(key=services.users.key, accounts=accounts)


def _attach_stream(socketio: SocketIO, services: Services, realtime: Realtime) -> None:
    """Let clients in. Only `connect` has Flask's request around it: the rest needs neither session nor user."""

    def connect(auth: Any = None) -> None:
        reader = _reader(services, auth)
        if reader is None:
            raise StreamRefusedError("login")
        if not realtime.connect(request.sid, reader):  # type: ignore[attr-defined]  # added by Flask-SocketIO
            raise StreamRefusedError("busy")

    def disconnect(sid: str, *_: Any) -> None:
        realtime.disconnect(sid)

    def follow(sid: str, asked: Any = None, *_: Any) -> dict[str, Any]:
        return realtime.follow(sid, asked)

    def clock(_sid: str, *_: Any) -> dict[str, float]:
        return {"t1": services.clock.time_ns() / 1e6}

    socketio.on_event("connect", connect)
    for name, handler in (("disconnect", disconnect), ("follow", follow), ("clock", clock)):
        socketio.server.on(name, handler)


def _reader(services: Services, auth: Any) -> Reader | None:
    """Say who a connecting client is: by API key when it gives one, else by the browser's session."""
    key = auth.get("apikey") if isinstance(auth, Mapping) else None
    if isinstance(key, str):
        known = services.users.key(key)
        if known is None:
            return None
        mine = ids(services.accounts.of_owner(known.owner))
        return Reader(user=known.owner, accounts=mine, session=key_mark(known), program=True)
    if not current_user.is_authenticated:
        return None
    mine = ids(my_accounts(services.accounts))
    return Reader(user=current_user.name, accounts=mine, session=session_id())


def _attach_templates(app: Flask, assets: Assets) -> None:
    def asset(name: str) -> str:
        return f"{app.static_url_path}/{assets.path(name)}"

    app.jinja_env.globals.update(
        asset=asset, build_version=assets.version, links=links, htmx_config=dict(HTMX)
    )
    app.jinja_env.filters.update(milliseconds=milliseconds, money=money)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True


def _attach_airlock(app: Flask, faults: Faults) -> None:
    def refuse(error: Exception) -> ResponseReturnValue:
        if isinstance(error, CSRFError) and not current_user.is_authenticated:
            return send_to_login()  # the token ended with the session
        if isinstance(error, HTTPException):
            return _said(error.description or error.name, error.code or 500, headers=error)
        if isinstance(error, OrderwireError):
            code = next((code for kind, code in _STATUS if isinstance(error, kind)), 503)
            problems = error.problems if isinstance(error, InvalidRequestError) else {}
            return _said(str(error), code, problems=problems)
        number = faults.count(error)
        return _said(f"Something went wrong here. Please quote fault {number}.", 500)

    app.register_error_handler(Exception, refuse)


def _said(
    message: str,
    code: int,
    *,
    problems: Mapping[str, str] = MappingProxyType({}),
    headers: HTTPException | None = None,
) -> ResponseReturnValue:
    if headers is not None and headers.response is not None:
        return headers.response
    if wants_json():
        return jsonify(status="error", message=message, problems=dict(problems)), code
    return render_template("error.html", message=message, code=code), code


@dataclass(frozen=True, slots=True)
class Uncompressed:
    """Answers every WebSocket without compression: it costs 100 kB a client, and time for each push."""

    app: WSGIApplication

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
        return self.app(environ, start_response)


def _trust_proxies(app: Flask, hops: int) -> None:
    if hops:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
