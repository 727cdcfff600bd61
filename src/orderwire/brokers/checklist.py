"""The first day with a real account: asks the broker, one thing after the other, whether it is as its adapter expects.

It reads and listens; it places nothing. Its findings go to an operator, so none of them holds a secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from orderwire.errors import BrokerError, OrderwireError, SessionExpiredError

if TYPE_CHECKING:
    from orderwire.brokers.adapter import BrokerAdapter, BrokerSession

JOIN_WITHIN = 15.0
"""Seconds in which a stream has to deliver."""
ATTEMPTS = 2
"""An adapter may need a failed handshake to learn which protocol a host speaks."""

Question = Callable[[], Awaitable[str]]
"""Asks one thing and returns what the broker said; raises OrderwireError when that is not as it should be."""
LogIn = Callable[[], Awaitable["BrokerSession"]]
A = TypeVar("A", bound="BrokerAdapter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the list: what was asked, whether it went as expected, and what the broker said."""

    name: str
    ok: bool
    detail: str


async def first_day(
    adapter: BrokerAdapter, *, seconds: float, log_in: LogIn | None = None
) -> AsyncIterator[Finding]:
    """Ask everything, on the adapter's loop; `seconds`: how long the stream is watched.

    `log_in` obtains a session and keeps it. Without it the adapter belongs to a running feed: its session and its
    stream are looked at and left alone.
    """
    login = await ask("login", lambda: _login(adapter, log_in))
    yield login
    if not login.ok:
        return
    for name, question in adapter.questions().items():
        yield await ask(name, question)
    if adapter.has_stream:
        async for finding in _watch(adapter, seconds=seconds, supervised=log_in is None):
            yield finding


async def ask(name: str, question: Question) -> Finding:
    """Ask one question; what it raises is the finding."""
    try:
        return Finding(name=name, ok=True, detail=await question())
    except OrderwireError as error:
        return Finding(name=name, ok=False, detail=f"{type(error).__name__}: {error}")


def usual_questions(adapter: BrokerAdapter) -> Mapping[str, Question]:
    """Return what every broker can be asked: each of its books, and how a finished login is told."""
    return {
        "order book": lambda: _orders(adapter),
        "trade book": lambda: _trades(adapter),
        "positions": lambda: _positions(adapter),
        "funds": lambda: _money(adapter),
        "instruments": lambda: _instruments(adapter),
        "stale login": lambda: _stale(adapter),
    }


def twin(adapter: A, session: BrokerSession) -> A:
    """Return another adapter of the same account, with a session of its own; it publishes nothing."""
    other = type(adapter)(adapter.profile, replace(adapter.tools, publisher=None))
    other.session = session
    return other


def stale(session: BrokerSession) -> BrokerSession:
    """Return the session with secrets that were never given out."""
    return replace(session, secrets=dict.fromkeys(session.secrets, "0"))


def session_of(adapter: BrokerAdapter) -> BrokerSession:
    """Return the session. Raises SessionExpiredError when it ended meanwhile."""
    if adapter.session is None:
        raise SessionExpiredError("the login ended meanwhile")
    return adapter.session


async def _login(adapter: BrokerAdapter, log_in: LogIn | None) -> str:
    if log_in is not None and adapter.login_url() is None:
        adapter.session = await log_in()
    if adapter.session is None:
        raise SessionExpiredError(f"log it in first: orderwire accounts login {adapter.profile.account}")
    session = adapter.session
    said = "".join(f", {name} {value or 'none'}" for name, value in session.facts.items())
    return f"user {session.user_id}, until {session.expires_at or 'further notice'}{said}"


async def _orders(adapter: BrokerAdapter) -> str:
    orders = await adapter.order_book()
    words = sorted({update.raw_status for update in orders})
    return f"{len(orders)} orders, statuses {', '.join(words)}" if orders else "empty, and read as empty"


async def _trades(adapter: BrokerAdapter) -> str:
    return f"{len(await adapter.trade_book())} trades"


async def _positions(adapter: BrokerAdapter) -> str:
    return f"{len(await adapter.positions())} positions"


async def _money(adapter: BrokerAdapter) -> str:
    await adapter.funds()
    return "the balance can be read"


async def _instruments(adapter: BrokerAdapter) -> str:
    listed = await adapter.instruments_of_the_day()
    if not listed:
        raise BrokerError("the list of instruments is empty")
    return f"{len(listed):,} instruments"


async def _stale(adapter: BrokerAdapter) -> str:
    """Ask with a login that was never given out."""
    other = twin(adapter, stale(session_of(adapter)))
    try:
        await other.order_book()
    except SessionExpiredError as error:
        return f"recognised: {error}"
    raise BrokerError("a login that was never given out is accepted")


# --- the stream -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Counted:
    """What a stream brought up to a moment."""

    kinds: Mapping[str, int]
    violations: int

    @classmethod
    def of(cls, adapter: BrokerAdapter) -> _Counted:
        return cls(dict(adapter.stream_counts()), adapter.violations)


async def _watch(adapter: BrokerAdapter, *, seconds: float, supervised: bool) -> AsyncIterator[Finding]:
    tries: list[str] = []
    before = _Counted.of(adapter)
    for _ in range(1 if supervised else ATTEMPTS):
        listening = asyncio.create_task(_wait_for_ever() if supervised else adapter.listen())
        try:
            joined = await _joined(adapter, listening)
            tries.append(_stream_words(adapter, listening, joined=joined))
            if joined:
                yield Finding(name="stream", ok=True, detail="; then ".join(tries))
                await asyncio.wait({listening}, timeout=seconds)
                yield _events(adapter, listening, before, seconds=seconds)
                return
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
    yield Finding(name="stream", ok=False, detail="; then ".join(tries))


async def _wait_for_ever() -> None:
    """Stand for the listening of a feed that somebody else runs."""
    await asyncio.Event().wait()


async def _joined(adapter: BrokerAdapter, listening: asyncio.Task[None]) -> bool:
    """Wait until the stream delivers, or ends, or too long; whoever is told of it otherwise still is."""
    told = asyncio.Event()
    before = adapter.on_listening

    def tell(delivers: bool) -> None:
        if before is not None:
            before(delivers)
        told.set()

    if adapter.listening:
        return True
    adapter.on_listening = tell
    waiting = asyncio.create_task(told.wait())
    try:
        await asyncio.wait({listening, waiting}, timeout=JOIN_WITHIN, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        adapter.on_listening = before
    return adapter.listening


def _events(
    adapter: BrokerAdapter, listening: asyncio.Task[None], before: _Counted, *, seconds: float
) -> Finding:
    now = _Counted.of(adapter)
    counted = {name: number - before.kinds.get(name, 0) for name, number in sorted(now.kinds.items())}
    came = ", ".join(f"{name} {number}" for name, number in counted.items() if number) or "nothing"
    unreadable = now.violations - before.violations
    ended = f"; ended early: {_end_of(listening)}" if listening.done() else ""
    return Finding(
        name="events",
        ok=not listening.done() and not unreadable,
        detail=f"in {seconds:g} s: {came}; unreadable {unreadable}{ended}",
    )


def _stream_words(adapter: BrokerAdapter, listening: asyncio.Task[None], *, joined: bool) -> str:
    facts = adapter.stream_facts()
    words = facts if joined else "; ".join(filter(None, (_end_of(listening), facts)))
    return words or "it delivers"


def _end_of(listening: asyncio.Task[None]) -> str:
    if not listening.done() or listening.cancelled():
        return f"it does not deliver after {JOIN_WITHIN:g} s"
    error = listening.exception()
    return f"{type(error).__name__}: {error}" if isinstance(error, BrokerError) else type(error).__name__
