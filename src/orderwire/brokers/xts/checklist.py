"""What only a live XTS login can settle: the replies for an empty book and to a stale token (xts.md §11)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from orderwire.brokers.checklist import ATTEMPTS, Question, session_of, stale, twin
from orderwire.brokers.xts.answers import Answer
from orderwire.errors import BrokerError, SessionExpiredError

if TYPE_CHECKING:
    from orderwire.brokers.xts.adapter import XtsAdapter

_REFUSED_WITHIN = 15.0
"""Seconds: an unwanted socket was seen to be closed after ten (xts.md §5.1)."""


def questions(adapter: XtsAdapter) -> Mapping[str, Question]:
    """Return XTS's own questions; those of a usual name tell the broker's own words."""
    return {
        "order book": lambda: _orders(adapter),
        "trade book": lambda: _trades(adapter),
        "positions": lambda: _positions(adapter),
        "stale login": lambda: _stale_by_rest(adapter),
        "stale login at the socket": lambda: _stale_by_socket(adapter),
    }


async def _orders(adapter: XtsAdapter) -> str:
    orders = await adapter.order_book()
    if not orders:
        return await _emptiness(adapter, "orders")
    words = sorted({update.raw_status for update in orders})
    origins = sorted({update.placed_by or "nothing" for update in orders})
    return f"{len(orders)} orders, statuses {', '.join(words)}; GeneratedBy {', '.join(origins)}"


async def _trades(adapter: XtsAdapter) -> str:
    trades = await adapter.trade_book()
    return f"{len(trades)} trades" if trades else await _emptiness(adapter, "trades")


async def _positions(adapter: XtsAdapter) -> str:
    positions = await adapter.positions()
    return f"{len(positions)} positions" if positions else await _emptiness(adapter, "positions")


async def _emptiness(adapter: XtsAdapter, book: str) -> str:
    return f"empty: {_said(await adapter.asked(book))}"


async def _stale_by_rest(adapter: XtsAdapter) -> str:
    answer = await twin(adapter, stale(session_of(adapter))).asked("orders")
    if not answer.dead_token:
        raise BrokerError(f"a token that was never given out is not refused as one: {_said(answer)}")
    return f"refused: {_said(answer)}"


async def _stale_by_socket(adapter: XtsAdapter) -> str:
    """Dial with a token that was never given out; twice, for the first revision may not be the host's."""
    stranger = twin(adapter, stale(session_of(adapter)))
    refusals = []
    for _ in range(ATTEMPTS):
        try:
            async with asyncio.timeout(_REFUSED_WITHIN):
                await stranger.listen()
        except SessionExpiredError as error:
            return f"refused: {error}"
        except TimeoutError:
            break
        except BrokerError as error:
            refusals.append(str(error))
    said = "; ".join(refusals) or f"still connected after {_REFUSED_WITHIN:g} s"
    raise BrokerError(f"a token that was never given out is not refused as one: {said}")


def _said(answer: Answer) -> str:
    words = f'"{answer.description}" ({answer.code})' if answer.readable else "not XTS's envelope"
    return f"HTTP {answer.status}, {words}"
