from __future__ import annotations

import csv
import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from orderwire import cli
from orderwire.config import load
from orderwire.core.evidence import Tally, minute_of
from orderwire.core.survey import Answers
from orderwire.errors import OrderwireError
from orderwire.service import open_records
from orderwire.store.pilot import PilotRecords
from orderwire.store.survey import Voices


@pytest.fixture
def folder(tmp_path):
    made = CliRunner().invoke(cli.app, ["init", "--data-dir", str(tmp_path / "d"), "--later"])
    assert made.exit_code == 0, made.output
    return tmp_path / "d"


def run(folder, *words):
    told = CliRunner().invoke(cli.app, [*words, "--data-dir", str(folder)])
    if told.exception and not isinstance(told.exception, SystemExit):
        raise told.exception
    return told


def test_a_report_is_made_in_each_form(folder, tmp_path):
    assert "## Verdict: NOT ENOUGH DATA" in run(folder, "report").stdout
    assert json.loads(run(folder, "report", "--json").stdout)["verdict"] == "NOT ENOUGH DATA"
    run(
        folder,
        "report",
        "--html",
        "--from",
        "2026-11-02",
        "--to",
        "2026-11-08",
        "--out",
        str(tmp_path / "r.html"),
    )
    assert "2026-11-02 to 2026-11-08" in (tmp_path / "r.html").read_text()


def test_two_forms_at_once_are_refused(folder):
    with pytest.raises(OrderwireError, match="Choose one of --html, --pdf"):
        run(folder, "report", "--html", "--pdf")


def test_a_place_that_cannot_be_written_is_one_line(folder, tmp_path):
    with pytest.raises(OrderwireError, match="Cannot write"):
        run(folder, "report", "--out", str(tmp_path / "none" / "r.md"))


def test_incidents_and_soft_answers_reach_the_report(folder):
    run(folder, "incidents", "open", "critical", "streams | down")
    run(folder, "survey", "record", "maintenance", "low")

    told = json.loads(run(folder, "report", "--json").stdout)

    assert told["incidents"][0]["title"] == "streams | down"
    assert told["verdict"] == "ROLLBACK"
    assert told["card"]["maintenance"]["value"] == "low"
    run(folder, "incidents", "close", "1")
    assert "critical" in run(folder, "incidents", "list").stdout


def test_answers_are_exported_and_never_become_formulas(folder):
    records = open_records(load(data_dir=folder))
    answers = Answers(scales={"satisfaction": 4}, words={"wish": "=1+1"})
    Voices(records.database).answer("baseline", answers, owner="tia", cohort="manual", anonymous=True)
    records.database.close()

    head, row = run(folder, "survey", "export").stdout.splitlines()

    assert head == "wave,day,user,cohort,satisfaction,speed,trust,next_broker,wish"
    assert row.startswith("baseline,")
    assert row.endswith(",,manual,4,,,,'=1+1")


def test_the_days_are_written_as_csv(folder, tmp_path):
    records = open_records(load(data_dir=folder))
    minute = minute_of(datetime(2026, 11, 2, 5, tzinfo=UTC))
    tally = Tally(minute=minute, broker="paisa", cohort="realtime", events=4)
    PilotRecords(records.database).keep([tally])
    records.database.close()

    run(
        folder,
        "pilot",
        "days",
        "--from",
        "2026-11-02",
        "--to",
        "2026-11-03",
        "--out",
        str(tmp_path / "d.csv"),
    )

    with (tmp_path / "d.csv").open() as file:
        there, gap = csv.DictReader(file)
    assert (there["day"], there["broker"], there["minutes"], there["events"]) == (
        "2026-11-02",
        "paisa",
        "1",
        "4",
    )
    assert (gap["day"], gap["minutes"], gap["events"]) == ("2026-11-03", "0", "")
    with pytest.raises(OrderwireError, match="Cannot write"):
        run(folder, "pilot", "days", "--out", str(tmp_path / "none" / "d.csv"))


def test_a_simulated_pilot_says_its_seed_and_its_truth(tmp_path):
    page = tmp_path / "r.html"
    told = CliRunner().invoke(
        cli.app,
        [
            "pilot",
            "simulate",
            "--world",
            "critical incident",
            "--users",
            "10",
            "--minutes",
            "2",
            "--seed",
            "9",
            "--html",
            "--out",
            str(page),
        ],
    )

    assert told.exit_code == 0, told.output
    assert "seed 9" in told.output
    assert "Right in this world: ROLLBACK. Given: ROLLBACK." in told.output
    assert "ROLLBACK" in page.read_text()


def test_the_worlds_are_listed_with_their_truth():
    assert "misleading average" in CliRunner().invoke(cli.app, ["pilot", "worlds"]).output
