"""Everything that watches, put together: metrics, rules, the watchdog, and the answers to "how are we?"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.registry import Collector

from orderwire.config import Settings
from orderwire.core.alerts import RULES, Rule, Severity, tuned
from orderwire.core.health import FeedHealth, FleetHealth
from orderwire.core.latency import HistogramSnapshot
from orderwire.core.recovery import Freshness
from orderwire.engine import EventEngine
from orderwire.errors import ConfigurationError
from orderwire.monitoring.metrics import Metrics, Sources, waiting
from orderwire.monitoring.muster import Muster
from orderwire.monitoring.watchdog import AppriseChannel, Channel, Watchdog, WebhookChannel

_SLOWEST = 8


def rules_of(settings: Settings) -> tuple[Rule, ...]:
    """Return the rules with the operator's limits and pace. Raises ConfigurationError for a rule that is none."""
    given = dict(text.partition("=")[::2] for text in settings.alert_limits)
    try:
        limits = {name: float(limit) for name, limit in given.items()}
        return tuned(RULES, limits=limits, pace=settings.alert_pace)
    except ValueError as error:
        raise ConfigurationError(f"ORDERWIRE_ALERT_LIMITS: {error}.") from error


def channels_of(settings: Settings) -> list[Channel]:
    """Return the ways the operator wants to be told besides the log and the page."""
    found: list[Channel] = []
    if settings.alert_webhook:
        found.append(WebhookChannel(settings.alert_webhook, settings.alert_webhook_secret.get_secret_value()))
    if settings.alert_urls:
        found.append(AppriseChannel(settings.alert_urls))
    return found


class _OnDemand(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Any:
        return self._metrics.collect()


class Station:
    """Watches one service. Every answer may be asked from any thread."""

    def __init__(self, sources: Sources, *, settings: Settings, muster: Muster | None = None) -> None:
        """`muster`: this is one of several processes.

        Raises ConfigurationError for a limit of an alert that does not exist.
        """
        self.sources = sources
        self.metrics = Metrics(sources)
        self.watchdog = Watchdog(
            self.metrics,
            rules=rules_of(settings),
            database=sources.database,
            clock=sources.clock,
            channels=channels_of(settings),
            pace=settings.alert_pace,
            muster=muster,
        )
        self._registry = CollectorRegistry()
        self._registry.register(_OnDemand(self.metrics))
        if Path("/proc/self/stat").exists():
            ProcessCollector(registry=self._registry)

    def attach(self, engine: EventEngine) -> None:
        """Take part in the engine, after those who tell clients of changes."""
        self.metrics.attach(engine)
        self.watchdog.attach(engine)

    def exposition(self) -> bytes:
        """Return every metric in Prometheus' text format."""
        return generate_latest(self._registry)

    def waiting(self) -> tuple[str, ...]:
        """Say what keeps the service from being ready; empty when it is."""
        return waiting(self.sources.fleet(), self.sources.book)

    def status(self) -> dict[str, Any]:
        """Say how we are, for scripts: plain values, stable names."""
        fleet, statistics = self.sources.fleet(), self.sources.engine.statistics()
        raised = self.watchdog.raised
        stages, whole = self.metrics.latencies.snapshot()
        reasons = waiting(fleet, self.sources.book)
        return {
            "status": _word(alert.severity for alert in raised),
            "ready": not reasons,
            "waiting_for": list(reasons),
            "version": self.sources.version,
            "uptime_seconds": round(self.sources.clock.monotonic() - self.metrics.started, 1),
            "alerts": [
                {
                    "alert": alert.rule,
                    "severity": alert.severity.value,
                    "labels": dict(alert.labels),
                    "text": alert.text,
                    "silenced": any(
                        silence.covers(alert, self.sources.clock.time_ns())
                        for silence in self.watchdog.silences
                    ),
                }
                for alert in raised
            ],
            "engine": {
                "queue_depth": statistics.depth,
                "queue_high_water": statistics.high_water,
                "events": statistics.delivered,
                "events_per_second": round(statistics.rate, 2),
                "dead_lettered": statistics.dead_lettered,
            },
            "latency_ms": {
                "received_to_clients": _milliseconds(whole),
                **{
                    stage: _milliseconds(counted)
                    for (stage, change), counted in stages.items()
                    if change == "order"
                },
            },
            "commits": {
                "blocked_seconds": round(self.sources.book.blocked_seconds, 1),
                "held_back": self.sources.book.held_back,
            },
            "clients": self.sources.web().clients,
            "feeds": feed_counts(fleet),
            "accounts": [_described(feed) for feed in by_freshness(fleet)],
        }

    def slowest(self) -> list[dict[str, Any]]:
        """Return the handlers with the longest single call first."""
        rows = self.sources.engine.statistics().slowest(_SLOWEST)
        return [
            {
                "handler": row.handler.removeprefix("orderwire."),
                "lane": row.lane,
                "calls": row.count,
                "errors": row.errors,
                **_milliseconds(row.handler_time),
            }
            for row in rows
        ]


_WORST_FIRST = (
    Freshness.STALE,
    Freshness.AUTH_REQUIRED,
    Freshness.DEGRADED,
    Freshness.RECONCILING,
    Freshness.LIVE,
    Freshness.MANUAL,
)


def by_freshness(fleet: FleetHealth) -> list[FeedHealth]:
    """Return the feeds, those that want looking at first."""
    return sorted(
        fleet.feeds, key=lambda feed: (feed.running, _WORST_FIRST.index(feed.freshness), feed.account)
    )


def feed_counts(fleet: FleetHealth) -> dict[str, int]:
    """Count the feeds by freshness, those that none has left out."""
    counts = {freshness.value: 0 for freshness in _WORST_FIRST}
    for feed in fleet.feeds:
        counts[feed.freshness.value] += 1
    return {name: count for name, count in counts.items() if count}


def _word(severities: Any) -> str:
    found = set(severities)
    if Severity.CRITICAL in found:
        return "critical"
    return "warning" if found else "ok"


def _milliseconds(counted: HistogramSnapshot) -> dict[str, Any]:
    return {
        "count": counted.count,
        "p50": round(counted.p50 / 1e6, 3),
        "p95": round(counted.percentile(95) / 1e6, 3),
        "max": round(counted.max / 1e6, 3),
    }


def _described(feed: FeedHealth) -> dict[str, Any]:
    return {
        "account": feed.account,
        "broker": feed.broker,
        "freshness": feed.freshness.value,
        "since": feed.since.isoformat(),
        "detail": feed.detail,
        "running": feed.running,
        "connected": feed.connected,
        "heartbeat_age_seconds": None if feed.heartbeat_age is None else round(feed.heartbeat_age, 1),
        "read_at": feed.read_at.isoformat() if feed.read_at else None,
        "open_orders": feed.open_orders,
        "reconnects": feed.counts.get("reconnects", 0),
    }
