"""Jainam on Symphony XTS: its addresses, its limits and nothing else (xts.md §7, §8; docs/brokers/jainam.md)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from orderwire.brokers.http import Bucket
from orderwire.brokers.xts.adapter import XtsAdapter, address_fields, budgets_of

PROP_B_LIMITS: Mapping[str, tuple[int, float]] = {
    "place": (25, 1.0),
    "modify": (25, 1.0),
    "cancel": (25, 1.0),
    "books": (6, 1.0),
    "trades": (40, 2.0),
    "positions": (1, 1.0),
    "holdings": (1, 10.0),
    "balance": (10, 3.0),
    "session": (5, 1.0),
    "market": (4, 1.0),
}
"""Calls per so many seconds: Jainam's notice for server PROP-B of 2025-01-01; A, C and retail are not known.

Order book and order history share one row of that chart. It lists neither logins nor market data: `session` and
`market` are our own restraint.
"""


class JainamAdapter(XtsAdapter):
    """One Jainam account: retail at jtrade by default; PROP servers by hostlookup (docs/brokers/jainam.md)."""

    name = "jainam"
    title = "Jainam"
    address_fields = address_fields(base="https://jtrade.jainam.in:5000")
    budgets: ClassVar[Mapping[str, Bucket]] = MappingProxyType(budgets_of("jainam", PROP_B_LIMITS))
