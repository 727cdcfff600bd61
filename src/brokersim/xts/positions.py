"""Each XTS client's positions, kept up to date with every trade and conversion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from brokersim.instruments import Instrument
from brokersim.orders import Side, Trade
from brokersim.portfolio import Position

LastPrice = Callable[[str], Decimal]
_Key = tuple[str, str]


@dataclass(slots=True)
class Positions:
    """Positions by client, contract and product, in the order first traded."""

    last_price: LastPrice
    rows: dict[str, dict[_Key, Position]] = field(default_factory=dict)

    def take(self, trade: Trade) -> Position:
        """Add a trade; give the position it made."""
        position = self.row(trade.order.user, trade.order.instrument, trade.order.product)
        if trade.order.side is Side.BUY:
            position.buy_quantity += trade.quantity
            position.buy_value += trade.price * trade.quantity
        else:
            position.sell_quantity += trade.quantity
            position.sell_value += trade.price * trade.quantity
        return position

    def of(self, client: str) -> list[Position]:
        """Give a client's positions at the present prices."""
        return [self._priced(each) for each in self.rows.get(client, {}).values()]

    def find(self, client: str, key: str, product: str) -> Position | None:
        """Give one position, if the client has it."""
        position = self.rows.get(client, {}).get((key, product))
        return self._priced(position) if position else None

    def row(self, client: str, instrument: Instrument, product: str) -> Position:
        """Give one position, begun if need be."""
        rows = self.rows.setdefault(client, {})
        fresh = Position(instrument=instrument, product=product, last=Decimal(0))
        return self._priced(rows.setdefault((instrument.key, product), fresh))

    def convert(self, client: str, position: Position, product: str, quantity: int) -> Position:
        """Move so much of the open quantity to another product; give the position it went to."""
        target = self.row(client, position.instrument, product)
        value = position.average * quantity
        if position.quantity > 0:
            position.buy_quantity, position.buy_value = (
                position.buy_quantity - quantity,
                position.buy_value - value,
            )
            target.buy_quantity, target.buy_value = target.buy_quantity + quantity, target.buy_value + value
        else:
            position.sell_quantity, position.sell_value = (
                position.sell_quantity - quantity,
                position.sell_value - value,
            )
            target.sell_quantity, target.sell_value = (
                target.sell_quantity + quantity,
                target.sell_value + value,
            )
        return target

    def _priced(self, position: Position) -> Position:
        position.last = self.last_price(position.instrument.key)
        return position
