"""The JSON calls of our own pages: place, modify, cancel, refresh, search. Session and CSRF token required."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from flask import Blueprint, Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter
from flask_login import current_user, login_required

from orderwire.core.lifecycle import Submission, SubmissionState
from orderwire.core.orders import AccountId
from orderwire.errors import InvalidRequestError
from orderwire.store import instruments
from orderwire.store.accounts import Account, Accounts
from orderwire.store.database import Database
from orderwire.web import forms, payloads
from orderwire.web.mine import my_account, my_accounts
from orderwire.web.ports import Feeds, OrderDesk
from orderwire.web.realtime import Realtime

ORDER_LIMIT: Final = "10 per second; 300 per minute"
"""Per user. SEBI's threshold for algorithmic orders is 10 a second (kite.md §6)."""

READ_LIMIT: Final = "20 per second"
SNAPSHOT_LIMIT: Final = "4 per second; 120 per minute"
REFRESH_LIMIT: Final = "2 per second; 60 per minute"

_SUGGESTIONS: Final = 12
_LONGEST_SEARCH: Final = 60


class PageCalls:
    """What the order page asks of the desk and the fleet, on behalf of the user who is logged in."""

    def __init__(
        self, *, accounts: Accounts, database: Database, desk: OrderDesk, fleet: Feeds, realtime: Realtime
    ) -> None:
        self._accounts = accounts
        self._database = database
        self._desk = desk
        self._fleet = fleet
        self._realtime = realtime

    def attach(self, app: Flask, limiter: Limiter) -> None:
        """Register the routes under `/ui`."""
        routes = Blueprint("ui", __name__, url_prefix="/ui")
        table = (
            ("/orders", self.place, "POST", ORDER_LIMIT),
            ("/orders/modify", self.modify, "POST", ORDER_LIMIT),
            ("/orders/cancel", self.cancel, "POST", ORDER_LIMIT),
            ("/refresh", self.refresh, "POST", REFRESH_LIMIT),
            ("/search", self.search, "GET", READ_LIMIT),
            ("/feeds", self.feeds, "GET", READ_LIMIT),
            ("/snapshot", self.snapshot, "GET", SNAPSHOT_LIMIT),
        )
        for path, view, method, limit in table:
            limited = limiter.limit(limit, key_func=_who)(login_required(view))
            routes.add_url_rule(path, view.__name__, limited, methods=[method])
        app.register_blueprint(routes)

    def place(self) -> ResponseReturnValue:
        """Place one order; 422 with the broker's words when it is refused, 202 when it is in doubt."""
        fields = forms.read_json(request.get_data())
        key = forms.read_idempotency_key(request.headers.get("Idempotency-Key"))
        account = self._account(fields)
        order = forms.read_order(fields)
        with _form_names():
            return _told(self._desk.place(account.id, order, idempotency_key=key))

    def modify(self) -> ResponseReturnValue:
        """Ask for new terms of one order."""
        fields = forms.read_json(request.get_data())
        account = self._account(fields)
        terms = forms.read_modification(fields)
        with _form_names():
            order_id = self._desk.modify(account.id, terms)
        return jsonify(status="success", orderid=order_id)

    def cancel(self) -> ResponseReturnValue:
        """Ask for one order's cancellation."""
        fields = forms.read_json(request.get_data())
        account = self._account(fields)
        order_id = self._desk.cancel(account.id, forms.read_cancellation(fields))
        return jsonify(status="success", orderid=order_id)

    def refresh(self) -> ResponseReturnValue:
        """Read the order book of one account, or of all the user's, now."""
        fields = forms.read_json(request.get_data())
        wanted = [self._account(fields)] if fields.get("account") else my_accounts(self._accounts)
        for account in wanted:
            self._fleet.refresh(account.id)
        return jsonify(status="success", accounts=[account.id for account in wanted]), 202

    def search(self) -> ResponseReturnValue:
        """Suggest instruments for the ticket."""
        account = self._account(request.args)
        text = request.args.get("text", "")[:_LONGEST_SEARCH]
        exchange = request.args.get("exchange", "").upper() or None
        found = instruments.search(
            self._database, text, broker=account.broker, exchange=exchange, most=_SUGGESTIONS
        )
        return jsonify(
            status="success", instruments=[payloads.instrument_fields(instrument) for instrument in found]
        )

    def feeds(self) -> ResponseReturnValue:
        """Say how fresh each of the user's accounts is."""
        mine = {account.id for account in my_accounts(self._accounts)}
        fresh = [payloads.feed_fields(status) for status in self._fleet.statuses() if status.account in mine]
        return jsonify(status="success", feeds=fresh)

    def snapshot(self) -> ResponseReturnValue:
        """Return what the page shows of one account, for a browser that has no stream just now."""
        account = self._account(request.args)
        return Response(payloads.Json.dumps(self._realtime.snapshot(account.id)), mimetype="application/json")

    def _account(self, fields: Any) -> Account:
        account_id = fields.get("account")
        if not isinstance(account_id, str) or not account_id:
            raise InvalidRequestError({"account": "Choose an account."})
        return my_account(self._accounts, AccountId(account_id))


@contextmanager
def _form_names() -> Iterator[None]:
    """Let what is wrong with a request be said under the names of its form."""
    try:
        yield
    except InvalidRequestError as error:
        raise InvalidRequestError(forms.by_form_field(error.problems)) from error


def _told(submission: Submission) -> ResponseReturnValue:
    told = {
        "submission": submission.id,
        "state": submission.state.value,
        "orderid": submission.order_id,
        "reason": submission.reason,
    }
    if submission.state is SubmissionState.REFUSED:
        return jsonify(status="error", message=submission.reason or "The order was refused.", **told), 422
    if submission.state is SubmissionState.ACCEPTED:
        return jsonify(status="success", **told)
    doubt = "The broker did not confirm the order; its order book is being read to find out."
    return jsonify(status="success", message=doubt, **told), 202


def _who() -> str:
    return f"user:{current_user.name}" if current_user.is_authenticated else f"at:{request.remote_addr}"
