from __future__ import annotations

import json

import pytest

from orderwire.core.evidence import Tally
from orderwire.core.survey import Answers
from orderwire.store.survey import Voices
from orderwire.store.users import Role
from web.house import csrf


@pytest.fixture
def voices(house):
    return Voices(house.services.database)


@pytest.fixture
def owner(house):
    house.user("boss", Role.OWNER)
    return house.client("boss")


@pytest.fixture
def trader(house):
    house.user("tia", Role.TRADER)
    return house.client("tia")


@pytest.fixture
def before_anybody(house):
    house.services.pilot.gate.set_stage(0, who="boss", why="baseline first")


def post(client, path, page, **fields):
    return client.post(path, data={"csrf_token": csrf(client, page), **fields})


def test_the_report_is_the_owners(owner, trader):
    page = owner.get("/report")

    assert page.status_code == 200
    assert "NOT ENOUGH DATA" in page.text
    assert trader.get("/report").status_code == 403
    assert trader.get("/report/json").status_code == 403


def test_the_page_breaks_no_content_rule(owner):
    page = owner.get("/report").text

    assert "<style" not in page
    assert " style=" not in page
    assert owner.get("/report/style.css").content_type.startswith("text/css")


@pytest.mark.parametrize(("kind", "begins"), [("html", "<!doctype html>"), ("md", "# "), ("json", "{")])
def test_the_report_is_downloaded_in_every_form(owner, kind, begins):
    answer = owner.get(f"/report/{kind}?from=2026-11-02&to=2026-11-08")

    assert answer.text.startswith(begins)
    assert f"orderwire-report-2026-11-02-2026-11-08.{kind}" in answer.headers["Content-Disposition"]


def test_a_wrong_day_and_a_wrong_form_are_refused(owner):
    assert owner.get("/report?from=soon").status_code == 400
    assert "is no day" in owner.get("/report?from=soon").text
    assert owner.get("/report/doc").status_code == 404


def test_the_figures_come_from_the_minutes(house, owner):
    records = house.services.pilot.records
    minute = records.now_ns() // 60_000_000_000
    records.keep([Tally(minute=minute, broker="wired", cohort="realtime", accounts=1, placed=(123_000,) * 7)])

    told = json.loads(owner.get("/report/json").text)

    assert told["card"]["latency"]["value"] == 0.123
    assert told["card"]["latency"]["count"] == 7


def test_owners_write_incidents_down_and_end_them(owner, voices):
    post(owner, "/report/incident", "/report", severity="critical", title="streams down")
    assert "streams down" in owner.get("/report").text
    number = str(voices.incidents()[0].id)
    post(owner, "/report/incident", "/report", close=number)

    assert voices.incidents()[0].closed is not None
    assert voices.incidents()[0].who == "boss"


@pytest.mark.parametrize(
    "fields", [{"severity": "bad", "title": "x"}, {"severity": "major", "title": " "}, {"close": "x"}]
)
def test_a_wrong_incident_is_not_kept(owner, voices, fields):
    post(owner, "/report/incident", "/report", **fields)

    assert voices.incidents() == []


def test_soft_answers_carry_their_author(owner, voices):
    post(owner, "/report/answer", "/report", question="team_comfortable", value="yes")
    post(owner, "/report/answer", "/report", question="team_comfortable", value="perhaps")

    assert voices.recorded()["team_comfortable"].value == "yes"
    assert voices.recorded()["team_comfortable"].author == "boss"


@pytest.mark.usefixtures("before_anybody")
def test_a_user_is_asked_once_a_wave(trader, voices):
    assert "Five questions" in trader.get("/accounts").text

    post(trader, "/survey", "/survey", wave="baseline", satisfaction="4", next_broker="Dhan")

    assert "survey-ask" not in trader.get("/accounts").text
    assert voices.filled()[0].answers == Answers(scales={"satisfaction": 4}, words={"next_broker": "Dhan"})
    assert voices.filled()[0].owner == "tia"
    again = post(trader, "/survey", "/survey", wave="baseline", satisfaction="1")
    assert again.status_code == 400
    assert len(voices.filled()) == 1


@pytest.mark.usefixtures("before_anybody")
def test_an_anonymous_answer_carries_no_name(trader, voices):
    post(trader, "/survey", "/survey", wave="baseline", satisfaction="2", anonymous="on")

    assert voices.filled()[0].owner is None


@pytest.mark.usefixtures("before_anybody")
def test_whoever_says_no_is_asked_no_more(trader, voices):
    post(trader, "/survey/dismiss", "/accounts")

    assert "survey-ask" not in trader.get("/accounts").text
    assert voices.outcomes("baseline") == {"tia": "dismissed"}


def test_outside_a_pilot_nobody_is_asked(trader):
    assert "survey-ask" not in trader.get("/accounts").text
    assert "No survey is open now" in trader.get("/survey").text
    assert post(trader, "/survey", "/survey", wave="baseline", satisfaction="4").status_code == 400


@pytest.mark.usefixtures("before_anybody")
def test_a_survey_without_its_first_answer_is_asked_again(trader, voices):
    answer = post(trader, "/survey", "/survey", wave="baseline", wish="more colours")

    assert answer.status_code == 400
    assert "Answer this one" in answer.text
    assert 'value="more colours"' in answer.text
    assert voices.filled() == []


def test_the_feedback_box_is_always_open(trader, voices):
    post(trader, "/feedback", "/survey", words="good")
    post(trader, "/feedback", "/survey", words="quiet", anonymous="on")
    post(trader, "/feedback", "/survey", words="   ")

    assert [(said.owner, said.words) for said in voices.feedback()] == [(None, "quiet"), ("tia", "good")]
