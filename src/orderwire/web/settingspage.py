"""Each user's own settings: password, sessions, keys for programs, what they are told and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, Flask, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter
from flask_login import current_user, login_required

from orderwire.core.notifications import Loudness, Occasion
from orderwire.errors import InvalidRequestError, NotFoundError
from orderwire.store.accounts import Accounts
from orderwire.store.notifications import Notifications, Preferences, TargetKind
from orderwire.store.users import Scope, Users
from orderwire.web import payloads
from orderwire.web.auth import LOGIN_LIMIT, device, enter, session_id
from orderwire.web.mine import my_accounts
from orderwire.web.ports import Feeds

CHANGE_LIMIT: Final = "30 per minute"

OCCASIONS: Final = (
    (Occasion.REJECTED, "Order rejected", "In the broker's own words."),
    (Occasion.FILLED, "Order filled", ""),
    (Occasion.PARTIALLY_FILLED, "Order partly filled", "Each time the filled quantity grows."),
    (Occasion.CANCELLED, "Order cancelled or expired", ""),
    (Occasion.FEED_DOWN, "Updates are away", "The stream is down, or the broker does not answer."),
    (Occasion.LOG_IN_AGAIN, "Log in again", "The broker ended the session."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One session of the user, as they know it: the browser it came with."""

    id: str
    agent: str
    address: str
    since: int
    """Milliseconds since the epoch; 0 when it is not known."""
    here: bool


class SettingsPage:
    """Shows `/settings` and handles its forms for the user who is logged in."""

    def __init__(
        self, *, accounts: Accounts, fleet: Feeds, notifications: Notifications, users: Users
    ) -> None:
        self._accounts = accounts
        self._fleet = fleet
        self._notifications = notifications
        self._users = users

    def attach(self, app: Flask, limiter: Limiter) -> None:
        """Register the routes."""
        routes = Blueprint("settings", __name__, url_prefix="/settings")
        routes.add_url_rule("", "show", login_required(self.show), methods=["GET"])
        changes = (
            ("/password", self.set_password, LOGIN_LIMIT),
            ("/sessions/end", self.end_sessions, CHANGE_LIMIT),
            ("/keys", self.add_key, CHANGE_LIMIT),
            ("/keys/<key_id>/revoke", self.revoke_key, CHANGE_LIMIT),
            ("/notifications", self.set_notifications, CHANGE_LIMIT),
            ("/targets", self.add_target, CHANGE_LIMIT),
            ("/targets/<target_id>/remove", self.remove_target, CHANGE_LIMIT),
            ("/letters/<int:letter>/retry", self.retry, CHANGE_LIMIT),
            ("/letters/<int:letter>/discard", self.discard, CHANGE_LIMIT),
        )
        for path, view, limit in changes:
            limited = limiter.limit(limit)(login_required(view))
            routes.add_url_rule(path, view.__name__, limited, methods=["POST"])
        app.register_blueprint(routes)

    def show(self) -> ResponseReturnValue:
        """Show everything the user can set."""
        return self._page()

    # --- getting in ------------------------------------------------------------------------------------

    def set_password(self) -> ResponseReturnValue:
        """Change the password; every other session ends, this one goes on under a new id."""
        name = current_user.name
        current, fresh, again = (
            request.form.get(field, "")[:1024] for field in ("current", "password", "again")
        )
        problems = {}
        if self._users.check(name, current) is None:
            problems["current"] = "This is not your password."
        if fresh != again:
            problems["again"] = "The two passwords differ."
        if problems:
            return self._page(problems), 400
        try:
            self._users.set_password(name, fresh, by=name)
        except InvalidRequestError as error:
            return self._page(error.problems), 400
        enter(self._users.get(name))
        flash("Your password was changed. Your other sessions ended.")
        return _back()

    def end_sessions(self) -> ResponseReturnValue:
        """End one session, or all but this one; their open pages are cut off at once."""
        name, wanted = current_user.name, request.form.get("id", "")
        doomed = [one.id for one in self._users.sessions(name) if one.id != session_id()]
        if wanted:
            doomed = [one for one in doomed if one == wanted]
        for one in doomed:
            self._users.end_session_of(name, one, by=name)
        flash("That session ended." if wanted else f"{len(doomed)} other sessions ended.")
        return _back()

    # --- programs --------------------------------------------------------------------------------------

    def add_key(self) -> ResponseReturnValue:
        """Make an API key and show it, this once."""
        label = request.form.get("label", "").strip()[:60]
        try:
            scope = Scope(request.form.get("scope", ""))
        except ValueError:
            return self._page({"scope": "Choose what the key may do."}), 400
        if not label:
            return self._page({"label": "Say what the key is for."}), 400
        key, plain = self._users.add_key(current_user.name, scope=scope, label=label, by=current_user.name)
        return self._page(shown={"what": f"The key for {key.label}", "secret": plain, "where": "keys"})

    def revoke_key(self, key_id: str) -> ResponseReturnValue:
        """End an API key; programs that use it are cut off at once."""
        try:
            self._users.revoke_key(key_id, owner=current_user.name, by=current_user.name)
        except NotFoundError as error:
            flash(str(error), "problem")
        else:
            flash("The key was revoked.")
        return _back("keys")

    # --- being told ------------------------------------------------------------------------------------

    def set_notifications(self) -> ResponseReturnValue:
        """Set how loud each occasion is, and how messages come."""
        typed = request.form
        try:
            rules = {one: Loudness(typed.get(f"rule.{one}", "")) for one, _, _ in OCCASIONS}
        except ValueError:
            return self._page({"rules": "Choose on, silent or off for each."}), 400
        numbers, problems = {}, {}
        for name in ("digest_seconds", "per_minute"):
            text = typed.get(name, "").strip()
            if text.isascii() and text.isdigit() and len(text) < 6:
                numbers[name] = int(text)
            else:
                problems[name] = "This is a whole number."
        if problems:
            return self._page(problems), 400
        wanted = Preferences(**numbers, market_hours="market_hours" in typed)
        try:
            self._notifications.set_preferences(current_user.name, wanted)
        except InvalidRequestError as error:
            return self._page(error.problems), 400
        self._notifications.set_rules(current_user.name, rules)
        flash("Saved.")
        return _back("told")

    def add_target(self) -> ResponseReturnValue:
        """Add a place to be told at; a program's gets the secret its calls are signed with, shown once."""
        kind = TargetKind.WEBHOOK if request.form.get("kind") == "webhook" else TargetKind.APPRISE
        address = request.form.get("address", "").strip()[:1000]
        label = request.form.get("target_label", "").strip()[:60]
        problem = address_problem(kind, address)
        if problem:
            return self._page({"address": problem}), 400
        try:
            target, secret = self._notifications.add_target(
                current_user.name, kind=kind, address=address, label=label, by=current_user.name
            )
        except InvalidRequestError as error:
            return self._page(error.problems), 400
        if secret:
            return self._page(
                shown={"what": "The secret that signs its calls", "secret": secret, "where": "told"}
            )
        flash(f"Added {target.label or target.service}.")
        return _back("told")

    def remove_target(self, target_id: str) -> ResponseReturnValue:
        """Remove a place, and what was on its way there."""
        return self._tried(
            lambda: self._notifications.remove_target(
                target_id, owner=current_user.name, by=current_user.name
            ),
            "Removed.",
        )

    def retry(self, letter: int) -> ResponseReturnValue:
        """Try again what could not be told."""
        return self._tried(
            lambda: self._notifications.retry(letter, owner=current_user.name), "It is being tried again."
        )

    def discard(self, letter: int) -> ResponseReturnValue:
        """Forget what could not be told."""
        return self._tried(lambda: self._notifications.discard(letter, owner=current_user.name), "Forgotten.")

    def _tried(self, deed: Any, said: str) -> ResponseReturnValue:
        try:
            deed()
        except NotFoundError as error:
            flash(str(error), "problem")
        else:
            flash(said)
        return _back("told")

    # --- the page --------------------------------------------------------------------------------------

    def _page(
        self, problems: Mapping[str, str] | None = None, *, shown: Mapping[str, str] | None = None
    ) -> str:
        name = current_user.name
        mine = my_accounts(self._accounts)
        feeds = {status.account: payloads.feed_fields(status) for status in self._fleet.statuses()}
        return render_template(
            "settings.html",
            problems=problems or {},
            typed=request.form,
            shown=shown,
            accounts=[(account, feeds.get(account.id)) for account in mine],
            devices=self._devices(name),
            keys=self._users.keys(name),
            occasions=OCCASIONS,
            rules=self._notifications.rules(name),
            preferences=self._notifications.preferences(name),
            targets=self._notifications.targets(name),
            letters=self._notifications.dead(name, most=20),
        )

    def _devices(self, name: str) -> list[Device]:
        here = session_id()
        made = [
            Device(id=one.id, here=one.id == here, **device(one.content))
            for one in self._users.sessions(name)
        ]
        return sorted(made, key=lambda one: (not one.here, -one.since))


def address_problem(kind: TargetKind, address: str) -> str:
    """Return what is wrong with the address of a place to be told at, or nothing."""
    if "://" not in address:
        return "An address has the form service://…"
    if (
        kind is TargetKind.WEBHOOK
        and not address.startswith("https://")
        and not address.startswith("http://127.0.0.1")
    ):
        return "A program's address begins with https://."
    return ""


def _back(part: str = "") -> ResponseReturnValue:
    return redirect(url_for("settings.show", _anchor=part or None))
