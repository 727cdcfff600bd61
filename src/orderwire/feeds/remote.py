"""The desk and the fleet as a process sees them that has neither: it asks each account's owner, through the database."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from orderwire.brokers.checklist import Finding
from orderwire.clock import Clock
from orderwire.core.health import FEED_COUNTS, FleetHealth
from orderwire.core.lifecycle import Submission, SubmissionState
from orderwire.core.orders import AccountId, Funds, Holding, ModifyRequest, OrderId, OrderRequest, Position
from orderwire.core.recovery import FeedStatus
from orderwire.errors import BrokerUnreachableError
from orderwire.feeds import requests
from orderwire.feeds.desk import BROKER_WAIT, COMMIT_WAIT, new_tag
from orderwire.feeds.requests import LoggedIn, Request
from orderwire.store.commands import Commands, CommandState
from orderwire.store.database import Database
from orderwire.store.feedstates import FeedStates
from orderwire.store.submissions import submission_of

TAKEN_WITHIN: Final = 5.0
"""Seconds in which an account's owner takes a command; then it is taken back, and nothing was done."""

ANSWERED_WITHIN: Final = COMMIT_WAIT + BROKER_WAIT + 8.0
"""Seconds in which a command that was taken is answered; then nobody knows what became of it."""

_PACES: Final = (0.01, 0.01, 0.01, 0.02, 0.02, 0.03, 0.05)
"""Seconds between two looks for the answer; the last one again and again."""

NOT_TAKEN: Final = "Nothing feeds this account just now, so nothing was sent. Try again in a moment."
LOST: Final = (
    "The worker that was at it stopped before it answered; what it sent may have reached the broker."
)


class LostError(BrokerUnreachableError):
    """An owner took a command and did not answer; it is not done again."""

    def __init__(self, *, surely: bool) -> None:
        """`surely`: the owner is known to have gone; otherwise it may still be at it."""
        self.surely = surely
        super().__init__(LOST, sent=True)


class Errands:
    """Takes requests to owners and brings answers back. Any thread; blocks until the answer is there."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        taken_within: float = TAKEN_WITHIN,
        wake: Callable[[Collection[AccountId]], None] = lambda _accounts: None,
    ) -> None:
        """`wake` lets the accounts' owners look sooner than they would; it may not block."""
        self._wake = wake
        self._commands = Commands(database)
        self._clock = clock
        self._taken_within = taken_within

    def run(
        self, account: AccountId, request: Request, *, command_id: str = "", seconds: float = ANSWERED_WITHIN
    ) -> Any:
        """Have a request carried out, at most once, and return its answer or raise its error.

        Raises BrokerUnreachableError when nobody took it (then nothing was done) and LostError when nobody can say
        what became of it.
        """
        wanted = command_id or secrets.token_hex(16)
        self._commands.ask(
            account,
            command_id=wanted,
            kind=type(request).__name__,
            body=requests.packed(request),
            seconds=self._taken_within,
        )
        self._wake([account])
        return requests.opened(self._await(wanted, seconds), request)

    def send(self, account: AccountId, request: Request) -> None:
        """Have a request carried out without waiting for it."""
        self._commands.ask(
            account,
            command_id=secrets.token_hex(16),
            kind=type(request).__name__,
            body=requests.packed(request),
            seconds=self._taken_within,
        )
        self._wake([account])

    def _await(self, command_id: str, seconds: float) -> str:
        paces, pause = iter(_PACES), threading.Event()
        ends = self._clock.monotonic() + self._taken_within + seconds
        while True:
            found = self._commands.outcome(command_id)
            if found.state is CommandState.DONE:
                return found.reply
            if found.state is CommandState.LOST:
                raise LostError(surely=True)
            if (
                found.state is CommandState.WAITING
                and not found.in_time
                and self._commands.withdraw(command_id)
            ):
                raise BrokerUnreachableError(NOT_TAKEN)
            if self._clock.monotonic() > ends:
                raise LostError(surely=False)
            pause.wait(next(paces, _PACES[-1]))


class RemoteDesk:
    """The desk's calls, each carried out by the account's owner; see `feeds.desk.Desk` for what they promise."""

    def __init__(self, errands: Errands, database: Database) -> None:
        self._errands = errands
        self._database = database

    def place(
        self, account: AccountId, request: OrderRequest, *, idempotency_key: str = "", tag: str = ""
    ) -> Submission:
        """Place one order. When its owner stopped over it, the submission is UNKNOWN until the book tells."""
        mark = tag or new_tag()
        asked = requests.Place(order=request, key=idempotency_key)
        try:
            placed: Submission = self._errands.run(account, asked, command_id=mark)
        except LostError as error:
            return self._what_became_of(mark, error)
        return placed

    def _what_became_of(self, tag: str, error: LostError) -> Submission:
        """An owner writes a submission down before it sends it, and one that was overtaken writes nothing."""
        written = submission_of(self._database, tag)
        if written is None:
            if error.surely:
                raise BrokerUnreachableError(NOT_TAKEN) from error
            raise error
        if written.state is SubmissionState.SENDING:
            return Submission(
                **{
                    **{name: getattr(written, name) for name in written.__struct_fields__},
                    "state": SubmissionState.UNKNOWN,
                    "reason": str(error),
                }
            )
        return written

    def modify(self, account: AccountId, request: ModifyRequest) -> OrderId:
        """Ask for new terms of a live order."""
        return OrderId(self._errands.run(account, requests.Modify(terms=request)))

    def cancel(self, account: AccountId, order_id: OrderId) -> OrderId:
        """Ask for an order's cancellation."""
        return OrderId(self._errands.run(account, requests.Cancel(order_id=order_id)))

    def positions(self, account: AccountId) -> Sequence[Position]:
        """Read the net positions from the broker now."""
        found: requests.Rows[Position] = self._errands.run(account, requests.ReadPositions())
        return found.book()

    def holdings(self, account: AccountId) -> Sequence[Holding]:
        """Read what the demat account holds."""
        found: requests.Rows[Holding] = self._errands.run(account, requests.ReadHoldings())
        return found.book()

    def funds(self, account: AccountId) -> Funds:
        """Read the account's money."""
        found: Funds = self._errands.run(account, requests.ReadFunds())
        return found

    def freeze_quantity(self, account: AccountId, exchange: str, symbol: str) -> int:
        """Return the most one order of this instrument may have; 0 where there is no limit."""
        return int(self._errands.run(account, requests.ReadFreeze(exchange=exchange, symbol=symbol)))


class RemoteFleet:
    """The fleet's answers, by what owners wrote down, and its deeds, by asking them; see `feeds.fleet.Fleet`."""

    def __init__(self, errands: Errands, states: FeedStates) -> None:
        self._errands = errands
        self._states = states

    def statuses(self) -> list[FeedStatus]:
        """Say how fresh each account is."""
        return [state.status for state in self._states.all().values()]

    def status(self, account: AccountId) -> FeedStatus | None:
        """Say how fresh one account is; None when it never had a feed."""
        state = self._states.get(account)
        return state.status if state else None

    def health(self) -> FleetHealth:
        """Say how every feed is doing, whichever process runs it."""
        feeds = tuple(state.health for state in self._states.all().values())
        counts: dict[tuple[str, str], int] = {}
        for feed in feeds:
            for what in FEED_COUNTS:
                key = (feed.broker, what)
                counts[key] = counts.get(key, 0) + feed.counts.get(what, 0)
        return FleetHealth(feeds=feeds, counts=counts)

    def add(self, account: AccountId) -> None:
        """Do nothing: an owner takes a new account by itself within a second."""

    def remove(self, account: AccountId) -> None:
        """Do nothing: its owner writes nothing more once the account is gone, and ends the feed."""

    def refresh(self, account: AccountId) -> None:
        """Have the account's book read now."""
        self._errands.send(account, requests.Refresh())

    def login_url(self, account: AccountId, *, state: str) -> str | None:
        """Return where the user logs in to the broker; without a `state` only whether there is such a place."""
        if state:
            url: str | None = self._errands.run(account, requests.LoginUrl(state=state))
            return url
        known = self._states.get(account)
        return "" if known is not None and known.redirects else None

    def login(self, account: AccountId, grant: Mapping[str, str]) -> LoggedIn:
        """Log the account in with what the broker's redirect brought."""
        granted: LoggedIn = self._errands.run(account, requests.LogIn(grant=dict(grant)), seconds=60.0)
        return granted

    def check_up(self, account: AccountId, *, seconds: float) -> list[Finding]:
        """Have the account's broker asked its first-day questions."""
        asked = requests.CheckUp(seconds=seconds)
        found: list[Finding] = self._errands.run(account, asked, seconds=seconds + 200.0)
        return found

    def set_push(self, wanted: Mapping[AccountId, bool]) -> None:
        """Do nothing: owners look at the rollout themselves."""
