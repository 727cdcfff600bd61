"""Kite's order desk: takes places, modifies and cancels, refuses some at once, hands the rest to the exchange.

Refusals made here never appear in the book nor as a push; refusals by risk control or exchange are REJECTED rows.
"""

import secrets
from dataclasses import dataclass, field, replace
from decimal import ROUND_DOWN, Decimal
from typing import Any, Final

from brokersim.kite import forms
from brokersim.kite.errors import KiteError, bad_input, no_order, shortfall
from brokersim.kite.forms import Form
from brokersim.kite.rows import number
from brokersim.kite.sessions import Session
from brokersim.orders import (
    RESTING,
    Cause,
    ExchangeEvent,
    OrderRequest,
    OrderSnapshot,
    OrderType,
    Stage,
    Terms,
)
from brokersim.world import World

BROKER: Final = "kite"
MOST_MODIFICATIONS: Final = 25
MOST_SLICES: Final = 10
# The instant the numbers of 19-digit ids count from, in milliseconds, and the bits left for a counter.
_ID_EPOCH: Final = 1_288_834_974_657
_ID_BITS: Final = 22
_AUTOMATIC_PROTECTION: Final = Decimal(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """An order as read from its form, before it has an id."""

    request: OrderRequest
    protection: Decimal


@dataclass(slots=True, kw_only=True)
class Iceberg:
    """The legs of one iceberg that are still to be placed."""

    quantities: list[int]
    total: int
    legs: int
    leg_quantity: int
    first: str = ""
    placed: int = 0


@dataclass(slots=True)
class Desk:
    """Takes orders for Kite's users. Listens to the exchange for the next leg of icebergs and cover orders.

    `numbers` counts the order ids given out. `icebergs` and `covers` are by the order id whose fill they wait for:
    the legs to come, and the trigger price of the order that covers it.
    """

    world: World
    numbers: int = 0
    icebergs: dict[str, Iceberg] = field(default_factory=dict)
    covers: dict[str, Decimal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin to listen."""
        self.world.exchange.subscribe(self._follow)

    def place(self, session: Session, variety: str, form: Form) -> dict[str, Any] | list[dict[str, Any]]:
        """Take an order and give the `data` of the answer. Raises KiteError."""
        draft = self._draft(session, forms.variety(variety), form)
        if form.get("autoslice", "").lower() == "true":
            return self._slices(draft)
        if variety == "iceberg":
            return self._iceberg(draft, form)
        order = self._submit(draft)
        if variety == "co":
            self.covers[order.order_id] = forms.decimal(form, "trigger_price")
        return {"order_id": order.order_id}

    def modify(self, session: Session, variety: str, order_id: str, form: Form) -> dict[str, Any]:
        """Ask for new terms; the answer says only that the request was taken. Raises KiteError."""
        order = own_order(self.world, session, order_id)
        self._check_variety(order, forms.variety(variety))
        if order.modifications >= MOST_MODIFICATIONS:
            raise bad_input("Maximum allowed order modifications exceeded.")
        if order.stage not in RESTING | {Stage.AMO_RECEIVED}:
            raise bad_input("Order cannot be modified as it is being processed. Try later.")
        terms = forms.changed_terms(form, order.terms)
        forms.check_terms(order.instrument, terms)
        becomes_market = order.terms.type.priced and not terms.type.priced
        needed = self.world.settings.kite_market_protection and becomes_market
        forms.protection(form, terms, needed=needed)
        self.world.exchange.modify(order.uid, terms)
        return {"order_id": order_id}

    def cancel(self, session: Session, variety: str, order_id: str) -> dict[str, Any]:
        """Ask for cancellation; the answer says only that the request was taken. Raises KiteError."""
        order = own_order(self.world, session, order_id)
        self._check_variety(order, forms.variety(variety))
        if order.stage not in RESTING | {Stage.AMO_RECEIVED}:
            raise bad_input("Order cannot be cancelled as it is being processed. Try later.")
        self.icebergs.pop(order_id, None)
        self.world.exchange.cancel(order.uid)
        return {"order_id": order_id}

    def new_order_id(self) -> str:
        """Make an order id: 19 digits, 15 digits, or both kinds in turn, as the settings say."""
        self.numbers += 1
        style = self.world.settings.kite_order_ids
        short = style == "15" or (style == "mixed" and self.numbers % 2 == 0)
        if short:
            return f"{self.world.timeline.date:%y%m%d}{self.numbers:09}"
        millis = int(self.world.timeline.now * 1000) - _ID_EPOCH
        return str((millis << _ID_BITS) | (self.numbers % (1 << _ID_BITS)))

    # --- reading a placing call --------------------------------------------------------------------------

    def _draft(self, session: Session, variety: str, form: Form) -> _Draft:
        contract = forms.instrument(form, self.world.exchange)
        terms = forms.new_terms(form)
        forms.check_terms(contract, terms)
        needed = self.world.settings.kite_market_protection
        protection = forms.protection(form, terms, needed=needed)
        request = OrderRequest(
            broker=BROKER,
            order_id="",
            user=session.user,
            placed_by=session.user,
            app=session.api_key,
            instrument=contract,
            side=forms.side(form),
            product=forms.product(form),
            terms=terms,
            variety=variety,
            tag=forms.tag(form),
            ttl_minutes=forms.whole(form, "validity_ttl", 0),
            amo=variety == "amo",
            meta={"guid": self._guid(session)} | self._echo(protection),
        )
        return _Draft(request=request, protection=protection)

    def _guid(self, session: Session) -> str:
        app = self.world.users.kite_apps.get(session.api_key)
        return f"{app.app_id if app else '01'}X{secrets.token_hex(8)}"

    def _echo(self, protection: Decimal) -> dict[str, Any]:
        return {"market_protection": number(protection)} if self.world.settings.kite_echo_protection else {}

    def _submit(self, draft: _Draft) -> OrderSnapshot:
        request = replace(draft.request, order_id=self.new_order_id())
        self._check_margin(request)
        return self.world.exchange.submit(self._protected(request, draft.protection))

    def _check_margin(self, request: OrderRequest) -> None:
        if not self.world.settings.kite_margin_at_once:
            return
        now = self.world.timeline.date
        row = OrderSnapshot(
            request=request,
            number=0,
            stage=Stage.RECEIVED,
            cause=Cause.PLACED,
            terms=request.terms,
            received_at=now,
            updated_at=now,
        )
        if reason := self.world.margin_shortfall(row):
            raise shortfall(reason.text)

    def _protected(self, request: OrderRequest, protection: Decimal) -> OrderRequest:
        """Store a market order with protection as LIMIT at the protection price, with its system tags."""
        if request.terms.type is not OrderType.MARKET or protection == 0:
            return request
        if not self.world.settings.kite_market_as_limit:
            return request
        percent = _AUTOMATIC_PROTECTION if protection < 0 else protection
        terms = replace(request.terms, type=OrderType.LIMIT, price=self._protection_price(request, percent))
        tags = [*request.meta.get("tags", ()), "mktp", f"mktp:{percent:.2f}"]
        return replace(request, terms=terms, aggressive=True, meta={**request.meta, "tags": tags})

    def _protection_price(self, request: OrderRequest, percent: Decimal) -> Decimal:
        last = self.world.last_price(request.instrument.key)
        low, high = request.instrument.band
        distance = last * percent / 100 * (1 if request.side.value == "BUY" else -1)
        tick = request.instrument.tick
        ticks = ((last + distance) / tick).to_integral_value(rounding=ROUND_DOWN)
        return min(max(ticks * tick, low), high)

    # --- slices, icebergs and cover orders ---------------------------------------------------------------

    def _slices(self, draft: _Draft) -> dict[str, Any] | list[dict[str, Any]]:
        most = draft.request.instrument.freeze // draft.request.instrument.lot * draft.request.instrument.lot
        quantities = _split(draft.request.terms.quantity, most)
        if len(quantities) > MOST_SLICES:
            raise bad_input(f"Order cannot be sliced into more than {MOST_SLICES} orders.")
        parent = self.new_order_id()
        tags = ["autoslice", f"autoslice:{parent}"]
        children = [self._slice(draft, quantity, tags) for quantity in quantities]
        if self.world.settings.kite_autoslice_array:
            return [{"order_id": parent}, *children]
        return {"order_id": parent, "children": children}

    def _slice(self, draft: _Draft, quantity: int, tags: list[str]) -> dict[str, Any]:
        request = draft.request
        terms = replace(request.terms, quantity=quantity)
        child = replace(draft, request=replace(request, terms=terms, meta={**request.meta, "tags": tags}))
        try:
            return {"order_id": self._submit(child).order_id}
        except KiteError as error:
            details = {"error_type": error.error_type, "message": error.message, "data": None}
            return {"error": {"code": error.status, **details}}

    def _iceberg(self, draft: _Draft, form: Form) -> dict[str, Any]:
        count, each = forms.legs(form, draft.request.terms.quantity)
        total = draft.request.terms.quantity
        plan = Iceberg(quantities=_split(total, each), total=total, legs=count, leg_quantity=each)
        self._check_margin(draft.request)
        return {"order_id": self._next_leg(self._protected(draft.request, draft.protection), plan)}

    def _next_leg(self, request: OrderRequest, plan: Iceberg) -> str:
        quantity = plan.quantities.pop(0)
        plan.placed += 1
        meta = {
            "iceberg": {
                "leg": plan.placed,
                "legs": plan.legs,
                "leg_quantity": plan.leg_quantity,
                "total_quantity": plan.total,
                "remaining_quantity": sum(plan.quantities),
            }
        }
        order_id = self.new_order_id()
        leg = replace(
            request,
            order_id=order_id,
            parent_id=plan.first,
            terms=replace(request.terms, quantity=quantity),
            meta={**request.meta, "meta": meta},
        )
        plan.first = plan.first or order_id
        self.icebergs[order_id] = plan
        self.world.exchange.submit(leg)
        return order_id

    def _follow(self, event: ExchangeEvent) -> None:
        order = event.order
        if order.broker != BROKER or order.live:
            return
        plan = self.icebergs.pop(order.order_id, None)
        trigger = self.covers.pop(order.order_id, None)
        if order.stage is not Stage.FILLED:
            return
        if plan is not None and plan.quantities:
            self._next_leg(order.request, plan)
        if trigger is not None:
            self._cover(order, trigger)

    def _cover(self, order: OrderSnapshot, trigger: Decimal) -> None:
        terms = Terms(type=OrderType.SLM, quantity=order.filled, trigger_price=trigger)
        request = replace(
            order.request,
            order_id=self.new_order_id(),
            parent_id=order.order_id,
            side=order.side.other,
            terms=terms,
        )
        self.world.exchange.submit(request)

    # --- checks of modify and cancel ---------------------------------------------------------------------

    @staticmethod
    def _check_variety(order: OrderSnapshot, variety: str) -> None:
        if variety == "amo" and order.stage is not Stage.AMO_RECEIVED:
            # Once the market is open an AMO must be addressed as regular; with amo the call times out.
            text = f"request {secrets.token_urlsafe(24)} timed out"
            raise KiteError(504, "NetworkException", text)


def own_order(world: World, session: Session, order_id: str) -> OrderSnapshot:
    """Find one of the caller's orders. Raises KiteError."""
    try:
        order = world.exchange.order(f"{BROKER}:{order_id}")
    except LookupError:
        raise no_order(order_id) from None
    if order.user != session.user:
        raise no_order(order_id)
    return order


def _split(total: int, most: int) -> list[int]:
    full, rest = divmod(total, max(most, 1))
    return [most] * full + ([rest] if rest else [])
