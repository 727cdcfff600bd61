"""The application that orderwire is at home in (OpenAlgo): takes its logins over, and tells it what changed.

One process of one host is told of a user's accounts. It either asks here, over the control socket, or is posted to
(`web/hostposts.py`); both speak the two messages of `core/hosts.py`.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from orderwire.brokers.adapter import FOLLOWS, AccountProfile, BrokerAdapter, BrokerSession
from orderwire.brokers.registry import BrokerRegistry
from orderwire.clock import Clock
from orderwire.core.events import Event, EventType
from orderwire.core.hosts import (
    GONE_AFTER,
    MOST_TOLD,
    PROTOCOL,
    FromHost,
    HostLogin,
    HostState,
    Place,
    ToHost,
    Told,
    app_mark,
    mark,
    problems_of,
    protocol_problem,
)
from orderwire.core.lifecycle import OrderChange
from orderwire.core.orders import AccountId
from orderwire.core.recovery import FeedStatus, Freshness
from orderwire.engine import EventEngine
from orderwire.errors import (
    BrokerUnreachableError,
    ConfigurationError,
    FedElsewhereError,
    InvalidRequestError,
    NotFoundError,
    OrderwireError,
)
from orderwire.feeds.fleet import FeedAccount, Fleet
from orderwire.feeds.seats import names_of, of_this_machine
from orderwire.store import hosts as kept
from orderwire.store import outbox
from orderwire.store.accounts import Account, Accounts
from orderwire.store.database import Database
from orderwire.store.users import Users
from orderwire.web import payloads

_log = structlog.get_logger(__name__)

BY: Final = "host"
"""Who did it, in the audit."""

KEY_LABEL: Final = "the host's own key"

ASK_AGAIN: Final = 5.0
"""Seconds after which a token is handed over again when the broker could not be reached."""

_PASSING: Final = (BrokerUnreachableError, FedElsewhereError, TimeoutError, NotFoundError, RuntimeError)
"""Why a login is not used now, and may be later."""

_NAME = re.compile(r"[^a-z0-9._@-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTools:
    """What the line works with."""

    database: Database
    users: Users
    accounts: Accounts
    brokers: BrokerRegistry
    fleet: Callable[[], Fleet]
    clock: Clock
    version: str
    url: str
    home: str = ""
    """Which service this is, in words for the host's operator."""


@dataclass(slots=True)
class _Holder:
    """Which process of which host is told of a user's accounts."""

    host: str
    instance: str
    seen: float


@dataclass(slots=True)
class _Wanted:
    """A token that is to be used, and what became of it."""

    token: str
    asked: bool = False
    again_at: float = 0.0
    problem: str = ""


@dataclass(slots=True)
class _Handed:
    """What one user's host handed over."""

    state_mark: str
    problems: list[str] = field(default_factory=list)
    wanted: dict[AccountId, _Wanted] = field(default_factory=dict)


class HostLine:
    """Speaks with the hosts. `ring` and `on_timer` run on the dispatcher, the rest on the web's threads."""

    def __init__(self, tools: HostTools) -> None:
        self._tools = tools
        self._service = secrets.token_hex(4)
        self.process = os.getpid()
        self.trouble = ""
        """Why the host that is posted to does not hear us, empty while it does; written by the lane that posts."""
        self._refused = ""
        """Why the host follows another service, empty while it does not."""
        self._bell = threading.Condition()  # guards all below
        self._rung = 0
        self._closed = False
        self._holders: dict[str, _Holder] = {}
        self._handed: dict[str, _Handed] = {}
        self._kept: dict[str, dict[str, Place]] = {}

    def attach(self, engine: EventEngine) -> None:
        """Register with the engine; before it starts."""
        engine.register(EventType.ORDER_CHANGED, self.ring)
        engine.register(EventType.FEED_STATUS, self.ring)
        engine.register(EventType.TIMER, self.on_timer)

    def ring(self, event: Event) -> None:  # noqa: ARG002 - the engine's signature
        """There is something to tell."""
        self._ring()

    def on_timer(self, event: Event) -> None:  # noqa: ARG002 - the engine's signature
        """Hand over again what a broker that was away has not taken yet."""
        now = self._tools.clock.monotonic()
        with self._bell:
            due = [
                (user, account)
                for user, handed in self._handed.items()
                for account, wanted in handed.wanted.items()
                if not wanted.asked and wanted.again_at <= now
            ]
        for user, account in due:
            self._hand_over(user, account)

    def close(self) -> None:
        """Let everybody who waits go: the service stops."""
        with self._bell:
            self._closed = True
            self._bell.notify_all()

    # --- the host asks --------------------------------------------------------------------------------

    def take(self, asked: FromHost) -> ToHost:
        """Take over what the host hands over, and tell what happened since; waits for news up to `asked.wait`.

        Raises ConfigurationError for another protocol, or when another process is told of this user's accounts.
        """
        user = self.admit(asked)
        with self._bell:
            rung = self._rung
        told = self.news(user, asked.places)
        if not told.events and told.state_mark == asked.state_mark and self._wait(rung, asked.wait):
            told = self.news(user, asked.places)
        self._hold(asked, user)
        return told

    def admit(self, asked: FromHost) -> str:
        """Check who asks and take its state over; returns the user's name here. Raises ConfigurationError."""
        problem = protocol_problem(ours=self._tools.version, theirs=asked.version, protocol=asked.protocol)
        if problem:
            raise ConfigurationError(problem)
        user = name_of(asked.user)
        self._hold(asked, user)
        if asked.state is not None:
            self._settle(user, asked.state)
        return user

    @property
    def wrong(self) -> str:
        """Why the host gives us no login, empty while it does."""
        return self._refused or self.trouble

    def refuse(self, why: str) -> None:
        """The host follows another service (empty: it does not any more): what uses its login is fed by that one."""
        if why == self._refused:
            return
        self._refused = why
        for account in self._tools.accounts.all():
            if self._tools.accounts.credentials(account.id).get("session") == FOLLOWS:
                self._tools.fleet().add(account.id)

    def leave(self, user: str, instance: str) -> None:
        """Note that a host's process says good-bye: another may come at once."""
        with self._bell:
            holder = self._holders.get(name_of(user))
            if holder is not None and holder.instance == instance:
                del self._holders[name_of(user)]

    def _hold(self, asked: FromHost, user: str) -> None:
        now = self._tools.clock.monotonic()
        with self._bell:
            holder = self._holders.get(user)
            others = holder is not None and holder.instance != asked.instance
            if holder is not None and others and now - holder.seen < GONE_AFTER:
                raise ConfigurationError(
                    f"The accounts of {user} are told to {holder.host} ({holder.instance}) already; "
                    f"{asked.host} ({asked.instance}) is not told of them. Stop one of the two."
                )
            self._holders[user] = _Holder(asked.host, asked.instance, now)

    def _wait(self, rung: int, seconds: float) -> bool:
        with self._bell:
            return self._bell.wait_for(
                lambda: self._rung != rung or self._closed, max(0.0, min(seconds, 30.0))
            )

    def _ring(self) -> None:
        with self._bell:
            self._rung += 1
            self._bell.notify_all()

    # --- telling --------------------------------------------------------------------------------------

    def news(self, user: str, places: Mapping[str, Place]) -> ToHost:
        """Return what the host of a user does not know yet, `places` being where it stands; at most a portion.

        Where a log cannot be continued, or was never told, everything of the account comes as a `snapshot`.
        """
        tools = self._tools
        known = dict(places) or self._remembered(user)
        statuses = {status.account: status for status in tools.fleet().statuses()}
        mine = tools.accounts.of_owner(user)
        events: list[Told] = []
        reached: dict[str, Place] = {a.id: known[a.id] for a in mine if a.id in known}
        for account in mine:
            if len(events) < MOST_TOLD:
                told, place = self._news_of(account.id, known.get(account.id), statuses.get(account.id))
                events += told
                reached[account.id] = place
        if not events and places:
            self._remember(user, reached)
        with self._bell:
            handed = self._handed.get(user)
            problems = [*handed.problems, *(w.problem for w in handed.wanted.values())] if handed else []
        return ToHost(
            protocol=PROTOCOL,
            version=tools.version,
            service=self._service,
            home=tools.home,
            process=self.process,
            state_mark=handed.state_mark if handed else "",
            events=events,
            places=reached,
            accounts=[self._described(account, statuses.get(account.id)) for account in mine],
            problems=problems_of(problems),
            url=tools.url,
        )

    def _news_of(
        self, account: AccountId, place: Place | None, status: FeedStatus | None
    ) -> tuple[list[Told], Place]:
        database = self._tools.database
        if place is not None:
            epoch, head = outbox.head(database, account)
            behind = head - place.sequence if epoch == place.epoch else -1
            if behind == 0:
                return [], place
            changes = outbox.changes_since(
                database, account, epoch=place.epoch, sequence=place.sequence, most=10 * MOST_TOLD
            )
            if changes:
                portion = changes[:MOST_TOLD]
                return [_told(change) for change in portion], Place(place.epoch, portion[-1].sequence)
            if changes is not None:
                return [], place
        held = outbox.snapshot(database, account)
        fields = payloads.snapshot_fields(
            account,
            epoch=held.epoch,
            sequence=held.sequence,
            orders=held.orders,
            trades=held.trades,
            positions=held.positions,
            feed=status,
        )
        return [Told(name="snapshot", data=dict(fields))], Place(held.epoch, held.sequence)

    def _described(self, account: Account, status: FeedStatus | None) -> dict[str, Any]:
        feed = payloads.feed_fields(status or _not_begun(account.id))
        kind = self._tools.brokers.classes.get(account.broker)
        postback = f"/postback/{account.broker}/{account.postback_segment}"
        return feed | {
            "broker": account.broker,
            "owner": account.owner,
            "session_user": account.session_user,
            "postback_path": postback if kind is not None and kind.has_postback else "",
        }

    def _remembered(self, user: str) -> dict[str, Place]:
        with self._bell:
            if user in self._kept:
                return self._kept[user]
        places = kept.places(self._tools.database, user)
        with self._bell:
            return self._kept.setdefault(user, places)

    def _remember(self, user: str, places: dict[str, Place]) -> None:
        """Write down how far the host is, once it has taken everything: a burst costs one row."""
        if self._remembered(user) != places:
            kept.keep_places(self._tools.database, user, places)
            with self._bell:
                self._kept[user] = places

    # --- taking over ----------------------------------------------------------------------------------

    def _settle(self, user: str, state: HostState) -> None:
        handed = _Handed(mark(state))
        try:
            self._make_user(user)
            kept.keep_apps(self._tools.database, user, self._apps(state.logins))
            if state.api_key:
                self._tools.users.adopt_key(user, state.api_key, label=KEY_LABEL, by=BY)
        except OrderwireError as error:
            handed.problems.append(str(error))
        for login in state.logins:
            try:
                account = self._account_of(user, login)
            except OrderwireError as error:
                handed.problems.append(str(error))
            else:
                if account is not None:
                    handed.wanted[account] = _Wanted(login.token)
        with self._bell:
            self._keep_what_is_in_use(self._handed.get(user), handed)
            self._handed[user] = handed
        for account in handed.wanted:
            self._hand_over(user, account)

    def _keep_what_is_in_use(self, before: _Handed | None, now: _Handed) -> None:
        """Only a real change of a token may disturb a feed."""
        for account, wanted in now.wanted.items():
            was = before.wanted.get(account) if before else None
            if was is not None and was.token == wanted.token:
                now.wanted[account] = was

    def _make_user(self, user: str) -> None:
        if self._is_known(user):
            return
        try:
            self._tools.users.add(user, secrets.token_urlsafe(24), by=BY)
        except (
            InvalidRequestError
        ):  # a question of the host that it gave up waiting for has made it meanwhile
            if not self._is_known(user):
                raise

    def _is_known(self, user: str) -> bool:
        try:
            self._tools.users.get(user)
        except NotFoundError:
            return False
        return True

    def _apps(self, logins: Sequence[HostLogin]) -> dict[str, str]:
        return {login.broker: app_mark(login.broker, login.app_key) for login in logins}

    def _account_of(self, user: str, login: HostLogin) -> AccountId | None:
        """Return the account that is to use this login, made or changed where needed; None: none is to.

        Raises ConfigurationError where it cannot be used.
        """
        kind = self._tools.brokers.classes.get(login.broker)
        if kind is None or not all(kind.app_fields):
            raise ConfigurationError(
                f"The host is logged in to {login.broker or 'no broker'}, which orderwire does not know: its order "
                "updates stay the host's."
            )
        mine = [account for account in self._tools.accounts.of_owner(user) if account.broker == login.broker]
        for account in mine:
            held = self._tools.accounts.credentials(account.id)
            if held.get("session") == FOLLOWS:
                self._change(account, held, kind, login)
                return account.id
        if mine:
            self._restart_refused(mine)
            return None
        return self._make(user, kind, login)

    def _make(self, user: str, kind: type[BrokerAdapter], login: HostLogin) -> AccountId:
        key, secret = kind.app_fields
        missing = [
            what for what, given in (("key", login.app_key), ("secret", login.app_secret)) if not given
        ]
        if missing:
            raise ConfigurationError(
                f"The host gave no app {' and no '.join(missing)} for {kind.title} (BROKER_API_KEY, "
                "BROKER_API_SECRET): nothing can be followed there."
            )
        made = self._tools.accounts.add(
            f"{login.broker}-{re.sub('[^a-z0-9_-]', '-', user)}"[:40],
            broker=login.broker,
            owner=user,
            credentials={key: login.app_key, secret: login.app_secret, "session": FOLLOWS},
            addresses=login.addresses,
            by=BY,
        )
        self._tools.fleet().add(made.id)
        return made.id

    def _change(
        self, account: Account, held: Mapping[str, str], kind: type[BrokerAdapter], login: HostLogin
    ) -> None:
        key, secret = kind.app_fields
        wanted = {name: value for name, value in ((key, login.app_key), (secret, login.app_secret)) if value}
        new = {**held, **wanted} if {**held, **wanted} != dict(held) else None
        moved = login.addresses if login.addresses and login.addresses != dict(account.addresses) else None
        if new is not None or moved is not None:
            self._tools.accounts.change(account.id, credentials=new, addresses=moved, by=BY)
            self._tools.fleet().add(account.id)

    def _restart_refused(self, accounts: Sequence[Account]) -> None:
        """Have the fleet look again at accounts that may share the host's app key now."""
        for account in accounts:
            try:
                self._tools.fleet().adapter(account.id)
            except NotFoundError:
                continue
            if self.shares_app(account):
                self._tools.fleet().add(account.id)

    def shares_app(self, account: Account) -> str:
        """Say whose app key an account with a login of its own shares, empty when nobody's."""
        held = self._tools.accounts.credentials(account.id)
        return self._shared(account.id, account.broker, held)

    def refusal(self, account: FeedAccount) -> str:
        """Say why an account may not run: its host is another's, or each of its logins would end the host's."""
        if self._refused and account.profile.follows_host:
            return self._refused
        return self._shared(account.profile.account, account.broker, account.profile.credentials)

    def _shared(self, account: AccountId, broker: str, credentials: Mapping[str, str]) -> str:
        kind = self._tools.brokers.classes.get(broker)
        if kind is None or not kind.one_login_per_app:
            return ""
        return shared_app(account, kind, credentials=credentials, apps=kept.apps(self._tools.database))

    def _hand_over(self, user: str, account: AccountId) -> None:
        with self._bell:
            handed = self._handed.get(user)
            wanted = handed.wanted.get(account) if handed else None
            if wanted is None or wanted.asked:
                return
            wanted.asked = True

        def check(session: BrokerSession) -> None:
            self._must_be_the_only_one(account, session)

        def done(error: BaseException | None) -> None:
            self._handed_over(account, wanted, error)

        try:
            if not wanted.token:
                self._tools.accounts.clear_login(account, by=BY)
            self._tools.fleet().hand_over(account, wanted.token, check=check, done=done)
        except (OrderwireError, RuntimeError) as error:
            done(error)

    def _handed_over(self, account: AccountId, wanted: _Wanted, error: BaseException | None) -> None:
        with self._bell:
            wanted.problem = "" if error is None else f"{account}: {error or type(error).__name__}"
            if isinstance(error, _PASSING):
                wanted.asked, wanted.again_at = False, self._tools.clock.monotonic() + ASK_AGAIN
        if error is not None:
            _log.warning("login not taken over", account=account, error=str(error))
        self._ring()

    def _must_be_the_only_one(self, account: AccountId, session: BrokerSession) -> None:
        mine = self._tools.accounts.get(account)
        for other in self._tools.accounts.all():
            same = other.broker == mine.broker and other.session_user == session.user_id
            if same and other.id != account:
                raise InvalidRequestError(
                    {
                        "account": f"{session.user_id} at {mine.broker} is followed already, as {other.id} of "
                        f"{other.owner}; it is not followed twice."
                    }
                )


def shared_app(
    account: AccountId, kind: type[BrokerAdapter], *, credentials: Mapping[str, str], apps: Mapping[str, str]
) -> str:
    """Say with whose host an account shares an app key that allows one login, empty when with none."""
    if credentials.get("session") == FOLLOWS:
        return ""
    host = apps.get(app_mark(kind.name, credentials.get(kind.app_fields[0], "")))
    if host is None:
        return ""
    return (
        f"{account} logs in with the app key that the host of {host} uses: each login ends the other's. Give it a "
        f"second app key of {kind.title}, or let it follow the host's login (session=host)."
    )


def shared_apps(accounts: Accounts, brokers: BrokerRegistry, database: Database) -> dict[str, str]:
    """Return the accounts that share an app key although it allows one login, each with what to do about it."""
    hosts, found = kept.apps(database), dict[str, str]()
    owners: dict[str, str] = {}
    for account in accounts.all():
        kind = brokers.classes.get(account.broker)
        if kind is None or not kind.one_login_per_app:
            continue
        credentials = accounts.credentials(account.id)
        told = shared_app(account.id, kind, credentials=credentials, apps=hosts)
        app = app_mark(account.broker, credentials.get(kind.app_fields[0], ""))
        first = owners.setdefault(app, account.id) if credentials.get("session") != FOLLOWS else account.id
        if app and first != account.id and not told:
            told = (
                f"{account.id} and {first} log in with the same app key of {kind.title}: each login ends the "
                "other's. Each needs a key of its own."
            )
        if told:
            found[account.id] = told
    return found


def fed_elsewhere(accounts: Accounts, brokers: BrokerRegistry) -> dict[str, str]:
    """Return the accounts that an orderwire of this machine feeds, in words; asked while this one does not run."""
    machine, found = of_this_machine(), dict[str, str]()
    for account in accounts.all():
        kind = brokers.classes.get(account.broker)
        if kind is None:
            continue
        profile = AccountProfile(
            account=account.id, credentials=accounts.credentials(account.id), addresses=account.addresses
        )
        for name in names_of(kind, profile, user_id=account.session_user):
            holder = machine.holder(name)
            if holder is not None:
                found[account.id] = holder.words
    return found


def name_of(user: str) -> str:
    """Return a host user's name as a user is named here."""
    return _NAME.sub("-", user.strip().lower()).lstrip("._@-")[:64] or "host"


def _not_begun(account: AccountId) -> FeedStatus:
    """Say of an account without a feed that it has none: the same each time, for only news is told."""
    return FeedStatus(
        account=account,
        freshness=Freshness.STALE,
        since=datetime.fromtimestamp(0, UTC),
        detail="Its orders are not followed yet.",
    )


def _told(change: OrderChange) -> Told:
    stamps = payloads.stamp_fields(change.stamps)
    fields = payloads.change_fields(change) | {"previous": change.sequence - 1, "stamps": stamps}
    return Told(name=payloads.change_event(change), data=fields)
