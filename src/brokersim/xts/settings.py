"""What can be chosen about the simulated XTS, and the rate limits as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from brokersim.engineio import Mode, Timers
from brokersim.limits import Limit


class TokenRefusal(StrEnum):
    """How the socket refuses a bad token; which one XTS does is unknown."""

    HTTP = "http"
    MIDDLEWARE = "middleware"
    EVENT = "event"


@dataclass(frozen=True, slots=True, kw_only=True)
class XtsSettings:
    """Choices of this broker alone; what both brokers share is in `world.settings`. Periods in seconds.

    `connection_path` ends the hostlookup's connectionString ("" or one segment such as /interactive, /1interactive);
    `grace` is how long a socket without apiType lives.
    """

    socket_mode: Mode = Mode.SIO2
    ping_interval: float = 25.0
    ping_timeout: float = 20.0
    grace: float = 10.0
    connection_path: str = "/interactive"
    token_refusal: TokenRefusal = TokenRefusal.HTTP
    master_needs_token: bool = False
    cancel_as_list: bool = False

    def checked(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Give changes with every value in its field's kind. Raises ValueError."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        if unknown := sorted(set(changes) - set(fields)):
            raise ValueError(f"unknown setting {', '.join(unknown)}")
        return {name: _alike(fields[name], name, value) for name, value in changes.items()}

    @property
    def timers(self) -> Timers:
        """The socket's timers."""
        return Timers(ping_interval=self.ping_interval, ping_timeout=self.ping_timeout)


def _alike(present: Any, name: str, value: Any) -> Any:
    if isinstance(present, StrEnum):
        return type(present)(value)
    number = isinstance(present, float) and isinstance(value, int | float) and not isinstance(value, bool)
    if number and value > 0:
        return float(value)
    if isinstance(present, float) or type(value) is not type(present):
        raise ValueError(f"{name} must be like {present!r}")
    return value


# The chart of Jainam's PROP-B server; order book and order history share one row. Dealer books are not listed there.
PROP_B: Final[dict[str, Limit]] = {
    "orders.book": Limit(calls=6, seconds=1),
    "orders.place": Limit(calls=25, seconds=1),
    "orders.modify": Limit(calls=25, seconds=1),
    "orders.cancel": Limit(calls=25, seconds=1),
    "orders.cancelall": Limit(calls=10, seconds=1),
    "orders.trades": Limit(calls=40, seconds=2),
    "portfolio.holdings": Limit(calls=1, seconds=10),
    "portfolio.positions": Limit(calls=1, seconds=1),
    "portfolio.dealerpositions": Limit(calls=1, seconds=1),
    "portfolio.convert": Limit(calls=50, seconds=1),
    "user.balance": Limit(calls=10, seconds=3),
    "user.profile": Limit(calls=1, seconds=5),
    "user.logout": Limit(calls=1, seconds=1),
    "user.enums": Limit(calls=1, seconds=1),
}
