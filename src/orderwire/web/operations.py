"""The operator's commands: carried out by the running service, reached over its local control socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import msgspec
from flask import Blueprint, Response, abort, request
from msgspec import Struct, field

from orderwire.brokers.registry import BrokerRegistry
from orderwire.core.alerts import Silence
from orderwire.core.hosts import FromHost
from orderwire.core.orders import IST, AccountId, ModifyRequest, OrderId, OrderRequest
from orderwire.core.rollout import Choice
from orderwire.errors import ConfigurationError, InvalidRequestError, NotFoundError, OrderwireError
from orderwire.monitoring.station import Station
from orderwire.pilot.days import daily
from orderwire.pilot.gate import RolloutGate, rollout_report
from orderwire.pilot.report import asked_days, make_report
from orderwire.store import alerts as kept_alerts
from orderwire.store.accounts import Account, Accounts
from orderwire.store.database import Database
from orderwire.store.invitations import RESET_HOURS, Invitations
from orderwire.store.pilot import RolloutChange
from orderwire.store.survey import Severity, Voices
from orderwire.store.users import Role, Scope, Users
from orderwire.store.vault import Vault
from orderwire.web.hosts import HostLine, fed_elsewhere, shared_apps
from orderwire.web.ports import Book, Feeds, OrderDesk

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """What a command works with. `fleet`, `desk` and `book` are None when no service runs."""

    users: Users
    accounts: Accounts
    brokers: BrokerRegistry
    invitations: Invitations | None = None
    """None, and `vault` too, where they play no part."""
    vault: Vault | None = None
    url: str = ""
    gate: RolloutGate
    voices: Voices | None = None
    fleet: Feeds | None = None
    desk: OrderDesk | None = None
    book: Book | None = None
    station: Station | None = None
    hosts: HostLine | None = None
    database: Database | None = None

    def running_fleet(self) -> Feeds:
        """Return the fleet. Raises ConfigurationError when the service does not run."""
        if self.fleet is None:
            raise ConfigurationError("The service does not run; start it with `orderwire serve`.")
        return self.fleet

    def running_station(self) -> Station:
        """Return what watches the service. Raises ConfigurationError when it does not run."""
        if self.station is None:
            raise ConfigurationError("The service does not run; start it with `orderwire serve`.")
        return self.station

    def running_desk(self) -> OrderDesk:
        """Return the desk. Raises ConfigurationError when the service does not run."""
        if self.desk is None:
            raise ConfigurationError("The service does not run; start it with `orderwire serve`.")
        return self.desk


class _Command(Struct, kw_only=True, forbid_unknown_fields=True):
    """The arguments of one command, checked; `by` is the operator's name for the audit."""

    by: str = "cli"


class AddUser(_Command):
    """Make a user."""

    name: str
    password: str
    role: Role = Role.TRADER

    def perform(self, office: Office) -> Any:
        user = office.users.add(self.name, self.password, role=self.role, by=self.by)
        return {"name": user.name, "role": user.role}


class ListUsers(_Command):
    """List the users."""

    def perform(self, office: Office) -> Any:
        return [{"name": u.name, "role": u.role, "disabled": u.disabled} for u in office.users.all()]


class SetPassword(_Command):
    """Change a password; ends the user's sessions."""

    name: str
    password: str

    def perform(self, office: Office) -> Any:
        office.users.set_password(self.name, self.password, by=self.by)


class SetRole(_Command):
    """Change what a user may do; ends the user's sessions."""

    name: str
    role: Role

    def perform(self, office: Office) -> Any:
        office.users.set_role(self.name, self.role, by=self.by)


class FirstLink(_Command):
    """Make the link by which the first administrator is made."""

    def perform(self, office: Office) -> Any:
        token = _there(office.invitations).first()
        if token is None:
            raise InvalidRequestError({"users": "There are users already; an owner adds others."})
        return {"link": f"{office.url}/setup/{token}"}


class PasswordLink(_Command):
    """Make a link by which a user sets a new password."""

    name: str

    def perform(self, office: Office) -> Any:
        token = _there(office.invitations).password(self.name, by=self.by)
        return {"link": f"{office.url}/password/{token}", "hours": RESET_HOURS}


class RotateKeys(_Command):
    """Make a new sealing key and seal every secret again."""

    forget_old: bool = False

    def perform(self, office: Office) -> Any:
        key, secrets = _there(office.vault).rotate(by=self.by, forget_old=self.forget_old)
        return {"key": key, "secrets": secrets}


class DisableUser(_Command):
    """Keep a user from logging in, or let them again."""

    name: str
    disabled: bool = True

    def perform(self, office: Office) -> Any:
        change = office.users.disable if self.disabled else office.users.enable
        change(self.name, by=self.by)


class AddKey(_Command):
    """Make an API key; it is shown this once."""

    owner: str
    scope: Scope = Scope.READ
    label: str = ""

    def perform(self, office: Office) -> Any:
        key, plain = office.users.add_key(self.owner, scope=self.scope, label=self.label, by=self.by)
        return {"key": plain, "id": key.id, "scope": key.scope}


class ListKeys(_Command):
    """List a user's API keys, without the keys themselves."""

    owner: str

    def perform(self, office: Office) -> Any:
        return [{"id": k.id, "scope": k.scope, "label": k.label} for k in office.users.keys(self.owner)]


class RevokeKey(_Command):
    """End an API key."""

    owner: str
    id: str

    def perform(self, office: Office) -> Any:
        office.users.revoke_key(self.id, owner=self.owner, by=self.by)


class AddAccount(_Command):
    """Make a broker account; its feed starts at once when the service runs."""

    id: str
    broker: str
    owner: str
    credentials: dict[str, str]
    title: str = ""
    addresses: dict[str, str] = field(default_factory=dict)
    allow_plaintext: bool = False

    def perform(self, office: Office) -> Any:
        self._check(office)
        account = office.accounts.add(
            self.id,
            broker=self.broker,
            owner=self.owner,
            credentials=self.credentials,
            title=self.title,
            addresses=self.addresses,
            allow_plaintext=self.allow_plaintext,
            by=self.by,
        )
        if office.fleet is not None:
            office.fleet.add(account.id)
        return _described(account, office)

    def _check(self, office: Office) -> None:
        kind = office.brokers.get(self.broker)
        problems = {
            f.name: f"{kind.title} needs {f.label} ({f.name})."
            for f in kind.credential_fields
            if f.required and not f.default and not self.credentials.get(f.name)
        }
        known = {f.name for f in (*kind.credential_fields, *kind.address_fields)}
        problems |= {
            name: f"{kind.title} knows no {name}; it takes {', '.join(sorted(known))}."
            for name in {*self.credentials, *self.addresses} - known
        }
        if problems:
            raise InvalidRequestError(problems)


class ListAccounts(_Command):
    """List the broker accounts and how fresh each is."""

    def perform(self, office: Office) -> Any:
        return [_described(account, office) for account in office.accounts.all()]


class AskHostLine(_Command):
    """The part in a host application hands its logins over and asks for news (core/hosts.py)."""

    asked: FromHost

    def perform(self, office: Office) -> Any:
        return _there(office.hosts).take(self.asked)


class LeaveHostLine(_Command):
    """A host application's process says good-bye."""

    user: str
    instance: str

    def perform(self, office: Office) -> Any:
        _there(office.hosts).leave(self.user, self.instance)


class SharedApps(_Command):
    """List the accounts that share an app key although it allows one login."""

    def perform(self, office: Office) -> Any:
        return shared_apps(office.accounts, office.brokers, _there(office.database))


class FedElsewhere(_Command):
    """List what is not ours: a host that does not hear us, and accounts that another orderwire of this machine feeds.

    A running service says it of each account itself.
    """

    def perform(self, office: Office) -> Any:
        host = {"host": office.hosts.wrong} if office.hosts is not None and office.hosts.wrong else {}
        if office.fleet is not None:
            return host
        fed = fed_elsewhere(office.accounts, office.brokers)
        return host | {f"account {account}": why for account, why in fed.items()}


class RemoveAccount(_Command):
    """End an account's feed and forget its secrets; its orders stay."""

    id: str

    def perform(self, office: Office) -> Any:
        if office.fleet is not None:
            office.fleet.remove(AccountId(self.id))
        office.accounts.remove(self.id, by=self.by)


class EraseAccount(_Command):
    """Delete everything kept of an account that was removed."""

    id: str

    def perform(self, office: Office) -> Any:
        account = AccountId(self.id)
        rows = office.accounts.erase(account, by=self.by)
        if office.book is not None:
            office.book.forget(account)
        return {"rows": rows}


class LoginAccount(_Command):
    """Log an account in to its broker; without a grant, say where the user has to go, if anywhere."""

    id: str
    grant: dict[str, str] = field(default_factory=dict)

    def perform(self, office: Office) -> Any:
        fleet, account = office.running_fleet(), AccountId(self.id)
        url = fleet.login_url(account, state="cli")
        if url is not None and not self.grant:
            return {"login_url": url}
        session = fleet.login(account, self.grant)
        return {"user_id": session.user_id, "expires_at": session.expires_at}


class CheckAccount(_Command):
    """Ask an account's broker its first-day questions; `seconds`: how long the running stream is watched."""

    id: str
    seconds: float = 30.0

    def perform(self, office: Office) -> Any:
        return office.running_fleet().check_up(AccountId(self.id), seconds=self.seconds)


class PlaceOrder(_Command):
    """Place an order for an account."""

    account: str
    order: OrderRequest
    idempotency_key: str = ""

    def perform(self, office: Office) -> Any:
        return office.running_desk().place(
            AccountId(self.account), self.order, idempotency_key=self.idempotency_key
        )


class ModifyOrder(_Command):
    """Ask for new terms of an order."""

    account: str
    order: ModifyRequest

    def perform(self, office: Office) -> Any:
        return {"order_id": office.running_desk().modify(AccountId(self.account), self.order)}


class CancelOrder(_Command):
    """Ask for an order's cancellation."""

    account: str
    order_id: str

    def perform(self, office: Office) -> Any:
        return {"order_id": office.running_desk().cancel(AccountId(self.account), OrderId(self.order_id))}


class Status(_Command):
    """Say how the service is doing."""

    def perform(self, office: Office) -> Any:
        return office.running_station().status()


class ListAlerts(_Command):
    """List the newest alerts and notices, and the silences in force."""

    most: int = 20

    def perform(self, office: Office) -> Any:
        database = office.running_station().sources.database
        return {
            "alerts": [asdict(entry) for entry in kept_alerts.history(database, most=self.most)],
            "silences": kept_alerts.silences(database),
        }


class SilenceAlert(_Command):
    """Keep people from being told of an alert for a while; `hours` 0 ends the silence."""

    alert: str
    broker: str = ""
    hours: float = 1.0
    reason: str = ""

    def perform(self, office: Office) -> Any:
        database = office.running_station().sources.database
        if self.hours <= 0:
            return kept_alerts.unsilence(database, self.alert, broker=self.broker, by=self.by)
        until_ns = database.clock.time_ns() + int(self.hours * 3600e9)
        kept_alerts.silence(
            database,
            Silence(rule=self.alert, broker=self.broker, until_ns=until_ns, by=self.by, reason=self.reason),
        )
        return True


class ShowRollout(_Command):
    """Say what is in force, how many accounts are in, and what each cohort saw since the last decision."""

    def perform(self, office: Office) -> Any:
        return rollout_report(office.gate, office.accounts.all(), now_ns=office.gate.records.now_ns())


class SetStage(_Command):
    """Let a share of the users in."""

    stage: int
    why: str

    def perform(self, office: Office) -> Any:
        return _stepped(office, office.gate.set_stage(self.stage, who=self.by, why=self.why))


class KillRollout(_Command):
    """Stop real-time updates for everybody, now."""

    why: str

    def perform(self, office: Office) -> Any:
        return _stepped(office, office.gate.kill(who=self.by, why=self.why))


class ResumeRollout(_Command):
    """End a stop."""

    why: str

    def perform(self, office: Office) -> Any:
        return _stepped(office, office.gate.resume(who=self.by, why=self.why))


class SwitchBroker(_Command):
    """Switch one broker on or off."""

    broker: str
    on: bool
    why: str

    def perform(self, office: Office) -> Any:
        change = office.gate.switch_broker(self.broker, on=self.on, who=self.by, why=self.why)
        return _stepped(office, change)


class RolloutHistory(_Command):
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


class ChooseRealtime(_Command):
    """Opt a user in or out, or back to the pilot's draw."""

    owner: str
    choice: Choice

    def perform(self, office: Office) -> Any:
        office.users.get(self.owner)
        office.gate.choose(self.owner, self.choice, by=self.by)


class MakeReport(_Command):
    """Make the evaluation report of some days (ISO); from the first one with data to today by default."""

    since: str | None = None
    until: str | None = None

    def perform(self, office: Office) -> Any:
        records, voices = office.gate.records, _there(office.voices)
        today = records.now().astimezone(IST).date()
        begin, end = asked_days(records, self.since, self.until, today=today)
        owners = len({account.owner for account in office.accounts.all()})
        return make_report(records, voices, since=begin, until=end, owners=owners)


class ListDays(_Command):
    """List what each day brought, by broker and cohort; from the first day with data to today by default."""

    since: str | None = None
    until: str | None = None

    def perform(self, office: Office) -> Any:
        records = office.gate.records
        today = records.now().astimezone(IST).date()
        begin, end = asked_days(records, self.since, self.until, today=today)
        return daily(records, _there(office.voices), since=begin, until=end)


class ExportSurvey(_Command):
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
            for filled in _there(office.voices).filled()
        ]


class RecordAnswer(_Command):
    """Record the answer to a soft criterion."""

    question: str
    value: str

    def perform(self, office: Office) -> Any:
        _there(office.voices).record(self.question, self.value, author=self.by)


class ListFeedback(_Command):
    """List what users wrote, newest first."""

    def perform(self, office: Office) -> Any:
        return [
            {"at": said.at, "user": said.owner, "words": said.words}
            for said in _there(office.voices).feedback()
        ]


class OpenIncident(_Command):
    """Write an incident down."""

    severity: Severity
    title: str
    at: datetime | None = None

    def perform(self, office: Office) -> Any:
        return _there(office.voices).open_incident(self.severity, self.title, who=self.by, at=self.at)


class CloseIncident(_Command):
    """End an incident."""

    number: int

    def perform(self, office: Office) -> Any:
        _there(office.voices).close_incident(self.number, who=self.by)


class ListIncidents(_Command):
    """List the incidents, newest first."""

    def perform(self, office: Office) -> Any:
        return _there(office.voices).incidents()


COMMANDS: Mapping[str, type[Any]] = {
    "users.add": AddUser,
    "users.list": ListUsers,
    "users.password": SetPassword,
    "users.disable": DisableUser,
    "users.role": SetRole,
    "users.first": FirstLink,
    "users.reset": PasswordLink,
    "keys.rotate": RotateKeys,
    "apikeys.add": AddKey,
    "apikeys.list": ListKeys,
    "apikeys.revoke": RevokeKey,
    "accounts.add": AddAccount,
    "accounts.list": ListAccounts,
    "accounts.shared": SharedApps,
    "accounts.fed": FedElsewhere,
    "accounts.remove": RemoveAccount,
    "accounts.erase": EraseAccount,
    "accounts.login": LoginAccount,
    "accounts.check": CheckAccount,
    "host.take": AskHostLine,
    "host.leave": LeaveHostLine,
    "status": Status,
    "alerts.list": ListAlerts,
    "alerts.silence": SilenceAlert,
    "orders.place": PlaceOrder,
    "orders.modify": ModifyOrder,
    "orders.cancel": CancelOrder,
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


def perform(office: Office, command: str, arguments: Mapping[str, Any]) -> Any:
    """Carry out a command and return its plain (JSON-ready) result.

    Raises NotFoundError for an unknown command, InvalidRequestError for wrong arguments, and what it raises.
    """
    kind = COMMANDS.get(command)
    if kind is None:
        raise NotFoundError(f"There is no command {command!r}.")
    try:
        asked = msgspec.convert(dict(arguments), kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequestError({"arguments": str(error)}) from error
    return msgspec.to_builtins(asked.perform(office))


def ask(path: Path, command: str, arguments: Mapping[str, Any], *, patience: float = 60.0) -> Any:
    """Have the running service carry out a command, over its control socket at `path`, within `patience` seconds.

    Raises OrderwireError with the service's words, httpx2.ConnectError when no service listens.
    """
    transport = httpx2.HTTPTransport(uds=str(path))
    with httpx2.Client(
        transport=transport, timeout=httpx2.Timeout(patience, connect=2.0), trust_env=False
    ) as client:
        reply = client.post(f"http://localhost/control/{command}", content=msgspec.json.encode(arguments))
    answer = reply.raise_for_status().json()
    if answer["status"] != "success":
        raise OrderwireError(answer["message"])
    return answer["result"]


def blueprint(office: Callable[[], Office]) -> Blueprint:
    """Serve the commands to whoever may open the control socket; to the network they do not exist."""
    routes = Blueprint("control", __name__, url_prefix="/control")

    @routes.before_request
    def only_from_the_control_socket() -> None:
        connection = request.environ.get("gunicorn.socket")
        if getattr(connection, "family", None) != socket.AF_UNIX:
            abort(404)

    @routes.post("/<command>")
    def carry_out(command: str) -> Response:
        try:
            arguments = msgspec.json.decode(request.get_data() or b"{}", type=dict[str, Any])
            answer = {"status": "success", "result": perform(office(), command, arguments)}
        except OrderwireError as error:
            answer = {"status": "error", "error": type(error).__name__, "message": str(error)}
        except msgspec.DecodeError as error:
            answer = {"status": "error", "error": "InvalidRequestError", "message": str(error)}
        return Response(msgspec.json.encode(answer), mimetype="application/json")

    return routes


def _there(part: T | None) -> T:
    """Return a part of the office. Raises ConfigurationError where there is none."""
    if part is None:
        raise ConfigurationError("This command is not available here.")
    return part


def _stepped(office: Office, change: RolloutChange | None) -> dict[str, Any]:
    return {"changed": change is not None, "now": office.gate.rollout.described()}


def _described(account: Account, office: Office) -> dict[str, Any]:
    status = office.fleet.status(account.id) if office.fleet else None
    expires: datetime | None = account.session_expires
    return {
        "id": account.id,
        "broker": account.broker,
        "title": account.title,
        "owner": account.owner,
        "session_user": account.session_user,
        "session_expires": expires.isoformat() if expires else None,
        "freshness": status.freshness if status else None,
        "detail": status.detail if status else "the service does not run",
        "postback_path": f"/postback/{account.broker}/{account.postback_segment}",
        "addresses": dict(account.addresses),
    }
