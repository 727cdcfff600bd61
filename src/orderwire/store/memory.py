"""What is committed, held in memory: each account's live orders and those of its session day."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import date

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import BindParameter, Connection, Row, bindparam, select

from orderwire.core.lifecycle import OrderState, OrderView, Submission, SubmissionState, trade_key
from orderwire.core.orders import AccountId, OrderId, OrderUpdate, Position, Trade, session_date
from orderwire.store import inbox, schema, submissions
from orderwire.store.database import Database
from orderwire.store.encoding import loads

TradeKey = tuple[AccountId, date, str, OrderId, str]
PositionKey = tuple[str, str, str]

MOST_SEEN = 16
"""Dedupe marks kept in memory per order; the inbox knows them all."""

_UNDECIDED = frozenset({SubmissionState.SENDING, SubmissionState.UNKNOWN})


class Held(Struct, frozen=True, kw_only=True, gc=False):
    """One order. The first three are columns; the rest is known again after one read of the broker's book."""

    state: OrderState
    view: OrderView
    """As last told; `checking` is not in it (see `Shelf.hints`)."""
    last_day: date
    """The last session day that changed it."""
    seen_day: date
    """The last session day whose book held it."""
    latest: OrderUpdate | None = None
    """The newest observation that told something new, without the broker's bytes."""
    marks: tuple[int, ...] = ()
    """Dedupe marks of the latest observations."""
    rival: OrderUpdate | None = None
    """A REST row that contradicts the state and waits for a second one."""

    @property
    def live(self) -> bool:
        """Whether something can still happen to it."""
        return not self.view.status.terminal


class Line(Struct, frozen=True, kw_only=True, gc=False):
    """One submission and the session day it was made on."""

    submission: Submission
    trading_date: date

    @property
    def undecided(self) -> bool:
        """Whether nobody knows yet what became of it."""
        return self.submission.state in _UNDECIDED


@dataclass(slots=True)
class Shelf:
    """One account. The dispatcher's thread writes it after each commit; any thread may look something up."""

    orders: dict[OrderId, Held] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    trades: dict[TradeKey, Trade] = field(default_factory=dict)
    positions: dict[PositionKey, Position] = field(default_factory=dict)
    hints: dict[OrderId, int] = field(default_factory=dict)
    """Orders about which something unverified came, and when (ns)."""
    refused: set[int] = field(default_factory=set)
    """Dedupe marks of poisoned observations, so that a broker that repeats them is reported once a day."""
    open: dict[str, date] = field(default_factory=dict)
    """Rows to which something can still happen, and the last session day that knew of them."""
    day: date = date.min
    """The session day it was loaded for, or pruned to."""

    def put(self, held: Held) -> None:
        """Hold an order."""
        self.orders[held.state.order_id] = held
        self._mark(held.view.order_id, held.seen_day, is_open=held.live)

    def put_line(self, line: Line) -> None:
        """Hold a submission."""
        submission = line.submission
        self.lines[submission.id] = line
        self._mark(submission.id, line.trading_date, is_open=line.undecided)

    def _mark(self, row: str, day: date, *, is_open: bool) -> None:
        if is_open:
            self.open[row] = day
        else:
            self.open.pop(row, None)

    def prune(self, today: date) -> None:
        """Let go of what ended before `today`; the database keeps it."""
        self.day = today
        self.orders = {key: held for key, held in self.orders.items() if held.live or held.last_day >= today}
        self.lines = {
            key: line for key, line in self.lines.items() if line.undecided or line.trading_date >= today
        }
        self.trades = {key: trade for key, trade in self.trades.items() if trade.trading_date >= today}
        self.positions = {key: held for key, held in self.positions.items() if held.trading_date >= today}
        self.refused = set()

    def shown(self, order_id: OrderId) -> OrderView | None:
        """Return what the page shows of an order."""
        held = self.orders.get(order_id)
        if held is None:
            return None
        return replace(held.view, checking=True) if order_id in self.hints else held.view


class Memory:
    """Every account's shelf, loaded from the database when it is first asked for."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._shelves: dict[AccountId, Shelf] = {}
        self._loading = threading.Lock()  # guards the making of shelves
        self._tokens: dict[AccountId, int] = {}
        """Under which token of ownership each shelf was loaded."""

    def shelf(self, account: AccountId) -> Shelf:
        """Return the account's shelf. Any thread; raises StoreError when it cannot be loaded."""
        shelf = self._shelves.get(account)
        return self._load(account) if shelf is None else shelf

    def today(self) -> date:
        """Return the session day it is."""
        return session_date(self._database.clock.now())

    def find(self, account: AccountId, day: date, order_id: OrderId) -> Held | None:
        """Return an order of an earlier session day from the database."""
        table = schema.orders
        key = (table.c.account == account, table.c.trading_date == day.isoformat())
        with self._database.read() as connection:
            row = connection.execute(select(table).where(*key, table.c.order_id == order_id)).first()
        return _held(row) if row else None

    def find_trade(self, key: TradeKey) -> Trade | None:
        """Return an execution of an earlier session day from the database."""
        account, day, exchange, order_id, trade_id = key
        table = schema.trades
        mine = (
            table.c.account == account,
            table.c.trading_date == day.isoformat(),
            table.c.exchange == exchange,
            table.c.order_id == order_id,
            table.c.trade_id == trade_id,
        )
        with self._database.read() as connection:
            text = connection.execute(select(table.c.trade).where(*mine)).scalar()
        return loads(text, Trade) if text is not None else None

    def submission_for_key(self, account: AccountId, idempotency_key: str) -> Submission | None:
        """Return the submission made under an idempotency key, however long ago."""
        return submissions.submission_for_key(self._database, account, idempotency_key)

    def latest(self, account: AccountId, order_id: OrderId) -> OrderUpdate | None:
        """Return the newest observation that told something new, from memory or the inbox. Any thread."""
        held = self.shelf(account).orders.get(order_id)
        if held is not None and held.latest is not None:
            return held.latest
        with self._database.read() as connection:
            return inbox.last_applied(connection, account, order_id)

    def prune(self, today: date) -> None:
        """Let go of what ended before `today`, in every account."""
        for shelf in list(self._shelves.values()):
            if shelf.day < today:
                shelf.prune(today)

    def serve(self, account: AccountId, token: int) -> None:
        """Hold the account under this token of ownership; what was loaded under another may be out of date."""
        if self._tokens.get(account) != token:
            self.forget(account)
            self._tokens[account] = token

    def forget(self, account: AccountId) -> None:
        """Let go of an account whose data was erased. Any thread."""
        with self._loading:
            self._shelves.pop(account, None)

    def _load(self, account: AccountId) -> Shelf:
        with self._loading:
            if account not in self._shelves:
                with self._database.read() as connection:
                    self._shelves[account] = load(connection, account, self.today())
            return self._shelves[account]


_ACCOUNT: BindParameter[str] = bindparam("account")
_TODAY: BindParameter[str] = bindparam("today")
_ORDERS, _LINES, _TRADES = schema.orders.c, schema.submissions.c, schema.trades.c
_FROM_BEFORE = select(schema.orders).where(
    _ORDERS.account == _ACCOUNT, _ORDERS.live == 1, _ORDERS.last_day < _TODAY
)
_OF_TODAY = select(schema.orders).where(_ORDERS.account == _ACCOUNT, _ORDERS.last_day >= _TODAY)
"""Two queries instead of one OR, so that each has its index."""
_SUBMITTED = select(_LINES.body, _LINES.trading_date).where(
    _LINES.account == _ACCOUNT,
    (_LINES.trading_date >= _TODAY) | _LINES.state.in_(("SENDING", "UNKNOWN")),
)
_TRADED = select(_TRADES.trade).where(_TRADES.account == _ACCOUNT, _TRADES.trading_date >= _TODAY)
_POSITIONS = select(schema.positions.c.position).where(
    schema.positions.c.account == _ACCOUNT, schema.positions.c.trading_date >= _TODAY
)


def load(connection: Connection, account: AccountId, today: date) -> Shelf:
    """Read one account's shelf: what is live, and what `today` brought."""
    asked = {"account": account, "today": today.isoformat()}
    shelf = Shelf(day=today, hints=inbox.open_hints(connection, account))
    for query in (_FROM_BEFORE, _OF_TODAY):
        for row in connection.execute(query, asked):
            shelf.put(_held(row))
    for body, day in connection.execute(_SUBMITTED, asked):
        shelf.put_line(Line(submission=loads(body, Submission), trading_date=date.fromisoformat(day)))
    for text in connection.execute(_TRADED, asked).scalars():
        trade = loads(text, Trade)
        shelf.trades[trade_key(trade)] = trade
    for text in connection.execute(_POSITIONS, asked).scalars():
        position = loads(text, Position)
        shelf.positions[position_key(position)] = position
    return shelf


def position_key(position: Position) -> PositionKey:
    """Return the identity of a position within its account."""
    return (position.exchange, position.symbol, position.product)


def _held(row: Row[tuple[object, ...]]) -> Held:
    last_day = date.fromisoformat(row.last_day)
    return Held(
        state=loads(row.state, OrderState),
        view=loads(row.view, OrderView),
        last_day=last_day,
        seen_day=last_day,
    )
