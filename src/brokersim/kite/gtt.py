"""Kite's GTT: orders that wait at the broker for a price and are placed when it is reached.

Creating or changing one gives no order update; the LIMIT order placed on the trigger does, as any order.
"""

import json
import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final

from brokersim.instruments import Instrument
from brokersim.kite.desk import Desk
from brokersim.kite.errors import KiteError, bad_input
from brokersim.kite.forms import Form, text
from brokersim.kite.rows import number, stamp
from brokersim.kite.sessions import Session
from brokersim.world import World

WATCH_INTERVAL: Final = 0.25
_LIFE: Final = timedelta(days=365)
_KINDS: Final = {"single": 1, "two-leg": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """One GTT. The first value of a two-leg fires when the price falls to it, the second when it rises to it."""

    id: int
    session: Session
    kind: str
    instrument: Instrument
    values: tuple[Decimal, ...]
    orders: tuple[dict[str, Any], ...]
    reference: Decimal
    created_at: datetime
    updated_at: datetime
    status: str = "active"
    results: tuple[dict[str, Any] | None, ...] = ()


@dataclass(slots=True)
class Triggers:
    """Every user's GTTs. Watches prices only while one is active."""

    world: World
    desk: Desk
    _triggers: dict[int, Trigger] = field(default_factory=dict)
    _watching: bool = False

    def place(self, session: Session, form: Form) -> dict[str, Any]:
        """Create one. Raises KiteError."""
        trigger = self._read_form(session, form, len(self._triggers) + 1)
        self._triggers[trigger.id] = trigger
        self._watch()
        return {"trigger_id": trigger.id}

    def modify(self, session: Session, trigger_id: str, form: Form) -> dict[str, Any]:
        """Replace one that is active. Raises KiteError."""
        old = self._own(session, trigger_id)
        if old.status != "active":
            raise bad_input("GTT cannot be modified as it is not active.")
        changed = self._read_form(session, form, old.id)
        self._triggers[old.id] = replace(changed, created_at=old.created_at)
        return {"trigger_id": old.id}

    def delete(self, session: Session, trigger_id: str) -> dict[str, Any]:
        """Delete one; it stays readable as deleted. Raises KiteError."""
        old = self._own(session, trigger_id)
        self._triggers[old.id] = replace(old, status="deleted", updated_at=self.world.timeline.date)
        return {"trigger_id": old.id}

    def read(self, session: Session, trigger_id: str) -> dict[str, Any]:
        """Show one. Raises KiteError."""
        return _row(self._own(session, trigger_id))

    def listing(self, session: Session) -> list[dict[str, Any]]:
        """Show all of a user."""
        return [_row(each) for each in self._triggers.values() if each.session.user == session.user]

    def remember(self) -> tuple[Trigger, ...]:
        """Give every GTT there ever was."""
        return tuple(self._triggers.values())

    def restore(self, triggers: tuple[Trigger, ...]) -> None:
        """Go on with those that `remember` gave before a restart."""
        self._triggers = {each.id: each for each in triggers}
        self._watch()

    def _own(self, session: Session, trigger_id: str) -> Trigger:
        found = self._triggers.get(int(trigger_id)) if trigger_id.isdecimal() else None
        if found is None or found.session.user != session.user:
            raise KiteError(404, "GeneralException", "Trigger not found")
        return found

    def _read_form(self, session: Session, form: Form, trigger_id: int) -> Trigger:
        kind = text(form, "type")
        condition, orders = _parsed(form, "condition", dict), _parsed(form, "orders", list)
        if kind not in _KINDS or len(orders) != _KINDS[kind]:
            raise bad_input("Invalid `type` or `orders`.")
        key = f"{condition.get('exchange')}:{condition.get('tradingsymbol')}"
        instrument = self.world.exchange.instrument(key)
        values = condition.get("trigger_values")
        if instrument is None or not _are_prices(values) or len(values) != _KINDS[kind]:
            raise bad_input("Invalid `condition`.")
        now = self.world.timeline.date
        return Trigger(
            id=trigger_id,
            session=session,
            kind=kind,
            instrument=instrument,
            values=tuple(Decimal(str(value)) for value in values),
            orders=tuple(orders),
            reference=self.world.last_price(key),
            created_at=now,
            updated_at=now,
            results=(None,) * len(orders),
        )

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self.world.timeline.after(WATCH_INTERVAL, self._look)

    def _look(self) -> None:
        self._watching = False
        active = [each for each in self._triggers.values() if each.status == "active"]
        for trigger in active:
            last = self.world.last_price(trigger.instrument.key)
            leg = fired_leg(trigger, last)
            if leg is not None:
                self._triggers[trigger.id] = self._fire(trigger, leg, last)
        if active:
            self._watch()

    def _fire(self, trigger: Trigger, leg: int, last: Decimal) -> Trigger:
        order = trigger.orders[leg]
        form = {key: str(value) for key, value in order.items()}
        place = partial(self.desk.place, trigger.session, "regular")
        try:
            outcome = {"status": "success", "order_id": _order_id(place(form)), "rejection_reason": ""}
        except KiteError as error:
            outcome = {"status": "failed", "order_id": "", "rejection_reason": error.message}
        now = self.world.timeline.date
        app_id = self.world.users.kite_apps[trigger.session.api_key].app_id
        result = {
            **order,
            "account_id": trigger.session.user,
            "meta": json.dumps({"app_id": app_id, "gtt": trigger.id}),
            "timestamp": stamp(now),
            "triggered_at": number(last),
            "order_result": outcome,
        }
        results = tuple(result if index == leg else None for index in range(len(trigger.orders)))
        return replace(trigger, status="triggered", updated_at=now, results=results)


def fired_leg(trigger: Trigger, last: Decimal) -> int | None:
    """Say which leg of a trigger the price has reached, if any."""
    if trigger.kind == "single":
        value = trigger.values[0]
        reached = last >= value if value >= trigger.reference else last <= value
        return 0 if reached else None
    low, high = trigger.values
    return 0 if last <= low else 1 if last >= high else None


def _are_prices(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int | float) and math.isfinite(value) for value in values
    )


def _order_id(data: dict[str, Any] | list[dict[str, Any]]) -> str:
    return str(data["order_id"]) if isinstance(data, dict) else ""


def _parsed(form: Form, name: str, kind: type[Any]) -> Any:
    try:
        found = json.loads(text(form, name))
    except ValueError:
        raise bad_input(f"Invalid `{name}`.") from None
    if not isinstance(found, kind):
        raise bad_input(f"Invalid `{name}`.")
    return found


def _row(trigger: Trigger) -> dict[str, Any]:
    condition = {
        "exchange": trigger.instrument.exchange,
        "last_price": number(trigger.reference),
        "tradingsymbol": trigger.instrument.symbol,
        "trigger_values": [number(value) for value in trigger.values],
        "instrument_token": trigger.instrument.kite_token,
    }
    orders = [
        {**order, "result": result} for order, result in zip(trigger.orders, trigger.results, strict=True)
    ]
    return {
        "id": trigger.id,
        "user_id": trigger.session.user,
        "parent_trigger": None,
        "type": trigger.kind,
        "created_at": stamp(trigger.created_at),
        "updated_at": stamp(trigger.updated_at),
        "expires_at": stamp(trigger.created_at + _LIFE),
        "status": trigger.status,
        "condition": condition,
        "orders": orders,
        "meta": None,
    }
