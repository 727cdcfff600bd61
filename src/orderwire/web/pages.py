"""The pages people look at: the order page, and the accounts with their broker logins."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Flask, abort, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter
from flask_login import current_user, login_required

from orderwire.brokers.adapter import BrokerAdapter, Field, plaintext_refusal
from orderwire.brokers.registry import BrokerRegistry
from orderwire.core.orders import AccountId
from orderwire.core.recovery import FeedStatus
from orderwire.errors import BrokerError, InvalidRequestError, NotFoundError
from orderwire.store.accounts import Account, Accounts
from orderwire.web import payloads
from orderwire.web.mine import my_account, my_accounts
from orderwire.web.ports import Feeds
from orderwire.web.realtime import Realtime

BROKER_LOGIN_LIMIT = "10 per minute"

_STATES = "broker_logins"
"""Where the session keeps which redirects of brokers it waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLine:
    """One account as the accounts page shows it."""

    account: Account
    broker_title: str
    feed: Mapping[str, Any] | None
    redirects: bool
    """Logging in leads to the broker's own page; otherwise the keys suffice."""


class Pages:
    """Renders pages and handles their forms for the user who is logged in."""

    def __init__(
        self, *, accounts: Accounts, brokers: BrokerRegistry, fleet: Feeds, realtime: Realtime
    ) -> None:
        self._accounts = accounts
        self._brokers = brokers
        self._fleet = fleet
        self._realtime = realtime

    def attach(self, app: Flask, limiter: Limiter) -> None:
        """Register the routes."""
        routes = Blueprint("pages", __name__)
        login = limiter.limit(BROKER_LOGIN_LIMIT)(self.broker_login)
        callback = limiter.limit(BROKER_LOGIN_LIMIT)(self.callback)
        table = (
            ("/", self.orders, "GET"),
            ("/accounts", self.accounts, "GET"),
            ("/accounts/new", self.new_account, "GET"),
            ("/accounts/new", self.add_account, "POST"),
            ("/accounts/<account_id>/login", login, "POST"),
            ("/accounts/<account_id>/callback", callback, "GET"),
            ("/accounts/<account_id>/remove", self.remove_account, "POST"),
        )
        for path, view, method in table:
            routes.add_url_rule(path, view.__name__, login_required(view), methods=[method])
        app.register_blueprint(routes)

    # --- orders ----------------------------------------------------------------------------------------

    def orders(self) -> ResponseReturnValue:
        """Show the live order book; what is in it comes over the stream."""
        mine = [
            {
                "id": account.id,
                "broker": account.broker,
                "title": account.title,
                "broker_title": self._title(account.broker),
            }
            for account in my_accounts(self._accounts)
        ]
        return render_template("orders.html", accounts=mine)

    # --- accounts --------------------------------------------------------------------------------------

    def accounts(self) -> ResponseReturnValue:
        """List the accounts with the state of their broker sessions."""
        feeds = {status.account: status for status in self._fleet.statuses()}
        lines = [self._line(account, feeds) for account in my_accounts(self._accounts)]
        return render_template("accounts.html", lines=lines)

    def new_account(self) -> ResponseReturnValue:
        """Show the form for one broker's account, or the choice of brokers."""
        name = request.args.get("broker", "")
        broker = self._brokers.classes.get(name)
        if broker is None:
            return render_template("account_new.html", brokers=self._brokers, broker=None)
        return self._form(broker, {"id": self._free_id(name)}, {})

    def add_account(self) -> ResponseReturnValue:
        """Keep a new account and start its feed."""
        broker = self._brokers.classes.get(request.form.get("broker", ""))
        if broker is None:
            abort(400)
        typed = {name: value.strip()[:500] for name, value in request.form.items()}
        try:
            account = self._add(broker, typed)
        except InvalidRequestError as error:
            return self._form(broker, typed, error.problems), 400
        flash(f"{account.title} is connected to orderwire. Log in to {broker.title} to see its orders.")
        return redirect(url_for("pages.accounts"))

    def remove_account(self, account_id: str) -> ResponseReturnValue:
        """Forget an account and its secrets."""
        account = my_account(self._accounts, account_id)
        self._fleet.remove(account.id)
        self._accounts.remove(account.id, by=current_user.name)
        self._realtime.cut(user=current_user.name)
        flash(f"{account.title} was removed, and its keys with it.")
        return redirect(url_for("pages.accounts"))

    # --- logging in to a broker ------------------------------------------------------------------------

    def broker_login(self, account_id: str) -> ResponseReturnValue:
        """Send the user to the broker's login page, or log in with the keys where those suffice."""
        account = my_account(self._accounts, account_id)
        state = secrets.token_urlsafe(24)
        try:
            address = self._fleet.login_url(account.id, state=state)
            if address is not None:
                session[_STATES] = {**session.get(_STATES, {}), account.id: state}
                return redirect(address, 303)
            self._log_in(account, {})
        except (BrokerError, NotFoundError) as error:
            flash(f"{account.title}: {error}", "problem")
        return redirect(url_for("pages.accounts"), 303)

    def callback(self, account_id: str) -> ResponseReturnValue:
        """Take the user back from the broker's login page."""
        account = my_account(self._accounts, account_id)
        expected = session.get(_STATES, {}).get(account.id, "")
        given = request.args.get("state", "")
        session[_STATES] = {
            name: held for name, held in session.get(_STATES, {}).items() if name != account.id
        }
        if not expected or not secrets.compare_digest(expected.encode(), given.encode()):
            flash("That login was not started here, or too long ago. Start it again.", "problem")
            return redirect(url_for("pages.accounts"))
        try:
            self._log_in(account, request.args.to_dict())
        except BrokerError as error:
            flash(f"{account.title}: {error}", "problem")
        return redirect(url_for("pages.accounts"))

    def _log_in(self, account: Account, grant: Mapping[str, str]) -> None:
        granted = self._fleet.login(account.id, grant)
        flash(f"{account.title} is logged in as {granted.user_id}.")

    # --- inside ----------------------------------------------------------------------------------------

    def _line(self, account: Account, feeds: Mapping[AccountId, FeedStatus]) -> AccountLine:
        feed = feeds.get(account.id)
        return AccountLine(
            account=account,
            broker_title=self._title(account.broker),
            feed=payloads.feed_fields(feed) if feed else None,
            redirects=self._redirects(account),
        )

    def _redirects(self, account: Account) -> bool:
        try:
            return self._fleet.login_url(account.id, state="") is not None
        except NotFoundError:
            return False

    def _title(self, broker: str) -> str:
        known = self._brokers.classes.get(broker)
        return known.title if known else broker

    def _free_id(self, broker: str) -> str:
        taken = {account.id for account in self._accounts.all()}
        names = (f"{broker}-{number}" if number > 1 else broker for number in range(1, len(taken) + 2))
        return next(name for name in names if name not in taken)

    def _form(
        self, broker: type[BrokerAdapter], typed: Mapping[str, str], problems: Mapping[str, str]
    ) -> str:
        return render_template(
            "account_new.html", brokers=self._brokers, broker=broker, typed=typed, problems=problems
        )

    def _add(self, broker: type[BrokerAdapter], typed: Mapping[str, str]) -> Account:
        plain = "allow_plaintext" in typed
        problems = _missing(broker, typed) | _plain_addresses(broker, typed, allowed=plain)
        if problems:
            raise InvalidRequestError(problems)
        account = self._accounts.add(
            typed.get("id", ""),
            broker=broker.name,
            owner=current_user.name,
            title=typed.get("title", ""),
            credentials=_given(broker.credential_fields, typed, "credential."),
            addresses=_given(broker.address_fields, typed, "address."),
            allow_plaintext=plain,
            by=current_user.name,
        )
        self._fleet.add(account.id)
        self._realtime.cut(user=current_user.name)
        return account


def _given(fields: tuple[Field, ...], typed: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {
        field.name: value
        for field in fields
        if (value := typed.get(prefix + field.name, "") or field.default)
    }


def _missing(broker: type[BrokerAdapter], typed: Mapping[str, str]) -> dict[str, str]:
    given = _given(broker.credential_fields, typed, "credential.")
    return {
        f"credential.{field.name}": f"{field.label} is needed."
        for field in broker.credential_fields
        if field.required and field.name not in given
    }


def _plain_addresses(
    broker: type[BrokerAdapter], typed: Mapping[str, str], *, allowed: bool
) -> dict[str, str]:
    given = _given(broker.address_fields, typed, "address.")
    refused = {
        f"address.{name}": plaintext_refusal(address, allow_plaintext=allowed)
        for name, address in given.items()
        if "://" in address
    }
    return {name: reason for name, reason in refused.items() if reason}
