from __future__ import annotations

import pytest

from orderwire.core import rollout as rules
from orderwire.core.evidence import Tally
from orderwire.core.orders import AccountId
from orderwire.core.rollout import Choice, Reason, Rollout
from orderwire.errors import InvalidRequestError
from orderwire.store import audit
from orderwire.store.database import Database
from orderwire.store.pilot import PilotRecords


@pytest.fixture
def records(database) -> PilotRecords:
    return PilotRecords(database)


def stage(records, percent, why="as planned"):
    return records.change(lambda r: rules.at_stage(r, percent), what=f"stage {percent} %", who="ops", why=why)


def test_everybody_is_in_where_nobody_ever_decided(records):
    assert records.rollout() == Rollout(stage=100)


def test_a_decision_is_in_force_kept_and_audited(records, database):
    change = stage(records, 10)

    assert records.rollout() == Rollout(stage=10)
    assert (change.before, change.after) == (Rollout(), Rollout(stage=10))
    entry = audit.entries(database, most=1)[0]
    assert (entry.who, entry.what) == ("ops", "rollout: stage 10 %")
    assert dict(entry.detail) == {"from": "100 %", "to": "10 %", "why": "as planned"}


def test_what_changes_nothing_is_not_written(records):
    stage(records, 10)
    version = records.version()

    assert stage(records, 10) is None
    assert records.version() == version


def test_a_refused_step_leaves_everything(records):
    stage(records, 10)

    with pytest.raises(InvalidRequestError):
        stage(records, 33)

    assert records.rollout() == Rollout(stage=10)
    assert len(records.history()) == 1


def test_the_history_is_empty_at_first(records):
    assert records.history() == []


def test_the_history_says_from_what_to_what_newest_first(records):
    for percent in (10, 25, 50):
        stage(records, percent)

    told = [(c.before.stage, c.after.stage) for c in records.history()]

    assert told == [(25, 50), (10, 25), (100, 10)]
    assert [(c.before.stage, c.after.stage) for c in records.history(most=1)] == [(25, 50)]


def test_the_newest_choice_counts(records, database):
    records.choose("asha", Choice.IN, by="asha")
    records.choose("ravi", Choice.IN, by="ravi")
    records.choose("asha", Choice.OUT, by="asha")

    assert records.choices() == {"asha": Choice.OUT, "ravi": Choice.IN}
    assert audit.entries(database, most=1)[0].detail["choice"] == "out"


def test_the_version_moves_with_every_decision_and_choice(records):
    seen = [records.version()]
    stage(records, 10)
    seen.append(records.version())
    records.choose("asha", Choice.IN, by="asha")
    seen.append(records.version())

    assert len(set(seen)) == 3


def test_an_account_is_enrolled_once(records, clock):
    first = {"broker": "paisa", "owner": "asha", "reason": Reason.IN_STAGE}

    assert records.enrol(AccountId("a"), **first)
    clock.advance(60)
    assert not records.enrol(AccountId("a"), **(first | {"reason": Reason.OPTED_IN}))

    (enrolment,) = records.enrolments()
    assert (enrolment.account, enrolment.owner, enrolment.reason) == ("a", "asha", Reason.IN_STAGE)


def test_minutes_come_back_as_they_were_and_are_replaced_when_told_again(records):
    one = Tally(
        minute=5, broker="paisa", cohort="realtime", placed=(1, 2), changes={3: 4}, stages={"joined": (1, 9)}
    )
    other = Tally(minute=6, broker="paisa", cohort="manual", events=3)

    records.keep([one, other])
    records.keep([other])
    records.keep([Tally(minute=6, broker="paisa", cohort="manual", events=4)])

    assert records.minutes(5, 6) == [one]
    assert [t.events for t in records.minutes(5, 7)] == [0, 4]


def test_the_last_of_what_is_told_of_a_minute_in_one_go_counts(records):
    records.keep([Tally(minute=6, broker="paisa", cohort="manual", events=events) for events in (3, 4)])
    records.keep([])

    assert [t.events for t in records.minutes(6, 7)] == [4]


def test_what_several_processes_tell_of_a_minute_is_added_also_in_one_go(shared, clock):
    database = Database(shared, clock=clock)
    records = PilotRecords(database, shared=True)

    records.keep([Tally(minute=6, broker="paisa", cohort="manual", events=events) for events in (3, 4)])
    records.keep([Tally(minute=6, broker="paisa", cohort="manual", events=5, accounts=2)])
    told = records.minutes(6, 7)
    database.close()

    assert [(t.events, t.accounts) for t in told] == [(12, 2)]
