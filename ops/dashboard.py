"""Writes the Grafana dashboard: `python ops/dashboard.py`; a test proves the file current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).resolve().parent / "grafana" / "dashboards" / "orderwire.json"
SOURCE = {"type": "prometheus", "uid": "prometheus"}
RATE = "$__rate_interval"

Panel = tuple[str, str, str, list[tuple[str, str]]]


def _p(share: float, metric: str, by: str = "") -> str:
    group = f"le, {by}" if by else "le"
    return f"histogram_quantile({share:g}, sum by ({group})(rate({metric}_bucket[{RATE}])))"


ROWS: list[tuple[str, list[Panel]]] = [
    (
        "At a glance",
        [
            ("Ready", "stat", "none", [("min(orderwire_ready)", "ready")]),
            ("Live accounts", "stat", "none", [('sum(orderwire_feeds{freshness="LIVE"})', "live")]),
            ("Received to clients, p95", "stat", "s", [(_p(0.95, "orderwire_processing_seconds"), "p95")]),
            ("Queue", "stat", "none", [("max(orderwire_queue_depth)", "events")]),
            ("Clients", "stat", "none", [("sum(orderwire_clients)", "clients")]),
            ("Up", "stat", "s", [("min(orderwire_uptime_seconds)", "up")]),
        ],
    ),
    (
        "An update's way",
        [
            ("Received to clients", "timeseries", "s", [(_p(q, "orderwire_processing_seconds"), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)]),
            ("Stages, p95", "timeseries", "s", [(_p(0.95, "orderwire_stage_seconds", "stage"), "{{stage}}")]),
            ("Received to painted, p95", "timeseries", "s", [(_p(0.95, "orderwire_received_to_painted_seconds"), "received"), (_p(0.95, "orderwire_placed_to_painted_seconds"), "placed"), (_p(0.95, "orderwire_paint_seconds"), "client to screen")]),
            ("Changes told", "timeseries", "ops", [(f'sum by (change)(rate(orderwire_stage_seconds_count{{stage="emitted"}}[{RATE}]))', "{{change}}")]),
        ],
    ),
    (
        "Engine",
        [
            ("Queue depth", "timeseries", "none", [("max(orderwire_queue_depth)", "now"), ("max(orderwire_queue_high_water)", "most")]),
            ("Events", "timeseries", "ops", [("sum(orderwire_events_per_second)", "all processes")]),
            ("Events by type", "timeseries", "ops", [(f"sum by (type)(rate(orderwire_events_by_type_total[{RATE}]))", "{{type}}")]),
            ("Wait in the queue, p95", "timeseries", "s", [(_p(0.95, "orderwire_event_wait_seconds", "type"), "{{type}}")]),
            ("Handler time, p95", "timeseries", "s", [(_p(0.95, "orderwire_event_handling_seconds", "type"), "{{type}}")]),
            ("Busiest handlers", "timeseries", "percentunit", [(f"topk(8, sum by (handler)(rate(orderwire_handler_seconds_total[{RATE}])))", "{{handler}}")]),
            ("Calls of handlers", "timeseries", "ops", [(f"topk(8, sum by (handler)(rate(orderwire_handler_calls_total[{RATE}])))", "{{handler}}")]),
            ("Lanes", "timeseries", "none", [("max by (lane)(orderwire_lane_depth)", "{{lane}}"), ("sum by (lane)(orderwire_lane_conflated_total)", "{{lane}} conflated")]),
            ("Dispatcher's last tick", "timeseries", "s", [("max(orderwire_engine_tick_age_seconds)", "ago")]),
            ("Errors", "timeseries", "ops", [(f"sum by (where)(rate(orderwire_errors_total[{RATE}]))", "{{where}}")]),
            ("Error rate", "timeseries", "percentunit", [(f"sum(rate(orderwire_errors_total[{RATE}])) / sum(rate(orderwire_events_total[{RATE}]))", "of all events")]),
            ("Dead letters", "timeseries", "none", [("sum by (what)(orderwire_dead_letters_total)", "{{what}}")]),
            ("Another worker's by then, not written", "timeseries", "none", [("sum(orderwire_stale_writes_refused_total)", "refused")]),
        ],
    ),
    (
        "Feeds",
        [
            ("Accounts by freshness", "timeseries", "none", [("sum by (freshness)(orderwire_feeds)", "{{freshness}}")]),
            ("Streams", "timeseries", "none", [("sum by (broker)(orderwire_streams_connected)", "{{broker}}")]),
            ("Time connected", "timeseries", "s", [("sum by (broker)(orderwire_stream_connected_seconds_total)", "{{broker}}")]),
            ("Longest stream down", "timeseries", "s", [("max by (broker)(orderwire_stream_down_seconds)", "{{broker}}")]),
            ("Age of the last byte", "timeseries", "s", [("max by (broker)(orderwire_heartbeat_age_seconds)", "{{broker}}")]),
            ("Reconnects", "timeseries", "ops", [(f"sum by (broker)(rate(orderwire_stream_reconnects_total[{RATE}]))", "{{broker}}")]),
            ("REST calls by purpose", "timeseries", "ops", [(f"sum by (broker, purpose)(rate(orderwire_rest_calls_total[{RATE}]))", "{{broker}} {{purpose}}")]),
            ("REST calls refused or unanswered", "timeseries", "ops", [(f"sum by (broker)(rate(orderwire_rest_limited_total[{RATE}]))", "{{broker}} 429"), (f"sum by (broker)(rate(orderwire_rest_unanswered_total[{RATE}]))", "{{broker}} unanswered")]),
            ("Book reads", "timeseries", "ops", [(f"sum by (broker)(rate(orderwire_book_reads_total[{RATE}]))", "{{broker}}"), (f"sum by (broker)(rate(orderwire_history_reads_total[{RATE}]))", "{{broker}} histories"), (f"sum by (broker)(rate(orderwire_book_reads_failed_total[{RATE}]))", "{{broker}} failed")]),
            ("Stream messages and adapters at fault", "timeseries", "none", [("sum by (broker)(orderwire_stream_violations_total)", "{{broker}} unreadable"), ("sum by (broker)(orderwire_adapter_faults_total)", "{{broker}} faults")]),
            ("Accounts in want of somebody", "timeseries", "none", [("sum by (broker)(orderwire_stale_accounts)", "{{broker}} stale"), ("sum by (broker)(orderwire_login_required_accounts)", "{{broker}} login"), ("sum by (broker)(orderwire_feeds_without_owner)", "{{broker}} no owner")]),
            ("Clock offset", "timeseries", "s", [("max by (broker)(orderwire_clock_offset_seconds)", "{{broker}}")]),
            ("Open orders", "timeseries", "none", [("sum by (broker)(orderwire_open_orders)", "{{broker}}")]),
        ],
    ),
    (
        "Rollout",
        [
            ("Accounts by reason", "timeseries", "none", [("sum by (reason)(orderwire_rollout_accounts)", "{{reason}}")]),
            ("Decisions that changed", "timeseries", "none", [("sum by (reason)(orderwire_rollout_decisions_total)", "{{reason}}")]),
        ],
    ),
    (
        "What was observed",
        [
            ("Observations", "timeseries", "ops", [(f"sum by (broker)(rate(orderwire_observations_total[{RATE}]))", "{{broker}}"), (f"sum by (broker)(rate(orderwire_duplicates_total[{RATE}]))", "{{broker}} duplicates")]),
            ("Missed by push", "timeseries", "none", [("sum by (broker)(orderwire_missed_by_push_total)", "{{broker}}")]),
            ("Odd ones", "timeseries", "none", [(f"sum by (broker)(orderwire_{name}_total)", f"{{{{broker}}}} {name.replace('_', ' ')}") for name in ("refused_observations", "held_observations", "surprising_transitions", "unknown_statuses", "unreadable_observations", "ties", "conflicts", "corrections", "hints")]),
            ("Postbacks that the book denied", "timeseries", "none", [("sum by (broker)(orderwire_postbacks_mismatched_total)", "{{broker}}")]),
            ("Postbacks", "timeseries", "none", [("sum by (result)(orderwire_postbacks_total)", "{{result}}")]),
        ],
    ),
    (
        "Between processes",
        [
            ("Changes published and followed", "timeseries", "ops", [(f"sum(rate(orderwire_bus_published_total[{RATE}]))", "published"), (f"sum by (source)(rate(orderwire_bus_followed_total[{RATE}]))", "followed, {{source}}")]),
            ("Out of the ordinary", "timeseries", "none", [(f"sum(orderwire_bus_{name}_total)", name) for name in ("gaps", "missed", "parked", "repeated", "refused", "deaf")]),
            ("Redis or database not reached", "timeseries", "none", [("sum by (loop)(orderwire_bus_failures_total)", "{{loop}}"), ("sum by (loop)(orderwire_bus_renewed_total)", "{{loop}} began anew")]),
            ("Hears notices", "timeseries", "none", [("min by (instance)(orderwire_bus_hears)", "{{instance}}")]),
            ("Notices", "timeseries", "ops", [(f"sum by (result)(rate(orderwire_bus_notices_total[{RATE}]))", "{{result}}")]),
            ("Taken off the streams", "timeseries", "ops", [(f"sum(rate(orderwire_bus_trimmed_total[{RATE}]))", "trimmed")]),
        ],
    ),
    (
        "Database, machine, alerts",
        [
            ("Commits", "timeseries", "ops", [(f"sum(rate(orderwire_commits_total[{RATE}]))", "commits")]),
            ("Time of a commit, mean", "timeseries", "s", [(f"sum(rate(orderwire_commit_seconds_total[{RATE}])) / sum(rate(orderwire_commits_total[{RATE}]))", "commit")]),
            ("Commits held back", "timeseries", "none", [("max(orderwire_commit_held_back)", "events"), ("max(orderwire_commit_blocked_seconds)", "seconds")]),
            ("Slowest client's backlog", "timeseries", "none", [("max(orderwire_outbox_waiting)", "deliveries")]),
            ("Disk free", "timeseries", "percentunit", [("min(orderwire_disk_free_ratio)", "free")]),
            ("Memory", "timeseries", "bytes", [("sum(process_resident_memory_bytes)", "resident")]),
            ("CPU", "timeseries", "percentunit", [(f"sum(rate(process_cpu_seconds_total[{RATE}]))", "cores")]),
            ("Market open", "timeseries", "none", [("max(orderwire_market_open)", "open"), ("max(orderwire_market_near)", "near")]),
            ("Release", "stat", "none", [("orderwire_build_info", "{{version}}")]),
            ("Alerts raised by the service", "timeseries", "none", [("sum by (alert)(orderwire_alerts_total)", "{{alert}}")]),
            ("Notices", "timeseries", "none", [("sum by (kind)(orderwire_notices_total)", "{{kind}}")]),
            ("Deliveries that failed", "timeseries", "none", [("sum by (channel)(orderwire_notifications_failed_total)", "{{channel}}")]),
        ],
    ),
]  # fmt: skip


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        panels.append({"type": "row", "title": title, "collapsed": False, "id": len(panels) + 1, "panels": [], "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}})  # fmt: skip
        y += 1
        width, height = (4, 4) if row[0][1] == "stat" and len(row) > 4 else (8, 8)
        for number, panel in enumerate(row):
            column = number % (24 // width)
            place = {"h": height, "w": width, "x": column * width, "y": y + number // (24 // width) * height}
            panels.append(_panel(panel, len(panels) + 1, place))
        y += (len(row) + 24 // width - 1) // (24 // width) * height
    return {
        "uid": "orderwire",
        "title": "orderwire",
        "tags": ["orderwire"],
        "schemaVersion": 39,
        "timezone": "Asia/Kolkata",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "editable": True,
        "panels": panels,
        "templating": {"list": []},
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "datasource": SOURCE,
                    "enable": True,
                    "expr": 'ALERTS{alertstate="firing", job=~"orderwire|"}',
                    "titleFormat": "{{alertname}} {{broker}}",
                    "iconColor": "red",
                }
            ]
        },
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    title, kind, unit, queries = panel
    defaults: dict[str, Any] = {"unit": unit, "min": 0}
    return {
        "id": number,
        "type": kind,
        "title": title,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if kind == "timeseries" else {},
        "targets": [
            {"refId": chr(65 + index), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
            for index, (expr, legend) in enumerate(queries)
        ],
    }


def text() -> str:
    """Return the file's text."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(text())
