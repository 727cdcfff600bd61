"""What the web asks of the rest of the house, wherever that runs: in this process, or at each account's owner."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from orderwire.brokers.checklist import Finding
from orderwire.core.events import Event
from orderwire.core.health import FleetHealth
from orderwire.core.lifecycle import OrderView, Submission
from orderwire.core.orders import AccountId, Funds, Holding, ModifyRequest, OrderId, OrderRequest, Position
from orderwire.core.recovery import FeedStatus


class Granted(Protocol):
    """What a login brought."""

    @property
    def user_id(self) -> str:
        """Whom the broker says it is."""
        ...

    @property
    def expires_at(self) -> Any:
        """When it ends, if that is known."""
        ...


class Feeds(Protocol):
    """The feeds of all accounts; see `feeds.fleet.Fleet`. Any thread."""

    def statuses(self) -> Iterable[FeedStatus]:
        """Say how fresh each account is."""
        ...

    def status(self, account: AccountId) -> FeedStatus | None:
        """Say how fresh one account is."""
        ...

    def health(self) -> FleetHealth:
        """Say how every feed is doing."""
        ...

    def add(self, account: AccountId) -> None:
        """Start the feed of an account that was added."""
        ...

    def remove(self, account: AccountId) -> None:
        """End an account's feed."""
        ...

    def refresh(self, account: AccountId) -> None:
        """Read the account's book now."""
        ...

    def login_url(self, account: AccountId, *, state: str) -> str | None:
        """Return where the user logs in, None when the keys suffice; without a state only whether there is one."""
        ...

    def login(self, account: AccountId, grant: Mapping[str, str]) -> Granted:
        """Log the account in."""
        ...

    def check_up(self, account: AccountId, *, seconds: float) -> list[Finding]:
        """Ask the account's broker its first-day questions."""
        ...


class OrderDesk(Protocol):
    """Where orders are placed; see `feeds.desk.Desk`. Any thread, blocking."""

    def place(
        self, account: AccountId, request: OrderRequest, *, idempotency_key: str = "", tag: str = ""
    ) -> Submission:
        """Place one order."""
        ...

    def modify(self, account: AccountId, request: ModifyRequest) -> OrderId:
        """Ask for new terms of an order."""
        ...

    def cancel(self, account: AccountId, order_id: OrderId) -> OrderId:
        """Ask for an order's cancellation."""
        ...

    def positions(self, account: AccountId) -> Sequence[Position]:
        """Read the net positions."""
        ...

    def holdings(self, account: AccountId) -> Sequence[Holding]:
        """Read what the demat account holds."""
        ...

    def funds(self, account: AccountId) -> Funds:
        """Read the account's money."""
        ...

    def freeze_quantity(self, account: AccountId, exchange: str, symbol: str) -> int:
        """Return the most one order may have."""
        ...


class Book(Protocol):
    """What is known of orders; see `store.book.OrderBook`. Any thread."""

    def current(self, account: AccountId, order_id: OrderId) -> OrderView | None:
        """Return what the page shows of an order."""
        ...

    def checking(self, account: AccountId) -> Collection[OrderView]:
        """Return the orders that are being checked with the broker."""
        ...

    def open_orders(self, account: AccountId) -> int:
        """Count the orders to which something can still happen."""
        ...

    def forget(self, account: AccountId) -> None:
        """Let go of an account whose data was erased."""
        ...


class Events(Protocol):
    """Where the web's rooms hear of things; see `engine.EventEngine`."""

    def register(self, type: str, handler: Callable[[Event], Any], *, lane: str = "") -> None:  # noqa: A002
        """Call `handler` with every event of this type."""
        ...

    def add_lane(
        self,
        name: str,
        *,
        capacity: int,
        when_full: Any = "block",
        key: Callable[[Event], Hashable] | None = None,
    ) -> None:
        """Make a lane for slow handlers."""
        ...

    def put(self, event: Event) -> None:
        """Have an event delivered."""
        ...
