"""What only a live Kite login can settle: interim rows of histories, and how a dead token is refused (kite.md §10)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from orderwire.brokers.checklist import Question, session_of, stale, twin
from orderwire.brokers.zerodha.messages import meaning, variety_of
from orderwire.core.orders import OrderStatus
from orderwire.errors import BrokerError, SessionExpiredError

if TYPE_CHECKING:
    from orderwire.brokers.zerodha.adapter import ZerodhaAdapter

_REFUSED_WITHIN = 15.0
_HISTORIES = 3


def questions(adapter: ZerodhaAdapter) -> Mapping[str, Question]:
    """Return Kite's own questions; those of a usual name tell more of the answer."""
    return {
        "login page": lambda: _login_page(adapter),
        "order book": lambda: _orders(adapter),
        "histories": lambda: _histories(adapter),
        "stale login at the stream": lambda: _stale_by_stream(adapter),
    }


async def _login_page(adapter: ZerodhaAdapter) -> str:
    """Nothing is asked: say what the app is set up with, so that the console can be compared."""
    address = adapter.login_url().partition("?")[0]
    return f"{address}; REST root and stream: {', '.join(adapter.reached())}"


async def _orders(adapter: ZerodhaAdapter) -> str:
    orders = await adapter.order_book()
    if not orders:
        return "empty, and read as empty"
    words = sorted({update.raw_status for update in orders})
    unknown = [word for word in words if meaning(word).status is OrderStatus.UNKNOWN]
    if unknown:
        raise BrokerError(f"statuses that the table does not know: {', '.join(unknown)}")
    digits = sorted({len(update.order_id) for update in orders})
    varieties = sorted({variety_of(update) for update in orders})
    return (
        f"{len(orders)} orders, statuses {', '.join(words)}, varieties {', '.join(varieties)}, "
        f"ids of {' and '.join(map(str, digits))} digits"
    )


async def _histories(adapter: ZerodhaAdapter) -> str:
    orders = await adapter.order_book()
    told = []
    for update in orders[-_HISTORIES:]:
        steps = await adapter.order_history(update.order_id)
        told.append(" > ".join(step.raw_status for step in steps))
    return "; ".join(told) or "no order today, so no history"


async def _stale_by_stream(adapter: ZerodhaAdapter) -> str:
    """Dial with a token that was never given out."""
    other = twin(adapter, stale(session_of(adapter)))
    try:
        async with asyncio.timeout(_REFUSED_WITHIN):
            await other.listen()
    except SessionExpiredError as error:
        return f"recognised: {error}"
    except TimeoutError:
        pass
    raise BrokerError("a token that was never given out is not refused")
