"""The first day with a real XTS login: asks the broker what only a live account can settle (xts.md §11).

It reads and listens; it places nothing. Its findings go to an operator, so none of them holds a secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from orderwire.brokers.xts.adapter import XtsAdapter
from orderwire.errors import BrokerError, OrderwireError, SessionExpiredError

_JOIN_WITHIN = 15.0
_STALE = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the list: what was asked, whether it went as xts.md expects, and what the broker said."""

    name: str
    ok: bool
    detail: str


async def first_day(adapter: XtsAdapter, *, seconds: float) -> AsyncIterator[Finding]:
    """Ask one thing after the other, on the feed loop; `seconds`: how long the stream is watched.

    Logs in first, which ends any other session of this app key; stops there when that fails.
    """
    login = await _ask("login", lambda: _login(adapter))
    yield login
    if not login.ok:
        return
    for name, ask in _QUESTIONS.items():
        yield await _ask(name, lambda ask=ask: ask(adapter))  # type: ignore[misc]  # mypy knows no default in a lambda
    async for finding in _watch(adapter, seconds=seconds):
        yield finding
    yield await _ask("stale token", lambda: _stale(adapter))


async def _ask(name: str, ask: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return Finding(name=name, ok=True, detail=await ask())
    except OrderwireError as error:
        return Finding(name=name, ok=False, detail=f"{type(error).__name__}: {error}")


async def _login(adapter: XtsAdapter) -> str:
    adapter.session = session = await adapter.login({})
    kind = "investor" if session.facts["investor"] == "yes" else "dealer"
    codes = session.facts["client_codes"] or "none"
    return f"{kind}, clients {codes}, token until {session.expires_at}, base {session.facts['base']}"


async def _books(adapter: XtsAdapter) -> str:
    orders = await adapter.order_book()
    words = sorted({update.raw_status for update in orders})
    return f"{len(orders)} orders, statuses {words}" if orders else "empty, and read as empty"


async def _trades(adapter: XtsAdapter) -> str:
    return f"{len(await adapter.trade_book())} trades"


async def _positions(adapter: XtsAdapter) -> str:
    return f"{len(await adapter.positions())} positions"


async def _money(adapter: XtsAdapter) -> str:
    await adapter.funds()
    return "the balance can be read"


_QUESTIONS = {"order book": _books, "trade book": _trades, "positions": _positions, "balance": _money}


async def _watch(adapter: XtsAdapter, *, seconds: float) -> AsyncIterator[Finding]:
    """Listen once or, when the first revision is not the host's, twice."""
    for _ in range(2):
        listening = asyncio.create_task(adapter.listen())
        joined = await _joined(adapter, listening)
        yield _stream_finding(adapter, listening, joined=joined)
        if joined:
            await asyncio.wait({listening}, timeout=seconds)
            yield _events_finding(adapter, listening, seconds=seconds)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        if joined:
            return


async def _joined(adapter: XtsAdapter, listening: asyncio.Task[None]) -> bool:
    """Wait until the stream delivers, or ends, or too long."""
    told = asyncio.Event()
    before, adapter.on_listening = adapter.on_listening, lambda _: told.set()
    waiting = asyncio.create_task(told.wait())
    try:
        await asyncio.wait({listening, waiting}, timeout=_JOIN_WITHIN, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        adapter.on_listening = before
    return adapter.listening


def _stream_finding(adapter: XtsAdapter, listening: asyncio.Task[None], *, joined: bool) -> Finding:
    opened = f"open packet {adapter.opened.raw}" if adapter.opened is not None else "no open packet"
    detail = f"Engine.IO {adapter.winner}, {opened}" if joined else f"{_end_of(listening)}; {opened}"
    return Finding(name="stream", ok=joined, detail=detail)


def _events_finding(adapter: XtsAdapter, listening: asyncio.Task[None], *, seconds: float) -> Finding:
    counted = ", ".join(f"{name} {number}" for name, number in sorted(adapter.events.items())) or "none"
    ended = f"; ended early: {_end_of(listening)}" if listening.done() else ""
    return Finding(
        name="events",
        ok=not listening.done() and not adapter.violations,
        detail=f"in {seconds:g} s: {counted}; unreadable {adapter.violations}, of other clients {adapter.foreign}{ended}",
    )


def _end_of(listening: asyncio.Task[None]) -> str:
    if not listening.done() or listening.cancelled():
        return "still trying"
    error = listening.exception()
    return f"{type(error).__name__}: {error}" if isinstance(error, BrokerError) else type(error).__name__


async def _stale(adapter: XtsAdapter) -> str:
    """Ask with a token that was never given out, on a copy of the session; the real one stays."""
    session = adapter.session
    if session is None:
        raise SessionExpiredError("the login ended while the stream was watched")
    adapter.session = replace(session, secrets={"token": _STALE})
    try:
        await adapter.order_book()
    except SessionExpiredError as error:
        return f"recognised: {error}"
    finally:
        adapter.session = session
    raise BrokerError("a token that was never given out is accepted")
