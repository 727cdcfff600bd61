"""What one drained batch of events will write: joined in memory beside what is committed, then written at once.

A batch changes nothing but itself until `absorb`: a commit that fails leaves the memory as the database is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, insert

from orderwire.clock import Clock
from orderwire.core.alerts import Notice
from orderwire.core.events import Event, EventType
from orderwire.core.latency import Stamps
from orderwire.core.lifecycle import (
    OrderChange,
    OrderState,
    OrderView,
    Outcome,
    Submission,
    SubmissionState,
    agree,
    correct,
    observe,
    submission_view,
    trade_key,
    view,
)
from orderwire.core.orders import (
    AccountId,
    Channel,
    OrderId,
    OrderStatus,
    OrderUpdate,
    Position,
    Tier,
    Trade,
    Unreadable,
    session_date,
)
from orderwire.core.recovery import BookRead
from orderwire.errors import StoreError
from orderwire.store import audit, inbox, outbox, schema, shards, submissions
from orderwire.store.encoding import dumps, from_ns, to_ns
from orderwire.store.inbox import Verdict
from orderwire.store.leases import NotOwnerError, Tenure
from orderwire.store.memory import MOST_SEEN, Held, Line, Memory, PositionKey, TradeKey, position_key
from orderwire.store.statements import Statements

CHECKING = "eOrderChecking"
"""An `OrderView` of which only `checking` differs from what was told: for the page, without a sequence number."""

MOST_LETTERS = 1000
"""Dead letters of one account and session day for what was refused or unreadable; beyond it is only counted."""

Observed = OrderUpdate | Trade | Position | Submission | Unreadable | BookRead
_Key = tuple[AccountId, OrderId]


class Input(Struct, frozen=True, kw_only=True):
    """One thing to take in; kept until it is committed, so that it can be taken in again."""

    value: Observed
    queued_ns: int = 0
    future: Future[OrderChange] | None = None
    buried: str = ""
    """Why it could not be taken in, once that is known: it becomes a dead letter."""

    @property
    def account(self) -> AccountId:
        """Whose it is."""
        return self.value.account

    @property
    def order_id(self) -> OrderId:
        """Which order it is about, empty where it is about none."""
        return (
            OrderId("") if isinstance(self.value, Position | Unreadable | BookRead) else self.value.order_id
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a batch works with."""

    memory: Memory
    clock: Clock
    statements: Statements
    broker_now: Callable[[AccountId], datetime | None]
    epoch: Callable[[], str]
    tenure: Tenure | None = None
    """What says whose accounts are; None where one process owns everything."""


class OvertakenError(StoreError):
    """Some accounts of a batch belong to another worker now; nothing of the batch was written."""

    def __init__(self, accounts: Collection[AccountId]) -> None:
        self.accounts = accounts
        super().__init__()


class Batch:
    """Inputs, what they make of the orders, and the rows that say so. The dispatcher's thread."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self.inputs: list[Input] = []
        self.verifies: list[tuple[AccountId, OrderId, str]] = []
        self.notices: list[Event] = []
        self.answers: list[tuple[Future[OrderChange], OrderChange | int]] = []
        self.tallies: Counter[tuple[str, str]] = Counter()
        """By broker and what."""
        self._orders: dict[_Key, Held] = {}
        self._order_rows: dict[tuple[AccountId, date, OrderId], Held] = {}
        self._lines: dict[tuple[AccountId, str], Line] = {}
        self._trades: dict[TradeKey, tuple[Trade, int]] = {}
        self._positions: dict[tuple[AccountId, PositionKey], Position] = {}
        self._settled: dict[_Key, int] = {}
        self._reads: list[BookRead] = []
        self._refused: dict[int, AccountId] = {}
        self._inbox: list[dict[str, Any]] = []
        self._letters: list[dict[str, Any]] = []
        self._deeds: list[dict[str, str]] = []
        self._drafts: list[OrderChange] = []
        self._tokens: dict[AccountId, int] = {}
        """Under which token each account's state was read."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write down."""
        return not (
            self._drafts
            or self._inbox
            or self._order_rows
            or self._letters
            or self._settled
            or self._lines
            or self._trades
            or self._positions
        )

    def take(self, given: Input) -> None:
        """Take one thing in. What it raises, it raises before anything of it is staged.

        Raises NotOwnerError when the account is another worker's.
        """
        value = given.value
        self._show_token(given.account)
        if given.buried:
            self._bury(given, given.buried)
        elif isinstance(value, OrderUpdate):
            self._take_order(value, given)
        elif isinstance(value, Submission):
            self._take_submission(value, given)
        elif isinstance(value, Trade):
            self._take_trade(value, given)
        elif isinstance(value, BookRead):
            self._take_read(value)
        elif isinstance(value, Unreadable):
            self._take_unreadable(value, given)
        else:
            self._take_position(value, given)
        self.inputs.append(given)

    def _show_token(self, account: AccountId) -> None:
        tenure = self._around.tenure
        if tenure is None or account in self._tokens:
            return
        token = tenure.token(account)
        if token is None:
            raise NotOwnerError
        self._around.memory.serve(account, token)
        self._tokens[account] = token

    def _bury(self, given: Input, reason: str) -> None:
        """Keep something that cannot be taken in as a dead letter, and say so."""
        self._bury_row(given, reason)
        self._alert("dead letter", given, reason)

    def _bury_row(self, given: Input, reason: str) -> None:
        self.tallies[getattr(given.value, "broker", ""), "dead letters"] += 1
        self._letters.append(letter(given, reason, at_ns=self._around.clock.time_ns()))

    # --- orders ---------------------------------------------------------------------------------------

    def _take_order(self, given_update: OrderUpdate, given: Input) -> None:
        update, held = self._dated(given_update)
        if update.tier in {Tier.C, Tier.D}:
            self._hint(update, "hint: a postback came")
            return
        line = self._line_for(update, held)
        outcome = observe(
            held.state if held else None,
            update,
            quantity_seen=line.submission.request.quantity if line else 0,
            broker_now=self._around.broker_now(update.account),
        )
        self._tally(update, outcome)
        if outcome.refused:
            self._refuse(update, outcome.refused, given)
        elif outcome.held:
            self._hold(update, held, outcome)
        elif outcome.state is not None:
            self._apply(update, held, outcome, line, given, book_day=given_update.trading_date)

    def _tally(self, update: OrderUpdate, outcome: Outcome) -> None:
        self.tallies[update.broker, "observations"] += 1
        if update.status is OrderStatus.UNKNOWN:
            self.tallies[update.broker, "unknown status"] += 1
        for name in ("refused", "held", "surprising", "tie", "conflict"):
            if getattr(outcome, name):
                self.tallies[update.broker, name] += 1

    def _dated(self, update: OrderUpdate) -> tuple[OrderUpdate, Held | None]:
        """Find the order and give the observation the session day that the order was first seen on."""
        held = self._order(update.account, update.order_id)
        day = trading_day(update, held)
        if held is not None and held.state.trading_date != day:
            held = None  # the broker uses the number again
        if held is None and day < self._around.memory.today():
            held = self._around.memory.find(update.account, day, update.order_id)
        return (update if day == update.trading_date else replace(update, trading_date=day)), held

    def _apply(
        self,
        update: OrderUpdate,
        held: Held | None,
        outcome: Outcome,
        line: Line | None,
        given: Input,
        *,
        book_day: date,
    ) -> None:
        assert outcome.state is not None  # noqa: S101 - the caller's condition, for the type checker
        bare = replace(update, raw=b"")
        state, rival, conflict = _judged(held, bare, outcome, outcome.state)
        digest, text = inbox.digested(update)
        told = held.view if held else None
        before = told or (self._shown(line) if line else None)
        page = view(
            state,
            submission=line.submission.id if line else told.submission if told else "",
            conflict=conflict,
            first_seen=self._first_seen(update, told, line),
            source=update.channel,
        )
        moved = told is None or replace(page, source=told.source) != told
        known = held is not None and digest in held.marks
        written = moved or held is None or state != held.state
        now = Held(
            state=state, view=page, last_day=_last_day(page, held, book_day), seen_day=book_day, latest=bare
        )
        self._stage(_carried(now, held, digest, rival, written=written, moved=moved), written=written)
        if known:
            self.tallies[update.broker, "duplicates"] += 1
        else:
            verdict = Verdict.APPLIED if written else Verdict.SAME
            self._keep(update, digest, text, verdict, note=outcome.flag, settled=True)
        self._settle(update)
        if line is not None:
            self._accept(line, update)
        if moved:
            self._tell_order(page, before, update.channel, self._stamps(update, given))
        if state.revision > outcome.state.revision:
            self._corrected(state, update, given)
        elif outcome.verify:
            self.verifies.append((update.account, update.order_id, outcome.verify))

    def _corrected(self, state: OrderState, update: OrderUpdate, given: Input) -> None:
        deed = {"account": update.account, "order": update.order_id, "revision": str(state.revision)}
        self.tallies[update.broker, "corrections"] += 1
        self._deeds.append({"what": "order corrected by two reads of the broker's book", **deed})
        self._alert("corrected", given, "The broker's book contradicted what we held, twice.")

    def _refuse(self, update: OrderUpdate, reason: str, given: Input) -> None:
        """Keep a poisoned observation for the operator: once, however often the broker repeats it."""
        digest, text = inbox.digested(update)
        if not self._is_news(update.account, digest):
            return
        self._keep(update, digest, text, Verdict.REFUSED, note=reason, settled=True)
        self._bury_row(given, reason)
        self._alert("refused", given, reason)

    def _take_unreadable(self, said: Unreadable, given: Input) -> None:
        """Keep what could not be read for the operator: once, however often the broker repeats it."""
        self.tallies[said.broker, "unreadable"] += 1
        if self._is_news(said.account, inbox.digest(said.reason.encode() + b"\n" + said.raw)):
            self._bury_row(given, said.reason)
            self._alert("unreadable", given, said.reason)

    def _is_news(self, account: AccountId, digest: int) -> bool:
        """Whether a person was not told of this today; after `MOST_LETTERS` of an account nobody needs more."""
        told = self._around.memory.shelf(account).refused
        staged = sum(of == account for of in self._refused.values())
        if digest in self._refused or digest in told or len(told) + staged >= MOST_LETTERS:
            return False
        self._refused[digest] = account
        return True

    def _hold(self, update: OrderUpdate, held: Held | None, outcome: Outcome) -> None:
        """Keep an observation that only the broker's book can confirm; it counts when the book says so."""
        digest, text = inbox.digested(update)
        if held is not None and digest in held.marks:
            return
        self._keep(update, digest, text, Verdict.HELD, note=outcome.held, settled=False)
        self._hint(update, outcome.verify)
        if held is not None:
            self._stage(replace(held, marks=(*held.marks[-MOST_SEEN + 1 :], digest)), written=False)

    def _hint(self, update: OrderUpdate, reason: str) -> None:
        """Show the order as being checked and have the book read; nothing of what was claimed is shown."""
        self.tallies[update.broker, "hints"] += 1
        hints = self._around.memory.shelf(update.account).hints
        received = update.received_ns or self._around.clock.time_ns()
        hints[update.order_id] = max(received, hints.get(update.order_id, 0))
        held = self._order(update.account, update.order_id)
        if held is not None:
            self.notices.append(Event(CHECKING, replace(held.view, checking=True)))
        self.verifies.append((update.account, update.order_id, reason))

    def _settle(self, update: OrderUpdate) -> None:
        """The broker's book was read after the hint came: there is nothing left to check."""
        hinted = self._around.memory.shelf(update.account).hints.get(update.order_id)
        if hinted is None or update.channel not in {Channel.REST, Channel.HISTORY}:
            return
        if update.received_ns >= hinted:
            self._settled[update.account, update.order_id] = update.received_ns

    def _take_read(self, read: BookRead) -> None:
        """The broker's book was read: every hint from before is answered, also one about an order it has not."""
        for order_id, hinted in self._around.memory.shelf(read.account).hints.items():
            if hinted <= read.asked_ns:
                key = (read.account, order_id)
                self._settled[key] = max(read.asked_ns, self._settled.get(key, 0))
        self._reads.append(read)

    def _keep(
        self, update: OrderUpdate, digest: int, text: str, verdict: Verdict, *, note: str, settled: bool
    ) -> None:
        settled_ns = self._around.clock.time_ns() if settled else None
        self._inbox.append(
            inbox.row(update, digest=digest, text=text, verdict=verdict, note=note, settled_ns=settled_ns)
        )

    def _stage(self, held: Held, *, written: bool) -> None:
        state = held.state
        self._orders[state.account, state.order_id] = held
        if written:
            self._order_rows[state.account, state.trading_date, state.order_id] = held

    def _order(self, account: AccountId, order_id: OrderId) -> Held | None:
        staged = self._orders.get((account, order_id))
        return staged or self._around.memory.shelf(account).orders.get(order_id)

    def _first_seen(self, update: OrderUpdate, told: OrderView | None, line: Line | None) -> datetime:
        if line is not None and not (told is not None and told.submission):
            return line.submission.created
        if told is not None and told.first_seen is not None:
            return told.first_seen
        return from_ns(update.received_ns) if update.received_ns else self._around.clock.now()

    def _stamps(self, update: OrderUpdate, given: Input) -> Stamps:
        return Stamps(
            broker=to_ns(update.broker_time) if update.broker_time else 0,
            received=update.received_ns,
            queued=given.queued_ns,
            joined=self._around.clock.time_ns(),
        )

    # --- submissions ----------------------------------------------------------------------------------

    def _take_submission(self, said: Submission, given: Input) -> None:
        held = self._line(said.account, said.id)
        if held is None and said.idempotency_key:
            self._must_be_new(said)
        if not submissions.follows(held.submission if held else None, said):
            self._answer(given, self._line_view(held))
            return
        day = held.trading_date if held else session_date(said.created)
        line = Line(submission=said, trading_date=day)
        before = self._shown(held) if held else None
        if said.state is SubmissionState.ACCEPTED and said.order_id:
            self._link(line, held, given)
            return
        self._lines[said.account, said.id] = line
        page = submission_view(said, day)
        if page == before:
            self._answer(given, page)
        else:
            self._tell_order(page, before, "submission", self._own_stamps(given), answer=given)

    def _must_be_new(self, said: Submission) -> None:
        """Raise AlreadySubmittedError when the idempotency key was used, in this batch or ever."""
        for line in (*self._lines.values(), *self._around.memory.shelf(said.account).lines.values()):
            earlier = line.submission
            if (earlier.account, earlier.idempotency_key) == (said.account, said.idempotency_key):
                raise submissions.AlreadySubmittedError(earlier)
        known = self._around.memory.submission_for_key(said.account, said.idempotency_key)
        if known is not None:
            raise submissions.AlreadySubmittedError(known)

    def _link(self, line: Line, before_line: Line | None, given: Input) -> None:
        """The broker gave our submission an order id: from now on its line shows that order."""
        submission = line.submission
        held = self._order(submission.account, submission.order_id)
        if before_line is not None and before_line.submission.order_id not in {"", submission.order_id}:
            self._unlink(before_line.submission)
        if held is None:
            update = _placed(submission, line.trading_date, self._around.clock.time_ns())
            outcome = observe(None, update)
            if outcome.state is None:
                raise ValueError(outcome.refused or "the submission makes no order")
            self._apply(update, None, outcome, line, given, book_day=line.trading_date)
            self._lines[submission.account, submission.id] = line
            self._answer(given, len(self._drafts) - 1)
            return
        self._lines[submission.account, submission.id] = line
        page = replace(
            held.view,
            row=submission.id,
            submission=submission.id,
            first_seen=submission.created,
        )
        if page == held.view:
            self._answer(given, page)
            return
        self._stage(replace(held, view=page), written=True)
        self._tell_order(page, held.view, "submission", self._own_stamps(given), answer=given)

    def _unlink(self, submission: Submission) -> None:
        """The tag named another order than the broker's reply: that one is not ours after all."""
        held = self._order(submission.account, submission.order_id)
        if held is None or held.view.submission != submission.id:
            return
        page = replace(held.view, row=held.view.order_id, submission="")
        self._stage(replace(held, view=page), written=True)
        self._tell_order(page, held.view, "submission", Stamps(joined=self._around.clock.time_ns()))

    def _line_for(self, update: OrderUpdate, held: Held | None) -> Line | None:
        """Find the submission of ours that this order is, by what we know of it or by its tag."""
        ours = held.view.submission if held else ""
        if ours:
            return self._line(update.account, ours)
        line = self._line(update.account, update.tag) if update.tag else None
        if line is None or line.submission.order_id not in {"", update.order_id}:
            return None  # one tag may be on several orders; the first has it
        return line

    def _accept(self, line: Line, update: OrderUpdate) -> None:
        """The order is in the broker's book, so the submission was accepted, whatever the reply was."""
        submission = line.submission
        if submission.order_id == update.order_id and submission.state is SubmissionState.ACCEPTED:
            return
        if submission.state is SubmissionState.REFUSED:
            given = Input(value=update)
            self._alert("contradiction", given, f"A refused order exists at the broker: {submission.reason}")
        accepted = replace(
            submission,
            state=SubmissionState.ACCEPTED,
            order_id=update.order_id,
            reason="",
            decided=self._around.clock.now(),
        )
        self._lines[update.account, submission.id] = replace(line, submission=accepted)

    def _line(self, account: AccountId, submission_id: str) -> Line | None:
        staged = self._lines.get((account, submission_id))
        return staged or self._around.memory.shelf(account).lines.get(submission_id)

    def _line_view(self, line: Line | None) -> OrderView:
        assert line is not None  # noqa: S101 - a first submission always follows
        return self._shown(line)

    def _shown(self, line: Line) -> OrderView:
        """Return what the line of a submission shows now."""
        submission = line.submission
        held = self._order(submission.account, submission.order_id) if submission.order_id else None
        return held.view if held else submission_view(submission, line.trading_date)

    def _own_stamps(self, given: Input) -> Stamps:
        return Stamps(queued=given.queued_ns, joined=self._around.clock.time_ns())

    # --- trades and positions -------------------------------------------------------------------------

    def _take_trade(self, given_trade: Trade, given: Input) -> None:
        reason = _trade_problem(given_trade)
        if reason:
            self._bury(given, reason)
            return
        day = session_date(given_trade.traded_at) if given_trade.traded_at else given_trade.trading_date
        trade = replace(given_trade, trading_date=day)
        key = trade_key(trade)
        held = self._trade(key)
        if held is not None and (_same_trade(held, trade) or trade.channel.tier is not Tier.A):
            return  # the broker's book is right where it differs from the stream
        self._draft(
            OrderChange(
                **_unnumbered(trade.account),
                kind="trade",
                trade=replace(trade, raw=b""),
                source=trade.channel,
                stamps=Stamps(
                    broker=to_ns(trade.traded_at) if trade.traded_at else 0,
                    received=trade.received_ns,
                    queued=given.queued_ns,
                    joined=self._around.clock.time_ns(),
                ),
            )
        )
        self._trades[key] = (trade, len(self._drafts) - 1)

    def _trade(self, key: TradeKey) -> Trade | None:
        staged = self._trades.get(key)
        if staged is not None:
            return staged[0]
        account, day, *_ = key
        held = self._around.memory.shelf(account).trades.get(key)
        if held is None and day < self._around.memory.today():
            return self._around.memory.find_trade(key)
        return held

    def _take_position(self, position: Position, given: Input) -> None:
        reason = _position_problem(position)
        if reason:
            self._bury(given, reason)
            return
        key = position_key(position)
        staged = self._positions.get((position.account, key))
        held = staged or self._around.memory.shelf(position.account).positions.get(key)
        if held is not None and _same_position(held, position):
            return
        self._positions[position.account, key] = position
        self._draft(
            OrderChange(
                **_unnumbered(position.account),
                kind="position",
                position=replace(position, raw=b""),
                source=position.channel,
                stamps=Stamps(
                    received=position.received_ns,
                    queued=given.queued_ns,
                    joined=self._around.clock.time_ns(),
                ),
            )
        )

    # --- telling --------------------------------------------------------------------------------------

    def _tell_order(
        self,
        page: OrderView,
        before: OrderView | None,
        source: str,
        stamps: Stamps,
        *,
        answer: Input | None = None,
    ) -> None:
        was: OrderStatus | None = before.status if before else None
        self._draft(
            OrderChange(
                **_unnumbered(page.account), kind="order", order=page, was=was, source=source, stamps=stamps
            )
        )
        if answer is not None:
            self._answer(answer, len(self._drafts) - 1)

    def _draft(self, change: OrderChange) -> None:
        self._drafts.append(change)

    def _answer(self, given: Input, answer: OrderView | int) -> None:
        """Promise the caller the change with this draft's number, or say what is shown when nothing changed."""
        if given.future is None:
            return
        if isinstance(answer, int):
            self.answers.append((given.future, answer))
        else:
            unchanged = OrderChange(
                **_unnumbered(answer.account), kind="order", order=answer, source="submission"
            )
            self.answers.append((given.future, unchanged))

    def _alert(self, kind: str, given: Input, text: str) -> None:
        alert = Notice(
            kind=kind,
            account=given.account,
            order_id=given.order_id,
            broker=getattr(given.value, "broker", ""),
            text=text,
        )
        self.notices.append(Event(EventType.ALERT, alert))

    # --- writing --------------------------------------------------------------------------------------

    def write(self, connection: Connection) -> list[OrderChange]:
        """Write everything inside the caller's transaction and return the numbered changes; may be called again.

        Raises OvertakenError when an account was taken over since it was read: then its state is another's to tell.
        """
        if self._around.tenure is not None:
            stale = self._around.tenure.stale(connection, self._tokens)
            if stale:
                raise OvertakenError(stale)
        statements, now = self._around.statements, self._around.clock.time_ns()
        changes = self._number(connection)
        day = self._around.memory.today().isoformat()
        for statement, rows in (
            (statements.inbox, self._inbox),
            (statements.orders, [_order_row(held, now) for held in self._order_rows.values()]),
            (
                statements.submissions,
                [submissions.row(line.submission, line.trading_date) for line in self._lines.values()],
            ),
            (
                statements.trades,
                [_trade_row(trade, changes[draft].sequence) for trade, draft in self._trades.values()],
            ),
            (statements.positions, [_position_row(position) for position in self._positions.values()]),
            (statements.settle, [_settle_row(key, until, now) for key, until in self._settled.items()]),
            (insert(schema.dead_letters), self._letters),
        ):
            if rows:
                connection.execute(statement, rows)
        for deed in self._deeds:
            audit.record(connection, at_ns=now, who="system", **deed)
        if changes:  # last, because another process's batch of the same shards waits from here to the commit
            places = shards.take_places(connection, [c.account for c in changes], statements=statements)
            rows = [_outbox_row(change, day, place) for change, place in zip(changes, places, strict=True)]
            connection.execute(statements.outbox, rows)
        return changes

    def _number(self, connection: Connection) -> list[OrderChange]:
        if not self._drafts:
            return []
        around = self._around
        accounts = {draft.account for draft in self._drafts}
        ledgers = outbox.open_ledgers(connection, accounts, statements=around.statements, epoch=around.epoch)
        changes = [_numbered(draft, ledgers[draft.account]) for draft in self._drafts]
        outbox.advance(connection, ledgers, statements=around.statements)
        return changes

    def absorb(self) -> None:
        """Make what was committed the memory's; never fails."""
        memory = self._around.memory
        for (account, _), held in self._orders.items():
            memory.shelf(account).put(held)
        for (account, _), line in self._lines.items():
            memory.shelf(account).put_line(line)
        for key, (trade, _) in self._trades.items():
            memory.shelf(trade.account).trades[key] = replace(trade, raw=b"")
        for (account, position_of), position in self._positions.items():
            memory.shelf(account).positions[position_of] = replace(position, raw=b"")
        for digest, account in self._refused.items():
            memory.shelf(account).refused.add(digest)
        for (account, order_id), until in self._settled.items():
            shelf = memory.shelf(account)
            if shelf.hints.get(order_id, 0) <= until:
                shelf.hints.pop(order_id, None)
                shown = shelf.shown(order_id)
                if shown is not None:
                    self.notices.append(Event(CHECKING, shown))
        self.notices += [Event(EventType.BOOK_VERIFIED, read) for read in self._reads]


# --- decisions ----------------------------------------------------------------------------------------


def trading_day(update: OrderUpdate, held: Held | None) -> date:
    """Return the session day whose book holds the order: fixed when it was first seen. Pure.

    An order of an earlier day keeps its day while the broker still shows it (placed after hours, carried
    overnight, read before the broker emptied its book), unless the number now stands for another order.
    """
    said = session_date(update.broker_time) if update.broker_time else None
    if held is not None:
        return update.trading_date if _reused(held, update, said) else held.state.trading_date
    ended = update.status is not None and update.status.terminal
    return said if ended and said is not None and said < update.trading_date else update.trading_date


def _reused(held: Held, update: OrderUpdate, said: date | None) -> bool:
    if update.trading_date <= held.state.trading_date:
        return False
    page = held.view
    named = page.known_symbol and update.known_symbol
    if update.side != page.side or (
        named and (update.exchange, update.symbol) != (page.exchange, page.symbol)
    ):
        return True
    return not held.live and said is not None and said > held.last_day


def _judged(
    held: Held | None, update: OrderUpdate, outcome: Outcome, state: OrderState
) -> tuple[OrderState, OrderUpdate | None, bool]:
    """Return the state, the row that waits to be confirmed, and whether the page shows a conflict."""
    rival = held.rival if held else None
    shown = held.view.conflict if held else False
    if update.channel is not Channel.REST:
        return state, rival, shown
    if not outcome.conflict:
        return state, None, False
    if rival is None:
        return state, update, shown
    apart = (update.received_ns - rival.received_ns) / 1e9
    corrected = correct(state, rival, update, seconds_apart=apart)
    if corrected is not None:
        return corrected, None, False
    if agree(rival, update, seconds_apart=apart):
        return state, rival, True
    too_soon = agree(rival, update, seconds_apart=1.0)
    return state, rival if too_soon else update, shown


def _carried(
    now: Held, held: Held | None, digest: int, rival: OrderUpdate | None, *, written: bool, moved: bool
) -> Held:
    """Return `now` with what it keeps of `held`: an observation that changed nothing is not the latest."""
    if held is None:
        return replace(now, marks=(digest,), rival=rival)
    return replace(
        now,
        view=now.view if moved else held.view,
        last_day=now.last_day if written else held.last_day,
        seen_day=max(now.seen_day, held.seen_day),
        latest=now.latest if written else held.latest,
        marks=held.marks if digest in held.marks else (*held.marks[-MOST_SEEN + 1 :], digest),
        rival=rival,
    )


def _last_day(page: OrderView, held: Held | None, book_day: date) -> date:
    """Return the last session day that changed the order; a broker's time in the future counts as today."""
    said = min(session_date(page.broker_time), book_day) if page.broker_time else book_day
    return max(page.trading_date, said, held.last_day if held else said)


def _placed(submission: Submission, day: date, now_ns: int) -> OrderUpdate:
    """Return what the broker's reply to a placement says: there is an order of these terms (the lowest key)."""
    request = submission.request
    return OrderUpdate(
        account=submission.account,
        broker=submission.broker,
        order_id=submission.order_id,
        channel=Channel.PLACE,
        trading_date=day,
        raw_status="",
        status=OrderStatus.PENDING_NEW,
        phase=0,
        symbol=request.symbol,
        exchange=request.exchange,
        side=request.side,
        order_type=request.order_type,
        product=request.product,
        validity=request.validity,
        quantity=request.quantity,
        price=request.price,
        trigger_price=request.trigger_price,
        disclosed_quantity=request.disclosed_quantity,
        tag=submission.id,
        received_ns=now_ns,
    )


def _trade_problem(trade: Trade) -> str:
    if not (trade.order_id and trade.trade_id):
        return "it names no order or no trade"
    if trade.quantity <= 0 or not trade.price.is_finite() or trade.price < 0:
        return "its quantity or price is impossible"
    return ""


def _same_trade(held: Trade, said: Trade) -> bool:
    return (held.quantity, held.price, held.side) == (said.quantity, said.price, said.side)


def _position_problem(position: Position) -> str:
    money = (
        position.average_price,
        position.last_price,
        position.buy_value,
        position.sell_value,
        position.pnl,
    )
    return "" if all(amount.is_finite() for amount in money) else "an amount is not a number"


def _same_position(held: Position, said: Position) -> bool:
    """Whether nothing was traded: the last price alone moves no position."""
    return _traded(held) == _traded(said)


def _traded(position: Position) -> tuple[object, ...]:
    return (
        position.trading_date,
        position.quantity,
        position.average_price,
        position.buy_quantity,
        position.sell_quantity,
        position.buy_value,
        position.sell_value,
    )


# --- rows ---------------------------------------------------------------------------------------------


def letter(given: Input, reason: str, *, at_ns: int) -> dict[str, Any]:
    """Return a dead letter that every database takes, whatever is wrong with what it holds."""
    value = given.value
    return {
        "at_ns": at_ns,
        "account": _plain(given.account),
        "order_id": _plain(given.order_id),
        "kind": type(value).__name__,
        "reason": _plain(reason),
        "observation": _plain(repr(value)),
        "raw": b"" if isinstance(value, Submission | BookRead) else value.raw,
    }


def _plain(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode().replace("\x00", "\\x00")


def _unnumbered(account: AccountId) -> dict[str, Any]:
    return {"account": account, "epoch": "", "sequence": 0, "event_id": ""}


def _numbered(draft: OrderChange, ledger: outbox.Ledger) -> OrderChange:
    sequence = ledger.next()
    event_id = f"{draft.account}.{ledger.epoch}.{sequence}"
    return replace(draft, epoch=ledger.epoch, sequence=sequence, event_id=event_id)


def _order_row(held: Held, now_ns: int) -> dict[str, Any]:
    state, page = held.state, held.view
    return {
        "account": state.account,
        "trading_date": state.trading_date.isoformat(),
        "order_id": state.order_id,
        "last_day": held.last_day.isoformat(),
        "live": int(held.live),
        "status": page.status,
        "updated_ns": now_ns,
        "view": dumps(page),
        "state": dumps(state),
    }


def _trade_row(trade: Trade, sequence: int) -> dict[str, Any]:
    return {
        "account": trade.account,
        "trading_date": trade.trading_date.isoformat(),
        "exchange": trade.exchange,
        "order_id": trade.order_id,
        "trade_id": trade.trade_id,
        "sequence": sequence,
        "trade": dumps(replace(trade, raw=b"")),
        "raw": trade.raw,
    }


def _position_row(position: Position) -> dict[str, Any]:
    return {
        "account": position.account,
        "exchange": position.exchange,
        "symbol": position.symbol,
        "product": position.product,
        "trading_date": position.trading_date.isoformat(),
        "position": dumps(replace(position, raw=b"")),
    }


def _outbox_row(change: OrderChange, day: str, place: shards.Place) -> dict[str, Any]:
    return {
        "account": change.account,
        "epoch": change.epoch,
        "sequence": change.sequence,
        "trading_date": day,
        "change": dumps(change),
        "shard": place.shard,
        "position": place.position,
    }


def _settle_row(key: _Key, until_ns: int, now_ns: int) -> dict[str, Any]:
    account, order_id = key
    return {"of": account, "about": order_id, "until": until_ns, "at": now_ns}
