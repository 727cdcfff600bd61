"""What a user holds: positions computed from trades, for either broker to spell in its own way."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal

from brokersim.instruments import Instrument
from brokersim.orders import Side, Trade


@dataclass(slots=True, kw_only=True)
class Position:
    """One user's day in one contract and product. Quantities in the order's units, values in rupees.

    Values are price times quantity without the contract's multiplier.
    """

    instrument: Instrument
    product: str
    last: Decimal
    buy_quantity: int = 0
    buy_value: Decimal = Decimal(0)
    sell_quantity: int = 0
    sell_value: Decimal = Decimal(0)

    @property
    def quantity(self) -> int:
        """Net and signed: bought minus sold."""
        return self.buy_quantity - self.sell_quantity

    @property
    def buy_average(self) -> Decimal:
        """Average price bought, four decimals, 0 if none."""
        return _average(self.buy_value, self.buy_quantity)

    @property
    def sell_average(self) -> Decimal:
        """Average price sold, four decimals, 0 if none."""
        return _average(self.sell_value, self.sell_quantity)

    @property
    def average(self) -> Decimal:
        """The price the open quantity was taken at; 0 on a flat row."""
        if self.quantity == 0:
            return Decimal(0)
        return self.buy_average if self.quantity > 0 else self.sell_average

    @property
    def realised(self) -> Decimal:
        """Profit of what was both bought and sold, in rupees with the multiplier."""
        closed = min(self.buy_quantity, self.sell_quantity)
        return (self.sell_average - self.buy_average) * closed * self.instrument.multiplier

    @property
    def unrealised(self) -> Decimal:
        """Profit of the open quantity at the last price, in rupees with the multiplier."""
        return (self.last - self.average) * self.quantity * self.instrument.multiplier


def positions(trades: Iterable[Trade], last_price: Callable[[str], Decimal]) -> list[Position]:
    """Add trades up by contract and product, in the order first traded.

    `last_price` is asked with the contract's key.
    """
    rows: dict[tuple[str, str], Position] = {}
    for trade in trades:
        instrument, product = trade.order.instrument, trade.order.product
        row = rows.get((instrument.key, product))
        if row is None:
            row = Position(instrument=instrument, product=product, last=last_price(instrument.key))
            rows[instrument.key, product] = row
        _add(row, trade)
    return list(rows.values())


def _add(row: Position, trade: Trade) -> None:
    value = trade.price * trade.quantity
    if trade.order.side is Side.BUY:
        row.buy_quantity += trade.quantity
        row.buy_value += value
    else:
        row.sell_quantity += trade.quantity
        row.sell_value += value


def _average(value: Decimal, quantity: int) -> Decimal:
    return round(value / quantity, 4) if quantity else Decimal(0)
