"""XTS's interactive desk: every call of the REST API as a function from a checked request to a result.

Placing, modifying and cancelling answer "Request sent"; the outcome comes later from the exchange. Paths and
answers: XTS protocol document, section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, Final

from brokersim.exchange import FormalFault, Moment, formal_fault
from brokersim.faults import FaultKind, Situation
from brokersim.instruments import Instrument
from brokersim.orders import RESTING, OrderRequest, OrderSnapshot, OrderType, Reason, Side, Terms, Validity
from brokersim.portfolio import Position
from brokersim.users import XtsKind
from brokersim.world import World
from brokersim.written import Row, Written
from brokersim.xts import forms
from brokersim.xts.errors import empty, no_instrument, no_order, not_live
from brokersim.xts.forms import Fields
from brokersim.xts.lives import BROKER, Book, Life, View
from brokersim.xts.positions import Positions
from brokersim.xts.pushes import Pushes, skews
from brokersim.xts.rows import CONVERSION_CODE, Manner, number, rest_order, rest_position, rest_trade
from brokersim.xts.sessions import Session, Speaker, dealer_speakers, speaker
from brokersim.xts.settings import XtsSettings

SENT: Final = "Request sent"
_FORMAL: Final[Mapping[FormalFault, Callable[[Instrument], str]]] = {
    FormalFault.INDEX: lambda each: f"OEMS:{each.xts_display} can not be traded",
    FormalFault.QUANTITY: lambda _: "OEMS:Invalid order quantity",
    FormalFault.LOT: lambda each: f"OEMS:Order quantity is not a multiple of the lot size [{each.lot}]",
    FormalFault.PRICE: lambda _: "OEMS:Limit price is missing",
    FormalFault.TRIGGER: lambda _: "OEMS:Stop price is missing",
    FormalFault.TICK: lambda each: f"OEMS:Order price is not a multiple of the tick size [{each.tick}]",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One authenticated request. `as_of` makes books show the state of that moment; `operation` is our name for it."""

    session: Session
    fields: Fields
    operation: str
    as_of: datetime | None = None

    @property
    def client_id(self) -> str | None:
        """The clientID as sent."""
        return self.fields.get("clientID")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A success: code, description, result. `order_id` and `client` are for the ledger and the faults."""

    code: str
    description: str
    result: Any
    order_id: str = ""
    client: str = ""

    def body(self) -> dict[str, Any]:
        """Give the JSON body."""
        return {"type": "success", "code": self.code, "description": self.description, "result": self.result}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """Where an order comes from; the terminal has no app key."""

    client: str
    placed_by: str
    app: str

    @classmethod
    def of(cls, call: Call, who: Speaker) -> _Origin:
        login = call.session.login
        return cls(client=who.client, placed_by=login.login_id, app=login.app_key)


@dataclass(slots=True)
class Desk:
    """Takes calls for XTS's users. `settings` gives the present settings, `numbers` is the latest AppOrderID."""

    world: World
    book: Book
    positions: Positions
    pushes: Pushes
    settings: Callable[[], XtsSettings]
    numbers: int = field(default=0, init=False)
    _written: Written = field(default_factory=Written, init=False)

    def __post_init__(self) -> None:
        """Have orders with formal flaws refused by the order management system, after "Request sent"."""
        inner = self.world.exchange.judge

        def judge(moment: Moment, order: OrderSnapshot) -> Reason | None:
            if order.broker == BROKER and moment in {Moment.RISK, Moment.MODIFY}:
                fault = formal_fault(order.instrument, order.terms)
                if fault is not None:
                    text = _FORMAL[fault](order.instrument)
                    return Reason(text=text, raw=text)
            return inner(moment, order)

        self.world.exchange.judge = judge

    # ---- orders

    def place(self, call: Call) -> Answer:
        """Take an order."""
        fields = forms.PLACE.read(call.fields)
        who = speaker(call.session.login, call.client_id)
        order = self._place(_Origin.of(call, who), fields)
        return self._sent(order.order_id, who, tag=order.request.tag)

    def place_from_terminal(self, client: str, fields: Fields) -> OrderSnapshot:
        """Take an order as if from the broker's own terminal, for the control API. Raises XtsError."""
        return self._place(_Origin(client=client, placed_by=client, app=""), forms.PLACE.read(fields))

    def _place(self, origin: _Origin, fields: Fields) -> OrderSnapshot:
        instrument = self._instrument(fields["exchangeSegment"], forms.whole(fields, "exchangeInstrumentID"))
        return self._submit(
            origin,
            instrument,
            side=forms.side(fields),
            product=fields["productType"],
            terms=forms.placed_terms(fields),
            tag=fields.get("orderUniqueIdentifier") or "",
            meta={"apiOrderSource": fields.get("apiOrderSource") or ""},
        )

    def modify(self, call: Call) -> Answer:
        """Ask for new terms."""
        fields = forms.MODIFY.read(call.fields)
        who = speaker(call.session.login, call.client_id)
        order = self._resting(who, fields)
        self.world.exchange.modify(order.uid, forms.modified_terms(fields))
        return self._sent(order.order_id, who, tag=order.request.tag)

    def cancel(self, call: Call) -> Answer:
        """Ask for cancellation."""
        fields = forms.CANCEL.read(call.fields)
        who = speaker(call.session.login, call.client_id)
        order = self._resting(who, fields)
        self.world.exchange.cancel(order.uid)
        answer = self._sent(order.order_id, who, tag=order.request.tag)
        if not self.settings().cancel_as_list:
            return answer
        return Answer(
            code=answer.code,
            description=SENT,
            result=[answer.result],
            order_id=order.order_id,
            client=who.client,
        )

    def cancel_all(self, call: Call) -> Answer:
        """Ask for cancellation of whatever rests in a segment, or in one of its contracts."""
        fields = forms.CANCEL_ALL.read(call.fields)
        who = speaker(call.session.login, call.client_id)
        wanted = forms.whole(fields, "exchangeInstrumentID")
        for life in list(self.book.of((who.client,))):
            order = life.now.order
            fits = order.instrument.xts_segment == fields["exchangeSegment"]
            if fits and wanted in {0, order.instrument.xts_id} and order.stage in RESTING:
                self.world.exchange.cancel(order.uid)
        return Answer(code="s-orders-0001", description=SENT, result={}, client=who.client)

    def orders(self, call: Call) -> Answer:
        """Give the order book, or the history of one order."""
        fields = forms.BOOK.read(call.fields)
        who = speaker(call.session.login, call.client_id)
        if fields.get("appOrderID") is not None:
            return self._history(call, who, str(forms.whole(fields, "appOrderID")))
        return self._order_book(call, [who], "Success order book")

    def dealer_orders(self, call: Call) -> Answer:
        """Give the order book of a dealer's client, or of all."""
        fields = forms.BOOK.read(call.fields)
        speakers = dealer_speakers(call.session.login, fields.get("clientID"))
        return self._order_book(call, speakers, "Success order book", dealer_book=True)

    def trades(self, call: Call) -> Answer:
        """Give the trade book."""
        forms.BOOK.read(call.fields)
        return self._trade_book(call, [speaker(call.session.login, call.client_id)])

    def dealer_trades(self, call: Call) -> Answer:
        """Give the trade book of a dealer's client, or of all."""
        forms.BOOK.read(call.fields)
        return self._trade_book(call, dealer_speakers(call.session.login, call.client_id), dealer_book=True)

    def _history(self, call: Call, who: Speaker, order_id: str) -> Answer:
        life = self._life(who, order_id)
        early = self._fault(call, FaultKind.EARLY_HISTORY, who.client, order_id)
        age = self.world.timeline.date - life.views[0].updated_at
        if early is not None and age.total_seconds() < early.seconds(1.0):
            raise no_order()
        views = life.as_of(call.as_of)
        if not views:
            raise no_order()
        rows = [rest_order(view, self._manner(call, view, who), history=True) for view in views]
        return Answer(
            code="s-orders-0001",
            description="Success order history",
            result=rows,
            order_id=order_id,
            client=who.client,
        )

    def _order_book(
        self, call: Call, speakers: list[Speaker], description: str, *, dealer_book: bool = False
    ) -> Answer:
        rows = [
            rest_order(views[-1], self._manner(call, views[-1], who), dealer_book=dealer_book)
            for who in speakers
            for life in self.book.of((who.client,))
            if (views := life.as_of(call.as_of))
        ]
        client = speakers[0].client
        self._refuse_empty(call, rows, "orders", client)
        return Answer(code="s-orders-0001", description=description, result=rows, client=client)

    def _trade_book(self, call: Call, speakers: list[Speaker], *, dealer_book: bool = False) -> Answer:
        found = [
            (view.trade, view, who)
            for who in speakers
            for life in self.book.of((who.client,))
            for view in life.as_of(call.as_of)
            if view.trade
        ]
        found.sort(key=lambda each: each[0].at)
        rows = []
        for trade, view, who in found:
            manner = self._manner(call, view, who)
            write = partial(rest_trade, view, trade, manner, dealer_book=dealer_book)
            rows.append(self._written.row(view, write, how=(manner, dealer_book)))
        self._refuse_empty(call, rows, "tradeBook", speakers[0].client)
        return Answer(
            code="s-orders-0001", description="Success trade book", result=rows, client=speakers[0].client
        )

    # ---- portfolio

    def client_positions(self, call: Call) -> Answer:
        """Give a client's positions; day-wise and net-wise are the same, nothing is carried forward."""
        forms.POSITIONS.read(call.fields)
        return self._positions(call, [speaker(call.session.login, call.client_id)])

    def dealer_positions(self, call: Call) -> Answer:
        """Give the positions of a dealer's client, or of all."""
        forms.POSITIONS.read(call.fields)
        return self._positions(call, dealer_speakers(call.session.login, call.client_id))

    def _positions(self, call: Call, speakers: list[Speaker]) -> Answer:
        client = speakers[0].client
        bare = self._fault(call, FaultKind.MISSING_FIELDS, client) is not None
        rows = [
            rest_position(position, account=who.in_books, bare=bare)
            for who in speakers
            for position in self.positions.of(who.client)
        ]
        self._refuse_empty(call, rows, "portfolio", client)
        return Answer(
            code="s-portfolio-0005",
            description="Get Net Position successfully!",
            result={"positionList": rows},
            client=client,
        )

    def holdings(self, call: Call) -> Answer:
        """Say that there are no holdings: the day begins with none."""
        who = speaker(call.session.login, call.client_id)
        self._refuse_empty(call, [], "holdings", who.client)
        return Answer(
            code="s-portfolio-0001",
            description="Success",
            result={"RMSHoldings": {"Holdings": {}}, "ClientId": who.in_books},
            client=who.client,
        )

    def convert(self, call: Call) -> Answer:
        """Move part of a position to another product and tell it with a `tradeConversion` event."""
        fields = forms.CONVERT.read(call.fields)
        who = speaker(call.session.login, call.client_id)
        position = self._position(who, fields, fields["oldProductType"])
        quantity = min(forms.whole(fields, "targetQty"), abs(position.quantity))
        bought = position.quantity > 0
        target = self.positions.convert(who.client, position, fields["newProductType"], quantity)
        row = self._conversion(call, who, fields, target, quantity, bought=bought)
        self.pushes.send(who.client, "tradeConversion", lambda _: row, what="tradeConversion")
        for each in (position, target):
            self.pushes.tell_position(who.client, each, Manner(client=who.client))
        return Answer(
            code="s-portfolio-0001",
            description="Position conversion request sent",
            result={},
            client=who.client,
        )

    def _conversion(
        self, call: Call, who: Speaker, fields: Fields, target: Position, quantity: int, *, bought: bool
    ) -> Row:
        segment, instrument_id = target.instrument.xts_segment, target.instrument.xts_id
        value = number(-target.average * quantity if bought else target.average * quantity)
        return {
            "LoginID": call.session.user_id,
            "ClientID": who.client,
            "UniqueKey": f"{call.session.user_id}:Client:{who.client}:{fields['newProductType']}:NONE:"
            f"{segment}:{instrument_id}:ParentLevel",
            "Success": True,
            "ErrorMessage": "",
            "OriginalProduct": fields["oldProductType"],
            "TargetProduct": fields["newProductType"],
            "OriginalQty": quantity,
            "TargetQty": quantity,
            "EntityType": "Client",
            "ExchangeSegment": segment,
            "ExchangeInstrumentId": 0,
            "TargetEntityId": who.client,
            "NetValue": value,
            "Status": "PositionConverted",
            "RejectionReason": "",
            "RejectedBy": "",
            "Price": value,
            "NOWTimeStamp": self.world.timeline.date.replace(tzinfo=None).isoformat(timespec="microseconds"),
            "OrderSide": "Buy" if bought else "Sell",
            "IsProOrder": call.session.login.kind is XtsKind.PRO,
            "MessageCode": CONVERSION_CODE,
            "MessageVersion": 4,
            "TokenID": 0,
            "ApplicationType": 0,
            "SequenceNumber": 0,
        }

    def square_off(self, call: Call) -> Answer:
        """Place the market order that closes a position, or the asked part of it."""
        fields = forms.SQUARE_OFF.read(call.fields)
        who = speaker(call.session.login, call.client_id)
        position = self._position(who, fields, fields["productType"])
        wanted = forms.whole(fields, "squareOffQtyValue")
        open_quantity = abs(position.quantity)
        if fields["positionSquareOffQuantityType"] == "Percentage":
            wanted = open_quantity * min(wanted, 100) // 100
        self._close(call, who, position, min(wanted, open_quantity))
        return Answer(
            code="s-portfolio-0001", description="Squareoff request sent", result={}, client=who.client
        )

    def square_off_all(self, call: Call) -> Answer:
        """Place the market orders that close every open position."""
        forms.SQUARE_OFF_ALL.read(call.fields)
        who = speaker(call.session.login, call.client_id)
        for position in self.positions.of(who.client):
            self._close(call, who, position, abs(position.quantity))
        return Answer(
            code="s-portfolio-0001", description="Squareoff request sent", result={}, client=who.client
        )

    def _close(self, call: Call, who: Speaker, position: Position, quantity: int) -> None:
        if quantity:
            self._submit(
                _Origin.of(call, who),
                position.instrument,
                side=Side.SELL if position.quantity > 0 else Side.BUY,
                product=position.product,
                terms=Terms(type=OrderType.MARKET, quantity=quantity, validity=Validity.DAY),
            )

    # ---- user

    def balance(self, call: Call) -> Answer:
        """Give the limits; all numbers are text."""
        who = speaker(call.session.login, call.client_id)
        account = self.world.users.account(BROKER, who.client)
        held = self.positions.of(who.client)
        realised = sum((each.realised for each in held), Decimal(0))
        unrealised = sum((each.unrealised for each in held), Decimal(0))
        utilized = account.cash - account.available
        sub_limits = {
            "cashAvailable": account.cash,
            "collateral": Decimal(0),
            "marginUtilized": utilized,
            "netMarginAvailable": account.available,
            "MTM": realised + unrealised,
            "UnrealizedMTM": unrealised,
            "RealizedMTM": realised,
        }
        limits = {
            "RMSSubLimits": {name: f"{value:.2f}" for name, value in sub_limits.items()},
            "marginAvailable": {
                "CashMarginAvailable": f"{account.cash:.2f}",
                "AdhocMargin": "0",
                "NotinalCash": "0",
            },
            "marginUtilized": {
                "GrossExposureMarginPresent": f"{utilized:.2f}",
                "BuyExposureMarginPresent": "0",
            },
            "limitsAssigned": {"CNCLimit": "0", "TurnoverLimitPresent": "0", "MTMLossLimitPresent": "0"},
            "AccountID": who.in_books,
        }
        result = {"BalanceList": [{"limitHeader": "ALL|ALL|ALL", "limitObject": limits}]}
        return Answer(code="s-user-0001", description="Success balance", result=result, client=who.client)

    def profile(self, call: Call) -> Answer:
        """Describe the client."""
        who = speaker(call.session.login, call.client_id)
        kind = call.session.login.kind
        result = {
            "ClientId": who.in_books,
            "ClientName": f"Demo client {who.client}",
            "EmailId": "",
            "MobileNo": "",
            "PAN": "",
            "DematAccountNumber": "",
            "IncludeInAutoSquareoff": False,
            "IncludeInAutoSquareoffBlocked": False,
            "IsProClient": kind is XtsKind.PRO,
            "IsInvestorClient": kind is XtsKind.INVESTOR,
            "ClientBankInfoList": [],
            "ClientExchangeDetailsList": {},
        }
        return Answer(code="s-user-0001", description="Success profile", result=result, client=who.client)

    def enums(self, call: Call) -> Answer:
        """Give the words of the API."""
        client = call.session.login.clients[0]
        return Answer(code="s-user-0001", description="Success enums", result=ENUMS, client=client)

    # ---- common

    def new_order_id(self) -> str:
        """Give an AppOrderID: ten digits that go on growing after a restart on the same day."""
        now = self.world.timeline.date
        milliseconds = ((now.hour * 60 + now.minute) * 60 + now.second) * 1000 + now.microsecond // 1000
        self.numbers = max(self.numbers + 1, 1_100_000_000 + milliseconds)
        return str(self.numbers)

    def _submit(
        self,
        origin: _Origin,
        instrument: Instrument,
        *,
        side: Side,
        product: str,
        terms: Terms,
        tag: str = "",
        meta: Mapping[str, Any] | None = None,
    ) -> OrderSnapshot:
        return self.world.exchange.submit(
            OrderRequest(
                broker=BROKER,
                order_id=self.new_order_id(),
                user=origin.client,
                placed_by=origin.placed_by,
                app=origin.app,
                instrument=instrument,
                side=side,
                product=product,
                terms=terms,
                tag=tag,
                meta=meta or {},
            )
        )

    def _sent(self, order_id: str, who: Speaker, *, tag: str) -> Answer:
        result: dict[str, Any] = {"AppOrderID": int(order_id)}
        if tag:
            result["OrderUniqueIdentifier"] = tag
        result["ClientID"] = who.in_answer
        return Answer(
            code="s-orders-0001", description=SENT, result=result, order_id=order_id, client=who.client
        )

    def _instrument(self, segment: str, number_: int) -> Instrument:
        for each in self.world.exchange.instruments:
            if (each.xts_segment, each.xts_id) == (segment, number_):
                return each
        raise no_instrument()

    def _life(self, who: Speaker, order_id: str) -> Life:
        life = self.book.lives.get(order_id)
        if life is None or life.now.order.user != who.client:
            raise no_order()
        return life

    def _resting(self, who: Speaker, fields: Fields) -> OrderSnapshot:
        view = self._life(who, str(forms.whole(fields, "appOrderID"))).now
        if view.order.stage not in RESTING:
            raise not_live(view.status)
        return view.order

    def _position(self, who: Speaker, fields: Fields, product: str) -> Position:
        instrument = self._instrument(fields["exchangeSegment"], forms.whole(fields, "exchangeInstrumentID"))
        position = self.positions.find(who.client, instrument.key, product)
        if position is None or position.quantity == 0:
            raise empty("portfolio")
        return position

    def _refuse_empty(self, call: Call, rows: list[Row], book: str, client: str) -> None:
        if not rows and self._fault(call, FaultKind.EMPTY_SUCCESS, client) is None:
            raise empty(book)

    def _manner(self, call: Call, view: View, who: Speaker) -> Manner:
        order = view.order
        strike = self.world.faults.first
        situation = self._situation(call, order.user, order.order_id)
        return Manner(
            client=who.in_books,
            old=strike(situation, FaultKind.OLD_FORMAT) is not None,
            bare=strike(situation, FaultKind.MISSING_FIELDS) is not None,
            **skews(strike(situation, FaultKind.CLOCK_SKEW)),
        )

    def _fault(self, call: Call, kind: FaultKind, client: str, order_id: str = "") -> Any:
        return self.world.faults.first(self._situation(call, client, order_id), kind)

    def _situation(self, call: Call, client: str, order_id: str) -> Situation:
        return Situation(
            broker=BROKER, channel="rest", user=client, order_id=order_id, operation=call.operation
        )


ENUMS: Final[dict[str, Any]] = {
    "socketEvent": [
        "joined",
        "error",
        "warning",
        "success",
        "order",
        "trade",
        "logout",
        "position",
        "tradeConversion",
        "marketStatusUpdate",
        "exchangeAdapterState",
        "gttOrder",
        "gttOrderRejection",
    ],
    "orderSide": ["BUY", "SELL"],
    "orderSource": ["TWSAPI", "WebAPI", "MobileAndroidAPI", "MobileWindowsAPI", "MobileIOSAPI"],
    "positionSqureOffMode": ["DayWise", "NetWise"],
    "positionSquareOffQuantityType": ["Percentage", "ExactQty"],
    "dayOrNet": ["DAY", "NET"],
    "instrumentType": ["Futures", "Options", "Spread", "Equity"],
    "exchangeSegment": ["NSECM", "NSEFO", "NSECD", "BSECM", "BSEFO", "MCXFO"],
    "exchangeInfo": {
        segment: {
            "orderType": ["Limit", "Market", "StopLimit", "StopMarket"],
            "timeInForce": ["DAY", "IOC"],
            "productType": ["NRML", "MIS", "CNC"] if segment.endswith("CM") else ["NRML", "MIS"],
        }
        for segment in ("NSECM", "NSEFO", "NSECD", "BSECM", "BSEFO", "MCXFO")
    },
}
