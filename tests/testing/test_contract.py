"""Every check of the contract finds the adapter that breaks its promise, and lets a sound one pass."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import ClassVar

import pytest
from msgspec.structs import replace as with_fields

from orderwire.brokers.adapter import BrokerSession, PostbackHint
from orderwire.core.books import BookRows, odd_rows
from orderwire.core.events import Event, EventType
from orderwire.core.orders import Channel, OrderId, OrderStatus, Position
from orderwire.errors import (
    BrokerError,
    BrokerUnreachableError,
    OrderRefusedError,
    PermissionRefusedError,
    ProtocolViolationError,
    RateLimitedError,
    SessionExpiredError,
)
from orderwire.testing import AdapterContract, contract
from paisa_example import PaisaAdapter, StreamingPaisaAdapter, open_desk

FAST = 0.6
"""Seconds the checks wait here for what will never come."""


def contract_of(kind):
    class Contract(AdapterContract):
        adapter_class = kind

        def desk(self):
            return open_desk(kind)

    return Contract()


def check(number, kind):
    next(each for each in contract_of(kind).checks() if each.number == number).run()


NUMBERS = [each.number for each in contract_of(StreamingPaisaAdapter).checks()]


# --- adapters that break one promise each -----------------------------------------------------------------


class Sound(StreamingPaisaAdapter):
    """What the others spoil."""


class SaysNoVersion(Sound):
    api_version = ""


class NamesForeignBudgets(Sound):
    budgets: ClassVar = {**Sound.budgets, "zerodha.read": Sound.budgets["paisa.reads"]}


class FillsCredentialsIn(Sound):
    def __init__(self, profile, tools):
        super().__init__(replace(profile, credentials={"key": "-", "pin": "-", **profile.credentials}), tools)


class AllowsPlainText(Sound):
    def __init__(self, profile, tools):
        super().__init__(replace(profile, allow_plaintext=True), tools)


class TellsItsToken(Sound):
    async def login(self, grant):
        session = await super().login(grant)
        return replace(session, facts={"header": f"Bearer {session.secrets['token']}"})


class KnowsNoZone(Sound):
    async def login(self, grant):
        session = await super().login(grant)
        return replace(session, expires_at=datetime(2026, 8, 18, 6))  # noqa: DTZ001 - the defect


class CallsWithoutALogin(Sound):
    def _token(self):
        return self.session.secrets["token"] if self.session else ""


class HidesTheEndOfASession(Sound):
    async def order_book(self):
        try:
            return await super().order_book()
        except SessionExpiredError:
            return []


class HasNoEmptyBook(Sound):
    async def trade_book(self):
        return await super().trade_book() or None


class ChangesRows(Sound):
    """Spoils every row of the order book."""

    changes: ClassVar[Mapping[str, object]]

    async def order_book(self):
        return [with_fields(row, **self.changes) for row in await super().order_book()]


class KnowsNoTime(ChangesRows):
    changes: ClassVar = {"received_ns": 0}


class LosesBytes(ChangesRows):
    changes: ClassVar = {"raw": b""}


class NamesAnotherAccount(ChangesRows):
    changes: ClassVar = {"account": "somebody"}


class CountsInFloats(ChangesRows):
    changes: ClassVar = {"average_price": 790.0}


class LosesTags(ChangesRows):
    changes: ClassVar = {"tag": ""}


class TellsHistoryBackwards(Sound):
    async def order_history(self, order_id):
        return list(reversed(await super().order_history(order_id)))


class KnowsNoSign(Sound):
    async def positions(self):
        return [with_fields(each, quantity=-abs(each.quantity)) for each in await super().positions()]


class CountsMoneyInFloats(Sound):
    async def funds(self):
        money = await super().funds()
        return with_fields(money, available=float(money.available))


class ListsTwice(Sound):
    async def instruments_of_the_day(self):
        return [*await super().instruments_of_the_day()] * 2


class SendsTwice(Sound):
    async def place_order(self, request):
        await super().place_order(request)
        return await super().place_order(request)


class NeverModifies(Sound):
    async def modify_order(self, request, *, current=None):
        await self.order_book()
        return request.order_id


class ReturnsRefusals(Sound):
    async def place_order(self, request):
        try:
            return await super().place_order(request)
        except OrderRefusedError as error:
            return OrderId(str(error))


class CallsDoubtRefused(Sound):
    async def _order(self, *parts, **more):
        try:
            return await super()._order(*parts, **more)
        except SessionExpiredError:
            raise
        except BrokerError as error:
            raise OrderRefusedError(str(error)) from error


class PlacesAgain(Sound):
    async def _order(self, *parts, **more):
        try:
            return await super()._order(*parts, **more)
        except BrokerUnreachableError:
            return await super()._order(*parts, **more)


class GuessesStatuses(Sound):
    async def order_book(self):
        rows = await super().order_book()
        return [
            with_fields(row, status=OrderStatus.OPEN) if row.status is OrderStatus.UNKNOWN else row
            for row in rows
        ]


class HidesUnknownSymbols(Sound):
    async def order_book(self):
        return [row for row in await super().order_book() if row.known_symbol]


class RemembersWhileReading(Sound):
    reads = 0

    async def order_book(self):
        self.reads += 1
        return [with_fields(row, reason=str(self.reads)) for row in await super().order_book()]


class LetsJsonEscape(Sound):
    async def _call(self, *parts, **more):
        try:
            return await super()._call(*parts, **more)
        except BrokerError as error:
            raw = getattr(error, "raw", b"")
            json.loads(raw) if raw else None
            raise


class ReadsNonsenseAsEmpty(Sound):
    async def holdings(self):
        try:
            return await super().holdings()
        except BrokerUnreachableError:
            raise
        except BrokerError:
            return []


class BelievesEverything(Sound):
    async def positions(self):
        rows, reading = await self._read("/v1/positions", "positions")
        sizes = [json.loads(bytes(raw))["net"] for raw in rows if bytes(raw)[:1] == b"{"]
        return [with_fields(_held(reading), quantity=size) for size in sizes]


def _held(reading):
    return Position(
        account=reading.account,
        broker="paisa",
        channel=reading.channel,
        trading_date=reading.trading_date,
        symbol="SBIN",
        exchange="NSE",
        product="MIS",
        quantity=0,
        received_ns=reading.received_ns,
        raw=b"{}",
    )


class ReadsAgain(Sound):
    async def order_book(self):
        try:
            return await super().order_book()
        except BrokerUnreachableError:
            return await super().order_book()


class CallsFaultsNonsense(Sound):
    async def holdings(self):
        try:
            return await super().holdings()
        except BrokerUnreachableError as error:
            raise PermissionRefusedError(str(error)) from error


class ForgetsHowLongToWait(Sound):
    async def _call(self, *parts, **more):
        try:
            return await super()._call(*parts, **more)
        except RateLimitedError as error:
            raise RateLimitedError(str(error)) from None


class HoldsOnToItsCalls(Sound):
    async def order_book(self):
        call = asyncio.ensure_future(super().order_book())
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            call.cancel()
            return []


class PublishesTwice(Sound):
    def on_trade(self, trade):
        super().on_trade(trade)
        super().on_trade(trade)


class NeedsAPublisher(Sound):
    def on_position(self, position):
        self.tools.publisher.put(Event(EventType.POSITION_UPDATE, position))


class PublishesAnything(Sound):
    def on_order(self, update):
        if self.tools.publisher is not None:
            self.tools.publisher.put(Event(EventType.ORDER_UPDATE, update))


class NeverDelivers(Sound):
    @property
    def listening(self):
        return False

    @listening.setter
    def listening(self, delivers):
        pass


class HearsNothing(Sound):
    @property
    def heard_at(self):
        return 0.0

    @heard_at.setter
    def heard_at(self, moment):
        pass


class ReturnsFromListening(Sound):
    async def listen(self):
        self.listening = False


class ClaimsRest(Sound):
    def _reading(self, channel):
        return super()._reading(Channel.REST if channel is Channel.STREAM else channel)


class StreamsAnotherPrice(Sound):
    def on_order(self, update):
        late = update.channel is Channel.STREAM and update.status is OrderStatus.FILLED
        super().on_order(with_fields(update, price=update.price + 1) if late else update)


class StreamsNothing(Sound):
    def on_order(self, update):
        pass


class GoesOnListening(Sound):
    async def listen(self):
        stream = asyncio.ensure_future(super().listen())
        try:
            await asyncio.shield(stream)
        except asyncio.CancelledError:
            await asyncio.shield(stream)
            raise


class TurnsCancellationIntoTrouble(Sound):
    async def listen(self):
        try:
            await super().listen()
        except asyncio.CancelledError:
            raise BrokerUnreachableError from None


class DialsAgain(Sound):
    async def listen(self):
        try:
            await super().listen()
        except BrokerUnreachableError:
            await super().listen()


class CallsALostLineExpired(Sound):
    async def listen(self):
        try:
            await super().listen()
        except BrokerUnreachableError as error:
            raise SessionExpiredError(str(error)) from error


class SkipsWhatItCannotRead(Sound):
    def note_violation(self, error):
        pass


class HammersWithADeadToken(Sound):
    async def listen(self):
        try:
            await super().listen()
        except SessionExpiredError as error:
            raise BrokerUnreachableError(str(error)) from error


class TellsItsPin(Sound):
    async def funds(self):
        try:
            return await super().funds()
        except BrokerError as error:
            raise BrokerUnreachableError(f"{error} with {dict(self.profile.credentials)}") from error


class ShowsItsSession(Sound):
    def __repr__(self):
        return f"<Paisa {self.session.secrets if isinstance(self.session, BrokerSession) else None}>"


class BelievesPostbacks(Sound):
    has_postback = True

    @classmethod
    def read_postback(cls, request, *, secrets):
        return PostbackHint(order_id=OrderId("1"), broker_time="", claims={})


class HidesRowsForAnOddOne(Sound):
    async def trade_book(self):
        trades = await super().trade_book()
        if odd_rows(trades):
            raise odd_rows(trades)[0]
        return trades


class SkipsOddRows(Sound):
    async def positions(self):
        return list(await super().positions())


class LosesOddBytes(Sound):
    async def order_book(self):
        rows = await super().order_book()
        return BookRows(rows, odd=[ProtocolViolationError(str(error)) for error in rows.odd])


BROKEN = {
    SaysNoVersion: (1, "api_version"),
    NamesForeignBudgets: (1, "zerodha.read"),
    FillsCredentialsIn: (2, "without key"),
    AllowsPlainText: (3, "plain-text api"),
    TellsItsToken: (4, "a secret shows"),
    KnowsNoZone: (4, "aware"),
    CallsWithoutALogin: (5, "without a session"),
    HidesTheEndOfASession: (6, "order_book with an ended session"),
    HasNoEmptyBook: (7, "trade_book"),
    KnowsNoTime: (8, "received_ns"),
    LosesBytes: (8, "raw"),
    NamesAnotherAccount: (8, "somebody"),
    CountsInFloats: (8, "average_price is 790.0, not Decimal"),
    LosesTags: (9, "tag"),
    TellsHistoryBackwards: (10, "history_index"),
    KnowsNoSign: (11, "-10"),
    CountsMoneyInFloats: (12, "available is 1000000.0, not Decimal"),
    ListsTwice: (13, "twice"),
    SendsTwice: (14, "place_order sends 2 requests"),
    NeverModifies: (15, "as OPEN at 790.50"),
    ReturnsRefusals: (16, "must raise OrderRefusedError"),
    CallsDoubtRefused: (17, "says that nothing happened"),
    PlacesAgain: (17, "sends 2 requests"),
    GuessesStatuses: (18, "became OPEN"),
    HidesUnknownSymbols: (19, "does not show order"),
    RemembersWhileReading: (20, "order_book: the same reply"),
    ReadsNonsenseAsEmpty: (21, "an empty body must raise"),
    BelievesEverything: (22, "positions reads"),
    ReadsAgain: (23, "sends 2 requests"),
    CallsFaultsNonsense: (23, "not PermissionRefusedError"),
    ForgetsHowLongToWait: (24, "retry_after is None"),
    HoldsOnToItsCalls: (25, "order_book swallows its cancellation"),
    PublishesTwice: (26, "on_trade published"),
    PublishesAnything: (28, "on_order takes None"),
    NeverDelivers: (29, "does not set `listening`"),
    HearsNothing: (29, "heard_at"),
    ReturnsFromListening: (29, "listen() returned"),
    ClaimsRest: (30, "channel is"),
    StreamsAnotherPrice: (30, "price is"),
    StreamsNothing: (30, "does not tell that the order is OPEN"),
    GoesOnListening: (31, "after it was cancelled"),
    TurnsCancellationIntoTrouble: (31, "swallows its cancellation"),
    DialsAgain: (32, "whose line is cut"),
    CallsALostLineExpired: (33, "not SessionExpiredError"),
    SkipsWhatItCannotRead: (34, "passes unnoticed"),
    HammersWithADeadToken: (35, "must raise SessionExpiredError"),
    TellsItsPin: (36, "a secret shows"),
    ShowsItsSession: (36, "a secret shows"),
    BelievesPostbacks: (37, "believes"),
    HidesRowsForAnOddOne: (38, "hides all rows"),
    SkipsOddRows: (38, "never tells of an odd row"),
    LosesOddBytes: (38, "has no bytes"),
}
RAISES_BY_ITSELF = {LetsJsonEscape: (21, json.JSONDecodeError), NeedsAPublisher: (27, AttributeError)}
"""Defects that let an error which is none of ours out of the adapter: it is what the developer sees."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(contract, "SOON", FAST)
    monkeypatch.setattr(contract, "AT_ONCE", 0.3)


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_promise_is_found_by_its_check(kind):
    number, words = BROKEN[kind]

    with pytest.raises(AssertionError, match=re.escape(words)):
        check(number, kind)


@pytest.mark.parametrize("kind", RAISES_BY_ITSELF, ids=lambda kind: kind.__name__)
def test_an_error_that_is_not_ours_comes_out_as_it_is(kind):
    number, error = RAISES_BY_ITSELF[kind]

    with pytest.raises(error):
        check(number, kind)


def test_every_check_has_an_adapter_that_breaks_it():
    assert {number for number, _ in (*BROKEN.values(), *RAISES_BY_ITSELF.values())} == set(NUMBERS)
    assert list(range(1, len(NUMBERS) + 1)) == NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_a_rest_only_adapter_keeps_every_promise(number, monkeypatch):
    monkeypatch.setattr(contract, "SOON", 10.0)
    check(number, PaisaAdapter)


def test_a_message_about_a_secret_does_not_repeat_it():
    with pytest.raises(AssertionError) as caught:
        contract.must_hide({"hunter2"}, "pin=hunter2")

    assert "hunter2" not in str(caught.value)
