"""Finds the brokers that are installed; one that cannot be loaded is named, and harms nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from types import MappingProxyType

from orderwire.brokers.adapter import BrokerAdapter
from orderwire.brokers.http import Bucket
from orderwire.errors import NotFoundError

GROUP = "orderwire.brokers"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerRegistry:
    """The adapter classes by name, and for each that failed, why. Immutable; any thread."""

    classes: Mapping[str, type[BrokerAdapter]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    """In words for an operator; one line each."""

    def get(self, name: str) -> type[BrokerAdapter]:
        """Return the class; NotFoundError says whether it is unknown or failed to load."""
        if name in self.classes:
            return self.classes[name]
        if name in self.failures:
            raise NotFoundError(f"The broker {name} cannot be used: {self.failures[name]}")
        known = ", ".join(sorted(self.classes)) or "none"
        raise NotFoundError(f"There is no broker {name!r}; installed: {known}.")

    def budgets(self) -> dict[str, Bucket]:
        """Return the budgets of all brokers, for one `BrokerHttp`."""
        return {name: bucket for broker in self.classes.values() for name, bucket in broker.budgets.items()}


def load_brokers(
    found: Callable[[], Iterable[EntryPoint]] = lambda: entry_points(group=GROUP),
) -> BrokerRegistry:
    """Load every entry point of the group `orderwire.brokers`; never raises for what one of them does.

    An airlock: a package that raises while it is imported, is no adapter, or takes another's name or budgets
    becomes an entry of `failures`.
    """
    classes: dict[str, type[BrokerAdapter]] = {}
    failures: dict[str, str] = {}
    for entry in sorted(found(), key=lambda entry: (entry.name, entry.value)):
        try:
            broker = _checked(entry, classes)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the airlock: named in `failures`
            failures.setdefault(entry.name, f"{type(error).__name__}: {error}".splitlines()[0][:300])
        else:
            classes[entry.name] = broker
    return BrokerRegistry(classes=MappingProxyType(classes), failures=MappingProxyType(failures))


def _checked(entry: EntryPoint, taken: Mapping[str, type[BrokerAdapter]]) -> type[BrokerAdapter]:
    broker = entry.load()
    if not (isinstance(broker, type) and issubclass(broker, BrokerAdapter)):
        raise TypeError(f"{entry.value} is not a BrokerAdapter")
    if isabstract(broker):
        raise TypeError(f"{entry.value} lacks {', '.join(sorted(broker.__abstractmethods__))}")
    if broker.name != entry.name or entry.name in taken:
        raise ValueError(f"{entry.value} is named {broker.name!r}, which must be its entry point's own name")
    foreign = [name for name in broker.budgets if not name.startswith(f"{broker.name}.")]
    if foreign:
        raise ValueError(f"its budgets {', '.join(foreign)} must begin with {broker.name}.")
    return broker
