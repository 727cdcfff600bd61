"""Every error orderwire raises on purpose; the class says who is at fault and what to do."""

from __future__ import annotations

from typing import Final

import msgspec

UNDECODABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding raises when the bytes are not what was asked for: bytes that are no UTF-8 and nesting without end come as
Python's own errors, not as msgspec's."""


class OrderwireError(Exception):
    """Something orderwire could not do."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (self.__class__.__doc__ or "").strip())


class ConfigurationError(OrderwireError):
    """The settings cannot work as they are; the message names the setting and what to change."""


class InvalidRequestError(OrderwireError):
    """A request that cannot be carried out; `problems` maps each field to what is wrong with it."""

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems.values()))


class FeedsBusyError(OrderwireError):
    """It is decided and written down, but the feeds are too busy to follow at once; they do as soon as they can."""


class NotFoundError(OrderwireError):
    """There is no such thing here."""


class StoreError(OrderwireError):
    """The database did not take a write; nothing of the transaction was kept."""


class StoreBusyError(StoreError):
    """The database takes no writes for now (locked, disk full, connection lost); nothing was kept, try again."""


class SealError(StoreError):
    """A sealed secret cannot be opened: wrong key, or it was altered. It is never guessed or skipped."""


class BrokerError(OrderwireError):
    """A broker did not do what was asked."""


class BrokerUnreachableError(BrokerError):
    """The broker could not be reached, fell silent or answered with a fault of its own; try again later."""

    def __init__(self, message: str = "", *, sent: bool = False, retry_after: float | None = None) -> None:
        """`sent`: the request may have reached the broker. `retry_after`: seconds the broker asked for."""
        super().__init__(message)
        self.sent = sent
        self.retry_after = retry_after


class RateLimitedError(BrokerUnreachableError):
    """The broker, or our own budget for it, refuses more calls for now."""


class SessionExpiredError(BrokerError):
    """The broker no longer accepts this login; nothing is retried until the user logs in again."""


class PermissionRefusedError(BrokerError):
    """The broker refuses this account or address this kind of call; logging in again will not help."""


class FedElsewhereError(BrokerError):
    """Another orderwire on this machine feeds this broker account."""


class ProtocolViolationError(BrokerError):
    """The broker said something that its protocol does not allow; the raw text is kept."""

    def __init__(self, message: str = "", *, raw: bytes = b"") -> None:
        super().__init__(message)
        self.raw = raw


class OrderRefusedError(BrokerError):
    """The broker refused a placement, modification or cancellation; there is no such order at the broker."""

    def __init__(self, message: str = "", *, code: str = "") -> None:
        super().__init__(message)
        self.code = code
