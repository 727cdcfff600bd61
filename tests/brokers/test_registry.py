from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import pytest

from orderwire.brokers.adapter import BrokerAdapter
from orderwire.brokers.http import Bucket
from orderwire.brokers.registry import GROUP, BrokerRegistry, load_brokers
from orderwire.brokers.zerodha.adapter import ZerodhaAdapter
from orderwire.errors import NotFoundError

ZERODHA = "orderwire.brokers.zerodha.adapter:ZerodhaAdapter"


def registry(**entries):
    return load_brokers(lambda: [EntryPoint(name, value, GROUP) for name, value in entries.items()])


@pytest.fixture
def broken_packages(tmp_path, monkeypatch):
    sources = {
        "explodes": "raise RuntimeError('no licence file\\nand more')",
        "leaves": "import sys; sys.exit(3)",
        "unfinished": "from orderwire.brokers.adapter import BrokerAdapter\nclass A(BrokerAdapter):\n    name = 'unfinished'",
        "greedy": (
            "from orderwire.brokers.zerodha.adapter import ZerodhaAdapter\n"
            "class A(ZerodhaAdapter):\n    name = 'greedy'"
        ),
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in sources:
        sys.modules.pop(name, None)


def test_an_installed_broker_is_found():
    found = registry(zerodha=ZERODHA)

    assert found.classes == {"zerodha": ZerodhaAdapter}
    assert found.failures == {}
    assert found.get("zerodha") is ZerodhaAdapter


def test_the_brokers_of_this_package_are_registered():
    assert load_brokers().get("zerodha") is ZerodhaAdapter


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("explodes", "explodes:A", "RuntimeError: no licence file"),
        ("leaves", "leaves:A", "SystemExit: 3"),
        ("missing", "not_there_at_all:A", "ModuleNotFoundError"),
        ("nothing", "orderwire.brokers.adapter:Nothing", "AttributeError"),
        ("function", "orderwire.brokers.adapter:plaintext_refusal", "is not a BrokerAdapter"),
        ("unfinished", "unfinished:A", "lacks cancel_order, funds"),
        ("other", ZERODHA, "must be its entry point's own name"),
        ("greedy", "greedy:A", "must begin with greedy."),
    ],
)
def test_a_broker_that_cannot_be_used_is_named_and_harms_nobody(broken_packages, name, value, why):
    found = registry(zerodha=ZERODHA, **{name: value})

    assert list(found.classes) == ["zerodha"]
    assert why in found.failures[name]
    assert "\n" not in found.failures[name]
    with pytest.raises(NotFoundError, match="cannot be used"):
        found.get(name)


def test_a_name_is_given_once():
    entries = [EntryPoint("zerodha", ZERODHA, GROUP), EntryPoint("zerodha", "another:Broker", GROUP)]

    found = load_brokers(lambda: entries)

    assert (len(found.classes) + len(found.failures)) == 2
    assert "another" in found.failures["zerodha"]


def test_an_unknown_broker_is_answered_with_the_known_ones():
    with pytest.raises(NotFoundError, match="installed: zerodha"):
        registry(zerodha=ZERODHA).get("upstox")
    with pytest.raises(NotFoundError, match="installed: none"):
        BrokerRegistry().get("zerodha")


def test_budgets_of_all_brokers_are_gathered():
    budgets = registry(zerodha=ZERODHA).budgets()

    assert {"zerodha.place", "zerodha.amend", "zerodha.read"} <= set(budgets)
    assert all(isinstance(bucket, Bucket) for bucket in budgets.values())


def test_the_registry_cannot_be_changed():
    with pytest.raises(TypeError):
        registry(zerodha=ZERODHA).classes["x"] = BrokerAdapter
