from __future__ import annotations

from types import SimpleNamespace

import pytest
from openfeature.exception import GeneralError
from sqlalchemy import delete

from house import eventually
from orderwire.core.evidence import Tally
from orderwire.core.orders import AccountId
from orderwire.core.rollout import Choice, Decision, GuardAction, Reason
from orderwire.errors import FeedsBusyError, InvalidRequestError, StoreBusyError
from orderwire.pilot.flags import DatabaseProvider
from orderwire.pilot.gate import GUARD, rollout_report
from orderwire.store import schema

WHY = {"who": "ops", "why": "as planned"}


def an_account(name, *, owner="asha", broker="paisa"):
    return SimpleNamespace(id=AccountId(name), owner=owner, broker=broker)


def reason(gate, owner="asha", broker="paisa"):
    return gate.decide(owner, broker).reason


def test_everybody_is_in_at_first_and_nobody_with_the_master_switch_off(gate, a_gate):
    assert gate.decide("asha", "paisa") == Decision(enabled=True, reason=Reason.IN_STAGE)
    assert reason(a_gate(master=False)) is Reason.MASTER_OFF


def test_a_step_counts_at_once_and_is_told(gate):
    told = []
    gate.on_change = lambda: told.append(reason(gate))

    gate.set_stage(0, **WHY)
    gate.kill(**WHY)
    gate.resume(**WHY)
    gate.switch_broker("paisa", on=False, **WHY)

    assert told == [Reason.NOT_IN_STAGE, Reason.KILLED, Reason.NOT_IN_STAGE, Reason.BROKER_OFF]


def test_another_process_sees_the_step_when_it_looks(gate, a_gate):
    other = a_gate()
    told = []
    other.on_change = lambda: told.append(True)

    gate.kill(**WHY)

    assert reason(other) is Reason.IN_STAGE
    assert other.reload()
    assert reason(other) is Reason.KILLED
    assert not other.reload()
    assert told == [True]


def test_a_step_that_could_not_be_followed_is_told_again_at_the_next_look(gate, a_gate):
    other, told = a_gate(), []

    def follow():
        told.append(reason(other))
        if len(told) == 1:
            raise FeedsBusyError

    other.on_change = follow
    gate.kill(**WHY)

    with pytest.raises(FeedsBusyError):
        other.reload()
    assert other.reload()
    assert told == [Reason.KILLED, Reason.KILLED]
    assert not other.reload()


def test_an_account_that_could_not_be_enrolled_is_new_once_more(gate, records, monkeypatch):
    with monkeypatch.context() as away:
        away.setattr(records, "enrol", refusing)
        with pytest.raises(StoreBusyError):
            gate.admit(AccountId("a"), owner="asha", broker="paisa")
    assert gate.told(AccountId("a")) is None

    gate.admit(AccountId("a"), owner="asha", broker="paisa")

    assert [enrolment.account for enrolment in records.enrolments()] == ["a"]


def refusing(*_args, **_named):
    raise StoreBusyError


def test_a_step_needs_a_reason(gate):
    with pytest.raises(InvalidRequestError, match="Say why"):
        gate.kill(who="ops", why="  ")

    assert not gate.rollout.killed


def test_an_unknown_broker_is_named(gate):
    with pytest.raises(InvalidRequestError, match="installed are paisa, wired"):
        gate.switch_broker("other", on=False, **WHY)


def test_a_choice_counts_for_its_user_alone(gate):
    gate.set_stage(0, **WHY)
    gate.choose("asha", Choice.IN, by="asha")

    assert reason(gate, "asha") is Reason.OPTED_IN
    assert reason(gate, "ravi") is Reason.NOT_IN_STAGE


def test_an_account_is_enrolled_the_first_time_it_is_in(gate, records):
    gate.set_stage(0, **WHY)
    gate.admit(AccountId("a"), owner="asha", broker="paisa")
    assert records.enrolments() == []

    gate.choose("asha", Choice.IN, by="asha")
    for _ in range(2):
        gate.admit(AccountId("a"), owner="asha", broker="paisa")

    (enrolment,) = records.enrolments()
    assert (enrolment.account, enrolment.reason) == ("a", Reason.OPTED_IN)


def test_decisions_are_counted_when_they_change(gate):
    for _ in range(3):
        gate.admit(AccountId("a"), owner="asha", broker="paisa")
    gate.kill(**WHY)
    gate.admit(AccountId("a"), owner="asha", broker="paisa")

    assert gate.counts() == {Reason.IN_STAGE: 1, Reason.KILLED: 1}
    assert gate.reasons(["a", "nobody"]) == {Reason.KILLED: 1}
    assert gate.place_of(AccountId("a")) == ("paisa", "manual")


def test_a_removed_account_is_in_no_cohort(gate):
    for name in "abc":
        gate.admit(AccountId(name), owner="asha", broker="paisa")
    gate.forget(AccountId("a"))
    gate.keep_only([AccountId("c"), AccountId("new")])

    assert [gate.place_of(AccountId(name)) for name in "abc"] == [None, None, ("paisa", "realtime")]


def test_an_account_that_is_added_again_is_told_and_enrolled_anew(gate, records, database):
    """Its data was erased meanwhile, the pilot's record of it too."""
    gate.admit(AccountId("a"), owner="asha", broker="paisa")
    gate.forget(AccountId("a"))
    database.write(lambda connection: connection.execute(delete(schema.enrolments)))

    gate.admit(AccountId("a"), owner="asha", broker="paisa")

    assert [enrolment.account for enrolment in records.enrolments()] == ["a"]
    assert gate.counts() == {Reason.IN_STAGE: 2}


@pytest.mark.parametrize("other", [{"owner": "ravi"}, {"broker": "wired"}])
def test_the_same_id_of_another_owner_or_broker_is_told_anew(gate, other):
    """It was removed by another process, which this one has not noticed."""
    for facts in ({}, other):
        gate.admit(AccountId("a"), **({"owner": "asha", "broker": "paisa"} | facts))

    assert gate.counts() == {Reason.IN_STAGE: 2}


def test_the_report_counts_the_accounts_there_are(gate, clock):
    """Whatever this process was told of: one it never fed, and one that is gone."""
    gate.switch_broker("wired", on=False, **WHY)
    gate.admit(AccountId("gone"), owner="asha", broker="paisa")
    gate.admit(AccountId("a"), owner="asha", broker="paisa")
    accounts = [an_account("a"), an_account("b", broker="wired"), an_account("c", owner="ravi")]

    report = rollout_report(gate, accounts, now_ns=clock.time_ns())

    assert report.cohorts == {"realtime": 2, "manual": 1}
    assert report.reasons == {Reason.IN_STAGE: 2, Reason.BROKER_OFF: 1}


class _Away(DatabaseProvider):
    away = True

    def resolve_boolean_details(self, *given, **named):
        if self.away:
            raise GeneralError("the server is away")
        return super().resolve_boolean_details(*given, **named)


def test_a_provider_that_fails_turns_everybody_off_even_who_opted_in(a_gate):
    gate = a_gate(_Away())
    gate.choose("asha", Choice.IN, by="asha")

    assert gate.decide("asha", "paisa") == Decision(enabled=False, reason=Reason.NO_ANSWER)


def test_what_the_provider_tells_is_looked_at(a_gate):
    """A flag that is steered elsewhere changes no row of ours."""
    provider = _Away()
    gate = a_gate(provider)
    provider.away = False

    provider.emit_provider_configuration_changed(_details())

    eventually(gate.reload, within=10)  # the library tells on a thread of its own
    assert reason(gate) is Reason.IN_STAGE


def _details():
    from openfeature.event import ProviderEventDetails

    return ProviderEventDetails()


def test_a_preview_changes_nothing(gate):
    gate.set_stage(10, **WHY)
    users = [(f"user-{number}", "paisa") for number in range(200)]

    half = sum(decision.enabled for decision in gate.preview(50, users))

    assert 70 < half < 130
    assert gate.rollout.stage == 10
    assert sum(gate.decide(*user).enabled for user in users) < half


def test_the_guard_acts_in_its_own_name(gate, records):
    gate.set_stage(50, **WHY)

    change = gate.guard(GuardAction.STEP_DOWN, ["too slow"])

    assert (change.who, change.before.stage, change.after.stage, change.why) == (GUARD, 50, 25, "too slow")
    assert records.rollout().stage == 25
    assert gate.guard(GuardAction.STEP_DOWN, []) is None


def test_the_report_counts_since_the_last_decision(gate, records, clock):
    minute = clock.time_ns() // 60_000_000_000
    records.keep([Tally(minute=minute - 5, broker="paisa", cohort="realtime", events=7)])
    gate.set_stage(25, **WHY)
    records.keep(
        [
            Tally(minute=minute, broker="paisa", cohort="realtime", events=2, errors=1, placed=(80_000,)),
            Tally(minute=minute, broker="wired", cohort="realtime", events=3, placed=(120_000,)),
            Tally(minute=minute, broker="wired", cohort="manual", events=5),
        ]
    )

    report = rollout_report(gate, [], now_ns=clock.time_ns())

    assert (report.seen["realtime"].events, report.seen["manual"].events) == (5, 5)
    assert report.seen["realtime"].latency_p95 == 0.12
    assert report.seen["realtime"].error_rate == 0.2
