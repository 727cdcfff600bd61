"""What a command of the operator works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec import Struct

from orderwire.brokers.registry import BrokerRegistry
from orderwire.errors import ConfigurationError
from orderwire.monitoring.station import Station
from orderwire.pilot.gate import RolloutGate
from orderwire.store.accounts import Accounts
from orderwire.store.database import Database
from orderwire.store.invitations import Invitations
from orderwire.store.survey import Voices
from orderwire.store.users import Users
from orderwire.store.vault import Vault
from orderwire.web.hosts import HostLine
from orderwire.web.ports import Book, Feeds, OrderDesk

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """What a command works with. `fleet`, `desk` and `book` are None when no service runs."""

    users: Users
    accounts: Accounts
    brokers: BrokerRegistry
    invitations: Invitations | None = None
    """None, and `vault` too, where they play no part."""
    vault: Vault | None = None
    url: str = ""
    gate: RolloutGate
    voices: Voices | None = None
    fleet: Feeds | None = None
    desk: OrderDesk | None = None
    book: Book | None = None
    station: Station | None = None
    hosts: HostLine | None = None
    database: Database | None = None

    def running_fleet(self) -> Feeds:
        """Return the fleet. Raises ConfigurationError when the service does not run."""
        if self.fleet is None:
            raise ConfigurationError("The service does not run; start it with `orderwire serve`.")
        return self.fleet

    def running_station(self) -> Station:
        """Return what watches the service. Raises ConfigurationError when it does not run."""
        if self.station is None:
            raise ConfigurationError("The service does not run; start it with `orderwire serve`.")
        return self.station

    def running_desk(self) -> OrderDesk:
        """Return the desk. Raises ConfigurationError when the service does not run."""
        if self.desk is None:
            raise ConfigurationError("The service does not run; start it with `orderwire serve`.")
        return self.desk


class Command(Struct, kw_only=True, forbid_unknown_fields=True):
    """The arguments of one command, checked; `by` is the operator's name for the audit."""

    by: str = "cli"

    def perform(self, office: Office) -> Any:
        """Carry it out and return what msgspec can make plain. Raises what the parts it works with raise."""
        raise NotImplementedError


def there(part: T | None) -> T:
    """Return a part of the office. Raises ConfigurationError where there is none."""
    if part is None:
        raise ConfigurationError("This command is not available here.")
    return part
