"""The small web of house.py, as fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from web.house import House, a_house, a_server


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """The web with one trader, asha, and her account `acc`; no sockets."""
    with a_house(tmp_path) as built:
        built.user("asha")
        built.account("acc", "asha", title="Wired")
        yield built


@pytest.fixture
def server(tmp_path: Path) -> Iterator[House]:
    """The same on a real port."""
    with a_server(tmp_path) as built:
        built.user("asha")
        built.account("acc", "asha", title="Wired")
        yield built
