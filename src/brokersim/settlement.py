"""What becomes of an account's positions when a session day is over: deliveries stay as holdings, the rest is closed."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

from brokersim.orders import OrderRecord
from brokersim.portfolio import Position, positions
from brokersim.users import Account

_DELIVERED: Final = "CNC"


def settle(account: Account, records: Sequence[OrderRecord], closing: Callable[[str], Decimal]) -> None:
    """Settle the orders of an earlier day: `records` are the account's own, `closing` gives a contract's price.

    Delivery trades move money and holdings; other positions are closed at the closing price and move the
    difference. What these orders and positions held is free again.
    """
    for position in positions((trade for record in records for trade in record.trades), closing):
        if position.product == _DELIVERED:
            _deliver(account, position)
        else:
            account.cash += position.realised + position.unrealised
    for record in records:
        account.blocked.pop(record.last.uid, None)
        for trade in record.trades:
            account.book(record.last, quantity=-trade.quantity, price=trade.price)


def _deliver(account: Account, position: Position) -> None:
    key = position.instrument.key
    held, average = account.holdings.get(key, (0, Decimal(0)))
    account.cash -= (position.buy_value - position.sell_value) * position.instrument.multiplier
    quantity = held + position.quantity
    owned = held + position.buy_quantity
    paid = round((held * average + position.buy_value) / owned, 4) if position.buy_quantity else average
    others = {each: what for each, what in account.holdings.items() if each != key}
    account.holdings = others | {key: (quantity, paid)} if quantity > 0 else others
