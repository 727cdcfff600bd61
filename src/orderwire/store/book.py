"""The order book: takes observations in as they come, and tells what changed once it is committed.

Events only stage; the end of each drained batch commits everything staged in one transaction and returns the
changes as events. So nothing is ever told that is not on disk, and nothing staged is forgotten because a commit
failed: it waits (database busy) or is halved until the one bad row is found (database refuses).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import datetime

import structlog
from msgspec.structs import replace

from orderwire.clock import Clock
from orderwire.core.alerts import Notice
from orderwire.core.events import Event, EventType
from orderwire.core.lifecycle import OrderChange, OrderView, Submission, SubmissionState
from orderwire.core.orders import AccountId, OrderId, OrderUpdate
from orderwire.engine import EventEngine
from orderwire.errors import StoreBusyError, StoreError
from orderwire.store.batch import Batch, Input, Observed, OvertakenError, Surroundings
from orderwire.store.database import Database
from orderwire.store.leases import NotOwnerError, Tenure
from orderwire.store.memory import Memory
from orderwire.store.outbox import new_epoch
from orderwire.store.statements import build
from orderwire.store.submissions import open_submissions

_log = structlog.get_logger(__name__)

FIRST_PAUSE = 0.25
"""Seconds before a commit that found the database busy is tried again; doubled up to `LONGEST_PAUSE`."""

LONGEST_PAUSE = 2.0

TAKEN = "eAccountTaken"
"""An account came to this process; its data is the account's id."""

_LEFT = "eAccountLeft"
"""Somebody waits until everything that was told before is committed; its data is their future."""

_BAD = (StoreError, ValueError, TypeError, ArithmeticError)
"""What one bad value can cause, in our code, the driver or the database."""


def _no_broker_time(_account: AccountId) -> datetime | None:
    return None


def _nobody(_account: AccountId, _text: str) -> None:
    pass


def _nobody_verifies(_account: AccountId, _order_id: OrderId, _reason: str) -> None:
    pass


class OrderBook:
    """The truth about every order, in memory and on disk.

    The dispatcher's thread takes events in and commits; `submit` and the look-ups are for any thread.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        broker_now: Callable[[AccountId], datetime | None] = _no_broker_time,
        epoch: Callable[[], str] = new_epoch,
        tenure: Tenure | None = None,
    ) -> None:
        """`broker_now`: the broker's own clock by its last HTTP `Date`, for refusing times that cannot be.

        `tenure` says whose accounts are, where several processes share the database: what is another's is refused.
        """
        self._database = database
        self._clock = clock
        self._memory = Memory(database)
        self._around = Surroundings(
            memory=self._memory,
            clock=clock,
            statements=build(database.dialect),
            broker_now=broker_now,
            epoch=epoch,
            tenure=tenure,
        )
        self._batch = Batch(self._around)
        self._waiting: list[Input] = []
        self._engine: EventEngine | None = None
        self._tallies: Counter[tuple[str, str]] = Counter()
        self._pause = 0.0
        self._not_before = 0.0
        self._blocked_since: float | None = None
        self._leaving: list[Future[None]] = []
        self.stale_writes = 0
        """Observations and submissions refused because their account is another worker's."""
        self._day = self._memory.today()
        self.on_verify: Callable[[AccountId, OrderId, str], None] = _nobody_verifies
        """Told that an order should be read from the broker, and why; in the dispatcher's thread, may not block."""
        self.on_broken: Callable[[AccountId, str], None] = _nobody
        """Told that something of an account could not be kept: it is STALE until its book was read again."""

    def attach(self, engine: EventEngine) -> None:
        """Take part in the engine; once, before it starts and before those who follow changes.

        What was on its way to a broker when the last process ended becomes UNKNOWN here, until the book tells.
        """
        self._engine = engine
        if self._around.tenure is None:
            self.recover()
        else:
            engine.register(TAKEN, self.on_taken)
            engine.register(_LEFT, self.on_left)
        for kind in (
            EventType.ORDER_UPDATE,
            EventType.TRADE_UPDATE,
            EventType.POSITION_UPDATE,
            EventType.BOOK_READ,
            EventType.UNREADABLE,
        ):
            engine.register(kind, self.on_observation)
        engine.register(EventType.SUBMISSION, self.on_submission)
        engine.register_batch_end(self.commit)

    def recover(self) -> None:
        """Mark as UNKNOWN every submission of which nobody knows whether it was sent."""
        self._doubt(open_submissions(self._database))
        self.commit()

    def on_taken(self, event: Event) -> None:
        """The account is ours from here on: do for it what `recover` does at a start."""
        self._doubt(open_submissions(self._database, event.data))

    def on_left(self, event: Event) -> None:
        """Somebody waits until all that came before this is committed."""
        self._leaving.append(event.data)

    def _doubt(self, undecided: Iterable[Submission]) -> None:
        for submission in undecided:
            if submission.state is SubmissionState.SENDING:
                reason = "The service stopped while the order was on its way; the broker's book will tell."
                self._take(Input(value=_in_doubt(submission, reason, self._clock.now())))

    def settled(self) -> Future[None]:
        """Return a future that is done once everything put into the engine before now is committed. Any thread."""
        if self._engine is None:
            raise RuntimeError("attach the book to an engine first")
        future: Future[None] = Future()
        self._engine.put(Event(_LEFT, future))
        return future

    # --- asking: any thread ---------------------------------------------------------------------------

    def current(self, account: AccountId, order_id: OrderId) -> OrderView | None:
        """Return what the page shows of an order: committed, with `checking` as it is now. Any thread.

        Orders that ended on an earlier session day are not held any more.
        """
        return self._memory.shelf(account).shown(order_id)

    def checking(self, account: AccountId) -> list[OrderView]:
        """Return the orders that are being checked with the broker right now. Any thread."""
        shelf = self._memory.shelf(account)
        shown = (shelf.shown(order_id) for order_id in list(shelf.hints))
        return [page for page in shown if page is not None and page.checking]

    def last_update(self, account: AccountId, order_id: OrderId) -> OrderUpdate | None:
        """Return the newest observation that told something new of an order. Any thread."""
        return self._memory.latest(account, order_id)

    def open_orders(self, account: AccountId) -> int:
        """Count the orders to which something can still happen, submissions in doubt included. Any thread.

        Live orders of earlier days that the broker's book no longer holds do not count.
        """
        today = self._memory.today()
        return sum(day >= today for day in list(self._memory.shelf(account).open.values()))

    def forget(self, account: AccountId) -> None:
        """Let go of an account whose feed has ended and whose data was erased. Any thread."""
        self._memory.forget(account)

    @property
    def held_back(self) -> int:
        """How many events wait for a database that takes no writes; 0 when all is well. Any thread."""
        return (len(self._batch.inputs) if self._pause else 0) + len(self._waiting)

    def tallies(self) -> dict[str, int]:
        """Return how many observations came so far, and how many of them were odd in which way. Any thread.

        Names: observations, duplicates, refused, held, surprising, tie, conflict, corrections, hints, unreadable,
        dead letters, unknown status.
        """
        total: Counter[str] = Counter()
        for (_, name), count in self._tallies.copy().items():
            total[name] += count
        return dict(total)

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the tallies by broker and name. Any thread."""
        return dict(self._tallies.copy())

    @property
    def blocked_seconds(self) -> float:
        """How long the database has taken no writes; 0 while it does. Any thread."""
        since = self._blocked_since
        return self._clock.monotonic() - since if since is not None else 0.0

    # --- submitting: any thread -----------------------------------------------------------------------

    def submit(self, submission: Submission) -> Future[OrderChange]:
        """Write a submission down, or what became of it; the future is done once that is committed. Any thread.

        Send the order only after the SENDING submission's future is done; `cancel` the future to give up, which
        marks it as refused should it be committed after all. A state that was decided before stays (then the
        change has sequence 0). The future raises AlreadySubmittedError for a used idempotency key.
        """
        if self._engine is None:
            raise RuntimeError("attach the book to an engine first")
        future: Future[OrderChange] = Future()
        given = Input(value=submission, queued_ns=self._clock.time_ns(), future=future)
        self._engine.put(Event(EventType.SUBMISSION, given))
        return future

    # --- taking in: the dispatcher's thread -----------------------------------------------------------

    def on_observation(self, event: Event) -> None:
        """Stage what a broker told: an order, trade, position, that its book was read, what nobody can read."""
        value: Observed = event.data
        queued = self._engine.queued_ns(event) if self._engine is not None else 0
        self._take(Input(value=value, queued_ns=queued))

    def on_submission(self, event: Event) -> None:
        """Stage a submission that `submit` was given."""
        self._take(event.data)

    def _take(self, given: Input) -> None:
        if self._waiting:  # nobody overtakes what could not be taken in
            self._waiting.append(given)
            return
        try:
            self._batch.take(given)
        except StoreBusyError:
            self._waiting.append(given)
        except NotOwnerError as error:
            self._refuse(given, error)
        except _BAD as error:
            self._fail(given, error)
        self._ask()

    def _refuse(self, given: Input, error: NotOwnerError) -> None:
        """The account is another's: its owner reads the broker's book, so nothing is lost with this."""
        self.stale_writes += 1
        if given.future is not None:
            _raise_in(given.future, error)

    def _fail(self, given: Input, error: Exception) -> None:
        """One thing cannot be taken in: whoever waits for it hears why, otherwise it is a dead letter."""
        if given.future is not None:
            _raise_in(given.future, error)
        else:
            reason = f"{type(error).__name__}: {error}"
            self._batch.take(replace(given, buried=reason))
            self.on_broken(given.account, reason)

    def _ask(self) -> None:
        asked, self._batch.verifies = self._batch.verifies, []
        for account, order_id, reason in asked:
            self.on_verify(account, order_id, reason)

    # --- committing: the dispatcher's thread ----------------------------------------------------------

    def commit(self) -> list[Event] | None:
        """Write what is staged and return what changed, as events; the engine calls it after each batch.

        While the database is busy everything stays staged and is tried again, at the latest with the next timer
        event after the pause.
        """
        if self._pause and self._clock.monotonic() < self._not_before:
            return None
        self._take_again()
        events = self._write_all()
        self._turn_the_day()
        if self._leaving and self._batch.empty and not self._waiting:
            leaving, self._leaving = self._leaving, []
            for future in leaving:
                future.set_result(None)
        return events or None

    def _take_again(self) -> None:
        waiting, self._waiting = self._waiting, []
        for given in waiting:
            self._take(given)

    def _write_all(self) -> list[Event]:
        self._drop_withdrawn()
        batch, self._batch = self._batch, Batch(self._around)
        if batch.empty:
            return self._done(batch, [])
        try:
            changes = self._database.write(batch.write)
        except StoreBusyError as error:
            return self._hold(batch, error)
        except OvertakenError:
            return self._write_ours(batch)
        except _BAD as error:
            return self._salvage(batch, error)
        return self._done(batch, changes)

    def _write_ours(self, batch: Batch) -> list[Event]:
        """Some accounts were taken over: write what is still ours, read anew where it came back to us meanwhile."""
        self._batch = self._staged(batch.inputs)
        return self._write_all()

    def _done(self, batch: Batch, changes: list[OrderChange]) -> list[Event]:
        batch.absorb()
        self._tallies.update(batch.tallies)
        committed = self._clock.time_ns()
        told = [_stamped(change, committed) for change in changes]
        for future, answer in batch.answers:
            self._resolve(future, told[answer] if isinstance(answer, int) else answer)
        released = self._release() if changes else []
        return [*(Event(EventType.ORDER_CHANGED, change) for change in told), *batch.notices, *released]

    def _resolve(self, future: Future[OrderChange], change: OrderChange) -> None:
        if future.set_running_or_notify_cancel():
            future.set_result(change)
        elif change.order is not None:
            self._withdraw(change.order)

    def _withdraw(self, line: OrderView) -> None:
        """Whoever submitted it gave up before it was committed, so it was not sent: say so."""
        held = self._memory.shelf(line.account).lines.get(line.submission)
        if held is not None and held.submission.state is SubmissionState.SENDING:
            self._take(Input(value=_refused(held.submission, self._clock.now())))

    def _drop_withdrawn(self) -> None:
        """Forget submissions nobody waits for any more: they will not be sent."""
        if any(_withdrawn(given) for given in self._batch.inputs):
            kept = [given for given in self._batch.inputs if not _withdrawn(given)]
            self._batch = self._staged(kept)

    def _staged(self, inputs: Iterable[Input]) -> Batch:
        """Stage again what was staged before, from what is committed now."""
        batch = Batch(self._around)
        for given in inputs:
            try:
                batch.take(given)
            except NotOwnerError as error:
                self._refuse(given, error)
        batch.verifies.clear()  # they were asked for already
        return batch

    # --- when a commit fails --------------------------------------------------------------------------

    def _hold(self, batch: Batch, error: StoreBusyError) -> list[Event]:
        """Keep everything staged and try again after a pause."""
        self._batch = batch
        first = not self._pause
        if first:
            self._blocked_since = self._clock.monotonic()
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
        self._not_before = self._clock.monotonic() + self._pause
        _log.warning("commit postponed", waiting=len(batch.inputs), error=str(error))
        return [_alert("held", f"The database takes no writes: {error}")] if first else []

    def _release(self) -> list[Event]:
        if not self._pause:
            return []
        self._pause = 0.0
        self._blocked_since = None
        return [_alert("released", "The database takes writes again.")]

    def _salvage(self, batch: Batch, error: Exception) -> list[Event]:
        """Commit everything but what cannot be committed, found by halving; the order of the rest stays."""
        events = list(batch.notices)
        parts = [batch.inputs]
        while parts:
            part = parts.pop(0)
            if not part:
                continue
            staged = self._staged(part)
            try:
                changes = self._database.write(staged.write)
            except StoreBusyError as busy:
                rest = [given for some in (part, *parts) for given in some]
                later = self._staged(rest)
                later.notices = []
                return [*events, *self._hold(later, busy)]
            except OvertakenError:
                parts.insert(0, staged.inputs)  # taken in again, without what is another's now
                continue
            except _BAD as bad:
                error = bad
            else:
                staged.notices = []  # told once, with the whole batch
                events += self._done(staged, changes)
                continue
            middle = len(part) // 2
            if middle:
                parts[:0] = [part[:middle], part[middle:]]
            elif part[0].buried:
                _log.error("a dead letter could not be kept", account=part[0].account, error=str(error))
            else:
                self._fail(part[0], error)
        return events + self._write_all()

    def _turn_the_day(self) -> None:
        today = self._memory.today()
        if today != self._day:
            self._day = today
            self._memory.prune(today)


def _withdrawn(given: Input) -> bool:
    return given.future is not None and given.future.cancelled()


def _raise_in(future: Future[OrderChange], error: Exception) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)


def _stamped(change: OrderChange, committed_ns: int) -> OrderChange:
    return replace(change, stamps=change.stamps.at(committed=committed_ns))


def _in_doubt(submission: Submission, reason: str, now: datetime) -> Submission:
    return replace(submission, state=SubmissionState.UNKNOWN, reason=reason, decided=now)


def _refused(submission: Submission, now: datetime) -> Submission:
    reason = "It could not be written down in time, so it was not sent."
    return replace(submission, state=SubmissionState.REFUSED, reason=reason, decided=now)


def _alert(kind: str, text: str) -> Event:
    return Event(EventType.ALERT, Notice(kind=kind, text=text))
