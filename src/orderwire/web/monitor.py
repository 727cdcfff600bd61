"""How the service is doing: for Prometheus, for scripts, for load balancers, and on a page for the operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any, Final

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
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_login import current_user
from prometheus_client import CONTENT_TYPE_LATEST

from orderwire.core.alerts import RULES, Silence
from orderwire.core.health import FeedHealth, FleetHealth
from orderwire.core.latency import Stamps, trace
from orderwire.core.orders import AccountId
from orderwire.core.recovery import Freshness
from orderwire.errors import InvalidRequestError, NotFoundError, OrderwireError
from orderwire.monitoring.muster import processes, whole
from orderwire.monitoring.series import PLOTS, plot
from orderwire.monitoring.station import Station, by_freshness, feed_counts
from orderwire.store import alerts as kept
from orderwire.store import audit
from orderwire.store.accounts import Accounts
from orderwire.store.database import Database
from orderwire.store.encoding import from_ns
from orderwire.store.timeline import timeline
from orderwire.store.users import Role, Users
from orderwire.web import listing
from orderwire.web.auth import View, roles

PROBES: Final = frozenset({"healthz", "monitor.metrics", "monitor.readyz", "monitor.status"})
"""What programs ask: also over plain HTTP on this machine, and all there is on the metrics port."""

SILENCES: Final = ((1, "1 hour"), (4, "4 hours"), (24, "1 day"))

TONES: Final = {
    Freshness.LIVE: ("good", "live"),
    Freshness.RECONCILING: ("work", "reconciling"),
    Freshness.DEGRADED: ("wait", "degraded"),
    Freshness.STALE: ("bad", "stale"),
    Freshness.AUTH_REQUIRED: ("bad", "login"),
    Freshness.MANUAL: ("calm", "manual"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """The routes. `metrics_port` is the port on which probes need no login; 0 for none."""

    station: Station
    database: Database
    accounts: Accounts
    users: Users
    metrics_port: int = 0
    fleet: Callable[[], FleetHealth] | None = None
    """Every feed there is, where this process has none; None: the station's own."""

    def attach(self, app: Flask) -> None:
        """Register the routes, and keep everything else off the metrics port."""
        routes = Blueprint("monitor", __name__)
        operator = roles(Role.OPERATOR)
        table: tuple[tuple[str, View, str], ...] = (
            ("/metrics", self._known(self.metrics), "GET"),
            ("/readyz", self.readyz, "GET"),
            ("/status.json", self._known(self.status), "GET"),
            ("/operator", operator(self.page), "GET"),
            ("/operator/alerts", operator(self.history), "GET"),
            ("/operator/silence", operator(self.silence), "POST"),
            ("/operator/unsilence", operator(self.unsilence), "POST"),
            ("/operator/accounts/<account_id>", operator(self.account), "GET"),
            ("/ui/operator/plots/<name>", operator(self.plot), "GET"),
        )
        for path, view, method in table:
            routes.add_url_rule(path, view.__name__, view, methods=[method])
        app.register_blueprint(routes)
        app.before_request(self._only_probes)

    # --- programs --------------------------------------------------------------------------------------

    def metrics(self) -> ResponseReturnValue:
        """Answer Prometheus."""
        return Response(self.station.exposition(), content_type=CONTENT_TYPE_LATEST)

    def readyz(self) -> ResponseReturnValue:
        """Answer 200 when every account that can be is reconciled, 503 with the reasons before; names no account."""
        reasons = self.station.waiting()
        return jsonify(status="waiting" if reasons else "ready", waiting_for=reasons), 503 if reasons else 200

    def status(self) -> ResponseReturnValue:
        """Answer a script."""
        return jsonify(self.station.status())

    def _known(self, view: View) -> View:
        """Let in who asks on the metrics port, an operator's session, or an operator's API key (Bearer)."""

        @wraps(view)
        def only() -> ResponseReturnValue:
            if not (self._on_metrics_port() or self._is_operator()):
                return Response(
                    "Give an operator's API key: Authorization: Bearer …\n",
                    401,
                    {"WWW-Authenticate": "Bearer"},
                    mimetype="text/plain",
                )
            return view()

        return only

    def _is_operator(self) -> bool:
        if current_user.is_authenticated:
            return bool(current_user.role.may(Role.OPERATOR))
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        key = self.users.key(given.strip()) if scheme.lower() == "bearer" else None
        try:
            owner = self.users.get(key.owner) if key else None
        except NotFoundError:
            return False
        return owner is not None and not owner.disabled and owner.role.may(Role.OPERATOR)

    def _on_metrics_port(self) -> bool:
        """Whether the connection came in on the metrics port: by the socket, not by what the client says."""
        taken = request.environ.get("gunicorn.socket")
        address = taken.getsockname() if taken is not None else None
        return bool(self.metrics_port) and isinstance(address, tuple) and address[1] == self.metrics_port

    def _only_probes(self) -> None:
        if self._on_metrics_port() and request.endpoint not in PROBES:
            abort(404)

    # --- the page --------------------------------------------------------------------------------------

    def page(self) -> ResponseReturnValue:
        """Show how everything is doing; the parts refresh themselves."""
        fleet, found = self._fleet(), processes(self.database)
        return render_template(
            "operator.html",
            status=self.station.status(),
            raised=self.station.watchdog.raised,
            silences=self.station.watchdog.silences,
            until=from_ns,
            hours=SILENCES,
            processes=found,
            whole=whole(found),
            started=from_ns,
            counts=feed_counts(fleet),
            feeds=[self._line(feed) for feed in by_freshness(fleet)],
            slowest=self.station.slowest(),
            recent=kept.history(self.database, most=8),
            rules=RULES,
            long=request.args.get("span") == "6h",
        )

    def _fleet(self) -> FleetHealth:
        return (self.fleet or self.station.sources.fleet)()

    def _line(self, feed: FeedHealth) -> dict[str, Any]:
        tone, sign = TONES[feed.freshness] if feed.running else ("bad", "bad")
        return {"feed": feed, "tone": tone, "sign": sign, "ago": _ms(feed.read_at)}

    def plot(self, name: str) -> ResponseReturnValue:
        """Answer one chart's data."""
        if name not in PLOTS:
            abort(404)
        long = request.args.get("span") == "6h"
        return jsonify(plot(self.station.watchdog.series.points(long=long), name))

    def history(self) -> ResponseReturnValue:
        """List every alert and notice, the newest first."""
        number = listing.asked_page()
        rows = kept.history(self.database, most=listing.LENGTH + 1, skip=listing.offset(number))
        return render_template("operator_alerts.html", page=listing.page(rows, number))

    def account(self, account_id: str) -> ResponseReturnValue:
        """Show what happened on an account, without what is traded; looking is written into the audit."""
        account = self.accounts.get(account_id)
        feeds = [feed for feed in self._fleet().feeds if feed.account == account.id]
        self._note_the_look(account.id)
        return render_template(
            "operator_account.html",
            account=account,
            line=self._line(feeds[0]) if feeds else None,
            moments=timeline(self.database, account.id),
            steps=steps,
            trace=trace,
        )

    def _note_the_look(self, account: AccountId) -> None:
        at_ns, who = self.database.clock.time_ns(), current_user.name
        self.database.write(
            lambda connection: audit.record(
                connection, at_ns=at_ns, who=who, what="account timeline read", account=account
            )
        )

    # --- silence ---------------------------------------------------------------------------------------

    def silence(self) -> ResponseReturnValue:
        """Keep an alert quiet for some hours."""
        hours = request.form.get("hours", "")
        chosen = int(hours) if hours in {str(number) for number, _ in SILENCES} else 1
        wanted = Silence(
            rule=request.form.get("rule", "")[:64],
            broker=request.form.get("broker", "")[:64],
            until_ns=self.database.clock.time_ns() + chosen * 3600 * 10**9,
            by=current_user.name,
            reason=request.form.get("reason", "")[:200],
        )
        return self._done(
            lambda: kept.silence(self.database, wanted), f"{wanted.rule} is silent for {chosen} h."
        )

    def unsilence(self) -> ResponseReturnValue:
        """Let an alert be heard again."""
        rule, broker = request.form.get("rule", ""), request.form.get("broker", "")
        return self._done(
            lambda: kept.unsilence(self.database, rule, broker=broker, by=current_user.name),
            f"{rule} is heard again.",
        )

    def _done(self, deed: Callable[[], object], words: str) -> ResponseReturnValue:
        try:
            deed()
        except (InvalidRequestError, NotFoundError) as error:
            flash(_said(error), "problem")
        else:
            flash(words)
        return redirect(url_for("monitor.page"), 303)


def _said(error: OrderwireError) -> str:
    return str(error)


def _ms(at: datetime | None) -> int | None:
    return round(at.timestamp() * 1000) if at else None


def steps(stamps: Stamps) -> list[tuple[str, str]]:
    """Return what each stage took, in words; the broker's own time is whole seconds and left out."""
    found = stamps.at(broker=0).stages()
    return [(stage, f"{taken / 1e6:.1f} ms") for stage, taken in found.items()]
