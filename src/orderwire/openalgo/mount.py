"""Mounts orderwire in a Flask application: routes, authenticated stream, and the task that speaks with the service.

The host starts whatever is wrong here: it is said in the log and at `/orderwire/status`, and everything of the host
goes on as it did before.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
from flask import Blueprint, Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from flask_socketio import ConnectionRefusedError as StreamRefusedError
from flask_socketio import join_room

from orderwire.config import SHORTEST_SECRET, MountSettings, load_mount
from orderwire.core import webhooks
from orderwire.core.hosts import (
    GONE_AFTER,
    PROTOCOL,
    WAIT,
    FromHost,
    HostState,
    ToHost,
    mark,
    protocol_problem,
    taken,
)
from orderwire.decoding import decode
from orderwire.errors import UNDECODABLE, ConfigurationError
from orderwire.openalgo.announcer import NAMESPACE, ROOM, Announcer
from orderwire.openalgo.child import ServiceChild
from orderwire.openalgo.seams import OWN_FEEDS, HostSeams, openalgo_seams, version_problems
from orderwire.openalgo.wire import AwayError, RefusedError, ServiceWire

_log = logging.getLogger("orderwire.mount")

SCRIPT: Final = Path(__file__).resolve().parent.parent / "web" / "static" / "build"
POSTBACK_LIMIT: Final = "1200 per minute"
MOST_BYTES: Final = 65_536
ASK_HOST_AGAIN: Final = 1.0
"""Seconds for which the host is not asked again: a burst of changes must not ask its database each time."""

CLOCKS_DIFFER: Final = 300
"""Seconds by which a webhook's time may differ from ours."""

SOON: Final = 0.1
LOOK_AGAIN: Final = 0.5
"""Seconds between looks at a service that is away, or at the clock of one that posts."""


@dataclass
class Standing:
    """How the mounted part stands, for the operator."""

    state: str = "starting"
    """starting, live, away, refused, or off where it cannot work at all."""
    detail: str = ""
    since: int = 0
    problems: list[str] = field(default_factory=list)
    service_version: str = ""
    url: str = ""


def init_app(
    app: Flask, socketio: Any, bus: Any, *, seams: HostSeams | None = None, **settings: Any
) -> Mount:
    """Mount orderwire; once, after the application's own set-up. Never raises: see `Mount.standing`.

    `bus` is anything with `publish(event)`; `seams` are the host's answers, OpenAlgo's own by default; `settings`
    win over the environment (docs/howto/openalgo.md).
    """
    problems = version_problems()
    given = MountSettings.model_construct()
    answers = seams
    try:
        given = load_mount(**settings)
        answers = seams or openalgo_seams(given)
    except ConfigurationError as error:
        problems.append(str(error))
    problems += _missing(given, socketio, bus)
    mount = Mount(app, socketio, bus, seams=answers or _nobody(), settings=given, problems=problems)
    mount.attach()
    return mount


class Mount:
    """What `init_app` returns: the mounted part of one application."""

    def __init__(
        self,
        app: Flask,
        socketio: Any,
        bus: Any,
        *,
        seams: HostSeams,
        settings: MountSettings,
        problems: list[str],
    ) -> None:
        self.app = app
        self.settings = settings
        self.seams = seams
        self.standing = Standing(problems=problems)
        self.announcer = Announcer(socketio, bus)
        self.wire = ServiceWire(settings.data_dir)
        self.child = ServiceChild(settings)
        self.faults: Counter[str] = Counter()
        """What the host's own parts raised while we asked or told them, by name."""
        self._socketio = socketio
        self._instance = ""
        self._started_in = 0
        self._stopping = False
        self._heard_at = 0.0
        self._said, self._asked_host_at = HostState(user=""), -ASK_HOST_AGAIN
        self._service: tuple[str, int] = ("", 0)
        self._follows: tuple[str, int] = ("", 0)
        """Which service posts to us, and its process."""
        self._sent_away = ""
        self._misheard_at = -GONE_AFTER
        """When somebody last posted without the right signature."""
        self._postbacks: dict[str, list[str]] = {}
        self._holds = ""
        """Mark of the state that the service holds."""
        if problems:
            self.standing.state, self.standing.detail = "off", " ".join(problems)
            _log.error("orderwire is not at work: %s", self.standing.detail)

    @property
    def posted_to(self) -> bool:
        """Whether the service posts to us, instead of us asking it."""
        return self.settings.mount == "beside" and bool(self.settings.host_secret.get_secret_value())

    # --- attaching ------------------------------------------------------------------------------------

    def attach(self) -> None:
        """Register everything with the host, and begin as soon as this process serves."""
        self.app.extensions["orderwire_mount"] = self
        self.app.register_blueprint(self._routes())
        if self.standing.state == "off":
            return
        self.app.before_request(self._before_request)
        self._let_in()
        reloaded = (
            self.settings.flask_debug.lower() in {"1", "true", "on"} and not self.settings.werkzeug_run_main
        )
        if not reloaded:  # else this may be the reloader's own process, which never serves
            self._start()

    def stop(self) -> None:
        """End the task and the service it started; for hosts that stop while their process goes on."""
        self._stopping = True
        self._say_good_bye()
        self.child.stop()

    def _say_good_bye(self) -> None:
        """Let another process take our place at once; a service that we started leaves with us."""
        if self._started_in == os.getpid() and not self.child.pid and not self.posted_to:
            with suppress(AwayError, RefusedError):
                ServiceWire(self.settings.data_dir).leave(self.announcer.user, self._instance)

    def _start(self) -> None:
        """Begin in this process; a fork begins anew."""
        if self._started_in == os.getpid():
            return
        self._started_in = os.getpid()
        self._instance = f"process {os.getpid()}, {secrets.token_hex(3)}"
        self._heard_at = time.monotonic()
        atexit.register(self._say_good_bye)
        self._socketio.start_background_task(self._live)

    def _before_request(self) -> ResponseReturnValue | None:
        self._start()
        broker = _named_broker(request.path)
        if request.method == "POST" and broker in self.settings.take_over:
            return self._pass_on(broker)
        return None

    def _routes(self) -> Blueprint:
        routes = Blueprint("orderwire", __name__, url_prefix="/orderwire")
        routes.add_url_rule("/status", view_func=self._status_view, endpoint="status")
        routes.add_url_rule("/follow.js", view_func=_script_view, endpoint="script")
        routes.add_url_rule("/exchange", view_func=self._exchange_view, endpoint="exchange", methods=["POST"])
        postback: Any = self._postback_view
        for limiter in _limiters(self.app):
            postback = limiter.limit(POSTBACK_LIMIT)(postback)
        routes.add_url_rule("/postback/<broker>", view_func=postback, endpoint="postback", methods=["POST"])
        csrf = self.app.extensions.get("csrf")
        if csrf is not None:
            csrf.exempt(routes)  # brokers and the service have no form of ours; what they send is signed
        return routes

    def _let_in(self) -> None:
        """Authenticate at connect: in a namespace of our own, and beside the host's handler in the usual one."""

        def connect(auth: Any = None) -> None:
            if self._who(auth) is None:
                raise StreamRefusedError("login")
            join_room(ROOM)
            self.announcer.greet(request.sid, NAMESPACE)  # type: ignore[attr-defined]  # added by Flask-SocketIO

        self._socketio.on_event("connect", connect, namespace=NAMESPACE)
        self.announcer.hold_rooms()
        self._wrap_connect()

    def _wrap_connect(self) -> None:
        """Let the host's own handler decide who comes in, and put who is logged in where orders are told."""
        handlers = self._socketio.server.handlers.setdefault("/", {})
        before = handlers.get("connect")
        if getattr(before, "of_orderwire", None) is self:
            return

        def connect(sid: str, environ: Any, *auth: Any) -> Any:
            answer = before(sid, environ, *auth) if before is not None else None
            if answer is not False:
                with self.app.request_context(environ):
                    known = self._who(auth[0] if auth else None)
                if known is not None:
                    self._socketio.server.enter_room(sid, ROOM, namespace="/")
                    self.announcer.greet(sid, "/")
            return answer

        connect.of_orderwire = self  # type: ignore[attr-defined]  # so that it is known when looked at again
        handlers["connect"] = connect

    def _who(self, auth: Any) -> str | None:
        key = auth.get("apikey") if isinstance(auth, Mapping) else None
        return self.seams.key_owner(key) if isinstance(key, str) else self.seams.who()

    # --- speaking with the service --------------------------------------------------------------------

    def _live(self) -> None:
        while not self._stopping:
            try:
                self._wrap_connect()
                pause = self._look() if self.posted_to else self._ask()
            except Exception as error:  # noqa: BLE001 - see below
                # an airlock: a fault of the host's database or bus must not end its order updates for good
                self.faults[type(error).__name__] += 1
                _log.exception("orderwire: the host's own part failed")
                self._is("away", f"the host failed: {type(error).__name__}: {error}")
                pause = LOOK_AGAIN
            if pause:
                self._socketio.sleep(pause)

    def _ask(self) -> float:
        """Ask the service once; returns the seconds to wait before the next time."""
        try:
            self._take(self.wire.take(self._asked(self._state())))
        except AwayError as error:
            return self._without(str(error))
        except RefusedError as error:
            self._is("refused", str(error))
            return LOOK_AGAIN
        self.child.said = ""
        return 0.0

    def _without(self, why: str) -> float:
        """Start the service where that is ours to do, and say why it is away; returns the seconds to wait."""
        if self.settings.mount == "inside":
            self.child.ensure()
            if self.child.pid and self.standing.state == "starting":
                return SOON  # it takes a few seconds to come up for the first time
        self._is("away", (self.child.said or why) + self._misheard())
        return SOON if self.child.pid else LOOK_AGAIN

    def _look(self) -> float:
        """See whether the service still posts."""
        silent = time.monotonic() - self._heard_at
        if silent > GONE_AFTER:
            self._is(
                "away", f"the service has not been heard for {GONE_AFTER:.0f} s or more" + self._misheard()
            )
        return LOOK_AGAIN

    def _misheard(self) -> str:
        """Say that somebody knocks whom we cannot take for our service, empty when nobody does."""
        if time.monotonic() - self._misheard_at > GONE_AFTER:
            return ""
        ours = (
            "another ORDERWIRE_HOST_SECRET than ours"
            if self.posted_to
            else "ORDERWIRE_HOST_SECRET, and we have none"
        )
        return f"; somebody posts with {ours}" + (", or its clock differs" if self.posted_to else "")

    def _state(self) -> HostState:
        """Ask the host what it hands over: no login that its own feed follows too, or both would tell each change."""
        if self._asked_host_at + ASK_HOST_AGAIN > time.monotonic():
            return self._said
        state = self.seams.state()
        self.announcer.user = state.user
        both = [login.broker for login in state.logins if login.broker in self._silent()]
        self.standing.problems = [_both(broker) for broker in both]
        ours = [login for login in state.logins if login.broker not in both]
        self._said, self._asked_host_at = msgspec.structs.replace(state, logins=ours), time.monotonic()
        return self._said

    def _silent(self) -> frozenset[str]:
        """Return the brokers that the host tells of by itself."""
        return frozenset() if self.settings.order_updates_enabled.strip().upper() == "FALSE" else OWN_FEEDS

    def _asked(self, state: HostState) -> FromHost:
        now = mark(state)
        return FromHost(
            protocol=PROTOCOL,
            version=version("orderwire"),
            host=self.app.import_name,
            instance=self._instance,
            user=state.user,
            state_mark=now,
            state=state if self._holds != now else None,
            places=dict(self.announcer.places),
            wait=WAIT,
        )

    def _take(self, told: ToHost) -> None:
        problem = protocol_problem(ours=told.version, theirs=version("orderwire"), protocol=told.protocol)
        if problem:
            raise RefusedError(problem)
        self._holds = told.state_mark
        self._heard_at = time.monotonic()
        self._postbacks = _postback_paths(told.accounts)
        self.standing.service_version, self.standing.url = told.version, told.url
        self.announcer.take(told, silent=self._silent(), repeated=self.seams.repeats())
        self._is("live", " ".join([*self.standing.problems, *told.problems]))

    def _is(self, state: str, detail: str) -> None:
        if (state, detail) != (self.standing.state, self.standing.detail):
            level = logging.INFO if state == "live" and not detail else logging.WARNING
            _log.log(level, "orderwire is %s%s", state, f": {detail}" if detail else "")
            if state != self.standing.state:
                self.standing.since = _milliseconds()
            self.standing.state, self.standing.detail = state, detail
        if state in {"away", "refused"}:
            self._holds = ""
            self.announcer.away(f"orderwire is {state}: {detail}", since=self.standing.since)

    # --- what the host's server is asked --------------------------------------------------------------

    def _status_view(self) -> ResponseReturnValue:
        if self.seams.who() is None:
            return jsonify(status="error", message="Log in first."), 401
        standing = self.standing
        return jsonify(
            status="success",
            state=standing.state,
            detail=standing.detail,
            since=standing.since,
            mode=self.settings.mount,
            pid=self.child.pid,
            version=version("orderwire"),
            service_version=standing.service_version,
            url=standing.url,
            told=self.announcer.told,
            faults=dict(self.faults),
            accounts=list(self.announcer.feeds.values()),
        )

    def _exchange_view(self) -> ResponseReturnValue:
        """The service beside us tells, signed; it learns what it does not hold yet."""
        body = request.get_data()
        if not self.posted_to or not self._is_signed(body):
            self._misheard_at = time.monotonic()
            return jsonify(status="error", message="Not from the service that shares our secret."), 403
        try:
            told = decode(body, ToHost)
        except UNDECODABLE:
            return jsonify(status="error", message="That is no message of the service."), 400
        if told.service == self._service[0] and told.number <= self._service[1]:
            return jsonify(status="error", message="That was said before."), 409
        another = self._another(told)
        if another:
            return jsonify(status="error", message=another, taken=True), 409
        self._service = (told.service, told.number)
        state = self._state()
        try:
            self._take(told)
        except RefusedError as error:
            self._is("refused", str(error))
            return jsonify(status="error", message=str(error)), 409
        return Response(msgspec.json.encode(self._asked(state)), mimetype="application/json")

    def _another(self, told: ToHost) -> str:
        """Say whose we are when a second service posts while the first does, and forget the first once it is gone."""
        first, process = self._follows
        if first in {"", told.home} or time.monotonic() - self._heard_at > GONE_AFTER:
            self._follows, self._sent_away = (told.home, told.process), ""
            return ""
        why = taken(told, first=first, process=process)
        if why != self._sent_away:
            self._sent_away = why
            _log.warning("orderwire: %s", why)
        return why

    def _is_signed(self, body: bytes) -> bool:
        at = request.headers.get(webhooks.TIMESTAMP, "")
        if not at.isdigit() or abs(time.time() - int(at)) > CLOCKS_DIFFER:
            return False
        expected = webhooks.signature(
            body,
            secret=self.settings.host_secret.get_secret_value(),
            message_id=request.headers.get(webhooks.ID, ""),
            at=int(at),
        )
        return secrets.compare_digest(expected, request.headers.get(webhooks.SIGNATURE, ""))

    def _postback_view(self, broker: str) -> ResponseReturnValue:
        return self._pass_on(broker) or ("", 503)

    def _pass_on(self, broker: str) -> ResponseReturnValue | None:
        """Hand a broker's callback to the service; None while it is away, so that the host's own route takes it."""
        if (request.content_length or 0) > MOST_BYTES:
            return "", 413
        body, headers = request.get_data(), {"Content-Type": request.headers.get("Content-Type", "")}
        statuses = []
        for path in self._postbacks.get(broker, []):
            try:
                statuses.append(self.wire.pass_on(path, body, headers, url=self.standing.url))
            except AwayError:
                return None
        return ("", min(statuses)) if statuses else None


def _missing(settings: MountSettings, socketio: Any, bus: Any) -> list[str]:
    """Name what is missing, in words that say what to do."""
    problems = []
    if getattr(socketio, "server", None) is None:
        problems.append("init_app(app, socketio, bus) comes after socketio.init_app(app).")
    if not callable(getattr(bus, "publish", None)):
        problems.append("The event bus has no publish(event).")
    secret = settings.host_secret.get_secret_value()
    if secret and len(secret) < SHORTEST_SECRET:
        problems.append(f"ORDERWIRE_HOST_SECRET is shorter than {SHORTEST_SECRET} characters.")
    return problems


def _nobody() -> HostSeams:
    """Return the answers of a host that could not be asked."""
    return HostSeams(state=lambda: HostState(user=""), who=lambda: None, key_owner=lambda _key: None)


def _limiters(app: Flask) -> list[Any]:
    found = app.extensions.get("limiter") or ()
    return list(found) if isinstance(found, set | list | tuple | frozenset) else [found]


def _named_broker(path: str) -> str:
    first, _, rest = path.strip("/").partition("/")
    return rest if first == "postback" and "/" not in rest else ""


def _postback_paths(accounts: list[dict[str, Any]]) -> dict[str, list[str]]:
    paths: dict[str, list[str]] = {}
    for account in accounts:
        path = account.get("postback_path", "")
        if path and path not in paths.setdefault(account["broker"], []):
            paths[account["broker"]].append(path)
    return paths


def _both(broker: str) -> str:
    return (
        f"The host's own order feed of {broker} is on, so orderwire leaves {broker} alone: both would tell each change. "
        "Set ORDER_UPDATES_ENABLED=FALSE in the host's .env and restart it."
    )


def _script_view() -> ResponseReturnValue:
    """Serve the page script; the host's CSP allows its own origin."""
    try:
        names = msgspec.json.decode((SCRIPT / "manifest.json").read_bytes())["files"]
        text = (SCRIPT / names["follow.js"]).read_bytes()
    except (OSError, KeyError, *UNDECODABLE):
        return "// orderwire's page script was not built\n", 503, {"Content-Type": "text/javascript"}
    return Response(text, mimetype="text/javascript", headers={"Cache-Control": "no-cache"})


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
