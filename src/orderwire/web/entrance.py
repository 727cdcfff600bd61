"""The ways in for who has no password yet: the first administrator, and whoever was given a password link."""

from __future__ import annotations

from flask import Blueprint, Flask, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter

from orderwire.errors import InvalidRequestError, NotFoundError
from orderwire.store.invitations import Invitations, Purpose
from orderwire.web.auth import LOGIN_LIMIT, enter

_GONE = "This link has been used, or is too old. Ask for a new one."


class Entrance:
    """Shows `/setup/<token>` and `/password/<token>`; each token works once. No login needed."""

    def __init__(self, invitations: Invitations) -> None:
        self._invitations = invitations

    def attach(self, app: Flask, limiter: Limiter) -> None:
        """Register the routes."""
        routes = Blueprint("entrance", __name__)
        for path, view in (("/setup/<token>", self.setup), ("/password/<token>", self.password)):
            limited = limiter.limit(LOGIN_LIMIT)(view)
            routes.add_url_rule(path, view.__name__, limited, methods=["GET", "POST"])
        routes.add_url_rule("/setup", "no_setup", self.no_setup, methods=["GET"])
        app.register_blueprint(routes)

    def no_setup(self) -> ResponseReturnValue:
        """Say where the link for the first administrator is to be found."""
        return render_template("entrance.html", kind="where")

    def setup(self, token: str) -> ResponseReturnValue:
        """Make the first administrator."""
        if self._invitations.find(token, Purpose.FIRST) is None:
            return render_template("entrance.html", kind="gone", problem=_GONE), 404
        if request.method == "GET":
            return render_template("entrance.html", kind="setup", name="admin", problems={})
        name = request.form.get("name", "")[:64].strip().lower()
        try:
            user = self._invitations.make_first(token, name, _new_password())
        except InvalidRequestError as error:
            return render_template("entrance.html", kind="setup", name=name, problems=error.problems), 400
        except NotFoundError as error:
            return render_template("entrance.html", kind="gone", problem=str(error)), 404
        enter(user)
        flash(f"Welcome, {user.name}. Add the others under People, then connect an account.")
        return redirect(url_for("people.show"))

    def password(self, token: str) -> ResponseReturnValue:
        """Set a new password."""
        found = self._invitations.find(token, Purpose.PASSWORD)
        if found is None:
            return render_template("entrance.html", kind="gone", problem=_GONE), 404
        if request.method == "GET":
            return render_template("entrance.html", kind="password", name=found.user, problems={})
        try:
            self._invitations.set_password(token, _new_password())
        except InvalidRequestError as error:
            return (
                render_template("entrance.html", kind="password", name=found.user, problems=error.problems),
                400,
            )
        except NotFoundError as error:
            return render_template("entrance.html", kind="gone", problem=str(error)), 404
        flash("Your new password is set. Log in with it.")
        return redirect(url_for("auth.login"))


def _new_password() -> str:
    """Return the password typed twice. Raises InvalidRequestError when the two differ."""
    password = request.form.get("password", "")[:1024]
    if password != request.form.get("again", "")[:1024]:
        raise InvalidRequestError({"again": "The two passwords differ."})
    return password
