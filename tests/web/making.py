"""Makes what brokers tell, for tests of the web."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

from orderwire.core.orders import AccountId, Channel, OrderId, Position, Trade

DAY = date(2026, 11, 24)


def trade(account="acc", number=1):
    return Trade(
        account=AccountId(account),
        broker="wired",
        order_id=OrderId("261124000000001"),
        trade_id=f"t{number}",
        channel=Channel.REST,
        trading_date=DAY,
        symbol="INFY",
        exchange="NSE",
        side="BUY",
        product="MIS",
        quantity=10,
        price=Decimal("1500.50"),
        traded_at=datetime(2026, 11, 24, 4, 0, tzinfo=UTC),
    )


def position(account="acc", quantity=10, symbol="INFY", exchange="NSE"):
    return Position(
        account=AccountId(account),
        broker="wired",
        channel=Channel.REST,
        trading_date=DAY,
        symbol=symbol,
        exchange=exchange,
        product="MIS",
        quantity=quantity,
        average_price=Decimal("1500.5"),
        last_price=Decimal(1510),
        pnl=Decimal(95),
    )
