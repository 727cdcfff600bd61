"""Which accounts belong to whoever asks; the one place that decides it."""

from __future__ import annotations

from flask_login import current_user

from orderwire.core.orders import AccountId
from orderwire.errors import NotFoundError
from orderwire.store.accounts import Account, Accounts


def my_accounts(accounts: Accounts) -> list[Account]:
    """Return the accounts of the user of this request."""
    return accounts.of_owner(current_user.name)


def my_account(accounts: Accounts, account_id: str) -> Account:
    """Return one of them. Raises NotFoundError alike for a stranger's account and for none."""
    account = accounts.get(account_id)
    if account.owner != current_user.name:
        raise NotFoundError(f"There is no account {account_id}.")
    return account


def ids(accounts: list[Account]) -> tuple[AccountId, ...]:
    """Return their ids."""
    return tuple(account.id for account in accounts)
