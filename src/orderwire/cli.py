"""The command line: what an operator types."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, NoReturn

import httpx2
import typer
from rich.table import Table

from orderwire import access, duty, keeping, reporting, roles, service, serving, trading
from orderwire.brokers.checklist import Finding
from orderwire.brokers.registry import load_brokers
from orderwire.config import Settings
from orderwire.console import DataDir, err, operate, out, print_table, read_settings
from orderwire.core.calendar import expiry_notice
from orderwire.core.orders import IST
from orderwire.errors import ConfigurationError, OrderwireError
from orderwire.feeds.market import load_calendar
from orderwire.piloting import rollout_app
from orderwire.store.users import Role, Scope
from orderwire.web import assets

app = typer.Typer(
    help="Tells a trader what happened to an order at the broker.", no_args_is_help=True, add_completion=False
)
users_app = typer.Typer(help="People who log in.", no_args_is_help=True)
accounts_app = typer.Typer(help="Accounts at brokers.", no_args_is_help=True)
keys_app = typer.Typer(help="Keys for programs.", no_args_is_help=True)
app.add_typer(users_app, name="users")
app.add_typer(accounts_app, name="accounts")
app.add_typer(keys_app, name="apikeys")
app.add_typer(duty.alerts_app, name="alerts")
app.command()(duty.status)
app.add_typer(access.keys_app, name="keys")
for command in (access.first, access.reset, access.role):
    users_app.command()(command)
app.add_typer(rollout_app, name="rollout")

PortOption = Annotated[int | None, typer.Option("--port", help="Port of the web server (ORDERWIRE_PORT).")]
HostOption = Annotated[str | None, typer.Option("--host", help="Address to listen on (ORDERWIRE_HOST).")]


def main() -> None:
    """Run the command line; what orderwire says went wrong is one clear line and exit code 1."""
    if sys.version_info < (3, 11):  # noqa: UP036 - pip refuses it, a copied folder does not
        _fail(f"orderwire needs Python 3.11 or newer; this is {platform.python_version()}.")
    try:
        app()
    except OrderwireError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    err.print(f"orderwire: {message}", style="red", markup=False)
    raise SystemExit(1)


app.add_typer(keeping.app)
app.add_typer(trading.app)
app.add_typer(reporting.app)
app.add_typer(roles.app)


# --- the service --------------------------------------------------------------------------------------


@app.command()
def init(
    data_dir: DataDir = None,
    admin: Annotated[str, typer.Option(help="Name of the first administrator.")] = "admin",
    password: Annotated[str | None, typer.Option(help="Its password; asked for when left out.")] = None,
    later: Annotated[
        bool,
        typer.Option("--later", help="Make the first administrator in the browser: serve prints the link."),
    ] = False,
) -> None:
    """Make the data folder, its key, the database and the first administrator. Harmless when they exist."""
    settings = read_settings(data_dir)
    made = service.make_data_folder(settings)
    records = service.open_records(settings)
    try:
        if not records.users.count() and not later:
            secret = password or typer.prompt("Password", hide_input=True, confirmation_prompt=True)
            records.users.add(admin, secret, role=Role.OWNER)
            out.print(f"Made the owner [bold]{admin}[/].")
    finally:
        records.database.close()
    out.print(
        f"{'Made' if made else 'Found'} {settings.data_dir.absolute()}. Keep a copy of {service.KEY_FILE}:"
    )
    out.print("without it, the brokers' credentials in the database cannot be opened.")


@app.command()
def serve(
    data_dir: DataDir = None,
    host: HostOption = None,
    port: PortOption = None,
    make: Annotated[
        bool, typer.Option("--make", help="Make the data folder first, where there is none.")
    ] = False,
) -> None:
    """Run the service until Ctrl-C or TERM."""
    settings = read_settings(data_dir, host=host, port=port)
    if make:
        service.make_data_folder(settings)
    serving.serve(settings)


@app.command()
def demo(
    port: Annotated[int, typer.Option(help="Port of the page.")] = 5080,
    data_dir: Annotated[Path, typer.Option(help="Where the demo keeps its data.")] = Path("demo-data"),
    orders_per_minute: Annotated[float, typer.Option(min=0, max=600, help="Flow of orders; 0 = none.")] = 12,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the data of earlier demos.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the simulated market and of the flow.")] = 1,
    sim_port: Annotated[
        int, typer.Option(help="First of the three ports of the simulators (control, Kite, XTS).")
    ] = 8100,
) -> None:
    """Run both simulated brokers, the service, demo users and a gentle flow of orders."""
    from orderwire.demo import Demo, DemoPlan  # noqa: PLC0415 - only this command needs it

    plan = DemoPlan(
        port=port,
        data_dir=data_dir,
        orders_per_minute=orders_per_minute,
        fresh=fresh,
        seed=seed,
        sim_port=sim_port,
    )
    raise SystemExit(Demo(plan, console=out).run())


# --- people -------------------------------------------------------------------------------------------


@users_app.command("add")
def users_add(
    name: str,
    role: Annotated[Role, typer.Option(help="What the user may do.")] = Role.TRADER,
    password: Annotated[str | None, typer.Option(help="Asked for when left out.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a user."""
    secret = password or typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    made = operate(read_settings(data_dir), "users.add", name=name, password=secret, role=role)
    out.print(f"Made the {made['role']} [bold]{made['name']}[/].")


@users_app.command("list")
def users_list(data_dir: DataDir = None) -> None:
    """List the users."""
    rows = operate(read_settings(data_dir), "users.list")
    print_table(("name", "role", "disabled"), rows)


@users_app.command("password")
def users_password(
    name: str,
    password: Annotated[str | None, typer.Option(help="Asked for when left out.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Change a user's password; the user's sessions end."""
    secret = password or typer.prompt("New password", hide_input=True, confirmation_prompt=True)
    operate(read_settings(data_dir), "users.password", name=name, password=secret)
    out.print(f"Changed. {name} has to log in again.")


@users_app.command("disable")
def users_disable(name: str, data_dir: DataDir = None) -> None:
    """Keep a user from logging in."""
    operate(read_settings(data_dir), "users.disable", name=name, disabled=True)


@users_app.command("enable")
def users_enable(name: str, data_dir: DataDir = None) -> None:
    """Let a user log in again."""
    operate(read_settings(data_dir), "users.disable", name=name, disabled=False)


# --- programs -----------------------------------------------------------------------------------------


@keys_app.command("add")
def keys_add(
    owner: str,
    scope: Annotated[Scope, typer.Option(help="What the key may do.")] = Scope.READ,
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Make an API key for a user; it is shown this once."""
    made = operate(read_settings(data_dir), "apikeys.add", owner=owner, scope=scope, label=label)
    out.print(f"{made['key']}", soft_wrap=True, highlight=False)
    err.print(f"Key {made['id']} of {owner}, scope {made['scope']}. It is not shown again.")


@keys_app.command("list")
def keys_list(owner: str, data_dir: DataDir = None) -> None:
    """List a user's API keys."""
    print_table(("id", "scope", "label"), operate(read_settings(data_dir), "apikeys.list", owner=owner))


@keys_app.command("revoke")
def keys_revoke(owner: str, key_id: str, data_dir: DataDir = None) -> None:
    """End an API key."""
    operate(read_settings(data_dir), "apikeys.revoke", owner=owner, id=key_id)


# --- accounts -----------------------------------------------------------------------------------------


@accounts_app.command("add")
def accounts_add(
    broker: Annotated[str, typer.Argument(help="zerodha, jainam, or another installed broker.")],
    owner: Annotated[str, typer.Option(help="The user whose account it is.")],
    account_id: Annotated[str, typer.Option("--id", help="Its id; <broker>-<owner> when left out.")] = "",
    credential: Annotated[
        list[str] | None,
        typer.Option("--set", help="A credential or address: name=value; asked for otherwise."),
    ] = None,
    allow_plaintext: Annotated[
        bool,
        typer.Option("--allow-plaintext", help="Accept plain http/ws to this broker. Shown as a warning."),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Add an account. Every host, port and path of a broker can be set: --set name=value."""
    settings = read_settings(data_dir)
    kind = load_brokers().get(broker)
    given = dict(_pair(text) for text in credential or [])
    credentials = {
        f.name: given.pop(f.name) if f.name in given else _prompt(f.label, secret=f.secret)
        for f in kind.credential_fields
        if f.name in given or (f.required and not f.default)
    }
    made = operate(
        settings,
        "accounts.add",
        id=account_id or f"{broker}-{owner}",
        broker=broker,
        owner=owner,
        credentials=credentials,
        addresses=given,
        allow_plaintext=allow_plaintext,
    )
    out.print(f"Added [bold]{made['id']}[/].")
    if kind.has_postback:
        out.print(
            f"Postback path for the broker's console: {settings.url}{made['postback_path']}", soft_wrap=True
        )
    out.print(f"Log it in with: orderwire accounts login {made['id']}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigurationError(f"--set takes name=value, not {text!r}.")
    return name.strip(), value


def _prompt(label: str, *, secret: bool) -> str:
    return str(typer.prompt(label, hide_input=secret))


@accounts_app.command("list")
def accounts_list(data_dir: DataDir = None) -> None:
    """List the accounts and how fresh each is."""
    rows = operate(read_settings(data_dir), "accounts.list")
    print_table(("id", "broker", "owner", "session_user", "session_expires", "freshness", "detail"), rows)


@accounts_app.command("login")
def accounts_login(
    account_id: str,
    redirect: Annotated[
        str | None,
        typer.Option(help="The address the broker's login page sent you to; asked for when needed."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Log an account in to its broker (the service has to run)."""
    settings = read_settings(data_dir)
    answer = operate(settings, "accounts.login", id=account_id, grant=_grant(redirect) if redirect else {})
    if "login_url" in answer:
        out.print("Open this address, log in, and paste the address you are sent to:")
        out.print(answer["login_url"], soft_wrap=True, highlight=False)
        answer = operate(settings, "accounts.login", id=account_id, grant=_grant(typer.prompt("Address")))
    out.print(f"Logged in as [bold]{answer['user_id']}[/], until {answer['expires_at'] or 'further notice'}.")


def _grant(redirect: str) -> dict[str, str]:
    grant = dict(httpx2.URL(redirect.strip()).params)
    if not grant:
        raise ConfigurationError("That address carries no login; copy the whole address from the browser.")
    return grant


@accounts_app.command("remove")
def accounts_remove(
    account_id: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDir = None,
) -> None:
    """End an account's feed and forget its secrets; its orders stay."""
    if not yes:
        typer.confirm(f"Forget the credentials of {account_id}?", abort=True)
    operate(read_settings(data_dir), "accounts.remove", id=account_id)
    out.print(f"Removed {account_id}.")


# --- looking at it ------------------------------------------------------------------------------------


@app.command()
def doctor(
    broker: Annotated[
        str, typer.Argument(help="Ask this broker its first-day questions instead; places nothing.")
    ] = "",
    account: Annotated[str, typer.Option(help="With a broker: this account alone.")] = "",
    seconds: Annotated[
        float, typer.Option(min=0, max=3600, help="With a broker: how long its stream is watched.")
    ] = 30,
    data_dir: DataDir = None,
) -> None:
    """Look at everything and say what is wrong; exit code 1 when something is."""
    settings = read_settings(data_dir)
    if broker:
        _first_day(settings, broker, account=account, seconds=seconds)
        return
    table = Table("check", "result", "what to do", box=None)
    wrong = 0
    for name, ok, detail in _findings(settings):
        wrong += not ok
        table.add_row(name, "[green]ok[/]" if ok else "[red]wrong[/]", detail)
    out.print(table)
    if wrong:
        raise SystemExit(1)


def _first_day(settings: Settings, broker: str, *, account: str, seconds: float) -> None:
    from orderwire import doctor as checks  # noqa: PLC0415 - only this command needs it

    told: list[bool] = []

    def tell(account: str, finding: Finding) -> None:
        told.append(finding.ok)
        word = "[green]ok   [/]" if finding.ok else "[red]wrong[/]"
        out.print(f"{word} {account}  [bold]{finding.name}[/]", end="  ")
        out.print(finding.detail, markup=False, highlight=False, soft_wrap=True)

    checks.first_day(settings, broker, account=account, seconds=seconds, tell=tell)
    if not all(told):
        raise SystemExit(1)


def _findings(settings: Settings) -> Iterator[tuple[str, bool, str]]:
    yield "Python", sys.version_info >= (3, 11), platform.python_version()
    pages = assets.BUILD
    yield "pages", pages.is_dir(), "built" if pages.is_dir() else "run: make pages"
    brokers = load_brokers()
    for name, kind in brokers.classes.items():
        yield f"broker {name}", True, f"API {kind.api_version or 'unversioned'}"
    for name, why in brokers.failures.items():
        yield f"broker {name}", False, why
    yield from _calendar_findings(settings)
    yield from _record_findings(settings)


def _calendar_findings(settings: Settings) -> Iterator[tuple[str, bool, str]]:
    try:
        calendar = load_calendar(settings.market_calendar)
    except ConfigurationError as error:
        yield "market calendar", False, str(error)
        return
    today = datetime.now(IST).date()
    notice = expiry_notice(calendar, today)
    known = notice.text if notice is not None else f"holidays known through {calendar.known_through:%d %B %Y}"
    yield "market calendar", calendar.days_left(today) >= 0, known


def _record_findings(settings: Settings) -> Iterator[tuple[str, bool, str]]:
    try:
        accounts = operate(settings, "accounts.list")
    except OrderwireError as error:
        yield "data folder", False, str(error)
        return
    yield "data folder", True, str(settings.data_dir.absolute())
    for account, why in operate(settings, "accounts.shared").items():
        yield f"account {account}", False, why
    for what, why in operate(settings, "accounts.fed").items():
        yield what, False, why
    for account in accounts:
        freshness = account["freshness"]
        fine = freshness in {None, "LIVE", "MANUAL", "RECONCILING"}
        yield (
            f"account {account['id']}",
            fine,
            f"{freshness or 'not running'}: {account['detail']}".rstrip(": "),
        )
        plain = [a for a in account["addresses"].values() if a.startswith(("http://", "ws://"))]
        if plain:
            yield f"account {account['id']}", True, f"warning: not encrypted: {', '.join(plain)}"
