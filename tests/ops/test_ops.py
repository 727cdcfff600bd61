"""What an operator runs beside the service is read here by the programs that read it there."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from orderwire.core.alerts import RULES
from orderwire.core.promrules import RUNBOOK
from orderwire.monitoring.metrics import CATALOGUE

ROOT = Path(__file__).resolve().parent.parent.parent
OPS = ROOT / "ops"
RULES_FILE = OPS / "prometheus" / "orderwire.rules.yml"
ALERTMANAGER = OPS / "alertmanager" / "alertmanager.yml"


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    return done.returncode, done.stdout + done.stderr


def expressions():
    dashboard = json.loads((OPS / "grafana" / "dashboards" / "orderwire.json").read_text())
    return [
        (panel["title"], target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]


def names_in(expression):
    return set(re.findall(r"\borderwire_[a-z_]+", expression))


def exposed_names():
    suffixes = {"histogram": ("_bucket", "_count", "_sum")}
    return {m.name + suffix for m in CATALOGUE for suffix in suffixes.get(m.kind, ("",))}


@pytest.mark.needs("promtool")
def test_prometheus_takes_its_configuration_and_the_rules():
    code, said = run("promtool", "check", "config", OPS / "prometheus" / "prometheus.yml")

    assert code == 0, said
    assert f"{len(RULES)} rules found" in said


@pytest.mark.needs("amtool")
def test_alertmanager_takes_its_configuration():
    code, said = run("amtool", "check-config", ALERTMANAGER)

    assert code == 0, said


@pytest.mark.needs("amtool")
def test_every_alert_has_a_way_to_people():
    for rule in RULES:
        labels = [f"alertname={rule.name}", f"severity={rule.severity}", "hours=market"]
        code, said = run("amtool", "config", "routes", "test", "--config.file", ALERTMANAGER, *labels)

        assert (code, said.splitlines()[0]) == (0, "people")


def test_the_hours_of_alertmanager_are_those_of_the_market():
    from orderwire.feeds.market import load_calendar

    calendar = load_calendar()

    (hours,) = next(
        one["time_intervals"]
        for one in yaml.safe_load(ALERTMANAGER.read_text())["time_intervals"]
        if one["name"] == "market-hours"
    )
    (times,) = hours["times"]
    first, last = (int(times[edge].replace(":", "")) for edge in ("start_time", "end_time"))

    assert hours["location"] == "Asia/Kolkata"
    assert hours["weekdays"] == ["monday:friday"]
    for minute in range(0, 24 * 60, 5):
        moment = datetime(2026, 8, 17, tzinfo=UTC).replace(hour=minute // 60, minute=minute % 60)
        local = (minute + 330) % 1440
        inside = first <= local // 60 * 100 + local % 60 < last
        assert inside or not calendar.is_open(moment), moment


def test_the_dashboard_is_the_one_its_program_makes():
    made = runpy.run_path(str(OPS / "dashboard.py"))

    assert made["PATH"].read_text() == made["text"](), "run: python ops/dashboard.py"


def test_the_dashboard_shows_every_metric_and_none_that_is_not():
    shown = set().union(*(names_in(expression) for _, expression in expressions()))
    told = {name for name in exposed_names() if not name.endswith(("_sum", "_count"))}

    assert shown <= exposed_names()
    assert told - shown == set()


def test_panels_do_not_overlap():
    dashboard = json.loads((OPS / "grafana" / "dashboards" / "orderwire.json").read_text())
    taken = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_compose_file_names_only_what_is_there():
    compose = yaml.safe_load((OPS / "compose.monitoring.yaml").read_text())
    volumes = compose["volumes"]

    for name, service in compose["services"].items():
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", service["image"]), name
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            assert source in volumes or (OPS / source).is_dir(), mount
        for needed in service.get("depends_on", []):
            assert needed in compose["services"]
    if shutil.which("docker") and run("docker", "compose", "version")[0] == 0:
        code, said = run("docker", "compose", "-f", OPS / "compose.monitoring.yaml", "config", "--quiet")
        assert code == 0, said


def test_the_provisioning_of_grafana_leads_to_the_dashboard():
    compose = yaml.safe_load((OPS / "compose.monitoring.yaml").read_text())
    mounts = dict(mount.split(":")[:2] for mount in compose["services"]["grafana"]["volumes"])
    provider = yaml.safe_load((OPS / "grafana" / "provisioning" / "dashboards" / "orderwire.yml").read_text())
    source = yaml.safe_load((OPS / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text())
    dashboard = json.loads((OPS / "grafana" / "dashboards" / "orderwire.json").read_text())

    assert provider["providers"][0]["options"]["path"] == mounts["./grafana/dashboards"]
    used = {panel["datasource"]["uid"] for panel in dashboard["panels"] if "datasource" in panel}
    assert used == {source["datasources"][0]["uid"]}


def test_every_alert_has_a_heading_in_the_runbook_and_every_heading_an_alert():
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    headings = re.findall(r"^## ([A-Z][A-Za-z]+)$", runbook, re.MULTILINE)

    assert headings == [rule.name for rule in RULES]
    for section in re.split(r"^## ", runbook, flags=re.MULTILINE)[2:]:
        for part in ("**Means**", "**Confirm**", "**Do**", "**Roll back**"):
            assert part in section, (section.splitlines()[0], part)


def test_the_rules_lead_to_the_runbook():
    links = re.findall(r"runbook_url: (.*)", RULES_FILE.read_text())

    assert links == [f"{RUNBOOK}#{rule.name.lower()}" for rule in RULES]
    assert (ROOT / RUNBOOK.split("/main/")[1]).is_file()


def test_every_command_the_runbook_names_exists():
    from typer.main import get_command

    from orderwire.cli import app

    texts = [(ROOT / "docs" / "runbook.md").read_text(), (OPS / "README.md").read_text()]
    named = re.findall(
        r"`?orderwire ((?:[a-z]+ ?)+)",
        "\n".join(re.findall(r"`orderwire [^`]*|^orderwire .*", "\n".join(texts), re.MULTILINE)),
    )
    for line in named:
        command = get_command(app)
        for word in line.split():
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, line
            command = command.commands[word]
