"""The order's own page: its terms, where it stands, and every word that was said about it."""

from __future__ import annotations

from flask import Blueprint, Flask, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter
from flask_login import login_required

from orderwire.brokers.registry import BrokerRegistry
from orderwire.errors import OrderwireError
from orderwire.store import story
from orderwire.store.accounts import Accounts
from orderwire.store.database import Database
from orderwire.web import listing, payloads
from orderwire.web.mine import my_account
from orderwire.web.paints import PaintTimes
from orderwire.web.ports import Feeds, OrderDesk
from orderwire.web.stories import first_painted, steps
from orderwire.web.ui import ORDER_LIMIT

_LENGTH = 40
READ_LIMIT = "10 per second"


class OrderStories:
    """Shows one order of the user who is logged in, and cancels it."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        brokers: BrokerRegistry,
        database: Database,
        desk: OrderDesk,
        fleet: Feeds,
        paints: PaintTimes,
    ) -> None:
        self._accounts = accounts
        self._brokers = brokers
        self._database = database
        self._desk = desk
        self._fleet = fleet
        self._paints = paints

    def attach(self, app: Flask, limiter: Limiter) -> None:
        """Register the routes."""
        routes = Blueprint("stories", __name__, url_prefix="/orders/<account_id>/<row>")
        show = limiter.limit(READ_LIMIT)(login_required(self.show))
        cancel = limiter.limit(ORDER_LIMIT)(login_required(self.cancel))
        routes.add_url_rule("", "show", show, methods=["GET"])
        routes.add_url_rule("/cancel", "cancel", cancel, methods=["POST"])
        app.register_blueprint(routes)

    def show(self, account_id: str, row: str) -> ResponseReturnValue:
        """Show the order; 204 when the page that asks again (`seen`) holds all there is."""
        account = my_account(self._accounts, account_id)
        told = story.read(self._database, account.id, row)
        number = listing.asked_page()
        all_steps = steps(told, self._paints.stamps)
        mark = f"{len(all_steps)}.{sum(len(step.effects) for step in all_steps)}.{told.view.status}"
        painted = first_painted(told, self._paints.stamps)
        mark += f".{painted is not None}"
        if request.args.get("seen") == mark:
            return "", 204
        begin = listing.offset(number, length=_LENGTH)
        feed = next((one for one in self._fleet.statuses() if one.account == account.id), None)
        kind = self._brokers.classes.get(account.broker)
        return render_template(
            "order.html",
            account=account,
            broker_title=kind.title if kind else account.broker,
            view=told.view,
            submission=told.submission,
            page=listing.page(all_steps[begin : begin + _LENGTH + 1], number, length=_LENGTH),
            count=len(told.said),
            painted=painted,
            feed=payloads.feed_fields(feed) if feed else None,
            mark=mark,
        )

    def cancel(self, account_id: str, row: str) -> ResponseReturnValue:
        """Ask the broker to cancel the order."""
        account = my_account(self._accounts, account_id)
        view = story.read(self._database, account.id, row).view
        try:
            self._desk.cancel(account.id, view.order_id)
            flash("The cancellation was sent; the page shows when the broker has confirmed it.")
        except OrderwireError as error:
            flash(str(error), "problem")
        return redirect(url_for("stories.show", account_id=account_id, row=row))
