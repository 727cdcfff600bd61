"""The owner's page of the evaluation report, the users' survey, and the feedback box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flask import Blueprint, Flask, Response, flash, redirect, render_template, request
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter
from flask_login import current_user, login_required

from orderwire.clock import Clock
from orderwire.core.evidence import Cohort
from orderwire.core.orders import IST
from orderwire.core.survey import HIGHEST, LOWEST, QUESTIONS, open_wave, read_answers
from orderwire.errors import InvalidRequestError, NotFoundError
from orderwire.pilot import rendering
from orderwire.pilot.gate import RolloutGate
from orderwire.pilot.report import Report, asked_days, make_report
from orderwire.store.accounts import Accounts
from orderwire.store.survey import SOFT, Severity, Voices
from orderwire.store.users import Role
from orderwire.web.auth import roles

ANSWER_LIMIT: Final = "20 per minute"
REPORT_LIMIT: Final = "20 per minute"
"""A report reads all of the pilot's minutes; a PDF starts a browser."""

KINDS: Final[Mapping[str, str]] = {
    "html": "text/html; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "json": "application/json",
    "pdf": "application/pdf",
}


class EvaluationPages:
    """Shows the report to owners, asks users, and takes what owners write down."""

    def __init__(self, gate: RolloutGate, voices: Voices, *, accounts: Accounts, clock: Clock) -> None:
        self._gate = gate
        self._voices = voices
        self._accounts = accounts
        self._clock = clock

    def attach(self, app: Flask, limiter: Limiter) -> None:
        """Register the routes, and tell every page whether its user is to be asked."""
        routes = Blueprint("evaluation", __name__)
        owner = roles(Role.OWNER)
        read, answer = limiter.limit(REPORT_LIMIT), limiter.limit(ANSWER_LIMIT)
        routes.add_url_rule("/report", "report", read(owner(self.report)), methods=["GET"])
        routes.add_url_rule("/report/style.css", "style", login_required(self.style), methods=["GET"])
        routes.add_url_rule("/report/<kind>", "download", read(owner(self.download)), methods=["GET"])
        routes.add_url_rule("/report/incident", "incident", answer(owner(self.incident)), methods=["POST"])
        routes.add_url_rule("/report/answer", "soft", answer(owner(self.soft)), methods=["POST"])
        routes.add_url_rule("/survey", "survey", login_required(self.survey), methods=["GET"])
        routes.add_url_rule("/survey", "answer", answer(login_required(self.answer)), methods=["POST"])
        routes.add_url_rule(
            "/survey/dismiss", "dismiss", answer(login_required(self.dismiss)), methods=["POST"]
        )
        routes.add_url_rule("/feedback", "feedback", answer(login_required(self.feedback)), methods=["POST"])
        app.register_blueprint(routes)
        app.context_processor(lambda: {"survey_wave": self._to_ask})

    # --- the report -----------------------------------------------------------------------------------

    def report(self) -> ResponseReturnValue:
        """Show the report of the days that are asked for."""
        try:
            made = self._made()
        except InvalidRequestError as error:
            return self._page(None, error.problems), 400
        return self._page(made, {})

    def download(self, kind: str) -> ResponseReturnValue:
        """Answer with the report as a file."""
        if kind not in KINDS:
            raise NotFoundError(f"There is no report of kind {kind!r}.")
        made = self._made()
        content = rendering.FORMATS[kind](made)
        name = f"orderwire-report-{made.since}-{made.until}.{kind}"
        return Response(
            content,
            content_type=KINDS[kind],
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    def style(self) -> ResponseReturnValue:
        """Answer with the report's style sheet."""
        return Response(
            rendering.style(),
            content_type="text/css; charset=utf-8",
            headers={"Cache-Control": "max-age=300"},
        )

    def _made(self) -> Report:
        today = self._clock.now().astimezone(IST).date()
        since, until = asked_days(
            self._gate.records, request.args.get("from"), request.args.get("to"), today=today
        )
        owners = len({account.owner for account in self._accounts.all()})
        return make_report(self._gate.records, self._voices, since=since, until=until, owners=owners)

    def _page(self, made: Report | None, problems: Mapping[str, str]) -> str:
        return render_template(
            "report.html",
            report=made,
            body=rendering.body(made) if made else "",
            problems=problems,
            asked=request.args,
            severities=[(severity.value, severity.value) for severity in Severity],
            soft=SOFT,
            recorded=self._voices.recorded(),
            open_incidents=[i for i in self._voices.incidents() if i.closed is None],
        )

    def incident(self) -> ResponseReturnValue:
        """Write an incident down, or end one."""
        form = request.form
        try:
            if form.get("close"):
                self._voices.close_incident(_number(form["close"]), who=current_user.name)
                flash("Closed.")
            else:
                severity = _severity(form.get("severity", ""))
                self._voices.open_incident(severity, form.get("title", ""), who=current_user.name)
                flash("Written down.")
        except (InvalidRequestError, NotFoundError) as error:
            flash(str(error), "problem")
        return redirect("/report")

    def soft(self) -> ResponseReturnValue:
        """Record the answer to a soft criterion, with its author."""
        form = request.form
        try:
            self._voices.record(form.get("question", ""), form.get("value", ""), author=current_user.name)
            flash("Recorded.")
        except InvalidRequestError as error:
            flash(str(error), "problem")
        return redirect("/report")

    # --- the survey -----------------------------------------------------------------------------------

    def _wave(self) -> str | None:
        history = reversed(self._gate.records.history(most=1000))
        return open_wave([(c.at, c.after.stage) for c in history], now=self._clock.now())

    def _to_ask(self) -> str | None:
        """Return the wave in which this request's user has neither answered nor said no."""
        if not current_user.is_authenticated:
            return None
        wave = self._wave()
        if wave is None or self._voices.outcome(wave, owner=current_user.name) is not None:
            return None
        return wave

    def survey(self) -> ResponseReturnValue:
        """Show the questions of the wave that is open, and the feedback box."""
        return self._asked({})

    def _asked(self, problems: Mapping[str, str]) -> str:
        wave = self._wave()
        return render_template(
            "survey.html",
            wave=wave,
            outcome=self._voices.outcome(wave, owner=current_user.name) if wave else None,
            questions=QUESTIONS,
            numbers=range(LOWEST, HIGHEST + 1),
            given=request.form,
            problems=problems,
        )

    def answer(self) -> ResponseReturnValue:
        """Keep the answers, once a wave."""
        wave = self._wave()
        if wave is None or request.form.get("wave") != wave:
            return self._asked({"wave": "This survey is over."}), 400
        try:
            self._voices.answer(
                wave,
                read_answers(request.form),
                owner=current_user.name,
                cohort=self._cohort(),
                anonymous=request.form.get("anonymous") == "on",
            )
        except InvalidRequestError as error:
            return self._asked(error.problems), 400
        flash("Thank you.")
        return redirect("/survey")

    def _cohort(self) -> Cohort:
        """Return `realtime` when one of the user's accounts is on real-time updates."""
        mine = self._accounts.of_owner(current_user.name)
        on = any(self._gate.decide(account.owner, account.broker).enabled for account in mine)
        return "realtime" if on else "manual"

    def dismiss(self) -> ResponseReturnValue:
        """Ask this user no more in this wave."""
        wave = self._wave()
        if wave is not None and self._voices.outcome(wave, owner=current_user.name) is None:
            self._voices.dismiss(wave, owner=current_user.name)
        return redirect("/")

    def feedback(self) -> ResponseReturnValue:
        """Keep what a user wrote, with or without a name."""
        owner = None if request.form.get("anonymous") == "on" else current_user.name
        try:
            self._voices.say(request.form.get("words", ""), owner=owner)
            flash("Thank you, it was noted.")
        except InvalidRequestError as error:
            flash(str(error), "problem")
        return redirect("/survey")


def _severity(text: str) -> Severity:
    try:
        return Severity(text)
    except ValueError as error:
        raise InvalidRequestError({"severity": "Choose critical, major or minor."}) from error


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1
