from __future__ import annotations

import pytest

from orderwire.core.survey import Answers
from orderwire.errors import InvalidRequestError, NotFoundError
from orderwire.store import audit
from orderwire.store.survey import Severity, Voices

HAPPY = Answers(scales={"satisfaction": 5}, words={"next_broker": "Fyers"})


@pytest.fixture
def voices(database) -> Voices:
    return Voices(database)


def test_a_survey_is_answered_once_a_wave(voices):
    voices.answer("baseline", HAPPY, owner="asha", cohort="manual")

    with pytest.raises(InvalidRequestError, match="already"):
        voices.answer("baseline", HAPPY, owner="asha", cohort="manual")
    voices.answer("follow-up", HAPPY, owner="asha", cohort="realtime")

    assert [(f.wave, f.owner, f.cohort, f.answers) for f in voices.filled()] == [
        ("baseline", "asha", "manual", HAPPY),
        ("follow-up", "asha", "realtime", HAPPY),
    ]
    assert len(voices.filled("baseline")) == 1


def test_an_anonymous_answer_keeps_no_name(voices, database):
    voices.answer("baseline", HAPPY, owner="asha", cohort="manual", anonymous=True)

    (filled,) = voices.filled()
    assert filled.owner is None
    assert voices.outcome("baseline", owner="asha") == "answered"
    assert audit.entries(database) == []


def test_a_dismissed_survey_may_still_be_answered_but_not_the_other_way_round(voices):
    voices.dismiss("baseline", owner="asha")
    voices.dismiss("baseline", owner="asha")
    assert voices.outcomes("baseline") == {"asha": "dismissed"}

    voices.answer("baseline", HAPPY, owner="asha", cohort="manual")
    assert voices.outcomes("baseline") == {"asha": "answered"}
    with pytest.raises(InvalidRequestError):
        voices.dismiss("baseline", owner="asha")


def test_there_are_two_waves(voices):
    with pytest.raises(InvalidRequestError, match="baseline, follow-up"):
        voices.answer("third", HAPPY, owner="asha", cohort="manual")
    assert voices.outcome("third", owner="asha") is None


def test_feedback_is_kept_newest_first(voices):
    voices.say("slow today", owner="asha")
    voices.say("  better  ", owner=None)

    assert [(f.owner, f.words) for f in voices.feedback()] == [(None, "better"), ("asha", "slow today")]
    with pytest.raises(InvalidRequestError, match="few words"):
        voices.say("  ", owner="asha")


def test_an_incident_is_opened_and_closed_by_somebody(voices, clock, database):
    made = voices.open_incident(Severity.CRITICAL, "fills late", who="ops")
    clock.advance(3600)
    voices.close_incident(made.id, who="night")

    (incident,) = voices.incidents()
    assert (incident.severity, incident.title, incident.who) == (Severity.CRITICAL, "fills late", "ops")
    assert (incident.closed - incident.opened).total_seconds() == 3600
    assert [entry.what for entry in audit.entries(database)] == ["incident closed", "incident opened"]
    with pytest.raises(NotFoundError, match=f"no open incident {made.id}"):
        voices.close_incident(made.id, who="night")
    with pytest.raises(InvalidRequestError):
        voices.open_incident(Severity.MINOR, " ", who="ops")


def test_the_newest_recorded_answer_counts_with_its_author(voices):
    voices.record("maintenance", "high", author="ops")
    voices.record("maintenance", "low", author="lead")

    assert (voices.recorded()["maintenance"].value, voices.recorded()["maintenance"].author) == (
        "low",
        "lead",
    )
    with pytest.raises(InvalidRequestError, match="low, medium, high"):
        voices.record("maintenance", "so so", author="ops")
