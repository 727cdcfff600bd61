"""Broker accounts, whoever hands their logins over, and their orders."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import field

from orderwire.core.hosts import FromHost
from orderwire.core.orders import AccountId, ModifyRequest, OrderId, OrderRequest
from orderwire.errors import InvalidRequestError
from orderwire.store.accounts import Account
from orderwire.web.hosts import fed_elsewhere, shared_apps
from orderwire.web.operations.office import Command, Office, there


class AddAccount(Command):
    """Make a broker account; its feed starts at once when the service runs."""

    id: str
    broker: str
    owner: str
    credentials: dict[str, str]
    title: str = ""
    addresses: dict[str, str] = field(default_factory=dict)
    allow_plaintext: bool = False

    def perform(self, office: Office) -> Any:
        self._check(office)
        account = office.accounts.add(
            self.id,
            broker=self.broker,
            owner=self.owner,
            credentials=self.credentials,
            title=self.title,
            addresses=self.addresses,
            allow_plaintext=self.allow_plaintext,
            by=self.by,
        )
        if office.fleet is not None:
            office.fleet.add(account.id)
        return _described(account, office)

    def _check(self, office: Office) -> None:
        kind = office.brokers.get(self.broker)
        problems = {
            f.name: f"{kind.title} needs {f.label} ({f.name})."
            for f in kind.credential_fields
            if f.required and not f.default and not self.credentials.get(f.name)
        }
        known = {f.name for f in (*kind.credential_fields, *kind.address_fields)}
        problems |= {
            name: f"{kind.title} knows no {name}; it takes {', '.join(sorted(known))}."
            for name in {*self.credentials, *self.addresses} - known
        }
        if problems:
            raise InvalidRequestError(problems)


class ListAccounts(Command):
    """List the broker accounts and how fresh each is."""

    def perform(self, office: Office) -> Any:
        return [_described(account, office) for account in office.accounts.all()]


class SharedApps(Command):
    """List the accounts that share an app key although it allows one login."""

    def perform(self, office: Office) -> Any:
        return shared_apps(office.accounts, office.brokers, there(office.database))


class FedElsewhere(Command):
    """List what is not ours: a host that does not hear us, and accounts that another orderwire of this machine feeds.

    A running service says it of each account itself.
    """

    def perform(self, office: Office) -> Any:
        host = {"host": office.hosts.wrong} if office.hosts is not None and office.hosts.wrong else {}
        if office.fleet is not None:
            return host
        fed = fed_elsewhere(office.accounts, office.brokers)
        return host | {f"account {account}": why for account, why in fed.items()}


class RemoveAccount(Command):
    """End an account's feed and forget its secrets; its orders stay."""

    id: str

    def perform(self, office: Office) -> Any:
        if office.fleet is not None:
            office.fleet.remove(AccountId(self.id))
        office.accounts.remove(self.id, by=self.by)


class EraseAccount(Command):
    """Delete everything kept of an account that was removed."""

    id: str

    def perform(self, office: Office) -> Any:
        account = AccountId(self.id)
        rows = office.accounts.erase(account, by=self.by)
        if office.book is not None:
            office.book.forget(account)
        return {"rows": rows}


class LoginAccount(Command):
    """Log an account in to its broker; without a grant, say where the user has to go, if anywhere."""

    id: str
    grant: dict[str, str] = field(default_factory=dict)

    def perform(self, office: Office) -> Any:
        fleet, account = office.running_fleet(), AccountId(self.id)
        url = fleet.login_url(account, state="cli")
        if url is not None and not self.grant:
            return {"login_url": url}
        session = fleet.login(account, self.grant)
        return {"user_id": session.user_id, "expires_at": session.expires_at}


class CheckAccount(Command):
    """Ask an account's broker its first-day questions; `seconds`: how long the running stream is watched."""

    id: str
    seconds: float = 30.0

    def perform(self, office: Office) -> Any:
        return office.running_fleet().check_up(AccountId(self.id), seconds=self.seconds)


class AskHostLine(Command):
    """The part in a host application hands its logins over and asks for news (core/hosts.py)."""

    asked: FromHost

    def perform(self, office: Office) -> Any:
        return there(office.hosts).take(self.asked)


class LeaveHostLine(Command):
    """A host application's process says good-bye."""

    user: str
    instance: str

    def perform(self, office: Office) -> Any:
        there(office.hosts).leave(self.user, self.instance)


class PlaceOrder(Command):
    """Place an order for an account."""

    account: str
    order: OrderRequest
    idempotency_key: str = ""

    def perform(self, office: Office) -> Any:
        return office.running_desk().place(
            AccountId(self.account), self.order, idempotency_key=self.idempotency_key
        )


class ModifyOrder(Command):
    """Ask for new terms of an order."""

    account: str
    order: ModifyRequest

    def perform(self, office: Office) -> Any:
        return {"order_id": office.running_desk().modify(AccountId(self.account), self.order)}


class CancelOrder(Command):
    """Ask for an order's cancellation."""

    account: str
    order_id: str

    def perform(self, office: Office) -> Any:
        return {"order_id": office.running_desk().cancel(AccountId(self.account), OrderId(self.order_id))}


COMMANDS: Mapping[str, type[Command]] = {
    "accounts.add": AddAccount,
    "accounts.list": ListAccounts,
    "accounts.shared": SharedApps,
    "accounts.fed": FedElsewhere,
    "accounts.remove": RemoveAccount,
    "accounts.erase": EraseAccount,
    "accounts.login": LoginAccount,
    "accounts.check": CheckAccount,
    "host.take": AskHostLine,
    "host.leave": LeaveHostLine,
    "orders.place": PlaceOrder,
    "orders.modify": ModifyOrder,
    "orders.cancel": CancelOrder,
}


def _described(account: Account, office: Office) -> dict[str, Any]:
    status = office.fleet.status(account.id) if office.fleet else None
    expires: datetime | None = account.session_expires
    return {
        "id": account.id,
        "broker": account.broker,
        "title": account.title,
        "owner": account.owner,
        "session_user": account.session_user,
        "session_expires": expires.isoformat() if expires else None,
        "freshness": status.freshness if status else None,
        "detail": status.detail if status else "the service does not run",
        "postback_path": f"/postback/{account.broker}/{account.postback_segment}",
        "addresses": dict(account.addresses),
    }
