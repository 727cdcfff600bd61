"""Stands between an adapter and the engine: what was switched off, or is not the account's own, reaches nobody."""

from __future__ import annotations

from collections.abc import Callable

from orderwire.brokers.adapter import Publisher
from orderwire.core.events import Event
from orderwire.core.orders import AccountId, Channel, OrderUpdate, Position, Trade


class Valve:
    """One account's way to the engine. Turned on the feed loop; takes effect with the next event."""

    def __init__(self, account: AccountId, publisher: Publisher | None, *, push: bool = True) -> None:
        self._account = account
        self._publisher = publisher
        self.push = push
        """Whether what the stream says passes."""
        self.open = True
        """Whether anything passes; closed for good when the feed ends."""
        self.held_back = 0
        """Events that did not pass because the valve was closed to them."""
        self.foreign = 0
        """Events that named another account."""
        self.on_pushed: Callable[[OrderUpdate], None] | None = None
        """Told of each observation of an order that the stream gave."""
        self.on_executed: Callable[[Trade], None] | None = None
        """Told of each execution that the stream gave."""
        self.on_foreign: Callable[[], None] | None = None

    def put(self, event: Event) -> None:
        """Hand the event on, or count it."""
        said = event.data
        streamed = _is_observation(said) and said.channel is Channel.STREAM
        if _is_observation(said) and said.account != self._account:
            self.foreign += 1
            if self.on_foreign is not None:
                self.on_foreign()
            return
        if not self.open or (streamed and not self.push):
            self.held_back += 1
            return
        if streamed and isinstance(said, OrderUpdate) and self.on_pushed is not None:
            self.on_pushed(said)
        if streamed and isinstance(said, Trade) and self.on_executed is not None:
            self.on_executed(said)
        if self._publisher is not None:
            self._publisher.put(event)


def _is_observation(said: object) -> bool:
    return isinstance(said, OrderUpdate | Trade | Position)
