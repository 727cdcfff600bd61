"""The operator's page of the rollout, and each user's own choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from flask import Blueprint, Flask, flash, jsonify, redirect, render_template, request
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter
from flask_login import current_user, login_required

from orderwire.clock import Clock
from orderwire.core.evidence import Cohort, Summary
from orderwire.core.rollout import STAGES, Choice, Reason, Rollout
from orderwire.errors import FeedsBusyError, InvalidRequestError
from orderwire.pilot.gate import RolloutGate, rollout_report
from orderwire.store.accounts import Accounts
from orderwire.store.pilot import RolloutChange
from orderwire.store.users import Role
from orderwire.web.auth import roles
from orderwire.web.listing import asked_page, offset, page

STEP_LIMIT: Final = "30 per minute"

ACTIONS: Final = ("stage", "kill", "resume", "broker-on", "broker-off")

_WORDS: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.MASTER_OFF: "Real-time updates are switched off for this installation.",
        Reason.KILLED: "The operator stopped real-time updates for everybody.",
        Reason.BROKER_OFF: "The operator switched real-time updates off for this broker.",
        Reason.OPTED_OUT: "You switched real-time updates off.",
        Reason.NO_ANSWER: "The rollout could not be read, so real-time updates are off.",
        Reason.OPTED_IN: "You switched real-time updates on.",
        Reason.IN_STAGE: "You are in the pilot.",
        Reason.NOT_IN_STAGE: "The pilot has not reached you yet.",
    }
)


def said(reason: Reason) -> str:
    """Say to a user why they are, or are not, on real-time updates."""
    return _WORDS[reason]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of the rollout that was asked for and is not taken yet."""

    action: str
    stage: int = 0
    broker: str = ""
    why: str = ""
    seen: str = ""
    """What was in force when the operator looked: a step is refused when it differs by then."""

    @property
    def question(self) -> str:
        """The step in words."""
        return {
            "stage": f"Let {self.stage} % of the users in",
            "kill": "Stop real-time updates for everybody",
            "resume": "End the stop",
            "broker-on": f"Switch {self.broker} on",
            "broker-off": f"Switch {self.broker} off",
        }[self.action]


class RolloutPages:
    """Shows the rollout, takes operators' steps in two confirmed forms, and users' choices."""

    def __init__(
        self, gate: RolloutGate, *, accounts: Accounts, titles: Mapping[str, str], clock: Clock
    ) -> None:
        """`titles` names the installed brokers."""
        self._gate = gate
        self._accounts = accounts
        self._titles = titles
        self._clock = clock

    def attach(self, app: Flask, limiter: Limiter) -> None:
        """Register the routes."""
        routes = Blueprint("rollout", __name__)
        operator = roles(Role.OPERATOR)
        step = limiter.limit(STEP_LIMIT)(operator(self.step))
        choose = limiter.limit(STEP_LIMIT)(login_required(self.choose))
        routes.add_url_rule("/rollout", "show", operator(self.show), methods=["GET"])
        routes.add_url_rule("/rollout", "step", step, methods=["POST"])
        routes.add_url_rule("/settings/realtime", "choose", choose, methods=["POST"])
        routes.add_url_rule("/ui/realtime", "mine", login_required(self.mine), methods=["GET"])
        app.register_blueprint(routes)
        app.jinja_env.globals["my_realtime"] = self.chosen

    # --- operators ------------------------------------------------------------------------------------

    def show(self) -> ResponseReturnValue:
        """Show what is in force, who is in, the numbers, and the history."""
        return self._page()

    def step(self) -> ResponseReturnValue:
        """Take a step: the first form is answered with a question, the second one acts."""
        try:
            step = self._asked()
        except InvalidRequestError as error:
            return self._page(problems=error.problems), 400
        if request.form.get("confirmed") != "yes":
            return self._page(step=step)
        if step.seen != self._gate.rollout.described():
            problem = "Somebody changed the rollout meanwhile. Look at what is in force now, then ask again."
            return self._page(problems={"seen": problem}), 409
        try:
            change = self._take(step)
        except FeedsBusyError as error:
            flash(f"In force now: {self._gate.rollout.described()}. {error}", "problem")
            return redirect("/rollout")
        flash(f"In force now: {self._gate.rollout.described()}." if change else "Nothing to change.")
        return redirect("/rollout")

    def _asked(self) -> Step:
        form = request.form
        step = Step(
            action=form.get("action", ""),
            stage=_whole(form.get("stage") or request.args.get("stage", "")),
            broker=form.get("broker") or request.args.get("broker", ""),
            why=form.get("why", "").strip()[:400],
            seen=form.get("seen") or self._gate.rollout.described(),
        )
        problems = {}
        if step.action not in ACTIONS:
            problems["action"] = "Choose what to do."
        if step.action == "stage" and step.stage not in STAGES:
            problems["stage"] = f"The stages are {', '.join(map(str, STAGES))} percent."
        if step.action.startswith("broker") and step.broker not in self._titles:
            problems["broker"] = "Choose an installed broker."
        if not step.why:
            problems["why"] = "Say why, in a few words; the history keeps it."
        if problems:
            raise InvalidRequestError(problems)
        return step

    def _take(self, step: Step) -> RolloutChange | None:
        who, why = current_user.name, step.why
        if step.action == "stage":
            return self._gate.set_stage(step.stage, who=who, why=why)
        if step.action == "kill":
            return self._gate.kill(who=who, why=why)
        if step.action == "resume":
            return self._gate.resume(who=who, why=why)
        return self._gate.switch_broker(step.broker, on=step.action == "broker-on", who=who, why=why)

    def _page(self, *, step: Step | None = None, problems: Mapping[str, str] | None = None) -> str:
        report = rollout_report(self._gate, self._accounts.all(), now_ns=self._clock.time_ns())
        number = asked_page()
        history = self._gate.records.history(most=offset(number) + 51)[offset(number) :]
        return render_template(
            "rollout.html",
            report=report,
            stages=STAGES,
            titles=self._titles,
            step=step,
            given=request.form,
            problems=problems or {},
            history=page(history, number),
            rows=numbers(report.seen),
            reached=self._reached(step, report.rollout),
        )

    def _reached(self, step: Step | None, rollout: Rollout) -> int | None:
        """Return how many accounts would be on real-time updates at the stage that was asked for."""
        if step is None or step.action != "stage" or rollout.killed:
            return None
        decisions = self._gate.preview(
            step.stage, ((account.owner, account.broker) for account in self._accounts.all())
        )
        return sum(decision.enabled for decision in decisions)

    # --- users ----------------------------------------------------------------------------------------

    def choose(self) -> ResponseReturnValue:
        """Take the user's own choice: in, out, or as the pilot draws."""
        try:
            choice = Choice(request.form.get("choice", ""))
        except ValueError:
            flash("Choose in, out, or none.", "problem")
            return redirect("/settings")
        try:
            self._gate.choose(current_user.name, choice, by=current_user.name)
        except FeedsBusyError as error:
            flash(str(error), "problem")
            return redirect("/settings")
        flash(
            {
                Choice.IN: "Real-time updates are switched on for you.",
                Choice.OUT: "Real-time updates are switched off for you.",
                Choice.NONE: "Whether you get real-time updates is the pilot's to say again.",
            }[choice]
        )
        return redirect("/settings")

    def chosen(self) -> Mapping[str, object]:
        """Return what the settings page says: the user's choice, and of each account whether it is on, and why."""
        told = {
            account.id: self._gate.decide(account.owner, account.broker)
            for account in self._accounts.of_owner(current_user.name)
        }
        return {
            "choice": self._gate.choice(current_user.name),
            "said": {account: said(decision.reason) for account, decision in told.items()},
        }

    def mine(self) -> ResponseReturnValue:
        """Say of each account of the user whether it is on real-time updates, and why."""
        told = {
            account.id: self._gate.decide(account.owner, account.broker)
            for account in self._accounts.of_owner(current_user.name)
        }
        return jsonify(
            status="success",
            choice=self._gate.choice(current_user.name),
            accounts={
                account: {"enabled": d.enabled, "reason": d.reason, "said": said(d.reason)}
                for account, d in told.items()
            },
        )


def numbers(seen: Mapping[Cohort, Summary]) -> list[tuple[str, str, str]]:
    """Return the numbers beside the button: what, on real-time updates, on refresh."""
    on, off = seen["realtime"], seen["manual"]
    return [
        ("Placed to painted, p50", _ms(on, on.latency_p50), _ms(off, off.latency_p50)),
        ("Placed to painted, p95", _ms(on, on.latency_p95), _ms(off, off.latency_p95)),
        ("Orders painted", f"{on.paints:,}", f"{off.paints:,}"),
        ("Errors of events", _rate(on), _rate(off)),
        ("Disconnections per account and hour", f"{on.disconnects_per_hour:.2f}", ""),
        ("Stream live, share of market hours", f"{on.live_share:.1%}" if on.minutes else "", ""),
        (
            "Order-book reads per account and hour",
            f"{on.calls_per_hour:,.0f}",
            f"{off.calls_per_hour:,.0f}",
        ),
    ]


def _ms(summary: Summary, seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if summary.paints else ""


def _rate(summary: Summary) -> str:
    return f"{summary.errors:,} of {summary.events:,}" if summary.events else ""


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else -1
