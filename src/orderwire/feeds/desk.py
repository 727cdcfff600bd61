"""Sends orders: writes the submission down before it is sent, and never sends one twice."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import datetime
from typing import Any, TypeVar

import structlog
from msgspec.structs import replace

from orderwire.brokers.adapter import BrokerAdapter
from orderwire.core import orders
from orderwire.core.books import odd_rows
from orderwire.core.instruments import suggestions
from orderwire.core.lifecycle import Submission, SubmissionState
from orderwire.core.orders import (
    AccountId,
    Funds,
    Holding,
    ModifyRequest,
    OrderId,
    OrderRequest,
    Position,
)
from orderwire.errors import (
    BrokerError,
    BrokerUnreachableError,
    InvalidRequestError,
    NotFoundError,
    OrderRefusedError,
    PermissionRefusedError,
    SessionExpiredError,
    StoreError,
)
from orderwire.feeds.fleet import Fleet
from orderwire.store.book import OrderBook
from orderwire.store.database import Database
from orderwire.store.submissions import AlreadySubmittedError, submission_for_key

_log = structlog.get_logger(__name__)

T = TypeVar("T")

COMMIT_WAIT = 5.0
"""Seconds a submission may take to be written down; after that nothing is sent."""

BROKER_WAIT = 12.0
"""Seconds the broker's answer may take; above the adapters' own 7 s timeout, so theirs is the one that speaks."""

_TAG_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


def new_tag(choose: Callable[[str], str] = secrets.choice) -> str:
    """Make a correlation tag both brokers accept: `OW` and 14 letters and digits that nobody misreads."""
    return "OW" + "".join(choose(_TAG_LETTERS) for _ in range(14))


class Desk:
    """Places, modifies and cancels for a user; called from web threads, blocks until the broker answered."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        book: OrderBook,
        database: Database,
        now: Callable[[], datetime],
        commit_wait: float = COMMIT_WAIT,
    ) -> None:
        self._commit_wait = commit_wait
        self._fleet = fleet
        self._book = book
        self._database = database
        self._now = now

    def place(
        self, account: AccountId, request: OrderRequest, *, idempotency_key: str = "", tag: str = ""
    ) -> Submission:
        """Place one order and return its submission: ACCEPTED, REFUSED (with the broker's words) or UNKNOWN.

        UNKNOWN means that the broker may have it; the book is read and tells. Raises InvalidRequestError,
        NotFoundError for an account that is not there, SessionExpiredError before anything is sent. A second
        call with the same idempotency key returns the first one's submission and sends nothing. `tag`: as `new_tag`
        makes them, where who asks must know it beforehand.
        """
        adapter = self._fleet.adapter(account)
        if idempotency_key:
            earlier = submission_for_key(self._database, account, idempotency_key)
            if earlier is not None:
                return earlier
        self._check(adapter, request)
        try:
            submission = self._write_down(adapter, request, idempotency_key, tag or new_tag())
        except AlreadySubmittedError as error:
            return error.submission
        return self._send(adapter, submission)

    def modify(self, account: AccountId, request: ModifyRequest) -> OrderId:
        """Ask for new terms of a live order. Raises OrderRefusedError with the broker's words."""
        adapter = self._fleet.adapter(account)
        view = self._book.current(account, request.order_id)
        if view is None:
            raise NotFoundError(f"There is no order {request.order_id} in this account.")
        instrument = adapter.tools.instruments.by_symbol(view.exchange, view.symbol)
        problems = orders.check_modify(request, instrument, filled=view.filled_quantity)
        if problems:
            raise InvalidRequestError(problems)
        current = self._book.last_update(account, request.order_id)
        return self._act(account, adapter, adapter.modify_order(request, current=current))

    def cancel(self, account: AccountId, order_id: OrderId) -> OrderId:
        """Ask for an order's cancellation. Raises OrderRefusedError with the broker's words."""
        adapter = self._fleet.adapter(account)
        current = self._book.last_update(account, order_id)
        if current is None:
            raise NotFoundError(f"There is no order {order_id} in this account.")
        return self._act(account, adapter, adapter.cancel_order(order_id, current=current))

    # --- reading: what only the broker knows -----------------------------------------------------------

    def positions(self, account: AccountId) -> Sequence[Position]:
        """Read the net positions from the broker now. Raises BrokerError, NotFoundError."""
        return self._read(account, lambda adapter: adapter.positions())

    def holdings(self, account: AccountId) -> Sequence[Holding]:
        """Read what the demat account holds. Raises BrokerError, NotFoundError.

        What cannot be read of it is left out, counted (`odd_rows`) and said in the log: no feed reads this book.
        """
        held = self._read(account, lambda adapter: adapter.holdings())
        for error in odd_rows(held):
            raw = error.raw.decode("utf-8", "replace")
            _log.warning("row left out", account=account, book="holdings", error=str(error), raw=raw)
        return held

    def funds(self, account: AccountId) -> Funds:
        """Read the account's money. Raises BrokerError, NotFoundError."""
        return self._read(account, lambda adapter: adapter.funds())

    def freeze_quantity(self, account: AccountId, exchange: str, symbol: str) -> int:
        """Return the most one order of this instrument may have; 0 where there is no limit."""
        instrument = self._fleet.adapter(account).tools.instruments.by_symbol(exchange, symbol)
        return instrument.freeze_quantity if instrument else 0

    def _read(self, account: AccountId, read: Callable[[BrokerAdapter], Coroutine[Any, Any, T]]) -> T:
        adapter = self._fleet.adapter(account)
        if adapter.session is None:
            raise SessionExpiredError(f"Log in to {adapter.title} first: the session has ended.")
        return self._call(read(adapter))

    # --- inside ----------------------------------------------------------------------------------------

    def _check(self, adapter: BrokerAdapter, request: OrderRequest) -> None:
        instrument = adapter.tools.instruments.by_symbol(request.exchange, request.symbol)
        problems = orders.check_request(request, instrument)
        if instrument is None and "symbol" in problems:
            problems["symbol"] += self._did_you_mean(adapter, request)
        if problems:
            raise InvalidRequestError(problems)
        if adapter.session is None:
            raise SessionExpiredError(f"Log in to {adapter.title} first: the session has ended.")

    def _did_you_mean(self, adapter: BrokerAdapter, request: OrderRequest) -> str:
        known = self._fleet.symbols(adapter.name, request.exchange)
        near = suggestions(request.symbol, known)
        return f" Did you mean {', '.join(near)}?" if near else ""

    def _write_down(self, adapter: BrokerAdapter, request: OrderRequest, key: str, tag: str) -> Submission:
        submission = Submission(
            id=tag,
            account=adapter.profile.account,
            broker=adapter.name,
            state=SubmissionState.SENDING,
            request=replace(request, tag=tag),
            created=self._now(),
            idempotency_key=key,
        )
        written = self._book.submit(submission)
        try:
            written.result(self._commit_wait)
        except FutureTimeoutError as error:
            written.cancel()
            raise BrokerUnreachableError(
                "The order could not be written down, so it was not sent. Try again in a moment."
            ) from error
        return submission

    def _send(self, adapter: BrokerAdapter, submission: Submission) -> Submission:
        try:
            order_id = self._call(adapter.place_order(submission.request))
        except (OrderRefusedError, PermissionRefusedError, SessionExpiredError) as error:
            decided = self._decided(submission, SubmissionState.REFUSED, reason=str(error))
        except BrokerUnreachableError as error:
            state = SubmissionState.UNKNOWN if error.sent else SubmissionState.REFUSED
            decided = self._decided(submission, state, reason=str(error))
        except BrokerError as error:
            decided = self._decided(submission, SubmissionState.UNKNOWN, reason=str(error))
        else:
            decided = self._decided(submission, SubmissionState.ACCEPTED, order_id=order_id)
        self._fleet.after_action(submission.account)
        self._keep(decided)
        return decided

    def _keep(self, decided: Submission) -> None:
        """Write down what the broker said; where that takes too long the book keeps trying, and the order stands."""
        try:
            self._book.submit(decided).result(self._commit_wait)
        except (FutureTimeoutError, StoreError) as error:
            _log.warning(
                "the broker's answer is not written down yet",
                account=decided.account,
                submission=decided.id,
                state=decided.state,
                error=type(error).__name__,
            )

    def _decided(
        self, submission: Submission, state: SubmissionState, *, order_id: str = "", reason: str = ""
    ) -> Submission:
        return replace(
            submission, state=state, order_id=OrderId(order_id), reason=reason, decided=self._now()
        )

    def _act(self, account: AccountId, adapter: BrokerAdapter, call: Coroutine[Any, Any, OrderId]) -> OrderId:
        if adapter.session is None:
            call.close()
            raise SessionExpiredError(f"Log in to {adapter.title} first: the session has ended.")
        try:
            return self._call(call)
        finally:
            self._fleet.after_action(account)

    def _call(self, call: Coroutine[Any, Any, T]) -> T:
        future = self._fleet.loop.submit(call)
        try:
            return future.result(BROKER_WAIT)
        except FutureTimeoutError as error:
            future.cancel()
            raise BrokerUnreachableError("The broker did not answer in time.", sent=True) from error
