"""Paisa keeps orderwire's adapter contract."""

from __future__ import annotations

from orderwire.brokers.registry import load_brokers
from orderwire.testing import AdapterContract

from desk import open_desk


class TestPaisa(AdapterContract):
    adapter_class = load_brokers().get("paisa")
    """What the entry point names, as the service will find it."""

    def desk(self):
        return open_desk(self.adapter_class)
