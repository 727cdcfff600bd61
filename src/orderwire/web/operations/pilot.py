"""The pilot: its rollout, its report, what its users said, its incidents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from orderwire.core.orders import IST
from orderwire.core.rollout import Choice
from orderwire.pilot.days import daily
from orderwire.pilot.gate import rollout_report
from orderwire.pilot.report import asked_days, make_report
from orderwire.store.pilot import RolloutChange
from orderwire.store.survey import Severity
from orderwire.web.operations.office import Command, Office, there


class ShowRollout(Command):
    """Say what is in force, how many accounts are in, and what each cohort saw since the last decision."""

    def perform(self, office: Office) -> Any:
        return rollout_report(office.gate, office.accounts.all(), now_ns=office.gate.records.now_ns())


class SetStage(Command):
    """Let a share of the users in."""

    stage: int
    why: str

    def perform(self, office: Office) -> Any:
        return _stepped(office, office.gate.set_stage(self.stage, who=self.by, why=self.why))


class KillRollout(Command):
    """Stop real-time updates for everybody, now."""

    why: str

    def perform(self, office: Office) -> Any:
        return _stepped(office, office.gate.kill(who=self.by, why=self.why))


class ResumeRollout(Command):
    """End a stop."""

    why: str

    def perform(self, office: Office) -> Any:
        return _stepped(office, office.gate.resume(who=self.by, why=self.why))


class SwitchBroker(Command):
    """Switch one broker on or off."""

    broker: str
    on: bool
    why: str

    def perform(self, office: Office) -> Any:
        change = office.gate.switch_broker(self.broker, on=self.on, who=self.by, why=self.why)
        return _stepped(office, change)


class RolloutHistory(Command):
    """List the decisions, newest first."""

    most: int = 50

    def perform(self, office: Office) -> Any:
        return [
            {
                "at": change.at,
                "who": change.who,
                "what": change.what,
                "from": change.before.described(),
                "to": change.after.described(),
                "why": change.why,
            }
            for change in office.gate.records.history(most=self.most)
        ]


class ChooseRealtime(Command):
    """Opt a user in or out, or back to the pilot's draw."""

    owner: str
    choice: Choice

    def perform(self, office: Office) -> Any:
        office.users.get(self.owner)
        office.gate.choose(self.owner, self.choice, by=self.by)


class MakeReport(Command):
    """Make the evaluation report of some days (ISO); from the first one with data to today by default."""

    since: str | None = None
    until: str | None = None

    def perform(self, office: Office) -> Any:
        records, voices = office.gate.records, there(office.voices)
        today = records.now().astimezone(IST).date()
        begin, end = asked_days(records, self.since, self.until, today=today)
        owners = len({account.owner for account in office.accounts.all()})
        return make_report(records, voices, since=begin, until=end, owners=owners)


class ListDays(Command):
    """List what each day brought, by broker and cohort; from the first day with data to today by default."""

    since: str | None = None
    until: str | None = None

    def perform(self, office: Office) -> Any:
        records = office.gate.records
        today = records.now().astimezone(IST).date()
        begin, end = asked_days(records, self.since, self.until, today=today)
        return daily(records, there(office.voices), since=begin, until=end)


class ExportSurvey(Command):
    """List every answered survey, flat."""

    def perform(self, office: Office) -> Any:
        return [
            {
                "wave": filled.wave,
                "day": filled.day,
                "user": filled.owner,
                "cohort": filled.cohort,
                **filled.answers.scales,
                **filled.answers.words,
            }
            for filled in there(office.voices).filled()
        ]


class RecordAnswer(Command):
    """Record the answer to a soft criterion."""

    question: str
    value: str

    def perform(self, office: Office) -> Any:
        there(office.voices).record(self.question, self.value, author=self.by)


class ListFeedback(Command):
    """List what users wrote, newest first."""

    def perform(self, office: Office) -> Any:
        return [
            {"at": said.at, "user": said.owner, "words": said.words}
            for said in there(office.voices).feedback()
        ]


class OpenIncident(Command):
    """Write an incident down."""

    severity: Severity
    title: str
    at: datetime | None = None

    def perform(self, office: Office) -> Any:
        return there(office.voices).open_incident(self.severity, self.title, who=self.by, at=self.at)


class CloseIncident(Command):
    """End an incident."""

    number: int

    def perform(self, office: Office) -> Any:
        there(office.voices).close_incident(self.number, who=self.by)


class ListIncidents(Command):
    """List the incidents, newest first."""

    def perform(self, office: Office) -> Any:
        return there(office.voices).incidents()


COMMANDS: Mapping[str, type[Command]] = {
    "rollout.show": ShowRollout,
    "rollout.set": SetStage,
    "rollout.kill": KillRollout,
    "rollout.resume": ResumeRollout,
    "rollout.broker": SwitchBroker,
    "rollout.history": RolloutHistory,
    "rollout.choose": ChooseRealtime,
    "report.make": MakeReport,
    "pilot.days": ListDays,
    "survey.export": ExportSurvey,
    "survey.record": RecordAnswer,
    "survey.feedback": ListFeedback,
    "incidents.open": OpenIncident,
    "incidents.close": CloseIncident,
    "incidents.list": ListIncidents,
}


def _stepped(office: Office, change: RolloutChange | None) -> dict[str, Any]:
    return {"changed": change is not None, "now": office.gate.rollout.described()}
