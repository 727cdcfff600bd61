"""What somebody should look at: one value, whoever noticed it."""

from __future__ import annotations

from msgspec import Struct

from orderwire.core.orders import AccountId, OrderId


class Notice(Struct, frozen=True, kw_only=True):
    """Something that somebody should look at; the data of an `EventType.ALERT`."""

    kind: str
    """A few lower-case words, the same each time (`held`, `dead letter`, `corrected` …): counted by them."""
    text: str
    """One sentence for a person, without secrets."""
    account: AccountId = AccountId("")
    order_id: OrderId = OrderId("")
    broker: str = ""
