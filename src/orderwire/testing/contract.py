"""The adapter contract: a numbered list of what every broker adapter must keep, checked against a broker that runs."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, Final, TypeVar, get_args

import msgspec
from msgspec.structs import fields
from msgspec.structs import replace as with_fields

from orderwire.brokers.adapter import (
    AccountProfile,
    BrokerAdapter,
    BrokerSession,
    PostbackRequest,
    plaintext_refusal,
)
from orderwire.core.books import odd_rows
from orderwire.core.events import EventType
from orderwire.core.instruments import Instrument, InstrumentTable
from orderwire.core.orders import (
    AccountId,
    Channel,
    Funds,
    Holding,
    ModifyRequest,
    OrderId,
    OrderStatus,
    OrderUpdate,
    Position,
    Trade,
    session_date,
)
from orderwire.errors import (
    UNDECODABLE,
    BrokerError,
    BrokerUnreachableError,
    ConfigurationError,
    OrderRefusedError,
    ProtocolViolationError,
    RateLimitedError,
    SessionExpiredError,
)
from orderwire.testing.desk import BrokerDesk, RecordingPublisher, open_tools, unlimited
from orderwire.testing.line import Answer, Line, cut, instead, relayed, replayed, rewritten, silent

E = TypeVar("E", bound=Exception)
T = TypeVar("T")

ACCOUNT = AccountId("contract")
SOON: Final = 10.0
"""Seconds a broker may take to show what it was asked for."""
AT_ONCE: Final = 1.0
"""Seconds a cancelled call or stream may take to end."""

_UNHEARD = "NEVER HEARD OF"
_PACE = 0.05

_UNREADABLE: Mapping[str, bytes] = {
    "an empty body": b"",
    "an HTML page": b"<html><body>Bad Gateway</body></html>",
    "a word": b"nonsense",
    "half an object": b'{"status": "succ',
    "bytes that are no text": b"\xff\xfe\x00",
    "brackets without end": b"[" * 50_000,
}
_ODD: Mapping[str, bytes] = {
    "an empty object": b"{}",
    "an empty list": b"[]",
    "null": b"null",
    "a number": b"12",
    "a text": b'"x"',
    "a list of numbers": b"[1, 2]",
}
_ABSENT: Final = object()
_WRONG: tuple[Any, ...] = (_ABSENT, None, "NaN", {})
_WRONG_IN_TURN: tuple[Any, ...] = ("x", -1, [], True, 10**30)

_READS: Mapping[str, Callable[[BrokerAdapter, OrderId], Awaitable[Any]]] = {
    "order_book": lambda adapter, _order_id: adapter.order_book(),
    "order_history": lambda adapter, order_id: adapter.order_history(order_id),
    "trade_book": lambda adapter, _order_id: adapter.trade_book(),
    "positions": lambda adapter, _order_id: adapter.positions(),
    "holdings": lambda adapter, _order_id: adapter.holdings(),
    "funds": lambda adapter, _order_id: adapter.funds(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the acceptance list."""

    number: int
    promise: str
    """What the adapter must keep, in one sentence."""
    run: Callable[[], None]
    """Raises AssertionError, saying what is wrong, or whatever the adapter should not have raised."""


@dataclass(kw_only=True)
class Stage:
    """One check's adapter, logged in, with its line, its broker and what it published."""

    adapter: BrokerAdapter
    desk: BrokerDesk
    line: Line
    published: RecordingPublisher

    async def place(self) -> OrderId:
        """Place the resting order and wait until the book shows it."""
        order_id = await self.adapter.place_order(self.desk.resting)
        await self.row(order_id, OrderStatus.OPEN)
        self.line.forget()
        return order_id

    async def row(
        self, order_id: OrderId, status: OrderStatus, *, price: Decimal | None = None
    ) -> OrderUpdate:
        """Read the book until it shows the order with that status, and that price if one is given."""
        wanted = f"{order_id} as {status}" + (f" at {price}" if price is not None else "")

        async def look() -> OrderUpdate | None:
            rows = [row for row in await self.adapter.order_book() if row.order_id == order_id]
            must(
                len(rows) < 2, f"the order book has {len(rows)} rows of order {order_id}: one order, one row"
            )
            fits = (row for row in rows if row.status is status and price in {None, row.price})
            return next(fits, None)

        return await eventually(look, f"the order book does not show order {wanted}")

    async def filled(self) -> OrderId:
        """Place the resting order and have all of it filled."""
        order_id = await self.place()
        await self.desk.fill(order_id, self.desk.resting.quantity)
        await self.row(order_id, OrderStatus.FILLED)
        self.line.forget()
        return order_id

    def tampered(self, answer: Answer) -> Line:
        """From now on every request gets this answer."""
        self.line.forget()
        self.line.answer = answer
        return self.line

    def new_terms(self, order_id: OrderId) -> ModifyRequest:
        """Ask for the desk's other price."""
        resting = self.desk.resting
        return ModifyRequest(
            order_id=order_id,
            quantity=resting.quantity,
            order_type=resting.order_type,
            product=resting.product,
            price=self.desk.other_price,
        )

    def secrets(self) -> set[str]:
        """Return what nobody may see."""
        names = {field.name for field in self.adapter.credential_fields if field.secret}
        given = {value for name, value in self.adapter.profile.credentials.items() if name in names}
        session = self.adapter.session
        return {text for text in {*given, *(session.secrets.values() if session else ())} if len(text) > 3}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[asyncio.Task[None]]:
        """Run `listen` beside the block, from when it delivers."""
        task = asyncio.create_task(self.adapter.listen())
        try:

            async def delivers() -> bool:
                if task.done():
                    await task
                    raise AssertionError(
                        "listen() returned; it must end by raising an error of orderwire.errors"
                    )
                return self.adapter.listening

            await eventually(delivers, "listen() does not set `listening`, so the feed never counts as live")
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task}, timeout=SOON)
            if task.done() and not task.cancelled():
                task.exception()  # retrieved, or asyncio complains about it later


def _check(story: Callable[[Any, Stage], Awaitable[None]]) -> Callable[[AdapterContract], None]:
    """Make a check of a story: a method that runs it on a stage of its own."""

    def run(self: AdapterContract) -> None:
        asyncio.run(self.on_stage(lambda stage: story(self, stage)))

    run.__name__, run.__doc__, run.__qualname__ = story.__name__, story.__doc__, story.__qualname__
    return run


class AdapterContract(ABC):
    """The acceptance list. Subclass it as `TestMyBroker`, give it a desk, and pytest runs it.

        class TestPaisa(AdapterContract):
            adapter_class = PaisaAdapter

            def desk(self):
                return open_desk(self.adapter_class)

    Without pytest, `checks()` yields the same list. Each check opens a desk of its own; the adapter reaches it
    through a `Line`, on which the contract counts, cuts, delays and lies.
    """

    adapter_class: ClassVar[type[BrokerAdapter]]

    @abstractmethod
    def desk(self) -> AbstractAsyncContextManager[BrokerDesk]:
        """Open a broker with a fresh account; called for each check, on its loop."""

    def checks(self) -> Iterator[Check]:
        """Yield the list in order; each `run` is one check, to be called outside any event loop."""
        for name, method in inspect.getmembers(self, inspect.ismethod):
            numbered = re.match(r"test_(\d\d)_", name)
            if numbered:
                yield Check(number=int(numbered[1]), promise=inspect.getdoc(method) or name, run=method)

    async def on_stage(self, story: Callable[[Stage], Awaitable[None]]) -> None:
        """Open a desk, log an adapter in through a line, load its instruments and run the story."""
        kind, published = self.adapter_class, RecordingPublisher()
        async with self.desk() as desk, Line() as line:
            profile = AccountProfile(
                account=ACCOUNT, credentials=desk.credentials, addresses=await line.lead(desk.addresses)
            )
            async with open_tools(kind, publisher=published, budgets=unlimited(kind)) as tools:
                adapter = kind(profile, tools)
                adapter.session = await adapter.login(await desk.grant(adapter.login_url(state="contract")))
                table = InstrumentTable(await adapter.instruments_of_the_day())
                adapter.tools = replace(tools, instruments=table)
                line.forget()
                await story(Stage(adapter=adapter, desk=desk, line=line, published=published))

    # --- the account ----------------------------------------------------------------------------------

    @_check
    async def test_01_it_says_what_it_is(self, stage: Stage) -> None:
        """Its class states name, title and API version, and its budgets begin with its name."""
        kind = type(stage.adapter)
        must(re.fullmatch(r"[a-z][a-z0-9_]*", kind.name) is not None, "name: lower case letters, digits, _")
        must(bool(kind.title.strip()), "title is empty")
        must(bool(kind.api_version), "api_version is empty: pin the broker's API version, and send it")
        foreign = [name for name in kind.budgets if not name.startswith(f"{kind.name}.")]
        must(not foreign, f"budgets {foreign} must begin with {kind.name}.")

    @_check
    async def test_02_a_missing_credential_is_named(self, stage: Stage) -> None:
        """Made without a required credential, it raises ConfigurationError that names it and holds no secret."""
        profile = stage.adapter.profile
        for needed in (field for field in stage.adapter.credential_fields if field.required):
            left = {name: value for name, value in profile.credentials.items() if name != needed.name}
            words = self._refusal(stage, replace(profile, credentials=left), f"without {needed.name}")
            must(needed.name in words, f"the error for a missing {needed.name} does not name it: {words}")
            must_hide(stage.secrets(), words)

    @_check
    async def test_03_no_address_off_the_loopback_is_plain_text(self, stage: Stage) -> None:
        """It refuses plain http and ws off the loopback, unless the account allows it."""
        profile = stage.adapter.profile
        for name, address in stage.desk.addresses.items():
            if "://" not in address:
                continue
            plain = f"{address.split(':')[0].rstrip('s')}://broker.example/"
            if plaintext_refusal(plain, allow_plaintext=False) is None:
                continue
            far = replace(profile, addresses={**profile.addresses, name: plain})
            self._refusal(stage, far, f"with the plain-text {name} {plain}")
            self.adapter_class(replace(far, allow_plaintext=True), stage.adapter.tools)

    def _refusal(self, stage: Stage, profile: AccountProfile, how: str) -> str:
        try:
            self.adapter_class(profile, stage.adapter.tools)
        except ConfigurationError as error:
            return str(error)
        raise AssertionError(f"made {how}, it must raise ConfigurationError")

    @_check
    async def test_04_a_login_gives_a_session(self, stage: Stage) -> None:
        """The session names the broker's user, ends at an aware time or None, and keeps its secrets from view."""
        session = stage.adapter.session
        must(isinstance(session, BrokerSession), "login() returns a BrokerSession")
        if session is None:
            return
        must(bool(session.user_id), "the session has no user_id: the broker's own name of the user")
        must(bool(session.secrets), "the session has no secrets: the token belongs there")
        must(session.expires_at is None or session.expires_at.tzinfo is not None, "expires_at must be aware")
        must_hide(set(session.secrets.values()), *session.facts.values(), repr(session))

    @_check
    async def test_05_nothing_is_sent_before_the_login(self, stage: Stage) -> None:
        """Without a session every call raises SessionExpiredError and sends nothing."""
        order_id = await stage.place()
        stage.adapter.session = None
        for name, call in _calls(stage, order_id).items():
            await must_raise(SessionExpiredError, call(), f"{name} without a session")
        must(not stage.line.requests, f"{len(stage.line.requests)} requests were sent without a session")

    @_check
    async def test_06_an_ended_session_is_told(self, stage: Stage) -> None:
        """Once the broker ended the session every call raises SessionExpiredError, after one request."""
        order_id = await stage.place()
        await stage.desk.end_session()
        for name, call in _calls(stage, order_id).items():
            stage.line.forget()
            await must_raise(SessionExpiredError, call(), f"{name} with an ended session")
            must_be_one(stage.line, name)

    # --- the books ------------------------------------------------------------------------------------

    @_check
    async def test_07_an_empty_book_is_an_empty_list(self, stage: Stage) -> None:
        """Of an account without orders, the order book, trade book and positions are empty lists."""
        for name in ("order_book", "trade_book", "positions"):
            book = await _READS[name](stage.adapter, OrderId(""))
            must(_is_list(book) and not book, f"{name}() of an empty account is {book!r}, not an empty list")

    @_check
    async def test_08_the_order_book_has_its_shape(self, stage: Stage) -> None:
        """A row of the order book carries the account, channel, day, times, terms and the broker's bytes."""
        order_id = await stage.filled()
        row = await stage.row(order_id, OrderStatus.FILLED)
        must_fit(row, stage.adapter, channel=Channel.REST)
        resting = stage.desk.resting
        must(row.filled_quantity == row.quantity == resting.quantity, "a filled order shows its quantities")
        must(row.average_price > 0, "a filled order has an average price")
        must(row.broker_time is not None, "broker_time: the broker's own time of the order's last event")

    @_check
    async def test_09_an_order_keeps_its_terms_and_its_tag(self, stage: Stage) -> None:
        """The book shows symbol, side, quantity, type, product, price and tag as they were asked for."""
        tag = "OWCONTRACT23456"
        request = with_fields(stage.desk.resting, tag=tag)
        order_id = await stage.adapter.place_order(request)
        row = await stage.row(order_id, OrderStatus.OPEN)
        for name in ("symbol", "exchange", "side", "quantity", "order_type", "product", "price", "tag"):
            asked, shown = getattr(request, name), getattr(row, name)
            must(asked == shown, f"{name} was asked as {asked!r} and is shown as {shown!r}")
        must(row.known_symbol, "the order's instrument is in the day's list, so known_symbol is True")

    @_check
    async def test_10_a_history_is_told_from_its_beginning(self, stage: Stage) -> None:
        """order_history() is oldest first, counts history_index from 0 and ends as the book does."""
        order_id = await stage.filled()

        async def read() -> Sequence[OrderUpdate]:
            with suppress(BrokerUnreachableError):  # a broker may not have it yet
                return await stage.adapter.order_history(order_id)
            return ()

        steps = await eventually(read, f"order_history({order_id}) stays empty")
        for step in steps:
            must_fit(step, stage.adapter, channel=Channel.HISTORY)
        must([step.history_index for step in steps] == list(range(len(steps))), "history_index counts from 0")
        must({step.order_id for step in steps} == {order_id}, "a history is about its order alone")
        must(steps[-1].status is OrderStatus.FILLED, f"the history of a filled order ends {steps[-1].status}")

    @_check
    async def test_11_an_execution_is_in_the_trade_book(self, stage: Stage) -> None:
        """An execution appears in the trade book with its own id, quantity and price, and as a position."""
        order_id = await stage.filled()

        async def trades() -> list[Trade]:
            return [trade for trade in await stage.adapter.trade_book() if trade.order_id == order_id]

        async def positions() -> Sequence[Position]:
            return await stage.adapter.positions()

        found = await eventually(trades, "the trade book does not show the execution")
        for trade in found:
            must_fit(trade, stage.adapter, channel=Channel.REST)
            must(bool(trade.trade_id) and trade.price > 0, "a trade has an id and a price")
        must(len({trade.trade_id for trade in found}) == len(found), "trades of an order differ by trade_id")
        must(sum(trade.quantity for trade in found) == stage.desk.resting.quantity, "trades add up")
        held = await eventually(positions, "positions() stays empty after an execution")
        for position in held:
            must_fit(position, stage.adapter, channel=Channel.REST)
        wanted = stage.desk.resting.quantity * (1 if stage.desk.resting.side == "BUY" else -1)
        must(held[0].quantity == wanted, f"the position is {held[0].quantity}, not {wanted}: it is signed")

    @_check
    async def test_12_holdings_and_money_have_their_shape(self, stage: Stage) -> None:
        """holdings() is a list of Holding, funds() is Funds; both name the account, money is Decimal."""
        holdings, funds = await stage.adapter.holdings(), await stage.adapter.funds()
        must(_is_list(holdings), "holdings() is a list")
        values: tuple[Holding | Funds, ...] = (*holdings, funds)
        for value in values:
            must_be_values([value])
            must(value.account == ACCOUNT, "it carries another account's id")
        must(all(isinstance(each, Holding) for each in holdings), "holdings() holds something else")
        must(isinstance(funds, Funds), "funds() is no Funds")

    @_check
    async def test_13_the_days_instruments_can_be_looked_up(self, stage: Stage) -> None:
        """instruments_of_the_day() lists each symbol once, in OpenAlgo's words, with the broker's own beside."""
        listed = await stage.adapter.instruments_of_the_day()
        names = {(each.exchange, each.symbol) for each in listed}
        must(len(names) == len(listed), "an exchange and symbol appear twice")
        resting = stage.desk.resting
        must((resting.exchange, resting.symbol) in names, f"{resting.symbol} is not in the list")
        for each in listed:
            must(isinstance(each, Instrument) and each.broker == stage.adapter.name, f"{each!r}: broker")
            must_be_typed(each)
            must(each.lot_size > 0 and each.tick_size >= 0, f"{each.symbol}: lot or tick size")

    # --- orders ---------------------------------------------------------------------------------------

    @_check
    async def test_14_an_order_is_sent_once(self, stage: Stage) -> None:
        """place_order() sends one request and returns the order's number."""
        order_id = await stage.adapter.place_order(stage.desk.resting)
        must_be_one(stage.line, "place_order")
        must(isinstance(order_id, str) and bool(order_id), f"{order_id!r} is not an order number")
        await stage.row(order_id, OrderStatus.OPEN)

    @_check
    async def test_15_an_order_can_be_modified_and_cancelled(self, stage: Stage) -> None:
        """modify_order() and cancel_order() send one request each, and the book shows what became of them."""
        order_id = await stage.place()
        current = await stage.row(order_id, OrderStatus.OPEN)
        stage.line.forget()
        moved = await stage.adapter.modify_order(stage.new_terms(order_id), current=current)
        must_be_one(stage.line, "modify_order")
        current = await stage.row(moved, OrderStatus.OPEN, price=stage.desk.other_price)
        stage.line.forget()
        gone = await stage.adapter.cancel_order(moved, current=current)
        must_be_one(stage.line, "cancel_order")
        await stage.row(gone, OrderStatus.CANCELLED)

    @_check
    async def test_16_a_refused_order_is_an_error(self, stage: Stage) -> None:
        """An order that the broker refuses at once raises OrderRefusedError with its words; there is no order."""
        error = await must_raise(
            OrderRefusedError, stage.adapter.place_order(stage.desk.refused), "a refused order"
        )
        must(len(str(error)) > 3, "the error has the broker's words")
        must_be_one(stage.line, "place_order")
        must(not await stage.adapter.order_book(), "the book shows an order that was refused")

    @_check
    async def test_17_a_doubtful_order_is_never_called_refused(self, stage: Stage) -> None:
        """An order call that is answered with nonsense, a fault or not at all is in doubt: sent=True, or ProtocolViolationError."""
        order_id = await stage.place()
        doubts = {
            **{what: instead(200, body) for what, body in {**_UNREADABLE, **_ODD}.items()},
            "a fault (500)": instead(500, b"Internal Server Error"),
            "a gateway's page (502)": instead(502, _UNREADABLE["an HTML page"]),
            "a cut connection": cut,
        }
        for name, call in _order_calls(stage, order_id).items():
            for what, answer in doubts.items():
                line = stage.tampered(answer)
                error = await must_raise(BrokerError, call(), f"{name} answered with {what}")
                doubtful = isinstance(error, ProtocolViolationError) or (
                    isinstance(error, BrokerUnreachableError) and error.sent
                )
                must(doubtful, f"{name} answered with {what}: {error!r} says that nothing happened")
                must_be_one(line, f"{name} answered with {what}")

    # --- what a broker says that nobody knows ---------------------------------------------------------

    @_check
    async def test_18_an_unknown_status_is_recorded_as_unknown(self, stage: Stage) -> None:
        """A status word that the table lacks gives UNKNOWN, phase -1 and the word as it came; it is never guessed."""
        order_id = await stage.place()
        row = await stage.row(order_id, OrderStatus.OPEN)
        stage.tampered(rewritten(_word(row.raw_status, _UNHEARD)))
        (strange,) = await stage.adapter.order_book()
        must(strange.status is OrderStatus.UNKNOWN, f"an unknown status became {strange.status}")
        must(strange.phase == -1, f"an unknown status has phase -1, not {strange.phase}")
        must(strange.raw_status.upper() == _UNHEARD, f"raw_status is {strange.raw_status!r}, not the word")

    @_check
    async def test_19_an_unknown_instrument_does_not_hide_the_order(self, stage: Stage) -> None:
        """An order whose instrument is not in the day's list is shown all the same, with known_symbol False."""
        order_id = await stage.place()
        stage.adapter.tools = replace(stage.adapter.tools, instruments=InstrumentTable())
        row = await stage.row(order_id, OrderStatus.OPEN)
        must(not row.known_symbol, "known_symbol says that a missing instrument was found")
        must(bool(row.symbol) and bool(row.exchange), "the broker's own spelling stands in for the symbol")

    @_check
    async def test_20_the_same_bytes_give_the_same_values(self, stage: Stage) -> None:
        """Reading is idempotent: the same reply twice gives equal values, but for the time of arrival."""
        order_id = await stage.filled()
        for name, read in _READS.items():
            first = await read(stage.adapter, order_id)
            stage.tampered(replayed(stage.line.responses[-1]))
            second, third = await read(stage.adapter, order_id), await read(stage.adapter, order_id)
            same = _timeless(first) == _timeless(second) == _timeless(third)
            must(same, f"{name}: the same reply was read as different values")
            stage.tampered(relayed)

    # --- when things go wrong -------------------------------------------------------------------------

    @_check
    async def test_21_nonsense_is_an_error_of_ours(self, stage: Stage) -> None:
        """A reply that cannot be read raises a BrokerError; an odd one does, or reads as empty. Nothing else escapes."""
        order_id = await stage.place()
        for name, read in _READS.items():
            for what, body in _UNREADABLE.items():
                line = stage.tampered(instead(200, body))
                await must_raise(BrokerError, read(stage.adapter, order_id), f"{name} answered with {what}")
                must_be_one(line, f"{name} answered with {what}")
            for body in _ODD.values():
                stage.tampered(instead(200, body))
                with suppress(BrokerError):
                    must_be_values(await read(stage.adapter, order_id))

    @_check
    async def test_22_a_field_of_another_type_is_never_passed_on(self, stage: Stage) -> None:
        """With any one field of a real reply replaced or left out, a read raises a BrokerError or returns well-typed values."""
        order_id = await stage.filled()
        for name, read in _READS.items():
            stage.tampered(relayed)
            await read(stage.adapter, order_id)
            reply = stage.line.responses[-1]
            for body in _with_wrong_leaves(reply.body):
                stage.tampered(replayed(replace(reply, body=body)))
                try:
                    must_be_values(await read(stage.adapter, order_id))
                except BrokerError:
                    continue
                except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
                    raise AssertionError(f"{name} reads {body[:2000]!r}: {error!r}") from error

    @_check
    async def test_23_a_broker_that_is_away_is_unreachable(self, stage: Stage) -> None:
        """A fault of the broker's, a gateway's page or a cut line raises BrokerUnreachableError, after one request."""
        order_id = await stage.place()
        away: Mapping[str, Answer] = {
            "500": instead(500, b"Internal Server Error"),
            "502": instead(502, _UNREADABLE["an HTML page"]),
            "503": instead(503, b""),
            "a cut line": cut,
        }
        for name, read in _READS.items():
            for what, answer in away.items():
                line = stage.tampered(answer)
                await must_raise(
                    BrokerUnreachableError, read(stage.adapter, order_id), f"{name} answered with {what}"
                )
                must_be_one(line, f"{name} answered with {what}")

    @_check
    async def test_24_a_limit_of_the_broker_is_told(self, stage: Stage) -> None:
        """A 429 raises RateLimitedError with the seconds the broker asked for, after one request."""
        order_id = await stage.place()
        line = stage.tampered(instead(429, b"{}", retry_after="3"))
        for name, call in _calls(stage, order_id).items():
            line.forget()
            error = await must_raise(RateLimitedError, call(), f"{name} answered with 429")
            must(error.retry_after == 3, f"{name}: retry_after is {error.retry_after}, the broker said 3")
            must_be_one(line, f"{name} answered with 429")

    @_check
    async def test_25_a_call_can_be_cancelled(self, stage: Stage) -> None:
        """A call to a broker that does not answer ends within a second of being cancelled."""
        order_id = await stage.place()
        line = stage.tampered(silent)
        for name, call in _calls(stage, order_id).items():
            line.forget()
            task = asyncio.ensure_future(call())
            await eventually(_asked(line), f"{name} sends nothing")
            await must_end(task, name)

    # --- events ---------------------------------------------------------------------------------------

    @_check
    async def test_26_what_it_gives_becomes_a_typed_event(self, stage: Stage) -> None:
        """on_order, on_trade and on_position each publish one event with the value itself."""
        for kind, give, value in await _given(stage):
            stage.published.events.clear()
            give(value)
            told = [(event.type, event.data) for event in stage.published.events]
            must(told == [(kind, value)], f"{give.__name__} published {told!r}")

    @_check
    async def test_27_without_a_publisher_nothing_happens(self, stage: Stage) -> None:
        """on_order, on_trade and on_position do nothing when no publisher is attached."""
        given = await _given(stage)
        stage.published.events.clear()
        stage.adapter.tools = replace(stage.adapter.tools, publisher=None)
        for _kind, give, value in given:
            give(value)
        must(not stage.published.events, "it publishes to a publisher that was taken away")

    @_check
    async def test_28_a_wrong_value_is_never_published(self, stage: Stage) -> None:
        """What is no OrderUpdate, Trade or Position raises TypeError and is not published, with or without a publisher."""
        given = await _given(stage)
        values: list[Any] = [None, {}, b'{"order_id": "1"}', "1", [], *(value for _, _, value in given)]
        for publisher in (stage.published, None):
            stage.published.events.clear()
            stage.adapter.tools = replace(stage.adapter.tools, publisher=publisher)
            for _kind, give, right in given:
                for value in (value for value in values if type(value) is not type(right)):
                    _must_refuse(give, value)
            must(not stage.published.events, "a value of a wrong type was published")

    # --- the stream -----------------------------------------------------------------------------------

    @_check
    async def test_29_a_stream_says_when_it_delivers(self, stage: Stage) -> None:
        """listen() sets `listening` and `heard_at` and tells on_listening; without a stream it raises NotImplementedError."""
        adapter, told = stage.adapter, list[bool]()
        if not adapter.has_stream:
            await must_raise(NotImplementedError, adapter.listen(), "listen() without a stream")
            return
        adapter.on_listening = told.append
        async with stage.listening():
            must(adapter.heard_at > 0, "heard_at is not written: the stream cannot be seen to live")
        must(told == [True, False], f"on_listening was told {told}, not that it began and ended")
        must(not adapter.listening, "`listening` stays True after the end")

    @_check
    async def test_30_the_stream_tells_what_the_book_tells(self, stage: Stage) -> None:
        """An order's states arrive as ORDER_UPDATE of channel STREAM, and the last one agrees with the book."""
        if not stage.adapter.has_stream:
            return
        async with stage.listening():
            order_id = await stage.adapter.place_order(stage.desk.resting)
            await self._told(stage, order_id, OrderStatus.OPEN)
            heard = stage.adapter.heard_at
            await stage.desk.fill(order_id, stage.desk.resting.quantity)
            told = await self._told(stage, order_id, OrderStatus.FILLED)
            must(stage.adapter.heard_at > heard, "heard_at is not written for an update")
        row = await stage.row(order_id, OrderStatus.FILLED)
        for update in stage.published.of(EventType.ORDER_UPDATE):
            must_fit(update, stage.adapter, channel=Channel.STREAM)
        for name in _COMPARED:
            streamed, read = getattr(told, name), getattr(row, name)
            must(streamed == read, f"{name} is {streamed!r} by the stream and {read!r} in the book")

    async def _told(self, stage: Stage, order_id: OrderId, status: OrderStatus) -> OrderUpdate:
        def wanted(update: OrderUpdate) -> bool:
            return update.order_id == order_id and update.status is status

        try:
            update: OrderUpdate = await stage.published.until(EventType.ORDER_UPDATE, wanted, within=SOON)
        except TimeoutError:
            raise AssertionError(f"the stream does not tell that the order is {status}") from None
        return update

    @_check
    async def test_31_listening_can_be_cancelled(self, stage: Stage) -> None:
        """Cancelled, listen() closes its connection and ends within a second, on a healthy line and on a dead one."""
        if not stage.adapter.has_stream:
            return
        for dead in (False, True):
            async with stage.listening() as task:
                if dead:
                    stage.line.stall()
                await must_end(task, f"listen() on a {'dead' if dead else 'healthy'} line")
                must(not stage.adapter.listening, "`listening` stays True after the end")
                await eventually(_closed(stage.line), "the connection stays open after listen() has ended")

    @_check
    async def test_32_a_lost_line_ends_the_stream(self, stage: Stage) -> None:
        """When the line is cut listen() raises BrokerUnreachableError and does not connect again by itself."""
        if not stage.adapter.has_stream:
            return
        async with stage.listening() as task:
            stage.line.cut_streams()
            await must_raise(BrokerUnreachableError, task, "listen() whose line is cut")
        must_be_one_handshake(stage.line)
        must(not stage.adapter.listening, "`listening` stays True after the end")

    @_check
    async def test_33_a_refused_handshake_is_told(self, stage: Stage) -> None:
        """When the stream cannot be had listen() raises BrokerUnreachableError after one try."""
        if not stage.adapter.has_stream:
            return
        for answer in (instead(503, b""), cut):
            stage.line.forget()
            stage.line.handshake = answer
            await must_raise(BrokerUnreachableError, stage.adapter.listen(), "listen() that is refused")
            must_be_one_handshake(stage.line)

    @_check
    async def test_34_a_damaged_message_is_counted(self, stage: Stage) -> None:
        """A message of the stream that cannot be read is noted and left out, or ends the stream as ProtocolViolationError."""
        if not stage.adapter.has_stream:
            return
        noted = list[ProtocolViolationError]()
        stage.adapter.on_violation = noted.append
        async with stage.listening() as task:
            stage.line.inject("}{")

            async def known() -> bool:
                return bool(noted) or task.done()

            await eventually(known, "a damaged message passes unnoticed: call note_violation, or raise")
            if task.done():
                await must_raise(ProtocolViolationError, task, "listen() that reads nonsense")
                return
            order_id = await stage.adapter.place_order(stage.desk.resting)
            await self._told(stage, order_id, OrderStatus.OPEN)

    @_check
    async def test_35_a_stream_needs_a_session(self, stage: Stage) -> None:
        """listen() with an ended session raises SessionExpiredError, so that nobody hammers with a dead token."""
        if not stage.adapter.has_stream:
            return
        await stage.desk.end_session()
        await must_raise(SessionExpiredError, stage.adapter.listen(), "listen() with an ended session")
        stage.adapter.session = None
        await must_raise(SessionExpiredError, stage.adapter.listen(), "listen() without a session")

    # --- secrets and postbacks ------------------------------------------------------------------------

    @_check
    async def test_36_no_secret_is_told(self, stage: Stage) -> None:
        """No credential or token shows in a repr, an error (its causes included) or a log line at any level."""
        secrets, told = stage.secrets(), _Ear()
        must(bool(secrets), "no credential field is marked secret and the session holds none")
        order_id = await stage.place()
        with told:
            for answer in (instead(403, b"{}"), instead(200, b"{"), cut):
                stage.tampered(answer)
                for call in _calls(stage, order_id).values():
                    told.words += await _words_of(call())
            if stage.adapter.has_stream:
                stage.line.handshake = instead(403, b"{}")
                told.words += await _words_of(stage.adapter.listen())
        adapter = stage.adapter
        must_hide(secrets, *told.words, repr(adapter), repr(adapter.profile), repr(adapter.session))

    @_check
    async def test_37_a_postback_is_believed_only_when_perfect(self, stage: Stage) -> None:
        """read_postback() raises ProtocolViolationError for nonsense; without postbacks, NotImplementedError."""
        wanted = ProtocolViolationError if stage.adapter.has_postback else NotImplementedError
        for body in (*_UNREADABLE.values(), *_ODD.values()):
            request = PostbackRequest(body=body, headers={"content-type": "application/json"})
            try:
                stage.adapter.read_postback(request, secrets=["a", "b"])
            except wanted:
                continue
            raise AssertionError(f"read_postback() believes {body[:40]!r}")

    # --- odd rows -------------------------------------------------------------------------------------

    @_check
    async def test_38_one_odd_row_does_not_hide_the_others(self, stage: Stage) -> None:
        """With one more row that cannot be read a book still returns the others, and tells that one with its bytes."""
        order_id = await stage.filled()
        for name in ("order_book", "order_history", "trade_book", "positions"):
            stage.tampered(relayed)
            await _READS[name](stage.adapter, order_id)
            reply, told = stage.line.responses[-1], list[ProtocolViolationError]()
            stage.tampered(replayed(replace(reply, body=_as_encoded_here(reply.body))))
            sound = _timeless(await _READS[name](stage.adapter, order_id))
            for body in _with_an_odd_row(reply.body):
                stage.tampered(replayed(replace(reply, body=body)))
                shown = body[-2000:]
                try:
                    rows = await _READS[name](stage.adapter, order_id)
                except BrokerError as error:
                    raise AssertionError(f"{name}() hides all rows for an odd one in {shown!r}") from error
                must(
                    _timeless(rows)[: len(sound)] == sound, f"{name}() hides rows for an odd one in {shown!r}"
                )
                odd = odd_rows(rows)
                must(len(odd) <= 1, f"{name}() tells {len(odd)} rows as odd; there is one in {shown!r}")
                told += odd
            must(
                bool(told),
                f"{name}() never tells of an odd row: read books with orderwire.core.books.read_rows",
            )
            must(all(error.raw for error in told), f"{name}(): the error of an odd row has no bytes of it")


_COMPARED = (
    "status",
    "filled_quantity",
    "average_price",
    "symbol",
    "exchange",
    "side",
    "order_type",
    "product",
    "quantity",
    "price",
)


# --- saying what is wrong ---------------------------------------------------------------------------------


def must(holds: bool, otherwise: str) -> None:
    """Raise AssertionError with these words unless it holds."""
    if not holds:
        raise AssertionError(otherwise)


async def must_raise(wanted: type[E], call: Awaitable[Any], what: str) -> E:
    """Await the call and return the error of that class, or raise AssertionError; errors not ours pass."""
    try:
        async with asyncio.timeout(SOON):
            result = await call
    except wanted as error:
        return error
    except (BrokerError, TimeoutError) as error:
        raise AssertionError(f"{what} must raise {wanted.__name__}, not {error!r}") from error
    raise AssertionError(f"{what} must raise {wanted.__name__}, and gave {result!r}"[:2000])


async def must_end(task: asyncio.Future[Any], what: str) -> None:
    """Cancel the task; raise AssertionError unless it ends, cancelled, at once."""
    task.cancel()
    await asyncio.wait({task}, timeout=AT_ONCE)
    must(task.done(), f"{what} goes on {AT_ONCE:g} s after it was cancelled")
    must(task.cancelled(), f"{what} swallows its cancellation")


def must_be_one(line: Line, what: str) -> None:
    """Raise AssertionError unless exactly one request was sent."""
    sent = [f"{request.method} {request.path.partition('?')[0]}" for request in line.requests]
    must(
        len(sent) == 1,
        f"{what} sends {len(sent)} requests {sent}; an adapter sends one and leaves repeating to the supervisor",
    )


def must_be_one_handshake(line: Line) -> None:
    """Raise AssertionError unless the stream was dialled exactly once."""
    tries = len(line.handshakes)
    must(tries == 1, f"listen() dials {tries} times; it dials once, and the supervisor reconnects")


def must_hide(secrets: set[str], *texts: str) -> None:
    """Raise AssertionError when a text shows a secret; the message does not repeat it."""
    for text in texts:
        for secret in secrets:
            must(secret not in text, f"a secret shows in: {text.replace(secret, '***')[:300]}")


def must_be_values(result: Any) -> None:
    """Raise AssertionError unless it is Funds, or a list, of well-typed values."""
    for value in [result] if isinstance(result, Funds) else result:
        must(isinstance(value, OrderUpdate | Trade | Position | Holding | Funds), f"{value!r} is no value")
        must_be_typed(value)


def must_be_typed(value: msgspec.Struct) -> None:
    """Raise AssertionError unless every field has the type it is declared with, aware and finite."""
    for field in fields(value):
        found, wanted = getattr(value, field.name), _classes(field.type)
        name = f"{type(value).__name__}.{field.name}"
        fits = isinstance(found, wanted) and (not isinstance(found, bool) or bool in wanted)
        must(fits, f"{name} is {found!r}, not {' or '.join(each.__name__ for each in wanted)}"[:300])
        must(not isinstance(found, datetime) or found.tzinfo is not None, f"{name} is not aware")
        must(not isinstance(found, Decimal) or found.is_finite(), f"{name} is {found}")


def _classes(declared: Any) -> tuple[type, ...]:
    """Return the classes of a declared type: a NewType's own, each of a union's."""
    parts = get_args(declared)
    if parts:
        return tuple(kind for part in parts for kind in _classes(part))
    return (getattr(declared, "__supertype__", declared),)


def must_fit(value: OrderUpdate | Trade | Position, adapter: BrokerAdapter, *, channel: Channel) -> None:
    """Raise AssertionError unless an observation is well-typed and says whose, whence and when it is."""
    must_be_typed(value)
    facts = {
        "account": (value.account, adapter.profile.account),
        "broker": (value.broker, adapter.name),
        "channel": (value.channel, channel),
        "trading_date": (value.trading_date, session_date(adapter.tools.clock.now())),
    }
    for name, (found, wanted) in facts.items():
        must(found == wanted, f"{type(value).__name__}.{name} is {found!r}, not {wanted!r}")
    must(value.received_ns > 0, "received_ns: the moment its bytes were read, of tools.clock")
    must(bool(value.raw), "raw: the broker's bytes for it, as received")
    moment = getattr(value, "broker_time", None)
    must(moment is None or not moment.microsecond, "broker_time is cut to whole seconds")


# --- doing it ---------------------------------------------------------------------------------------------


async def eventually(look: Callable[[], Awaitable[T | None]], otherwise: str) -> T:
    """Return the first true answer, asking again and again; raise AssertionError with these words after SOON."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SOON
    while True:
        found = await look()
        if found:
            return found
        must(loop.time() < deadline, f"{otherwise} (within {SOON:g} s)")
        await asyncio.sleep(_PACE)


def _calls(stage: Stage, order_id: OrderId) -> dict[str, Callable[[], Awaitable[Any]]]:
    reads = {name: partial(read, stage.adapter, order_id) for name, read in _READS.items()}
    return {**reads, **_order_calls(stage, order_id)}


def _order_calls(stage: Stage, order_id: OrderId) -> dict[str, Callable[[], Awaitable[Any]]]:
    adapter = stage.adapter
    return {
        "place_order": lambda: adapter.place_order(stage.desk.resting),
        "modify_order": lambda: adapter.modify_order(stage.new_terms(order_id)),
        "cancel_order": lambda: adapter.cancel_order(order_id),
    }


async def _given(stage: Stage) -> list[tuple[EventType, Callable[[Any], None], Any]]:
    """What an adapter gives: the type of event, the method, and a real value."""
    order_id = await stage.filled()
    adapter = stage.adapter
    row = await stage.row(order_id, OrderStatus.FILLED)
    trades = await eventually(adapter.trade_book, "the trade book stays empty after an execution")
    positions = await eventually(adapter.positions, "positions() stays empty after an execution")
    return [
        (EventType.ORDER_UPDATE, adapter.on_order, row),
        (EventType.TRADE_UPDATE, adapter.on_trade, trades[0]),
        (EventType.POSITION_UPDATE, adapter.on_position, positions[0]),
    ]


def _must_refuse(give: Callable[[Any], None], value: Any) -> None:
    try:
        give(value)
    except TypeError:
        return
    raise AssertionError(f"{give.__name__} takes {value!r}; it must raise TypeError"[:300])


def _asked(line: Line) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return bool(line.requests)

    return asked


def _closed(line: Line) -> Callable[[], Awaitable[bool]]:
    async def closed() -> bool:
        return not line.streams

    return closed


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _timeless(result: Any) -> Any:
    if not isinstance(result, OrderUpdate | Trade | Position):
        return [_timeless(value) for value in result] if _is_list(result) else result
    return with_fields(result, received_ns=0)


def _word(old: str, new: str) -> Callable[[bytes], bytes]:
    """Replace a word where it stands alone between quotes or commas (JSON, CSV)."""
    pattern = re.compile(rb"(?<=[\",|])" + re.escape(old.encode()) + rb"(?=[\",|])")
    return lambda body: pattern.sub(new.encode(), body)


def _with_wrong_leaves(body: bytes) -> Iterator[bytes]:
    """Yield the JSON with each of its values in turn left out, or replaced by wrong ones."""
    try:
        whole = msgspec.json.decode(body)
    except UNDECODABLE:
        return
    for at, path in enumerate(_paths(whole)):
        for wrong in (*_WRONG, _WRONG_IN_TURN[at % len(_WRONG_IN_TURN)]):
            yield msgspec.json.encode(_replaced(whole, path, wrong))


def _with_an_odd_row(body: bytes) -> Iterator[bytes]:
    """Yield the JSON with another row at the end of each of its books, of which one field is no value at all."""
    whole = msgspec.json.decode(body)
    books = [path for path in ((), *_paths(whole)) if _is_book(_at(whole, path))]
    for name in {name: None for path in books for name in _at(whole, path)[-1]}:
        odd = whole
        for path in books:
            rows = _at(whole, path)
            odd = _replaced(odd, path, [*rows, {**rows[-1], name: {"odd": []}}])
        yield msgspec.json.encode(odd)


def _as_encoded_here(body: bytes) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(body))


def _is_book(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[-1], dict)


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _paths(value: Any) -> Iterator[tuple[Any, ...]]:
    steps: Iterable[Any] = ()
    if isinstance(value, dict):
        steps = value
    elif isinstance(value, list):
        steps = range(len(value))
    for step in steps:
        yield (step,)
        for rest in _paths(value[step]):
            yield (step, *rest)


def _replaced(value: Any, path: tuple[Any, ...], wrong: Any) -> Any:
    if not path:
        return wrong
    changed = value.copy()
    if wrong is _ABSENT and len(path) == 1:
        del changed[path[0]]
    else:
        changed[path[0]] = _replaced(value[path[0]], path[1:], wrong)
    return changed


async def _words_of(call: Awaitable[Any]) -> list[str]:
    """Await a call that fails, and return every word its error and the causes of it say."""
    words: list[str] = []
    try:
        async with asyncio.timeout(SOON):
            await call
    except BrokerError as failure:
        error: BaseException | None = failure
        while error is not None:
            words += [str(error), repr(error)]
            error = error.__cause__ or error.__context__
    return words


class _Ear(logging.Handler):
    """Hears everything that is logged while it is entered, at any level."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())

    def __enter__(self) -> None:
        root = logging.getLogger()
        self._before = root.level
        root.setLevel(logging.DEBUG)
        root.addHandler(self)

    def __exit__(self, *_raised: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self)
        root.setLevel(self._before)
