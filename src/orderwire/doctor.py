"""`orderwire doctor <broker>`: the first-day questions, asked for every account at that broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import httpx2

from orderwire import service, serving
from orderwire.brokers.checklist import Finding
from orderwire.brokers.registry import load_brokers
from orderwire.config import Settings
from orderwire.errors import NotFoundError
from orderwire.web import operations

Tell = Callable[[str, Finding], None]
"""Is given each account's findings as they come."""

_QUESTIONS_WAIT = 200.0


def first_day(settings: Settings, broker: str, *, account: str, seconds: float, tell: Tell) -> None:
    """Ask the running service to ask, or ask ourselves while none runs; `account`: this one alone, or empty.

    Raises NotFoundError for a broker or account that is not there, ConfigurationError without a data folder.
    """
    load_brokers().get(broker)
    if serving.control_socket(settings).exists():
        with suppress(httpx2.ConnectError):  # left over by a service that was killed: the records are free
            _by_the_service(settings, broker, account=account, seconds=seconds, tell=tell)
            return
    records = service.open_records(settings)
    try:
        asyncio.run(_by_ourselves(records, broker, account=account, seconds=seconds, tell=tell))
    finally:
        records.database.close()


def _by_the_service(settings: Settings, broker: str, *, account: str, seconds: float, tell: Tell) -> None:
    path = serving.control_socket(settings)
    for one in _chosen(operations.ask(path, "accounts.list", {}), broker, account):
        told = operations.ask(
            path, "accounts.check", {"id": one, "seconds": seconds}, patience=seconds + _QUESTIONS_WAIT
        )
        for finding in told:
            tell(one, Finding(**finding))


async def _by_ourselves(
    records: service.Records, broker: str, *, account: str, seconds: float, tell: Tell
) -> None:
    for one in _chosen(operations.perform(records.office(), "accounts.list", {}), broker, account):
        async for finding in records.check_up(one, seconds=seconds):
            tell(one, finding)


def _chosen(accounts: Iterable[Mapping[str, Any]], broker: str, account: str) -> list[str]:
    found = [one["id"] for one in accounts if one["broker"] == broker and account in {"", one["id"]}]
    if not found:
        raise NotFoundError(
            f"There is no account {account} at {broker}."
            if account
            else f"There is no account at {broker} yet: orderwire accounts add {broker} --owner <user>"
        )
    return found
