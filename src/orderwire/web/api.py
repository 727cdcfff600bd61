"""REST for programs, as OpenAlgo speaks it (openalgo.md §1), with what orderwire knows more of added to it.

A program proves itself with an API key alone: no session, no cookie, so no cross-site request can do anything.
What it may do is the key's scope; whose accounts it reaches is decided by the key's owner.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from apiflask import APIBlueprint, APIFlask
from apiflask.exceptions import HTTPError
from flask import Response, g, request
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter, RateLimitExceeded
from msgspec.structs import replace
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import HTTPException

from orderwire.core.books import odd_rows
from orderwire.core.lifecycle import OrderView, Submission, SubmissionState
from orderwire.core.orders import (
    AccountId,
    ModifyRequest,
    OrderId,
    OrderRequest,
    Position,
)
from orderwire.core.recovery import FeedStatus
from orderwire.core.rollout import Choice
from orderwire.core.sizing import order_to_close, order_to_reach, split
from orderwire.errors import (
    BrokerUnreachableError,
    FedElsewhereError,
    InvalidRequestError,
    NotFoundError,
    OrderRefusedError,
    OrderwireError,
    PermissionRefusedError,
    ProtocolViolationError,
    RateLimitedError,
    SessionExpiredError,
)
from orderwire.pilot.gate import RolloutGate
from orderwire.store import story
from orderwire.store.accounts import Account, Accounts
from orderwire.store.database import Database
from orderwire.store.notifications import Notifications
from orderwire.store.submissions import submission_of
from orderwire.store.users import Scope, Users
from orderwire.web import api_rows as rows
from orderwire.web import api_shapes as shapes
from orderwire.web import forms, payloads
from orderwire.web.outbox import Cursor
from orderwire.web.payloads import Json
from orderwire.web.ports import Book, Feeds, OrderDesk
from orderwire.web.realtime import Log
from orderwire.web.rollout import said

ORDER_LIMIT: Final = "10 per second; 600 per minute"
"""Per key. SEBI's threshold for algorithmic orders is 10 a second (kite.md §6)."""

READ_LIMIT: Final = "50 per second"
BROKER_READ_LIMIT: Final = "5 per second"
"""For what only the broker can answer: the account's own budget there is shared with the feed."""

MOST_CHANGES: Final = 2_000
"""Changes given in one answer; who missed more is given a snapshot."""

MOST_PARTS: Final = 100
"""Orders that one call may place."""

BURST: Final = 5
PACE: Final = 0.12
"""Seconds between the orders of one call after the first few: a broker takes 10 a second and refuses the next."""

DOUBT_WAIT: Final = 3.0
"""Seconds an order in doubt is looked for in the broker's book before the caller is told."""

_DOUBT: Final = (
    "The broker did not confirm the order, and its order book has not told yet: it may be there. Do not place it "
    "again before looking; with the same Idempotency-Key you may ask again."
)


class KeyRefusedError(OrderwireError):
    """There is no such key, or it was revoked."""

    def __init__(self) -> None:
        super().__init__("Invalid openalgo apikey")  # OpenAlgo's words


class _PlacingFailedError(OrderwireError):
    """An order was not placed, or perhaps."""

    def __init__(self, submission: Submission) -> None:
        self.submission = submission
        super().__init__(submission.reason or "The order was refused.")


class _SomeFailedError(OrderwireError):
    """Of several orders, some were not placed."""

    def __init__(self, message: str, results: list[dict[str, Any]]) -> None:
        self.results = results
        super().__init__(message)


class _InDoubtError(_PlacingFailedError):
    """Nobody knows yet whether the broker has the order."""

    def __init__(self, submission: Submission) -> None:
        super().__init__(replace(submission, reason=_DOUBT))


_CODES: Final[tuple[tuple[type[OrderwireError], int], ...]] = (
    (KeyRefusedError, 403),
    (_InDoubtError, 500),
    (_PlacingFailedError, 400),
    (_SomeFailedError, 400),
    (InvalidRequestError, 400),
    (NotFoundError, 404),
    (OrderRefusedError, 400),
    (SessionExpiredError, 403),
    (PermissionRefusedError, 403),
    (FedElsewhereError, 403),
    (RateLimitedError, 429),
)
"""What our errors are in OpenAlgo's codes; everything else is 500."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiTools:
    """What the calls work with."""

    users: Users
    accounts: Accounts
    database: Database
    notifications: Notifications
    book: Book
    log: Log
    snapshot: Callable[[AccountId], Mapping[str, Any]]
    """Returns everything of an account, as the stream gives it."""
    desk: OrderDesk
    fleet: Feeds
    gate: RolloutGate
    count_fault: Callable[[BaseException], str]
    """Counts a fault of ours and returns its number, as the airlock of the pages does."""


class Application(APIFlask):
    """Flask with an OpenAPI document: of our calls alone, whatever other rooms register."""

    def _collect_security_info(self) -> tuple[list[str], list[Any]]:
        """Look for no logins: keys are in the body, and plain blueprints cannot be asked."""
        return [], []


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of the API: its name, what it takes and gives, and what it may cost."""

    name: str
    takes: type[BaseModel]
    gives: type[BaseModel]
    scope: Scope
    limit: str
    method: str = "POST"


_READ, _TRADE = Scope.READ, Scope.TRADE

CALLS: Final = (
    _Call("placeorder", shapes.PlaceOrder, shapes.Placed, _TRADE, ORDER_LIMIT),
    _Call("placesmartorder", shapes.PlaceSmartOrder, shapes.Placed, _TRADE, ORDER_LIMIT),
    _Call("basketorder", shapes.BasketOrder, shapes.Results, _TRADE, ORDER_LIMIT),
    _Call("splitorder", shapes.SplitOrder, shapes.SplitResults, _TRADE, ORDER_LIMIT),
    _Call("modifyorder", shapes.ModifyOrder, shapes.Acted, _TRADE, ORDER_LIMIT),
    _Call("cancelorder", shapes.OneOrder, shapes.Acted, _TRADE, ORDER_LIMIT),
    _Call("cancelallorder", shapes.Strategic, shapes.CancelledAll, _TRADE, ORDER_LIMIT),
    _Call("closeposition", shapes.Strategic, shapes.Closed, _TRADE, ORDER_LIMIT),
    _Call("orderstatus", shapes.OneOrder, shapes.OrderStatusAnswer, _READ, READ_LIMIT),
    _Call("openposition", shapes.OpenPosition, shapes.PositionAnswer, _READ, READ_LIMIT),
    _Call("orderbook", shapes.Request, shapes.OrderBookAnswer, _READ, READ_LIMIT),
    _Call("tradebook", shapes.Request, shapes.TradeBookAnswer, _READ, READ_LIMIT),
    _Call("positionbook", shapes.Request, shapes.PositionBookAnswer, _READ, BROKER_READ_LIMIT),
    _Call("holdings", shapes.Request, shapes.HoldingsAnswer, _READ, BROKER_READ_LIMIT),
    _Call("funds", shapes.Request, shapes.FundsAnswer, _READ, BROKER_READ_LIMIT),
    _Call("notifications/recent", shapes.Request, shapes.NotificationsAnswer, _READ, READ_LIMIT),
    _Call("notifications/dead", shapes.Request, shapes.NotificationsAnswer, _READ, READ_LIMIT),
    _Call("notifications/retry", shapes.NotificationNumber, shapes.DoneAnswer, _TRADE, READ_LIMIT),
    _Call("notifications/discard", shapes.NotificationNumber, shapes.DoneAnswer, _TRADE, READ_LIMIT),
    _Call("orders/changes", shapes.ChangesQuery, shapes.ChangesAnswer, _READ, READ_LIMIT, method="GET"),
    _Call("feeds", shapes.Empty, shapes.FeedsAnswer, _READ, READ_LIMIT, method="GET"),
    _Call("realtime", shapes.Request, shapes.RealtimeAnswer, _READ, READ_LIMIT),
    _Call("realtime/choose", shapes.ChooseRealtime, shapes.RealtimeAnswer, _TRADE, ORDER_LIMIT),
)

_FAILURES: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "The request, or the order, was refused: `message` says why.",
        403: "The API key is not valid or may not do this, or the account has to log in to its broker.",
        404: "There is no such order, account or notification.",
        429: "Too many calls; wait `retry_after` seconds.",
        500: "The broker could not be reached, or something went wrong here.",
    }
)


_FORMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "quantity": "a whole number",
        "disclosed_quantity": "a whole number",
        "position_size": "a whole number, below 0 for a short position",
        "splitsize": "a whole number",
        "price": "a number such as 1500.25",
        "trigger_price": "a number such as 1500.25",
        "orderid": "the broker's order id",
    }
)


class Api:
    """The calls. Any web thread; a call that asks the broker blocks until it answered."""

    def __init__(self, tools: ApiTools) -> None:
        self._users = tools.users
        self._accounts = tools.accounts
        self._database = tools.database
        self._notifications = tools.notifications
        self._book = tools.book
        self._log = tools.log
        self._snapshot = tools.snapshot
        self._desk = tools.desk
        self._fleet = tools.fleet
        self._gate = tools.gate
        self._count_fault = tools.count_fault

    @staticmethod
    def describe(app: APIFlask) -> None:
        """Say what the OpenAPI document says of all calls; before any of them is registered."""
        app.config.update(
            HTTP_ERROR_SCHEMA=shapes.Failure.model_json_schema(),
            VALIDATION_ERROR_STATUS_CODE=400,
            AUTO_VALIDATION_ERROR_RESPONSE=False,
            AUTO_200_RESPONSE=False,
            AUTO_404_RESPONSE=False,
            SECURITY_SCHEMES={"key": {"type": "apiKey", "in": "header", "name": "X-API-KEY"}},
        )

    def attach(self, app: APIFlask, limiter: Limiter) -> None:
        """Register the calls under `/api/v1`, each described in the OpenAPI document."""
        routes = APIBlueprint("api", __name__, url_prefix="/api/v1", tag="orders")
        for call in CALLS:
            view = limiter.limit(call.limit, key_func=_who)(self._view(call, routes))
            routes.add_url_rule(f"/{call.name}", call.name.replace("/", "_"), view, methods=[call.method])
        routes.register_error_handler(Exception, self._refuse)
        app.extensions["csrf"].exempt(routes)
        app.register_blueprint(routes)

    def _view(self, call: _Call, routes: APIBlueprint) -> Callable[..., ResponseReturnValue]:
        carry_out = getattr(self, call.name.replace("/", "_"))
        location = "json" if call.method == "POST" else "query"

        def view(**given: Any) -> ResponseReturnValue:
            asked = given[f"{location}_data"]
            key = asked.apikey if call.method == "POST" else request.headers.get("X-API-KEY", "")
            g.owner = self._owner(key, call.scope)
            return _said({"status": "success"} | carry_out(asked))

        view.__name__ = carry_out.__name__
        view.__doc__ = carry_out.__doc__
        security = "key" if call.method == "GET" else None
        documented = routes.doc(
            tags=["notifications" if call.name.startswith("notifications") else "orders"],
            responses=dict(_FAILURES),
            security=security,
            operation_id=call.name.replace("/", "_"),
        )(view)
        return routes.input(call.takes, location=location)(routes.output(call.gives)(documented))

    def _owner(self, plain: str, scope: Scope) -> str:
        key = self._users.key(plain)
        if key is None:
            raise KeyRefusedError
        if scope is Scope.TRADE and key.scope is not Scope.TRADE:
            raise PermissionRefusedError(
                "This API key may only read. Make one with the scope trade to place orders."
            )
        return key.owner

    # --- placing --------------------------------------------------------------------------------------

    def placeorder(self, asked: shapes.PlaceOrder) -> dict[str, Any]:
        """Place one order.

        The broker's own words come back when it refuses. Send an `Idempotency-Key` header to be able to ask again
        after a lost answer: the same key never places a second order.
        """
        account = self._one(asked.account)
        return _placed(self._place(account.id, _terms(asked), key=_idempotency_key()))

    def placesmartorder(self, asked: shapes.PlaceSmartOrder) -> dict[str, Any]:
        """Reach a position.

        Places the order that brings the net position to `position_size`, as the broker holds it now; nothing when it
        is there already. With a position and a `position_size` of 0, it places the order as it is given.
        """
        account = self._one(asked.account)
        wanted = _signed(asked.position_size)
        fields = asked.model_dump()
        checked = forms.read_order(fields | {"quantity": 1})
        held = _held(self._all_positions(account.id), checked.exchange, checked.symbol, checked.product)
        order = order_to_reach(
            wanted, held=held, action=checked.side, quantity=int(float(str(asked.quantity)))
        )
        if order is None:
            return {"orderid": "", "message": "Positions Already Matched. No Action needed."}
        side, quantity = order
        with _form_names():
            terms = replace(checked, side=side, quantity=quantity)
            return _placed(self._place(account.id, terms, key=_idempotency_key()))

    def basketorder(self, asked: shapes.BasketOrder) -> dict[str, Any]:
        """Place several orders, one after the other, in the order given.

        One that is refused does not keep the others from being placed; `results` says what became of each.
        """
        account = self._one(asked.account)
        key = _idempotency_key()
        results = [
            self._try_to_place(account.id, order, key=key, number=number) | {"symbol": order.symbol}
            for number, order in self._paced(asked.orders)
        ]
        return {"results": results}

    def splitorder(self, asked: shapes.SplitOrder) -> dict[str, Any]:
        """Place one quantity as several orders of at most `splitsize`."""
        account = self._one(asked.account)
        order = _terms(asked)
        size = int(float(str(asked.splitsize)))
        if size < 1:
            raise InvalidRequestError({"splitsize": "A split size is at least 1."})
        if order.quantity > size * MOST_PARTS:
            raise InvalidRequestError({"splitsize": f"That would be more than {MOST_PARTS} orders."})
        key = _idempotency_key()
        results = [
            self._try_to_place(account.id, replace(order, quantity=part), key=key, number=number)
            | {"symbol": order.symbol, "order_num": number, "quantity": part}
            for number, part in self._paced(split(order.quantity, size))
        ]
        return {"results": results, "split_size": size, "total_quantity": order.quantity}

    def _paced(self, things: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Number things from 1, and let time pass between them once the broker's second is used up."""
        for number, thing in enumerate(things, start=1):
            if number > BURST:
                time.sleep(PACE)
            yield number, thing

    def _try_to_place(
        self, account: AccountId, order: OrderRequest | shapes.OrderTerms, *, key: str, number: int
    ) -> dict[str, Any]:
        try:
            request_ = order if isinstance(order, OrderRequest) else _terms(order)
            placed = self._place(account, request_, key=f"{key}-{number}" if key else "")
        except OrderwireError as error:
            return {"status": "error", "message": str(error)}
        return {"status": "success", "orderid": placed.order_id}

    def _place(self, account: AccountId, order: OrderRequest, *, key: str) -> Submission:
        with _form_names():
            submission = self._desk.place(account, order, idempotency_key=key)
        submission = self._settled(submission)
        if submission.state is not SubmissionState.ACCEPTED or not submission.order_id:
            in_doubt = submission.state is not SubmissionState.REFUSED
            raise _InDoubtError(submission) if in_doubt else _PlacingFailedError(submission)
        return submission

    def _settled(self, submission: Submission) -> Submission:
        """Wait a little for the order book to tell what became of an order in doubt."""
        waited, step = 0.0, 0.05
        while not _is_settled(submission) and waited < DOUBT_WAIT:
            time.sleep(step)
            waited += step
            submission = submission_of(self._database, submission.id) or submission
        return submission

    # --- changing -------------------------------------------------------------------------------------

    def modifyorder(self, asked: shapes.ModifyOrder) -> dict[str, Any]:
        """Ask for new terms of a live order."""
        account, view = self._order(asked)
        terms: ModifyRequest = forms.read_modification(asked.model_dump())
        with _form_names():
            order_id = self._desk.modify(account, replace(terms, validity=view.validity or terms.validity))
        return {"orderid": order_id}

    def cancelorder(self, asked: shapes.OneOrder) -> dict[str, Any]:
        """Ask for one order's cancellation."""
        account, view = self._order(asked)
        return {"orderid": self._desk.cancel(account, view.order_id)}

    def cancelallorder(self, asked: shapes.Strategic) -> dict[str, Any]:
        """Ask for the cancellation of every live order."""
        done: list[str] = []
        failed: list[str] = []
        for _, view in self._paced(self._live_orders(asked.account)):
            try:
                done.append(self._desk.cancel(view.account, view.order_id))
            except OrderwireError:
                failed.append(view.order_id)
        message = f"Canceled {len(done)} orders. Failed to cancel {len(failed)} orders."
        return {"message": message, "canceled_orders": done, "failed_cancellations": failed}

    def closeposition(self, asked: shapes.Strategic) -> dict[str, Any]:
        """Close every open position with market orders, as the broker holds them now."""
        results = [
            self._try_to_place(account, order, key="", number=number) | {"symbol": order.symbol}
            for number, (account, order) in self._paced(self._closing(asked.account))
        ]
        failed = [one for one in results if one["status"] == "error"]
        if failed:
            what = "; ".join(f"{one['symbol']}: {one['message']}" for one in failed)
            raise _SomeFailedError(
                f"{len(results) - len(failed)} of {len(results)} orders placed. {what}", results
            )
        message = "All Open Positions Squared Off" if results else "No Open Positions Found"
        return {"message": message, "results": results}

    def _all_positions(self, account: AccountId) -> Sequence[Position]:
        """Read the positions to act on. Raises ProtocolViolationError where one cannot be read: it may be the one meant."""
        book = self._desk.positions(account)
        odd = odd_rows(book)
        if odd:
            raise ProtocolViolationError(
                f"{len(odd)} of the positions of {account} cannot be read ({odd[0]}), so nothing was sent. Look at the broker."
            )
        return book

    def _closing(self, wanted: str) -> Iterator[tuple[AccountId, OrderRequest]]:
        held = [(a.id, p) for a in self._mine(wanted) for p in self._all_positions(a.id) if p.quantity]
        for account, position in held:
            side, quantity = order_to_close(position.quantity)
            most = self._desk.freeze_quantity(account, position.exchange, position.symbol) or quantity
            for part in split(quantity, most):
                yield (
                    account,
                    OrderRequest(
                        symbol=position.symbol,
                        exchange=position.exchange,
                        side=side,
                        quantity=part,
                        product=position.product,
                    ),
                )

    # --- asking: from what is held --------------------------------------------------------------------

    def orderstatus(self, asked: shapes.OneOrder) -> dict[str, Any]:
        """Say where one order stands, or how it ended on a day before, as long as that is kept.

        It costs the broker nothing.
        """
        account, view = self._order(asked, ended=True)
        feed = self._feed(account)
        known = {
            "freshness": feed.freshness.value if feed else "",
            "sequence": self._log.head(account).sequence,
        }
        return {"data": payloads.order_fields(view) | known}

    def orderbook(self, asked: shapes.Request) -> dict[str, Any]:
        """List the orders of the session day, and the live ones of days before."""
        held = [self._log.snapshot(account.id) for account in self._mine(asked.account)]
        views = [view for one in held for view in one.orders if view.order_id]
        return {
            "data": {
                "orders": [payloads.order_fields(view) for view in views],
                "statistics": rows.statistics(views),
                "accounts": [self._account_book(one) for one in held],
            }
        }

    def tradebook(self, asked: shapes.Request) -> dict[str, Any]:
        """List the executions of the session day."""
        held = [self._log.snapshot(account.id) for account in self._mine(asked.account)]
        return {"data": [rows.trade_row(trade) for one in held for trade in one.trades]}

    def openposition(self, asked: shapes.OpenPosition) -> dict[str, Any]:
        """Say what is held of one instrument, as of the last fill. It costs the broker nothing."""
        held = [p for account in self._mine(asked.account) for p in self._log.snapshot(account.id).positions]
        quantity = _held(held, asked.exchange.upper(), asked.symbol.upper(), asked.product.upper())
        return {"quantity": quantity}

    def feeds(self, _asked: shapes.Empty) -> dict[str, Any]:
        """Say how fresh each of your accounts is."""
        mine = {account.id for account in self._mine("")}
        return {
            "data": [
                payloads.feed_fields(status) for status in self._fleet.statuses() if status.account in mine
            ]
        }

    def realtime(self, _asked: shapes.Request) -> dict[str, Any]:
        """Say whether each of your accounts is on real-time updates, why, and what you chose."""
        mine = self._accounts.of_owner(g.owner)
        told = {account.id: self._gate.decide(account.owner, account.broker) for account in mine}
        return {
            "choice": self._gate.choice(g.owner),
            "data": [
                {"account": account, "enabled": one.enabled, "reason": one.reason, "said": said(one.reason)}
                for account, one in told.items()
            ],
        }

    def realtime_choose(self, asked: shapes.ChooseRealtime) -> dict[str, Any]:
        """Switch real-time updates on or off for all your accounts, or leave it to the pilot again (`none`).

        What the operators switched off stays off. Without them the order book is read on refresh; nothing is lost.
        """
        self._gate.choose(g.owner, Choice(asked.choice), by=g.owner)
        return self.realtime(asked)

    def orders_changes(self, asked: shapes.ChangesQuery) -> dict[str, Any]:
        """Return what changed since a cursor: every change, in order, without a gap.

        Where that cannot be told (no cursor, too long ago, too much) there is a `snapshot` instead. Either way
        continue with the new `cursor`. A change whose `row` you know replaces what you know of it.
        """
        account = self._one(asked.account).id
        cursor = _read_cursor(asked.since)
        changes = self._log.changes_since(account, cursor, most=MOST_CHANGES) if cursor else None
        if cursor is None or changes is None:
            whole = self._snapshot(account)
            at = _cursor_text(whole["epoch"], whole["sequence"])
            return {"account": account, "cursor": at, "changes": [], "snapshot": whole}
        reached = changes[-1].sequence if changes else cursor.sequence
        told = [{"kind": change.kind} | payloads.change_fields(change) for change in changes]
        at = _cursor_text(cursor.epoch, reached)
        return {"account": account, "cursor": at, "changes": told, "snapshot": None}

    # --- asking: from the broker ----------------------------------------------------------------------

    def positionbook(self, asked: shapes.Request) -> dict[str, Any]:
        """List the net positions, read from the broker now; `unreadable` counts those that nobody could read."""
        books = [self._desk.positions(account.id) for account in self._mine(asked.account)]
        return {
            "data": [rows.position_row(position) for book in books for position in book],
            "unreadable": sum(len(odd_rows(book)) for book in books),
        }

    def holdings(self, asked: shapes.Request) -> dict[str, Any]:
        """List what the demat accounts hold, read from the broker now.

        `unreadable` counts what the broker said besides and nobody could read: it is in none of the sums.
        """
        books = [self._desk.holdings(account.id) for account in self._mine(asked.account)]
        held = [one for book in books for one in book]
        return {
            "data": {
                "holdings": [rows.holding_row(one) for one in held],
                "statistics": rows.worth(held),
                "unreadable": sum(len(odd_rows(book)) for book in books),
            }
        }

    def funds(self, asked: shapes.Request) -> dict[str, Any]:
        """Say how much money there is, read from the broker now."""
        return {"data": rows.money([self._desk.funds(account.id) for account in self._mine(asked.account)])}

    # --- notifications --------------------------------------------------------------------------------

    def notifications_recent(self, _asked: shapes.Request) -> dict[str, Any]:
        """List what you were told, or are to be told, outside the pages."""
        return {"data": [rows.notification_row(one) for one in self._notifications.recent(g.owner)]}

    def notifications_dead(self, _asked: shapes.Request) -> dict[str, Any]:
        """List what could not be told: the dead letters."""
        return {"data": [rows.notification_row(one) for one in self._notifications.dead(g.owner)]}

    def notifications_retry(self, asked: shapes.NotificationNumber) -> dict[str, Any]:
        """Try a dead letter anew."""
        self._notifications.retry(asked.id, owner=g.owner)
        return {}

    def notifications_discard(self, asked: shapes.NotificationNumber) -> dict[str, Any]:
        """Forget a dead letter."""
        self._notifications.discard(asked.id, owner=g.owner)
        return {}

    # --- whose ----------------------------------------------------------------------------------------

    def _mine(self, wanted: str) -> list[Account]:
        """Return the caller's accounts, or the one they name. Raises NotFoundError alike for a stranger's and none."""
        mine = self._accounts.of_owner(g.owner)
        named = [account for account in mine if account.id == wanted]
        if wanted and not named:
            raise NotFoundError(f"There is no account {wanted}.")
        return named or mine

    def _one(self, wanted: str) -> Account:
        mine = self._mine(wanted)
        if not mine:
            raise NotFoundError("You have no account at a broker yet.")
        if len(mine) > 1:
            names = ", ".join(account.id for account in mine)
            raise InvalidRequestError({"account": f"You have several accounts; name one of {names}."})
        return mine[0]

    def _order(
        self, asked: shapes.OneOrder | shapes.ModifyOrder, *, ended: bool = False
    ) -> tuple[AccountId, OrderView]:
        """Return an order of the book, or, with `ended`, one of a day before. Raises NotFoundError."""
        order_id, mine = OrderId(asked.orderid), self._mine(asked.account)
        for look in (self._book.current, *([self._kept] if ended else [])):
            for account in mine:
                view = look(account.id, order_id)
                if view is not None:
                    return account.id, view
        raise NotFoundError(f"Order {order_id} not found")

    def _kept(self, account: AccountId, order_id: OrderId) -> OrderView | None:
        return story.kept(self._database, account, order_id)

    def _live_orders(self, wanted: str) -> list[OrderView]:
        held = [self._log.snapshot(account.id) for account in self._mine(wanted)]
        return [v for one in held for v in one.orders if v.order_id and not v.status.terminal]

    def _feed(self, account: AccountId) -> FeedStatus | None:
        return next((status for status in self._fleet.statuses() if status.account == account), None)

    def _account_book(self, held: Any) -> dict[str, Any]:
        feed = self._feed(held.account)
        return {
            "account": held.account,
            "freshness": feed.freshness.value if feed else "",
            "sequence": held.sequence,
            "cursor": _cursor_text(held.epoch, held.sequence),
        }

    # --- when it goes wrong ---------------------------------------------------------------------------

    def _refuse(self, error: Exception) -> ResponseReturnValue:
        """Say what went wrong in OpenAlgo's form; a fault of ours is counted and named by number."""
        if isinstance(error, OrderwireError):
            return _failed_by(error)
        if isinstance(error, HTTPError):
            return _failed_by(InvalidRequestError(_problems_in(error)))
        if isinstance(error, RateLimitExceeded):
            return _failed("Too many calls.", 429, retry_after=_until_reset(error))
        if isinstance(error, HTTPException):
            code = error.code or 500
            return _failed(error.description or error.name, 400 if code in {413, 415} else code)
        return _failed(f"Something went wrong here. Please quote fault {self._count_fault(error)}.", 500)


# --- reading what was asked -------------------------------------------------------------------------------


def _who() -> str:
    body = request.get_json(silent=True) if request.method == "POST" else None
    key = body.get("apikey") if isinstance(body, dict) else request.headers.get("X-API-KEY")
    digest = hashlib.sha256(key.encode()).hexdigest()[:16] if isinstance(key, str) else ""
    return f"api:{digest or request.remote_addr}"


@contextmanager
def _form_names() -> Iterator[None]:
    """Let what is wrong with a request be said under OpenAlgo's names of its fields."""
    try:
        yield
    except InvalidRequestError as error:
        raise InvalidRequestError(forms.by_form_field(error.problems)) from error


def _terms(asked: shapes.OrderTerms) -> OrderRequest:
    return forms.read_order(asked.model_dump())


def _signed(number: float | str) -> int:
    return int(float(str(number)))


def _idempotency_key() -> str:
    return forms.read_idempotency_key(request.headers.get("Idempotency-Key"))


def _read_cursor(text: str) -> Cursor | None:
    if not text:
        return None
    epoch, _, sequence = text.rpartition(":")
    if not sequence.isascii() or not sequence.isdigit() or len(sequence) > 18:
        raise InvalidRequestError({"since": "Give the `cursor` of an answer before, or nothing."})
    return Cursor(epoch=epoch, sequence=int(sequence))


def _cursor_text(epoch: str, sequence: int) -> str:
    return f"{epoch}:{sequence}"


def _is_settled(submission: Submission) -> bool:
    if submission.state is SubmissionState.ACCEPTED:
        return bool(submission.order_id)
    return submission.state is SubmissionState.REFUSED


def _held(positions: Iterable[Position], exchange: str, symbol: str, product: str) -> int:
    wanted = (exchange, symbol, product)
    return sum(p.quantity for p in positions if (p.exchange, p.symbol, p.product) == wanted)


# --- saying it in OpenAlgo's words ------------------------------------------------------------------------


def _said(answer: Mapping[str, Any], code: int = 200) -> Response:
    return Response(Json.dumps(answer), status=code, mimetype="application/json")


def _failed(message: str, code: int, **more: Any) -> Response:
    return _said({"status": "error", "message": message, **more}, code)


def _failed_by(error: OrderwireError) -> Response:
    code = next((code for kind, code in _CODES if isinstance(error, kind)), 500)
    more: dict[str, Any] = {}
    if isinstance(error, InvalidRequestError):
        more["problems"] = error.problems
    if isinstance(error, _PlacingFailedError):
        more |= {"submission": error.submission.id, "state": error.submission.state}
    if isinstance(error, _SomeFailedError):
        more["results"] = error.results
    if isinstance(error, BrokerUnreachableError) and code == 429:
        more["retry_after"] = error.retry_after or 1.0
    return _failed(str(error), code, **more)


def _problems_in(error: HTTPError) -> dict[str, str]:
    """Say what is wrong with each field: one sentence, whichever form of it came nearest."""
    found = error.__cause__.errors() if isinstance(error.__cause__, ValidationError) else []
    problems: dict[str, str] = {}
    for one in found:
        where = one["loc"][:3] if one["loc"][:1] == ("orders",) else one["loc"][:1]
        problems.setdefault(".".join(map(str, where)), _sentence(one["type"], one["msg"], where))
    return problems or {"": "Send one JSON object."}


def _sentence(kind: str, message: str, where: Sequence[str | int]) -> str:
    name = where[-1] if where else "body"
    if kind == "missing":
        return f"Give {name}."
    wanted = _FORMS.get(str(name))
    return f"{name} must be {wanted}." if wanted else f"{name}: {message}."


def _until_reset(error: RateLimitExceeded) -> float:
    return float(error.limit.limit.get_expiry()) if error.limit is not None else 1.0


def _placed(submission: Submission) -> dict[str, Any]:
    return {"orderid": submission.order_id, "submission": submission.id}
