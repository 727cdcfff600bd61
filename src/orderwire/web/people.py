"""The owner's pages: who may log in and as what. The operator's: who did what, and when."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Final

from flask import Blueprint, Flask, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter
from flask_login import current_user

from orderwire.errors import InvalidRequestError
from orderwire.store import audit
from orderwire.store.accounts import Accounts
from orderwire.store.database import Database
from orderwire.store.invitations import RESET_HOURS, Invitations
from orderwire.store.users import Role, Users
from orderwire.web import listing
from orderwire.web.auth import roles

CHANGE_LIMIT: Final = "30 per minute"
_LONGEST: Final = 100


class People:
    """Shows and changes the users (owner), and shows the audit (operator)."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        database: Database,
        invitations: Invitations,
        url: str,
        users: Users,
    ) -> None:
        self._accounts = accounts
        self._database = database
        self._invitations = invitations
        self._url = url
        self._users = users

    def attach(self, app: Flask, limiter: Limiter) -> None:
        """Register the routes."""
        routes = Blueprint("people", __name__)
        owner = roles(Role.OWNER)
        routes.add_url_rule("/people", "show", owner(self.show), methods=["GET"])
        changes = (
            ("/people", self.add),
            ("/people/<name>/role", self.set_role),
            ("/people/<name>/disable", self.disable),
            ("/people/<name>/enable", self.enable),
            ("/people/<name>/password", self.password),
        )
        for path, view in changes:
            limited = limiter.limit(CHANGE_LIMIT)(owner(view))
            routes.add_url_rule(path, view.__name__, limited, methods=["POST"])
        routes.add_url_rule("/audit", "audit", roles(Role.OPERATOR)(self.audit), methods=["GET"])
        app.register_blueprint(routes)

    # --- users -----------------------------------------------------------------------------------------

    def show(self) -> ResponseReturnValue:
        """List the users."""
        return self._page({}, {})

    def add(self) -> ResponseReturnValue:
        """Make a user and show the link by which they choose their password."""
        typed = {
            "name": request.form.get("name", "")[:64].strip().lower(),
            "role": request.form.get("role", ""),
        }
        try:
            user = self._users.add(
                typed["name"], secrets.token_urlsafe(32), role=_role(typed["role"]), by=current_user.name
            )
        except InvalidRequestError as error:
            return self._page(typed, error.problems), 400
        return self._linked(user.name, f"{user.name} was added as {user.role}.")

    def set_role(self, name: str) -> ResponseReturnValue:
        """Change what a user may do."""
        return self._changed(
            name,
            lambda: self._users.set_role(name, _role(request.form.get("role", "")), by=current_user.name),
        )

    def disable(self, name: str) -> ResponseReturnValue:
        """Lock a user out, at once."""
        return self._changed(name, lambda: self._users.disable(name, by=current_user.name))

    def enable(self, name: str) -> ResponseReturnValue:
        """Let a user in again."""
        return self._changed(name, lambda: self._users.enable(name, by=current_user.name))

    def password(self, name: str) -> ResponseReturnValue:
        """Make a link by which a user sets a new password."""
        return self._linked(name, f"A link for {name} was made.")

    def _linked(self, name: str, said: str) -> ResponseReturnValue:
        token = self._invitations.password(name, by=current_user.name)
        link = f"{self._url}{url_for('entrance.password', token=token)}"
        return self._page({}, {}, link=link, said=said, name=name)

    def _changed(self, name: str, change: Callable[[], None]) -> ResponseReturnValue:
        try:
            change()
        except InvalidRequestError as error:
            flash(f"{name}: {' '.join(error.problems.values())}", "problem")
        else:
            flash(f"{name} was changed; their sessions ended.")
        return redirect(url_for("people.show", page=request.args.get("page")))

    def _page(
        self,
        typed: Mapping[str, str],
        problems: Mapping[str, str],
        *,
        link: str = "",
        said: str = "",
        name: str = "",
    ) -> str:
        number = listing.asked_page()
        found = self._users.page(first=listing.offset(number), most=listing.LENGTH + 1)
        return render_template(
            "people.html",
            page=listing.page(found, number),
            accounts=self._accounts.count_by_owner(),
            sessions=self._users.sessions_by_owner(),
            roles=list(Role),
            typed=typed,
            problems=problems,
            link=link,
            said=said,
            linked=name,
            hours=RESET_HOURS,
        )

    # --- the audit -------------------------------------------------------------------------------------

    def audit(self) -> ResponseReturnValue:
        """Show who did what, newest first, narrowed by who and by words."""
        number = listing.asked_page()
        who = request.args.get("who", "")[:_LONGEST].strip()
        words = request.args.get("text", "")[:_LONGEST].strip()
        found = audit.entries(
            self._database, most=listing.LENGTH + 1, first=listing.offset(number), who=who, words=words
        )
        return render_template("audit.html", page=listing.page(found, number), who=who, words=words)


def _role(word: str) -> Role:
    try:
        return Role(word)
    except ValueError:
        raise InvalidRequestError({"role": "Choose a role."}) from None
